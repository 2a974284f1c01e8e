"""The tasks of the layered evaluation, one module each; a module loads when its task is asked for."""

from __future__ import annotations

import difflib
import importlib

from onereason.errors import DataError
from onereason.evaluation.layers.tasks.base import Task

TASK_NAMES = (
    "caption",
    "grounding",
    "item_qa",
    "item2item",
    "action_selection",
    "topic",
    "direct",
    "next_item",
    "gsm8k",
    "choice",
)
"""All tasks, in the order of their layers."""


def load_task(name: str) -> Task:
    """The task of a name; `DataError` with the nearest known one where there is none."""
    if name not in TASK_NAMES:
        near = difflib.get_close_matches(str(name), TASK_NAMES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known tasks are {', '.join(TASK_NAMES)}."
        raise DataError(f"task {name!r} is not known; {hint}")
    return importlib.import_module(f"onereason.evaluation.layers.tasks.{name}").TASK
