"""A dataset and a catalog of two domains, small enough to check by eye."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

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
ENGINE_CORPUS = Path(__file__).with_name("engine_corpus.py")


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


@pytest.fixture(scope="session")
def engine_corpus() -> ModuleType:
    """The builder of `engine_corpus.py`, in this process."""
    spec = importlib.util.spec_from_file_location("engine_corpus", ENGINE_CORPUS)
    module = importlib.util.module_from_spec(spec)
    sys.modules["engine_corpus"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def start_program(repository) -> Callable[..., subprocess.Popen[str]]:
    """Starts a Python program in a process group of its own."""

    def start(*arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(repository)},
            start_new_session=True,
        )

    return start


@pytest.fixture(scope="session")
def run_program(start_program) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a Python program to its end."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        with start_program(*arguments) as process:
            stdout, stderr = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    return run


@pytest.fixture(scope="session")
def run_corpus(run_program) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the builder of `engine_corpus.py` to its end."""
    return lambda out, *more: run_program(ENGINE_CORPUS, "--out", out, *more)
