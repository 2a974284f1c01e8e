"""Rewards of a trace: what it makes of the answer, what it cites, how long it is.

Notation: `G` groups, `N` traces a group, `K` items a trace, `L` levels, `C` citations and `H` history items of all
groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from math import isfinite
from typing import TYPE_CHECKING, Literal

import numpy as np

from onereason.errors import ConfigError
from onereason.itemic.collisions import bucket_ids
from onereason.itemic.format import ANY_DOMAIN
from onereason.rl.rewards.base import Reward, read_value, spread_over_items

if TYPE_CHECKING:
    from onereason.rl.records import RewardInputs


@dataclass(frozen=True)
class HistoryGrounding(Reward):
    """Legal cited items that are in the history, over cited items: legality times history validity; of traces.

    OneReason, Eq. 24-25. An item cited again does not count again, so that repeating one truth gains nothing. Of what
    is no item of the catalog every citation counts. Equal codes of another domain are another item.
    """

    no_citation: float = 0.0
    """What a trace that cites nothing gets."""
    max_cited: int | None = None
    """From this many distinct cited items on, the reward falls as `max_cited / cited`: otherwise copying the whole
    history is the surest way to 1. None for no bound."""

    def __post_init__(self) -> None:
        if not isfinite(self.no_citation):
            raise ConfigError(f"no_citation must be a number, got {self.no_citation}.")
        if self.max_cited is not None and self.max_cited < 1:
            raise ConfigError(f"max_cited must be at least 1 (or left out for no bound), got {self.max_cited}.")

    def __call__(self, inputs: RewardInputs) -> np.ndarray:
        grounded, cited = count_grounded(inputs)
        share = grounded / np.maximum(cited, 1)
        if self.max_cited is not None:
            share *= np.minimum(self.max_cited / np.maximum(cited, 1), 1)
        return spread_over_items(np.where(cited > 0, share, self.no_citation), inputs)


def count_grounded(inputs: RewardInputs) -> tuple[np.ndarray, np.ndarray]:
    """Distinct cited items that are in the history, and all distinct cited items; of each trace, int64 `[G, N]`."""
    num_groups, num_traces, _ = inputs.shape
    num_levels, size = inputs.candidates.shape[-1], num_groups * num_traces
    cited, trace = _concatenate([c for of_group in inputs.cited for c in of_group], num_levels)  # [C, L], [C]
    shown, group = _concatenate(inputs.histories, num_levels)  # [H, L], [H]
    cited_domains = [name for of_group in inputs.cited_domains for names in of_group for name in names]
    shown_domains = [name for names in inputs.history_domains for name in names]

    exists, known = (cited >= 0).all(1), (shown >= 0).all(1)
    present = np.concatenate([exists, known])
    # What is no item has no domain, and must not speak for the others.
    domain, num_domains = _number(list(compress([*cited_domains, *shown_domains], present)))
    owner = np.concatenate([trace // max(num_traces, 1), group])[present] * num_domains + domain
    ids = bucket_ids(np.concatenate([cited, shown])[present], owner)  # of group, domain and codes
    legal_trace, legal_ids = trace[exists], ids[: exists.sum()]
    first = np.unique(legal_trace * len(ids) + legal_ids, return_index=True)[1]  # each item once a trace
    in_history = np.isin(legal_ids[first], ids[exists.sum() :])
    grounded = np.bincount(legal_trace[first][in_history], minlength=size)
    distinct = np.bincount(legal_trace[first], minlength=size) + np.bincount(trace[~exists], minlength=size)
    return grounded.reshape(num_groups, num_traces), distinct.reshape(num_groups, num_traces)


def _concatenate(arrays: Sequence[np.ndarray], num_levels: int) -> tuple[np.ndarray, np.ndarray]:
    """All rows, and the number of the array each comes from."""
    rows = [np.asarray(array, np.int64).reshape(-1, num_levels) for array in arrays]
    lengths = np.array([len(array) for array in rows], np.int64)
    return np.concatenate([*rows, np.empty((0, num_levels), np.int64)]), np.repeat(np.arange(len(rows)), lengths)


def _number(domains: Sequence[str]) -> tuple[np.ndarray, int]:
    """One integer a domain; 0 for all where patterns do not tell domains apart."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(domains))}
    if ANY_DOMAIN in numbers:
        return np.zeros(len(domains), np.int64), 1
    return np.array([numbers[name] for name in domains], np.int64), max(len(numbers), 1)


@dataclass(frozen=True)
class AnswerLikelihood(Reward):
    """How likely the next item is behind a trace, `log p(y | x, c)`; of traces.

    What dLL measures (OneReason, Eq. 22), as a reward: it tells the traces of a group apart also where no item hits, as
    reinforcement without a verifier does (Zhou et al. 2025).
    """

    kind: Literal["log", "probability"] = "log"
    """`log`: nats, the better known answers count as much as the unlikely ones; `probability`: their exponential."""
    least: float = -30.0
    """Nats below which nothing falls."""

    def __post_init__(self) -> None:
        if not self.least < 0:
            raise ConfigError(f"least must be below 0 nats, got {self.least}.")

    @property
    def reads(self) -> tuple[str, ...]:
        return (ANSWER_LIKELIHOOD,)

    def find_problem(self, combine: str, num_levels: int | None = None, num_items: int | None = None) -> str | None:
        if combine == "product" and self.kind == "log":
            return "log-likelihoods are negative and fit no product; set kind: probability, or combine: sum."
        return None

    def __call__(self, inputs: RewardInputs) -> np.ndarray:
        way_out = "roll out with answers, or drop the term."
        logs = np.maximum(read_value(inputs, ANSWER_LIKELIHOOD, "answer_likelihood", way_out), self.least)
        return np.where(inputs.valid, logs if self.kind == "log" else np.exp(logs), 0.0)


ANSWER_LIKELIHOOD = "answer_loglikelihood"
"""In `RewardInputs.values`: of the next item behind each trace, in nats, the same at all items of a trace."""


@dataclass(frozen=True)
class TraceLength(Reward):
    """0 up to a soft budget, -1 from a hard one on, a straight line between; of traces.

    DAPO's soft overlong punishment (Yu et al. 2025, Eq. 13): `hard` is its maximum length, `hard - soft` its cache.
    """

    soft: int
    """Trace tokens up to which nothing is taken away."""
    hard: int
    """Trace tokens from which on everything is taken away; usually the think budget."""
    kind: Literal["penalty", "factor"] = "penalty"
    """`penalty` runs from 0 to -1, for a sum; `factor` from 1 to 0, for a product."""

    def __post_init__(self) -> None:
        if not 0 <= self.soft < self.hard:
            raise ConfigError(f"soft ({self.soft}) must be at least 0 and below hard ({self.hard}).")

    def find_problem(self, combine: str, num_levels: int | None = None, num_items: int | None = None) -> str | None:
        if combine == "product" and self.kind == "penalty":
            return "a penalty of 0 would make a product 0 for every short trace; set kind: factor, or combine: sum."
        return None

    def __call__(self, inputs: RewardInputs) -> np.ndarray:
        over = np.clip((inputs.trace_lengths - self.soft) / (self.hard - self.soft), 0.0, 1.0)
        return spread_over_items(-over + 0.0 if self.kind == "penalty" else 1.0 - over, inputs)
