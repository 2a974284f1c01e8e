"""Rationales from pruned contexts: a few relevant items, and why they lead to the next one (OneRec-Think, activation).

The teacher sees the pruned context; the student is asked with the whole history and learns to find what matters in it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from onereason.cognition.knowledge import Knowledge
from onereason.cognition.memo import Memo
from onereason.data.prompt_sets import load_prompt_set
from onereason.data.prompts import Message, domain_noun

_MARK = "\x00"


@dataclass(frozen=True)
class Rationale:
    """What a rationale says.

    Attributes:
        groups: `(interest, item indices)` of the pruned context, in the order in which interests appear.
        source: the interest that leads to the target's; equal to it where the interest goes on.
        interest: the target's.
        domain: the target's.
    """

    groups: Sequence[tuple[int, Sequence[int]]]
    source: int
    interest: int
    domain: str


def find_rationale(knowledge: Knowledge, pruned: Sequence[int], target: int, followers: int = 5) -> Rationale | str:
    """How a pruned context leads to a target, or why it does not.

    Args:
        pruned: item indices, oldest first. Of several under one pattern the newest is cited; those without an interest
            are not.
        target: item index.
        followers: an interest leads to those that follow it most often, so many of them.

    Returns:
        A rationale, or `nothing_relevant`, `target_without_theme`, `no_bridge`.
    """
    interest_of = knowledge.interest_of
    interest = interest_of[target]
    if interest < 0:
        return "target_without_theme"
    patterns = knowledge.facts.patterns
    newest = {patterns[item]: place for place, item in enumerate(pruned)}
    groups: dict[int, list[int]] = {}
    for place, item in enumerate(pruned):
        if interest_of[item] >= 0 and newest[patterns[item]] == place:
            groups.setdefault(interest_of[item], []).append(item)
    if not groups:
        return "nothing_relevant"
    source, best = interest, 0.0
    if interest not in groups:
        for z in groups:
            led = dict(knowledge.transitions.following(z, ())[:followers])
            if led.get(interest, 0.0) > best:
                source, best = z, led[interest]
        if not best:
            return "no_bridge"
    return Rationale(list(groups.items()), source, interest, knowledge.facts.domains[target])


class RationaleWriter:
    """Says rationales in the words of a language."""

    def __init__(self, knowledge: Knowledge, language: str = "en"):
        self.knowledge = knowledge
        self.language = language
        self.prompts = load_prompt_set("rationale", language)
        self._separator, self._between = self.prompts.text("separator"), self.prompts.text("between")
        self._in_a_row = self.prompts.text("in_a_row")
        self._nouns = {d: domain_noun(d, True, language) for d in dict.fromkeys(knowledge.facts.domains)}
        self._period = math.lcm(*map(len, self.prompts.texts.values()))
        self._groups = Memo(self._say_group)
        self._openings = Memo(self._say_opening)
        self._ends = Memo(self._say_end)

    def write(self, rationale: Rationale, turn: int) -> str:
        """The text; `turn` deals out the wordings."""
        patterns, period = self.knowledge.facts.patterns, self._period
        groups = []
        for place, (interest, items) in enumerate(rationale.groups, turn):
            around = self._groups[interest, len(items) > 1, place % period]
            groups.append(self._separator.join([patterns[i] for i in items]).join(around))
        said = self._between.join(groups).join(self._openings[turn % period])
        end = self._ends[rationale.source, rationale.interest, rationale.domain, turn % period]
        return said.join(end)

    def _say_group(self, key: tuple[int, bool, int]) -> list[str]:
        """What stands around the items of a group."""
        interest, several, turn = key
        text = self.prompts.text("group" if several else "one", turn)
        return text.format(items=_MARK, interest=self.knowledge.interests.names[interest]).split(_MARK)

    def _say_opening(self, turn: int) -> list[str]:
        """What stands around the groups."""
        return self.prompts.text("opening", turn).format(groups=_MARK).split(_MARK)

    def _say_end(self, key: tuple[int, int, str, int]) -> list[str]:
        """What stands around the opening: the bridge, and what it means in the domain."""
        source, interest, domain, turn = key
        text, names = self.prompts.text, self.knowledge.interests.names
        name = names[interest]
        if source == interest:
            bridge = text("hold", turn).format(interest=name)
        else:
            bridge = text("lead", turn).format(source=names[source], interest=name)
        said = self._in_a_row.format(first=_MARK, second=bridge)
        theme = self.knowledge.interests.themes.get((interest, domain), name)
        if theme != name:
            direction = text("direction", turn).format(nouns=self._nouns[domain], theme=theme)
            said = self._in_a_row.format(first=said, second=direction)
        return said.split(_MARK)


@dataclass(frozen=True)
class RationaleAssignment:
    """A rationale that a teacher is to write.

    Attributes:
        id: the row's id.
        writer: composes the template's.
        rationale: what it says.
        pruned: item indices of the pruned context, oldest first.
        target: item index.
        seed: of the wording.
    """

    id: str
    writer: RationaleWriter
    rationale: Rationale
    pruned: Sequence[int]
    target: int
    seed: int

    def compose(self) -> str:
        return self.writer.write(self.rationale, zlib.crc32(f"{self.seed}:{self.id}".encode()))

    def messages(self) -> list[Message]:
        writer, facts = self.writer, self.writer.knowledge.facts
        entry = writer.prompts.text("teacher.entry")
        lines = [
            entry.format(pattern=facts.patterns[i], caption=facts.captions[i] or facts.titles[i]) for i in self.pruned
        ]
        user = writer.prompts.text("teacher.user").format(
            history="\n".join(lines),
            noun=domain_noun(facts.domains[self.target], language=writer.language),
            target=facts.captions[self.target] or facts.titles[self.target],
        )
        return [
            {"role": "system", "content": writer.prompts.text("teacher.system").format()},
            {"role": "user", "content": user},
        ]
