"""`onereason evaluate-layers` end to end: killed and resumed, spread over processes, scored again, without a judge."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onereason.cli import main
from onereason.evaluation.layers.tasks import load_task
from onereason.io import hash_file, read_json, read_jsonl, write_jsonl

REPOSITORY = Path(__file__).resolve().parents[2]
BUDGETS = ["--max-new-tokens", "10", "--think-budget", "12", "--batch-size", "4", "--device", "cpu"]


@pytest.fixture(scope="module")
def rows(world, tmp_path_factory) -> Path:
    """15 rows of five tasks; one is asked with thinking only."""
    event = {"date": "2025-01-01", "action": "play a", "logic": "An interest in tea begins."}
    records = []
    for i in range(6):
        pattern = world.catalog.render(i)
        records.append(("caption", f"Describe {pattern}", {"caption": world.catalog.captions[i]}))
        records.append(("grounding", f"Which item is item {i}?", {"pattern": pattern}))
    records.append(("choice", "A or B?", {"answer": "A", "choices": ["red", "green"]}))
    history = "".join(world.catalog.render(i) for i in range(3))
    records.append(("next_item", f"What follows {history}?", {"pattern": world.catalog.render(3), "headings": ["P:"]}))
    records.append(("topic", "How does it evolve?", {"logic_chain": {"name": "tea", "events": [event]}}))
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = [
        {"id": f"r{n}", "task": t, "messages": [{"role": "user", "content": q}], "reference": r}
        for n, (t, q, r) in enumerate(records)
    ]
    lines[-1]["mode"] = "think"
    write_jsonl(path, lines)
    return path


def arguments(world, rows: Path, out: Path, *extra: str) -> list[str]:
    given = ["--model", str(world.model), "--rows", str(rows), "--out", str(out)]
    return ["evaluate-layers", *given, *BUDGETS, *extra]


def texts(out: Path) -> list[tuple]:
    """The saved answers without their time."""
    lines = read_jsonl(out / "generations.jsonl")
    return [tuple(value for key, value in line.items() if key != "seconds") for line in lines]


def without_cost(results: dict) -> dict:
    """Results without what depends on the clock."""
    for table in results["tasks"].values():
        for mode in table["modes"].values():
            mode["cost"].pop("seconds_per_row")
    return results


@pytest.fixture(scope="module")
def finished(world, rows, tmp_path_factory) -> Path:
    """The folder of an uninterrupted run."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert main(arguments(world, rows, out)) == 0
    return out


def test_results_are_those_of_the_saved_answers(world, rows, finished):
    results = read_json(finished / "results.json")
    assert {name: table["layer"] for name, table in results["tasks"].items()} == {
        "caption": "R0",
        "grounding": "R0",
        "topic": "R2",
        "next_item": "R3",
        "choice": "general",
    }
    answers = {(g["id"], g["mode"]): g for g in read_jsonl(finished / "generations.jsonl")}
    assert len(answers) == 14 * 2 + 1 == results["manifest"]["counts"]["answers"]
    scores = {(s["id"], s["mode"]): s for s in read_jsonl(finished / "scores.jsonl")}
    assert list(scores) == list(answers)
    records = {row["id"]: row for row in read_jsonl(rows)}
    for name, table in results["tasks"].items():
        assert table["version"] == load_task(name).version
        for mode, found in table["modes"].items():
            of_mode = [s for key, s in scores.items() if key[1] == mode and records[key[0]]["task"] == name]
            given = [answers[s["id"], mode] for s in of_mode]
            assert found["counts"] == {
                "rows": len(of_mode),
                "malformed": sum(s["malformed"] for s in of_mode),
                "cut_traces": sum(g["cut"] for g in given),
                "truncated_answers": sum(g["truncated"] for g in given),
            }
            metric = load_task(name).metrics[0]
            mean = sum(s["scores"][metric] for s in of_mode) / len(of_mode)
            assert found["metrics"][metric]["value"] == pytest.approx(mean)
            assert found["cost"]["tokens_per_row"] == pytest.approx(
                sum(g["tokens"] for g in given) / len(given), abs=0.01
            )
    for found in results["tasks"]["caption"]["modes"].values():
        assert found["metrics"]["judge_score"]["value"] is None
        assert "no judge is configured" in found["metrics"]["judge_score"]["reason"]
    assert list(results["tasks"]["topic"]["modes"]) == ["think"] and results["tasks"]["topic"]["difference"] == {}
    assert results["tasks"]["caption"]["difference"]["token_f1"]["rows"] == 6
    traces = {mode: found["metrics"].keys() for mode, found in results["tasks"]["next_item"]["modes"].items()}
    assert traces["think"] - traces["no_think"] == {"trace_in_form", "cited_in_history"}
    assert any(s["malformed"] for s in scores.values()) and not all(s["malformed"] for s in scores.values())


def test_the_manifest_names_what_was_asked_of_which_model(world, rows, finished):
    results = read_json(finished / "results.json")
    inputs = results["manifest"]["inputs"]
    assert inputs["rows.jsonl"] == hash_file(rows)
    assert inputs["model.safetensors"] == hash_file(world.model / "model.safetensors")
    assert set(inputs) == {"rows.jsonl", "model.safetensors", "itemic.json", "tokenizer.json"}
    assert results["manifest"]["config"]["changes"] == {"max_new_tokens": 10, "think_budget": 12}
    assert results["settings"]["caption"]["max_new_tokens"] == 10 and results["manifest"]["seed"] == 0


def test_the_report_shows_layers_cost_and_examples(finished):
    report = (finished / "report.md").read_text()
    for text in (
        "## R0 Perception",
        "## R2 Evolution",
        "## R3 Recommendation",
        "## General ability",
        "| caption | token_f1 |",
        "### grounding",
    ):
        assert text in report
    assert "No value for caption judge_score: no judge is configured" in report
    assert "think: trace" in report and "no_think: answer" in report
    rows = [line for line in report.splitlines() if line.startswith("|")]
    for line in rows:  # a bar in a cell is escaped, so every row has its header's cells
        assert line.replace("\\|", "").count("|") in (3, 7, 10)


def test_scoring_again_needs_no_model_and_gives_the_same_bytes(world, rows, finished, capsys):
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    (finished / "results.json").unlink()
    assert main(["evaluate-layers", "--rescore", "--rows", str(rows), "--out", str(finished)]) == 0
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before
    printed = capsys.readouterr().out
    assert "R0 Perception" in printed and "grounding" in printed and "no value for caption judge_score" in printed
    assert main(arguments(world, rows, finished)) == 0  # a finished run has nothing left to generate
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}


def test_a_killed_run_goes_on_to_the_same_answers(world, rows, finished, tmp_path):
    out = tmp_path / "run"
    saved = out / "generations.jsonl"
    run = [sys.executable, "-m", "onereason.cli", *arguments(world, rows, out)]
    with subprocess.Popen(run, cwd=REPOSITORY, env=environment(), stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and process.poll() is None and not (saved.is_file() and saved.stat().st_size):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    kept = saved.read_bytes()
    assert kept and not (out / "results.json").exists()
    assert main(arguments(world, rows, out)) == 0
    assert texts(out) == texts(finished)
    for line in kept.splitlines():  # what was saved is kept, not generated again: even its time is the same
        assert line in saved.read_bytes().splitlines()
    assert without_cost(read_json(out / "results.json")) == without_cost(read_json(finished / "results.json"))


def test_two_processes_give_the_answers_of_one(world, rows, finished, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    run = [sys.executable, *launcher, "-m", "onereason.cli", *arguments(world, rows, tmp_path / "run")]
    done = subprocess.run(run, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert texts(tmp_path / "run") == texts(finished)
    assert without_cost(read_json(tmp_path / "run/results.json")) == without_cost(read_json(finished / "results.json"))
    assert not list((tmp_path / "run").glob("generations.rank*"))
    assert done.stdout.count("report:") == 1


def test_a_judge_that_is_down_leaves_the_rest(world, rows, finished, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    judge = ["--judge-url", f"http://127.0.0.1:{port}/v1", "--judge-model", "judge", "--tries", "1"]
    assert main(arguments(world, rows, tmp_path / "run", *judge)) == 0
    found = read_json(tmp_path / "run/results.json")
    metrics = found["tasks"]["caption"]["modes"]["think"]["metrics"]
    assert metrics["judge_score"]["value"] is None and "Connection refused" in metrics["judge_score"]["reason"]
    expected = read_json(finished / "results.json")["tasks"]["caption"]["modes"]["think"]["metrics"]
    assert metrics["token_f1"] == expected["token_f1"] and found["graders"] == [{"judge": "judge", "prompt_version": 1}]


def test_max_rows_and_modes(world, rows, tmp_path):
    assert main(arguments(world, rows, tmp_path / "run", "--max-rows", "2", "--modes", "no_think")) == 0
    found = read_json(tmp_path / "run/results.json")
    assert [(n, list(t["modes"]), t["modes"]["no_think"]["counts"]["rows"]) for n, t in found["tasks"].items()] == [
        ("caption", ["no_think"], 2),
        ("grounding", ["no_think"], 2),
        ("next_item", ["no_think"], 1),
        ("choice", ["no_think"], 1),
    ]
    assert main(["evaluate-layers", "--rescore", "--rows", str(rows), "--out", str(tmp_path / "run")]) == 0
    assert read_json(tmp_path / "run/results.json") == found


def test_another_run_in_the_same_folder_is_refused_unless_overwritten(world, rows, tmp_path, capsys):
    out = tmp_path / "run"
    small = ["--max-rows", "1", "--modes", "no_think"]
    assert main(arguments(world, rows, out, *small)) == 0
    (out / "mine.txt").write_text("keep me")
    before = (out / "generations.jsonl").read_bytes()
    assert main(arguments(world, rows, out, *small, "--seed", "1")) == 2
    error = capsys.readouterr().err
    assert "holds the answers of another run; different: seed (0, now 1)" in error and error.count("\n") == 1
    assert (out / "generations.jsonl").read_bytes() == before
    assert main(arguments(world, rows, out, *small, "--seed", "1", "--overwrite")) == 0
    assert read_json(out / "results.json")["manifest"]["seed"] == 1 and (out / "mine.txt").read_text() == "keep me"


def refused(capsys, *given: object) -> str:
    assert main(["evaluate-layers", *map(str, given)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_mistakes_are_one_line_and_leave_nothing(world, rows, finished, tmp_path, capsys):
    out = tmp_path / "run"
    model = ("--model", world.model, "--out", out)
    ask = (*model, "--rows", rows)
    assert "--model is missing" in refused(capsys, "--rows", rows, "--out", out)
    assert "there is nothing to evaluate; give --rows FILE or --lm-eval" in refused(capsys, *model)
    assert "--batch-size must be at least 1, got 0" in refused(capsys, *ask, "--batch-size", 0)
    assert "--think-budget must be at least 1, got -1" in refused(capsys, *ask, "--think-budget", -1)
    assert "seed must lie in 0" in refused(capsys, *ask, "--seed", -1)
    assert "temperature must be a number from 0, got -1.0" in refused(capsys, *ask, "--temperature", -1)
    assert "--judge-url and --judge-model belong together" in refused(capsys, *ask, "--judge-url", "http://h/v1")
    judge = ("--judge-url", "h/v1", "--judge-model", "m")
    assert "must start with http:// or https://" in refused(capsys, *ask, *judge)
    assert "exceed the model's max_position_embeddings" in refused(capsys, *ask, "--max-new-tokens", 99999)
    assert "--rescore needs --rows" in refused(capsys, "--rescore", "--out", out)
    assert "evaluation run not found" in refused(capsys, "--rescore", "--rows", rows, "--out", out)
    assert "evaluation rows not found" in refused(capsys, *model, "--rows", tmp_path / "no.jsonl")
    assert "model folder" in refused(capsys, "--model", tmp_path / "no", "--rows", rows, "--out", out)
    assert "device 'quantum' is not known" in refused(capsys, *ask, "--device", "quantum", "--modes", "no_think")
    assert "needs the loaded model" in refused(
        capsys, *ask, "--lm-eval", "x", "--endpoint-url", "http://h/v1", "--endpoint-model", "m"
    )
    assert not out.exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("keep me")
    assert "is not empty and holds no run.json" in refused(
        capsys, *model[:2], "--rows", rows, "--out", tmp_path / "full"
    )
    other = tmp_path / "other.jsonl"
    other.write_bytes(rows.read_bytes() + b"\n")
    assert "is not the file that" in refused(capsys, "--rescore", "--rows", other, "--out", finished)


def test_an_unfinished_run_is_not_scored_again(world, rows, finished, tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json").write_bytes((finished / "run.json").read_bytes())
    (out / "generations.jsonl").write_bytes(
        b"".join((finished / "generations.jsonl").read_bytes().splitlines(True)[:5])
    )
    error = refused(capsys, "--rescore", "--rows", rows, "--out", out)
    assert "lacks 24 of 29 answers, e.g. to row 'r2' in mode think; run once without --rescore" in error


HARNESS_TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
output_type: {kind}
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
doc_to_choice: ["2", "3"]
metric_list: [{{metric: {metric}}}]
metadata: {{version: 1}}
"""


def test_lm_evaluation_harness_runs_on_a_model_folder(world, tmp_path, monkeypatch):
    pytest.importorskip("lm_eval")
    pytest.importorskip("peft")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    lines = [{"question": "1+1?", "answer": 0}, {"question": "2+1?", "answer": 1}]
    (tasks / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, kind, metric in (
        ("tiny_choice", "multiple_choice", "acc"),
        ("tiny_text", "generate_until", "exact_match"),
    ):
        text = HARNESS_TASK.format(name=name, kind=kind, metric=metric, data=tasks / "data.jsonl")
        (tasks / f"{name}.yaml").write_text(text)
    run = ["evaluate-layers", "--model", str(world.model), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*run, "--lm-eval", "tiny_choice,tiny_text", "--lm-eval-include", str(tasks)]) == 0
    found = read_json(tmp_path / "run/results.json")["lm_eval"]
    assert set(found) == {"tiny_choice", "tiny_text"}
    assert found["tiny_choice"]["acc,none"] in (0.0, 0.5, 1.0)
    assert "## lm-evaluation-harness" in (tmp_path / "run/report.md").read_text()


def test_without_the_harness_the_error_says_how_to_install_it(world, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    error = refused(capsys, "--model", world.model, "--out", tmp_path / "run", "--lm-eval", "gsm8k")
    assert "pip install -c constraints.txt 'onereason[eval]'" in error and not (tmp_path / "run").exists()
