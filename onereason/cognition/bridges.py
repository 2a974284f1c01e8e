"""One-hop bridges: which item leads to which, by what kind of hop, told at the level of categories (R1).

Pairs come from what stands next, what stands near, and what is searched for after it was played. A pair's hop is
described by six fields; the student sees the source alone, so the target decides about the hop and appears in none of
them.

Notation: `N` items, `I` interests, `M` pairs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from onereason.cognition.associations import (
    compute_lift,
    count_next,
    count_window,
    group_counts,
    keep_at_least,
    look_up,
    symmetrize,
    to_pairs,
)
from onereason.cognition.judge.relations import UNRELATED, RelationRules, judge_relations
from onereason.cognition.knowledge import Knowledge

ORIGINS = ("next", "window", "search")
"""What a pair was found by: the very next item, an item near it, a search after it was played."""

RULES = RelationRules(min_lift=1.2, min_support=20)
"""Lifts are those of interests, which rest on many sightings: a small one is sure where there are enough of them."""

BRIDGE_TYPES = ("alternative", "upgrade", "cross_domain", "complement", "continuation", "cross_category")
BRIDGE_FIELDS = (
    "source_need",
    "bridge_type",
    "abstract_bridge",
    "continuation_direction",
    "reason_seed",
    "confidence",
)

_PRICE_WORDS = {"free": 0.0, "low": 1.0, "cheap": 1.0, "mid": 2.0, "medium": 2.0, "high": 3.0, "premium": 3.0}
_PRICE_ATTRIBUTES = ("price", "price_range")
_AMOUNT = re.compile(r"[$€£¥￥]?\s*(\d+(?:\.\d+)?|\d{1,3}(?:,\d{3})+(?:\.\d+)?)")
"""An amount of money such as 12.5, $ 12.50 or $1,299.00."""


@dataclass(frozen=True)
class Pairs:
    """Related items and what is known of their hop; everything `[M]`.

    Attributes:
        sources, targets: item indices.
        origins: index into `ORIGINS`.
        counts: times the two items themselves were seen together.
        lifts: how much more often than by chance their interests go together (within one interest, their themes); 0
            where they never do.
        supports: times these were seen together.
        types: index into `BRIDGE_TYPES`.
    """

    sources: np.ndarray
    targets: np.ndarray
    origins: np.ndarray
    counts: np.ndarray
    lifts: np.ndarray
    supports: np.ndarray
    types: np.ndarray

    def __len__(self) -> int:
        return len(self.sources)

    def select(self, chosen: np.ndarray) -> Pairs:
        """The pairs at these positions."""
        return Pairs(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class PairRules:
    """Which pairs are looked at, and how their hop is classified."""

    window: int = 4
    """Items that stand at most so far apart are near."""
    min_count: int = 1
    """Times two items must be seen together."""
    partners: int = 8
    """Partners kept of each source and origin, those seen most often first."""
    min_lift: float = 1.5
    """Times more often than by chance that two interests follow each other to be a complement or a continuation."""
    min_skew: float = 1.5
    """Times more often that the hop goes this way than back to be a continuation."""


def find_pairs(
    knowledge: Knowledge,
    items: np.ndarray,
    offsets: np.ndarray,
    searches: tuple[np.ndarray, np.ndarray] | None = None,
    rules: PairRules | None = None,
) -> Pairs:
    """All candidate pairs, sorted by source, origin, then how often they were seen.

    Args:
        items: int64, item indices of all training timelines, oldest first.
        offsets: int64 `[U + 1]`.
        searches: `(played, searched)` item indices of searches that follow a play, where the logs have them.
        rules: thresholds.
    """
    rules = rules or PairRules()
    interest_of = knowledge.interests.of_item.astype(np.int64)
    num_interests = len(knowledge.interests)
    found = _count_origins(len(knowledge.facts), items, offsets, searches, rules)
    forward = group_counts(found["next"], interest_of, num_interests)
    theme_of = _number_themes(knowledge)
    domain, price = _number_domains(knowledge), _prices(knowledge)
    parts = []
    for origin, counts in found.items():
        sources, targets, values = to_pairs(keep_at_least(counts, rules.min_count))
        other = sources != targets  # a search may lead back to the item that was played
        sources, targets, values = sources[other], targets[other], values[other]
        kept = _most_seen(sources, targets, values, rules.partners)
        sources, targets, values = sources[kept], targets[kept], values[kept]
        left, right = interest_of[sources], interest_of[targets]
        same = (left == right) & (left >= 0)
        lifts, supports = _measure(group_counts(counts, interest_of, num_interests), left, right)
        within = _measure(group_counts(counts, theme_of), theme_of[sources], theme_of[targets])
        lifts, supports = np.where(same, within[0], lifts), np.where(same, within[1], supports)
        skew = look_up(forward, left, right) / np.maximum(look_up(forward, right, left), 1)
        crosses, dearer = domain[sources] != domain[targets], price[targets] > price[sources]
        types = classify_hops(same, crosses, dearer, lifts >= rules.min_lift, skew >= rules.min_skew)
        origins = np.full(len(sources), ORIGINS.index(origin))
        parts.append(Pairs(sources, targets, origins, values, lifts, supports, types))
    joined = Pairs(*(np.concatenate([getattr(p, name) for p in parts]) for name in Pairs.__dataclass_fields__))
    return joined.select(np.lexsort((joined.targets, -joined.counts, joined.origins, joined.sources)))


def _count_origins(
    size: int,
    items: np.ndarray,
    offsets: np.ndarray,
    searches: tuple[np.ndarray, np.ndarray] | None,
    rules: PairRules,
) -> dict[str, sp.csr_matrix]:
    """For each origin, how often items were seen together, CSR `[N, N]`."""
    window = symmetrize(count_window(items, offsets, rules.window, size))
    found = {"next": count_next(items, offsets, size), "window": window}
    if searches is not None:
        ones = np.ones(len(searches[0]), dtype=np.int64)
        found["search"] = sp.csr_matrix((ones, searches), shape=(size, size))
    return found


def find_related_interests(
    knowledge: Knowledge,
    items: np.ndarray,
    offsets: np.ndarray,
    searches: tuple[np.ndarray, np.ndarray] | None = None,
    rules: PairRules | None = None,
) -> np.ndarray:
    """Whether two interests have to do with each other, boolean `[I, I]`, symmetric.

    They do where they are the same, where one often leads to the other, or where their items are seen together at least
    as often as by chance, by any origin. So every pair of items that `judge_pairs` does not find unrelated is of two
    such interests, however many partners are kept. See `find_pairs` for the arguments.
    """
    rules = rules or PairRules()
    interest_of, number = knowledge.interests.of_item.astype(np.int64), len(knowledge.interests)
    related = np.eye(number, dtype=bool)
    for z, other in _find_led(knowledge):
        related[z, other] = True
    for counts in _count_origins(len(knowledge.facts), items, offsets, searches, rules).values():
        related |= compute_lift(group_counts(counts, interest_of, number)).toarray() >= 1.0
    # without the steps within an interest, which outnumber all others, a lift is larger
    events = count_window(knowledge.interests.of_item[items].astype(np.int64), offsets, rules.window, number)
    related |= compute_lift(symmetrize(events)).toarray() >= 1.0
    return related | related.T


def _find_led(knowledge: Knowledge, followers: int = 5) -> set[tuple[int, int]]:
    """Pairs of interests of which the second is among those that the first most often leads to."""
    return {
        (z, other)
        for z in range(len(knowledge.interests))
        for other, share in knowledge.transitions.following(z, ())[:followers]
        if share > knowledge.transitions.base[other]
    }


def _most_seen(sources: np.ndarray, targets: np.ndarray, values: np.ndarray, partners: int) -> np.ndarray:
    """Positions of the `partners` pairs of each source that were seen most often."""
    order = np.lexsort((targets, -values, sources))
    ordered = sources[order]
    first = np.searchsorted(ordered, ordered)
    return order[np.arange(len(order)) - first < partners]


def _measure(grouped: sp.csr_matrix, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lift and count of pairs of groups, `[M]` each."""
    return look_up(compute_lift(grouped), left, right), look_up(grouped, left, right)


def classify_hops(
    same: np.ndarray, crosses: np.ndarray, dearer: np.ndarray, tied: np.ndarray, forward: np.ndarray
) -> np.ndarray:
    """The type of each hop, int64 `[M]` into `BRIDGE_TYPES`.

    Args:
        same: True within one interest: `cross_domain`, `upgrade`, or `alternative` else.
        crosses: True where it goes to another domain.
        dearer: True where it goes to a higher price; False where one of the two is unknown.
        tied: True where the two interests follow each other more often than by chance: `continuation`, or `complement`
            else. What is left is `cross_category`.
        forward: True where they do so mostly this way round.
    """
    conditions = [same & crosses, same & dearer, same, tied & forward, tied]
    names = ("cross_domain", "upgrade", "alternative", "continuation", "complement")
    kinds = [BRIDGE_TYPES.index(name) for name in names]
    return np.select(conditions, kinds, BRIDGE_TYPES.index("cross_category")).astype(np.int64)


def judge_pairs(knowledge: Knowledge, pairs: Pairs) -> np.ndarray:
    """The class of each pair, `[M]` into `judge.relations.RELATIONS`.

    Two items share a bridge where they serve one interest, or one's interest is among those that the other's most often
    leads to. A pair with an item without an interest is unrelated.
    """
    interest_of = knowledge.interests.of_item
    led = _find_led(knowledge)
    left, right = interest_of[pairs.sources].tolist(), interest_of[pairs.targets].tolist()
    shares = [a == b or (a, b) in led or (b, a) in led for a, b in zip(left, right, strict=True)]
    classes = judge_relations(pairs.counts, pairs.lifts, pairs.supports, np.array(shares, dtype=bool), RULES)
    unknown = (interest_of[pairs.sources] < 0) | (interest_of[pairs.targets] < 0)
    return np.where(unknown, UNRELATED, classes).astype(np.int64)


def _number_domains(knowledge: Knowledge) -> np.ndarray:
    """A number for the domain of each item, int64 `[N]`."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(domain, len(numbers)) for domain in knowledge.facts.domains], dtype=np.int64)


def _number_themes(knowledge: Knowledge) -> np.ndarray:
    """A number for the theme of each item in its domain, int64 `[N]`; -1 without a theme."""
    numbers: dict[tuple[str, str], int] = {}
    facts = knowledge.facts
    nodes = zip(facts.domains, facts.themes, strict=True)
    return np.array([numbers.setdefault(node, len(numbers)) if node[1] else -1 for node in nodes], dtype=np.int64)


def _prices(knowledge: Knowledge) -> np.ndarray:
    """Price level of each item, float64 `[N]`; NaN where unknown."""
    levels = np.full(len(knowledge.facts), np.nan)
    for index, of in enumerate(knowledge.facts.attributes):
        found = [_price(values[0]) for name in _PRICE_ATTRIBUTES if len(values := of.get(name, ())) == 1]
        levels[index] = next((price for price in found if price == price), np.nan)
    return levels


def _price(value: str) -> float:
    word = value.strip().lower()
    if word in _PRICE_WORDS:
        return _PRICE_WORDS[word]
    number = _AMOUNT.fullmatch(word)
    return float(number[1].replace(",", "")) if number else float("nan")


def find_searches(
    items: np.ndarray,
    offsets: np.ndarray,
    timestamps: np.ndarray,
    actions: Sequence[str],
    search_actions: Sequence[str],
    seconds: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Searches that come directly after another event of the same user, at most `seconds` later.

    Args:
        items, timestamps, actions: of all events, users one after another, oldest first.
        search_actions: what the logs call a search whose item was opened.

    Returns:
        Item indices of the event before, and of the search.
    """
    is_search = np.isin(np.array(actions, dtype=object), list(search_actions))
    place = np.flatnonzero(is_search)
    place = place[~np.isin(place, offsets)]  # a user's first event follows nothing
    before = place - 1
    near = ~is_search[before] & (timestamps[place] - timestamps[before] <= seconds)
    return items[before[near]], items[place[near]]
