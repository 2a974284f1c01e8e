"""A dataset and a catalog of two domains, small enough to check by eye."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from onereason.data.schema import INTERACTION_SCHEMA, ITEM_SCHEMA, Dataset, save_dataset
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format

HISTORIES = {"ann": [0, 1, 2, 3, 4, 5, 6, 7], "bob": [8, 9, 10], "cid": [11], "dee": [3, 2, 9, 1, 12]}
"""Leave-one-out trains on ann 0-5, bob 8, cid 11, dee 3 2 9; the timestamp of an interaction is its place."""
NUM_ITEMS = 13
NO_CAPTION = 2


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    domains = ["video" if i % 2 == 0 else "prod" for i in range(NUM_ITEMS)]
    captions = ["" if i == NO_CAPTION else f"thing number {i}." for i in range(NUM_ITEMS)]
    names = [f"i{i}" for i in range(NUM_ITEMS)]
    codes = np.stack([np.arange(NUM_ITEMS) // 8, np.arange(NUM_ITEMS) % 8], 1)
    catalog = Catalog(load_format("onereason", 2, 8), names, codes, domains, captions)
    catalog.save(root / "catalog")
    columns = {"item_id": names, "domain": domains, "title": captions, "text": captions}
    items = pl.DataFrame(columns | {"attributes": ["{}"] * NUM_ITEMS}, schema=ITEM_SCHEMA)
    rows = [(u, names[i], t, "click", domains[i]) for u, h in HISTORIES.items() for t, i in enumerate(h)]
    interactions = pl.DataFrame(rows, schema=INTERACTION_SCHEMA, orient="row")
    save_dataset(Dataset(items, interactions), root / "data")
    patterns = [catalog.render(i) for i in range(NUM_ITEMS)]
    return SimpleNamespace(root=root, catalog=catalog, patterns=patterns, data=["--data", str(root / "data")])
