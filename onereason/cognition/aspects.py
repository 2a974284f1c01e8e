"""Sides of an item that one can ask about: its theme and the traits that items share.

Notation: `N` items of a catalog.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onereason.cognition.facts import ItemFacts

THEME = "theme"
ANGLES: Mapping[str, frozenset[str]] = {
    "brand": frozenset({"brand", "manufacturer", "maker", "label"}),
    "style": frozenset({"style", "mood", "tone", "look"}),
    "price": frozenset({"price", "price_range", "price_level", "price_bucket"}),
    "audience": frozenset({"audience", "target_audience", "age_group", "gender"}),
    "occasion": frozenset({"occasion", "season"}),
    "focus": frozenset({"facet", "focus", "aspect"}),
}
"""Angle of a question -> attributes it asks for; any other attribute is asked for by its name (`other`)."""

NO_VALUES = frozenset({"unknown", "unbranded", "n/a", "na", "none", "null", "nan", "-", "未知", "无", "其他"})
"""What sources write where they know nothing, in lower case."""

PRICE_LEVELS: Mapping[str, int] = {
    **dict.fromkeys(("low", "cheap", "budget", "低", "低价", "便宜"), 0),
    **dict.fromkeys(("mid", "medium", "middle", "moderate", "中", "中等", "中价"), 1),
    **dict.fromkeys(("high", "expensive", "premium", "高", "高价", "贵"), 2),
}
"""Words of sources for price levels, cheapest 0."""


@dataclass(frozen=True)
class Aspect:
    """One side of all items.

    Attributes:
        name: the attribute.
        angle: `theme`, a key of `ANGLES`, or `other`.
        values: distinct values, sorted.
        numbers: int64 `[N]`, each item's value as a position in `values`; -1 where nothing that items share is known.
        further: item index -> all values the source has, for items with several.
    """

    name: str
    angle: str
    values: Sequence[str]
    numbers: np.ndarray
    further: Mapping[int, frozenset[str]]


def build_aspects(facts: ItemFacts, min_items: int, price_words: Sequence[str]) -> list[Aspect]:
    """The theme, then the traits by name; those without any value that items share are left out.

    Of several values an item has the last one: lists run from wide to narrow. Prices become three levels.

    Args:
        facts: the items.
        min_items: a value that fewer items bear is not asked for.
        price_words: what the three levels of price are called, cheapest first.
    """
    columns: list[tuple[str, str, Sequence[str]]] = []
    if facts.theme_attribute is not None:
        columns.append((facts.theme_attribute, THEME, facts.themes))
    names = {name for of in facts.attributes for name in of}
    traits = set(facts.trait_names)
    for name in sorted(names - {facts.theme_attribute}):
        angle = next((angle for angle, known in ANGLES.items() if name.lower() in known), "other")
        if angle == "price":
            levels = price_levels([of.get(name, ("",))[-1] for of in facts.attributes], facts.domains)
            columns.append((name, angle, ["" if n is None else price_words[n] for n in levels]))
        elif name in traits:
            columns.append((name, angle, [of[name][-1] if name in of else "" for of in facts.attributes]))
    found = []
    for name, angle, values in columns:
        held = Counter(values)
        shared = sorted(v for v, n in held.items() if n >= min_items and v.strip() and v.lower() not in NO_VALUES)
        if shared:
            number = {value: n for n, value in enumerate(shared)}
            numbers = np.array([number.get(value, -1) for value in values], np.int64)
            several = (
                {i: frozenset(of[name]) for i, of in enumerate(facts.attributes) if len(of.get(name, ())) > 1}
                if angle != "price"
                else {}
            )
            found.append(Aspect(name, angle, shared, numbers, several))
    return found


def price_levels(values: Sequence[str], domains: Sequence[str]) -> list[int | None]:
    """Prices as 0 (low), 1 (mid) or 2 (high), None where there is none.

    Words of a level stand for it; sums of money are cut into thirds of their domain's items.

    Args:
        values: `N` texts such as `mid`, `12.99`, `$12.99`.
        domains: `N` domain names.
    """
    levels: list[int | None] = [PRICE_LEVELS.get(value.strip().lower()) for value in values]
    sums: dict[str, list[tuple[float, int]]] = {}
    for i, value in enumerate(values):
        if levels[i] is None and (amount := parse_amount(value)) is not None:
            sums.setdefault(domains[i], []).append((amount, i))
    for priced in sums.values():
        amounts = sorted(amount for amount, _ in priced)
        low, high = amounts[(len(amounts) - 1) // 3], amounts[2 * (len(amounts) - 1) // 3]
        for amount, i in priced:
            levels[i] = 0 if amount <= low else 1 if amount <= high else 2
    return levels


def parse_amount(text: str) -> float | None:
    """A sum of money: `12.99`, `$1,299`, `12.99元`; None for any other text."""
    digits = "".join(c for c in text if c.isdecimal() or c == ".")
    rest = text.replace(",", "").replace(" ", "").strip("$€£¥￥元").lower().removeprefix("us$")
    try:
        return float(digits) if digits and rest == digits else None
    except ValueError:
        return None
