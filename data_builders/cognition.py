"""What the builders of cognition corpora share: the training part with its items in words and the teacher's knowledge."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_builders.common import TrainingPart, load_training_part
from onereason.cognition.facts import ItemFacts, load_item_facts
from onereason.cognition.knowledge import Knowledge, build_knowledge
from onereason.data.prompt_sets import LANGUAGES
from onereason.data.schema import ITEMS_FILE, load_dataset
from onereason.itemic.catalog import Catalog

SPLIT_OPTIONS = ("split_method", "validation_start", "test_start")
"""Arguments of the split that every manifest records."""


@dataclass(frozen=True)
class CognitionInputs:
    """The training part of a dataset, read once.

    Attributes:
        part: users and their training histories.
        facts: the catalog's items in words.
        knowledge: what the template teacher knows, learned from the training part.
        codes: int32 `[N, L]`, the catalog's.
        inputs: files that were read.
    """

    part: TrainingPart
    facts: ItemFacts
    knowledge: Knowledge
    codes: np.ndarray
    inputs: Sequence[Path]


def add_cognition_arguments(parser: argparse.ArgumentParser) -> None:
    """`--theme-attribute` and `--language`."""
    parser.add_argument(
        "--theme-attribute",
        metavar="NAME[:LEVEL]",
        help="item attribute that names what an item is about (default: category, categories, tag, ...); of a list, "
        "LEVEL 0 is its widest value, the narrowest is taken otherwise",
    )
    parser.add_argument(
        "--language", default="en", help=f"wording: {' or '.join(LANGUAGES)}, or a folder of prompt sets of your own"
    )


def load_cognition_inputs(args: argparse.Namespace) -> CognitionInputs:
    """Reads dataset and catalog, keeps the training part, gathers knowledge from it."""
    part = load_training_part(args)
    catalog = Catalog.load(args.catalog)
    facts = load_item_facts(args.data, catalog, args.theme_attribute)
    knowledge = build_knowledge(facts, part.histories)
    return CognitionInputs(part, facts, knowledge, catalog.codes, [*part.inputs, args.data / ITEMS_FILE])


@dataclass(frozen=True)
class TrainingEvents:
    """When and how the items of the training part were chosen, aligned with its histories.

    Attributes:
        timestamps: int64 seconds of each user's events.
        actions: what each user did.
        dated: False where the timestamps are places in a sequence and no moments.
    """

    timestamps: Sequence[np.ndarray]
    actions: Sequence[Sequence[str]]
    dated: bool


FIRST_MOMENT = 10**8
"""Seconds since 1970; smaller timestamps number events and date nothing."""


def load_training_events(args: argparse.Namespace, part: TrainingPart) -> TrainingEvents:
    """The events behind the training histories."""
    table = load_dataset(args.data).interactions
    users = table["user_id"]
    order = {user: number for number, user in enumerate(part.user_ids)}
    rows: list[list[int]] = [[] for _ in part.user_ids]
    for row, user in enumerate(users.to_list()):
        rows[order[user]].append(row)
    times, actions = table["timestamp"].to_numpy(), table["action"].to_list()
    timestamps, told = [], []
    for history, of_user in zip(part.histories, rows, strict=True):
        kept = np.array(of_user, dtype=np.int64)
        kept = kept[np.argsort(times[kept], kind="stable")][: len(history)]
        timestamps.append(times[kept])
        told.append([actions[row] for row in kept.tolist()])
    return TrainingEvents(timestamps, told, bool(len(times)) and int(times.max()) >= FIRST_MOMENT)
