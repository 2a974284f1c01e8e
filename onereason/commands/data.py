"""`onereason data`: reading what others hold, looking at corpora, and handing them over.

`import` reads interactions and items from a public format or your own tables into a dataset folder and lives here;
`import-rows`, `inspect` and `export` are modules of their own.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from onereason.commands import data_export, data_import_corpus, data_import_rows, data_inspect

if TYPE_CHECKING:
    from onereason.data.readers import CorpusSpec, ReaderSpec
    from onereason.data.schema import Dataset
    from onereason.data.validate import Policy

POLICY_HELP = (
    "what happens to rows that break the rules: duplicates=drop|keep|refuse, unknown_items=drop|refuse, "
    "time_disorder=sort|refuse, empty_histories=drop|refuse, null_titles=fill|drop|refuse, min_interactions=N "
    "(defaults: duplicates=drop, unknown_items=refuse, time_disorder=sort, empty_histories=drop, null_titles=fill, "
    "min_interactions=1)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from onereason.data.readers import CORPORA, READERS

    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    known: dict[str, ReaderSpec | CorpusSpec] = {**READERS, **CORPORA}
    readers = "\n".join(f"  {name:14}{spec.help}\n{'':16}from {spec.expects}" for name, spec in known.items())
    importer = actions.add_parser(
        "import",
        help="read a source, check it, write a dataset folder",
        description="Read a source, check it, write a dataset folder (items.parquet, interactions.parquet, "
        "manifest.json) and print what was found, kept, fixed and dropped.",
        epilog=f"readers:\n{readers}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    importer.add_argument("--reader", required=True, choices=tuple(known), help="source format, see below")
    importer.add_argument(
        "--in", dest="inputs", required=True, type=Path, nargs="+", metavar="PATH", help="the reader's folder or files"
    )
    importer.add_argument("--out", required=True, type=Path, help="dataset folder to write")
    importer.add_argument("--domain", help="domain of every item, e.g. prod for the onereason format (default: item)")
    importer.add_argument("--k-core", type=int, metavar="K", help="amazon2014: fewest reviews a user and item (5)")
    importer.add_argument(
        "--columns", metavar="NAME=COL,...", help="table: e.g. user_id=uid,item_id=iid,timestamp=ts,signal_watch=secs"
    )
    importer.add_argument("--items", type=Path, metavar="FILE", help="table: the items' own file")
    importer.add_argument(
        "--item-columns", metavar="NAME=COL,...", help="table: e.g. item_id=iid,title=name,text=caption,domain=kind"
    )
    importer.add_argument("--time-unit", choices=("s", "ms", "us", "ns"), help="table: unit of the timestamps (s)")
    importer.add_argument("--policy", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=POLICY_HELP)
    importer.add_argument("--overwrite", action="store_true", help="replace an existing dataset folder")
    data_import_corpus.add_arguments(importer)
    importer.set_defaults(run_action=run_import)
    for module in (data_import_rows, data_inspect, data_export):
        module.add_arguments(actions)


def run(args: argparse.Namespace) -> int | None:
    return args.run_action(args)


def run_import(args: argparse.Namespace) -> int | None:
    from onereason.data.readers import CORPORA, import_dataset
    from onereason.data.readers.table import parse_column_map
    from onereason.data.schema import save_dataset
    from onereason.errors import ConfigError
    from onereason.io import require_output_dir

    data_import_corpus.check_options(args)
    if args.reader in CORPORA:
        data_import_corpus.run_corpus(args)
        return None
    require_output_dir(args.out, args.overwrite, [*args.inputs, *([args.items] if args.items else [])])
    policy = parse_policy(args.policy)
    if args.item_columns and not args.items:
        raise ConfigError("--item-columns describes the items' own file; give it with --items FILE.")
    dataset = import_dataset(
        args.reader,
        args.inputs,
        policy,
        domain=args.domain,
        k_core=args.k_core,
        columns=parse_column_map(args.columns) if args.columns else None,
        items=args.items,
        item_columns=parse_column_map(args.item_columns) if args.item_columns else None,
        time_unit=args.time_unit,
    )
    save_dataset(dataset, args.out, args.overwrite)
    print_import(dataset, args.out)
    return None


def parse_policy(pairs: list[str]) -> Policy:
    """`["duplicates=keep"]` -> the policy; `ConfigError` naming the key, the value and the choices."""
    from onereason.config import build_config
    from onereason.data.validate import Policy
    from onereason.errors import ConfigError

    values: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = (part.strip() for part in pair.partition("="))
        if not (key and sign and value):
            raise ConfigError(f"--policy {pair!r} is not of the form key=value, e.g. duplicates=keep.")
        values[key] = value
    return build_config(Policy, values, "--policy")


def print_import(dataset: Dataset, out: Path) -> None:
    """What was found, fixed, dropped and kept, as a table on standard output."""
    from rich.console import Console
    from rich.table import Table

    counts = dataset.manifest["counts"]
    table = Table(title=f"imported with reader {dataset.manifest['config']['reader']}")
    table.add_column("")
    for name in ("items", "users", "interactions"):
        table.add_column(name, justify="right")
    for label, row in (("found", counts["found"]), ("kept", counts)):
        table.add_row(label, *(f"{row[name]:,}" for name in ("items", "users", "interactions")))
    for domain, row in counts["by_domain"].items():
        table.add_row(f"  domain {domain}", f"{row['items']:,}", "", f"{row['interactions']:,}")
    console = Console()
    console.print(table)
    reasons = Table()
    for name in ("what", "reason"):
        reasons.add_column(name)
    reasons.add_column("count", justify="right")
    for what, group in (("dropped", dataset.manifest["rejected"]), ("fixed", counts["fixed"])):
        for reason, count in group.items():
            reasons.add_row(what, reason.replace("_", " "), f"{count:,}")
    if reasons.row_count:
        console.print(reasons)
    else:
        console.print("nothing dropped, nothing fixed")
    console.print(f"dataset: {out}", highlight=False, soft_wrap=True)
