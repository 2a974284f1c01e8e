"""Evidence of a recommendation trace: persona, candidate interests, and how one of them leads to the next item.

Gathered by a walk that stands before the target, in the order of the trace's stages: persona abstraction, interest
expansion, transition inference (OneReason, Eq. 3-5). The target adds no candidate and no evidence. By hindsight it
decides which candidate is concluded; by belief it does not, and a trace is what could have been thought before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from onereason.cognition.knowledge import Knowledge
from onereason.cognition.walk import Walk

Kind = Literal["live", "seen", "lead"]
CONCLUSIONS = ("hindsight", "belief")
CONFLICT_SHARE = 0.6
"""A second value of the persona's trait with so much of the first one's count is a conflict, as on a shared device."""


@dataclass(frozen=True, slots=True)
class Trait:
    """A value that a history leans to: attribute, value, items that bear it."""

    attribute: str
    value: str
    count: int


class Candidate(NamedTuple):
    """An interest that may come next.

    Attributes:
        interest: its number.
        kind: `live` leads the recent events, `seen` stands in the history, `lead` is where the live one leads.
        cited: positions of the history that show it; for `lead` there are none.
        belief: share of belief, see `Knowledge.candidates`.
    """

    interest: int
    kind: Kind
    cited: Sequence[int]
    belief: float


@dataclass(frozen=True)
class Evidence:
    """What a trace is composed of.

    Attributes:
        traits: what the history leans to, the trait that decides about transitions first.
        conflict: a second value of that trait, '' where there is none.
        habit: the domain most items belong to, '' where no domain holds half of them or there is only one.
        candidates: most likely first.
        chosen: position of the candidate that the next item belongs to.
        live, live_count: the interest that leads the recent events, and how often it stands there.
        cue: value of the last item that decides about transitions, '' where none does.
        domain: of the item that is asked for.
        num_items: length of the history.
        readings: positions of the newest items that are read one by one, oldest first.
    """

    traits: Sequence[Trait]
    conflict: str
    habit: str
    candidates: Sequence[Candidate]
    chosen: int
    live: int
    live_count: int
    cue: str
    domain: str
    num_items: int
    readings: Sequence[int] = ()


def gather_evidence(
    knowledge: Knowledge,
    walk: Walk,
    target: int,
    num_candidates: int = 3,
    max_cited: int = 3,
    conclusion: str = "hindsight",
    num_readings: int = 0,
) -> Evidence | str:
    """The evidence for a target, or the reason why there is none.

    Args:
        walk: stands before the target; it has read at least one item.
        target: item index of the next item.
        num_candidates: interests that the trace weighs (the report finds 1, 3, 5 better than 10, 20).
        max_cited: newest items cited for an interest, one a pattern. Those under the target's sid are never cited.
        conclusion: `hindsight` concludes the candidate that is the target's interest; `belief` the one that is most
            likely before the target is known, be it right or wrong.
        num_readings: newest items that are read one by one before anything is said of them; those under the target's
            sid are passed over.

    Returns:
        Evidence, or `target_without_theme`, `no_known_interest` (the history has no themes), `no_bridge` (none of the
        candidates is the target's interest: nothing in the history speaks for it; only where hindsight concludes).
    """
    interest = knowledge.interest_of[target]
    if interest < 0:
        return "target_without_theme"
    live, live_count = walk.live()
    if live < 0:
        return "no_known_interest"
    found = knowledge.candidates(walk, num_candidates)
    chosen = 0 if conclusion == "belief" else next((i for i, (z, _) in enumerate(found) if z == interest), -1)
    if chosen < 0:
        return "no_bridge"
    patterns, hidden = knowledge.facts.patterns, knowledge.facts.patterns[target]
    candidates = []
    for z, belief in found:
        places = walk.places.get(z, ())
        kind: Kind = "live" if z == live else "seen" if places else "lead"
        candidates.append(Candidate(z, kind, _newest(places, walk.items, patterns, hidden, max_cited), belief))
    traits, conflict = _traits(knowledge, walk)
    recent = range(max(0, len(walk.items) - num_readings), len(walk.items))
    return Evidence(
        traits,
        conflict,
        _habit(walk),
        candidates,
        chosen,
        live,
        live_count,
        walk.last(knowledge.cue) if knowledge.cue else "",
        knowledge.facts.domains[target],
        len(walk.items),
        [place for place in recent if patterns[walk.items[place]] != hidden],
    )


def _newest(
    places: Sequence[int], items: Sequence[int], patterns: Sequence[str], hidden: str, number: int
) -> list[int]:
    """The newest of `places` whose items bear different patterns, at most `number`, oldest first."""
    found: list[int] = []
    seen = {hidden}
    for place in reversed(places):
        pattern = patterns[items[place]]
        if pattern not in seen:
            seen.add(pattern)
            found.append(place)
            if len(found) == number:
                break
    found.reverse()
    return found


def _traits(knowledge: Knowledge, walk: Walk, most: int = 2) -> tuple[list[Trait], str]:
    """The leanings of a history, at most `most`, and the rival value of the one that decides about transitions."""
    least = knowledge.config.min_trait
    first = knowledge.persona_trait
    traits = []
    for name in knowledge.trait_order:
        value, count = walk.leaning(name, least)
        if value:
            traits.append(Trait(name, value, count))
            if len(traits) == most:
                break
    if not first or not traits or traits[0].attribute != first:
        return traits, ""
    base, counts = knowledge.base[first], walk.count(first)
    enough = max(least, CONFLICT_SHARE * traits[0].count)
    rivals = [(value, count) for value, count in counts.items() if count >= enough and value != traits[0].value]
    if not rivals:
        return traits, ""
    total = sum(counts.values())
    excess, conflict = max([(count - total * base.get(value, 0.0), value) for value, count in rivals])
    return traits, conflict if excess > 0 else ""


def _habit(walk: Walk) -> str:
    """The domain that holds more than half of a history of several domains."""
    domains = walk.domains
    if len(domains) < 2:
        return ""
    domain = max(domains, key=lambda d: (domains[d], d))
    return domain if 2 * domains[domain] > len(walk.items) else ""
