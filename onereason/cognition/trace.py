"""Recommendation traces in words: persona abstraction, interest expansion, transition inference (OneReason, Eq. 3-5).

The template teacher composes a trace from evidence; a language model is asked for one with the same headings.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from onereason.cognition.evidence import Candidate, Evidence
from onereason.cognition.knowledge import Knowledge
from onereason.cognition.memo import Memo
from onereason.data.prompt_sets import PromptSet, load_prompt_set, placeholders
from onereason.data.prompts import Message, attribute_noun, domain_noun
from onereason.errors import ConfigError

DETAILS = ("brief", "full")
BRIDGES = ("stay", "move", "move_plain", "return")

_MARK = "\x00"


@dataclass(frozen=True)
class Headings:
    """The lines that open the three stages."""

    persona: str
    interests: str
    transition: str

    def __iter__(self):
        return iter((self.persona, self.interests, self.transition))


def load_headings(language: str = "en") -> Headings:
    """The headings of a language's traces."""
    prompts = load_prompt_set("trace", language)
    return Headings(*(prompts.text(f"heading.{stage}") for stage in ("persona", "interests", "transition")))


class TraceWriter:
    """Writes evidence as a trace.

    `brief` traces say the three stages in few tokens, for small models and short budgets; `full` ones in sentences of
    several wordings.
    """

    def __init__(self, knowledge: Knowledge, language: str = "en", detail: str = "full"):
        """
        Raises:
            ConfigError: an unknown detail or language.
        """
        if detail not in DETAILS:
            raise ConfigError(f"trace detail {detail!r} is not known; use {' or '.join(DETAILS)}.")
        self.knowledge = knowledge
        self.language = language
        self.prompts: PromptSet = load_prompt_set("trace", language)
        self.headings = load_headings(language)
        texts = {k.removeprefix(f"{detail}."): v for k, v in self.prompts.texts.items() if k.startswith(f"{detail}.")}
        self._texts = texts
        self._period = math.lcm(*map(len, texts.values()))
        self._speaks_of = {
            bridge: frozenset[str]().union(*map(placeholders, texts[f"transition.{bridge}"])) for bridge in BRIDGES
        }
        self._stage, self._in_a_row = self.prompts.text("word.stage"), self.prompts.text("word.in_a_row")
        self._join, self._also = self.prompts.text("word.join"), self.prompts.text("word.also")
        self._end = self.prompts.text("word.end")
        kinds = dict.fromkeys(knowledge.facts.domains)
        self._nouns = {d: (domain_noun(d, language=language), domain_noun(d, True, language=language)) for d in kinds}
        self._readings = Memo(self._say_reading)
        self._traits = Memo(self._say_trait)
        self._recent = Memo(self._say_recent)
        self._interests = Memo(self._say_interest)
        self._transitions = Memo(self._say_transition)

    def write(self, evidence: Evidence, items: Sequence[int], turn: int = 0) -> str:
        """The trace of a target.

        Args:
            evidence: what it is composed of.
            items: the history's item indices, which the cited positions refer to.
            turn: deals out the wordings; they go round.
        """
        turn %= self._period
        lines = [self._persona(evidence, items, turn), self.headings.interests]
        patterns, join = self.knowledge.facts.patterns, self._join
        for place, (interest, kind, cited, _) in enumerate(evidence.candidates):
            said = "bare" if not cited and kind != "lead" else kind
            around = self._interests[said, interest, place, (turn + place) % self._period]
            lines.append(join.join([patterns[items[p]] for p in cited]).join(around))
        lines.append(self._transition(evidence, turn))
        return "\n".join(lines)

    def _text(self, key: str, turn: int) -> str:
        variants = self._texts[key]
        return variants[turn % len(variants)]

    def _persona(self, evidence: Evidence, items: Sequence[int], turn: int) -> str:
        total, period = evidence.num_items, self._period
        # What is summed up stands before its sum, item by item: a reader that writes word by word needs it there.
        said = [self._readings[items[place], turn] for place in evidence.readings]
        said += [
            self._traits[trait.attribute, trait.value, trait.count, total, (turn + place) % period]
            for place, trait in enumerate(evidence.traits)
        ]
        if evidence.conflict:
            said.append(self._text("persona.conflict", turn).format(value=evidence.conflict))
        if evidence.habit:
            said.append(self._text("persona.habit", turn).format(nouns=self._nouns[evidence.habit][1]))
        if len(said) == len(evidence.readings):
            said.append(self._text("persona.none", turn))
        # What decides about the interests stands before them: a reader that writes word by word needs it there.
        said.append(self._recent[evidence.live, evidence.cue, turn])
        text = self._also.join(said) + self._end
        return self._stage.format(heading=self.headings.persona, text=text)

    def _say_reading(self, key: tuple[int, int]) -> str:
        """An item in as few words as decide about the next one: its interest, and its values of the contexts."""
        item, turn = key
        knowledge = self.knowledge
        interest = knowledge.interest_of[item]
        named = [knowledge.interests.names[interest]] if interest >= 0 else []
        values = [knowledge.traits[name][item] for name in (knowledge.persona_trait, knowledge.cue) if name]
        told = self._join.join([*named, *filter(None, values)]) or self._text("persona.unknown", turn)
        return self._text("persona.reading", turn).format(pattern=knowledge.facts.patterns[item], told=told)

    def _say_trait(self, key: tuple[str, str, int, int, int]) -> str:
        name, value, count, total, turn = key
        attribute = attribute_noun(name, self.language)
        return self._text("persona.trait", turn).format(value=value, attribute=attribute, count=count, total=total)

    def _say_recent(self, key: tuple[int, str, int]) -> str:
        live, cue, turn = key
        kind = "persona.recent" if cue else "persona.recent_plain"
        return self._text(kind, turn).format(live=self.knowledge.interests.names[live], cue=cue)

    def _say_interest(self, key: tuple[str, int, int, int]) -> list[str]:
        """What stands around the cited items."""
        kind, interest, place, turn = key
        name = self.knowledge.interests.names[interest]
        text = self._text(f"interest.{kind}", turn).format(number=place + 1, interest=name, items=_MARK)
        return text.split(_MARK)

    def _transition(self, evidence: Evidence, turn: int) -> str:
        """The hop. Only what its wording speaks of counts, so that few have to be written anew."""
        chosen = evidence.candidates[evidence.chosen]
        bridge = self._bridge(evidence, chosen)
        speaks_of = self._speaks_of[bridge]
        cue = evidence.cue if "cue" in speaks_of else ""
        count = evidence.live_count if "count" in speaks_of else 0
        who = ""
        if "who" in speaks_of and evidence.traits and evidence.traits[0].attribute == self.knowledge.persona_trait:
            who = evidence.traits[0].value
        return self._transitions[bridge, evidence.live, chosen.interest, cue, count, who, evidence.domain, turn]

    def _say_transition(self, key: tuple[str, int, int, str, int, str, str, int]) -> str:
        bridge, live, interest, cue, count, value, domain, turn = key
        names = self.knowledge.interests.names
        name = names[interest]
        who = self._text("transition.everyone", turn)
        if value:
            attribute = attribute_noun(self.knowledge.persona_trait or "", self.language)
            who = self._text("transition.who", turn).format(value=value, attribute=attribute)
        text = self._text(f"transition.{bridge}", turn).format(
            live=names[live], interest=name, cue=cue, count=count, who=who
        )
        theme = self.knowledge.interests.themes.get((interest, domain), name)
        # among several domains the sentence always stands, so that a reader learns one rule
        if theme != name or len(self._nouns) > 1:
            noun, nouns = self._nouns[domain]
            shown = self._text("transition.domain", turn).format(noun=noun, nouns=nouns, theme=theme)
            text = self._in_a_row.format(first=text, second=shown)
        return self._stage.format(heading=self.headings.transition, text=text)

    @staticmethod
    def _bridge(evidence: Evidence, chosen: Candidate) -> str:
        if chosen.kind == "live":
            return "stay"
        if chosen.kind == "seen" and chosen.belief < evidence.candidates[0].belief:
            return "return"
        return "move" if evidence.cue else "move_plain"


@dataclass(frozen=True)
class TraceAssignment:
    """A trace that a teacher is to write (see `onereason.cognition.teachers`).

    Attributes:
        id: the row's id.
        writer: composes the template's trace.
        evidence: what it is composed of.
        history: item indices, oldest first.
        target: item index of the next item.
        language: of the prompt.
        seed: of the wording.
    """

    id: str
    writer: TraceWriter
    evidence: Evidence
    history: Sequence[int]
    target: int
    language: str
    seed: int | str

    def compose(self) -> str:
        return self.writer.write(self.evidence, self.history, zlib.crc32(f"{self.seed}:{self.id}".encode()))

    def messages(self) -> list[Message]:
        prompts, facts = self.writer.prompts, self.writer.knowledge.facts
        entry = prompts.text("teacher.entry")
        lines = [entry.format(pattern=facts.patterns[i], caption=facts.captions[i]) for i in self.history]
        headings = dict(zip(("persona", "interests", "transition"), self.writer.headings, strict=True))
        system = prompts.text("teacher.system").format(number=len(self.evidence.candidates), **headings)
        user = prompts.text("teacher.user").format(
            history="\n".join(lines),
            noun=domain_noun(facts.domains[self.target], language=self.language),
            target=facts.captions[self.target],
        )
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]
