"""What the template teacher knows of a catalogue and its users: interests, traits and transitions, out of training.

Notation: `N` items, `I` interests, `U` users, `E` events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

import numpy as np

from onereason.cognition.associations import flatten_histories
from onereason.cognition.facts import ItemFacts
from onereason.cognition.interests import InterestMap, Linking, build_interests
from onereason.cognition.transitions import Context, Departure, Transitions, build_transitions
from onereason.cognition.walk import Walk
from onereason.errors import DataError


@dataclass(frozen=True)
class KnowledgeConfig:
    """How knowledge is gathered."""

    window: int = 8
    """Recent events that decide which interest is live."""
    min_trait: int = 3
    """Items of a history that must share a trait before it is said of the user."""
    max_trait_values: int = 60
    """An attribute with more values is a name (a brand, a seller), not a context to count transitions by."""
    max_fit_users: int = 20_000
    """Users that transitions are counted over, spread evenly; more change little."""
    standing: float = 0.2
    """Share of belief for the interests of the whole history, where the live one is left."""
    linking: Linking = field(default_factory=Linking)
    """When themes of different domains are one interest."""


@dataclass(frozen=True)
class Knowledge:
    """Everything the template teacher draws on.

    Attributes:
        facts: the items.
        interests: their interests.
        traits: attribute -> value of each item (`N`), '' where it has none or several.
        base: attribute -> value -> share among the events that have one.
        transitions: where interests lead.
        stay: how often the next interest is the live one, by how often that stands among the recent events.
        config: how it was gathered.
    """

    facts: ItemFacts
    interests: InterestMap
    traits: Mapping[str, Sequence[str]]
    base: Mapping[str, Mapping[str, float]]
    transitions: Transitions
    stay: Sequence[float]
    config: KnowledgeConfig

    @cached_property
    def interest_of(self) -> list[int]:
        """Interest of each item, as a list: a walk looks up one at a time."""
        return self.interests.of_item.tolist()

    @cached_property
    def persona_trait(self) -> str | None:
        """The trait of a user that sharpens transitions, if one does."""
        return next((name for kind, name in self.transitions.contexts if kind == "persona"), None)

    @cached_property
    def trait_order(self) -> list[str]:
        """The traits in the order in which they are said of a user: the one that sharpens transitions first."""
        first = self.persona_trait
        return ([first] if first else []) + [name for name in self.traits if name != first]

    @cached_property
    def cue(self) -> str | None:
        """The attribute of the last item that sharpens transitions, if one does."""
        return next((name for kind, name in self.transitions.contexts if kind == "cue"), None)

    def followers(self, number: int) -> tuple[list[frozenset[int]], list[frozenset[int]]]:
        """For each interest the `number` that follow it most often, and those that come first in some context."""
        if number not in self._followers:
            following = [self.transitions.following(interest, ())[:number] for interest in range(len(self.interests))]
            first: list[set[int]] = [set() for _ in following]
            for (live, *_), ranked in self.transitions.ranked.items():
                first[cast(int, live)].update(z for z, _ in ranked[:1])
            often = [frozenset([z for z, _ in ranked]) for ranked in following]
            self._followers[number] = often, list(map(frozenset, first))
        return self._followers[number]

    @cached_property
    def _followers(self) -> dict[int, tuple[list[frozenset[int]], list[frozenset[int]]]]:
        return {}

    def walk(self) -> Walk:
        """A reader at the start of a timeline."""
        return Walk(self.interest_of, self.facts.domains, self.traits, self.base, self.config.window)

    def context_values(self, walk: Walk) -> list[str]:
        """The values of the transitions' contexts where a walk stands, '' where unknown."""
        return [
            walk.leaning(name, self.config.min_trait)[0] if kind == "persona" else walk.last(name)
            for kind, name in self.transitions.contexts
        ]

    def candidates(self, walk: Walk, number: int) -> list[tuple[int, float]]:
        """The interests that may come next, `(interest, share of belief)`, most likely first.

        The live interest holds as often as one does that stands so often among the recent events. What is left goes to
        where the live interest leads, and `standing` of it to the interests of the whole history.
        """
        live, count = walk.live()
        if live < 0:
            return []
        hold = self.stay[count]
        standing = (1.0 - hold) * self.config.standing
        lead = 1.0 - hold - standing
        belief = {z: lead * share for z, share in self.transitions.following(live, self.context_values(walk))}
        places = walk.places
        each = standing / sum(map(len, places.values()))
        for interest, of in places.items():
            belief[interest] = belief.get(interest, 0.0) + each * len(of)
        belief[live] = hold
        best = sorted(sorted(belief), key=belief.__getitem__, reverse=True)[:number]  # on a tie the lower number
        return [(interest, belief[interest]) for interest in best]


def build_knowledge(
    facts: ItemFacts, histories: Sequence[np.ndarray], config: KnowledgeConfig | None = None
) -> Knowledge:
    """Gathers knowledge from the training part of the timelines.

    Args:
        facts: the items.
        histories: `U` int64 arrays of item indices, oldest first.

    Raises:
        DataError: no item has a theme, so that nothing can be said of interests.
    """
    config = config or KnowledgeConfig()
    if not any(facts.themes):
        raise DataError(
            "no item has a theme (attribute category, categories, tag, genre, ...); name the attribute that says what "
            "an item is about with --theme-attribute, or add one to the item table."
        )
    items, offsets = flatten_histories(histories)
    interests = build_interests(facts, items, offsets, config.linking)
    traits = {name: _single_values(facts, name) for name in facts.trait_names}
    base = {name: _shares(values, items) for name, values in traits.items()}
    start = Knowledge(facts, interests, traits, base, Transitions((), {}, ()), (), config)
    known = interests.of_item[items]
    counts = np.bincount(known[known >= 0], minlength=len(interests))
    contexts: list[Context] = [
        (kind, name) for name in traits if len(base[name]) <= config.max_trait_values for kind in ("persona", "cue")
    ]
    departures, stay = _follow(start, histories, contexts)
    shares = (counts / max(1, counts.sum())).tolist()
    transitions = build_transitions(departures, contexts, shares)
    return Knowledge(facts, interests, traits, base, transitions, stay, config)


def _follow(
    knowledge: Knowledge, histories: Sequence[np.ndarray], contexts: Sequence[Context]
) -> tuple[list[Departure], list[float]]:
    """Every event at which a user left the live interest, and the share of those that stayed, by its count."""
    found = []
    config = knowledge.config
    stays, seen = ([0] * (config.window + 1) for _ in range(2))
    step = max(1, -(-len(histories) // config.max_fit_users))
    for user, history in enumerate(histories[::step]):
        walk = knowledge.walk()
        for item in history.tolist():
            live, count = walk.live()
            following = knowledge.interest_of[item]
            if live >= 0 and following >= 0:
                seen[count] += 1
                stays[count] += following == live
                if following != live:
                    values = {
                        (kind, name): walk.leaning(name, config.min_trait)[0] if kind == "persona" else walk.last(name)
                        for kind, name in contexts
                    }
                    found.append(Departure(user, live, following, values))
            walk.read(item)
    overall = (sum(stays) + 1) / (sum(seen) + 2)
    return found, [(s + overall) / (n + 1) for s, n in zip(stays, seen, strict=True)]


def _single_values(facts: ItemFacts, name: str) -> list[str]:
    return [values[0] if len(values := of.get(name, ())) == 1 else "" for of in facts.attributes]


def _shares(values: Sequence[str], items: np.ndarray) -> dict[str, float]:
    """Value -> share among the events whose item has one."""
    per_item = np.bincount(items, minlength=len(values)).tolist()
    counts: Counter[str] = Counter()
    for value, count in zip(values, per_item, strict=True):
        if value and count:
            counts[value] += count
    total = sum(counts.values())
    return {value: count / total for value, count in counts.items()}
