"""Public corpora imported out of core: rows a second and peak memory as the tables grow, and against an eager join.

    python benchmarks/importers.py            # the Explorer corpus at its own size: 36M sids, 21M captions, 500k users
    python benchmarks/importers.py --quick    # a hundredth of it

Tables are generated into a temporary folder (in `--work`) and deleted. Every import runs in a process of its own, so
its peak memory is its own. Three questions: what the whole size takes under `--memory-limit`; how peak memory grows
with the rows (shares `--grow` of the size) where the limit is so low that it binds; and, at share `--compare`, what
loading everything into Polars and joining it there takes. The last line is one JSON object; a ratio above 1 means that
the eager join takes more.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FULL = {"items": 35_900_000, "captions": 21_100_000, "tags": 5_400_000, "users": 500_000}
"""Rows of the Explorer corpus."""
FAULTS = {"duplicate_sids": 0.001, "no_sid": 0.02, "null_items": 0.001, "unequal_lists": 0.001}


def run_import(folder: Path, out: Path, memory_limit: str, threads: int) -> dict[str, Any]:
    """Our import, in this process."""
    from onereason.data.readers.explorer import LAYOUT
    from onereason.data.readers.streaming.importer import ImportOptions, import_corpus

    manifest = import_corpus(LAYOUT, [folder], out / "data", out / "catalog", ImportOptions(memory_limit, threads))
    counts = manifest["counts"]
    tables = sum(table["rows"] for table in counts["tables"].values())
    return {
        "table_rows": tables + counts["found"]["users"],
        "list_entries": counts["found"]["interactions"],
        "interactions": counts["interactions"],
        "items": counts["items"],
    }


def run_eager(folder: Path, out: Path) -> dict[str, Any]:
    """The same join with every table in memory: explode the lists, join, sort, write. It checks and counts nothing."""
    import polars as pl

    from onereason.data.readers.explorer import FAMILIES, LAYOUT

    out.mkdir(parents=True)

    def read(table: str) -> pl.DataFrame:
        rows = pl.read_parquet(folder / table).unique(["domain", "pid"], keep="first", maintain_order=True)
        return rows.with_columns(pl.col("domain").replace_strict(dict(LAYOUT.domains)))

    sids, captions, tags = (read(f"OneReason_{name}") for name in ("Pid2Sid", "Pid2Caption", "Pid2Tag"))
    known = sids.select("pid", "domain", seek="domain")
    ads = known.filter(domain="ad").join(known.filter(domain="video"), on="pid", how="anti")
    known = pl.concat([known, ads.with_columns(seek=pl.lit("video"))])
    users = pl.read_parquet(folder / "OneReason_UserProfile").with_row_index("user")
    parts = []
    for family in FAMILIES:
        columns = [c for c in (family.items, family.times, *family.signals) if c is not None and c in users.columns]
        whole = pl.all_horizontal(pl.col(c).list.len() == pl.col(family.items).list.len() for c in columns)
        part = users.filter(whole).select("user", "ec_time_ms", *columns).explode(columns).drop_nulls(family.items)
        time = pl.col(family.times or "").cast(pl.Int64, strict=False)
        if family.clock == "date":
            time = pl.col(family.times or "").str.to_datetime("%Y%m%d", strict=False).dt.epoch("ms")
        elif family.clock == "lag":
            time = pl.col("ec_time_ms").fill_null(0) - time * 3_600_000
        if family.chosen_by:
            flags = [column for column, signal in family.signals.items() if signal in family.chosen_by]
            part = part.filter(pl.any_horizontal(pl.col(flags) > 0))
        signals = [pl.col(c).cast(pl.Float32).alias(f"signal_{s}") for c, s in family.signals.items() if c in columns]
        part = part.select(
            "user",
            pl.col(family.items).alias("pid"),
            (time // 1000).alias("timestamp"),
            pl.lit(family.domain).alias("seek"),
            pl.lit(family.action).alias("action"),
            *signals,
        )
        parts.append(part)
    table = pl.concat(parts, how="diagonal").join(known, on=["seek", "pid"])
    table = table.sort(["user", "timestamp"], maintain_order=True)
    table = table.unique(["user", "domain", "pid", "timestamp"], keep="first", maintain_order=True)
    item = pl.format("{}:{}", "domain", "pid").alias("item_id")
    table.with_columns(item, user_id=pl.format("u{}", "user")).drop("user", "pid", "seek").write_parquet(
        out / "interactions.parquet"
    )
    uses = table.group_by("domain", "pid").len("popularity")
    items = sids.join(uses, on=["domain", "pid"]).join(captions, on=["domain", "pid"], how="left")
    items = items.join(tags, on=["domain", "pid"], how="left").with_columns(item)
    items.select("item_id", "domain", "caption", "tag_lv3").write_parquet(out / "items.parquet")
    items.select("item_id", "domain", "sid_three", "caption", "popularity").write_parquet(out / "catalog.parquet")
    return {"interactions": table.height, "items": items.height}


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    """One system on one folder: what came of it, seconds, peak memory."""
    start = time.perf_counter()
    folder, out = Path(case["folder"]), Path(case["out"])
    if case["system"] == "ours":
        figures = run_import(folder, out, case["memory_limit"], case["threads"])
    else:
        figures = run_eager(folder, out)
    figures["seconds"] = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures["peak_gib"] = peak / (2**30 if sys.platform == "darwin" else 2**20)
    return figures


def call(command: list[str], args: argparse.Namespace) -> str:
    """Runs a Python process; its standard output."""
    threads = {name: str(args.threads) for name in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS")}
    print(" ".join(command[:2])[-40:], "...", command[-1][:120], file=sys.stderr, flush=True)
    root = str(Path(__file__).resolve().parents[1])
    environment = os.environ | threads | {"PYTHONPATH": root}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"{command} failed ({done.returncode}):\n{done.stderr[-3000:]}")
    return done.stdout


def generate(share: float, args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Tables of a share of the full size, in a folder of their own."""
    folder = args.work / "tables"
    shape = {name: max(1, round(rows * share)) for name, rows in args.shape.items()}
    options = [part for name, rows in shape.items() for part in (f"--{name}", str(rows))]
    faults = [part for name, planted in FAULTS.items() for part in ("--fault", f"{name}={planted}")]
    start = time.perf_counter()
    command = ["-m", "onereason.data.simulate.public_tables", "--entries", str(args.entries), "--overwrite"]
    call([*command, *options, *faults, "--out", str(folder)], args)
    size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    return folder, {"shape": shape, "generate_seconds": time.perf_counter() - start, "tables_gib": size / 2**30}


def measure(system: str, folder: Path, memory_limit: str, args: argparse.Namespace) -> dict[str, Any]:
    """One system in a process of its own; what it writes is deleted."""
    out = args.work / "out"
    case = {"system": system, "folder": str(folder), "out": str(out), "memory_limit": memory_limit}
    printed = call([os.path.abspath(__file__), "--case", json.dumps({**case, "threads": args.threads})], args)
    shutil.rmtree(out)
    figures = json.loads(printed.splitlines()[-1])
    if system == "ours":
        figures["rows"] = figures["table_rows"] + figures["list_entries"]
        figures["rows_per_second"] = figures["rows"] / figures["seconds"]
        figures["memory_limit"] = memory_limit
    return figures


def run_all(args: argparse.Namespace) -> dict[str, Any]:
    """Every case; the tables of one size at a time are on disk."""
    result: dict[str, Any] = {"benchmark": "importers", "threads": args.threads, "entries_a_user": args.entries}
    growth = []
    for share in sorted({1.0, *args.grow, *([args.compare] if args.compare else [])}):
        folder, made = generate(share, args)
        if share in args.grow:
            growth.append(made | measure("ours", folder, args.grow_memory_limit, args))
        if share in (args.compare, 1.0):
            ours = measure("ours", folder, args.memory_limit, args)
        if share == 1.0:
            names = ("rows", "seconds", "rows_per_second", "peak_gib", "memory_limit")
            result |= {name: ours[name] for name in names} | {"full": made | ours}
        if share == args.compare:
            eager = measure("eager", folder, args.memory_limit, args)
            found = [[figures[name] for name in ("interactions", "items")] for figures in (ours, eager)]
            if found[0] != found[1]:
                sys.exit(f"the two joins differ: {ours} and {eager}")
            ratios = {f"{name}_ratio": eager[name] / ours[name] for name in ("seconds", "peak_gib")}
            result["comparison"] = {**made, "ours": ours, "eager": eager, **ratios}
        shutil.rmtree(folder)
    if len(growth) > 1:
        small, large = growth[0], growth[-1]
        result |= {f"growth_{name}": large[name] / small[name] for name in ("rows", "seconds", "peak_gib")}
    return result | {"growth": growth}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a hundredth of the size, ends within 50 s")
    for name, rows in FULL.items():
        parser.add_argument(f"--{name}", type=int, default=rows, help="default: %(default)s")
    parser.add_argument("--entries", type=float, default=100.0, help="list entries a user (default: %(default)s)")
    parser.add_argument("--memory-limit", default="4GB", help="of our joins (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--grow", type=float, nargs="*", default=[0.03, 0.3], help="shares (default: %(default)s)")
    parser.add_argument("--grow-memory-limit", default="500MB", help="of the joins as they grow (default: %(default)s)")
    parser.add_argument("--compare", type=float, default=0.1, help="share of the size at which to compare; 0 for none")
    parser.add_argument("--work", type=Path, help="folder for tables and outputs (default: a temporary one)")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(run_case(json.loads(args.case))))
        return
    args.shape = {name: getattr(args, name) for name in FULL}
    if args.quick:
        args.shape = {name: rows // 100 for name, rows in FULL.items()}
        args.memory_limit, args.compare = "500MB", 1.0
        args.grow, args.grow_memory_limit = [0.1, 1.0], "250MB"
    if args.work is not None:
        args.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.work, prefix="importers-") as work:
        args.work = Path(work)
        result = run_all(args)
    print_tables(result)
    print(json.dumps(result))


def print_tables(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(title=f"import, {result['threads']} thread(s)")
    for name in (
        "limit",
        "sids",
        "captions",
        "users",
        "list entries",
        "interactions",
        "seconds",
        "rows / s",
        "peak (GiB)",
    ):
        table.add_column(name, justify="right")
    for row in [*result["growth"], result["full"]]:
        shape = row["shape"]
        table.add_row(
            row["memory_limit"],
            *(f"{shape[name]:,}" for name in ("items", "captions", "users")),
            f"{row['list_entries']:,}",
            f"{row['interactions']:,}",
            f"{row['seconds']:.1f}",
            f"{row['rows_per_second']:,.0f}",
            f"{row['peak_gib']:.2f}",
        )
    console.print(table)
    if "comparison" not in result:
        return
    comparison = result["comparison"]
    table = Table(title=f"against an eager join in Polars, {comparison['shape']['items']:,} sids")
    for name in ("system", "interactions", "seconds", "peak (GiB)"):
        table.add_column(name, justify="left" if name == "system" else "right")
    for system in ("ours", "eager"):
        row = comparison[system]
        table.add_row(system, f"{row['interactions']:,}", f"{row['seconds']:.1f}", f"{row['peak_gib']:.2f}")
    table.add_row("eager / ours", "", f"{comparison['seconds_ratio']:.2f}", f"{comparison['peak_gib_ratio']:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
