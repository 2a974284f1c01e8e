"""What a check found."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """One thing that is wrong with a text.

    Attributes:
        reason: a code that corpora count rejections by, e.g. `stage_missing`.
        detail: the piece of text, or the number, that shows it.
    """

    reason: str
    detail: str = ""


EXCERPT_LENGTH = 80
"""Characters an excerpt has at most."""


def excerpt(text: str) -> str:
    """The text on one line, cut to `EXCERPT_LENGTH` characters."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT_LENGTH else line[: EXCERPT_LENGTH - 3] + "..."
