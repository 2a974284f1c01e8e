"""Episodes in words: timelines, logic chains as JSON that the benchmark's parser reads, traces."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from onereason.cognition.chains import Episode
from onereason.cognition.logic import NO_CHAIN, ChainAssignment, ChainWriter, Entry, build_timeline, render_date
from onereason.data.json_answers import Event, parse_logic_chain
from onereason.data.prompt_sets import LANGUAGES
from tests.cognition_worlds import DAY, ODD, START, make_knowledge

TEA, TENTS = 0, 1
EPISODE = Episode(
    TEA, [0, 2, 3, 4], ["trigger", "narrow", "narrow", "move"], [TEA, TEA, TEA, TENTS], ["", "plain", "plain", ""]
)


@pytest.fixture
def known():
    return make_knowledge([TEA, TEA, TENTS])


@pytest.fixture
def timeline(known):
    times = [START + day * DAY for day in (0, 1, 1, 3, 40)]
    return build_timeline(
        known.facts.patterns, [0, 2, 1, 0, 2], times, ["click", "like", "buy", "click", "click"], True
    )


def test_dates_are_days_of_greenwich():
    assert render_date(0) == "1970-01-01"
    assert render_date(START + DAY - 1) == "2025-01-01" and render_date(START + DAY) == "2025-01-02"


def test_a_timeline_is_dated_or_numbered(known, timeline):
    first, second, third = known.facts.patterns
    assert [entry.text for entry in timeline] == [
        f"2025-01-01 click {first}",
        f"2025-01-02 like {third}",
        f"2025-01-02 buy {second}",
        f"2025-01-04 click {first}",
        f"2025-02-10 click {third}",
    ]
    bare = build_timeline(known.facts.patterns, [0, 1], [1, 2], ["click", "like"], False)
    assert bare == [Entry("#001", f"click {first}"), Entry("#002", f"like {second}")]


def test_lists_of_unequal_length_are_our_own_mistake(known):
    with pytest.raises(ValueError):
        build_timeline(known.facts.patterns, [0, 1], [1], ["click", "like"], True)


def test_a_chain_copies_its_entries_and_says_why_each_follows(known, timeline):
    first, second, third = known.facts.patterns
    assert ChainWriter(known).chain(EPISODE, timeline) == {
        "name": "tea",
        "events": [
            {"date": "2025-01-01", "action": f"click {first}", "logic": "An interest in tea begins."},
            {"date": "2025-01-02", "action": f"buy {second}", "logic": "The interest in tea narrows to its plain."},
            {"date": "2025-01-04", "action": f"click {first}", "logic": "The interest in tea narrows to its plain."},
            {"date": "2025-02-10", "action": f"click {third}", "logic": "The interest in tea leads on to tents."},
        ],
    }


def test_a_trace_says_the_run_of_steps_once(known, timeline):
    writer = ChainWriter(known)
    assert writer.trace(EPISODE, timeline, 0) == (
        "4 of 5 entries make up the longest episode of tea, from 2025-01-01 to 2025-02-10: it begins, then narrows, "
        "then leads on to tents."
    )
    assert writer.trace(EPISODE, timeline, 1) == (
        "The longest episode of tea runs from 2025-01-01 to 2025-02-10 in 4 of 5 entries; it begins, then narrows, "
        "then leads on to tents."
    )
    assert writer.trace(EPISODE, timeline, 2) == writer.trace(EPISODE, timeline, 0)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_benchmark_reads_what_the_template_writes(known, timeline, language):
    writer = ChainWriter(known, language)
    assignment = ChainAssignment("id", writer, EPISODE, timeline)
    events = parse_logic_chain(assignment.compose())
    assert events == [
        Event(timeline[place].date, timeline[place].action, logic)
        for place, logic in zip(EPISODE.places, writer.logic(EPISODE), strict=True)
    ]
    assert json.loads(assignment.compose()).keys() == {"logic_chain"}
    assert parse_logic_chain(NO_CHAIN) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_questions_show_the_timeline_and_name_the_topic_where_they_ask_for_one(known, timeline, language):
    writer = ChainWriter(known, language)
    for task in ("action_selection", "topic", "direct"):
        for turn in range(2):
            system, user = writer.question(task, timeline, "tea", turn)
            assert (system["role"], user["role"]) == ("system", "user")
            assert all(entry.text in user["content"].splitlines() for entry in timeline)
            assert ("tea" in user["content"]) == (task != "direct")
            assert ('{"logic_chain": []}' in system["content"]) == (task != "action_selection")
            assert "{{" not in system["content"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_prompts_describe_the_labels_of_the_entries(known, timeline, language):
    for dated in (True, False):
        writer = ChainWriter(known, language, dated)
        asked = ChainAssignment("id", writer, EPISODE, timeline).messages()[0]["content"]
        for system in (
            *(writer.question(task, timeline, "tea", 0)[0]["content"] for task in ("topic", "direct")),
            asked,
        ):
            assert ("YYYY-MM-DD" in system) == dated and ("#001" in system) != dated
            assert "{date}" not in system


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_that_look_like_placeholders_are_copied(known, timeline, language):
    known = replace(known, interests=replace(known.interests, names=[ODD, "{topic}", *known.interests.names[2:]]))
    writer = ChainWriter(known, language)
    episode = replace(EPISODE, sides=["", ODD, "{side}", ""])
    logic = writer.logic(episode)
    assert all(ODD in said for said in logic) and "{side}" in logic[2] and "{topic}" in logic[3]
    for turn in range(2):
        assert ODD in writer.trace(episode, timeline, turn) and "{topic}" in writer.trace(episode, timeline, turn)
        assert ODD in writer.question("topic", timeline, ODD, turn)[1]["content"]


def test_a_teacher_is_shown_the_entries_it_may_use(known, timeline):
    system, user = ChainAssignment("id", ChainWriter(known), EPISODE, timeline).messages()
    shown, _, chosen = user["content"].partition("\n\nInterest: tea\nEntries that belong to it:\n")
    assert shown == "Timeline:\n" + "\n".join(entry.text for entry in timeline)
    assert chosen.splitlines() == [timeline[place].text for place in EPISODE.places]
    assert '{"logic_chain": {"name"' in system["content"] and "{{" not in system["content"]
