"""Rationales from pruned contexts: grouped by interest, led to the target's, in words."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onereason.cognition.rationale import Rationale, RationaleAssignment, RationaleWriter, find_rationale
from onereason.data.prompt_sets import LANGUAGES
from tests.cognition_worlds import ODD, make_knowledge

TEA, TENTS, TRAINS = 0, 1, 2
ITEMS = [TEA, TEA, TENTS, TENTS, TRAINS, -1]
LEADS = {(TEA,): [(TRAINS, 0.3), (TENTS, 0.2)], (TENTS,): [(TRAINS, 0.6)]}


@pytest.fixture
def known():
    return make_knowledge(ITEMS, LEADS)


def test_an_interest_of_the_context_goes_on(known):
    found = find_rationale(known, [2, 0, 5, 1], 3)
    assert found == Rationale([(TENTS, [2]), (TEA, [0, 1])], TENTS, TENTS, "video")


def test_the_interest_that_leads_there_most_often_is_the_source(known):
    assert find_rationale(known, [0, 2], 4) == Rationale([(TEA, [0]), (TENTS, [2])], TENTS, TRAINS, "video")
    assert find_rationale(known, [0], 4).source == TEA


def test_why_there_is_no_rationale(known):
    assert find_rationale(known, [0], 5) == "target_without_theme"
    assert find_rationale(known, [], 0) == find_rationale(known, [5, 5], 0) == "nothing_relevant"
    assert find_rationale(known, [4], 0) == "no_bridge"  # trains lead nowhere
    assert find_rationale(known, [0], 3, followers=1) == "no_bridge"  # tents come second after tea


def test_of_items_under_one_pattern_the_newest_is_cited(known):
    twins = replace(known, facts=replace(known.facts, patterns=["same", "same", *known.facts.patterns[2:]]))
    assert find_rationale(twins, [0, 2, 1], 3).groups == [(TENTS, [2]), (TEA, [1])]
    assert find_rationale(known, [0, 2, 0], 3).groups == [(TENTS, [2]), (TEA, [0])]


@given(st.lists(st.integers(0, 5), max_size=8), st.integers(0, 5))
def test_groups_hold_what_is_known_of_the_context(pruned, target):
    known = make_knowledge(ITEMS, LEADS)
    found = find_rationale(known, pruned, target)
    if isinstance(found, str):
        return
    cited = [item for _, items in found.groups for item in items]
    assert sorted(cited) == sorted({item for item in pruned if ITEMS[item] >= 0})
    assert all(ITEMS[item] == z for z, items in found.groups for item in items)
    assert found.interest == ITEMS[target]
    led = {z for z, _ in LEADS.get((found.source,), ())} | {found.source}
    assert found.source in [z for z, _ in found.groups] and found.interest in led


# -- wording --------------------------------------------------------------------------------------------------------


def test_a_rationale_in_two_wordings(known):
    one, two, three, *_ = known.facts.patterns
    writer = RationaleWriter(known)
    goes_on = Rationale([(TENTS, [2]), (TEA, [0, 1])], TEA, TEA, "video")
    assert writer.write(goes_on, 0) == (
        f"Of the history, these matter: {three} goes with tents; tea shows in {one}, {two}. "
        "Of these, tea is what goes on."
    )
    assert writer.write(goes_on, 1) == (
        f"What counts here: tents shows in {three}; {one}, {two} go with tea. So tea most likely holds."
    )
    leads = Rationale([(TEA, [0])], TEA, TRAINS, "video")
    assert writer.write(leads, 0).endswith(" From tea, users tend to go on to trains.")
    assert writer.write(leads, 1).endswith(" tea often leads on to trains.")
    assert writer.write(leads, 2) == writer.write(leads, 0)


def test_the_interest_is_said_in_the_word_of_the_domain(known):
    themes = {**known.interests.themes, (TRAINS, "prod"): "rails"}
    known = replace(
        known,
        interests=replace(known.interests, themes=themes),
        facts=replace(known.facts, domains=[*known.facts.domains[:-1], "prod"]),
    )
    found = Rationale([(TEA, [0])], TEA, TRAINS, "prod")
    assert RationaleWriter(known).write(found, 0).endswith("go on to trains. Among products that is rails.")
    assert RationaleWriter(known, "zh").write(found, 0).endswith("会转向trains。在商品里就是rails。")


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_that_look_like_placeholders_are_copied(known, language):
    known = replace(known, interests=replace(known.interests, names=[ODD, "{items}", "trains", "", ""]))
    for turn in range(2):
        text = RationaleWriter(known, language).write(Rationale([(TEA, [0]), (TENTS, [2])], TEA, TRAINS, "video"), turn)
        assert text.count(ODD) == 2 and "{items}" in text


def test_chinese_rationales_are_chinese_throughout(known):
    for source in (TEA, TRAINS):
        for turn in range(2):
            found = Rationale([(TENTS, [2, 3]), (TEA, [0])], source, TRAINS, "video")
            text = RationaleWriter(known, "zh").write(found, turn)
            assert not re.search(r"[.;,:]|\s", re.sub(r"<[^>]*>", "", text)), text


def test_an_assignment_composes_by_seed_and_shows_a_model_the_pruned_context(known):
    writer = RationaleWriter(known)
    found = Rationale([(TEA, [0])], TEA, TRAINS, "video")
    assignment = RationaleAssignment("u1:5", writer, found, [0, 5], 4, 3)
    assert assignment.compose() == writer.write(found, zlib.crc32(b"3:u1:5"))
    system, user = assignment.messages()
    assert "Never write the chosen item's tokens" in system["content"]
    first, *_, last = known.facts.patterns
    assert user["content"] == (
        f"Items that matter:\n{first} thing 0.\n{last} thing 5.\n\nChosen next (video, never to be named): thing 4."
    )
    bare = replace(known, facts=replace(known.facts, captions=[""] * 6))
    _, user = RationaleAssignment("u1:5", RationaleWriter(bare), found, [0], 4, 3).messages()
    assert user["content"] == (
        f"Items that matter:\n{first} thing 0\n\nChosen next (video, never to be named): thing 4"
    )
