"""What the items under a prefix of codes have in common, for all prefixes at once.

Notation: `N` items, `L` levels, `G` groups (of items that share a prefix), `V` distinct values, `k` values a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TopValues:
    """The most frequent values of each group.

    Attributes:
        values: int64 `[G, k]`, the most frequent first (ties by number), -1 where a group has fewer.
        shares: float64 `[G, k]`, how much of the group bears each; 0 where there is none.
    """

    values: np.ndarray
    shares: np.ndarray


def number_prefixes(codes: np.ndarray, domains: Sequence[object]) -> list[np.ndarray]:
    """For each level, the number of each item's prefix up to and with it: `L` arrays int64 `[N]`, counted from 0.

    Args:
        codes: int `[N, L]`.
        domains: `N` values; items of different domains share no prefix.
    """
    ids = np.unique(np.asarray(domains), return_inverse=True)[1].reshape(-1).astype(np.int64)
    found = []
    for level in range(codes.shape[1]):
        key = ids * (int(codes[:, level].max(initial=0)) + 1) + codes[:, level]
        ids = np.unique(key, return_inverse=True)[1].reshape(-1)
        found.append(ids)
    return found


def find_top_values(groups: np.ndarray, values: np.ndarray, k: int) -> TopValues:
    """The `k` most frequent values of each group.

    Args:
        groups: int `[N]`, from 0.
        values: int `[N]`, from 0; -1 where an item has none, which still counts as one of its group.
        k: values a group.
    """
    sizes = np.bincount(groups) if len(groups) else np.zeros(0, np.int64)
    num_values = int(values.max(initial=-1)) + 1
    top = TopValues(np.full((len(sizes), k), -1, np.int64), np.zeros((len(sizes), k)))
    if not num_values:
        return top
    known = values >= 0
    pairs, counts = np.unique(groups[known].astype(np.int64) * num_values + values[known], return_counts=True)
    of_group, value = np.divmod(pairs, num_values)
    order = np.lexsort((value, -counts, of_group))
    of_group, value, counts = of_group[order], value[order], counts[order]
    first = np.searchsorted(of_group, of_group)  # where each pair's group begins
    rank = np.arange(len(of_group)) - first
    kept = rank < k
    top.values[of_group[kept], rank[kept]] = value[kept]
    top.shares[of_group[kept], rank[kept]] = counts[kept] / sizes[of_group[kept]]
    return top
