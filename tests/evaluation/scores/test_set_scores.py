"""Scores of sets and choices by hand, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score

from onereason.evaluation.scores.set_scores import choice_accuracy, compute_set_scores, harmonic_mean, normalise_choice


def test_sets_by_hand():
    predicted = [["a", "b", "b"], ["a"], [], ["x"], [], None, None]
    truths = [["b", "c", "d"], ["a"], ["a"], [], [], ["a"], []]
    scores = compute_set_scores(predicted, truths)
    # Row 0: {b} of {a, b} and of {b, c, d}: 1/2, 1/3, 2 (1/2)(1/3) / (5/6) = 2/5. An unreadable answer is never right.
    assert scores.precision.tolist() == [1 / 2, 1, 0, 0, 1, 0, 0]
    assert scores.recall.tolist() == [1 / 3, 1, 0, 0, 1, 0, 0]
    np.testing.assert_allclose(scores.f1, [2 / 5, 1, 0, 0, 1, 0, 0], rtol=1e-12)


def test_no_examples():
    assert compute_set_scores([], []).f1.tolist() == [] and choice_accuracy([], []).tolist() == []


def test_harmonic_mean():
    assert harmonic_mean(0, 0) == 0 and harmonic_mean(1, 0) == 0 and harmonic_mean(0.5, 1) == 2 / 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5))), min_size=1, max_size=6))
def test_sets_equal_scikit_learn(pairs):
    predicted, truths = zip(*pairs, strict=True)
    scores = compute_set_scores(predicted, truths)
    for e, (found, wanted) in enumerate(pairs):
        rows = [np.isin(np.arange(6), list(s)).astype(int) for s in (wanted, found)]
        empty = float(not found and not wanted)
        assert scores.f1[e] == pytest.approx(f1_score(*rows, zero_division=1), rel=1e-12)
        assert scores.precision[e] == pytest.approx(precision_score(*rows, zero_division=empty), rel=1e-12)
        assert scores.recall[e] == pytest.approx(recall_score(*rows, zero_division=empty), rel=1e-12)


def test_choices_by_hand():
    assert normalise_choice("c, A, a") == "AC"
    predicted = ["B", "AC", "CA", "A", "ABC", None, ""]
    truths = ["B", "AC", "A, C", "AC", "AC", "A", "A"]
    assert choice_accuracy(predicted, truths).tolist() == [1, 1, 1, 0, 0, 0, 0]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="truth '2' names no option"):
        choice_accuracy(["A", "B"], ["A", "2"])
    with pytest.raises(ValueError, match="predicted has 1 answers for 2 truths"):
        choice_accuracy(["A"], ["A", "B"])
    with pytest.raises(ValueError, match="predicted has 0 answers for 1 truths"):
        compute_set_scores([], [["a"]])
