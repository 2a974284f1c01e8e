"""The word lists: every language fills every list, and no expression is broken."""

from __future__ import annotations

import dataclasses

import pytest

from onereason.cognition.lexicon import LEXICON_LANGUAGES, SPACED, Lexicon, all_words, load_lexicon
from onereason.cognition.normalise import normalise
from onereason.errors import ConfigError


@pytest.mark.parametrize("language", LEXICON_LANGUAGES)
def test_no_list_is_empty(language):
    lexicon = load_lexicon(language)
    for field in dataclasses.fields(Lexicon):
        assert getattr(lexicon, field.name), field.name
    assert set(lexicon.sensitive) == {"health", "religion", "politics", "sexuality", "ethnicity"}


@pytest.mark.parametrize("language", LEXICON_LANGUAGES)
def test_words_stand_as_normalised_text_has_them(language):
    """Otherwise they would never be found."""
    lexicon = load_lexicon(language)
    phrases = [*lexicon.mind_reading, *lexicon.connectives, *lexicon.direction, *lexicon.depth, *lexicon.diagnosis]
    phrases += [term for terms in lexicon.sensitive.values() for term in terms]
    for phrase in phrases:
        form = normalise(phrase)
        assert (form.spaced.strip() if SPACED[language] else form.squeezed) == phrase


def test_an_unknown_language_is_refused():
    with pytest.raises(ConfigError, match="'fr'; use en or zh"):
        load_lexicon("fr")


def test_words_of_all_languages():
    assert {"the", "的"} <= all_words("function_words")
