"""Collaborative representation: which items are consumed close to each other, as vectors beside the text vectors.

OneRec V1 pulls the embeddings of collaboratively similar items together with a contrastive loss before it quantizes
them. This module is the light, training-free form of that alignment: item-item co-occurrence in training histories ->
positive pointwise mutual information -> truncated SVD, then a weighted concatenation with the text vectors. Factorised
PPMI is what skip-gram training converges to (Levy and Goldberg, 2014), so the vectors say what a trained item-to-item
model would say, without a GPU. Only training histories may be given: nothing of validation or test belongs here.

Notation: `N` items, `D` text dimensions, `E` collaborative dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from onereason.errors import ConfigError, DataError

if TYPE_CHECKING:
    import scipy.sparse as sp

CONTEXT_SMOOTHING = 0.75
"""Exponent on context counts; damps the pull of rare items (Levy, Goldberg and Dagan, 2015)."""


def count_cooccurrences(
    histories: Sequence[np.ndarray], num_items: int, window: int = 10, decay: float = 0.5
) -> sp.csr_matrix:
    """Symmetric weighted counts `[N, N]`: a pair `d` steps apart in a history adds `d ** -decay`, up to `d = window`.

    An item next to itself says nothing about neighbours and is left out.
    """
    import scipy.sparse as sp

    if window < 1:
        raise ConfigError(f"window must be at least 1, got {window}.")
    counts = sp.csr_matrix((num_items, num_items), dtype=np.float64)
    if not len(histories):
        return counts
    items = np.concatenate([np.asarray(h, dtype=np.int64) for h in histories])
    users = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
    if len(items) and (items.min() < 0 or items.max() >= num_items):
        raise DataError(
            f"histories hold the item indices {items.min()} to {items.max()}, expected 0 to {num_items - 1}."
        )
    for distance in range(1, window + 1):
        left, right = items[:-distance], items[distance:]
        near = (users[:-distance] == users[distance:]) & (left != right)
        weight = np.full(int(near.sum()), float(distance) ** -decay)
        counts = counts + sp.csr_matrix((weight, (left[near], right[near])), shape=counts.shape)
    return (counts + counts.T).tocsr()


def compute_ppmi(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Positive pointwise mutual information `max(0, log(p(i, j) / (p(i) p'(j))))` with smoothed contexts p'."""
    import scipy.sparse as sp

    pairs = counts.tocoo()
    rows = np.asarray(counts.sum(axis=1)).reshape(-1)
    contexts = rows**CONTEXT_SMOOTHING
    with np.errstate(divide="ignore"):
        values = np.log(pairs.data * contexts.sum() / (rows[pairs.row] * contexts[pairs.col]))
    result = sp.csr_matrix((np.maximum(values, 0.0), (pairs.row, pairs.col)), shape=counts.shape)
    result.eliminate_zeros()
    return result


def build_collaborative_vectors(
    histories: Sequence[np.ndarray], num_items: int, dim: int = 128, window: int = 10, decay: float = 0.5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Collaborative vectors and which items have evidence.

    Args:
        histories: item indices in time order, one array a user, training part only.
        num_items: `N`.
        dim: largest `E`; fewer where the items with evidence are fewer.

    Returns:
        float32 `[N, E]` (rows have length 1, or 0 without evidence) and bool `[N]` (True: the item has evidence).

    Raises:
        DataError: no two different items ever occur together, so there is nothing to learn from.
    """
    from sklearn.decomposition import TruncatedSVD

    ppmi = compute_ppmi(count_cooccurrences(histories, num_items, window, decay))
    has_evidence = np.diff(ppmi.indptr) > 0
    if not has_evidence.any():
        raise DataError(
            "the training histories hold no two items that occur together more often than by chance, so there is no "
            "collaborative evidence; use --collaborative-weight 0."
        )
    dim = min(dim, int(has_evidence.sum()) - 1) or 1
    svd = TruncatedSVD(dim, random_state=seed)
    # Dividing by sqrt(singular value) gives U S^(1/2): each direction counts as in a trained factorisation.
    scores = svd.fit_transform(ppmi)
    vectors = scores / np.sqrt(np.maximum(svd.singular_values_, 1e-12))
    vectors[~has_evidence] = 0.0
    return normalize_rows(vectors.astype(np.float32)), has_evidence


def fill_from_neighbours(
    text: np.ndarray, known_text: np.ndarray, known_vectors: np.ndarray, num_neighbours: int = 10
) -> np.ndarray:
    """The mean collaborative vector of the items nearest in text, at length 1: float32 `[n, E]`.

    Args:
        text: `[n, D]`, items without evidence.
        known_text: `[M, D]`, items with evidence; by cosine similarity.
        known_vectors: `[M, E]`, their collaborative vectors.
    """
    import faiss

    if len(text) == 0:
        return np.empty((0, known_vectors.shape[1]), dtype=np.float32)
    index = faiss.IndexFlatIP(known_text.shape[1])
    index.add(normalize_rows(known_text))
    _, neighbours = index.search(normalize_rows(text), min(num_neighbours, len(known_text)))  # [n, k]
    return normalize_rows(known_vectors[neighbours].mean(axis=1))


def fuse(text: np.ndarray, collaborative: np.ndarray | None, weight: float) -> np.ndarray:
    """`[N, D + E]` float32: unit text vectors times sqrt(1 - weight), unit collaborative vectors times sqrt(weight).

    The dot product of two rows is then `(1 - weight) * cos(text) + weight * cos(collaborative)`. With weight 0 the
    result is the unit text vectors alone.
    """
    if not 0.0 <= weight <= 1.0:
        raise ConfigError(f"collaborative weight must lie between 0 and 1, got {weight}.")
    if weight == 0.0:
        return normalize_rows(text)
    if collaborative is None or len(collaborative) != len(text):
        raise ConfigError("a collaborative weight above 0 needs one collaborative vector an item.")
    blocks = (normalize_rows(text) * np.sqrt(1.0 - weight), normalize_rows(collaborative) * np.sqrt(weight))
    return np.concatenate(blocks, axis=1, dtype=np.float32)


def normalize_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows at Euclidean length 1 (float32, contiguous); zero rows stay zero."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)
