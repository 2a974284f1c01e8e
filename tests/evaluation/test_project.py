"""The report of a project, from result files written by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from onereason.errors import DataError
from onereason.evaluation.project import (
    EvaluatedStage,
    TrainedStage,
    load_evaluation,
    load_training,
    summarise,
    training_curves,
)
from onereason.evaluation.project_report import write_project_report

SYSTEMS = ["model", "think", "race", "popularity", "markov"]


def recalls(small: float, large: float) -> dict[str, float]:
    return {"recall_at_1": small, "ndcg_at_1": 0.9, "recall_at_8": large, "ndcg_at_8": 0.9}


def differences(*of_think: tuple[float, float, float]) -> list[dict[str, Any]]:
    found = [
        {"metric": f"recall_at_{k}", "system": "think", "baseline": "model", "difference": d, "low": low, "high": high}
        for k, (d, low, high) in zip((1, 8), of_think, strict=True)
    ]
    return [*found, {**found[0], "system": "race", "difference": 0.5}]


def traces(dll: float, legal: float | None) -> dict[str, Any]:
    return {
        "traces": 40,
        "cut_at_the_budget": 3,
        "empty": 1,
        "mean_tokens": 21.5,
        "with_citation": 30,
        "legality": legal,
        "history_validity": 0.25,
        "delta_loglikelihood": dll,
        "loglikelihood_path": [0.0],
    }


def evaluation() -> dict[str, Any]:
    """20 queries of two domains: 8 of `video`, 12 of `ad`."""
    of_all = {"model": (0.1, 0.3), "think": (0.2, 0.25), "race": (0.2, 0.4), "popularity": (0, 0.1), "markov": (0, 0.2)}
    of_ad = {name: (small / 2, large) for name, (small, large) in of_all.items()}
    return {
        "task": "recommendation",
        "systems": SYSTEMS,
        "metrics": {name: {"item": recalls(*values)} for name, values in of_all.items()},
        "counts": {"queries": 20},
        "recall_differences": differences((0.1, 0.02, 0.18), (-0.05, -0.2, 0.1)),
        "recall_differences_by_domain": {
            "video": differences((0.0, 0.0, 0.0), (0.0, -0.1, 0.1)),
            "ad": differences((0.05, -0.01, 0.11), (-0.125, -0.2, -0.05)),
        },
        "by_domain": {
            "video": {"queries": 8, **{name: recalls(*values) for name, values in of_all.items()}},
            "ad": {"queries": 12, **{name: recalls(*values) for name, values in of_ad.items()}},
        },
        "cost": {
            "model": {"tokens_per_user": 100.0, "seconds_per_user": 0.01, "seconds": 1},
            "think": {"tokens_per_user": 1234.0, "seconds_per_user": 0.125, "seconds": 2},
            "race": {"tokens_per_user": 1334.0, "seconds_per_user": 0.135, "seconds": 3},
        },
        "traces": traces(-0.75, 0.5),
        "traces_by_domain": {"video": traces(-1.5, None), "ad": traces(0.5, 1.0)},
        "manifest": {"config": {"domains": []}},
    }


def specialist() -> dict[str, Any]:
    """One domain was asked for, so nothing is told apart by domain."""
    found = evaluation()
    found |= {"by_domain": {}, "recall_differences_by_domain": {}, "traces_by_domain": {}, "counts": {"queries": 12}}
    found["manifest"] = {"config": {"domains": ["ad"]}}
    found["metrics"]["think"]["item"] = recalls(0.4, 0.8)
    return found


@pytest.fixture
def evaluated(tmp_path: Path) -> list[EvaluatedStage]:
    stages = []
    for name, results in (("SFT", evaluation()), ("specialist", specialist())):
        path = tmp_path / name / "results.json"
        path.parent.mkdir()
        path.write_text(json.dumps(results))
        stages.append(load_evaluation(name, path))
    return stages


def test_a_row_a_stage_and_domain(evaluated: list[EvaluatedStage]) -> None:
    rows = summarise(evaluated)
    assert [(row["stage"], row["domain"], row["queries"]) for row in rows] == [
        ("SFT", "all", 20),
        ("SFT", "video", 8),
        ("SFT", "ad", 12),
        ("specialist", "ad", 12),
    ]
    assert rows[0]["recall"]["think"] == {"1": 0.2, "8": 0.25} and rows[2]["recall"]["model"] == {"1": 0.05, "8": 0.3}
    assert rows[3]["recall"]["think"] == {"1": 0.4, "8": 0.8}
    assert rows[0]["think_minus_no_think"] == {
        "1": {"difference": 0.1, "low": 0.02, "high": 0.18},
        "8": {"difference": -0.05, "low": -0.2, "high": 0.1},
    }
    assert rows[2]["think_minus_no_think"]["8"] == {"difference": -0.125, "low": -0.2, "high": -0.05}
    assert rows[0]["cost"]["think"] == {"tokens_per_user": 1234.0, "seconds_per_user": 0.125}
    assert [row["cost"] is None for row in rows] == [False, True, True, False]
    assert [row["traces"]["delta_loglikelihood"] for row in rows] == [-0.75, -1.5, 0.5, -0.75]


def test_the_report_shows_the_figures(evaluated: list[EvaluatedStage], tmp_path: Path) -> None:
    trained = TrainedStage("mixed RL", [{"step": 1, "reward/total": 0.5}], tmp_path / "SFT/results.json")
    out = tmp_path / "run"
    report = write_project_report(out, "a project", evaluated, [trained], {"sft": 61.4, "rl": 3600.0}).read_text()
    for line in (
        "# a project",
        "| SFT | all | 20 | no-think | 0.1000 | 0.3000 | 100 | 0.010 |",
        "| SFT | all | 20 | think | 0.2000 | 0.2500 | 1,234 | 0.125 |",
        "|  | all | 20 | markov | 0.0000 | 0.2000 |  |  |",
        "| specialist | ad | 12 | think | 0.4000 | 0.8000 | 1,234 | 0.125 |",
        "| SFT | all | +0.1000 (+0.0200 to +0.1800)* | -0.0500 (-0.2000 to +0.1000) |",
        "| SFT | ad | +0.0500 (-0.0100 to +0.1100) | -0.1250 (-0.2000 to -0.0500)* |",
        "| ad | SFT | 12 | 0.0500 / 0.3000 | 0.1000 / 0.2500 | 0.1000 / 0.4000 |",
        "| ad | specialist | 12 | 0.1000 / 0.3000 | 0.4000 / 0.8000 | 0.2000 / 0.4000 |",
        "| SFT | video | -1.500 | none | 0.250 | 21.5 | 3 of 40 | 1 of 40 |",
        "![Training of mixed RL](report/curves_mixed_rl.png)",
        "| sft | 0:01:01 |",
        "| all | 1:01:01 |",
    ):
        assert line in report.splitlines(), line
    assert report.count("| markov |") == 1  # baselines are those of the first evaluation
    page = (out / "report.html").read_text()
    assert "<td>+0.1000 (+0.0200 to +0.1800)*</td>" in page and "<h1>a project</h1>" in page
    images = re.findall(r"data:image/png;base64,(\S{8})", page)
    assert images == ["iVBORw0K"] * 2  # how a PNG begins
    results = json.loads((out / "results.json").read_text())
    assert results["stages"] == summarise(evaluated)
    assert results["curves"] == {"mixed RL": {"reward": {"reward/total": [[1, 0.5]]}}}
    assert results["seconds"] == {"sft": 61.4, "rl": 3600.0}


def test_an_evaluation_of_one_mode_has_no_differences(evaluated: list[EvaluatedStage], tmp_path: Path) -> None:
    results = evaluation()
    results |= {"systems": ["model", *SYSTEMS[3:]], "recall_differences": [], "traces": None, "traces_by_domain": {}}
    results["recall_differences_by_domain"] = {"video": [], "ad": []}
    rows = summarise([EvaluatedStage("base", results, tmp_path)])
    assert [row["think_minus_no_think"] for row in rows] == [{}] * 3 and rows[0]["traces"] is None
    stages = [EvaluatedStage("base", results, evaluated[0].path), evaluated[1]]
    report = write_project_report(tmp_path / "run", "x", stages, [], {}).read_text()
    assert "| ad | base | 12 | 0.0500 / 0.3000 |  |  |" in report


def test_curves_of_a_run(tmp_path: Path) -> None:
    lines = [
        {"step": 1, "loss": 0.5, "reward/total": 0.1, "reward/total_std": 9, "reward/skipped_groups": 9},
        {"step": 1, "rollout/item_entropy_1": 2.0, "rollout/item_entropy_2": 1.0, "grad_norm": 9.0},
        {"step": 2, "rollout/legality": 1.0, "rollout/trace_tokens": 30, "kl/reference": 0.25, "reward/total": 0.2},
        {"step": 2, "eval_recall_at_10": 0.3, "eval_ndcg_at_10": 9.0, "rollout/recall": float("nan")},
        {"train_runtime": 9.0},
    ]
    (tmp_path / "log_history.json").write_text(json.dumps(lines))
    assert training_curves(load_training("rl", tmp_path)) == {
        "reward": {"reward/total": [(1, 0.1), (2, 0.2)]},
        "entropy of the codes by level (nats)": {
            "rollout/item_entropy_1": [(1, 2.0)],
            "rollout/item_entropy_2": [(1, 1.0)],
        },
        "legality": {"rollout/legality": [(2, 1.0)]},
        "recall of rollouts, and of validation": {"eval_recall_at_10": [(2, 0.3)]},
        "tokens a trace": {"rollout/trace_tokens": [(2, 30.0)]},
        "KL divergence (nats a token)": {"kl/reference": [(2, 0.25)]},
        "loss": {"loss": [(1, 0.5)]},
    }
    (tmp_path / "log_history.json").unlink()
    (tmp_path / "guards.jsonl").write_text('{"step": 3, "rollout/closed": 0.5}\n')
    assert training_curves(load_training("rl", tmp_path)) == {"traces that close": {"rollout/closed": [(3, 0.5)]}}


def test_files_that_are_no_results_are_named(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"tasks": {}}')
    with pytest.raises(DataError, match=r"results.json holds no results of `onereason evaluate`"):
        load_evaluation("x", path)
    path.write_text('{"task": "recommendation"}')
    with pytest.raises(DataError, match="lacks the differences by domain; run its evaluation again with --overwrite"):
        load_evaluation("x", path)
    with pytest.raises(DataError, match=r"holds neither log_history.json nor guards.jsonl"):
        load_training("x", tmp_path)
