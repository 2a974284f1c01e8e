"""Taking what a user has met out of ranked lists."""

from __future__ import annotations

import numpy as np

from onereason.evaluation.runner import drop_seen, fully_seen_leaves
from onereason.itemic.trie import build_trie


def test_seen_ids_leave_and_the_rest_moves_up():
    ranked = np.array([[5, 3, 9, 1], [2, 0, -1, -1], [4, 7, 8, 6]])
    seen = [np.array([3, 3, 1]), np.array([0, 2, 8]), np.array([], np.int64)]
    assert drop_seen(ranked, seen).tolist() == [[5, 9, -1, -1], [-1, -1, -1, -1], [4, 7, 8, 6]]


def test_a_sid_is_seen_when_all_its_items_are():
    trie = build_trie(np.array([[1, 2], [1, 2], [1, 3], [4, 2]]))  # items 0 and 1 share a sid
    leaf = trie.item_leaf.tolist()
    assert fully_seen_leaves(trie, np.array([0, 0, 2])).tolist() == [leaf[2]]
    assert fully_seen_leaves(trie, np.array([1, 0])).tolist() == [leaf[0]]
    assert fully_seen_leaves(trie, np.array([], np.int64)).tolist() == []
