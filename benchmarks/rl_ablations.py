"""What each choice of reinforcement does: runs that differ in one setting, from one start model, in one table.

    python benchmarks/rl_ablations.py --model runs/sft/model --data runs/world --out runs/ablations [key=value ...]
    python benchmarks/rl_ablations.py ... --only base,shared_credit --seeds 0,1,2

Every variant is a run of `recipes.rl` (further `key=value` reach all of them), then an evaluation on validation users
in both modes. What is finished is not run again, so an interrupted table goes on. The variants of N x K generate about
as many tokens a step (traces of 70 tokens, items of 2). The last line is one JSON object; `--results FILE` writes it
too.
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

VARIANTS: dict[str, tuple[str, ...]] = {
    "base": (),
    "n2_k16": ("rollout.num_traces=2",),
    "n2_k64": ("rollout.num_traces=2", "rollout.num_items=64", "training.per_device_train_batch_size=32"),
    "n8_k16": ("rollout.num_traces=8",),
    "one_clip": ("loss.item_clip=[0.2,0.28]", "minibatches=4", "training.per_device_train_batch_size=16"),
    "two_clips": ("minibatches=4", "training.per_device_train_batch_size=16"),
    "kl_0.05": ("loss.kl_beta=0.05",),
    "misses_0.3": ("loss.miss_weight=0.3",),
    "shared_credit": ("advantage.credit=shared",),
    "hit": ("reward.terms=[{name: hit}]", "reward.combine=sum"),
    "hit_x_diversity": ("reward.terms=[{name: hit}, {name: diversity}]", "reward.combine=product"),
    "rollout_beam": ("reward.terms=[{name: rollout_beam}]", "reward.combine=sum"),
    "graded": ("reward.terms=[{name: graded}]", "reward.combine=sum"),
    "likelihood": ("reward.terms=[{name: answer_likelihood}]", "reward.combine=sum"),
    "no_guide": ("rollout.include_positive=false",),
    "mixed_modes": ("rollout.mode=mixed",),
}
"""Name -> what differs from the base, which rolls N = 4 traces and K = 16 items out for 16 prompts; `one_clip` and
`two_clips` take four steps a generation, where clipping matters."""


def run(command: list[str], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
    with log.open("w") as handle:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=handle, stderr=subprocess.STDOUT)
    if done.returncode:
        tail = "\n".join(log.read_text().splitlines()[-15:])
        sys.exit(f"{' '.join(command)} failed with {done.returncode}:\n{tail}")


def measure(name: str, seed: int, args: argparse.Namespace, settings: Sequence[str]) -> dict[str, Any]:
    """Trains and evaluates one variant, unless its results are there."""
    out = args.out / f"{name}-seed{seed}"
    model = args.model
    if name != "start":
        model = out / "rl" / "model"
        if not model.is_dir():
            paths = [f"model={args.model}", f"data={args.data}", f"out={out / 'rl'}", f"training.seed={seed}"]
            run(
                [sys.executable, "-m", "recipes.rl", "--config", args.config, *paths, *settings, *VARIANTS[name]],
                out / "rl.log",
            )
    results = out / "evaluation" / "results.json"
    if not results.is_file():
        asked = ["--model", str(model), "--data", str(args.data), "--split", "validation", "--out", str(results)]
        asked += ["--prompt", "chat", "--modes", "no_think,think", "--indicators", "--k", "1,8,64", "--num-beams", "64"]
        asked += ["--max-users", str(args.users), "--think-budget", str(args.think_budget)]
        asked += ["--max-history", str(args.max_history), "--overwrite"]
        run([sys.executable, "-m", "onereason.cli", "evaluate", *asked], out / "evaluation.log")
    found = json.loads(results.read_text())
    figures: dict[str, Any] = {"variant": name, "seed": seed}
    for system, short in (("model", "no_think"), ("think", "think")):
        for cutoff in (1, 8, 64):
            figures[f"{short}_recall_at_{cutoff}"] = found["metrics"][system]["item"][f"recall_at_{cutoff}"]
    figures["dll"] = found["traces"]["delta_loglikelihood"]
    figures["trace_tokens"] = found["traces"]["mean_tokens"]
    if name != "start":
        history = json.loads((out / "rl" / "log_history.json").read_text())
        lines = [line for line in history if "rollout/item_entropy_1" in line]
        window = max(1, len(lines) // 10)
        for key in ("rollout/item_entropy_1", "rollout/first_code_diversity", "rollout/recall"):
            for place, part in (("first", lines[:window]), ("last", lines[-window:])):
                figures[f"{key.removeprefix('rollout/')}_{place}"] = float(np.mean([line[key] for line in part]))
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="start model, after SFT")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="runs and evaluations")
    parser.add_argument("--config", default="recipes/configs/rl/tiny.yaml")
    parser.add_argument("--only", help=f"variants, comma-separated, out of {', '.join(VARIANTS)}")
    parser.add_argument("--seeds", default="0", help="comma-separated (default: %(default)s)")
    parser.add_argument("--users", type=int, default=500, help="validation users (default: %(default)s)")
    parser.add_argument("--think-budget", type=int, default=128)
    parser.add_argument("--max-history", type=int, default=50)
    parser.add_argument("--results", type=Path, help="where the JSON is written too")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="for every run")
    args = parser.parse_args(argv)
    names = args.only.split(",") if args.only else list(VARIANTS)
    if unknown := sorted(set(names) - set(VARIANTS)):
        parser.error(f"--only names {unknown[0]!r}; variants are {', '.join(VARIANTS)}.")
    settings = [f"max_history={args.max_history}", *args.settings]
    rows = [measure("start", 0, args, settings)]
    for name in names:
        rows += [measure(name, int(seed), args, settings) for seed in args.seeds.split(",")]
    print_table(rows)
    found = {"benchmark": "rl_ablations", "users": args.users, "settings": settings, "rows": rows}
    if args.results:
        args.results.parent.mkdir(parents=True, exist_ok=True)
        args.results.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))
    return 0


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Means over seeds, in the order of the variants."""
    print("| variant | seeds | think R@1 / 8 / 64 | no_think R@1 / 8 / 64 | dLL | tokens | entropy of first codes |")
    print("|---|---|---|---|---|---|---|")
    for name in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == name]

        def mean(key: str, of: Sequence[dict[str, Any]] = own) -> float:
            return float(np.mean([row[key] for row in of]))

        recalls = [" / ".join(f"{mean(f'{m}_recall_at_{k}'):.4f}" for k in (1, 8, 64)) for m in ("think", "no_think")]
        entropy = ""
        if name != "start":
            entropy = f"{mean('item_entropy_1_first'):.2f} -> {mean('item_entropy_1_last'):.2f}"
        print(
            f"| {name} | {len(own)} | {recalls[0]} | {recalls[1]} | {mean('dll'):+.3f} | {mean('trace_tokens'):.0f} "
            f"| {entropy} |"
        )


if __name__ == "__main__":
    sys.exit(main())
