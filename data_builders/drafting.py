"""From pending rows to rows: a teacher writes their texts, in the order in which the rows are to stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from data_builders.cards import Row
from data_builders.shards import Reject
from onereason.cognition.teachers import Assignment, Teacher


class Pending(Protocol):
    """A row whose text a teacher is to write."""

    @property
    def id(self) -> str: ...


P = TypeVar("P", bound=Pending)

_FINISHED = (dict, Reject)


def write_drafts(
    plan: Sequence[Row | Reject | P],
    teacher: Teacher,
    assign: Callable[[P], Assignment],
    accept: Callable[[Sequence[tuple[P, str]]], Sequence[Row | Reject]],
) -> tuple[list[Row], list[Reject]]:
    """The rows and rejects of a plan, in its order.

    Args:
        plan: finished rows, rejects, and rows that wait for a text.
        teacher: writes all texts at once.
        assign: what it is asked for a pending row.
        accept: makes the row of each text, or says why it gives none; all at once, so that a judge can be asked about
            many.
    """
    pending: list[P] = [entry for entry in plan if not isinstance(entry, _FINISHED)]  # type: ignore[misc]
    drafts = teacher.write([assign(entry) for entry in pending])
    written = [(entry, draft.text) for entry, draft in zip(pending, drafts, strict=True) if draft.text is not None]
    accepted = iter(accept(written))
    outcomes = (
        Reject(entry.id, draft.problem or "teacher_empty") if draft.text is None else next(accepted)
        for entry, draft in zip(pending, drafts, strict=True)
    )
    rows: list[Row] = []
    rejects: list[Reject] = []
    for entry in plan:
        outcome = entry if isinstance(entry, _FINISHED) else next(outcomes)
        if isinstance(outcome, Reject):
            rejects.append(outcome)
        else:
            rows.append(outcome)
    return rows, rejects
