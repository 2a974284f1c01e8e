"""Verdicts of a teacher: read strictly, counted, and never above what rules know for certain."""

from __future__ import annotations

import json

import pytest

from onereason.cognition.checks.problem import Problem
from onereason.cognition.judge.endpoint import FIRST_VERDICTS, TeacherJudge, parse_scores
from onereason.cognition.judge.traces import SCORES
from onereason.cognition.teachers.base import Draft
from onereason.cognition.teachers.template import TemplateTeacher
from onereason.errors import ConfigError
from tests.cognition.judge_cases import CONTEXT, JUDGE, TRACE

GOOD = {"safety": 1, "consistency": 0.9, "logic": 0.8, "factuality": 1.0, "informativeness": 0.7}


class Speaker:
    """A teacher that says what it is given; a real one stands behind the same two names."""

    name = "endpoint:judge"

    def __init__(self, *drafts: Draft):
        self.drafts = drafts
        self.asked: list[list[dict[str, str]]] = []

    def write(self, assignments):
        self.asked = [assignment.messages() for assignment in assignments]
        return list(self.drafts)

    def summary(self):
        return {}


def said(value) -> Draft:
    return Draft(value if isinstance(value, str) else json.dumps(value))


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        (json.dumps(GOOD), GOOD),
        (f"<think>\nhm\n</think>\n\n```json\n{json.dumps(GOOD)}\n```", GOOD),
        (json.dumps({**GOOD, "reason": "x"}), None),
        (json.dumps({k: v for k, v in GOOD.items() if k != "logic"}), None),
        (json.dumps({**GOOD, "logic": 1.1}), None),
        (json.dumps({**GOOD, "logic": -0.1}), None),
        (json.dumps({**GOOD, "logic": "0.5"}), None),
        (json.dumps({**GOOD, "logic": True}), None),
        (json.dumps({**GOOD, "logic": None}), None),
        ('{"safety": NaN, "consistency": 1, "logic": 1, "factuality": 1, "informativeness": 1}', None),
        (json.dumps([GOOD]), None),
        (json.dumps(GOOD)[:-1], None),
        ("fine", None),
        ("", None),
    ],
)
def test_verdicts_are_read_strictly(text, scores):
    assert parse_scores(text) == scores


def test_scores_of_a_teacher():
    unsafe = TRACE.replace("in the evening", "as the user is pregnant")
    teacher = Speaker(said(GOOD), said(GOOD))
    judge = TeacherJudge(teacher, JUDGE)
    good, bad = judge.judge_all([("r1", TRACE, CONTEXT), ("r2", unsafe, CONTEXT)])
    assert good.scores == GOOD and good.problems == () and good.judge == "endpoint:judge"
    # The model did not see it; the rules did.
    assert bad.scores == {**GOOD, "safety": 0} and [p.reason for p in bad.problems] == ["sensitive_health"]
    assert judge.counts == {"judged": 2}
    system, user = teacher.asked[0]
    assert '{"safety": number' in system["content"] and TRACE in user["content"] and CONTEXT.prompt in user["content"]


@pytest.mark.parametrize(
    ("draft", "reason"),
    [
        (said({**GOOD, "logic": 2}), "judge_malformed"),
        (said("I would say it is fine."), "judge_malformed"),
        (Draft(None, "teacher_unreachable"), "teacher_unreachable"),
        (Draft(None), "judge_malformed"),
    ],
)
def test_a_bad_verdict_falls_back_or_quarantines(draft, reason):
    judge = TeacherJudge(Speaker(draft), JUDGE)
    (verdict,) = judge.judge_all([("r", TRACE, CONTEXT)])
    assert verdict == JUDGE.judge(TRACE, CONTEXT) and judge.counts == {reason: 1}
    judge = TeacherJudge(Speaker(draft), JUDGE, fallback="quarantine")
    (problem,) = judge.judge_all([("r", TRACE, CONTEXT)])
    assert isinstance(problem, Problem) and problem.reason == reason and judge.counts == {reason: 1}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_template_teacher_gives_the_rules_verdict(language):
    judge = TeacherJudge(TemplateTeacher(), JUDGE, language)
    (verdict,) = judge.judge_all([("r", TRACE, CONTEXT)])
    assert verdict.scores == JUDGE.judge(TRACE, CONTEXT).scores and set(verdict.scores) == set(SCORES)
    assert verdict.judge == "template"


def test_an_unknown_fallback_is_refused():
    with pytest.raises(ConfigError, match="fallback 'x' is not known; use rules or quarantine"):
        TeacherJudge(TemplateTeacher(), JUDGE, fallback="x")


class Judging:
    """A teacher whose verdicts are readable where their number is in a set."""

    name = "endpoint:judge"

    def __init__(self, readable: set[int]):
        self.readable, self.asked = readable, []

    def write(self, assignments):
        begun = sum(self.asked)
        self.asked.append(len(assignments))
        numbers = range(begun, begun + len(assignments))
        return [said(GOOD) if number in self.readable else said("It is\nfine.") for number in numbers]


@pytest.mark.parametrize("fallback", ["rules", "quarantine"])
def test_a_judge_whose_first_verdicts_cannot_be_read_ends_the_build_before_it_is_asked_more(fallback):
    teacher = Judging({20})
    judge = TeacherJudge(teacher, JUDGE, fallback=fallback)
    with pytest.raises(ConfigError) as caught:
        judge.judge_all([(f"r{n}", TRACE, CONTEXT) for n in range(50)])
    assert str(caught.value).startswith(
        "none of the first 20 verdicts of the judge endpoint:judge can be read (20 judge_malformed, last: "
        "'It is fine.'). A verdict is a JSON object of the scores safety, consistency, "
    )
    assert teacher.asked == [FIRST_VERDICTS] == [20]
    # few traces a shard are counted together
    judge = TeacherJudge(Judging(set()), JUDGE, fallback=fallback)
    for _ in range(19):
        judge.judge_all([("r", TRACE, CONTEXT)])
    with pytest.raises(ConfigError, match="none of the first 20 verdicts"):
        judge.judge_all([("r", TRACE, CONTEXT)])


def test_whose_verdict_it_was_is_counted():
    judge = TeacherJudge(Judging({19, 30, 31}), JUDGE)
    verdicts = judge.judge_all([(f"r{n}", TRACE, CONTEXT) for n in range(50)])
    by = [verdict.judge for verdict in verdicts]
    assert [n for n, who in enumerate(by) if who == "endpoint:judge"] == [19, 30, 31] and by.count("rules") == 47
    assert judge.take_judged() == {"teacher": 3, "rules": 47} and judge.take_judged() == {}
    # after one that could be read, any number may not be
    judge.judge_all([(f"s{n}", TRACE, CONTEXT) for n in range(50)])
    assert judge.take_judged() == {"rules": 50} and judge.counts == {"judged": 3, "judge_malformed": 97}
    judge = TeacherJudge(Judging({0}), JUDGE, fallback="quarantine")
    judge.judge_all([(f"r{n}", TRACE, CONTEXT) for n in range(5)])
    assert judge.take_judged() == {"teacher": 1}
