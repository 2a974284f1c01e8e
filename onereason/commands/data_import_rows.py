"""`onereason data import-rows`: the Explorer's SFT lines into a corpus folder."""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DESCRIPTION = """\
Read SFT lines as the Explorer corpus has them, one JSON array of length 1 a line that holds {"system", "prompt",
"response"} (plain objects are read too), and write a corpus folder: rows.jsonl, rejected.jsonl, manifest.json, CARD.md.
A row's mode is what its response does (a trace or none); its domain is that of the items in the answer. Lines that
cannot be a row, or whose prompt asks for the other mode, are left out with the reason.
"""
CARD = """\
# Imported SFT lines

Rows read from SFT lines (`{{"system", "prompt", "response"}}`) by `onereason data import-rows`. One row a line; the
loss falls on the answer, think block included.

## Counts

{counts}

## Rejected

{rejected}

## Settings

{settings}

## Inputs (SHA-256)

{inputs}

The licence of the inputs holds for these rows.

## First row

```json
{example}
```
"""
MAX_EXAMPLE = 3000  # characters of the card's row
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def add_arguments(actions: Any) -> None:
    """Adds `import-rows` to the actions of `onereason data`."""
    parser = actions.add_parser(
        "import-rows",
        help="read the Explorer's SFT lines, write a corpus folder",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--in", dest="inputs", required=True, type=Path, nargs="+", metavar="FILE", help="SFT lines")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="corpus folder to write")
    parser.add_argument(
        "--format", default="onereason", metavar="NAME|FILE", help="itemic format (default: %(default)s)"
    )
    parser.add_argument("--task", default="sft", help="task of the rows (default: %(default)s)")
    parser.add_argument("--teacher", help="who wrote the answers, e.g. endpoint:NAME (default: not said)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing corpus folder")
    parser.set_defaults(run_action=run)


def run(args: argparse.Namespace) -> int | None:
    import orjson

    from onereason.data.inspect.reading import REJECTED_FILE, ROWS_FILE
    from onereason.data.inspect.statistics import Reasons
    from onereason.data.inspect.tables import reason_table
    from onereason.data.inspect.terminal import build_console, render_table
    from onereason.data.readers.sft_lines import BadLine, read_sft_lines
    from onereason.errors import ConfigError, DataError
    from onereason.io import MANIFEST_NAME, atomic_dir, build_manifest, require_file, require_output_dir, write_json
    from onereason.itemic.format import load_format

    if not _NAME.fullmatch(args.task):
        raise ConfigError(f"--task {args.task!r} is no task's name; use lower-case letters, digits and underscores.")
    format = load_format(args.format)
    for path in args.inputs:
        require_file(path, "SFT lines")
    require_output_dir(args.out, args.overwrite, args.inputs)
    counts: Counter[str] = Counter()
    reasons = Reasons()
    example: dict[str, Any] = {}
    with atomic_dir(args.out, args.overwrite) as folder:
        with (folder / ROWS_FILE).open("wb") as rows, (folder / REJECTED_FILE).open("wb") as rejected:
            for found in read_sft_lines(args.inputs, format, task=args.task, teacher=args.teacher):
                if isinstance(found, BadLine):
                    reasons.add(found.reason, f"{found.id}: {found.detail}")
                    rejected.write(orjson.dumps(vars(found)) + b"\n")
                    continue
                example = example or found
                counts["rows"] += 1
                counts[f"mode_{found['mode']}"] += 1
                if "domain" in found:
                    counts[f"domain_{found['domain']}"] += 1
                rows.write(orjson.dumps(found) + b"\n")
        if not counts["rows"]:
            names = ", ".join(map(str, args.inputs))
            raise DataError(f"no row is left of {names}: rejected {dict(reasons.counts) or 'nothing, it is empty'}.")
        if not reasons.counts:
            (folder / REJECTED_FILE).unlink()
        manifest = build_manifest(
            "corpus",
            inputs=args.inputs,
            config={"source": "sft_lines", "format": format.name, "task": args.task, "teacher": args.teacher},
            counts=counts,
            rejected=reasons.counts,
        )
        write_json(folder / MANIFEST_NAME, manifest)
        (folder / "CARD.md").write_text(render_card(manifest, example), "utf-8")
    console = build_console()
    console.print(f"wrote {args.out}: {counts['rows']:,} rows", markup=False, soft_wrap=True)
    if reasons.counts:
        console.print(render_table(reason_table("Rejected lines", reasons, "lines"), console))
    return None


def render_card(manifest: Mapping[str, Any], example: Mapping[str, Any]) -> str:
    """The data card, Markdown."""

    def table(values: Mapping[str, Any], empty: str) -> str:
        lines = [f"| {name} | {value} |" for name, value in values.items()]
        return "\n".join(["| | |", "|---|---|", *lines]) if lines else empty

    shown = json.dumps(example, ensure_ascii=False, indent=2)
    return CARD.format(
        counts=table(manifest["counts"], "none"),
        rejected=table(manifest["rejected"], "Nothing was rejected."),
        settings=table(manifest["config"], "none"),
        inputs=table(manifest["inputs"], "none"),
        example=shown if len(shown) <= MAX_EXAMPLE else shown[:MAX_EXAMPLE] + " ...",
    )
