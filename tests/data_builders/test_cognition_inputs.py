"""What builders of cognition corpora read: facts and knowledge, out of the training part alone."""

from __future__ import annotations

import argparse

import pytest

from data_builders.cognition import load_cognition_inputs
from tests.cognition_worlds import DAY, START, make_facts, write_world

ITEMS = make_facts([("video", {"category": "tea" if n % 2 else "tents"}) for n in range(12)])


@pytest.fixture
def arguments(tmp_path):
    # tents (0, 0) lead to tea (1) in training; tea (3) and tea (5) come after it
    write_world(tmp_path, ITEMS, {f"u{user}": [0, 0, 1, 3, 5] for user in range(8)})
    return argparse.Namespace(
        data=tmp_path / "data",
        catalog=tmp_path / "catalog",
        split_method="leave-one-out",
        validation_start=None,
        test_start=None,
        theme_attribute=None,
    )


def test_knowledge_comes_from_the_training_part(arguments):
    inputs = load_cognition_inputs(arguments)
    known = inputs.knowledge
    assert known.interests.names == ["tents", "tea"]
    assert known.transitions.ranked == {(0,): [(1, 1.0)]}
    assert known.transitions.base == pytest.approx([2 / 3, 1 / 3])  # with the last two events it would be 2 and 3 of 5
    assert inputs.codes.tolist() == [[n // 8, n % 8] for n in range(12)]
    assert inputs.facts.themes == ["tents", "tea"] * 6
    assert {path.name for path in inputs.inputs} >= {"items.parquet", "interactions.parquet", "catalog.json"}


def test_a_temporal_split_gives_other_knowledge(arguments):
    arguments.split_method = "temporal"
    arguments.validation_start, arguments.test_start = START + 2 * DAY, START + 3 * DAY
    known = load_cognition_inputs(arguments).knowledge
    assert known.transitions.ranked == {} and known.transitions.base == pytest.approx([1, 0])
