"""What the template teacher knows: gathered from training, weighed by hand-made arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from onereason.cognition.knowledge import KnowledgeConfig, _follow, build_knowledge
from onereason.cognition.walk import Walk
from onereason.errors import DataError
from tests.cognition_worlds import make_facts, make_knowledge, simulated


def histories(*lists: list[int]) -> list[np.ndarray]:
    return [np.array(h, dtype=np.int64) for h in lists]


def read(knowledge, items: list[int]) -> Walk:
    walk = knowledge.walk()
    for item in items:
        walk.read(item)
    return walk


def facts(*themes: str, **values: list[str]):
    items = []
    for n, theme in enumerate(themes):
        items.append(("video", {"category": theme} | {name: of[n] for name, of in values.items() if of[n]}))
    return make_facts(items)


# -- gathering ------------------------------------------------------------------------------------------------------


def test_without_a_theme_there_is_nothing_to_know():
    with pytest.raises(DataError, match=r"no item has a theme .* --theme-attribute"):
        build_knowledge(make_facts([("video", {"brand": "x"})]), histories([0]))


def test_how_often_the_live_interest_holds_is_counted_by_its_number_in_the_window():
    # tea tea tea tents: 1 -> stays, 2 -> stays, 3 -> leaves; then tea tea: 1 -> stays.
    known = build_knowledge(facts("tea", "tents"), histories([0, 0, 0, 1], [0, 0]), KnowledgeConfig(window=3))
    # over all 3 of 4 stay: (3 + 1) / (4 + 2) = 2/3; each count has one event of that kind besides its own
    overall = 2 / 3
    assert known.stay == pytest.approx([overall, (2 + overall) / 3, (1 + overall) / 2, (0 + overall) / 2])
    assert known.transitions.ranked == {(0,): [(1, 1.0)]}
    assert list(known.transitions.base) == pytest.approx([5 / 6, 1 / 6])


def test_events_without_a_theme_neither_stay_nor_leave():
    items = make_facts([("video", {"category": "tea"}), ("video", {}), ("video", {"category": "tents"})])
    known = build_knowledge(items, histories([0, 1, 1, 2]))
    assert known.transitions.ranked == {(0,): [(1, 1.0)]}
    assert known.stay[1] == pytest.approx((0 + 1 / 3) / 2)  # one event, a leave: over all (0 + 1) / (1 + 2)


def test_traits_of_items_and_their_share_among_events():
    known = build_knowledge(facts(*["tea"] * 4, style=["plain", "plain", "plain", ""]), histories([0, 0, 1], [2, 3, 3]))
    assert known.traits == {"style": ["plain", "plain", "plain", ""]}
    assert known.base == {"style": {"plain": 1.0}}
    two = make_facts([("video", {"category": "tea", "style": ("plain", "fancy")})] * 3)
    assert build_knowledge(two, histories([0, 1])).traits == {"style": ["", "", ""]}  # of two values none is the value


def test_empty_histories_are_no_obstacle():
    known = build_knowledge(facts("tea", "tents"), histories([], [], [1]))
    assert known.transitions.ranked == {} and known.transitions.contexts == []
    assert known.stay == pytest.approx([0.5] * 9)  # nothing seen: (0 + 1) / (0 + 2)
    assert known.candidates(read(known, []), 3) == []


def test_an_attribute_with_many_values_is_no_context():
    items = facts(*["tea", "tents"] * 6, style=["a", "b", "c", "d"] * 3)
    lists = histories(*[[n, (n + 5) % 12, (n + 2) % 12] for n in range(12)])
    assert build_knowledge(items, lists).transitions.gains.keys() == {
        "persona:style",
        "cue:style",
        "persona:style+cue:style",
    }
    assert build_knowledge(items, lists, KnowledgeConfig(max_trait_values=3)).transitions.gains == {}


@pytest.mark.parametrize(("users", "most"), [(10, 3), (10, 10), (11, 10), (5, 3), (19, 10)])
def test_transitions_are_counted_over_no_more_users_than_said(users, most):
    known = make_knowledge([0, 1], config=KnowledgeConfig(max_fit_users=most))
    departures, _ = _follow(known, histories(*[[0, 1]] * users), [])
    assert 0 < len(departures) <= most
    assert len({d.user for d in departures}) == len(departures)
    assert len(departures) > most / 2  # as many as an even step allows


def test_knowledge_of_the_simulated_world():
    known = simulated().knowledge
    assert known.persona_trait == "style" and known.cue == "facet"
    assert set(known.traits) == {"brand", "facet", "price", "style"}
    assert all(sum(shares.values()) == pytest.approx(1) for shares in known.base.values())
    walk = read(known, simulated().histories[0].tolist())
    style, facet = known.context_values(walk)
    assert style == walk.leaning("style", 3)[0] and facet == known.traits["facet"][walk.items[-1]]


# -- belief ---------------------------------------------------------------------------------------------------------


def test_belief_goes_to_the_live_interest_where_it_leads_and_what_was_seen():
    leads = {(0,): [(1, 0.75), (2, 0.25)]}
    known = make_knowledge([0, 1, 2, 3], leads, stay=[0.5, 0.5, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    # tea twice, trains once, toys once: tea is live with 2 and holds with 0.6; 0.4 is left, a fifth of it (0.08) goes
    # to the history, 0.02 an item; the rest, 0.32, leads to tents with 0.24 and to trains with 0.08
    found = known.candidates(read(known, [2, 3, 0, 0]), 5)
    assert found == [
        (0, pytest.approx(0.6)),
        (1, pytest.approx(0.24)),
        (2, pytest.approx(0.08 + 0.02)),
        (3, pytest.approx(0.02)),
    ]
    assert known.candidates(read(known, [2, 3, 0, 0]), 2) == found[:2]


def test_equal_belief_goes_by_number():
    known = make_knowledge([0, 1, 2], {(0,): [(2, 0.5), (1, 0.5)]})
    assert [z for z, _ in known.candidates(read(known, [0]), 3)] == [0, 1, 2]


def test_contexts_decide_where_a_live_interest_leads():
    leads = {(0,): [(1, 1.0)], (0, "plain"): [(2, 1.0)], (0, "plain", "fancy"): [(3, 1.0)]}
    contexts = [("persona", "style"), ("cue", "style")]
    known = make_knowledge(
        [0] * 4, leads, contexts, ["plain", "plain", "fancy", ""], config=KnowledgeConfig(min_trait=2)
    )
    # plain is 2/3 of the styled items in general, so 2 of 2 is a leaning
    assert known.context_values(read(known, [0, 1])) == ["plain", "plain"]
    assert known.candidates(read(known, [0, 1]), 2)[1][0] == 2
    assert known.context_values(read(known, [0, 1, 0, 2])) == ["plain", "fancy"]
    assert known.candidates(read(known, [0, 1, 0, 2]), 2)[1][0] == 3
    assert known.context_values(read(known, [3])) == ["", ""]
    assert known.candidates(read(known, [3]), 2)[1][0] == 1


def test_belief_is_a_share_and_falls():
    known = simulated().knowledge
    for history in simulated().histories[:40]:
        shares = [share for _, share in known.candidates(read(known, history.tolist()), 30)]
        assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1 + 1e-9
