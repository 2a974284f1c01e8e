"""What a text about a user rests on."""

from __future__ import annotations

from onereason.cognition.checks.prefix import check_cited_before, check_positions
from onereason.cognition.checks.problem import EXCERPT_LENGTH, Problem, excerpt


def test_positions():
    assert check_positions([0, 3], 4) == []
    assert check_positions([0, 4, -1], 4) == [
        Problem("evidence_after_target", "position 4, target at 4"),
        Problem("evidence_position", "-1"),
    ]


def test_cited_items():
    timeline = ["a", "b", "a", "c", "b"]
    assert check_cited_before(["a", "b"], timeline, 2) == []  # both were met before, and are met again
    assert check_cited_before(["c", "z", "c"], timeline, 2) == [Problem("cited_after_target", "c")]
    assert check_cited_before(["b"], timeline, 1) == [Problem("cited_after_target", "b")]


def test_excerpts():
    assert excerpt("a\n b") == "a b"
    assert excerpt("x" * 100) == "x" * (EXCERPT_LENGTH - 3) + "..." and len(excerpt("x" * 100)) == EXCERPT_LENGTH
