r"""Item understanding (R0): what the codes of an item say, in words, and the other way round.

    python -m data_builders.build_perception --data runs/world --catalog runs/catalog --out runs/corpora/perception

| rows of an item | question -> answer |
|---|---|
| caption | pattern -> description, as coarse as the codes (`onereason.cognition.captions`) |
| grounding | whole caption -> pattern; not for captions that stand for several sids |
| item_qa | pattern and a question about theme, brand, style, price, ... -> letter of the choice |
| item_qa | the same question without choices -> a sentence |

A share of the rows thinks: the trace reads the pattern code by code, from what the items under each prefix have in
common. Descriptions and free answers come from templates, or from a language model (`--teacher`).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_builders.cards import prompt_settings
from data_builders.cognition import add_cognition_arguments
from data_builders.common import Row, build_parser, run_builder
from data_builders.engine import Reject, add_engine_arguments, build_corpus
from data_builders.perception_rows import (
    Exercise,
    ExerciseWriter,
    PerceptionItems,
    PerceptionOptions,
    check_answer,
    exercise_row,
)
from onereason.cognition.aspects import build_aspects
from onereason.cognition.captions import (
    MAX_CHARS,
    MIN_ITEMS,
    ambiguous_captions,
    build_vocabulary,
    clean_caption,
    code_bits,
)
from onereason.cognition.facts import ItemFacts, load_item_facts
from onereason.cognition.reading import read_catalog
from onereason.cognition.teachers import TEACHER_OPTIONS, Teacher, add_teacher_arguments, teacher_from_arguments
from onereason.data.prompt_sets import PromptSet, load_prompt_set
from onereason.data.schema import ITEMS_FILE
from onereason.errors import ConfigError
from onereason.evaluation.layers.tasks.choices import LETTERS
from onereason.itemic.catalog import CATALOG_META, CATALOG_TABLE, Catalog

PROMPT_SETS = ("domains", "perception")
VOCABULARY_CAPTIONS = 200_000
"""Captions that words are counted in; of a larger catalog, every n-th."""
CARD = """
What an item is, read from its itemic pattern: descriptions, the way back from a caption to the pattern, and questions
about attributes, as a choice and in free form in equal numbers. Descriptions are as coarse as the codes: without dates,
sums of money, sizes, counts, model numbers, links, tags and rare words, and no longer than the codes' capacity in bits
allows. The loss falls on the answer, the trace included where a row thinks.

A trace reads the pattern code by code: what the items under the first code have in common, under the first two, and so
on, and what is known of the item, save what is asked. From a caption, it says what kind of item is described, and the
first code that most of that kind have where it is the answer's: it names no other. Where nothing can be said
(`trace_without_evidence`) or the answer would stand in the trace (`answer_in_trace`), the row stays and answers without
thinking. No interaction is read.
"""


@dataclass(frozen=True)
class PerceptionSource:
    """All rows; a unit is an item of the catalog."""

    items: PerceptionItems
    options: PerceptionOptions
    teacher: Teacher

    @property
    def num_units(self) -> int:
        return len(self.items.item_ids)

    def build(self, start: int, stop: int) -> tuple[list[Row], list[Reject]]:
        writer = ExerciseWriter(self.items, self.options, start, stop)
        written = [one for index in range(start, stop) for one in writer.write(index)]
        assignments = [one for one in written if isinstance(one, Exercise) and one.prompt is not None]
        drafts = iter(self.teacher.write(assignments))
        rows: list[Row] = []
        rejects: list[Reject] = []
        for one in written:
            if isinstance(one, Reject):
                rejects.append(one)
                continue
            answer: str | Reject = one.answer
            teacher = "template"
            if one.prompt is not None:
                draft, teacher = next(drafts), self.teacher.name
                if draft.text is None:
                    answer = Reject(one.id, draft.problem or "teacher_empty")
                elif self.options.asks_model:
                    answer = check_answer(one, draft.text, self.items, self.options)
                else:
                    answer = draft.text
            if isinstance(answer, Reject):
                rejects.append(answer)
                continue
            row, without_trace = exercise_row(one, answer, teacher)
            rows.append(row)
            if without_trace is not None:
                rejects.append(without_trace)
        return rows, rejects


def load_items(
    facts: ItemFacts, catalog: Catalog, prompts: PromptSet, language: str, min_items: int
) -> PerceptionItems:
    """Everything the rows show, counted once for the whole catalog."""
    aspects = build_aspects(facts, min_items, prompts.variants("price.level"))
    captions = [" ".join(caption.split()) for caption in facts.captions]
    prices: list[str | None] = [None] * len(facts)
    for aspect in aspects:
        if aspect.angle == "price":
            said = dict(zip(prompts.variants("price.level"), prompts.variants("price.words"), strict=True))
            words = [said[value] for value in aspect.values]
            prices = [None if number < 0 else words[number] for number in aspect.numbers.tolist()]
    cleaned = [clean_caption(caption, price) for caption, price in zip(captions, prices, strict=True)]
    known = [caption for caption in cleaned if caption]
    vocabulary = build_vocabulary(known[:: -(-len(known) // VOCABULARY_CAPTIONS) or 1], min_items)
    reading = read_catalog(catalog.format, catalog.codes, facts.domains, facts.patterns, aspects, prompts, language)
    domains, of_item = np.unique(np.asarray(reading.domains), return_inverse=True)
    choices: dict[tuple[str, int], list[str]] = {}
    for place, aspect in enumerate(aspects):
        for number, domain in enumerate(domains.tolist()):
            numbers = np.unique(aspect.numbers[of_item.reshape(-1) == number])
            choices[domain, place] = [aspect.values[n] for n in numbers.tolist() if n >= 0]
    return PerceptionItems(
        facts.item_ids,
        facts.domains,
        captions,
        cleaned,
        vocabulary,
        ambiguous_captions(captions, facts.patterns),
        reading,
        choices,
    )


def check_arguments(args: argparse.Namespace) -> None:
    """`ConfigError` for a value that makes no sense."""
    if not 0 <= args.think_share <= 1:
        raise ConfigError(f"--think-share must lie between 0 and 1, got {args.think_share}.")
    if args.num_questions < 0 or args.min_items < 1 or args.max_chars < 1:
        raise ConfigError(
            f"--num-questions ({args.num_questions}) must be at least 0, --min-items ({args.min_items}) and "
            f"--max-chars ({args.max_chars}) at least 1."
        )
    if not 2 <= args.num_choices <= len(LETTERS):
        raise ConfigError(f"--num-choices must lie between 2 and {len(LETTERS)}, got {args.num_choices}.")
    if args.caption_bits is not None and not args.caption_bits > 0:
        raise ConfigError(f"--caption-bits must be above 0, got {args.caption_bits}.")
    prompt_settings(args.language, PROMPT_SETS)


def build(args: argparse.Namespace) -> None:
    check_arguments(args)
    prompts = load_prompt_set("perception", args.language)
    teacher = teacher_from_arguments(args)
    catalog = Catalog.load(args.catalog)
    facts = load_item_facts(args.data, catalog, args.theme_attribute)
    bits = args.caption_bits or code_bits(catalog.format)
    options = PerceptionOptions(
        args.think_share,
        args.num_questions,
        args.num_choices,
        bits if args.captions == "coarse" else None,
        args.max_chars,
        teacher.name != "template",
        args.seed,
    )
    build_corpus(
        args,
        PerceptionSource(load_items(facts, catalog, prompts, args.language, args.min_items), options, teacher),
        title="Item understanding",
        description=CARD,
        inputs=[args.data / ITEMS_FILE, args.catalog / CATALOG_TABLE, args.catalog / CATALOG_META],
        options=(
            "captions",
            "caption_bits",
            "max_chars",
            "min_items",
            "think_share",
            "num_questions",
            "num_choices",
            "theme_attribute",
            *TEACHER_OPTIONS,
        ),
        extra=prompt_settings(args.language, PROMPT_SETS) | {"code_bits": round(bits, 2)},
    )


def make_parser() -> argparse.ArgumentParser:
    parser = build_parser(__doc__, timelines=False)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder")
    parser.add_argument("--catalog", type=Path, required=True, help="catalog folder (or a model folder)")
    parser.add_argument(
        "--captions", choices=("coarse", "full"), default="coarse", help="what a description says: as much as the codes"
    )
    parser.add_argument("--caption-bits", type=float, help="what a coarse caption may tell (default: the codes' bits)")
    parser.add_argument("--max-chars", type=int, default=MAX_CHARS, help="limit of a description or an answer")
    parser.add_argument(
        "--min-items", type=int, default=MIN_ITEMS, help="words and values of fewer items are not asked for or told"
    )
    parser.add_argument("--think-share", type=float, default=0.5, help="share of the rows that think")
    parser.add_argument(
        "--num-questions", type=int, default=1, help="attributes of an item to ask for, each in both forms"
    )
    parser.add_argument("--num-choices", type=int, default=4, help="choices of a question, where there are so many")
    add_cognition_arguments(parser)
    add_teacher_arguments(parser)
    add_engine_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_builder(make_parser(), build, argv)


if __name__ == "__main__":
    sys.exit(main())
