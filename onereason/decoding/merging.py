"""Candidates of several searches made one list: the traces of a prompt merged, thinking raced with not thinking.

Pure functions over arrays; candidates are trie leaves (sids), -1 where a list ends early.

Notation: `B` prompts, `N` lists a prompt, `K` candidates a list, `M` candidates of the outcome.
"""

from __future__ import annotations

import numpy as np

from onereason.errors import ConfigError

MERGES = ("max", "sum", "reciprocal_rank")
RANK_CONSTANT = 60.0
"""Of reciprocal rank fusion, as published."""


def merge_candidates(
    leaves: np.ndarray, scores: np.ndarray, method: str = "sum", size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Lists of candidates `[B, N, K]` -> one list a prompt, each candidate once, the best first.

    `max` takes a candidate's best log-probability; `sum` the logarithm of its mean probability over the lists, an
    estimate of the probability with the trace marginalised out, in which a list without the candidate counts as 0;
    `reciprocal_rank` the sum of `1 / (60 + rank)` over the lists (Cormack, Clarke and Büttcher 2009, "Reciprocal rank
    fusion outperforms Condorcet"). Ties go to the candidate that comes first in the earliest list.

    Args:
        leaves: int64 `[B, N, K]`, distinct inside a list, the best first; -1 where a list ends early.
        scores: float32 `[B, N, K]`, log-probabilities.
        size: `M`; the longest outcome's by default.

    Returns:
        leaves int64 `[B, M]` (-1 fills) and scores float32 `[B, M]` (-inf fills).
    """
    if method not in MERGES:
        raise ConfigError(f"merge {method!r} is not known; use {', '.join(MERGES)}.")
    batch, num, width = leaves.shape
    valid = leaves.reshape(batch, -1) >= 0
    row = np.repeat(np.arange(batch), valid.sum(1))
    place = np.broadcast_to(np.arange(num * width), valid.shape)[valid]  # in the prompt's lists, laid end to end
    leaf = leaves.reshape(batch, -1)[valid]
    if method == "reciprocal_rank":
        value = 1 / (RANK_CONSTANT + 1 + place % width)
    else:
        value = scores.reshape(batch, -1)[valid].astype(np.float64)
    if len(row) == 0:
        return np.full((batch, size or 0), -1, np.int64), np.full((batch, size or 0), -np.inf, np.float32)
    # A candidate's values ascend: two candidates with the same values are added up alike, so that they tie.
    order = np.lexsort((value, leaf, row))
    row, leaf, value, place = row[order], leaf[order], value[order], place[order]
    opens = np.ones(len(row), bool)
    opens[1:] = (row[1:] != row[:-1]) | (leaf[1:] != leaf[:-1])
    start = np.flatnonzero(opens)
    if method == "max":
        merged = np.maximum.reduceat(value, start)
    elif method == "sum":
        merged = np.logaddexp.reduceat(value, start) - np.log(num)
    else:
        merged = np.add.reduceat(value, start)
    row, leaf, first = row[start], leaf[start], np.minimum.reduceat(place, start)
    order = np.lexsort((first, -merged, row))
    row, leaf, merged = row[order], leaf[order], merged[order]
    return _as_table(row, leaf, merged, batch, size)


def race(
    first: np.ndarray, second: np.ndarray, num_first: int, num_second: int, fill: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The first `num_first` candidates of one search, then the first `num_second` of another, each candidate once.

    The public benchmark's race takes 32 candidates of the thinking mode, then 32 of the non-thinking mode. A candidate
    both have keeps its earlier place, so the outcome may be shorter than the sum.

    Args:
        first: leaves `[B, K]`, the best first; -1 where a list ends early.
        second: leaves `[B, K']`.
        fill: what double candidates leave free is filled with the next ones of both searches, in turns.

    Returns:
        leaves int64 `[B, num_first + num_second]` (-1 fills), and from which search each comes: 0, 1, or -1.
    """
    for name, wanted, lists in (("first", num_first, first), ("second", num_second, second)):
        if not 0 <= wanted <= lists.shape[1]:
            raise ConfigError(
                f"the race takes {wanted} of the {name} search's {lists.shape[1]} candidates; raise beams."
            )
    size = num_first + num_second
    both = np.concatenate([first[:, :num_first], second[:, :num_second]], 1)
    source = np.repeat([0, 1], [num_first, num_second])
    if fill:
        rest = (first[:, num_first:], second[:, num_second:])
        place = np.concatenate([2 * np.arange(part.shape[1]) + turn for turn, part in enumerate(rest)])
        turns = np.argsort(place, kind="stable")
        both = np.concatenate([both, np.concatenate(rest, 1)[:, turns]], 1)
        source = np.concatenate([source, np.repeat([0, 1], [part.shape[1] for part in rest])[turns]])
    source = np.broadcast_to(source, both.shape)
    gone = find_repeats(both) | (both < 0)
    order = np.argsort(gone, axis=1, kind="stable")[:, :size]
    return (
        np.take_along_axis(np.where(gone, -1, both), order, 1),
        np.take_along_axis(np.where(gone, -1, source), order, 1),
    )


def find_repeats(ids: np.ndarray) -> np.ndarray:
    """Bool of the shape of ids `[B, K]`: True on an id (at least 0) that stands earlier in its row."""
    order = np.argsort(ids, axis=1, kind="stable")  # equal ids stay in the order of their places
    ordered = np.take_along_axis(ids, order, axis=1)
    again = np.zeros(ids.shape, bool)
    again[:, 1:] = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    repeated = np.empty_like(again)
    np.put_along_axis(repeated, order, again, axis=1)
    return repeated


def _as_table(
    row: np.ndarray, leaf: np.ndarray, score: np.ndarray, batch: int, size: int | None
) -> tuple[np.ndarray, np.ndarray]:
    counts = np.bincount(row, minlength=batch)
    size = int(counts.max()) if size is None else size
    position = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    inside = position < size
    leaves = np.full((batch, size), -1, np.int64)
    scores = np.full((batch, size), -np.inf, np.float32)
    leaves[row[inside], position[inside]] = leaf[inside]
    scores[row[inside], position[inside]] = score[inside]
    return leaves, scores
