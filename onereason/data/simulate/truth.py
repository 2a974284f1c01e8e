"""The truth beside the data: why each event happened, what relates to what, how interests evolve."""

from __future__ import annotations

import json

import numpy as np
import polars as pl

from onereason.data.simulate.config import WorldConfig
from onereason.data.simulate.events import flat_rows, kind_names, user_names
from onereason.data.simulate.names import DOMAINS, FACETS, PERSONAS, RELATIONS, STYLES, TOPICS
from onereason.data.simulate.users import MOVES, NOISE, STAY, Behaviour
from onereason.data.simulate.world import ItemTable, Tables

_TOPIC_NAMES = np.array([t.name for t in TOPICS])
_PERSONA_NAMES = np.array([p.name for p in PERSONAS])


def build_truth(
    config: WorldConfig,
    tables: Tables,
    items: ItemTable,
    behaviour: Behaviour,
    item_table: pl.DataFrame,
    interactions: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """All truth tables by name; `items` in the order of `items`, `interactions` aligned with `interactions`."""
    events = _interaction_truth(config, items, behaviour, interactions)
    return {
        "items": _item_truth(items, item_table),
        "interactions": events,
        "users": _user_truth(config, behaviour, events),
        "item_relations": _item_relations(config, tables, items, item_table["item_id"].to_numpy()),
        "chains": _chains(config, behaviour, events),
    }


def _names(table: np.ndarray, values: np.ndarray) -> pl.Series:
    """Names of indices, null where the index is negative."""
    names = pl.Series(table[np.maximum(values, 0)], dtype=pl.String)
    return names.zip_with(pl.Series(values >= 0), pl.Series([None] * len(values), dtype=pl.String))


def _lists(table: np.ndarray, values: np.ndarray) -> list[list[str]]:
    """Rows of indices `[n, k]` as lists of names, without the negative ones."""
    return [[str(table[v]) for v in row if v >= 0] for row in values.tolist()]


def _item_truth(items: ItemTable, item_table: pl.DataFrame) -> pl.DataFrame:
    attributes = [json.loads(a) for a in item_table["attributes"]]
    return pl.DataFrame(
        {
            "item_id": item_table["item_id"],
            "domain": item_table["domain"],
            "topic": _names(_TOPIC_NAMES, items.topic),
            "subject": _names(_TOPIC_NAMES, items.subject),
            "facet": _names(np.array(FACETS), items.facet),
            "style": _names(np.array(STYLES), items.style),
            "brand": [a["brand"] for a in attributes],
            "price": [a["price"] for a in attributes],
            "popularity_rank": items.rank.astype(np.int32),
        }
    )


def _interaction_truth(
    config: WorldConfig, items: ItemTable, behaviour: Behaviour, interactions: pl.DataFrame
) -> pl.DataFrame:
    user, step = flat_rows(behaviour)

    def at(values: np.ndarray) -> np.ndarray:
        return values[step, user]

    person = at(behaviour.person)
    moved = np.isin(at(behaviour.kind), MOVES)
    path = np.concatenate([np.where(moved, at(behaviour.live), -1)[:, None], at(behaviour.path)], axis=1)
    item = at(behaviour.item)
    return pl.DataFrame(
        {
            "user_id": interactions["user_id"],
            "position": step.astype(np.int32),
            "item_id": interactions["item_id"],
            "timestamp": interactions["timestamp"],
            "domain": interactions["domain"],
            "kind": kind_names(at(behaviour.kind)),
            "moved": moved,
            "person": person.astype(np.int8),
            "persona": _names(_PERSONA_NAMES, behaviour.personas[user, person]),
            "cause_topic": _names(_TOPIC_NAMES, at(behaviour.cause)),
            "topic": _names(_TOPIC_NAMES, at(behaviour.topic)),
            "subject": _names(_TOPIC_NAMES, items.subject[item]),
            "facet": _names(np.array(FACETS), at(behaviour.facet)),
            "live_topic": _names(_TOPIC_NAMES, at(behaviour.live)),
            "live_count": at(behaviour.count).astype(np.int32),
            "cue_facet": _names(np.array(FACETS), at(behaviour.cue)),
            "relations": pl.Series(_lists(np.array(RELATIONS), at(behaviour.relations)), dtype=pl.List(pl.String)),
            "path": pl.Series(_lists(_TOPIC_NAMES, path), dtype=pl.List(pl.String)),
            "evidence": pl.Series(_evidence(config, behaviour, user, step), dtype=pl.List(pl.Int32)),
        }
    )


def _evidence(config: WorldConfig, behaviour: Behaviour, user: np.ndarray, step: np.ndarray) -> list[list[int]]:
    """Positions of the events in the acting person's window that bear the live topic, oldest first."""
    windows: dict[tuple[int, int], list[int]] = {}
    result = []
    topic, live, person = behaviour.topic, behaviour.live, behaviour.person
    for u, s in zip(user.tolist(), step.tolist(), strict=True):
        if s == 0:
            windows.clear()
        window = windows.setdefault((u, int(person[s, u])), [])
        wanted = live[s, u]
        result.append([p for p in window if topic[p, u] == wanted])
        window.append(s)
        del window[: -config.window]
    return result


def _user_truth(config: WorldConfig, behaviour: Behaviour, events: pl.DataFrame) -> pl.DataFrame:
    """One row a user; `validation_*` and `test_*` hold the chain behind the last event but one and the last."""
    ends = np.cumsum(behaviour.lengths)
    both = [[str(_PERSONA_NAMES[p]) for p in row if p >= 0] for row in behaviour.personas.tolist()]
    interests = behaviour.interests.reshape(config.users, -1)
    columns: dict[str, object] = {
        "user_id": user_names(config.users),
        "shared_device": behaviour.personas[:, 1] >= 0,
        "personas": pl.Series(both, dtype=pl.List(pl.String)),
        "interests": pl.Series(_lists(_TOPIC_NAMES, interests), dtype=pl.List(pl.String)),
        "num_interactions": behaviour.lengths.astype(np.int32),
    }
    wanted = (
        "persona", "live_topic", "live_count", "cue_facet", "relations", "path", "topic", "domain", "subject",
        "kind", "evidence", "item_id",
    )  # fmt: skip
    for split, back in (("validation", 2), ("test", 1)):
        rows = events[ends - back]
        columns |= {f"{split}_{name}": rows[name] for name in wanted}
    return pl.DataFrame(columns)


def _item_relations(config: WorldConfig, tables: Tables, items: ItemTable, item_ids: np.ndarray) -> pl.DataFrame:
    """For every item one sampled partner of each kind.

    `substitute`: same domain, subject and facet; `neighbour`, `complement`, `successor`: an item that serves the topic
    the relation leads to, in any domain; `echo`: an item of another domain that serves the same topic.
    """
    rng = np.random.default_rng([config.seed, 7])
    n, topics = len(items), config.topics
    source = np.arange(n)
    neutral = np.full(n, -1)
    every = np.full(n, -1)
    parts = []

    def draw(domain: np.ndarray, topic: np.ndarray, facet: np.ndarray) -> np.ndarray:
        ranges = items.ranges(domain, tables.express[domain, topic], facet, topics)
        return items.draw(neutral, ranges, rng.random(n))

    parts.append(("substitute", draw(items.domain, items.topic, items.facet)))
    for r, name in enumerate(RELATIONS):
        parts.append((name, draw(rng.integers(len(DOMAINS), size=n), tables.relations[r, items.topic], every)))
    away = (items.domain + rng.integers(1, len(DOMAINS), size=n)) % len(DOMAINS)
    parts.append(("echo", draw(away, items.topic, every)))
    tables_ = [
        pl.DataFrame(
            {"source": item_ids[source[keep]], "relation": name, "target": item_ids[target[keep]]},
            schema={"source": pl.String, "relation": pl.String, "target": pl.String},
        )
        for name, target in parts
        for keep in [np.flatnonzero(target != source)]
    ]
    return pl.concat(tables_)


def _chains(config: WorldConfig, behaviour: Behaviour, events: pl.DataFrame) -> pl.DataFrame:
    """How each latent interest evolved: one row an episode of moves or a burst, in time order.

    `topic` is the interest the episode is about, `positions` its events (moves and stays, noise left out), `path` the
    topics it touched in order without repetition; `chain` counts the user's latent interests.
    """
    user, step = flat_rows(behaviour)
    kind = behaviour.kind[step, user]
    person, slot = behaviour.person[step, user], behaviour.slot[step, user]
    key = (user * 2 + person) * 4 + slot
    keep = kind != NOISE
    table = pl.DataFrame(
        {
            "user_id": events["user_id"],
            "key": key,
            "chain": (person * 4 + slot).astype(np.int8),
            "persona": events["persona"],
            "position": events["position"],
            "topic": events["topic"],
            "starts": (kind == STAY + 1),
        }
    ).filter(pl.Series(keep))
    return (
        table.with_columns(episode=pl.col("starts").cast(pl.Int32).cum_sum().over("key"))
        .group_by("key", "episode", maintain_order=True)
        .agg(
            pl.col("user_id").first(),
            pl.col("chain").first(),
            pl.col("persona").first(),
            pl.col("topic").first(),
            pl.col("position").alias("positions"),
            pl.col("topic").unique(maintain_order=True).alias("path"),
        )
        .sort("key", "episode")
        .drop("key")
        .select("user_id", "chain", "episode", "persona", "topic", "positions", "path")
    )
