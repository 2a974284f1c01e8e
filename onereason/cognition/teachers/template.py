"""The template teacher: texts composed from evidence in the data, without a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onereason.cognition.teachers.base import EMPTY, Assignment, Draft

_NOTHING = Draft(None, EMPTY)


class TemplateTeacher:
    """Writes what each assignment composes itself."""

    name = "template"

    def __init__(self) -> None:
        self._assignments = 0
        self._empty = 0

    def write(self, assignments: Sequence[Assignment]) -> list[Draft]:
        drafts = [Draft(text) if (text := assignment.compose()) else _NOTHING for assignment in assignments]
        self._assignments += len(drafts)
        self._empty += sum(draft is _NOTHING for draft in drafts)
        return drafts

    def summary(self) -> dict[str, Any]:
        problems = {EMPTY: self._empty} if self._empty else {}
        return {"teacher": self.name, "assignments": self._assignments, "problems": problems}
