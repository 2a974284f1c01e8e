"""Metrics by hand, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from onereason.evaluation.scores.metrics import (
    compute_hits,
    compute_metrics,
    compute_target_ranks,
    first_hit_rank,
    mrr_at_k,
    ndcg_at_k,
    paired_bootstrap,
    pass_at_k,
    position1_pass_at_k,
    recall_at_k,
    validity_at_k,
    weighted_recall_at_k,
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
    ranks = compute_target_ranks(RANKED, TARGETS)
    for metric in (
        lambda k: recall_at_k(HITS, np.ones(4), k),
        lambda k: ndcg_at_k(HITS, np.ones(4, int), k),
        lambda k: mrr_at_k(HITS, k),
        lambda k: pass_at_k(HITS, k),
        lambda k: position1_pass_at_k(ranks, k),
        lambda k: weighted_recall_at_k(ranks, [np.ones(len(t)) for t in TARGETS], k),
        lambda k: validity_at_k(RANKED >= 0, k),
    ):
        metric(4)
        for k in (0, 5):
            with pytest.raises(ValueError, match=rf"k \({k}\) must lie in 1 .. the 4 ranks given"):
                metric(k)


def test_ranks_of_targets_by_hand():
    found = compute_target_ranks(RANKED, [np.array([7]), np.array([0, 9, 3, 0]), np.array([], int), np.array([0])])
    assert found.ranks.tolist() == [3, 3, 2, 1, 3, 0]  # the last list is empty
    assert found.offsets.tolist() == [0, 1, 5, 5, 6]
    assert found.distinct.tolist() == [True, True, True, True, False, True]
    assert found.num_ranks == 4


def test_of_an_id_ranked_twice_the_better_rank_counts():
    assert compute_target_ranks(np.array([[5, 8, 5, 8]]), [np.array([8, 5])]).ranks.tolist() == [2, 1]


def test_no_examples_at_all():
    found = compute_target_ranks(np.empty((0, 4), int), [])
    assert found.ranks.tolist() == [] and found.offsets.tolist() == [0]
    assert position1_pass_at_k(found, 4).tolist() == [] and weighted_recall_at_k(found, [], 4).tolist() == []
    assert pass_at_k(HITS[:0], 4).tolist() == [] and validity_at_k(HITS[:0], 4).tolist() == []


def test_targets_that_do_not_fit_are_refused():
    for function in (compute_hits, compute_target_ranks):
        with pytest.raises(ValueError, match="target ids must be at least 0, got -1"):
            function(RANKED, [np.array([7]), np.array([-1]), np.array([1]), np.array([0])])
        with pytest.raises(ValueError, match="targets has 3 arrays for 4 ranked lists"):
            function(RANKED, TARGETS[:3])


def test_pass_by_hand():
    assert pass_at_k(HITS, 2).tolist() == [0, 1, 0, 0]
    assert pass_at_k(HITS, 3).tolist() == [1, 1, 0, 0]


def test_position1_asks_for_the_first_target_only():
    ranks = compute_target_ranks(RANKED, [np.array([7]), np.array([0, 3]), np.array([], int), np.array([0])])
    assert position1_pass_at_k(ranks, 2).tolist() == [0, 0, 0, 0]  # row 1 has 3 at rank 1, but 0 came first
    assert position1_pass_at_k(ranks, 3).tolist() == [1, 1, 0, 0]


def test_weighted_recall_by_hand():
    targets = [np.array([7, 6]), np.array([0, 9, 3, 0]), np.array([5]), np.array([], int)]
    ranks = compute_target_ranks(RANKED, targets)
    weights = [np.array([2.0, 6.0]), np.array([1.0, 3.0, 4.0, 100.0]), np.array([0.0]), np.array([])]
    # Row 0 at 3: 7 found (2) of 2 + 6. Row 1: 3 at rank 1 (4), 9 at rank 2 (3), 0 at rank 3 (1, its second weight does
    # not count), of 1 + 3 + 4 = 8. Row 2 weighs nothing, row 3 has no target.
    assert weighted_recall_at_k(ranks, weights, 1).tolist() == [0, 4 / 8, 0, 0]
    assert weighted_recall_at_k(ranks, weights, 2).tolist() == [0, 7 / 8, 0, 0]
    assert weighted_recall_at_k(ranks, weights, 3).tolist() == [2 / 8, 1, 0, 0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1.0]], "weights has 1 arrays for 2 examples"),
        ([[1.0], [1.0, 2.0]], "weights of example 1: 2 for 1 targets"),
        ([[1.0], [-2.0]], "at least 0, got -2.0"),
        ([[np.nan], [1.0]], "finite and at least 0, got nan"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, message):
    ranks = compute_target_ranks(RANKED[:2], [np.array([7]), np.array([3])])
    with pytest.raises(ValueError, match=message):
        weighted_recall_at_k(ranks, [np.array(w) for w in weights], 2)


def test_validity_by_hand():
    legal = np.array([[1, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=bool)
    assert validity_at_k(legal, 1).tolist() == [1, 1, 0]
    assert validity_at_k(legal, 4).tolist() == [3 / 4, 2 / 4, 0]
    # Only 2 sequences came back in row 1 and none in row 2.
    assert validity_at_k(legal, 4, np.array([4, 2, 0])).tolist() == [3 / 4, 1, 0]
    assert validity_at_k(legal, 1, np.array([4, 2, 0])).tolist() == [1, 1, 0]


@pytest.mark.parametrize("k", [1, 4, 8, 16, 32, 64])
def test_64_ranks_equal_a_loop_over_examples(k):
    rng = np.random.default_rng(k)
    ranked = np.stack([rng.permutation(300)[:64] for _ in range(50)])
    ranked[7, 40:] = -1
    targets = [rng.integers(0, 300, rng.integers(0, 40)) for _ in range(50)]
    weights = [np.round(rng.random(len(t)), 3) for t in targets]
    hits, num_targets = compute_hits(ranked, targets)
    ranks = compute_target_ranks(ranked, targets)
    values = {
        "pass": pass_at_k(hits, k),
        "first": position1_pass_at_k(ranks, k),
        "recall": recall_at_k(hits, num_targets, k),
        "ndcg": ndcg_at_k(hits, num_targets, k),
        "mrr": mrr_at_k(hits, k),
        "weighted": weighted_recall_at_k(ranks, weights, k),
    }
    for e, (row, target, weight) in enumerate(zip(ranked.tolist(), targets, weights, strict=True)):
        wanted = set(target.tolist())
        first_weight = dict(reversed(list(zip(target.tolist(), weight.tolist(), strict=True))))
        found = [item for item in row[:k] if item in wanted]
        gain = sum(1 / np.log2(r + 2) for r, item in enumerate(row[:k]) if item in wanted)
        ideal = sum(1 / np.log2(r + 2) for r in range(min(k, len(wanted))))
        expected = {
            "pass": float(bool(found)),
            "first": float(len(target) > 0 and target[0] in row[:k]),
            "recall": len(found) / len(wanted) if wanted else 0,
            "ndcg": gain / ideal if wanted else 0,
            "mrr": 1 / (row.index(found[0]) + 1) if found else 0,
            "weighted": sum(first_weight[i] for i in found) / sum(first_weight.values()) if wanted else 0,
        }
        for name, value in expected.items():
            assert values[name][e] == pytest.approx(value, rel=1e-12), (name, e)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ranks_of_targets_equal_a_loop(data):
    rows = data.draw(st.integers(1, 5))
    ranked = np.array([data.draw(st.lists(st.integers(-1, 8), min_size=5, max_size=5)) for _ in range(rows)])
    targets = [np.array(data.draw(st.lists(st.integers(0, 9), max_size=4)), dtype=int) for _ in range(rows)]
    found = compute_target_ranks(ranked, targets)
    lists = ranked.tolist()
    expected = [[lists[e].index(t) + 1 if t in lists[e] else 0 for t in ts] for e, ts in enumerate(targets)]
    assert found.ranks.tolist() == [rank for ranks in expected for rank in ranks]
    assert found.distinct.tolist() == [t not in ts[:i] for ts in map(list, targets) for i, t in enumerate(ts)]
    weights = [np.ones(len(t)) for t in targets]
    for k in range(1, 6):  # with equal weights it is the recall
        hits, num_targets = compute_hits(ranked[:, :k], targets)
        distinct_hits = [len({i for i in r[:k] if i in set(t)}) for r, t in zip(lists, map(list, targets), strict=True)]
        np.testing.assert_allclose(
            weighted_recall_at_k(found, weights, k), distinct_hits / np.maximum(num_targets, 1), rtol=1e-12
        )
        assert pass_at_k(hits, k).tolist() == [float(h > 0) for h in distinct_hits]


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
