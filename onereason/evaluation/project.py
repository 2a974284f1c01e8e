"""A project's stages side by side: what each makes of thinking, by domain, and how its training went.

Functions of result files alone: `results.json` of `onereason evaluate`, and the logs of training runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onereason.errors import DataError
from onereason.io import read_json, read_jsonl

ALL = "all"
"""In place of a domain, where a row is of all queries."""
TRACE_FIGURES = (
    "delta_loglikelihood",
    "legality",
    "history_validity",
    "mean_tokens",
    "traces",
    "cut_at_the_budget",
    "empty",
)
PANELS: dict[str, tuple[str, ...]] = {
    "reward": ("reward/",),
    "entropy of the codes by level (nats)": ("rollout/item_entropy_",),
    "first-code diversity": ("rollout/first_code_diversity",),
    "legality": ("rollout/legality",),
    "recall of rollouts, and of validation": ("rollout/recall", "rollout/hit_groups", "eval_recall_"),
    "tokens a trace": ("rollout/trace_tokens", "eval_trace_tokens"),
    "traces that close": ("rollout/closed",),
    "KL divergence (nats a token)": ("kl/",),
    "loss": ("loss",),
}
"""Panel -> what the names of its curves start with."""
_NO_CURVE = ("reward/constant_groups", "reward/skipped_groups")


@dataclass(frozen=True)
class EvaluatedStage:
    """A stage's name in the report, the results of its evaluation, and their file."""

    name: str
    results: Mapping[str, Any]
    path: Path


@dataclass(frozen=True)
class TrainedStage:
    """A training run.

    Attributes:
        name: in the report.
        lines: what it logged, each with its `step`.
        path: the file it was read from.
    """

    name: str
    lines: list[dict[str, Any]]
    path: Path


def load_evaluation(name: str, path: Path) -> EvaluatedStage:
    """`DataError` for a file that holds no evaluation of recommendations with the differences by domain."""
    results = read_json(path, "evaluation results")
    if not isinstance(results, dict) or results.get("task") != "recommendation":
        raise DataError(f"{path} holds no results of `onereason evaluate`; take `report` off that stage.")
    if "recall_differences_by_domain" not in results:
        raise DataError(f"{path} lacks the differences by domain; run its evaluation again with --overwrite.")
    return EvaluatedStage(name, results, path)


def load_training(name: str, folder: Path) -> TrainedStage:
    """What a run's `log_history.json` holds, or `guards.jsonl` of an unfinished one; `DataError` where it has none."""
    history, guards = folder / "log_history.json", folder / "guards.jsonl"
    if history.is_file():
        return TrainedStage(name, [line for line in read_json(history, "training log") if "step" in line], history)
    if guards.is_file():
        return TrainedStage(name, read_jsonl(guards, "log of the guards"), guards)
    raise DataError(f"{folder} holds neither {history.name} nor {guards.name}; take `report` off that stage.")


def summarise(evaluated: Sequence[EvaluatedStage]) -> list[dict[str, Any]]:
    """A row a stage and domain, and of several domains one of all.

    Returns rows with
        stage, domain, queries;
        recall: system -> k (as text) -> value, item level;
        think_minus_no_think: k -> difference, low, high (95 % of the paired bootstrap); empty without both modes;
        cost: system -> tokens_per_user, seconds_per_user, of the evaluation as a whole; None in rows of one of several
            domains;
        traces: indicators and counts (`TRACE_FIGURES`); None without thinking.
    """
    return [row for stage in evaluated for row in _rows(stage)]


def _rows(stage: EvaluatedStage) -> Iterator[dict[str, Any]]:
    results, systems = stage.results, stage.results["systems"]
    asked = results["manifest"]["config"].get("domains") or []
    whole = {name: results["metrics"][name]["item"] for name in systems}
    yield {
        "stage": stage.name,
        "domain": asked[0] if len(asked) == 1 else ALL,
        "queries": results["counts"]["queries"],
        "recall": {name: _recalls(whole[name]) for name in systems},
        "think_minus_no_think": _think_differences(results["recall_differences"]),
        "cost": {
            name: {key: cost[key] for key in ("tokens_per_user", "seconds_per_user")}
            for name, cost in results["cost"].items()
        },
        "traces": _trace_figures(results["traces"]),
    }
    for domain, group in results["by_domain"].items():
        yield {
            "stage": stage.name,
            "domain": domain,
            "queries": group["queries"],
            "recall": {name: _recalls(group[name]) for name in systems},
            "think_minus_no_think": _think_differences(results["recall_differences_by_domain"][domain]),
            "cost": None,
            "traces": _trace_figures(results["traces_by_domain"].get(domain)),
        }


def _recalls(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix("recall_at_"): v for name, v in metrics.items() if name.startswith("recall_at_")}


def _think_differences(found: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    return {
        line["metric"].removeprefix("recall_at_"): {key: line[key] for key in ("difference", "low", "high")}
        for line in found
        if (line["system"], line["baseline"]) == ("think", "model")
    }


def _trace_figures(traces: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if traces is None else {name: traces[name] for name in TRACE_FIGURES if name in traces}


def training_curves(stage: TrainedStage) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Panel of `PANELS` -> curve -> (step, value); panels without a curve are left out."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for panel, starts in PANELS.items():
        curves: dict[str, list[tuple[float, float]]] = {}
        for line in stage.lines:
            for name, value in line.items():
                if not name.startswith(starts) or name in _NO_CURVE or name.endswith("_std"):
                    continue
                if isinstance(value, int | float) and math.isfinite(value):
                    curves.setdefault(name, []).append((line["step"], float(value)))
        if curves:
            found[panel] = curves
    return found
