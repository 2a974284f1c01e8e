"""Copying: a list of items, and the same list again.

    python -m data_builders.build_copying --catalog runs/catalog --num-rows 40000 --out runs/corpora/copying

A trace cites what stands in its prompt. Any pretrained language model can copy; one from random weights learns it far
sooner from rows that do nothing else than from traces, where a copied code is one token in ten: heads that look for
where a token stood before and copy what came after it (induction heads, Olsson et al. 2022) need dense practice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_builders.common import Row, build_parser, run_builder
from data_builders.engine import Reject, add_engine_arguments, build_corpus
from onereason.cognition.streams import Stream
from onereason.errors import ConfigError
from onereason.itemic.catalog import CATALOG_META, CATALOG_TABLE, Catalog

CARD = """
Items drawn from the catalog at random, written as a list, and the list again as the answer, on which the loss falls.
For models from random weights, which cannot copy yet. No interaction is read.
"""


@dataclass(frozen=True)
class CopyingSource:
    """One row a unit.

    Attributes:
        patterns: different itemic patterns to draw from.
        num_units: rows.
        lengths: items a list has at least and at most.
        seed: of every choice.
    """

    patterns: Sequence[str]
    num_units: int
    lengths: tuple[int, int]
    seed: int

    def build(self, start: int, stop: int) -> tuple[list[Row], list[Reject]]:
        return [self.row(unit) for unit in range(start, stop)], []

    def row(self, unit: int) -> Row:
        stream = Stream(self.seed, unit)
        drawn = stream.sample(len(self.patterns), stream.between(*self.lengths))
        text = "".join([self.patterns[item] for item in drawn])
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
        return {
            "id": f"copying:{unit:08d}",
            "task": "copying",
            "loss": "assistant",
            "mode": "no_think",
            "messages": messages,
        }


def check_arguments(args: argparse.Namespace) -> None:
    """`ConfigError` for a value that makes no sense."""
    if args.num_rows < 1:
        raise ConfigError(f"--num-rows must be at least 1, got {args.num_rows}.")
    if not 1 <= args.min_items <= args.max_items:
        raise ConfigError(
            f"lists of {args.min_items} to {args.max_items} items cannot be made: --min-items must be at least 1 and "
            "at most --max-items."
        )


def build(args: argparse.Namespace) -> None:
    check_arguments(args)
    catalog = Catalog.load(args.catalog)
    patterns = list(dict.fromkeys(catalog.render(item) for item in range(len(catalog))))
    if len(patterns) < args.max_items:
        raise ConfigError(
            f"{args.catalog} has {len(patterns)} different patterns, too few for lists of {args.max_items}: lower "
            "--max-items."
        )
    build_corpus(
        args,
        CopyingSource(patterns, args.num_rows, (args.min_items, args.max_items), args.seed),
        title="Copying",
        description=CARD,
        inputs=[args.catalog / CATALOG_TABLE, args.catalog / CATALOG_META],
        options=("num_rows", "min_items", "max_items"),
    )


def make_parser() -> argparse.ArgumentParser:
    parser = build_parser(__doc__, timelines=False)
    parser.add_argument("--catalog", type=Path, required=True, help="catalog folder (or a model folder)")
    parser.add_argument("--num-rows", type=int, default=20_000, help="lists (default: %(default)s)")
    parser.add_argument("--min-items", type=int, default=2, help="items a list has at least (default: %(default)s)")
    parser.add_argument("--max-items", type=int, default=16, help="items a list has at most (default: %(default)s)")
    add_engine_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_builder(make_parser(), build, argv)


if __name__ == "__main__":
    sys.exit(main())
