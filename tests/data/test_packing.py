"""Packing rows into longer ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.data.packing import PACK_WINDOW, pack_rows
from onereason.errors import ConfigError, DataError


def test_best_fit_longest_first():
    # 6 opens a pack (4 left); 5 opens one (5 left); 4 fills the first; 3 goes to the second (2 left); 2 fills it
    packs = pack_rows(np.array([2, 6, 3, 5, 4]), 10, seed=0)
    assert sorted(pack.tolist() for pack in packs) == [[0, 2, 3], [1, 4]]


@given(lengths=st.lists(st.integers(1, 20), max_size=60), max_length=st.integers(20, 50), seed=st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_every_row_stands_in_one_pack_that_fits(lengths, max_length, seed):
    found = np.array(lengths, dtype=np.int64)
    packs = pack_rows(found, max_length, seed)
    assert sorted(packs.rows.tolist()) == list(range(len(lengths)))
    sizes = [int(found[pack].sum()) for pack in packs]
    assert all(0 < size <= max_length for size in sizes)
    assert len(packs) <= 2 * sum(lengths) / max_length + 1  # at most one pack is half empty
    assert [p.tolist() for p in pack_rows(found, max_length, seed)] == [p.tolist() for p in packs]


def test_packs_stay_in_their_window_and_leave_it_in_random_order():
    lengths = np.tile([3, 1], PACK_WINDOW)  # two windows
    packs = pack_rows(lengths, 4, seed=0)
    windows = [set((pack // PACK_WINDOW).tolist()) for pack in packs]
    assert windows == [{0}] * (PACK_WINDOW // 2) + [{1}] * (PACK_WINDOW // 2)
    first = [int(pack[0]) for pack in packs][: PACK_WINDOW // 2]
    assert first != sorted(first)
    assert packs.rows.tolist() != pack_rows(lengths, 4, seed=1).rows.tolist()


def test_wrong_input():
    with pytest.raises(ConfigError, match="max_length must be at least 1, got 0"):
        pack_rows(np.array([1]), 0, 0)
    with pytest.raises(DataError, match="a row of 7 tokens does not fit packs of 5"):
        pack_rows(np.array([1, 7]), 5, 0)
    assert len(pack_rows(np.array([], dtype=np.int64), 5, 0)) == 0
