"""Advantages against Eq. 7 by hand, plain loops, and TRL's own normalisation."""

from __future__ import annotations

import statistics
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.config import build_config
from onereason.errors import ConfigError
from onereason.rl.advantages import AdvantageConfig, compute_advantages
from tests.rl.loss_worlds import trl_advantages

REWARDS = np.array([[[1.0, 0.0], [0.0, 0.0]]])
"""One group of two traces with two items: mean 1/4, unbiased deviation sqrt((9 + 1 + 1 + 1) / 16 / 3) = 1/2."""

LIKE_TRL = {"rtol": 1e-6, "atol": 1e-7}
"""TRL corrects its deviation for the mean in float32."""


def compute(rewards, valid=None, thinks=True, kept=None, guided=None, **config):
    rewards = np.asarray(rewards, float)
    valid = np.ones(rewards.shape, bool) if valid is None else np.asarray(valid, bool)
    thinks = np.broadcast_to(thinks, len(rewards))
    guided = None if guided is None else np.asarray(guided, bool)
    kept = None if kept is None else np.asarray(kept, bool)
    return compute_advantages(rewards, valid, thinks, AdvantageConfig(**config), kept, guided)


def test_equation_7_by_hand():
    # Items: (R - 1/4) / (1/2 + delta). Traces are worth 1/2 and 0: mean 1/4, deviation sqrt(1/8).
    found = compute(REWARDS, delta=0.5)
    np.testing.assert_allclose(found.item, [[[0.75, -0.25], [-0.25, -0.25]]], rtol=1e-12)
    size = 0.25 / (sqrt(1 / 8) + 0.5)
    np.testing.assert_allclose(found.trace, [[size, -size]], rtol=1e-12)
    assert found.skipped == {}


def test_the_configuration_left_out_is_the_one_documented():
    whole = np.ones(REWARDS.shape, bool)
    found = compute_advantages(REWARDS, whole, np.array([True]))
    size = 0.25 / (sqrt(1 / 8) + 1e-4)
    np.testing.assert_allclose(found.trace, [[size, -size]], rtol=1e-12)
    np.testing.assert_allclose(found.item[0, 0, 0], 0.75 / (0.5 + 1e-4), rtol=1e-12)


def test_shared_credit_gives_a_trace_the_mean_of_its_items():
    found = compute(REWARDS, credit="shared", delta=0.0)
    np.testing.assert_allclose(found.item, [[[1.5, -0.5], [-0.5, -0.5]]], rtol=1e-12)
    np.testing.assert_allclose(found.trace, [[0.5, -0.5]], rtol=1e-12)


def test_items_judged_under_their_own_trace():
    # (1, 0): mean 1/2, deviation sqrt(1/2). (0, 0) says nothing. A group without traces is one search: its own mean.
    rewards = np.concatenate([REWARDS, REWARDS])
    found = compute(rewards, thinks=[True, False], item_baseline="trace", delta=0.0)
    np.testing.assert_allclose(found.item[0], [[sqrt(0.5), -sqrt(0.5)], [0, 0]], rtol=1e-12)
    np.testing.assert_allclose(found.item[1], [[1.5, -0.5], [-0.5, -0.5]], rtol=1e-12)
    np.testing.assert_allclose(found.trace, [[sqrt(0.5), -sqrt(0.5)]] * 2, rtol=1e-12)


def test_what_advantages_are_divided_by():
    # Of the batch 1 0 0 0 | 4 0 0 0: mean 5/8, squares 17 - 8 * 25/64 = 13.875 over 7. Traces 1/2 0 | 2 0.
    rewards = np.concatenate([REWARDS, 4 * REWARDS])
    bare = compute(rewards, scale="none")
    np.testing.assert_allclose(bare.item[:, 0, 0], [0.75, 3.0], rtol=1e-12)
    np.testing.assert_allclose(bare.trace[:, 0], [0.25, 1.0], rtol=1e-12)
    batch = compute(rewards, scale="batch", delta=0.1)
    np.testing.assert_allclose(batch.item, bare.item / (sqrt(13.875 / 7) + 0.1), rtol=1e-12)
    deviation = statistics.stdev([0.5, 0, 2, 0])
    np.testing.assert_allclose(batch.trace, bare.trace / (deviation + 0.1), rtol=1e-12)
    group = compute(rewards, scale="group", delta=0.0)
    np.testing.assert_allclose(group.item[0], group.item[1], rtol=1e-12)


def test_items_that_do_not_exist_count_nowhere():
    # Trace 1 has one item of 1, trace 2 two of 0: items 1 0 0, traces 1 0. What stands in the gap is not read.
    for gap in (np.nan, np.inf, -7.0):
        rewards = [[[1.0, gap], [0.0, 0.0]]]
        found = compute(rewards, [[[True, False], [True, True]]], delta=0.0)
        deviation = sqrt(1 / 3)
        np.testing.assert_allclose(found.item, [[[2 / 3 / deviation, 0], [-1 / 3 / deviation] * 2]], rtol=1e-12)
        np.testing.assert_allclose(found.trace, [[sqrt(0.5), -sqrt(0.5)]], rtol=1e-12)
    # A trace without an item is judged by nothing, and nothing is judged by it.
    found = compute([[[1.0], [0.0], [9.0]]], [[[True], [True], [False]]], scale="none")
    assert found.trace.tolist() == [[0.5, -0.5, 0.0]]
    assert found.item.tolist() == [[[0.5], [-0.5], [0.0]]]
    # Nor is a group without one, which has no rewards to be equal.
    empty = compute([[[1.0], [0.0]]], [[[False], [False]]])
    assert not empty.trace.any() and not empty.item.any() and empty.skipped == {}


def test_a_trace_does_not_answer_for_what_was_put_under_it():
    # The guide (reward 1) is judged among the items, but trace 1 is worth its own item, 0; trace 2 is worth 1/2.
    rewards, guided = [[[0.0, 1.0], [1.0, 0.0]]], [[[False, True], [False, False]]]
    found = compute(rewards, guided=guided, scale="none")
    assert found.item.tolist() == [[[-0.5, 0.5], [0.5, -0.5]]]
    assert found.trace.tolist() == [[-0.25, 0.25]]
    shared = compute(rewards, guided=guided, scale="none", credit="shared")
    assert shared.trace.tolist() == [[-0.5, 0.0]]
    # A trace with nothing of its own answers for nothing.
    alone = compute([[[1.0], [0.0], [2.0]]], guided=[[[True], [False], [False]]], scale="none")
    assert alone.trace.tolist() == [[0.0, -1.0, 1.0]]
    assert compute([[[1.0], [0.0]]], guided=[[[True], [False]]], credit="shared").trace[0, 0] == 0


def test_groups_that_were_not_kept_are_0_and_counted_once():
    rewards = np.concatenate([REWARDS, np.nan * REWARDS, np.ones((1, 2, 2))])
    found = compute(rewards, kept=[True, False, False], scale="batch")
    alone = compute(REWARDS, scale="batch")
    assert np.array_equal(found.item[:1], alone.item) and np.array_equal(found.trace[:1], alone.trace)
    assert not found.item[1:].any() and not found.trace[1:].any()
    assert found.skipped == {"not_kept": 2}


def test_equal_rewards_are_0_and_counted():
    # 0.1 thrice is not 3 * 0.1 in binary: the mean is off by rounding, and delta is 0.
    rewards = np.concatenate([np.full((1, 2, 3), 0.1), [[[0.1, 0.1, 0.3], [0.1, 0.1, 0.1]]], np.zeros((1, 2, 3))])
    for config in ({}, {"credit": "shared"}, {"item_baseline": "trace"}, {"scale": "batch"}, {"scale": "none"}):
        found = compute(rewards, delta=0.0, **config)
        assert not found.item[[0, 2]].any() and not found.trace[[0, 2]].any()
        assert found.item[1].any() and found.trace[1].any()
        assert found.skipped == {"equal_rewards": 2}
    only_valid = compute([[[1.0, 5.0], [1.0, 1.0]]], [[[True, False], [True, True]]])
    assert only_valid.skipped == {"equal_rewards": 1}


def test_rounding_is_no_difference():
    # Sums of the same three rewards in another order: 0.6000000000000001 and 0.6.
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    found = compute([[[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]]], delta=0.0)
    assert found.trace.tolist() == [[0.0, 0.0]]
    size = 0.1 / sqrt(4 * 0.1**2 / 5)
    np.testing.assert_allclose(found.item, [[[-size, 0, size], [size, 0, -size]]], rtol=1e-9, atol=1e-9)
    # Cancelling sums round apart by more than their own size.
    cancelling = compute([[[0.3, -0.1, -0.2], [-0.2, -0.1, 0.3]]], delta=0.0)
    assert cancelling.trace.tolist() == [[0.0, 0.0]]
    nearly = compute([[[0.3, 0.1 + 0.2], [0.3, 0.3]]], delta=0.0)
    assert not nearly.item.any() and not nearly.trace.any() and nearly.skipped == {"equal_rewards": 1}
    # Differences that are small but real stay.
    small = compute([[[1.0 + 1e-9], [1.0]]], delta=0.0)
    np.testing.assert_allclose(small.trace, [[sqrt(0.5), -sqrt(0.5)]], rtol=1e-6)
    assert small.skipped == {}


def test_everything_is_finite_whatever_the_rewards():
    rng = np.random.default_rng(0)
    for _ in range(50):
        rewards = rng.choice([0.0, 1.0, 1e-300, -1e9], size=(3, 2, 2))
        valid = rng.random(rewards.shape) < 0.6
        for scale in ("group", "batch", "none"):
            found = compute(rewards, valid, scale=scale, delta=0.0)
            assert np.isfinite(found.trace).all() and np.isfinite(found.item).all()
            assert not found.item[~valid].any()


def test_one_trace_cannot_be_trained():
    with pytest.raises(ConfigError, match=r"one trace a group .* roll out 2 traces or more \(rollout.num_traces\)"):
        compute([[[1.0, 0.0]], [[1.0, 0.0]]], thinks=[False, True])
    found = compute([[[1.0, 0.0]]], thinks=False, scale="none")
    assert found.item.tolist() == [[[0.5, -0.5]]]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_one_item_a_trace_equals_trl(scale):
    rng = np.random.default_rng(3)
    for num_traces in (2, 5):
        rewards = rng.normal(size=(4, num_traces, 1))
        valid = rng.random(rewards.shape) < 0.8
        valid[:, :2] = True
        valid[2] = True
        rewards[2] = 0.5
        found = compute(rewards, valid, scale=scale)
        expected = trl_advantages(np.where(valid, rewards, np.nan).reshape(-1), num_traces, scale)
        assert np.abs(expected).max() > 0.5
        np.testing.assert_allclose(found.trace.reshape(-1), expected, **LIKE_TRL)
        np.testing.assert_allclose(found.item.reshape(-1), expected, **LIKE_TRL)


def test_shared_credit_equals_trl_on_one_group_of_all_rollouts():
    rewards = np.random.default_rng(4).normal(size=(3, 2, 4))
    found = compute(rewards, credit="shared")
    expected = trl_advantages(rewards.reshape(-1), 8, "group").reshape(rewards.shape)
    np.testing.assert_allclose(found.item, expected, **LIKE_TRL)
    np.testing.assert_allclose(found.trace, expected.mean(2), **LIKE_TRL)


def judged(values, pool, scale, batch, delta):
    """`(R - mean) / (std + delta)` of each of `values` among `pool`."""
    if len({round(v, 9) for v in pool}) < 2:
        return [0.0] * len(values)
    spread = {"group": pool, "batch": batch}.get(scale)
    divisor = 1.0 if spread is None else statistics.stdev(spread) + delta
    return [(v - statistics.fmean(pool)) / divisor for v in values]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    credit=st.sampled_from(["split", "shared"]),
    item_baseline=st.sampled_from(["group", "trace"]),
    scale=st.sampled_from(["group", "batch", "none"]),
)
def test_advantages_equal_plain_loops(seed, credit, item_baseline, scale):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 4), rng.integers(2, 4), rng.integers(1, 4)
    rewards = rng.choice([0.0, 0.1, 0.5, 1.0, -0.3], shape)
    valid, guided = rng.random(shape) < 0.8, rng.random(shape) < 0.2
    kept, thinks = rng.random(shape[0]) < 0.8, rng.random(shape[0]) < 0.7
    found = compute(rewards, valid, thinks, kept, guided, credit=credit, item_baseline=item_baseline, scale=scale)
    valid = valid & kept[:, None, None]
    own = valid & ~guided
    num_groups, num_traces, _ = shape
    values = [[statistics.fmean(rewards[g, n][own[g, n]]) if own[g, n].any() else None for n in range(num_traces)]
              for g in range(num_groups)]  # fmt: skip
    all_items = rewards[valid].tolist()
    all_traces = [v for row in values for v in row if v is not None]
    for g in range(num_groups):
        item = np.zeros(shape[1:])
        item[valid[g]] = judged(rewards[g][valid[g]], rewards[g][valid[g]].tolist(), scale, all_items, 1e-4)
        shared = [item[n][own[g, n]].mean() if own[g, n].any() else 0.0 for n in range(num_traces)]
        if credit == "split" and item_baseline == "trace" and thinks[g]:
            for n in range(num_traces):
                mine = rewards[g, n][valid[g, n]].tolist()
                item[n][valid[g, n]] = judged(mine, mine, scale, all_items, 1e-4)
        present = [v for v in values[g] if v is not None]
        split = iter(judged(present, present, scale, all_traces, 1e-4))
        trace = shared if credit == "shared" else [0.0 if v is None else next(split) for v in values[g]]
        np.testing.assert_allclose(found.item[g], item, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found.trace[g], trace, rtol=1e-9, atol=1e-9)
    equal = sum(bool(valid[g].any()) and len(set(rewards[g][valid[g]])) == 1 for g in range(num_groups))
    expected = {"equal_rewards": equal, "not_kept": int((~kept).sum())}
    assert found.skipped == {reason: count for reason, count in expected.items() if count}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"delta": -1.0}, "advantage.delta must be at least 0, got -1.0"),
        ({"delta": float("nan")}, "advantage.delta must be at least 0, got nan"),
        ({"credit": "all"}, "credit"),
        ({"item_baseline": "batch"}, "item_baseline"),
        ({"scale": "std"}, "scale"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        build_config(AdvantageConfig, values)
