"""Losses against TRL's own trainer, plain loops over single rollouts, and the formulas of the papers."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from onereason.errors import ConfigError
from onereason.rl.losses import (
    LossConfig,
    compute_loss,
    kl_estimate,
    log_one_minus_exp,
)
from onereason.rl.records import LossInputs
from tests.rl.loss_worlds import Copies, expand, make_inputs, select

EQUAL = {"trace_clip": (0.2, 0.28), "item_clip": (0.2, 0.28)}


def gradient(loss: torch.Tensor, inputs: LossInputs) -> torch.Tensor:
    return torch.autograd.grad(loss, inputs.policy_logprobs, retain_graph=True)[0]


def run_trl(copies: Copies, loss_type: str, **settings: Any) -> torch.Tensor:
    """TRL's `_compute_loss` on plain rollouts."""
    pytest.importorskip("trl")
    from trl import GRPOTrainer

    identity = SimpleNamespace(gather=lambda x: x, reduce=lambda x, reduction: x, num_processes=1, sync_gradients=True)
    defaults: dict[str, Any] = {
        "importance_sampling_level": "token",
        "epsilon_low": 0.2,
        "epsilon_high": 0.28,
        "beta": 0.0,
        "max_completion_length": 11,
    }
    arguments = SimpleNamespace(delta=settings.pop("delta", None), steps_per_generation=1, use_bias_correction_kl=False)
    stub = SimpleNamespace(
        **(defaults | settings),
        args=arguments,
        loss_type=loss_type,
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        accelerator=identity,
        model=SimpleNamespace(training=True),
        _get_per_token_logps_and_entropies=lambda *a, **k: (copies.policy, torch.zeros_like(copies.policy), None),
    )
    empty = torch.zeros(len(copies.mask), 0, dtype=torch.long)
    batch = {
        "prompt_ids": empty,
        "prompt_mask": empty,
        "completion_ids": torch.zeros_like(copies.mask, dtype=torch.long),
        "completion_mask": copies.mask,
        "advantages": copies.advantages,
        "old_per_token_logps": copies.rollout,
        "ref_per_token_logps": copies.reference,
        "num_items_in_batch": copies.mask.sum(),
    }
    return GRPOTrainer._compute_loss(stub, None, batch)


@pytest.mark.parametrize(
    ("ours", "loss_type", "settings"),
    [
        ({"type": "grpo"}, "grpo", {}),
        ({"type": "bnpo"}, "bnpo", {}),
        ({"type": "dapo"}, "dapo", {}),
        ({"type": "dr_grpo", "max_completion_length": 11}, "dr_grpo", {}),
        ({"type": "gspo"}, "grpo", {"importance_sampling_level": "sequence"}),
        ({"type": "cispo", "cispo_max": (1.1, 1.1)}, "cispo", {"epsilon_high": 1.1}),
        ({"type": "grpo", "kl_beta": 0.2}, "grpo", {"beta": 0.2}),
        ({"type": "dapo", "kl_beta": 0.2}, "dapo", {"beta": 0.2}),
        ({"type": "grpo", "max_ratio": 1.5}, "grpo", {"delta": 1.5}),
        ({"type": "gspo", "max_ratio": 1.5}, "grpo", {"importance_sampling_level": "sequence", "delta": 1.5}),
    ],
)
@pytest.mark.parametrize("lengths", [(4, 2, 5), (0, 0, 0)])
def test_loss_and_gradient_equal_trl_over_single_rollouts(
    ours: dict[str, Any], loss_type: str, settings: dict[str, Any], lengths: tuple[int, ...]
) -> None:
    # TRL weighs all rollouts alike, so every row has as many items, and misses count as hits do.
    inputs = make_inputs(lengths, (3, 3, 3))
    inputs = replace(inputs, miss_weights=torch.ones_like(inputs.miss_weights))
    found = compute_loss(inputs, LossConfig(**EQUAL, **ours)).loss
    expected = run_trl(expand(inputs), loss_type, **settings)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, inputs), gradient(expected, inputs))


# -- the rest against plain loops -----------------------------------------------------------------------------------


def token_loss(config: LossConfig, copies: Copies, at: tuple[int, int]) -> torch.Tensor:
    """One token's loss, from its formula."""
    stage = "trace" if copies.of_trace[at] else "item"
    low, high = getattr(config, f"{stage}_clip")
    policy, old, advantage = copies.policy[at], copies.rollout[at], copies.advantages[at]
    probability, before = policy.exp(), old.exp()
    frozen = float(probability)
    if config.type == "ecpo":  # pi'_old = max(sg(pi) / (1 + high + delta), pi_old)
        before = torch.tensor(max(frozen / (1 + high + config.ecpo_delta), float(before)))
    if config.type == "gbpo":  # pi'_old = max(pi_old, sg(pi)), or max(pi_old, 1 - sg(pi)) for negative advantages
        before = torch.tensor(max(float(before), frozen if float(advantage) >= 0 else 1 - frozen))
        return -advantage * probability / before
    ratio = probability / before
    clipped = ratio.clamp(1 - low, 1 + high)
    return -torch.min(ratio * advantage, clipped * advantage)


def loop_loss(config: LossConfig, copies: Copies) -> torch.Tensor:
    """The mean over a rollout's tokens, then over a row's rollouts, then over rows."""
    rows = []
    for row in range(int(copies.rows.max()) + 1):
        rollouts = []
        for index in (copies.rows == row).nonzero()[:, 0].tolist():
            terms = []
            for column in copies.mask[index].nonzero()[:, 0].tolist():
                at = (index, column)
                weight = config.trace_weight if copies.of_trace[at] else config.item_weight
                terms.append(token_loss(config, copies, at) * copies.miss_weights[at] * weight)
            rollouts.append(torch.stack(terms).mean())
        rows.append(torch.stack(rollouts).mean())
    return torch.stack(rows).mean()


@pytest.mark.parametrize("type", ["grpo", "ecpo", "gbpo"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"trace_clip": (0.2, 0.28), "item_clip": (0.05, 0.02)},
        {"trace_weight": 0.5, "item_weight": 2.0},
        {"ecpo_delta": 0.5},
    ],
)
def test_loss_and_gradient_equal_a_loop_over_tokens(type: str, changes: dict[str, Any]) -> None:
    inputs = make_inputs((4, 2, 0), (3, 1, 2), drift=0.6)
    inputs = replace(inputs, policy_logprobs=inputs.policy_logprobs.detach().clamp(max=-1e-3).requires_grad_())
    config = LossConfig(type=type, **changes)  # type: ignore[arg-type]
    found, expected = compute_loss(inputs, config).loss, loop_loss(config, expand(inputs))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, inputs), gradient(expected, inputs))


def single(policy: float, rollout: float, advantage: float, item: bool = False) -> LossInputs:
    """One token."""
    one = torch.ones(1, 1, dtype=torch.bool)
    return LossInputs(
        policy_logprobs=torch.tensor([[policy]], dtype=torch.float64, requires_grad=True),
        rollout_logprobs=torch.tensor([[rollout]], dtype=torch.float64),
        advantages=torch.tensor([[advantage]], dtype=torch.float64),
        trace_mask=one & (not item),
        item_mask=one & item,
        token_weights=torch.ones(1, 1, dtype=torch.float64),
        item_ids=torch.tensor([[0 if item else -1]]),
        miss_weights=torch.ones(1, 1, dtype=torch.float64),
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "item", "loss", "slope"),
    [
        # trace: bounds .8 and 1.28
        (1.0, 2.0, False, -2.0, -2.0),
        (1.2, 2.0, False, -2.4, -2.4),
        (1.5, 2.0, False, -2.56, 0.0),
        (0.5, 2.0, False, -1.0, -1.0),
        (0.5, -2.0, False, 1.6, 0.0),
        (1.5, -2.0, False, 3.0, 3.0),
        # item: bounds .9 and 1.15
        (1.2, 2.0, True, -2.3, 0.0),
        (1.1, 2.0, True, -2.2, -2.2),
        (0.85, -2.0, True, 1.8, 0.0),
    ],
)
def test_each_stage_is_clipped_by_its_own_bounds(
    ratio: float, advantage: float, item: bool, loss: float, slope: float
) -> None:
    inputs = single(-1.0 + math.log(ratio), -1.0, advantage, item)
    found = compute_loss(inputs, LossConfig()).loss
    assert float(found) == pytest.approx(loss)
    assert float(gradient(found, inputs)) == pytest.approx(slope)  # d(-A r) / d log pi = -A r


def test_ecpo_bounds_the_ratio_and_gbpo_the_gradient_of_negative_samples() -> None:
    far = single(math.log(0.9), math.log(0.01), -1.0)  # ratio 90
    plain = compute_loss(far, LossConfig()).loss
    assert float(gradient(plain, far)) == pytest.approx(90)
    ecpo = compute_loss(far, LossConfig(type="ecpo", ecpo_delta=0.1)).loss
    assert float(gradient(ecpo, far)) == pytest.approx(1.28 + 0.1)
    gbpo = compute_loss(far, LossConfig(type="gbpo")).loss
    # pi / max(pi_old, 1 - pi) = .9 / .1: in the logit, times (1 - pi), it is the .9 of binary cross-entropy
    assert float(gradient(gbpo, far)) == pytest.approx(9)
    assert float(gradient(gbpo, far)) * (1 - 0.9) == pytest.approx(0.9)


def test_weights_of_misses_scale_their_tokens() -> None:
    inputs = make_inputs()
    whole = gradient(
        compute_loss(replace(inputs, miss_weights=torch.ones_like(inputs.miss_weights)), LossConfig()).loss, inputs
    )
    weighed = gradient(compute_loss(inputs, LossConfig()).loss, inputs)
    torch.testing.assert_close(weighed, whole * inputs.miss_weights)
    assert (inputs.miss_weights < 1).any()


def test_the_divergence_estimate_by_hand() -> None:
    policy, reference = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    assert float(kl_estimate(policy, reference)) == pytest.approx(0.5 - math.log(0.5) - 1)
    assert float(kl_estimate(policy, policy)) == 0
    inputs = replace(single(math.log(0.5), math.log(0.5), 0.0), ref_logprobs=torch.tensor([[math.log(0.25)]]).double())
    outputs = compute_loss(inputs, LossConfig(kl_beta=0.3))
    assert float(outputs.loss) == pytest.approx(0.3 * (0.5 - math.log(0.5) - 1))
    assert outputs.metrics["kl/reference"] == pytest.approx(0.5 - math.log(0.5) - 1)


@pytest.mark.parametrize("type", ["grpo", "dapo", "dr_grpo", "gspo", "cispo", "ecpo", "gbpo"])
def test_micro_steps_add_up_to_one_step(type: str) -> None:
    inputs = make_inputs((4, 2, 0, 3), (3, 1, 2, 2))
    inputs = replace(inputs, policy_logprobs=inputs.policy_logprobs.detach().clamp(max=-1e-3).requires_grad_())
    config = LossConfig(type=type, kl_beta=0.1)  # type: ignore[arg-type]
    whole = compute_loss(inputs, config).loss
    tokens, rows = float(inputs.token_weights.sum()), 4.0
    parts = [
        compute_loss(select(inputs, part, num_rollout_tokens=tokens, num_rows=rows), config).loss
        for part in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(gradient(sum(parts), inputs), gradient(whole, inputs))  # type: ignore[arg-type]


@pytest.mark.parametrize("type", ["grpo", "bnpo", "dapo", "dr_grpo", "gspo", "cispo", "ecpo", "gbpo"])
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -float("inf"), 0.0, 800.0])
def test_what_is_not_scored_never_reaches_loss_or_gradient(type: str, garbage: float) -> None:
    clean = make_inputs()
    scored = clean.trace_mask | clean.item_mask
    clean = replace(clean, policy_logprobs=clean.policy_logprobs.detach().clamp(max=-1e-3).requires_grad_())
    config = LossConfig(type=type, kl_beta=0.1)  # type: ignore[arg-type]
    expected = compute_loss(clean, config)
    names = ("policy_logprobs", "rollout_logprobs", "ref_logprobs", "advantages", "miss_weights")
    dirty = replace(clean, **{n: getattr(clean, n).detach().masked_fill(~scored, garbage) for n in names})
    dirty.policy_logprobs.requires_grad_()
    found = compute_loss(dirty, config)
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(gradient(found.loss, dirty), gradient(expected.loss, clean))
    assert found.metrics == pytest.approx(expected.metrics)


@pytest.mark.parametrize("type", ["grpo", "gspo", "cispo", "ecpo", "gbpo"])
@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("policy", [0.0, -1e-12, -60.0])
def test_certain_and_impossible_tokens_have_finite_gradients(type: str, advantage: float, policy: float) -> None:
    inputs = single(policy, policy, advantage, item=True)
    found = compute_loss(inputs, LossConfig(type=type)).loss  # type: ignore[arg-type]
    assert torch.isfinite(found) and torch.isfinite(gradient(found, inputs)).all()


def test_rows_without_tokens_add_nothing() -> None:
    inputs = make_inputs((0, 3), (2, 2))
    empty = replace(
        inputs,
        item_mask=inputs.item_mask & torch.tensor([[False], [True]]),
        item_ids=torch.where(torch.tensor([[False], [True]]), inputs.item_ids, -1),
        token_weights=inputs.token_weights * torch.tensor([[0.0], [1.0]]),
    )
    alone = select(inputs, slice(1, 2), num_rows=2.0)
    torch.testing.assert_close(compute_loss(empty, LossConfig()).loss, compute_loss(alone, LossConfig()).loss)


def test_metrics_by_hand() -> None:
    inputs = make_inputs((4, 2, 5), (3, 3, 3), drift=0.5)
    metrics = compute_loss(inputs, LossConfig()).metrics
    for stage, mask, (low, high) in (
        ("trace", inputs.trace_mask, (0.2, 0.28)),
        ("item", inputs.item_mask, (0.1, 0.15)),
    ):
        ratio = (inputs.policy_logprobs - inputs.rollout_logprobs).detach().exp()[mask]
        advantages, weights = inputs.advantages[mask], inputs.token_weights[mask]
        total = weights.sum()
        expected = {
            f"clip_ratio/{stage}_low": weights[(ratio < 1 - low) & (advantages < 0)].sum() / total,
            f"clip_ratio/{stage}_high": weights[(ratio > 1 + high) & (advantages > 0)].sum() / total,
            f"ratio/{stage}_mean": (ratio * weights).sum() / total,
            f"kl/rollout_{stage}": ((ratio - 1 - ratio.log()) * weights).sum() / total,
        }
        assert {name: metrics[name] for name in expected} == pytest.approx({k: float(v) for k, v in expected.items()})
    assert not any("trace" in name for name in compute_loss(make_inputs((0, 0), (2, 2)), LossConfig()).metrics)


def test_log_one_minus_exp_is_exact_at_both_ends() -> None:
    values = torch.tensor([-1e-300, -1e-12, -0.1, -math.log(2), -5.0, -700.0], dtype=torch.float64)
    expected = [math.log(-math.expm1(v)) if v > -0.69 else math.log1p(-math.exp(v)) for v in values.tolist()]
    torch.testing.assert_close(log_one_minus_exp(values), torch.tensor(expected, dtype=torch.float64))
    assert log_one_minus_exp(torch.zeros(1)).item() == -math.inf


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trace_clip": (1.5, 0.2)}, "loss.trace_clip must be a fall from 0 to 1"),
        ({"item_clip": (0.1, -0.2)}, "loss.item_clip must be a fall from 0 to 1"),
        ({"miss_weight": -1.0}, "loss.miss_weight must be at least 0"),
        ({"kl_beta": float("nan")}, "loss.kl_beta must be at least 0"),
        ({"cispo_max": (0.0, 1.0)}, "must be above 0"),
        ({"max_ratio": 1.1}, "loss.max_ratio must lie above both"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LossConfig(**changes)
