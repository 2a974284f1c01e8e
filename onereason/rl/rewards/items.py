"""Rewards that compare rolled-out items with the user's positives, or with each other.

Positives and candidates are of the domain asked for (see `RewardInputs`), so that equal codes are the same item.

Notation: `G` groups, `N` traces a group, `K` items a trace, `L` levels, `P` positives of a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from onereason.errors import ConfigError
from onereason.itemic.matching import common_prefix_levels, first_code_diversity, matching_levels
from onereason.rl.rewards.base import Reward, codes_of_positives, spread_over_items

if TYPE_CHECKING:
    from onereason.rl.records import RewardInputs

THREE_LEVELS = (0.3, 0.6, 1.0)
"""What `graded` gives for 1, 2 and 3 levels of 3."""


def best_levels(inputs: RewardInputs, match: Literal["prefix", "position"] = "prefix") -> np.ndarray:
    """The most levels in which an item agrees with any positive: int64 `[G, N, K]`, 0 .. L.

    `prefix` counts levels from the first one on; `position` counts each by itself. 0 where nothing was rolled out, an
    item is not in the catalog, or the group has no positive.
    """
    count = common_prefix_levels if match == "prefix" else matching_levels
    best = np.zeros(inputs.shape, np.int64)
    for group, candidates in enumerate(inputs.candidates):  # one at a time: one user may have thousands of positives
        positives = codes_of_positives(inputs, group)
        best[group] = count(candidates, positives).max(-1, initial=0)  # [N, K, P] -> [N, K]
    return np.where(inputs.valid, best, 0)


@dataclass(frozen=True)
class RolloutBeam(Reward):
    """The matching levels of the best candidate of a trace: max over its items and the positives; of traces.

    OneRec-Think, section 3: traces whose beams come near a positive earn something where all would miss it.
    """

    needs_positives: ClassVar[bool] = True

    match: Literal["prefix", "position"] = "prefix"
    """`prefix`: levels that agree from the first one on; `position`: levels that agree, each by itself."""
    normalise: bool = False
    """Divides by the number of levels, so that a hit gives 1 instead of L."""

    def __call__(self, inputs: RewardInputs) -> np.ndarray:
        levels = best_levels(inputs, self.match) / (inputs.candidates.shape[-1] if self.normalise else 1)
        own = np.where(inputs.rolled_out, levels, 0.0).max(-1, initial=0.0)  # [G, N]
        return spread_over_items(own, inputs, levels.max(-1, initial=0.0))


@dataclass(frozen=True)
class Hit(Reward):
    """1 for an item in the user's positive set, else 0; of items (OneReason, R_rule of Eq. 10)."""

    needs_positives: ClassVar[bool] = True

    def __call__(self, inputs: RewardInputs) -> np.ndarray:
        return (best_levels(inputs) == inputs.candidates.shape[-1]).astype(np.float64)


@dataclass(frozen=True)
class Graded(Reward):
    """An item's best common prefix with a positive, as a grade; of items. No level in common gives 0."""

    needs_positives: ClassVar[bool] = True

    levels: tuple[float, ...] | None = None
    """The grade for 1, 2 .. L levels, from 0 to 1 and never falling. None takes 0.3, 0.6, 1 for three levels, and what
    lies between these, on straight lines from 0, at `l / L` for others."""

    def __post_init__(self) -> None:
        if self.levels is None:
            return
        if not self.levels or any(not low <= high for low, high in pairwise((0.0, *self.levels, 1.0))):
            raise ConfigError(
                f"levels must be grades from 0 to 1 that never fall, one a level, got {list(self.levels)}; e.g. "
                f"{list(THREE_LEVELS)} for three."
            )

    def find_problem(self, combine: str, num_levels: int | None = None, num_items: int | None = None) -> str | None:
        if self.levels is None or num_levels is None or len(self.levels) == num_levels:
            return None
        return (
            f"levels holds {len(self.levels)} grades, but sids have {num_levels} levels; give {num_levels} grades, or "
            "leave levels out."
        )

    def grades(self, num_levels: int) -> np.ndarray:
        """The grade for 0 .. L levels, float64 `[L + 1]`."""
        if self.levels is not None:
            return np.array([0.0, *self.levels])
        known = np.arange(len(THREE_LEVELS) + 1) / len(THREE_LEVELS)
        return np.interp(np.arange(num_levels + 1) / num_levels, known, (0.0, *THREE_LEVELS))

    def __call__(self, inputs: RewardInputs) -> np.ndarray:
        return self.grades(inputs.candidates.shape[-1])[best_levels(inputs)]


@dataclass(frozen=True)
class Diversity(Reward):
    """`R_div = max(0, m - 1) / (K - 1)`, `m` the distinct first codes among a trace's items; of traces (Eq. 11).

    `K` is the number of items asked for. Items outside the catalog have no codes and add nothing to `m`. With one item
    a trace there is nothing to spread: it is 0, and refused in a product.
    """

    def find_problem(self, combine: str, num_levels: int | None = None, num_items: int | None = None) -> str | None:
        if combine == "product" and num_items == 1:
            return (
                "with one item a trace the first codes cannot spread, and the product would be 0 everywhere; roll out "
                "at least 2 items a trace, or leave the term out."
            )
        return None

    def __call__(self, inputs: RewardInputs) -> np.ndarray:
        own, present = (
            first_code_diversity(np.where(there[..., None], inputs.candidates, -1))
            for there in (inputs.rolled_out, inputs.valid)
        )
        return spread_over_items(own, inputs, present)
