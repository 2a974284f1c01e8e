"""Does the template teacher find the truth? Precision and recall on a simulated world, whose truth is known.

    python benchmarks/cognition.py [--quick] [--users 2000] [--items 2000] [--seeds 0,1,2]

| what | found by the teacher | true |
|---|---|---|
| interests | pairs of themes of different domains that it takes for one interest | themes that serve one topic |
| persona | the style it says a user leans to, before the last training item | the style of the user's persona |
| live interest | the interest that leads the recent events, before each move | the topic the move started from |
| relations | the three interests that each one most often leads to | the three topics the world's relations lead to |
| bridges | interests that explicitly related items (R1) belong to | the same topic, or a relation of the world |
| transitions | the most likely next interest before the last event but one (validation) | the topic it served |
| chains | the events of the episode nearest to each true episode of three events or more | its events |

Only training parts of timelines are read, except for the validation event that `transitions` predicts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from onereason.cognition.associations import flatten_histories
from onereason.cognition.bridges import find_pairs, judge_pairs
from onereason.cognition.chains import find_episodes
from onereason.cognition.facts import ItemFacts, parse_attributes
from onereason.cognition.judge.relations import EXPLICITLY_RELATED
from onereason.cognition.knowledge import Knowledge, build_knowledge
from onereason.data.schema import ITEMS_FILE
from onereason.data.simulate import WorldConfig, simulate_world
from onereason.data.timelines import build_timelines, split_leave_one_out
from onereason.itemic.format import load_format


@dataclass
class Agreement:
    """Counts of one comparison."""

    hits: int = 0
    found: int = 0
    true: int = 0

    def add(self, found: Iterable[Any], true: Iterable[Any]) -> None:
        found, true = set(found), set(true)
        self.hits += len(found & true)
        self.found += len(found)
        self.true += len(true)

    @property
    def precision(self) -> float:
        return self.hits / max(1, self.found)

    @property
    def recall(self) -> float:
        return self.hits / max(1, self.true)


def facts_of(items: pl.DataFrame) -> ItemFacts:
    """The item table as facts; patterns play no part here."""
    ids = items["item_id"].to_list()
    texts = zip(items["attributes"], ids, strict=True)
    attributes = [parse_attributes(text, item, Path(ITEMS_FILE)) for text, item in texts]
    domains, titles, captions = (items[name].to_list() for name in ("domain", "title", "text"))
    return ItemFacts(ids, domains, ids, titles, captions, attributes, "category", load_format("onereason"))


def measure(users: int, items: int, seed: int) -> dict[str, Agreement]:
    """All comparisons on one world."""
    world = simulate_world(WorldConfig(users=users, items=items, seed=seed))
    facts = facts_of(world.dataset.items)
    timelines = build_timelines(world.dataset.interactions, {item: i for i, item in enumerate(facts.item_ids)})
    split = split_leave_one_out(timelines)
    knowledge = build_knowledge(facts, split.train)
    events = world.truth["interactions"].partition_by("user_id", as_dict=True)
    chains = world.truth["chains"].partition_by("user_id", as_dict=True)
    style_of = {name: persona["style"] for name, persona in world.description["personas"].items()}
    result = {
        name: Agreement() for name in ("interests", "persona", "live", "relations", "bridges", "transitions", "chains")
    }
    compare_interests(result["interests"], knowledge, world.truth["items"])
    compare_relations(result["relations"], knowledge, world.description["relations"])
    compare_bridges(result["bridges"], knowledge, world.description["relations"], split.train)
    names = knowledge.interests.names
    for user, history in enumerate(split.train):
        truth = events[(timelines.user_ids[user],)].to_dicts()
        walk = knowledge.walk()
        for place, item in enumerate(history.tolist()):
            if truth[place]["moved"]:
                result["live"].add([names[walk.live()[0]]], [truth[place]["live_topic"]])
            walk.read(item)
        style, _ = walk.leaning("style", knowledge.config.min_trait)
        personas = {style_of[event["persona"]] for event in truth[: len(history)]}
        if len(personas) == 1:  # with two people on one device there is no one style to find
            result["persona"].add([style] if style else [], personas)
        compare_chains(result["chains"], knowledge, history, chains.get((timelines.user_ids[user],)))
    for example, user in enumerate(split.validation.users.tolist()):
        walk = knowledge.walk()
        for item in split.validation.histories[example].tolist():
            walk.read(item)
        best = knowledge.candidates(walk, 1)
        topic = events[(timelines.user_ids[user],)]["topic"][len(split.validation.histories[example])]
        result["transitions"].add([names[z] for z, _ in best], [topic])
    return result


def compare_interests(agreement: Agreement, knowledge: Knowledge, truth: pl.DataFrame) -> None:
    """Pairs of (domain, theme) under one interest."""
    topic = {(row["domain"], row["subject"]): row["topic"] for row in truth.iter_rows(named=True)}
    home = {(domain, theme): interest for (interest, domain), theme in knowledge.interests.themes.items()}
    pairs = list(combinations(sorted(topic), 2))
    agreement.add([p for p in pairs if home[p[0]] == home[p[1]]], [p for p in pairs if topic[p[0]] == topic[p[1]]])


def compare_relations(agreement: Agreement, knowledge: Knowledge, relations: dict[str, dict[str, str]]) -> None:
    """Edges between interests; each topic has one partner a relation."""
    names = knowledge.interests.names
    for interest, name in enumerate(names):
        found = [names[z] for z, _ in knowledge.transitions.following(interest, ())[: len(relations)]]
        agreement.add(found, [partners[name] for partners in relations.values()] if name in topics(relations) else [])


def compare_bridges(
    agreement: Agreement, knowledge: Knowledge, relations: dict[str, dict[str, str]], histories: Sequence[np.ndarray]
) -> None:
    """Ordered pairs of interests under the pairs that a judge finds explicitly related."""
    pairs = find_pairs(knowledge, *flatten_histories(histories))
    related = pairs.select(judge_pairs(knowledge, pairs) == EXPLICITLY_RELATED)
    names, of = knowledge.interests.names, knowledge.interests.of_item
    ends = zip(of[related.sources].tolist(), of[related.targets].tolist(), strict=True)
    found = {(names[left], names[right]) for left, right in ends}
    known = sorted(topics(relations))
    forward = {(name, partners[name]) for partners in relations.values() for name in known}
    agreement.add(found, forward | {(right, left) for left, right in forward} | {(name, name) for name in known})


def topics(relations: dict[str, dict[str, str]]) -> set[str]:
    return set(next(iter(relations.values())))


def compare_chains(
    agreement: Agreement, knowledge: Knowledge, history: np.ndarray, truth: pl.DataFrame | None, least: int = 3
) -> None:
    """Events of each true episode against those of the found one with most of them."""
    episodes = find_episodes(knowledge, history.tolist())
    for positions in truth["positions"].to_list() if truth is not None else ():
        true = {p for p in positions if p < len(history)}
        if len(true) >= least:
            nearest = max(episodes, key=lambda e: len(true.intersection(e.places)), default=None)
            agreement.add(nearest.places if nearest and true.intersection(nearest.places) else [], true)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small world")
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--seeds", default="0,1,2", help="one world a seed")
    args = parser.parse_args(argv)
    seeds = [0] if args.quick else [int(seed) for seed in args.seeds.split(",")]
    users = 1000 if args.quick else args.users
    worlds = [measure(users, args.items, seed) for seed in seeds]
    figures = {
        name: {
            "precision": round(statistics.mean(world[name].precision for world in worlds), 4),
            "recall": round(statistics.mean(world[name].recall for world in worlds), 4),
            "by_seed": [[round(world[name].precision, 4), round(world[name].recall, 4)] for world in worlds],
        }
        for name in worlds[0]
    }
    print(f"{len(seeds)} world(s) of {users} users and {args.items} items, seeds {', '.join(map(str, seeds))}\n")
    print("| what | precision | recall |\n|---|---|---|")
    for name, figure in figures.items():
        print(f"| {name} | {figure['precision']:.3f} | {figure['recall']:.3f} |")
    print(json.dumps({"users": users, "items": args.items, "seeds": seeds, **figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
