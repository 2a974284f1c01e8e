r"""A mixture of corpora as one corpus: shares, think ratio a domain, no row twice, training and held-out users apart.

    python -m data_builders.build_mixture --out runs/mixture --corpus recommendation=runs/corpora/recommendation:50 \
        --corpus derivation=runs/corpora/derivation:20 --corpus general=runs/corpora/general:30 \
        --think 0.5 --think ad=0.1 --held-out 0.05

A corpus is given as NAME=FOLDER:SHARE. Shares are of rows, or of tokens with `--unit token --tokenizer MODEL_DIR`. Rows
that say the same are kept once, in the order of the corpora. Where too many rows think, some are left out; with
`--convert` they lose their trace instead, unless another row says what is left. Users are held out by a hash of their
name, so that every corpus and every later mixture holds out the same ones; their rows go to `held_out.jsonl`. Lines
that hold no row go to `rejected.jsonl`. Corpora of different itemic formats are refused. The same inputs give the same
bytes.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from data_builders.cards import CARD_FILE, REJECTED_FILE, ROWS_FILE, Row, Tally, render_card
from data_builders.common import build_parser, run_builder, track
from data_builders.formats import FORMAT_KEY, check_formats
from data_builders.mixture_scan import Part, Scan, TokenCounter, count_rows, read_rows, scan_corpora
from data_builders.shards import Reject
from onereason.data.selection import balance_think, draw_shares, find_convertible, keep_first
from onereason.errors import ConfigError
from onereason.io import (
    MANIFEST_NAME,
    atomic_dir,
    build_manifest,
    require_file,
    require_output_dir,
    to_json_line,
    write_json,
    write_text,
)

CARD = """
Rows of several corpora in one random order. No two rows say the same. Rows of held-out users stand in `held_out.jsonl`
and in no training row. Rows that were left out to keep shares and think ratios, or because others say the same, are
counted below and stand in their corpora.
"""

HELD_OUT_FILE = "held_out.jsonl"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_CHUNK = 1024


@dataclass(frozen=True)
class Selection:
    """What becomes of the rows of a scan.

    Attributes:
        chosen: places of the mixture's rows in their order.
        bare: boolean `[R]`, the rows that lose their trace.
        held_out: places of the rows of held-out users.
        twice: places of the rows whose id stands in their corpus before.
        left_out: reason -> rows that were left out for it.
        sizes: int `[R]`, of the rows as they are written.
    """

    chosen: np.ndarray
    bare: np.ndarray
    held_out: np.ndarray
    twice: np.ndarray
    left_out: Counter[str]
    sizes: np.ndarray


def select(
    scan: Scan,
    parts: Sequence[Part],
    args: argparse.Namespace,
    ratios: dict[str, float],
    default: float | None,
) -> Selection:
    """Which rows go where.

    Raises:
        ConfigError: a ratio for a domain that no row has, or a corpus that is too small for `--size`.
        DataError: no row is left of a corpus.
    """
    unknown = sorted(set(ratios) - set(scan.domains))
    if unknown:
        known = ", ".join(sorted(scan.domains)) or "none"
        raise ConfigError(f"--think names domain {unknown[0]!r}, which no row has; rows have {known}.")
    table = scan.table()
    held_out = np.asarray(scan.is_held_out).view(bool)
    known_once = keep_first(np.asarray(scan.names))
    first = np.zeros(len(scan), dtype=bool)
    places = np.flatnonzero(known_once)
    first[places[keep_first(table.content[places])]] = True
    alive = first & ~held_out
    convertible = find_convertible(table.content, np.asarray(scan.bare), alive) if args.convert else None
    numbered = {scan.domains[name]: ratio for name, ratio in ratios.items()}
    kept, bare = balance_think(table, alive, numbered, default, args.seed, convertible)
    if args.convert:
        size = np.where(bare, np.asarray(scan.bare_size), table.size)
        table = replace(table, thinks=table.thinks & ~bare, size=size)
    shares = [part.share for part in parts]
    chosen = draw_shares(table, kept, [part.name for part in parts], shares, args.size, args.seed)
    left_out = Counter(
        said_before=int((known_once & ~first).sum()),
        beyond_think_ratio=int((alive & ~kept).sum()),
        beyond_share=int(kept.sum()) - len(chosen),
    )
    return Selection(chosen, bare, np.flatnonzero(first & held_out), np.flatnonzero(~known_once), +left_out, table.size)


def write_rows(rows: Iterator[Row], num_rows: int, path: Path, tally: Tally, modes: Counter[str]) -> None:
    """Writes rows and counts them, by corpus and domain the modes too."""
    chunks = range(0, num_rows, _CHUNK)
    with path.open("wb") as handle:
        for _ in track(chunks, len(chunks), "writing rows"):
            some = list(islice(rows, _CHUNK))
            tally.add(some)
            for row in some:
                corpus, mode = row["id"].partition(":")[0], row["mode"]
                modes.update((f"corpus_{corpus}", f"corpus_{corpus}_{mode}"))
                if "domain" in row:
                    modes[f"domain_{row['domain']}_{mode}"] += 1
            handle.writelines(map(to_json_line, some))


def parse_part(text: str) -> Part:
    """`name=folder:share`."""
    name, equals, rest = text.partition("=")
    folder, colon, share = rest.rpartition(":")
    name = name.strip()
    if not (name and equals and colon and folder):
        raise ConfigError(f"--corpus {text!r}: write NAME=FOLDER:SHARE, e.g. general=runs/corpora/general:10.")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--corpus {text!r}: a name may hold letters, digits, '_', '-' and '.', got {name!r}.")
    try:
        number = float(share)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise ConfigError(f"--corpus {text!r}: the share must be a number above 0, got {share!r}.")
    path = Path(folder)
    path = path / ROWS_FILE if path.is_dir() else path
    return Part(name, require_file(path, f"corpus {name!r}"), number)


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


def check_arguments(args: argparse.Namespace, parts: Sequence[Part]) -> None:
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise ConfigError(f"--corpus names {sorted(n for n in names if names.count(n) > 1)[0]!r} twice.")
    if not 0 <= args.held_out < 1:
        raise ConfigError(f"--held-out must be at least 0 and below 1, got {args.held_out}.")
    if args.size is not None and not 1 <= args.size < float("inf"):
        raise ConfigError(f"--size must be a number of at least 1, got {args.size}.")
    if (args.unit == "token") != (args.tokenizer is not None):
        raise ConfigError("--unit token and --tokenizer MODEL_DIR belong together.")
    if args.convert and not args.think:
        raise ConfigError("--convert needs a ratio to convert to; give --think too.")
    require_output_dir(args.out, args.overwrite, [part.path for part in parts])


def build(args: argparse.Namespace) -> None:
    parts = [parse_part(text) for text in args.corpus]
    ratios, default = parse_think(args.think or [])
    check_arguments(args, parts)
    format = check_formats(parts)
    measure = TokenCounter(args.tokenizer) if args.tokenizer else count_rows
    tally, modes = Tally(), Counter[str]()
    with atomic_dir(args.out, args.overwrite) as folder:
        with (folder / REJECTED_FILE).open("wb") as rejected:

            def reject(found: Reject) -> None:
                tally.reject([(found.id, found.reason, found.detail)])
                rejected.write(to_json_line(asdict(found)))

            scan = scan_corpora(parts, args.held_out, measure, args.convert, reject)
            selection = select(scan, parts, args, ratios, default)
            untouched = np.zeros(len(scan), dtype=bool)
            for row in read_rows(scan, parts, selection.twice, untouched):
                reject(Reject(row["id"], "id_twice"))
        if not tally.rejected:
            (folder / REJECTED_FILE).unlink()
        tally.rejected.update(selection.left_out)
        tally.rejected_examples |= {reason: [] for reason in selection.left_out}  # these rows stand in their corpora
        chosen = read_rows(scan, parts, selection.chosen, selection.bare)
        write_rows(chosen, len(selection.chosen), folder / ROWS_FILE, tally, modes)
        if len(selection.held_out):
            with (folder / HELD_OUT_FILE).open("wb") as handle:
                handle.writelines(map(to_json_line, read_rows(scan, parts, selection.held_out, untouched)))
        manifest = build_manifest(
            "corpus",
            inputs=[part.path for part in parts],
            config=_settings(args, parts, ratios, default),
            seed=args.seed,
        )
        if format is not None:
            manifest[FORMAT_KEY] = format.to_dict()
        manifest |= tally.to_manifest()
        manifest["rejected_examples"] = {reason: e for reason, e in tally.rejected_examples.items() if e}
        manifest["counts"] |= dict(sorted(modes.items())) | _further_counts(args, parts, scan, selection)
        write_json(folder / MANIFEST_NAME, manifest)
        write_text(folder / CARD_FILE, render_card("Mixture", CARD, manifest, *tally.first_rows.values()))
    held = f", {len(selection.held_out)} held out" if len(selection.held_out) else ""
    print(f"wrote {args.out}: {tally.counts['rows']} rows{held}, left out {dict(tally.rejected)}")


def _settings(
    args: argparse.Namespace, parts: Sequence[Part], ratios: dict[str, float], default: float | None
) -> dict[str, object]:
    return {
        "shares": {part.name: part.share for part in parts},
        "unit": args.unit,
        "tokenizer": args.tokenizer.name if args.tokenizer else None,
        "size": args.size,
        "think": default,
        "think_of_domain": ratios,
        "convert": args.convert,
        "held_out": args.held_out,
    }


def _further_counts(
    args: argparse.Namespace, parts: Sequence[Part], scan: Scan, selection: Selection
) -> dict[str, int]:
    """Rows held out, rows that lost their trace, and tokens of each corpus where they were counted."""
    counts = {"held_out_rows": len(selection.held_out)}
    if args.convert:
        counts["converted"] = int(selection.bare[selection.chosen].sum())
    if args.unit == "token":
        of, sizes = np.asarray(scan.corpus)[selection.chosen], selection.sizes[selection.chosen]
        tokens = np.bincount(of, sizes, minlength=len(parts))
        counts |= {f"tokens_{part.name}": int(n) for part, n in zip(parts, tokens, strict=True)}
    return counts


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(__doc__, timelines=False)
    add = parser.add_argument
    add("--corpus", action="append", required=True, metavar="NAME=FOLDER:SHARE", help="repeat")
    add("--unit", choices=("row", "token"), default="row", help="what shares and size count")
    add("--size", type=float, help="rows (or tokens) in all; by default what the scarcest corpus allows")
    add("--tokenizer", type=Path, metavar="MODEL_DIR", help="whose tokens are counted")
    add("--think", action="append", metavar="[DOMAIN=]RATIO", help="share of rows that think, where both modes exist")
    add("--convert", action="store_true", help="rows that think beyond the ratio lose their trace, where that is new")
    add("--held-out", type=float, default=0.0, metavar="SHARE", help="share of users kept from training")
    return run_builder(parser, build, argv)


if __name__ == "__main__":
    sys.exit(main())
