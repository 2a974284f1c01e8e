"""Raw tables, as readers hand them over, cast to the column types of `onereason.data.schema`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from onereason.data.schema import INTERACTION_SCHEMA, ITEM_SCHEMA, SIGNAL_PREFIX
from onereason.errors import DataError

DEFAULT_DOMAIN = "item"
"""Domain of all items where the source names none."""

DEFAULT_ACTION = "interact"
"""Action of interactions where the source names none."""


@dataclass(frozen=True)
class RawTables:
    """What a reader hands to `validate`.

    Attributes:
        items: `item_id`, and where the source has them `domain`, `title`, `text`, `attributes`.
        interactions: `user_id`, `item_id` (null where a user has no item), `timestamp`, and where the source has them
            `action` and `signal_*`, in source order.
        inputs: the files read.
        found: rows in the source by table name (`items`, `users`, `interactions`), where the reader left some out.
        rejected: what the reader left out, by reason.
    """

    items: pl.DataFrame
    interactions: pl.DataFrame
    inputs: tuple[Path, ...]
    found: Mapping[str, int] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)


def cast_items(items: pl.DataFrame, source: str) -> pl.DataFrame:
    """The item table with the schema's columns; blank texts are null, and `_titled` says whether the source has titles.

    Raises:
        DataError: null or repeated ids, a null domain, attributes that are no JSON object, an unknown column or type.
    """
    _require_columns(items, ["item_id"], f"{source}, items")
    extra = [c for c in items.columns if c not in ITEM_SCHEMA]
    if extra:
        raise DataError(f"{source}, items: unknown column {extra[0]!r}; put it into attributes (a JSON object).")
    ids = _as_text(items["item_id"], f"{source}, items")
    nulls = int((ids.is_null() | (ids == "")).sum())
    if nulls:
        raise DataError(f"{source}, items: {nulls} of {len(ids)} rows have no item_id; every item needs one.")
    twice = ids.filter(ids.is_duplicated())
    if len(twice):
        raise DataError(
            f"{source}, items: {twice.n_unique()} item id(s) stand more than once, e.g. {twice[0]!r}; "
            "item ids must be unique."
        )
    names = ("domain", "title", "text", "attributes")
    absent = pl.repeat(None, len(ids), dtype=pl.String, eager=True)
    columns = [_as_text(items[n], f"{source}, items") if n in items.columns else absent.alias(n) for n in names]
    titled = pl.repeat("title" in items.columns, len(ids), dtype=pl.Boolean, eager=True)
    table = pl.DataFrame([ids, *columns, titled.alias("_titled")])
    table = table.with_columns(pl.when(pl.col(n).str.strip_chars() != "").then(pl.col(n)).alias(n) for n in names)
    if "domain" not in items.columns:
        table = table.with_columns(domain=pl.lit(DEFAULT_DOMAIN))
    missing = table.filter(pl.col("domain").is_null())
    if missing.height:
        raise DataError(
            f"{source}, items: {missing.height} item(s) have no domain, e.g. item {missing['item_id'][0]!r}; "
            "name one for each, or leave the column out."
        )
    table = table.with_columns(pl.col("attributes").fill_null("{}"))
    broken = table.filter(~pl.col("attributes").str.contains(r"(?s)^\s*\{.*\}\s*$"))
    if broken.height:
        raise DataError(
            f"{source}, items: the attributes of {broken.height} item(s) are not a JSON object, e.g. item "
            f"{broken['item_id'][0]!r}: {broken['attributes'][0][:60]!r}."
        )
    return table


def cast_interactions(interactions: pl.DataFrame, source: str) -> pl.DataFrame:
    """The interactions with the schema's columns except `domain`, plus signals as float32; source order is kept.

    Raises:
        DataError: null user ids, timestamps that are missing or no whole numbers, an unknown column or type.
    """
    what = f"{source}, interactions"
    _require_columns(interactions, ["user_id", "item_id", "timestamp"], what)
    signals = [c for c in interactions.columns if c.startswith(SIGNAL_PREFIX)]
    extra = [c for c in interactions.columns if c not in INTERACTION_SCHEMA and c not in signals]
    if extra:
        raise DataError(
            f"{what}: unknown column {extra[0]!r}; a number logged with an interaction is named "
            f"{SIGNAL_PREFIX}{extra[0]}, anything else is left out."
        )
    users = _as_text(interactions["user_id"], what)
    nulls = int((users.is_null() | (users == "")).sum())
    if nulls:
        raise DataError(f"{what}: {nulls} of {len(users)} rows have no user_id; every interaction needs one.")
    items = _as_text(interactions["item_id"], what)
    items = items.set(items == "", None)
    columns = [users, items, _as_seconds(interactions["timestamp"], items.is_not_null(), what)]
    if "action" in interactions.columns:
        # On one line: timelines show an action and its item as a line of their own.
        action = _as_text(interactions["action"], what).str.replace_all(r"\s+", " ").str.strip_chars()
        columns.append(action.set(action == "", None).fill_null(DEFAULT_ACTION))
    else:
        columns.append(pl.repeat(DEFAULT_ACTION, interactions.height, eager=True, dtype=pl.String).alias("action"))
    for name in signals:
        dtype = interactions.schema[name]
        if not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
            raise DataError(f"{what}: signal {name!r} should be numbers, is {dtype}.")
        columns.append(interactions[name].cast(pl.Float32))
    return pl.DataFrame(columns)


def _require_columns(table: pl.DataFrame, names: list[str], what: str) -> None:
    for name in names:
        if name not in table.columns:
            raise DataError(f"{what}: column {name!r} is missing; it has {', '.join(table.columns) or 'none'}.")


def _as_text(column: pl.Series, what: str) -> pl.Series:
    """Text, or whole numbers and category names as text; other types are refused (1.0 and 1 are not the same id)."""
    dtype = column.dtype
    if dtype == pl.String:
        return column
    if dtype.is_integer() or dtype in (pl.Categorical, pl.Enum, pl.Null):
        return column.cast(pl.String)
    raise DataError(f"{what}: column {column.name!r} should be text or whole numbers, is {dtype}.")


def _as_seconds(column: pl.Series, needed: pl.Series, what: str) -> pl.Series:
    """Timestamps as int64; dates become seconds since 1970 (UTC where no zone is given). Null only where not needed."""
    missing = int((column.is_null() & needed).sum())
    if missing:
        raise DataError(f"{what}: {missing} interaction(s) have no timestamp; every interaction needs one.")
    dtype = column.dtype
    if dtype in (pl.Datetime, pl.Date):
        return column.dt.epoch("s").cast(pl.Int64)
    if dtype.is_float():
        bad = column.filter((column != column.floor()) | ~column.is_finite() | (column.abs() >= 2.0**63))
        if len(bad):
            raise DataError(
                f"{what}: {len(bad)} timestamp(s) are not whole numbers, e.g. {bad[0]}; give whole seconds (round, or "
                "use milliseconds throughout)."
            )
    elif not (dtype.is_integer() or dtype in (pl.String, pl.Null)):
        raise DataError(f"{what}: column 'timestamp' should be whole numbers or dates, is {dtype}.")
    times = column.cast(pl.Int64, strict=False)
    failed = column.filter(times.is_null() & column.is_not_null())
    if len(failed):
        raise DataError(
            f"{what}: {len(failed)} timestamp(s) are not whole numbers, e.g. {failed[0]!r}; "
            "give whole seconds or dates."
        )
    return times
