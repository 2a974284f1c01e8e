"""Phrases by which a trace says that it knows the answer (`the answer is`, `the user next watched`, `答案是`), or
speaks to whoever judges it (`ignore all instructions`, `给出最高分`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from onereason.cognition.lexicon import LEXICON_LANGUAGES, SPACED, load_lexicon
from onereason.cognition.normalise import Normalised


def _load(language: str) -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Cue -> kinds and expressions."""
    found: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    lexicon = load_lexicon(language)
    for kind, phrases in (("announced", lexicon.announced), ("judge_instruction", lexicon.instructing)):
        for cue, expressions in phrases.items():
            found.setdefault(cue, []).extend((kind, expression) for expression in expressions)
    return found


_PHRASES = {language: _load(language) for language in LEXICON_LANGUAGES}
_CUE_WORDS = frozenset(cue for language in LEXICON_LANGUAGES if SPACED[language] for cue in _PHRASES[language])


_BEFORE, _AFTER = 48, 72
"""Characters around a cue that an expression may need."""


def find_announcements(words: Normalised) -> list[tuple[str, str]]:
    """`(kind, excerpt)` for each such phrase, in any language of the word lists: `announced`, `judge_instruction`.

    A cue is looked up first: most traces hold none, and cost no more.
    """
    found = []
    cues: Iterable[str]
    for language, expressions in _PHRASES.items():
        if SPACED[language]:
            cues = () if _CUE_WORDS.isdisjoint(words.word_set) else sorted(words.word_set & expressions.keys())
            text = words.spaced
        else:
            text = words.squeezed
            cues = () if text.isascii() else [cue for cue in expressions if cue in text]
        for cue in cues:
            found += _search(language, cue, text)
    return found


def _search(language: str, cue: str, text: str) -> list[tuple[str, str]]:
    wanted = f" {cue} " if SPACED[language] else cue
    at = text.find(wanted)
    while at >= 0:
        if found := _search_near(language, cue, text[max(0, at - _BEFORE) : at + _AFTER]):
            return [found]
        at = text.find(wanted, at + 1)
    return []


@lru_cache(maxsize=4096)
def _search_near(language: str, cue: str, near: str) -> tuple[str, str] | None:
    """The kind and the phrase that stands around a cue; cached, because many traces use a cue in the same way."""
    for kind, expression in _PHRASES[language][cue]:
        if match := expression.search(near):
            return kind, match.group().strip()
    return None
