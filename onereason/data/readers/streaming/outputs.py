"""The files of the dataset folder besides the items, and the counts of its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onereason.data.readers.streaming.batches import USER_NAME
from onereason.data.readers.streaming.engine import sql_file, sql_name, sql_text
from onereason.data.readers.streaming.layout import Layout
from onereason.data.readers.streaming.ledger import (
    BAD_TIMESTAMP,
    NO_TIMESTAMPS,
    REASONS,
    UNEQUAL_LISTS,
    Ledger,
)
from onereason.data.readers.streaming.sources import Table
from onereason.data.readers.streaming.unfold import aligned_columns
from onereason.data.schema import SIGNAL_PREFIX

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

USERS_FILE, REJECTED_FILE = "users.parquet", "rejected.parquet"
EMPTY_HISTORY = "empty_history"
"""Why a whole user is left out in the end: no interaction is left."""


def write_interactions(con: DuckDBPyConnection, layout: Layout, parts: Sequence[Path], path: Path) -> None:
    """The parts one after another as one file, with names instead of numbers."""
    files = ", ".join(sql_file(part) for part in parts)
    user = USER_NAME.format("user") if layout.users.id is None else "user_id"
    domain = f"{list(layout.domain_names)}[domain + 1]"
    signals = "".join(f", {sql_name(signal)} AS {sql_name(SIGNAL_PREFIX + signal)}" for signal in layout.signals)
    con.execute(
        f"""COPY (
            SELECT {user} AS user_id, {domain} || ':' || pid AS item_id, ts AS timestamp,
                {list(layout.actions)}[action + 1] AS action, {domain} AS domain{signals}
            FROM read_parquet([{files}])
        ) TO {sql_text(str(path))} (FORMAT parquet, COMPRESSION zstd)"""
    )


def write_users(con: DuckDBPyConnection, layout: Layout, table: Table, folder: Path, ledger: Ledger) -> None:
    """`users.parquet`: every user with interactions, and where it was read from; counts the users kept and empty."""
    extra = "".join(f", {sql_name(name)}" for name in layout.users.extra)
    con.execute(
        f"COPY (SELECT user_id, {_file_names(table)} AS file, row, uses AS interactions{extra} FROM user_rows JOIN "
        f"user_uses USING (user) ORDER BY user) TO {sql_text(str(folder / USERS_FILE))} "
        "(FORMAT parquet, COMPRESSION zstd)"
    )
    ledger.users["kept"] = con.execute("SELECT count(*) FROM user_uses").fetchall()[0][0]
    empty = con.execute(
        "SELECT count(*) FROM user_rows WHERE skip IS NULL AND user NOT IN (SELECT user FROM user_uses)"
    )
    ledger.users[EMPTY_HISTORY] = ledger.quarantined[EMPTY_HISTORY] = empty.fetchall()[0][0]


def write_rejected(con: DuckDBPyConnection, layout: Layout, table: Table, folder: Path) -> None:
    """`rejected.parquet`: what was left out of users, with the reason; not written where there is nothing."""
    families = layout.users.families
    names = f"{[family.name for family in families]}[family + 1]"
    details = []
    for number, family in enumerate(families):
        lists = aligned_columns(family)
        details.append(
            f"WHEN family = {number} AND reason = {UNEQUAL_LISTS} THEN {lists or ['']}[culprit + 1] || ' has ' || "
            f"culprit_length || ', {family.items} ' || weight"
        )
        for reason in range(NO_TIMESTAMPS, len(REASONS)):
            column = family.times if reason in (NO_TIMESTAMPS, BAD_TIMESTAMP) else family.items
            details.append(f"WHEN family = {number} AND reason = {reason} THEN {sql_text(column or '')}")
    rejected = (
        f"SELECT user_id, {_file_names(table)} AS file, row, {names} AS family, {list(REASONS)}[reason + 1] AS reason, "
        f"weight AS interactions, CASE {' '.join(details)} END AS detail, user, family AS number, reason AS code "
        "FROM rejects JOIN user_rows USING (user) UNION ALL "
        f"SELECT user_id, {_file_names(table)}, row, NULL, coalesce(skip, '{EMPTY_HISTORY}'), 0, NULL, user, 255, 255 "
        "FROM user_rows WHERE user NOT IN (SELECT user FROM user_uses)"
    )
    if con.execute(f"SELECT EXISTS ({rejected})").fetchall()[0][0]:
        con.execute(
            f"COPY (SELECT * EXCLUDE (user, number, code) FROM ({rejected}) ORDER BY user, number, code) "
            f"TO {sql_text(str(folder / REJECTED_FILE))} (FORMAT parquet, COMPRESSION zstd)"
        )


def _file_names(table: Table) -> str:
    """SQL of the name of the file that a user stands in."""
    return f"[{', '.join(sql_text(shard.path.name) for shard in table.shards)}][shard + 1]"


def build_counts(con: DuckDBPyConnection, layout: Layout, ledger: Ledger) -> dict[str, Any]:
    """`counts` of the manifest: kept, found, and everything the ledger knows, without what never occurred."""
    domains = con.execute(
        "SELECT domain, count(*), sum(uses)::BIGINT FROM items GROUP BY domain ORDER BY count(*) DESC, domain"
    ).fetchall()
    names = layout.domain_names
    missed = sum(counts["no_sid"] for counts in ledger.families.values())
    return {
        "items": sum(row[1] for row in domains),
        "users": ledger.users["kept"],
        "interactions": sum(row[2] for row in domains),
        "items_without_interactions": 0,
        "by_domain": {names[d]: {"items": items, "interactions": uses} for d, items, uses in domains},
        "found": {
            "items": ledger.tables["sids"]["rows"],
            "users": ledger.users["found"],
            "interactions": sum(counts["found"] for counts in ledger.families.values()),
        },
        "fixed": {name: count for name, count in ledger.fixed.items() if count},
        "tables": {
            name: {k: v for k, v in counts.items() if v or k == "rows"} for name, counts in ledger.tables.items()
        },
        "families": {
            family.name: {k: v for k, v in ledger.families[family.name].items() if v}
            for family in layout.users.families
        },
        "quarantined": {name: count for name, count in ledger.quarantined.items() if count},
        "misses": {"interactions_no_sid": missed, **ledger.misses},
        "examples": {reason: list(examples) for reason, examples in sorted(ledger.examples.items())},
    }
