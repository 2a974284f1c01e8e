"""General: multiple choice with one or several right letters; all of them and no other count."""

from __future__ import annotations

from onereason.evaluation.layers.tasks.base import GenerationSettings, Task
from onereason.evaluation.layers.tasks.choices import ANSWER, check_answer, extract_letters, score_letters

TASK = Task(
    name="choice",
    layer="general",
    version=1,
    reference={"answer": ANSWER},
    metrics=("accuracy",),
    extract=extract_letters,
    score=score_letters,
    generation=GenerationSettings(max_new_tokens=512, think_budget=2048),
    check=check_answer,
)
