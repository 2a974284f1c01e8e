"""The training part of a dataset's interactions as flat arrays, with moments, actions and queries."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from data_builders.common import TrainingPart
from onereason.cognition.associations import flatten_histories
from onereason.data.schema import INTERACTIONS_FILE, load_dataset
from onereason.data.timelines import sort_by_user
from onereason.errors import DataError
from onereason.itemic.catalog import Catalog

QUERY_COLUMNS = ("query", "search_query")
"""Columns of an interaction table that hold what the user had typed, by preference."""

SECONDS_A_DAY = 86_400
FIRST_DATE = 100_000_000
"""Timestamps whose median is smaller (before 1973) say the order only."""
END_OF_DATES = 253_402_300_800
"""The year 10000 in seconds; larger timestamps count something else, such as milliseconds."""


@dataclass(frozen=True)
class TrainingLog:
    """Interactions of the training part, users one after another, oldest first.

    Attributes:
        items: int64 `[n]`, item indices.
        offsets: int64 `[U + 1]`.
        timestamps: int64 `[n]`, seconds.
        actions: `[n]` texts.
        queries: `[n]` texts, empty where nothing was searched; None where the table has no such column.
    """

    items: np.ndarray
    offsets: np.ndarray
    timestamps: np.ndarray
    actions: pl.Series
    queries: pl.Series | None

    @cached_property
    def has_dates(self) -> bool:
        """Whether timestamps are moments, and not just an order."""
        times = self.timestamps
        return len(times) > 0 and float(np.median(times)) >= FIRST_DATE and int(times.max()) < END_OF_DATES

    @property
    def days(self) -> np.ndarray | None:
        """Int32 `[n]`, days since 1970; None where the data has no dates."""
        return (self.timestamps // SECONDS_A_DAY).astype(np.int32) if self.has_dates else None


def load_training_log(args: argparse.Namespace, part: TrainingPart) -> TrainingLog:
    """The interactions behind `part.histories`, which both splits cut off the front of each timeline.

    Raises:
        DataError: they are not those of the histories, as when the dataset was replaced in between.
    """
    path = args.data / INTERACTIONS_FILE
    table = sort_by_user(load_dataset(args.data).interactions)
    items, offsets = flatten_histories(part.histories)
    kept, known = np.diff(offsets), np.bincount(table["_user"].to_numpy(), minlength=len(part.histories))
    if len(known) != len(kept) or (known < kept).any():
        raise DataError(f"{path} does not hold the events of the training histories; was it replaced? Run again.")
    first = np.cumsum(known) - known  # row of each user's first event
    table = table[np.arange(len(items)) + np.repeat(first - offsets[:-1], kept)]
    _check_items(table["item_id"], items, offsets, args, part)
    name = next((c for c in QUERY_COLUMNS if table.schema.get(c) == pl.String), None)
    queries = None if name is None else table[name].fill_null("").str.strip_chars()
    return TrainingLog(items, offsets, table["timestamp"].to_numpy().astype(np.int64), table["action"], queries)


def _check_items(
    found: pl.Series, items: np.ndarray, offsets: np.ndarray, args: argparse.Namespace, part: TrainingPart
) -> None:
    """`DataError` unless the events' items are those of the histories."""
    different = (found != pl.Series(Catalog.load(args.catalog).item_ids, dtype=pl.String)[items]).to_numpy()
    if different.any():
        place = int(different.argmax())
        user = part.user_ids[int(np.searchsorted(offsets, place, side="right")) - 1]
        raise DataError(
            f"{args.data / INTERACTIONS_FILE}: event {found[place]!r} of user {user!r} is not the one of the training "
            "history; was the dataset replaced? Run again."
        )
