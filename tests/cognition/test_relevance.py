"""Pruned contexts: scores by hand and by plain loops, and what is chosen of a history."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.cognition import relevance as module
from onereason.cognition.associations import flatten_histories
from onereason.cognition.relevance import (
    Relevance,
    RelevanceWeights,
    build_relevance,
    prefix_similarity,
    relevant_items,
    select_relevant,
)
from onereason.errors import ConfigError

CODES = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=np.int32)
"""Items 0 and 4 share a sid."""
PREFIX = RelevanceWeights(prefix=1, embedding=0, co_occurrence=0)


def array(values) -> np.ndarray:
    return np.array(values, dtype=np.int64)


# -- scores ---------------------------------------------------------------------------------------------------------


def test_the_common_prefix_counts_levels_up_to_the_first_difference():
    left, right = CODES[[0, 0, 0, 0]], CODES[[4, 1, 2, 3]]
    # all of 3; two; one (the third level agrees, but under another prefix); none
    assert prefix_similarity(left, right).tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0])


def test_co_occurrence_is_a_jaccard_index_of_what_is_near():
    histories = flatten_histories([array([0, 1, 2]), array([0, 1])])
    found = build_relevance(RelevanceWeights(0, 0, 1), CODES, histories, window=1)
    # near: 0-1 twice, 1-2 once; 0 has 2, 1 has 3, 2 has 1
    scores = found.score(array([0, 1, 0, 3, 1]), array([1, 2, 2, 0, 1]))
    assert scores.tolist() == pytest.approx([2 / (2 + 3 - 2), 1 / (3 + 1 - 1), 0, 0, 0])


def test_the_cosine_of_vectors_of_any_length_and_none_below_zero(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_PAIRS", 2)
    vectors = np.array([[3, 0], [5, 5], [0, 2], [-1, 0], [0, 0]], dtype=np.float32)
    found = build_relevance(RelevanceWeights(0, 1, 0), CODES, flatten_histories([]), vectors)
    scores = found.score(array([0, 0, 0, 0, 0]), array([0, 1, 2, 3, 4]))
    assert scores.tolist() == pytest.approx([1, 0.5**0.5, 0, 0, 0])


def test_views_are_mixed_by_weight():
    vectors = np.eye(5, 2, dtype=np.float32)  # items 0 and 1 at right angles
    histories = flatten_histories([array([0, 1])])
    found = build_relevance(RelevanceWeights(prefix=3, embedding=1, co_occurrence=2), CODES, histories, vectors)
    # prefix 2/3, cosine 0, near 1 of 1: (3 x 2/3 + 0 + 2 x 1) / 6
    assert found.score(array([0]), array([1])).tolist() == pytest.approx([4 / 6])


@pytest.mark.parametrize("weights", [(0, 0, 0), (-1, 1, 1), (float("nan"), 1, 1), (float("inf"), 1, 1)])
def test_weights_must_be_weights(weights):
    with pytest.raises(ConfigError, match="relevance weights must be numbers from 0 with one above it"):
        RelevanceWeights(*weights)


@pytest.mark.parametrize(("vectors", "said"), [(None, "got none"), (np.ones((3, 2)), "got 3 for 5 items")])
def test_relevance_by_embedding_needs_a_vector_an_item(vectors, said):
    with pytest.raises(ConfigError, match=f"{said}; make the catalog with `onereason tokenize --save-vectors`"):
        build_relevance(RelevanceWeights(0, 1, 0), CODES, flatten_histories([]), vectors)


# -- choice ---------------------------------------------------------------------------------------------------------


def test_the_best_are_kept_in_their_order_and_ties_go_to_the_newer():
    scores = np.array([0.5, 0.9, 0.5, 0.5, 0.0, 0.1, 0.2])
    assert select_relevant(scores, array([0, 5, 5, 7]), 3) == [[1, 2, 3], [], [0, 1]]
    assert select_relevant(scores, array([0, 5, 5, 7]), 1) == [[1], [], [1]]
    assert select_relevant(scores, array([0, 5, 5, 7]), 9, min_score=0.5) == [[1], [], []]
    assert select_relevant(np.zeros(0), array([0]), 3) == []


def test_items_under_the_target_s_sid_are_left_out():
    found = Relevance(PREFIX, CODES)
    assert relevant_items(found, [array([0, 1, 2, 3, 4])], array([0]), 5) == [[1, 2]]


def test_an_item_counts_once_where_it_stands_last():
    found = Relevance(PREFIX, CODES)
    histories = [array([1, 2, 1, 2, 1]), array([1, 2])]
    assert relevant_items(found, histories, array([0, 0]), 5) == [[3, 4], [0, 1]]
    assert relevant_items(found, histories, array([0, 0]), 1) == [[4], [0]]


def test_nothing_to_choose_from():
    found = Relevance(PREFIX, CODES)
    assert relevant_items(found, [], array([]), 3) == []
    assert relevant_items(found, [array([]), array([3])], array([0, 0]), 3) == [[], []]


HISTORIES = st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=1, max_size=5)


@settings(max_examples=80, deadline=None)
@given(HISTORIES, st.lists(st.integers(0, 4), min_size=5, max_size=5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_what_is_chosen_is_what_a_plain_loop_chooses(lists, targets, k, seed):
    histories = [array(h) for h in lists]
    vectors = np.random.default_rng(seed).normal(size=(5, 3)).astype(np.float32)
    weights = RelevanceWeights(0.7, 1.1, 1.9)
    found = build_relevance(weights, CODES, flatten_histories(histories), vectors, window=2)
    near = np.zeros((5, 5))
    for history in lists:
        for i in range(len(history)):
            for j in range(i + 1, min(i + 3, len(history))):
                if history[i] != history[j]:
                    near[history[i], history[j]] += 1
                    near[history[j], history[i]] += 1
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def score(item: int, target: int) -> float:
        same = next((n for n in range(3) if CODES[item, n] != CODES[target, n]), 3) / 3
        cosine = max(0.0, float(unit[item] @ unit[target]))
        either = near[item].sum() + near[target].sum() - near[item, target]
        return (0.7 * same + 1.1 * cosine + 1.9 * near[item, target] / max(either, 1)) / 3.7

    chosen = relevant_items(found, histories, array(targets[: len(lists)]), k)
    for history, target, places in zip(lists, targets, chosen, strict=False):
        assert places == sorted(places) and len(places) <= k
        last = {item: place for place, item in enumerate(history)}
        pool = [p for i, p in last.items() if (CODES[i] != CODES[target]).any() and score(i, target) > 0]
        best = sorted(pool, key=lambda p: -score(history[p], target))[:k]
        assert sorted(score(history[p], target) for p in places) == pytest.approx(
            sorted(score(history[p], target) for p in best), rel=1e-5
        )
        assert set(places) <= set(pool)
