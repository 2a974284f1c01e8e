"""What persona and interests rest on."""

from __future__ import annotations

import pytest

from onereason.cognition.checks.prefix import check_evidence
from onereason.cognition.checks.problem import EXCERPT_LENGTH, Problem, excerpt
from onereason.cognition.evidence import Candidate, Evidence


def evidence(num_items: int, *cited: list[int]) -> Evidence:
    candidates = [Candidate(z, "seen", places, 0.5) for z, places in enumerate(cited)]
    return Evidence([], "", "", candidates, 0, 0, 1, "", "video", num_items)


# The items of positions 7 to 10 are shown, the target stands at 11.
@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (evidence(4, [0, 3], [], [2]), None),
        (evidence(1), None),
        (evidence(5, [0, 3]), Problem("evidence_after_target", "read to position 11, target at 11")),
        (evidence(4, [0], [1, 4]), Problem("evidence_after_target", "position 11, target at 11")),
        (evidence(4, [-1, 3]), Problem("evidence_position", "position 6, shown from 7")),
    ],
)
def test_evidence_stands_between_what_is_shown_first_and_the_target(found, problem):
    assert check_evidence(found, 7, 11) == problem


def test_excerpts():
    assert excerpt("a\n b") == "a b"
    assert excerpt("x" * 100) == "x" * (EXCERPT_LENGTH - 3) + "..." and len(excerpt("x" * 100)) == EXCERPT_LENGTH
