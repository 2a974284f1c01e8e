"""Pieces of Markdown that all reports are made of."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table; cells are text that cannot break it (`inline`)."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def inline(text: str) -> str:
    """Text that cannot break a table or a line."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
