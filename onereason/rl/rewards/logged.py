"""What logs and other models say of an item: the duration-aware reward and the P-Score.

Both read numbers that stand in `RewardInputs.values`; `look_up_logged` carries numbers of logged interactions to the
candidates that are those items.

Notation: `G` groups, `N` traces a group, `K` items a trace, `L` levels, `n` interactions, `w` watched items of one
user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

import numpy as np

from onereason.errors import ConfigError, RewardError
from onereason.itemic.format import ANY_DOMAIN
from onereason.itemic.matching import common_prefix_levels
from onereason.rl.rewards.base import Reward, read_value

if TYPE_CHECKING:
    from onereason.rl.records import RewardInputs


DURATION_AWARE, P_SCORE = "duration_aware", "p_score"
"""The names in `RewardInputs.values`."""

# -- duration -------------------------------------------------------------------------------------------------------


def play_time_quantiles(
    play_times: np.ndarray,
    durations: np.ndarray,
    watched_play_times: np.ndarray | None = None,
    watched_durations: np.ndarray | None = None,
    base: float = 2.0,
) -> np.ndarray:
    """Where a play time stands among one user's watched items of about that duration; float64 `[n]`, in [0, 1].

    `q = |{w in the bucket: play time of w <= play time}| / |bucket|`; a bucket holds the watched items of equal
    `floor(log_base(duration))` (OneRec V2, duration-aware reward): a long video is played longer without being liked
    more. NaN where the play time is missing (NaN), the duration is missing or not above 0, or the bucket is empty;
    watched items of which either is missing stand in no bucket.

    Args:
        play_times: `[n]`, in any unit.
        durations: `[n]`, of the items; seconds are usual, since bucket bounds are powers of `base` of the unit.
        watched_play_times: `[w]`, with `watched_durations` `[w]`; by default the interactions themselves.

    Raises:
        ConfigError: `base` is not a number above 1.
        ValueError: lengths differ, or only one of the watched arrays is given.
    """
    if not 1 < base < float("inf"):
        raise ConfigError(f"base must be a number above 1, got {base}; 2 doubles the duration from bucket to bucket.")
    if (watched_play_times is None) != (watched_durations is None):
        raise ValueError("watched_play_times and watched_durations go together; give both or neither.")
    play = np.asarray(play_times, np.float64)
    bucket = _buckets(play, durations, base)
    watched = play if watched_play_times is None else np.asarray(watched_play_times, np.float64)
    watched_bucket = bucket if watched_durations is None else _buckets(watched, watched_durations, base)
    known, counted = ~np.isnan(bucket), ~np.isnan(watched_bucket)
    # One integer for a bucket and a play time, in the order of both: a bucket's part of the sorted keys is its items.
    buckets = np.unique(np.concatenate([bucket[known], watched_bucket[counted]]))
    times = np.unique(np.concatenate([play[known], watched[counted]]))
    starts = np.searchsorted(buckets, bucket[known]) * len(times)
    keys = np.searchsorted(buckets, watched_bucket[counted]) * len(times) + np.searchsorted(times, watched[counted])
    keys.sort()
    low = np.searchsorted(keys, starts)
    below = np.searchsorted(keys, starts + np.searchsorted(times, play[known]), side="right") - low
    size = np.searchsorted(keys, starts + len(times)) - low
    quantiles = np.full(len(play), np.nan)
    quantiles[known] = np.where(size > 0, below / np.maximum(size, 1), np.nan)
    return quantiles


def _buckets(play_times: np.ndarray, durations: np.ndarray, base: float) -> np.ndarray:
    """The bucket of each interaction, NaN where play time or duration is missing."""
    durations = np.asarray(durations, np.float64)
    if durations.shape != play_times.shape or play_times.ndim != 1:
        raise ValueError(
            f"play times {play_times.shape} and durations {durations.shape} must be [n], one an interaction."
        )
    usable = np.isfinite(play_times) & np.isfinite(durations) & (durations > 0)
    # A bound such as 8 = 2^3 opens its bucket: without the small addition log(8) / log(2) may fall short of 3.
    return np.where(usable, np.floor(np.log(np.where(usable, durations, 1.0)) / log(base) + 1e-12), np.nan)


def label_interactions(quantiles: np.ndarray, negative: np.ndarray, threshold: float = 0.75) -> np.ndarray:
    """+1 where `q > threshold` and there is no negative feedback, -1 where there is, else 0; float64 `[n]`.

    OneRec V2, duration-aware reward. A quantile that is not known (NaN) gives 0, or -1 with negative feedback. The
    labels choose or weight positives (`label > 0`), and `look_up_logged` makes rewards of them.

    Args:
        quantiles: `[n]` of `play_time_quantiles`.
        negative: bool `[n]`; True selects interactions with explicit negative feedback.

    Raises:
        ConfigError: `threshold` is not in [0, 1).
    """
    if not 0 <= threshold < 1:
        raise ConfigError(f"threshold must lie in [0, 1), got {threshold}; 0.75 takes about the best quarter.")
    return np.where(np.asarray(negative, bool), -1.0, (np.asarray(quantiles) > threshold).astype(np.float64))


def look_up_logged(
    inputs: RewardInputs,
    codes: Sequence[np.ndarray],
    domains: Sequence[Sequence[str]],
    numbers: Sequence[np.ndarray],
    missing: float = 0.0,
) -> np.ndarray:
    """The number of the logged item that a candidate is, float64 `[G, N, K]`; of the newest where it was logged twice.

    What is looked up goes into `RewardInputs.values`.

    Args:
        codes: `G` arrays `[n, L]`, of each user's logged items, oldest first.
        domains: `G` lists of `n` domains; only those of the domain asked for can be candidates.
        numbers: `G` arrays `[n]`, e.g. of `label_interactions`.
        missing: for candidates that are no logged item.

    Raises:
        ValueError: the numbers of groups or of interactions differ.
    """
    num_levels = inputs.candidates.shape[-1]
    found = np.full(inputs.shape, missing, np.float64)
    groups = zip(inputs.candidates, inputs.domains, codes, domains, numbers, strict=True)
    for group, (candidates, domain, logged, names, values) in enumerate(groups):
        if not len(logged) == len(names) == len(values):
            raise ValueError(f"group {group}: {len(logged)} items, {len(names)} domains, {len(values)} numbers.")
        asked = np.array([name in (domain, ANY_DOMAIN) or domain == ANY_DOMAIN for name in names], bool)
        logged, values = np.reshape(logged, (-1, num_levels))[asked], np.asarray(values, np.float64)[asked]
        if len(values):
            same = common_prefix_levels(candidates, logged) == num_levels  # [N, K, n]
            newest = len(values) - 1 - same[..., ::-1].argmax(-1)
            found[group] = np.where(same.any(-1), values[newest], missing)
    return np.where(inputs.valid, found, 0.0)


@dataclass(frozen=True)
class DurationAware(Reward):
    """What the user's log says of an item: +1 played long for its duration, -1 disliked, 0 else; of items.

    OneRec V2. The labels are looked up beforehand: `values["duration_aware"] = look_up_logged(..., label_interactions(
    play_time_quantiles(...), negative))`.
    """

    value: str = DURATION_AWARE
    """The name in `RewardInputs.values`."""

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.value,)

    def __call__(self, inputs: RewardInputs) -> np.ndarray:
        labels = read_value(
            inputs, self.value, "duration_aware", "put labels of logged items there (look_up_logged), or drop the term."
        )
        wrong = labels[~np.isin(labels, (-1.0, 0.0, 1.0)) & ~np.isnan(labels)]
        if len(wrong):
            raise RewardError(
                f"reward duration_aware: value {self.value!r} holds {wrong[0]:g}, expected labels -1, 0 and 1; make "
                "them with label_interactions."
            )
        return labels


# -- P-Score --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PScore(Reward):
    """The personal score another model gives each item, as it stands; of items (OneRec V1, P-Score)."""

    value: str = P_SCORE
    """The name in `RewardInputs.values`."""

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.value,)

    def __call__(self, inputs: RewardInputs) -> np.ndarray:
        return read_value(
            inputs, self.value, "p_score", "let a ranking model score the candidates first, or drop the term."
        )
