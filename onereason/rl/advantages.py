"""Advantages: who answers for what (OneReason, Eq. 7).

A trace answers for the mean of its items against the other traces of its group, an item for itself.

Notation: `G` groups, `N` traces a group, `K` items a trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onereason.errors import ConfigError


@dataclass(frozen=True)
class AdvantageConfig:
    """How rewards become advantages."""

    credit: Literal["split", "shared"] = "split"
    """`split`: a trace answers for the mean of its items against the other traces of its group, an item for itself.
    `shared`: a trace and an item under it answer together, as one rollout of N x K."""
    item_baseline: Literal["group", "trace"] = "group"
    """What an item is judged against with split credit: all items of its group, or those under its own trace."""
    scale: Literal["group", "batch", "none"] = "group"
    """What advantages are divided by: the standard deviation of what they are judged against (`group`), of the whole
    batch, or nothing."""
    delta: float = 1e-4
    """Added to the standard deviation."""

    def __post_init__(self) -> None:
        if not self.delta >= 0:
            raise ConfigError(f"advantage.delta must be at least 0, got {self.delta}.")


@dataclass(frozen=True)
class Advantages:
    """Finite everywhere.

    Attributes:
        trace: float64 `[G, N]`.
        item: float64 `[G, N, K]`; 0 where nothing was rolled out.
        skipped: groups without a signal, by reason: `equal_rewards`; `not_kept`, which the rewards left out.
    """

    trace: np.ndarray
    item: np.ndarray
    skipped: Mapping[str, int]


def compute_advantages(
    rewards: np.ndarray,
    valid: np.ndarray,
    thinks: np.ndarray,
    config: AdvantageConfig | None = None,
    kept: np.ndarray | None = None,
    guided: np.ndarray | None = None,
) -> Advantages:
    """`(R - mean) / (std + delta)` inside each group (Eq. 7), with the unbiased standard deviation that TRL takes.

    Args:
        rewards: float64 `[G, N, K]`.
        valid: bool `[G, N, K]`; True selects items that were rolled out.
        thinks: bool `[G]`; True selects groups with traces to train. In the others, which are one search shared out
            over rows, an item is always judged against its group.
        kept: bool `[G]`; False leaves a group out (all its advantages are 0). All by default.
        guided: bool `[G, N, K]`; True selects items that were put there, for which no trace answers. None by default.

    Raises:
        ConfigError: one trace a group where traces are trained: its advantage would always be 0.
    """
    config = config or AdvantageConfig()
    num_groups, num_traces, _ = rewards.shape
    if num_traces == 1 and thinks.any():
        raise ConfigError(
            "with one trace a group and its K items, a trace is judged against nothing and its advantage is always 0: "
            "it would never be trained; roll out 2 traces or more (rollout.num_traces), or mode no_think."
        )
    kept = np.ones(num_groups, bool) if kept is None else kept
    inside = valid & kept[:, None, None]
    of_items = np.where(inside, rewards, np.nan)
    own = inside if guided is None else inside & ~guided
    counts = own.sum(2)  # [G, N]
    of_traces = np.where(counts > 0, np.where(own, rewards, 0.0).sum(2) / np.maximum(counts, 1), np.nan)
    noise = 1e-12 * float(np.abs(np.where(inside, rewards, 0.0)).max(initial=0.0))
    item = _normalise(of_items, (1, 2), config, noise)
    if config.credit == "shared":
        trace = np.where(own, item, 0.0).sum(2) / np.maximum(counts, 1)
    else:
        trace = _normalise(of_traces, (1,), config, noise)
        if config.item_baseline == "trace":
            item = np.where(thinks[:, None, None], _normalise(of_items, (2,), config, noise), item)
    low = np.where(inside, rewards, np.inf).min((1, 2), initial=np.inf)
    high = np.where(inside, rewards, -np.inf).max((1, 2), initial=-np.inf)
    skipped = {"equal_rewards": int((inside.any((1, 2)) & (high - low <= noise)).sum()), "not_kept": int((~kept).sum())}
    return Advantages(trace, item, {reason: count for reason, count in skipped.items() if count})


def _normalise(values: np.ndarray, axes: tuple[int, ...], config: AdvantageConfig, noise: float) -> np.ndarray:
    """Values (NaN where there is none) minus their mean over `axes`, scaled; 0 where there is none or all are equal.

    Differences up to `noise` are none: two means of the same rewards may round apart, and a scale without delta would
    blow that up.
    """
    present = np.isfinite(values)
    filled = np.where(present, values, 0.0)
    count = present.sum(axes, keepdims=True)
    centred = np.where(present, filled - filled.sum(axes, keepdims=True) / np.maximum(count, 1), 0.0)
    low = np.where(present, values, np.inf).min(axes, keepdims=True, initial=np.inf)
    high = np.where(present, values, -np.inf).max(axes, keepdims=True, initial=-np.inf)
    centred = np.where(high - low <= noise, 0.0, centred)
    if config.scale == "none":
        return centred
    if config.scale == "batch":
        spread = np.array(values[present].std(ddof=1) if present.sum() > 1 else 0.0)
    else:
        spread = np.sqrt((centred**2).sum(axes, keepdims=True) / np.maximum(count - 1, 1))
    return np.where(centred == 0, 0.0, centred / np.where(spread + config.delta > 0, spread + config.delta, 1.0))
