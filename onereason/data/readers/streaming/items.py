"""The items that interactions use: their captions and tags joined in, written as the item table and as a catalog.

Items are in order of their rows in the tables of semantic ids. Captions stream past the items once; only those of used
items are kept, in a scratch file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onereason.data.control_tokens import CONTROL_PATTERN
from onereason.data.readers.streaming.engine import Stages, read_errors, sql_text
from onereason.data.readers.streaming.layout import ItemTable, Layout
from onereason.data.readers.streaming.ledger import MAX_EXAMPLES, Ledger
from onereason.data.readers.streaming.sids import SHARD_STRIDE, select_keys
from onereason.data.readers.streaming.sources import Table
from onereason.itemic.format import ANY_DOMAIN, ItemicFormat

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def select_items(con: DuckDBPyConnection, layout: Layout, ledger: Ledger) -> None:
    """Fills `items`: the used ones, with `uses`, `training` and whether a caption that names no domain is theirs."""
    con.execute(
        """CREATE TABLE items AS
        SELECT s.place, s.domain, s.pid, s.code, u.uses, u.training, true AS owns_text
        FROM sids s JOIN (
            SELECT place, sum(uses)::BIGINT AS uses, sum(training)::BIGINT AS training FROM item_uses GROUP BY place
        ) u ON u.place = s.place
        WHERE s.seek = s.domain ORDER BY s.place"""
    )
    names = layout.domain_names
    for domain, owner in layout.captions_yield.items():
        con.execute(
            f"UPDATE items SET owns_text = false WHERE domain = {names.index(domain)} AND EXISTS (SELECT 1 FROM sids s "
            f"WHERE s.domain = {names.index(owner)} AND s.pid = items.pid)"
        )
    count = con.execute("SELECT count(*) FROM (SELECT DISTINCT domain, pid FROM missing)").fetchall()[0][0]
    ledger.misses["items_no_sid"] = count


def join_texts(
    con: DuckDBPyConnection,
    layout: Layout,
    what: str,
    tables: Sequence[tuple[ItemTable, Table]],
    ledger: Ledger,
    stages: Stages,
) -> None:
    """Fills the table `what` (`place`, `text`) with the first text that is not blank of every used item.

    Rows are counted over the whole table: `null_pid`, `unknown_domain`, `blank`, and `duplicate` (a key once more).
    """
    con.execute(
        f"CREATE TABLE {what} (domain UTINYINT, pid BIGINT, again BOOLEAN, blank BOOLEAN, place BIGINT, "
        "row_place BIGINT, text VARCHAR)"
    )
    stages.start(what, sum(len(table.shards) for _, table in tables))
    counts = ledger.tables[what]
    shards = [(declared, shard) for declared, table in tables for shard in table.shards]
    for number, (declared, shard) in enumerate(shards):
        text = shard.column(declared.values, "VARCHAR")
        owned = "" if "domain" in shard.types else " AND i.owns_text"
        with read_errors(shard.path):
            con.execute(
                f"""INSERT INTO {what} SELECT d, p, again, blank, i.place, {number * SHARD_STRIDE} + r,
                    CASE WHEN i.place IS NOT NULL THEN text END
                FROM (SELECT *, coalesce(trim(text), '') = '' AS blank FROM (
                    {select_keys(layout, declared, shard)}, {text} AS text FROM {shard.source}
                )) t LEFT JOIN items i ON i.domain = d AND i.pid = p AND NOT blank{owned}"""
            )
        counts["rows"] += shard.rows
        stages.advance(f"{counts['rows']:,} rows")
    keyed = "pid IS NOT NULL AND domain IS NOT NULL"
    found = con.execute(
        f"""SELECT count(*) FILTER (pid IS NULL), count(*) FILTER (pid IS NOT NULL AND domain IS NULL),
            count(*) FILTER ({keyed} AND blank), count(*) FILTER ({keyed}) - (SELECT count(*) FROM (
                SELECT DISTINCT domain, pid FROM {what} WHERE {keyed} AND NOT again))
        FROM {what} WHERE NOT again"""
    ).fetchall()[0]
    for name, count in zip(("null_pid", "unknown_domain", "blank", "duplicate"), found, strict=True):
        counts[name] += count
    # Texts are long: only those that are left are copied, and none is sorted.
    con.execute(
        f"DELETE FROM {what} WHERE place IS NULL OR EXISTS (SELECT 1 FROM (SELECT place, min(row_place) AS first "
        f"FROM {what} WHERE place IS NOT NULL GROUP BY place HAVING count(*) > 1) f "
        f"WHERE f.place = {what}.place AND f.first < {what}.row_place)"
    )
    joined, missing = con.execute(
        f"SELECT count(t.place), count(*) FILTER (t.place IS NULL) FROM items i LEFT JOIN {what} t USING (place)"
    ).fetchall()[0]
    counts["joined"] += joined
    kind = what.rstrip("s")
    ledger.misses[f"items_no_{kind}"] = missing
    examples = con.execute(
        f"SELECT domain, pid FROM items ANTI JOIN {what} USING (place) ORDER BY place LIMIT {MAX_EXAMPLES}"
    ).fetchall()
    ledger.show(f"no_{kind}", (f"{layout.domain_names[domain]}:{pid}" for domain, pid in examples))


def write_items(
    con: DuckDBPyConnection, layout: Layout, format: ItemicFormat, items_path: Path, catalog_path: Path
) -> None:
    """Writes the used items in order, once as the dataset's item table and once as a catalog's."""
    name = f"{list(layout.domain_names)}[i.domain + 1]"
    item = f"{name} || ':' || i.pid AS item_id, {name} AS domain"
    text = _plain("coalesce(c.text, '')")
    tag = f"CASE WHEN g.text IS NULL THEN '{{}}' ELSE to_json({{'tag': {_plain('g.text')}}})::VARCHAR END"
    tags = "LEFT JOIN tags g USING (place)"
    if not layout.tags:
        tag, tags = "'{}'", ""
    codes: list[str] = []
    below = 1
    for size in reversed(format.codes_per_level):
        codes.insert(0, f"(i.code // {below} % {size})::INTEGER")
        below *= size
    outputs = (
        (items_path, f"{item}, NULL::VARCHAR AS title, {text} AS text, {tag} AS attributes", tags),
        (
            catalog_path,
            f"{item}, [{', '.join(codes)}] AS codes, {text} AS caption, i.training AS popularity",
            "",
        ),
    )
    for path, columns, joins in outputs:
        con.execute(
            f"COPY (SELECT {columns} FROM items i LEFT JOIN captions c USING (place) {joins} ORDER BY i.place) "
            f"TO {sql_text(str(path))} (FORMAT parquet, COMPRESSION zstd)"
        )


def _plain(column: str) -> str:
    """A text without control tokens, which would end a turn or open a trace wherever the text is shown."""
    return f"regexp_replace({column}, {sql_text(CONTROL_PATTERN)}, ' ', 'g')"


def count_collisions(con: DuckDBPyConnection, format: ItemicFormat) -> dict[str, int]:
    """What `Catalog.collisions` counts, of `items`."""
    key = "code" if ANY_DOMAIN in format.domains else "domain, code"
    row = con.execute(
        "SELECT sum(n)::BIGINT, count(*), coalesce(sum(n) FILTER (n > 1), 0)::BIGINT, max(n) FROM "
        f"(SELECT count(*) AS n FROM items GROUP BY {key})"
    ).fetchall()[0]
    return dict(zip(("num_items", "num_sids", "num_items_in_collision", "largest_bucket"), map(int, row), strict=True))
