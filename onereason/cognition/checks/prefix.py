"""Does a text about a user rest on what came before the target, and on nothing after it?

A position counts interactions from 0; the target's position is where the known part ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onereason.cognition.checks.problem import Problem


def check_positions(positions: Iterable[int], target: int) -> list[Problem]:
    """`evidence_after_target` and `evidence_position` (below 0) for positions that persona or interests rest on."""
    found = []
    for position in positions:
        if position < 0:
            found.append(Problem("evidence_position", str(position)))
        elif position >= target:
            found.append(Problem("evidence_after_target", f"position {position}, target at {target}"))
    return found


def check_cited_before(cited: Iterable[str], timeline: Sequence[str], target: int) -> list[Problem]:
    """`cited_after_target` for patterns that a user's timeline holds at or after the target, and not before it.

    Args:
        cited: patterns that the text cites; those that are not in the timeline at all are another check's business.
        timeline: the patterns of all interactions, oldest first.
        target: position of the target.
    """
    before = set(timeline[:target])
    later = set(timeline[target:]) - before
    return [Problem("cited_after_target", pattern) for pattern in dict.fromkeys(cited) if pattern in later]
