"""Episodes in words: dated timelines, logic chains as JSON, and the traces that lead to them (R2)."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from onereason.cognition.chains import Episode
from onereason.cognition.knowledge import Knowledge
from onereason.data.prompt_sets import load_prompt_set
from onereason.data.prompts import Message

NO_CHAIN = '{"logic_chain":[]}'


@dataclass(frozen=True)
class Entry:
    """A line of a timeline: its date (or its place, where the logs have no moments), and what was done."""

    date: str
    action: str

    @property
    def text(self) -> str:
        return f"{self.date} {self.action}"


def render_date(timestamp: int) -> str:
    """`2025-01-03`, UTC."""
    return datetime.datetime.fromtimestamp(timestamp, datetime.UTC).date().isoformat()


def build_timeline(
    patterns: Sequence[str], items: Sequence[int], timestamps: Sequence[int], actions: Sequence[str], dated: bool
) -> list[Entry]:
    """The entries of a history, oldest first; without dates they are numbered `#001`, `#002`, ..."""
    return [
        Entry(render_date(time) if dated else f"#{place:03d}", f"{action} {patterns[item]}")
        for place, (item, time, action) in enumerate(zip(items, timestamps, actions, strict=True), 1)
    ]


class ChainWriter:
    """Says episodes in the words of a language."""

    def __init__(self, knowledge: Knowledge, language: str = "en"):
        self.names = knowledge.interests.names
        self.prompts = load_prompt_set("evolution", language)
        self._steps = {step: self.prompts.text(f"step.{step}") for step in ("trigger", "stay", "narrow", "move")}
        self._verbs = {step: self.prompts.text(f"verb.{step}") for step in self._steps}
        self._then = self.prompts.text("verb.then")

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
        topic = self.names[episode.interest]
        return [
            self._steps[step].format(topic=topic, other=self.names[other], side=side)
            for step, other, side in zip(episode.steps, episode.interests, episode.sides, strict=True)
        ]

    def trace(self, episode: Episode, timeline: Sequence[Entry], turn: int) -> str:
        """The run of an episode in one sentence; steps of one kind in a row are said once."""
        said: list[str] = []
        for step, other in zip(episode.steps, episode.interests, strict=True):
            verb = self._verbs[step].format(other=self.names[other])
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

    def system(self, task: str, turn: int) -> str:
        key = "action_selection.system" if task == "action_selection" else "chain.system"
        return self.prompts.text(key, turn).format()

    def question(self, task: str, timeline: Sequence[Entry], topic: str, turn: int) -> list[Message]:
        """System and user turn of a task (`action_selection`, `topic`, `direct`)."""
        lines = "\n".join([entry.text for entry in timeline])
        user = self.prompts.text(f"{task}.user", turn)
        user = user.format(timeline=lines) if task == "direct" else user.format(timeline=lines, topic=topic)
        return [{"role": "system", "content": self.system(task, turn)}, {"role": "user", "content": user}]


@dataclass(frozen=True)
class ChainAssignment:
    """A logic chain that a teacher is to write.

    Attributes:
        id: the row's id.
        writer: of the template's chain.
        episode: what it is about.
        timeline: that it stands in.
    """

    id: str
    writer: ChainWriter
    episode: Episode
    timeline: Sequence[Entry]

    def compose(self) -> str:
        return orjson.dumps({"logic_chain": self.writer.chain(self.episode, self.timeline)}).decode()

    def messages(self) -> list[Message]:
        entries = [self.timeline[place].text for place in self.episode.places]
        user = self.writer.prompts.text("teacher.user").format(
            timeline="\n".join([entry.text for entry in self.timeline]),
            topic=self.writer.names[self.episode.interest],
            entries="\n".join(entries),
        )
        return [
            {"role": "system", "content": self.writer.prompts.text("teacher.system").format()},
            {"role": "user", "content": user},
        ]
