"""What every corpus builder shares: arguments, the training part of a dataset, and the corpus folder.

A corpus folder holds `rows.jsonl` (see `onereason.data.chat` for a row), `rejected.jsonl` (what gave no row, and why;
absent if there is nothing), `manifest.json` and the data card `CARD.md`. It appears whole or not at all.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from data_builders.cards import CARD_FILE, REJECTED_FILE, ROWS_FILE, Row, render_card
from data_builders.working_folder import remove_published_shards
from onereason.config import check_seed
from onereason.data.prompt_sets import LANGUAGES
from onereason.data.schema import INTERACTIONS_FILE, load_dataset
from onereason.data.timelines import build_timelines, split_leave_one_out, split_temporal
from onereason.errors import ConfigError, OnereasonError
from onereason.io import require_output_dir
from onereason.itemic.catalog import CATALOG_META, CATALOG_TABLE, Catalog
from onereason.itemic.format import ItemicFormat

__all__ = [
    "CARD_FILE",
    "REJECTED_FILE",
    "ROWS_FILE",
    "SPLIT_METHODS",
    "ItemTexts",
    "Row",
    "TrainingPart",
    "add_engine_arguments",
    "add_language_argument",
    "add_split_arguments",
    "add_theme_argument",
    "build_parser",
    "check_engine_arguments",
    "load_training_part",
    "render_card",
    "run_builder",
    "shorten",
    "track",
]

SPLIT_METHODS = ("leave-one-out", "temporal")
ENGINES = ("local", "ray")

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
        add_split_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="corpus folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing corpus folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice")
    return parser


def add_split_arguments(parser: argparse.ArgumentParser) -> None:
    """What of a dataset counts as training."""
    parser.add_argument(
        "--split-method", choices=SPLIT_METHODS, default="leave-one-out", help="what counts as training"
    )
    parser.add_argument("--validation-start", type=int, help="temporal split: training ends before this timestamp")
    parser.add_argument("--test-start", type=int, help="temporal split: validation ends before this timestamp")


def run_builder(parser: argparse.ArgumentParser, build: Callable[[argparse.Namespace], None], argv: Any = None) -> int:
    """Parses, checks the output's place, builds; a user's mistake becomes one line on stderr and exit code 2."""
    args = parser.parse_args(argv)
    try:
        check_seed(args.seed, "--seed")
        if hasattr(args, "engine"):
            check_engine_arguments(args)
        remove_published_shards(args.out)
        inputs = [getattr(args, name, None) for name in ("data", "catalog")] + list(getattr(args, "input", None) or [])
        require_output_dir(args.out, args.overwrite, [path for path in inputs if path is not None])
        build(args)
    except OnereasonError as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"{parser.prog}: {str(stop) or 'interrupted; no partial output was left.'}", file=sys.stderr)
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


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """How a corpus is built; its rows do not depend on it."""
    parser.add_argument("--shard-size", type=int, default=2000, help="users, items or pairs that are written at once")
    parser.add_argument("--workers", type=int, default=1, help="processes that build shards")
    parser.add_argument("--engine", choices=ENGINES, default="local", help="what runs the workers")


def add_language_argument(parser: argparse.ArgumentParser) -> None:
    """`--language`: what corpora are worded in."""
    parser.add_argument(
        "--language", default="en", help=f"wording: {' or '.join(LANGUAGES)}, or a folder of prompt sets of your own"
    )


def add_theme_argument(parser: argparse.ArgumentParser) -> None:
    """`--theme-attribute`: where a builder reads what an item is about."""
    parser.add_argument(
        "--theme-attribute",
        metavar="NAME[:LEVEL]",
        help="item attribute that names what an item is about (default: category, categories, tag, ...); of a list, "
        "LEVEL 0 is its widest value, the narrowest is taken otherwise",
    )


def check_engine_arguments(args: argparse.Namespace) -> None:
    for name in ("shard_size", "workers"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}.")
    if args.engine == "ray" and importlib.util.find_spec("ray") is None:
        raise ConfigError('--engine ray: Ray is not installed; run `pip install "ray[data]"` or use --engine local.')


_WIDE = "\u2e80"
"""Characters from here on are Chinese, Japanese or Korean, or their punctuation."""
_CLAUSE_ENDS = " \uff0c\u3002\uff01\uff1f\uff1b\uff1a\u3001"
_LOOSE_ENDS = " .,;:\uff0c\u3002\uff1b\uff1a\u3001"


def shorten(text: str, max_chars: int) -> str:
    """A text on one line without the punctuation that would double a sentence's own, cut where it is long.

    It is cut at a word's end. Chinese, in which words have no ends, is cut at the last end of a clause or space, if
    that keeps half of what fits, or else anywhere.
    """
    line = " ".join(text.split())
    if len(line) > max_chars:
        cut = max_chars
        while cut and line[cut] != " " and line[cut] < _WIDE and line[cut - 1] < _WIDE:
            cut -= 1
        if cut and max(line[cut - 1], line[cut]) >= _WIDE:
            ends = max(line.rfind(end, 0, cut + 1) for end in _CLAUSE_ENDS)
            cut = ends if 2 * ends >= cut else cut
        line = line[: cut or max_chars]
    return line.rstrip(_LOOSE_ENDS)


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The items, with a progress bar where stderr is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=total)
        for item in items:
            yield item
            bar.advance(task)
