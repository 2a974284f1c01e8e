"""Distillation from a teacher a domain: what the student follows, shared bases, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from conftest import launch, load_tiny_world, run_in_process, weights
from rl_worlds import rollout_overrides

from onereason.errors import ConfigError, OnereasonError
from onereason.itemic.format import load_format
from onereason.model.extend import extend_model
from onereason.model.folder import load_model_folder, save_model_folder
from onereason.model.tiny import build_tiny_model, build_tiny_tokenizer
from recipes.common import TrainingConfig
from recipes.teachers import Teachers

DOMAINS = ("prod", "video")


@pytest.fixture(scope="session")
def specialists(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of reinforcement a domain, with adapters; for even first codes in one, odd ones in the other."""
    root = tmp_path_factory.mktemp("specialists")
    for odd, domain in zip((False, True), DOMAINS, strict=True):
        changes = {"prompts.domains": [domain], "tuning": "lora", "lora.rank": 4, "training.max_steps": 30}
        changes |= {"reward.terms": [{"name": "rl_worlds:parity", "options": {"odd": odd}}]}
        changes |= {f"guards.min_{name}": 0.0 for name in ("entropy", "diversity", "recall")}
        run_in_process("rl", rollout_overrides(world, root / domain, **changes))
    return {domain: root / domain for domain in DOMAINS}


def train(world: Path, out: Path, teachers: dict[str, Path], **more: Any) -> list[dict[str, Any]]:
    named = {f"teachers.{domain}": path for domain, path in teachers.items()}
    run_in_process("distill", rollout_overrides(world, out, **named | {"rollout.items": "sample"} | more))
    return history(out)


def history(out: Path) -> list[dict[str, Any]]:
    lines = json.loads((out / "log_history.json").read_text())
    return [{k: v for k, v in line.items() if k != "step_time"} for line in lines if "loss" in line]


def test_adapters_on_one_base_teach_as_merged_models_do(
    world: Path, specialists: dict[str, Path], tmp_path: Path
) -> None:
    merged = train(world, tmp_path / "merged", {d: p / "model" for d, p in specialists.items()})
    adapters = train(world, tmp_path / "adapters", {d: p / "adapter" for d, p in specialists.items()})
    for expected, found in zip(merged, adapters, strict=True):
        assert {k: pytest.approx(v, abs=2e-4) for k, v in expected.items() if k != "loss"} == {
            k: v for k, v in found.items() if k != "loss"
        }
    student = load_model_folder(world / "model")
    held = Teachers({d: str(p / "adapter") for d, p in specialists.items()}, student, TrainingConfig())
    whole = Teachers({d: str(p / "model") for d, p in specialists.items()}, student, TrainingConfig())
    assert (held.num_models, whole.num_models) == (1, 2)
    tokens = torch.arange(10)[None]
    with torch.no_grad():
        for domain in (*DOMAINS, *DOMAINS):  # there and back: an adapter replaces the one before
            expected = whole.model(domain)(tokens).logits
            assert (held.model(domain)(tokens).logits - expected).abs().max() < 1e-3  # of logits up to 1


def test_the_student_comes_closer_to_its_teachers(world: Path, specialists: dict[str, Path], tmp_path: Path) -> None:
    changes = {"training.max_steps": 100, "training.learning_rate": 5e-3, "distillation.share": 1.0}
    changes |= {f"guards.min_{name}": 0.0 for name in ("entropy", "diversity", "recall")}
    lines = train(world, tmp_path / "run", {d: p / "model" for d, p in specialists.items()}, **changes)
    gains = np.array(
        [np.mean([line[f"teacher/gain_{d}"] for d in DOMAINS if f"teacher/gain_{d}" in line]) for line in lines]
    )
    assert gains[-8:].mean() < 0.75 * gains[:4].mean()


def test_a_student_that_is_its_teacher_has_nothing_to_learn(world: Path, tmp_path: Path) -> None:
    lines = train(world, tmp_path / "run", dict.fromkeys(DOMAINS, world / "model"))
    assert all(abs(line["grad_norm"]) < 1e-4 and abs(line["kl/teacher_item"]) < 1e-5 for line in lines)
    assert all(value < 1e-5 for line in lines for name, value in line.items() if name.startswith("teacher/gain"))


def test_few_rollouts_hold_most_of_the_information(world: Path, specialists: dict[str, Path], tmp_path: Path) -> None:
    teachers = {d: p / "model" for d, p in specialists.items()}
    all_of_them = train(world, tmp_path / "all", teachers, **{"distillation.share": 1.0, "training.max_steps": 1})
    half = train(world, tmp_path / "half", teachers, **{"distillation.share": 0.5, "training.max_steps": 1})
    assert all_of_them[0]["teacher/kept"] == 1 and 1 / 8 <= half[0]["teacher/kept"] <= 5 / 8


def test_two_processes_equal_one(world: Path, specialists: dict[str, Path], tmp_path: Path) -> None:
    teachers = {d: p / "adapter" for d, p in specialists.items()}
    one = train(world, tmp_path / "one", teachers)
    named = {f"teachers.{d}": p for d, p in teachers.items()} | {"rollout.items": "sample"}
    arguments = rollout_overrides(world, tmp_path / "two", **named | {"training.per_device_train_batch_size": 4})
    launch("distill", arguments, processes=2)
    two = history(tmp_path / "two")
    assert [line["grad_norm"] for line in two] == pytest.approx([line["grad_norm"] for line in one], rel=1e-3)
    expected, found = weights(tmp_path / "one" / "model"), weights(tmp_path / "two" / "model")
    assert all(torch.allclose(expected[name], found[name], atol=2e-4) for name in expected)


def test_a_resumed_run_equals_an_uninterrupted_one(world: Path, specialists: dict[str, Path], tmp_path: Path) -> None:
    teachers = {d: p / "adapter" for d, p in specialists.items()}
    straight = train(world, tmp_path / "straight", teachers, **{"training.save_steps": 2})
    train(world, tmp_path / "resumed", teachers, **{"training.save_steps": 2})
    shutil.rmtree(tmp_path / "resumed" / "model")
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-4")
    assert train(world, tmp_path / "resumed", teachers, **{"training.save_steps": 2}) == straight


def foreign_model(root: Path, format_codes: int, words: int) -> Path:
    """A model folder with another format, or another tokenizer."""
    items = load_tiny_world().catalog()
    tokenizer = build_tiny_tokenizer(["other words altogether"] * 4, vocab_size=words)
    model = build_tiny_model(tokenizer, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, seed=0)
    format = load_format("onereason", 2, format_codes)
    model, tokenizer, vocabulary = extend_model(model, tokenizer, format, init="mean_noise", seed=0)
    own = items if format_codes == 8 else None
    save_model_folder(model, tokenizer, vocabulary, own, root / "foreign", {"kind": "test"})
    return root / "foreign"


def test_teachers_that_do_not_fit_are_refused(world: Path, specialists: dict[str, Path], tmp_path: Path) -> None:
    model, adapter = world / "model", specialists["prod"] / "adapter"
    other_rank = tmp_path / "other"
    shutil.copytree(specialists["video"] / "adapter", other_rank)
    config = json.loads((other_rank / "adapter_config.json").read_text())
    (other_rank / "adapter_config.json").write_text(json.dumps(config | {"r": 2}))
    cases: list[tuple[dict[str, Path], str]] = [
        ({}, "teachers is empty"),
        ({"video": model}, "teachers has none for prod"),
        ({"video": model, "prod": model, "live": model}, "teachers names live, which no prompt asks for"),
        ({"video": tmp_path / "nothing", "prod": model}, "nothing"),
        ({"video": other_rank, "prod": adapter}, "adapters that share a base need the same"),
        ({"video": model, "prod": adapter}, "which other teachers' adapters are laid into"),
    ]
    for teachers, message in cases:
        with pytest.raises(OnereasonError, match=message):
            train(world, tmp_path / "run", teachers)
    (tmp_path / "format").mkdir()
    (tmp_path / "words").mkdir()
    for folder, message in (
        (foreign_model(tmp_path / "format", 16, 300), r"teachers.video \(.*foreign\) uses format"),
        (foreign_model(tmp_path / "words", 8, 300), r"teachers.video: .* has another vocabulary than the student"),
    ):
        with pytest.raises(OnereasonError, match=message):
            train(world, tmp_path / "run", {"video": folder, "prod": model})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distillation.importance": [1.5, 2.0]}, "must enclose 1"),
        ({"distillation.share": 0.0}, "distillation.share must lie in"),
        ({"distillation.trace_weight": -1}, "distillation.trace_weight must be at least 0"),
        ({"distillation.max_advantage": 0}, "max_advantage must be above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    changes: dict[str, Any], message: str, world: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(world, tmp_path / "run", dict.fromkeys(DOMAINS, world / "model"), **changes)
