"""The part of `onereason data import` that reads public corpora out of core: dataset folder and catalog in one go."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from onereason.data.readers import CORPORA

_OPTIONS = ("catalog_out", "memory_limit", "threads", "max_users", "lag_unit")
_OTHERS = ("domain", "k_core", "columns", "items", "item_columns", "time_unit", "policy")


def add_arguments(importer: argparse.ArgumentParser) -> None:
    """The options that only `explorer` and `recif` take."""
    names = ", ".join(CORPORA)
    importer.add_argument("--catalog-out", type=Path, metavar="DIR", help=f"{names}: catalog folder to write")
    importer.add_argument("--memory-limit", metavar="SIZE", help=f"{names}: memory of the joins, then disk (4GB)")
    importer.add_argument("--threads", type=int, metavar="N", help=f"{names}: threads of the joins (2)")
    importer.add_argument("--max-users", type=int, metavar="N", help=f"{names}: only the first N rows of users")
    importer.add_argument("--lag-unit", choices=("hours", "days"), help="explorer: what a lag counts (hours)")


def check_options(args: argparse.Namespace) -> None:
    """`ConfigError` where an option does not belong to the reader, or a corpus has no place for its catalog."""
    from onereason.errors import ConfigError

    corpus = args.reader in CORPORA
    for name in _OTHERS if corpus else _OPTIONS:
        if getattr(args, name) not in (None, []):
            raise ConfigError(f"--{name.replace('_', '-')} does not apply to --reader {args.reader}; leave it out.")
    if corpus and args.catalog_out is None:
        raise ConfigError(f"--reader {args.reader} comes with semantic ids; give their place with --catalog-out DIR.")


def run_corpus(args: argparse.Namespace) -> None:
    """Imports the corpus and prints what was found, kept, left out and missing."""
    from onereason.data.readers.streaming.importer import ImportOptions, import_corpus

    given = {name: getattr(args, name) for name in _OPTIONS[1:] if getattr(args, name) is not None}
    layout = CORPORA[args.reader].layout
    manifest = import_corpus(layout, args.inputs, args.out, args.catalog_out, ImportOptions(**given), args.overwrite)
    print_counts(manifest["counts"], manifest["rejected"])
    print(f"dataset: {args.out}\ncatalog: {args.catalog_out}")


def print_counts(counts: dict[str, Any], rejected: dict[str, int]) -> None:
    """Tables on standard output: interactions by family, then everything left out, mended or missing by reason."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title="interactions by list of the user table")
    for name in ("list", "found", "kept", "left out", "why, most often first"):
        table.add_column(name, justify="right" if name in ("found", "kept", "left out") else "left")
    for family, row in counts["families"].items():
        why = sorted(((n, r) for r, n in row.items() if r not in ("found", "kept")), reverse=True)
        found, kept = row.get("found", 0), row.get("kept", 0)
        reasons = ", ".join(f"{reason.replace('_', ' ')} {n:,}" for n, reason in why)
        table.add_row(family, f"{found:,}", f"{kept:,}", f"{found - kept:,}", reasons)
    total = counts["found"]["interactions"]
    table.add_row("all", f"{total:,}", f"{counts['interactions']:,}", f"{total - counts['interactions']:,}", "")
    console.print(table)

    table = Table(title="everything else")
    for name in ("what", "which", "count"):
        table.add_column(name, justify="right" if name == "count" else "left")
    rows = [("users", "found", counts["found"]["users"]), ("users", "kept", counts["users"])]
    for domain, row in counts["by_domain"].items():
        rows += [(f"domain {domain}", "items", row["items"]), (f"domain {domain}", "interactions", row["interactions"])]
    for name, group in counts["tables"].items():
        rows += [(f"table {name}", what, n) for what, n in group.items()]
    rows += [("left out of users", what, n) for what, n in counts["quarantined"].items()]
    rows += [("mended", what, n) for what, n in counts["fixed"].items()]
    rows += [("missing", what, n) for what, n in counts["misses"].items()]
    for what, which, n in rows:
        table.add_row(what, which.replace("_", " "), f"{n:,}")
    console.print(table)
    if not rejected:
        console.print("nothing left out")
