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
    """With `ecpo`, how far beyond its clip a ratio with negative advantage may rise; above 0."""
    max_ratio: float | None = None
    """A second, absolute bound above (TRL's `delta`) on ratios with negative advantage; None for none. `cispo`, `ecpo`
    and `gbpo` have bounds of their own."""
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
        if not self.ecpo_delta > 0:
            raise ConfigError(f"loss.ecpo_delta must be above 0, got {self.ecpo_delta}.")
        for name in ("miss_weight", "trace_weight", "item_weight", "kl_beta"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"loss.{name} must be at least 0, got {getattr(self, name)}.")
        if not all(most > 0 for most in self.cispo_max) or self.max_completion_length < 1:
            raise ConfigError(
                f"loss.cispo_max ({list(self.cispo_max)}) must be above 0 and loss.max_completion_length "
                f"({self.max_completion_length}) at least 1."
            )
        if self.max_ratio is not None and self.type in ("cispo", "ecpo", "gbpo"):
            raise ConfigError(
                f"loss.max_ratio ({self.max_ratio}) does nothing with loss.type={self.type}, which bounds such ratios "
                "itself; leave it out, or choose another type."
            )
        if self.max_ratio is not None and not self.max_ratio > 1 + max(self.trace_clip[1], self.item_clip[1]):
            raise ConfigError(f"loss.max_ratio must lie above both clips' upper bounds, got {self.max_ratio}.")


MAX_LOG_RATIO = 20.0
"""Beyond it (a ratio of `e^20`) a ratio stays where it is and has no gradient: it would overflow, and a zero gradient
times infinity is NaN."""


def compute_loss(inputs: LossInputs, config: LossConfig) -> LossOutputs:
    """The loss of a micro-step and what to log of it.

    Metrics: `clip_ratio/<stage>_low`, `_high`: share of the stage's weight at which the clip holds the gradient back
    (`cispo`: cuts the ratio of a positive advantage; `gbpo` has no clip), of `gspo` by the rollouts a token belongs to;
    `ratio/<stage>_mean`; `kl/rollout_<stage>`, the estimate `r - 1 - log r` of the divergence from the rollout policy;
    `kl/reference` with a KL term. Stages without a token are left out.
    """
    scored = inputs.trace_mask | inputs.item_mask
    inputs = _blank_unscored(inputs, scored)
    policy_logprobs, rollout_logprobs, advantages = inputs.policy_logprobs, inputs.rollout_logprobs, inputs.advantages
    log_ratio = policy_logprobs - rollout_logprobs
    bounds = _bounds(inputs, config)
    if config.type == "gspo":
        ratio, shares = rollout_ratios(inputs, log_ratio)
    else:
        ratio, shares = bounded_exp(log_ratio)[..., None], torch.ones_like(log_ratio, requires_grad=False)[..., None]
    # [R, T, S]: S is K where a trace token has a ratio with every item, else 1.
    each = (ratio, advantages[..., None], (bounds[0][..., None], bounds[1][..., None]))
    if config.type == "cispo":
        token_loss = cispo_loss(policy_logprobs, rollout_logprobs, advantages, 1 + bounds[1])
    elif config.type == "ecpo":
        token_loss = ecpo_loss(policy_logprobs, rollout_logprobs, advantages, bounds, config.ecpo_delta)
    elif config.type == "gbpo":
        token_loss = gbpo_loss(policy_logprobs, rollout_logprobs, advantages)
    else:
        token_loss = (clipped_loss(*each, config.max_ratio) * shares).sum(-1)
    token_loss = token_loss * inputs.miss_weights * _stage_values(inputs, config.trace_weight, config.item_weight)
    held_low, held_high = ((held * shares).sum(-1) for held in held_back(*each))
    metrics = _stage_metrics(inputs, log_ratio.detach(), held_low, held_high)
    if config.kl_beta:
        assert inputs.ref_logprobs is not None, "a KL term needs the reference's log-probabilities"
        divergence = kl_estimate(policy_logprobs, inputs.ref_logprobs)
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


def bounded_exp(log_ratio: torch.Tensor) -> torch.Tensor:
    """`exp(log_ratio)`, held at `e^20`."""
    return log_ratio.clamp(max=MAX_LOG_RATIO).exp()


def clipped_loss(
    ratio: torch.Tensor, advantages: torch.Tensor, bounds: Bounds, max_ratio: float | None = None
) -> torch.Tensor:
    """`-min(r A, clip(r, 1 - low, 1 + high) A)` per token (GRPO; stage-wise bounds are OneReason's Eq. 12-13)."""
    clipped = ratio.clamp(1 - bounds[0], 1 + bounds[1])
    free = ratio if max_ratio is None else ratio.clamp(max=max_ratio)
    return -torch.minimum(free * advantages, clipped * advantages)


def held_back(ratio: torch.Tensor, advantages: torch.Tensor, bounds: Bounds) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a ratio lies below or above its clip and the advantage would push it further; bool, two tensors."""
    return (ratio < 1 - bounds[0]) & (advantages < 0), (ratio > 1 + bounds[1]) & (advantages > 0)


def rollout_ratios(inputs: LossInputs, log_ratio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One ratio a rollout, `exp(mean log r)` over its trace and its item (GSPO), `[R, 1, K]`; and each token's share in
    the rollouts, `[R, T, K]`, which sums to 1.

    An item token is its own rollout's. A trace token belongs to the rollouts of all valid items of its row alike; where
    there is none, the trace alone is the rollout.
    """
    num_items = max(int(inputs.item_ids.max()) + 1, 1)
    own = torch.nn.functional.one_hot(inputs.item_ids.clamp(min=0), num_items) * inputs.item_mask[..., None]
    own = own.to(log_ratio.dtype)  # [R, T, K]
    item_sum = torch.einsum("rt,rtk->rk", log_ratio, own)
    trace_sum = (log_ratio * inputs.trace_mask).sum(1, keepdim=True)  # [R, 1]
    item_count = own.sum(1)  # [R, K]
    count = inputs.trace_mask.sum(1, keepdim=True) + item_count
    ratio = bounded_exp((trace_sum + item_sum) / count.clamp(min=1))  # [R, K]
    valid = (item_count > 0).to(log_ratio.dtype)
    valid[:, 0] += valid.sum(1) == 0
    of_trace = valid / valid.sum(1, keepdim=True)  # [R, K]
    shares = torch.where(inputs.item_mask[..., None], own, of_trace[:, None])  # [R, T, K]
    return ratio[:, None], shares


def cispo_loss(
    policy_logprobs: torch.Tensor, rollout_logprobs: torch.Tensor, advantages: torch.Tensor, most: torch.Tensor
) -> torch.Tensor:
    """`-sg(min(r, most)) A log pi` per token (CISPO): clipped tokens keep a gradient."""
    ratio = bounded_exp(policy_logprobs.detach() - rollout_logprobs)
    return -torch.minimum(ratio, most) * advantages * policy_logprobs


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
    ratio = bounded_exp(policy_logprobs - torch.maximum(lifted, rollout_logprobs))
    return clipped_loss(ratio, advantages, bounds)


def gbpo_loss(policy_logprobs: torch.Tensor, rollout_logprobs: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """Gradient-bounded policy optimisation (OneRec V2): `-A pi / pi'_old`, without a clip.

    `pi'_old = max(pi_old, sg(pi))` where `A >= 0`, `max(pi_old, 1 - sg(pi))` where `A < 0`: the gradient of a negative
    sample is bounded as in binary cross-entropy.
    """
    own = policy_logprobs.detach()
    floor = torch.where(advantages >= 0, own, log_one_minus_exp(own))
    return -advantages * bounded_exp(policy_logprobs - torch.maximum(rollout_logprobs, floor))


def log_one_minus_exp(x: torch.Tensor) -> torch.Tensor:
    """`log(1 - exp(x))` for `x <= 0`, exact at both ends (Maechler 2012); -inf at 0, and where rounding went above."""
    x = x.clamp(max=0.0)
    return torch.where(x > -0.6931472, (-torch.expm1(x)).log(), torch.log1p(-x.exp()))


def kl_estimate(policy_logprobs: torch.Tensor, ref_logprobs: torch.Tensor) -> torch.Tensor:
    """`exp(d) - d - 1` with `d = log ref - log pi` (at most 20), per token; never negative (Schulman's k3)."""
    difference = (ref_logprobs - policy_logprobs).clamp(max=MAX_LOG_RATIO)
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


def _bounds(inputs: LossInputs, config: LossConfig) -> Bounds:
    """How far ratios may fall below and rise above 1, `[R, T]` each."""
    of_trace, of_item = config.trace_clip, config.item_clip
    if config.type == "cispo":
        of_trace, of_item = ((1.0, most - 1) for most in config.cispo_max)
    elif config.type == "gbpo":
        of_trace = of_item = (1.0, float("inf"))
    return _stage_values(inputs, of_trace[0], of_item[0]), _stage_values(inputs, of_trace[1], of_item[1])


def _stage_metrics(
    inputs: LossInputs, log_ratio: torch.Tensor, held_low: torch.Tensor, held_high: torch.Tensor
) -> dict[str, float]:
    ratio = bounded_exp(log_ratio)
    metrics: dict[str, float] = {}
    for stage, mask in (("trace", inputs.trace_mask), ("item", inputs.item_mask)):
        if not mask.any():
            continue
        values = {
            f"clip_ratio/{stage}_low": held_low,
            f"clip_ratio/{stage}_high": held_high,
            f"ratio/{stage}_mean": ratio,
            f"kl/rollout_{stage}": ratio - 1 - log_ratio,
        }
        metrics |= {name: _weighted_mean(value, inputs.token_weights, mask) for name, value in values.items()}
    return metrics
