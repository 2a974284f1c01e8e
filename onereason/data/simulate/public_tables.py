"""Writes tables of the exact schemas of public corpora, at any size, with planted faults whose number is known.

    python -m onereason.data.simulate.public_tables --schema explorer --out tables --users 1000 --items 20000 \
        --captions 12000 --fault no_sid=0.02 --fault unequal_lists=0.01

The tables are made shard by shard: memory does not grow with their size. The same configuration gives the same tables.
`manifest.json` counts the rows of every table and, in the terms an importer reports, what the planted faults amount to.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from onereason.data.readers.streaming.layout import Layout
from onereason.data.simulate.public_items import Universe, sid_shards, text_shards
from onereason.data.simulate.public_users import user_shards
from onereason.errors import ConfigError, OnereasonError
from onereason.io import MANIFEST_NAME, atomic_dir, build_manifest, write_json

SCHEMAS = ("explorer", "recif")
FAULTS = {
    "duplicate_sids": "rows of semantic ids written once more",
    "conflicting_sids": "rows of semantic ids written once more with other codes",
    "broken_sids": "further rows whose sid has not three whole codes in range",
    "unknown_domains": "further rows of sids, captions and tags in a domain nobody knows (explorer)",
    "duplicate_texts": "captions and tags written once more with another text",
    "blank_texts": "captions and tags that are null or blank",
    "unequal_lists": "lists of a user with a shorter aligned list",
    "null_times": "lists of a user without the list of times (explorer)",
    "null_signals": "lists of a user without one of the signal lists",
    "no_sid": "entries whose item has no semantic id",
    "null_items": "entries without an item",
    "bad_times": "entries whose time cannot be read (explorer)",
    "duplicate_users": "rows with the uid of an earlier row (recif)",
}
"""Fault -> what its share is a share of."""

_ROWS_PER_GROUP = 250_000


@dataclass(frozen=True)
class PublicTables:
    """What is generated."""

    schema: str = "explorer"
    """`explorer` or `recif`."""
    users: int = 1000
    """Rows of the user table."""
    items: int = 20_000
    """Items with a semantic id, over all domains."""
    captions: int | None = None
    """Items with a caption; 58 in a hundred where None, as in the Explorer corpus."""
    tags: int | None = None
    """Items with a tag (explorer; goods have none); 15 in a hundred items where None."""
    entries: float = 100.0
    """List entries of a user, on average and about."""
    phrases: int = 4
    """Phrases of a caption, of about 50 characters each."""
    faults: Mapping[str, float] = field(default_factory=dict)
    """Fault -> share, see `FAULTS`."""
    seed: int = 0
    """Seed of everything that is drawn."""
    rows_per_shard: int = 1_000_000
    """Rows of a shard of sids, captions or tags."""
    users_per_shard: int = 25_000
    """Rows of a shard of users."""
    users_per_group: int = 5_000
    """Rows of a row group of users."""

    def __post_init__(self) -> None:
        if self.schema not in SCHEMAS:
            raise ConfigError(f"schema {self.schema!r} is not known; use {' or '.join(SCHEMAS)}.")
        for name in ("users", "items", "phrases", "rows_per_shard", "users_per_shard", "users_per_group"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.items < 100:
            raise ConfigError(f"items must be at least 100, so that every domain has some, got {self.items}.")
        for name, rows, domains in self.text_tables():
            most = sum(build_universe(self).sizes[domain] for domain in domains)
            if not 0 <= rows <= most:
                raise ConfigError(f"{name} must be 0 to {most} for {self.items} items, got {rows}.")
        for name, share in self.faults.items():
            if name not in FAULTS or not 0 <= share <= 0.3:
                raise ConfigError(
                    f"fault {name}={share} should be one of {', '.join(FAULTS)} with a share of 0 to 0.3."
                )

    @property
    def written_domains(self) -> Mapping[str, str]:
        """Domain -> how the tables write it; empty where they have no column for it."""
        return {v: k for k, v in load_layout(self.schema).domains.items()} if self.schema == "explorer" else {}

    def text_tables(self) -> list[tuple[str, int, tuple[str, ...]]]:
        """`(captions or tags, rows, domains whose items have them)`."""
        if self.schema == "recif":  # captions name no domain, so only videos have them
            return [("captions", self.items * 58 // 100 if self.captions is None else self.captions, ("video",))]
        domains = tuple(build_universe(self).sizes)
        return [
            ("captions", self.items * 58 // 100 if self.captions is None else self.captions, domains),
            (
                "tags",
                self.items * 15 // 100 if self.tags is None else self.tags,
                tuple(d for d in domains if d != "prod"),
            ),
        ]

    def fault(self, name: str) -> float:
        return self.faults.get(name, 0.0)

    def rng(self, stream: int, start: int) -> np.random.Generator:
        """A generator for one shard of one table."""
        return np.random.default_rng([self.seed, stream, start])

    def draw(self, rng: np.random.Generator, fault: str, rows: int) -> np.ndarray:
        """Different positions among `rows`, as many as the fault's share says, in order."""
        count = round(self.fault(fault) * rows)
        return np.sort(rng.choice(rows, count, replace=False)) if count else np.empty(0, np.int64)


def load_layout(schema: str) -> Layout:
    """The layout the schema's tables have."""
    from onereason.data.readers import explorer, recif

    return explorer.LAYOUT if schema == "explorer" else recif.LAYOUT


def build_universe(config: PublicTables) -> Universe:
    """How many items each domain has, in the shares of the public corpora."""
    if config.schema == "recif":
        goods = max(10, config.items // 8)
        return Universe({"video": config.items - goods, "prod": goods}, bits=50, shared=goods)
    ad, goods = max(10, config.items * 57 // 1000), max(10, config.items * 45 // 100)
    live = max(10, config.items * 3 // 1000)
    sizes = {"video": config.items - ad - goods - live, "ad": ad, "prod": goods, "living": live}
    return Universe(sizes, shared=min(5, live // 2))


def write_tables(config: PublicTables, folder: str | Path, overwrite: bool = False) -> dict[str, Any]:
    """Writes all tables and `manifest.json` into `folder`; returns the manifest."""
    layout, universe = load_layout(config.schema), build_universe(config)
    families: dict[str, Counter[str]] = defaultdict(Counter)
    tables: dict[str, Counter[str]] = defaultdict(Counter)
    with atomic_dir(folder, overwrite) as temporary:
        for name, shards, count in _item_tables(config, layout, universe, tables):
            _write_shards(temporary, name, shards, count, config, _ROWS_PER_GROUP)
        users = user_shards(config, layout, universe, families)
        count = -(-config.users // config.users_per_shard)
        _write_shards(temporary, layout.users.names[0], users, count, config, config.users_per_group)
        groups = {name: dict(families.pop(name, Counter())) for name in ("quarantined", "fixed", "users")}
        counts = {
            "tables": {name: _positive(counts) for name, counts in tables.items()},
            "families": {name: _positive(counts) for name, counts in families.items()},
            **{name: _positive(Counter(counts)) for name, counts in groups.items()},
        }
        manifest = build_manifest("public_tables", config=asdict(config), seed=config.seed, counts=counts)
        write_json(temporary / MANIFEST_NAME, manifest)
    return manifest


def _item_tables(
    config: PublicTables, layout: Layout, universe: Universe, tables: dict[str, Counter[str]]
) -> Iterator[tuple[str, Iterator[pl.DataFrame], int]]:
    """Table name, its shards, how many there are."""

    def shards(rows: int) -> int:
        return max(1, -(-rows // config.rows_per_shard))

    column = layout.sids[0].values[0]
    groups = [tuple(universe.sizes)] if config.schema == "explorer" else [("video",), ("prod",)]
    for stream, (declared, domains) in enumerate(zip(layout.sids, groups, strict=True), 10):
        rows = sum(universe.sizes[domain] for domain in domains)
        yield declared.names[0], sid_shards(config, universe, domains, column, stream, tables["sids"]), shards(rows)
    for stream, (what, rows, owners) in enumerate(config.text_tables(), 20):
        declared = (layout.captions if what == "captions" else layout.tags)[0]
        made = text_shards(config, universe, owners, rows, declared.values[0], stream, tables[what])
        yield declared.names[0], made, shards(rows)


def _positive(counts: Counter[str]) -> dict[str, int]:
    return {name: int(count) for name, count in counts.items() if count or name == "rows"}


def _write_shards(
    folder: Path, name: str, shards: Iterator[pl.DataFrame], count: int, config: PublicTables, rows_per_group: int
) -> None:
    """As a folder of parts (explorer), or as one file or numbered files (recif)."""
    if config.schema == "explorer":
        (folder / name).mkdir()
    for n, table in enumerate(shards):
        if config.schema == "explorer":
            path = folder / name / f"part-{n:05d}.parquet"
        else:
            path = folder / (f"{name}.parquet" if count == 1 else f"{name}-{n:05d}.parquet")
        table.write_parquet(path, compression="zstd", compression_level=1, row_group_size=rows_per_group)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="faults:\n" + "\n".join(f"  {name:18}{text}" for name, text in FAULTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = PublicTables()
    parser.add_argument("--schema", choices=SCHEMAS, default=defaults.schema)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it exists")
    for name in ("users", "items", "phrases", "seed", "rows_per_shard", "users_per_shard"):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=int, default=getattr(defaults, name), metavar="N", help="default %(default)s")
    parser.add_argument("--captions", type=int, metavar="N", help="items with a caption (58 in a hundred)")
    parser.add_argument("--tags", type=int, metavar="N", help="items with a tag (15 in a hundred)")
    parser.add_argument("--entries", type=float, default=defaults.entries, help="list entries a user (%(default)s)")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=SHARE", help="plant faults, see below")
    args = parser.parse_args(argv)
    values = {k: v for k, v in vars(args).items() if k not in ("out", "overwrite", "fault")}
    try:
        manifest = write_tables(PublicTables(**values, faults=parse_faults(args.fault)), args.out, args.overwrite)
    except OnereasonError as error:
        print(f"public_tables: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for name, counts in manifest["counts"]["tables"].items():
        print(f"{name}: {counts['rows']:,} rows")
    print(f"users: {args.users:,} rows\ntables: {args.out}")
    return 0


def parse_faults(pairs: list[str]) -> dict[str, float]:
    """`["no_sid=0.02"]` -> shares; `ConfigError` for anything else."""
    faults = {}
    for pair in pairs:
        name, _, share = pair.partition("=")
        try:
            faults[name] = float(share)
        except ValueError:
            raise ConfigError(f"--fault {pair!r} is not of the form name=share, e.g. no_sid=0.02.") from None
    return faults


if __name__ == "__main__":
    sys.exit(main())
