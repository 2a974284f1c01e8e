"""Transitions: where an interest leads, given who the user is and what was seen last.

P(next | live) is counted over training timelines. Two contexts may sharpen it: a trait of the *persona* (the style a
user leans to), and a *cue*, an attribute of the last item. Which attributes do so is not assumed: each is tried on
held-out users, alone and in pairs, and kept only where the most likely next interest then comes true more often.

Notation: `E` events at which a user leaves the live interest, `I` interests.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

MIN_EVENTS = 5
"""Events a context needs under a live interest to be trusted; the next wider context counts for as many."""

Context = tuple[str, str]
"""`("persona", attribute)` or `("cue", attribute)`."""


@dataclass(frozen=True)
class Departure:
    """One event that left the live interest.

    Attributes:
        user: number of the user; even and odd users hold each other out.
        live: the interest that was live.
        following: the interest the event went to.
        values: context -> its value at that moment, '' where unknown.
    """

    user: int
    live: int
    following: int
    values: Mapping[Context, str]


@dataclass(frozen=True)
class Transitions:
    """Where interests lead.

    Attributes:
        contexts: the chosen contexts, in order of choice.
        ranked: `(live, value of each context...)`, and shorter keys for wider contexts -> `(interest, probability)`,
            most likely first, at most `width` of them.
        base: `[I]`, share of all events that go to each interest.
        gains: contexts that were tried -> how much more often the most likely interest comes true on held-out users.
    """

    contexts: Sequence[Context]
    ranked: Mapping[tuple[int | str, ...], Sequence[tuple[int, float]]]
    base: Sequence[float]
    gains: Mapping[str, float] = field(default_factory=dict)

    def following(self, live: int, values: Sequence[str]) -> Sequence[tuple[int, float]]:
        """Interests that `live` leads to under the values of the contexts; the widest context that is known answers."""
        key: tuple[int | str, ...] = (live, *values)
        while key:
            found = self.ranked.get(key)
            if found is not None:
                return found
            key = key[:-1]
        return ()


def build_transitions(
    departures: Sequence[Departure],
    candidates: Sequence[Context],
    base: Sequence[float],
    width: int = 8,
    min_gain: float = 0.02,
) -> Transitions:
    """Chooses contexts on held-out users, then counts over all users.

    Args:
        departures: events that left an interest.
        candidates: contexts that may be chosen, at most one persona and one cue.
        base: share of events of each interest.
        width: interests kept under a key.
        min_gain: share of held-out events that each context must bring.
    """
    chosen, gains = _choose(departures, candidates, min_gain)
    tables = _count(departures, chosen)
    mixed: dict[tuple[int | str, ...], dict[int, float]] = {}
    for key in sorted(tables, key=len):  # wider contexts first
        counts, total = tables[key], tables[key].total()
        wider = mixed.get(key[:-1], {})
        weight = MIN_EVENTS if wider else 0
        mixed[key] = {
            z: (counts.get(z, 0) + weight * wider.get(z, 0.0)) / (total + weight) for z in {**wider, **counts}
        }
    ranked = {
        key: sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))[:width] for key, shares in mixed.items()
    }
    return Transitions(chosen, ranked, list(base), gains)


def _choose(
    departures: Sequence[Departure], candidates: Sequence[Context], min_gain: float
) -> tuple[list[Context], dict[str, float]]:
    """The contexts that help held-out users most, and what each set that was tried gains over none.

    Persona and cue are tried together as well as alone: where each of six kinds of people takes another road at each
    cue, neither says anything without the other.
    """
    if not departures:
        return [], {}
    personas = [c for c in candidates if c[0] == "persona"]
    cues = [c for c in candidates if c[0] == "cue"]
    sets: list[list[Context]] = [[c] for c in candidates] + [[p, c] for p in personas for c in cues]
    trial = _Trial(departures, candidates)
    start = trial.share_right([])
    gains = {"+".join(":".join(c) for c in s): trial.share_right(s) - start for s in sets}
    # a second context must earn its place over the first alone
    best = max(zip(sets, gains.values(), strict=True), key=lambda p: p[1] - min_gain * len(p[0]), default=([], 0.0))
    kept = best[0] if best[0] and best[1] >= min_gain * len(best[0]) else []
    return kept, {name: round(gain, 4) for name, gain in gains.items()}


class _Trial:
    """Departures as arrays `[E]`, to try sets of contexts on: each half of the users is predicted from the other."""

    def __init__(self, departures: Sequence[Departure], candidates: Sequence[Context]):
        self._half = np.array([d.user % 2 for d in departures])
        self._live = np.array([d.live for d in departures])
        self._following = np.array([d.following for d in departures])
        self._values: dict[Context, np.ndarray] = {}
        for context in candidates:
            numbers: dict[str, int] = {"": -1}
            told = [numbers.setdefault(d.values.get(context, ""), len(numbers) - 1) for d in departures]
            self._values[context] = np.array(told)
        self._alone: dict[Context | None, np.ndarray] = {}

    def share_right(self, contexts: Sequence[Context]) -> float:
        """Share of events whose next interest is the most likely one in the narrowest context that is known."""
        return float((self._predict(contexts) == self._following).mean())

    def _predict(self, contexts: Sequence[Context]) -> np.ndarray:
        """The most likely next interests, -1 where none is; those of no context and of single ones are kept."""
        name = contexts[0] if contexts else None
        if len(contexts) < 2 and name in self._alone:
            return self._alone[name]
        key, known = self._live, np.ones(len(self._live), dtype=bool)
        for context in contexts:
            values = self._values[context]
            known = known & (values >= 0)
            key = np.where(known, key * (values.max(initial=0) + 1) + values, 0)
        key = np.unique(key, return_inverse=True)[1]
        guess = self._most_likely(key, known)
        if contexts:
            guess = np.where(guess >= 0, guess, self._predict(contexts[:-1]))
        if len(contexts) < 2:
            self._alone[name] = guess
        return guess

    def _most_likely(self, key: np.ndarray, known: np.ndarray) -> np.ndarray:
        """The interest that most often follows a key in the other half of the users, the lowest number on a tie."""
        table = self._half * (key.max() + 1) + key
        size = 2 * (key.max() + 1)
        width = self._following.max() + 1
        seen, counts = np.unique(table[known] * width + self._following[known], return_counts=True)
        at, following = seen // width, seen % width
        order = np.lexsort((following, -counts, at))
        first = order[np.searchsorted(at[order], np.unique(at))]
        best = np.full(size, -1)
        best[at[first]] = following[first]
        best[np.bincount(table[known], minlength=size) < MIN_EVENTS] = -1
        other = (1 - self._half) * (key.max() + 1) + key
        return np.where(known, best[other], -1)


def _keys(departure: Departure, contexts: Sequence[Context]) -> list[tuple[int | str, ...]]:
    """The keys of an event from the widest to the narrowest; it stops at the first unknown value."""
    key: tuple[int | str, ...] = (departure.live,)
    keys = [key]
    for context in contexts:
        value = departure.values.get(context, "")
        if not value:
            break
        key = (*key, value)
        keys.append(key)
    return keys


def _count(departures: Sequence[Departure], contexts: Sequence[Context]) -> dict[tuple[int | str, ...], Counter[int]]:
    tables: defaultdict[tuple[int | str, ...], Counter[int]] = defaultdict(Counter)
    for departure in departures:
        for key in _keys(departure, contexts):
            tables[key][departure.following] += 1
    return tables
