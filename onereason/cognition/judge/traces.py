"""Five scores of a trace, by rules: safety, consistency, logic, factuality, informativeness; each from 0 to 1.

A score is the share of its questions that a trace passes:

| score | questions |
|---|---|
| safety | nothing sensitive is inferred about a person, no contact data |
| consistency | what is concluded was introduced: the chosen interest is a candidate, the domain is the one asked for |
| logic | the transition names where it starts, says the hop with a bridge word, and rests on cited evidence |
| factuality | the share of claims beside cited items that the catalogue bears out |
| informativeness | enough words of its own, a theme, a piece of evidence, not a copy of the prompt |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from typing import NamedTuple

from onereason.cognition.checks.patterns import PatternReader
from onereason.cognition.checks.problem import Problem, excerpt
from onereason.cognition.checks.structure import candidate_name, list_candidates, split_stages
from onereason.cognition.judge.claims import Claim, FactTable, read_claims
from onereason.cognition.judge.safety import check_safety
from onereason.cognition.lexicon import SPACED, Lexicon, load_lexicon
from onereason.cognition.normalise import Normalised, normalise
from onereason.errors import ConfigError

SCORES = ("safety", "consistency", "logic", "factuality", "informativeness")

_COPY_RUN = 5


@dataclass(frozen=True)
class Thresholds:
    """The least a trace needs of each score."""

    safety: float = 1.0
    """A single sensitive inference fails a trace."""
    consistency: float = 1.0
    """A conclusion that was not introduced fails a trace."""
    logic: float = 0.6
    """Two of the three questions."""
    factuality: float = 1.0
    """A single false claim fails a trace."""
    informativeness: float = 0.5
    """Two of the four questions."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not 0 <= value <= 1:
                raise ConfigError(f"threshold {one.name} must lie between 0 and 1, got {value}.")


class Verdict(NamedTuple):
    """What a judge found.

    Attributes:
        scores: a value from 0 to 1 for each of `SCORES`.
        problems: what lowered them.
        judge: who judged: `rules`, or the teacher's name.
    """

    scores: Mapping[str, float]
    problems: tuple[Problem, ...] = ()
    judge: str = "rules"

    def failed(self, thresholds: Thresholds) -> list[str]:
        """The scores that are too low."""
        return [name for name in SCORES if self.scores[name] < getattr(thresholds, name)]

    def passes(self, thresholds: Thresholds) -> bool:
        """Whether every score is high enough."""
        return not self.failed(thresholds)


@dataclass(frozen=True)
class TraceContext:
    """What a trace was written about.

    Attributes:
        headings: of the three stages, in order.
        language: `en` or `zh`.
        prompt: what was asked; '' leaves out whether the trace copies it.
        domain: of the item that is asked for; None leaves out whether the trace concludes it.
        interests: the candidates' names; None reads them from the trace.
        chosen: the name of the interest that is concluded; None takes any candidate that the transition names.
        claims: what the writer knows that the trace states of cited items, beside what brackets say.
        themes: names of which the trace should hold one; the interests, where there are none.
    """

    headings: tuple[str, str, str]
    language: str = "en"
    prompt: str = ""
    domain: str | None = None
    interests: Sequence[str] | None = None
    chosen: str | None = None
    claims: Sequence[Claim] = ()
    themes: Sequence[str] = ()


@dataclass(frozen=True)
class JudgeRules:
    """How strict the rules are."""

    min_content_words: int = 8
    """Different words of its own that a trace needs: neither function words nor headings nor itemic tokens."""
    max_copied: float = 0.6
    """Share of its runs of five words that a trace may have from the prompt."""
    name_share: float = 0.6
    """Share of a name's words that name it, where a text gives it in other words around them."""


class TraceJudge:
    """Judges traces by rules."""

    def __init__(self, reader: PatternReader, facts: FactTable | None = None, rules: JudgeRules | None = None) -> None:
        """
        Args:
            reader: of the catalogue's format.
            facts: what the catalogue says; None leaves claims unchecked.
        """
        self.reader = reader
        self.facts = facts
        self.rules = rules or JudgeRules()
        self._prompt: tuple[str, frozenset[str]] = ("", frozenset())

    def judge(self, trace: str, context: TraceContext) -> Verdict:
        """The five scores of a trace."""
        lexicon = load_lexicon(context.language)
        patterns, rest = self.reader.read(trace)
        _, interests, end = [stage or "" for stage in split_stages(trace, context.headings)]
        names = context.interests if context.interests is not None else self._names(interests)
        words = normalise(rest)
        transition = normalise(self.reader.remove(end) if patterns else end)
        chosen = context.chosen
        if chosen is not None and chosen in names and self._is_named(chosen, transition):
            named = [chosen]  # that one is named is all that is asked
        else:
            named = [name for name in names if self._is_named(name, transition)]
        unsafe = check_safety(rest, context.language)
        consistency, inconsistent = self._consistency(names, named, transition, context, lexicon)
        logic, illogical = self._logic(named, transition, patterns, lexicon)
        factuality, false = self._factuality(trace, context)
        informativeness, uninformative = self._informativeness(words, names, patterns, context)
        scores = {
            "safety": float(not unsafe),
            "consistency": consistency,
            "logic": logic,
            "factuality": factuality,
            "informativeness": informativeness,
        }
        return Verdict(scores, (*unsafe, *inconsistent, *illogical, *false, *uninformative))

    # -- questions ------------------------------------------------------------------------------------------------

    @staticmethod
    def _names(stage: str) -> list[str]:
        return [name for candidate in list_candidates(stage) if (name := candidate_name(candidate))]

    def _consistency(
        self,
        names: Sequence[str],
        named: Sequence[str],
        transition: Normalised,
        context: TraceContext,
        lexicon: Lexicon,
    ) -> tuple[float, list[Problem]]:
        found = []
        chosen = context.chosen
        if chosen is None:
            if not named:
                found.append(Problem("interest_not_introduced", excerpt(transition.spaced)))
        elif chosen not in names and _name_form(chosen).squeezed not in {_name_form(n).squeezed for n in names}:
            found.append(Problem("interest_not_introduced", chosen))
        elif chosen not in named and not self._is_named(chosen, transition):
            found.append(Problem("interest_not_concluded", chosen))
        if context.domain is not None:
            domains = [domain for domain in lexicon.domains if self._names_domain(domain, transition, lexicon)]
            if domains and context.domain in lexicon.domains and context.domain not in domains:
                found.append(Problem("domain_mismatch", f"asked {context.domain}, concluded {', '.join(domains)}"))
        return 1 - len(found) / (1 if context.domain is None else 2), found

    @staticmethod
    def _names_domain(domain: str, text: Normalised, lexicon: Lexicon) -> bool:
        return holds_phrase(text, lexicon.domains[domain], lexicon.language)

    def _logic(
        self, named: Sequence[str], transition: Normalised, patterns: Sequence[str], lexicon: Lexicon
    ) -> tuple[float, list[Problem]]:
        found = []
        if not named:
            found.append(Problem("source_not_named", excerpt(transition.spaced)))
        if not _holds(transition, _connectives(lexicon.language), lexicon.language):
            found.append(Problem("bridge_missing", excerpt(transition.spaced)))
        if not patterns:
            found.append(Problem("evidence_not_cited"))
        return 1 - len(found) / 3, found

    def _factuality(self, trace: str, context: TraceContext) -> tuple[float, list[Problem]]:
        if self.facts is None:
            return 1.0, []
        claims = [*context.claims, *read_claims(trace, self.reader, self.facts)]
        if not claims:
            return 1.0, []
        wrong = [claim for claim in claims if not self.facts.is_true(claim)]
        problems = [Problem("claim_false", f"{claim.pattern} {claim.value}") for claim in wrong]
        return 1 - len(wrong) / len(claims), problems

    def _informativeness(
        self,
        words: Normalised,
        names: Sequence[str],
        patterns: Sequence[str],
        context: TraceContext,
    ) -> tuple[float, list[Problem]]:
        found = []
        needed = self.rules.min_content_words
        num_own = _count_others(words.word_set, _empty_words(context.language, tuple(context.headings)), needed)
        if num_own < needed:
            found.append(Problem("few_words", f"{num_own} of at least {needed}"))
        themes = context.themes or names
        if not any(self._is_named(theme, words) for theme in themes):
            found.append(Problem("no_theme", excerpt(words.spaced)))
        if not patterns:
            found.append(Problem("no_evidence"))
        copied = self._copied_share(words, context.prompt)
        if copied > self.rules.max_copied:
            found.append(Problem("copies_prompt", f"{copied:.2f} of its runs of {_COPY_RUN} words"))
        return 1 - len(found) / 4, found

    def _copied_share(self, words: Normalised, prompt: str) -> float:
        if not prompt:
            return 0.0
        if prompt != self._prompt[0]:
            text = normalise(self.reader.whole.sub(" ", prompt)).words
            self._prompt = (prompt, frozenset(_runs(text)))
        runs = _runs(words.words)
        return sum(run in self._prompt[1] for run in runs) / len(runs) if runs else 0.0

    def _is_named(self, name: str, text: Normalised) -> bool:
        """Whether a text holds a name, or most of its words."""
        form = _name_form(name)
        if form.spaced in text.spaced:
            return bool(form.words)
        return len(text.word_set.intersection(form.words)) >= max(1, self.rules.name_share * len(form.words))


def holds_phrase(text: Normalised, phrases: tuple[str, ...], language: str) -> bool:
    """Whether a text holds one of the phrases of a language's word list, as whole words where it has spaces."""
    return _holds(text, _split_phrases(phrases, SPACED[language]), language)


def _holds(text: Normalised, phrases: tuple[frozenset[str], dict[str, list[str]]], language: str) -> bool:
    words, several = phrases
    if not SPACED[language]:
        return any(map(text.squeezed.__contains__, words))
    if not words.isdisjoint(text.word_set):
        return True
    return any(f" {phrase} " in text.spaced for first in several.keys() & text.word_set for phrase in several[first])


@cache
def _split_phrases(phrases: tuple[str, ...], spaced: bool) -> tuple[frozenset[str], dict[str, list[str]]]:
    """Single words, and phrases of several by their first word; all are single ones where words are not spaced."""
    several: dict[str, list[str]] = {}
    for phrase in phrases:
        if spaced and " " in phrase:
            several.setdefault(phrase.partition(" ")[0], []).append(phrase)
    return frozenset(p for p in phrases if not spaced or " " not in p), several


@cache
def _connectives(language: str) -> tuple[frozenset[str], dict[str, list[str]]]:
    return _split_phrases(load_lexicon(language).connectives, SPACED[language])


@lru_cache(maxsize=4096)
def _name_form(name: str) -> Normalised:
    """Names come again and again, traces do not: they have a cache of their own."""
    return normalise(name)


@lru_cache(maxsize=64)
def _empty_words(language: str, headings: tuple[str, ...]) -> frozenset[str]:
    """Words that say nothing of a user: function words, and those of the headings."""
    return load_lexicon(language).function_words.union(*(normalise(heading).words for heading in headings))


def _count_others(words: Iterable[str], known: frozenset[str], limit: int) -> int:
    """How many words are not known, counted up to `limit`."""
    count = 0
    for word in words:
        if word not in known:
            count += 1
            if count >= limit:
                break
    return count


def _runs(words: Sequence[str]) -> list[str]:
    return [" ".join(words[at : at + _COPY_RUN]) for at in range(len(words) - _COPY_RUN + 1)]
