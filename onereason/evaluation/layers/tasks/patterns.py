"""What the tasks share whose reference is an item: its pattern, checked and read."""

from __future__ import annotations

from onereason.evaluation.layers.tasks.base import EvaluationRow
from onereason.itemic.format import ItemicFormat, ItemicPattern


def row_format(row: EvaluationRow) -> ItemicFormat:
    """The format of a row that `check_pattern` holds for."""
    assert row.format is not None, "check_pattern() holds for every row that is scored"
    return row.format


def check_pattern(row: EvaluationRow) -> str | None:
    """What is wrong with the true pattern."""
    if row.format is None:
        return "the itemic format is not known"
    found = row.format.parse(row.reference["pattern"])
    if len(found.items) == 1 and not found.num_malformed:
        return None
    return f"reference.pattern {row.reference['pattern']!r} is not one item of the model's format {row.format.name!r}"


def true_pattern(row: EvaluationRow) -> ItemicPattern:
    """The item of the reference."""
    return row_format(row).parse(row.reference["pattern"]).items[0]
