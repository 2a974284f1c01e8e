"""Losses against numbers by hand, the papers' formulas in loops, and TRL's own trainer."""

from __future__ import annotations

from dataclasses import replace
from math import e, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.config import build_config
from onereason.errors import ConfigError
from onereason.rl.losses import (
    LossConfig,
    aggregate,
    cispo_loss,
    clipped_loss,
    compute_loss,
    ecpo_loss,
    gbpo_loss,
    kl_estimate,
    log_one_minus_exp,
)
from onereason.rl.records import LossInputs
from tests.rl.loss_worlds import TRL_TYPES, TYPES, build_inputs, loss_and_gradient, make_row, plain_loss, trl_loss

EXACT = {"rtol": 1e-9, "atol": 1e-12}
RAGGED = ((True, True, True), (False, True, False), (True, False, True), (False, False, False))
BOUNDS = {"trace_clip": (0.3, 0.4), "item_clip": (0.1, 0.15), "cispo_max": (1.5, 1.2), "max_completion_length": 7}


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def by_hand(loss, probability: float, *rest) -> tuple[float, float]:
    """Loss of one token of that probability, and its derivative by the log-probability."""
    policy = doubles(probability).log().requires_grad_()
    value = loss(policy, *rest)
    return float(value.detach()), float(torch.autograd.grad(value.sum(), policy)[0])


# ---- one token, by hand


@pytest.mark.parametrize(
    ("ratio", "advantage", "max_ratio", "loss", "gradient"),
    [
        (1.5, 2.0, None, -2.56, 0.0),  # min(3, 1.28 * 2): held back
        (1.5, -2.0, None, 3.0, 3.0),  # min(-3, -2.56): free
        (0.5, 2.0, None, -1.0, -1.0),  # min(1, 1.6): free
        (0.5, -2.0, None, 1.6, 0.0),  # min(-1, 0.8 * -2): held back
        (1.2, 1.0, None, -1.2, -1.2),  # inside
        (0.9, -3.0, None, 2.7, 2.7),  # inside
        (5.0, -1.0, None, 5.0, 5.0),  # nothing bounds a ratio of a negative advantage ...
        (5.0, -1.0, 3.0, 3.0, 0.0),  # ... but an absolute bound
        (2.0, -1.0, 3.0, 2.0, 2.0),
        (5.0, 1.0, 3.0, -1.28, 0.0),
    ],
)
def test_clipped_loss_by_hand(ratio, advantage, max_ratio, loss, gradient):
    def of(policy):
        return clipped_loss((policy - log(0.1)).exp(), doubles(advantage), (doubles(0.2), doubles(0.28)), max_ratio)

    assert by_hand(of, 0.1 * ratio) == pytest.approx((loss, gradient), rel=1e-9)


def test_a_ratio_on_its_bound_keeps_its_whole_gradient():
    # As TRL's clamp does; on policy every ratio is 1, so bounds of 0 would else halve all gradients.
    none = (doubles(0.0), doubles(0.0))
    for advantage in (1.0, -1.0):
        value = by_hand(lambda p, a=advantage: clipped_loss((p - p.detach()).exp(), doubles(a), none), 0.3)
        assert value == (-advantage, -advantage)


def test_cispo_by_hand():
    # r = 0.6 / 0.1 = 6 is cut to 5 and held constant: -5 A log 0.6, with gradient -5 A.
    at = (doubles(0.1).log(), doubles(2.0), doubles(5.0))
    assert by_hand(cispo_loss, 0.6, *at) == pytest.approx((-10 * log(0.6), -10.0))
    assert by_hand(cispo_loss, 0.2, *at) == pytest.approx((-4 * log(0.2), -4.0))


@pytest.mark.parametrize(
    ("p", "old", "advantage", "loss", "gradient"),
    [
        (0.8, 0.2, -1.0, 1.5, 1.5),  # r = 4; pi'_old = 0.8 / 1.5, so the ratio is 1.5, and keeps its gradient
        (0.8, 0.2, 1.0, -1.25, 0.0),  # as GRPO
        (0.3, 0.25, -2.0, 2.4, 2.4),  # r = 1.2 is left alone
        (0.35, 0.25, -2.0, 2.8, 2.8),  # so is 1.4, beyond the clip but not beyond its delta
        (0.1, 0.25, -1.0, 0.8, 0.0),  # r = 0.4, clipped below
        (0.1, 0.25, 1.0, -0.4, -0.4),
    ],
)
def test_ecpo_by_hand(p, old, advantage, loss, gradient):
    at = (doubles(old).log(), doubles(advantage), (doubles(0.2), doubles(0.25)), 0.25)
    assert by_hand(ecpo_loss, p, *at) == pytest.approx((loss, gradient))


@pytest.mark.parametrize(
    ("p", "old", "advantage", "loss", "gradient"),
    [
        (0.6, 0.5, 2.0, -2.0, -2.0),  # pi'_old = max(0.5, 0.6): a ratio of 1
        (0.25, 0.5, 2.0, -1.0, -1.0),
        (0.8, 0.1, -1.0, 4.0, 4.0),  # pi'_old = max(0.1, 1 - 0.8): by pi that is 1 / (1 - pi), as of cross-entropy
        (0.2, 0.5, -1.0, 0.25, 0.25),  # pi'_old = max(0.5, 0.8)
        (0.6, 0.5, -1.0, 1.2, 1.2),  # pi'_old = max(0.5, 0.4)
        (0.6, 0.5, 0.0, 0.0, 0.0),
    ],
)
def test_gbpo_by_hand(p, old, advantage, loss, gradient):
    assert by_hand(gbpo_loss, p, doubles(old).log(), doubles(advantage)) == pytest.approx((loss, gradient))


def test_kl_estimate_and_the_logarithm_of_the_rest_by_hand():
    # exp(d) - d - 1: d = log(1/4 : 1/2) = -log 2, log 3, 0.
    policy, reference = doubles(0.5, 0.2, 0.3).log(), doubles(0.25, 0.6, 0.3).log()
    assert kl_estimate(policy, reference).tolist() == pytest.approx([0.5 + log(2) - 1, 3 - log(3) - 1, 0.0], abs=1e-12)
    found = log_one_minus_exp(torch.cat([doubles(0.5, 0.9, 0.01).log(), doubles(-1e-12, -1e4, 0.0, 1e-7)]))
    assert found[:5].tolist() == pytest.approx([log(0.5), log(0.1), log(0.99), log(1e-12), 0.0], rel=1e-9, abs=1e-300)
    assert found[5:].tolist() == [-np.inf, -np.inf]  # rounding may bring a log-probability above 0


# ---- a batch, by hand

TWO_ROWS = LossInputs(
    *(torch.zeros(2, 6),) * 3,
    trace_mask=torch.tensor([[1, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]]).bool(),
    item_mask=torch.tensor([[0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0]]).bool(),
    token_weights=torch.tensor([[1, 1, 0.5, 0.5, 0.5, 0.5], [0, 1, 1, 1, 0, 0]]),
    item_ids=torch.tensor([[-1, -1, 0, 0, 1, 1], [-1, -1, 0, 0, -1, -1]]),
    miss_weights=torch.ones(2, 6),
)
TOKEN_LOSSES = torch.tensor([[1.0, 2, 3, 4, 5, 6], [0, 7, 8, 9, 0, 0]])
"""The first row is 1 + 2 + (3 + 4 + 5 + 6) / 2 = 12 over 2 + 4 / 2 = 4 tokens, the second 24 over 3."""


@pytest.mark.parametrize(
    ("loss_type", "alone", "in_a_step"),
    [
        *[(name, (3 + 8) / 2, (3 + 8) / 5) for name in ("grpo", "gspo", "ecpo", "gbpo")],
        ("bnpo", 36 / 7, 36 / 7 * 2 / 5),
        ("dapo", 36 / 7, 36 / 20),
        ("cispo", 36 / 7, 36 / 20),
        ("dr_grpo", 36 / (2 * 10), 36 / (5 * 10)),
    ],
)
def test_tokens_are_aggregated_by_the_rule_of_the_type(loss_type, alone, in_a_step):
    config = LossConfig(type=loss_type, max_completion_length=10)
    assert float(aggregate(TOKEN_LOSSES, TWO_ROWS, config)) == pytest.approx(alone)
    step = replace(TWO_ROWS, num_rollout_tokens=20.0, num_rows=5.0)
    assert float(aggregate(TOKEN_LOSSES, step, config)) == pytest.approx(in_a_step)


def test_stages_are_clipped_by_bounds_of_their_own():
    # Trace up to 1.28 and item up to 1.15; from 0.8 and from 0.9.
    above = make_row([1.5, 1.2, 1.5, 1.2, 1.1], [1.0] * 5, 2)
    loss, gradient, metrics = loss_and_gradient(above, LossConfig())
    assert float(loss) == pytest.approx(-(1.28 + 1.2 + 1.15 + 1.15 + 1.1) / 5)
    assert (gradient * 5).tolist()[0] == pytest.approx([0, -1.2, 0, 0, -1.1])
    assert metrics["clip_ratio/trace_high"] == pytest.approx(1 / 2)
    assert metrics["clip_ratio/item_high"] == pytest.approx(2 / 3)
    assert metrics["clip_ratio/trace_low"] == metrics["clip_ratio/item_low"] == 0
    below = make_row([0.7, 0.85, 0.7, 0.85], [-1.0] * 4, 2)
    loss, gradient, metrics = loss_and_gradient(below, LossConfig())
    assert float(loss) == pytest.approx((0.8 + 0.85 + 0.9 + 0.9) / 4)
    assert (gradient * 4).tolist()[0] == pytest.approx([0, 0.85, 0, 0])
    assert (metrics["clip_ratio/trace_low"], metrics["clip_ratio/item_low"]) == (pytest.approx(0.5), 1.0)
    assert metrics["clip_ratio/trace_high"] == metrics["clip_ratio/item_high"] == 0


def test_misses_and_stages_weigh_what_they_are_told():
    # On policy with A = 1 every token's loss is -1: -(2 * 0.5 + 2 * 1 + 3 * 0.5) / 3. Their number does not change.
    row = make_row([1.0] * 3, [1.0] * 3, 2, miss_weights=torch.tensor([[0.5, 1.0, 0.5]], dtype=torch.float64))
    loss, gradient, _ = loss_and_gradient(row, LossConfig(trace_weight=2.0, item_weight=3.0))
    assert float(loss) == pytest.approx(-4.5 / 3)
    assert (gradient * 3).tolist()[0] == pytest.approx([-1.0, -2.0, -1.5])


def test_the_kl_term_is_added_to_every_token_whatever_it_weighs():
    # pi = 1/4, ref = 1/2 everywhere: exp(log 2) - log 2 - 1; its gradient by log pi is 1 - ref / pi = -1.
    row = make_row([1.0] * 2, [0.0] * 2, 1, ref_logprobs=doubles(0.5, 0.5).log()[None])
    row = replace(row, miss_weights=torch.zeros(1, 2, dtype=torch.float64))
    loss, gradient, metrics = loss_and_gradient(row, LossConfig(kl_beta=0.1))
    assert float(loss) == pytest.approx(0.1 * (1 - log(2)))
    assert gradient.tolist()[0] == pytest.approx([-0.05, -0.05])
    assert metrics["kl/reference"] == pytest.approx(1 - log(2))
    assert "kl/reference" not in loss_and_gradient(row, LossConfig())[2]


def test_a_kl_term_without_a_reference_is_not_passed_over():
    with pytest.raises(AssertionError, match="reference's log-probabilities"):
        compute_loss(make_row([1.0], [1.0], 0), LossConfig(kl_beta=0.1))


def test_gspo_by_hand():
    # Trace log r = 0.3; items 0.1 and -0.5: rollouts have exp(0.2) and exp(-0.1), bounds are 0.15 above and below.
    # Trace, A = 1: min(r, 1.15) of both, on average; items: A = 2 held back at 1.15, A = -1 free.
    row = replace(
        make_row([e**0.3, e**0.1, e**-0.5], [1.0, 2.0, -1.0], 1),
        item_ids=torch.tensor([[-1, 0, 1]]),
        token_weights=torch.tensor([[1.0, 0.5, 0.5]], dtype=torch.float64),
    )
    config = LossConfig(type="gspo", trace_clip=(0.15, 0.15), item_clip=(0.15, 0.15))
    loss, gradient, metrics = loss_and_gradient(row, config)
    free = e**-0.1
    assert float(loss) == pytest.approx((-(1.15 + free) / 2 - 2 * 1.15 / 2 + free / 2) / 2)
    # d exp(mean of two) is half of it for either token: the second rollout, as trace -r/2 and as item +r/2, cancels.
    assert gradient.tolist()[0] == pytest.approx([0, 0, 0], abs=1e-15)
    # Held back: half of the trace, the first item.
    assert (metrics["clip_ratio/trace_high"], metrics["clip_ratio/item_high"]) == (0.5, 0.5)


def test_metrics_by_hand():
    # Ratios 2 and 1/2 in the trace, 4 and 1 in two items of weight 1/2; r - 1 - log r.
    row = replace(
        make_row([2.0, 0.5, 4.0, 1.0], [1.0, -1.0, 1.0, 1.0], 2),
        item_ids=torch.tensor([[-1, -1, 0, 1]]),
        token_weights=torch.tensor([[1.0, 1.0, 0.5, 0.5]], dtype=torch.float64),
    )
    metrics = compute_loss(row, LossConfig()).metrics
    assert metrics == {
        "clip_ratio/trace_low": pytest.approx(0.5),
        "clip_ratio/trace_high": pytest.approx(0.5),
        "ratio/trace_mean": pytest.approx(1.25),
        "kl/rollout_trace": pytest.approx((1 - log(2) - 0.5 + log(2)) / 2),
        "clip_ratio/item_low": 0.0,
        "clip_ratio/item_high": pytest.approx(0.5),
        "ratio/item_mean": pytest.approx(2.5),
        "kl/rollout_item": pytest.approx((3 - log(4)) / 2),
    }
    items_alone = replace(row, trace_mask=torch.zeros_like(row.trace_mask))
    assert all("trace" not in name for name in compute_loss(items_alone, LossConfig()).metrics)
    unclipped = compute_loss(row, LossConfig(type="gbpo")).metrics
    assert all(unclipped[name] == 0 for name in unclipped if name.startswith("clip_ratio"))
    cut = compute_loss(row, LossConfig(type="cispo", cispo_max=(1.5, 5.0))).metrics
    assert (cut["clip_ratio/trace_high"], cut["clip_ratio/item_high"], cut["clip_ratio/trace_low"]) == (0.5, 0, 0)


# ---- against TRL, and against loops


CHANGES = {
    "stage-wise": {},
    "kl": {"kl_beta": 0.3},
    "max ratio": {"max_ratio": 1.6},
    "equal bounds": {"trace_clip": (0.2, 0.2), "item_clip": (0.2, 0.2), "cispo_max": (1.3, 1.3)},
    "no room": {"trace_clip": (0.0, 0.0), "item_clip": (0.0, 0.0)},
}


@pytest.mark.parametrize(
    ("loss_type", "changes"),
    [
        pytest.param(loss_type, changes, id=f"{loss_type}-{name}")
        for loss_type in TRL_TYPES
        for name, changes in CHANGES.items()
        if (loss_type, name) != ("cispo", "max ratio")
    ],
)
def test_loss_and_gradient_equal_trl(loss_type, changes):
    config = LossConfig(type=loss_type, **BOUNDS | changes)
    for seed in range(3):
        inputs = build_inputs(np.random.default_rng(seed))
        loss, gradient, metrics = loss_and_gradient(inputs, config)
        expected, expected_gradient, of_trl = trl_loss(inputs, config)
        torch.testing.assert_close(loss, expected, **EXACT)
        torch.testing.assert_close(gradient, expected_gradient, **EXACT)
        assert gradient.abs().sum() > 0
        if config.kl_beta:
            assert metrics["kl/reference"] == pytest.approx(of_trl["kl"])


@pytest.mark.parametrize("loss_type", TRL_TYPES)
def test_on_policy_loss_and_gradient_equal_trl(loss_type):
    inputs = build_inputs(np.random.default_rng(5), spread=0.0)
    config = LossConfig(type=loss_type, trace_clip=(0.0, 0.0), item_clip=(0.0, 0.0))
    for found, expected in zip(loss_and_gradient(inputs, config)[:2], trl_loss(inputs, config)[:2], strict=True):
        torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("loss_type", TRL_TYPES)
def test_clip_ratios_equal_trl(loss_type):
    # Of rollouts of one length, of whose tokens 4 are a trace's and 2 an item's.
    inputs = build_inputs(np.random.default_rng(2), trace_lengths=(4, 4, 4, 4), spread=0.8)
    config = LossConfig(type=loss_type, **BOUNDS | {"trace_clip": (0.1, 0.1), "item_clip": (0.05, 0.05)})
    metrics, of_trl = compute_loss(inputs, config).metrics, trl_loss(inputs, config)[2]
    low, high = (
        (4 * metrics[f"clip_ratio/trace_{side}"] + 2 * metrics[f"clip_ratio/item_{side}"]) / 6
        for side in ("low", "high")
    )
    if loss_type == "cispo":
        assert (low, high) == (0, pytest.approx(of_trl["cispo_clip_ratio"]))
        return
    assert low == pytest.approx(of_trl["clip_ratio/low_mean"])
    assert high == pytest.approx(of_trl["clip_ratio/high_mean"])
    assert low > 0 and high > 0


@pytest.mark.parametrize("loss_type", TYPES)
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    num_items=st.integers(1, 3),
    data=st.data(),
)
def test_a_row_counts_what_its_rollouts_would(loss_type, seed, lengths, num_items, data):
    valid = data.draw(
        st.lists(
            st.lists(st.booleans(), min_size=num_items, max_size=num_items),
            min_size=len(lengths),
            max_size=len(lengths),
        )
    )
    inputs = build_inputs(np.random.default_rng(seed), lengths, valid, spread=0.5, beta=0.3)
    second_bound = {"max_ratio": 1.5} if loss_type in ("grpo", "gspo") else {}
    config = LossConfig(
        type=loss_type, kl_beta=0.2, trace_weight=0.7, item_weight=1.4, ecpo_delta=0.2, **BOUNDS | second_bound
    )
    loss, gradient, _ = loss_and_gradient(inputs, config)
    expected, expected_gradient = plain_loss(inputs, config)
    torch.testing.assert_close(loss, expected, **EXACT)
    torch.testing.assert_close(gradient, expected_gradient, **EXACT)


@pytest.mark.parametrize("loss_type", TYPES)
def test_far_off_policy_and_ragged_rows_follow_the_formulas(loss_type):
    inputs = build_inputs(np.random.default_rng(3), valid=RAGGED, spread=2.0)
    config = LossConfig(type=loss_type, **BOUNDS)
    loss, gradient, _ = loss_and_gradient(inputs, config)
    expected, expected_gradient = plain_loss(inputs, config)
    torch.testing.assert_close(loss, expected, **EXACT)
    torch.testing.assert_close(gradient, expected_gradient, **EXACT)


# ---- an optimizer step in parts


@pytest.mark.parametrize("loss_type", TYPES)
@pytest.mark.parametrize("sizes", [(2, 2), (1, 1, 1, 1), (3, 1)])
def test_micro_steps_add_up_to_the_step(loss_type, sizes):
    inputs = build_inputs(np.random.default_rng(2), valid=RAGGED, beta=0.4)
    config = LossConfig(type=loss_type, kl_beta=0.1, **BOUNDS)
    whole, whole_gradient, _ = loss_and_gradient(inputs, config)
    parts = []
    for start, size in zip(np.cumsum((0, *sizes)), sizes, strict=False):
        rows = {n: v[start : start + size] for n, v in vars(inputs).items() if isinstance(v, torch.Tensor)}
        step = {"num_rollout_tokens": float(inputs.token_weights.sum()), "num_rows": 4.0}
        parts.append((LossInputs(**rows, **step), size, float(rows["token_weights"].sum())))
    found = [loss_and_gradient(part, config) for part, _, _ in parts]
    losses = torch.stack([loss for loss, _, _ in found])
    gradient = torch.cat([gradient for _, gradient, _ in found])
    if loss_type == "bnpo":  # a mean over tokens of each part: what a part has of tokens does not count
        scale = torch.cat(
            [
                torch.full((size, 1), float(inputs.token_weights.sum()) / tokens * size / 4, dtype=torch.float64)
                for _, size, tokens in parts
            ]
        )
        torch.testing.assert_close(gradient, whole_gradient * scale, **EXACT)
    else:
        torch.testing.assert_close(losses.sum(), whole, **EXACT)
        torch.testing.assert_close(gradient, whole_gradient, **EXACT)


# ---- what must not poison a model


@pytest.mark.parametrize("loss_type", TYPES)
@pytest.mark.parametrize("filler", [float("nan"), float("inf"), -float("inf"), 0.0, -1e4])
def test_unscored_columns_may_hold_anything(loss_type, filler):
    inputs = build_inputs(np.random.default_rng(4), valid=RAGGED)
    scored = inputs.trace_mask | inputs.item_mask
    config = LossConfig(type=loss_type, kl_beta=0.1, **BOUNDS)
    clean = loss_and_gradient(inputs, config)
    each = ("policy_logprobs", "rollout_logprobs", "ref_logprobs", "advantages", "miss_weights")
    for names in (*((name,) for name in each), each):
        filled = {name: getattr(inputs, name).masked_fill(~scored, filler) for name in names}
        found = loss_and_gradient(replace(inputs, **filled), config)
        assert torch.equal(found[0], clean[0])
        assert torch.equal(found[1], clean[1]) and (found[1][~scored] == 0).all()
        assert found[2] == clean[2]


EXTREMES = [0.0, 1e-6, -1e-9, -1e-4, -1.0, -20.0, -89.0, -200.0, -1e4]
"""Log-probabilities: certain, above 0 by rounding, unlikely, far below what float32 holds as a probability."""


@pytest.mark.parametrize("loss_type", TYPES)
@pytest.mark.parametrize("advantage", [1.5, -1.5, 0.0])
def test_extreme_log_probabilities_leave_loss_and_gradient_finite(loss_type, advantage):
    policy, rollout, reference = (x.reshape(1, -1) for x in torch.meshgrid(*[torch.tensor(EXTREMES)] * 3))
    size = policy.shape[1]
    trace_mask = torch.arange(size)[None] % 2 == 0
    inputs = LossInputs(
        policy, rollout, torch.full((1, size), advantage), trace_mask, ~trace_mask, torch.ones(1, size),
        torch.where(trace_mask, -1, 0), torch.ones(1, size), reference,
    )  # fmt: skip
    loss, gradient, metrics = loss_and_gradient(inputs, LossConfig(type=loss_type, kl_beta=0.1))
    assert loss.dtype == torch.float32
    assert loss.isfinite() and gradient.isfinite().all() and np.isfinite(list(metrics.values())).all()


@pytest.mark.parametrize("loss_type", TYPES)
def test_a_certain_wrong_token_leaves_the_logits_gradient_finite(loss_type):
    # The policy has become certain of what it once drew as next to impossible: 1 - pi is 0 in float32.
    logits = torch.tensor([[[200.0, 0.0, -200.0]] * 2], requires_grad=True)
    policy = logits.log_softmax(-1)[..., 0]
    assert (policy == 0).all()
    row = make_row([1.0, 1.0], [-1.0, -1.0], 1)
    inputs = replace(row, policy_logprobs=policy, rollout_logprobs=torch.full((1, 2), -300.0))
    out = compute_loss(inputs, LossConfig(type=loss_type))
    out.loss.backward()
    assert out.loss.isfinite() and logits.grad.isfinite().all()


def test_the_gradient_of_a_negative_sample_is_bounded_as_of_cross_entropy():
    # By the logit of a token of two: pi / (1 - pi) * (1 - pi) = pi, that of -log(1 - pi); GRPO's would be ~ 1 / pi_old.
    logit = doubles(4.0).requires_grad_()
    policy = torch.nn.functional.logsigmoid(logit)
    loss = gbpo_loss(policy, doubles(1e-6).log(), doubles(-1.0))
    entropy = -torch.nn.functional.logsigmoid(-logit)
    found, expected = (torch.autograd.grad(x, logit)[0] for x in (loss, entropy))
    torch.testing.assert_close(found, expected, **EXACT)


def test_ratios_are_held_at_e_to_the_20():
    row = replace(
        make_row([1.0], [-1.0], 0), rollout_logprobs=doubles(-30.0)[None], policy_logprobs=doubles(-1.0)[None]
    )
    loss, gradient, metrics = loss_and_gradient(row, LossConfig())
    assert float(loss) == pytest.approx(e**20) and float(gradient) == 0
    assert metrics["ratio/item_mean"] == pytest.approx(e**20)
    near = replace(row, rollout_logprobs=doubles(-20.5)[None])
    assert float(loss_and_gradient(near, LossConfig())[1]) == pytest.approx(e**19.5)


def test_a_batch_without_a_scored_token_is_0():
    empty = build_inputs(np.random.default_rng(0), (0, 0), ((False, False),) * 2)
    for loss_type in TYPES:
        loss, gradient, metrics = loss_and_gradient(empty, LossConfig(type=loss_type))
        assert loss == 0 and (gradient == 0).all() and metrics == {}


# ---- configuration


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"trace_clip": [-0.1, 0.2]},
            r"loss.trace_clip must be a fall from 0 to 1 and a rise from 0, got \[-0.1, 0.2\]",
        ),
        ({"item_clip": [1.1, 0.2]}, "loss.item_clip must be a fall"),
        ({"item_clip": [0.1, -0.2]}, "loss.item_clip must be a fall"),
        ({"trace_clip": [float("nan"), 0.2]}, "loss.trace_clip must be a fall"),
        ({"trace_clip": [0.2]}, "trace_clip"),
        ({"type": "ppo"}, "type"),
        ({"ecpo_delta": 0.0}, "loss.ecpo_delta must be above 0, got 0.0"),
        ({"miss_weight": -1.0}, "loss.miss_weight must be at least 0, got -1.0"),
        ({"trace_weight": -1.0}, "loss.trace_weight must be at least 0"),
        ({"item_weight": -1.0}, "loss.item_weight must be at least 0"),
        ({"kl_beta": float("nan")}, "loss.kl_beta must be at least 0, got nan"),
        ({"cispo_max": [5.0, 0.0]}, "loss.cispo_max"),
        ({"cispo_max": [5.0, float("nan")]}, "loss.cispo_max"),
        ({"max_completion_length": 0}, "loss.max_completion_length"),
        ({"max_ratio": 1.28}, "loss.max_ratio must lie above both clips' upper bounds, got 1.28"),
        ({"max_ratio": 3.0, "type": "gbpo"}, r"loss.max_ratio \(3.0\) does nothing with loss.type=gbpo"),
        ({"max_ratio": 3.0, "type": "cispo"}, "does nothing with loss.type=cispo"),
        ({"max_ratio": 3.0, "type": "ecpo"}, "does nothing with loss.type=ecpo"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        build_config(LossConfig, values)


def test_bounds_at_their_ends_are_taken():
    config = build_config(LossConfig, {"trace_clip": [1.0, 0.0], "item_clip": [0.0, 0.0], "max_ratio": 1.01})
    assert config.max_ratio == 1.01
