"""Sids to items: collisions are distinct ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onereason.decoding.beam import BeamResult
from onereason.decoding.ranking import rank_items
from onereason.errors import ConfigError
from onereason.itemic.trie import build_trie

# Leaves: 1-1 holds items 0, 2 (popularity 1, 8), 1-2 holds item 1, 2-1 holds items 3, 4, 5 (0, 0, 7).
TRIE = build_trie(np.array([[1, 1], [1, 2], [1, 1], [2, 1], [2, 1], [2, 1]]), priority=np.array([1, 5, 8, 0, 0, 7]))
A, B, C = (TRIE.find(0, path) for path in ([1, 1], [1, 2], [2, 1]))


def make_result(leaves: list[list[int]], scores: list[list[float]]) -> BeamResult:
    nodes = torch.tensor(leaves)
    empty = torch.zeros(*nodes.shape, 2)
    return BeamResult(empty.long(), torch.tensor(scores), nodes >= 0, nodes, empty)


def test_items_of_a_sid_follow_each_other_the_most_popular_first():
    result = make_result([[C, A, B], [B, C, A]], [[-1.0, -2.0, -3.0], [-1.5, -2.5, -3.5]])
    items, scores = rank_items(TRIE, result, 3)
    assert items.tolist() == [[5, 3, 4], [1, 5, 3]]  # leaf 2-1: 5 (7), then 3 and 4 by index
    assert scores.tolist() == [[-1.0, -1.0, -1.0], [-1.5, -2.5, -2.5]]


def test_lists_end_with_minus_one_where_items_run_out():
    items, scores = rank_items(TRIE, make_result([[B, A, -1, -1]], [[-1.0, -2.0, -np.inf, -np.inf]]), 4)
    assert items.tolist() == [[1, 2, 0, -1]]
    assert scores.tolist() == [[-1.0, -2.0, -2.0, -np.inf]]


def test_no_beam_at_all():
    items, scores = rank_items(TRIE, make_result([[-1, -1]], [[-np.inf, -np.inf]]), 2)
    assert items.tolist() == [[-1, -1]] and scores.tolist() == [[-np.inf, -np.inf]]


def test_more_ranks_than_beams_are_refused():
    with pytest.raises(ConfigError, match=r"k \(4\) must lie in 1 .. num_beams \(3\)"):
        rank_items(TRIE, make_result([[C, A, B]], [[-1.0, -2.0, -3.0]]), 4)
