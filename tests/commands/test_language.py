"""The language in which `onereason evaluate` and `onereason recommend` ask."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from onereason import prompt_sets
from onereason.cli import main
from onereason.data.prompts import RecommendationPrompt
from onereason.io import read_json, write_json
from onereason.model.folder import load_model_folder

ENGLISH = Path(prompt_sets.__file__).parent / "en"
OWN = "version: 7\nsystem: Go on.\nuser: '{history} then {noun}?'\n"


def evaluate(world, out, *extra: str) -> int:
    arguments = ["evaluate", "--model", str(world.model), "--data", str(world.data), "--out", str(out)]
    return main([*arguments, "--num-beams", "10", "--max-users", "6", *extra])


def own_folder(path: Path) -> Path:
    shutil.copytree(ENGLISH, path)
    (path / "recommendation.yaml").write_text(OWN)
    return path


def asked_in(world, folder: Path, language: str):
    """The world with a model folder that is asked in a language."""
    shutil.copytree(world.model, folder)
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", manifest | {"prompt": {"style": "chat", "language": language}})
    return replace(world, model=folder)


def ranks(path: Path) -> list:
    return read_json(path)["hit_ranks"]


def keep_candidates_only(folder: Path) -> None:
    """As an evaluation leaves its folder that was killed while it generated."""
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()


def test_the_language_is_given_or_the_model_folder_s(world, tmp_path):
    chinese = asked_in(world, tmp_path / "chinese", "zh")
    for name, of, given in (
        ("en", world, ()),
        ("zh", world, ("--language", "zh")),
        ("folder", chinese, ()),
        ("given", chinese, ("--language", "en")),
    ):
        assert evaluate(of, tmp_path / name / "results.json", *given) == 0
    found = {name: read_json(tmp_path / name / "results.json") for name in ("en", "zh", "folder", "given")}
    asked = {name: found[name]["manifest"]["config"] for name in found}
    assert {name: config["language"] for name, config in asked.items()} == {
        "en": "en",
        "zh": "zh",
        "folder": "zh",
        "given": "en",
    }
    assert asked["folder"]["prompt_version"] == "domains/zh/1, recommendation/zh/1"
    for same, other in (("zh", "folder"), ("en", "given")):
        assert found[same]["hit_ranks"] == found[other]["hit_ranks"]
    assert found["en"]["hit_ranks"] != found["zh"]["hit_ranks"]  # other words, other scores of a random model


def test_a_run_goes_on_in_its_language_only(world, tmp_path, capsys):
    out = tmp_path / "out/results.json"
    assert evaluate(world, out, "--language", "zh") == 0
    before = read_json(out)
    capsys.readouterr()
    assert evaluate(world, out, "--rescore", "--language", "en") == 2
    assert "were generated with other language;" in capsys.readouterr().err
    for given in ((), ("--language", "zh")):
        assert evaluate(world, out, "--rescore", *given) == 0
        found = read_json(out)
        assert found["manifest"]["config"] == before["manifest"]["config"] and ranks(out) == before["hit_ranks"]
    keep_candidates_only(out.parent)
    assert evaluate(world, out, "--language", "en") == 2
    error = capsys.readouterr().err
    assert "candidates of another run in mode no_think (language, prompt_version differ)" in error


def test_wording_of_ones_own_is_part_of_a_run(world, tmp_path, capsys):
    folder = own_folder(tmp_path / "mine")
    out = tmp_path / "out/results.json"
    assert evaluate(world, out, "--language", str(folder)) == 0
    manifest = read_json(out)["manifest"]
    assert manifest["config"]["language"] == "mine"
    assert manifest["config"]["prompt_version"] == "domains/mine/1, recommendation/mine/7"
    assert {"recommendation.yaml", "domains.yaml"} <= set(manifest["inputs"])
    (folder / "recommendation.yaml").write_text(OWN.replace("then", "and then"))  # the version was forgotten
    keep_candidates_only(out.parent)
    assert evaluate(world, out, "--language", str(folder)) == 2
    assert "(hash of recommendation.yaml differ)" in capsys.readouterr().err


def test_an_unknown_language_is_refused_before_the_weights_load(world, tmp_path, capsys):
    (bare := asked_in(world, tmp_path / "bare", "en")).model.joinpath("model.safetensors").unlink()
    assert evaluate(bare, tmp_path / "out/results.json", "--language", "fr") == 2
    assert main(["recommend", "--model", str(bare.model), "--items", "i01", "--language", "fr"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and all("for language 'fr' not found; use en or zh" in line for line in errors)
    assert not (tmp_path / "out").exists()


@torch.no_grad()
@pytest.mark.parametrize("language", ["en", "zh", "mine"])
def test_recommend_asks_in_the_language(world, tmp_path, capsys, language):
    given = str(own_folder(tmp_path / "mine")) if language == "mine" else language
    arguments = ["--items", "i03,i07,i01", "--domain", "prod", "--k", "3", "--num-beams", "24", "--json"]
    assert main(["recommend", "--model", str(world.model), "--language", given, *arguments]) == 0
    best = json.loads(capsys.readouterr().out)["recommendations"][0]
    folder = load_model_folder(world.model)
    patterns = folder.vocabulary.pattern_ids(world.catalog.codes, world.catalog.domains)
    prompt = RecommendationPrompt(folder.tokenizer, folder.vocabulary, language=given)
    tokens = prompt.encode(patterns[np.array([3, 7, 1])], "prod") + folder.vocabulary.prefix_ids("prod")
    path = folder.vocabulary.code_ids(world.catalog.codes[world.catalog.index[best["item_id"]]]).tolist()
    logprobs = folder.model.eval()(torch.tensor([tokens + path])).logits[0].log_softmax(-1)
    score = sum(logprobs[len(tokens) - 1 + step, token].item() for step, token in enumerate(path))
    assert best["score"] == pytest.approx(score, rel=1e-4)
