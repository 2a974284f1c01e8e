"""Pruned contexts: the items of a history that matter for a target, g(S, y) (OneRec-Think, reasoning activation).

Three views of relevance, each from 0 to 1, alone or mixed: the levels of the semantic ids' common prefix, the cosine of
the items' vectors, and how often the two items stand near each other in training timelines.

Notation: `n` items of a history, `M` (history item, target) pairs of many histories, `L` levels, `D` vector size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from onereason.cognition.associations import count_window, look_up, symmetrize
from onereason.errors import ConfigError

VIEWS = ("prefix", "embedding", "co_occurrence")
BLOCK_PAIRS = 8192
"""Pairs whose vectors are held at once."""


@dataclass(frozen=True)
class RelevanceWeights:
    """How much each view counts; they need not sum to 1."""

    prefix: float = 1.0
    """Levels of the common prefix over all levels."""
    embedding: float = 0.0
    """Cosine of the items' vectors, negative ones as 0."""
    co_occurrence: float = 1.0
    """Times the two stand near each other over the times either does (Jaccard index)."""

    def __post_init__(self) -> None:
        values = [getattr(self, view) for view in VIEWS]
        if any(not 0 <= value < float("inf") for value in values) or not sum(values):
            raise ConfigError(f"relevance weights must be numbers from 0 with one above it, got {self}.")


@dataclass(frozen=True)
class Relevance:
    """What pairs are scored with.

    Attributes:
        weights: of the views.
        codes: int32 `[N, L]`, the catalog's.
        vectors: float32 `[N, D]` of length 1 (or 0), where the embedding takes part.
        near: int64 CSR `[N, N]`, symmetric counts of items near each other, where co-occurrence takes part.
        totals: int64 `[N]`, row sums of `near`.
    """

    weights: RelevanceWeights
    codes: np.ndarray
    vectors: np.ndarray | None = None
    near: sp.csr_matrix | None = None
    totals: np.ndarray | None = None

    def score(self, items: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Relevance of each pair, float64 `[M]` in 0 .. 1."""
        weights = self.weights
        score = np.zeros(len(items))
        if weights.prefix:
            score += weights.prefix * prefix_similarity(self.codes[items], self.codes[targets])
        if weights.embedding:
            assert self.vectors is not None
            score += weights.embedding * np.clip(cosine_similarity(self.vectors, items, targets), 0, None)
        if weights.co_occurrence:
            assert self.near is not None and self.totals is not None
            both = look_up(self.near, items, targets)
            either = self.totals[items] + self.totals[targets] - both
            score += weights.co_occurrence * both / np.maximum(either, 1)
        return score / sum(getattr(weights, view) for view in VIEWS)


def build_relevance(
    weights: RelevanceWeights,
    codes: np.ndarray,
    histories: tuple[np.ndarray, np.ndarray],
    vectors: np.ndarray | None = None,
    window: int = 4,
) -> Relevance:
    """Gathers what the weighted views need.

    Args:
        codes: int `[N, L]`.
        histories: `items` and `offsets` of all training timelines (`associations.flatten_histories`).
        vectors: float `[N, D]`, any length.
        window: steps up to which items are near.

    Raises:
        ConfigError: the embedding has a weight and there are no vectors, or not one a item.
    """
    near = totals = None
    if weights.embedding:
        if vectors is None or len(vectors) != len(codes):
            found = "none" if vectors is None else f"{len(vectors)} for {len(codes)} items"
            raise ConfigError(
                f"relevance by embedding needs the items' vectors, got {found}; make the catalog with "
                "`onereason tokenize --save-vectors`, or give embedding weight 0."
            )
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = (vectors / np.where(lengths, lengths, 1)).astype(np.float32)
    if weights.co_occurrence:
        near = symmetrize(count_window(*histories, window, len(codes)))
        totals = np.asarray(near.sum(axis=1)).ravel()
    return Relevance(weights, np.asarray(codes), vectors, near, totals)


def prefix_similarity(codes: np.ndarray, target_codes: np.ndarray) -> np.ndarray:
    """Levels of the common prefix over all levels: float64 `[M]` for codes `[M, L]`."""
    return np.cumprod(codes == target_codes, axis=1).sum(1) / codes.shape[1]


def cosine_similarity(vectors: np.ndarray, items: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Cosines of pairs, float32 `[M]`, for vectors `[N, D]` of length 1; gathers `BLOCK_PAIRS` of them at once."""
    cosine = np.empty(len(items), dtype=np.float32)
    for start in range(0, len(items), BLOCK_PAIRS):
        some = slice(start, start + BLOCK_PAIRS)
        cosine[some] = np.einsum("md,md->m", vectors[items[some]], vectors[targets[some]])
    return cosine


def select_relevant(scores: np.ndarray, offsets: np.ndarray, k: int, min_score: float = 0.0) -> list[list[int]]:
    """The positions of each history's `k` most relevant items, oldest first; ties go to the newer item.

    Args:
        scores: float `[M]`, histories one after another.
        offsets: int `[E + 1]`, history `e` owns `scores[offsets[e]:offsets[e + 1]]`.
        min_score: items must score more than this, so that nothing irrelevant fills up a context.
    """
    lengths = np.diff(offsets)
    history = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(scores)) - np.repeat(offsets[:-1], lengths)
    order = np.lexsort((-place, -scores, history))
    rank = np.arange(len(order)) - np.repeat(offsets[:-1], lengths)
    kept = np.sort(order[(rank < k) & (scores[order] > min_score)])
    cuts = np.searchsorted(kept, offsets)
    places = place[kept].tolist()
    return [places[low:high] for low, high in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)]


def relevant_items(
    relevance: Relevance, histories: Sequence[np.ndarray], targets: np.ndarray, k: int
) -> list[list[int]]:
    """g(S, y) of many examples: positions in each history, oldest first, of at most `k` different items.

    Items under the target's sid are left out. An item that stands in a history several times counts where it stands
    last.
    """
    lengths = np.fromiter((len(h) for h in histories), np.int64, len(histories))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = np.concatenate([np.zeros(0, np.int64), *histories]).astype(np.int64)
    repeated = np.repeat(np.asarray(targets, np.int64), lengths)
    scores = relevance.score(items, repeated)
    scores[(relevance.codes[items] == relevance.codes[repeated]).all(1)] = 0.0  # citing the answer's tokens is a leak
    scores[~_stand_last(items, np.repeat(np.arange(len(lengths)), lengths))] = 0.0
    return select_relevant(scores, offsets, k)


def _stand_last(items: np.ndarray, history: np.ndarray) -> np.ndarray:
    """Boolean `[M]`: True where no later position of the same history holds the item."""
    order = np.lexsort((items, history))  # stable, so equal items keep their order
    ordered, of = items[order], history[order]
    last = np.ones(len(items), dtype=bool)
    last[:-1] = (ordered[1:] != ordered[:-1]) | (of[1:] != of[:-1])
    kept = np.zeros(len(items), dtype=bool)
    kept[order[last]] = True
    return kept
