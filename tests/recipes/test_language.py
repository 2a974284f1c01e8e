"""The language a run is asked in: validation prompts, and what the finished folder says and takes along."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from conftest import overrides, run_in_process, weights

import recipes.common
from onereason import prompt_sets
from onereason.data.prompts import RecommendationPrompt, recommendation_messages
from onereason.decoding.recommender import Recommender, load_recommender
from onereason.errors import ConfigError
from onereason.io import hash_file, read_json

ENGLISH = Path(prompt_sets.__file__).parent / "en"
SHORT = {"training.max_steps": 1}


def own_folder(path: Path) -> Path:
    shutil.copytree(ENGLISH, path)
    (path / "recommendation.yaml").write_text("version: 7\nsystem: Go on.\nuser: '{history} then {noun}?'\n")
    (path / "notes.txt").write_text("mine")
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[RecommendationPrompt]:
    """How validation users were asked, once a validation."""
    prompts: list[RecommendationPrompt] = []
    evaluate = recipes.common.evaluate

    def noticed(recommender: Recommender, *rest: Any) -> dict[str, Any] | None:
        prompts.append(recommender.prompt)
        return evaluate(recommender, *rest)

    monkeypatch.setattr(recipes.common, "evaluate", noticed)
    return prompts


def test_without_validation_the_folder_still_says_how_it_is_asked(world: Path, tmp_path: Path) -> None:
    changes = SHORT | {"selection.prompt": "plain", "selection.max_history": 9, "selection.language": "zh"}
    run_in_process("align", overrides("align", world, tmp_path / "run", **changes))
    manifest = read_json(tmp_path / "run/model/manifest.json")
    assert manifest["prompt"] == {"style": "plain", "max_history": 9, "language": "zh"}
    assert "validation" not in manifest
    loaded = load_recommender(tmp_path / "run/model", device="cpu")
    assert (loaded.prompt.style, loaded.prompt.language, loaded.max_history) == ("plain", "zh", 9)


def test_a_warm_up_says_nothing_of_prompts(world: Path, tmp_path: Path) -> None:
    run_in_process("warmup", overrides("warmup", world, tmp_path / "run", **SHORT))
    assert "prompt" not in read_json(tmp_path / "run/model/manifest.json")


@pytest.mark.parametrize("name", ["mine", "zh"])
def test_a_folder_of_wording_goes_along(
    world: Path, tmp_path: Path, asked: list[RecommendationPrompt], name: str
) -> None:
    folder = own_folder(tmp_path / name)
    changes = SHORT | {
        "selection.data": world / "data",
        "selection.eval_steps": 1,
        "selection.num_beams": 10,
        "selection.max_users": 3,
        "selection.language": folder,
    }
    run_in_process("sft", overrides("sft", world, tmp_path / "run", **changes))
    assert {prompt.messages("<h>", "prod")[1]["content"] for prompt in asked} == {"<h> then product? /no_think"}

    model, called = tmp_path / "run/model", {"mine": "mine", "zh": "zh_own"}[name]
    manifest = read_json(model / "manifest.json")
    assert manifest["prompt"] == {"style": "chat", "max_history": 50, "language": called}
    assert {path.name for path in (model / called).iterdir()} == {path.name for path in folder.glob("*.yaml")}
    assert hash_file(folder / "recommendation.yaml") in manifest["inputs"].values()
    shutil.rmtree(folder)
    elsewhere = shutil.move(model, tmp_path / "elsewhere")  # the folder needs nothing else
    loaded = load_recommender(elsewhere, device="cpu")
    rendered = loaded.prompt.encode(np.zeros((0, 3)), "prod")
    assert loaded.prompt.messages("<h>", "prod")[0]["content"] == "Go on."
    assert "then product?" in loaded.prompt.tokenizer.decode(rendered)


def test_chinese_is_asked_while_training(world: Path, tmp_path: Path, asked: list[RecommendationPrompt]) -> None:
    changes = SHORT | {"selection.data": world / "data", "selection.num_beams": 10, "selection.language": "zh"}
    run_in_process("align", overrides("align", world, tmp_path / "run", **changes))
    assert {prompt.language for prompt in asked} == {"zh"}
    loaded = load_recommender(tmp_path / "run/model", device="cpu")
    format = loaded.vocabulary.format
    assert loaded.prompt.messages("<h>", "prod") == recommendation_messages("<h>", "prod", format, language="zh")


def test_the_language_does_not_change_the_weights_without_validation(world: Path, tmp_path: Path) -> None:
    for language in ("en", "zh"):
        arguments = overrides("align", world, tmp_path / language, **SHORT, **{"selection.language": language})
        run_in_process("align", arguments)
    english, chinese = (weights(tmp_path / language / "model") for language in ("en", "zh"))
    assert all(english[name].equal(chinese[name]) for name in english)


@pytest.mark.parametrize("recipe", ["align", "sft"])
def test_an_unknown_language_is_refused_before_the_model_loads(recipe: str, world: Path, tmp_path: Path) -> None:
    changes = {"selection.language": "fr", "model": tmp_path / "no_model"}
    with pytest.raises(ConfigError, match="for language 'fr' not found; use en or zh"):
        run_in_process(recipe, overrides(recipe, world, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()
