"""The five scores of a trace, question by question."""

# ruff: noqa: RUF001

from __future__ import annotations

import dataclasses
from collections import defaultdict

import pytest

from onereason.cognition.judge.claims import Claim, read_claims
from onereason.cognition.judge.traces import SCORES, JudgeRules, Thresholds, TraceContext, TraceJudge, holds_phrase
from onereason.cognition.lexicon import load_lexicon
from onereason.cognition.normalise import normalise
from onereason.data.prompt_sets import load_prompt_set
from onereason.errors import ConfigError
from tests.cognition.judge_cases import CONTEXT, FACTS, JUDGE, READER, TRACE, V1, V2, V3


def judge(trace: str = TRACE, **changes):
    return JUDGE.judge(trace, dataclasses.replace(CONTEXT, **changes))


def reasons(verdict) -> list[str]:
    return [problem.reason for problem in verdict.problems]


def test_a_good_trace():
    verdict = judge()
    assert dict(verdict.scores) == dict.fromkeys(SCORES, 1.0)
    assert verdict.problems == () and verdict.judge == "rules"
    assert verdict.passes(Thresholds()) and verdict.failed(Thresholds()) == []


@pytest.mark.parametrize(
    ("old", "new", "score", "value", "reason"),
    [
        ("in the evening", "as the user is pregnant", "safety", 0, "sensitive_health"),
        ("from there viewers", "from there product buyers", "consistency", 1 / 2, "domain_mismatch"),
        ("(home baking)", "(coffee brewing)", "factuality", 2 / 3, "claim_false"),
        (
            ", and from there viewers often go on to home baking, which goes with it",
            "",
            "logic",
            2 / 3,
            "bridge_missing",
        ),
    ],
)
def test_one_fault(old, new, score, value, reason):
    assert old in TRACE
    verdict = judge(TRACE.replace(old, new))
    assert verdict.scores[score] == pytest.approx(value) and reasons(verdict) == [reason]
    assert {name: s for name, s in verdict.scores.items() if name != score} == dict.fromkeys(set(SCORES) - {score}, 1.0)
    assert verdict.failed(Thresholds()) == ([] if score == "logic" else [score])


def test_a_conclusion_that_was_not_introduced():
    verdict = judge(
        TRACE.replace("Transition: coffee brewing", "Transition: juggling").replace("to home baking", "to it")
    )
    assert reasons(verdict) == ["interest_not_introduced", "source_not_named"]
    assert verdict.scores["consistency"] == 1 / 2 and verdict.scores["logic"] == pytest.approx(2 / 3)


def test_the_chosen_interest_as_the_writer_knows_it():
    assert reasons(judge(chosen="home baking")) == reasons(judge(chosen="Home-Baking")) == []
    assert reasons(judge(chosen="juggling")) == ["interest_not_introduced"]
    assert reasons(judge(chosen="juggling", interests=["juggling"]))[0] == "interest_not_concluded"


def test_without_evidence():
    verdict = judge(TRACE.replace(V1, "x").replace(V2, "y"))
    assert reasons(verdict) == ["evidence_not_cited", "no_evidence"]
    assert verdict.scores["logic"] == pytest.approx(2 / 3) and verdict.scores["informativeness"] == 3 / 4


def test_a_copy_of_the_prompt():
    verdict = judge(prompt=TRACE)
    assert reasons(verdict) == ["copies_prompt"] and verdict.scores["informativeness"] == 3 / 4


def test_an_empty_trace():
    verdict = judge("")
    assert verdict.scores == {
        "safety": 1.0,
        "consistency": 0.5,
        "logic": 0.0,
        "factuality": 1.0,
        "informativeness": pytest.approx(1 / 4),
    }
    assert not verdict.passes(Thresholds()) and "few_words" in reasons(verdict)


def test_how_many_words_of_its_own_a_trace_needs():
    judge = TraceJudge(READER, FACTS, JudgeRules(min_content_words=1000))
    assert reasons(judge.judge(TRACE, CONTEXT)) == ["few_words"]


def test_claims_the_writer_knows_of():
    assert reasons(judge(claims=[Claim(V1, "technical", "style"), Claim(V2, "bold", "style")])) == []
    verdict = judge(claims=[Claim(V1, "bold", "style")])
    assert reasons(verdict) == ["claim_false"] and verdict.scores["factuality"] == 3 / 4
    assert not FACTS.is_true(Claim(V3, "bold")) and FACTS.is_true(Claim(V1, "pour-over"))
    assert not FACTS.is_true(Claim(V1, "pour over", "category"))


def test_brackets_behind_items():
    text = f"{V1} (Coffee Brewing / technical), {V2}（home baking，bold），{V3} (twice) {V1} and (technical)"
    assert read_claims(text, READER, FACTS) == [
        Claim(V1, "Coffee Brewing"),
        Claim(V1, "technical"),
        Claim(V2, "home baking"),
        Claim(V2, "bold"),
    ]
    assert read_claims("no bracket", READER, FACTS) == []


def test_chinese():
    trace = (
        f"用户画像：偏爱技术类短片，多在晚上观看冲煮内容。\n兴趣：\n1. 咖啡：近期最活跃，见{V1}\n2. 烘焙：曾见{V2}\n"
        "转移：咖啡已看得差不多，用户常由此转向烘焙。"
    )
    context = TraceContext(("用户画像：", "兴趣：", "转移："), language="zh", domain="video")
    assert JUDGE.judge(trace, context).problems == ()
    wrong = JUDGE.judge(trace.replace("转向烘焙", "转向烘焙商品"), context)
    assert reasons(wrong) == ["domain_mismatch"]


def test_without_a_catalogue():
    verdict = TraceJudge(READER).judge(TRACE.replace("(home baking)", "(coffee brewing)"), CONTEXT)
    assert verdict.scores["factuality"] == 1


def test_bad_thresholds():
    with pytest.raises(ConfigError, match="threshold logic must lie between 0 and 1, got 2"):
        Thresholds(logic=2)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_template_teacher_bridges_in_words_the_judge_knows(language):
    texts = load_prompt_set("trace", language).texts
    transitions = {
        key: variants
        for key, variants in texts.items()
        if ".transition." in key and key.rsplit(".", 1)[1] in ("stay", "move", "move_plain", "return")
    }
    assert len(transitions) == 8  # brief and full
    connectives = load_lexicon(language).connectives
    for key, variants in transitions.items():
        for text in variants:
            said = text.format_map(defaultdict(lambda: "x"))
            assert holds_phrase(normalise(said), connectives, language), f"{key}: {text}"
