r"""Interleaved user persona grounding: a text about a user in which itemic tokens and captions alternate.

    python -m data_builders.build_persona --data runs/demo/world --catalog runs/demo/catalog \
        --out runs/demo/corpora/persona

The text ties an item's tokens to its words in the context of a user's tastes. It is made of the training part only.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from data_builders.cards import prompt_settings
from data_builders.common import (
    ItemTexts,
    Row,
    TrainingPart,
    add_language_argument,
    build_parser,
    load_training_part,
    run_builder,
    shorten,
)
from data_builders.engine import Reject, add_engine_arguments, build_corpus
from onereason.data.prompts import PERSONA_KINDS, domain_noun, persona_templates, recency_names
from onereason.errors import ConfigError

PROMPT_SETS = ("domains", "persona")

CARD = """
A text about one user in which itemic patterns and captions alternate, grouped by domain or by recency. The wording
comes from a few templates, chosen by the seed. The loss falls on all tokens.

Only the training part of the split is read. Validation and test items appear in no row.
"""


def persona_row(
    user_id: str, history: Sequence[int], items: ItemTexts, template: int, variant: int = 0, language: str = "en"
) -> Row:
    """One row.

    Args:
        user_id: who it is about.
        history: item indices, oldest first; each has a caption.
        items: the catalog as text.
        template: position in `persona_templates`.
        variant: for the row's id, where a user has several.
        language: of the text.
    """
    wording = persona_templates(language)[template]
    lines = [wording.opening]
    for label, group in _groups(history, items, wording.grouping, language):
        lines.append(wording.heading.format(**label))
        for i in group:
            noun = domain_noun(items.domains[i], language=language)
            lines.append(wording.item.format(pattern=items.patterns[i], caption=items.captions[i], noun=noun))
    text = "\n".join(lines)
    return {
        "id": f"{user_id}:persona:{variant}",
        "task": "persona",
        "loss": "all",
        "mode": "no_think",
        "user": user_id,
        "text": text,
    }


def _groups(
    history: Sequence[int], items: ItemTexts, grouping: str, language: str
) -> list[tuple[dict[str, str], list[int]]]:
    """The groups of a persona in the order of the text: what the heading says, and the items, oldest first.

    Domains come in the order of their newest item, so that a text cut from the front keeps the newest interests.
    """
    if grouping == "domain":
        by_domain: dict[str, list[int]] = {}
        for item in history:
            by_domain[items.domains[item]] = [*by_domain.pop(items.domains[item], []), item]
        return [({"nouns": domain_noun(domain, True, language)}, group) for domain, group in by_domain.items()]
    parts = recency_names(language)
    names = parts[min(len(parts), len(history))]
    edges = [len(history) * k // len(names) for k in range(len(names) + 1)]
    return [({"when": name}, list(history[edges[k] : edges[k + 1]])) for k, name in enumerate(names)]


@dataclass(frozen=True)
class PersonaSource:
    """All rows; a unit is a user. Items without a caption are left out, users without any captioned item are rejected.

    Attributes:
        part: the training part, captions shortened.
        max_history: newest captioned items in a text.
        variants: rows a user, each by another template.
        seed: of the choice of templates.
        language: of the texts.
    """

    part: TrainingPart
    max_history: int
    variants: int
    seed: int
    language: str = "en"

    @property
    def num_units(self) -> int:
        return len(self.part.histories)

    def build(self, start: int, stop: int) -> tuple[list[Row], list[Reject]]:
        rows = []
        rejects = []
        items, captions = self.part.items, self.part.items.captions
        for user in range(start, stop):
            user_id, history = self.part.user_ids[user], self.part.histories[user].tolist()
            known = [i for i in history if captions[i]]
            if not known:
                rejects.append(Reject(user_id, "no_captioned_item" if history else "no_training_item"))
                continue
            order = list(range(len(PERSONA_KINDS)))
            random.Random(f"{self.seed}:{user}").shuffle(order)
            for variant in range(self.variants):
                newest = known[-self.max_history :]
                rows.append(persona_row(user_id, newest, items, order[variant], variant, self.language))
        return rows, rejects


def check_arguments(args: argparse.Namespace) -> None:
    """`ConfigError` for a value that makes no sense."""
    for name in ("max_history", "variants", "max_caption_chars"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}.")
    if args.variants > len(PERSONA_KINDS):
        raise ConfigError(f"--variants must be at most {len(PERSONA_KINDS)} (the templates), got {args.variants}.")
    prompt_settings(args.language, PROMPT_SETS)


def build(args: argparse.Namespace) -> None:
    check_arguments(args)
    part = load_training_part(args)
    captions = [shorten(caption, args.max_caption_chars) for caption in part.items.captions]
    part = replace(part, items=replace(part.items, captions=captions))
    build_corpus(
        args,
        PersonaSource(part, args.max_history, args.variants, args.seed, args.language),
        title="Interleaved user persona grounding",
        description=CARD,
        inputs=part.inputs,
        options=("max_history", "variants", "max_caption_chars", "split_method", "validation_start", "test_start"),
        extra=prompt_settings(args.language, PROMPT_SETS),
    )


def make_parser() -> argparse.ArgumentParser:
    parser = build_parser(__doc__, timelines=True)
    parser.add_argument("--max-history", type=int, default=20, help="newest captioned items in a text")
    parser.add_argument("--variants", type=int, default=1, help="rows a user, each by another template")
    parser.add_argument("--max-caption-chars", type=int, default=200, help="longer captions are cut at a word's end")
    add_language_argument(parser)
    add_engine_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_builder(make_parser(), build, argv)


if __name__ == "__main__":
    sys.exit(main())
