"""Dataset folders that are broken are refused in one clear error."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from onereason.data.schema import INTERACTION_SCHEMA, ITEM_SCHEMA, load_dataset
from onereason.errors import DataError


def write_tables(folder: Path, user: str | None) -> None:
    pl.DataFrame([["i", "prod", None, "text", "{}"]], schema=ITEM_SCHEMA, orient="row").write_parquet(
        folder / "items.parquet"
    )
    pl.DataFrame([[user, "i", 1, "buy", "prod"]], schema=INTERACTION_SCHEMA, orient="row").write_parquet(
        folder / "interactions.parquet"
    )


def test_null_users_are_refused_and_null_titles_are_not(tmp_path: Path) -> None:
    write_tables(tmp_path, user="u")
    assert load_dataset(tmp_path).interactions.height == 1
    write_tables(tmp_path, user=None)
    with pytest.raises(DataError, match="column 'user_id' is null in 1 of 1 rows"):
        load_dataset(tmp_path)
