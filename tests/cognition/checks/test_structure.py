"""The form of a trace."""

# ruff: noqa: RUF001

from __future__ import annotations

import pytest

from onereason.cognition.checks.patterns import PatternReader
from onereason.cognition.checks.structure import (
    TraceForm,
    candidate_name,
    check_structure,
    count_approximate_tokens,
    count_characters,
    count_words,
    list_candidates,
    split_stages,
)
from onereason.errors import ConfigError
from onereason.itemic.format import PRESETS

HEADINGS = ("Persona:", "Interests:", "Transition:")
ITEM = "<|video_begin|><s_a_1><s_b_2><s_c_3>"
TRACE = f"""Persona: keeps to coffee.
Interests:
1. coffee brewing: as in {ITEM}
2. home baking, seen before
3. street food
Transition: coffee leads on to baking."""
FORM = TraceForm(HEADINGS, min_candidates=2, max_candidates=3, min_length=5, max_length=60)
READER = PatternReader(PRESETS["onereason"])


def reasons(trace: str, form: TraceForm = FORM) -> list[str]:
    return [problem.reason for problem in check_structure(trace, form, READER)]


def test_a_good_trace():
    assert reasons(TRACE) == []
    assert split_stages(TRACE, HEADINGS) == [
        "keeps to coffee.",
        f"1. coffee brewing: as in {ITEM}\n2. home baking, seen before\n3. street food",
        "coffee leads on to baking.",
    ]


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        ("", ["trace_empty"]),
        (" \n", ["trace_empty"]),
        (TRACE.replace("Persona:", "User:"), ["stage_missing"]),
        (TRACE.replace("Persona: ", "So Persona: "), ["stage_missing"]),  # not at the start of a line
        (TRACE + "\nPersona: again.", ["stage_repeated"]),
        (TRACE.replace("keeps to coffee.", "..."), ["stage_empty"]),
        (TRACE.replace("Transition:", "Persona:", 1).replace("Persona:", "Transition:", 1), ["stage_order"]),
        (TRACE.replace("2. home baking, seen before\n3. street food\n", ""), ["candidates_few"]),
        (TRACE.replace("3. street food", "3. street food\n4. tea"), ["candidates_many"]),
        (TRACE + " word" * 60, ["trace_long"]),
        (TRACE + " <|im_end|>", ["control_tokens"]),
        (TRACE + "\n</think>", ["control_tokens"]),
        (f"<think>\n{TRACE}", ["control_tokens"]),
        (TRACE.replace("<s_b_2>", ""), ["stray_tokens"]),
        (TRACE + " <s_a_1>", ["stray_tokens"]),
        (TRACE + " <|video_begin|>", ["stray_tokens"]),
        (TRACE + " <s_a_9999><s_b_1><s_c_1>", ["stray_tokens"]),
        (TRACE + " <b>bold</b> a < b", []),
        (TRACE.replace("Persona:", "**Persona:**").replace("Interests:", "## Interests:"), []),
    ],
)
def test_problems(trace, expected):
    assert reasons(trace) == expected


def test_short_traces():
    form = TraceForm(HEADINGS, min_length=200)
    assert reasons(TRACE, form) == ["trace_short"]


def test_an_end_token_that_the_format_does_not_write_is_no_stray():
    assert reasons(TRACE.replace("<s_c_3>", "<s_c_3><|video_end|>")) == []


def test_chinese():
    headings = ("用户画像：", "兴趣：", "转移：")
    trace = f"用户画像：多看咖啡。\n兴趣：\n1. 咖啡：近期，见{ITEM}\n（2） 烘焙\n3、小吃\n转移：由咖啡引向烘焙。"
    stages = split_stages(trace, headings)
    assert stages[0] == "多看咖啡。" and stages[2] == "由咖啡引向烘焙。"
    assert [candidate_name(c) for c in list_candidates(stages[1])] == ["咖啡", "小吃"]
    assert reasons(trace, TraceForm(headings, min_candidates=2)) == []


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("1. coffee brewing: alive", "coffee brewing"),
        ("2) **home baking**, seen", "home baking"),
        ("- street food", "street food"),
        ("* Dr. Who fans", "Dr"),  # a full stop ends a name
        ("\u2022 tea (green)", "tea"),
        ("(3) cake - with cream", "cake"),
        ("① 茶，绿茶", "茶"),
    ],
)
def test_candidates(line, name):
    assert [candidate_name(c) for c in list_candidates(f"intro\n {line}\n12 more")] == [name]


def test_lengths():
    assert count_characters("ab c") == 4
    assert count_words("Red-hot tea, 红茶") == 5
    # Red - hot tea , 红 茶, the item's four tokens
    assert count_approximate_tokens(f"Red-hot tea, 红茶{ITEM}") == 7 + 4
    assert count_approximate_tokens("incomprehensibilities 2025") == 2 + 4


def test_bad_forms():
    with pytest.raises(ConfigError, match="headings must be distinct"):
        TraceForm(("A:", "A:", "B:"))
    with pytest.raises(ConfigError, match=r"candidates_in \(3\) must be a stage of 3"):
        TraceForm(HEADINGS, candidates_in=3)
    with pytest.raises(ConfigError, match=r"min_candidates \(4\)"):
        TraceForm(HEADINGS, min_candidates=4, max_candidates=3)


def test_a_form_without_candidates_or_reader():
    form = TraceForm(("A:", "B:"), candidates_in=None)
    assert check_structure("A: one\nB: <s_a_1>", form) == []
