"""R2: which entries of a dated timeline belong to one interest; the answer is a JSON list of entries."""

from __future__ import annotations

from collections.abc import Sequence

from onereason.evaluation.extract import extract_selection
from onereason.evaluation.layers.tasks.base import (
    MALFORMED,
    TEXTS,
    EvaluationRow,
    Extraction,
    GenerationSettings,
    Message,
    Task,
)
from onereason.evaluation.scores.set_scores import compute_set_scores

SYSTEM = (
    "You are a user analyst. Items are written as itemic tokens. Read a user's timeline and answer with a JSON list of "
    "the entries that are asked for, copied word for word, and nothing else."
)
USER = "The user's timeline, oldest first:\n{timeline}\nWhich entries belong to the user's interest in {topic}?"


def build_messages(timeline: Sequence[str], topic: str) -> list[Message]:
    """System and user turn; an entry is a line."""
    user = USER.format(timeline="\n".join(timeline), topic=topic)
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]


def extract(text: str, row: EvaluationRow) -> Extraction:
    selection = extract_selection(text)
    return MALFORMED if selection is None else Extraction(selection)


def score(extraction: Extraction, row: EvaluationRow) -> dict[str, float]:
    scores = compute_set_scores([extraction.value], [[action.strip() for action in row.reference["actions"]]])
    return {"f1": float(scores.f1[0]), "precision": float(scores.precision[0]), "recall": float(scores.recall[0])}


TASK = Task(
    name="action_selection",
    layer="R2",
    version=1,
    reference={"actions": TEXTS},
    metrics=("f1", "precision", "recall"),
    extract=extract,
    score=score,
    generation=GenerationSettings(max_new_tokens=1024, think_budget=2048),
)
