"""Objectives: what a logged signal says of an interaction, as yes (1), no (0) or unknown.

| rule | 1 where | 0 where |
|---|---|---|
| `positive` | the signal is above 0 | it is 0 or below |
| `zero` | the signal is 0 (or below) | it is above 0: for signals that speak against an item |
| `at_least` | the signal reaches `threshold` | it does not |
| `quantile` | the signal exceeds the quantile `quantile` of its duration bucket | it does not |
| `interaction` | always: that it was logged is the signal | never; its negatives are drawn |

A null signal leaves the objective unknown: it teaches nothing, and is counted.

Notation: `P` interactions, `O` objectives, `B` duration buckets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from onereason.data.schema import SIGNAL_PREFIX
from onereason.data.timelines import sort_by_user
from onereason.errors import ConfigError, DataError


@dataclass(frozen=True)
class Objective:
    """One objective: which signal, read by which rule, against which negatives."""

    rule: Literal["positive", "zero", "at_least", "quantile", "interaction"] = "positive"
    """How the signal is read, see the table above."""
    signal: str = ""
    """Column of the interactions, with or without `signal_`; none for rule `interaction`."""
    threshold: float | None = None
    """Rule `at_least`: the value that has to be reached."""
    quantile: float = 0.5
    """Rule `quantile`: the share of its duration bucket that a signal has to exceed."""
    duration: str = ""
    """Rule `quantile`: the column that says how long the item is."""
    num_buckets: int = 10
    """Rule `quantile`: buckets of equal size that the training part's durations are cut into."""
    negatives: Literal["exposed", "sampled", "both"] = "exposed"
    """What stands against the positives: exposures without the signal, items drawn at random, or both. `sampled` is for
    logs that hold positives only."""
    weight: float = 1.0
    """Share in the label of the fused score, relative to the other objectives; 0 leaves it out."""
    pos_weight: float | Literal["balanced"] = 1.0
    """How often a positive counts in the tower's loss; `balanced` makes both classes count the same."""

    def __post_init__(self) -> None:
        if self.rule == "interaction":
            if self.signal:
                raise ConfigError(f"rule interaction reads no signal, got signal {self.signal!r}; remove it.")
            if self.negatives != "sampled":
                raise ConfigError(
                    f"rule interaction has no negatives of its own: negatives must be sampled, got {self.negatives}."
                )
        elif not self.signal:
            raise ConfigError(f"rule {self.rule} reads a signal: name its column, e.g. signal: like.")
        if (self.threshold is not None) != (self.rule == "at_least"):
            raise ConfigError(f"threshold belongs to rule at_least, got {self.threshold} with rule {self.rule}.")
        if bool(self.duration) != (self.rule == "quantile"):
            raise ConfigError(
                f"duration belongs to rule quantile (e.g. duration: duration_seconds), got {self.duration!r} with "
                f"rule {self.rule}."
            )
        if not 0 < self.quantile < 1:
            raise ConfigError(f"quantile must lie between 0 and 1, got {self.quantile}.")
        if self.num_buckets < 1:
            raise ConfigError(f"num_buckets must be at least 1, got {self.num_buckets}.")
        if not 0 <= self.weight < np.inf:
            raise ConfigError(f"weight must be 0 or more, got {self.weight}.")
        if self.pos_weight != "balanced" and not 0 < float(self.pos_weight) < np.inf:
            raise ConfigError(f"pos_weight must be above 0, or balanced, got {self.pos_weight}.")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it reads."""
        return tuple(SIGNAL_PREFIX + n.removeprefix(SIGNAL_PREFIX) for n in (self.signal, self.duration) if n)


@dataclass(frozen=True)
class DurationBuckets:
    """Durations in buckets, and what a signal has to exceed in each.

    Attributes:
        edges: float64 `[B - 1]`, rising; a duration equal to an edge lies above it.
        thresholds: float64 `[B]`.
    """

    edges: np.ndarray
    thresholds: np.ndarray

    def exceeds(self, values: np.ndarray, durations: np.ndarray) -> np.ndarray:
        """Bool `[P]`: values above their bucket's threshold."""
        return values > self.thresholds[np.searchsorted(self.edges, durations, side="right")]


def fit_duration_buckets(
    values: np.ndarray, durations: np.ndarray, quantile: float, num_buckets: int
) -> DurationBuckets:
    """Buckets of equal size over `durations` `[P]`, and the quantile of the `values` `[P]` inside each.

    Durations that stand at several edges make fewer, larger buckets: an item of one length is never cut apart.
    """
    shares = np.arange(1, num_buckets) / num_buckets
    edges = np.quantile(durations, shares, method="higher") if len(shares) else np.zeros(0)
    edges = np.unique(edges[edges > durations.min()])
    bucket = np.searchsorted(edges, durations, side="right")
    # Every edge is a duration that occurs, so no bucket is empty.
    thresholds = np.array([np.quantile(values[bucket == b], quantile) for b in range(len(edges) + 1)])
    return DurationBuckets(edges, thresholds)


@dataclass(frozen=True)
class Labels:
    """What the log says of each interaction.

    Attributes:
        names: `O` objectives.
        values: float32 `[P, O]`, 1 or 0; 0 where unknown.
        known: bool `[P, O]`; True selects labels that teach.
        sampled: bool `[P, O]`; True selects the objectives for which items drawn beside the interaction are negatives.
        counts: objective -> `positives`, `negatives` (exposed ones), `null`, over the training part.
        buckets: objective -> its duration buckets, for rule `quantile`.
    """

    names: tuple[str, ...]
    values: np.ndarray
    known: np.ndarray
    sampled: np.ndarray
    counts: Mapping[str, Mapping[str, int]]
    buckets: Mapping[str, DurationBuckets]


def read_signals(interactions: pl.DataFrame, objectives: Mapping[str, Objective], source: str) -> dict[str, np.ndarray]:
    """The columns that the objectives read, float64 `[P]` in the order of timelines, NaN where null.

    Raises:
        ConfigError: no objective, or a column that the interactions do not have (those they have are named).
    """
    if not objectives:
        raise ConfigError("objectives is empty: name at least one, e.g. objectives.like={signal: like}.")
    known = [c for c in interactions.columns if c.startswith(SIGNAL_PREFIX)]
    for name, objective in objectives.items():
        for column in objective.columns:
            if not known:
                raise ConfigError(
                    f"objective {name!r} reads {column}, but the interactions of {source} log no signal; use rule "
                    "interaction with negatives sampled."
                )
            if column not in known:
                raise ConfigError(
                    f"objective {name!r} reads {column}, which the interactions of {source} do not have; they have "
                    f"{', '.join(known)}."
                )
    columns = dict.fromkeys(c for objective in objectives.values() for c in objective.columns)
    table = sort_by_user(interactions)
    return {c: table[c].cast(pl.Float64).fill_null(np.nan).to_numpy() for c in columns}


def build_labels(objectives: Mapping[str, Objective], signals: Mapping[str, np.ndarray], train: np.ndarray) -> Labels:
    """Labels of all interactions; thresholds of duration buckets come from the training part.

    Args:
        signals: column -> float64 `[P]`, NaN where null.
        train: bool `[P]`; True selects the training part.

    Raises:
        DataError: an objective without positives, or without negatives, in the training part.
    """
    values, known, sampled = (np.zeros((len(train), len(objectives)), dtype=bool) for _ in range(3))
    counts, buckets = {}, {}
    for column, (name, objective) in enumerate(objectives.items()):
        read = [signals[c] for c in objective.columns]
        logged = np.ones(len(train), dtype=bool)
        for signal in read:
            logged &= np.isfinite(signal)
        found = counts[name] = {"null": int((train & ~logged).sum())}
        if not (train & logged).any():
            raise DataError(
                f"objective {name!r}: {' or '.join(objective.columns) or 'every interaction'} is null in all "
                f"{int(train.sum())} training interactions; remove the objective."
            )
        positive = np.zeros(len(train), dtype=bool)
        if objective.rule == "quantile":
            fit = train & logged
            buckets[name] = fit_duration_buckets(read[0][fit], read[1][fit], objective.quantile, objective.num_buckets)
            positive[logged] = buckets[name].exceeds(read[0][logged], read[1][logged])
        else:
            positive[logged] = _apply_rule(objective, read)[logged] if read else True
        exposed = logged if objective.negatives != "sampled" else positive
        values[:, column], known[:, column] = positive, exposed
        sampled[:, column] = exposed & (objective.negatives != "exposed")
        found["positives"] = int((train & positive).sum())
        found["negatives"] = int((train & exposed & ~positive).sum())
        _refuse_one_class(name, objective, found)
    return Labels(tuple(objectives), values.astype(np.float32), known, sampled, counts, buckets)


def _apply_rule(objective: Objective, read: Sequence[np.ndarray]) -> np.ndarray:
    if objective.rule == "at_least":
        return read[0] >= objective.threshold
    return read[0] > 0 if objective.rule == "positive" else read[0] <= 0


def _refuse_one_class(name: str, objective: Objective, counts: Mapping[str, int]) -> None:
    what = f"objective {name!r} ({objective.rule} of {objective.columns[0]})" if objective.columns else name
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    if not counts["positives"]:
        raise DataError(f"{what} has no positive in the training part ({told}); choose another rule or remove it.")
    if objective.negatives == "exposed" and not counts["negatives"]:
        raise DataError(
            f"{what} has no negative in the training part ({told}): the log holds positives only; use negatives "
            "sampled."
        )
