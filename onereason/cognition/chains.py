"""How interests evolve in a timeline: episodes that a burst opens and that move on from there (R2).

An episode is about the interest that a burst makes live. It goes on while items hold that interest, narrow to a side of
it, or take a step to where it leads; it ends when another burst begins. Items that are neither stay outside.

Notation: `n` items of a history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from onereason.cognition.knowledge import Knowledge

Step = Literal["trigger", "stay", "narrow", "move"]


@dataclass(frozen=True)
class Episode:
    """One interest over time.

    Attributes:
        interest: what it is about.
        places: positions in the history, oldest first.
        steps: what each event does.
        interests: the interest of each event's item; differs from `interest` where the step is a move.
        sides: the cue value that a narrowing keeps to, '' elsewhere.
    """

    interest: int
    places: Sequence[int]
    steps: Sequence[Step]
    interests: Sequence[int]
    sides: Sequence[str]

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True)
class EpisodeRules:
    """When an interest is a burst, and which steps belong to it."""

    burst: int = 2
    """Items of one interest within `reach` that open an episode."""
    reach: int = 3
    """Items over which a burst is looked for, its first one included."""
    followers: int = 3
    """A step to one of the interests that the episode's most often leads to is a move."""
    patience: int = 8
    """Items without a step of the episode after which it ends."""


def find_episodes(knowledge: Knowledge, history: Sequence[int], rules: EpisodeRules | None = None) -> list[Episode]:
    """The episodes of a history, in the order in which they begin; single events are no episode.

    Args:
        history: item indices, oldest first.
    """
    rules = rules or EpisodeRules()
    interests = list(map(knowledge.interest_of.__getitem__, history))
    sides = list(map(knowledge.traits[knowledge.cue].__getitem__, history)) if knowledge.cue else [""] * len(history)
    walk = knowledge.walk()  # reads on when a step depends on what the user is like by then
    wide, narrow = knowledge.followers(rules.followers)
    drafts: list[_Draft] = []
    open_: _Draft | None = None

    def leads_to(interest: int, other: int, place: int) -> bool:
        """Whether one interest often leads to another, whoever the user is, or most often for this user by now."""
        if other in wide[interest]:
            return True
        if other not in narrow[interest]:
            return False
        walk.read_all(history[len(walk.items) : place])
        following = knowledge.transitions.following(interest, knowledge.context_values(walk))
        return bool(following) and following[0][0] == other

    for place, z in enumerate(interests):
        if z < 0:
            continue
        if open_ is not None:
            if place - open_.places[-1] > rules.patience:
                open_ = None
            elif z == open_.interest:
                side = sides[place]
                open_.add(place, "narrow" if side and side == open_.side else "stay")
                open_.side = side
                continue
        num_near = interests[place : place + rules.reach].count(z)
        # a step that the episode leads to anyway must come again more often to count as a new burst
        if num_near <= rules.burst and open_ is not None and leads_to(open_.interest, z, place):
            open_.add(place, "move")
        elif num_near >= rules.burst:
            open_ = _Draft(z, sides[place])
            open_.add(place, "trigger")
            drafts.append(open_)
    return [
        Episode(
            draft.interest,
            draft.places,
            draft.steps,
            [interests[place] for place in draft.places],
            [sides[p] if step == "narrow" else "" for p, step in zip(draft.places, draft.steps, strict=True)],
        )
        for draft in drafts
        if len(draft.places) > 1
    ]


class _Draft:
    """An episode while it goes on, and the side of its newest item."""

    __slots__ = ("interest", "places", "side", "steps")

    def __init__(self, interest: int, side: str):
        self.interest = interest
        self.side = side
        self.places: list[int] = []
        self.steps: list[Step] = []

    def add(self, place: int, step: Step) -> None:
        self.places.append(place)
        self.steps.append(step)
