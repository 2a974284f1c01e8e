"""What is known of items: attributes out of the item table, and the theme (category) each one belongs to.

Notation: `N` items of a catalog. Everything is by item index.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from onereason.data.schema import ITEMS_FILE, load_dataset
from onereason.errors import ConfigError, DataError
from onereason.io import parse_json
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import ItemicFormat

THEME_ATTRIBUTES = ("category", "categories", "tag_lv3", "tag", "tags", "genre", "genres", "topic", "type")
"""Attributes that name what an item is about, by preference, where none is asked for."""

MIN_SHARED = 3
"""A value that fewer items bear is as good as a name: it tells which item is meant."""


@dataclass(frozen=True)
class ItemFacts:
    """Items of a catalog, in words.

    Attributes:
        item_ids: `N` ids.
        domains: `N` domain names.
        patterns: `N` itemic patterns.
        titles: `N` titles, empty where unknown.
        captions: `N` texts, empty where unknown.
        attributes: `N` mappings, attribute name -> its values (one, or several where the source has a list).
        theme_attribute: the attribute that names an item's theme, None where the table has none.
        format: the itemic format.
        theme_level: which value of a list is the theme, 0 for the widest; None for the narrowest.
    """

    item_ids: Sequence[str]
    domains: Sequence[str]
    patterns: Sequence[str]
    titles: Sequence[str]
    captions: Sequence[str]
    attributes: Sequence[Mapping[str, tuple[str, ...]]]
    theme_attribute: str | None
    format: ItemicFormat
    theme_level: int | None = None

    def __len__(self) -> int:
        return len(self.item_ids)

    @cached_property
    def themes(self) -> list[str]:
        """The theme of each item: a value of the theme attribute (lists run from wide to narrow), or ''."""
        if self.theme_attribute is None:
            return [""] * len(self)
        found = [of.get(self.theme_attribute) for of in self.attributes]
        level = self.theme_level
        return [(v[-1] if level is None else v[min(level, len(v) - 1)]) if v else "" for v in found]

    @cached_property
    def holders(self) -> Counter[tuple[str, str]]:
        """(attribute, value) -> how many items bear it."""
        return Counter((name, value) for of in self.attributes for name, values in of.items() for value in set(values))

    @cached_property
    def trait_names(self) -> list[str]:
        """Attributes other than the theme whose values are mostly shared by `MIN_SHARED` items or more, by name."""
        total: Counter[str] = Counter()
        shared: Counter[str] = Counter()
        for (name, _), count in self.holders.items():
            total[name] += count
            shared[name] += count if count >= MIN_SHARED else 0
        return sorted(n for n in total if n != self.theme_attribute and shared[n] * 2 > total[n])


def load_item_facts(data: str | Path, catalog: Catalog, theme_attribute: str | None = None) -> ItemFacts:
    """The facts of a catalog's items; items that the dataset does not list have no title and no attributes.

    Args:
        data: dataset folder.
        catalog: whose items.
        theme_attribute: names the theme, `NAME` or `NAME:LEVEL` for a value of a list; by default the narrowest value
            of the first of `THEME_ATTRIBUTES` that the table has.

    Raises:
        DataError: attributes that are no JSON object.
        ConfigError: no item has `theme_attribute`, or its level is no number.
    """
    table = load_dataset(data).items
    place = {item: row for row, item in enumerate(table["item_id"])}
    titles, texts = table["title"].to_list(), table["attributes"].to_list()
    rows = [place.get(item) for item in catalog.item_ids]
    source = Path(data) / ITEMS_FILE
    attributes = [
        {} if r is None else parse_attributes(texts[r], catalog.item_ids[i], source) for i, r in enumerate(rows)
    ]
    names = {name for of in attributes for name in of}
    theme_level = None
    if theme_attribute is None:
        theme_attribute = next((name for name in THEME_ATTRIBUTES if name in names), None)
    else:
        theme_attribute, theme_level = _parse_theme(theme_attribute, names, source)
    return ItemFacts(
        catalog.item_ids,
        catalog.domains,
        [catalog.render(i) for i in range(len(catalog))],
        ["" if r is None else titles[r] or "" for r in rows],
        catalog.captions,
        attributes,
        theme_attribute,
        catalog.format,
        theme_level,
    )


def _parse_theme(text: str, names: Collection[str], source: Path) -> tuple[str, int | None]:
    """`categories:1` -> name and level; a name may hold a colon itself."""
    if text in names:
        return text, None
    name, _, level = text.rpartition(":")
    if name not in names:
        known = ", ".join(sorted(names)) or "(none)"
        raise ConfigError(f"no item of {source} has the attribute {name or text!r}; use one of {known}.")
    if not level.isdecimal():
        raise ConfigError(
            f"theme attribute {text!r}: the level behind the colon must be a number from 0, e.g. {name}:1."
        )
    return name, int(level)


def parse_attributes(text: str | None, item: str, source: Path) -> dict[str, tuple[str, ...]]:
    """Name -> values of an item's attribute column, each on one line.

    Numbers become text; objects, truth values and what is no number (NaN, infinity) are left out.
    """
    try:
        found = parse_json(text) if text else {}
    except ValueError as error:
        raise DataError(
            f"{source}, item {item!r}: its attributes are no JSON ({error}); import the data anew."
        ) from error
    if not isinstance(found, dict):
        raise DataError(f"{source}, item {item!r}: attributes should be a JSON object, are {type(found).__name__}.")
    values: dict[str, tuple[str, ...]] = {}
    for name, value in found.items():
        several = value if isinstance(value, list) else [value]
        told = [v for v in several if isinstance(v, str | int | float) and not isinstance(v, bool)]
        words = [" ".join(str(v).split()) for v in told if not isinstance(v, float) or math.isfinite(v)]
        if words := [w for w in words if w]:
            values[str(name)] = tuple(words)
    return values
