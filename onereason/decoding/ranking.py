"""From beams (sids) to ranked items.

A beam is a sid; several items may bear it. They are distinct ranks in the list, the most popular first, and count one
place each: a catalog with collisions cannot look better than it is.

Notation: `B` prompts, `K` beams, `k` ranks.
"""

from __future__ import annotations

import numpy as np

from onereason.decoding.beam import BeamResult
from onereason.errors import ConfigError
from onereason.itemic.filters import NodeFilter
from onereason.itemic.trie import ItemTrie


def rank_items(
    trie: ItemTrie, result: BeamResult, k: int, node_filter: NodeFilter | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The first `k` items of each prompt, in the order of their beams.

    Items under one sid share its score and are ordered as the trie orders them (`build_catalog_trie`: the most
    popular first, ties by item index).

    Args:
        node_filter: the filter of the search; items it does not permit are left out under sids that it does.

    Returns:
        item indices int64 `[B, k]` (-1 where a domain has fewer items) and their sids' scores float32 `[B, k]`.

    Raises:
        ConfigError: `k` exceeds the number of beams, so that ranks could be missing.
    """
    leaves = result.leaves.cpu().numpy()
    batch, beams = leaves.shape
    if not 1 <= k <= beams:
        raise ConfigError(f"k ({k}) must lie in 1 .. num_beams ({beams}); raise --num-beams or lower --k.")
    position = leaves - trie.first_leaf  # negative where a beam does not exist
    low = np.where(leaves >= 0, trie.leaf_start[np.maximum(position, 0)], 0).astype(np.int64)
    high = np.where(leaves >= 0, trie.leaf_start[np.maximum(position, 0) + 1], 0).astype(np.int64)
    counts = (high - low).ravel()
    beam = np.repeat(np.arange(batch * beams), counts)
    item = trie.leaf_items[low.ravel()[beam] + np.arange(len(beam)) - np.repeat(np.cumsum(counts) - counts, counts)]
    if node_filter is not None:
        permitted = node_filter.permitted_items(beam // beams, item)
        beam, item = beam[permitted], item[permitted]
    row = beam // beams
    rank = np.arange(len(row)) - np.searchsorted(row, row)  # rows ascend
    first = rank < k
    items = np.full((batch, k), -1, np.int64)
    scores = np.full((batch, k), -np.inf, np.float32)
    items[row[first], rank[first]] = item[first]
    scores[row[first], rank[first]] = result.scores.float().cpu().numpy().ravel()[beam[first]]
    return items, scores
