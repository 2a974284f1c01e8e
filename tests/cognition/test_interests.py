"""Themes of different domains that serve one interest."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onereason.cognition.associations import flatten_histories
from onereason.cognition.interests import UNKNOWN, Linking, build_interests, link_themes, live_interest
from onereason.data.simulate.users import live_interest as simulated_live_interest
from tests.cognition_worlds import make_facts, simulated


def histories(*lists: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return flatten_histories([np.array(h, dtype=np.int64) for h in lists])


def groups_of(domains: str, lists: list[list[int]], **linking: float) -> list[list[int]]:
    """Groups of nodes `0 .. n - 1`, node `n` of domain `domains[n]`."""
    return link_themes(list(domains), *histories(*lists), Linking(**linking))


# -- linking --------------------------------------------------------------------------------------------------------


def test_themes_side_by_side_are_one_interest():
    # 5 users go 0 -> 2 and 5 go 1 -> 3: each pair counts 5 both ways, 20 in all, each node has 5;
    # by chance 5 * 5 / 20 = 1.25 of a pair, so the lift is 4
    lists = [[0, 2]] * 5 + [[1, 3]] * 5
    assert groups_of("vvpp", lists) == [[0, 2], [1, 3]]
    assert groups_of("vvpp", lists, min_lift=4.0) == [[0, 2], [1, 3]]
    assert groups_of("vvpp", lists, min_lift=4.01) == [[0], [1], [2], [3]]
    assert groups_of("vvpp", lists, min_count=6) == [[0], [1], [2], [3]]


def test_themes_of_one_domain_stay_apart():
    assert groups_of("vvvv", [[0, 2]] * 9) == [[0], [1], [2], [3]]
    assert groups_of("vvpp", [[0, 1]] * 9) == [[0], [1], [2], [3]]


def test_the_strongest_tie_comes_first_and_a_domain_is_taken_once():
    # node 0 meets 2 nine times and 3 six times, both in domain p: 3 stays alone. By chance 15 * 9 / 30 = 4.5 of 0-2 and
    # 15 * 6 / 30 = 3 of 0-3, so both lifts are 2.
    assert groups_of("vvpp", [[0, 2]] * 9 + [[0, 3]] * 6) == [[0, 2], [1], [3]]


def test_an_interest_grows_over_three_domains():
    # 12 links to both; its two partners never meet, and still belong together
    assert groups_of("vpa", [[0, 1]] * 8 + [[0, 2]] * 8, min_lift=1.9) == [[0, 1, 2]]


def test_only_events_within_the_window_count():
    apart = [[0, UNKNOWN, UNKNOWN, 2]] * 9  # three steps
    assert groups_of("vvp", apart, window=3) == [[0, 2], [1]]
    assert groups_of("vvp", apart, window=2) == [[0], [1], [2]]


@given(
    st.lists(st.sampled_from("vpa"), min_size=1, max_size=7),
    st.lists(st.lists(st.integers(-1, 6), max_size=6), max_size=12),
)
def test_groups_hold_every_theme_once_and_each_domain_once(domains, lists):
    lists = [[n for n in h if n < len(domains)] for h in lists]
    groups = groups_of("".join(domains), lists, min_count=1, min_lift=0.5)
    assert sorted(n for group in groups for n in group) == list(range(len(domains)))
    assert all(len({domains[n] for n in group}) == len(group) for group in groups)


# -- names ----------------------------------------------------------------------------------------------------------


def interests(items: list[tuple[str, str]], lists: list[list[int]]):
    facts = make_facts([(domain, {"category": theme} if theme else {}) for domain, theme in items])
    return build_interests(facts, *histories(*lists))


def test_items_take_the_interest_of_their_theme():
    found = interests([("video", "tea"), ("prod", "cups"), ("video", ""), ("video", "tea")], [[0, 1]] * 6)
    # one vote each; "tea" has no more events than "cups", so the first by letter
    assert found.names == ["cups"] and len(found) == 1
    assert found.of_item.tolist() == [0, 0, UNKNOWN, 0]
    assert found.themes == {(0, "video"): "tea", (0, "prod"): "cups"}


def test_the_word_of_most_domains_is_the_name_then_that_of_most_events():
    items = [("video", "tea"), ("prod", "cups"), ("living", "tea"), ("video", "tents"), ("prod", "stoves")]
    # of 60 counts each of the first three has 12: by chance 12 * 12 / 60 = 2.4 a pair, the lift of 6 is 2.5
    lists = [[0, 1]] * 6 + [[1, 2]] * 6 + [[0, 2]] * 6 + [[3, 4]] * 12
    assert interests(items, lists).names == ["tea", "stoves"]
    assert interests(items[:2], [[0, 1, 0]] * 6).names == ["tea"]


def test_with_one_domain_every_theme_is_an_interest():
    found = interests([("video", "tea"), ("video", "tents"), ("video", "tea")], [[0, 1, 2]] * 9)
    assert found.names == ["tea", "tents"] and found.of_item.tolist() == [0, 1, 0]


def test_interests_of_one_name_are_told_apart():
    found = interests([("video", "tea"), ("prod", "tea"), ("prod", "tea (video: tea)")], [])
    assert found.names == ["tea (video: tea)", "tea (prod: tea)", "tea (video: tea) 2"]
    assert len(set(found.names)) == 3


def test_without_events_or_themes_nothing_is_linked():
    assert interests([("video", "tea"), ("prod", "cups")], []).names == ["tea", "cups"]
    found = interests([("video", ""), ("prod", "")], [[0, 1]])
    assert found.names == [] and found.of_item.tolist() == [UNKNOWN, UNKNOWN]


def test_the_interests_of_a_simulated_world_are_its_topics():
    world = simulated()
    truth = dict(world.world.truth["items"].select("item_id", "topic").iter_rows())
    pairs = {
        (z, truth[item])
        for z, item in zip(world.knowledge.interests.of_item.tolist(), world.facts.item_ids, strict=True)
    }
    assert len(pairs) == len({z for z, _ in pairs}) == len({topic for _, topic in pairs}) == 24


# -- the live interest ----------------------------------------------------------------------------------------------


def test_the_live_interest_is_the_most_frequent_then_the_newest():
    assert live_interest([1, 2, 1, 3]) == (1, 2)
    assert live_interest([1, 2, 2, 1]) == (1, 2)
    assert live_interest([1, 2, 1, 2]) == (2, 2)
    assert live_interest([UNKNOWN, 4, UNKNOWN, UNKNOWN]) == (4, 1)
    assert live_interest([]) == live_interest([UNKNOWN]) == (UNKNOWN, 0)


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=9))
def test_the_live_interest_is_that_of_the_simulated_world(window):
    live, count = simulated_live_interest(np.array([window]))
    assert live_interest(window) == (live[0], count[0])
