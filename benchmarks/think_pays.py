"""Does thinking pay after each stage? A whole pipeline with several seeds, and one table.

    python benchmarks/think_pays.py --runs runs/think_pays --seeds 0,1,2 --results benchmarks/results/think_pays.json
    python benchmarks/think_pays.py --runs runs/beauty --seeds 0 --file recipes/configs/pipeline/beauty.yaml key=value

Each seed is a pipeline of its own (world, model, training, evaluation) under `RUNS/seedS`; what is done is not run
again, so that an interrupted table goes on. A seed's interval is the 95 % of the paired bootstrap over its users;
`pooled` is the mean difference of all seeds, whose worlds are independent, with the interval that theirs make. `ahead`
says whether the pooled interval is clear of zero, `ahead_in_every_seed` whether each seed's own is. The last line is
one JSON object, which `--results` writes too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
CUTOFFS = ("1", "8", "64")


def run_seed(seed: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one seed's report."""
    run = args.runs / f"seed{seed}"
    command = [sys.executable, "-m", "onereason.cli", "pipeline", str(args.file), f"run={run}", f"seed={seed}"]
    done = subprocess.run([*command, *args.settings], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    if done.returncode:
        sys.exit(done.returncode)
    return [row | {"seed": seed} for row in json.loads((run / "results.json").read_text())["stages"]]


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a stage and domain: means over seeds, and whether thinking is ahead in all of them."""
    found = []
    for stage, domain in dict.fromkeys((row["stage"], row["domain"]) for row in rows):
        own = [row for row in rows if (row["stage"], row["domain"]) == (stage, domain)]
        line: dict[str, Any] = {"stage": stage, "domain": domain, "seeds": len(own)}
        for system in ("model", "think", "race"):
            line[system] = {k: float(np.mean([row["recall"][system][k] for row in own])) for k in CUTOFFS}
        differences = [row["think_minus_no_think"] for row in own]
        line["think_minus_no_think"] = {k: [d[k]["difference"] for d in differences] for k in CUTOFFS}
        line["pooled"] = {k: pool([d[k] for d in differences]) for k in CUTOFFS}
        line["ahead"] = {k: line["pooled"][k]["low"] > 0 for k in CUTOFFS}
        line["ahead_in_every_seed"] = {k: all(d[k]["low"] > 0 for d in differences) for k in CUTOFFS}
        line["dll"] = [row["traces"]["delta_loglikelihood"] for row in own]
        found.append(line)
    return found


def pool(intervals: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of independent differences and its 95 % interval, from the difference, low and high of each."""
    mean = float(np.mean([found["difference"] for found in intervals]))
    half = float(np.linalg.norm([(found["high"] - found["low"]) / 2 for found in intervals])) / len(intervals)
    return {"difference": mean, "low": mean - half, "high": mean + half}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=ROOT / "recipes/configs/pipeline/tiny.yaml")
    parser.add_argument("--runs", type=Path, required=True, help="one folder a seed is made in it")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="where the JSON is written too")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="overrides of the pipeline")
    args = parser.parse_args(argv)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    rows = [row for seed in seeds for row in run_seed(seed, args)]
    table = summarise(rows)
    print("| stage | domain | R@1 / 8 / 64 at once | thinking | race | thinking - at once, R@8 | R@64 | dLL by seed |")
    print("|---|---|---|---|---|---|---|---|")
    for line in table:
        recalls = [" / ".join(f"{line[system][k]:.4f}" for k in CUTOFFS) for system in ("model", "think", "race")]
        differences = [
            f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"
            for found in (line["pooled"]["8"], line["pooled"]["64"])
        ]
        dll = ", ".join(f"{value:+.3f}" for value in line["dll"])
        print(f"| {line['stage']} | {line['domain']} | {' | '.join(recalls + differences)} | {dll} |")
    command = f"python benchmarks/think_pays.py --runs RUNS --seeds {args.seeds} " + " ".join(args.settings)
    found = {"benchmark": "think_pays", "command": command.strip(), "seeds": seeds, "table": table, "rows": rows}
    if args.results:
        args.results.parent.mkdir(parents=True, exist_ok=True)
        args.results.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({name: value for name, value in found.items() if name != "rows"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
