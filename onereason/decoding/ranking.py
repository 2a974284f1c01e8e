"""From beams (sids) to ranked items.

A beam is a sid; several items may bear it. They are distinct ranks in the list, the most popular first, and count one
place each: a catalog with collisions cannot look better than it is.

Notation: `B` prompts, `K` beams, `k` ranks.
"""

from __future__ import annotations

import numpy as np

from onereason.decoding.beam import BeamResult
from onereason.errors import ConfigError
from onereason.itemic.trie import ItemTrie


def rank_items(trie: ItemTrie, result: BeamResult, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `k` items of each prompt, in the order of their beams.

    Items under one sid share its score and are ordered as the trie orders them (`build_catalog_trie`: the most
    popular first, ties by item index).

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
    low = np.where(leaves >= 0, trie.leaf_start[np.maximum(position, 0)], 0)
    high = np.where(leaves >= 0, trie.leaf_start[np.maximum(position, 0) + 1], 0)
    counts = high - low
    before = np.cumsum(counts, axis=1) - counts  # rank at which a beam's first item stands
    counts = np.clip(k - before, 0, counts)
    row = np.repeat(np.arange(batch), counts.sum(1))
    flat = counts.ravel()
    beam = np.repeat(np.arange(batch * beams), flat)
    offset = np.arange(len(beam)) - np.repeat(np.cumsum(flat) - flat, flat)
    items = np.full((batch, k), -1, np.int64)
    scores = np.full((batch, k), -np.inf, np.float32)
    rank = before.ravel()[beam] + offset
    items[row, rank] = trie.leaf_items[low.ravel()[beam] + offset]
    scores[row, rank] = result.scores.float().cpu().numpy().ravel()[beam]
    return items, scores
