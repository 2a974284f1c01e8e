"""Losses of reinforcement: pure functions of `LossInputs`.

| type | per token | over tokens |
|---|---|---|
| `grpo` | clipped ratio (GRPO) | mean of a rollout, then of rollouts |
| `bnpo` | the same | mean of the micro-step's tokens |
| `dapo` | the same | mean of the step's tokens |
| `dr_grpo` | the same | sum over a constant length |
| `gspo` | clipped ratio of the whole rollout | as `grpo` |
| `cispo` | clipped ratio, held constant, times the log-probability | as `dapo` |
| `ecpo` | clipped ratio to an old policy that is lifted early (OneRec V1) | as `grpo` |
| `gbpo` | ratio to a bounded old policy, not clipped (OneRec V2) | as `grpo` |

Trace and item tokens are clipped by bounds of their own (OneReason, Eq. 12-13), and tokens of misses weigh less (Eq.
14). A row stands for K rollouts (see `LossInputs`): every loss is what it would be over those.

Notation: `R` rows, `T` columns, `K` items a row, `A` advantage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from onereason.errors import ConfigError
from onereason.rl.records import LossInputs, LossOutputs

LossType = Literal["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "ecpo", "gbpo"]
Bounds = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class LossConfig:
    """The policy's loss."""

    type: LossType = "grpo"
    """See the table of `onereason.rl.losses`."""
    trace_clip: tuple[float, float] = (0.2, 0.28)
    """How far the ratio of a trace token may fall below and rise above 1."""
    item_clip: tuple[float, float] = (0.1, 0.15)
    """The same for item tokens: tighter, or their entropy collapses. Equal bounds switch stage-wise clipping off."""
    cispo_max: tuple[float, float] = (5.0, 5.0)
    """With `cispo`, the largest ratio of trace and of item tokens (a ratio, not a distance from 1)."""
    ecpo_delta: float = 0.1
    """With `ecpo`, how far beyond its clip a ratio with negative advantage may rise."""
    max_ratio: float | None = None
    """A second, absolute bound above (TRL's `delta`) on ratios with negative advantage; None for none."""
    miss_weight: float = 1.0
    """Weight of the tokens of rollouts without a hit (beta of Eq. 14); hits have 1."""
    trace_weight: float = 1.0
    """Weight of trace tokens."""
    item_weight: float = 1.0
    """Weight of item tokens."""
    kl_beta: float = 0.0
    """Weight of the KL divergence to the start model."""
    max_completion_length: int = 512
    """With `dr_grpo`, the constant length that sums are divided by."""

    def __post_init__(self) -> None:
        for name in ("trace_clip", "item_clip"):
            low, high = getattr(self, name)
            if not (0 <= low <= 1 and high >= 0):
                raise ConfigError(f"loss.{name} must be a fall from 0 to 1 and a rise from 0, got {[low, high]}.")
        for name in ("ecpo_delta", "miss_weight", "trace_weight", "item_weight", "kl_beta"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"loss.{name} must be at least 0, got {getattr(self, name)}.")
        if min(self.cispo_max) <= 0 or self.max_completion_length < 1:
            raise ConfigError(
                f"loss.cispo_max ({list(self.cispo_max)}) must be above 0 and loss.max_completion_length "
                f"({self.max_completion_length}) at least 1."
            )
        if self.max_ratio is not None and not self.max_ratio > 1 + max(self.trace_clip[1], self.item_clip[1]):
            raise ConfigError(f"loss.max_ratio must lie above both clips' upper bounds, got {self.max_ratio}.")


def compute_loss(inputs: LossInputs, config: LossConfig) -> LossOutputs:
    """The loss of a micro-step and what to log of it.

    Metrics: `clip_ratio/<stage>_low`, `_high`: share of the stage's weight at which the clip holds the gradient back;
    `ratio/<stage>_mean`; `kl/rollout_<stage>`, the estimate `r - 1 - log r` of the divergence from the rollout policy;
    `kl/reference` with a reference. Stages without a token are left out.
    """
    scored = inputs.trace_mask | inputs.item_mask
    inputs = _blank_unscored(inputs, scored)
    bounds = (
        _stage_values(inputs, config.trace_clip[0], config.item_clip[0]),
        _stage_values(inputs, config.trace_clip[1], config.item_clip[1]),
    )
    log_ratio = inputs.policy_logprobs - inputs.rollout_logprobs
    advantages = inputs.advantages
    if config.type == "gspo":
        token_loss = gspo_loss(inputs, log_ratio, bounds, config.max_ratio)
    elif config.type == "cispo":
        token_loss = cispo_loss(inputs.policy_logprobs, log_ratio, advantages, _stage_values(inputs, *config.cispo_max))
    elif config.type == "ecpo":
        token_loss = ecpo_loss(inputs.policy_logprobs, inputs.rollout_logprobs, advantages, bounds, config.ecpo_delta)
    elif config.type == "gbpo":
        token_loss = gbpo_loss(inputs.policy_logprobs, inputs.rollout_logprobs, advantages)
    else:
        token_loss = clipped_loss(log_ratio.exp(), advantages, bounds, config.max_ratio)
    token_loss = token_loss * inputs.miss_weights * _stage_values(inputs, config.trace_weight, config.item_weight)
    metrics = _stage_metrics(inputs, log_ratio.detach(), bounds)
    if config.kl_beta and inputs.ref_logprobs is not None:
        divergence = kl_estimate(inputs.policy_logprobs, inputs.ref_logprobs)
        token_loss = token_loss + config.kl_beta * divergence
        metrics["kl/reference"] = _weighted_mean(divergence.detach(), inputs.token_weights, scored)
    return LossOutputs(aggregate(token_loss, inputs, config), metrics)


def _blank_unscored(inputs: LossInputs, scored: torch.Tensor) -> LossInputs:
    """Log-probabilities, advantages and weights with 0 where nothing is scored.

    What is infinite or NaN there would pass through masks that are laid on later: 0 times infinity is no 0, nor is the
    gradient.
    """
    names = ("policy_logprobs", "rollout_logprobs", "advantages", "miss_weights", "ref_logprobs")
    values = {name: getattr(inputs, name) for name in names}
    blank = {name: value.masked_fill(~scored, 0.0) for name, value in values.items() if value is not None}
    return replace(inputs, **blank)


def clipped_loss(
    ratio: torch.Tensor, advantages: torch.Tensor, bounds: Bounds, max_ratio: float | None = None
) -> torch.Tensor:
    """`-min(r A, clip(r, 1 - low, 1 + high) A)` per token (GRPO; stage-wise bounds are OneReason's Eq. 12-13)."""
    low, high = bounds
    clipped = torch.minimum(torch.maximum(ratio, 1 - low), 1 + high)
    free = ratio if max_ratio is None else ratio.clamp(max=max_ratio)
    return -torch.minimum(free * advantages, clipped * advantages)


def gspo_loss(
    inputs: LossInputs, log_ratio: torch.Tensor, bounds: Bounds, max_ratio: float | None = None
) -> torch.Tensor:
    """The clipped loss with one ratio a rollout: `exp(mean log r)` over its trace and its item (GSPO).

    A trace token belongs to the rollouts of all valid items of its row, and gets the mean of their losses.
    """
    num_items = int(inputs.item_ids.max()) + 1 if inputs.item_ids.numel() else 0
    trace_sum = (log_ratio * inputs.trace_mask).sum(1, keepdim=True)  # [R, 1]
    trace_count = inputs.trace_mask.sum(1, keepdim=True)
    if num_items <= 0:  # traces alone
        ratio = (trace_sum / trace_count.clamp(min=1)).exp()
        return clipped_loss(ratio, inputs.advantages, bounds, max_ratio)
    own = (
        torch.nn.functional.one_hot(inputs.item_ids.clamp(min=0), num_items) * inputs.item_mask[..., None]
    )  # [R, T, K]
    item_sum = torch.einsum("rt,rtk->rk", log_ratio, own.to(log_ratio.dtype))
    item_count = own.sum(1)  # [R, K]
    ratio = ((trace_sum + item_sum) / (trace_count + item_count).clamp(min=1)).exp()  # [R, K]
    of_items = ratio.gather(1, inputs.item_ids.clamp(min=0))
    item_loss = clipped_loss(of_items, inputs.advantages, bounds, max_ratio)
    low, high = (bound[..., None] for bound in bounds)
    every = clipped_loss(ratio[:, None], inputs.advantages[..., None], (low, high), max_ratio)  # [R, T, K]
    valid = (item_count > 0)[:, None]  # [R, 1, K]
    trace_loss = (every * valid).sum(-1) / valid.sum(-1).clamp(min=1)
    return torch.where(inputs.item_mask, item_loss, trace_loss)


def cispo_loss(
    policy_logprobs: torch.Tensor, log_ratio: torch.Tensor, advantages: torch.Tensor, most: torch.Tensor
) -> torch.Tensor:
    """`-sg(min(r, most)) A log pi` per token (CISPO): clipped tokens keep a gradient."""
    return -torch.minimum(log_ratio.exp(), most).detach() * advantages * policy_logprobs


def ecpo_loss(
    policy_logprobs: torch.Tensor,
    rollout_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    bounds: Bounds,
    delta: float,
) -> torch.Tensor:
    """Early-clipped GRPO (OneRec V1): the clipped loss with `pi'_old = max(sg(pi) / (1 + high + delta), pi_old)`.

    The ratio so never exceeds `1 + high + delta`, which bounds the gradient where the advantage is negative.
    """
    lifted = policy_logprobs.detach() - torch.log1p(bounds[1] + delta)
    ratio = (policy_logprobs - torch.maximum(lifted, rollout_logprobs)).exp()
    return clipped_loss(ratio, advantages, bounds)


def gbpo_loss(policy_logprobs: torch.Tensor, rollout_logprobs: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """Gradient-bounded policy optimisation (OneRec V2): `-A pi / pi'_old`, without a clip.

    `pi'_old = max(pi_old, sg(pi))` where `A >= 0`, `max(pi_old, 1 - sg(pi))` where `A < 0`: the gradient of a negative
    sample is bounded as in binary cross-entropy.
    """
    own = policy_logprobs.detach()
    floor = torch.where(advantages >= 0, own, log_one_minus_exp(own))
    return -advantages * (policy_logprobs - torch.maximum(rollout_logprobs, floor)).exp()


def log_one_minus_exp(x: torch.Tensor) -> torch.Tensor:
    """`log(1 - exp(x))` for `x <= 0`, exact at both ends (Maechler 2012); -inf at 0."""
    return torch.where(x > -0.6931472, (-torch.expm1(x)).log(), torch.log1p(-x.exp()))


def kl_estimate(policy_logprobs: torch.Tensor, ref_logprobs: torch.Tensor) -> torch.Tensor:
    """`exp(d) - d - 1` with `d = log ref - log pi`, per token: unbiased and never negative (Schulman's k3)."""
    difference = ref_logprobs - policy_logprobs
    return difference.exp() - difference - 1


def aggregate(token_loss: torch.Tensor, inputs: LossInputs, config: LossConfig) -> torch.Tensor:
    """Token losses `[R, T]` -> the micro-step's part of the optimizer step's loss, by the type's rule."""
    weights = inputs.token_weights
    num_rows = float(len(weights)) if inputs.num_rows is None else inputs.num_rows
    total = (token_loss * weights).sum()
    if config.type in ("dapo", "cispo"):
        num_tokens = weights.sum() if inputs.num_rollout_tokens is None else inputs.num_rollout_tokens
        return total / max(float(num_tokens), 1.0)
    if config.type == "dr_grpo":
        return total / (num_rows * config.max_completion_length)
    if config.type == "bnpo":
        return total / weights.sum().clamp(min=1.0) * (len(weights) / num_rows)
    per_row = (token_loss * weights).sum(1)
    # A rollout has as many tokens as its weights sum to; a row without any adds nothing.
    return (per_row / weights.sum(1).clamp(min=1.0)).sum() / num_rows


def _stage_values(inputs: LossInputs, of_trace: float, of_item: float) -> torch.Tensor:
    """One number for trace tokens, another for the rest; `[R, T]`."""
    values = torch.full_like(inputs.policy_logprobs, of_item, requires_grad=False)
    return values.masked_fill(inputs.trace_mask, of_trace)


def _weighted_mean(values: torch.Tensor, weights: torch.Tensor, mask: torch.Tensor) -> float:
    chosen = weights * mask
    return float((values.masked_fill(~mask, 0.0) * chosen).sum() / chosen.sum().clamp(min=1e-12))


def _stage_metrics(inputs: LossInputs, log_ratio: torch.Tensor, bounds: Bounds) -> dict[str, float]:
    ratio, (low, high) = log_ratio.exp(), bounds
    falls = (ratio < 1 - low) & (inputs.advantages < 0)
    rises = (ratio > 1 + high) & (inputs.advantages > 0)
    metrics: dict[str, float] = {}
    for stage, mask in (("trace", inputs.trace_mask), ("item", inputs.item_mask)):
        if not mask.any():
            continue
        values = {
            f"clip_ratio/{stage}_low": falls.float(),
            f"clip_ratio/{stage}_high": rises.float(),
            f"ratio/{stage}_mean": ratio,
            f"kl/rollout_{stage}": ratio - 1 - log_ratio,
        }
        metrics |= {name: _weighted_mean(value, inputs.token_weights, mask) for name, value in values.items()}
    return metrics
