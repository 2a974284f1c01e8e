"""From saved answers to tables: malformed answers, graded metrics, differences between the modes."""

from __future__ import annotations

import numpy as np
import pytest

from onereason.evaluation.layers.generation import Generation
from onereason.evaluation.layers.judge import Grades
from onereason.evaluation.layers.scoring import aggregate, score_answers
from onereason.evaluation.layers.tasks.base import EvaluationRow
from onereason.evaluation.scores.metrics import paired_bootstrap

ASK = [{"role": "user", "content": "?"}]


def answer(row_id: str, mode: str, text: str, tokens: int = 10, cut: bool = False) -> Generation:
    return Generation(row_id, mode, text, 7, tokens, 0.5, cut, False)


class Fixed:
    """A grader that gives the scores it was told, and keeps what it was asked."""

    def __init__(self, scores, reason=None, kinds=("caption", "entailment")):
        self.kinds, self.scores, self.reason, self.asked = kinds, scores, reason, []

    def grade(self, questions):
        self.asked += questions
        return Grades(list(self.scores[: len(questions)]), reason=self.reason)


QUESTIONS = [EvaluationRow(f"q{i}", "gsm8k", ASK, {"answer": "4"}) for i in range(4)]


def test_malformed_answers_are_misses_counted_apart():
    texts = ["4", "5", "four", "<think>\n4\n</think>\n\nso"]  # right, wrong, and two that end on no number
    scored, _ = score_answers(QUESTIONS, [answer(f"q{i}", "no_think", text) for i, text in enumerate(texts)])
    assert [s.extraction.malformed for s in scored] == [False, False, True, True]
    table = aggregate(scored, {}, 0)["gsm8k"]
    assert (table["layer"], table["version"], table["difference"]) == ("general", 1, {})
    found = table["modes"]["no_think"]
    assert found["counts"] == {"rows": 4, "malformed": 2, "cut_traces": 0, "truncated_answers": 0}
    value, low, high = paired_bootstrap(np.array([1, 0, 0, 0]), np.zeros(4), 0)
    assert found["metrics"] == {"exact_match": {"value": value, "low": low, "high": high}} and value == 0.25


def test_differences_are_of_rows_asked_in_both_modes():
    answers = [answer(f"q{i}", "no_think", text) for i, text in enumerate(["4", "5", "5"])]
    answers += [answer(f"q{i}", "think", "<think>\nhm\n</think>\n\n4", 30, i == 3) for i in (1, 2, 3)]
    table = aggregate(score_answers(QUESTIONS, answers)[0], {}, 1)["gsm8k"]
    difference, low, high = paired_bootstrap(np.array([1, 1]), np.array([0, 0]), 1)
    expected = {"rows": 2, "difference": difference, "low": low, "high": high}
    assert table["difference"] == {"exact_match": expected} and difference == 1
    assert table["modes"]["think"]["counts"]["cut_traces"] == 1
    assert table["modes"]["think"]["cost"] == {
        "prompt_tokens_per_row": 7.0,
        "tokens_per_row": 30.0,
        "seconds_per_row": 0.5,
    }


CAPTIONS = [EvaluationRow(f"c{i}", "caption", ASK, {"caption": "red tea"}) for i in range(3)]


def test_graded_metrics_are_asked_for_what_can_be_read():
    answers = [answer("c0", "no_think", "red"), answer("c1", "no_think", ""), answer("c2", "no_think", "tea")]
    grader = Fixed([0.5, 1.0])
    scored, reasons = score_answers(CAPTIONS, answers, [grader])
    assert [q.second for q in grader.asked] == ["red", "tea"] and reasons == {}
    assert [s.scores["judge_score"] for s in scored] == [0.5, 0.0, 1.0]
    found = aggregate(scored, reasons, 0)["caption"]["modes"]["no_think"]["metrics"]["judge_score"]
    assert (found["value"], found["rows_without_grade"]) == (0.5, 0)


def test_verdicts_that_cannot_be_read_leave_their_rows_out():
    answers = [answer(f"c{i}", "no_think", "red") for i in range(3)]
    scored, reasons = score_answers(CAPTIONS, answers, [Fixed([0.5, None, 1.0])])
    found = aggregate(scored, reasons, 0)["caption"]["modes"]["no_think"]["metrics"]["judge_score"]
    assert (found["value"], found["rows_without_grade"]) == (0.75, 1)
    scored, reasons = score_answers(CAPTIONS, answers, [Fixed([None] * 3)])
    found = aggregate(scored, reasons, 0)["caption"]["modes"]["no_think"]["metrics"]["judge_score"]
    assert found == {"value": None, "reason": "none of the 3 rows has a verdict that can be read"}


def test_a_judge_that_fails_leaves_the_rest_as_it_is():
    answers = [answer(f"c{i}", mode, "<think>\na\n</think>\n\nred") for i in range(3) for mode in ("no_think", "think")]
    table = aggregate(*score_answers(CAPTIONS, answers, [Fixed([0.5, None] * 3, "it is down")]), 0)["caption"]
    metrics = table["modes"]["think"]["metrics"]
    assert metrics["judge_score"] == {"value": None, "reason": "it is down"}
    assert metrics["token_f1"]["value"] == pytest.approx(2 / 3)
    assert set(table["difference"]) == {"token_f1", "rouge_l"}


def test_without_a_grader_the_metric_says_so():
    scored, reasons = score_answers(CAPTIONS[:1], [answer("c0", "think", "red")])
    found = aggregate(scored, reasons, 0)["caption"]["modes"]["think"]["metrics"]["judge_score"]
    assert found == {"value": None, "reason": "no judge is configured: pass --judge-url and --judge-model"}


def test_the_first_grader_that_knows_the_kind_is_asked():
    event = {"date": "d", "action": "play a", "logic": "tea begins"}
    row = EvaluationRow("t", "topic", ASK, {"logic_chain": {"name": "tea", "events": [event, event]}})
    text = '{"events": [{"action": "play a", "logic": "tea"}, {"action": "play a", "logic": "cup"}]}'
    nli, judge = Fixed([0.25, 0.75], kinds=("entailment",)), Fixed([1.0])
    answers = [answer("t", "no_think", text), answer("c0", "no_think", "red")]
    scored, _ = score_answers([row, CAPTIONS[0]], answers, [nli, judge])
    assert scored[0].scores["entailment_rate"] == 0.5 and scored[1].scores["judge_score"] == 1.0
    assert [(q.first, q.second) for q in nli.asked] == [("tea begins", "tea"), ("tea begins", "cup")]
