"""A pair's hop in words: six fields at the level of categories, or a trace that leads to them (R1).

The student sees the source alone. What is said of the target is its category and its domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from onereason.cognition.bridges import BRIDGE_FIELDS, BRIDGE_TYPES, ORIGINS, Pairs
from onereason.cognition.checks.json_checks import read_json
from onereason.cognition.judge.relations import RELATIONS
from onereason.cognition.knowledge import Knowledge
from onereason.cognition.memo import Memo
from onereason.data.prompt_sets import load_prompt_set
from onereason.data.prompts import Message, domain_noun

_FIELDS = frozenset(BRIDGE_FIELDS)
TEXT_FIELDS = tuple(name for name in BRIDGE_FIELDS if name != "confidence")
_PRIOR = 10.0
"""Sightings that a hop's confidence starts from."""


def compute_confidence(lift: float, support: int) -> float:
    """How sure a hop is, 0 to 1: the share of its sightings that chance does not explain, less for few sightings."""
    return round(support / (support + _PRIOR) * max(0.0, 1.0 - 1.0 / lift), 2) if lift > 0 else 0.0


class HopWriter:
    """Says hops in the words of a language."""

    def __init__(self, knowledge: Knowledge, language: str = "en"):
        self.knowledge = knowledge
        self.prompts = load_prompt_set("derivation", language)
        self.language = language
        self._types = {name: self.prompts.text(f"bridge.type.{name}") for name in BRIDGE_TYPES}
        domains = dict.fromkeys(knowledge.facts.domains)
        self._nouns = {d: (domain_noun(d, False, language), domain_noun(d, True, language)) for d in domains}
        self._separator = load_prompt_set("trace", language).text("word.join")
        self._needs = Memo(self._say_need)
        self._bridges = Memo(self._say_bridge)
        self._directions = Memo(self._say_direction)
        self._reasons = Memo(self._say_reason)
        self._systems = Memo(self._say_system)

    def nouns(self, item: int) -> tuple[str, str]:
        """What one item of an item's domain is called, and several."""
        return self._nouns[self.knowledge.facts.domains[item]]

    def fields(self, pairs: Pairs, place: int) -> dict[str, Any]:
        """The six fields of a pair, both of whose items have an interest."""
        facts, interest_of = self.knowledge.facts, self.knowledge.interest_of
        source, target = pairs.sources.item(place), pairs.targets.item(place)
        kind = BRIDGE_TYPES[pairs.types.item(place)]
        return {
            "source_need": self._needs[source],
            "bridge_type": kind,
            "abstract_bridge": self._bridges[interest_of[source], interest_of[target], kind],
            "continuation_direction": self._directions[facts.domains[target], facts.themes[target]],
            "reason_seed": self.reason(pairs, place),
            "confidence": compute_confidence(pairs.lifts.item(place), pairs.supports.item(place)),
        }

    def _say_need(self, source: int) -> str:
        traits = [values[source] for values in self.knowledge.traits.values() if values[source]]
        return self.prompts.text("bridge.source_need", int(bool(traits))).format(
            theme=self.knowledge.facts.themes[source], traits=self._separator.join(traits)
        )

    def _say_bridge(self, key: tuple[int, int, str]) -> str:
        interest, other, kind = key
        names = self.knowledge.interests.names
        return self.prompts.text("bridge.abstract_bridge", int(interest != other)).format(
            interest=names[interest], target_interest=names[other], type=self._types[kind]
        )

    def _say_direction(self, key: tuple[str, str]) -> str:
        domain, theme = key
        return self.prompts.text("bridge.direction").format(nouns=self._nouns[domain][1], theme=theme)

    def reason(self, pairs: Pairs, place: int) -> str:
        """What the logs say of the hop: of two interests, or of two themes of one (see `Pairs.lifts`)."""
        interest_of = self.knowledge.interest_of
        source, target = pairs.sources.item(place), pairs.targets.item(place)
        left, right = interest_of[source], interest_of[target]
        said = self.knowledge.facts.themes if left == right else self.knowledge.interests.names
        first, second = (source, target) if left == right else (left, right)
        return self._reasons[pairs.origins.item(place), said[first], said[second], f"{pairs.lifts.item(place):.1f}"]

    def _say_reason(self, key: tuple[int, str, str, str]) -> str:
        origin, source, target, lift = key
        return self.prompts.text(f"bridge.reason.{ORIGINS[origin]}").format(source=source, target=target, lift=lift)

    def trace(self, pairs: Pairs, place: int, turn: int) -> str:
        """The way to the fields, in words."""
        source = pairs.sources.item(place)
        return self.prompts.text("bridge.trace", turn).format(
            noun=self.nouns(source)[0],
            theme=self.knowledge.facts.themes[source],
            interest=self.knowledge.interests.names[self.knowledge.interest_of[source]],
            reason=self.reason(pairs, place),
            type=self._types[BRIDGE_TYPES[pairs.types.item(place)]],
        )

    def messages(self, source: int, target: int, turn: int) -> list[Message]:
        """System and user turn of the student's question, which shows the source alone."""
        user = self.prompts.text("bridge.user", turn).format(
            noun=self.nouns(source)[0], pattern=self.knowledge.facts.patterns[source], nouns=self.nouns(target)[1]
        )
        return [{"role": "system", "content": self._systems[turn]}, {"role": "user", "content": user}]

    def _say_system(self, turn: int) -> str:
        return self.prompts.text("bridge.system", turn).format()


@dataclass(frozen=True)
class HopAssignment:
    """A hop that a teacher is to describe as JSON.

    Attributes:
        id: the row's id.
        writer: of the template's fields.
        pairs, place: the pair.
    """

    id: str
    writer: HopWriter
    pairs: Pairs
    place: int

    def compose(self) -> str:
        return orjson.dumps(self.writer.fields(self.pairs, self.place)).decode()

    def messages(self) -> list[Message]:
        writer, facts = self.writer, self.writer.knowledge.facts
        source, target = int(self.pairs.sources[self.place]), int(self.pairs.targets[self.place])
        user = writer.prompts.text("bridge.teacher.user").format(
            noun=writer.nouns(source)[0],
            source=facts.captions[source] or facts.titles[source],
            target_noun=writer.nouns(target)[0],
            target=facts.captions[target] or facts.titles[target],
            reason=writer.reason(self.pairs, self.place),
        )
        return [
            {"role": "system", "content": writer.prompts.text("bridge.teacher.system").format()},
            {"role": "user", "content": user},
        ]


def parse_fields(text: str) -> dict[str, Any] | str:
    """The six fields of a teacher's answer, or the reason why they cannot be used.

    A think block and a code fence around the JSON are passed over. An answer may judge the pair first: one that does
    not find it explicitly related is `teacher_uncertain` or `teacher_unrelated`.
    """
    value = read_json(text)
    if not isinstance(value, dict):
        return "teacher_broken_json"
    relation = "_".join(str(value.get("relation", RELATIONS[0])).lower().split())
    if relation not in RELATIONS:
        return "bridge_field_wrong"
    if relation != RELATIONS[0]:
        return f"teacher_{relation}"
    return check_fields(value) or {name: value[name] for name in BRIDGE_FIELDS}


def check_fields(value: Mapping[str, Any]) -> str | None:
    """`bridge_field_missing` or `bridge_field_wrong` where a field is; None where all six are right."""
    if not value.keys() >= _FIELDS:
        return "bridge_field_missing"
    sure = value["confidence"]
    right = (
        all(isinstance(value[name], str) and value[name].strip() for name in TEXT_FIELDS)
        and value["bridge_type"] in BRIDGE_TYPES
        and isinstance(sure, int | float)
        and not isinstance(sure, bool)
        and 0 <= sure <= 1
    )
    return None if right else "bridge_field_wrong"
