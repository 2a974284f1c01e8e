"""How fast the template teacher's corpora are made, and in how much memory.

    python benchmarks/builders.py [--users 4000] [--items 4000] [--quick]

Each corpus is built by its own builder in a process of its own, with one thread: its row source makes the rows of every
shard, runs all checks, and writes the JSON. Rates are rows over CPU seconds of making and writing; reading the data and
gathering knowledge are not in them and stand beside them. `rows_per_second_per_core` is that of all corpora together.
`growth` is how much more memory making the rows takes beyond what was loaded when there are ten times as many.
`speedup_write` is our writing of shards against `datasets.Dataset.from_list(rows).to_json` on the same rows of
recommendation. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

CASES: dict[str, tuple[str, ...]] = {
    "persona": ("build_persona",),
    "sequential": ("build_sequential",),
    "caption": ("build_captions",),
    "pretraining": ("build_pretraining",),
    "perception": ("build_perception",),
    "derivation": ("build_derivation",),
    "evolution": ("build_evolution",),
    "rationale": ("build_rationales", "--targets", "8"),
    "recommendation": ("build_recommendation", "--targets", "8"),
    "instruction": ("build_instructions", "--num-rows", "20000"),
}
"""Corpus -> builder and what it is given beside data and catalog."""

GROWN = "recommendation"
FACTOR = 10


def write_inputs(folder: Path, users: int, items: int) -> None:
    """A simulated world and a catalog whose ids are dealt out in order."""
    from onereason.data.simulate import WorldConfig, simulate_world, write_world
    from onereason.itemic.catalog import Catalog
    from onereason.itemic.format import load_format

    world = simulate_world(WorldConfig(users=users, items=items, seed=0))
    write_world(world, folder / "world")
    table = world.dataset.items
    places = np.arange(table.height)
    codes = np.stack([places // 64**2 % 64, places // 64 % 64, places % 64], axis=1)
    names = table["item_id"].to_list()
    captions, domains = table["text"].to_list(), table["domain"].to_list()
    Catalog(load_format("onereason", 3, 64), names, codes, domains, captions).save(folder / "catalog")


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run_case(folder: Path, name: str, out: Path) -> dict[str, float]:
    """Builds one corpus here; the engine's own road, shard by shard, without its last step of putting them together."""
    from data_builders.engine import build_shard
    from data_builders.shards import shards_of

    module_name, *more = CASES[name]
    module = importlib.import_module(f"data_builders.{module_name}")
    figures: dict[str, float] = {}
    begun = time.process_time()

    def measure(args: argparse.Namespace, source: Any, **_: Any) -> None:
        figures["load_seconds"] = time.process_time() - begun
        figures["loaded_gib"] = peak_gib()
        out.mkdir()
        rows, started = 0, time.process_time()
        for shard in shards_of(source.num_units, args.shard_size):
            rows += build_shard(source, out, shard)
        figures["rows"], figures["seconds"] = rows, time.process_time() - started
        figures["peak_gib"] = peak_gib()
        figures["megabytes"] = sum(path.stat().st_size for path in out.glob("rows-*")) / 2**20
        if name == GROWN:
            figures["speedup_write"] = compare_writing(source, out)

    module.build_corpus = measure  # the builder reads, checks and gathers as ever, and hands its row source over
    data = [] if name == "caption" else ["--data", str(folder / "world")]
    code = module.main([*data, "--catalog", str(folder / "catalog"), "--out", str(out.parent / "corpus"), *more])
    if code:
        raise SystemExit(code)
    return figures


def compare_writing(source: Any, out: Path) -> float:
    """Seconds that `datasets` takes to write some rows over ours."""
    import datasets

    from data_builders.shards import shards_of

    shard = shards_of(min(source.num_units, 500), 500)[0]
    rows, _ = source.build(shard.start, shard.stop)
    rows = [row | {"teacher": row.get("teacher", "")} for row in rows]
    datasets.disable_progress_bars()
    started = time.process_time()
    shard.write(out, rows, [])
    ours = time.process_time() - started
    started = time.process_time()
    datasets.Dataset.from_list(rows).to_json(out / "datasets.jsonl")
    return (time.process_time() - started) / max(ours, 1e-9)


def run_apart(*arguments: str) -> str:
    """What this file prints in a fresh process. Everything big happens there: a child's peak begins at its parent's."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr or done.stdout}")
    return done.stdout


def measure_case(folder: Path, name: str) -> dict[str, float]:
    """`run_case` in a fresh process."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        printed = run_apart("--case", name, "--folder", str(folder), "--out", f"{scratch}/shards")
    return json.loads(printed.splitlines()[-1])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=4000)
    parser.add_argument("--items", type=int, default=4000)
    parser.add_argument("--quick", action="store_true", help="a small world, no growth")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.case == "inputs":
        write_inputs(args.folder, args.users, args.items)
        return 0
    if args.case:
        print(json.dumps(run_case(args.folder, args.case, args.out)))
        return 0
    users, items = (600, 1200) if args.quick else (args.users, args.items)
    figures: dict[str, Any] = {"users": users, "items": items, "corpora": {}}
    print(f"{users:,} users, {items:,} items, one thread\n")
    print("| corpus | rows | rows/s a core | CPU s | loading, CPU s | bytes a row | peak GiB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run_apart("--case", "inputs", "--folder", scratch, "--users", str(users), "--items", str(items))
        measured: list[dict[str, float]] = []
        for name in CASES:
            found = measure_case(folder, name)
            measured.append(found)
            rate = found["rows"] / max(found["seconds"], 1e-9)
            figures["corpora"][name] = {
                "rows": int(found["rows"]),
                "rows_per_second_per_core": round(rate),
                "peak_gib": round(found["peak_gib"], 3),
            }
            size = found["megabytes"] * 2**20 / max(found["rows"], 1)
            print(
                f"| {name} | {found['rows']:,} | {rate:,.0f} | {found['seconds']:.1f} | {found['load_seconds']:.1f} "
                f"| {size:,.0f} | {found['peak_gib']:.2f} |",
                flush=True,
            )
            if name == GROWN:
                small = found
        rates = {name: case["rows_per_second_per_core"] for name, case in figures["corpora"].items()}
        together = sum(of["rows"] for of in measured) / sum(of["seconds"] for of in measured)
        slowest = min(rates, key=lambda name: rates[name])
        figures |= {
            "rows_per_second_per_core": round(together),
            "slowest": {slowest: rates[slowest]},
            "speedup_write": round(small["speedup_write"], 2),
        }
        print(f"\nall together: {together:,.0f} rows/s a core; the slowest, {slowest}: {rates[slowest]:,}")
        figures["peak_gib"] = max(case["peak_gib"] for case in figures["corpora"].values())
        print(f"writing: {small['speedup_write']:.1f} times as fast as datasets.to_json")
        if not args.quick:
            grown = folder / "grown"
            grown.mkdir()
            more = str(users * FACTOR)
            run_apart("--case", "inputs", "--folder", str(grown), "--users", more, "--items", str(items))
            large = measure_case(grown, GROWN)
            extra = [case["peak_gib"] - case["loaded_gib"] for case in (small, large)]
            figures["growth"] = {
                "rows": round(large["rows"] / small["rows"], 2),
                "gib_beyond_loading": [round(value, 3) for value in extra],
                "peak_gib": [round(case["peak_gib"], 3) for case in (small, large)],
            }
            print(
                f"{GROWN}: {large['rows'] / small['rows']:.1f} times the rows take {extra[1]:.3f} GiB beyond what was "
                f"loaded, {extra[0]:.3f} before; peaks {small['peak_gib']:.2f} and {large['peak_gib']:.2f} GiB"
            )
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
