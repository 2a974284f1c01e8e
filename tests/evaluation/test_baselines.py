"""Popularity and first-order Markov on a world small enough to count by hand."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.evaluation.baselines import fit_baselines

# Items 0..5; items 4 and 5 are in another domain. Successions: 0-1 (2x), 1-0, 1-2, 0-4, 4-1, 2-1.
TRAIN = [np.array([0, 1, 2]), np.array([2, 1, 0, 4, 1]), np.array([0, 1]), np.array([3]), np.array([], int)]
DOMAIN = np.array([0, 0, 0, 0, 1, 1])
# Popularity: 0 three times, 1 four times, 2 twice, 3 once, 4 once, 5 never.


def test_counts():
    baselines = fit_baselines(TRAIN, DOMAIN)
    assert baselines.popularity.tolist() == [3, 4, 2, 1, 1, 0]
    expected = np.zeros((6, 6), int)
    for row, column, count in [(0, 1, 2), (1, 0, 1), (1, 2, 1), (0, 4, 1), (4, 1, 1), (2, 1, 1)]:
        expected[row, column] = count
    assert (baselines.transitions.toarray() == expected).all()  # no succession across users


def test_popularity_stays_in_its_domain():
    baselines = fit_baselines(TRAIN, DOMAIN)
    assert baselines.rank_popular(np.array([0, 1]), 3).tolist() == [[1, 0, 2], [4, 5, -1]]
    assert baselines.rank_popular(np.array([], int), 3).shape == (0, 3)


def test_markov_backs_off_to_popularity_without_repeats():
    baselines = fit_baselines(TRAIN, DOMAIN)
    last, domain = np.array([1, 0, 0, 3, -1, 5, 1]), np.array([0, 0, 1, 0, 0, 1, 0])
    assert baselines.rank_markov(last, domain, 3).tolist() == [
        [0, 2, 1],  # after 1: 0 and 2 once each, 0 more popular; then the most popular item 1
        [1, 0, 2],  # after 0: 1 twice; item 4 is of the other domain; then 0, 2
        [4, 5, -1],  # after 0 in the other domain: 4; then 5
        [1, 0, 2],  # nothing follows 3
        [1, 0, 2],  # empty history
        [4, 5, -1],  # nothing follows 5
        [0, 2, 1],
    ]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_markov_equals_a_plain_sort(data):
    count, k = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 5))
    item = st.integers(0, count - 1)
    train = [np.array(h, dtype=int) for h in data.draw(st.lists(st.lists(item, max_size=8), min_size=1, max_size=5))]
    domain = np.array(data.draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)))
    baselines = fit_baselines(train, domain)
    pairs = [(int(a), int(b)) for h in train for a, b in itertools.pairwise(h)]
    popularity = [sum(int((h == i).sum()) for h in train) for i in range(count)]
    for last in range(-1, count):
        for asked in (0, 1):
            items = [i for i in range(count) if domain[i] == asked]
            expected = sorted(items, key=lambda i: (-pairs.count((last, i)), -popularity[i], i))[:k]
            found = baselines.rank_markov(np.array([last]), np.array([asked]), k)[0].tolist()
            assert found == expected + [-1] * (k - len(expected))
