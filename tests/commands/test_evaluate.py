"""`onereason evaluate` end to end: every number computed again from teacher forcing and plain loops."""

from __future__ import annotations

import errno
import itertools
import json
import shutil
from collections import Counter

import numpy as np
import polars as pl
import pytest
import torch

from onereason.cli import main
from onereason.data.prompts import RecommendationPrompt
from onereason.data.schema import load_dataset, save_dataset
from onereason.io import hash_file, read_json, write_json
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import ItemicFormat, Marker
from onereason.model.folder import load_model_folder

ALL_SIDS = 24  # more beams than the world has sids in a domain: the search is exhaustive


def evaluate(world, out, *extra: str) -> int:
    arguments = ["evaluate", "--model", str(world.model), "--data", str(world.data), "--out", str(out)]
    return main([*arguments, "--num-beams", str(ALL_SIDS), "--prompt", "plain", *extra])


def copy_model(world, folder):
    shutil.copytree(world.model, folder)
    return type(world)(world.data, folder, world.sequences, world.catalog, world.vocabulary)


@torch.no_grad()
def teacher_forced_rank(folder, catalog, prompt: list[int], item: int, domain: str, popularity) -> int:
    """Rank of an item when all of its domain are scored one by one; a shared sid is ordered by popularity."""
    scores = {}
    for index in range(len(catalog)):
        if catalog.domains[index] == domain:
            path = folder.vocabulary.code_ids(catalog.codes[index]).tolist()
            logprobs = folder.model(torch.tensor([prompt + path])).logits[0].log_softmax(-1)
            steps = range(len(prompt) - 1, len(prompt) - 1 + len(path))
            scores[index] = sum(logprobs[s, t].item() for s, t in zip(steps, path, strict=True))
    order = sorted(scores, key=lambda i: (-round(scores[i], 4), -popularity[i], i))
    return order.index(item) + 1


def metrics_of(ranks: list[int]) -> dict[str, float]:
    """Recall, NDCG and MRR of single targets at these ranks (0: not in the list)."""
    values = {}
    for k in (5, 10):
        values[f"recall_at_{k}"] = np.mean([0 < r <= k for r in ranks])
    for k in (5, 10):
        values[f"ndcg_at_{k}"] = np.mean([1 / np.log2(r + 1) if 0 < r <= k else 0 for r in ranks])
    values["mrr_at_10"] = np.mean([1 / r if 0 < r <= 10 else 0 for r in ranks])
    return values


@pytest.fixture(scope="module")
def results(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation") / "results.json"
    assert evaluate(world, out) == 0
    return out, read_json(out)


def test_model_numbers_equal_teacher_forcing_of_every_item(world, results):
    folder = load_model_folder(world.model)
    catalog = world.catalog
    prompt = RecommendationPrompt(folder.tokenizer, folder.vocabulary, style="plain")
    patterns = folder.vocabulary.pattern_ids(catalog.codes, catalog.domains)
    folder.model.eval()
    ranks, by_domain = [], {"video": [], "prod": []}
    for sequence in world.sequences.values():
        if len(sequence) < 3:
            continue
        *history, target = (catalog.index[item] for item in sequence)
        domain = catalog.domains[target]
        tokens = prompt.encode(patterns[np.array(history)], domain) + folder.vocabulary.prefix_ids(domain)
        ranks.append(teacher_forced_rank(folder, catalog, tokens, target, domain, catalog.popularity))
        by_domain[domain].append(ranks[-1])
    found = results[1]
    assert found["metrics"]["model"]["item"] == pytest.approx(metrics_of(ranks), rel=1e-9)
    for domain, expected in by_domain.items():
        assert found["by_domain"][domain]["queries"] == len(expected)
        assert found["by_domain"][domain]["model"] == pytest.approx(metrics_of(expected), rel=1e-9)
    assert found["hit_ranks"]["queries"] == [ranks.count(k) for k in range(1, ALL_SIDS + 1)]
    assert found["hit_ranks"]["none"] == 0
    assert found["curves"]["model"] == pytest.approx([np.mean([r <= k for r in ranks]) for k in range(1, ALL_SIDS + 1)])


def test_baselines_equal_plain_counting(world, results):
    catalog = world.catalog
    long = [s for s in world.sequences.values() if len(s) > 2]
    train = [s[:-2] if len(s) > 2 else s for s in world.sequences.values()]
    popularity = Counter(item for s in train for item in s)
    follows = Counter((a, b) for s in train for a, b in itertools.pairwise(s))
    ranks = {"popularity": [], "markov": []}
    for *history, target in long:
        domain = catalog.domains[catalog.index[target]]
        items = [i for i in catalog.item_ids if catalog.domains[catalog.index[i]] == domain]
        ranks["popularity"].append(sorted(items, key=lambda i: (-popularity[i], i)).index(target) + 1)
        by_markov = sorted(items, key=lambda i: (-follows[history[-1], i], -popularity[i], i))
        ranks["markov"].append(by_markov.index(target) + 1)
    for system, expected in ranks.items():
        assert results[1]["metrics"][system]["item"] == pytest.approx(metrics_of(expected), rel=1e-9)


def test_exclude_seen_takes_the_history_out_of_every_list(world, tmp_path):
    out = tmp_path / "results.json"
    assert evaluate(world, out, "--exclude-seen") == 0
    found = read_json(out)
    assert found["manifest"]["config"]["exclude_seen"] is True
    assert "items of the history excluded" in (tmp_path / "report.md").read_text()

    folder = load_model_folder(world.model)
    folder.model.eval()
    catalog = world.catalog
    prompt = RecommendationPrompt(folder.tokenizer, folder.vocabulary, style="plain")
    patterns = folder.vocabulary.pattern_ids(catalog.codes, catalog.domains)
    ranks, popular_ranks = [], []
    popularity = Counter(i for s in world.sequences.values() for i in (s[:-2] if len(s) > 2 else s))
    for sequence in world.sequences.values():
        if len(sequence) < 3:
            continue
        *history, target = (catalog.index[item] for item in sequence)
        domain = catalog.domains[target]
        tokens = prompt.encode(patterns[np.array(history)], domain) + folder.vocabulary.prefix_ids(domain)
        met = {i for i in history if catalog.domains[i] == domain}
        rank = {i: teacher_forced_rank(folder, catalog, tokens, i, domain, catalog.popularity) for i in {*met, target}}
        ranks.append(0 if target in met else rank[target] - sum(rank[i] < rank[target] for i in met))
        left = [
            i for i in catalog.item_ids if catalog.index[i] not in met and catalog.domains[catalog.index[i]] == domain
        ]
        left.sort(key=lambda i: (-popularity[i], i))
        name = catalog.item_ids[target]
        popular_ranks.append(left.index(name) + 1 if name in left else 0)
    assert 0 in ranks  # some targets were met before
    assert found["metrics"]["model"]["item"] == pytest.approx(metrics_of(ranks), rel=1e-9)
    assert found["metrics"]["popularity"]["item"] == pytest.approx(metrics_of(popular_ranks), rel=1e-9)


def test_counts_and_manifest(world, results):
    found = results[1]
    assert found["counts"]["users"] == 31
    assert found["counts"]["users_without_example"] == 1
    assert found["counts"]["users_evaluated"] == found["counts"]["queries"] == 30
    assert found["counts"]["items"] == 24
    assert found["counts"]["sids"] == world.catalog.collisions()["num_sids"] < 24
    assert found["domains_told_apart"] is True
    manifest = found["manifest"]
    assert manifest["inputs"]["model.safetensors"] == hash_file(world.model / "model.safetensors")
    assert manifest["inputs"]["interactions.parquet"] == hash_file(world.data / "interactions.parquet")
    assert (manifest["seed"], manifest["config"]["prompt"], manifest["config"]["max_history"]) == (0, "plain", 50)
    assert found["cost"]["model"]["seconds"] > 0 and found["machine"]["peak_memory_mib"] > 0


def test_report_and_plots_stand_beside_the_results(results):
    out, found = results
    names = {p.name for p in out.parent.iterdir()}
    plots = {"recall_curve.png", "hit_ranks.png", "recall_by_history.png"}
    assert names == {"results.json", "report.md", "candidates"} | plots
    report = (out.parent / "report.md").read_text()
    item = found["metrics"]["model"]["item"]
    row = " | ".join(f"{item[name]:.4f}" for name in item)
    assert f"| model | {row} |" in report
    assert "the target's domain is given to every system" in report
    for plot in ("recall_curve.png", "hit_ranks.png", "recall_by_history.png"):
        assert f"({plot})" in report
        assert (out.parent / plot).read_bytes().startswith(b"\x89PNG")


def test_printed_table_shows_every_system(world, tmp_path, capsys):
    assert evaluate(world, tmp_path / "results.json", "--max-users", "4") == 0
    printed = capsys.readouterr().out
    for text in ("model", "popularity", "markov", "Recall@10", "4 users", "report.md"):
        assert text in printed


def test_batches_do_not_change_the_result(world, results, tmp_path):
    assert evaluate(world, tmp_path / "small.json", "--batch-size", "4") == 0
    found = read_json(tmp_path / "small.json")
    for key in ("metrics", "by_domain", "by_history_length", "hit_ranks", "difference", "counts"):
        assert found[key] == results[1][key]
    assert (tmp_path / "small_report.md").is_file()


def test_max_users_draws_with_the_seed(world, tmp_path):
    found = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert evaluate(world, tmp_path / f"{name}.json", "--max-users", "5", "--seed", seed) == 0
        found.append(read_json(tmp_path / f"{name}.json"))
    assert found[0]["counts"]["users_evaluated"] == 5
    assert found[0]["metrics"] == found[1]["metrics"]
    assert found[0]["hit_ranks"] != found[2]["hit_ranks"]


def test_temporal_split_asks_one_query_a_domain(world, tmp_path):
    code = evaluate(
        world,
        tmp_path / "results.json",
        *("--split-method", "temporal", "--validation-start", "2", "--test-start", "4"),
    )
    assert code == 0
    found = read_json(tmp_path / "results.json")
    domain = dict(zip(world.catalog.item_ids, world.catalog.domains, strict=True))
    queries = sum(len({domain[i] for i in s[4:]}) for s in world.sequences.values())
    assert found["counts"]["queries"] == queries
    assert found["counts"]["users_evaluated"] == sum(len(s) > 4 for s in world.sequences.values())


def test_prompt_defaults_come_from_the_model_folder(world, tmp_path):
    other = copy_model(world, tmp_path / "model")
    path = other.model / "manifest.json"
    manifest = read_json(path) if path.is_file() else {}
    write_json(path, manifest | {"prompt": {"style": "plain", "max_history": 2}})
    arguments = ["evaluate", "--model", str(other.model), "--data", str(world.data), "--max-users", "5"]
    assert main([*arguments, "--out", str(tmp_path / "results.json")]) == 0
    found = read_json(tmp_path / "results.json")
    assert (found["manifest"]["config"]["prompt"], found["manifest"]["config"]["max_history"]) == ("plain", 2)
    assert found["counts"]["queries_with_truncated_history"] > 0


def test_chat_prompts_and_bfloat16_run(world, tmp_path):
    out = tmp_path / "results.json"
    assert evaluate(world, out, "--prompt", "chat", "--dtype", "bfloat16", "--max-users", "5") == 0
    assert read_json(out)["machine"]["dtype"] == "bfloat16"


@pytest.mark.parametrize(("fast", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_dtype_auto_follows_the_hardware(world, tmp_path, monkeypatch, fast, expected):
    monkeypatch.setattr("onereason.model.precision.has_fast_bfloat16", lambda: fast)
    out = tmp_path / "results.json"
    assert evaluate(world, out, "--dtype", "auto", "--max-users", "5") == 0
    assert read_json(out)["machine"]["dtype"] == expected


# -- bad input --------------------------------------------------------------------------------------------------------


def refused(capsys, world, out, *extra: str) -> str:
    """Runs, expects exit code 2 with one line and nothing written; returns the line."""
    before = sorted(out.parent.iterdir()) if out.parent.is_dir() else None
    assert evaluate(world, out, *extra) == 2
    assert (sorted(out.parent.iterdir()) if out.parent.is_dir() else None) == before
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_bad_values_are_named(world, tmp_path, capsys):
    out = tmp_path / "results.json"
    assert "k (30) exceeds num_beams (24)" in refused(capsys, world, out, "--k", "5,30")
    assert "max_users must be at least 1, got 0" in refused(capsys, world, out, "--max-users", "0")
    assert "batch_size must be at least 1, got 0" in refused(capsys, world, out, "--batch-size", "0")
    assert "--max-history must be at least 1, got -3" in refused(capsys, world, out, "--max-history", "-3")
    assert "--threads must be at least 1, got 0" in refused(capsys, world, out, "--threads", "0")
    assert "--threads must be at most 1024" in refused(capsys, world, out, "--threads", "99999999999")
    assert "seed must lie in 0 .. 4294967295, got -1" in refused(capsys, world, out, "--seed", "-1")
    assert "device 'meta' is not supported" in refused(capsys, world, out, "--device", "meta")
    assert "device 'quantum' is not known" in refused(capsys, world, out, "--device", "quantum")
    assert "needs --validation-start and --test-start" in refused(capsys, world, out, "--split-method", "temporal")
    assert "belong to --split-method temporal" in refused(capsys, world, out, "--test-start", "3")
    assert "should name a .json file" in refused(capsys, world, tmp_path / "results")
    late = ("--split-method", "temporal", "--validation-start", "900", "--test-start", "901")
    assert "the test split is empty" in refused(capsys, world, out, *late)


def test_existing_results_are_kept_unless_overwritten(world, tmp_path, capsys):
    out = tmp_path / "results.json"
    out.write_text("mine")
    assert "exists; choose another --out or pass --overwrite" in refused(capsys, world, out)
    assert out.read_text() == "mine"
    assert evaluate(world, out, "--overwrite", "--max-users", "2") == 0
    assert json.loads(out.read_text())["counts"]["users_evaluated"] == 2


def test_missing_folders_and_files_are_named(world, tmp_path, capsys):
    out = tmp_path / "out" / "results.json"
    nowhere = type(world)(tmp_path / "no", world.model, {}, world.catalog, world.vocabulary)
    assert "is not a dataset folder" in refused(capsys, nowhere, out)
    bare = copy_model(world, tmp_path / "bare")
    (bare.model / "catalog.parquet").unlink()
    assert "holds no catalog" in refused(capsys, bare, out)
    plain = copy_model(world, tmp_path / "plain")
    (plain.model / "itemic.json").unlink()
    assert "holds no itemic.json" in refused(capsys, plain, out)


def test_catalog_of_another_format_is_refused(world, tmp_path, capsys):
    other = copy_model(world, tmp_path / "model")
    layout = ItemicFormat("other", (4, 4, 4), "<s_{level}_{code}>", {"*": Marker()})
    Catalog(layout, world.catalog.item_ids, world.catalog.codes).write_into(other.model)
    error = refused(capsys, other, tmp_path / "out" / "results.json")
    assert "uses format 'other'" in error and "the model uses 'world'" in error


def test_catalog_that_lacks_items_is_refused(world, tmp_path, capsys):
    dataset = load_dataset(world.data)
    extra = dataset.interactions.head(1).with_columns(item_id=pl.lit("unheard"))
    save_dataset(type(dataset)(dataset.items, pl.concat([dataset.interactions, extra]), {}), tmp_path / "data")
    other = type(world)(tmp_path / "data", world.model, {}, world.catalog, world.vocabulary)
    error = refused(capsys, other, tmp_path / "out" / "results.json")
    assert "the catalog lacks 1 item(s) of the interactions, e.g. 'unheard'" in error


def test_prompts_too_long_for_the_model_are_refused(world, tmp_path, capsys):
    other = copy_model(world, tmp_path / "model")
    config = read_json(other.model / "config.json")
    write_json(other.model / "config.json", config | {"max_position_embeddings": 12})
    error = refused(capsys, other, tmp_path / "out" / "results.json")
    assert "exceeds the model's max_position_embeddings (12)" in error


def test_a_full_disk_leaves_no_part_of_a_report(world, tmp_path, capsys, monkeypatch):
    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("onereason.evaluation.report.render_report", fail)  # the plots are written by then
    assert evaluate(world, tmp_path / "results.json", "--max-users", "5") == 2
    assert "no space left while writing" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["candidates"]  # the next run goes on from them


def test_a_model_without_catalog_or_with_a_broken_one_says_so(world, tmp_path, capsys):
    other = copy_model(world, tmp_path / "model")
    (other.model / "catalog.json").write_text("[]")
    out = tmp_path / "out" / "results.json"
    assert "catalog.json is malformed: expected an object, got list" in refused(capsys, other, out)
    (other.model / "catalog.json").unlink()
    (other.model / "catalog.parquet").unlink()
    assert "run `onereason extend --base" in refused(capsys, other, out)
