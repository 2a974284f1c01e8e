"""General: grade-school mathematics (Cobbe et al. 2021); the number an answer ends on, exactly."""

from __future__ import annotations

from onereason.evaluation.layers.tasks.base import (
    MALFORMED,
    TEXT,
    EvaluationRow,
    Extraction,
    GenerationSettings,
    Message,
    Task,
)
from onereason.evaluation.scores.text_scores import extract_number

USER = "{question}\nReason step by step, and end with the answer behind ####, e.g. #### 42."


def build_messages(question: str) -> list[Message]:
    """The user turn."""
    return [{"role": "user", "content": USER.format(question=question.strip())}]


def extract(text: str, row: EvaluationRow) -> Extraction:
    number = extract_number(text)
    return MALFORMED if number is None else Extraction(number)


def score(extraction: Extraction, row: EvaluationRow) -> dict[str, float]:
    return {"exact_match": float(extraction.value == extract_number(row.reference["answer"]))}


def check(row: EvaluationRow) -> str | None:
    if extract_number(row.reference["answer"]) is None:
        return f"reference.answer {row.reference['answer']!r} holds no number"
    return None


TASK = Task(
    name="gsm8k",
    layer="general",
    version=1,
    reference={"answer": TEXT},
    metrics=("exact_match",),
    extract=extract,
    score=score,
    generation=GenerationSettings(max_new_tokens=512, think_budget=2048),
    check=check,
)
