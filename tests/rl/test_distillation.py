"""MOPD's formulas by hand (OneReason, Eq. 17-21)."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch

from onereason.rl.distillation import (
    distillation_loss,
    information_gain,
    select_informative,
    token_advantages,
    truncated_weights,
)


def logs(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64).log()


def test_advantages_and_weights_by_hand() -> None:
    teacher, student, before = logs(0.5, 0.1, 0.9), logs(0.25, 0.2, 0.9), logs(0.25, 0.05, 0.3)
    student.requires_grad_()
    advantages = token_advantages(teacher, student)
    torch.testing.assert_close(advantages, torch.tensor([[math.log(2), -math.log(2), 0.0]], dtype=torch.float64))
    weights = truncated_weights(student, before, 0.5, 3.5)
    torch.testing.assert_close(weights, torch.tensor([[1.0, 0.0, 3.0]], dtype=torch.float64))  # 4 lies outside
    assert not advantages.requires_grad and not weights.requires_grad
    assert truncated_weights(student, student, 1.0, 1.0).eq(1).all()  # bounds are inside


def test_the_loss_and_its_gradient_by_hand() -> None:
    policy = logs(0.25, 0.2, 0.5).requires_grad_()
    advantages = torch.tensor([[2.0, -1.0, 7.0]], dtype=torch.float64)
    weights = torch.tensor([[1.0, 0.5, 3.0]], dtype=torch.float64)
    tokens = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    loss = distillation_loss(policy, advantages, weights, tokens)
    assert float(loss) == pytest.approx(-(2 * math.log(0.25) - 0.5 * math.log(0.2)) / 2)
    slope = torch.autograd.grad(loss, policy)[0]
    torch.testing.assert_close(slope, torch.tensor([[-1.0, 0.25, 0.0]], dtype=torch.float64))
    assert float(distillation_loss(policy, advantages, weights, tokens, 8.0)) == pytest.approx(float(loss) / 4)
    assert float(distillation_loss(policy, advantages, weights, 0 * tokens)) == 0


def test_on_policy_it_is_the_gradient_of_the_reverse_divergence() -> None:
    """In expectation over the student's tokens, -A d log pi is d KL(student | teacher)."""
    torch.manual_seed(0)
    logits, teacher = torch.randn(7, dtype=torch.float64, requires_grad=True), torch.randn(7).double().log_softmax(0)
    student = logits.log_softmax(0)
    divergence = (student.exp() * (student - teacher)).sum()
    expected = torch.autograd.grad(divergence, logits, retain_graph=True)[0]
    each = student[:, None]  # one trajectory a token, weighted by its probability
    surrogate = distillation_loss(
        each, token_advantages(teacher[:, None], each), torch.ones(7, 1), student.exp().detach()[:, None]
    )
    torch.testing.assert_close(torch.autograd.grad(surrogate, logits)[0], expected)


def test_gains_are_means_over_a_trajectorys_tokens() -> None:
    advantages = torch.tensor([[1.0, -3.0, 100.0], [5.0, 5.0, 5.0]])
    weights = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert information_gain(advantages, weights).tolist() == [2.0, 0.0]
    assert information_gain(advantages, torch.tensor([[3.0, 1.0, 0.0], [1.0, 0, 0]])).tolist() == [1.5, 5.0]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8, 0.95, 1.0])
def test_the_smallest_set_that_covers_the_share(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        gains = torch.rand(7, generator=generator)
        kept = select_informative(gains, share)
        total = float(gains.double().sum())
        if share == 1:
            assert kept.all()
            continue
        assert float(gains[kept].double().sum()) >= share * total - 1e-9
        fewest = next(
            n
            for n in range(1, 8)
            if any(sum(gains[list(c)].tolist()) >= share * total for c in combinations(range(7), n))
        )
        assert int(kept.sum()) == fewest
        assert float(gains[kept].min()) >= float(gains[~kept].max() if (~kept).any() else 0)


def test_ties_empty_gains_and_nothing() -> None:
    assert select_informative(torch.tensor([1.0, 1.0, 1.0, 1.0]), 0.5).tolist() == [True, True, False, False]
    assert select_informative(torch.tensor([0.0, 2.0, 0.0]), 0.9).tolist() == [False, True, False]
    assert not select_informative(torch.zeros(3), 0.5).any()
    assert select_informative(torch.zeros(0), 0.5).shape == (0,)
    for share in (0.0, 1.5):
        with pytest.raises(AssertionError):
            select_informative(torch.ones(2), share)
