"""Rows of the layered evaluation: JSON lines, checked before anything loads.

A row is `{"id", "task", "messages", "reference"}` and, where it is asked in one mode only, `"mode"`. The messages end
with the user turn that is to be answered; the thinking switch is added when it is asked. What the reference must hold
is its task's business (`onereason.evaluation.layers.tasks`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onereason.data.prompts import MODES, SWITCHES
from onereason.errors import DataError
from onereason.evaluation.layers.tasks import load_task
from onereason.evaluation.layers.tasks.base import EvaluationRow
from onereason.io import iter_jsonl
from onereason.itemic.format import ItemicFormat

_KEYS = ("id", "task", "messages", "reference", "mode")
_ROLES = ("system", "user", "assistant")


def load_rows(path: str | Path) -> list[EvaluationRow]:
    """The rows of a file, in order.

    Raises:
        DataError: the file has no row, or one is malformed: its number, its key, the rule and the way out.
    """
    rows: list[EvaluationRow] = []
    first: dict[str, int] = {}
    for number, record in enumerate(iter_jsonl(path, "evaluation rows"), 1):
        where = f"{path}, row {number}"
        row = parse_row(record, where)
        if row.id in first:
            raise DataError(f"{where}: id {row.id!r} stands in row {first[row.id]} too; give every row its own id.")
        first[row.id] = number
        rows.append(row)
    if not rows:
        raise DataError(f"{path} holds no row; make some with `python -m data_builders.build_layers`.")
    return rows


def parse_row(record: Mapping[str, Any], where: str) -> EvaluationRow:
    """One row; `DataError` that begins with `where`."""
    for key in _KEYS[:4]:
        if key not in record:
            raise DataError(f"{where}: key {key!r} is missing; a row needs {', '.join(_KEYS[:4])}.")
    unknown = sorted(set(record) - set(_KEYS))
    if unknown:
        raise DataError(f"{where}: key {unknown[0]!r} is not known; a row has {', '.join(_KEYS)}.")
    if not isinstance(record["id"], str) or not record["id"]:
        raise DataError(f"{where}: 'id' must be a non-empty string, is {record['id']!r}.")
    try:
        task = load_task(record["task"])
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    mode = record.get("mode")
    if mode is not None and mode not in MODES:
        raise DataError(f"{where}: 'mode' is {mode!r}; use {' or '.join(MODES)}, or leave it out to ask in both.")
    _check_messages(record["messages"], where)
    reference = record["reference"]
    if not isinstance(reference, Mapping):
        raise DataError(f"{where}: 'reference' must be an object, is {reference!r}.")
    for key, kind in task.reference.items():
        if key not in reference:
            raise DataError(f"{where}: 'reference.{key}' is missing; task {task.name!r} needs {kind.rule}.")
        if not kind.holds(reference[key]):
            raise DataError(f"{where}: 'reference.{key}' must be {kind.rule}, is {reference[key]!r}.")
    return EvaluationRow(record["id"], task.name, record["messages"], reference, mode)


def _check_messages(messages: Any, where: str) -> None:
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{where}: 'messages' must be a non-empty list, is {messages!r}.")
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
            raise DataError(f"{where}: 'messages': each needs a role out of {', '.join(_ROLES)}, got {message!r}.")
        if not isinstance(message.get("content"), str):
            raise DataError(f"{where}: 'messages': each content must be a string, got {message.get('content')!r}.")
    if messages[-1]["role"] != "user":
        raise DataError(f"{where}: 'messages' must end with a user turn, ends with the {messages[-1]['role']}'s.")
    switch = next((s for s in SWITCHES.values() if messages[-1]["content"].endswith(s.strip())), None)
    if switch is not None:
        raise DataError(
            f"{where}: the last user turn ends with {switch.strip()!r}; leave the switch out, it is added for each "
            "mode, and set 'mode' where a row is asked in one mode only."
        )


def bind_format(rows: Sequence[EvaluationRow], format: ItemicFormat | None) -> list[EvaluationRow]:
    """The rows with the format that items are read in, checked by their tasks; `DataError` naming the first bad row."""
    bound = [replace(row, format=format) for row in rows]
    for row in bound:
        check = load_task(row.task).check
        problem = check(row) if check else None
        if problem:
            raise DataError(f"row {row.id!r} (task {row.task!r}): {problem}; make the rows for this model's catalog.")
    return bound


def choose_rows(rows: Sequence[EvaluationRow], max_rows: int | None, seed: int) -> list[EvaluationRow]:
    """At most `max_rows` of each task, drawn with the seed, in their order."""
    if max_rows is None:
        return list(rows)
    if max_rows < 1:
        raise DataError(f"max_rows must be at least 1, got {max_rows}.")
    kept: set[int] = set()
    for task in dict.fromkeys(row.task for row in rows):
        places = [place for place, row in enumerate(rows) if row.task == task]
        kept |= set(random.Random(f"{seed}:{task}").sample(places, min(max_rows, len(places))))
    return [rows[place] for place in sorted(kept)]
