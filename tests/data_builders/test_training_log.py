"""The training part as flat arrays: aligned with the histories under both splits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from data_builders.common import load_training_part
from data_builders.training_log import load_training_log
from onereason.data.schema import INTERACTION_SCHEMA, ITEM_SCHEMA, Dataset, save_dataset
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


@pytest.mark.parametrize(("start", "days"), [(86_400 * 19_723, [19_723] * 4), (99_000_000, None)])
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
