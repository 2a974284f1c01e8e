"""What holds for everyone: how topics lead to topics, how each domain expresses a topic, the items.

Notation: `T` topics, `F` facets, `R` relations, `D` domains, `M` items. Topics, facets, domains and items are integers
here; names are put in when tables are written.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onereason.data.simulate.config import GROUP_SIZE, WorldConfig
from onereason.data.simulate.names import DOMAINS, FACETS, PERSONAS, RELATIONS, STYLES, TOPICS

NEUTRAL = -1
"""Row of `ItemTable.cumulative` without a persona: noise picks items by popularity alone."""


@dataclass(frozen=True)
class Tables:
    """The transition tables.

    Attributes:
        relations: int64 `[R, T]`; `relations[r, t]` is the topic that relation `r` leads to from topic `t`.
        express: int64 `[D, T]` (rho); interest in topic `t` shows in domain `d` as items about `express[d, t]`.
        interest_of: int64 `[D, T]`, the inverse: items of domain `d` about subject `s` serve `interest_of[d, s]`.
        plans: int64 `[P, F]`; the relation a persona's interest moves along, by the facet last seen.
    """

    relations: np.ndarray
    express: np.ndarray
    interest_of: np.ndarray
    plans: np.ndarray

    def move(self, persona: np.ndarray, topic: np.ndarray, facet: np.ndarray, num_moves: int) -> list[np.ndarray]:
        """Relations and topics of `num_moves` steps (sigma_p): `[relation_1, topic_1, relation_2, topic_2, ...]`.

        Step `j` takes the relation of the persona's plan for facet `(facet + j) mod F`.
        """
        path: list[np.ndarray] = []
        for step in range(num_moves):
            relation = self.plans[persona, (facet + step) % len(FACETS)]
            topic = self.relations[relation, topic]
            path += [relation, topic]
        return path


@dataclass(frozen=True)
class ItemTable:
    """Items sorted by domain, subject, facet, so that a cell is a contiguous range.

    Attributes:
        domain, subject, facet, style, rank: int64 `[M]`; `rank` is the popularity rank inside the cell, from 0.
        topic: int64 `[M]`, the interest that the item serves.
        starts: int64 `[D * T * F + 1]`, first item of each cell.
        weights: float64 `[P + 1, M]`, how readily each persona picks an item of a cell; the last row is `NEUTRAL`.
        cumulative: float64 `[P + 1, M + 1]`, running sums of `weights` from 0.
    """

    domain: np.ndarray
    subject: np.ndarray
    facet: np.ndarray
    style: np.ndarray
    rank: np.ndarray
    topic: np.ndarray
    starts: np.ndarray
    weights: np.ndarray
    cumulative: np.ndarray

    def __len__(self) -> int:
        return len(self.domain)

    def ranges(self, domain: np.ndarray, subject: np.ndarray, facet: np.ndarray, num_topics: int) -> np.ndarray:
        """First and last-plus-one item `[2, n]` of the cells; facet -1 means all facets of the subject."""
        cell = (domain * num_topics + subject) * len(FACETS)
        whole = facet < 0
        low = cell + np.where(whole, 0, facet)
        high = cell + np.where(whole, len(FACETS), facet + 1)
        return np.stack([self.starts[low], self.starts[high]])

    def draw(self, persona: np.ndarray, ranges: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """One item per range, by the persona's weights; `uniform` in [0, 1) decides."""
        items = np.empty(len(persona), dtype=np.int64)
        for row in range(len(self.cumulative)):
            chosen = np.flatnonzero(persona % len(self.cumulative) == row)
            total = self.cumulative[row]
            low, high = ranges[:, chosen]
            value = total[low] + uniform[chosen] * (total[high] - total[low])
            # Rounding may carry a value onto the next range's first item: stay inside.
            items[chosen] = np.clip(np.searchsorted(total, value, side="right") - 1, low, high - 1)
        return items


def build_tables(config: WorldConfig, rng: np.random.Generator) -> Tables:
    """Draws the relations between topics and the way each domain expresses them."""
    topics = config.topics
    identity = np.arange(topics)
    neighbour = _within_groups(topics, rng)
    complement = _derange(topics, rng, [identity, neighbour], cross_group=True)
    successor = _derange(topics, rng, [identity, neighbour, complement], cross_group=True)
    prod = _within_groups(topics, rng)
    advert = _derange(topics, rng, [identity], cross_group=True)
    # Things to watch show a topic as itself; things to own or sign up for show what goes with it.
    express = np.stack([{"prod": prod, "ad": advert}.get(domain, identity) for domain in DOMAINS])
    return Tables(
        np.stack([neighbour, complement, successor]),
        express,
        np.argsort(express, axis=1),
        np.array([p.plan for p in PERSONAS[: config.personas]]),
    )


def _within_groups(topics: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation that leaves no topic in place and moves each inside its neighbourhood (one cycle a group)."""
    result = np.empty(topics, dtype=np.int64)
    for first in range(0, topics, GROUP_SIZE):
        cycle = first + rng.permutation(GROUP_SIZE)
        result[cycle] = np.roll(cycle, -1)
    return result


def _derange(topics: int, rng: np.random.Generator, avoid: list[np.ndarray], cross_group: bool) -> np.ndarray:
    """A permutation that agrees nowhere with those of `avoid`; with `cross_group` it leaves every neighbourhood.

    Random transpositions repair a random permutation until nothing clashes.
    """
    result = rng.permutation(topics)

    def clashes(t: int) -> bool:
        same_group = cross_group and result[t] // GROUP_SIZE == t // GROUP_SIZE
        return bool(same_group or any(result[t] == other[t] for other in avoid))

    while True:
        bad = [t for t in range(topics) if clashes(t)]
        if not bad:
            return result
        for t in bad:
            other = int(rng.integers(topics))
            result[t], result[other] = result[other], result[t]


def build_items(config: WorldConfig, tables: Tables, rng: np.random.Generator) -> ItemTable:
    """Deals the items evenly to the cells (domain, subject, facet) and gives each a style and a popularity."""
    topics, facets = config.topics, len(FACETS)
    cells = len(DOMAINS) * topics * facets
    sizes = np.full(cells, config.items // cells)
    sizes[rng.permutation(cells)[: config.items % cells]] += 1
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    cell = np.repeat(np.arange(cells), sizes)
    rank = np.arange(config.items) - starts[cell]
    domain, subject, facet = cell // (topics * facets), cell // facets % topics, cell % facets
    # A random offset a cell and a step a rank: styles are even inside a cell and independent of popularity.
    style = (rng.integers(len(STYLES), size=cells)[cell] + rank * rng.choice([1, 5], size=cells)[cell]) % len(STYLES)

    zipf = (rank + 1.0) ** -config.popularity_exponent
    weights = np.empty((config.personas + 1, config.items))
    weights[NEUTRAL] = zipf
    for row, persona in enumerate(PERSONAS[: config.personas]):
        others = (1.0 - config.style_strength) / (len(STYLES) - 1)
        liking = np.full(len(STYLES), max(others, 1e-3))
        liking[STYLES.index(persona.style)] = max(config.style_strength, 1e-3)
        weights[row] = zipf * liking[style] * np.array(persona.facets)[facet]
    cumulative = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights, axis=1)], axis=1)
    topic = tables.interest_of[domain, subject]
    return ItemTable(domain, subject, facet, style, rank, topic, starts, weights, cumulative)


def describe_tables(config: WorldConfig, tables: Tables) -> dict[str, object]:
    """The transition tables and vocabularies with names, as they stand in `truth/world.json`."""
    topics = TOPICS[: config.topics]
    names = [t.name for t in topics]
    return {
        "rule": {
            "live": "the topic seen most often in the acting person's last `window` events; ties go to the most "
            "recent; an item's topic is the interest it serves",
            "cue": "the facet of the acting person's last event",
            "move": "possible when the live topic stands at least `saturation` times in the window: `num_moves` steps "
            "from it, step j along the relation plan[(cue + j) mod 3] of the acting persona",
            "carry": "the moved topic shows in a domain as items about express[domain][topic]",
            "window": config.window,
            "saturation": config.saturation,
            "num_moves": config.num_moves,
        },
        "domains": list(DOMAINS),
        "facets": list(FACETS),
        "styles": list(STYLES),
        "topics": {
            t.name: {"group": t.group, "words": t.words, "facets": dict(zip(FACETS, t.facets, strict=True))}
            for t in topics
        },
        "relations": {
            r: {names[a]: names[b] for a, b in enumerate(tables.relations[i])} for i, r in enumerate(RELATIONS)
        },
        "express": {d: {names[a]: names[b] for a, b in enumerate(tables.express[i])} for i, d in enumerate(DOMAINS)},
        "personas": {
            p.name: {
                "style": p.style,
                "plan": {f: RELATIONS[r] for f, r in zip(FACETS, p.plan, strict=True)},
                "narrow": p.narrow,
                "moves": list(p.moves),
                "evolve": p.evolve,
                "domains": dict(zip(DOMAINS, p.domains, strict=True)),
                "facets": dict(zip(FACETS, p.facets, strict=True)),
            }
            for p in PERSONAS[: config.personas]
        },
    }
