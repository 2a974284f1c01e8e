"""The world as tables, in memory and on disk.

A world's folder is a dataset folder (`items.parquet`, `interactions.parquet`, `manifest.json`) with the truth beside
it:

- `truth/world.json`: the rule, the transition tables, personas, topics, by name;
- `truth/items.parquet`: item -> interest it serves, subject, facet, style, brand, price, popularity rank in its cell;
- `truth/interactions.parquet`: row by row with `interactions.parquet`, why the event happened;
- `truth/users.parquet`: personas, latent interests, and the whole chain behind the last two events;
- `truth/item_relations.parquet`: sampled pairs of related items;
- `truth/chains.parquet`: how each latent interest evolved.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from onereason.config import to_dict
from onereason.data.schema import Dataset, write_dataset_into
from onereason.data.simulate.config import WorldConfig
from onereason.data.simulate.events import build_interaction_table
from onereason.data.simulate.items import build_item_ids, build_item_table
from onereason.data.simulate.truth import build_truth
from onereason.data.simulate.users import Behaviour, simulate_users
from onereason.data.simulate.world import ItemTable, Tables, build_items, build_tables, describe_tables
from onereason.io import atomic_dir, build_manifest, write_json

TRUTH_DIR = "truth"


@dataclass(frozen=True)
class World:
    """A simulated world.

    Attributes:
        config: the knobs it was made with.
        dataset: items, interactions and manifest, as any reader would give them.
        truth: table name -> table, as listed at the top of this module.
        description: what `truth/world.json` holds.
        tables, items, behaviour: the same as arrays.
    """

    config: WorldConfig
    dataset: Dataset
    truth: Mapping[str, pl.DataFrame]
    description: Mapping[str, Any]
    tables: Tables
    items: ItemTable
    behaviour: Behaviour


def simulate_world(config: WorldConfig, progress: Callable[[int, int], None] | None = None) -> World:
    """Makes a world in memory. Each part draws from a stream of its own, so that one knob leaves the others alone."""
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(config.seed).spawn(6)]
    tables = build_tables(config, streams[0])
    items = build_items(config, tables, streams[1])
    item_ids = build_item_ids(items, streams[2])
    item_table = build_item_table(config, items, item_ids, streams[3])
    behaviour = simulate_users(config, tables, items, streams[4], progress)
    interactions = build_interaction_table(config, items, behaviour, item_ids, streams[5])
    truth = build_truth(config, tables, items, behaviour, item_table, interactions)
    order = np.argsort(np.array(item_ids), kind="stable")
    kinds = truth["interactions"].group_by("kind").len().sort("kind")
    manifest = build_manifest(
        "dataset",
        config={"source": "simulate", **to_dict(config)},
        seed=config.seed,
        counts={
            "users": config.users,
            "items": config.items,
            "interactions": interactions.height,
            "kinds": dict(zip(kinds["kind"].to_list(), kinds["len"].to_list(), strict=True)),
        },
    )
    dataset = Dataset(item_table[order], interactions, manifest)
    truth = {**truth, "items": truth["items"][order]}
    return World(config, dataset, truth, describe_tables(config, tables), tables, items, behaviour)


def write_world(world: World, folder: str | Path, overwrite: bool = False) -> None:
    """Writes the dataset folder with its `truth/`, whole or not at all."""
    with atomic_dir(folder, overwrite) as temporary:
        write_dataset_into(world.dataset, temporary)
        truth = temporary / TRUTH_DIR
        truth.mkdir()
        write_json(truth / "world.json", dict(world.description))
        for name, table in world.truth.items():
            table.write_parquet(truth / f"{name}.parquet")


def progress_bar() -> Any:
    """A rich progress bar on stderr, silent where stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
