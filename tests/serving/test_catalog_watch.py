"""A catalog that is followed: replaced, broken, of another format, gone for a moment."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from onereason.errors import CatalogError
from onereason.itemic.catalog import Catalog
from onereason.itemic.trie import build_catalog_trie
from onereason.itemic.vocabulary import ItemicVocabulary
from onereason.serving.catalog_watch import CHECK_SECONDS, CatalogWatch
from tests.serving.conftest import FORMAT, make_catalog

VOCABULARY = ItemicVocabulary(FORMAT, 300)


def same_trie(watch: CatalogWatch, catalog: Catalog) -> bool:
    expected, found = build_catalog_trie(catalog, VOCABULARY), watch.current.trie
    return np.array_equal(found.token, expected.token) and np.array_equal(found.leaf_items, expected.leaf_items)


def test_another_catalog_is_taken(tmp_path):
    folder = tmp_path / "catalog"
    make_catalog(1).save(folder)
    watch = CatalogWatch(folder, VOCABULARY)
    assert not watch.check() and watch.current.version == 1 and same_trie(watch, make_catalog(1))
    make_catalog(2, 50).save(folder, overwrite=True)
    before = watch.current
    assert watch.check() and not watch.check()
    assert watch.current.version == 2 and len(watch.current.catalog) == 50 and same_trie(watch, make_catalog(2, 50))
    assert len(before.catalog) == 40  # whoever holds the old one keeps it whole


def test_catalogs_that_cannot_be_used_leave_the_one_before(tmp_path, caplog):
    folder = tmp_path / "catalog"
    make_catalog(1).save(folder)
    watch = CatalogWatch(folder, VOCABULARY)
    (folder / "catalog.parquet").write_bytes(b"broken")
    assert not watch.check() and len(caplog.records) == 1 and "catalog.parquet" in str(watch.problem)
    assert not watch.check() and len(caplog.records) == 1  # the same files are not read twice
    other = make_catalog(2)
    Catalog(replace(FORMAT, codes_per_level=(6, 6, 9)), other.item_ids, other.codes, other.domains).save(
        folder, None, True
    )
    assert not watch.check() and len(caplog.records) == 2 and "format" in str(watch.problem)
    shutil.rmtree(folder)
    assert not watch.check() and len(caplog.records) == 2 and same_trie(watch, make_catalog(1))
    make_catalog(2).save(folder)
    assert watch.check() and watch.problem is None and same_trie(watch, make_catalog(2))


def test_it_follows_by_itself(tmp_path):
    folder = tmp_path / "catalog"
    make_catalog(1).save(folder)
    watch = CatalogWatch(folder, VOCABULARY).start()
    try:
        make_catalog(2).save(folder, overwrite=True)
        deadline = time.monotonic() + 20 * CHECK_SECONDS
        while watch.current.version == 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert watch.current.version == 2
    finally:
        watch.stop()


def test_a_folder_without_a_catalog(tmp_path):
    with pytest.raises(CatalogError):
        CatalogWatch(tmp_path, VOCABULARY)
