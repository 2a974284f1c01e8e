"""Tiny tokenizers, formats and models, made in process."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from onereason.itemic.format import ItemicFormat, Marker
from onereason.model.tiny import build_tiny_model, build_tiny_tokenizer

TEXTS = ["a red apple pie", "a green tea set", "a blue trail shoe", "a warm wool hat"] * 4
SMALL_FORMAT = ItemicFormat(
    "small",
    (3, 4),
    "<s_{level}_{code}>",
    {"video": Marker("<|video_begin|>", "<|video_end|>"), "prod": Marker("<|prod_begin|>", "<|prod_end|>")},
)  # 3 + 4 codes, 4 markers: 11 tokens


@pytest.fixture(scope="session")
def small_format() -> ItemicFormat:
    return SMALL_FORMAT


@pytest.fixture(scope="session")
def _tokenizer() -> Any:
    return build_tiny_tokenizer(TEXTS, vocab_size=280)


@pytest.fixture
def tokenizer(_tokenizer: Any) -> Any:
    """A tokenizer of 280 tokens: its model has 320 rows, so 40 rows are free."""
    assert len(_tokenizer) == 280
    return copy.deepcopy(_tokenizer)


@pytest.fixture
def build(tokenizer: Any) -> Any:
    """Builds a random Qwen3 of 2 layers x 16 for the tokenizer."""

    def build_model(tie: bool = True, seed: int = 0, **sizes: Any) -> Any:
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.1} | sizes
        return build_tiny_model(tokenizer, tie=tie, seed=seed, **sizes)

    return build_model
