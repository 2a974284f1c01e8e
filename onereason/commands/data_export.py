"""`onereason data export`: a corpus in the format of another trainer."""

from __future__ import annotations

import argparse
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onereason.data.exports import ExportFormat, Record
    from onereason.data.inspect.statistics import Reasons

DESCRIPTION = """\
Write a corpus in the format of another trainer. What a format cannot say is left out, counted, and printed with
examples; what every format loses is printed too: id, task, domain, user, teacher, and the row's own loss. A trace stays
in the text of the answer, inside <think>; a no-think answer stays bare (templates of Qwen3's kind write its empty think
block), but for the Explorer's lines.
"""
INFO_FILE = "dataset_info.json"


@dataclass
class ExportCounts:
    """What became of a corpus: rows written, rows whose loss the format does not keep (by loss), and the rest."""

    left_out: Reasons
    written: int = 0
    other_loss: Counter[str] = field(default_factory=Counter)


def add_arguments(actions: Any) -> None:
    """Adds `export` to the actions of `onereason data`."""
    from onereason.data.exports import FORMATS

    entries = []
    for name, format in FORMATS.items():
        for start, text in ((f"  {name:23}", format.help), (" " * 25, format.lost)):
            entries.append(textwrap.fill(text, 110, initial_indent=start, subsequent_indent=" " * 25))
    parser = actions.add_parser(
        "export",
        help="write a corpus in the format of another trainer",
        description=DESCRIPTION,
        epilog="formats, and what they ask for or lose:\n" + "\n".join(entries),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpus", type=Path, metavar="FILE_OR_FOLDER", help="rows file (JSON lines) or corpus folder")
    parser.add_argument("--to", required=True, choices=tuple(FORMATS), help="format, see below")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="PATH", help="file to write; for llama_factory, a folder"
    )
    parser.add_argument("--json", action="store_true", help="one JSON array instead of one record a line")
    parser.add_argument(
        "--formatting", choices=("sharegpt", "alpaca"), default="sharegpt", help="llama_factory: of its data file"
    )
    parser.add_argument("--name", help="llama_factory: name of the data set (default: the corpus')")
    parser.add_argument(
        "--empty-think",
        action=argparse.BooleanOptionalAction,
        help="write the empty think block into no-think answers, for trainers whose template writes none (default: "
        "only for explorer)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what stands at --out")
    parser.set_defaults(run_action=run)


def run(args: argparse.Namespace) -> int | None:
    from onereason.data.exports import export_format
    from onereason.data.inspect.reading import find_corpus
    from onereason.data.inspect.statistics import Reasons
    from onereason.errors import ConfigError
    from onereason.io import atomic_dir, require_output_dir, write_json

    if args.to == "explorer" and args.json:
        raise ConfigError("explorer is a format of lines; leave --json out.")
    if args.to != "llama_factory" and (args.name or args.formatting != "sharegpt"):
        raise ConfigError("--name and --formatting belong to --to llama_factory.")
    files = find_corpus(args.corpus)
    format = export_format(args.to, args.formatting)
    counts = ExportCounts(Reasons())
    records = iter_records(files.rows, format, args.empty_think, counts)
    if args.to == "llama_factory":
        from onereason.data.exports import dataset_info

        name = args.name or (files.rows.resolve().parent.name if args.corpus.is_dir() else files.rows.stem)
        if not name or Path(name).name != name or name == INFO_FILE.removesuffix(".json"):
            raise ConfigError(f"--name {name!r} is not the name of a data set; use letters, digits and underscores.")
        require_output_dir(args.out, args.overwrite, [files.rows])
        with atomic_dir(args.out, args.overwrite) as folder:
            data = folder / f"{name}.{'json' if args.json else 'jsonl'}"
            write_records(data, records, args.json)
            require_records(counts, files.rows, args.to)
            write_json(folder / INFO_FILE, dataset_info(name, data.name, args.formatting))
            write_json(folder / "manifest.json", build_export_manifest(args, files.rows, counts))
    else:
        require_output_file(args.out, args.overwrite, files.rows)
        write_records(args.out, records, args.json, lambda: require_records(counts, files.rows, args.to))
        manifest = args.out.with_name(f"{args.out.name}.manifest.json")
        write_json(manifest, build_export_manifest(args, files.rows, counts))
    print_counts(args, format, counts)
    return None


def iter_records(path: Path, format: ExportFormat, empty_think: bool | None, counts: ExportCounts) -> Iterator[Record]:
    """The rows of a file as records; `counts` fills up on the way."""
    from onereason.data.exports import NotExpressible, carries_loss
    from onereason.data.inspect.reading import iter_lines

    writes_empty_think = format.empty_think if empty_think is None else empty_think
    for line in iter_lines(path):
        if line.row is None:
            counts.left_out.add(line.reason, f"line {line.number}: {line.detail}")
            continue
        try:
            record = format.convert(line.row, writes_empty_think)
        except NotExpressible as error:
            counts.left_out.add(error.reason, f"line {line.number}: {line.row['id']}")
            continue
        counts.written += 1
        if not carries_loss(line.row, format):
            counts.other_loss[line.row["loss"]] += 1
        yield record


def write_records(path: Path, records: Iterable[Record], as_array: bool, check: Any = None) -> None:
    """Writes records atomically, one a line or as one JSON array; `check()` may refuse before the file appears."""
    import orjson

    from onereason.io import atomic_file

    with atomic_file(path) as temporary:
        with temporary.open("wb") as handle:
            first = True
            for record in records:
                if as_array:
                    handle.write(b"[\n" if first else b",\n")
                handle.write(orjson.dumps(record))
                if not as_array:
                    handle.write(b"\n")
                first = False
            if as_array:
                handle.write(b"[]\n" if first else b"\n]\n")
        if check is not None:
            check()


def require_records(counts: ExportCounts, path: Path, name: str) -> None:
    """`DataError` where nothing was written."""
    from onereason.errors import DataError

    if not counts.written:
        why = dict(counts.left_out.counts) or "the file is empty"
        raise DataError(f"{path} holds no row that {name} can express ({why}); choose another format.")


def require_output_file(path: Path, overwrite: bool, rows: Path) -> None:
    """`StorageError` before long work where the file cannot be written."""
    from onereason.errors import StorageError
    from onereason.io import require_writable_parent

    if path.is_dir():
        raise StorageError(f"--out {path} is a folder; name a file, e.g. {path / 'train.jsonl'}.")
    if path.exists():
        if path.samefile(rows):
            raise StorageError(f"--out {path} is the corpus itself; name another file.")
        if not overwrite:
            raise StorageError(f"--out {path} exists; choose another path or pass --overwrite.")
    require_writable_parent(path)


def build_export_manifest(args: argparse.Namespace, rows: Path, counts: ExportCounts) -> dict[str, Any]:
    """What was written, out of what, and what was not."""
    from onereason.io import build_manifest

    config = {"format": args.to, "json": args.json, "empty_think": args.empty_think}
    if args.to == "llama_factory":
        config["formatting"] = args.formatting
    kept = {"records": counts.written} | {f"other_loss_{loss}": n for loss, n in sorted(counts.other_loss.items())}
    return build_manifest("export", inputs=[rows], config=config, counts=kept, rejected=counts.left_out.counts)


def print_counts(args: argparse.Namespace, format: ExportFormat, counts: ExportCounts) -> None:
    """What was written, what was left out and why, and what the format lost."""
    from onereason.data.inspect.tables import reason_table
    from onereason.data.inspect.terminal import build_console, render_table

    console = build_console()
    console.print(f"wrote {args.out}: {counts.written:,} records of {args.to}", markup=False, soft_wrap=True)
    if counts.left_out.counts:
        console.print(render_table(reason_table("Left out", counts.left_out, "rows"), console))
    notes = [
        f"{count:,} row(s) of loss {loss} take the format's loss" for loss, count in sorted(counts.other_loss.items())
    ]
    for note in [*notes, format.lost]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
