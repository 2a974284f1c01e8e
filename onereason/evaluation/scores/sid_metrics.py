"""Metrics of beams as code sequences, and of what a whole run of recommendations looks like.

Codes stand in arrays of integers: codes of the format or their token ids, -1 where a beam does not exist. A target is
its codes. Beams and targets are of one domain, as they are where the begin token is forced.

Notation: `E` examples, `K` beams (the first is the best), `L` levels, `T` targets of all examples, `k` cut-off, `N`
items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onereason.itemic.collisions import bucket_ids

# -- accuracy -------------------------------------------------------------------------------------------------------


def position_accuracy(sequences: np.ndarray, targets: Sequence[np.ndarray]) -> np.ndarray:
    """1 where the best beam's code equals the first target's at a level, else 0; float64 `[E, L]`.

    The token accuracies of the OneReason benchmark. Every level is compared by itself: a level may agree below one
    that does not (`prefix_recall_at_k` asks for whole prefixes). No beam and no target give 0.

    Args:
        sequences: `[E, K, L]`.
        targets: `E` arrays `[t, L]`, in the order in which they came.
    """
    flat, example = _flatten(sequences, targets)
    first = np.full((len(sequences), sequences.shape[2]), -1, np.int64)
    starts = np.flatnonzero(np.r_[True, example[1:] != example[:-1]][: len(example)])
    first[example[starts]] = flat[starts]
    return ((sequences[:, 0] == first) & (first >= 0)).astype(np.float64)


def prefix_recall_at_k(sequences: np.ndarray, targets: Sequence[np.ndarray], k: int, depth: int) -> np.ndarray:
    """Recall on the first `depth` codes: distinct target prefixes that any of the first `k` beams begins with, over
    all distinct target prefixes; float64 `[E]`.

    With `depth` 1 it is the recall on the first code only of the OneReason benchmark; with `depth` `L` it is
    `recall_at_k` of sids. Beams are cut off at `k`, not distinct prefixes: several may share one. No target gives 0.

    Args:
        sequences: `[E, K, L]`.
        targets: `E` arrays `[t, L]`.
    """
    num_examples, num_beams, num_levels = sequences.shape
    if not 1 <= k <= num_beams:
        raise ValueError(f"k ({k}) must lie in 1 .. the {num_beams} beams given.")
    if not 1 <= depth <= num_levels:
        raise ValueError(f"depth ({depth}) must lie in 1 .. the {num_levels} levels given.")
    flat, example = _flatten(sequences, targets)
    beams = sequences[:, :k, :depth].reshape(-1, depth)
    exists = (beams >= 0).all(1)
    beams, of_beam = beams[exists], np.repeat(np.arange(num_examples), k)[exists]
    # One integer for an example and a prefix, equal where both are.
    ids = bucket_ids(np.concatenate([beams, flat[:, :depth]]), np.concatenate([of_beam, example]))
    wanted, first = np.unique(ids[len(beams) :], return_index=True)
    owner = example[first]
    hits = np.bincount(owner[np.isin(wanted, ids[: len(beams)])], minlength=num_examples)
    return hits / np.maximum(np.bincount(owner, minlength=num_examples), 1)


def _flatten(sequences: np.ndarray, targets: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All targets `[T, L]`, and the example of each `[T]` (int64 both)."""
    if len(targets) != len(sequences):
        raise ValueError(f"targets has {len(targets)} arrays for {len(sequences)} examples; give one an example.")
    num_levels = sequences.shape[2]
    shapes = [np.shape(t) for t in targets]
    wrong = [shape for shape in shapes if len(shape) != 2 or shape[1] != num_levels]
    if wrong:
        raise ValueError(f"targets must be arrays [targets, {num_levels}], got one of shape {wrong[0]}.")
    flat = np.concatenate([*targets, np.empty((0, num_levels), np.int64)]).astype(np.int64)
    if flat.min(initial=0) < 0:
        raise ValueError(f"targets' codes must be at least 0, got {flat.min()}.")
    return flat, np.repeat(np.arange(len(targets)), np.array([shape[0] for shape in shapes], np.int64))


# -- diversity ------------------------------------------------------------------------------------------------------


def first_code_entropy(sequences: np.ndarray) -> float:
    """Entropy in nats of the first code's distribution over all beams of all examples, `[E, K, L]`."""
    first = sequences[:, :, 0]
    return entropy(np.unique(first[first >= 0], return_counts=True)[1])


# -- what is recommended over a whole run -----------------------------------------------------------------------------


def count_recommendations(ranked: np.ndarray, num_items: int) -> np.ndarray:
    """How often each item is recommended: item indices `[E, R]`, -1 where a list ends early -> int64 `[N]`."""
    if ranked.max(initial=-1) >= num_items:
        raise ValueError(f"ranked holds item {ranked.max()}, but num_items is {num_items}; give the catalog's length.")
    return np.bincount(ranked[ranked >= 0], minlength=num_items)


def coverage(counts: np.ndarray) -> float:
    """Share of the items that are recommended at all, of `count_recommendations` `[N]`.

    Catalog coverage (Ge, Delgado-Battenfeld and Jannach 2010, section 3). No item gives 0.
    """
    return float((counts > 0).mean()) if len(counts) else 0.0


def gini(counts: np.ndarray) -> float:
    """How unevenly recommendations fall on items, of `count_recommendations` `[N]`: 0 is even, near 1 is one item only.

    `sum over i of (2 i - N - 1) x_i / (N sum x)` with the counts `x` ascending and `i` from 1: half the relative mean
    difference, the Gini coefficient (Fleder and Hosanagar 2009, section 3, for recommendations). Items that are never
    recommended count; with no recommendation it is 0.
    """
    ordered = np.sort(counts).astype(np.float64)
    total = ordered.sum()
    steps = 2 * np.arange(1, len(ordered) + 1) - len(ordered) - 1
    return float(steps @ ordered / (len(ordered) * total)) if total > 0 else 0.0


def entropy(counts: np.ndarray) -> float:
    """`-sum p ln p` in nats of `p = counts / sum(counts)`; 0 where nothing is counted (Shannon 1948)."""
    present = counts[counts > 0]
    share = present / present.sum()
    return float(-(share * np.log(share)).sum()) + 0.0  # no -0.0
