"""What builders of cognition corpora share: the training part, its items in words, what the template teacher knows."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from data_builders.common import TrainingPart, load_training_part
from data_builders.training_log import FIRST_DATE
from onereason.cognition.associations import flatten_histories
from onereason.cognition.facts import ItemFacts, load_item_facts
from onereason.cognition.knowledge import Knowledge, build_knowledge
from onereason.data.prompt_sets import LANGUAGES
from onereason.data.schema import INTERACTIONS_FILE, ITEMS_FILE, load_dataset
from onereason.data.timelines import sort_by_user
from onereason.errors import DataError
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


END_OF_DATES = 253_402_300_800
"""The year 10000 in seconds; larger timestamps count something else, such as milliseconds."""


def load_training_events(args: argparse.Namespace, part: TrainingPart) -> TrainingEvents:
    """The events behind the training histories, which every split cuts off the front of the timelines.

    Raises:
        DataError: the events are not those of the histories, as when the dataset was replaced in between.
    """
    path = args.data / INTERACTIONS_FILE
    table = sort_by_user(load_dataset(args.data).interactions)
    items, offsets = flatten_histories(part.histories)
    kept, known = np.diff(offsets), np.bincount(table["_user"].to_numpy(), minlength=len(part.histories))
    if len(known) != len(kept) or (known < kept).any():
        raise DataError(f"{path} does not hold the events of the training histories; was it replaced? Run again.")
    first = np.cumsum(known) - known
    table = table[np.arange(len(items)) + np.repeat(first - offsets[:-1], kept)]
    index = Catalog.load(args.catalog).index
    found = np.array([index.get(item, -1) for item in table["item_id"].to_list()], dtype=np.int64)
    if (found != items).any():
        place = int((found != items).argmax())
        user = part.user_ids[int(np.searchsorted(offsets, place, side="right")) - 1]
        raise DataError(
            f"{path}: event {table['item_id'][place]!r} of user {user!r} is not the one of the training history; was "
            "the dataset replaced? Run again."
        )
    times, actions = table["timestamp"].to_numpy().astype(np.int64), table["action"].to_list()
    dated = len(times) > 0 and float(np.median(times)) >= FIRST_DATE and int(times.max()) < END_OF_DATES
    cuts = offsets.tolist()
    return TrainingEvents(
        [times[low:high] for low, high in pairwise(cuts)], [actions[low:high] for low, high in pairwise(cuts)], dated
    )
