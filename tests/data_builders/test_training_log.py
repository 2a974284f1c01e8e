"""The training part as flat arrays: aligned with the histories under both splits."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from data_builders.common import load_training_part
from data_builders.training_log import load_training_log
from onereason.data.schema import INTERACTION_SCHEMA, ITEM_SCHEMA, Dataset, load_dataset, save_dataset
from onereason.errors import DataError
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format


def write_data(root: Path, events, schema=INTERACTION_SCHEMA) -> SimpleNamespace:
    names = [f"i{i}" for i in range(6)]
    Catalog(load_format("minionerec", 1, 8), names, np.arange(6)[:, None], ["item"] * 6).save(root / "catalog")
    columns = {"item_id": names, "domain": ["item"] * 6, "title": names, "text": names, "attributes": ["{}"] * 6}
    interactions = pl.DataFrame(events, schema=schema, orient="row")
    save_dataset(Dataset(pl.DataFrame(columns, schema=ITEM_SCHEMA), interactions), root / "data")
    args = SimpleNamespace(data=root / "data", catalog=root / "catalog", split_method="leave-one-out")
    args.validation_start = args.test_start = None
    return args


EVENTS = [
    ("bob", "i0", 300, "buy", "item"),
    ("ann", "i1", 10, "click", "item"),
    ("bob", "i2", 100, "click", "item"),
    ("bob", "i3", 200, "look", "item"),
    ("ann", "i4", 20, "buy", "item"),
    ("bob", "i5", 100, "save", "item"),
]
"""bob, in time: i2 and i5 (one moment, in source order), i3, i0; ann: i1, i4, too few to hold anything out."""


def test_leave_one_out(tmp_path):
    args = write_data(tmp_path, EVENTS)
    log = load_training_log(args, load_training_part(args))
    assert log.items.tolist() == [2, 5, 1, 4] and log.offsets.tolist() == [0, 2, 4]
    assert log.timestamps.tolist() == [100, 100, 10, 20]
    assert log.actions.to_list() == ["click", "save", "click", "buy"]
    assert log.queries is None and not log.has_dates and log.days is None


def test_temporal(tmp_path):
    args = write_data(tmp_path, EVENTS)
    args.split_method, args.validation_start, args.test_start = "temporal", 15, 250
    log = load_training_log(args, load_training_part(args))
    assert log.items.tolist() == [1] and log.offsets.tolist() == [0, 0, 1] and log.timestamps.tolist() == [10]
    args.validation_start = 201
    log = load_training_log(args, load_training_part(args))
    assert log.items.tolist() == [2, 5, 3, 1, 4] and log.timestamps.tolist() == [100, 100, 200, 10, 20]


@pytest.mark.parametrize(
    ("start", "days"),
    [
        (86_400 * 19_723, [19_723] * 4),
        (99_000_000, None),  # numbers of events
        (86_400 * 19_723 * 1000, None),  # milliseconds
    ],
)
def test_dates(tmp_path, start, days):
    args = write_data(tmp_path, [(u, i, t + start, a, d) for u, i, t, a, d in EVENTS])
    log = load_training_log(args, load_training_part(args))
    assert (None if log.days is None else log.days.tolist()) == days


def test_queries(tmp_path):
    typed = [None, " tea ", "", None, "tents", "trains"]
    schema = {**INTERACTION_SCHEMA, "query": pl.String}
    args = write_data(tmp_path, [(*event, query) for event, query in zip(EVENTS, typed, strict=True)], schema)
    log = load_training_log(args, load_training_part(args))
    assert log.queries.to_list() == ["", "trains", "tea", "tents"]


START = 86_400 * 20_089


def some_events(seed: int) -> list[tuple[str, str, int, str, str]]:
    """Events of users in no order, with many equal timestamps; each action tells its row."""
    rng = np.random.default_rng(seed)
    return [
        (f"u{rng.integers(9)}", f"i{rng.integers(6)}", START + int(rng.integers(25)), f"act {n}", "item")
        for n in range(120)
    ]


@pytest.mark.parametrize("split", [None, (START + 12, START + 18), (START, START + 1), (START + 99, START + 100)])
@pytest.mark.parametrize("seed", range(3))
def test_events_stand_beside_their_histories(tmp_path, split, seed):
    rows = some_events(seed)
    args = write_data(tmp_path, rows)
    if split:
        args.split_method, args.validation_start, args.test_start = "temporal", *split
    part = load_training_part(args)
    log = load_training_log(args, part)
    timelines: dict[str, list[tuple[str, str, int, str, str]]] = defaultdict(list)
    for row in rows:  # users as they first appear
        timelines[row[0]].append(row)
    assert list(timelines) == list(part.user_ids) and log.has_dates == any(map(len, part.histories))
    expected = []
    for user, of in zip(part.user_ids, timelines.values(), strict=True):
        of = sorted(of, key=lambda row: row[2])  # equal moments keep their order
        training = [row for row in of if row[2] < split[0]] if split else of[:-2] if len(of) > 2 else of
        expected.append(training)
        assert {row[0] for row in of} == {user}
    assert np.diff(log.offsets).tolist() == [*map(len, expected)] and log.offsets[0] == 0
    flat = [row for of in expected for row in of]
    assert [f"i{item}" for item in log.items] == [row[1] for row in flat]
    assert log.timestamps.tolist() == [row[2] for row in flat] and log.actions.to_list() == [row[3] for row in flat]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ([("u", "i0", 1), ("u", "i5", 2), ("u", "i2", 3), ("u", "i3", 4)], "event 'i5' of user 'u'"),
        ([("u", "i0", 1), ("u", "i1", 3), ("u", "i3", 2), ("u", "i4", 4)], "event 'i3' of user 'u'"),
        ([("u", "i0", 1)], "does not hold the events"),
        ([("u", f"i{n}", n) for n in range(4)] + [("v", "i0", 1)], "does not hold the events"),
    ],
)
def test_a_dataset_that_was_replaced_meanwhile_is_noticed(tmp_path, changed, said):
    args = write_data(tmp_path, [("u", f"i{n}", n, "look", "item") for n in range(4)])
    part = load_training_part(args)
    assert load_training_log(args, part).items.tolist() == [0, 1]
    interactions = pl.DataFrame([(*row, "look", "item") for row in changed], schema=INTERACTION_SCHEMA, orient="row")
    save_dataset(Dataset(load_dataset(args.data).items, interactions), args.data, overwrite=True)
    with pytest.raises(DataError, match=said):
        load_training_log(args, part)
