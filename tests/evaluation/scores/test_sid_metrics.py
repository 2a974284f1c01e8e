"""Metrics of code sequences by hand, against loops, SciPy and the recall of whole sids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from onereason.evaluation.scores.metrics import compute_hits, recall_at_k
from onereason.evaluation.scores.sid_metrics import (
    count_recommendations,
    coverage,
    entropy,
    first_code_entropy,
    gini,
    position_accuracy,
    prefix_recall_at_k,
)

GAP = [-1, -1, -1]
SEQUENCES = np.array(
    [
        [[1, 2, 3], [1, 5, 3], [4, 2, 3], [7, 0, 0]],
        [[9, 9, 9], [9, 9, 8], [9, 9, 7], [9, 9, 6]],
        [[0, 0, 0], [0, 1, 0], GAP, GAP],
        [GAP, GAP, GAP, GAP],
    ]
)
TARGETS = [np.array([[1, 5, 3], [4, 4, 4]]), np.array([[9, 0, 9]]), np.empty((0, 3), int), np.array([[0, 0, 0]])]


def test_accuracy_by_position_compares_the_first_beam_with_the_first_target():
    # 1-2-3 against 1-5-3, 9-9-9 against 9-0-9: the last level agrees although the one above does not.
    expected = [[1, 0, 1], [1, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert position_accuracy(SEQUENCES, TARGETS).tolist() == expected


def test_prefix_recall_by_hand():
    # Row 0, first codes {1, 4}: the first two beams have 1 only, the third has 4.
    assert prefix_recall_at_k(SEQUENCES, TARGETS, 1, 1).tolist() == [1 / 2, 1, 0, 0]
    assert prefix_recall_at_k(SEQUENCES, TARGETS, 2, 1).tolist() == [1 / 2, 1, 0, 0]
    assert prefix_recall_at_k(SEQUENCES, TARGETS, 3, 1).tolist() == [1, 1, 0, 0]
    # Two codes: {1-5, 4-4}; 1-5 is the second beam.
    assert prefix_recall_at_k(SEQUENCES, TARGETS, 1, 2).tolist() == [0, 0, 0, 0]
    assert prefix_recall_at_k(SEQUENCES, TARGETS, 2, 2).tolist() == [1 / 2, 0, 0, 0]
    assert prefix_recall_at_k(SEQUENCES, TARGETS, 4, 3).tolist() == [1 / 2, 0, 0, 0]


def test_targets_that_share_a_prefix_count_once():
    targets = [np.array([[1, 2, 3], [1, 9, 9], [8, 8, 8]])]
    assert prefix_recall_at_k(SEQUENCES[:1], targets, 4, 1).tolist() == [1 / 2]  # {1, 8}
    assert prefix_recall_at_k(SEQUENCES[:1], targets, 4, 2).tolist() == [1 / 3]  # {1-2, 1-9, 8-8}


def test_no_examples():
    nothing = SEQUENCES[:0]
    assert position_accuracy(nothing, []).shape == (0, 3)
    assert prefix_recall_at_k(nothing, [], 2, 1).tolist() == []
    assert first_code_entropy(nothing) == 0


@pytest.mark.parametrize(
    ("targets", "k", "depth", "message"),
    [
        (TARGETS, 5, 1, r"k \(5\) must lie in 1 .. the 4 beams given"),
        (TARGETS, 1, 4, r"depth \(4\) must lie in 1 .. the 3 levels given"),
        (TARGETS, 1, 0, r"depth \(0\)"),
        (TARGETS[:2], 1, 1, "targets has 2 arrays for 4 examples"),
        ([*TARGETS[:3], np.array([0, 0, 0])], 1, 1, r"arrays \[targets, 3\], got one of shape \(3,\)"),
        ([*TARGETS[:3], np.array([[0, 0, -1]])], 1, 1, "at least 0, got -1"),
    ],
)
def test_what_does_not_fit_is_refused(targets, k, depth, message):
    with pytest.raises(ValueError, match=message):
        prefix_recall_at_k(SEQUENCES, targets, k, depth)


def test_entropy_of_first_codes_by_hand():
    # Codes 1 1 4 7, 9 9 9 9, 0 0: counts 2, 1, 1, 4, 2 of 10.
    expected = -sum(p * np.log(p) for p in (0.2, 0.1, 0.1, 0.4, 0.2))
    assert first_code_entropy(SEQUENCES) == pytest.approx(expected, rel=1e-12)
    assert first_code_entropy(SEQUENCES[1:2]) == 0
    assert first_code_entropy(SEQUENCES[3:]) == 0


def test_coverage_and_concentration_by_hand():
    ranked = np.array([[0, 2, -1], [2, 3, 0], [2, 0, -1]])
    counts = count_recommendations(ranked, 6)
    assert counts.tolist() == [3, 0, 3, 1, 0, 0]
    assert coverage(counts) == 3 / 6
    # Ascending 0 0 0 1 3 3, steps -5 -3 -1 1 3 5: (1 + 9 + 15) / (6 * 7).
    assert gini(counts) == pytest.approx(25 / 42, rel=1e-12)
    assert gini(np.array([4, 4, 4])) == 0
    assert gini(np.array([0, 0, 0, 9])) == 3 / 4  # one of four items: 1 - 1 / 4
    nothing = count_recommendations(np.empty((0, 3), int), 4)
    assert coverage(nothing) == 0 and gini(nothing) == 0 and entropy(nothing) == 0


def test_items_outside_the_catalog_are_refused():
    with pytest.raises(ValueError, match="ranked holds item 3, but num_items is 3"):
        count_recommendations(np.array([[0, 3]]), 3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=20).filter(any))
def test_entropy_equals_scipy_and_gini_the_mean_difference(values):
    counts = np.array(values)
    assert entropy(counts) == pytest.approx(stats.entropy(counts), rel=1e-9, abs=1e-12)
    difference = np.abs(counts[:, None] - counts[None]).mean()  # Gini: half of it over the mean
    assert gini(counts) == pytest.approx(difference / 2 / counts.mean(), rel=1e-9, abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_everything_equals_a_loop_over_examples(data):
    num_examples, num_beams, num_levels = (data.draw(st.integers(1, 4)) for _ in range(3))
    code = st.integers(0, 3)
    codes = st.lists(code, min_size=num_levels, max_size=num_levels)
    rows = [data.draw(st.lists(codes, max_size=num_beams)) for _ in range(num_examples)]
    sequences = np.full((num_examples, num_beams, num_levels), -1)
    for e, beams in enumerate(rows):
        sequences[e, : len(beams)] = np.array(beams).reshape(-1, num_levels)
    targets = [data.draw(st.lists(codes, max_size=3)) for _ in range(num_examples)]
    arrays = [np.array(t, dtype=int).reshape(-1, num_levels) for t in targets]

    accuracy = position_accuracy(sequences, arrays).tolist()
    for e, (beams, target) in enumerate(zip(rows, targets, strict=True)):
        both = beams and target
        assert accuracy[e] == [float(bool(both) and beams[0][i] == target[0][i]) for i in range(num_levels)]
    for k in range(1, num_beams + 1):
        for depth in range(1, num_levels + 1):
            expected = []
            for beams, target in zip(rows, targets, strict=True):
                wanted = {tuple(t[:depth]) for t in target}
                found = {tuple(b[:depth]) for b in beams[:k]}
                expected.append(len(wanted & found) / len(wanted) if wanted else 0)
            assert prefix_recall_at_k(sequences, arrays, k, depth).tolist() == expected


def test_whole_depth_is_the_recall_of_sids():
    rng = np.random.default_rng(0)
    sids = np.stack(np.meshgrid(range(4), range(4), range(4), indexing="ij"), -1).reshape(-1, 3)  # sid i is row i
    ranked = np.stack([rng.permutation(64)[:8] for _ in range(30)])
    targets = [rng.integers(0, 64, rng.integers(0, 5)) for _ in range(30)]
    hits, num_targets = compute_hits(ranked, targets)
    for k in (1, 4, 8):
        expected = recall_at_k(hits, num_targets, k)
        assert prefix_recall_at_k(sids[ranked], [sids[t] for t in targets], k, 3).tolist() == expected.tolist()
