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
from onereason.cognition.walk import Walk

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
    interests = [knowledge.interest_of[item] for item in history]
    sides = knowledge.traits[knowledge.cue] if knowledge.cue else None
    walk = knowledge.walk()
    episodes: list[Episode] = []
    open_: _Draft | None = None
    for place, item in enumerate(history):
        z = interests[place]
        if z >= 0:
            side = sides[item] if sides else ""
            if open_ is not None and place - open_.places[-1] > rules.patience:
                _close(open_, episodes)
                open_ = None
            if open_ is not None and z == open_.interest:
                open_.add(place, "narrow" if side and side == open_.side else "stay", z, side)
            else:
                led = open_ is not None and z in _followers(knowledge, open_.interest, walk, rules.followers)
                # a step that the episode leads to anyway must come again more often to count as a new burst
                needed = rules.burst + led
                if interests[place : place + rules.reach].count(z) >= needed:
                    _close(open_, episodes)
                    open_ = _Draft(z)
                    open_.add(place, "trigger", z, side)
                elif open_ is not None and led:
                    open_.add(place, "move", z, side)
        walk.read(item)
    _close(open_, episodes)
    return episodes


class _Draft:
    """An episode while it goes on."""

    def __init__(self, interest: int):
        self.interest = interest
        self.places: list[int] = []
        self.steps: list[Step] = []
        self.interests: list[int] = []
        self.sides: list[str] = []
        self.side = ""

    def add(self, place: int, step: Step, interest: int, side: str) -> None:
        self.places.append(place)
        self.steps.append(step)
        self.interests.append(interest)
        self.sides.append(side if step == "narrow" else "")
        if interest == self.interest:
            self.side = side


def _close(draft: _Draft | None, episodes: list[Episode]) -> None:
    if draft is not None and len(draft.places) > 1:
        episodes.append(Episode(draft.interest, draft.places, draft.steps, draft.interests, draft.sides))


def _followers(knowledge: Knowledge, interest: int, walk: Walk, number: int) -> set[int]:
    """The interests that one most often leads to, whoever the user is, or this user now."""
    transitions = knowledge.transitions
    wide = transitions.following(interest, ())[:number]
    narrow = transitions.following(interest, knowledge.context_values(walk))[:1]
    return {z for z, _ in (*wide, *narrow)}
