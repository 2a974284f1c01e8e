"""What builders of cognition corpora share: the training part, its items in words, what the template teacher knows."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_builders.common import TrainingPart, add_language_argument, add_theme_argument, load_training_part
from onereason.cognition.facts import ItemFacts, load_item_facts
from onereason.cognition.knowledge import Knowledge, build_knowledge
from onereason.data.schema import ITEMS_FILE
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
    add_theme_argument(parser)
    add_language_argument(parser)


def load_cognition_inputs(args: argparse.Namespace) -> CognitionInputs:
    """Reads dataset and catalog, keeps the training part, gathers knowledge from it."""
    part = load_training_part(args)
    catalog = Catalog.load(args.catalog)
    facts = load_item_facts(args.data, catalog, args.theme_attribute)
    knowledge = build_knowledge(facts, part.histories)
    return CognitionInputs(part, facts, knowledge, catalog.codes, [*part.inputs, args.data / ITEMS_FILE])
