r"""Itemic instructions: exercises that teach to handle itemic patterns as data, in six groups.

    python -m data_builders.build_instructions --data runs/world --catalog runs/catalog \
        --num-rows 20000 --out runs/corpora/instruction

| group | kinds of exercises |
|---|---|
| convert | pattern <-> JSON, list <-> lines, JSON, CSV; replace, insert, delete, reverse, deduplicate, swap |
| retrieve | by place, domain, date, category, neighbour |
| match | same item, code or domain; group by domain; which caption |
| compare | counts, most frequent, longer list, intersection, union, difference |
| verify | well-formed or not, repair, continue a rule, sorted or not, free of repetitions or not |
| control | JSON only, comma separated, numbered, exactly k, upper-case keys, with or without captions |

Groups take turns row by row, and the kinds of a group too. Kinds that make no sense for a catalog (domains where tokens
name none, dates where timestamps are an order) are left out and named in the manifest. `--kinds retrieve,convert.swap`
asks for some kinds or groups alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_builders.cards import prompt_settings
from data_builders.common import (
    Row,
    add_language_argument,
    add_theme_argument,
    build_parser,
    load_training_part,
    run_builder,
    shorten,
)
from data_builders.engine import Reject, add_engine_arguments, build_corpus
from data_builders.training_log import load_training_log
from onereason.cognition.facts import load_item_facts
from onereason.cognition.instructions import Exercise, Kind, Scene, Stock, available_kinds, build_exercise, kind_of_unit
from onereason.cognition.streams import Stream
from onereason.data.prompt_sets import PromptSet, load_prompt_set
from onereason.data.prompts import SWITCHES
from onereason.data.schema import ITEMS_FILE
from onereason.errors import ConfigError
from onereason.itemic.catalog import Catalog

MAX_NAME_CHARS = 80
"""Of a caption beside an item."""
VARIANT_0_SHARE = 0.4
"""Of the rows, in the wording that evaluation asks with."""

PROMPT_SETS = ("instruction",)

CARD = """
Exercises about itemic patterns, each with one exact answer: convert and edit, retrieve and select, match and
classify, compare and aggregate, generate and verify, format control. The items are those of a training history or of
the catalog. A share of the rows (`think_share`) reasons in a short trace, made of the same computation. The loss falls
on the answer. Rows are drawn each on its own: where the catalog is small, a question about one item may stand here
twice, of which `build_mixture` keeps one.

Only the training part of the split is read. Rows that name a user hold items of training histories only.
"""


@dataclass(frozen=True)
class InstructionSource:
    """One row a unit.

    Attributes:
        stock: items and histories.
        kinds: those that make sense for it, by group.
        prompts: prompt set `instruction`.
        num_units: rows.
        think_share: share of rows with a trace.
        seed: of every choice.
    """

    stock: Stock
    kinds: Mapping[str, Sequence[Kind]]
    prompts: PromptSet
    num_units: int
    think_share: float
    seed: int

    def build(self, start: int, stop: int) -> tuple[list[Row], list[Reject]]:
        rows, rejects = [], []
        self.stock.warm()
        for unit in range(start, stop):
            kind = kind_of_unit(self.kinds, unit)
            stream = Stream(self.seed, unit)
            scene = Scene(self.stock, stream, self.prompts, stream.chance(self.think_share))
            exercise = build_exercise(kind, scene)
            if exercise is None:
                rejects.append(Reject(f"{kind.name}:{unit:08d}", "no_material", "no items drawn serve this kind"))
            else:
                rows.append(instruction_row(f"{kind.name}:{unit:08d}", kind, exercise, scene))
        return rows, rejects


def instruction_row(row_id: str, kind: Kind, exercise: Exercise, scene: Scene) -> Row:
    """One row.

    Args:
        row_id: of the row; begins with the kind's name.
        kind, exercise: what is asked.
        scene: whose stream deals the wording, and that says whether there is a trace.
    """
    texts, stream = scene.prompts.texts, scene.stream

    def wording(name: str) -> str:
        variants = texts[name]
        return variants[0] if stream.chance(VARIANT_0_SHARE) else variants[stream.below(len(variants))]

    request = wording(exercise.text or kind.name).format(**exercise.fields)
    if kind.layout != "none":
        request = wording(f"layout.{kind.layout}").format(request=request, items=exercise.items, other=exercise.other)
    answer, mode = exercise.answer, "no_think"
    if scene.think:
        trace = "\n".join(exercise.steps)
        answer, mode = f"<think>\n{trace}\n</think>\n\n{answer}", "think"
    row: Row = {
        "id": row_id,
        "task": "instruction",
        "loss": "assistant",
        "mode": mode,
        "messages": [
            {"role": "system", "content": wording("system")},
            {"role": "user", "content": request + SWITCHES[mode]},
            {"role": "assistant", "content": answer},
        ],
        "teacher": "template",
    }
    domains = {scene.stock.domains[item] for item in exercise.answer_items}
    if len(domains) == 1:
        row["domain"] = domains.pop()
    if scene.user is not None:
        row["user"] = scene.stock.user_ids[scene.user]
    return row


def load_stock(args: argparse.Namespace) -> tuple[Stock, list[Path]]:
    """Items and training histories of a dataset, and the files they were read from."""
    part = load_training_part(args)
    log = load_training_log(args, part)
    catalog = Catalog.load(args.catalog)
    facts = load_item_facts(args.data, catalog, args.theme_attribute)
    names = [shorten(t or c, MAX_NAME_CHARS) for t, c in zip(facts.titles, facts.captions, strict=True)]
    stock = Stock(
        catalog.format,
        facts.patterns,
        facts.domains,
        catalog.codes,
        names,
        [" ".join(theme.split()) for theme in facts.themes],
        part.user_ids,
        log.items,
        log.offsets,
        log.days,
    )
    return stock, [*part.inputs, args.data / ITEMS_FILE]


def check_arguments(args: argparse.Namespace) -> None:
    """`ConfigError` for a value that makes no sense."""
    if args.num_rows < 1:
        raise ConfigError(f"--num-rows must be at least 1, got {args.num_rows}.")
    if not 0 <= args.think_share <= 1:
        raise ConfigError(f"--think-share must lie between 0 and 1, got {args.think_share}.")
    prompt_settings(args.language, PROMPT_SETS)


def build(args: argparse.Namespace) -> None:
    check_arguments(args)
    prompts = load_prompt_set("instruction", args.language)
    stock, inputs = load_stock(args)
    kinds, skipped = available_kinds(stock, args.kinds)
    if skipped:
        lacking = sorted({feature for features in skipped.values() for feature in features})
        print(f"left out {len(skipped)} kinds of exercises: the data has no {', '.join(lacking)}", file=sys.stderr)
    build_corpus(
        args,
        InstructionSource(stock, kinds, prompts, args.num_rows, args.think_share, args.seed),
        title="Itemic instructions",
        description=CARD,
        inputs=inputs,
        options=(
            "num_rows",
            "kinds",
            "think_share",
            "theme_attribute",
            "split_method",
            "validation_start",
            "test_start",
        ),
        extra={
            **prompt_settings(args.language, PROMPT_SETS),
            "num_kinds": sum(map(len, kinds.values())),
            "kinds_left_out": {name: ", ".join(lacking) for name, lacking in skipped.items()},
        },
    )


def make_parser() -> argparse.ArgumentParser:
    parser = build_parser(__doc__, timelines=True)
    parser.add_argument("--num-rows", type=int, default=20_000, help="rows, in equal numbers a group")
    parser.add_argument(
        "--kinds",
        type=lambda text: [name for name in text.split(",") if name],
        help="kinds or groups of exercises, with commas between (default: all)",
    )
    parser.add_argument("--think-share", type=float, default=0.2, help="share of rows with a trace")
    add_theme_argument(parser)
    add_language_argument(parser)
    add_engine_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_builder(make_parser(), build, argv)


if __name__ == "__main__":
    sys.exit(main())
