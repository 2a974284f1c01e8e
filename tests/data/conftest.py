"""Tiny tokenizers that know an itemic format, for the tests of rows, prompts and masks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from onereason.itemic.format import load_format

TEXTS = ["The user liked the video, captioned a red apple pie. What is two plus two? Four, because it is so."] * 3


def build_words(preset: str, levels: int, codes: int) -> SimpleNamespace:
    from onereason.model.extend import extend_tokenizer
    from onereason.model.tiny import build_tiny_tokenizer

    tokenizer = build_tiny_tokenizer(TEXTS, vocab_size=300)
    vocabulary = extend_tokenizer(tokenizer, load_format(preset, levels, codes))
    return SimpleNamespace(tokenizer=tokenizer, vocabulary=vocabulary, format=vocabulary.format)


@pytest.fixture(scope="session")
def words():
    """Format `onereason` (begin tokens of four domains, end tokens never rendered), 2 levels x 8 codes."""
    return build_words("onereason", 2, 8)


@pytest.fixture(scope="session", params=["onereason", "openonerec", "minionerec"])
def any_words(request):
    """Each kind of pattern: begin token only; begin and end token; codes alone."""
    return build_words(request.param, 2, 8)
