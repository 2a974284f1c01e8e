"""The Action-Logic score by hand, and its alignment against every alignment there is."""

# ruff: noqa: RUF001
from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.evaluation.scores.action_logic import (
    Event,
    action_similarity,
    align_events,
    parse_logic_chain,
    score_chain,
    split_sub_actions,
)

CHAIN = {
    "name": "tea",
    "events": [
        {"date": "2024-01-02", "action": "搜索：茶", "logic": "想喝茶"},
        {"date": "2024-01-05", "action": "购买：茶杯", "logic": "需要杯子"},
    ],
}
EVENTS = [Event("2024-01-02", "搜索：茶", "想喝茶"), Event("2024-01-05", "购买：茶杯", "需要杯子")]


# -- parsing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        CHAIN,
        [CHAIN],
        [CHAIN, {"name": "other", "events": []}],
        {"logic_chain": CHAIN},
        [{"logic_chain": CHAIN}, {"logic_chain": {"name": "other", "events": []}}],
        {"logic_chain": [CHAIN]},
    ],
)
def test_a_chain_in_every_wrapper(value):
    text = json.dumps(value, ensure_ascii=False)
    assert parse_logic_chain(text) == EVENTS
    assert parse_logic_chain(f"<think>\n[1, 2] {{}}\n</think>\n\n{text}<|im_end|>") == EVENTS
    assert parse_logic_chain(f"```json\n{json.dumps(value, indent=2)}\n```") == EVENTS
    assert parse_logic_chain(f"The chain is:\n```\n{text}\n```\nDone.") == EVENTS


@pytest.mark.parametrize("text", ["[]", '{"logic_chain": []}', '{"events": []}', "```json\n[]\n```"])
def test_no_chain_is_an_answer(text):
    assert parse_logic_chain(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no chain",
        "null",
        "[1]",
        '["events"]',
        '{"name": "tea"}',
        '{"events": "none"}',
        '{"events": ["bought tea"]}',
        '{"logic_chain": null}',
        json.dumps([CHAIN, CHAIN])[:-20],  # cut off
        json.dumps(CHAIN)[:-3],
        "<think>" + json.dumps(CHAIN),  # the think block never closes
        "[" * 100_000,
    ],
)
def test_malformed_chains(text):
    assert parse_logic_chain(text) is None


def test_fields_that_are_missing_or_no_text():
    text = '{"events": {"action": ["搜索：茶", "杯"], "logic": null}}'
    assert parse_logic_chain(text) == [Event("", "搜索：茶；杯", "")]
    assert parse_logic_chain('{"events": [{"date": 20240102}]}') == [Event("20240102", "", "")]


# -- actions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "parts"),
    [
        ("搜索：茶；杯/壶、盘", ["搜索：茶", "搜索：杯", "搜索：壶", "搜索：盘"]),
        ("搜索：茶；观看视频：杯；壶", ["搜索：茶", "观看视频：杯", "搜索：壶"]),  # the first part's kind is carried
        ("茶；搜索：杯；壶", ["茶", "搜索：杯", "壶"]),  # the first part has no kind
        ("[搜索-搜索] 搜索：茶；杯", ["搜索：茶", "搜索：杯"]),
        ("[视频-长播]看：茶；[视频-完播] 看：杯", ["看：茶", "看：杯"]),
        ("搜索：a：b；c", ["搜索：a：b", "搜索：c"]),  # up to the first colon
        ("search: tea; cup, pot", ["search: tea; cup, pot"]),  # only full-width marks split
        (" 茶 ；； / 杯 ", ["茶", "杯"]),
        ("", []),
        ("；/", []),
    ],
)
def test_sub_actions(action, parts):
    assert split_sub_actions(action) == parts


@pytest.mark.parametrize(
    ("true", "generated", "expected"),
    [
        ("搜索：茶；杯", "搜索：杯", 2 / 3),  # 1 of 1, 1 of 2
        ("搜索：茶；杯", "搜索：杯；盘；壶", 2 / 5),  # 1 of 3, 1 of 2
        ("搜索：茶", "观看：茶", 0),
        ("搜索：茶；茶", "搜索：茶", 2 / 3),  # a repeated part matches as often as both have it
        ("搜索：茶；茶", "搜索：茶；茶", 1),
        ("", "", 0),
    ],
)
def test_similarity_of_actions(true, generated, expected):
    assert action_similarity(true, generated) == pytest.approx(expected, rel=1e-12)
    assert action_similarity(generated, true) == pytest.approx(expected, rel=1e-12)


# -- alignment --------------------------------------------------------------------------------------------------------


def all_alignments(n, m):
    for size in range(min(n, m) + 1):
        for rows in combinations(range(n), size):
            for columns in combinations(range(m), size):
                yield list(zip(rows, columns, strict=True))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 4), st.integers(0, 4), st.data())
def test_alignment_is_the_best_of_all(n, m, data):
    values = st.sampled_from([0, 1 / 3, 0.4, 0.5, 2 / 3, 0.8, 1.0])
    similarity = np.array(data.draw(st.lists(values, min_size=n * m, max_size=n * m))).reshape(n, m)
    pairs = align_events(similarity)
    assert pairs in list(all_alignments(n, m))
    total = sum(similarity[pair] for pair in pairs)
    assert total == pytest.approx(max(sum(similarity[p] for p in a) for a in all_alignments(n, m)), abs=1e-9)


def test_alignment_skips_where_that_is_better():
    # 1.0 at (1, 0) beats 0.4 + 0.5 on the diagonal.
    assert align_events(np.array([[0.4, 0.0], [1.0, 0.5]])) == [(1, 0)]
    # Crossing pairs cannot both be taken.
    assert align_events(np.array([[0.0, 0.9], [0.8, 0.0]])) == [(0, 1)]


def test_on_ties_a_match_comes_before_a_skip():
    assert align_events(np.zeros((2, 2))) == [(0, 0), (1, 1)]
    # From the end, (2, 1) ties with a skip, then (1, 0): the first true event is left over.
    assert align_events(np.zeros((3, 2))) == [(1, 0), (2, 1)]
    # (1, 1) has similarity 0 and ties with the skips around (0, 0).
    assert align_events(np.array([[1.0, 0.0], [0.0, 0.0]])) == [(0, 0), (1, 1)]
    # Matching the last two would lose the 1; of two skips that tie, the true event is skipped.
    assert align_events(np.array([[0.0, 1.0], [0.0, 0.0]])) == [(0, 1)]
    assert align_events(np.array([[0.0, 1.0], [1.0, 0.0]])) == [(0, 1)]


def test_a_tie_is_a_tie_although_sums_round_differently():
    similarity = np.array([[0.1, 0.0, 0.5, 0.0], [0.0, 0.2, 0.0, 0.0], [0.0, 0.0, 0.3, 0.1]])
    assert 0.1 + 0.2 + 0.3 > 0.5 + 0.1  # the diagonal, and the match in the last column: both are 0.6
    assert align_events(similarity) == [(0, 2), (2, 3)]


# -- score ------------------------------------------------------------------------------------------------------------

TRUE = [Event("", "搜索：茶；杯", "想 喝 茶"), Event("", "购买：壶", "需要 壶"), Event("", "观看：茶道", "兴趣")]
GENERATED = [Event("", "搜索：茶", "想 茶"), Event("", "观看：茶道", "兴趣 深")]


def test_score_by_hand():
    score = score_chain(TRUE, GENERATED)
    # Actions: (0, 0) has 2/3, (2, 1) has 1: sum 5/3. F1 of (5/3)/2 and (5/3)/3 is 2 (5/3) / (2 + 3) = 2/3.
    assert score.pairs == ((0, 0), (2, 1))
    assert score.action_f1 == pytest.approx(2 / 3, rel=1e-12)
    # Logic: 想喝茶 and 想茶 share 2 of 3 and of 2, also in order: 2 * 2 / 5 = 0.8. 兴趣 and 兴趣深: 2 * 2 / 5 = 0.8.
    # Sum 1.6: 2 * 1.6 / 5 = 0.64.
    assert score.logic_f1 == pytest.approx(0.64, rel=1e-12)
    assert score.entailment_rate is None


def test_logic_mixes_tokens_and_their_order():
    true, generated = [Event("", "a", "买 茶 壶")], [Event("", "a", "壶 买 茶")]
    # Token F1 1, longest common subsequence 2 of 3: (1 + 2/3) / 2.
    assert score_chain(true, generated).logic_f1 == pytest.approx(5 / 6, rel=1e-12)
    assert score_chain(true, generated).action_f1 == 1


def test_logic_counts_on_pairs_whose_actions_differ():
    score = score_chain([Event("", "a", "same")], [Event("", "b", "same")])
    assert score.pairs == ((0, 0),) and score.action_f1 == 0 and score.logic_f1 == 1


def test_entailment_is_the_mean_over_aligned_pairs():
    asked = []

    def entail(premise, hypothesis):
        asked.append((premise, hypothesis))
        return {"想 喝 茶": 0.25, "兴趣": 1.0}[premise]

    assert score_chain(TRUE, GENERATED, entail).entailment_rate == pytest.approx(0.625, rel=1e-12)
    assert asked == [("想 喝 茶", "想 茶"), ("兴趣", "兴趣 深")]  # premise the true logic
    with pytest.raises(ValueError, match=r"entail must return a probability in 0 .. 1, got 1.5"):
        score_chain(TRUE, GENERATED, lambda premise, hypothesis: 1.5)


def never(premise, hypothesis):
    raise AssertionError("no pair is to be judged")


@pytest.mark.parametrize(("true", "generated"), [(TRUE, None), (TRUE, []), ([], GENERATED), ([], None)])
def test_chains_without_a_pair_score_nothing(true, generated):
    score = score_chain(true, generated, never)
    assert (score.action_f1, score.logic_f1, score.entailment_rate, score.pairs) == (0, 0, 0, ())
    assert score_chain(true, generated).entailment_rate is None


def test_an_empty_answer_is_right_where_there_is_no_chain():
    score = score_chain([], [], never)
    assert (score.action_f1, score.logic_f1, score.entailment_rate) == (1, 1, 1)


def test_a_chain_against_itself_is_perfect():
    score = score_chain(EVENTS, EVENTS, lambda premise, hypothesis: float(premise == hypothesis))
    assert (score.action_f1, score.logic_f1, score.entailment_rate) == (1, 1, 1)
