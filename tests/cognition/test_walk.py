"""Reading a timeline: what a walk holds is what the items read so far say, counted anew."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from onereason.cognition.walk import Walk

INTERESTS = [0, 0, 1, 1, 2, -1]
DOMAINS = ["video", "prod", "video", "prod", "video", "ad"]
STYLES = ["plain", "fancy", "plain", "fancy", "", ""]
BASE = {"style": {"plain": 0.75, "fancy": 0.25}}


def walk(items: list[int], window: int = 4) -> Walk:
    found = Walk(INTERESTS, DOMAINS, {"style": STYLES}, BASE, window)
    for item in items:
        found.read(item)
    return found


def test_a_walk_at_the_start_knows_nothing():
    start = walk([])
    assert start.items == [] and start.places == {} and start.domains == {}
    assert start.live() == (-1, 0)
    assert start.leaning("style", 1) == ("", 0) and start.last("style") == ""


def test_a_leaning_exceeds_the_general_share_by_most():
    # 4 styled items: plain 2 of 4 where 3 are usual, fancy 2 of 4 where 1 is usual
    assert walk([0, 1, 2, 3]).leaning("style", 2) == ("fancy", 2)
    assert walk([0, 1, 2, 3]).leaning("style", 3) == ("", 0)
    # 3 of 4 plain is just what is usual, and so is 1 of 4 fancy
    assert walk([0, 0, 2, 1]).leaning("style", 1) == ("", 0)
    # items without a style do not dilute it
    assert walk([1, 4, 5, 4]).leaning("style", 1) == ("fancy", 1)


def test_what_is_alike_goes_by_the_letter():
    level = Walk([0, 0], ["v", "v"], {"style": ["b", "a"]}, {"style": {"a": 0.25, "b": 0.25}}, 4)
    for item in (0, 1):
        level.read(item)
    assert level.leaning("style", 1) == ("a", 1)  # both exceed 2 x 0.25 by 0.5


def test_a_value_that_training_never_had_counts_in_full():
    odd = Walk([0, 0], ["v", "v"], {"style": ["new", "plain"]}, BASE, 4)
    for item in (0, 1):
        odd.read(item)
    assert odd.leaning("style", 1) == ("new", 1)  # 1 - 2 x 0; plain: 1 - 2 x 0.75 < 0


def test_events_without_an_interest_take_no_place_in_the_window():
    assert walk([0, 0, 5, 5, 5, 5]).live() == (0, 2)
    assert walk([0, 0, 2, 3, 2, 3]).live() == (1, 4)  # the window of 4 has moved on


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(1, 6), st.integers(1, 3))
def test_a_walk_is_a_count_of_what_was_read(items, window, least):
    found = walk(items, window)
    assert found.items == items
    assert found.domains == Counter(DOMAINS[i] for i in items)
    places = {z: [p for p, i in enumerate(items) if INTERESTS[i] == z] for z in {INTERESTS[i] for i in items} - {-1}}
    assert found.places == places

    recent = [z for i in items if (z := INTERESTS[i]) >= 0][-window:]
    ranked = sorted(set(recent), key=lambda z: (recent.count(z), max(p for p, y in enumerate(recent) if y == z)))
    assert found.live() == ((ranked[-1], recent.count(ranked[-1])) if ranked else (-1, 0))

    styles = [s for i in items if (s := STYLES[i])]
    excess = {s: styles.count(s) - len(styles) * BASE["style"][s] for s in set(styles) if styles.count(s) >= least}
    best = min((s for s in excess if excess[s] > 0), key=lambda s: (-excess[s], s), default="")
    assert found.leaning("style", least) == (best, styles.count(best) if best else 0)
    assert found.last("style") == (STYLES[items[-1]] if items else "")
