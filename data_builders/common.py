"""What every corpus builder shares: arguments, the training part of a dataset, and the corpus folder.

A corpus folder holds `rows.jsonl` (see `onereason.data.chat` for a row), `manifest.json` and the data card `CARD.md`.
It appears whole or not at all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from onereason.config import check_seed
from onereason.data.prompts import PROMPT_VERSION
from onereason.data.schema import INTERACTIONS_FILE, load_dataset
from onereason.data.timelines import build_timelines, split_leave_one_out, split_temporal
from onereason.errors import ConfigError, DataError, OnereasonError
from onereason.io import (
    MANIFEST_NAME,
    atomic_dir,
    build_manifest,
    require_output_dir,
    write_json,
    write_jsonl,
    write_text,
)
from onereason.itemic.catalog import CATALOG_META, CATALOG_TABLE, Catalog
from onereason.itemic.format import ItemicFormat

ROWS_FILE, CARD_FILE = "rows.jsonl", "CARD.md"
SPLIT_METHODS = ("leave-one-out", "temporal")

Row = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class ItemTexts:
    """A catalog's items as builders write them, by item index.

    Attributes:
        patterns: itemic patterns.
        captions: texts, empty where unknown.
        domains: domain names.
        format: the itemic format.
    """

    patterns: Sequence[str]
    captions: Sequence[str]
    domains: Sequence[str]
    format: ItemicFormat

    @classmethod
    def of(cls, catalog: Catalog) -> ItemTexts:
        patterns = [catalog.render(index) for index in range(len(catalog))]
        return cls(patterns, catalog.captions, catalog.domains, catalog.format)


@dataclass(frozen=True)
class TrainingPart:
    """What builders may know about users: the training part of the split, and nothing after it.

    Attributes:
        user_ids: names of the users.
        histories: int64 item indices of each, oldest first.
        items: the catalog's items as text.
        inputs: files they were read from.
    """

    user_ids: Sequence[str]
    histories: Sequence[np.ndarray]
    items: ItemTexts
    inputs: Sequence[Path]


def build_parser(doc: str | None, *, timelines: bool) -> argparse.ArgumentParser:
    """A parser with `--out`, `--overwrite`, `--seed` and, for builders that read users, data, catalog and split."""
    summary, _, rest = (doc or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if timelines:
        parser.add_argument("--data", type=Path, required=True, help="dataset folder")
        parser.add_argument("--catalog", type=Path, required=True, help="catalog folder (or a model folder)")
        parser.add_argument(
            "--split-method", choices=SPLIT_METHODS, default="leave-one-out", help="what counts as training"
        )
        parser.add_argument("--validation-start", type=int, help="temporal split: training ends before this timestamp")
        parser.add_argument("--test-start", type=int, help="temporal split: validation ends before this timestamp")
    parser.add_argument("--out", type=Path, required=True, help="corpus folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing corpus folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice")
    return parser


def run_builder(parser: argparse.ArgumentParser, build: Callable[[argparse.Namespace], None], argv: Any = None) -> int:
    """Parses, checks the output's place, builds; a user's mistake becomes one line on stderr and exit code 2."""
    args = parser.parse_args(argv)
    try:
        check_seed(args.seed, "--seed")
        inputs = [getattr(args, name, None) for name in ("data", "catalog")] + list(getattr(args, "input", None) or [])
        require_output_dir(args.out, args.overwrite, [path for path in inputs if path is not None])
        build(args)
    except OnereasonError as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; no partial output was left.", file=sys.stderr)
        return 130
    return 0


def load_training_part(args: argparse.Namespace) -> TrainingPart:
    """Reads dataset and catalog and keeps the training part of the split only."""
    times = (args.validation_start, args.test_start)
    if args.split_method == "temporal" and None in times:
        raise ConfigError("--split-method temporal needs --validation-start and --test-start (timestamps).")
    if args.split_method != "temporal" and times != (None, None):
        raise ConfigError("--validation-start and --test-start belong to --split-method temporal.")
    catalog = Catalog.load(args.catalog)
    timelines = build_timelines(load_dataset(args.data).interactions, catalog.index)
    split = split_temporal(timelines, *times) if args.split_method == "temporal" else split_leave_one_out(timelines)
    inputs = [args.data / INTERACTIONS_FILE, args.catalog / CATALOG_TABLE, args.catalog / CATALOG_META]
    return TrainingPart(timelines.user_ids, split.train, ItemTexts.of(catalog), inputs)


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The items, with a progress bar where stderr is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=total)
        for item in items:
            yield item
            bar.advance(task)


def write_corpus(
    args: argparse.Namespace,
    rows: Iterable[Row],
    rejected: Counter[str],
    *,
    title: str,
    description: str,
    inputs: Sequence[Path],
    options: Sequence[str],
) -> None:
    """Writes a corpus folder.

    Args:
        args: with `out`, `overwrite`, `seed` and the options.
        rows: read once, in order.
        rejected: reason -> count; complete when `rows` is used up.
        title, description: of the data card.
        inputs: files the corpus is made of, for the manifest's hashes.
        options: names of the arguments the manifest records.

    Raises:
        DataError: no row is left.
    """
    counts: Counter[str] = Counter()
    example: list[Row] = []

    def counted() -> Iterator[Row]:
        for row in rows:
            if not example:
                example.append(row)
            counts["rows"] += 1
            counts[f"mode_{row['mode']}"] += 1
            yield row

    with atomic_dir(args.out, args.overwrite) as folder:
        write_jsonl(folder / ROWS_FILE, counted())
        if not counts["rows"]:
            raise DataError(
                f"no row is left for {args.out}: rejected {dict(rejected) or 'nothing, the input is empty'}."
            )
        config = {name: getattr(args, name) for name in options} | {"prompt_version": PROMPT_VERSION}
        manifest = build_manifest(
            "corpus", inputs=inputs, config=config, seed=args.seed, counts=counts, rejected=rejected
        )
        write_json(folder / MANIFEST_NAME, manifest)
        write_text(folder / CARD_FILE, render_card(title, description, manifest, example[0]))
    print(f"wrote {args.out}: {counts['rows']} rows" + (f", rejected {dict(rejected)}" if rejected else ""))


def render_card(title: str, description: str, manifest: Mapping[str, Any], example: Row) -> str:
    """The data card, Markdown."""

    def table(values: Mapping[str, Any], empty: str) -> str:
        lines = [f"| {name} | {value} |" for name, value in values.items()]
        return "\n".join(["| | |", "|---|---|", *lines]) if lines else empty

    shown = json.dumps(example, ensure_ascii=False, indent=2)
    shown = shown if len(shown) <= 3000 else shown[:3000] + " ..."
    return (
        "\n\n".join(
            [
                f"# {title}",
                description.strip(),
                "## Counts\n\n" + table(manifest["counts"], "none"),
                "## Rejected\n\n" + table(manifest["rejected"], "Nothing was rejected."),
                "## Settings\n\n" + table({**manifest["config"], "seed": manifest["seed"]}, "none"),
                "## Inputs (SHA-256)\n\n" + table(manifest["inputs"], "None: the rows are generated from the seed."),
                "The licence of the inputs holds for these rows.",
                f"## First row\n\n```json\n{shown}\n```",
            ]
        )
        + "\n"
    )
