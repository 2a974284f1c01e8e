"""Phrases by which a trace says that it knows the answer: `the answer is`, `the user next watched`, `答案是`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

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
            match = _search(f" {cue} " if SPACED[language] else cue, expressions[cue], text)
            if match:
                found.append(("announced", match.group().strip()))
    return found


def _search(cue: str, expressions: Sequence[re.Pattern[str]], text: str) -> re.Match[str] | None:
    at = text.find(cue)
    while at >= 0:
        near = text[max(0, at - _BEFORE) : at + _AFTER]
        for expression in expressions:
            if match := expression.search(near):
                return match
        at = text.find(cue, at + 1)
    return None
