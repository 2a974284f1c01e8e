"""A target in the forms it is looked for in, and the search for them in a trace (see `leakage`)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from onereason.cognition.checks.announcements import find_announcements
from onereason.cognition.checks.phrases import Phrase, Surroundings
from onereason.cognition.checks.sid_leaks import SidReader, Target
from onereason.cognition.lexicon import all_words
from onereason.cognition.normalise import normalise
from onereason.itemic.format import ItemicFormat

_MIN_ID = 5
"""Characters an id needs, with a digit among them, to be told from a word or a count wherever it stands."""
_MIN_NUMBER = 3
"""Digits a number needs to be told from a count."""
_LONG_VALUE = 8
"""An attribute value of more words is a text, and read like a caption."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_BEFORE_ID = "|".join(normalise(word).spaced.rstrip() for word in sorted(all_words("id_words")))
_BETWEEN = "(?: id| no| nr| number| is| 编 号| 号| 是| 为)*"


@dataclass(frozen=True)
class TargetFacts:
    """What is known of an answer.

    Attributes:
        pattern: its itemic pattern.
        codes: its codes `[L]`.
        item_id: its id.
        title: '' where unknown.
        caption: '' where unknown.
        attributes: name -> values.
        unique: the values among them that few items bear.
        rare_levels: levels whose code few items bear.
    """

    pattern: str
    codes: Sequence[int]
    item_id: str
    title: str = ""
    caption: str = ""
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unique: frozenset[str] = frozenset()
    rare_levels: frozenset[int] = frozenset()


class PreparedTarget:
    """The forms of one target; made once, held against any number of traces."""

    __slots__ = ("_id", "_is_weak_id", "_numbers", "_phrases", "_sid", "_squeezed_id", "_values")

    def __init__(
        self, facts: TargetFacts, format: ItemicFormat, brands: Collection[str] = (), guarded: Collection[str] = ()
    ) -> None:
        """
        Args:
            brands: attributes that hold a brand.
            guarded: attributes whose values never may stand in a trace, however many items bear them.
        """
        self._sid = Target(facts.pattern, facts.codes, format, facts.rare_levels)
        identity = normalise(facts.item_id)
        self._id = identity.spaced
        has_digit = any(map(str.isdecimal, identity.squeezed))
        self._is_weak_id = not has_digit or len(identity.squeezed) < _MIN_ID
        is_tight = self._is_weak_id or identity.squeezed.isdecimal()  # digits of two numbers may touch
        self._squeezed_id = "" if is_tight else identity.squeezed
        brand = [word for name in brands for value in facts.attributes.get(name, ()) for word in normalise(value).words]
        title, caption = normalise(facts.title), normalise(facts.caption)
        self._phrases = [Phrase("title", title, is_name=True, brand=frozenset(brand))] if title.words else []
        if caption.words and caption.squeezed != title.squeezed:
            self._phrases.append(Phrase("caption", caption))
        self._values: list[tuple[str, list[str], bool]] = []
        self._numbers: list[tuple[str, str]] = []
        for name, values in facts.attributes.items():
            for value in values:
                if name in guarded or value in facts.unique:
                    self._add_value(value, name in guarded)

    def _add_value(self, value: str, is_guarded: bool) -> None:
        form = normalise(value)
        if _NUMBER.fullmatch(value.strip()):
            if sum(map(str.isdecimal, value)) >= _MIN_NUMBER:
                spelled = re.escape(value.strip()).replace(r"\.", "[.,]")
                self._numbers.append((form.spaced, rf"(?<![\w.,:/-]){spelled}(?![\w/]|[.,:-]\d)"))
        elif len(form.words) > _LONG_VALUE:
            self._phrases.append(Phrase("attribute", form))
        elif len(form.squeezed) > 1 and not all_words("function_words").issuperset(form.words):
            self._values.append((form.spaced, form.words, is_guarded))

    # -- search ---------------------------------------------------------------------------------------------------

    def find(
        self, trace: str, reader: SidReader, around: Surroundings, shown_patterns: Collection[str] = ()
    ) -> list[tuple[str, str]]:
        """`(kind, excerpt)` of everything in a trace that gives this target away, each once."""
        rest = reader.set_aside(trace, self._sid, shown_patterns)
        words = normalise(rest)
        spaced = words.spaced
        found = reader.find(trace, rest, words, self._sid)
        if self._id in spaced or (self._squeezed_id and self._squeezed_id in words.squeezed):
            found += self._find_id(spaced)
        for phrase in self._phrases:
            found += phrase.find(words, around)
        for form, value, is_guarded in self._values:
            if form in spaced and not around.is_shown(form) and (is_guarded or around.tells(value)):
                found.append(("attribute", form.strip()))
        for form, pattern in self._numbers:
            if form in spaced and re.search(pattern, _half_width(rest)) and not around.is_shown(form):
                found.append(("attribute", form.strip()))
        found += find_announcements(words)
        return list(dict.fromkeys(found)) if len(found) > 1 else found

    def _find_id(self, spaced: str) -> list[tuple[str, str]]:
        """The item id that stands there; a weak one only behind a word that says it is an id."""
        if not self._is_weak_id:
            return [("item_id", self._id.strip())]
        match = re.search(f"(?:{_BEFORE_ID}){_BETWEEN}{re.escape(self._id)}", spaced)
        return [("item_id", match.group().strip())] if match else []


def _half_width(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFKC", text)
