"""Extract, score and aggregate: saved answers -> the tables of a layered evaluation.

Generation is over when this module begins; scoring the same answers again gives the same tables.

Notation: `E` rows of a task asked in one mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onereason.data.chat import parse_answer
from onereason.data.prompts import MODES
from onereason.evaluation.layers.generation import Generation
from onereason.evaluation.layers.judge import Grader, Grades
from onereason.evaluation.layers.tasks import TASK_NAMES, load_task
from onereason.evaluation.layers.tasks.base import EvaluationRow, Extraction, Question, Task
from onereason.evaluation.scores.metrics import paired_bootstrap

NO_GRADER = {
    "caption": "no judge is configured: pass --judge-url and --judge-model",
    "entailment": "no judge is configured: pass --judge-url and --judge-model, or --nli",
}


@dataclass(frozen=True)
class Scored:
    """One answer with its scores.

    Attributes:
        row, generation: what was asked and answered.
        answer: the answer without its think block.
        extraction: what was read from it.
        scores: metric -> value; None where a grader gave none, or a trace has nothing to score.
    """

    row: EvaluationRow
    generation: Generation
    answer: str
    extraction: Extraction
    scores: Mapping[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """A line of `scores.jsonl`."""
        return {
            "id": self.row.id,
            "task": self.row.task,
            "mode": self.generation.mode,
            "malformed": self.extraction.malformed,
            "scores": dict(self.scores),
        }


def score_answers(
    rows: Sequence[EvaluationRow], generations: Sequence[Generation], graders: Sequence[Grader] = ()
) -> tuple[list[Scored], dict[str, str]]:
    """Every answer read and scored, in the order of `generations`, and per kind of question why it has no grades."""
    by_id = {row.id: row for row in rows}
    scored = [_score(by_id[generation.id], generation) for generation in generations]
    return _grade(scored, graders)


def _score(row: EvaluationRow, generation: Generation) -> Scored:
    task = load_task(row.task)
    parsed = parse_answer(generation.text)
    extraction = task.extract(parsed.answer, row)
    scores: dict[str, float | None] = dict.fromkeys(task.metrics, 0.0)
    if not extraction.malformed:
        scores.update(task.score(extraction, row))
    if task.score_trace is not None and generation.mode == "think":
        scores.update(task.score_trace(parsed.think or "", row))
    return Scored(row, generation, parsed.answer, extraction, scores)


def _grade(scored: Sequence[Scored], graders: Sequence[Grader]) -> tuple[list[Scored], dict[str, str]]:
    """Adds the metrics of graders; the questions of all rows of one kind are asked together."""
    reasons: dict[str, str] = {}
    found = list(scored)
    for kind in sorted({task.grading.kind for s in scored if (task := load_task(s.row.task)).grading}):
        places: list[int] = []
        asked: list[list[Question] | float] = []
        for place, s in enumerate(scored):
            grading = load_task(s.row.task).grading
            if grading is not None and grading.kind == kind:
                places.append(place)
                asked.append(0.0 if s.extraction.malformed else grading.questions(s.extraction, s.row))
        flat = [question for questions in asked if isinstance(questions, list) for question in questions]
        grader = next((grader for grader in graders if kind in grader.kinds), None)
        grades = grader.grade(flat) if grader else Grades([None] * len(flat), reason=NO_GRADER[kind])
        if grades.reason is not None:
            reasons[kind] = grades.reason
        scores = iter(grades.scores)
        for place, questions in zip(places, asked, strict=True):
            s = scored[place]
            value = _mean([next(scores) for _ in questions]) if isinstance(questions, list) else questions
            grading = load_task(s.row.task).grading
            assert grading is not None
            found[place] = replace(s, scores={**s.scores, grading.metric: value})
    return found, reasons


def _mean(values: Sequence[float | None]) -> float | None:
    """A row counts with the verdicts that can be read, and not at all without one."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


# -- aggregation ----------------------------------------------------------------------------------------------------


def aggregate(scored: Sequence[Scored], reasons: Mapping[str, str], seed: int) -> dict[str, Any]:
    """Task -> layer, version, `modes` (counts, metrics with 95 % intervals, cost) and, where rows were asked in both
    modes, `difference` (thinking minus not thinking, on the same rows)."""
    tables: dict[str, Any] = {}
    for name in TASK_NAMES:
        of_task = [s for s in scored if s.row.task == name]
        if not of_task:
            continue
        task = load_task(name)
        by_mode = {mode: [s for s in of_task if s.generation.mode == mode] for mode in MODES}
        tables[name] = {
            "layer": task.layer,
            "version": task.version,
            "modes": {mode: _mode_table(task, mode, some, reasons, seed) for mode, some in by_mode.items() if some},
            "difference": _differences(task, by_mode, reasons, seed),
        }
    return tables


def _mode_table(
    task: Task, mode: str, scored: Sequence[Scored], reasons: Mapping[str, str], seed: int
) -> dict[str, Any]:
    generations = [s.generation for s in scored]
    return {
        "counts": {
            "rows": len(scored),
            "malformed": sum(s.extraction.malformed for s in scored),
            "cut_traces": sum(g.cut for g in generations),
            "truncated_answers": sum(g.truncated for g in generations),
        },
        "metrics": {metric: _metric(task, metric, scored, reasons, seed) for metric in metric_names(task, mode)},
        "cost": {
            "prompt_tokens_per_row": round(float(np.mean([g.prompt_tokens for g in generations])), 2),
            "tokens_per_row": round(float(np.mean([g.tokens for g in generations])), 2),
            "seconds_per_row": round(float(np.mean([g.seconds for g in generations])), 4),
        },
    }


def metric_names(task: Task, mode: str) -> list[str]:
    """A task's metrics in a mode: of answers, the graded one, of traces."""
    graded = [task.grading.metric] if task.grading else []
    return [*task.metrics, *graded, *(task.trace_metrics if mode == "think" else ())]


def _metric(task: Task, metric: str, scored: Sequence[Scored], reasons: Mapping[str, str], seed: int) -> dict[str, Any]:
    """`value`, `low`, `high`; or a null value with its `reason`.

    A graded metric says how many rows have no grade (`rows_without_grade`), a trace's metric how many have nothing to
    score (`rows_without_value`).
    """
    values = [s.scores[metric] for s in scored]
    kind = _kind(task, metric)
    if kind in reasons:
        return {"value": None, "reason": reasons[kind]}
    known = [value for value in values if value is not None]
    if not known:
        what = "verdict that can be read" if kind else "trace with something to score"
        return {"value": None, "reason": f"none of the {len(values)} rows has a {what}"}
    found: dict[str, Any] = task.aggregate(np.array(known, np.float64), seed)
    if kind:
        found["rows_without_grade"] = len(values) - len(known)
    elif metric in task.trace_metrics:
        found["rows_without_value"] = len(values) - len(known)
    return found


def _kind(task: Task, metric: str) -> str:
    """The kind of question a metric's grader answers, empty where it needs none."""
    return task.grading.kind if task.grading is not None and metric == task.grading.metric else ""


def _differences(
    task: Task, by_mode: Mapping[str, Sequence[Scored]], reasons: Mapping[str, str], seed: int
) -> dict[str, Any]:
    """Metric -> thinking minus not thinking over the rows that have both (paired bootstrap)."""
    found: dict[str, Any] = {}
    without = {s.row.id: s for s in by_mode["no_think"]}
    pairs = [(s, without[s.row.id]) for s in by_mode["think"] if s.row.id in without]
    for metric in metric_names(task, "no_think"):  # traces have none to be compared with
        if _kind(task, metric) in reasons:
            continue
        values = [(think.scores[metric], plain.scores[metric]) for think, plain in pairs]
        both = np.array([pair for pair in values if None not in pair], np.float64).reshape(-1, 2)
        if len(both):
            difference, low, high = paired_bootstrap(both[:, 0], both[:, 1], seed)
            found[metric] = {"rows": len(both), "difference": difference, "low": low, "high": high}
    return found
