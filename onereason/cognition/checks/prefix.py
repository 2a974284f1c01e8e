"""Do persona and interests rest on what came before the target, and on nothing after it?

A position counts a user's interactions from 0; the target's position is where the known part ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onereason.cognition.checks.problem import Problem

if TYPE_CHECKING:
    from onereason.cognition.evidence import Evidence


def check_evidence(evidence: Evidence, begin: int, target: int) -> Problem | None:
    """`evidence_after_target` or `evidence_position` (before what is shown) of evidence; None where it is in place.

    The persona is counted over all items that were read, so their number is looked at; of the items read
    one by one, and of those cited for an interest, which stand oldest first, the two ends are.

    Args:
        begin: position of the first item that is shown; the evidence counts its positions from there.
        target: position of the target.
    """
    if begin + evidence.num_items > target:
        return Problem(
            "evidence_after_target", f"read to position {begin + evidence.num_items - 1}, target at {target}"
        )
    for cited in (evidence.readings, *(candidate.cited for candidate in evidence.candidates)):
        if cited:
            if begin + cited[-1] >= target:
                return Problem("evidence_after_target", f"position {begin + cited[-1]}, target at {target}")
            if cited[0] < 0:
                return Problem("evidence_position", f"position {begin + cited[0]}, shown from {begin}")
    return None
