"""R0: an item in itemic tokens -> what it is about, in words (`onereason.data.prompts.caption_messages`)."""

from __future__ import annotations

from onereason.evaluation.layers.tasks.base import (
    MALFORMED,
    TEXT,
    EvaluationRow,
    Extraction,
    GenerationSettings,
    Grading,
    Question,
    Task,
)
from onereason.evaluation.scores.text_scores import rouge_l_f1, token_f1


def extract(text: str, row: EvaluationRow) -> Extraction:
    return Extraction(text.strip()) if text.strip() else MALFORMED


def score(extraction: Extraction, row: EvaluationRow) -> dict[str, float]:
    true = row.reference["caption"]
    return {"token_f1": token_f1(true, extraction.value), "rouge_l": rouge_l_f1(true, extraction.value)}


def questions(extraction: Extraction, row: EvaluationRow) -> list[Question]:
    return [Question("caption", row.reference["caption"], extraction.value)]


TASK = Task(
    name="caption",
    layer="R0",
    version=1,
    reference={"caption": TEXT},
    metrics=("token_f1", "rouge_l"),
    extract=extract,
    score=score,
    generation=GenerationSettings(max_new_tokens=256, think_budget=512),
    grading=Grading("judge_score", "caption", questions),
)
