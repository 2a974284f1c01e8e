"""Recommendation traces in words: three stages, the same evidence in any language and length."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace

import pytest

from onereason.cognition.evidence import Candidate, Evidence, Trait, gather_evidence
from onereason.cognition.trace import DETAILS, TraceAssignment, TraceWriter, load_headings
from onereason.data.prompt_sets import LANGUAGES
from onereason.errors import ConfigError
from tests.cognition_worlds import ODD, make_knowledge, simulated

TEA, TENTS, TRAINS, TOYS = range(4)
ITEMS = [TEA, TEA, TENTS, TRAINS]


@pytest.fixture
def known():
    sides = ["plain", "plain", "fancy", "fancy"]
    return make_knowledge(ITEMS, {}, [("persona", "style"), ("cue", "style")], sides)


def evidence(chosen: int, **changes) -> Evidence:
    candidates = [
        Candidate(TEA, "live", [0, 2], 0.6),
        Candidate(TENTS, "seen", [1], 0.2),
        Candidate(TRAINS, "lead", [], 0.1),
    ]
    start = Evidence([Trait("style", "plain", 3)], "", "", candidates, chosen, TEA, 2, "fancy", "video", 4)
    return replace(start, **changes)


HISTORY = [0, 2, 1, 3]
"""Positions 0 and 2 are tea, 1 tents, 3 trains."""


def write(known, found: Evidence, detail: str = "brief", language: str = "en", turn: int = 0) -> str:
    return TraceWriter(known, language, detail).write(found, HISTORY, turn)


# -- wording --------------------------------------------------------------------------------------------------------


def test_a_brief_trace(known):
    first, second, third, _ = known.facts.patterns
    assert write(known, evidence(1)) == "\n".join(
        [
            "Persona: plain style; lately tea, last fancy.",
            "Interests:",
            f"1. tea, live: {first}, {second}",
            f"2. tents, seen: {third}",
            "3. trains, near",
            "Transition: back from tea to tents.",
        ]
    )


def test_items_are_read_before_they_are_summed_up(known):
    second, third, fourth = known.facts.patterns[1:]
    found = write(known, evidence(1, readings=[1, 2, 3]))
    read = [known.facts.patterns[HISTORY[place]] for place in (1, 2, 3)]
    assert read == [third, second, fourth]
    assert found.splitlines()[0] == (
        f"Persona: {third} tents, fancy; {second} tea, plain; {fourth} trains, fancy; plain style; lately tea, last "
        "fancy."
    )
    assert found.splitlines()[1:] == write(known, evidence(1)).splitlines()[1:]
    empty = write(known, evidence(1, readings=[3], traits=[])).splitlines()[0]
    assert empty == f"Persona: {fourth} trains, fancy; no clear leaning; lately tea, last fancy."
    full = write(known, evidence(1, readings=[3]), "full", turn=1).splitlines()[0]
    assert full.startswith(f"Persona: {fourth}: trains, fancy; 3 of 4 items are of plain style")
    chinese = write(known, evidence(1, readings=[3]), language="zh").splitlines()[0]
    assert chinese.startswith(f"用户画像：{fourth}trains、fancy；")  # noqa: RUF001


def test_a_full_trace_in_two_wordings(known):
    first, second, third, _ = known.facts.patterns
    assert write(known, evidence(2), "full") == "\n".join(
        [
            "Persona: the choices lean to plain style (3 of 4); of late it is tea, with fancy seen last.",
            "Interests:",
            f"1. tea: it leads the recent steps, as in {first}, {second}",
            f"2. tents, seen in {third}",
            "3. trains: not met so far, but close to what is alive",
            "Transition: tea has had its run, and the last step looked at the fancy side. From there users of plain "
            "style usually go on to trains.",
        ]
    )
    other = write(known, evidence(2), "full", turn=1).splitlines()
    assert other[0] == (
        "Persona: 3 of 4 items are of plain style; the recent steps keep to tea, the last one to its fancy side."
    )
    assert other[2] == f"1. tea, which {first}, {second} keep alive"
    assert other[5] == "Transition: After tea, with fancy seen last, users of plain style tend to move to trains."
    assert write(known, evidence(2), "full", turn=2) == write(known, evidence(2), "full")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"chosen": 0}, "tea holds."),
        ({"chosen": 1}, "back from tea to tents."),
        ({"chosen": 2}, "tea, last fancy; plain style users go on to trains."),
        ({"chosen": 2, "cue": ""}, "tea leads on to trains."),
        ({"chosen": 2, "traits": []}, "tea, last fancy; users go on to trains."),
        ({"chosen": 2, "traits": [Trait("brand", "acme", 3)]}, "tea, last fancy; users go on to trains."),
    ],
)
def test_the_hop_is_said_as_it_was_found(known, changes, said):
    assert write(known, evidence(**changes)).splitlines()[-1] == f"Transition: {said}"


def test_an_interest_that_was_seen_and_is_believed_most_is_a_move_and_no_return(known):
    candidates = [Candidate(TENTS, "seen", [1], 0.6), Candidate(TEA, "live", [0], 0.3)]
    found = evidence(0, candidates=candidates, cue="")
    assert write(known, found).splitlines()[-1] == "Transition: tea leads on to tents."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "plain style"),
        ({"conflict": "fancy"}, "plain style; fancy too, as on a shared device, so recent steps decide"),
        ({"habit": "video"}, "plain style; mostly videos"),
        ({"traits": []}, "no clear leaning"),
        ({"traits": [], "habit": "video"}, "mostly videos"),
        ({"traits": [Trait("style", "plain", 3), Trait("price_range", "low", 2)]}, "plain style; low price range"),
        ({"cue": ""}, "plain style"),
    ],
)
def test_the_persona_says_what_stands_out(known, changes, said):
    known = replace(known, facts=replace(known.facts, domains=["video"] * 4))
    recent = "lately tea" if changes.get("cue") == "" else "lately tea, last fancy"
    assert write(known, evidence(0, **changes)).splitlines()[0] == f"Persona: {said}; {recent}."


def test_an_interest_whose_items_may_not_be_cited_stands_bare(known):
    found = evidence(0, candidates=[Candidate(TEA, "live", [], 0.6), Candidate(TENTS, "seen", [], 0.2)])
    assert write(known, found).splitlines()[2:4] == ["1. tea", "2. tents"]


def test_an_interest_is_said_in_the_word_of_the_domain_asked_for(known):
    themes = {**known.interests.themes, (TENTS, "prod"): "stoves"}
    known = replace(
        known,
        interests=replace(known.interests, themes=themes),
        facts=replace(known.facts, domains=["video", "video", "prod", "video"]),
    )
    assert write(known, evidence(1, domain="prod")).splitlines()[-1] == (
        "Transition: back from tea to tents. As product: stoves."
    )


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("detail", DETAILS)
def test_names_that_look_like_placeholders_are_copied(known, language, detail):
    known = replace(known, interests=replace(known.interests, names=[ODD, "{items}", "%d", "toys", "tools"]))
    found = evidence(2, traits=[Trait("style", ODD, 3)], conflict="{value}", cue="{who}")
    for turn in range(2):
        text = write(known, found, detail, language, turn)
        assert text.count(ODD) >= 3 and "{items}" in text and "%d" in text and "{value}" in text


@pytest.mark.parametrize("detail", DETAILS)
def test_chinese_traces_are_chinese_throughout(known, detail):
    themes = {**known.interests.themes, (TEA, "prod"): "cups"}
    known = replace(
        known,
        interests=replace(known.interests, themes=themes),
        facts=replace(known.facts, domains=["prod", *known.facts.domains[1:]]),
    )
    headings = tuple(load_headings("zh"))
    for chosen in range(3):
        for turn in range(2):
            found = evidence(chosen, conflict="fancy", habit="video", domain="prod")
            text = write(known, found, detail, "zh", turn)
            assert [line for line in text.splitlines() if line.startswith(headings)]
            words = re.sub(r"<\|[^>]*\|>|<[^>]*>", "", text)  # without itemic tokens
            assert not re.search(r"[;,:]", words), words
            assert not re.search(r"\.(?!\s)", words) and not words.endswith("."), words  # "1. " numbers a candidate
            assert not re.search(r"style|video|product", words), words
            assert not any(line.startswith(f"{heading} ") for line in text.splitlines() for heading in headings)


def test_what_is_not_known_is_refused(known):
    with pytest.raises(ConfigError, match="trace detail 'long' is not known; use brief or full"):
        TraceWriter(known, "en", "long")
    with pytest.raises(ConfigError, match="use en or zh"):
        TraceWriter(known, "fr")


# -- traces of a simulated world ------------------------------------------------------------------------------------


def gathered(users: int):
    """Histories, targets and evidence of the last training item of some users."""
    known = simulated().knowledge
    for history in simulated().histories[:users]:
        *before, target = history.tolist()
        walk = known.walk()
        for item in before:
            walk.read(item)
        found = gather_evidence(known, walk, target)
        if not isinstance(found, str):
            yield before, target, found


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("detail", DETAILS)
def test_every_trace_has_its_stages_and_cites_its_evidence(language, detail):
    known = simulated().knowledge
    writer = TraceWriter(known, language, detail)
    pattern = re.compile(r"<\|\w+_begin\|>(?:<s_\w_\d+>)+")
    count = 0
    for before, target, found in gathered(120):
        text = writer.write(found, before, count)
        lines = text.splitlines()
        assert [line.startswith(h) for h, line in zip(writer.headings, (lines[0], lines[1], lines[-1]), strict=True)]
        assert lines[1].strip() == writer.headings.interests
        assert len(lines) == 3 + len(found.candidates)
        cited = [known.facts.patterns[before[p]] for c in found.candidates for p in c.cited]
        assert pattern.findall(text) == cited and known.facts.patterns[target] not in text
        for number, (candidate, line) in enumerate(zip(found.candidates, lines[2:], strict=False), 1):
            assert line.startswith(f"{number}. {known.interests.names[candidate.interest]}")
        assert known.interests.names[known.interest_of[target]] in lines[-1]
        count += 1
    assert count > 80


def test_an_assignment_composes_by_seed_and_asks_a_model_for_the_same_stages():
    known = simulated().knowledge
    writer = TraceWriter(known, "en", "full")
    before, target, found = next(gathered(20))
    assignment = TraceAssignment("u1:5", writer, found, before, target, "en", 3)
    assert assignment.compose() == writer.write(found, before, zlib.crc32(b"3:u1:5"))
    system, user = assignment.messages()
    assert (system["role"], user["role"]) == ("system", "user")
    assert all(heading in system["content"] for heading in writer.headings)
    assert f"list {len(found.candidates)} numbered interests" in system["content"]
    for item in before:
        assert f"{known.facts.patterns[item]} {known.facts.captions[item]}" in user["content"]
    assert user["content"].endswith(known.facts.captions[target])
    assert known.facts.patterns[target] not in user["content"] + system["content"]
