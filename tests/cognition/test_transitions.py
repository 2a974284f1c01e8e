"""Where interests lead: counts with wider contexts behind them, contexts chosen on held-out users."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.cognition.knowledge import _follow
from onereason.cognition.transitions import MIN_EVENTS, Context, Departure, Transitions, build_transitions
from tests.cognition_worlds import simulated

STYLE, MOOD, FACET, PRICE = ("persona", "style"), ("persona", "mood"), ("cue", "facet"), ("cue", "price")
BASE = [0.2] * 5


def leave(user: int, following: int, live: int = 0, **values: str) -> Departure:
    """`style` and `mood` are of the persona, `facet` and `price` of the last item."""
    kinds = {"style": STYLE, "mood": MOOD, "facet": FACET, "price": PRICE}
    return Departure(user, live, following, {kinds[name]: value for name, value in values.items()})


# -- counts ---------------------------------------------------------------------------------------------------------


def test_without_contexts_shares_are_counted():
    found = build_transitions([leave(u, f) for u, f in enumerate([1, 1, 1, 2])] + [leave(9, 1, live=3)], [], BASE)
    assert found.contexts == [] and found.gains == {}
    assert found.ranked == {(0,): [(1, 0.75), (2, 0.25)], (3,): [(1, 1.0)]}
    assert found.base == BASE


def test_a_context_counts_with_five_events_of_the_wider_one():
    # half of the users are plain and go to 1, half are fancy and go to 2
    departures = [leave(u, 1 + u // 2 % 2, style=("plain", "fancy")[u // 2 % 2]) for u in range(40)]
    found = build_transitions(departures, [STYLE], BASE)
    # without style the other half of the users says 1 as often as 2, and the lower number is right half the time
    assert found.contexts == [STYLE] and found.gains == {"persona:style": 0.5}
    assert found.ranked[0,] == [(1, 0.5), (2, 0.5)]
    # 20 plain events, all to 1: (20 + 5 * 0.5) / 25 = 0.9 and (0 + 5 * 0.5) / 25 = 0.1
    assert found.ranked[0, "plain"] == [(1, pytest.approx(0.9)), (2, pytest.approx(0.1))]
    assert found.ranked[0, "fancy"] == [(2, pytest.approx(0.9)), (1, pytest.approx(0.1))]


def test_at_most_width_interests_are_kept():
    found = build_transitions([leave(u, 1 + u % 4) for u in range(8)], [], BASE, width=3)
    assert found.ranked[0,] == [(1, 0.25), (2, 0.25), (3, 0.25)]


def test_the_narrowest_known_context_answers():
    ranked = {(0,): [(1, 1.0)], (0, "plain"): [(2, 1.0)], (0, "plain", "mild"): [(3, 1.0)]}
    found = Transitions([STYLE, FACET], ranked, BASE)
    assert found.following(0, ["plain", "mild"]) == [(3, 1.0)]
    assert found.following(0, ["plain", "strong"]) == found.following(0, ["plain", ""]) == [(2, 1.0)]
    assert found.following(0, ["", "mild"]) == found.following(0, ()) == [(1, 1.0)]
    assert found.following(7, ["plain", "mild"]) == ()


# -- choice ---------------------------------------------------------------------------------------------------------


def test_persona_and_cue_may_say_nothing_alone_and_everything_together():
    # the road is 1 where style and facet are alike, 2 where they differ
    departures = []
    for user in range(64):
        style, facet = user // 2 % 2, user // 4 % 2
        departures.append(leave(user, 1 + (style != facet), style="ab"[style], facet="ab"[facet]))
    found = build_transitions(departures, [STYLE, FACET], BASE)
    assert found.contexts == [STYLE, FACET]
    assert found.gains == {"persona:style": 0.0, "cue:facet": 0.0, "persona:style+cue:facet": 0.5}
    assert found.ranked[0, "a", "b"][0][0] == 2


def test_a_second_context_must_earn_its_place():
    # the facet says the same as the style
    departures = [leave(u, 1 + u // 2 % 2, style="ab"[u // 2 % 2], facet="ab"[u // 2 % 2]) for u in range(40)]
    found = build_transitions(departures, [STYLE, FACET], BASE)
    assert found.gains == {"persona:style": 0.5, "cue:facet": 0.5, "persona:style+cue:facet": 0.5}
    assert found.contexts == [STYLE]


def test_a_gain_below_the_least_is_no_gain():
    departures = [leave(u, 1 + u // 2 % 2, style="ab"[u // 2 % 2]) for u in range(40)]
    assert build_transitions(departures, [STYLE], BASE, min_gain=0.5).contexts == [STYLE]
    assert build_transitions(departures, [STYLE], BASE, min_gain=0.51).contexts == []


def test_a_name_seen_in_one_half_of_the_users_helps_nobody():
    # every user has a style of their own: the other half has never met it
    departures = [leave(u, 1 + u % 3, style=f"s{u}") for u in range(60) for _ in range(6)]
    found = build_transitions(departures, [STYLE], BASE)
    assert found.gains == {"persona:style": 0.0} and found.contexts == []


def test_without_departures_nothing_leads_anywhere():
    found = build_transitions([], [STYLE, FACET], BASE)
    assert found.contexts == [] and found.ranked == {} and found.following(0, ["plain"]) == ()


def plain_share_right(departures: list[Departure], contexts: list[Context]) -> float:
    """The held-out share, one event after the other."""
    hits = 0
    for half in (0, 1):
        tables: dict[tuple, Counter[int]] = defaultdict(Counter)
        for d in departures:
            if d.user % 2 != half:
                for depth in range(len(contexts) + 1):
                    values = [d.values.get(c, "") for c in contexts[:depth]]
                    if all(values):
                        tables[(d.live, *values)][d.following] += 1
        for d in departures:
            if d.user % 2 == half:
                guess = None
                for depth in range(len(contexts) + 1):
                    values = [d.values.get(c, "") for c in contexts[:depth]]
                    counts = tables.get((d.live, *values), Counter())
                    if all(values) and counts.total() >= MIN_EVENTS:
                        guess = min(counts, key=lambda z: (-counts[z], z))
                hits += guess == d.following
    return hits / len(departures)


EVENTS = st.tuples(
    st.integers(0, 9), st.integers(1, 3), st.integers(0, 1), *(st.sampled_from(["", "a", "b"]) for _ in range(4))
)


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=80))
def test_gains_are_those_of_a_plain_loop(events):
    departures = [leave(u, f, live, style=s, mood=m, facet=c, price=p) for u, f, live, s, m, c, p in events]
    candidates = [STYLE, MOOD, FACET, PRICE]
    gains = build_transitions(departures, candidates, BASE).gains
    start = plain_share_right(departures, [])
    sets = [[c] for c in candidates] + [[p, c] for p in (STYLE, MOOD) for c in (FACET, PRICE)]
    expected = {"+".join(map(":".join, s)): round(plain_share_right(departures, s) - start, 4) for s in sets}
    assert gains == expected


# -- the simulated world --------------------------------------------------------------------------------------------


def test_style_and_facet_decide_in_the_simulated_world_and_nothing_where_targets_are_shuffled():
    known = simulated().knowledge
    assert known.transitions.contexts == [STYLE, FACET]
    contexts = [(kind, name) for name in known.traits for kind in ("persona", "cue")]
    departures, _ = _follow(known, simulated().histories, contexts)
    following = [d.following for d in departures]
    random.Random(0).shuffle(following)
    shuffled = [Departure(d.user, d.live, f, d.values) for d, f in zip(departures, following, strict=True)]
    assert build_transitions(shuffled, contexts, known.transitions.base).contexts == []


def test_each_interest_leads_to_the_topics_it_is_related_to():
    world, known = simulated().world, simulated().knowledge
    names = known.interests.names
    relations = world.description["relations"].values()
    hits = 0
    for z, name in enumerate(names):
        led = {names[other] for other, _ in known.transitions.following(z, ())[:3]}
        hits += len(led & {partners[name] for partners in relations})
    assert hits >= 0.9 * 3 * len(names)
