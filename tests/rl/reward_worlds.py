"""Rollouts as rewards see them, made by hand or drawn.

Notation: `G` groups, `N` traces a group, `K` items a trace, `L` levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onereason.rl.records import RewardInputs


def make_inputs(candidates: Any, positives: Sequence[Any] | None = None, **more: Any) -> RewardInputs:
    """Candidates `[G, N, K, L]`, all of them rolled out; those with -1 are no items of the catalog.

    Everything else is empty, or of closed traces, where `more` does not say it.
    """
    codes = np.asarray(candidates, np.int64)
    groups, traces, _, levels = codes.shape
    valid = np.asarray(more.pop("valid", np.ones(codes.shape[:3], bool)), bool)
    fields: dict[str, Any] = {
        "legal": valid & (codes >= 0).all(-1),
        "positives": [np.reshape(p, (-1, levels)) for p in positives or [[]] * groups],
        "histories": [np.empty((0, levels), np.int64)] * groups,
        "domains": ["video"] * groups,
        "history_domains": [[]] * groups,
        "thinks": np.ones(groups, bool),
        "closed": np.ones((groups, traces), bool),
        "trace_lengths": np.ones((groups, traces), np.int64),
        "traces": [["a thought"] * traces] * groups,
        "cited": [[np.empty((0, levels), np.int64)] * traces] * groups,
        "cited_domains": [[[]] * traces] * groups,
    }
    return RewardInputs(codes, valid, **(fields | more))


def draw_inputs(seed: int, levels: int = 3, codes: int = 3, **more: Any) -> RewardInputs:
    """Five groups of four traces with six items: few codes, so that much agrees; illegal and missing items; up to four
    positives, among them none at all and one without codes.
    """
    rng = np.random.default_rng(seed)
    candidates = rng.integers(0, codes, (5, 4, 6, levels))
    candidates[rng.random((5, 4, 6)) < 0.2] = -1
    valid = rng.random((5, 4, 6)) < 0.8
    positives = [rng.integers(0, codes, (number, levels)) for number in (1, 4, 0, 2, 3)]
    positives[3][0] = -1
    return make_inputs(candidates, positives, valid=valid, **more)


def first_codes(inputs: RewardInputs, factor: float = 1.0) -> np.ndarray:
    """A reward of one's own: each item's first code."""
    return factor * inputs.candidates[..., 0]


def of_traces(inputs: RewardInputs) -> np.ndarray:
    """A reward of one's own that is one of traces, `[G, N]`: their lengths."""
    return inputs.trace_lengths


def odd(inputs: RewardInputs, value: float = np.nan, group: int = 0) -> np.ndarray:
    """1 everywhere, but `value` at one item of a group."""
    rewards = np.ones(inputs.shape)
    rewards[group, 0, 0] = value
    return rewards


def untellable(inputs: RewardInputs) -> np.ndarray:
    """NaN exactly where nothing was rolled out, else 1."""
    return np.where(inputs.valid, 1.0, np.nan)


def too_few(inputs: RewardInputs) -> np.ndarray:
    return np.ones(inputs.shape[0])


def words(inputs: RewardInputs) -> list[str]:
    return ["good", "bad"]


NOTHING = 3
