"""Association counts against plain loops, and their measures by hand."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.cognition import associations
from onereason.cognition.associations import (
    compute_lift,
    compute_pmi,
    count_next,
    count_window,
    count_within_seconds,
    flatten_histories,
    group_counts,
    keep_at_least,
    look_up,
    share_a_bridge,
    symmetrize,
    to_pairs,
    top_partners,
)
from onereason.errors import ConfigError, DataError

HISTORIES = [[0, 1, 2, 1], [3], [], [1, 1, 2]]


def entries(matrix) -> dict[tuple[int, int], float]:
    return {(int(s), int(t)): v for s, t, v in zip(*to_pairs(matrix), strict=True)}


def flat(histories=HISTORIES):
    return flatten_histories([np.array(h, dtype=np.int64) for h in histories])


def test_flatten():
    items, offsets = flat()
    assert items.tolist() == [0, 1, 2, 1, 3, 1, 1, 2] and offsets.tolist() == [0, 4, 5, 5, 8]
    items, offsets = flatten_histories([])
    assert items.tolist() == [] and offsets.tolist() == [0]


def test_next_by_hand():
    # user 0: 0>1 1>2 2>1; user 1 and 2: nothing; user 3: 1>1 (same), 1>2
    assert entries(count_next(*flat())) == {(0, 1): 1, (1, 2): 2, (2, 1): 1}
    assert entries(count_next(*flat(), keep_same=True)) == {(0, 1): 1, (1, 1): 1, (1, 2): 2, (2, 1): 1}
    counts = count_next(*flat(), num_labels=6)
    assert counts.shape == (6, 6) and counts.dtype == np.int64 and counts.format == "csr"


def test_window_by_hand():
    # two steps add 0>2, 1>1 (same) for user 0 and 1>2 (over the other 1) for user 3
    expected = {(0, 1): 1, (0, 2): 1, (1, 2): 3, (2, 1): 1}
    assert entries(count_window(*flat(), 2)) == expected
    assert entries(count_window(*flat(), 2, once_per_user=True)) == expected | {(1, 2): 2}
    # a window beyond the longest history adds 0>1 at three steps
    assert entries(count_window(*flat(), 99)) == expected | {(0, 1): 2}


def test_unknown_labels_are_steps_but_form_no_pair():
    assert entries(count_next(*flat([[0, -1, 1]]))) == {}
    assert entries(count_window(*flat([[0, -1, 1]]), 2)) == {(0, 1): 1}


def test_within_seconds_by_hand():
    items, offsets = flat([[0, 1, 2], [0, 2]])
    times = np.array([0, 10, 25, 7, 8])
    assert entries(count_within_seconds(items, offsets, times, 15)) == {(0, 1): 1, (1, 2): 1, (0, 2): 1}
    assert entries(count_within_seconds(items, offsets, times, 25)) == {(0, 1): 1, (1, 2): 1, (0, 2): 2}
    assert entries(count_within_seconds(items, offsets, times, 25, max_steps=1)) == {(0, 1): 1, (1, 2): 1, (0, 2): 1}
    domains = np.array(["a", "a", "b", "a", "b"])
    assert entries(count_within_seconds(items, offsets, times, 25, different=domains)) == {(1, 2): 1, (0, 2): 2}


def test_timestamps_may_fall_between_users_only():
    items, offsets = flat([[0, 1], [], [2, 3]])
    count_within_seconds(items, offsets, np.array([5, 6, 0, 1]), 9)
    with pytest.raises(DataError, match="fall inside a user's timeline, first after interaction 2"):
        count_within_seconds(items, offsets, np.array([5, 6, 7, 1]), 9)
    with pytest.raises(DataError, match="3 timestamps for 4 interactions"):
        count_within_seconds(items, offsets, np.array([5, 6, 7]), 9)


def loop_counts(histories, times, domains, window, seconds, across, keep_same, once):
    """What the module counts, pair by pair."""
    found: Counter[tuple[int, int]] = Counter()
    for history, when, where in zip(histories, times, domains, strict=True):
        mine: Counter[tuple[int, int]] = Counter()
        for a in range(len(history)):
            for b in range(a + 1, min(len(history), a + window + 1)):
                i, j = history[a], history[b]
                if i < 0 or j < 0 or (i == j and not keep_same):
                    continue
                if seconds is not None and when[b] - when[a] > seconds:
                    continue
                if across and where[a] == where[b]:
                    continue
                mine[i, j] += 1
        found.update(mine.keys() if once else mine)
    return dict(found)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(-1, 5), st.integers(0, 9), st.integers(0, 2)), max_size=9), max_size=7),
    st.integers(1, 5),
    st.one_of(st.none(), st.integers(0, 12)),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 3, 10, 4_000_000]),
)
def test_equal_to_plain_loops(users, window, seconds, across, keep_same, once, block):
    histories = [[event[0] for event in user] for user in users]
    times = [np.cumsum([event[1] for event in user]).tolist() for user in users]
    domains = [[event[2] for event in user] for user in users]
    items, offsets = flat(histories)
    options = {
        "different": flat(domains)[0] if across else None,
        "keep_same": keep_same,
        "once_per_user": once,
    }
    before = associations.BLOCK_PAIRS
    try:
        associations.BLOCK_PAIRS = block  # small blocks take the paths of large data
        if seconds is None:
            counts = count_window(items, offsets, window, 6, **options)
        else:
            counts = count_within_seconds(items, offsets, flat(times)[0], seconds, 6, max_steps=window, **options)
    finally:
        associations.BLOCK_PAIRS = before
    assert entries(counts) == loop_counts(histories, times, domains, window, seconds, across, keep_same, once)


def matrix(rows) -> sp.csr_matrix:
    return sp.csr_matrix(np.array(rows, dtype=np.int64))


def test_symmetrize_group_and_support():
    counts = matrix([[5, 2, 0], [1, 0, 0], [0, 4, 0]])
    assert symmetrize(counts).toarray().tolist() == [[5, 3, 0], [3, 0, 4], [0, 4, 0]]
    # labels 0 and 1 are group 1, label 2 is group 0: within group 1 stand 5 + 2 + 1, from 0 to 1 stand 4
    assert group_counts(counts, np.array([1, 1, 0])).toarray().tolist() == [[0, 4], [0, 8]]
    assert group_counts(counts, np.array([0, -1, 0]), 2).toarray().tolist() == [[5, 0], [0, 0]]
    assert entries(keep_at_least(counts, 3)) == {(0, 0): 5, (2, 1): 4}
    assert entries(counts) == {(0, 0): 5, (0, 1): 2, (1, 0): 1, (2, 1): 4}  # untouched


def test_lift_and_pmi_by_hand():
    counts = matrix([[0, 3, 1], [2, 0, 0], [0, 0, 4]])
    # sums: rows 4, 2, 4; columns 2, 3, 5; all 10
    expected = {(0, 1): 3 * 10 / (4 * 3), (0, 2): 10 / (4 * 5), (1, 0): 2 * 10 / (2 * 2), (2, 2): 4 * 10 / (4 * 5)}
    assert entries(compute_lift(counts)) == pytest.approx(expected, rel=1e-12)
    pmi = {pair: math.log(value) for pair, value in expected.items()}
    assert entries(compute_pmi(counts)) == pytest.approx(pmi, rel=1e-12)
    # 3 of 20 users have the pair (0, 1), 6 have 0 and 5 have 1: 3 * 20 / (6 * 5)
    users = np.array([6, 5, 8])
    found = entries(compute_lift(counts, row_totals=users, column_totals=users, total=20))
    assert found[0, 1] == pytest.approx(2.0) and found[2, 2] == pytest.approx(4 * 20 / 64)


def test_look_up():
    counts = matrix([[0, 3], [2, 0]])
    assert look_up(counts, np.array([0, 1, 0, -1, 1]), np.array([1, 0, 0, 1, -1])).tolist() == [3, 2, 0, 0, 0]


def test_top_partners_break_ties_by_label():
    counts = matrix([[0, 2, 2, 5], [0, 0, 0, 0], [1, 0, 0, 0], [3, 4, 3, 0]])
    partners, values = top_partners(counts, 2)
    assert partners.tolist() == [[3, 1], [-1, -1], [0, -1], [1, 0]]
    assert values.tolist() == [[5, 2], [0, 0], [1, 0], [4, 3]]
    assert top_partners(counts, 9)[0][0].tolist() == [3, 1, 2] + [-1] * 6


def test_bridges():
    themes = np.array([0, 0, 1, 2, -1])
    lift = sp.csr_matrix(np.array([[0, 1.5, 0.4], [0, 0, 0], [0, 0, 0]]))
    sources, targets = np.array([0, 0, 2, 0, 0, 4]), np.array([1, 2, 0, 3, 4, 4])
    # same theme; lift 1.5; the other way round unseen; lift 0.4; unknown theme twice
    assert share_a_bridge(sources, targets, themes, lift, 1.2).tolist() == [True, True, False, False, False, False]


def test_mistakes():
    items, offsets = flat()
    with pytest.raises(ConfigError, match="window must be at least 1, got 0"):
        count_window(items, offsets, 0)
    with pytest.raises(ConfigError, match=r"seconds \(-1\) must be at least 0"):
        count_within_seconds(items, offsets, items, -1)
    with pytest.raises(DataError, match="offsets should rise from 0 to 8"):
        count_next(items, offsets[:-1])
    with pytest.raises(DataError, match=r"label 3 is not below num_labels \(3\)"):
        count_next(items, offsets, 3)
    with pytest.raises(DataError, match="`different` has 2 values for 8 interactions"):
        count_window(items, offsets, 2, different=np.zeros(2))
