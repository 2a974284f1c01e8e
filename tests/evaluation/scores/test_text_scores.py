"""Scores of texts by hand, against a table of the longest common subsequence, and against published tools' figures."""

# ruff: noqa: RUF001
from __future__ import annotations

import time
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.evaluation.scores.text_scores import (
    exact_match,
    extract_choice,
    extract_number,
    lcs_length,
    normalise_text,
    rouge_l_f1,
    split_tokens,
    text_similarity,
    token_f1,
)


def test_tokens_are_runs_of_letters_and_digits_or_single_cjk_characters():
    text = "Größe-XL a_b 短视频12个, テスト 한국어!"
    expected = ["größe", "xl", "a", "b", "短", "视", "频", "12", "个", "テ", "ス", "ト", "한국어"]
    assert split_tokens(text) == expected
    assert split_tokens("，。 !") == []


@pytest.mark.parametrize(
    ("true", "generated", "token", "rouge"),
    [
        # 4 tokens each, 3 shared; "red dress" is the longest common subsequence. google rouge-score says 0.75 and 0.5.
        ("red dress of cotton", "a red cotton dress", 3 / 4, 2 / 4),
        # 5 and 6 tokens, clipped overlap the mat on cat the = 5: 2 * 5 / 11; "the on the": 2 * 3 / 11. rouge-score:
        # 0.909 and 0.545.
        ("the mat on the cat", "the cat sat on the mat", 10 / 11, 6 / 11),
        ("看短视频", "短视频看", 1, 3 / 4),  # 4 characters each; the longest common subsequence is 短视频
        ("ab ab ab", "ab", 2 * 1 / 4, 2 * 1 / 4),  # clipped: 1 of 1 and 1 of 3
        ("Tea", "TEA.", 1, 1),
        ("tea", "", 0, 0),
        ("", "", 0, 0),
    ],
)
def test_overlap_by_hand(true, generated, token, rouge):
    assert token_f1(true, generated) == pytest.approx(token, rel=1e-12)
    assert rouge_l_f1(true, generated) == pytest.approx(rouge, rel=1e-12)
    assert text_similarity(true, generated) == pytest.approx((token + rouge) / 2, rel=1e-12)


def lcs_by_table(first, second):
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("abcd"), max_size=80), st.lists(st.sampled_from("abcd"), max_size=80))
def test_longest_common_subsequence_equals_its_table(first, second):
    assert lcs_length(first, second) == lcs_by_table(first, second)


@settings(max_examples=60, deadline=None)
@given(st.text("ab", max_size=12), st.text("ab", max_size=12))
def test_token_f1_of_characters_equals_a_loop(true, generated):
    spaced = [" ".join(t) for t in (true, generated)]
    shared = sum(min(true.count(c), generated.count(c)) for c in "ab")
    total = len(true) + len(generated)
    assert token_f1(*spaced) == pytest.approx(2 * shared / total if total else 0, rel=1e-12)
    assert Counter(split_tokens(spaced[0])) == Counter(true)


def test_exact_match_passes_over_case_width_punctuation_and_space():
    assert normalise_text("  Ａ Red-dress，好！ ") == "a red dress 好"
    assert exact_match("Red dress.", "red  DRESS") and not exact_match("red dress", "red dresses")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("She pays 3 + 4 = 7.\n#### 7", "7"),
        ("#### 1,234", "1234"),
        ("####\n-5", "-5"),
        ("#### 5\nQuestion: ...\n#### 6", "5"),  # a base model runs on into the next question
        ("#### no idea, maybe 3", "3"),
        ("#### none\nso 9", "9"),
        (r"thus \boxed{42}, not 7", "42"),
        (r"\boxed{1} and then \boxed{\text{total } = \$1{,}234.50}", "1234.50"),
        (r"\boxed{7", "7"),
        ("10-4=6, so 6", "6"),
        ("we get 10-4", "4"),
        ("x = -4", "-4"),
        ("−7", "-7"),
        ("It costs -$5.50.", "-5.50"),
        ("It costs $-5.50.", "-5.50"),
        ("about 50%", "50"),
        ("1,234,567 people", "1234567"),
        ("1, 2 and 3", "3"),
        ("1,2345", "2345"),
        ("half: .5", "0.5"),
        ("no number", None),
        ("", None),
    ],
)
def test_numbers(text, expected):
    assert extract_number(text) == (None if expected is None else Decimal(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", "B"),
        ("**B**.", "B"),
        ("（Ｃ）", "C"),
        ("A, C", "AC"),
        ("C、A", "AC"),
        ("A和D", "AD"),
        ("ACD", "ACD"),
        ("The answer is (B).", "B"),
        ("The correct answer is: **D**", "D"),
        ("The answers are A and C.", "AC"),
        ("The correct option is D", "D"),
        ("answer:\n\nB", "B"),
        ("Answer: A\nB is wrong.", "A"),
        ("First I thought the answer is A, but the answer is C.", "C"),
        ("答案：B", "B"),
        ("正确答案应该是 C。", "C"),
        ("【答案】BD", "BD"),
        ("A和B都不对，故选CD。", "CD"),
        ("不选A，应选B", "B"),
        (r"so \boxed{\text{C}}", "C"),
        (r"\boxed{A, C} although the answer is B", "AC"),
        ("B. because it is red", "B"),
        ("A. red\nC. green", "AC"),
        ("It must be red.\nB", "B"),
        ("A good answer is hard to give", None),
        ("Answer: Because", None),
        ("the answer is not A", None),
        ("I like B best", None),
        ("E", None),
        ("", None),
    ],
)
def test_choices(text, expected):
    assert extract_choice(text) == expected


def test_choices_among_more_options():
    assert extract_choice("The answer is E", options="ABCDE") == "E"
    letters = "ABCDEFGHIJ"
    assert extract_choice("Answer: I", letters) == "I" and extract_choice("I, J", letters) == "IJ"
    assert extract_choice("Answer: B I think", letters) == "B"  # the pronoun is no option
    assert extract_choice("Answer: I'd say B", letters) is None


def test_degenerate_text_takes_linear_time():
    start = time.perf_counter()
    for text in ("answer" + " " * 50_000, r"\boxed{" * 10_000, "A " * 20_000 + "x", "1," * 30_000, "-" * 50_000):
        extract_choice(text)
        extract_number(text)
    assert time.perf_counter() - start < 10
