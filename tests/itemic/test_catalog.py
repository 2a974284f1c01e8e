"""The catalog's look-ups against brute force over its rows, its checks, and its files."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.errors import CatalogError, FormatError
from onereason.itemic.catalog import CATALOG_META, CATALOG_TABLE, Catalog
from onereason.itemic.format import ANY_DOMAIN, ItemicFormat, Marker

SHARED = ItemicFormat("shared", (3, 2), "<{level}_{code}>", {ANY_DOMAIN: Marker()})
SPLIT = ItemicFormat("split", (3, 2), "<{level}_{code}>", {"x": Marker("<x>"), "y": Marker("<y>")})
WIDE = ItemicFormat("wide", (8192,) * 6, "<{level}_{code}>", {"x": Marker("<x>"), "y": Marker("<y>")})
"""2 x 8192^6 = 2^79 sids: more than an int64 holds."""


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    format = draw(st.sampled_from([SHARED, SPLIT, WIDE]))
    n = draw(st.integers(1, 20))
    low = [max(0, size - 2) for size in format.codes_per_level]  # two codes a level: many collisions, large numbers
    codes = [
        [draw(st.integers(lo, s - 1)) for lo, s in zip(low, format.codes_per_level, strict=True)] for _ in range(n)
    ]
    popularity = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    domains = draw(st.lists(st.sampled_from(["x", "y"]), min_size=n, max_size=n))
    return Catalog(format, [f"i{k}" for k in range(n)], np.array(codes), domains, popularity=np.array(popularity))


def brute_force(catalog: Catalog, codes: list[int], domain: str) -> list[int]:
    """Items with these codes (and domain, where tokens tell it), the most popular first, then in catalog order."""
    told_apart = ANY_DOMAIN not in catalog.format.domains
    found = [
        i
        for i in range(len(catalog))
        if catalog.codes[i].tolist() == codes and (not told_apart or catalog.domains[i] == domain)
    ]
    return sorted(found, key=lambda i: (-catalog.popularity[i], i))


@settings(max_examples=150, deadline=None)
@given(catalogs())
def test_look_ups_equal_brute_force(catalog):
    buckets = set()
    for i in range(len(catalog)):
        codes, domain = catalog.codes[i].tolist(), catalog.domains[i]
        expected = brute_force(catalog, codes, domain)
        buckets.add(tuple(expected))
        assert catalog.items_with_sid(i).tolist() == expected
        assert catalog.find(codes, domain).tolist() == expected
        assert catalog.render(i) == catalog.format.render(codes, domain)
    assert sorted(i for bucket in buckets for i in bucket) == list(range(len(catalog)))
    assert catalog.collisions() == {
        "num_items": len(catalog),
        "num_sids": len(buckets),
        "num_items_in_collision": sum(len(b) for b in buckets if len(b) > 1),
        "largest_bucket": max(map(len, buckets)),
    }
    for codes in ([0] * catalog.format.num_levels, catalog.codes[0].tolist()):
        for domain in ("x", "y"):
            assert catalog.find(codes, domain).tolist() == brute_force(catalog, codes, domain)


def test_find_refuses_codes_and_domains_the_format_lacks():
    catalog = Catalog(SPLIT, ["p", "q"], np.array([[0, 0], [1, 0]]), ["x", "y"])
    with pytest.raises(FormatError, match="code 2 at level b is outside"):
        catalog.find([0, 2], "x")  # 0 * 2 + 2 is also the key of [1, 0]
    with pytest.raises(FormatError, match="domain 'z' is not in format"):
        catalog.find([0, 0], "z")
    with pytest.raises(FormatError, match="has 1 levels"):
        catalog.find([0], "x")


def test_indices_name_what_is_missing():
    catalog = Catalog(SHARED, ["p", "q"], np.array([[0, 0], [1, 0]]))
    assert catalog.indices(["q", "p", "q"]).tolist() == [1, 0, 1]
    with pytest.raises(CatalogError, match=r"lacks 2 item\(s\) of the history, e.g. 'r'"):
        catalog.indices(["p", "r", "s", "r"], what="the history")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"item_ids": [], "codes": np.zeros((0, 2), int)}, CatalogError, "the catalog is empty"),
        ({"codes": np.zeros((3, 2), int)}, CatalogError, r"shape \(3, 2\), expected \[2, L\] for 2 items"),
        ({"codes": np.zeros((2, 3), int)}, FormatError, "ids have 3 levels, format 'split' has 2"),
        ({"codes": np.array([[0, 0], [0, 2]])}, FormatError, "code 2 at level b is outside"),
        ({"codes": np.array([[0, 0], [-1, 0]])}, FormatError, "at level a is outside"),
        ({"codes": np.array([[0, 0], [2**32, 0]])}, FormatError, "at level a is outside"),
        ({"codes": np.array([[0.0, 0], [0.5, 0]])}, CatalogError, "should be whole numbers, are float64"),
        ({"domains": ["x", "z"]}, FormatError, "domain 'z' is not in format"),
        ({"domains": ["x"]}, CatalogError, "unequal lengths"),
        ({"captions": ["one"]}, CatalogError, "unequal lengths"),
        ({"item_ids": ["p", "p"]}, CatalogError, "item 'p' stands twice"),
    ],
)
def test_a_wrong_catalog_is_refused(arguments, error, message):
    values = {"item_ids": ["p", "q"], "codes": np.array([[0, 0], [1, 1]]), "domains": ["x", "y"], **arguments}
    if not values["item_ids"]:
        values["domains"] = []
    with pytest.raises(error, match=message):
        Catalog(SPLIT, **values)


@settings(max_examples=15, deadline=None)
@given(catalog=catalogs())
def test_save_and_load(tmp_path_factory, catalog):
    folder = tmp_path_factory.mktemp("catalog") / "c"
    catalog.save(folder)
    loaded = Catalog.load(folder)
    assert loaded.format == catalog.format
    assert loaded.item_ids == catalog.item_ids
    assert loaded.domains == catalog.domains
    assert loaded.captions == catalog.captions
    np.testing.assert_array_equal(loaded.codes, catalog.codes)
    np.testing.assert_array_equal(loaded.popularity, catalog.popularity)
    assert json.loads((folder / CATALOG_META).read_text())["counts"] == catalog.collisions()


def test_a_malformed_catalog_folder_is_refused(tmp_path):
    folder = tmp_path / "c"
    catalog = Catalog(SHARED, ["p", "q"], np.array([[0, 0], [1, 0]]))
    with pytest.raises(CatalogError, match=r"holds no catalog .*onereason tokenize"):
        Catalog.load(folder)
    catalog.save(folder)
    table = pl.read_parquet(folder / CATALOG_TABLE)
    for changed, message in (
        (table.drop("caption"), "column 'caption' should be String, is None"),
        (table.with_columns(pl.col("popularity").cast(pl.Float64)), "column 'popularity' should be Int64, is Float64"),
        (table.with_columns(codes=pl.Series([[0, 0], [1]], dtype=pl.List(pl.Int32))), "cannot be read as a catalog"),
        (table.clear(), "the catalog is empty"),
    ):
        changed.write_parquet(folder / CATALOG_TABLE)
        with pytest.raises(CatalogError, match=message):
            Catalog.load(folder)
    (folder / CATALOG_TABLE).write_bytes(b"not parquet")
    with pytest.raises(CatalogError, match="cannot be read as a catalog"):
        Catalog.load(folder)
