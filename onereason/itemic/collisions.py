"""What happens when two items get one semantic id.

Policies: `keep` leaves the collision (scores stay per item, see `Catalog`); `reassign` moves items to the next nearest
free code until every sid is borne by one item; `extra_level` adds a level whose code numbers the items of a bucket.

A *group* is what makes equal codes different items: the domain where the begin token names it (`domain_groups`).

Notation: `N` items, `M` items whose sids are taken already, `L` levels, `C_l` codes of level `l`, `D` dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from onereason.errors import CatalogError
from onereason.itemic.format import ANY_DOMAIN, ItemicFormat
from onereason.itemic.quantize import Codebooks, encode, squared_length

POLICIES = ("keep", "reassign", "extra_level")
_ROWS = 1024
"""Moving items whose distances to a whole codebook are held at once."""


@dataclass(frozen=True)
class Taken:
    """Sids that other items bear already: codes `[M, L]` and groups `[M]`. They never move."""

    codes: np.ndarray
    groups: np.ndarray


def domain_groups(format: ItemicFormat, domains: Sequence[str]) -> np.ndarray:
    """One integer an item `[N]`: equal where equal codes would be the same tokens."""
    if ANY_DOMAIN in format.domains:
        return np.zeros(len(domains), dtype=np.int64)
    rank = {domain: i for i, domain in enumerate(format.domains)}
    for domain in dict.fromkeys(domains):
        format.marker(domain)
    return np.array([rank[d] for d in domains], dtype=np.int64)


def bucket_ids(codes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """One integer an item `[N]`: equal exactly where group and codes `[N, l]` are equal."""
    ids = np.unique(groups, return_inverse=True)[1].reshape(-1)
    for level in range(codes.shape[1]):
        # Renumbering at every level keeps the key below N * C_l, whatever the number of levels.
        ids = np.unique(ids * (int(codes[:, level].max(initial=0)) + 1) + codes[:, level], return_inverse=True)[1]
        ids = ids.reshape(-1)
    return ids


def bucket_sizes(codes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """How many items bear each sid in use, descending."""
    return np.sort(np.bincount(bucket_ids(codes, groups)))[::-1]


def rank_in_bucket(buckets: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """Position `[N]` of every item inside its bucket, in the order of `keys` (first key first), then of the items."""
    order = np.lexsort((np.arange(len(buckets)), *keys[::-1], buckets))
    ordered = buckets[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    position = np.arange(len(buckets)) - np.repeat(starts, np.diff(np.r_[starts, len(buckets)]))
    ranks = np.empty(len(buckets), dtype=np.int64)
    ranks[order] = position
    return ranks


def add_level(
    format: ItemicFormat, codes: np.ndarray, groups: np.ndarray, size: int | None = None, taken: Taken | None = None
) -> tuple[ItemicFormat, np.ndarray]:
    """Codes `[N, L + 1]` whose last one numbers the items of a bucket in item order, and the format they fit.

    Args:
        format: the format of `codes`, with `L` levels.
        size: codes of the added level; by default as many as the largest bucket needs.
        taken: sids with `L + 1` levels that are in use; new items are numbered after them.

    Raises:
        CatalogError: a bucket holds more items than `size`.
    """
    base = codes.shape[1]
    first = 0 if taken is None else len(taken.codes)
    everyone, all_groups = codes, groups
    if taken is not None:
        everyone = np.concatenate([taken.codes[:, :base], codes])
        all_groups = np.concatenate([taken.groups, groups])
    buckets = bucket_ids(everyone, all_groups)
    newcomer = np.arange(len(everyone)) >= first
    if taken is None:
        numbers = rank_in_bucket(buckets)
    else:
        # New items follow the highest number in use, which may exceed the count where items have left.
        highest = np.full(buckets.max() + 1, -1, dtype=np.int64)
        np.maximum.at(highest, buckets[:first], taken.codes[:, base].astype(np.int64))
        fresh = rank_in_bucket(np.where(newcomer, buckets, -1))
        numbers = highest[buckets] + 1 + fresh
    numbers = numbers[first:]
    needed = int(numbers.max(initial=0)) + 1
    if size is not None and needed > size:
        raise CatalogError(
            f"the extra level has {size} codes, but the largest bucket holds {needed} items; use at least "
            f"{needed} extra codes, more codes a level, or the collision policy 'reassign'."
        )
    longer = replace(format, codes_per_level=(*format.codes_per_level, needed if size is None else size))
    return longer, np.concatenate([codes, numbers[:, None].astype(np.int32)], axis=1)


def reassign(
    codebooks: Codebooks,
    vectors: np.ndarray,
    codes: np.ndarray,
    groups: np.ndarray,
    taken: Taken | None = None,
) -> np.ndarray:
    """Codes `[N, L]` (int32) without any collision inside a group; deterministic.

    Under one prefix, the item nearest to its last centroid keeps its sid; the others, nearest first, take the next
    nearest free code of the last level (codes without a centroid come last). Where a prefix holds more items than it
    has sids, the items farthest from its centroid move at that level to the next nearest prefix with room, and their
    further levels are encoded anew. Going from the first level to the last, every prefix fits before its own
    children are looked at, so room is certain.

    Args:
        vectors: `[N, D]`, what `codes` [N, L] encodes.
        groups: `[N]`, see `domain_groups`.
        taken: sids of other items, which stay.

    Raises:
        CatalogError: a group has more items than sids.
    """
    first = 0 if taken is None else len(taken.codes)
    current = codes.astype(np.int32) if taken is None else np.concatenate([taken.codes, codes]).astype(np.int32)
    group = groups if taken is None else np.concatenate([taken.groups, groups])
    sizes = codebooks.codes_per_level
    largest = int(np.bincount(np.unique(group, return_inverse=True)[1].reshape(-1)).max())
    if largest > prod(sizes):
        raise CatalogError(
            f"{largest} items of one domain cannot have {prod(sizes)} distinct sids ({' x '.join(map(str, sizes))}); "
            "use more codes or levels, or the collision policy 'keep'."
        )
    for level in range(len(sizes)):
        capacity = min(prod(sizes[level + 1 :]), len(current))
        _spread_level(codebooks, vectors, current, group, first, level, capacity)
    return current[first:]


def _spread_level(
    codebooks: Codebooks,
    vectors: np.ndarray,
    codes: np.ndarray,
    group: np.ndarray,
    first: int,
    level: int,
    capacity: int,
) -> None:
    """Moves items, in place, until no code of `level` under one prefix holds more than `capacity` items."""
    parents = bucket_ids(codes[:, :level], group)
    children = bucket_ids(codes[:, level : level + 1], parents)
    counts = np.bincount(children)
    if counts.max() <= capacity:
        return
    crowded = np.flatnonzero(counts[children] > capacity)
    distance = np.full(len(codes), -1.0, dtype=np.float32)  # taken sids come before every new item
    own = crowded[crowded >= first]
    for start in range(0, len(own), _ROWS):
        rows = own[start : start + _ROWS]
        distance[rows] = squared_length(residuals_after(codebooks, vectors[rows - first], codes[rows], level + 1))
    moves = crowded[rank_in_bucket(children[crowded], distance[crowded]) >= capacity]
    moves = moves[moves >= first]
    moves = moves[np.lexsort((moves, distance[moves], parents[moves]))]

    stays = np.ones(len(codes), dtype=bool)
    stays[moves] = False
    busy = np.flatnonzero(stays & np.isin(parents, parents[moves]))
    busy = busy[np.argsort(parents[busy], kind="stable")]
    busy_parents = parents[busy]

    centroids = codebooks.centroids[level]
    fitted = codebooks.num_fitted[level]
    lengths = squared_length(centroids[:fitted])
    here, room = -1, np.empty(0, dtype=np.int64)
    for start in range(0, len(moves), _ROWS):
        rows = moves[start : start + _ROWS]
        before = residuals_after(codebooks, vectors[rows - first], codes[rows], level)  # [B, D]
        # The residual's own length is the same for every code, so it may be left out of the comparison.
        costs = np.full((len(rows), len(centroids)), np.inf, dtype=np.float32)  # [B, C]
        costs[:, :fitted] = lengths - 2 * (before @ centroids[:fitted].T)
        for row, cost in zip(rows, costs, strict=True):
            if parents[row] != here:
                here = parents[row]
                low, high = np.searchsorted(busy_parents, [here, here + 1])
                room = capacity - np.bincount(codes[busy[low:high], level], minlength=len(centroids))
            open_cost = np.where(room > 0, cost, np.inf)
            code = int(np.argmin(open_cost))
            if not np.isfinite(open_cost[code]):
                code = int(np.argmax(room > 0))
                if room[code] <= 0:
                    raise CatalogError(
                        f"the sids in use leave no free one below the prefix {codes[row, :level].tolist()}; "
                        "tokenize all items anew with more codes."
                    )
            room[code] -= 1
            codes[row, level] = code
        if level + 1 < codebooks.num_levels:
            deeper = Codebooks(codebooks.centroids[level + 1 :], codebooks.num_fitted[level + 1 :])
            codes[rows, level + 1 :] = encode(deeper, before - centroids[codes[rows, level]]).codes


def residuals_after(codebooks: Codebooks, vectors: np.ndarray, codes: np.ndarray, levels: int) -> np.ndarray:
    """What the first `levels` codes leave over: float32 `[N, D]`."""
    residuals = np.array(vectors, dtype=np.float32)
    for level in range(levels):
        residuals -= codebooks.centroids[level][codes[:, level]]
    return residuals
