"""Small worlds for the tests of cognition: items in words, knowledge put together by hand, a simulated world.

Everything is real: facts, catalogs, knowledge and datasets are the package's own, only small.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl

from onereason.cognition.facts import ItemFacts
from onereason.cognition.interests import InterestMap
from onereason.cognition.knowledge import Knowledge, KnowledgeConfig, build_knowledge
from onereason.cognition.transitions import Context, Transitions
from onereason.data.schema import INTERACTION_SCHEMA, ITEM_SCHEMA, Dataset, save_dataset
from onereason.data.simulate import WorldConfig, simulate_world
from onereason.data.timelines import build_timelines, split_leave_one_out
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format

DAY = 86_400
START = 1_735_689_600  # 2025-01-01 00:00:00 UTC
ODD = "50% {off} %s {0}"
"""A name that breaks careless formatting."""


def make_facts(items: Sequence[tuple[str, Mapping[str, Any]]], theme: str | None = "category") -> ItemFacts:
    """Facts of items given as `(domain, attributes)`; item `n` is `i<n>`, titled `thing <n>`, codes n // 8, n % 8."""
    format = load_format("onereason", 2, 8)
    names = [f"i{n}" for n in range(len(items))]
    domains = [domain for domain, _ in items]
    titles = [f"thing {n}" for n in range(len(items))]
    attributes = [{k: (v,) if isinstance(v, str) else tuple(v) for k, v in of.items()} for _, of in items]
    patterns = [format.render([n // 8, n % 8], domain) for n, domain in enumerate(domains)]
    return ItemFacts(names, domains, patterns, titles, [f"{t}." for t in titles], attributes, theme, format)


def make_knowledge(
    interests: Sequence[int],
    leads: Mapping[tuple[int | str, ...], Sequence[tuple[int, float]]] | None = None,
    contexts: Sequence[Context] = (),
    sides: Sequence[str] | None = None,
    *,
    stay: Sequence[float] = (0.5,) * 9,
    domains: Sequence[str] | None = None,
    names: Sequence[str] = ("tea", "tents", "trains", "toys", "tools"),
    config: KnowledgeConfig | None = None,
) -> Knowledge:
    """Knowledge put together by hand.

    Args:
        interests: of each item, -1 without one; interest `z` is called `names[z]`, and so is its only theme.
        leads: `Transitions.ranked`.
        contexts: of the transitions.
        sides: value of the attribute `style` of each item, '' without one.
    """
    domains = domains or ["video"] * len(interests)
    sides = sides or [""] * len(interests)
    items = [
        (domain, ({"category": names[z]} if z >= 0 else {}) | ({"style": side} if side else {}))
        for domain, z, side in zip(domains, interests, sides, strict=True)
    ]
    themes = {(z, domain): names[z] for domain, z in zip(domains, interests, strict=True) if z >= 0}
    shares = {side: sides.count(side) / (len(sides) - sides.count("")) for side in dict.fromkeys(sides) if side}
    return Knowledge(
        make_facts(items),
        InterestMap(names, np.array(interests, dtype=np.int32), themes),
        {"style": sides},
        {"style": shares},
        Transitions(contexts, leads or {}, [1 / len(names)] * len(names)),
        stay,
        config or KnowledgeConfig(),
    )


def write_world(
    root: Path,
    facts: ItemFacts,
    histories: Mapping[str, Sequence[int]],
    actions: Sequence[str] = ("click", "like"),
    step: int = DAY,
) -> SimpleNamespace:
    """Writes `root/data` and `root/catalog`; returns the arguments that builders take, and the patterns.

    Codes are those of `make_facts`. Events of a user are `step` seconds apart, from 2025-01-01 on.
    """
    codes = np.array([[n // 8, n % 8] for n in range(len(facts))])
    catalog = Catalog(facts.format, list(facts.item_ids), codes, list(facts.domains), list(facts.captions))
    catalog.save(root / "catalog")
    attributes = [json.dumps({k: v[0] if len(v) == 1 else v for k, v in of.items()}) for of in facts.attributes]
    columns = {
        "item_id": facts.item_ids,
        "domain": facts.domains,
        "title": facts.titles,
        "text": facts.captions,
        "attributes": attributes,
    }
    rows = [
        (user, facts.item_ids[i], START + t * step, actions[t % len(actions)], facts.domains[i])
        for user, history in histories.items()
        for t, i in enumerate(history)
    ]
    interactions = pl.DataFrame(rows, schema=INTERACTION_SCHEMA, orient="row")
    save_dataset(Dataset(pl.DataFrame(columns, schema=ITEM_SCHEMA), interactions), root / "data")
    return SimpleNamespace(root=root, patterns=list(facts.patterns), arguments=arguments(root))


def arguments(root: Path) -> list[str]:
    return ["--data", str(root / "data"), "--catalog", str(root / "catalog")]


SHOP_THEMES = ("tea", "tents", "trains")
MARKED = "zebra"
"""Stands in theme, style, title and caption of items that nobody chose before validation."""


@functools.cache
def shop() -> SimpleNamespace:
    """A hand-made shop: 42 items of two domains, three themes and two styles, and 23 users.

    Item `n` below 40 is a video where `n` is even, else a product, of theme `n % 3` and style `n // 3 % 2`. Item 39 has
    no attributes, item 38 an odd name for a theme. Items 40 and 41 are what every user chose second to last and last.
    """
    themes = SHOP_THEMES
    items: list[tuple[str, dict[str, str]]] = []
    for n in range(40):
        of = {"category": themes[n % 3], "style": ("plain", "fancy")[n // 3 % 2], "brand": f"brand {n}"}
        items.append((("video", "prod")[n % 2], of))
    items[38] = ("video", {"category": ODD, "style": ODD})
    items[39] = ("prod", {})
    items += [("video", {"category": MARKED, "style": MARKED}), ("prod", {"category": MARKED, "style": MARKED})]
    facts = make_facts(items)
    facts = ItemFacts(
        facts.item_ids,
        facts.domains,
        facts.patterns,
        [*facts.titles[:40], f"{MARKED} one", f"{MARKED} two"],
        [*facts.captions[:40], f"{MARKED} one.", f"{MARKED} two."],
        facts.attributes,
        facts.theme_attribute,
        facts.format,
    )
    rng = np.random.default_rng(0)
    histories: dict[str, list[int]] = {"one": [5, 40, 41], "two": [5, 5, 40, 41]}
    for user in range(20):
        theme = user % 3
        own = [n for n in range(38) if n % 3 == theme]
        other = [n for n in range(40) if n % 3 != theme]
        steps = [int(rng.choice(own if rng.random() < 0.7 else other)) for _ in range(6 + user)]
        histories[f"u{user}"] = [*steps, 40, 41]
    histories["short"] = [3, 6]  # too short to be split: all of it trains
    return SimpleNamespace(facts=facts, histories=histories)


@functools.cache
def simulated() -> SimpleNamespace:
    """A simulated world of 400 users, 600 items and 24 topics, read as any dataset, and what is known of it."""
    world = simulate_world(WorldConfig(users=400, items=600, topics=24, seed=0))
    table = world.dataset.items
    names = table["item_id"].to_list()
    codes = np.stack([np.arange(len(names)) // 64, np.arange(len(names)) % 64], 1)
    catalog = Catalog(load_format("onereason", 2, 64), names, codes, table["domain"].to_list(), table["text"].to_list())
    attributes = [{k: (str(v),) for k, v in json.loads(text).items()} for text in table["attributes"]]
    facts = ItemFacts(
        names,
        catalog.domains,
        [catalog.render(i) for i in range(len(names))],
        table["title"].to_list(),
        catalog.captions,
        attributes,
        "category",
        catalog.format,
    )
    timelines = build_timelines(world.dataset.interactions, catalog.index)
    split = split_leave_one_out(timelines)
    return SimpleNamespace(
        world=world,
        catalog=catalog,
        facts=facts,
        timelines=timelines,
        histories=split.train,
        split=split,
        knowledge=build_knowledge(facts, split.train),
    )


def write_simulated(root: Path) -> list[str]:
    """Writes the simulated world; returns the arguments that builders take."""
    known = simulated()
    known.catalog.save(root / "catalog")
    save_dataset(known.world.dataset, root / "data")
    return arguments(root)
