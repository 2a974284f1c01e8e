"""`onereason evaluate` with thinking: modes on the same inputs, resuming, rescoring, several processes."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch

from onereason.cli import main
from onereason.data.schema import load_dataset, save_dataset
from onereason.data.timelines import build_timelines, split_leave_one_out
from onereason.decoding.recommender import Recommender, load_recommender
from onereason.evaluation.indicators import compute_loglikelihoods, trace_cuts
from onereason.io import read_json

BEAMS = 6
THINK = ("--modes", "no_think,think,race", "--think-budget", "5", "--num-traces", "2", "--temperature", "1.2")
SCORES = ("metrics", "difference", "comparisons", "details", "by_domain", "by_history_length", "by_popularity")
SCORES += ("by_crossing", "curves", "hit_ranks", "counts", "traces", "examples")


def evaluate(world, out, *extra: str, modes: tuple[str, ...] = THINK) -> int:
    arguments = ["evaluate", "--model", str(world.model), "--data", str(world.data), "--out", str(out)]
    return main([*arguments, "--num-beams", str(BEAMS), "--k", "2,6", "--prompt", "chat", *modes, *extra])


def scores_of(out) -> dict:
    return {key: read_json(out)[key] for key in SCORES}


def candidates_of(out, mode: str) -> pl.DataFrame:
    table = pl.concat([pl.read_parquet(p) for p in sorted((out.parent / "candidates").glob(f"{mode}-*.parquet"))])
    return table.sort("query", "trace").drop("seconds")


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("modes") / "results.json"
    assert evaluate(world, out, "--indicators") == 0
    return out


def test_every_mode_answers_the_same_queries(world, finished):
    found = read_json(finished)
    assert found["systems"] == ["model", "think", "race", "popularity", "markov"]
    assert {c["system"] for c in found["comparisons"]} == {"think", "race"}
    assert all(c["low"] <= c["difference"] <= c["high"] for c in found["comparisons"])
    assert found["cost"]["think"]["tokens_per_user"] > found["cost"]["model"]["tokens_per_user"]
    traces = found["traces"]
    assert traces["traces"] == 60  # 30 queries, 2 traces each
    tables = candidates_of(finished, "think")
    assert traces["cut_at_the_budget"] == int((~tables["closed"]).sum()) > 0
    assert traces["mean_tokens"] == pytest.approx(tables["trace_tokens"].mean())


def test_race_and_merge_equal_plain_loops(world, finished):
    """Lists of sids spelled out from the stored codes, ranked, and scored by hand."""
    think, plain = candidates_of(finished, "think"), candidates_of(finished, "no_think")
    catalog = world.catalog
    split = split_leave_one_out(build_timelines(load_dataset(world.data).interactions, catalog.index))

    def sids(row) -> list[tuple[int, ...]]:
        return [tuple(code) for code in np.array(row["codes"]).reshape(-1, 3).tolist()]

    hits = {"model": [], "think": [], "race": []}
    for query in range(30):
        target = int(split.test.targets[query][0])
        rows = think.filter(pl.col("query") == query).to_dicts()
        mass: dict[tuple[int, ...], float] = {}
        place: dict[tuple[int, ...], int] = {}
        for n, row in enumerate(rows):
            for k, (sid, score) in enumerate(zip(sids(row), row["scores"], strict=True)):
                mass[sid] = mass.get(sid, 0.0) + np.exp(score) / 2
                place.setdefault(sid, n * BEAMS + k)
        merged = sorted(mass, key=lambda s: (-mass[s], place[s]))[:BEAMS]
        alone = sids(plain.row(query, named=True))
        rest = [sid for pair in itertools.zip_longest(merged[3:], alone[3:]) for sid in pair if sid is not None]
        both = list(dict.fromkeys([*merged[:3], *alone[:3], *rest]))[:BEAMS]
        for system, found in (("model", alone), ("think", merged), ("race", both)):
            items = [
                item
                for sid in found
                for item in sorted(
                    catalog.find(sid, catalog.domains[target]).tolist(), key=lambda i: (-catalog.popularity[i], i)
                )
            ]
            hits[system].append(target in items[:BEAMS])
    results = read_json(finished)
    for system, found in hits.items():
        assert results["metrics"][system]["item"]["recall_at_6"] == pytest.approx(np.mean(found), rel=1e-9)

    # Differences and traces by domain of the target, over the same hits.
    domains = np.array([catalog.domains[int(target[0])] for target in split.test.targets])
    gain = {system: np.array(hits[system], float) - np.array(hits["model"], float) for system in ("think", "race")}
    by_domain = results["recall_differences_by_domain"]
    assert set(by_domain) == set(domains) == {"video", "prod"}
    for group, chosen in (("all", domains != ""), *((d, domains == d) for d in by_domain)):
        lines = results["recall_differences"] if group == "all" else by_domain[group]
        assert [(line["system"], line["metric"]) for line in lines] == [
            (system, f"recall_at_{k}") for system in ("think", "race") for k in (2, 6)
        ]
        for line in lines:
            assert line["low"] <= line["difference"] <= line["high"] and line["baseline"] == "model"
            if line["metric"] == "recall_at_6":
                assert line["difference"] == pytest.approx(gain[line["system"]][chosen].mean(), abs=1e-12)
        if group != "all":
            own = think.filter(pl.col("query").is_in(np.flatnonzero(chosen).tolist()))
            gained = np.array([path[-1] - path[0] for path in own["loglikelihoods"].to_list()])
            traces = results["traces_by_domain"][group]
            assert traces["traces"] == own.height == 2 * chosen.sum()
            assert traces["delta_loglikelihood"] == pytest.approx(gained.mean(), rel=1e-9)


def test_some_domains_are_the_slice_of_all(world, finished, tmp_path):
    out = tmp_path / "results.json"
    assert evaluate(world, out, "--domains", "prod", modes=("--modes", "no_think")) == 0
    found, whole = read_json(out), read_json(finished)["by_domain"]["prod"]
    assert found["counts"]["queries"] == whole["queries"] > 0
    assert found["metrics"]["model"]["item"] == whole["model"]
    assert found["metrics"]["markov"]["item"] == whole["markov"]
    assert found["manifest"]["config"]["domains"] == ["prod"] and found["by_domain"] == {}
    assert "of their queries those for prod" in (tmp_path / "report.md").read_text()
    assert evaluate(world, out, "--rescore", modes=("--modes", "no_think")) == 2  # candidates of all were not stored
    assert evaluate(world, tmp_path / "x.json", "--domains", "goods", modes=("--modes", "no_think")) == 2


def test_report_sets_modes_side_by_side(finished):
    report = (finished.parent / "report.md").read_text()
    for text in ("## What thinking brings, and what it costs", "## Side by side", "dLL (Eq. 22)", "(trace_path.png)"):
        assert text in report
    assert (finished.parent / "trace_path.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"\| model, thinking \| [\d.,]+ \| [\d.]+ \|", report)


@torch.no_grad()
def test_indicators_equal_plain_forward_passes(world):
    recommender = load_recommender(world.model, style="chat")
    history, trace, target = np.array([3, 8, 5]), [40, 41, 42], 7
    domain = world.catalog.domains[target]
    prompt = np.array(recommender.render(history, domain, "think"))
    (found,) = compute_loglikelihoods(recommender, [prompt], [trace], [target], [history], [domain])
    answer = world.vocabulary.code_ids(world.catalog.codes[target]).tolist()
    tokenizer, begin = recommender.prompt.tokenizer, world.vocabulary.prefix_ids(domain)
    closing = tokenizer("</think>\n\n", add_special_tokens=False)["input_ids"]

    def loglikelihood(before: list[int]) -> float:
        logprobs = recommender.model(torch.tensor([before + answer])).logits[0].log_softmax(-1)
        return sum(logprobs[len(before) - 1 + i, token].item() for i, token in enumerate(answer))

    expected = [loglikelihood(recommender.render(history, domain))]
    expected += [loglikelihood([*prompt.tolist(), *trace[:cut], *closing, *begin]) for cut in trace_cuts(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_killed_run_goes_on_where_it_stopped(world, finished, tmp_path, monkeypatch):
    out = tmp_path / "results.json"
    calls = []
    search = Recommender.search

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return search(self, *args, **kwargs)

    monkeypatch.setattr(Recommender, "search", interrupted)
    assert evaluate(world, out, "--indicators") == 130
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "candidates").iterdir()}
    assert sorted(before) == [*(f"no_think-{n:05d}.parquet" for n in range(5)), "no_think.json", "think.json"]
    monkeypatch.undo()
    assert evaluate(world, out, "--indicators") == 0
    assert before.items() <= {p.name: p.stat().st_mtime_ns for p in (tmp_path / "candidates").iterdir()}.items()
    assert scores_of(out) == scores_of(finished)


def test_rescoring_reads_no_weights_and_gives_the_same(world, finished, tmp_path):
    shutil.copytree(finished.parent, tmp_path / "run")
    bare = type(world)(world.data, tmp_path / "model", world.sequences, world.catalog, world.vocabulary)
    shutil.copytree(world.model, bare.model)
    (bare.model / "model.safetensors").unlink()
    out = tmp_path / "run" / "results.json"
    expected = scores_of(out)
    out.unlink()
    assert evaluate(bare, out, "--indicators", "--rescore") == 0
    assert scores_of(out) == expected
    before, after = read_json(finished), read_json(out)
    assert after["machine"] == before["machine"] and after["cost"] == before["cost"]
    assert after["manifest"]["inputs"] == before["manifest"]["inputs"]  # the weights' hash too
    assert evaluate(bare, out, "--indicators", "--rescore", "--policy", "most_popular", "--merge", "max") == 0
    found = read_json(out)
    expected_policy = found["details"]["model"]["policies"]["most_popular"]
    assert found["metrics"]["model"]["item"] == expected_policy != expected["metrics"]["model"]["item"]


def test_two_processes_equal_one(world, finished, tmp_path, repository):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    arguments = ["--model", str(world.model), "--data", str(world.data), "--out", str(tmp_path / "results.json")]
    arguments += ["--num-beams", str(BEAMS), "--k", "2,6", "--prompt", "chat", *THINK, "--indicators"]
    done = subprocess.run(
        [*launcher, "-m", "onereason.cli", "evaluate", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("report:") == 1  # one process speaks
    assert read_json(tmp_path / "results.json")["machine"]["processes"] == 2
    for mode in ("no_think", "think"):
        assert candidates_of(tmp_path / "results.json", mode).equals(candidates_of(finished, mode))
    assert scores_of(tmp_path / "results.json") == scores_of(finished)


def test_targets_are_weighted_by_a_signal(world, tmp_path):
    dataset = load_dataset(world.data)
    seconds = pl.Series("signal_watch_seconds", np.arange(dataset.interactions.height) % 3, pl.Float32)
    interactions = dataset.interactions.with_columns(seconds)
    save_dataset(type(dataset)(dataset.items, interactions, {}), tmp_path / "data")
    other = type(world)(tmp_path / "data", world.model, {}, world.catalog, world.vocabulary)
    out = tmp_path / "results.json"
    assert evaluate(other, out, "--weight-signal", "watch_seconds", modes=()) == 0
    codes = candidates_of(out, "no_think")["codes"].to_list()
    stored = load_dataset(tmp_path / "data").interactions
    hits = []
    users = stored.group_by("user_id", maintain_order=True).agg(pl.all().sort_by("timestamp")).to_dicts()
    users = [user for user in users if len(user["item_id"]) > 2]
    for user, found in zip(users, codes, strict=True):
        if user["signal_watch_seconds"][-1] > 0:  # a target without weight says nothing
            target = world.catalog.index[user["item_id"][-1]]
            sids = [tuple(sid) for sid in np.array(found).reshape(-1, 3)[:2].tolist()]
            ranked = [
                i
                for sid in sids
                for i in sorted(
                    world.catalog.find(sid, world.catalog.domains[target]).tolist(),
                    key=lambda i: (-world.catalog.popularity[i], i),
                )
            ]
            hits.append(target in ranked[:2])
    assert 0 < len(hits) < 30
    found = read_json(out)["details"]["model"]["weighted_recall_at_2"]
    assert found == pytest.approx(np.mean(hits), rel=1e-9)


# -- bad input --------------------------------------------------------------------------------------------------------


def refused(capsys, world, out, *extra: str, modes: tuple[str, ...] = ()) -> str:
    assert evaluate(world, out, *extra, modes=modes) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_bad_modes_are_named(world, tmp_path, capsys):
    out = tmp_path / "results.json"
    assert "modes must be some of no_think, think, race" in refused(capsys, world, out, "--modes", "ponder")
    assert "race takes candidates of both others" in refused(capsys, world, out, "--modes", "think,race")
    assert "indicators are measured on traces" in refused(capsys, world, out, "--indicators")
    assert "budget must be at least 1 token" in refused(capsys, world, out, "--think-budget", "0")
    assert "num_traces must be at least 1, got 0" in refused(capsys, world, out, "--num-traces", "0")
    assert "top_p must lie in (0, 1], got 0.0" in refused(capsys, world, out, "--top-p", "0")
    plain = ("--modes", "think", "--prompt", "plain", "--think-budget", "5")
    assert "has no think block" in refused(capsys, world, out, *plain)
    limit = read_json(world.model / "config.json")["max_position_embeddings"]
    for budget in (limit, limit - 1):  # beyond the model's positions by itself, and with the prompts
        error = refused(capsys, world, out, "--modes", "think", "--think-budget", str(budget))
        assert "exceeds the model's max_position_embeddings" in error and "lower" in error
    assert "have no signal 'likes'; they have none" in refused(capsys, world, out, "--weight-signal", "likes")
    assert list(tmp_path.iterdir()) == []


def test_candidates_of_another_run_are_not_mixed_in(world, finished, tmp_path, capsys):
    shutil.copytree(finished.parent / "candidates", tmp_path / "candidates")
    out, store = tmp_path / "results.json", tmp_path / "candidates"
    error = refused(capsys, world, out, "--indicators", "--seed", "3", modes=THINK)
    assert "holds candidates of another run in mode think (seed differ)" in error
    other = type(world)(world.data, tmp_path / "model", world.sequences, world.catalog, world.vocabulary)
    shutil.copytree(world.model, other.model)
    template = other.model / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "helper"))
    error = refused(capsys, other, out, "--indicators", modes=THINK)
    assert "in mode no_think (hash of chat_template.jinja differ)" in error
    error = refused(capsys, world, out, "--rescore", "--num-beams", "7", modes=THINK)
    assert "(mode no_think) were generated with other num_beams" in error
    error = refused(capsys, world, out, "--rescore", "--indicators", "--max-history", "9", modes=THINK)
    assert "were generated with other max_history" in error
    error = refused(capsys, world, out, "--rescore", "--indicators", "--dtype", "bfloat16", modes=THINK)
    assert "were generated with other dtype" in error
    (store / "think-00003.parquet").unlink()
    error = refused(capsys, world, out, "--rescore", "--indicators", modes=THINK)
    assert "lacks 4 of 60 lists of candidates in mode 'think', and holds 0 too many" in error
    (store / "think-00003.parquet").write_bytes(b"PAR1")
    error = refused(capsys, world, out, "--rescore", "--indicators", modes=THINK)
    assert "think-00003.parquet cannot be read as candidates (1 broken file(s))" in error
    (store / "think.json").write_text("[]")
    error = refused(capsys, world, out, "--rescore", "--indicators", modes=THINK)
    assert "think.json is malformed: expected an object, got list" in error
    (store / "think.json").unlink()
    error = refused(capsys, world, out, "--indicators", modes=THINK)
    assert "holds candidates without think.json" in error
    error = refused(capsys, world, tmp_path / "new.json", "--rescore", modes=THINK)
    assert "record of stored candidates" in error
    (tmp_path / "file_candidates").write_text("mine")
    assert "is no folder" in refused(capsys, world, tmp_path / "file.json", modes=THINK)


def test_overwriting_touches_no_folder_of_others(world, tmp_path, capsys):
    (tmp_path / "candidates").mkdir()
    (tmp_path / "candidates" / "cv.pdf").write_text("mine")
    for extra in ((), ("--overwrite",)):
        error = refused(capsys, world, tmp_path / "results.json", *extra)
        assert "holds 'cv.pdf', which no evaluation wrote" in error
    assert (tmp_path / "candidates" / "cv.pdf").read_text() == "mine"


def test_a_broken_chunk_is_generated_again(world, finished, tmp_path):
    shutil.copytree(finished.parent / "candidates", tmp_path / "candidates")
    (tmp_path / "candidates" / "think-00003.parquet").write_bytes(b"PAR1")
    assert evaluate(world, tmp_path / "results.json", "--indicators") == 0
    assert scores_of(tmp_path / "results.json") == scores_of(finished)


def test_overwriting_drops_results_before_candidates(world, finished, tmp_path, monkeypatch):
    shutil.copytree(finished.parent, tmp_path / "run")
    out = tmp_path / "run" / "results.json"

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Recommender, "search", interrupted)
    assert evaluate(world, out, "--indicators", "--overwrite") == 130
    left = {path.name for path in out.parent.rglob("*") if path.is_file()}
    assert left == {"no_think.json", "think.json"}
    monkeypatch.undo()
    assert evaluate(world, out, "--indicators") == 0  # nothing is in the way: it goes on
    assert scores_of(out) == scores_of(finished)


def test_who_has_met_every_item_gets_an_empty_list(world, tmp_path):
    """User u00 has met all eight products before the last one."""
    dataset = load_dataset(world.data)
    products = [f"i{n:02d}" for n in range(0, 24, 3)]
    rows = [("u00", item, 100 + time, "click", "prod") for time, item in enumerate([*products, products[0]])]
    names = ["user_id", "item_id", "timestamp", "action", "domain"]
    more = pl.DataFrame(rows, schema=dataset.interactions.select(names).schema, orient="row")
    interactions = pl.concat([dataset.interactions, more], how="diagonal").sort("user_id", "timestamp")
    save_dataset(type(dataset)(dataset.items, interactions, {}), tmp_path / "data")
    other = type(world)(tmp_path / "data", world.model, {}, world.catalog, world.vocabulary)
    out = tmp_path / "results.json"
    assert evaluate(other, out, "--exclude-seen", "--indicators") == 0
    for mode, num_lists in (("no_think", 1), ("think", 2)):
        table = candidates_of(out, mode)
        assert table.filter(pl.col("scores").list.len() == 0)["query"].to_list() == [0] * num_lists
    found = read_json(out)
    assert found["counts"]["targets_in_the_history"] >= 1
    assert found["counts"]["users_evaluated"] == 30


def test_temperature_0_and_several_traces_are_refused(world, tmp_path, capsys):
    asked = ("--modes", "think", "--num-traces", "3", "--temperature", "0")
    assert "temperature 0 gives 3 equal traces" in refused(capsys, world, tmp_path / "results.json", *asked)


def test_a_signal_that_no_target_has_is_refused(world, tmp_path, capsys):
    dataset = load_dataset(world.data)
    interactions = dataset.interactions.with_columns(signal_like=pl.lit(None, pl.Float32))
    save_dataset(type(dataset)(dataset.items, interactions, {}), tmp_path / "data")
    other = type(world)(tmp_path / "data", world.model, {}, world.catalog, world.vocabulary)
    error = refused(capsys, other, tmp_path / "results.json", "--weight-signal", "like")
    assert "no target of the test split has a 'like' above 0" in error
