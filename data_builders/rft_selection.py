"""Which verified hits become rows: hard prompts are not drowned by easy ones, nor domains by others.

Pure functions over a few numbers a hit. A trace that nearly repeats another one of its prompt is found by its tokens.

Notation: `R` hits of all prompts, `N` traces of one prompt.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onereason.errors import ConfigError

SHINGLE = 3
"""Tokens in a row that traces are compared by."""
SELECTION_OPTIONS = ("max_per_prompt", "difficulty_bins", "max_bin_share", "balance_domains", "no_think_share")
"""Arguments that decide which hits become rows, for a corpus's manifest."""


@dataclass(frozen=True)
class HitTable:
    """What a selection knows of verified hits; arrays `[R]`.

    Attributes:
        thinks: True where a trace leads to the hit.
        domain: number of the domain.
        difficulty: of the prompt, in [0, 1].
        place: 0 for the first hit of a prompt and mode, 1 for the second, ...
        key: random numbers that order hits of one place.
    """

    thinks: np.ndarray
    domain: np.ndarray
    difficulty: np.ndarray
    place: np.ndarray
    key: np.ndarray


@dataclass(frozen=True)
class Limits:
    """How many hits become rows."""

    max_per_prompt: int = 2
    """Rows of one prompt and mode."""
    difficulty_bins: int = 4
    """Bins of equal width that difficulties from 0 to 1 are cut into."""
    max_bin_share: float = 0.4
    """Rows of one bin, as a share of all that its mode and domain have before this limit."""
    balance_domains: float | None = None
    """Rows of one domain, in rows of the domain that has fewest; None takes all."""
    no_think_share: float | None = None
    """Share of a domain's rows that answer at once; None where there is one mode only."""

    def __post_init__(self) -> None:
        for name in ("max_per_prompt", "difficulty_bins"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}.")
        if not 0 < self.max_bin_share <= 1:
            raise ConfigError(f"--max-bin-share must lie above 0 and at most at 1, got {self.max_bin_share}.")
        if self.balance_domains is not None and not 1 <= self.balance_domains < math.inf:
            raise ConfigError(f"--balance-domains must be at least 1 (equal domains), got {self.balance_domains}.")
        if self.no_think_share is not None and not 0 <= self.no_think_share < 1:
            raise ConfigError(
                f"--no-think-share must be at least 0 and below 1, got {self.no_think_share}; for rows that answer at "
                "once alone use --mode no_think."
            )


def difficulty_bin(difficulty: np.ndarray | float, num_bins: int) -> np.ndarray:
    """Number of the bin of each difficulty, int64; 0 is the easiest, 1 lies in the last."""
    return np.minimum(np.floor(np.asarray(difficulty) * num_bins).astype(np.int64), num_bins - 1)


def select_hits(table: HitTable, limits: Limits) -> np.ndarray:
    """Why each hit gives no row, strings `[R]`; '' where it gives one.

    In this order: `beyond_prompt_limit`, `beyond_bin_limit` (a bin of difficulty keeps the first hits of all its
    prompts before any second one), `beyond_domain_limit`, `beyond_no_think_share`.
    """
    reasons = np.full(len(table.place), "", dtype=object)
    reasons[table.place >= limits.max_per_prompt] = "beyond_prompt_limit"
    bins = difficulty_bin(table.difficulty, limits.difficulty_bins)
    groups = [
        (table.thinks == thinks) & (table.domain == domain)
        for thinks in (True, False)
        for domain in np.unique(table.domain)
    ]
    for group in groups:
        bound = _ceil(limits.max_bin_share * (group & (reasons == "")).sum())
        for number in range(limits.difficulty_bins):
            _keep_first(reasons, table, group & (bins == number), bound, "beyond_bin_limit")
    if limits.balance_domains is not None:
        for thinks in (True, False):
            own = [group for group in groups if (table.thinks[group] == thinks).all() and (reasons[group] == "").any()]
            fewest = min([int((reasons[group] == "").sum()) for group in own], default=0)
            for group in own:
                _keep_first(reasons, table, group, _ceil(limits.balance_domains * fewest), "beyond_domain_limit")
    if limits.no_think_share is not None:
        for domain in np.unique(table.domain):
            own = table.domain == domain
            num_thinking = int((own & table.thinks & (reasons == "")).sum())
            bound = round(num_thinking * limits.no_think_share / (1 - limits.no_think_share))
            _keep_first(reasons, table, own & ~table.thinks, bound, "beyond_no_think_share")
    return reasons


def _keep_first(reasons: np.ndarray, table: HitTable, group: np.ndarray, bound: int, reason: str) -> None:
    """Gives the hits of a group a reason that stand behind the first `bound` of those that have none."""
    alive = np.flatnonzero(group & (reasons == ""))
    order = np.lexsort((table.key[alive], table.place[alive]))
    reasons[alive[order[bound:]]] = reason


def _ceil(value: float) -> int:
    """The next whole number, where rounding errors of a product do not count."""
    return math.ceil(round(value, 9))


def find_repeated(traces: Sequence[Sequence[int]], max_similarity: float) -> list[int | None]:
    """Which trace each of `N` traces repeats: the first kept one that is as similar as `max_similarity`, or None.

    Similarity is the share of runs of `SHINGLE` tokens that two traces have in common (Jaccard); 1 is the same set.

    Args:
        traces: token ids of each.
    """
    kept: list[tuple[int, set[tuple[int, ...]]]] = []
    found: list[int | None] = []
    for number, trace in enumerate(traces):
        own = _shingles(trace)
        again = next((n for n, other in kept if len(own & other) >= max_similarity * len(own | other)), None)
        found.append(again)
        if again is None:
            kept.append((number, own))
    return found


def _shingles(tokens: Sequence[int]) -> set[tuple[int, ...]]:
    """Runs of `SHINGLE` tokens; the whole of a shorter trace."""
    return {tuple(tokens[i : i + SHINGLE]) for i in range(max(1, len(tokens) - SHINGLE + 1))}


def add_selection_arguments(parser: argparse.ArgumentParser) -> None:
    """Which verified hits become rows."""
    group = parser.add_argument_group("rows out of hits (rollouts are kept: these can change without new ones)")
    add = group.add_argument
    add("--max-per-prompt", type=int, default=2, help="rows of one prompt and mode (default: %(default)s)")
    add("--difficulty-bins", type=int, default=4, help="bins of difficulty, 0 to 1 (default: %(default)s)")
    add(
        "--max-bin-share",
        type=float,
        default=0.4,
        metavar="SHARE",
        help="a bin keeps at most this share of the rows its domain had before (default: %(default)s; 1 keeps all)",
    )
    add(
        "--balance-domains",
        type=float,
        metavar="RATIO",
        help="a domain keeps at most RATIO times the rows of the smallest one; 1 makes them equal",
    )
    add(
        "--no-think-share",
        type=float,
        metavar="SHARE",
        help="share of a domain's rows that answer at once, from direct rollouts (default: 0.5; not with --mode "
        "no_think)",
    )


def limits_from_arguments(args: argparse.Namespace) -> Limits:
    """The limits that a parser with `add_selection_arguments` describes; `ConfigError` for a value out of range."""
    return Limits(**{name: getattr(args, name) for name in SELECTION_OPTIONS})
