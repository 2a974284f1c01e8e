"""Logic chains and selections."""

# ruff: noqa: RUF001

from __future__ import annotations

import json

import pytest

from onereason.cognition.checks.json_checks import (
    check_chain_text,
    check_logic_chain,
    check_selection,
    check_selection_text,
    is_iso_date,
)

TIMELINE = ["2025-01-03 play <a>", "2025-01-03 play <b>", "2025-01-07 buy <a>", "2025-02-01 play <a>"]
EVENT = {"date": "2025-01-03", "action": "play <a>", "logic": "It begins."}
CHAIN = {"name": "tea", "events": [EVENT, {"date": "2025-01-07", "action": "buy <a>", "logic": "It grows."}]}


def reasons(chain, timeline=TIMELINE) -> list[str]:
    return [problem.reason for problem in check_logic_chain(chain, timeline)]


def with_event(**changes):
    return {"name": "tea", "events": [{**EVENT, **changes}]}


def test_good_chains():
    assert reasons(CHAIN) == reasons({"logic_chain": CHAIN}) == []
    assert reasons([]) == reasons({"logic_chain": []}) == []


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ({"name": "tea"}, ["chain_keys"]),
        ({**CHAIN, "extra": 1}, ["chain_keys"]),
        ([CHAIN], ["chain_keys"]),
        ("tea", ["chain_keys"]),
        (None, ["chain_keys"]),
        ({**CHAIN, "name": " "}, ["chain_value"]),
        ({**CHAIN, "name": 3}, ["chain_value"]),
        ({**CHAIN, "events": []}, ["chain_without_events"]),
        ({**CHAIN, "events": {}}, ["chain_without_events"]),
        ({**CHAIN, "events": ["x"]}, ["chain_keys"]),
        ({"name": "tea", "events": [{"date": "2025-01-03", "action": "play <a>"}]}, ["chain_keys"]),
        (with_event(logic=""), ["chain_value"]),
        (with_event(action=["play <a>"]), ["chain_value"]),
        (with_event(date="3 January 2025"), ["chain_date", "chain_action_not_in_timeline"]),
        (with_event(date="2025-02-30"), ["chain_date", "chain_action_not_in_timeline"]),
        (with_event(date="20250103"), ["chain_date", "chain_action_not_in_timeline"]),
        (with_event(action="play <c>"), ["chain_action_not_in_timeline"]),
        (with_event(date="2025-01-07"), ["chain_action_not_in_timeline"]),
        ({"name": "tea", "events": CHAIN["events"][::-1]}, ["chain_date_order", "chain_order"]),
        ({"name": "tea", "events": [EVENT, EVENT]}, ["chain_action_not_in_timeline"]),  # stands there once
        ({"name": "tea", "events": [{**EVENT, "action": "play <b>"}, EVENT]}, ["chain_order"]),
    ],
)
def test_bad_chains(chain, expected):
    assert reasons(chain) == expected


def test_places_instead_of_dates():
    timeline = [f"#{n:03d} play <{n}>" for n in range(9, 12)]
    event = {"date": "#009", "action": "play <9>", "logic": "x"}
    later = {"date": "#011", "action": "play <11>", "logic": "y"}
    assert reasons({"name": "tea", "events": [event, later]}, timeline) == []
    assert "chain_date_order" in reasons({"name": "tea", "events": [later, event]}, timeline)
    mixed = {"name": "tea", "events": [event, {**later, "date": "2025-01-01"}]}
    assert reasons(mixed, timeline)[0] == "chain_date"


def test_generated_turns():
    text = json.dumps({"logic_chain": CHAIN})
    assert check_chain_text(f"<think>\n[1]\n</think>\n\n```json\n{text}\n```", TIMELINE) == []
    assert [p.reason for p in check_chain_text(text[:40], TIMELINE)] == ["json_malformed"]
    assert [p.reason for p in check_chain_text("none", TIMELINE)] == ["json_malformed"]
    assert check_selection_text(f"```\n{json.dumps(TIMELINE[1:3])}\n```", TIMELINE) == []
    assert [p.reason for p in check_selection_text("[", TIMELINE)] == ["json_malformed"]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ([], []),
        (TIMELINE, []),
        ([TIMELINE[0], TIMELINE[3]], []),
        ([TIMELINE[3], TIMELINE[0]], ["selection_order"]),
        ([TIMELINE[0], TIMELINE[0]], ["selection_action_not_in_timeline"]),
        (["2025-01-03 play"], ["selection_action_not_in_timeline"]),
        ({"a": 1}, ["selection_value"]),
        ([3], ["selection_value"]),
        ([""], ["selection_value"]),
    ],
)
def test_selections(selection, expected):
    assert [problem.reason for problem in check_selection(selection, TIMELINE)] == expected


@pytest.mark.parametrize(
    ("text", "is_date"),
    [
        ("2025-01-03", True),
        ("2024-02-29", True),
        ("2025-02-29", False),
        ("2025-1-3", False),
        ("2025-W01-1", False),
        ("２０２５-01-03", False),
    ],
)
def test_dates(text, is_date):
    assert is_iso_date(text) == is_date
