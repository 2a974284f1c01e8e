"""Which labels go with which: sparse counts of what stands near what in timelines, and how surprising it is.

Timelines are flat arrays, as `onereason.data.timelines` keeps them: `labels` of all interactions, `offsets` of the
users. A label is an item index, or anything an item belongs to (`themes[items]`); a negative one is unknown and forms
no pair, while its interaction still counts as a step. Counts are directed: row `i`, column `j` says how often `j` came
after `i`. Only the training part belongs here.

Memory is that of the result, plus a block of `BLOCK_PAIRS` pairs.

Notation: `n` interactions, `U` users, `N` labels, `M` pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp

from onereason.errors import ConfigError, DataError

BLOCK_PAIRS = 4_000_000
"""Pairs that are counted at once."""

MAX_STEPS = 50
"""Steps beyond which `count_within_seconds` does not look, so that one very busy hour stays small."""


def flatten_histories(histories: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Histories one after another: int64 `items [n]` and `offsets [U + 1]`."""
    lengths = np.fromiter((len(h) for h in histories), np.int64, len(histories))
    items = np.concatenate([np.zeros(0, np.int64), *(np.asarray(h, np.int64) for h in histories)])
    return items, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


# -- counts ---------------------------------------------------------------------------------------------------------


def count_next(
    labels: np.ndarray,
    offsets: np.ndarray,
    num_labels: int | None = None,
    *,
    keep_same: bool = False,
    once_per_user: bool = False,
) -> sp.csr_matrix:
    """How often `j` stands directly after `i`: int64 CSR `[N, N]`.

    Args:
        labels: int `[n]`, oldest first inside a user; negative where unknown.
        offsets: int `[U + 1]`; user `u` owns `labels[offsets[u]:offsets[u + 1]]`.
        num_labels: `N`; by default the largest label plus one.
        keep_same: counts `i` after `i` as well.
        once_per_user: a pair counts once a user, so that a count is a number of users.

    Raises:
        DataError: offsets that do not fit the labels, or a label of `num_labels` or more.
    """
    return count_window(labels, offsets, 1, num_labels, keep_same=keep_same, once_per_user=once_per_user)


def count_window(
    labels: np.ndarray,
    offsets: np.ndarray,
    window: int,
    num_labels: int | None = None,
    *,
    different: np.ndarray | None = None,
    keep_same: bool = False,
    once_per_user: bool = False,
) -> sp.csr_matrix:
    """How often `j` stands at most `window` steps after `i`: int64 CSR `[N, N]`.

    Args:
        different: `[n]`; only pairs whose two values differ count, e.g. the domains for cross-domain pairs.
        labels, offsets, num_labels, keep_same, once_per_user: see `count_next`.

    Raises:
        ConfigError: a window below 1.
        DataError: see `count_next`.
    """
    if window < 1:
        raise ConfigError(f"window must be at least 1, got {window}.")
    return _count(labels, offsets, window, num_labels, None, 0, different, keep_same, once_per_user)


def count_within_seconds(
    labels: np.ndarray,
    offsets: np.ndarray,
    timestamps: np.ndarray,
    seconds: int,
    num_labels: int | None = None,
    *,
    max_steps: int = MAX_STEPS,
    different: np.ndarray | None = None,
    keep_same: bool = False,
    once_per_user: bool = False,
) -> sp.csr_matrix:
    """How often `j` comes after `i` by at most `seconds`, and at most `max_steps` steps: int64 CSR `[N, N]`.

    Args:
        timestamps: int `[n]`, seconds, rising inside a user.
        labels, offsets, num_labels, different, keep_same, once_per_user: see `count_window`.

    Raises:
        ConfigError: negative `seconds`, or `max_steps` below 1.
        DataError: see `count_next`; timestamps that fall inside a user.
    """
    if seconds < 0 or max_steps < 1:
        raise ConfigError(f"seconds ({seconds}) must be at least 0 and max_steps ({max_steps}) at least 1.")
    times = np.asarray(timestamps, dtype=np.int64)
    if len(times) != len(labels):
        raise DataError(f"{len(times)} timestamps for {len(labels)} interactions; give one each.")
    falls = np.diff(times) < 0
    borders = np.asarray(offsets[1:-1], dtype=np.int64)
    falls[borders[(borders > 0) & (borders < len(times))] - 1] = False
    if falls.any():
        raise DataError(f"timestamps fall inside a user's timeline, first after interaction {int(falls.argmax())}.")
    return _count(labels, offsets, max_steps, num_labels, times, seconds, different, keep_same, once_per_user)


def _count(
    labels: np.ndarray,
    offsets: np.ndarray,
    max_steps: int,
    num_labels: int | None,
    times: np.ndarray | None,
    seconds: int,
    different: np.ndarray | None,
    keep_same: bool,
    once_per_user: bool,
) -> sp.csr_matrix:
    labels, offsets = np.asarray(labels, dtype=np.int64), np.asarray(offsets, dtype=np.int64)
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(labels) or (np.diff(offsets) < 0).any():
        raise DataError(f"offsets should rise from 0 to {len(labels)} (the interactions).")
    largest = int(labels.max(initial=-1))
    size = largest + 1 if num_labels is None else num_labels
    if largest >= size:
        raise DataError(f"label {largest} is not below num_labels ({size}).")
    if different is not None and len(different) != len(labels):
        raise DataError(f"`different` has {len(different)} values for {len(labels)} interactions; give one each.")

    total = sp.csr_matrix((size, size), dtype=np.int64)
    for low, high in _user_blocks(offsets, max_steps):
        start, stop = offsets[low], offsets[high]
        users = np.repeat(np.arange(low, high), np.diff(offsets[low : high + 1]))
        part = labels[start:stop]
        pairs: list[tuple[np.ndarray, ...]] = []
        waiting = 0
        for step in range(1, min(max_steps, len(part) - 1) + 1):
            near = users[step:] == users[:-step]
            if times is not None:
                near &= times[start + step : stop] - times[start : stop - step] <= seconds
            if not near.any():  # farther steps are farther in time and reach into the next user as well
                break
            left, right = part[:-step], part[step:]
            near &= (left >= 0) & (right >= 0)
            if not keep_same:
                near &= left != right
            if different is not None:
                near &= different[start + step : stop] != different[start : stop - step]
            pairs.append((left[near], right[near], users[step:][near]))
            waiting += len(pairs[-1][0])
            if waiting > BLOCK_PAIRS and not once_per_user:  # a user with a very long timeline
                total = total + _to_matrix(pairs, size, False)
                pairs, waiting = [], 0
        if waiting:
            total = total + _to_matrix(pairs, size, once_per_user)
    total.sort_indices()
    return total


def _user_blocks(offsets: np.ndarray, max_steps: int) -> Iterator[tuple[int, int]]:
    """Ranges of users whose pairs are at most `BLOCK_PAIRS`, or single users."""
    each = max(1, BLOCK_PAIRS // max_steps)
    low = 0
    while low < len(offsets) - 1:
        high = max(low + 1, int(np.searchsorted(offsets, offsets[low] + each, side="right")) - 1)
        yield low, high
        low = high


def _to_matrix(pairs: list[tuple[np.ndarray, ...]], size: int, once_per_user: bool) -> sp.csr_matrix:
    left, right, users = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    if once_per_user:
        order = np.lexsort((users, right, left))
        left, right, users = left[order], right[order], users[order]
        first = np.ones(len(left), dtype=bool)
        first[1:] = (np.diff(left) != 0) | (np.diff(right) != 0) | (np.diff(users) != 0)
        left, right = left[first], right[first]
    return sp.csr_matrix((np.ones(len(left), dtype=np.int64), (left, right)), shape=(size, size))


def symmetrize(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Counts whatever came first: `counts + counts.T`, the diagonal once."""
    both = (counts + counts.T - sp.diags_array(counts.diagonal(), dtype=counts.dtype)).tocsr()
    both.eliminate_zeros()
    both.sort_indices()
    return sp.csr_matrix(both)


def group_counts(counts: sp.csr_matrix, groups: np.ndarray, num_groups: int | None = None) -> sp.csr_matrix:
    """Counts of groups of labels, e.g. theme-theme out of item-item: CSR `[G, G]`; negative groups fall away.

    Args:
        groups: int `[N]`, the group of each label.
    """
    groups = np.asarray(groups, dtype=np.int64)
    size = int(groups.max(initial=-1)) + 1 if num_groups is None else num_groups
    sources, targets, values = to_pairs(counts)
    left, right = groups[sources], groups[targets]
    known = (left >= 0) & (right >= 0)
    grouped = sp.csr_matrix((values[known], (left[known], right[known])), shape=(size, size))
    grouped.sort_indices()
    return grouped


def keep_at_least(counts: sp.csr_matrix, minimum: float) -> sp.csr_matrix:
    """The entries of at least `minimum` (support)."""
    kept = counts.copy()
    kept.data = np.where(kept.data >= minimum, kept.data, 0)
    kept.eliminate_zeros()
    return kept


# -- measures -------------------------------------------------------------------------------------------------------


def compute_lift(
    counts: sp.csr_matrix,
    row_totals: np.ndarray | None = None,
    column_totals: np.ndarray | None = None,
    total: float | None = None,
) -> sp.csr_matrix:
    """How much more often a pair occurs than by chance: `n_ij * n / (n_i * n_j)`, float64 where `counts` has entries.

    By default `n_i`, `n_j` and `n` are the sums of rows, columns and all counts. With counts once a user, give the
    users that have `i`, those that have `j`, and the number of users.

    Args:
        row_totals, column_totals: `[N]`.
    """
    rows = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel() if row_totals is None else np.asarray(row_totals)
    columns = (
        np.asarray(counts.sum(axis=0), dtype=np.float64).ravel() if column_totals is None else np.asarray(column_totals)
    )
    everything = float(counts.sum()) if total is None else float(total)
    result = counts.astype(np.float64)
    expected = np.repeat(rows.astype(np.float64), np.diff(counts.indptr)) * columns[counts.indices]
    result.data = result.data * everything / expected
    return result


def compute_pmi(counts: sp.csr_matrix, **totals: np.ndarray | float) -> sp.csr_matrix:
    """Pointwise mutual information, the natural logarithm of `compute_lift`; below 0 for pairs rarer than by chance.

    An entry of exactly 0 stays stored.
    """
    result = compute_lift(counts, **totals)  # type: ignore[arg-type]
    result.data = np.log(result.data)
    return result


# -- reading them ---------------------------------------------------------------------------------------------------


def to_pairs(counts: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All entries as `sources [M]`, `targets [M]`, `values [M]`, sorted by source, then target."""
    if not counts.has_sorted_indices:
        counts = counts.sorted_indices()
    sources = np.repeat(np.arange(counts.shape[0], dtype=np.int64), np.diff(counts.indptr))
    return sources, counts.indices.astype(np.int64), counts.data


def look_up(matrix: sp.csr_matrix, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The values `[M]` of pairs; 0 where the matrix has no entry, or a label is negative."""
    sources, targets = np.asarray(sources, dtype=np.int64), np.asarray(targets, dtype=np.int64)
    values = np.zeros(len(sources), dtype=matrix.dtype)
    known = (sources >= 0) & (targets >= 0)
    if known.any():
        values[known] = np.asarray(matrix[sources[known], targets[known]]).ravel()
    return values


def top_partners(matrix: sp.csr_matrix, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` largest entries of each row, largest first, ties by the smaller label.

    Returns:
        int64 `[N, k]` labels, -1 where a row has fewer, and float64 `[N, k]` values, 0 there.
    """
    sources, targets, values = to_pairs(matrix)
    order = np.lexsort((targets, -values.astype(np.float64), sources))
    place = np.arange(len(sources)) - np.repeat(matrix.indptr[:-1], np.diff(matrix.indptr))  # rank inside its row
    kept = place < k
    partners = np.full((matrix.shape[0], k), -1, dtype=np.int64)
    best = np.zeros((matrix.shape[0], k))
    partners[sources[kept], place[kept]] = targets[order][kept]
    best[sources[kept], place[kept]] = values[order][kept]
    return partners, best


def share_a_bridge(
    sources: np.ndarray, targets: np.ndarray, themes: np.ndarray, theme_lift: sp.csr_matrix, min_lift: float
) -> np.ndarray:
    """Which pairs one sentence can bridge: bool `[M]`, True for one theme, or two whose lift is at least `min_lift`.

    Args:
        sources, targets: int `[M]` items.
        themes: int `[N]`, theme of each item, negative where unknown (such an item has no bridge).
        theme_lift: `[T, T]` of `compute_lift` over counts of themes.
    """
    left, right = themes[sources], themes[targets]
    known = (left >= 0) & (right >= 0)
    return known & ((left == right) | (look_up(theme_lift, left, right) >= min_lift))
