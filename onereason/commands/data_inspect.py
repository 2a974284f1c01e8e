"""`onereason data inspect`: what a corpus holds, and rows as the model sees them, in the terminal and as a page."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onereason.data.inspect.reading import Row
    from onereason.itemic.catalog import Catalog
    from onereason.itemic.format import ItemicFormat
    from onereason.itemic.vocabulary import ItemicVocabulary

STAND_IN_VOCABULARY = 8192
NUM_TRAINING_ROWS = 2000
MOST_TRAINING_CHARACTERS = 4_000_000
"""Rows, and characters of them, that a stand-in tokenizer is trained on at most."""

DESCRIPTION = """\
Counts of a corpus' rows (by task, mode, domain, teacher, loss; users, duplicates, malformed lines, what its builder
rejected and why), lengths in tokens, and sampled rows exactly as the model sees them: rendered by the chat template,
tokenised, masked and decoded again. What takes a loss is highlighted, or stands between [[ and ]] without colours.

Tokens are counted by the model folder's tokenizer (--model), by one of your own (--tokenizer), or by a stand-in trained
on the corpus itself, whose counts only say which rows are long.
"""


@dataclass(frozen=True)
class Words:
    """What text and items are written in: tokenizer, itemic vocabulary, catalog (where known), and a note on them."""

    tokenizer: Any
    vocabulary: ItemicVocabulary
    catalog: Catalog | None
    note: str


def add_arguments(actions: Any) -> None:
    """Adds `inspect` to the actions of `onereason data`."""
    parser = actions.add_parser(
        "inspect",
        help="what a corpus holds, and rows as the model sees them",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpus", type=Path, metavar="FILE_OR_FOLDER", help="rows file (JSON lines) or corpus folder")
    known = parser.add_mutually_exclusive_group()
    known.add_argument("--model", type=Path, metavar="DIR", help="model folder: its tokenizer, format and catalog")
    known.add_argument("--catalog", type=Path, metavar="DIR", help="catalog folder: its format and captions")
    parser.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="folder of a transformers tokenizer to count with"
    )
    parser.add_argument(
        "--format", metavar="NAME|FILE", help="itemic format where neither model nor catalog says (default: as found)"
    )
    parser.add_argument("--rows", type=int, default=5, help="sampled rows in the terminal (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: %(default)s)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write all of it as one page, too")
    parser.add_argument("--html-rows", type=int, default=40, help="sampled rows in the page (default: %(default)s)")
    parser.add_argument("--task", help="only the rows of this task")
    parser.add_argument("--mode", choices=("think", "no_think"), help="only the rows of this mode")
    parser.add_argument(
        "--max-rows",
        type=int,
        default=50_000,
        help="of a larger corpus, lengths are those of a random sample of this size (default: %(default)s)",
    )
    parser.set_defaults(run_action=run)


def run(args: argparse.Namespace) -> int | None:
    from onereason.config import check_seed
    from onereason.data.inspect.html import write_page
    from onereason.data.inspect.lengths import measure
    from onereason.data.inspect.reading import find_corpus, read_lines_at
    from onereason.data.inspect.render import Captions, render_rows
    from onereason.data.inspect.statistics import read_rejections, scan_corpus
    from onereason.data.inspect.tables import Inspection
    from onereason.data.inspect.terminal import build_console, print_inspection
    from onereason.errors import ConfigError

    check_seed(args.seed, "--seed")
    for name, least in (("rows", 0), ("html_rows", 0), ("max_rows", 1)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(args, name)}.")
    files = find_corpus(args.corpus)
    if args.html is not None:
        check_page_path(args.html, files.rows)
    num_shown = max(args.rows, args.html_rows if args.html else 0)
    scan = scan_corpus(
        files.rows,
        num_measured=args.max_rows,
        num_shown=num_shown,
        seed=args.seed,
        task=args.task,
        mode=args.mode,
    )

    def some_rows() -> list[Row]:
        step = -(-len(scan.measured) // NUM_TRAINING_ROWS)
        return [line.row for line in read_lines_at(files.rows, scan.measured[::step]) if line.row is not None]

    words = load_words(args, some_rows)
    measured = measure(files.rows, scan.measured, words.tokenizer, words.vocabulary)
    lines = [line for line in read_lines_at(files.rows, scan.shown) if line.row is not None]
    rendered = render_rows(
        [line.row for line in lines if line.row is not None],
        [line.number for line in lines],
        words.tokenizer,
        words.vocabulary,
        Captions(words.catalog) if words.catalog is not None else None,
    )
    filters = [f"{key} {getattr(args, key)}" for key in ("task", "mode") if getattr(args, key) is not None]
    inspection = Inspection(
        path=files.rows,
        scan=scan,
        measured=measured,
        rejections=read_rejections(files),
        manifest=files.manifest,
        shown=rendered,
        tokenizer_note=words.note,
        has_catalog=words.catalog is not None,
        filters=f"Only rows of {' and '.join(filters)}." if filters else "",
    )
    console = build_console()
    print_inspection(inspection, console, args.rows)
    if args.html is not None:
        write_page(inspection, args.html)
        console.print(f"page: {args.html}", markup=False, soft_wrap=True)
    return None


def check_page_path(path: Path, rows: Path) -> None:
    """`StorageError` before long work where the page cannot be written at `path`."""
    from onereason.errors import StorageError
    from onereason.io import require_writable_parent

    if path.is_dir():
        raise StorageError(f"--html {path} is a folder; name a file, e.g. {path / 'corpus.html'}.")
    if path.exists() and path.samefile(rows):
        raise StorageError(f"--html {path} is the corpus itself; name another file.")
    require_writable_parent(path)


def load_words(args: argparse.Namespace, some_rows: Any) -> Words:
    """Tokenizer, format and catalog that the arguments name; `some_rows()` gives rows to learn a stand-in from."""
    from onereason.errors import ConfigError
    from onereason.itemic.catalog import Catalog
    from onereason.itemic.format import load_format
    from onereason.model.folder import load_tokenizer_folder

    if args.model is not None:
        for name in ("tokenizer", "format"):
            if getattr(args, name) is not None:
                raise ConfigError(f"--model brings its own {name}; leave --{name} out.")
        folder = load_tokenizer_folder(args.model)
        return Words(folder.tokenizer, folder.vocabulary, folder.catalog, f"Tokens of the tokenizer of {args.model}.")
    if args.catalog is not None and args.format is not None:
        raise ConfigError("--catalog brings its own format; leave --format out.")
    catalog = Catalog.load(args.catalog) if args.catalog is not None else None
    format = catalog.format if catalog is not None else load_format(args.format) if args.format else None
    if args.tokenizer is not None:
        return load_own_tokenizer(args.tokenizer, format, catalog, some_rows)
    rows = some_rows()
    format, found = (format, "") if format is not None else find_format(rows)
    tokenizer, vocabulary = build_stand_in(rows, format)
    note = f"Tokens of a stand-in tokenizer trained on this corpus: counts of a real one differ (--model).{found}"
    return Words(tokenizer, vocabulary, catalog, note)


def load_own_tokenizer(path: Path, format: ItemicFormat | None, catalog: Catalog | None, some_rows: Any) -> Words:
    """A tokenizer folder, with the format of its `itemic.json` or with the given one's tokens added where it lacks
    them."""
    from onereason.errors import ModelError
    from onereason.itemic.vocabulary import ITEMIC_FILE, ItemicVocabulary, require_same_format
    from onereason.model.extend import extend_tokenizer
    from onereason.model.folder import load_tokenizer

    if not path.is_dir():
        raise ModelError(f"tokenizer folder {path} does not exist.")
    tokenizer = load_tokenizer(path)
    note = f"Tokens of the tokenizer of {path}."
    if (path / ITEMIC_FILE).is_file():
        vocabulary = ItemicVocabulary.load(path)
        vocabulary.check_tokenizer(tokenizer)
        if format is not None:
            require_same_format(vocabulary.format, format, "the catalog or --format")
        return Words(tokenizer, vocabulary, catalog, note)
    found = ""
    if format is None:
        format, found = find_format(some_rows())
    return Words(tokenizer, extend_tokenizer(tokenizer, format), catalog, note + found)


def find_format(rows: Sequence[Row]) -> tuple[ItemicFormat, str]:
    """The preset whose patterns stand in the rows, and a note that says so."""
    from onereason.data.inspect.render import guess_format
    from onereason.itemic.format import PRESETS

    found = guess_format([text for row in rows[:200] for text in row_texts(row)])
    if found is None:
        return PRESETS["onereason"], " No itemic pattern of a public format was found."
    return found, f" The patterns are read as format {found.name}."


def build_stand_in(rows: Sequence[Row], format: ItemicFormat) -> tuple[Any, ItemicVocabulary]:
    """A tokenizer of Qwen3's kind trained on the rows' own text, with the format's tokens added."""
    from onereason.model.extend import extend_tokenizer
    from onereason.model.tiny import BASE_TEXTS, build_tiny_tokenizer

    texts = list(BASE_TEXTS)
    size = 0
    for text in (text for row in rows for text in row_texts(row)):
        texts += split_off_items(text, format)
        size += len(text)
        if size > MOST_TRAINING_CHARACTERS:
            break
    tokenizer = build_tiny_tokenizer(texts, STAND_IN_VOCABULARY)
    return tokenizer, extend_tokenizer(tokenizer, format)


def split_off_items(text: str, format: ItemicFormat) -> list[str]:
    """The text between its itemic patterns, which are tokens of their own and nothing to learn words from."""
    items = format.parse(text).items
    return [
        text[low:high]
        for low, high in zip([0, *(i.end for i in items)], [*(i.start for i in items), len(text)], strict=True)
    ]


def row_texts(row: Row) -> list[str]:
    if row.get("messages") is None:
        return [row["text"]]
    return [message["content"] for message in row["messages"]]
