"""R2: which entries of a dated timeline make up the longest episode of an interest; the answer is their JSON list."""

from __future__ import annotations

from collections.abc import Sequence

from onereason.data.prompt_sets import load_prompt_set
from onereason.data.prompts import opening_turns
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


def build_messages(timeline: Sequence[str], topic: str, language: str = "en") -> list[Message]:
    """System and user turn; an entry is a line."""
    text = load_prompt_set("evolution", language).text
    user = text("action_selection.user").format(timeline="\n".join(timeline), topic=topic)
    return opening_turns(text("action_selection.system").format(), user)


def extract(text: str, row: EvaluationRow) -> Extraction:
    selection = extract_selection(text)
    return MALFORMED if selection is None else Extraction(selection)


def score(extraction: Extraction, row: EvaluationRow) -> dict[str, float]:
    scores = compute_set_scores([extraction.value], [[action.strip() for action in row.reference["actions"]]])
    return {"f1": float(scores.f1[0]), "precision": float(scores.precision[0]), "recall": float(scores.recall[0])}


TASK = Task(
    name="action_selection",
    layer="R2",
    version=2,
    reference={"actions": TEXTS},
    metrics=("f1", "precision", "recall"),
    extract=extract,
    score=score,
    generation=GenerationSettings(max_new_tokens=1024, think_budget=2048),
)
