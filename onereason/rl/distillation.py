"""On-policy distillation from several teachers (MOPD; OneReason, Eq. 17-21): pure functions.

The student writes, the teacher of the prompt's domain scores what it wrote, and the student follows where the teacher
finds its tokens likelier.

Notation: `R` trajectories (rows), `T` columns.
"""

from __future__ import annotations

import torch


def token_advantages(teacher_logprobs: torch.Tensor, policy_logprobs: torch.Tensor) -> torch.Tensor:
    """`A_t = sg[log pi_teacher - log pi_student]` (Eq. 17), per token, any shape."""
    return (teacher_logprobs - policy_logprobs).detach()


def truncated_weights(
    policy_logprobs: torch.Tensor, rollout_logprobs: torch.Tensor, low: float, high: float
) -> torch.Tensor:
    """`w_t = sg[pi / mu]` where it lies in `[low, high]`, else 0 (Eq. 18), per token, any shape."""
    ratio = (policy_logprobs - rollout_logprobs).detach().exp()
    return torch.where((ratio >= low) & (ratio <= high), ratio, 0.0)


def information_gain(advantages: torch.Tensor, token_weights: torch.Tensor) -> torch.Tensor:
    """`s(y) = mean |A_t|` of each trajectory (Eq. 20): `[R, T]` -> `[R]`; 0 for one without tokens."""
    size = advantages.abs().masked_fill(token_weights == 0, 0.0)  # also what is infinite or NaN there
    return (size * token_weights).sum(1) / token_weights.sum(1).clamp(min=1e-12)


def select_informative(gains: torch.Tensor, share: float) -> torch.Tensor:
    """The smallest set of trajectories whose gains sum to at least `share` of all (Eq. 21); bool `[R]`.

    The most informative are taken first, of equal ones the earlier. Trajectories without gain are never needed, unless
    `share` is 1: then all are kept.
    """
    assert 0 < share <= 1, "share lies in (0, 1]"
    if share == 1:
        return torch.ones_like(gains, dtype=torch.bool)
    order = gains.sort(descending=True, stable=True).indices
    descending = gains[order].double()
    before = torch.nn.functional.pad(descending.cumsum(0), (1, 0))[:-1]  # what those ahead of each one sum to
    kept = torch.zeros_like(gains, dtype=torch.bool)
    # The rounding of a product is no missing share.
    kept[order[before < (share - 1e-9) * descending.sum()]] = True
    return kept


def distillation_loss(
    policy_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    importance_weights: torch.Tensor,
    token_weights: torch.Tensor,
    num_tokens: float | None = None,
) -> torch.Tensor:
    """`-mean(w_t A_t log pi)` over tokens (Eq. 19); `[R, T]` each.

    Args:
        token_weights: 0 where nothing is scored; what the others hold there is not looked at.
        num_tokens: sum of `token_weights` over the whole step, where the micro-step is a part of it.
    """
    # Blanked before anything is multiplied: 0 times infinity is NaN.
    parts = [part.masked_fill(token_weights == 0, 0.0) for part in (importance_weights, advantages, policy_logprobs)]
    total = (parts[0] * parts[1] * parts[2] * token_weights).sum()
    return -total / max(float(token_weights.sum() if num_tokens is None else num_tokens), 1e-12)
