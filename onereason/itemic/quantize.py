"""RQ-KMeans: vectors -> codes, level by level on residuals.

Level 0 clusters the vectors; each further level clusters what the levels before left over, so codes run from coarse to
fine. Source: OneRec technical report (2025), section on the tokenizer (residual k-means instead of a learned RQ-VAE).

Notation: `N` vectors, `D` dimensions, `L` levels, `C_l` codes of level `l`, `K_l <= C_l` codes that have a centroid.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onereason.errors import CatalogError, DataError

BATCH_SIZE = 16_384
"""Vectors handled at once outside k-means itself; bounds the working memory."""


@dataclass(frozen=True)
class Codebooks:
    """Centroids of every level.

    Attributes:
        centroids: `L` float32 arrays `[C_l, D]`; rows from `num_fitted[l]` on are zero and belong to unassigned codes.
        num_fitted: `K_l`, codes with a centroid; less than `C_l` where there were fewer distinct vectors than codes.
    """

    centroids: tuple[np.ndarray, ...]
    num_fitted: tuple[int, ...]

    @property
    def num_levels(self) -> int:
        return len(self.centroids)

    @property
    def codes_per_level(self) -> tuple[int, ...]:
        return tuple(len(c) for c in self.centroids)

    @property
    def dim(self) -> int:
        return self.centroids[0].shape[1]

    def save(self, path: str | Path) -> None:
        """Writes the fitted rows as `.npz` (no pickle); the shape of every level is beside them."""
        arrays: dict[str, Any] = {
            f"level_{lv}": c[:k] for lv, (c, k) in enumerate(zip(self.centroids, self.num_fitted, strict=True))
        }
        with Path(path).open("wb") as handle:
            np.savez(handle, codes_per_level=np.array(self.codes_per_level, dtype=np.int64), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Codebooks:
        """Reads what `save` wrote; `CatalogError` where the file is missing or malformed."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                sizes = arrays["codes_per_level"].tolist()
                fitted = [arrays[f"level_{level}"] for level in range(len(sizes))]
            return cls(
                tuple(_pad(centroids, size) for centroids, size in zip(fitted, sizes, strict=True)),
                tuple(len(centroids) for centroids in fitted),
            )
        except (OSError, KeyError, ValueError) as error:
            raise CatalogError(
                f"{path} cannot be read as codebooks ({error}); make them with `onereason tokenize`."
            ) from error


@dataclass(frozen=True)
class Encoding:
    """What `encode` returns.

    Attributes:
        codes: int32 `[N, L]`.
        errors: float32 `[N, L]`, squared length of the residual that is left after each level.
    """

    codes: np.ndarray
    errors: np.ndarray


def fit_rq_kmeans(
    vectors: np.ndarray,
    codes_per_level: Sequence[int],
    *,
    seed: int = 0,
    iterations: int = 20,
    tolerance: float = 3e-4,
    max_points_per_centroid: int = 256,
    progress: bool = False,
) -> Codebooks:
    """Fits one codebook a level on the residuals of the levels before.

    Args:
        vectors: `[N, D]`, any float type, finite.
        codes_per_level: `C_l` of each level.
        seed: level `l` runs k-means with `seed + l`.
        iterations: k-means iterations a level, at most.
        tolerance: a level stops when an iteration lowers its error by less than this share.
        max_points_per_centroid: k-means sees a sample of at most this many vectors a code; all are encoded.
        progress: shows a progress bar when stderr is a terminal.

    With at most `C_l` distinct residuals, each becomes a centroid of its own and the other codes stay unassigned.

    Raises:
        DataError: `vectors` is not a finite, non-empty `[N, D]` array.
    """
    from rich.console import Console
    from rich.progress import Progress

    residuals = np.array(check_vectors(vectors), dtype=np.float32, order="C")  # [N, D], a copy
    centroids, num_fitted = [], []
    with Progress(console=Console(stderr=True), disable=not (progress and sys.stderr.isatty())) as bar:
        task = bar.add_task("RQ-KMeans", total=len(codes_per_level))
        for level, size in enumerate(codes_per_level):
            fitted = _fit_level(residuals, int(size), seed + level, iterations, tolerance, max_points_per_centroid)
            if level < len(codes_per_level) - 1:
                for start in range(0, len(residuals), BATCH_SIZE):
                    part = residuals[start : start + BATCH_SIZE]
                    part -= fitted[nearest_centroids(fitted, part)]
            centroids.append(_pad(fitted, int(size)))
            num_fitted.append(len(fitted))
            bar.advance(task)
    return Codebooks(tuple(centroids), tuple(num_fitted))


def _fit_level(
    residuals: np.ndarray, size: int, seed: int, iterations: int, tolerance: float, max_points: int
) -> np.ndarray:
    """Centroids `[K, D]`, `K <= size`, of one level."""
    import faiss

    # Equal rows have equal projections, so few distinct projections mean few distinct rows (checked exactly below).
    direction = np.random.default_rng(seed).standard_normal(residuals.shape[1], dtype=np.float32)
    if len(np.unique(residuals @ direction)) <= size:
        distinct = np.unique(residuals, axis=0)
        if len(distinct) <= size:
            return distinct
    kmeans: Any = faiss.Kmeans(
        residuals.shape[1],
        size,
        niter=1,
        nredo=1,
        seed=seed,
        spherical=False,
        verbose=False,
        # faiss writes a warning straight to stderr below this many points a centroid; the report says it instead.
        min_points_per_centroid=1,
        max_points_per_centroid=max_points,
    )
    # One iteration a call, so that stopping does not depend on the version of faiss. The seed draws the same sample in
    # every call.
    error = float(kmeans.train(residuals))
    centroids = np.array(kmeans.centroids, dtype=np.float32)
    for _ in range(iterations - 1):
        last, error = error, float(kmeans.train(residuals, init_centroids=centroids))
        centroids = np.array(kmeans.centroids, dtype=np.float32)
        if last - error < tolerance * last:
            break
    return centroids


def encode(codebooks: Codebooks, vectors: np.ndarray, batch_size: int = BATCH_SIZE) -> Encoding:
    """The nearest centroid of every level, greedily, in batches.

    Raises:
        DataError: the vectors have another dimension than the codebooks, or are not finite.
    """
    vectors = check_vectors(vectors, codebooks.dim)
    codes = np.empty((len(vectors), codebooks.num_levels), dtype=np.int32)
    errors = np.empty((len(vectors), codebooks.num_levels), dtype=np.float32)
    indexes = [_index(c[:k]) for c, k in zip(codebooks.centroids, codebooks.num_fitted, strict=True)]
    for start in range(0, len(vectors), batch_size):
        rows = slice(start, start + batch_size)
        residuals = np.array(vectors[rows], dtype=np.float32, order="C")  # [B, D], a copy
        for level, index in enumerate(indexes):
            chosen = index.search(residuals, 1)[1][:, 0]
            residuals -= codebooks.centroids[level][chosen]
            codes[rows, level] = chosen
            errors[rows, level] = squared_length(residuals)
    return Encoding(codes, errors)


def compute_errors(codebooks: Codebooks, vectors: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Squared residual lengths `[N, L]` of given codes `[N, L]`, whether or not they are the nearest ones."""
    errors = np.empty(codes.shape, dtype=np.float32)
    for start in range(0, len(vectors), BATCH_SIZE):
        rows = slice(start, start + BATCH_SIZE)
        residuals = np.array(vectors[rows], dtype=np.float32)
        for level, centroids in enumerate(codebooks.centroids):
            residuals -= centroids[codes[rows, level]]
            errors[rows, level] = squared_length(residuals)
    return errors


def reconstruct(codebooks: Codebooks, codes: np.ndarray) -> np.ndarray:
    """The sum of the codes' centroids: float32 `[N, D]` for codes `[N, L]`."""
    result = np.zeros((len(codes), codebooks.dim), dtype=np.float32)
    for level, centroids in enumerate(codebooks.centroids):
        result += centroids[codes[:, level]]
    return result


def compute_variance(vectors: np.ndarray) -> float:
    """Sum over the vectors of the squared distance to their mean: what relative errors are divided by."""
    mean = np.mean(vectors, axis=0, dtype=np.float64).astype(np.float32)
    parts = (vectors[start : start + BATCH_SIZE] - mean for start in range(0, len(vectors), BATCH_SIZE))
    return float(sum(squared_length(part).sum(dtype=np.float64) for part in parts))


def nearest_centroids(centroids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Index of the nearest centroid `[N]` (int64) by Euclidean distance."""
    return _index(centroids).search(np.ascontiguousarray(vectors, dtype=np.float32), 1)[1][:, 0]


def squared_length(vectors: np.ndarray) -> np.ndarray:
    """Squared Euclidean length of each row."""
    return np.einsum("nd,nd->n", vectors, vectors)


def check_vectors(vectors: np.ndarray, dim: int | None = None, what: str = "the vectors") -> np.ndarray:
    """`DataError` unless `vectors` is a non-empty, finite `[N, D]` array (with `D == dim` where given)."""
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or 0 in vectors.shape or not np.issubdtype(vectors.dtype, np.floating):
        raise DataError(f"{what}: expected a float array [N, D], got {vectors.dtype} with shape {list(vectors.shape)}.")
    if dim is not None and vectors.shape[1] != dim:
        raise DataError(
            f"{what} have {vectors.shape[1]} dimensions, the tokenizer was fitted with {dim}; "
            "use the embedding it was fitted with."
        )
    for start in range(0, len(vectors), BATCH_SIZE):
        finite = np.isfinite(vectors[start : start + BATCH_SIZE]).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise DataError(f"{what}: row {row} holds a value that is not finite; remove or repair it.")
    return vectors


def _index(centroids: np.ndarray):
    import faiss

    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(np.ascontiguousarray(centroids, dtype=np.float32))
    return index


def _pad(centroids: np.ndarray, size: int) -> np.ndarray:
    if len(centroids) == size:
        return centroids
    return np.concatenate([centroids, np.zeros((size - len(centroids), centroids.shape[1]), np.float32)])
