"""Is a logic chain worth learning (R2)? Six questions about its events, by rules.

| reason | what is wrong |
|---|---|
| `chain_order_free` | neighbours say the same, or nothing says that one follows another: swapped, they mean the same |
| `chain_no_increment` | too few events say anything that was not said before |
| `chain_no_convergence` | too few events speak of the chain's interest |
| `chain_no_depth` | the interest goes nowhere: no step narrows, commits or moves on, and the action never changes |
| `chain_open_evidence` | an event is not in the timeline, or its logic cites an item that is not |
| `chain_mind_reading` | a claim to know what the user feels or secretly wants |
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from onereason.cognition.checks.problem import Problem, excerpt
from onereason.cognition.lexicon import LEXICON_LANGUAGES, SPACED, all_words, load_lexicon
from onereason.cognition.normalise import normalise
from onereason.errors import ConfigError

_TOKENS = re.compile(r"(?:<[^<>\s]+>)+")
_VERB_END = re.compile(r"[\s<:：]")  # noqa: RUF001


@dataclass(frozen=True)
class ChainRules:
    """How strict the rules are."""

    min_order: float = 0.5
    """Share of neighbouring events that must say different things."""
    min_increment: float = 0.5
    """Share of events after the first that must say something new."""
    min_convergence: float = 0.5
    """Share of events that must speak of the chain's interest."""
    needs_depth: bool = True
    """Whether the interest must change in depth."""

    def __post_init__(self) -> None:
        for name in ("min_order", "min_increment", "min_convergence"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie between 0 and 1, got {getattr(self, name)}.")


_DEFAULT = ChainRules()


@dataclass(frozen=True)
class _Logic:
    """What is read from the logic of an event."""

    words: tuple[str, ...]
    content: frozenset[str]
    has_direction: bool
    has_depth: bool
    mind: str


@lru_cache(maxsize=4096)
def _read_logic(logic: str) -> _Logic:
    """Cached: chains of one corpus say the same few things."""
    form = normalise(_TOKENS.sub(" ", logic))

    def first_of(name: str) -> str:
        for language in LEXICON_LANGUAGES:
            spaced = SPACED[language]
            text = form.spaced if spaced else form.squeezed
            for phrase in getattr(load_lexicon(language), name):
                if (f" {phrase} " if spaced else phrase) in text:
                    return phrase
        return ""

    return _Logic(
        tuple(form.words),
        form.word_set - all_words("function_words"),
        bool(first_of("direction")),
        bool(first_of("depth")),
        first_of("mind_reading"),
    )


def judge_chain(chain: Mapping[str, Any], timeline: Sequence[str], rules: ChainRules | None = None) -> list[Problem]:
    """What speaks against a chain; an empty list where nothing does.

    Args:
        chain: `{"name", "events": [{"date", "action", "logic"}]}`, well formed (`check_logic_chain`).
        timeline: the entries, `"DATE ACTION"` each.
        rules: thresholds.
    """
    rules = rules or _DEFAULT
    events = chain["events"]
    if not events:
        return []
    logics = [_read_logic(event["logic"]) for event in events]
    found = []
    if not _is_ordered(logics, rules):
        found.append(Problem("chain_order_free", excerpt(events[-1]["logic"])))
    if not _brings_news(logics, rules):
        found.append(Problem("chain_no_increment", excerpt(events[-1]["logic"])))
    if not _converges(_theme(chain["name"]), logics, rules):
        found.append(Problem("chain_no_convergence", excerpt(chain["name"])))
    if rules.needs_depth and not _deepens(events, logics):
        found.append(Problem("chain_no_depth", excerpt(events[-1]["logic"])))
    found += _check_evidence(events, timeline)
    found += [Problem("chain_mind_reading", logic.mind) for logic in logics if logic.mind]
    return found


def _is_ordered(logics: Sequence[_Logic], rules: ChainRules) -> bool:
    if len(logics) < 2:
        return True
    different = sum([left.words != right.words for left, right in pairwise(logics)])
    enough = rules.min_order * (len(logics) - 1)
    return different >= enough and any(logic.has_direction for logic in logics[1:])


def _brings_news(logics: Sequence[_Logic], rules: ChainRules) -> bool:
    if len(logics) < 2:
        return True
    said = set(logics[0].content)
    news = 0
    for logic in logics[1:]:
        if not logic.content <= said:
            news += 1
            said |= logic.content
    return news >= rules.min_increment * (len(logics) - 1)


@lru_cache(maxsize=4096)
def _theme(name: str) -> frozenset[str]:
    """The words of a name that mean something."""
    words = normalise(name).word_set
    return words - all_words("function_words") or words


def _converges(theme: frozenset[str], logics: Sequence[_Logic], rules: ChainRules) -> bool:
    """An event speaks of the interest where it shares a word with its name."""
    return sum([not theme.isdisjoint(logic.content) for logic in logics]) >= rules.min_convergence * len(logics)


def _deepens(events: Sequence[Mapping[str, Any]], logics: Sequence[_Logic]) -> bool:
    if len(events) < 2 or any(logic.has_depth for logic in logics[1:]):
        return True
    return len({_VERB_END.split(event["action"].strip(), maxsplit=1)[0] for event in events}) > 1


def _check_evidence(events: Sequence[Mapping[str, Any]], timeline: Sequence[str]) -> list[Problem]:
    known = set(timeline)
    found = [f"{event['date']} {event['action']}" for event in events]
    problems = [Problem("chain_open_evidence", excerpt(entry)) for entry in found if entry not in known]
    for event in events:
        if "<" in event["logic"]:
            cited = _TOKENS.findall(event["logic"])
            missing = [tokens for tokens in cited if not any(tokens in entry for entry in timeline)]
            problems += [Problem("chain_open_evidence", excerpt(tokens)) for tokens in missing]
    return problems
