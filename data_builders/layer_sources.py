"""What `build_layers` reads of users: which item goes with which, how interests evolve, and what came next."""

from __future__ import annotations

import argparse
import datetime
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from data_builders.common import ItemTexts, TrainingPart
from onereason.data.prompt_sets import load_prompt_set
from onereason.data.schema import INTERACTIONS_FILE, load_dataset
from onereason.data.timelines import build_timelines, split_leave_one_out, split_temporal
from onereason.errors import DataError

TRUTH_DIR = "truth"


# -- relations ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Relations:
    """Which item goes with which.

    Attributes:
        item_ids: by index of the catalog.
        pairs: `(source, relation, target)`.
        by_domain: domain -> its items.
        near: source -> what is related to it, in the terms of `kind_of`.
        kind_of: of each item, what `near` holds: its topic by the truth (None where it has none), or the item itself.
        under: of each item, the items under its pattern, itself among them.
        inputs: files they were read from.
    """

    item_ids: Sequence[str]
    pairs: Sequence[tuple[int, str, int]]
    by_domain: Mapping[str, Sequence[int]]
    near: Mapping[int, set[Any]]
    kind_of: Sequence[Any]
    under: Sequence[Sequence[int]]
    inputs: Sequence[Path]

    def may_go_together(self, source: int, other: int) -> bool:
        """Whether an item under one pattern is related to one under the other, either way round, or may be."""
        return any(self._is_near(a, b) or self._is_near(b, a) for a in self.under[source] for b in self.under[other])

    def _is_near(self, source: int, other: int) -> bool:
        kind = self.kind_of[other]
        return kind is None or kind in self.near.get(source, ())


def load_relations(data: Path, item_ids: Sequence[str], items: ItemTexts, histories: Sequence[np.ndarray]) -> Relations:
    """The truth's relations where the dataset has them, else co-occurrences of training histories.

    By the truth, an item is related to all items of its own topic and of its partners' topics. By co-occurrence, to the
    items it ever stands next to; its partner is the one it stands next to most often.
    """
    by_domain: defaultdict[str, list[int]] = defaultdict(list)
    under: defaultdict[str, list[int]] = defaultdict(list)
    for index, (domain, pattern) in enumerate(zip(items.domains, items.patterns, strict=True)):
        by_domain[domain].append(index)
        under[pattern].append(index)
    alike = [under[pattern] for pattern in items.patterns]
    near: defaultdict[int, set[Any]] = defaultdict(set)
    files = [data / TRUTH_DIR / name for name in ("item_relations.parquet", "items.parquet")]
    if all(path.is_file() for path in files):
        place = {item: index for index, item in enumerate(item_ids)}
        table, truth = (pl.read_parquet(path) for path in files)
        topic_of = dict(zip(truth["item_id"], truth["topic"], strict=True))
        topics = [topic_of.get(item) for item in item_ids]
        rows = list(table.select("source", "relation", "target").iter_rows())
        for source, _, target in rows:
            if source in place:  # a partner outside the catalog tells of its topic too
                near[place[source]] |= {topic_of[source], topic_of[target]}
        pairs = [(place[s], r, place[t]) for s, r, t in rows if s in place and t in place]
        return Relations(item_ids, pairs, by_domain, near, topics, alike, files)
    counts: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for history in histories:
        for first, second in pairwise(history.tolist()):
            if first != second:
                counts[first][second] += 1
                counts[second][first] += 1
    for source, beside in counts.items():
        near[source] = {source, *beside}
    best = {source: min(beside, key=lambda t: (-beside[t], t)) for source, beside in counts.items()}
    pairs = [(source, "next_to", best[source]) for source in sorted(best)]
    return Relations(item_ids, pairs, by_domain, near, range(len(item_ids)), alike, [])


# -- interests ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Episode:
    """How one interest of a user evolves within the shown part of the timeline.

    Attributes:
        user_id: whose.
        topic: the interest.
        timeline: the entries, oldest first: date, action, item.
        places: which of them belong to the interest.
        events: `date`, `action` and `logic` of each of these.
        is_main: no other episode of the user has as many.
    """

    user_id: str
    topic: str
    timeline: Sequence[str]
    places: Sequence[int]
    events: Sequence[Mapping[str, str]]
    is_main: bool


@dataclass(frozen=True)
class Episodes:
    """An episode of each user, and the files they were read from."""

    episodes: Sequence[Episode]
    inputs: Sequence[Path]


def load_episodes(
    data: Path, part: TrainingPart, max_history: int, rejected: Counter[str], language: str = "en"
) -> Episodes | None:
    """Interests by the truth of a simulated world, within the training part; None for other data.

    Questions ask for the longest episode of an interest, so each user's is the longest that is longer than all others
    of its interest. Users without one, or without two events of one interest in what is shown, are counted as
    rejected. `language` is that of the events' logic.
    """
    files = [data / TRUTH_DIR / name for name in ("interactions.parquet", "chains.parquet")]
    if not all(path.is_file() for path in files):
        return None
    truth, chains = (pl.read_parquet(path) for path in files)
    logged = load_dataset(data).interactions
    if not truth.select("user_id", "item_id", "timestamp").equals(logged.select("user_id", "item_id", "timestamp")):
        raise DataError(f"{files[0]} does not tell of {data / INTERACTIONS_FILE}; simulate the world anew.")
    events = truth.with_columns(action=logged["action"]).partition_by("user_id", as_dict=True)
    told = chains.partition_by("user_id", as_dict=True)
    episodes = []
    for user_id, history in zip(part.user_ids, part.histories, strict=True):
        shown = events[(user_id,)].head(len(history)).tail(max_history).to_dicts()
        patterns = [part.items.patterns[item] for item in history[-max_history:]]
        entries = [_entry(event, pattern) for event, pattern in zip(shown, patterns, strict=True)]
        of_user = told[(user_id,)].iter_rows(named=True) if (user_id,) in told else ()
        place = {event["position"]: at for at, event in enumerate(shown)}
        found = [(chain["topic"], [place[p] for p in chain["positions"] if p in place]) for chain in of_user]
        found.sort(key=lambda one: (-len(one[1]), one[1][:1]))
        if not found or len(found[0][1]) < 2:
            rejected["action_selection, topic, direct: no_interest_of_two_events"] += 1
            continue
        lengths = Counter((name, len(places)) for name, places in found)
        longest = {name: len(places) for name, places in reversed(found)}
        single = [one for one in found if len(one[1]) == longest[one[0]] > 1 and lengths[one[0], len(one[1])] == 1]
        if not single:
            rejected["action_selection, topic, direct: several_longest_episodes"] += 1
            continue
        topic, places = single[0]
        episodes.append(
            Episode(
                user_id,
                topic,
                [f"{date} {action}" for date, action in entries],
                places,
                [{"date": entries[p][0], "action": entries[p][1], "logic": _logic(shown[p], language)} for p in places],
                [len(p) for _, p in found if len(p) >= len(places)] == [len(places)],
            )
        )
    return Episodes(episodes, files)


def _entry(event: Mapping[str, Any], pattern: str) -> tuple[str, str]:
    """Date and action of an event, e.g. `2025-01-03` and `play <|video_begin|><s_a_1><s_b_2>`."""
    date = datetime.datetime.fromtimestamp(event["timestamp"], datetime.UTC).date().isoformat()
    return date, f"{event['action']} {pattern}"


def _logic(event: Mapping[str, Any], language: str) -> str:
    """Why an event of a simulated world happened, by its kind."""
    logic = load_prompt_set("evolution", language).text(f"logic.{event['kind']}")
    return logic.format(topic=event["topic"], cause=event["cause_topic"], facet=event["facet"])


# -- what came next -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NextItem:
    """What a user did, and what came next.

    Attributes:
        user_id: whose.
        history: int64 item indices of the training part, oldest first.
        target: item index of the first item of the validation part.
    """

    user_id: str
    history: np.ndarray
    target: int


def load_next_items(args: argparse.Namespace, index: Mapping[str, int], rejected: Counter[str]) -> list[NextItem]:
    """The validation examples of the split, in the order of users; test items are left out.

    Users without a validation item, or without a history before it, are counted as rejected. The split's arguments are
    those that `load_training_part` has checked.

    Args:
        args: `data`, `split_method`, `validation_start`, `test_start`.
        index: item id -> index in the catalog.
    """
    timelines = build_timelines(load_dataset(args.data).interactions, index)
    if args.split_method == "temporal":
        examples = split_temporal(timelines, args.validation_start, args.test_start).validation
    else:
        examples = split_leave_one_out(timelines).validation
    if len(examples) < len(timelines):
        rejected["next_item: no_validation_item_behind_a_history"] += len(timelines) - len(examples)
    return [
        NextItem(timelines.user_ids[user], history, int(targets[0]))
        for user, history, targets in zip(examples.users, examples.histories, examples.targets, strict=True)
    ]
