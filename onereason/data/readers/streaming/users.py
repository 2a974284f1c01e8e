"""Users' lists, batch by batch: unfolded, joined with the semantic ids, put in time order, written as parts.

The parts follow each other as the users do in the table, so that putting them together needs no further sort.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onereason.data.readers.streaming.batches import Batch
from onereason.data.readers.streaming.engine import Stages, read_errors, sql_name, sql_text
from onereason.data.readers.streaming.layout import Layout
from onereason.data.readers.streaming.ledger import (
    DUPLICATE,
    MAX_EXAMPLES,
    NO_SID,
    NO_TIMESTAMPS,
    REASONS,
    SHOWN_ONLY,
    UNEQUAL_LISTS,
    Ledger,
)
from onereason.data.readers.streaming.unfold import (
    LAGGED,
    MACROS,
    TIMED,
    create_entries,
    select_entries,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BYTES_AN_ENTRY = 600
"""Memory that an entry of a batch may take on its way through the joins and the sort."""


def unfold_users(
    con: DuckDBPyConnection,
    layout: Layout,
    batches: list[Batch],
    work: Path,
    lag_unit: str,
    ledger: Ledger,
    stages: Stages,
) -> list[Path]:
    """Reads every batch; returns the parts of the interactions, in order.

    Fills the tables `rejects` (what is left out of a user, by family and reason), `missing` (items without a semantic
    id), `item_uses` (how often an item is used, and how often in the training part of leave-one-out), `user_uses`.
    """
    for macro in MACROS:
        con.execute(macro)
    con.execute(
        "CREATE TABLE rejects (user INTEGER, family UTINYINT, reason UTINYINT, weight BIGINT, culprit UTINYINT, "
        "culprit_length INTEGER)"
    )
    con.execute("CREATE TABLE missing (domain UTINYINT, pid BIGINT)")
    con.execute("CREATE TABLE item_uses (place BIGINT, uses BIGINT, training BIGINT)")
    con.execute("CREATE TABLE user_uses (user INTEGER, uses BIGINT)")
    stages.start("users", len(batches))
    parts = []
    for number, batch in enumerate(batches):
        with read_errors(batch.shard.path):
            _read_batch(con, layout, batch, lag_unit)
        _count_entries(con, layout, ledger)
        _place_entries(con, layout)
        _count_places(con, layout, ledger)
        parts.append(work / f"part-{number:06d}.parquet")
        _write_part(con, layout, parts[-1], ledger)
        kept = sum(counts["kept"] for counts in ledger.families.values())
        stages.advance(f"{batch.first_user + batch.stop:,} users, {kept:,} interactions")
    return parts


def _read_batch(con: DuckDBPyConnection, layout: Layout, batch: Batch, lag_unit: str) -> None:
    """Fills `entries`, and `moments` with each user's own reference time where the table has one."""
    con.execute(create_entries(layout))
    low, high = batch.first_user + batch.start, batch.first_user + batch.stop
    skipped = ""
    if layout.users.id is not None:
        skipped = (
            f" AND {batch.first_user} + file_row_number NOT IN (SELECT user FROM user_rows WHERE skip IS NOT NULL "
            f"AND user >= {low} AND user < {high})"
        )
    for number in range(len(layout.users.families)):
        query = select_entries(
            layout, number, batch.shard, batch.start, batch.stop, batch.first_user, lag_unit, skipped
        )
        con.execute(f"INSERT INTO entries {query}")
    moment = batch.shard.column([layout.users.reference], "DOUBLE") if layout.users.reference else "NULL::DOUBLE"
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE moments AS SELECT ({batch.first_user} + file_row_number)::INTEGER AS user, "
        f"moment_seconds({moment}) AS reference FROM {batch.shard.source} "
        f"WHERE file_row_number >= {batch.start} AND file_row_number < {batch.stop}"
    )


def _count_entries(con: DuckDBPyConnection, layout: Layout, ledger: Ledger) -> None:
    """Counts what was found and left out, and keeps the latter by user."""
    rows = con.execute(
        "SELECT family, reason, sum(weight), count(*), sum(null_lists) FROM entries GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    for family, reason, entries, count, null_lists in rows:
        counts = ledger.families[layout.users.families[family].name]
        counts["found"] += entries
        ledger.fixed["null_signal_lists"] += null_lists
        if reason:
            counts[REASONS[reason]] += entries
        if reason in (UNEQUAL_LISTS, NO_TIMESTAMPS):
            ledger.quarantined[REASONS[reason]] += count
    con.execute(
        "INSERT INTO rejects SELECT user, family, reason, sum(weight), min(culprit), min(culprit_length) FROM entries "
        f"WHERE reason > 0 AND reason <> {SHOWN_ONLY} GROUP BY user, family, reason ORDER BY user, family, reason"
    )


def _place_entries(con: DuckDBPyConnection, layout: Layout) -> None:
    """Fills `placed`: usable entries with their time, and their item's place (null where it has no semantic id)."""
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE clocks AS
        SELECT user, user_id, reference, coalesce(least(oldest, reference - longest_lag), reference) AS oldest,
            unknown AND longest_lag IS NOT NULL AS unknown
        FROM user_rows JOIN (
            SELECT user, coalesce(any_value(m.reference), max(t) FILTER (clock = {TIMED}), 0) AS reference,
                any_value(m.reference) IS NULL AND count(*) FILTER (clock = {TIMED}) = 0 AS unknown,
                min(t) FILTER (clock = {TIMED}) AS oldest, max(t) FILTER (clock = {LAGGED}) AS longest_lag
            FROM entries JOIN moments m USING (user) WHERE reason = 0 GROUP BY user
        ) USING (user)"""
    )
    signals = "".join(f", e.{sql_name(signal)}" for signal in layout.signals)
    named = "" if layout.users.id is None else ", c.user_id"
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE placed AS
        SELECT e.user{named}, e.family, e.position, e.pid, e.domain AS seek, s.domain, s.place, e.action,
            CASE e.clock WHEN {TIMED} THEN e.t WHEN {LAGGED} THEN c.reference - e.t ELSE c.oldest - e.t END AS ts
            {signals}
        FROM entries e LEFT JOIN sids s ON s.seek = e.domain AND s.pid = e.pid JOIN clocks c ON c.user = e.user
        WHERE e.reason = 0"""
    )
    con.execute("DROP TABLE entries")


def _count_places(con: DuckDBPyConnection, layout: Layout, ledger: Ledger) -> None:
    rows = con.execute(
        "SELECT family, count(*) FILTER (place IS NULL), count(*) FILTER (domain <> seek) FROM placed GROUP BY family "
        "ORDER BY family"
    ).fetchall()
    for family, missing, rerouted in rows:
        ledger.families[layout.users.families[family].name][NO_SID] += missing
        ledger.fixed["rerouted_interactions"] += rerouted
    unknown = con.execute("SELECT count(*) FILTER (unknown) FROM clocks").fetchall()[0][0]
    ledger.fixed["users_without_reference_time"] += unknown
    con.execute("INSERT INTO missing SELECT DISTINCT seek, pid FROM placed WHERE place IS NULL ORDER BY seek, pid")
    if len(ledger.examples.get(NO_SID, [])) < MAX_EXAMPLES:
        found = con.execute(
            "SELECT DISTINCT ON (seek, pid) seek, pid, user, family, position FROM placed WHERE place IS NULL "
            f"ORDER BY user, family, position LIMIT {MAX_EXAMPLES}"
        ).fetchall()
        ledger.show(NO_SID, (f"{layout.domain_names[seek]}:{pid}" for seek, pid, *_ in found))


def _write_part(con: DuckDBPyConnection, layout: Layout, part: Path, ledger: Ledger) -> None:
    """Drops duplicates, sorts by user and time, writes the part, and counts the uses of items and users."""
    signals = "".join(f", {sql_name(signal)}" for signal in layout.signals)
    named = "" if layout.users.id is None else ", user_id"
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE ordered AS
        SELECT user{named}, ts, family, position, place, domain, pid, action{signals} FROM placed
        WHERE place IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY user, place, ts ORDER BY action DESC, family, position) = 1
        ORDER BY user, ts, family, position"""
    )
    before = con.execute("SELECT family, count(*) FROM placed WHERE place IS NOT NULL GROUP BY family ORDER BY family")
    found = dict(before.fetchall())
    kept = dict(con.execute("SELECT family, count(*) FROM ordered GROUP BY family ORDER BY family").fetchall())
    for family, count in found.items():
        counts = ledger.families[layout.users.families[family].name]
        counts["kept"] += kept.get(family, 0)
        counts[DUPLICATE] += count - kept.get(family, 0)
    con.execute("DROP TABLE placed")
    con.execute("INSERT INTO user_uses SELECT user, count(*) FROM ordered GROUP BY user ORDER BY user")
    # The last two interactions of a user with three or more are validation and test.
    con.execute(
        """INSERT INTO item_uses SELECT place, count(*), count(*) FILTER (training) FROM (
            SELECT place, coalesce(lead(user, 2) OVER () = user, false)
                OR (lead(user, 1) OVER () IS DISTINCT FROM user AND lag(user, 2) OVER () IS DISTINCT FROM user)
                OR (lag(user, 1) OVER () IS DISTINCT FROM user AND lead(user, 2) OVER () IS DISTINCT FROM user)
                AS training
            FROM ordered
        ) GROUP BY place"""
    )
    con.execute(
        f"COPY (SELECT user{named}, ts, domain, pid, action{signals} FROM ordered) TO {sql_text(str(part))} "
        "(FORMAT parquet, COMPRESSION snappy)"
    )
    con.execute("DROP TABLE ordered")
