r"""A mixture of corpora as one corpus: shares, think ratio a domain, no row twice, training and held-out users apart.

    python -m data_builders.build_mixture --out runs/mixture --corpus recommendation=runs/corpora/recommendation:50 \
        --corpus derivation=runs/corpora/derivation:20 --corpus general=runs/corpora/general:30 \
        --think 0.5 --think ad=0.1 --held-out 0.05

A corpus is given as NAME=FOLDER:SHARE. Shares are of rows, or of tokens with `--unit token --tokenizer MODEL_DIR`. Rows
that say the same are kept once, in the order of the corpora. Users are held out by a hash of their name, so that every
corpus and every later mixture holds out the same ones; their rows go to `held_out.jsonl`. The same inputs give the same
bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from data_builders.cards import CARD_FILE, ROWS_FILE, Row, render_card
from data_builders.common import build_parser, run_builder
from onereason.data.chat import check_row
from onereason.data.selection import RowTable, draw_shares, drop_duplicates, keep_think_ratio
from onereason.errors import ConfigError, DataError
from onereason.io import (
    MANIFEST_NAME,
    atomic_dir,
    build_manifest,
    parse_json,
    require_file,
    to_json_line,
    write_json,
    write_text,
)

CARD = """
Rows of several corpora in one random order. No two rows say the same. Rows of held-out users stand in `held_out.jsonl`
and in no training row.
"""

HELD_OUT_FILE = "held_out.jsonl"
_CHUNK = 1024


@dataclass(frozen=True)
class Part:
    """A corpus of the mixture: its name, its rows, and its share."""

    name: str
    path: Path
    share: float


class Scan:
    """A first pass over all corpora: a few numbers a row, and where it stands in its file."""

    def __init__(self, held_out: float):
        self.held_out = held_out
        self.domains: dict[str, int] = {}
        self.corpus, self.think, self.domain = array("h"), array("b"), array("h")
        self.offset, self.content, self.size = array("q"), array("Q"), array("q")
        self.is_held_out = array("b")
        self.rejected: Counter[str] = Counter()

    def add(self, corpus: int, offset: int, row: Row, size: int) -> None:
        self.corpus.append(corpus)
        self.offset.append(offset)
        self.think.append(row["mode"] == "think")
        domain = row.get("domain")
        self.domain.append(-1 if domain is None else self.domains.setdefault(str(domain), len(self.domains)))
        self.content.append(hash_content(row))
        self.size.append(size)
        self.is_held_out.append(is_held_out(row.get("user"), self.held_out))

    def table(self) -> RowTable:
        names = ("corpus", "content", "think", "domain", "size")
        arrays = [np.frombuffer(getattr(self, name), getattr(self, name).typecode) for name in names]
        return RowTable(arrays[0], arrays[1], arrays[2].astype(bool), arrays[3], arrays[4])


def hash_content(row: Row) -> int:
    """64 bits of what a row says and what of it is supervised; its id and provenance play no part."""
    said = orjson.dumps([row["loss"], row.get("text"), row.get("messages")])
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "little")


def is_held_out(user: Any, share: float) -> bool:
    """Whether a user's rows are kept from training; a row without a user never is."""
    if user is None or share <= 0:
        return False
    drawn = int.from_bytes(hashlib.blake2b(f"held out {user}".encode(), digest_size=8).digest(), "little")
    return drawn < share * 2**64


def scan_corpora(parts: Sequence[Part], held_out: float, measure: Any) -> Scan:
    """Reads every row once. Rows that are malformed are counted and left out."""
    scan = Scan(held_out)
    for number, part in enumerate(parts):
        waiting: list[tuple[int, Row]] = []
        for offset, line in _lines(part):
            try:
                row = parse_json(line)
                check_row(row)
            except (ValueError, DataError, AttributeError):
                scan.rejected[f"{part.name}: malformed_row"] += 1
                continue
            waiting.append((offset, row))
            if len(waiting) == _CHUNK:
                _flush(scan, number, waiting, measure)
        _flush(scan, number, waiting, measure)
    return scan


def _lines(part: Part) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each line that is not blank, with a bar over the bytes read."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar, part.path.open("rb") as handle:
        task = bar.add_task(f"reading {part.name}", total=part.path.stat().st_size)
        position = 0
        for line in handle:
            offset, position = position, position + len(line)
            if line.strip():
                yield offset, line
            bar.advance(task, len(line))


def _flush(scan: Scan, number: int, waiting: list[tuple[int, Row]], measure: Any) -> None:
    sizes = measure([row for _, row in waiting]) if waiting else []
    for (offset, row), size in zip(waiting, sizes, strict=True):
        scan.add(number, offset, row, size)
    waiting.clear()


def count_rows(rows: Sequence[Row]) -> list[int]:
    """Every row counts 1."""
    return [1] * len(rows)


class TokenCounter:
    """The tokens of rows as a model reads them."""

    def __init__(self, folder: Path):
        from onereason.data.rendering import RowTokenizer
        from onereason.model.folder import load_tokenizer_folder

        model = load_tokenizer_folder(folder)
        self._tokenize = RowTokenizer(model.tokenizer, model.vocabulary)

    def __call__(self, rows: Sequence[Row]) -> list[int]:
        return np.diff(self._tokenize(rows).offsets).tolist()


def select(scan: Scan, parts: Sequence[Part], args: argparse.Namespace, ratios: dict[str, float], default: float | None):
    """Positions of the mixture's rows in their order, those of held-out users, and what was left out why."""
    table = scan.table()
    held_out = np.frombuffer(scan.is_held_out, "b").astype(bool)
    rejected = Counter(scan.rejected)
    first = drop_duplicates(table.content)
    rejected["said_before"] = int((~first).sum())
    unknown = sorted(set(ratios) - set(scan.domains))
    if unknown:
        known = ", ".join(sorted(scan.domains)) or "none"
        raise ConfigError(f"--think names domain {unknown[0]!r}, which no row has; rows have {known}.")
    alive = first & ~held_out
    numbered = {scan.domains[name]: ratio for name, ratio in ratios.items()}
    kept = keep_think_ratio(table, alive, numbered, default, args.seed)
    rejected["beyond_think_ratio"] = int((alive & ~kept).sum())
    try:
        chosen = draw_shares(table, kept, [part.share for part in parts], args.size, args.seed)
    except (ConfigError, DataError) as error:
        names = ", ".join(f"{number} is {part.name!r}" for number, part in enumerate(parts))
        raise type(error)(f"{error} ({names})") from error
    rejected["beyond_share"] = int(kept.sum()) - len(chosen)
    return chosen, np.flatnonzero(first & held_out), +rejected


def read_rows(scan: Scan, parts: Sequence[Part], positions: np.ndarray) -> Iterator[Row]:
    """Rows by their positions, in order, each id behind its corpus's name."""
    handles = [part.path.open("rb") for part in parts]
    try:
        for position in positions.tolist():
            corpus = scan.corpus[position]
            handles[corpus].seek(scan.offset[position])
            row = parse_json(handles[corpus].readline())
            yield {**row, "id": f"{parts[corpus].name}:{row.get('id', position)}"}
    finally:
        for handle in handles:
            handle.close()


def count_mixture(rows: Iterator[Row], counts: Counter[str], examples: list[Row]) -> Iterator[bytes]:
    """Rows as lines; counts them by corpus, mode and domain on the way."""
    for row in rows:
        corpus = row["id"].partition(":")[0]
        counts["rows"] += 1
        for key in (f"mode_{row['mode']}", f"corpus_{corpus}", f"corpus_{corpus}_{row['mode']}"):
            counts[key] += 1
        if row.get("domain") is not None:
            counts[f"domain_{row['domain']}_{row['mode']}"] += 1
        if len(examples) < 2 and all(e["mode"] != row["mode"] for e in examples):
            examples.append(row)
        yield to_json_line(row)


def parse_part(text: str) -> Part:
    """`name=folder:share`."""
    name, equals, rest = text.partition("=")
    folder, colon, share = rest.rpartition(":")
    if not (name.strip() and equals and colon and folder):
        raise ConfigError(f"--corpus {text!r}: write NAME=FOLDER:SHARE, e.g. general=runs/corpora/general:10.")
    try:
        number = float(share)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise ConfigError(f"--corpus {text!r}: the share must be a number above 0, got {share!r}.")
    path = Path(folder)
    return Part(name.strip(), require_file(path / ROWS_FILE if path.is_dir() else path, f"corpus {name.strip()!r}"), number)


def parse_think(values: Sequence[str]) -> tuple[dict[str, float], float | None]:
    """`["0.5", "ad=0.1"]` -> ratios by domain, and the one for all others."""
    ratios: dict[str, float] = {}
    default: float | None = None
    for text in values:
        domain, equals, value = text.rpartition("=")
        try:
            ratio = float(value)
        except ValueError:
            ratio = -1.0
        if not 0 <= ratio <= 1:
            raise ConfigError(f"--think {text!r}: write a ratio from 0 to 1, or DOMAIN=RATIO.")
        if equals:
            ratios[domain.strip()] = ratio
        else:
            default = ratio
    return ratios, default


def build(args: argparse.Namespace) -> None:
    parts = [parse_part(text) for text in args.corpus]
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise ConfigError(f"--corpus names {sorted(n for n in names if names.count(n) > 1)[0]!r} twice.")
    ratios, default = parse_think(args.think or [])
    if not 0 <= args.held_out < 1:
        raise ConfigError(f"--held-out must be at least 0 and below 1, got {args.held_out}.")
    if args.size is not None and args.size < 1:
        raise ConfigError(f"--size must be at least 1, got {args.size}.")
    if (args.unit == "token") != (args.tokenizer is not None):
        raise ConfigError("--unit token and --tokenizer MODEL_DIR belong together.")
    scan = scan_corpora(parts, args.held_out, TokenCounter(args.tokenizer) if args.tokenizer else count_rows)
    chosen, held_out, rejected = select(scan, parts, args, ratios, default)
    counts: Counter[str] = Counter()
    counts["held_out_rows"] = len(held_out)
    if args.unit == "token":
        sizes = np.frombuffer(scan.size, "q")[chosen]
        by_corpus = np.bincount(np.frombuffer(scan.corpus, "h")[chosen], sizes, minlength=len(parts))
        counts |= {f"tokens_{part.name}": int(n) for part, n in zip(parts, by_corpus, strict=True)}
    examples: list[Row] = []
    with atomic_dir(args.out, args.overwrite) as folder:
        with (folder / ROWS_FILE).open("wb") as handle:
            handle.writelines(count_mixture(read_rows(scan, parts, chosen), counts, examples))
        if len(held_out):
            with (folder / HELD_OUT_FILE).open("wb") as handle:
                handle.writelines(to_json_line(row) for row in read_rows(scan, parts, held_out))
        manifest = build_manifest(
            "corpus",
            inputs=[part.path for part in parts],
            config={
                "shares": {part.name: part.share for part in parts},
                "unit": args.unit,
                "size": args.size,
                "think": {**({"default": default} if default is not None else {}), **ratios},
                "held_out": args.held_out,
            },
            seed=args.seed,
            counts=counts,
            rejected=rejected,
        )
        write_json(folder / MANIFEST_NAME, manifest)
        write_text(folder / CARD_FILE, render_card("Mixture", CARD, manifest, *examples))
    print(f"wrote {args.out}: {counts['rows']} rows, {len(held_out)} held out, left out {dict(rejected)}")


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(__doc__, timelines=False)
    parser.add_argument("--corpus", action="append", required=True, metavar="NAME=FOLDER:SHARE", help="repeat")
    parser.add_argument("--unit", choices=("row", "token"), default="row", help="what shares and size count")
    parser.add_argument("--size", type=float, help="rows (or tokens) in all; by default what the scarcest corpus allows")
    parser.add_argument("--tokenizer", type=Path, metavar="MODEL_DIR", help="whose tokens are counted")
    parser.add_argument(
        "--think", action="append", metavar="[DOMAIN=]RATIO", help="share of rows that think, where both modes exist"
    )
    parser.add_argument("--held-out", type=float, default=0.0, metavar="SHARE", help="share of users kept from training")
    return run_builder(parser, build, argv)


if __name__ == "__main__":
    sys.exit(main())
