"""What a reward is: a pure function of `RewardInputs`, with its options as fields.

Notation: `G` groups, `N` traces a group, `K` items a trace, `L` levels, `P` positives of a group.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from onereason.errors import RewardError

if TYPE_CHECKING:  # records hold tensors, rewards none: torch stays out
    from onereason.rl.records import RewardInputs


class Reward(ABC):
    """A reward: a frozen dataclass whose fields are its options.

    Attributes:
        needs_positives: True where a group without a positive item cannot be judged.
    """

    needs_positives: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, inputs: RewardInputs) -> np.ndarray:
        """The reward of each item, float64 `[G, N, K]`; 0 where none was rolled out.

        A reward of traces says the same for all items of a trace, but for a guided one (`spread_over_items`). NaN means
        that it cannot be known.
        """

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the `RewardInputs.values` that it needs."""
        return ()

    def find_problem(self, combine: str, num_levels: int | None = None, num_items: int | None = None) -> str | None:
        """Why the reward cannot be used, and the way out; None where it can.

        Args:
            combine: `product` or `sum`.
            num_levels: L, None where not known yet.
            num_items: K, None where not known yet.
        """
        return None


def spread_over_items(of_traces: np.ndarray, inputs: RewardInputs, of_guides: np.ndarray | None = None) -> np.ndarray:
    """Values of traces `[G, N]` at all their items: float64 `[G, N, K]`, 0 where there is none.

    Args:
        of_guides: `[G, N]`, what a trace's guided item gets, where a value depends on the items: a trace does not
            answer for its guide, while the guide is judged with what was rolled out beside it. None takes `of_traces`.
    """
    values = np.asarray(of_traces, np.float64)[..., None]
    if of_guides is not None:
        values = np.where(inputs.rolled_out, values, np.asarray(of_guides, np.float64)[..., None])
    return np.where(inputs.valid, values, 0.0)


def codes_of_positives(inputs: RewardInputs, group: int) -> np.ndarray:
    """A group's positives that have codes, int64 `[P, L]`."""
    positives = np.asarray(inputs.positives[group], np.int64).reshape(-1, inputs.candidates.shape[-1])
    return positives[(positives >= 0).all(1)]


def read_value(inputs: RewardInputs, name: str, reward: str, way_out: str) -> np.ndarray:
    """`inputs.values[name]`, float64 `[G, N, K]`.

    Raises:
        RewardError: it is not there, or has another shape.
    """
    if name not in inputs.values:
        known = ", ".join(inputs.values) or "none"
        raise RewardError(f"reward {reward}: the rollouts have no value {name!r} (values given: {known}); {way_out}")
    value = np.asarray(inputs.values[name], np.float64)
    if value.shape != inputs.shape:
        raise RewardError(
            f"reward {reward}: value {name!r} has shape {value.shape}, expected {inputs.shape} (groups, traces, "
            "items); give one number an item."
        )
    return np.where(inputs.valid, value, 0.0)
