"""JSON in answers; what evaluation reads is tested there, on the same functions."""

from __future__ import annotations

from onereason.data.json_answers import Event, extract_json, extract_selection, parse_logic_chain
from onereason.evaluation import extract
from onereason.evaluation.scores import action_logic


def test_evaluation_reads_with_the_same_functions():
    assert extract.extract_json is extract_json and extract.extract_selection is extract_selection
    assert action_logic.parse_logic_chain is parse_logic_chain and action_logic.Event is Event


def test_deep_nesting_is_no_json():
    assert extract_json("[" * 100_000) is None


def test_a_chain_in_a_turn():
    text = '<think>\nhm\n</think>\n\n```json\n{"logic_chain": {"events": [{"date": "2025-01-03", "action": "a"}]}}\n```'
    assert parse_logic_chain(text) == [Event("2025-01-03", "a", "")]
    assert parse_logic_chain('{"logic_chain": 3}') is None
