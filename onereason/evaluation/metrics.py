"""Ranking metrics as pure functions of hits.

A hit matrix says at which ranks an example's list holds one of its targets; every metric is a function of it and of
how many targets there are. Items and sids are ranked alike: give item indices for item level, trie leaves for sid
level.

Notation: `E` examples, `R` ranks (the first is the best), `k` cut-off.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def compute_hits(ranked: np.ndarray, targets: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Where ranked lists hold their targets.

    Args:
        ranked: ids `[E, R]`, distinct inside a row; -1 where a list ends early.
        targets: `E` arrays of ids; repeated ids count once.

    Returns:
        hits bool `[E, R]` and the number of distinct targets int64 `[E]`.
    """
    counts = np.array([len(t) for t in targets], dtype=np.int64)
    flat = np.concatenate([*targets, np.empty(0, np.int64)]).astype(np.int64)
    span = int(max(ranked.max(initial=0), flat.max(initial=0))) + 1
    keys = np.unique(np.repeat(np.arange(len(counts)), counts) * span + flat)
    wanted = np.bincount(keys // span, minlength=len(counts)).astype(np.int64)
    rows = np.arange(len(ranked))[:, None] * span
    return (ranked >= 0) & np.isin(rows + ranked, keys), wanted


def recall_at_k(hits: np.ndarray, num_targets: np.ndarray, k: int) -> np.ndarray:
    """Targets found among the first `k`, over all targets: `|hits in 1..k| / num_targets`, float64 `[E]`.

    With one target it is 1 or 0, what the literature on next-item recommendation calls Recall@k or HitRate@k
    (TIGER, Rajput et al. 2023, section 4; SASRec, Kang and McAuley 2018, section IV-C). No target gives 0.
    """
    _check_cutoff(hits, k)
    return hits[:, :k].sum(1) / np.maximum(num_targets, 1)


def ndcg_at_k(hits: np.ndarray, num_targets: np.ndarray, k: int) -> np.ndarray:
    """Discounted gain over the ideal one, with binary relevance, float64 `[E]`.

    `DCG@k = sum over ranks r <= k of hit_r / log2(r + 1)`; the ideal list has its `min(k, num_targets)` targets first
    (Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques"). With one target at rank `r` it
    is `1 / log2(r + 1)`. No target gives 0.
    """
    _check_cutoff(hits, k)
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(num_targets, k)]
    return (hits[:, :k] @ discount) / np.where(ideal > 0, ideal, 1)


def mrr_at_k(hits: np.ndarray, k: int) -> np.ndarray:
    """`1 / rank` of the first hit among the first `k`, 0 without one, float64 `[E]` (Voorhees 1999, TREC-8 QA)."""
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


def _check_cutoff(hits: np.ndarray, k: int) -> None:
    if not 1 <= k <= hits.shape[1]:
        raise ValueError(f"k ({k}) must lie in 1 .. the {hits.shape[1]} ranks given.")
