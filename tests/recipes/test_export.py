"""Runs with LoRA, exported: from the adapter alone to the bytes of the run's own model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from conftest import launch, overrides, run_in_process
from rl_worlds import rollout_overrides

from onereason.cli import main
from onereason.io import hash_file

LORA = {"tuning": "lora", "lora.rank": 4}


def check(out: Path, exported: Path, kind: str) -> None:
    assert main(["export", str(out / "adapter"), "--out", str(exported)]) == 0
    assert hash_file(exported / "model.safetensors") == hash_file(out / "model" / "model.safetensors")
    for name in ("itemic.json", "catalog.parquet", "catalog.trie", "tokenizer.json", "chat_template.jinja"):
        assert (exported / name).read_bytes() == (out / "model" / name).read_bytes()
    ours, theirs = (json.loads((folder / "manifest.json").read_text()) for folder in (exported, out / "model"))
    assert ours["prompt"] == theirs["prompt"]
    assert ours["lineage"]["stages"][-1]["manifest"]["counts"] == theirs["counts"]
    assert ours["lineage"]["stages"][-1]["manifest"]["kind"] == kind


def test_reinforcement(world: Path, tmp_path: Path) -> None:
    launch("rl", rollout_overrides(world, tmp_path / "run", **LORA, **{"training.max_steps": 2}))
    check(tmp_path / "run", tmp_path / "exported", "rl")
    text = (tmp_path / "exported" / "README.md").read_text()
    prompts = json.loads((tmp_path / "run" / "model" / "manifest.json").read_text())["counts"]["prompts"]
    assert f"| data | not known: its folder holds no manifest.json | {prompts} prompts |" in text


@pytest.mark.parametrize("recipe", ["sft", "align"])
def test_corpora_with_untied_embeddings(recipe: str, untied_world: Path, tmp_path: Path) -> None:
    run_in_process(recipe, overrides(recipe, untied_world, tmp_path / "run", **LORA))
    check(tmp_path / "run", tmp_path / "exported", recipe)
    counts = json.loads((tmp_path / "run" / "model" / "manifest.json").read_text())["counts"]
    text = (tmp_path / "exported" / "README.md").read_text()
    seen = f"{counts['caption_rows']} rows, {counts['caption_supervised_tokens']:,} supervised tokens"
    assert f"| caption | not known: its folder holds no manifest.json | {seen} |" in text
