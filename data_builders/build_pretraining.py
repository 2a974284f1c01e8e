r"""Pre-training: what itemic tokens mean, at four granularities.

    for g in token item relational user; do
        python -m data_builders.build_pretraining --data runs/world --catalog runs/catalog \
            --granularity $g --out runs/corpora/$g
    done

| granularity | what is written |
|---|---|
| token | what leading codes mean together; how an item's meaning is put together from its tokens |
| item | captions both ways; audience, appeal, style, reasons to dislike |
| relational | item, explanation, item, ...: one hop, or an interest flow of several |
| user | histories grouped by domain, interleaved with captions, sub-chains of one interest |

Every fact is written as question and answer and in free form, one to one. `--granularity token,item` puts several into
one corpus; the task of a row is its granularity. `--balance` adds general text that takes no loss.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_builders.cards import prompt_settings
from data_builders.cognition import SPLIT_OPTIONS, add_cognition_arguments
from data_builders.common import Row, build_parser, load_training_part, run_builder
from data_builders.engine import Reject, add_engine_arguments, build_corpus
from data_builders.pretraining.balance import BalanceSection, balance_file
from data_builders.pretraining.item import ItemSection
from data_builders.pretraining.material import Material, Section
from data_builders.pretraining.relational import RelationalSection, RelationOptions
from data_builders.pretraining.token import TokenSection
from data_builders.pretraining.user import UserSection
from data_builders.training_log import load_training_log
from onereason.cognition.captions import build_vocabulary, clean_caption, code_bits
from onereason.cognition.facts import MIN_SHARED, ItemFacts, load_item_facts
from onereason.data.prompt_sets import load_prompt_set
from onereason.data.prompts import attribute_noun
from onereason.data.schema import ITEMS_FILE
from onereason.errors import ConfigError
from onereason.itemic.catalog import Catalog

GRANULARITIES = ("token", "item", "relational", "user")
SAMPLE = 500
"""Units of a section that are tried to learn how many rows it gives."""

PROMPT_SETS = ("domains", "pretraining")

CARD = """
Pre-training text about itemic patterns. Token: what leading codes mean together, and how an item's meaning is put
together from its tokens. Item: captions both ways and questions from several perspectives. Relational: item,
explanation, item. User: histories grouped by domain, interleaved with captions, and sub-chains of one interest. Each
fact stands there as question and answer (the loss falls on the answer) and in free form (the loss falls on all tokens;
in sub-chains on items only). Rows of the task `balance` take no loss.

Only the training part of the split is read. Validation and test interactions are in no row.
"""


@dataclass(frozen=True)
class PretrainingSource:
    """The units of all sections, one section after another."""

    sections: Sequence[Section]

    @property
    def num_units(self) -> int:
        return sum(section.num_units for section in self.sections)

    def build(self, start: int, stop: int) -> tuple[list[Row], list[Reject]]:
        rows: list[Row] = []
        rejects: list[Reject] = []
        end = 0
        for section in self.sections:
            begin, end = end, end + section.num_units
            for unit in range(max(start, begin), min(stop, end)):
                section.rows_of(unit - begin, rows, rejects)
        return rows, rejects


def count_rows(section: Section, sample: int = SAMPLE) -> int:
    """How many rows a section gives: counted where it has at most `sample` units, estimated from so many elsewhere."""
    units = section.num_units
    tried = range(units) if units <= sample else [units * k // sample for k in range(sample)]
    rows: list[Row] = []
    for unit in tried:
        section.rows_of(unit, rows, [])
    return round(len(rows) * units / max(len(tried), 1))


def coarse_captions(facts: ItemFacts) -> tuple[list[str], list[str]]:
    """The cleaned captions, and what the codes of an item can hold of them; one line each, empty where unknown."""
    cleaned = [clean_caption(caption) for caption in facts.captions]
    vocabulary, bits = build_vocabulary(cleaned), code_bits(facts.format)
    return cleaned, [vocabulary.coarsen(caption, bits) for caption in cleaned]


def shared_traits(facts: ItemFacts) -> list[dict[str, str]]:
    """Attribute -> value of each item, those that several items bear; of a list, the last value."""
    names, holders = facts.trait_names, facts.holders
    found = []
    for of in facts.attributes:
        values = {name: of[name][-1] for name in names if name in of}
        found.append({name: value for name, value in values.items() if holders[name, value] >= MIN_SHARED})
    return found


def load_material(args: argparse.Namespace) -> tuple[Material, list[str], list[Path]]:
    """Items and training histories, the cleaned captions, and the files they were read from."""
    part = load_training_part(args)
    log = load_training_log(args, part)
    catalog = Catalog.load(args.catalog)
    facts = load_item_facts(args.data, catalog, args.theme_attribute)
    cleaned, captions = coarse_captions(facts)
    prompts = load_prompt_set("pretraining", args.language)
    material = Material(
        format=catalog.format,
        item_ids=facts.item_ids,
        domains=facts.domains,
        patterns=facts.patterns,
        codes=catalog.codes,
        captions=captions if args.captions == "coarse" else [" ".join(text.split()) for text in facts.captions],
        themes=[" ".join(theme.split()) for theme in facts.themes],
        traits=shared_traits(facts),
        trait_nouns={name: attribute_noun(name, args.language) for name in facts.trait_names},
        user_ids=part.user_ids,
        items=log.items,
        offsets=log.offsets,
        timestamps=log.timestamps if log.has_dates else None,
        searches=None if log.queries is None else log.queries.to_list(),
        prompts=prompts,
        min_lift=args.min_lift,
        seed=args.seed,
    )
    return material, cleaned, [*part.inputs, args.data / ITEMS_FILE]


def build_sections(
    args: argparse.Namespace, wanted: Sequence[str], material: Material, texts: list[str]
) -> list[Section]:
    """The sections of the granularities that are asked for."""
    made: list[Section] = []
    for name in wanted:
        if name == "token":
            made.append(TokenSection(material, texts))
        elif name == "item":
            made.append(ItemSection(material))
        elif name == "relational":
            seconds = round(args.window_hours * 3600)
            options = RelationOptions(args.min_support, args.max_partners, seconds, args.max_hops)
            made.append(RelationalSection(material, options))
        else:
            made.append(UserSection(material, args.max_history, args.caption_share))
    return made


def check_arguments(args: argparse.Namespace) -> list[str]:
    """The granularities asked for; `ConfigError` for a value that makes no sense."""
    wanted = [name.strip() for name in args.granularity.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in GRANULARITIES]
    if unknown or not wanted or len(set(wanted)) < len(wanted):
        raise ConfigError(
            f"--granularity {args.granularity!r} must name {', '.join(GRANULARITIES)}, each at most once."
        )
    for name, low in (
        ("min_support", 1),
        ("max_partners", 1),
        ("max_hops", 2),
        ("max_history", 3),
        ("window_hours", 0),
        ("min_lift", 0),
    ):
        if not low <= getattr(args, name) < math.inf:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least {low}, got {getattr(args, name)}.")
    if not 0 <= args.caption_share <= 1:
        raise ConfigError(f"--caption-share must lie between 0 and 1, got {args.caption_share}.")
    if not 0 <= args.balance_share < 1:
        raise ConfigError(f"--balance-share must be at least 0 and below 1, got {args.balance_share}.")
    if (args.balance is None) != (args.balance_share == 0):
        raise ConfigError("--balance FILE and --balance-share belong together; give both or none.")
    prompt_settings(args.language, PROMPT_SETS)
    return wanted


def build(args: argparse.Namespace) -> None:
    wanted = check_arguments(args)
    general = None if args.balance is None else balance_file(args.balance)
    material, texts, inputs = load_material(args)
    sections = build_sections(args, wanted, material, texts)
    left_out = {f"{s.name}: {reason}": count for s in sections for reason, count in s.left_out.items() if count}
    if general is not None:
        others = sum(map(count_rows, sections))
        number = max(1, round(others * args.balance_share / (1 - args.balance_share)))
        sections.append(BalanceSection.sample(general, number, args.seed))
        inputs.append(general)
    build_corpus(
        args,
        PretrainingSource(sections),
        title=f"Pre-training: {', '.join(wanted)} granularity",
        description=CARD,
        inputs=inputs,
        options=("granularity", *OPTIONS, "theme_attribute", *SPLIT_OPTIONS),
        extra=prompt_settings(args.language, PROMPT_SETS) | {"left_out": left_out},
    )


OPTIONS = (
    "captions",
    "min_lift",
    "min_support",
    "max_partners",
    "window_hours",
    "max_hops",
    "max_history",
    "caption_share",
    "balance_share",
)


def make_parser() -> argparse.ArgumentParser:
    parser = build_parser(__doc__, timelines=True)
    parser.add_argument(
        "--granularity", default=",".join(GRANULARITIES), help="comma-separated: token,item,relational,user"
    )
    parser.add_argument("--captions", choices=("coarse", "whole"), default="coarse", help="what codes can hold, or all")
    parser.add_argument("--min-lift", type=float, default=1.5, help="of two themes that one sentence can bridge")
    parser.add_argument("--min-support", type=int, default=2, help="relational: users that show a pair of items")
    parser.add_argument("--max-partners", type=int, default=3, help="relational: pairs kept of an item and source")
    parser.add_argument("--window-hours", type=float, default=24, help="relational: of cross-domain pairs")
    parser.add_argument("--max-hops", type=int, default=4, help="relational: of an interest flow")
    parser.add_argument("--max-history", type=int, default=30, help="user: newest items in a text")
    parser.add_argument("--caption-share", type=float, default=0.3, help="user: items that stand there by caption")
    parser.add_argument("--balance", type=Path, help="general text: a corpus folder or a JSON-lines file")
    parser.add_argument("--balance-share", type=float, default=0.0, help="share of the rows that are general text")
    add_cognition_arguments(parser)
    add_engine_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_builder(make_parser(), build, argv)


if __name__ == "__main__":
    sys.exit(main())
