"""What a teacher is: it writes the text that an assignment asks for, or says why it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

UNREACHABLE = "teacher_unreachable"
"""No connection, or a server that stays busy or broken, after the last try."""
TIMEOUT = "teacher_timeout"
"""No answer in time, after the last try."""
REFUSED = "teacher_refused"
"""The server refuses the request, a filter stops the answer, or the model declines."""
TRUNCATED = "teacher_truncated"
"""The answer ran into its limit of tokens."""
EMPTY = "teacher_empty"
"""The answer holds no text."""
MALFORMED = "teacher_malformed"
"""What came back is no answer: not JSON, or without choices."""
TOO_LONG = "teacher_prompt_too_long"
"""The prompt and an answer do not fit the model's positions."""

REPLY_TOO_LONG = "teacher_reply_too_long"
"""The answer is longer than any text of a corpus; no check looks into it."""

PROBLEMS = (UNREACHABLE, TIMEOUT, REFUSED, TRUNCATED, EMPTY, MALFORMED, TOO_LONG, REPLY_TOO_LONG)

MAX_TEXT_CHARS = 1 << 16
"""Of an answer, its think block apart; checks read a text some ten times, at about 1 ms a thousand characters."""


class Assignment(Protocol):
    """A text that is to be written."""

    @property
    def id(self) -> str: ...

    def compose(self) -> str:
        """The text as the template teacher writes it, from evidence in the data."""
        ...

    def messages(self) -> list[dict[str, str]]:
        """What a language model is asked: turns with `role` and `content`."""
        ...


@dataclass(frozen=True, slots=True)
class Draft:
    """What a teacher gave.

    Attributes:
        text: the text, None where nothing usable came.
        problem: one of `PROBLEMS` where `text` is None.
        prompt_tokens, completion_tokens: of the answer, also where an earlier run paid for it; 0 without a model.
    """

    text: str | None
    problem: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Teacher(Protocol):
    """Writes texts. Teachers can be pickled; each process then counts what it spends itself."""

    @property
    def name(self) -> str:
        """Provenance of what it writes: `template`, `endpoint:MODEL` or `local:NAME`."""
        ...

    def write(self, assignments: Sequence[Assignment]) -> list[Draft]:
        """A draft for each assignment, in their order."""
        ...

    def summary(self) -> dict[str, Any]:
        """What it did so far: `teacher`, `assignments`, `problems` by reason, and what that took."""
        ...
