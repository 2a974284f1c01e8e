"""Words that checks and the judge look for, a file a language: `onereason/cognition/words/{en,zh}.yaml`."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import yaml

from onereason.errors import ConfigError

LEXICON_LANGUAGES = ("en", "zh")

SPACED = {"en": True, "zh": False}
"""Whether a language's expressions read words with spaces between them, or without."""


@dataclass(frozen=True)
class Lexicon:
    """The words of a language.

    Attributes:
        language: `en` or `zh`.
        function_words: words that carry no meaning of their own.
        id_words: words before an item's id.
        code_fillers: words that may stand between the codes of one item.
        announced: cue -> expressions that tell of a known answer.
        instructing: cue -> expressions that speak to whoever judges the text.
        persons: who is spoken of.
        ascribe: how a state is ascribed to somebody.
        fillers: what may stand between them.
        diagnosis: phrases that ascribe a condition by themselves.
        sensitive: class -> terms.
        goods: words that make a sensitive term one about goods.
        mind_reading: phrases that claim to know an inner state.
        connectives: words that bridge from one thing to another.
        direction: words that say that the order of steps matters.
        depth: words that say how far an interest has gone.
        domains: domain -> what people call its items.
    """

    language: str
    function_words: frozenset[str]
    id_words: frozenset[str]
    code_fillers: frozenset[str]
    announced: Mapping[str, tuple[re.Pattern[str], ...]]
    instructing: Mapping[str, tuple[re.Pattern[str], ...]]
    persons: frozenset[str]
    ascribe: frozenset[str]
    fillers: frozenset[str]
    diagnosis: tuple[str, ...]
    sensitive: Mapping[str, tuple[str, ...]]
    goods: frozenset[str]
    mind_reading: tuple[str, ...]
    connectives: tuple[str, ...]
    direction: tuple[str, ...]
    depth: tuple[str, ...]
    domains: Mapping[str, tuple[str, ...]]


@cache
def load_lexicon(language: str) -> Lexicon:
    """The words of a language; `ConfigError` where the package has none."""
    if language not in LEXICON_LANGUAGES:
        known = " or ".join(LEXICON_LANGUAGES)
        raise ConfigError(f"there are no word lists for language {language!r}; use {known}.")
    path = importlib.resources.files("onereason.cognition") / "words" / f"{language}.yaml"
    value = yaml.safe_load(path.read_text("utf-8"))
    return Lexicon(
        language=language,
        function_words=frozenset(value["function_words"].split()),
        id_words=frozenset(value["id_words"].split()),
        code_fillers=frozenset(value["code_fillers"].split()),
        announced={cue: tuple(map(re.compile, texts)) for cue, texts in value["announced"].items()},
        instructing={cue: tuple(map(re.compile, texts)) for cue, texts in value["instructing"].items()},
        persons=frozenset(value["persons"].split()),
        ascribe=frozenset(value["ascribe"].split()),
        fillers=frozenset(value["fillers"].split()),
        diagnosis=_phrases(value["diagnosis"]),
        sensitive={name: _phrases(terms) for name, terms in value["sensitive"].items()},
        goods=frozenset(value["goods"].split()),
        mind_reading=_phrases(value["mind_reading"]),
        connectives=_phrases(value["connectives"]),
        direction=_phrases(value["direction"]),
        depth=_phrases(value["depth"]),
        domains={domain: tuple(words.split()) for domain, words in value["domains"].items()},
    )


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in text.split("|") if phrase.strip())


@cache
def all_words(name: str) -> frozenset[str]:
    """A set of words of every language, e.g. `all_words("function_words")`."""
    return frozenset[str]().union(*(getattr(load_lexicon(language), name) for language in LEXICON_LANGUAGES))
