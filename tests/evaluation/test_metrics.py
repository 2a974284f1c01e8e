"""Metrics by hand, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from onereason.evaluation.metrics import (
    compute_hits,
    compute_metrics,
    first_hit_rank,
    mrr_at_k,
    ndcg_at_k,
    paired_bootstrap,
    recall_at_k,
)

RANKED = np.array([[4, 2, 7, 1], [3, 9, 0, -1], [5, 6, 8, 2], [-1, -1, -1, -1]])
TARGETS = [np.array([7]), np.array([0, 3, 3]), np.array([1]), np.array([0])]
HITS = np.array([[0, 0, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)


def test_hits_count_repeated_targets_once_and_ignore_padding():
    hits, num_targets = compute_hits(RANKED, TARGETS)
    assert hits.tolist() == HITS.tolist()
    assert num_targets.tolist() == [1, 2, 1, 1]


def test_recall_by_hand():
    n = np.array([1, 2, 1, 1])
    assert recall_at_k(HITS, n, 2).tolist() == [0, 0.5, 0, 0]  # second row: target 3 of {0, 3}
    assert recall_at_k(HITS, n, 4).tolist() == [1, 1, 0, 0]


def test_ndcg_by_hand():
    n = np.array([1, 2, 1, 1])
    # Row 0: rank 3 -> 1 / log2(4) = 0.5. Row 1: ranks 1 and 3 -> 1 + 0.5 over the ideal 1 + 1 / log2(3) = 1.63093.
    np.testing.assert_allclose(ndcg_at_k(HITS, n, 4), [0.5, 1.5 / 1.6309297535714575, 0, 0], rtol=1e-12)
    # At 1 the ideal list of row 1 holds one target at rank 1.
    assert ndcg_at_k(HITS, n, 1).tolist() == [0, 1, 0, 0]
    assert ndcg_at_k(HITS, n, 2)[0] == 0


def test_mrr_and_first_rank_by_hand():
    assert first_hit_rank(HITS).tolist() == [3, 1, 0, 0]
    np.testing.assert_allclose(mrr_at_k(HITS, 4), [1 / 3, 1, 0, 0], rtol=1e-12)
    assert mrr_at_k(HITS, 2).tolist() == [0, 1, 0, 0]


def test_means_have_the_names_of_their_cutoffs():
    metrics = compute_metrics(HITS, np.array([1, 2, 1, 1]), (1, 4))
    assert list(metrics) == ["recall_at_1", "recall_at_4", "ndcg_at_1", "ndcg_at_4", "mrr_at_4"]
    assert metrics["recall_at_1"] == 0.5 / 4 and metrics["recall_at_4"] == 2 / 4
    assert compute_metrics(HITS[:0], np.array([], int), (1,)) == {"recall_at_1": 0, "ndcg_at_1": 0, "mrr_at_1": 0}


def test_a_query_without_target_scores_nothing():
    hits, num_targets = compute_hits(np.array([[0, 1]]), [np.array([], int)])
    assert num_targets.tolist() == [0]
    assert recall_at_k(hits, num_targets, 2).tolist() == [0] and ndcg_at_k(hits, num_targets, 2).tolist() == [0]


def test_cutoff_outside_the_ranks_is_refused():
    with pytest.raises(ValueError, match=r"k \(5\) must lie in 1 .. the 4 ranks given"):
        recall_at_k(HITS, np.ones(4), 5)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.data())
def test_ndcg_equals_scikit_learn(width, data):
    relevant = np.array(data.draw(st.lists(st.booleans(), min_size=width, max_size=width).filter(any)))
    k = data.draw(st.integers(1, width))
    order = np.array(data.draw(st.permutations(range(width))))
    score = np.empty(width)
    score[order] = -np.arange(width)  # the first of the order has the highest score
    hits, num_targets = compute_hits(order[None], [np.flatnonzero(relevant)])
    expected = ndcg_score(relevant[None].astype(float), score[None], k=k)
    np.testing.assert_allclose(ndcg_at_k(hits, num_targets, k), [expected], rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_hits_equal_a_loop_over_sets(data):
    rows = data.draw(st.integers(1, 5))
    ranked = np.array([data.draw(st.permutations(range(8)))[:5] for _ in range(rows)])
    targets = [np.array(data.draw(st.lists(st.integers(0, 9), max_size=4)), dtype=int) for _ in range(rows)]
    hits, num_targets = compute_hits(ranked, targets)
    assert hits.tolist() == [[i in set(t.tolist()) for i in r] for r, t in zip(ranked.tolist(), targets, strict=True)]
    assert num_targets.tolist() == [len(set(t.tolist())) for t in targets]


def test_bootstrap_covers_the_difference_and_keeps_pairs():
    first, second = np.array([1.0, 1, 0, 1] * 100), np.array([0.0, 1, 0, 1] * 100)
    difference, low, high = paired_bootstrap(first, second)
    # Differences are 1 (a quarter) and 0: mean 0.25, standard error sqrt(.25 * .75 / 400) = 0.0217.
    assert difference == 0.25
    assert abs(low - (0.25 - 1.96 * 0.0217)) < 0.006 and abs(high - (0.25 + 1.96 * 0.0217)) < 0.006
    assert paired_bootstrap(first, first) == (0, 0, 0)
    assert paired_bootstrap(first[:0], first[:0]) == (0, 0, 0)
