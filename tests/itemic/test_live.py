"""A catalog swapped while it is read: every reader has a whole pair."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from onereason.errors import CatalogError, FormatError
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import ItemicFormat, Marker
from onereason.itemic.live import LiveCatalog
from onereason.itemic.trie import build_catalog_trie
from onereason.itemic.vocabulary import ItemicVocabulary

FORMAT = ItemicFormat("three", (6, 6, 6), "<{level}{code}>", {"a": Marker("<A>"), "b": Marker("<B>")})
VOCABULARY = ItemicVocabulary(FORMAT, 50)


def make_pair(version: int):
    """A catalog of `20 + version % 5` items whose ids bear the version, and its trie."""
    rng = np.random.default_rng(version)
    count = 20 + version % 5
    domains = [("a", "b")[i] for i in rng.integers(0, 2, count)]
    catalog = Catalog(FORMAT, [f"{version}/{i}" for i in range(count)], rng.integers(0, 6, (count, 3)), domains)
    return catalog, build_catalog_trie(catalog, VOCABULARY)


def assert_whole(snapshot) -> None:
    """The trie leads from every item's codes to the item, and to nothing but the catalog's items."""
    assert snapshot.trie.num_items == len(snapshot.catalog)
    tokens = VOCABULARY.code_ids(snapshot.catalog.codes).tolist()
    for index, (path, domain) in enumerate(zip(tokens, snapshot.catalog.domains, strict=True)):
        leaf = snapshot.trie.find(snapshot.trie.root_of(domain), path)
        assert leaf == snapshot.trie.item_leaf[index]
        assert index in snapshot.trie.items_at(leaf)
    assert {item.split("/")[0] for item in snapshot.catalog.item_ids} == {str(snapshot.version)}


def test_readers_see_whole_catalogs_while_a_writer_swaps():
    num_versions = 60
    pairs = [make_pair(version) for version in range(1, num_versions + 1)]
    live = LiveCatalog(*pairs[0])
    done = threading.Event()
    seen: list[list[int]] = [[] for _ in range(4)]
    faults: list[BaseException] = []

    def read(versions: list[int]) -> None:
        try:
            while not done.is_set() or versions[-1:] != [live.current.version]:
                snapshot = live.current
                assert_whole(snapshot)
                versions.append(snapshot.version)
        except BaseException as fault:
            faults.append(fault)

    readers = [threading.Thread(target=read, args=(versions,)) for versions in seen]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for reader in readers:
            reader.start()
        for version, pair in enumerate(pairs[1:], 2):
            reached = sum(map(len, seen))
            assert live.swap(*pair) == version
            while sum(map(len, seen)) == reached and not faults:  # a reader finishes between two swaps
                pass
    finally:
        done.set()
        for reader in readers:
            reader.join()
        sys.setswitchinterval(interval)
    assert not faults
    for versions in seen:
        assert versions == sorted(versions)
        assert versions[-1] == num_versions
    assert len(set().union(*seen)) > 2


def test_a_snapshot_outlives_the_swap():
    live = LiveCatalog(*make_pair(1))
    before = live.current
    assert live.current is before
    assert live.swap(*make_pair(2)) == 2
    assert (before.version, live.current.version) == (1, 2)
    assert live.current is not before
    assert_whole(before)
    assert_whole(live.current)
    with pytest.raises(AttributeError):
        before.version = 3


def test_writers_take_turns():
    live = LiveCatalog(*make_pair(1))
    pair = make_pair(1)
    versions: list[int] = []
    writers = [
        threading.Thread(target=lambda: versions.extend([live.swap(*pair) for _ in range(200)])) for _ in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(versions) == list(range(2, 802))
    assert live.current.version == 801


def test_what_does_not_fit_is_refused_and_nothing_changes():
    live = LiveCatalog(*make_pair(1))
    before = live.current
    catalog, trie = make_pair(2)
    with pytest.raises(CatalogError, match="the catalog has 22 items, the trie 21; build the trie from this catalog"):
        live.swap(catalog, before.trie)
    with pytest.raises(CatalogError, match="the catalog has 21 items, the trie 22"):
        LiveCatalog(before.catalog, trie)
    with pytest.raises(FormatError, match=r"token ids \[\(51, 57\).* the one in use \[\(50, 56\).* the model in use"):
        live.swap(catalog, build_catalog_trie(catalog, ItemicVocabulary(FORMAT, 51)))
    other = ItemicFormat("other", (6, 6, 6), "<{level}{code}>", {"a": Marker("<X>"), "b": Marker("<B>")})
    renamed = Catalog(other, catalog.item_ids, catalog.codes, catalog.domains)
    with pytest.raises(FormatError, match="the new catalog uses format 'other'"):
        live.swap(renamed, build_catalog_trie(renamed, ItemicVocabulary(other, 50)))
    assert live.current is before
