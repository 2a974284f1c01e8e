"""From ranked sids to ranked items, under a declared policy.

Several items may bear one sid, so a list of sids says less than a list of items. What is scored at item level depends
on how the items of a bucket are chosen and ordered; a policy names that choice:

- `most_popular`: one item a sid, the first in trie order (the OneReason benchmark's choice).
- `random`: one item a sid, drawn evenly with a seed (the benchmark's baseline).
- `all`: every item of a bucket as a rank of its own, in trie order, before the next sid's.
- `split_by_rank`: the first items of all sids in the order of the beams, then the second ones, and so on.

Trie order is the most popular first, ties by item index (`build_catalog_trie`).

Notation: `E` examples, `K` sids (beams), `k` ranks.
"""

from __future__ import annotations

import numpy as np

from onereason.decoding.merging import find_repeats
from onereason.itemic.trie import ItemTrie

POLICIES = ("most_popular", "random", "all", "split_by_rank")


def expand_sids(trie: ItemTrie, leaves: np.ndarray, k: int, policy: str = "all", seed: int = 0) -> np.ndarray:
    """The first `k` items that ranked sids stand for, int64 `[E, k]`, distinct inside a row, -1 past the last item.

    A sid that stands earlier in its row is left out, and the list closes up. A sequence that is no sid of the catalog
    keeps a rank, filled with -1: a model gains nothing by answers that do not exist.

    Args:
        trie: the items.
        leaves: `[E, K]`, the trie's leaf nodes, the best first; -1 where there is no sid.
        k: ranks; may exceed `K`.
        policy: one of `POLICIES`.
        seed: of the policy `random`.

    Raises:
        ValueError: `k` below 1, a policy that is not known, or nodes that are no leaves.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
    if policy not in POLICIES:
        raise ValueError(f"policy {policy!r} is not known; use one of {', '.join(POLICIES)}.")
    position = np.where(leaves >= 0, leaves - trie.first_leaf, -1).astype(np.int64)
    if (position[leaves >= 0] < 0).any() or position.max(initial=-1) >= trie.num_leaves:
        raise ValueError(f"leaves must be -1 or a leaf node, {trie.first_leaf} .. {trie.num_nodes - 1}.")
    low = np.where(position >= 0, trie.leaf_start[np.maximum(position, 0)], 0).astype(np.int64)
    sizes = np.where(position >= 0, trie.leaf_start[np.maximum(position, 0) + 1] - low, 0)
    items = np.append(trie.leaf_items, -1).astype(np.int64)
    low, sizes = np.where(position >= 0, low, len(items) - 1), np.where(position >= 0, sizes, 1)  # a gap bears item -1
    sizes = np.where(find_repeats(position), 0, sizes)

    if policy == "all":
        return _one_after_another(items, low, sizes, k)
    if policy == "split_by_rank":
        return _round_robin(items, low, sizes, k)
    if policy == "random":
        low = low + np.random.default_rng(seed).integers(0, np.maximum(sizes, 1))
    return _one_after_another(items, low, np.minimum(sizes, 1), k)


def _one_after_another(items: np.ndarray, low: np.ndarray, sizes: np.ndarray, k: int) -> np.ndarray:
    """The first `k` of the items `low .. low + size - 1` of each sid in turn; `[E, K]` -> `[E, k]`."""
    before = np.cumsum(sizes, axis=1) - sizes  # the rank at which a sid's first item stands
    counts = np.clip(k - before, 0, sizes).ravel()
    sid = np.repeat(np.arange(counts.size), counts)
    offset = np.arange(len(sid)) - np.repeat(np.cumsum(counts) - counts, counts)
    ranked = np.full((len(low), k), -1, np.int64)
    ranked[sid // low.shape[1], before.ravel()[sid] + offset] = items[low.ravel()[sid] + offset]
    return ranked


def _round_robin(items: np.ndarray, low: np.ndarray, sizes: np.ndarray, k: int) -> np.ndarray:
    """The first `k` of all sids' first items, then their second ones, ...; `[E, K]` -> `[E, k]`."""
    ranked = np.full((len(low), k), -1, np.int64)
    filled = np.zeros(len(low), np.int64)
    open_rows = np.arange(len(low))
    for place in range(k):  # every round fills a rank at least
        has = sizes[open_rows] > place
        rank = filled[open_rows, None] + np.cumsum(has, axis=1) - 1
        row, sid = np.nonzero(has & (rank < k))
        ranked[open_rows[row], rank[row, sid]] = items[low[open_rows[row], sid] + place]
        filled[open_rows] += has.sum(1)
        open_rows = open_rows[has.any(1) & (filled[open_rows] < k)]
        if not len(open_rows):
            break
    return ranked
