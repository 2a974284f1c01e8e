"""A trie on disk: what is read is what was written, and a file that does not fit is not used."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from onereason.errors import CatalogError, FormatError, StorageError
from onereason.itemic import trie_file
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import ItemicFormat, Marker
from onereason.itemic.trie import TRIE_ARRAYS, build_catalog_trie
from onereason.itemic.trie_file import (
    TRIE_FILE,
    hash_catalog,
    load_or_build_catalog_trie,
    load_trie,
    read_catalog_hash,
    save_trie,
)
from onereason.itemic.vocabulary import ItemicVocabulary

FORMAT = ItemicFormat("two", (4, 3), "<{level}{code}>", {"a": Marker("<A>"), "b": Marker("<B>"), "c": Marker("<C>")})
VOCABULARY = ItemicVocabulary(FORMAT, 100)
CODES = [[0, 1], [3, 2], [0, 1], [0, 1]]


def make_catalog(codes=CODES, domains="abaa", popularity=(1, 2, 3, 4), format=FORMAT) -> Catalog:
    return Catalog(format, list("wxyz"), np.array(codes), list(domains), popularity=np.array(popularity))


def assert_equal(found, expected) -> None:
    for name in TRIE_ARRAYS:
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    for name in ("domains", "num_levels", "first_leaf", "level_ranges"):
        assert getattr(found, name) == getattr(expected, name)


@pytest.fixture
def built(monkeypatch) -> list[Catalog]:
    """The catalogs that `load_or_build_catalog_trie` built a trie of."""
    catalogs: list[Catalog] = []

    def build(catalog, vocabulary):
        catalogs.append(catalog)
        return build_catalog_trie(catalog, vocabulary)

    monkeypatch.setattr(trie_file, "build_catalog_trie", build)
    return catalogs


def test_what_is_read_is_what_was_written(tmp_path):
    trie = build_catalog_trie(make_catalog(), VOCABULARY)
    for name in ("one", "two"):
        save_trie(trie, tmp_path / name / TRIE_FILE, "abc")
    assert_equal(load_trie(tmp_path / "one" / TRIE_FILE), trie)
    assert read_catalog_hash(tmp_path / "one" / TRIE_FILE) == "abc"
    assert (tmp_path / "one" / TRIE_FILE).read_bytes() == (tmp_path / "two" / TRIE_FILE).read_bytes()
    assert [path.name for path in (tmp_path / "one").iterdir()] == [TRIE_FILE]
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        save_trie(trie, tmp_path / "file" / TRIE_FILE, "abc")


def test_a_fitting_file_is_used(tmp_path, built):
    catalog = make_catalog()
    trie = build_catalog_trie(catalog, VOCABULARY)
    assert_equal(load_or_build_catalog_trie(tmp_path, catalog, VOCABULARY), trie)
    assert built == [catalog]
    assert list(tmp_path.iterdir()) == []
    save_trie(trie, tmp_path / TRIE_FILE, hash_catalog(catalog, VOCABULARY))
    same = Catalog(FORMAT, list("efgh"), catalog.codes, catalog.domains, list("text"), catalog.popularity)
    assert_equal(load_or_build_catalog_trie(tmp_path, same, VOCABULARY), trie)
    assert built == [catalog]  # ids and captions are no part of a trie


@pytest.mark.parametrize(
    ("catalog", "vocabulary"),
    [
        (make_catalog(codes=[[0, 1], [3, 2], [0, 1], [0, 2]]), VOCABULARY),
        (make_catalog(domains="abab"), VOCABULARY),
        (make_catalog(popularity=(1, 2, 4, 3)), VOCABULARY),
        (make_catalog(), ItemicVocabulary(FORMAT, 101)),
    ],
    ids=["codes", "domains", "popularity", "vocabulary"],
)
def test_a_stale_file_is_not_used(tmp_path, built, catalog, vocabulary):
    save_trie(
        build_catalog_trie(make_catalog(), VOCABULARY), tmp_path / TRIE_FILE, hash_catalog(make_catalog(), VOCABULARY)
    )
    found = load_or_build_catalog_trie(tmp_path, catalog, vocabulary)
    assert built == [catalog]
    assert_equal(found, build_catalog_trie(catalog, vocabulary))


def test_another_format_is_refused(tmp_path):
    with pytest.raises(FormatError, match="the catalog uses format 'two'"):
        load_or_build_catalog_trie(tmp_path, make_catalog(), ItemicVocabulary(FORMAT.with_shape(codes=4), 100))
    with pytest.raises(FormatError, match="the catalog uses format 'two'"):
        hash_catalog(make_catalog(), ItemicVocabulary(FORMAT.with_shape(codes=4), 100))


def test_a_broken_file_is_named_and_the_trie_built(tmp_path, built):
    catalog, path = make_catalog(), tmp_path / TRIE_FILE
    save_trie(build_catalog_trie(catalog, VOCABULARY), path, hash_catalog(catalog, VOCABULARY))
    whole = path.read_bytes()
    arrays, description = load_file(path), read_description(path)
    with pytest.raises(CatalogError, match="holds no trie"):
        load_trie(tmp_path / "other")

    def refused(pattern: str) -> None:
        with pytest.raises(CatalogError, match=rf"{TRIE_FILE} cannot be read as a trie: .*{pattern}.*; remove it"):
            load_trie(path)
        before = len(built)
        assert_equal(load_or_build_catalog_trie(tmp_path, catalog, VOCABULARY), build_catalog_trie(catalog, VOCABULARY))
        assert len(built) == before + 1

    for content in (b"", b"no trie", whole[:-1], whole[:60], whole + b"x"):
        path.write_bytes(content)
        refused("")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused("its bytes are not the ones that were written")
    save_file(arrays, path, {"trie": json.dumps({**description, "first_leaf": 3})})
    refused("its bytes are not the ones that were written")
    save_file(arrays, path, {"trie": json.dumps({**description, "version": 2})})
    refused("it has version 2, this release reads 1")
    save_file(arrays, path, {"trie": json.dumps({**description, "domains": "abc"})})
    refused("another type: domains")
    save_file({"token": arrays["token"]}, path, {"trie": json.dumps(description)})
    refused(r"another type: \['token'\]")
    save_file(arrays, path, {"format": "pt"})
    refused("a safetensors file of something else")
    save_file(arrays, path, {"trie": "{"})
    refused("")


def read_description(path) -> dict:
    header = path.read_bytes()
    length = int.from_bytes(header[:8], "little")
    return json.loads(json.loads(header[8 : 8 + length])["__metadata__"]["trie"])
