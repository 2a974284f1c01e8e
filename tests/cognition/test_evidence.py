"""Evidence of a trace: what stands before the target, weighed without it; the target only chooses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.cognition.evidence import Trait, gather_evidence
from onereason.cognition.knowledge import KnowledgeConfig
from onereason.cognition.walk import Walk
from tests.cognition_worlds import make_knowledge, simulated


def read(knowledge, items: list[int]) -> Walk:
    walk = knowledge.walk()
    for item in items:
        walk.read(item)
    return walk


TEA, TENTS, TRAINS = 0, 1, 2
LEADS = {(TEA,): [(TENTS, 0.75), (TRAINS, 0.25)]}
ITEMS = [TEA, TEA, TEA, TEA, TENTS, TENTS, TRAINS, -1]
"""Items 0-3 tea, 4-5 tents, 6 trains, 7 without a theme."""


@pytest.fixture
def known():
    return make_knowledge(ITEMS, LEADS)


def test_candidates_say_what_they_are_and_show_the_newest_items(known):
    found = gather_evidence(known, read(known, [4, 0, 1, 7, 2, 0]), 5)
    # tea 4 of the recent, tents 1: tea holds with 0.5; 0.1 goes to five known items, 0.4 leads to tents 0.3, trains 0.1
    assert [(c.interest, c.kind, list(c.cited)) for c in found.candidates] == [
        (TEA, "live", [2, 4, 5]),
        (TENTS, "seen", [0]),
        (TRAINS, "lead", []),
    ]
    assert [c.belief for c in found.candidates] == pytest.approx([0.5, 0.3 + 0.02, 0.1])
    assert (found.chosen, found.live, found.live_count, found.num_items) == (1, TEA, 4, 6)
    assert (found.domain, found.cue, found.conflict, found.habit, found.traits) == ("video", "", "", "", [])


def test_why_there_is_no_evidence(known):
    assert gather_evidence(known, read(known, [0]), 7) == "target_without_theme"
    assert gather_evidence(known, read(known, [7, 7]), 0) == "no_known_interest"
    assert gather_evidence(known, read(known, [6]), 0) == "no_bridge"  # trains lead nowhere
    assert gather_evidence(known, read(known, [0]), 6, num_candidates=2) == "no_bridge"  # the third in belief
    assert gather_evidence(known, read(known, [0]), 6, num_candidates=3).chosen == 2


def test_items_under_the_target_s_pattern_are_not_cited(known):
    twin = replace(known.facts, patterns=["same", *known.facts.patterns[1:5], "same", *known.facts.patterns[6:]])
    known = replace(known, facts=twin)
    found = gather_evidence(known, read(known, [0, 1, 0]), 5)
    assert found.candidates[0].cited == [1]
    bare = gather_evidence(known, read(known, [0, 0]), 0)
    assert bare.candidates[bare.chosen].kind == "live" and bare.candidates[bare.chosen].cited == []


def test_the_newest_items_are_read_but_for_those_under_the_target_s_pattern(known):
    walk = read(known, [4, 0, 1, 7, 2, 0])
    assert list(gather_evidence(known, walk, 5).readings) == []
    assert list(gather_evidence(known, walk, 5, num_readings=3).readings) == [3, 4, 5]
    assert list(gather_evidence(known, walk, 5, num_readings=99).readings) == [0, 1, 2, 3, 4, 5]
    assert list(gather_evidence(known, walk, 0, num_readings=3).readings) == [3, 4]  # 5 is the target itself


def test_an_item_chosen_several_times_is_cited_once(known):
    found = gather_evidence(known, read(known, [0, 1, 1, 1, 1]), 4)
    assert found.candidates[0].cited == [0, 4]


def test_the_domain_that_most_items_belong_to_is_a_habit():
    known = make_knowledge([TEA] * 4, domains=["video", "prod", "video", "ad"])
    assert gather_evidence(known, read(known, [0, 1, 2]), 3).habit == "video"
    assert gather_evidence(known, read(known, [0, 1]), 3).habit == ""  # half is not most
    assert gather_evidence(known, read(known, [0, 2]), 3).habit == ""  # nothing else was to be had


def test_a_second_value_of_the_deciding_trait_is_a_conflict():
    sides = ["plain", "fancy", "bold", "plain", "plain", "plain"]
    contexts = [("persona", "style")]
    known = make_knowledge([TEA] * 6, {}, contexts, sides, config=KnowledgeConfig(min_trait=2))
    # in general plain 4/6, fancy 1/6, bold 1/6
    one = gather_evidence(known, read(known, [1, 1, 1, 2, 2]), 0)
    assert one.traits == [Trait("style", "fancy", 3)]  # 3 - 5/6 against 2 - 5/6
    assert one.conflict == "bold"  # 2 of at least 0.6 x 3 = 1.8
    assert gather_evidence(known, read(known, [1, 1, 1, 1, 2, 2]), 0).conflict == ""  # 2 of at least 2.4
    assert gather_evidence(known, read(known, [1, 1, 1, 2]), 0).conflict == ""  # 1 is below min_trait
    # plain twice of five is less than is usual of it, so it is no second taste
    assert gather_evidence(known, read(known, [1, 1, 1, 0, 0]), 0).conflict == ""


def test_traits_that_decide_nothing_are_said_without_a_conflict():
    known = make_knowledge([TEA] * 4, sides=["plain", "fancy", "bold", ""], config=KnowledgeConfig(min_trait=1))
    found = gather_evidence(known, read(known, [0, 1]), 2)
    assert found.traits == [Trait("style", "fancy", 1)] and found.conflict == ""
    assert gather_evidence(known, read(known, [3]), 2).traits == []


def test_the_deciding_trait_stands_first_and_two_are_said():
    known = make_knowledge([TEA] * 4, {}, [("persona", "style")], ["plain", "plain", "fancy", "fancy"])
    known = replace(
        known,
        traits={"brand": ["a", "a", "b", "b"], "mood": ["x", "x", "y", "y"], **known.traits},
        base={"brand": {"a": 0.5, "b": 0.5}, "mood": {"x": 0.5, "y": 0.5}, **known.base},
    )
    found = gather_evidence(known, read(known, [0, 1, 0]), 2)
    assert found.traits == [Trait("style", "plain", 3), Trait("brand", "a", 3)]


def test_the_cue_is_the_last_item_s():
    known = make_knowledge([TEA] * 3, {}, [("cue", "style")], ["plain", "fancy", ""])
    assert gather_evidence(known, read(known, [0, 1]), 0).cue == "fancy"
    assert gather_evidence(known, read(known, [0, 2]), 0).cue == ""


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 399), st.integers(1, 40), st.integers(1, 5), st.integers(1, 4))
def test_the_target_adds_nothing_to_the_evidence(user, place, number, cited):
    known, history = simulated().knowledge, simulated().histories[user].tolist()
    place = min(place, len(history) - 1)
    target, patterns = history[place], known.facts.patterns
    walk = read(known, history[:place])
    found = gather_evidence(known, walk, target, number, cited)
    believed = known.candidates(walk, number)
    if isinstance(found, str):
        assert found == "no_bridge" and known.interest_of[target] not in [z for z, _ in believed]
        return
    assert [(c.interest, c.belief) for c in found.candidates] == believed
    assert found.candidates[found.chosen].interest == known.interest_of[target]
    for candidate in found.candidates:
        assert len(candidate.cited) <= cited and list(candidate.cited) == sorted(set(candidate.cited))
        for position in candidate.cited:
            assert position < place
            assert known.interest_of[history[position]] == candidate.interest
            assert patterns[history[position]] != patterns[target]
        seen = candidate.interest in [known.interest_of[i] for i in history[:place]]
        assert (candidate.kind == "lead") != seen
        assert (candidate.kind == "live") == (candidate.interest == found.live)
    # another target of the same interest sees the same, save for what is hidden of it
    other = next(i for i, z in enumerate(known.interest_of) if z == known.interest_of[target] and i not in history)
    again = gather_evidence(known, walk, other, number, cited)
    assert (again.traits, again.conflict, again.habit, again.chosen, again.cue) == (
        found.traits,
        found.conflict,
        found.habit,
        found.chosen,
        found.cue,
    )
