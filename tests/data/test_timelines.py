"""Timelines and splits against plain Python over lists of rows."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.data.timelines import build_timelines, keep_last, split_leave_one_out, split_temporal
from onereason.errors import CatalogError, DataError

ITEMS = ["p", "q", "r", "s"]
INDEX = {"p": 2, "q": 0, "r": 3, "s": 1}

rows = st.lists(
    st.tuples(st.sampled_from(["u", "v", "w"]), st.sampled_from(ITEMS), st.integers(0, 6)), min_size=1, max_size=25
)


def table(values: list[tuple[str, str, int]]) -> pl.DataFrame:
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    return pl.DataFrame(values, schema=schema, orient="row")


def by_user(values: list[tuple[str, str, int]]) -> dict[str, list[tuple[int, int]]]:
    """User -> `(time, item index)` in time order, ties in row order; users in order of first appearance."""
    found: dict[str, list[tuple[int, int]]] = {}
    for user, item, time in values:
        found.setdefault(user, []).append((time, INDEX[item]))
    return {user: sorted(events, key=lambda e: e[0]) for user, events in found.items()}


def lists(arrays: list[np.ndarray]) -> list[list[int]]:
    return [a.tolist() for a in arrays]


@settings(max_examples=100, deadline=None)
@given(rows)
def test_timelines_equal_a_sort_in_plain_python(values):
    timelines = build_timelines(table(values), INDEX)
    expected = by_user(values)
    assert timelines.user_ids == list(expected)
    assert len(timelines) == len(expected)
    for user, events in enumerate(expected.values()):
        assert timelines.of(user).tolist() == [item for _, item in events]
        low, high = timelines.offsets[user], timelines.offsets[user + 1]
        assert timelines.timestamps[low:high].tolist() == [time for time, _ in events]
    assert timelines.items.dtype == timelines.timestamps.dtype == timelines.offsets.dtype == np.int64


@settings(max_examples=100, deadline=None)
@given(rows, st.integers(0, 5))
def test_leave_one_out_equals_slices(values, min_items):
    split = split_leave_one_out(build_timelines(table(values), INDEX), min_items)
    whole = [[item for _, item in events] for events in by_user(values).values()]
    kept = [u for u, items in enumerate(whole) if len(items) >= max(3, min_items)]
    assert lists(split.train) == [i[:-2] if u in kept else i for u, i in enumerate(whole)]
    for examples, cut in ((split.validation, -2), (split.test, -1)):
        assert examples.users.tolist() == kept
        assert lists(examples.histories) == [whole[u][:cut] for u in kept]
        assert lists(examples.targets) == [[whole[u][cut]] for u in kept]


@settings(max_examples=100, deadline=None)
@given(rows, st.integers(-1, 7), st.integers(1, 4))
def test_temporal_split_equals_filters_on_time(values, start, length):
    end = start + length
    split = split_temporal(build_timelines(table(values), INDEX), start, end)
    users = list(by_user(values).values())
    assert lists(split.train) == [[i for t, i in events if t < start] for events in users]
    for examples, low, high in ((split.validation, start, end), (split.test, end, 99)):
        expected = [
            (u, [i for t, i in events if t < low], [i for t, i in events if low <= t < high])
            for u, events in enumerate(users)
        ]
        expected = [row for row in expected if row[1] and row[2]]
        assert list(zip(examples.users.tolist(), lists(examples.histories), lists(examples.targets), strict=True)) == (
            expected
        )


def test_keep_last():
    histories = [np.array([1, 2, 3]), np.array([4]), np.array([], dtype=np.int64)]
    assert lists(keep_last(histories, 2)) == [[2, 3], [4], []]
    assert lists(keep_last(histories, 9)) == [[1, 2, 3], [4], []]
    assert keep_last(histories, None) is histories
    with pytest.raises(DataError, match="keep-last must be at least 1, got 0"):
        keep_last(histories, 0)


def test_select_keeps_examples_aligned():
    values = [(user, item, t) for user in "uvw" for t, item in enumerate("pqrs")]
    chosen = split_leave_one_out(build_timelines(table(values), INDEX)).test.select(np.array([2, 0]))
    assert chosen.users.tolist() == [2, 0]
    assert lists(chosen.targets) == [[INDEX["s"]]] * 2
    assert len(chosen) == 2


def test_what_is_refused():
    values = [("u", "p", 0), ("u", "x", 1), ("v", "x", 1), ("v", "y", 2)]
    with pytest.raises(CatalogError, match=r"lacks 2 item\(s\) of the interactions, e.g. 'x' \(3 interactions\)"):
        build_timelines(table(values), INDEX)
    with pytest.raises(DataError, match="the interactions table is empty"):
        build_timelines(table([]), INDEX)
    split = split_leave_one_out(build_timelines(table([("u", "p", 0)]), INDEX))
    with pytest.raises(DataError, match="split 'train' is not known; use 'validation' or 'test'"):
        split.examples("train")
    assert split.examples("test") is split.test
    with pytest.raises(DataError, match=r"validation_start \(5\) must lie before test_start \(5\)"):
        split_temporal(build_timelines(table([("u", "p", 0)]), INDEX), 5, 5)
