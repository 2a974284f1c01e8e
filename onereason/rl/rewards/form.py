"""The format reward: a legal item behind a trace in order, looked at in a subset of the rollouts.

Reinforcement squeezes probability out of what is not sampled, and illegal outputs rise. OneRec V1's remedy is to sample
some outputs of a group and to give these an advantage of 1 if they are legal, else 0 (`format_advantages`).

Notation: `G` groups, `N` traces a group, `K` items a trace.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from onereason.cognition.checks.structure import TraceForm, check_structure, check_tokens
from onereason.errors import ConfigError
from onereason.rl.rewards.base import Reward

if TYPE_CHECKING:
    from onereason.rl.records import RewardInputs

Subset = int | float | None
"""How many rollouts of a group are looked at: a number, a share, or all."""


@dataclass(frozen=True)
class Format(Reward):
    """1 for a legal item whose trace closed and is in form; 0 for others, and for those not looked at; of items.

    A group without traces has nothing to be out of form. A guided item is judged without being drawn.
    """

    subset: int | float | None = None
    """Rollouts of each group that are looked at: a whole number, or a share with a decimal point in (0, 1]; None for
    all. `1` is one rollout, `1.0` is all."""
    structure: Literal["none", "tokens", "stages"] = "none"
    """What is asked of a trace's text: `tokens`: no chat or think tokens in it; `stages`: also every heading, once, in
    order, something under it (`onereason.cognition.checks.structure`)."""
    headings: tuple[str, ...] = ()
    """The headings of the stages, for `structure: stages`."""

    def __post_init__(self) -> None:
        _check_subset(self.subset)
        if (self.structure == "stages") != bool(self.headings):
            raise ConfigError(
                f"headings ({list(self.headings)}) must be given with structure 'stages', and only then; structure is "
                f"{self.structure!r}."
            )
        self._form()

    def find_problem(self, combine: str, num_levels: int | None = None, num_items: int | None = None) -> str | None:
        if combine == "product" and self.subset is not None and not _is_all(self.subset):
            return (
                f"subset ({self.subset}) would make a product 0 for every rollout that is not looked at; leave subset "
                "out, or set combine: sum."
            )
        return None

    def __call__(self, inputs: RewardInputs) -> np.ndarray:
        return self.judge(inputs, format_subset(inputs, self.subset) | (inputs.valid & ~inputs.rolled_out))

    def judge(self, inputs: RewardInputs, looked_at: np.ndarray) -> np.ndarray:
        """1 for what is in form among items that are looked at (bool `[G, N, K]`), float64 `[G, N, K]`."""
        in_form = inputs.closed
        if self.structure != "none":
            asked = looked_at.any(-1) & inputs.closed & inputs.thinks[:, None]
            in_form = in_form & (self._check_texts(inputs, asked) | ~inputs.thinks[:, None])
        return (looked_at & inputs.legal & inputs.valid & in_form[..., None]).astype(np.float64)

    def _check_texts(self, inputs: RewardInputs, asked: np.ndarray) -> np.ndarray:
        """bool `[G, N]`; True selects traces that are asked for and pass."""
        form = self._form()
        passed = np.zeros(asked.shape, bool)
        for group, trace in np.argwhere(asked):
            text = inputs.traces[group][trace]
            passed[group, trace] = not (check_tokens(text) if form is None else check_structure(text, form))
        return passed

    def _form(self) -> TraceForm | None:
        if not self.headings:
            return None
        # The think budget bounds a trace's length already.
        return TraceForm(self.headings, candidates_in=None, min_length=0, max_length=sys.maxsize)


def format_subset(inputs: RewardInputs, subset: Subset = None) -> np.ndarray:
    """bool `[G, N, K]`; True selects the rollouts of each group that a format reward looks at.

    They are drawn among those rolled out, by `inputs.seed` and the group's place, all equally likely.

    Args:
        subset: a whole number of rollouts (all where a group has fewer), or a share with a decimal point in (0, 1] (to
            the nearest number, at least one); None for all.
    """
    _check_subset(subset)
    if subset is None or _is_all(subset):
        return inputs.rolled_out.copy()
    num_groups = len(inputs.valid)
    valid = inputs.rolled_out.reshape(num_groups, inputs.shape[1] * inputs.shape[2])
    asked = np.full(num_groups, subset) if isinstance(subset, int) else np.maximum(np.rint(valid.sum(1) * subset), 1)
    draws = np.random.default_rng(inputs.seed).random(valid.shape)
    rank = np.where(valid, draws, 2.0).argsort(1).argsort(1)  # 2 lies behind every draw
    return ((rank < asked[:, None]) & valid).reshape(inputs.shape)


def format_advantages(inputs: RewardInputs, subset: Subset, form: Format | None = None) -> np.ndarray:
    """Advantages of the format reward, float64 `[G, N, K]`: 1 where looked at and in form, else 0.

    They are not normalised inside the group (OneRec V1, format reward): add them to the normalised advantages of the
    other rewards. `format_subset` with the same arguments tells a 0 that was looked at from one that was not.

    Args:
        subset: see `format_subset`.
        form: what is asked of a trace's text; by default nothing. Its own subset is not used.
    """
    form = form or Format()
    return form.judge(inputs, format_subset(inputs, subset))


def _is_all(subset: int | float) -> bool:
    return isinstance(subset, float) and subset == 1.0


def _check_subset(subset: Subset) -> None:
    if subset is None:
        return
    whole = isinstance(subset, int) and not isinstance(subset, bool) and subset >= 1
    if not (whole or (isinstance(subset, float) and 0 < subset <= 1)):
        raise ConfigError(
            f"subset must be a whole number of rollouts from 1 on, or a share in (0, 1], got {subset!r}; leave it out "
            "for all."
        )
