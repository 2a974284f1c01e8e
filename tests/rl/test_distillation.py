"""MOPD against Eq. 17-21 by hand, and the filter against every subset."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.rl.distillation import (
    distillation_loss,
    information_gain,
    select_informative,
    token_advantages,
    truncated_weights,
)


def logs(*probabilities) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_token_advantages_are_differences_held_constant():
    # Eq. 17: log(0.4 / 0.2), log(0.1 / 0.5).
    student, teacher = logs([0.2, 0.5]).requires_grad_(), logs([0.4, 0.1]).requires_grad_()
    found = token_advantages(teacher, student)
    assert found.tolist()[0] == pytest.approx([log(2), -log(5)])
    assert not found.requires_grad


def test_importance_is_the_ratio_inside_its_bounds_and_0_outside():
    # Eq. 18: pi / mu, bounds included.
    mu = logs([0.1, 0.1, 0.1, 0.5, 0.4, 0.1])
    pi = mu + torch.tensor([[0.49, 0.5, 1.3, 2.0, 2.01, 1.0]], dtype=torch.float64).log()
    found = truncated_weights(pi.requires_grad_(), mu, 0.5 - 1e-12, 2.0 + 1e-12)
    assert found.tolist()[0] == pytest.approx([0, 0.5, 1.3, 2.0, 0, 1.0])
    assert not found.requires_grad
    exact = torch.zeros(1, 2)
    assert truncated_weights(exact, exact, 1.0, 1.0).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(("policy", "rollout"), [(0.0, -1e4), (-1e4, 0.0), (0.0, -float("inf")), (float("nan"), 0.0)])
def test_importance_out_of_all_bounds_is_0(policy, rollout):
    assert truncated_weights(torch.tensor([policy]), torch.tensor([rollout]), 0.5, 2.0).tolist() == [0.0]


def test_loss_and_gradient_by_hand():
    # Eq. 19 over weights 1, 1/2, 0: -(2 * 3 * log 0.5 + 1/2 * 1 * -4 * log 0.2) / 1.5.
    policy = logs([0.5, 0.2, 0.9]).requires_grad_()
    advantages = torch.tensor([[3.0, -4.0, 7.0]], dtype=torch.float64)
    importance = torch.tensor([[2.0, 1.0, 1.0]], dtype=torch.float64)
    weights = torch.tensor([[1.0, 0.5, 0.0]], dtype=torch.float64)
    loss = distillation_loss(policy, advantages, importance, weights)
    assert loss.item() == pytest.approx(-(6 * log(0.5) - 2 * log(0.2)) / 1.5)
    gradient = torch.autograd.grad(loss, policy)[0]
    assert gradient.tolist()[0] == pytest.approx([-6 / 1.5, 2 / 1.5, 0.0])
    part = distillation_loss(policy, advantages, importance, weights, num_tokens=6.0)
    assert part.item() == pytest.approx(loss.item() * 1.5 / 6)


def test_on_policy_it_is_the_gradient_of_the_reverse_divergence():
    # In expectation over the student's tokens, -A d log pi is d KL(student | teacher); a trajectory a token of seven.
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 1, generator=draw, dtype=torch.float64).requires_grad_()
    teacher = torch.randn(7, 1, generator=draw, dtype=torch.float64).log_softmax(0)
    student = logits.log_softmax(0)
    advantages, weights = token_advantages(teacher, student), student.exp().detach()
    loss = distillation_loss(student, advantages, torch.ones_like(weights), weights)
    divergence = (student.exp() * (student - teacher)).sum()
    found, expected = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, divergence))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_small_weights_all_over_change_no_mean():
    policy, one = logs([0.5, 0.2]), torch.ones(1, 2, dtype=torch.float64)
    losses = [distillation_loss(policy, one, one, scale * one).item() for scale in (1.0, 0.01)]
    assert losses == pytest.approx([-(log(0.5) + log(0.2)) / 2] * 2)


def test_micro_steps_add_up_to_the_step():
    draw = torch.Generator().manual_seed(0)
    values = [torch.rand(4, 5, generator=draw, dtype=torch.float64) for _ in range(4)]
    values[3][:, 3:] = 0
    policy = (values[0] - 1).requires_grad_()
    num_tokens = float(values[3].sum())
    whole = distillation_loss(policy, *values[1:])
    parts = sum(
        distillation_loss(policy[rows], *(v[rows] for v in values[1:]), num_tokens)
        for rows in (slice(0, 1), slice(1, 4))
    )
    gradients = [torch.autograd.grad(loss, policy)[0] for loss in (whole, parts)]
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("filler", [float("nan"), float("inf"), -float("inf")])
def test_unscored_columns_may_hold_anything(filler):
    policy, teacher, mu = (logs([0.5, 0.2], [0.3, 0.3]) + shift for shift in (0.0, -0.3, 0.1))
    weights = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)

    def everything(filled):
        own = [torch.where(weights > 0, x, filler) if filled else x for x in (policy, teacher, mu)]
        own[0].requires_grad_()
        advantages = token_advantages(own[1], own[0])
        loss = distillation_loss(own[0], advantages, truncated_weights(own[0], own[2], 0.5, 2.0), weights)
        return loss.detach(), torch.autograd.grad(loss, own[0])[0], information_gain(advantages, weights)

    for found, expected in zip(everything(True), everything(False), strict=True):
        assert torch.equal(found, expected) and found.isfinite().all()


def test_information_gain_is_a_mean_of_sizes():
    # Eq. 20 with weights: (1 * 2 + 0.5 * 4) / 1.5; nothing for a trajectory without tokens.
    advantages = torch.tensor([[2.0, -4.0, 9.0], [1.0, 1.0, 1.0]])
    weights = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    assert information_gain(advantages, weights).tolist() == pytest.approx([4 / 1.5, 0.0])


def test_the_filter_by_hand():
    # Eq. 21: of 10, 5 + 3 are 0.8.
    gains = torch.tensor([2.0, 5.0, 0.0, 3.0])
    assert select_informative(gains, 0.8).tolist() == [False, True, False, True]
    assert select_informative(gains, 0.81).tolist() == [True, True, False, True]
    assert select_informative(gains, 0.5).tolist() == [False, True, False, False]
    assert select_informative(gains, 0.01).tolist() == [False, True, False, False]
    assert select_informative(gains, 1.0).tolist() == [True] * 4
    assert select_informative(torch.ones(4), 0.5).tolist() == [True, True, False, False]  # of equal ones the earlier
    assert select_informative(torch.zeros(3), 0.5).tolist() == [False] * 3
    assert select_informative(torch.zeros(0), 0.5).tolist() == []
    # 0.55 * 100 is 55.00000000000001 in binary.
    assert select_informative(torch.tensor([45.0, 55.0]), 0.55).tolist() == [False, True]


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_share_outside_its_range_is_our_own_mistake(share):
    with pytest.raises(AssertionError, match="share lies in"):
        select_informative(torch.ones(2), share)


@settings(max_examples=150, deadline=None)
@given(
    gains=st.lists(st.integers(0, 20), min_size=0, max_size=7),
    percent=st.integers(1, 99),
)
def test_the_filter_keeps_the_smallest_subset(gains, percent):
    found = select_informative(torch.tensor(gains, dtype=torch.float32), percent / 100)
    needed = Fraction(percent, 100) * sum(gains)
    smallest = next(size for size in range(len(gains) + 1) if any(sum(c) >= needed for c in combinations(gains, size)))
    kept = [gain for gain, chosen in zip(gains, found.tolist(), strict=True) if chosen]
    assert len(kept) == smallest and sum(kept) >= needed
    assert sorted(kept, reverse=True) == sorted(gains, reverse=True)[:smallest]
