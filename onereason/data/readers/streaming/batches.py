"""The user table in batches of rows, and who each row is.

A batch holds about as many list entries as the memory limit has room for, so memory does not grow with the table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onereason.data.readers.streaming.engine import read_errors, sql_file, sql_name, sql_text
from onereason.data.readers.streaming.layout import Layout
from onereason.data.readers.streaming.ledger import MAX_EXAMPLES, Ledger
from onereason.data.readers.streaming.sources import Shard, Table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

USER_NAME = "printf('u%08d', {})"
"""SQL of the id of a user that has none: from its row's number in the whole table."""

NULL_USER, DUPLICATE_USER = "null_user", "duplicate_user"
"""Why a whole user is left out before its lists are read."""


@dataclass(frozen=True)
class Batch:
    """Rows `start` to `stop - 1` of a shard; `first_user` is the number of the user in the shard's row 0."""

    shard: Shard
    start: int
    stop: int
    first_user: int


def plan_batches(
    con: DuckDBPyConnection, layout: Layout, table: Table, budget: int, max_users: int | None
) -> list[Batch]:
    """Batches of about `budget` list entries, in order; the row groups' own counts say how many a row holds."""
    batches: list[Batch] = []
    first_user = 0
    items = ", ".join(sql_text(family.items) for family in layout.users.families)
    for shard in table.shards:
        limit = shard.rows if max_users is None else min(shard.rows, max_users - first_user)
        if limit > 0:
            with read_errors(shard.path):
                groups = con.execute(
                    "SELECT any_value(row_group_num_rows), sum(num_values) FROM "
                    f"parquet_metadata({sql_file(shard.path)}) WHERE split_part(path_in_schema, ', ', 1) IN ({items}) "
                    "GROUP BY row_group_id ORDER BY row_group_id"
                ).fetchall()
            batches += [Batch(shard, start, stop, first_user) for start, stop in cut_rows(groups, budget, limit)]
        first_user += shard.rows
    return batches


def cut_rows(groups: Iterable[tuple[int, int]], budget: int, limit: int) -> list[tuple[int, int]]:
    """Ranges over the first `limit` rows of row groups `(rows, entries)` with at most about `budget` entries each.

    A row group with more is cut evenly; small ones are taken together. A range has at least one row.
    """
    pieces: list[tuple[int, float]] = []
    for rows, entries in groups:
        parts = min(rows, -(-entries // budget)) or 1
        pieces += [(rows * (n + 1) // parts - rows * n // parts, entries / parts) for n in range(parts)]
    ranges: list[tuple[int, int]] = []
    start = stop = 0
    held = 0.0
    for rows, size in pieces:
        if stop > start and held + size > budget:
            ranges.append((start, stop))
            start, held = stop, 0.0
        stop, held = stop + rows, held + size
    if stop > start:
        ranges.append((start, stop))
    return [(start, min(stop, limit)) for start, stop in ranges if start < limit]


def number_users(con: DuckDBPyConnection, layout: Layout, table: Table, max_users: int | None, ledger: Ledger) -> None:
    """Fills `user_rows` (number, id, shard, row, extra columns, why it is skipped) with the first `max_users` rows."""
    declared = layout.users
    extra = "".join(f", {sql_name(name)} BIGINT" for name in declared.extra)
    con.execute(
        f"CREATE TABLE user_rows (user INTEGER, user_id VARCHAR, shard INTEGER, row BIGINT, skip VARCHAR{extra})"
    )
    first_user = 0
    for number, shard in enumerate(table.shards):
        user = f"{first_user} + file_row_number"
        name = USER_NAME.format(user) if declared.id is None else shard.column([declared.id], "VARCHAR")
        columns = "".join(f", {shard.column([column], 'BIGINT')}" for column in declared.extra)
        with read_errors(shard.path):
            con.execute(
                f"INSERT INTO user_rows SELECT {user}, {name}, {number}, file_row_number, NULL{columns} "
                f"FROM {shard.source} WHERE {user} < {2**31 - 1 if max_users is None else max_users}"
            )
        first_user += shard.rows
    if declared.id is not None:
        con.execute(f"UPDATE user_rows SET skip = '{NULL_USER}' WHERE user_id IS NULL")
        con.execute(
            f"UPDATE user_rows SET skip = '{DUPLICATE_USER}' WHERE user_id IS NOT NULL AND user NOT IN "
            "(SELECT min(user) FROM user_rows GROUP BY user_id)"
        )
    ledger.users["found"] = con.execute("SELECT count(*) FROM user_rows").fetchall()[0][0]
    skipped = con.execute(
        "SELECT skip, count(*), list(user_id ORDER BY user) FROM user_rows WHERE skip IS NOT NULL GROUP BY skip "
        "ORDER BY skip"
    ).fetchall()
    for reason, count, names in skipped:
        ledger.users[reason] += count
        ledger.quarantined[reason] += count
        ledger.show(f"users: {reason}", (f"uid {name}" for name in names[:MAX_EXAMPLES] if name is not None))
