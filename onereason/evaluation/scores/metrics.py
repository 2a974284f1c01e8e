"""Ranking metrics as pure functions of hits.

A hit matrix says at which ranks an example's list holds one of its targets; most metrics are a function of it and of
how many targets there are. Two ask which target was hit, and are functions of the targets' ranks. Items and sids are
ranked alike: give item indices for item level, trie leaves for sid level.

Notation: `E` examples, `R` ranks (the first is the best), `T` targets of all examples, `k` cut-off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TargetRanks:
    """At which rank each target stands; build it with `compute_target_ranks`.

    Attributes:
        ranks: int64 `[T]`, 1 is the best, 0 where the list lacks the target.
        offsets: int64 `[E + 1]`; the targets of example `e` are `offsets[e] .. offsets[e + 1] - 1`, in the order given.
        distinct: bool `[T]`; False on a target that stands earlier in the same example's targets.
        num_ranks: `R`.
    """

    ranks: np.ndarray
    offsets: np.ndarray
    distinct: np.ndarray
    num_ranks: int


def compute_hits(ranked: np.ndarray, targets: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Where ranked lists hold their targets.

    Args:
        ranked: ids `[E, R]`, distinct inside a row; -1 where a list ends early.
        targets: `E` arrays of ids, 0 or more; repeated ids count once.

    Returns:
        hits bool `[E, R]` and the number of distinct targets int64 `[E]`.
    """
    counts, flat = _flatten(ranked, targets)
    span = int(max(ranked.max(initial=0), flat.max(initial=0))) + 1
    keys = np.unique(np.repeat(np.arange(len(counts)), counts) * span + flat)
    wanted = np.bincount(keys // span, minlength=len(counts)).astype(np.int64)
    rows = np.arange(len(ranked))[:, None] * span
    return (ranked >= 0) & np.isin(rows + ranked, keys), wanted


def compute_target_ranks(ranked: np.ndarray, targets: Sequence[np.ndarray]) -> TargetRanks:
    """At which rank every target stands, without a loop over examples.

    Args:
        ranked: ids `[E, R]`, -1 where a list ends early. Of an id that stands twice in a row, the better rank counts.
        targets: `E` arrays of ids, 0 or more, in the order in which they came.
    """
    counts, flat = _flatten(ranked, targets)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    span = int(max(ranked.max(initial=0), flat.max(initial=0))) + 1
    wanted = np.repeat(np.arange(len(counts)), counts) * span + flat  # [T]
    distinct = np.zeros(len(flat), bool)
    distinct[np.unique(wanted, return_index=True)[1]] = True

    row, rank = np.nonzero(ranked >= 0)
    keys = row * span + ranked[row, rank]
    order = np.argsort(keys, kind="stable")  # equal keys stay in the order of their ranks
    keys, rank = keys[order], rank[order]
    place = np.searchsorted(keys, wanted)
    found = place < len(keys)
    found[found] = keys[place[found]] == wanted[found]
    ranks = np.zeros(len(flat), np.int64)
    ranks[found] = rank[place[found]] + 1
    return TargetRanks(ranks, offsets, distinct, ranked.shape[1])


def pass_at_k(hits: np.ndarray, k: int) -> np.ndarray:
    """1 where any of the first `k` is a target, else 0, float64 `[E]` (`pass@k` of the OneReason benchmark)."""
    _check_cutoff(hits.shape[1], k)
    return np.asarray(hits[:, :k].any(1), np.float64)


def position1_pass_at_k(targets: TargetRanks, k: int) -> np.ndarray:
    """1 where the first target of the example's list is among the first `k`, else 0, float64 `[E]`.

    `position1_pass@k` of the OneReason benchmark: with targets in the order of time, whether the very next item is
    found. No target gives 0.
    """
    _check_cutoff(targets.num_ranks, k)
    some = np.diff(targets.offsets) > 0
    first = targets.ranks[targets.offsets[:-1][some]]
    passed = np.zeros(len(some))
    passed[some] = (first >= 1) & (first <= k)
    return passed


def weighted_recall_at_k(targets: TargetRanks, weights: Sequence[np.ndarray], k: int) -> np.ndarray:
    """Recall in which a target counts by a signal such as plays or seconds watched, float64 `[E]`.

    `sum of the weights of targets in 1..k / sum of the weights of all targets` (the OneReason benchmark's recalls
    weighted by play count, duration and incremental value). A repeated target counts once, by its first weight.
    Weights that sum to 0, and no target, give 0.

    Args:
        weights: `E` arrays beside the targets: finite numbers, 0 or more (0 where a signal is missing).

    Raises:
        ValueError: weights that do not fit the targets.
    """
    _check_cutoff(targets.num_ranks, k)
    counts = np.diff(targets.offsets)
    given = np.array([len(w) for w in weights], dtype=np.int64)
    if len(given) != len(counts):
        raise ValueError(f"weights has {len(given)} arrays for {len(counts)} examples; give one an example.")
    if (given != counts).any():
        e = int(np.flatnonzero(given != counts)[0])
        raise ValueError(f"weights of example {e}: {given[e]} for {counts[e]} targets; give one a target.")
    weight = np.concatenate([*weights, np.empty(0)]).astype(np.float64)
    wrong = ~(np.isfinite(weight) & (weight >= 0))
    if wrong.any():
        raise ValueError(f"weights must be finite and at least 0, got {weight[wrong][0]}; use 0 where none is known.")
    weight = weight * targets.distinct
    hit = (targets.ranks >= 1) & (targets.ranks <= k)
    example = np.repeat(np.arange(len(counts)), counts)
    total = np.bincount(example, weight, minlength=len(counts))
    reached = np.bincount(example, weight * hit, minlength=len(counts))
    return reached / np.where(total > 0, total, 1)


def validity_at_k(legal: np.ndarray, k: int, num_generated: np.ndarray | None = None) -> np.ndarray:
    """Share of the first `k` ranks that hold a legal id, float64 `[E]` (`sid_validity@k` of the OneReason benchmark).

    Args:
        legal: bool `[E, R]`, True where a generated sequence is the sid of an item in the catalog.
        num_generated: `[E]`, sequences that came back, `R` by default. Where fewer than `k` came back the share is
            over them; where none did it is 0.
    """
    _check_cutoff(legal.shape[1], k)
    counted = np.full(len(legal), k) if num_generated is None else np.minimum(num_generated, k)
    return legal[:, :k].sum(1) / np.maximum(counted, 1)


def recall_at_k(hits: np.ndarray, num_targets: np.ndarray, k: int) -> np.ndarray:
    """Targets found among the first `k`, over all targets: `|hits in 1..k| / num_targets`, float64 `[E]`.

    With one target it is 1 or 0, what the literature on next-item recommendation calls Recall@k or HitRate@k
    (TIGER, Rajput et al. 2023, section 4; SASRec, Kang and McAuley 2018, section IV-C). No target gives 0.
    """
    _check_cutoff(hits.shape[1], k)
    return hits[:, :k].sum(1) / np.maximum(num_targets, 1)


def ndcg_at_k(hits: np.ndarray, num_targets: np.ndarray, k: int) -> np.ndarray:
    """Discounted gain over the ideal one, with binary relevance, float64 `[E]`.

    `DCG@k = sum over ranks r <= k of hit_r / log2(r + 1)`; the ideal list has its `min(k, num_targets)` targets first
    (Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques"). With one target at rank `r` it
    is `1 / log2(r + 1)`. No target gives 0.
    """
    _check_cutoff(hits.shape[1], k)
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(num_targets, k)]
    return (hits[:, :k] @ discount) / np.where(ideal > 0, ideal, 1)


def mrr_at_k(hits: np.ndarray, k: int) -> np.ndarray:
    """`1 / rank` of the first hit among the first `k`, 0 without one, float64 `[E]` (Voorhees 1999, TREC-8 QA)."""
    _check_cutoff(hits.shape[1], k)
    rank = first_hit_rank(hits[:, :k])
    return np.where(rank > 0, 1 / np.maximum(rank, 1), 0.0)


def first_hit_rank(hits: np.ndarray) -> np.ndarray:
    """Rank of the first hit (1 is the best), 0 where there is none, int64 `[E]`."""
    return np.where(hits.any(1), hits.argmax(1) + 1, 0) if hits.shape[1] else np.zeros(len(hits), np.int64)


def compute_metrics(hits: np.ndarray, num_targets: np.ndarray, cutoffs: Sequence[int]) -> dict[str, float]:
    """Means over examples: `recall_at_k` and `ndcg_at_k` for each cut-off, and `mrr_at_k` for the largest.

    Without examples every mean is 0; the number of examples stands beside it in the results.
    """
    values: dict[str, np.ndarray] = {}
    for k in cutoffs:
        values[f"recall_at_{k}"] = recall_at_k(hits, num_targets, k)
    for k in cutoffs:
        values[f"ndcg_at_{k}"] = ndcg_at_k(hits, num_targets, k)
    values[f"mrr_at_{max(cutoffs)}"] = mrr_at_k(hits, max(cutoffs))
    return {name: float(v.mean()) if len(v) else 0.0 for name, v in values.items()}


def paired_bootstrap(
    first: np.ndarray, second: np.ndarray, seed: int = 0, draws: int = 1000, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean difference `first - second` of paired values `[E]`, and its bootstrap percentile interval.

    Examples are drawn with replacement, both systems on the same draw (Koehn 2004, section 4). Equal differences are
    drawn together as multinomial counts, so that the cost does not grow with `draws * E`.

    Returns:
        (difference, low, high); zeros without examples.
    """
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    if len(difference) == 0:
        return 0.0, 0.0, 0.0
    values, counts = np.unique(difference, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(difference), counts / len(difference), size=draws)
    means = drawn @ values / len(difference)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(difference.mean()), float(low), float(high)


def _flatten(ranked: np.ndarray, targets: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """How many targets each example has `[E]`, and all targets `[T]` (int64 both)."""
    if len(targets) != len(ranked):
        raise ValueError(f"targets has {len(targets)} arrays for {len(ranked)} ranked lists; give one a list.")
    counts = np.array([len(t) for t in targets], dtype=np.int64)
    flat = np.concatenate([*targets, np.empty(0, np.int64)]).astype(np.int64)
    if flat.min(initial=0) < 0:  # it would be looked for in the list of the example before
        raise ValueError(f"target ids must be at least 0, got {flat.min()}; give a target no list can hold a new id.")
    return counts, flat


def _check_cutoff(num_ranks: int, k: int) -> None:
    if not 1 <= k <= num_ranks:
        raise ValueError(f"k ({k}) must lie in 1 .. the {num_ranks} ranks given.")
