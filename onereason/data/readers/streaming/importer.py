"""Imports a public corpus out of core: a dataset folder and the catalog of its ready semantic ids.

The steps, each in memory bounded by the limit: the tables are found and their columns checked; the semantic ids are
checked row by row and made unique; users are read in batches, joined, put in time order and written as parts; captions
and tags stream past the items that were used. What is left out is counted and, where it belongs to a user, kept in
`rejected.parquet` with the reason.

Beside the files of a dataset (`onereason.data.schema`) the dataset folder holds:

- `users.parquet`: `user_id`, `file` and `row` it was read from, `interactions`, and further columns of the layout;
- `rejected.parquet` (where something was left out of a user): `user_id`, `file`, `row`, `family` (null: the whole
  user), `reason`, `interactions` (how many entries), `detail`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onereason.data.readers.streaming.batches import number_users, plan_batches
from onereason.data.readers.streaming.engine import Stages, open_engine, parse_memory
from onereason.data.readers.streaming.items import count_collisions, join_texts, select_items, write_items
from onereason.data.readers.streaming.layout import ItemTable, Layout
from onereason.data.readers.streaming.ledger import Ledger
from onereason.data.readers.streaming.outputs import build_counts, write_interactions, write_rejected, write_users
from onereason.data.readers.streaming.sids import load_sids
from onereason.data.readers.streaming.sources import (
    Table,
    check_item_table,
    check_user_table,
    require_table,
)
from onereason.data.readers.streaming.unfold import LAG_SECONDS
from onereason.data.readers.streaming.users import BYTES_AN_ENTRY, unfold_users
from onereason.data.schema import INTERACTIONS_FILE, ITEMS_FILE
from onereason.errors import ConfigError, DataError, StorageError
from onereason.io import MANIFEST_NAME, atomic_dir, build_manifest, require_output_dir, write_json
from onereason.itemic.catalog import CATALOG_META, CATALOG_TABLE
from onereason.itemic.format import PRESETS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class ImportOptions:
    """How an import runs."""

    memory_limit: str = "4GB"
    """Memory DuckDB may use; what does not fit is spilled to a folder beside the output."""
    threads: int = 2
    """Threads of the joins."""
    max_users: int | None = None
    """Only the first rows of the user table; all of them when None."""
    lag_unit: str = "hours"
    """What a lag counts: `hours` or `days`."""

    def __post_init__(self) -> None:
        parse_memory(self.memory_limit)
        if self.threads < 1:
            raise ConfigError(f"threads must be at least 1, got {self.threads}.")
        if self.max_users is not None and self.max_users < 1:
            raise ConfigError(f"max_users must be at least 1, got {self.max_users}; leave it out for all users.")
        if self.lag_unit not in LAG_SECONDS:
            raise ConfigError(f"lag_unit {self.lag_unit!r} is not known; use {' or '.join(LAG_SECONDS)}.")


def import_corpus(
    layout: Layout,
    folders: Sequence[str | Path],
    out: str | Path,
    catalog_out: str | Path,
    options: ImportOptions | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Reads the corpus in `folders` and writes the dataset folder `out` and the catalog folder `catalog_out`.

    Returns:
        The dataset's manifest.

    Raises:
        DataError: a missing table or column, a column of the wrong type, a broken file, or no interaction is left.
        ConfigError: the memory limit is too small.
        StorageError: an output exists, or no space is left.
    """
    options = options or ImportOptions()
    sources, out, catalog_out = [Path(folder) for folder in folders], Path(out), Path(catalog_out)
    for place in (out, catalog_out):
        require_output_dir(place, overwrite, sources)
    places = [place.resolve() for place in (out, catalog_out)]
    if places[0] == places[1] or places[0] in places[1].parents or places[1] in places[0].parents:
        raise StorageError(f"the dataset ({out}) and the catalog ({catalog_out}) need folders beside each other.")
    memory = parse_memory(options.memory_limit)
    with open_engine(out.resolve(), memory, options.threads) as (con, work):
        tables = open_tables(con, layout, sources)
        with Stages() as stages, atomic_dir(out, overwrite) as dataset, atomic_dir(catalog_out, overwrite) as catalog:
            ledger = Ledger()
            parts = _join(con, layout, options, tables, work, ledger, stages)
            return _write(con, layout, options, tables, parts, dataset, catalog, ledger, stages)


@dataclass(frozen=True)
class Tables:
    """The tables of a corpus that are there, each with its declaration."""

    users: Table
    sids: list[tuple[ItemTable, Table]]
    captions: list[tuple[ItemTable, Table]]
    tags: list[tuple[ItemTable, Table]]

    @property
    def paths(self) -> list[Path]:
        """Every file of every table."""
        tables = [self.users, *(table for _, table in [*self.sids, *self.captions, *self.tags])]
        return [shard.path for table in tables for shard in table.shards]


def open_tables(con: DuckDBPyConnection, layout: Layout, folders: Sequence[Path]) -> Tables:
    """Finds every table and checks its columns; `DataError` names the file, the column and what was expected."""
    users = require_table(con, folders, layout.users.names)
    check_user_table(con, users, layout.users)
    groups = []
    for declarations, kind in ((layout.sids, "codes"), (layout.captions, "text"), (layout.tags, "text")):
        group = []
        for declared in declarations:
            table = require_table(con, folders, declared.names)
            check_item_table(con, table, declared, kind)
            group.append((declared, table))
        groups.append(group)
    return Tables(users, *groups)


def _join(
    con: DuckDBPyConnection,
    layout: Layout,
    options: ImportOptions,
    tables: Tables,
    work: Path,
    ledger: Ledger,
    stages: Stages,
) -> list[Path]:
    """Every join; what comes of them stands in tables of the scratch database and in the parts returned."""
    load_sids(con, layout, tables.sids, PRESETS[layout.format], ledger, stages)
    number_users(con, layout, tables.users, options.max_users, ledger)
    budget = parse_memory(options.memory_limit) // BYTES_AN_ENTRY
    batches = plan_batches(con, layout, tables.users, budget, options.max_users)
    parts = unfold_users(con, layout, batches, work, options.lag_unit, ledger, stages)
    if not sum(counts["kept"] for counts in ledger.families.values()):
        dropped = ", ".join(f"{reason} {count}" for reason, count in ledger.rejected().items())
        raise DataError(f"{layout.reader}: no interaction is left (dropped: {dropped or 'none, the lists are empty'}).")
    select_items(con, layout, ledger)
    join_texts(con, layout, "captions", tables.captions, ledger, stages)
    if layout.tags:
        join_texts(con, layout, "tags", tables.tags, ledger, stages)
    return parts


def _write(
    con: DuckDBPyConnection,
    layout: Layout,
    options: ImportOptions,
    tables: Tables,
    parts: list[Path],
    dataset: Path,
    catalog: Path,
    ledger: Ledger,
    stages: Stages,
) -> dict[str, Any]:
    """The files of both folders; returns the dataset's manifest."""
    format = PRESETS[layout.format]
    stages.start("writing", 4)
    write_items(con, layout, format, dataset / ITEMS_FILE, catalog / CATALOG_TABLE)
    stages.advance("items, catalog")
    write_interactions(con, layout, parts, dataset / INTERACTIONS_FILE)
    stages.advance("interactions")
    write_users(con, layout, tables.users, dataset, ledger)
    write_rejected(con, layout, tables.users, dataset)
    stages.advance("users")
    manifest = build_manifest(
        "dataset",
        inputs=tables.paths,
        config={"reader": layout.reader, "max_users": options.max_users, "lag_unit": options.lag_unit},
        counts=build_counts(con, layout, ledger),
        rejected=ledger.rejected(),
    )
    write_json(dataset / MANIFEST_NAME, manifest)
    collisions = count_collisions(con, format)
    described = manifest | {"kind": "catalog", "counts": collisions | {"users": manifest["counts"]["users"]}}
    write_json(
        catalog / CATALOG_META,
        {"version": 1, "format": format.to_dict(), "counts": collisions, "manifest": described},
    )
    stages.advance("manifests")
    return manifest
