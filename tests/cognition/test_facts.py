"""Items in words: attributes out of the table, themes, what is shared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from onereason.cognition.facts import load_item_facts, parse_attributes
from onereason.data.schema import INTERACTION_SCHEMA, ITEM_SCHEMA, Dataset, save_dataset
from onereason.errors import ConfigError, DataError
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format
from tests.cognition_worlds import make_facts

TABLE = Path("items.parquet")


def write(folder: Path, attributes: list[object], titles: list[str | None]) -> None:
    """A dataset of items `i0`, `i1`, ... with these attributes (text, or a value to be written as JSON)."""
    n = len(attributes)
    items = pl.DataFrame(
        {
            "item_id": [f"i{i}" for i in range(n)],
            "domain": ["video"] * n,
            "title": titles,
            "text": ["caption"] * n,
            "attributes": [a if a is None or isinstance(a, str) else json.dumps(a) for a in attributes],
        },
        schema=ITEM_SCHEMA,
    )
    rows = [("u", "i0", 0, "click", "video")]
    save_dataset(Dataset(items, pl.DataFrame(rows, schema=INTERACTION_SCHEMA, orient="row")), folder)


def catalog(names: list[str]) -> Catalog:
    codes = np.stack([np.zeros(len(names), dtype=int), np.arange(len(names))], 1)
    return Catalog(load_format("onereason", 2, 8), names, codes, ["video"] * len(names), ["caption"] * len(names))


def test_facts_stand_in_the_order_of_the_catalog(tmp_path):
    write(tmp_path / "data", [{"category": "tea"}, {"category": "tents"}, None], ["Tea", None, "Bare"])
    facts = load_item_facts(tmp_path / "data", catalog(["i2", "i1", "unlisted", "i0"]))
    assert list(facts.item_ids) == ["i2", "i1", "unlisted", "i0"]
    assert facts.titles == ["Bare", "", "", "Tea"]
    assert facts.attributes == [{}, {"category": ("tents",)}, {}, {"category": ("tea",)}]
    assert facts.themes == ["", "tents", "", "tea"]
    assert facts.patterns[1] == "<|video_begin|><s_a_0><s_b_1>"


@pytest.mark.parametrize(
    ("asked", "themes"),
    [
        (None, ["oils", "tea"]),  # of a list, the narrowest value
        ("categories", ["oils", "tea"]),
        ("categories:0", ["beauty", "tea"]),
        ("categories:1", ["hair", "tea"]),
        ("categories:9", ["oils", "tea"]),  # deeper than the list: its narrowest
        ("dc:subject", ["care", ""]),  # a name with a colon
        ("dc:subject:0", ["care", ""]),
        ("brand", ["Nike", ""]),
    ],
)
def test_the_theme_is_a_value_of_the_attribute_asked_for(tmp_path, asked, themes):
    first = {"categories": ["beauty", "hair", "oils"], "dc:subject": "care", "brand": "Nike", "genre": "x"}
    write(tmp_path / "data", [first, {"categories": "tea", "genre": "y"}], ["a", "b"])
    assert load_item_facts(tmp_path / "data", catalog(["i0", "i1"]), asked).themes == themes


def test_without_a_known_attribute_there_are_no_themes(tmp_path):
    write(tmp_path / "data", [{"color": "red"}], ["a"])
    facts = load_item_facts(tmp_path / "data", catalog(["i0"]))
    assert facts.theme_attribute is None and facts.themes == [""]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("topic", "no item of .* has the attribute 'topic'; use one of brand, category"),
        ("topic:1", "no item of .* has the attribute 'topic'"),
        ("category:wide", "the level behind the colon must be a number from 0, e.g. category:1"),
        ("category:-1", "must be a number from 0"),
        ("category:", "must be a number from 0"),
    ],
)
def test_a_theme_that_is_not_there_is_refused(tmp_path, asked, said):
    write(tmp_path / "data", [{"category": "tea", "brand": "Nike"}], ["a"])
    with pytest.raises(ConfigError, match=said):
        load_item_facts(tmp_path / "data", catalog(["i0"]), asked)


def test_values_become_texts_on_one_line():
    value = {
        "category": "  green\n tea\t{x} 100% ",
        "tags": ["a", " ", "b", {"c": 1}, None, ["d"], True],
        "price": 12.5,
        "year": 2024,
        "empty": "",
        "flag": False,
        "nested": {"a": "b"},
        "none": None,
        "missing": float("nan"),
        "endless": [float("inf"), 3],
    }
    assert parse_attributes(json.dumps(value), "i0", TABLE) == {
        "category": ("green tea {x} 100%",),
        "tags": ("a", "b"),
        "price": ("12.5",),
        "year": ("2024",),
        "endless": ("3",),
    }
    assert parse_attributes(None, "i0", TABLE) == parse_attributes("", "i0", TABLE) == {}


@pytest.mark.parametrize(("text", "said"), [("[1]", "are list"), ("null", "are NoneType"), ("{broken", "are no JSON")])
def test_attributes_that_are_no_object_are_refused(text, said):
    with pytest.raises(DataError, match=f"items.parquet, item 'i7'.*{said}"):
        parse_attributes(text, "i7", TABLE)


def test_traits_are_attributes_whose_values_are_mostly_shared_by_three_items():
    # style: 4 of 5 items bear a value that 3 or more bear; brand: 3 of 6; tags count once an item
    of = [
        {"category": "tea", "style": "plain", "brand": "a"},
        {"category": "tea", "style": "plain", "brand": "a"},
        {"category": "tea", "style": "plain", "brand": "a", "tags": ["x", "x"]},
        {"category": "tea", "style": "plain", "brand": "b"},
        {"category": "tea", "style": "fancy", "brand": "c"},
        {"category": "tea", "brand": "d"},
    ]
    facts = make_facts([("video", a) for a in of])
    assert facts.holders["style", "plain"] == 4 and facts.holders["brand", "a"] == 3
    assert facts.holders["tags", "x"] == 1
    assert facts.trait_names == ["style"]  # 4 > 5 / 2; brand has 3, which is not more than half of 6
