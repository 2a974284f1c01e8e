"""Sides of items that one can ask about."""

from __future__ import annotations

import pytest

from onereason.cognition.aspects import Aspect, build_aspects, parse_amount, price_levels
from onereason.cognition.facts import ItemFacts
from onereason.itemic.format import load_format


def aspects_of(attributes: list[dict[str, tuple[str, ...]]], theme: str | None, min_items: int = 2) -> list[Aspect]:
    n = len(attributes)
    facts = ItemFacts(
        [f"i{i}" for i in range(n)],
        ["video"] * n,
        [""] * n,
        [""] * n,
        [""] * n,
        attributes,
        theme,
        load_format("onereason", 1, 8),
    )
    return build_aspects(facts, min_items, ("low", "mid", "high"))


def test_theme_traits_and_price():
    attributes = [
        {"categories": ("drink", "tea"), "brand": ("Oolo",), "asin": ("B1",), "price": ("3",)},
        {"categories": ("drink", "tea"), "brand": ("Oolo",), "asin": ("B2",), "price": ("$12",)},
        {"categories": ("cake",), "brand": ("Oolo",), "asin": ("B3",), "price": ("high",)},
        {"categories": ("drink", "rare"), "brand": ("Unknown",), "asin": ("B4",), "price": ("30.5",)},
        {"categories": ("cake",)},
    ]
    theme, brand, price = aspects_of(attributes, "categories")  # an asin is no trait: nobody shares one
    assert (theme.name, theme.angle, theme.values) == ("categories", "theme", ["cake", "tea"])
    assert theme.numbers.tolist() == [1, 1, 0, -1, 0]  # "rare" is one item's
    assert theme.further == {0: {"drink", "tea"}, 1: {"drink", "tea"}, 3: {"drink", "rare"}}
    assert (brand.angle, brand.values, brand.numbers.tolist()) == ("brand", ["Oolo"], [0, 0, 0, -1, -1])
    # 3, 12 and 30.5 are low, mid, high; with the one called high there are two of it.
    assert (price.angle, price.values, price.numbers.tolist()) == ("price", ["high"], [-1, -1, 0, 0, -1])


def test_other_attributes_are_asked_for_by_name():
    attributes = [{"material": ("wood",), "facet": ("gear",)} for _ in range(3)]
    facet, material = aspects_of(attributes, None)
    assert (facet.angle, material.angle) == ("focus", "other")


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("12.99", 12.99),
        ("$1,299", 1299.0),
        ("US$5", 5.0),
        ("9.9元", 9.9),
        ("￥30", 30.0),
        ("low", None),
        ("", None),
        ("1.2.3", None),
        ("3 for 2", None),
    ],
)
def test_amounts(text, amount):
    assert parse_amount(text) == amount


def test_price_levels_are_thirds_of_the_domain():
    values = ["1", "2", "3", "4", "5", "6", "100", "mid", "?"]
    domains = ["video"] * 6 + ["prod", "prod", "prod"]
    assert price_levels(values, domains) == [0, 0, 1, 1, 2, 2, 0, 1, None]
