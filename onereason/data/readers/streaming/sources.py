"""Finds the tables of a corpus and checks their columns before long work.

A table NAME is the file `NAME.parquet`, the files `NAME-*.parquet`, or the Parquet files in a folder `NAME`, found in
one of the folders given. Shards are in order of their names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onereason.data.readers.streaming.engine import read_errors, sql_file, sql_name
from onereason.data.readers.streaming.layout import ItemTable, UserTable
from onereason.errors import DataError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
_NUMBERS = _INTEGERS | {"FLOAT", "DOUBLE"}
KINDS: dict[str, tuple[frozenset[str], str]] = {
    "id": (frozenset(_INTEGERS), "whole numbers (int64)"),
    "ids": (frozenset(f"{t}[]" for t in _NUMBERS), "list of numbers (list[int64])"),
    "codes": (frozenset(f"{t}[]" for t in _NUMBERS), "list of numbers (list[float])"),
    "times": (frozenset(f"{t}[]" for t in _NUMBERS), "list of numbers (list[int64])"),
    "dates": (frozenset(f"{t}[]" for t in _NUMBERS | {"VARCHAR"}), "list of text or numbers (list[string])"),
    "signals": (frozenset(f"{t}[]" for t in _NUMBERS | {"BOOLEAN"}), "list of numbers (list[float])"),
    "moment": (frozenset(_NUMBERS), "a number (int64)"),
    "text": (frozenset({"VARCHAR"}), "text (string)"),
}
"""What a column may be -> types it may have, and the type an error names."""


@dataclass(frozen=True)
class Shard:
    """One file of a table: its place, its rows, and the type of each of its columns as DuckDB names them."""

    path: Path
    rows: int
    types: dict[str, str]

    @property
    def source(self) -> str:
        """What a query reads it from; `file_row_number` numbers its rows from 0."""
        return f"read_parquet({sql_file(self.path)}, file_row_number = true)"

    def is_null(self, column: str) -> bool:
        """Whether the column is missing or holds nulls only, without a type."""
        return self.types.get(column, "NULL") == "NULL"

    def column(self, names: Sequence[str], type: str) -> str:
        """SQL of the first of the columns that the shard has, cast to `type` (null where a value does not fit)."""
        name = next((name for name in names if not self.is_null(name)), None)
        return f"NULL::{type}" if name is None else f"TRY_CAST({sql_name(name)} AS {type})"


@dataclass(frozen=True)
class Table:
    """The shards of one table, in order."""

    name: str
    shards: tuple[Shard, ...]

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)


def find_shards(folders: Sequence[Path], names: Sequence[str]) -> tuple[str, list[Path]]:
    """The table's name that was found and its files; an empty list where there is none.

    Raises:
        DataError: a path is no folder, a table folder holds no Parquet file, or a table stands in two places.
    """
    for folder in folders:
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise DataError(f"{folder} {what}; --in expects the folder(s) that hold the tables {', '.join(names)}.")
    places: list[tuple[str, list[Path]]] = []
    for folder in folders:
        for name in names:
            single = folder / f"{name}.parquet"
            if single.is_file():
                places.append((name, [single]))
            shards = sorted(p for p in folder.iterdir() if re.fullmatch(re.escape(name) + r"-.*\.parquet", p.name))
            if shards:
                places.append((name, shards))
            inner = folder / name
            if inner.is_dir():
                shards = sorted(p for p in inner.iterdir() if p.suffix == ".parquet" and not p.name.startswith("."))
                if not shards:
                    raise DataError(f"table {name}: folder {inner} holds no .parquet file.")
                places.append((name, shards))
    if len(places) > 1:
        where = " and ".join(str(files[0]) for _, files in places)
        raise DataError(f"table {names[0]} stands in {len(places)} places ({where}); keep one of them.")
    return places[0] if places else (names[0], [])


def require_table(con: DuckDBPyConnection, folders: Sequence[Path], names: Sequence[str]) -> Table:
    """The table, with the types of its columns.

    Raises:
        DataError: the table is missing, stands in two places, or a file is no Parquet file.
    """
    name, files = find_shards(folders, names)
    if not files:
        seen = sorted(p.name for folder in folders for p in folder.iterdir() if not p.name.startswith("."))
        raise DataError(
            f"table {' or '.join(names)} not found in {', '.join(map(str, folders))}: expected {name}.parquet, "
            f"{name}-*.parquet or a folder {name} (there is {', '.join(seen[:8]) or 'nothing'})."
        )
    shards = []
    for path in files:
        with read_errors(path):
            rows = con.execute(f"SELECT num_rows FROM parquet_file_metadata({sql_file(path)})").fetchall()[0][0]
            described = con.execute(f"DESCRIBE SELECT * FROM read_parquet({sql_file(path)})").fetchall()
        shards.append(Shard(path, int(rows), {row[0]: str(row[1]).replace('"', "") for row in described}))
    return Table(name, tuple(shards))


def check_item_table(con: DuckDBPyConnection, table: Table, layout: ItemTable, kind: str) -> None:
    """`DataError` unless every shard has `pid`, `domain` (where the layout gives none) and the value."""
    for shard in table.shards:
        value = next((name for name in layout.values if name in shard.types), layout.values[0])
        check_column(con, shard, "pid", "id")
        if not layout.domains or "domain" in shard.types:
            check_column(con, shard, "domain", "text")
        check_column(con, shard, value, kind)


def check_user_table(con: DuckDBPyConnection, table: Table, layout: UserTable) -> None:
    """`DataError` unless every shard has the columns of every family, with types that can be read."""
    for shard in table.shards:
        if layout.id is not None:
            check_column(con, shard, layout.id, "id")
        for name in (*((layout.reference,) if layout.reference else ()), *layout.extra):
            if name in shard.types:
                check_column(con, shard, name, "moment")
        for family in layout.families:
            check_column(con, shard, family.items, "ids")
            if family.times is not None and not (family.times_optional and family.times not in shard.types):
                check_column(con, shard, family.times, "dates" if family.clock == "date" else "times")
            for column in family.signals:
                if column in shard.types or column not in family.optional:
                    check_column(con, shard, column, "signals")
            for column in family.checked:
                if column in shard.types and not shard.types[column].endswith("[]"):
                    _refuse(con, shard, column, "a list")


def check_column(con: DuckDBPyConnection, shard: Shard, column: str, kind: str) -> None:
    """`DataError` naming file, column and expected type unless the column is of this kind or null throughout."""
    types, expected = KINDS[kind]
    if column not in shard.types:
        raise DataError(
            f"{shard.path}: column {column!r} is missing (expected {expected}); it has {', '.join(shard.types)}."
        )
    if shard.types[column] not in types:
        _refuse(con, shard, column, expected)


def _refuse(con: DuckDBPyConnection, shard: Shard, column: str, expected: str) -> None:
    """Refuses a column of another type, unless it holds nulls only (writers give those any type)."""
    with read_errors(shard.path):
        held = con.execute(f"SELECT count({sql_name(column)}) FROM {shard.source}").fetchall()[0][0]
    if held:
        raise DataError(f"{shard.path}: column {column!r} should be {expected}, is {shard.types[column]}.")
    shard.types[column] = "NULL"
