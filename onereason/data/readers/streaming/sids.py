"""Semantic ids out of core: every row checked, the first row of a key kept, the rest counted.

The table `sids` that comes of it has one row a key: `seek` and `pid` (what a user's list names), `domain` (the item's
own), `place` (where its row stood: shard, row; it is the item's number from here on, and the order of the outputs) and
`code` (the levels packed into one number).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onereason.data.readers.streaming.engine import Stages, read_errors, sql_text
from onereason.data.readers.streaming.layout import ItemTable, Layout
from onereason.data.readers.streaming.ledger import MAX_EXAMPLES, SID_REASONS, Ledger
from onereason.data.readers.streaming.sources import Shard, Table
from onereason.itemic.format import ItemicFormat

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SHARD_STRIDE = 1 << 40
"""Shard s, row r stand at place `s * SHARD_STRIDE + r`, times the domains a row speaks of."""


def load_sids(
    con: DuckDBPyConnection,
    layout: Layout,
    tables: Sequence[tuple[ItemTable, Table]],
    format: ItemicFormat,
    ledger: Ledger,
    stages: Stages,
) -> None:
    """Fills `sids` from the tables, in order of their shards."""
    con.execute(
        "CREATE TABLE sid_rows (domain UTINYINT, pid BIGINT, place BIGINT, code BIGINT, reason UTINYINT, again BOOLEAN)"
    )
    stages.start("semantic ids", sum(len(table.shards) for _, table in tables))
    seen = number = 0
    for declared, table in tables:
        for shard in table.shards:
            with read_errors(shard.path):
                con.execute(f"INSERT INTO sid_rows {_select_rows(layout, declared, shard, number, format)}")
            number += 1
            seen += shard.rows
            ledger.tables["sids"]["rows"] += shard.rows
            stages.advance(f"{seen:,} rows")
    _count_bad_rows(con, layout, ledger)
    _find_twice(con, layout, ledger)
    con.execute(
        "CREATE TABLE sids AS SELECT domain AS seek, pid, domain, place, code FROM sid_rows WHERE reason = 0 AND "
        "NOT EXISTS (SELECT 1 FROM sid_twice t WHERE t.domain = sid_rows.domain AND t.pid = sid_rows.pid "
        "AND t.first < sid_rows.place)"
    )
    con.execute("DROP TABLE sid_rows")
    con.execute("DROP TABLE sid_twice")
    names = layout.domain_names
    for asked, other in layout.rerouted.items():
        con.execute(
            f"INSERT INTO sids SELECT {names.index(asked)}, pid, domain, place, code FROM sids a WHERE domain = "
            f"{names.index(other)} AND NOT EXISTS (SELECT 1 FROM sids v WHERE v.domain = {names.index(asked)} "
            "AND v.pid = a.pid)"
        )


def _select_rows(layout: Layout, declared: ItemTable, shard: Shard, number: int, format: ItemicFormat) -> str:
    """Rows of one shard as `sid_rows` has them: with the packed code, and the reason a row cannot be used (0: none)."""
    levels = list(enumerate(format.codes_per_level, 1))
    broken = " OR ".join(f"s[{n}] IS NULL OR NOT isfinite(s[{n}]) OR s[{n}] <> floor(s[{n}])" for n, _ in levels)
    outside = " OR ".join(f"s[{n}] < 0 OR s[{n}] >= {size}" for n, size in levels)
    packed = "0"
    for n, size in levels:
        packed = f"({packed}) * {size} + s[{n}]::BIGINT"
    tests = ("p IS NULL", "d IS NULL", f"s IS NULL OR len(s) <> {format.num_levels}", broken, outside)
    reason = " ".join(f"WHEN {test} THEN {n}" for n, test in enumerate(tests, 1))
    place = f"({number * SHARD_STRIDE} + r) * {len(layout.domain_names)} + coalesce(d, 0)"
    return (
        f"SELECT d, p, {place}, CASE WHEN why = 0 THEN {packed} END, why, again FROM "
        f"(SELECT *, CASE {reason} ELSE 0 END AS why FROM ({select_keys(layout, declared, shard)}, "
        f"{shard.column(declared.values, 'DOUBLE[]')} AS s FROM {shard.source}))"
    )


def select_keys(layout: Layout, declared: ItemTable, shard: Shard) -> str:
    """The start of a query over a shard: domain number `d` (null if unknown), pid `p`, row `r`, and `again`.

    Where the table names no domain, a row stands once for each domain it speaks of; `again` marks all but the first.
    """
    names = layout.domain_names
    if declared.domains and "domain" not in shard.types:
        numbers = [names.index(domain) for domain in declared.domains]
        domain, again = f"unnest({numbers}::UTINYINT[])", f"generate_subscripts({numbers}, 1) > 1"
    elif shard.is_null("domain"):
        domain, again = "NULL::UTINYINT", "false"
    else:
        cases = " ".join(f"WHEN {sql_text(text)} THEN {names.index(name)}" for text, name in layout.domains.items())
        domain, again = f"CASE domain {cases} END::UTINYINT", "false"
    return f"SELECT {domain} AS d, {again} AS again, {shard.column(['pid'], 'BIGINT')} AS p, file_row_number AS r"


def _count_bad_rows(con: DuckDBPyConnection, layout: Layout, ledger: Ledger) -> None:
    rows = con.execute(
        "SELECT reason, count(*) FROM sid_rows WHERE NOT again GROUP BY reason ORDER BY reason"
    ).fetchall()
    for reason, count in rows:
        ledger.tables["sids"][SID_REASONS[reason] or "usable"] += count
        if reason:
            found = con.execute(
                f"SELECT pid, domain FROM sid_rows WHERE reason = {reason} ORDER BY place LIMIT {MAX_EXAMPLES}"
            ).fetchall()
            ledger.show(f"sids: {SID_REASONS[reason]}", (f"pid {pid}" for pid, _ in found))


def _find_twice(con: DuckDBPyConnection, layout: Layout, ledger: Ledger) -> None:
    """Fills `sid_twice` with the keys that stand more than once, where first, and counts the rows after the first."""
    con.execute(
        "CREATE TABLE sid_twice AS SELECT domain, pid, min(place) AS first FROM sid_rows WHERE reason = 0 "
        "GROUP BY domain, pid HAVING count(*) > 1"
    )
    if not con.execute("SELECT count(*) FROM sid_twice").fetchall()[0][0]:
        return
    after = (
        "FROM sid_rows r JOIN sid_twice t ON r.domain = t.domain AND r.pid = t.pid "
        "JOIN sid_rows f ON f.place = t.first WHERE r.reason = 0 AND r.place > t.first AND NOT r.again"
    )
    for name, test in (("duplicate", "r.code = f.code"), ("conflicting", "r.code <> f.code")):
        count = con.execute(f"SELECT count(*) {after} AND {test}").fetchall()[0][0]
        if count:
            ledger.tables["sids"][name] += count
            found = con.execute(
                f"SELECT r.domain, r.pid {after} AND {test} ORDER BY r.place LIMIT {MAX_EXAMPLES}"
            ).fetchall()
            ledger.show(f"sids: {name}", (f"{layout.domain_names[domain]}:{pid}" for domain, pid in found))
