"""Mixing corpora by shares."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.data.mixture import ALIGNMENT_SHARES, GROUP_WINDOW, MixtureOrder, allot, group_by_length, mix
from onereason.errors import ConfigError

CORPORA = {"persona": range(100), "sequential": range(300), "caption": range(7), "general": range(50)}


def test_alignment_shares_deal_out_a_thousand_rows():
    # exact: 243.0, 657.3, 49.4, 50.3; whole parts sum to 999, the largest remainder (.4, caption) gets the last row
    order = mix(CORPORA, ALIGNMENT_SHARES, 1000, seed=0)
    expected = {"persona": 243, "sequential": 657, "caption": 50, "general": 50}
    assert order.counts() == expected == dict(Counter(name for name, _ in order))


def test_default_is_one_pass_over_the_largest_share():
    order = mix(CORPORA, {"sequential": 3, "caption": 1}, None, seed=0)
    assert order.counts() == {"sequential": 300, "caption": 100}
    assert sorted(row for name, row in order if name == "sequential") == list(range(300))


def test_reference_is_gone_through_exactly_once():
    order = mix(CORPORA, ALIGNMENT_SHARES, None, seed=0, reference="caption")
    assert sorted(row for name, row in order if name == "caption") == list(range(7))
    # the others: 7 x 95.06 / 4.94 = 134.7 -> 135 rows; 34.51, 93.35, 7.14 of them: 34 + 93 + 7, rest to persona
    assert order.counts() == {"caption": 7, "persona": 35, "sequential": 93, "general": 7}


def test_rows_come_again_only_after_every_row_has_come():
    rows = [row for name, row in mix(CORPORA, {"caption": 1, "persona": 1}, 60, seed=3) if name == "caption"]
    assert len(rows) == 30  # 4 rounds of 7, and 2 rows
    for start in range(0, 28, 7):
        assert sorted(rows[start : start + 7]) == list(range(7))
    assert len(set(rows[28:])) == 2
    assert rows[:7] != rows[7:14]  # each round in an order of its own


def test_order_depends_on_the_seed_alone():
    one = list(mix(CORPORA, ALIGNMENT_SHARES, 200, seed=1))
    assert one == list(mix(CORPORA, dict(reversed(ALIGNMENT_SHARES.items())), 200, seed=1))
    assert one != list(mix(CORPORA, ALIGNMENT_SHARES, 200, seed=2))
    names = [name for name, _ in one]
    assert names != sorted(names)  # corpora alternate


def test_corpora_without_share_take_no_part():
    order = mix(CORPORA, {"caption": 1, "general": 0}, 5, seed=0)
    assert order.names == ("caption",) and len(order) == 5
    assert order[0] == next(iter(order)) and order[1:3] == list(order)[1:3]


@given(
    total=st.integers(0, 500),
    shares=st.dictionaries(st.sampled_from("abcde"), st.floats(0.01, 100), min_size=1),
)
@settings(max_examples=100, deadline=None)
def test_allotment_is_exact(total, shares):
    counts = allot(total, shares)
    assert sum(counts.values()) == total
    for name, count in counts.items():
        assert abs(count - total * shares[name] / sum(shares.values())) < 1 + 1e-9


@pytest.mark.parametrize(
    ("shares", "num_rows", "more", "message"),
    [
        ({"chess": 1}, 5, {}, "shares name unknown corpora chess; known are caption, general, persona, sequential"),
        ({"caption": -1}, 5, {}, "share of 'caption' is -1; shares must be numbers of at least 0"),
        ({"caption": float("nan")}, 5, {}, "share of 'caption' is nan"),
        ({"caption": 0}, 5, {}, "no corpus has a positive share"),
        ({}, 5, {}, "no corpus has a positive share"),
        ({"nothing": 1, "caption": 1}, 5, {}, "corpus 'nothing' is empty but has share 1.0"),
        ({"caption": 1}, 0, {}, "num_rows must be at least 1, got 0"),
        (
            {"caption": 1},
            None,
            {"reference": "persona"},
            "reference 'persona' has no positive share; use one of caption",
        ),
    ],
)
def test_wrong_mixtures(shares, num_rows, more, message):
    corpora = CORPORA | ({"nothing": []} if "nothing" in shares else {})
    with pytest.raises(ConfigError, match=message):
        mix(corpora, shares, num_rows, 0, **more)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 400), st.integers(1, 7), st.integers(0, 9))
def test_grouping_keeps_every_row_and_mixes_no_lengths(total, batch_size, seed):
    lengths = np.random.default_rng(seed).integers(1, 30, total)
    order = MixtureOrder(("one",), np.zeros(total, np.int16), np.arange(total))
    grouped = group_by_length(order, lengths, batch_size, seed)
    assert sorted(grouped.row.tolist()) == list(range(total))
    assert grouped.row.tolist() == group_by_length(order, lengths, batch_size, seed).row.tolist()
    window = GROUP_WINDOW * batch_size
    for start in range(0, total - total % window, window):  # whole windows: the batches are the sorted rows, cut
        rows = order.row[start : start + window]
        expected = lengths[rows][np.argsort(lengths[rows], kind="stable")].reshape(-1, batch_size)
        found = lengths[grouped.row[start : start + window]].reshape(-1, batch_size)
        assert sorted(map(tuple, found)) == sorted(map(tuple, expected))


def test_grouped_batches_come_in_no_order_of_length():
    order = MixtureOrder(("one",), np.zeros(200, np.int16), np.arange(200))
    grouped = group_by_length(order, np.arange(200), 4, 0)
    firsts = grouped.row[::4]  # shortest row of each of the 50 batches
    assert not (np.diff(firsts) > 0).all() and not (np.diff(firsts) < 0).all()
