"""The one schema that every reader fills and every later step reads.

A dataset is two Polars tables:

- **items**: `item_id` (string), `domain` (string), `title` (string or null), `text` (string: the caption, what a person
  or a text embedder reads), `attributes` (string: a JSON object).
- **interactions**: `user_id` (string), `item_id` (string), `timestamp` (int64, seconds; any increasing number where the
  source knows only the order), `action` (string), `domain` (string: the item's), and any number of `signal_*` columns
  (float32, null where not logged, e.g. `signal_watch_seconds`). Rows are sorted by user, then time.

On disk a dataset is a folder: `items.parquet`, `interactions.parquet`, `manifest.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from onereason.errors import DataError
from onereason.io import MANIFEST_NAME, atomic_dir, read_json, write_json

ITEMS_FILE = "items.parquet"
INTERACTIONS_FILE = "interactions.parquet"
SIGNAL_PREFIX = "signal_"

ITEM_SCHEMA: dict[str, Any] = {
    "item_id": pl.String,
    "domain": pl.String,
    "title": pl.String,
    "text": pl.String,
    "attributes": pl.String,
}
INTERACTION_SCHEMA: dict[str, Any] = {
    "user_id": pl.String,
    "item_id": pl.String,
    "timestamp": pl.Int64,
    "action": pl.String,
    "domain": pl.String,
}

_MAY_BE_NULL = {"title", "attributes"}


@dataclass(frozen=True)
class Dataset:
    """Items and interactions that passed `validate`, with the manifest of how they came to be."""

    items: pl.DataFrame
    interactions: pl.DataFrame
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def domains(self) -> list[str]:
        """Domain names, most items first (ties by name)."""
        counts = self.items.group_by("domain").len().sort(["len", "domain"], descending=[True, False])
        return counts["domain"].to_list()


def check_columns(table: pl.DataFrame, schema: Mapping[str, Any], what: str) -> None:
    """`DataError` unless the table has the schema's columns with these types."""
    for column, dtype in schema.items():
        if column not in table.columns:
            raise DataError(f"{what}: column {column!r} is missing; it has {', '.join(table.columns)}.")
        if table.schema[column] != dtype:
            raise DataError(f"{what}: column {column!r} should be {dtype}, is {table.schema[column]}.")


def _check_no_nulls(table: pl.DataFrame, columns: list[str], what: str) -> None:
    for column in columns:
        if count := table[column].null_count():
            raise DataError(
                f"{what}: column {column!r} is null in {count} of {table.height} rows; every row needs one."
            )


def save_dataset(dataset: Dataset, folder: str | Path, overwrite: bool = False) -> None:
    """Writes a dataset folder atomically."""
    with atomic_dir(folder, overwrite) as temporary:
        write_dataset_into(dataset, temporary)


def write_dataset_into(dataset: Dataset, folder: Path) -> None:
    """Writes the three files into an existing folder."""
    dataset.items.write_parquet(folder / ITEMS_FILE)
    dataset.interactions.write_parquet(folder / INTERACTIONS_FILE)
    write_json(folder / MANIFEST_NAME, dict(dataset.manifest))


def load_dataset(folder: str | Path) -> Dataset:
    """Reads a dataset folder; `DataError` naming the file and column that is missing or malformed."""
    folder = Path(folder)
    tables = {}
    for name, schema in ((ITEMS_FILE, ITEM_SCHEMA), (INTERACTIONS_FILE, INTERACTION_SCHEMA)):
        path = folder / name
        if not path.is_file():
            raise DataError(
                f"{folder} is not a dataset folder: {name} is missing; make one with `onereason data import` or "
                "`onereason simulate`."
            )
        try:
            tables[name] = pl.read_parquet(path, glob=False)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise DataError(f"{path} cannot be read as parquet: {error}.") from error
        check_columns(tables[name], schema, str(path))
        _check_no_nulls(tables[name], [c for c in schema if c not in _MAY_BE_NULL], str(path))
    manifest = read_json(folder / MANIFEST_NAME, "dataset manifest") if (folder / MANIFEST_NAME).is_file() else {}
    return Dataset(tables[ITEMS_FILE], tables[INTERACTIONS_FILE], manifest)
