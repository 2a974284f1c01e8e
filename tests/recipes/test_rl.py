"""Reinforcement: what a step learns, runs that must be equal, and what ends a run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from conftest import launch, losses, run_in_process, weights
from rl_worlds import rollout_overrides

from onereason.data.schema import Dataset, load_dataset, save_dataset
from onereason.errors import CollapseError, ConfigError, DataError, OnereasonError, RewardError
from onereason.io import read_jsonl
from onereason.model.adapter import AdapterSettings, read_adapter_settings
from onereason.model.folder import load_model_folder
from onereason.rl.p_score import PScoreNetwork, PScoreNetworkConfig, PScorer, save_p_scorer
from recipes.rl import RlConfig
from recipes.teachers import Teachers

OWN = {"reward.terms": [{"name": "rl_worlds:parity"}]}
NARROW = {"reward.terms": [{"name": "rl_worlds:first_code"}]}
NO_GUARDS = {f"guards.min_{name}": 0.0 for name in ("entropy", "diversity", "recall")}


def history(out: Path) -> list[dict[str, Any]]:
    return [line for line in json.loads((out / "log_history.json").read_text()) if "loss" in line]


def train(world: Path, out: Path, **more: Any) -> list[dict[str, Any]]:
    run_in_process("rl", rollout_overrides(world, out, **more))
    return history(out)


def same_weights(one: Path, other: Path, tolerance: float = 0.0) -> bool:
    expected, found = weights(one / "model"), weights(other / "model")
    return set(expected) == set(found) and all(
        torch.allclose(expected[name], found[name], rtol=0, atol=tolerance) for name in expected
    )


@pytest.fixture(scope="session")
def reinforced(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run for even first codes."""
    out = tmp_path_factory.mktemp("reinforced") / "run"
    train(world, out, **OWN)
    return out


def test_the_reward_rises(world: Path, tmp_path: Path) -> None:
    changes = OWN | NO_GUARDS | {"training.max_steps": 24, "rollout.items": "sample"}
    rewards = [line["reward/parity"] for line in train(world, tmp_path / "run", **changes)]
    assert np.mean(rewards[:3]) < 0.7 and np.mean(rewards[-4:]) > 0.9


@pytest.mark.parametrize("mode", ["think", "no_think"])
def test_the_first_step_is_on_policy(mode: str, world: Path, tmp_path: Path) -> None:
    """Rows are scored as they were rolled out: ratios are 1 to the last bits of float32."""
    line = train(world, tmp_path / "run", **OWN | {"training.max_steps": 1, "rollout.mode": mode})[0]
    for stage in ("trace", "item") if mode == "think" else ("item",):
        assert abs(line[f"ratio/{stage}_mean"] - 1) < 1e-5 and line[f"kl/rollout_{stage}"] < 1e-9
    assert ("ratio/trace_mean" in line) == (mode == "think")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("precision", [{"training.weights_dtype": "bfloat16"}, {"training.bf16": True}])
def test_bfloat16_trains_too(precision: dict[str, Any], attention: str, world: Path, tmp_path: Path) -> None:
    changes = OWN | precision | {"training.attn_implementation": attention, "training.max_steps": 2}
    lines = train(world, tmp_path / "run", **changes)
    assert all(abs(line[f"ratio/{stage}_mean"] - 1) < 0.05 for line in lines for stage in ("trace", "item"))
    norms = [line["grad_norm"] for line in lines]
    assert np.isfinite(norms).all() and max(norms) > 0


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_gradient_checkpointing_changes_nothing(tuning: str, world: Path, tmp_path: Path) -> None:
    changes = OWN | {"tuning": tuning, "lora.rank": 4}
    plain = train(world, tmp_path / "plain", **changes)
    checkpointed = train(world, tmp_path / "checkpointed", **changes | {"training.gradient_checkpointing": True})
    assert [line["grad_norm"] for line in checkpointed] == pytest.approx(
        [line["grad_norm"] for line in plain], rel=1e-4
    )
    assert same_weights(tmp_path / "plain", tmp_path / "checkpointed", 1e-5)


def test_mixed_modes_train_both(world: Path, tmp_path: Path) -> None:
    lines = train(world, tmp_path / "run", **OWN | {"rollout.mode": "mixed", "training.max_steps": 8})
    modes = {name for line in lines for name in line if name.startswith("rollout/answer_loglikelihood")}
    assert modes == {"rollout/answer_loglikelihood_think", "rollout/answer_loglikelihood_no_think"}
    assert all(abs(line["ratio/item_mean"] - 1) < 1e-5 for line in lines)


def test_guided_rollouts_teach_where_nothing_was_found(world: Path, tmp_path: Path) -> None:
    changes = {"reward.terms": [{"name": "hit"}], "rollout.num_items": 2, "training.max_steps": 2}
    alone = train(world, tmp_path / "alone", **changes)
    guided = train(world, tmp_path / "guided", **changes | {"rollout.include_positive": True})
    assert alone[0]["skipped/equal_rewards"] >= 1 and "skipped/equal_rewards" not in guided[0]
    assert guided[0]["rollout/recall"] <= alone[0]["rollout/recall"] < 1  # a guide is no rollout


def test_later_passes_over_rollouts_are_off_policy(world: Path, tmp_path: Path) -> None:
    changes = OWN | {"num_iterations": 2, "training.learning_rate": 3e-3, "training.lr_scheduler_type": "constant"}
    lines = train(world, tmp_path / "run", **changes)
    drift = [line["kl/rollout_item"] for line in lines]
    assert max(drift[0], drift[2]) < 1e-9 < 1e-7 < min(drift[1], drift[3])
    # A generation's figures are logged when it is made.
    assert ["reward/parity" in line for line in lines] == [True, False, True, False]


def test_minibatches_cut_a_generation(world: Path, tmp_path: Path) -> None:
    lines = train(world, tmp_path / "run", **OWN | {"minibatches": 2, "training.per_device_train_batch_size": 4})
    assert ["reward/parity" in line for line in lines] == [True, False, True, False]
    assert lines[0]["kl/rollout_item"] < 1e-9 < lines[1]["kl/rollout_item"]


@pytest.mark.parametrize("loss", ["grpo", "dapo", "dr_grpo"])
def test_accumulation_1x8_equals_2x4(loss: str, world: Path, tmp_path: Path) -> None:
    one = train(world, tmp_path / "one", **OWN | {"loss.type": loss})
    two = train(
        world,
        tmp_path / "two",
        **OWN
        | {
            "loss.type": loss,
            "training.per_device_train_batch_size": 4,
            "training.gradient_accumulation_steps": 2,
        },
    )
    assert [line["grad_norm"] for line in one] == pytest.approx([line["grad_norm"] for line in two], rel=1e-3)
    assert same_weights(tmp_path / "one", tmp_path / "two", 2e-4)


def test_two_processes_equal_one(world: Path, reinforced: Path, tmp_path: Path) -> None:
    out = tmp_path / "two"
    launch(
        "rl",
        rollout_overrides(world, out, **OWN | {"training.per_device_train_batch_size": 4}),
        processes=2,
        PYTHONPATH=str(Path(__file__).parent),
    )
    expected, found = history(reinforced), history(out)
    for name in ("reward/parity", "grad_norm", "rollout/trace_tokens"):
        assert [line[name] for line in found] == pytest.approx([line[name] for line in expected], rel=1e-3), name
    assert same_weights(reinforced, out, 2e-4)


@pytest.mark.parametrize("changes", [{}, {"minibatches": 2, "training.per_device_train_batch_size": 4}])
def test_a_resumed_run_equals_an_uninterrupted_one(changes: dict[str, Any], world: Path, tmp_path: Path) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    changes = changes | OWN | {"training.save_steps": 2, "loss.kl_beta": 0.01}
    train(world, straight, **changes)
    train(world, resumed, **changes)
    shutil.rmtree(resumed / "model")
    shutil.rmtree(resumed / "checkpoint-4")
    train(world, resumed, **changes)  # goes on from step 2

    def lines(out: Path) -> list[dict[str, Any]]:
        return [{k: v for k, v in line.items() if k != "step_time"} for line in history(out)]

    assert lines(straight) == lines(resumed) and [line["step"] for line in lines(resumed)] == [1, 2, 3, 4]
    assert same_weights(straight, resumed)
    assert read_jsonl(straight / "guards.jsonl") == read_jsonl(resumed / "guards.jsonl")


def test_the_reference_is_the_start_model(world: Path, tmp_path: Path) -> None:
    lines = train(world, tmp_path / "run", **OWN | {"loss.kl_beta": 0.1})
    divergence = [line["kl/reference"] for line in lines]
    assert divergence[0] < 1e-9 and min(divergence[1:]) > 1e-6


def test_legal_items_get_an_advantage_of_their_own(world: Path, tmp_path: Path) -> None:
    """With a constant reward nothing else is learned: the items that are looked at, all legal, become likelier."""
    changes = {"reward.terms": [{"name": "rl_worlds:constant"}], "training.max_steps": 1, "rollout.mode": "no_think"}
    plain = train(world, tmp_path / "plain", **changes)
    some = train(world, tmp_path / "some", **changes | {"format_subset": 0.5})
    every = train(world, tmp_path / "every", **changes | {"format_subset": 1.0})
    assert plain[0]["grad_norm"] == 0 < min(some[0]["grad_norm"], every[0]["grad_norm"])
    # The loss is minus the mean advantage, on policy: 1 for all that is looked at.
    assert [run[0]["loss"] for run in (plain, some, every)] == pytest.approx([0, -0.5, -1], abs=0.05)


def test_groups_of_equal_rewards_change_nothing(world: Path, tmp_path: Path) -> None:
    lines = train(
        world, tmp_path / "run", **{"reward.terms": [{"name": "rl_worlds:constant"}], "training.weight_decay": 0.0}
    )
    assert all(line["skipped/equal_rewards"] == 4 and line["grad_norm"] == 0 for line in lines)
    assert same_weights(world, tmp_path / "run")


def test_a_reward_that_is_nan_leaves_its_groups_out(world: Path, tmp_path: Path) -> None:
    lines = train(world, tmp_path / "run", **{"reward.terms": [{"name": "rl_worlds:broken"}]})
    assert all(line["skipped/broken/not_finite"] == 2 and line["reward/skipped_groups"] == 0.5 for line in lines)
    assert all(np.isfinite(line["loss"]) and np.isfinite(line["grad_norm"]) for line in lines)
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run" / "model").values())
    with pytest.raises(RewardError, match=r"reward broken: nan in group 1, trace 0, item 0"):
        train(
            world,
            tmp_path / "other",
            **{"reward.terms": [{"name": "rl_worlds:broken"}], "reward.not_finite": "raise"},
        )


def test_a_collapse_stops_the_run_and_says_why(world: Path, tmp_path: Path) -> None:
    """Items of one first code are rewarded: their entropy falls until the guard stops the run."""
    changes = NARROW | NO_GUARDS | {"training.max_steps": 200, "training.save_steps": 10, "rollout.items": "sample"}
    changes |= {"guards.window": 3, "guards.min_entropy": 0.3}
    with pytest.raises(
        CollapseError, match=r"stopped at step \d+: item_entropy_1 fell from .* Likely cause: "
    ) as error:
        train(world, tmp_path / "run", **changes)
    curve = read_jsonl(tmp_path / "run" / "guards.jsonl")
    assert f"step {curve[-1]['step']}:" in str(error.value) and curve[-1]["step"] < 200
    assert curve[-1]["rollout/item_entropy_1"] < 0.5 * curve[0]["rollout/item_entropy_1"]
    assert not (tmp_path / "run" / "model").exists() and list((tmp_path / "run").glob("checkpoint-*"))


def test_lora_ends_as_a_plain_model_with_its_adapter_beside(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(world, out, **OWN | {"tuning": "lora", "lora.rank": 4, "lora.alpha": 8})
    assert read_adapter_settings(out / "adapter") == AdapterSettings(str((world / "model").resolve()), 4, 8.0)
    student = load_model_folder(world / "model")
    config = RlConfig(model=str(world / "model"), out="x", data="x")
    teacher = Teachers({"video": str(out / "adapter")}, student, config.training).model("video")
    merged = load_model_folder(out / "model").model.eval()
    tokens = torch.randint(0, len(student.tokenizer), (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(teacher(tokens).logits, merged(tokens).logits, atol=1e-5)
        assert not torch.allclose(teacher(tokens).logits, student.model(tokens).logits, atol=1e-3)


def test_a_specialist_is_asked_for_its_domain_alone(world: Path, tmp_path: Path) -> None:
    train(world, tmp_path / "run", **OWN | {"prompts.domains": ["video"], "training.max_steps": 1})
    counts = json.loads((tmp_path / "run" / "model" / "manifest.json").read_text())["counts"]
    assert counts["prompts"] > 0 and counts["left_out_other_domains"] > 0


def test_the_checkpoint_is_chosen_on_validation_users(world: Path, tmp_path: Path) -> None:
    changes = {"selection.data": str(world / "data"), "selection.eval_steps": 2, "selection.num_beams": 20}
    changes |= {"selection.mode": "think", "selection.think_budget": 6}
    train(world, tmp_path / "run", **OWN | changes)
    manifest = json.loads((tmp_path / "run" / "model" / "manifest.json").read_text())
    assert 0 <= manifest["validation"]["recall_at_10"] <= 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"rollout.num_traces": 1}, ConfigError, r"num_traces must be at least 2.*its gradient vanishes"),
        ({"rollout.num_traces": 3}, ConfigError, r"\(8 traces a process and generation\).*by rollout.num_traces \(3\)"),
        ({"training.save_steps": 3, "minibatches": 2}, ConfigError, r"checkpoints must fall between generations"),
        ({"data": ""}, ConfigError, r"data is not set"),
        ({"prompts.domains": ["live"]}, ConfigError, r"prompts.domains names 'live'; .* are prod, video"),
        ({"prompts.users": [0.5, 0.5]}, ConfigError, r"two rising shares"),
        ({"prompts.min_history": 99}, DataError, r"no prompt is left for reinforcement \(12 history_too_short\)"),
        ({"prompt": "plain"}, ConfigError, r"rollout.mode think needs prompt chat"),
        ({"rollout.sampling.temperature": 0.6}, ConfigError, r"temperature must be 1 where items are beams"),
        ({"format_subset": 1.5}, ConfigError, r"subset must be a whole number of rollouts"),
        ({"reward.terms": [{"name": "hits"}]}, ConfigError, r"'hits' is not known; did you mean hit"),
        ({"reward.terms": [{"name": "rl_worlds:nothing"}]}, ConfigError, r"nothing"),
        ({"training.attn_implementation": "flash_attention_2"}, ConfigError, r"must be sdpa or eager"),
        ({"loss.item_clip": [2, 0.1]}, ConfigError, r"loss.item_clip must be a fall from 0 to 1"),
        ({"model": "/nowhere"}, OnereasonError, r"/nowhere"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_written(
    changes: dict[str, Any], error: type[Exception], message: str, world: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        train(world, tmp_path / "run", **changes)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_finished_run_is_not_gone_over(world: Path, reinforced: Path) -> None:
    assert len(losses(reinforced)) == 4
    with pytest.raises(OnereasonError, match="this run is finished"):
        train(world, reinforced, **OWN)


# -- rewards that read a scorer or the log ----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def logged(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny world's dataset with seconds watched, and a scorer of its items."""
    root = tmp_path_factory.mktemp("logged")
    dataset = load_dataset(world / "data")
    rng = np.random.default_rng(0)
    watched = pl.Series("signal_watch_seconds", rng.uniform(1, 30, dataset.interactions.height), pl.Float32)
    lengths = pl.Series("signal_duration_seconds", np.full(dataset.interactions.height, 30.0), pl.Float32)
    save_dataset(Dataset(dataset.items, dataset.interactions.with_columns(watched, lengths)), root / "data")
    torch.manual_seed(0)
    items = load_model_folder(world / "model").catalog.item_ids  # type: ignore[union-attr]
    scorer = PScorer(PScoreNetwork(len(items), 1, PScoreNetworkConfig(hidden_size=8)), items, ("like",))
    save_p_scorer(scorer, root / "scorer", {"kind": "test"})
    return root


def test_rewards_may_read_a_scorer_and_the_log(world: Path, logged: Path, tmp_path: Path) -> None:
    terms = [{"name": "p_score"}, {"name": "duration_aware", "weight": 0.5}]
    changes = {"reward.terms": terms, "reward.combine": "sum", "data": logged / "data", "scorer": logged / "scorer"}
    for line in train(world, tmp_path / "run", **changes):
        assert 0 < line["reward/p_score"] < 1 and -1 <= line["reward/duration_aware"] <= 1
        assert line["reward/total"] == pytest.approx(line["reward/p_score"] + 0.5 * line["reward/duration_aware"])
        assert line["grad_norm"] > 0


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([{"name": "p_score"}], r"reward p_score needs a scorer: set scorer to a folder"),
        (
            [{"name": "p_score", "options": {"value": "other"}}],
            r"reads the value 'other', which recipes.rl does not make",
        ),
        ([{"name": "duration_aware"}], r"reads the signal 'watch_seconds', which .* does not log; it logs none"),
    ],
)
def test_what_a_reward_reads_must_be_there(
    terms: list[dict[str, Any]], message: str, world: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(world, tmp_path / "run", **{"reward.terms": terms})
    assert not (tmp_path / "run" / "config.json").exists()
