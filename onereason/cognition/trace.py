"""Recommendation traces in words: persona abstraction, interest expansion, transition inference (OneReason, Eq. 3-5).

The template teacher composes a trace from evidence; a language model is asked for one with the same headings.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from onereason.cognition.evidence import Candidate, Evidence
from onereason.cognition.knowledge import Knowledge
from onereason.data.prompt_sets import PromptSet, load_prompt_set
from onereason.data.prompts import Message, attribute_noun, domain_noun
from onereason.errors import ConfigError

DETAILS = ("brief", "full")


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
        self._stage, self._in_a_row = self.prompts.text("word.stage"), self.prompts.text("word.in_a_row")
        self._join, self._also = self.prompts.text("word.join"), self.prompts.text("word.also")
        self._end = self.prompts.text("word.end")
        kinds = dict.fromkeys(knowledge.facts.domains)
        self._nouns = {d: (domain_noun(d, language=language), domain_noun(d, True, language=language)) for d in kinds}

    def write(self, evidence: Evidence, items: Sequence[int], turn: int = 0) -> str:
        """The trace of a target.

        Args:
            evidence: what it is composed of.
            items: the history's item indices, which the cited positions refer to.
            turn: deals out the wordings; they go round.
        """
        persona = self._stage.format(heading=self.headings.persona, text=self._persona(evidence, turn))
        transition = self._stage.format(heading=self.headings.transition, text=self._transition(evidence, turn))
        interests = [self._interest(evidence, place, items, turn) for place in range(len(evidence.candidates))]
        return "\n".join([persona, self.headings.interests, *interests, transition])

    def _text(self, key: str, turn: int) -> str:
        variants = self._texts[key]
        return variants[turn % len(variants)]

    def _persona(self, evidence: Evidence, turn: int) -> str:
        said = [
            self._text("persona.trait", turn + place).format(
                value=trait.value,
                attribute=attribute_noun(trait.attribute, self.language),
                count=trait.count,
                total=evidence.num_items,
            )
            for place, trait in enumerate(evidence.traits)
        ]
        if evidence.conflict:
            said.append(self._text("persona.conflict", turn).format(value=evidence.conflict))
        if evidence.habit:
            said.append(self._text("persona.habit", turn).format(nouns=self._nouns[evidence.habit][1]))
        return self._also.join(said or [self._text("persona.none", turn)]) + self._end

    def _interest(self, evidence: Evidence, place: int, items: Sequence[int], turn: int) -> str:
        candidate = evidence.candidates[place]
        patterns = self.knowledge.facts.patterns
        kind = "bare" if candidate.kind != "lead" and not candidate.cited else candidate.kind
        return self._text(f"interest.{kind}", turn + place).format(
            number=place + 1,
            interest=self.knowledge.interests.names[candidate.interest],
            items=self._join.join([patterns[items[p]] for p in candidate.cited]),
        )

    def _transition(self, evidence: Evidence, turn: int) -> str:
        names = self.knowledge.interests.names
        chosen = evidence.candidates[evidence.chosen]
        name = names[chosen.interest]
        text = self._text(f"transition.{self._bridge(evidence, chosen)}", turn).format(
            live=names[evidence.live],
            interest=name,
            cue=evidence.cue,
            count=evidence.live_count,
            who=self._who(evidence, turn),
        )
        theme = self.knowledge.interests.themes.get((chosen.interest, evidence.domain), name)
        # among several domains the sentence always stands, so that a reader learns one rule
        if theme == name and len(self._nouns) < 2:
            return text
        noun, nouns = self._nouns[evidence.domain]
        shown = self._text("transition.domain", turn).format(noun=noun, nouns=nouns, theme=theme)
        return self._in_a_row.format(first=text, second=shown)

    @staticmethod
    def _bridge(evidence: Evidence, chosen: Candidate) -> str:
        if chosen.kind == "live":
            return "stay"
        if chosen.kind == "seen" and chosen.belief < evidence.candidates[0].belief:
            return "return"
        return "move" if evidence.cue else "move_plain"

    def _who(self, evidence: Evidence, turn: int) -> str:
        first = self.knowledge.persona_trait
        for trait in evidence.traits[:1]:
            if trait.attribute == first:
                attribute = attribute_noun(trait.attribute, self.language)
                return self._text("transition.who", turn).format(value=trait.value, attribute=attribute)
        return self._text("transition.everyone", turn)


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
