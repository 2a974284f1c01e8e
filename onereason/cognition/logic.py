"""Episodes in words: dated timelines, logic chains as JSON, and the traces that lead to them (R2)."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import NamedTuple

import orjson

from onereason.cognition.chains import Episode
from onereason.cognition.knowledge import Knowledge
from onereason.cognition.memo import Memo
from onereason.data.prompt_sets import load_prompt_set
from onereason.data.prompts import Message

SECONDS_A_DAY = 86_400
NO_CHAIN = '{"logic_chain":[]}'


class Entry(NamedTuple):
    """A line of a timeline: its date (or its place, where the logs have no moments), and what was done."""

    date: str
    action: str

    @property
    def text(self) -> str:
        return f"{self.date} {self.action}"


_make_entry = partial(tuple.__new__, Entry)
"""An entry of a pair; quicker than by its parts."""


class Timeline(list[Entry]):
    """The entries of a history, oldest first."""

    @cached_property
    def texts(self) -> list[str]:
        """The text of each entry."""
        return [f"{date} {action}" for date, action in self]

    @cached_property
    def lines(self) -> str:
        """All of them, one a line."""
        return "\n".join(self.texts)


def render_date(timestamp: int) -> str:
    """`2025-01-03`, UTC."""
    return _render_day(timestamp // SECONDS_A_DAY)


@lru_cache(maxsize=10_000)
def _render_day(day: int) -> str:
    return datetime.datetime.fromtimestamp(day * SECONDS_A_DAY, datetime.UTC).date().isoformat()


def build_timeline(
    patterns: Sequence[str], items: Sequence[int], timestamps: Sequence[int], actions: Sequence[str], dated: bool
) -> Timeline:
    """The entries of a history, oldest first; without dates they are numbered `#001`, `#002`, ..."""
    dates = map(render_date, timestamps) if dated else [f"#{place:03d}" for place in range(1, len(timestamps) + 1)]
    said = [f"{action} {patterns[item]}" for item, action in zip(items, actions, strict=True)]
    return Timeline(map(_make_entry, zip(dates, said, strict=True)))


class ChainWriter:
    """Says episodes in the words of a language."""

    def __init__(self, knowledge: Knowledge, language: str = "en", dated: bool = True):
        """
        Args:
            dated: whether entries are labelled by their day, else by their number (`build_timeline`).
        """
        self.names = knowledge.interests.names
        self.prompts = load_prompt_set("evolution", language)
        self.label = self.prompts.text("label.dated" if dated else "label.numbered")
        self._steps = {step: self.prompts.text(f"step.{step}") for step in ("trigger", "stay", "narrow", "move")}
        self._verbs = {step: self.prompts.text(f"verb.{step}") for step in self._steps}
        self._then = self.prompts.text("verb.then")
        self._said = Memo(self._say_step)
        self._done = Memo(self._say_verb)
        self._systems = Memo(self._say_system)

    def chain(self, episode: Episode, timeline: Sequence[Entry]) -> dict[str, object]:
        """`{"name", "events": [{"date", "action", "logic"}]}`."""
        return {
            "name": self.names[episode.interest],
            "events": [
                {"date": timeline[place].date, "action": timeline[place].action, "logic": logic}
                for place, logic in zip(episode.places, self.logic(episode), strict=True)
            ],
        }

    def logic(self, episode: Episode) -> list[str]:
        """Why each event follows."""
        topic, said = episode.interest, self._said
        return [
            said[step, topic, other, side]
            for step, other, side in zip(episode.steps, episode.interests, episode.sides, strict=True)
        ]

    def _say_step(self, key: tuple[str, int, int, str]) -> str:
        step, topic, other, side = key
        return self._steps[step].format(topic=self.names[topic], other=self.names[other], side=side)

    def _say_verb(self, key: tuple[str, int]) -> str:
        step, other = key
        return self._verbs[step].format(other=self.names[other])

    def trace(self, episode: Episode, timeline: Sequence[Entry], turn: int) -> str:
        """The run of an episode in one sentence; steps of one kind in a row are said once."""
        said: list[str] = []
        for step, other in zip(episode.steps, episode.interests, strict=True):
            verb = self._done[step, other]
            if not said or said[-1] != verb:
                said.append(verb)
        return self.prompts.text("trace", turn).format(
            count=len(episode),
            total=len(timeline),
            topic=self.names[episode.interest],
            first=timeline[episode.places[0]].date,
            last=timeline[episode.places[-1]].date,
            steps=self._then.join(said),
        )

    def _say_system(self, key: tuple[str, int]) -> str:
        task, turn = key
        if task == "action_selection":
            return self.prompts.text("action_selection.system", turn).format()
        return self.prompts.text("chain.system", turn).format(date=self.label)

    def question(self, task: str, timeline: Sequence[Entry], topic: str, turn: int) -> list[Message]:
        """System and user turn of a task (`action_selection`, `topic`, `direct`)."""
        lines = (timeline if isinstance(timeline, Timeline) else Timeline(timeline)).lines
        user = self.prompts.text(f"{task}.user", turn)
        user = user.format(timeline=lines) if task == "direct" else user.format(timeline=lines, topic=topic)
        return [{"role": "system", "content": self._systems[task, turn]}, {"role": "user", "content": user}]


@dataclass(frozen=True)
class ChainAssignment:
    """A logic chain that a teacher is to write.

    Attributes:
        id: the row's id.
        writer: of the template's chain.
        episode: what it is about.
        timeline: that it stands in.
        chain: as the writer says it, where that is known.
    """

    id: str
    writer: ChainWriter
    episode: Episode
    timeline: Sequence[Entry]
    chain: Mapping[str, object] | None = None

    def compose(self) -> str:
        chain = self.chain or self.writer.chain(self.episode, self.timeline)
        return orjson.dumps({"logic_chain": chain}).decode()

    def messages(self) -> list[Message]:
        entries = [self.timeline[place].text for place in self.episode.places]
        user = self.writer.prompts.text("teacher.user").format(
            timeline="\n".join([entry.text for entry in self.timeline]),
            topic=self.writer.names[self.episode.interest],
            entries="\n".join(entries),
        )
        return [
            {"role": "system", "content": self.writer.prompts.text("teacher.system").format(date=self.writer.label)},
            {"role": "user", "content": user},
        ]
