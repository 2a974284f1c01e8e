"""Collaborative vectors against brute force and hand computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.errors import ConfigError, DataError
from onereason.itemic.align import (
    build_collaborative_vectors,
    compute_ppmi,
    count_cooccurrences,
    fill_from_neighbours,
    fuse,
)

HISTORIES = st.lists(st.lists(st.integers(0, 5), max_size=8), max_size=5)


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.0]))
def test_cooccurrences_equal_brute_force(histories, window, decay):
    expected = np.zeros((6, 6))
    for history in histories:
        for i, left in enumerate(history):
            for j in range(i + 1, min(i + window, len(history) - 1) + 1):
                if left != history[j]:
                    expected[left, history[j]] += (j - i) ** -decay
                    expected[history[j], left] += (j - i) ** -decay
    found = count_cooccurrences([np.array(h, dtype=np.int64) for h in histories], 6, window, decay)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-12)


def test_ppmi_by_hand():
    # Pairs: (0, 1) three times, (0, 2) once. Row sums 4, 3, 1; smoothed contexts 4^.75, 3^.75, 1.
    counts = sp.csr_matrix(np.array([[0, 3, 1], [3, 0, 0], [1, 0, 0]], dtype=float))
    whole = 4**0.75 + 3**0.75 + 1
    expected = np.zeros((3, 3))
    expected[0, 1] = math.log(3 * whole / (4 * 3**0.75))
    expected[0, 2] = math.log(1 * whole / (4 * 1))
    expected[1, 0] = math.log(3 * whole / (3 * 4**0.75))
    expected[2, 0] = math.log(1 * whole / (1 * 4**0.75))
    assert (expected[expected != 0] > 0).all()
    np.testing.assert_allclose(compute_ppmi(counts).toarray(), expected, rtol=1e-12)


def test_pairs_rarer_than_chance_are_dropped():
    # Items 0 and 1 each meet item 2 and 3 very often and each other once: their own pair carries a negative value.
    counts = np.array([[0, 1, 90, 0], [1, 0, 90, 0], [90, 90, 0, 0], [0, 0, 0, 0]], dtype=float)
    ppmi = compute_ppmi(sp.csr_matrix(counts)).toarray()
    assert ppmi[0, 1] == ppmi[1, 0] == 0
    assert ppmi[0, 2] > 0


def test_items_of_one_circle_point_the_same_way():
    # Two circles of three items that are never consumed together; item 6 is never consumed with anything.
    histories = [np.array(h) for h in ([0, 1, 2], [2, 0, 1], [3, 4, 5], [5, 3, 4], [6], [])]
    vectors, has_evidence = build_collaborative_vectors(histories, 7, dim=2)
    assert has_evidence.tolist() == [True] * 6 + [False]
    assert not vectors[6].any()
    similar = vectors[:6] @ vectors[:6].T
    np.testing.assert_allclose(similar, np.kron(np.eye(2), np.ones((3, 3))), atol=1e-4)


def test_collaborative_vectors_are_deterministic_and_need_evidence():
    histories = [np.random.default_rng(s).integers(0, 30, 12) for s in range(20)]
    first, second = (build_collaborative_vectors(histories, 30, dim=8, seed=3)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (30, 8)
    with pytest.raises(DataError, match="no collaborative evidence; use --collaborative-weight 0"):
        build_collaborative_vectors([np.array([1]), np.array([2, 2])], 5)
    with pytest.raises(DataError, match="histories hold the item indices 0 to 9, expected 0 to 4"):
        count_cooccurrences([np.array([0, 9])], 5)
    with pytest.raises(ConfigError, match="window must be at least 1, got 0"):
        count_cooccurrences([np.array([0, 1])], 5, window=0)


def test_items_without_evidence_get_the_mean_of_their_text_neighbours():
    known_text = np.array([[1, 0], [0.9, 0.1], [0, 5], [-1, 0]], dtype=np.float32)
    known = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=np.float32)
    # By cosine, [2, 0.01] is nearest to rows 0 and 1: mean (0.5, 0.5), at length 1 (sqrt(.5), sqrt(.5)).
    found = fill_from_neighbours(np.array([[2, 0.01]], dtype=np.float32), known_text, known, num_neighbours=2)
    np.testing.assert_allclose(found, [[math.sqrt(0.5)] * 2], rtol=1e-6)
    assert fill_from_neighbours(np.empty((0, 2), np.float32), known_text, known).shape == (0, 2)


def test_fused_products_are_weighted_cosines():
    rng = np.random.default_rng(0)
    text, other = rng.standard_normal((5, 4)) * 7, rng.standard_normal((5, 3)) * 0.1
    cosine = [x @ x.T for x in (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (text, other))]
    fused = fuse(text, other, 0.3)
    assert fused.dtype == np.float32
    np.testing.assert_allclose(fused @ fused.T, 0.7 * cosine[0] + 0.3 * cosine[1], atol=1e-6)
    np.testing.assert_allclose(fuse(text, None, 0.0), text / np.linalg.norm(text, axis=1, keepdims=True), rtol=1e-5)
    with pytest.raises(ConfigError, match=r"between 0 and 1, got 1\.5"):
        fuse(text, other, 1.5)
    with pytest.raises(ConfigError, match="needs one collaborative vector an item"):
        fuse(text, other[:2], 0.5)
