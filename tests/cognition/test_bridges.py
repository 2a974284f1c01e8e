"""One-hop pairs: what stands next, what stands near, what is searched for; the kind of each hop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.cognition.associations import flatten_histories
from onereason.cognition.bridges import (
    BRIDGE_TYPES,
    ORIGINS,
    PairRules,
    Pairs,
    _price,
    _prices,
    classify_hops,
    find_pairs,
    find_searches,
    judge_pairs,
)
from onereason.cognition.judge.relations import RELATIONS
from tests.cognition_worlds import make_facts, make_knowledge

TEA, TENTS, TRAINS, TOYS = range(4)


def histories(*lists: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return flatten_histories([np.array(h, dtype=np.int64) for h in lists])


def told(pairs: Pairs, origin: str) -> dict[tuple[int, int], tuple[int, float, int, str]]:
    """(source, target) -> count, lift, support, type of the pairs of one origin."""
    of = pairs.select(np.flatnonzero(pairs.origins == ORIGINS.index(origin)))
    values = zip(of.counts, of.lifts, of.supports, of.types, strict=True)
    return {
        (int(s), int(t)): (int(c), round(float(lift), 6), int(n), BRIDGE_TYPES[k])
        for s, t, (c, lift, n, k) in zip(of.sources, of.targets, values, strict=True)
    }


# -- pairs ----------------------------------------------------------------------------------------------------------


def test_pairs_carry_how_often_their_interests_go_together():
    known = make_knowledge([TEA, TENTS, TENTS, TRAINS])
    found = find_pairs(known, *histories([0, 1, 3], [0, 2], [3, 0]), rules=PairRules(window=1))
    # tea -> tents twice, tents -> trains once, trains -> tea once: four hops. By chance tea -> tents would be 2 x 2 / 4
    # and the others 1 x 1 / 4; a hop seen once and never back is no direction yet
    assert told(found, "next") == {
        (0, 1): (1, 2.0, 2, "continuation"),
        (0, 2): (1, 2.0, 2, "continuation"),
        (1, 3): (1, 4.0, 1, "complement"),
        (3, 0): (1, 4.0, 1, "complement"),
    }
    # both ways there are eight: tea and tents with 3 each, 2 of them together; from tents to tea nobody goes first
    lift = round(2 * 8 / (3 * 3), 6)
    near = told(found, "window")
    assert near[0, 1] == (1, lift, 2, "continuation") and near[1, 0] == (1, lift, 2, "complement")


def test_within_one_interest_the_themes_are_counted():
    # videos of tea and products of cups serve one interest
    facts = make_facts(
        [("video", {"category": "tea"}), ("prod", {"category": "cups"}), ("video", {"category": "tents"})]
    )
    known = make_knowledge([TEA, TEA, TENTS])
    known = replace(known, facts=facts)
    found = find_pairs(known, *histories([0, 1], [0, 1], [1, 2], [2, 0]), rules=PairRules(window=1))
    # tea -> cups 2, cups -> tents 1, tents -> tea 1: by chance 2 x 2 / 4 = 1 of tea -> cups
    assert told(found, "next")[0, 1] == (2, 2.0, 2, "cross_domain")
    # between interests the interests are: from tea and cups 3 hops go out, to tents 1 comes in, 3 x 1 / 4 by chance
    assert told(found, "next")[1, 2][1:3] == (round(1 * 4 / (3 * 1), 6), 1)


def test_partners_are_those_seen_most_often_then_the_lower_number():
    known = make_knowledge([TEA] * 5)
    lists = [[0, 3], [0, 3], [0, 4], [0, 1], [0, 2]]
    found = find_pairs(known, *histories(*lists), rules=PairRules(partners=2))
    assert list(told(found, "next")) == [(0, 3), (0, 1)]
    kept = find_pairs(known, *histories(*lists), rules=PairRules(min_count=2))
    assert list(told(kept, "next")) == [(0, 3)]


def test_searches_are_pairs_and_an_item_that_leads_to_itself_takes_no_place():
    known = make_knowledge([TEA, TENTS])
    searches = (np.array([0, 0, 0]), np.array([0, 0, 1]))
    found = find_pairs(known, *histories([0, 1]), searches, PairRules(partners=1))
    # of the searches two stay with tea and one goes to tents: 1 x 3 / (3 x 1)
    assert told(found, "search") == {(0, 1): (1, 1.0, 1, "cross_category")}


def test_items_without_a_theme_have_no_lift():
    known = make_knowledge([TEA, -1])
    assert told(find_pairs(known, *histories([0, 1])), "next") == {(0, 1): (1, 0.0, 0, "cross_category")}
    both = make_knowledge([-1, -1])
    assert told(find_pairs(both, *histories([0, 1])), "next") == {(0, 1): (1, 0.0, 0, "cross_category")}


def test_without_events_there_are_no_pairs():
    known = make_knowledge([TEA, TENTS])
    assert len(find_pairs(known, *histories())) == len(find_pairs(known, *histories([0], [], [1]))) == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), max_size=7), min_size=1, max_size=6), st.integers(1, 3))
def test_pairs_are_those_of_a_plain_loop(lists, window):
    interests = [TEA, TEA, TENTS, TENTS, TRAINS, -1]
    known = make_knowledge(interests)
    found = find_pairs(known, *histories(*lists), rules=PairRules(window=window, partners=9))
    counts = {"next": np.zeros((6, 6)), "window": np.zeros((6, 6))}
    for history in lists:
        for i in range(len(history)):
            for j in range(i + 1, min(i + window + 1, len(history))):
                a, b = history[i], history[j]
                if a != b:
                    counts["next"][a, b] += j == i + 1
                    counts["window"][a, b] += 1
                    counts["window"][b, a] += 1
    keys = list(zip(found.sources.tolist(), found.origins.tolist(), (-found.counts).tolist(), strict=True))
    assert keys == sorted(keys)
    for origin, table in counts.items():
        expected = {}
        grouped = np.zeros((3, 3))
        for a in range(5):
            for b in range(5):
                grouped[interests[a], interests[b]] += table[a, b]
        for a, b in zip(*np.nonzero(table), strict=True):
            left, right = interests[a], interests[b]
            known_pair = left >= 0 and right >= 0
            chance = grouped[left].sum() * grouped[:, right].sum() if known_pair else 0
            lift = grouped[left, right] * grouped.sum() / chance if known_pair else 0.0
            expected[int(a), int(b)] = (table[a, b], round(lift, 6), grouped[left, right] if known_pair else 0)
        assert {pair: value[:3] for pair, value in told(found, origin).items()} == expected


# -- kinds of hops --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("same", "crosses", "dearer", "tied", "forward", "kind"),
    [
        (True, True, True, True, True, "cross_domain"),
        (True, False, True, True, True, "upgrade"),
        (True, False, False, True, True, "alternative"),
        (False, True, True, True, True, "continuation"),
        (False, False, True, True, False, "complement"),
        (False, True, True, False, True, "cross_category"),
    ],
)
def test_the_kind_of_a_hop(same, crosses, dearer, tied, forward, kind):
    flags = (np.array([flag]) for flag in (same, crosses, dearer, tied, forward))
    assert BRIDGE_TYPES[classify_hops(*flags)[0]] == kind


def test_kinds_follow_from_domains_prices_and_directions():
    of = [
        ("video", {"price": "low"}),
        ("video", {"price": "high"}),
        ("prod", {}),
        ("video", {}),
        ("video", {}),
        ("ad", {}),
    ]
    facts = make_facts([(domain, {"category": "all", **price}) for domain, price in of])
    known = replace(make_knowledge([TEA, TEA, TEA, TENTS, TRAINS, TOYS]), facts=facts)

    def kinds(*lists: list[int]) -> dict[tuple[int, int], str]:
        found = told(find_pairs(known, *histories(*lists)), "next")
        return {pair: kind for pair, (_, _, _, kind) in found.items()}

    assert kinds([0, 1], [1, 0], [0, 2]) == {(0, 1): "upgrade", (1, 0): "alternative", (0, 2): "cross_domain"}
    # of five hops three lead from tea to tents, by chance 3 x 3 / 5; one leads to trains and one back from there
    assert kinds([0, 3], [1, 3], [2, 3], [4, 5], [5, 4]) == {
        (0, 3): "continuation",
        (1, 3): "continuation",
        (2, 3): "continuation",
        (4, 5): "complement",
        (5, 4): "complement",
    }
    # each of two leads to each of two as often as chance has it: a lift of 1
    assert set(kinds([0, 3], [0, 5], [4, 3], [4, 5]).values()) == {"cross_category"}


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("low", 1.0),
        (" Premium ", 3.0),
        ("12", 12.0),
        ("12.50", 12.5),
        ("$ 12.50", 12.5),
        ("¥1,299.00", 1299.0),
        ("1,299,000", 1299000.0),
    ],
)
def test_prices_are_words_or_amounts(text, price):
    assert _price(text) == price


@pytest.mark.parametrize("text", ["12,50", "10-20", "dear", "nan", "inf", "", "1,29", "-3"])
def test_what_is_no_price_is_unknown(text):
    assert np.isnan(_price(text))


def test_the_first_price_that_can_be_read_counts():
    of = [{"price": "12"}, {"price": "5", "price_range": "high"}, {"price": "dear", "price_range": "high"}, {}]
    known = replace(make_knowledge([TEA] * 4), facts=make_facts([("video", a) for a in of]))
    assert _prices(known).tolist() == [12.0, 5.0, 3.0, pytest.approx(float("nan"), nan_ok=True)]


# -- judging --------------------------------------------------------------------------------------------------------


def test_pairs_are_judged_by_what_bridges_them():
    # tea leads to tents more often than events go there (0.9 > 0.2), to trains less often (0.1 < 0.2)
    known = make_knowledge([TEA, TEA, TENTS, TRAINS, -1], {(TEA,): [(TENTS, 0.9), (TRAINS, 0.1)]})
    sources, targets = np.array([0, 0, 2, 0, 3, 0, 4]), np.array([1, 2, 0, 3, 0, 4, 0])
    many, lifts = np.full(7, 50), np.full(7, 1.6)
    pairs = Pairs(sources, targets, np.zeros(7, int), many, lifts, many, np.zeros(7, int))
    # one interest; a lead, and the way back of it; no bridge, either way; without an interest on one side
    assert [RELATIONS[c] for c in judge_pairs(known, pairs)] == [
        "explicitly_related",
        "explicitly_related",
        "explicitly_related",
        "uncertain",
        "uncertain",
        "unrelated",
        "unrelated",
    ]


# -- searches -------------------------------------------------------------------------------------------------------


def test_searches_come_of_the_play_before_them():
    #        user 0                                  | user 1
    actions = ["play", "search", "play", "search", "search", "search", "play", "search"]
    times = np.array([0, 10, 20, 90, 91, 0, 5, 6])
    before, after = find_searches(np.arange(8), np.array([0, 5, 8]), times, actions, ["search", "look"], seconds=30)
    # 3 comes 70 seconds after 2; 4 comes of a search; 5 is the first of its user
    assert list(zip(before.tolist(), after.tolist(), strict=True)) == [(0, 1), (6, 7)]


def test_without_searches_there_are_none():
    before, after = find_searches(np.arange(2), np.array([0, 2]), np.zeros(2), ["play", "play"], ["search"], 30)
    assert len(before) == len(after) == 0
    before, after = find_searches(np.zeros(0, int), np.array([0]), np.zeros(0), [], ["search"], 30)
    assert len(before) == len(after) == 0
