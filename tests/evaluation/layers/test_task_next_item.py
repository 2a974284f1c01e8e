"""The next item, written freely: the shape of an answer, its scores, and what is measured of the trace before it."""

# ruff: noqa: RUF001

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onereason.cognition.trace import load_headings
from onereason.data.prompts import MODES, RecommendationPrompt, recommendation_messages
from onereason.errors import DataError
from onereason.evaluation.layers.generation import THINK_OPENING, Generation, render_prompt
from onereason.evaluation.layers.report import layer_tables, render_layer_report
from onereason.evaluation.layers.rows import bind_format, parse_row
from onereason.evaluation.layers.scoring import aggregate, score_answers
from onereason.evaluation.layers.tasks.base import EvaluationRow
from onereason.evaluation.layers.tasks.next_item import TASK, build_messages
from onereason.evaluation.scores.metrics import paired_bootstrap
from onereason.itemic.format import load_format
from onereason.model.folder import load_tokenizer_folder

FORMAT = load_format("onereason", 2, 8)
SEEN = ["<|video_begin|><s_a_0><s_b_0>", "<|prod_begin|><s_a_0><s_b_1>", "<|video_begin|><s_a_3><s_b_4>"]
TRUE = "<|prod_begin|><s_a_1><s_b_2>"
HEADINGS = list(load_headings())


def row(row_id: str = "r", format=FORMAT, history=SEEN, pattern: str = TRUE, **reference) -> EvaluationRow:
    messages = build_messages("".join(history), "prod", format)
    return EvaluationRow(row_id, "next_item", messages, {"pattern": pattern} | reference, format=format)


def score(text: str, asked: EvaluationRow | None = None) -> list[float] | None:
    """`pass_at_1`, `in_domain`, `first_code` of an answer; None where it is malformed."""
    asked = asked or row()
    extraction = TASK.extract(text, asked)
    if extraction.malformed:
        return None
    scores = TASK.score(extraction, asked)
    assert tuple(scores) == TASK.metrics == ("pass_at_1", "in_domain", "first_code")
    return list(scores.values())


# -- the question ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_question_is_the_recommenders_without_its_switch(language):
    system, user = build_messages("<h>", "prod", FORMAT, language)
    asked = recommendation_messages("<h>", "prod", FORMAT, "no_think", language)
    assert system == asked[0]
    assert user == {"role": "user", "content": asked[1]["content"].removesuffix(" /no_think")}
    assert not user["content"].endswith("think")


@pytest.mark.parametrize("mode", MODES)
def test_a_model_is_asked_in_the_recommenders_very_words(model_dir, mode):
    folder = load_tokenizer_folder(model_dir)
    prompt = RecommendationPrompt(folder.tokenizer, folder.vocabulary, mode=mode)
    opening = THINK_OPENING if mode == "think" else ""
    assert render_prompt(row(), mode, folder.tokenizer) == prompt.render("".join(SEEN), "prod") + opening


# -- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        (TRUE, [1, 1, 1]),
        (f"\n {TRUE} \n", [1, 1, 1]),
        (f"{TRUE}<|prod_end|>", [1, 1, 1]),  # a token the format owns and does not write
        ("<|prod_begin|><s_a_1><s_b_3>", [0, 1, 1]),
        ("<|prod_begin|><s_a_2><s_b_2>", [0, 1, 0]),
        ("<|video_begin|><s_a_1><s_b_2>", [0, 0, 1]),  # the right codes of another domain's item
        ("<|ad_begin|><s_a_0><s_b_2>", [0, 0, 0]),
    ],
)
def test_scores(text, scores):
    assert score(text) == scores


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the red one",
        f"It is {TRUE}",
        f"{TRUE}.",
        f"{TRUE}{TRUE}",
        f"{TRUE}\n{SEEN[0]}",
        "<|prod_begin|><s_a_1>",
        "<s_a_1><s_b_2>",
        "<|prod_begin|><s_b_2><s_a_1>",
        "<|prod_begin|><s_a_8><s_b_2>",  # no such code
        f"{TRUE}<s_b_2>",
        f"{TRUE}<|video_end|>",
        f"{TRUE} <|prod_end|>",  # the end token stands apart
        f"<|prod_begin|>{TRUE}",
    ],
)
def test_answers_that_are_not_one_pattern_and_nothing_else_are_malformed(text):
    assert score(text) is None


def test_formats_whose_tokens_tell_no_domains_apart():
    bare = load_format("minionerec", 2, 8)
    asked = row(format=bare, history=["<a_0><b_0>"], pattern="<a_1><b_2>")
    assert score("<a_1><b_2>", asked) == [1, 1, 1]
    assert score("<a_1><b_3>", asked) == [0, 1, 1]
    assert score("<a_1><b_2><a_1>", asked) is None
    closed = load_format("openonerec", 2, 8)
    pattern = "<|sid_begin|><s_a_1><s_b_2><|sid_end|>"
    asked = row(format=closed, history=[pattern], pattern=pattern)
    assert score(pattern, asked) == [1, 1, 1]
    assert score(pattern.removesuffix("<|sid_end|>"), asked) is None  # this format writes its end


# -- traces ---------------------------------------------------------------------------------------------------------


def trace(persona: str = "likes tea.", interests: str = f"1. tea, live: {SEEN[0]}", transition: str = "tea holds."):
    return f"Persona: {persona}\nInterests:\n{interests}\nTransition: {transition}"


def trace_scores(text: str, asked: EvaluationRow | None = None) -> tuple[float | None, float | None]:
    scores = TASK.score_trace(text, asked or row(headings=HEADINGS))
    assert tuple(scores) == TASK.trace_metrics == ("trace_in_form", "cited_in_history")
    return scores["trace_in_form"], scores["cited_in_history"]


@pytest.mark.parametrize(
    ("text", "in_form"),
    [
        (trace(), 1),
        (trace(interests="tea"), 1),  # a list is not asked for
        (trace(persona="word " * 5000), 1),  # nor a length: the budget bounds it
        (trace(persona=""), 0),
        (trace(transition=" ."), 0),
        (trace().replace("Transition: ", ""), 0),
        (trace().replace("\nTransition:", " Transition:"), 0),  # within a line
        ("Interests: tea\nPersona: likes tea\nTransition: tea holds", 0),
        (f"{trace()}\nTransition: tea holds", 0),
        (trace().replace("holds", "holds <|im_start|>"), 0),
        ("they like tea", 0),
        ("", 0),  # asked to think, and did not
    ],
)
def test_a_trace_is_in_form_where_its_stages_stand_in_order_each_once(text, in_form):
    assert trace_scores(text)[0] == in_form


def test_the_form_is_that_of_the_rows_headings():
    chinese = row(headings=list(load_headings("zh")))
    text = "用户画像：爱喝茶。\n兴趣：\n1. 茶\n转移：茶仍在继续。"
    assert trace_scores(text, chinese)[0] == 1 and trace_scores(text)[0] == 0
    assert trace_scores(trace(), row())[0] is None  # a row without headings asks for no form


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        (f"{SEEN[0]} and {SEEN[2]}", 1),
        (f"{SEEN[0]}<|video_end|> and {SEEN[2]}", 1),
        (f"{SEEN[0]} {TRUE}", 1 / 2),  # the other item is not shown
        (f"{SEEN[0]} {SEEN[0]} {TRUE}", 1 / 2),  # a citation counts once
        (f"{SEEN[0]} {TRUE} <s_a_3> <|prod_begin|>", 1 / 4),  # two runs that are no pattern
        ("<|prod_begin|><s_a_0><s_b_0>", 0),  # the codes of an item shown, of another domain
        ("<s_a_0><s_b_0>", 0),
        ("they like tea", None),
        ("", None),
    ],
)
def test_citations_are_looked_up_in_the_question(text, cited):
    assert trace_scores(text)[1] == cited


# -- tables ---------------------------------------------------------------------------------------------------------


def answer(row_id: str, mode: str, text: str) -> Generation:
    return Generation(row_id, mode, text, 7, 10, 0.5, False, False)


def thought(text: str, item: str) -> str:
    return f"<think>\n{text}\n</think>\n\n{item}"


def test_traces_are_measured_in_mode_think_only_whatever_the_answer_is():
    rows = [row(f"r{i}", headings=HEADINGS) for i in range(3)]
    texts = [thought(trace(), TRUE), thought("tea", f"It is {TRUE}"), thought(f"{SEEN[0]} {TRUE}", SEEN[0])]
    answers = [answer(f"r{i}", "think", text) for i, text in enumerate(texts)]
    answers += [answer(f"r{i}", "no_think", thought("", TRUE)) for i in range(3)]
    scored, reasons = score_answers(rows, answers)
    assert [dict(s.scores) for s in scored] == [
        {"pass_at_1": 1, "in_domain": 1, "first_code": 1, "trace_in_form": 1, "cited_in_history": 1},
        {"pass_at_1": 0, "in_domain": 0, "first_code": 0, "trace_in_form": 0, "cited_in_history": None},
        {"pass_at_1": 0, "in_domain": 0, "first_code": 0, "trace_in_form": 0, "cited_in_history": 0.5},
        *[{"pass_at_1": 1, "in_domain": 1, "first_code": 1}] * 3,
    ]
    table = aggregate(scored, reasons, 0)["next_item"]
    assert (table["layer"], table["version"]) == ("R3", 1)
    assert {mode: found["counts"]["malformed"] for mode, found in table["modes"].items()} == {"no_think": 0, "think": 1}
    assert list(table["modes"]["no_think"]["metrics"]) == list(table["difference"]) == list(TASK.metrics)
    found = table["modes"]["think"]["metrics"]
    assert list(found) == [*TASK.metrics, *TASK.trace_metrics]
    value, low, high = paired_bootstrap(np.array([1.0, 0.5]), np.zeros(2), 0)  # the second row cites nothing
    assert found["cited_in_history"] == {"value": value, "low": low, "high": high, "rows_without_value": 1}
    assert value == 0.75 and found["trace_in_form"]["value"] == pytest.approx(1 / 3)
    assert found["trace_in_form"]["rows_without_value"] == 0

    results = {"tasks": {"next_item": table}, "lm_eval": {}, "manifest": {"inputs": {}}}
    [(layer, lines)] = layer_tables(results, intervals=False)
    assert layer == "R3" and lines[0] == ["next_item", "pass_at_1", "1.000", "0.333", "-0.667", "0%/33%"]
    assert lines[3:] == [
        ["next_item", "trace_in_form", "-", "0.333", "-", "0%/33%"],
        ["next_item", "cited_in_history", "-", "0.750", "-", "0%/33%"],
    ]
    report = render_layer_report(results, scored)
    assert "## R3 Recommendation: the next item, written freely" in report
    assert "- next_item cited_in_history (think): 1 of 3 rows have none, and do not count." in report
    assert "| think: answer | `It is <|prod_begin|><s_a_1><s_b_2>` (malformed) |" in report.replace("\\|", "|")


def test_where_no_trace_cites_anything_the_table_says_so():
    scored, _ = score_answers([row()], [answer("r", "think", thought("tea", TRUE))])
    metrics = aggregate(scored, {}, 0)["next_item"]["modes"]["think"]["metrics"]
    nothing = {"value": None, "reason": "none of the 1 rows has a trace with something to score"}
    assert metrics["cited_in_history"] == metrics["trace_in_form"] == nothing
    assert metrics["pass_at_1"]["value"] == 1


# -- rows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"pattern": "<|prod_begin|><s_a_1>"}, "is not one item of the model's format 'onereason'"),
        ({"pattern": TRUE + TRUE}, "is not one item of the model's format 'onereason'"),
        ({"headings": "Persona:"}, "reference.headings must be a list of distinct non-empty strings, is 'Persona:'"),
        ({"headings": []}, r"reference.headings must be a list of distinct non-empty strings, is \[\]"),
        ({"headings": ["a", "a"]}, "reference.headings must be a list of distinct non-empty strings"),
        ({"headings": ["a", ""]}, "reference.headings must be a list of distinct non-empty strings"),
    ],
)
def test_references_that_cannot_be_scored_are_refused(reference, message):
    asked = row(headings=HEADINGS)
    bad = replace(asked, reference={**asked.reference, **reference})
    with pytest.raises(DataError, match=message):
        bind_format([bad], FORMAT)
    assert bind_format([asked], FORMAT) == [asked]


def test_a_row_needs_its_pattern():
    record = {"id": "r", "task": "next_item", "messages": [{"role": "user", "content": "?"}], "reference": {}}
    with pytest.raises(DataError, match=r"'reference.pattern' is missing; task 'next_item' needs a non-empty string"):
        parse_row(record, "row 1")
