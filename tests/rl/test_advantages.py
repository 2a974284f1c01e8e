"""Advantages by hand, and who answers for what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from onereason.errors import ConfigError
from onereason.rl.advantages import AdvantageConfig, compute_advantages


def compute(rewards: Any, thinks: np.ndarray | None = None, valid: Any = None, **options: Any):
    rewards = np.asarray(rewards, float)
    valid = np.ones(rewards.shape, bool) if valid is None else np.asarray(valid, bool)
    extra = {name: options.pop(name) for name in ("kept", "guided") if name in options}
    thinks = np.ones(len(rewards), bool) if thinks is None else thinks
    return compute_advantages(rewards, valid, thinks, AdvantageConfig(**options), **extra)


def spread(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5


def test_a_trace_answers_for_its_mean_and_an_item_for_itself() -> None:
    rewards = [[[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]]
    found = compute(rewards)
    means = [0.5, 0.0, 1.0]
    np.testing.assert_allclose(found.trace[0], [(m - 0.5) / (0.5 + 1e-4) for m in means])
    flat = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    expected = np.array([(v - 0.5) / (spread(flat) + 1e-4) for v in flat]).reshape(3, 2)
    np.testing.assert_allclose(found.item[0], expected)
    assert found.skipped == {}


def test_an_item_may_be_judged_against_its_own_trace() -> None:
    rewards = [[[1.0, 0.0], [3.0, 3.0]]] * 2
    found = compute(rewards, thinks=np.array([True, False]), item_baseline="trace", delta=0.0)
    np.testing.assert_allclose(found.item[0], [[0.5 / 0.5**0.5, -0.5 / 0.5**0.5], [0.0, 0.0]])
    # Without traces, rows are parts of one search, and the group is what items are judged against.
    flat = [1.0, 0.0, 3.0, 3.0]
    np.testing.assert_allclose(found.item[1].ravel(), [(v - 1.75) / spread(flat) for v in flat])


def test_shared_credit_is_that_of_whole_rollouts() -> None:
    rewards = np.random.default_rng(0).normal(size=(2, 3, 4))
    found = compute(rewards, credit="shared")
    np.testing.assert_allclose(found.item, compute(rewards).item)
    np.testing.assert_allclose(found.trace, found.item.mean(2))


def test_what_is_divided_by() -> None:
    rewards = np.random.default_rng(0).normal(size=(3, 2, 4)) * np.array([1.0, 5.0, 0.1])[:, None, None]
    plain = compute(rewards, scale="none")
    np.testing.assert_allclose(plain.item, rewards - rewards.mean((1, 2), keepdims=True))
    means = rewards.mean(2)
    np.testing.assert_allclose(plain.trace, means - means.mean(1, keepdims=True))
    batch = compute(rewards, scale="batch")
    np.testing.assert_allclose(batch.item, plain.item / (rewards.std(ddof=1) + 1e-4))
    np.testing.assert_allclose(batch.trace, plain.trace / (means.std(ddof=1) + 1e-4))


def test_with_one_item_a_trace_it_is_what_trl_computes() -> None:
    rewards = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).double()
    # GRPOTrainer: rewards minus the group's mean, over its standard deviation (unbiased) + 1e-4.
    expected = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    found = compute(rewards.numpy()[..., None])
    np.testing.assert_allclose(found.trace, expected.numpy())
    np.testing.assert_allclose(found.item[..., 0], expected.numpy())


def test_items_that_do_not_exist_count_nowhere() -> None:
    rewards = [[[1.0, 0.0, 9.0], [0.0, 9.0, 9.0], [9.0, 9.0, 9.0]]]
    valid = [[[1, 1, 0], [1, 0, 0], [0, 0, 0]]]
    found = compute(rewards, valid=valid)
    flat = [1.0, 0.0, 0.0]
    np.testing.assert_allclose(
        found.item[0],
        [
            [(1 - 1 / 3) / (spread(flat) + 1e-4), -1 / 3 / (spread(flat) + 1e-4), 0],
            [-1 / 3 / (spread(flat) + 1e-4), 0, 0],
            [0, 0, 0],
        ],
    )
    np.testing.assert_allclose(
        found.trace[0], [0.25 / (spread([0.5, 0.0]) + 1e-4), -0.25 / (spread([0.5, 0.0]) + 1e-4), 0]
    )


def test_no_trace_answers_for_a_guide() -> None:
    rewards, guided = [[[0.0, 1.0], [0.5, 1.0]]], np.array([[[False, True], [False, False]]])
    found = compute(rewards, guided=guided, scale="none")
    np.testing.assert_allclose(found.trace[0], [-0.375, 0.375])  # means 0 and .75
    np.testing.assert_allclose(found.item[0], [[-0.625, 0.375], [-0.125, 0.375]])
    shared = compute(rewards, guided=guided, credit="shared", scale="none")
    np.testing.assert_allclose(shared.trace[0], [-0.625, 0.125])


def test_groups_without_a_signal_are_counted_and_zero() -> None:
    third = 1.0 / 3.0
    rewards = np.array([[[third] * 3] * 2, [[1.0, 0, 0]] * 2, [[5.0, 1, 0]] * 2])
    found = compute(rewards, kept=np.array([True, True, False]))
    assert found.skipped == {"equal_rewards": 1, "not_kept": 1}
    # Means of thirds are rounded, which must not be blown up to a difference.
    assert (found.item[[0, 2]] == 0).all() and (found.trace[[0, 2]] == 0).all()
    assert (found.trace[1] == 0).all() and (found.item[1] != 0).any()  # equal traces, unequal items


def test_everything_is_finite_whatever_the_rewards() -> None:
    rng = np.random.default_rng(0)
    for delta in (0.0, 1e-4):
        for _ in range(50):
            rewards = rng.choice([0.0, 1.0, 1e-300, -1e9], size=(3, 2, 2))
            valid = rng.random((3, 2, 2)) < 0.6
            for scale in ("group", "batch", "none"):
                found = compute(rewards, valid=valid, scale=scale, delta=delta)
                assert np.isfinite(found.trace).all() and np.isfinite(found.item).all()
                assert (found.item[~valid] == 0).all()


def test_one_trace_a_group_is_refused_where_traces_are_trained() -> None:
    rewards = np.random.default_rng(0).normal(size=(1, 1, 4))
    with pytest.raises(ConfigError, match=r"one trace a group .* its advantage is always 0"):
        compute(rewards, thinks=np.array([True]))
    assert (compute(rewards, thinks=np.array([False])).item != 0).all()


def test_a_negative_delta_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"advantage\.delta must be at least 0"):
        AdvantageConfig(delta=-1.0)
