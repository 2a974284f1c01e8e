"""The training part of a dataset's interactions as flat arrays, with moments, actions and queries."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import polars as pl

from data_builders.common import TrainingPart
from onereason.cognition.associations import flatten_histories
from onereason.data.schema import load_dataset
from onereason.data.timelines import sort_by_user

QUERY_COLUMNS = ("query", "search_query")
"""Columns of an interaction table that hold what the user had typed, by preference."""

SECONDS_A_DAY = 86_400
FIRST_DATE = 100_000_000
"""Timestamps whose median is smaller (before 1973) say the order only."""


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

    @property
    def has_dates(self) -> bool:
        """Whether timestamps are moments, and not just an order."""
        return bool(len(self.timestamps)) and float(np.median(self.timestamps)) >= FIRST_DATE

    @property
    def days(self) -> np.ndarray | None:
        """Int32 `[n]`, days since 1970; None where the data has no dates."""
        return (self.timestamps // SECONDS_A_DAY).astype(np.int32) if self.has_dates else None


def load_training_log(args: argparse.Namespace, part: TrainingPart) -> TrainingLog:
    """The interactions behind `part.histories`, which both splits cut off the front of each timeline."""
    table = sort_by_user(load_dataset(args.data).interactions)
    lengths = np.bincount(table["_user"].to_numpy(), minlength=len(part.histories))
    items, offsets = flatten_histories(part.histories)
    place = np.arange(len(table)) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # of each row in its timeline
    table = table.filter(pl.Series(place < np.repeat(np.diff(offsets), lengths)))
    assert table.height == len(items), "a training history is the front of its timeline"
    name = next((c for c in QUERY_COLUMNS if table.schema.get(c) == pl.String), None)
    queries = None if name is None else table[name].fill_null("").str.strip_chars()
    return TrainingLog(items, offsets, table["timestamp"].to_numpy().astype(np.int64), table["action"], queries)
