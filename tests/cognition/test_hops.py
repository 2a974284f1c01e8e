"""A pair's hop in words: six fields and a trace that speak of the target's kind and of nothing only it has."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from onereason.cognition.bridges import BRIDGE_FIELDS, BRIDGE_TYPES, ORIGINS, Pairs
from onereason.cognition.hops import HopAssignment, HopWriter, check_fields, compute_confidence, parse_fields
from onereason.data.prompt_sets import LANGUAGES
from tests.cognition_worlds import ODD, make_facts, make_knowledge

TEA, TENTS = 0, 1
FIELDS = {
    "source_need": "tea",
    "bridge_type": "complement",
    "abstract_bridge": "tea to tents",
    "continuation_direction": "products about stoves",
    "reason_seed": "seen",
    "confidence": 0.5,
}


@pytest.fixture
def known():
    of = [
        ("video", {"category": "tea", "style": "plain", "mood": "calm"}),
        ("prod", {"category": "cups"}),
        ("prod", {"category": "stoves", "style": "plain"}),
        ("video", {"category": "tea", "style": "plain"}),
    ]
    known = make_knowledge([TEA, TEA, TENTS, TEA], domains=["video", "prod", "prod", "video"])
    traits = {"mood": ["calm", "", "", ""], "style": ["plain", "", "plain", "plain"]}
    return replace(known, facts=make_facts(of), traits=traits)


def pair(source: int, target: int, kind: str, origin: str = "next", lift: float = 2.54, support: int = 30) -> Pairs:
    numbers = (source, target, ORIGINS.index(origin), 3, lift, support, BRIDGE_TYPES.index(kind))
    return Pairs(*(np.array([number]) for number in numbers))


# -- fields ---------------------------------------------------------------------------------------------------------


def test_the_fields_of_a_hop_between_interests(known):
    assert HopWriter(known).fields(pair(0, 2, "complement"), 0) == {
        "source_need": "tea, with calm, plain",
        "bridge_type": "complement",
        "abstract_bridge": "tea to tents: something that goes along with it",
        "continuation_direction": "products about stoves",
        # lifts between interests are of interests, so their names are said
        "reason_seed": "users who choose tea take tents as their very next step 2.5 times as often as usual",
        "confidence": 0.45,  # 30 / (30 + 10) x (1 - 1 / 2.54) = 0.75 x 0.606
    }


def test_the_fields_of_a_hop_within_an_interest(known):
    fields = HopWriter(known).fields(pair(1, 0, "cross_domain", "window"), 0)
    assert fields["source_need"] == "cups"  # nothing is known of it but its theme
    assert fields["abstract_bridge"] == "tea: the same interest in another form"
    assert fields["continuation_direction"] == "videos about tea"
    # within one interest themes are counted and said
    assert (
        fields["reason_seed"] == "tea stands near cups in users' timelines 2.5 times as often as chance would have it"
    )


def test_searches_are_called_so(known):
    assert HopWriter(known).reason(pair(0, 2, "complement", "search"), 0) == (
        "after tea, users search for tents 2.5 times as often as usual"
    )


@pytest.mark.parametrize(
    ("lift", "support", "confidence"),
    [
        (2.0, 10, 0.25),  # half of the sightings; 10 of 20
        (4.0, 90, 0.68),  # 0.75 x 0.9 = 0.675
        (1.0, 1000, 0.0),
        (0.5, 1000, 0.0),
        (0.0, 0, 0.0),
        (1e9, 10**9, 1.0),
    ],
)
def test_confidence_is_what_chance_does_not_explain(lift, support, confidence):
    assert compute_confidence(lift, support) == confidence


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("kind", BRIDGE_TYPES)
def test_names_that_look_like_placeholders_are_copied(known, language, origin, kind):
    names = [ODD, "{theme}", *known.interests.names[2:]]
    known = replace(known, interests=replace(known.interests, names=names))
    writer = HopWriter(known, language)
    pairs = pair(0, 2, kind, origin)
    fields = writer.fields(pairs, 0)
    assert ODD in fields["abstract_bridge"] and "{theme}" in fields["abstract_bridge"]
    assert check_fields(fields) is None and list(fields) == list(BRIDGE_FIELDS)
    for turn in range(2):
        assert ODD in writer.trace(pairs, 0, turn) and writer.reason(pairs, 0) in writer.trace(pairs, 0, turn)


# -- what the student sees ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_student_sees_the_source_alone(known, language):
    writer = HopWriter(known, language)
    for turn in range(2):
        messages = writer.messages(0, 2, turn)
        text = "".join(message["content"] for message in messages)
        assert [message["role"] for message in messages] == ["system", "user"]
        assert known.facts.patterns[0] in text and known.facts.patterns[2] not in text
        assert "stoves" not in text and "thing 2" not in text and "tents" not in text
        assert writer.nouns(2)[1] in messages[1]["content"]  # the domain it is asked for
    assert writer.messages(0, 2, 0) == writer.messages(0, 2, 2) != writer.messages(0, 2, 1)


def test_a_teacher_sees_both_items_and_may_name_no_target(known):
    bare = replace(known, facts=replace(known.facts, captions=["", "", "thing 2.", ""]))
    assignment = HopAssignment("id", HopWriter(bare), pair(0, 2, "complement"), 0)
    system, user = assignment.messages()
    assert "never name or describe the second item itself" in system["content"]
    assert user["content"] == (
        "First video: thing 0\nSecond product, never to be named: thing 2.\n"  # without a caption, its title
        "Observed: users who choose tea take tents as their very next step 2.5 times as often as usual"
    )
    assert parse_fields(assignment.compose()) == HopWriter(bare).fields(pair(0, 2, "complement"), 0)


# -- what a teacher answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(FIELDS),
        f"```json\n{json.dumps(FIELDS)}\n```",
        f"<think>\nhm {{}}\n</think>\n\n{json.dumps(FIELDS | {'relation': 'explicitly_related'})}",
        json.dumps(FIELDS | {"relation": "Explicitly related", "more": 1}),
    ],
)
def test_answers_are_read(text):
    assert parse_fields(text) == FIELDS


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "teacher_broken_json"),
        ("It is a complement.", "teacher_broken_json"),
        (json.dumps(FIELDS)[:-1], "teacher_broken_json"),
        ("[]", "teacher_broken_json"),
        ("<think>\n" + json.dumps(FIELDS), "teacher_broken_json"),
        (json.dumps({"relation": "unrelated"}), "teacher_unrelated"),
        (json.dumps(FIELDS | {"relation": " Uncertain "}), "teacher_uncertain"),
        (json.dumps(FIELDS | {"relation": "related"}), "bridge_field_wrong"),
        (json.dumps(FIELDS | {"relation": None}), "bridge_field_wrong"),
        (json.dumps({k: v for k, v in FIELDS.items() if k != "reason_seed"}), "bridge_field_missing"),
        (json.dumps(FIELDS | {"bridge_type": "friendship"}), "bridge_field_wrong"),
        (json.dumps(FIELDS | {"bridge_type": ["complement"]}), "bridge_field_wrong"),
        (json.dumps(FIELDS | {"source_need": " "}), "bridge_field_wrong"),
        (json.dumps(FIELDS | {"source_need": 3}), "bridge_field_wrong"),
        (json.dumps(FIELDS | {"confidence": 1.5}), "bridge_field_wrong"),
        (json.dumps(FIELDS | {"confidence": "0.5"}), "bridge_field_wrong"),
        (json.dumps(FIELDS | {"confidence": True}), "bridge_field_wrong"),
        (json.dumps(FIELDS | {"confidence": float("nan")}), "bridge_field_wrong"),
    ],
)
def test_what_cannot_be_used_has_a_reason(text, reason):
    assert parse_fields(text) == reason
