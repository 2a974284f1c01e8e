"""The teacher's traces that are fed know of the answer its domain alone, and say what a careful reader would."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from benchmarks.fed_traces import collect_cases
from onereason.cognition.trace import TraceWriter
from tests.cognition_worlds import simulated


def test_traces_are_the_same_whatever_the_answer_of_a_domain_is() -> None:
    world = simulated()
    facts, knowledge = world.facts, world.knowledge
    source = SimpleNamespace(
        inputs=SimpleNamespace(knowledge=knowledge, facts=facts),
        writer=TraceWriter(knowledge, "en", "brief"),
        num_candidates=3,
        max_cited=1,
        num_readings=5,
    )
    examples = world.split.validation
    asked = collect_cases(source, world.catalog, examples, 80, 20)
    assert len(asked) == 80 and all(case["trace"].startswith("Persona: <|") for case in asked)
    rng, other = np.random.default_rng(1), []
    for target in (int(targets[0]) for targets in examples.targets):
        mates = [i for i, d in enumerate(world.catalog.domains) if d == world.catalog.domains[target]]
        other.append(np.array([rng.choice(mates)]))
    swapped = SimpleNamespace(histories=examples.histories, targets=other)
    swapped = type("Swapped", (), {"__len__": lambda self: len(examples), **vars(swapped)})()
    again = collect_cases(source, world.catalog, swapped, 80, 20)
    assert [case["trace"] for case in again] == [case["trace"] for case in asked]
    assert [case["target"] for case in again] != [case["target"] for case in asked]
    # The conclusion is the answer's interest far more often than by chance (24 topics).
    assert np.mean([case["right"] for case in asked]) > 0.5
    for case in asked:
        shown = {facts.patterns[item] for item in case["history"][-20:].tolist()}
        cited = {
            world.catalog.format.render(i.codes, i.domain) for i in world.catalog.format.parse(case["trace"]).items
        }
        assert cited <= shown
