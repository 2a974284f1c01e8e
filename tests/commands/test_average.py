"""`onereason average`: means against sums of the stored weights, and models that cannot be averaged."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from onereason.cli import main
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format
from onereason.model import average
from onereason.model.extend import extend_model
from onereason.model.folder import load_model_folder, save_model_folder
from onereason.model.tiny import build_tiny_model, build_tiny_tokenizer

WORDS = ["red apple pie", "green tea set", "blue trail shoe", "warm wool hat"]


def catalog(levels: int = 2, swap: bool = False) -> Catalog:
    codes = np.stack([np.arange(6) % 4] * levels, 1)
    codes[:, 0] = np.arange(6) // 2
    if swap:
        codes[[0, 2]] = codes[[2, 0]]
    return Catalog(load_format("onereason", levels, 4), [f"i{n}" for n in range(6)], codes, ["video"] * 6, ["x"] * 6)


def write_model(folder: Path, seed: int, *, dtype=torch.float32, items: Catalog | None = None, words=WORDS, **sizes):
    """A random model; those of one shape differ by their seed in every weight."""
    items = items or catalog()
    tokenizer = build_tiny_tokenizer(words, 280)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "tie": True} | sizes
    model = build_tiny_model(tokenizer, **sizes, seed=seed)
    model, tokenizer, vocabulary = extend_model(model, tokenizer, items.format, seed=seed)
    torch.manual_seed(seed)
    for value in model.parameters():
        value.data = torch.randn_like(value)
    manifest = {"kind": "test", "prompt": {"style": "chat", "max_history": 9, "language": "en"}}
    save_model_folder(model.to(dtype), tokenizer, vocabulary, items, folder, manifest)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    return [write_model(root / name / "model", seed) for seed, name in enumerate(("video", "prod", "ad"))]


def run(*arguments) -> int:
    return main(["average", "--models", *map(str, arguments)])


def refused(capsys, *arguments) -> str:
    capsys.readouterr()
    assert run(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("onereason average: ") and "\n" not in error
    return error


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_weights_are_the_weighted_mean_of_the_stored_ones(models, tmp_path):
    assert run(*models, "--weights", 4, 1, 3, "--out", tmp_path / "mean") == 0
    mean, parts = stored(tmp_path / "mean"), [stored(path) for path in models]
    assert mean.keys() == parts[0].keys()
    for name, value in mean.items():
        expected = sum(share * part[name].double() for share, part in zip((0.5, 0.125, 0.375), parts, strict=True))
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6)
    assert run(*models, "--out", tmp_path / "equal") == 0
    for name, value in stored(tmp_path / "equal").items():
        torch.testing.assert_close(value, torch.stack([p[name] for p in parts]).mean(0), rtol=1e-5, atol=1e-6)


def test_the_result_is_a_whole_folder_that_names_what_it_is_made_of(models, tmp_path):
    assert run(*models[:2], "--weights", 3, 1, "--out", tmp_path / "mean") == 0
    manifest = json.loads((tmp_path / "mean" / "manifest.json").read_text())
    assert manifest["kind"] == "average"
    assert manifest["config"] == {"weights": {"video/model": 0.75, "prod/model": 0.25}}
    assert manifest["inputs"] == {
        f"{name}/model/model.safetensors": hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
        for name, path in zip(("video", "prod"), models, strict=False)
    }
    assert manifest["prompt"] == {"style": "chat", "max_history": 9, "language": "en"}
    folder, first = load_model_folder(tmp_path / "mean"), load_model_folder(models[0])
    assert folder.catalog.to_frame().equals(first.catalog.to_frame())
    assert folder.tokenizer.get_vocab() == first.tokenizer.get_vocab()
    assert folder.model.config.tie_word_embeddings
    assert folder.model.lm_head.weight.data_ptr() == folder.model.get_input_embeddings().weight.data_ptr()
    assert folder.model.generation_config.suppress_tokens == first.model.generation_config.suppress_tokens


def test_sums_are_float32_and_the_type_stays(tmp_path):
    """In bfloat16 a third of each, added one by one, would be rounded five times."""
    paths = [write_model(tmp_path / str(n), n, dtype=torch.bfloat16) for n in range(3)]
    assert run(*paths, "--out", tmp_path / "mean") == 0
    parts = [stored(path) for path in paths]
    differs = 0
    for name, value in stored(tmp_path / "mean").items():
        assert value.dtype == torch.bfloat16
        exact = torch.stack([part[name].double() for part in parts]).mean(0)
        # Half of what lies between bfloat16 neighbours, and what float32 sums of terms below 4 may be off.
        bound = 2.0 ** (exact.abs().clamp(min=1e-30).log2().floor() - 8) + 1e-6
        assert ((value.double() - exact).abs() <= bound).all()
        coarse = sum(part[name] * (1 / 3) for part in parts)
        differs += int(((coarse.double() - exact).abs() > bound).sum())
    assert differs > 100
    wide = write_model(tmp_path / "wide", 5)
    assert run(paths[0], wide, "--out", tmp_path / "mixed") == 0
    assert {value.dtype for value in stored(tmp_path / "mixed").values()} == {torch.float32}


def test_copies_of_one_model_give_it_back(models, tmp_path):
    shutil.copytree(models[0], tmp_path / "copy")
    assert run(models[0], tmp_path / "copy", "--out", tmp_path / "mean") == 0
    ours, theirs = stored(tmp_path / "mean"), stored(models[0])
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_weights_in_several_files_are_averaged_and_hashed_alike(models, tmp_path):
    folder = load_model_folder(models[0])
    parts = (folder.model, folder.tokenizer, folder.vocabulary, folder.catalog)
    save_model_folder(*parts, tmp_path / "shards", {}, max_shard_size="10KB")
    files = sorted((tmp_path / "shards").glob("model-*.safetensors"))
    assert len(files) > 1
    assert run(tmp_path / "shards", models[1], "--weights", 1, 3, "--out", tmp_path / "mean") == 0
    assert run(models[0], models[1], "--weights", 1, 3, "--out", tmp_path / "expected") == 0
    mean, expected = stored(tmp_path / "mean"), stored(tmp_path / "expected")
    assert all(torch.equal(mean[name], expected[name]) for name in expected)
    manifest = json.loads((tmp_path / "mean" / "manifest.json").read_text())
    hashes = {hashlib.sha256(file.read_bytes()).hexdigest() for file in [*files, models[1] / "model.safetensors"]}
    assert set(manifest["inputs"].values()) == hashes
    assert list(manifest["config"]["weights"].values()) == [0.25, 0.75]


def test_one_model_is_in_memory_at_a_time(models, tmp_path, monkeypatch):
    alive: list[weakref.ref] = []

    def load(path):
        gc.collect()
        assert not any(model() is not None for model in alive)
        folder = load_model_folder(path)
        alive.append(weakref.ref(folder.model))
        return folder

    monkeypatch.setattr(average, "load_model_folder", load)
    assert run(*models, "--out", tmp_path / "mean") == 0
    assert len(alive) == 3


def test_a_folder_of_prompts_is_taken_along(models, tmp_path, capsys):
    own = tmp_path / "own"
    shutil.copytree(models[0], own)
    shutil.copytree(Path(average.__file__).parents[1] / "prompt_sets" / "en", own / "words")
    manifest = json.loads((own / "manifest.json").read_text())
    manifest["prompt"]["language"] = "words"
    (own / "manifest.json").write_text(json.dumps(manifest))
    assert run(own, models[1], "--out", tmp_path / "mean") == 0
    assert "the models record different prompts; it takes those of" in capsys.readouterr().err
    assert json.loads((tmp_path / "mean" / "manifest.json").read_text())["prompt"]["language"] == "words"
    assert (tmp_path / "mean/words/trace.yaml").read_bytes() == (own / "words" / "trace.yaml").read_bytes()


def test_models_that_do_not_fit_are_refused_before_any_weights_are_read(models, tmp_path, capsys, monkeypatch):
    first = models[0]
    other = {
        "words": write_model(tmp_path / "words", 0, words=["other words altogether", *WORDS[1:]]),
        "format": write_model(tmp_path / "format", 0, items=catalog(3)),
        "codes": write_model(tmp_path / "codes", 0, items=catalog(swap=True)),
        "layers": write_model(tmp_path / "layers", 0, num_hidden_layers=2),
        "untied": write_model(tmp_path / "untied", 0, tie=False),
        "positions": write_model(tmp_path / "positions", 0, rope_theta=500.0),
    }
    shutil.copytree(first, tmp_path / "bare")
    for name in ("catalog.json", "catalog.parquet"):
        (tmp_path / "bare" / name).unlink()
    monkeypatch.setattr(average, "load_model_folder", None)
    said = {
        "words": "has another vocabulary than the first model",
        "format": "uses format 'onereason' with codes a level [4, 4, 4], the model uses",
        "codes": "has other semantic ids than that of the first model",
        "layers": "layer_types is [",
        "untied": "tie_word_embeddings is False, of",
        "positions": "rope",
    }
    out = tmp_path / "out"
    for name, text in said.items():
        error = refused(capsys, first, other[name], "--out", out)
        assert text in error and str(other[name]) in error
    assert "bare holds no catalog" in refused(capsys, first, tmp_path / "bare", "--out", out)
    assert "does not exist" in refused(capsys, first, tmp_path / "nothing", "--out", out)
    assert "an average needs two or more" in refused(capsys, first, "--out", out)
    assert "twice; name it once" in refused(capsys, first, first, "--out", out)
    assert "has 3 numbers for 2 models" in refused(capsys, *models[:2], "--weights", 1, 2, 3, "--out", out)
    assert "must be above 0, got 0" in refused(capsys, *models[:2], "--weights", 1, 0, "--out", out)
    assert "cannot be overwritten" in refused(capsys, *models[:2], "--out", models[1], "--overwrite")
    assert not out.exists()
