"""Sids to items: every policy by hand, and against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.decoding.beam import BeamResult
from onereason.decoding.ranking import rank_items
from onereason.evaluation.scores.expansion import POLICIES, expand_sids
from onereason.itemic.trie import build_trie

# Leaves: 1-1 holds items 2, 0 (popularity 8, 1), 1-2 holds item 1, 2-1 holds items 5, 3, 4 (7, 0, 0).
TRIE = build_trie(np.array([[1, 1], [1, 2], [1, 1], [2, 1], [2, 1], [2, 1]]), priority=np.array([1, 5, 8, 0, 0, 7]))
A, B, C = (TRIE.find(0, path) for path in ([1, 1], [1, 2], [2, 1]))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("most_popular", [5, 2, 1, -1, -1, -1, -1]),
        ("all", [5, 3, 4, 2, 0, 1, -1]),
        ("split_by_rank", [5, 2, 1, 3, 0, 4, -1]),  # first items 5 2 1, second ones 3 0, third one 4
    ],
)
def test_policies_by_hand(policy, expected):
    leaves = np.array([[C, A, B]])
    for k in range(1, 8):
        assert expand_sids(TRIE, leaves, k, policy).tolist() == [expected[:k]]


def test_random_draws_one_item_a_sid_evenly_and_with_its_seed():
    leaves = np.tile([C, A, B], (3000, 1))
    items = expand_sids(TRIE, leaves, 3, "random", seed=4)
    assert (items == expand_sids(TRIE, leaves, 3, "random", seed=4)).all()
    assert (items != expand_sids(TRIE, leaves, 3, "random", seed=5)).any()
    for rank, bucket in enumerate(([3, 4, 5], [0, 2], [1])):
        drawn, counts = np.unique(items[:, rank], return_counts=True)
        assert drawn.tolist() == bucket
        # 3000 draws of one of n: standard deviation sqrt(3000 (1/n) (1 - 1/n)), at most 27.4.
        assert np.abs(counts - 3000 / len(bucket)).max() <= 4 * 27.4


@pytest.mark.parametrize("policy", POLICIES)
def test_a_sequence_that_is_no_sid_keeps_its_rank_and_a_repeated_sid_does_not(policy):
    assert expand_sids(TRIE, np.array([[B, -1, B, -1]]), 4, policy).tolist() == [[1, -1, -1, -1]]
    shown = expand_sids(TRIE, np.array([[-1, B, B, A]]), 3, policy)
    assert shown[0, :2].tolist() == [-1, 1] and shown[0, 2] in (0, 2)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_examples_and_no_sids(policy):
    assert expand_sids(TRIE, np.empty((0, 3), np.int64), 2, policy).shape == (0, 2)
    assert expand_sids(TRIE, np.empty((2, 0), np.int64), 2, policy).tolist() == [[-1, -1], [-1, -1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[A]], 0), "k must be at least 1, got 0"),
        (([[A]], 1, "best"), "policy 'best' is not known; use one of most_popular, random, all, split_by_rank"),
        (([[0]], 1), "leaves must be -1 or a leaf node"),
        (([[TRIE.num_nodes]], 1), "leaves must be -1 or a leaf node"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    leaves, *others = arguments
    with pytest.raises(ValueError, match=message):
        expand_sids(TRIE, np.array(leaves), *others)


def expand_by_loop(trie, row, policy):
    """Items of one row of leaves, whole."""
    buckets = [trie.items_at(leaf).tolist() if leaf >= 0 else [-1] for leaf in row]
    kept = [b for i, b in enumerate(buckets) if row[i] < 0 or row[i] not in row[:i]]
    if policy == "most_popular":
        return [bucket[0] for bucket in kept]
    if policy == "all":
        return [item for bucket in kept for item in bucket]
    longest = max(map(len, kept), default=0)
    return [bucket[place] for place in range(longest) for bucket in kept if place < len(bucket)]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_policies_equal_loops(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    num_items = int(rng.integers(1, 30))
    trie = build_trie(rng.integers(0, 3, (num_items, 2)), priority=rng.integers(0, 5, num_items))
    shape = (int(rng.integers(1, 5)), int(rng.integers(1, 7)))
    leaves = rng.integers(trie.first_leaf - 1, trie.num_nodes, shape)
    leaves[leaves < trie.first_leaf] = -1
    k = data.draw(st.integers(1, 20))
    for policy in ("most_popular", "all", "split_by_rank"):
        items = expand_sids(trie, leaves, k, policy)
        for row, shown in zip(leaves.tolist(), items.tolist(), strict=True):
            expected = expand_by_loop(trie, row, policy)[:k]
            assert shown == expected + [-1] * (k - len(expected))
            kept = [item for item in shown if item >= 0]
            assert len(set(kept)) == len(kept)
    drawn = expand_sids(trie, leaves, k, "random", seed=k)
    popular = expand_sids(trie, leaves, k, "most_popular")
    leaf_of = np.append(trie.item_leaf, -1)  # the last one for the gaps
    assert (leaf_of[drawn] == leaf_of[popular]).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_all_is_what_decoding_ranks(seed):
    rng = np.random.default_rng(seed)
    trie = build_trie(rng.integers(0, 3, (20, 2)), priority=rng.integers(0, 5, 20))
    beams = min(6, trie.num_leaves)
    leaves = np.stack([rng.permutation(np.arange(trie.first_leaf, trie.num_nodes))[:beams] for _ in range(4)])
    leaves[rng.integers(0, beams + 1, 4)[:, None] <= np.arange(beams)] = -1  # beams end early
    nodes = torch.from_numpy(leaves)
    result = BeamResult(
        torch.zeros(*nodes.shape, 2, dtype=torch.long),
        torch.zeros(nodes.shape),
        nodes >= 0,
        nodes,
        torch.zeros(*nodes.shape, 2),
    )
    assert (expand_sids(trie, leaves, beams, "all") == rank_items(trie, result, beams)[0]).all()
