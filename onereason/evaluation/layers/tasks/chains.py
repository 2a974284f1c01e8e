"""What the chain tasks share: logic chains out of answers, and their Action-Logic score."""

from __future__ import annotations

import json
from typing import Any

from onereason.evaluation.layers.tasks.base import MALFORMED, EvaluationRow, Extraction, Grading, Kind, Question
from onereason.evaluation.scores.action_logic import Event, parse_logic_chain, score_chain

METRICS = ("action_f1", "logic_f1")


def _read(chain: Any) -> list[Event] | None:
    return parse_logic_chain(json.dumps(chain))


CHAIN = Kind('a logic chain {"name", "events": [{"date", "action", "logic"}]}, or []', lambda v: _read(v) is not None)


def extract_chain(text: str, row: EvaluationRow) -> Extraction:
    chain = parse_logic_chain(text)
    return MALFORMED if chain is None else Extraction(chain)


def score_logic_chain(extraction: Extraction, row: EvaluationRow) -> dict[str, float]:
    score = score_chain(_read(row.reference["logic_chain"]) or [], extraction.value)
    return {"action_f1": score.action_f1, "logic_f1": score.logic_f1}


def entailment_questions(extraction: Extraction, row: EvaluationRow) -> list[Question] | float:
    """Does the generated logic follow from the true one, on the aligned pairs; without a pair, 0, or 1 where both are
    rightly empty."""
    true = _read(row.reference["logic_chain"]) or []
    pairs = score_chain(true, extraction.value).pairs
    if not pairs:
        return float(not true and not extraction.value)
    return [Question("entailment", true[i].logic, extraction.value[j].logic) for i, j in pairs]


GRADING = Grading("entailment_rate", "entailment", entailment_questions)
