"""Phrases by which a trace says that it knows the answer: `the answer is`, `the user next watched`, `答案是`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from onereason.cognition.lexicon import LEXICON_LANGUAGES, SPACED, load_lexicon
from onereason.cognition.normalise import Normalised

_ANNOUNCED = {language: load_lexicon(language).announced for language in LEXICON_LANGUAGES}
_CUE_WORDS = frozenset(cue for language in LEXICON_LANGUAGES if SPACED[language] for cue in _ANNOUNCED[language])


_BEFORE, _AFTER = 48, 72
"""Characters around a cue that an expression may need."""


def find_announcements(words: Normalised) -> list[tuple[str, str]]:
    """`("announced", excerpt)` for each such phrase, in any language of the word lists.

    A cue is looked up first: most traces hold none, and cost no more.
    """
    found = []
    cues: Iterable[str]
    for language, expressions in _ANNOUNCED.items():
        if SPACED[language]:
            cues = () if _CUE_WORDS.isdisjoint(words.word_set) else sorted(words.word_set & expressions.keys())
            text = words.spaced
        else:
            text = words.squeezed
            cues = () if text.isascii() else [cue for cue in expressions if cue in text]
        for cue in cues:
            phrase = _search(language, cue, text)
            if phrase:
                found.append(("announced", phrase))
    return found


def _search(language: str, cue: str, text: str) -> str:
    wanted = f" {cue} " if SPACED[language] else cue
    at = text.find(wanted)
    while at >= 0:
        if phrase := _search_near(language, cue, text[max(0, at - _BEFORE) : at + _AFTER]):
            return phrase
        at = text.find(wanted, at + 1)
    return ""


@lru_cache(maxsize=4096)
def _search_near(language: str, cue: str, near: str) -> str:
    """The phrase that stands around a cue; cached, because many traces use a cue in the same way."""
    for expression in _ANNOUNCED[language][cue]:
        if match := expression.search(near):
            return match.group().strip()
    return ""
