"""Episodes of a timeline: opened by a burst, held, narrowed, moved on from, closed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onereason.cognition.chains import Episode, EpisodeRules, find_episodes
from tests.cognition_worlds import make_knowledge, simulated

TEA, TENTS, TRAINS, TOYS, NONE = 0, 1, 2, 3, 4
"""Items, by the interest they serve; item 4 serves none. Tea leads to tents, tents to trains, toys nowhere."""
LEADS = {(TEA,): [(TENTS, 1.0)], (TENTS,): [(TRAINS, 1.0)]}
RULES = EpisodeRules(burst=2, reach=3, followers=3, patience=4)


@pytest.fixture
def known():
    return make_knowledge([TEA, TENTS, TRAINS, TOYS, -1], LEADS)


def told(episodes: list[Episode]) -> list[tuple[int, list[tuple[int, str]]]]:
    return [(e.interest, list(zip(e.places, e.steps, strict=True))) for e in episodes]


def test_a_burst_opens_an_episode_that_holds_and_moves_on(known):
    assert told(find_episodes(known, [TOYS, TEA, TEA, NONE, TEA, TENTS], RULES)) == [
        (TEA, [(1, "trigger"), (2, "stay"), (4, "stay"), (5, "move")])
    ]


def test_items_of_one_interest_too_far_apart_are_no_burst(known):
    assert find_episodes(known, [TEA, TOYS, TRAINS, TEA], RULES) == []
    assert len(find_episodes(known, [TEA, TOYS, TEA], RULES)) == 1


def test_another_burst_ends_an_episode(known):
    found = find_episodes(known, [TEA, TEA, TOYS, TOYS, TEA], RULES)
    # the last tea comes after toys took over, and is no burst by itself
    assert told(found) == [(TEA, [(0, "trigger"), (1, "stay")]), (TOYS, [(2, "trigger"), (3, "stay")])]


def test_a_step_that_was_to_be_expected_needs_one_more_to_open_an_episode(known):
    # tea leads to tents: two tents are moves, three are a burst
    moves = [(2, "move"), (3, "move")]
    assert told(find_episodes(known, [TEA, TEA, TENTS, TENTS], RULES)) == [(TEA, [(0, "trigger"), (1, "stay"), *moves])]
    found = told(find_episodes(known, [TEA, TEA, TENTS, TENTS, TENTS], RULES))
    assert found == [(TEA, [(0, "trigger"), (1, "stay")]), (TENTS, [(2, "trigger"), (3, "stay"), (4, "stay")])]


def test_patience_is_counted_from_the_last_step(known):
    # between two steps may stand patience - 1 others
    wait = [TOYS, TRAINS, NONE]
    assert told(find_episodes(known, [TEA, TEA, *wait, TEA], RULES))[0][1][-1] == (5, "stay")
    assert told(find_episodes(known, [TEA, TEA, *wait, NONE, TEA], RULES)) == [(TEA, [(0, "trigger"), (1, "stay")])]


def test_a_trigger_that_nothing_follows_is_no_episode(known):
    # tea opens, but the second tea stands behind the burst of toys
    found = find_episodes(known, [TEA, TOYS, TEA, TOYS], RULES)
    assert told(found) == [(TOYS, [(1, "trigger"), (3, "stay")])]


@pytest.mark.parametrize("history", [[], [TEA], [NONE, NONE, NONE], [TEA, TENTS, TRAINS, TOYS]])
def test_short_and_scattered_histories_have_no_episode(known, history):
    assert find_episodes(known, history, RULES) == []


def test_items_that_keep_to_one_side_narrow_an_interest():
    sides = ["plain", "plain", "fancy", ""]
    known = make_knowledge([TEA, TEA, TEA, TEA], {}, [("cue", "style")], sides)
    (found,) = find_episodes(known, [0, 1, 2, 2, 3, 3, 1], RULES)
    assert list(zip(found.steps, found.sides, strict=True)) == [
        ("trigger", ""),
        ("narrow", "plain"),
        ("stay", ""),  # another side
        ("narrow", "fancy"),
        ("stay", ""),  # no side
        ("stay", ""),  # no side twice is no side to keep to
        ("stay", ""),
    ]


def test_without_a_cue_nothing_narrows():
    known = make_knowledge([TEA, TEA], {}, [], ["plain", "plain"])
    assert [e.steps for e in find_episodes(known, [0, 1, 0], RULES)] == [["trigger", "stay", "stay"]]


def test_where_an_interest_leads_depends_on_the_user_too():
    # in general tea leads to tents; fancy users go on to trains
    leads = {(TEA,): [(TENTS, 1.0)], (TEA, "fancy"): [(TRAINS, 1.0)]}
    sides = ["fancy", "", "", "plain"]
    known = make_knowledge([TEA, TENTS, TRAINS, TEA], leads, [("persona", "style")], sides)
    fancy, plain = [0, 0, 0, 2], [3, 3, 3, 2]
    assert find_episodes(known, fancy, RULES)[0].steps == ["trigger", "stay", "stay", "move"]
    assert find_episodes(known, plain, RULES)[0].steps == ["trigger", "stay", "stay"]


@given(st.lists(st.integers(0, 4), max_size=25))
def test_episodes_rise_do_not_overlap_and_say_what_their_items_are(history):
    known = make_knowledge([TEA, TENTS, TRAINS, TOYS, -1], LEADS)
    found = find_episodes(known, history, RULES)
    places = [place for episode in found for place in episode.places]
    assert places == sorted(set(places))
    for episode in found:
        assert len(episode) == len(episode.steps) == len(episode.interests) == len(episode.sides) >= 2
        assert episode.steps[0] == "trigger" and "trigger" not in episode.steps[1:]
        assert list(episode.interests) == [history[place] for place in episode.places]
        for step, interest in zip(episode.steps, episode.interests, strict=True):
            assert (interest != episode.interest) == (step == "move")
            assert step != "move" or interest in [z for z, _ in LEADS.get((episode.interest,), ())]


def test_episodes_of_the_simulated_world_are_those_that_made_it():
    world = simulated()
    chains = world.world.truth["chains"].partition_by("user_id", as_dict=True)
    hits = found_events = true_events = 0
    for user, history in enumerate(world.histories[:200]):
        episodes = find_episodes(world.knowledge, history.tolist())
        for positions in chains[(world.timelines.user_ids[user],)]["positions"].to_list():
            true = {p for p in positions if p < len(history)}
            if len(true) >= 3:
                nearest = max(episodes, key=lambda e: len(true.intersection(e.places)), default=None)
                places = set(nearest.places) if nearest else set()
                hits += len(true & places)
                found_events += len(places) if true & places else 0
                true_events += len(true)
    assert hits / found_events > 0.8 and hits / true_events > 0.75
