"""Small random Qwen3 models and tokenizers, made in process: for tests, the demo and training from scratch.

The architecture is transformers' own Qwen3 and the tokenizer is Qwen3's kind (byte-level BPE, the same splitting rule,
the same special tokens, the same class), so whatever runs on a tiny model runs on a real one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import resources
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Regex as TokenizerRegex
from transformers import GenerationConfig, Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from onereason.errors import ConfigError

PAD_TOKEN, START_TOKEN, END_TOKEN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
THINK_TOKENS = ("<think>", "</think>")
NUM_SPECIAL = 5
QWEN3_TOKENS, QWEN3_ROWS = 151_669, 151_936
"""Tokens of the Qwen3 tokenizer, and embedding rows of every Qwen3 checkpoint."""
ROW_MULTIPLE = 64
MIN_VOCAB_SIZE = 256 + NUM_SPECIAL

BASE_TEXTS = (
    "system user assistant /think /no_think",
    "You are a sequential recommendation engine. You are an expert content analyst. You are a helpful assistant.",
    "Items are written as itemic tokens. Read a user's history, oldest first, and answer with the next item.",
    "The user's history in chronological order: Which video comes next? Which product comes next?",
    "and answer with the one item that comes next, as itemic tokens and nothing else. Which item comes next?",
    "Which live stream comes next? Which advertisement comes next? Answer with itemic tokens and nothing else.",
    "Read an item and describe what it is about. Describe this video: Describe this product: Describe this item:",
    "This user watched, clicked, bought, liked, searched for and followed these items, the newest last.",
    "The user is interested in the category, the brand, the topic and the style of the item. The interest is live.",
    "First the evidence, then the interest, then the next step; therefore the next item is probably about",
    "persona profile interests preferences recent earlier long-term because although however and then or not with from",
    "What is the title? What is the caption? What does the item look like? How many items are there?",
    "0 1 2 3 4 5 6 7 8 9",
)
"""Words that prompts and answers use, so that a tiny vocabulary does not spell them byte by byte."""


def build_tiny_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> Any:
    """Trains a byte-level BPE on `texts` with Qwen3's splitting rule and special tokens.

    Ids: the BPE's tokens, then `<|endoftext|>` (pad), `<|im_start|>`, `<|im_end|>` (eos), `<think>`, `</think>`. Any
    text round-trips up to Unicode NFC, which Qwen3's tokenizer applies too. Equal texts give an equal tokenizer.

    Args:
        vocab_size: tokens in all, special ones included; fewer when the texts hold no more pairs to merge.

    Raises:
        ConfigError: `vocab_size` below 261 (256 bytes and 5 special tokens).
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise ConfigError(
            f"vocab_size must be at least {MIN_VOCAB_SIZE} (256 bytes, 5 special tokens), got {vocab_size}."
        )
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(TokenizerRegex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - NUM_SPECIAL,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer: Any = Qwen2Tokenizer(
        vocab=backend.get_vocab(),
        merges=_merges(backend),  # type: ignore[arg-type]
        unk_token=None,  # type: ignore[arg-type]
        eos_token=END_TOKEN,
        pad_token=PAD_TOKEN,
        extra_special_tokens=[START_TOKEN, END_TOKEN],
        added_tokens_decoder=_special_tokens(backend.get_vocab_size()),
        clean_up_tokenization_spaces=False,
        model_max_length=131_072,
    )
    tokenizer.chat_template = load_chat_template()
    return tokenizer


def _merges(backend: Tokenizer) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in json.loads(backend.to_str())["model"]["merges"]]


def _special_tokens(first: int) -> dict[int, AddedToken]:
    special = [AddedToken(t, special=True, normalized=False) for t in (PAD_TOKEN, START_TOKEN, END_TOKEN)]
    thinking = [
        AddedToken(t, special=False, normalized=False) for t in THINK_TOKENS
    ]  # as in Qwen3: decoded, not hidden
    return dict(enumerate(special + thinking, first))


def load_chat_template() -> str | None:
    """The package's Qwen3 chat template, None where the package has none."""
    file = resources.files("onereason").joinpath("chat_templates", "qwen3.jinja")
    return file.read_text("utf-8") if file.is_file() else None


def build_tiny_model(
    tokenizer: Any,
    *,
    hidden_size: int = 256,
    num_hidden_layers: int = 4,
    num_attention_heads: int = 4,
    num_key_value_heads: int | None = None,
    head_dim: int | None = None,
    intermediate_size: int | None = None,
    max_position_embeddings: int = 40_960,
    rope_theta: float = 1_000_000.0,
    initializer_range: float = 0.02,
    attention_dropout: float = 0.0,
    tie: bool = True,
    seed: int = 0,
) -> Qwen3ForCausalLM:
    """A random Qwen3 for a tokenizer; the caller's random state is left as it was.

    Defaults follow Qwen3-0.6B's proportions: half as many key-value heads as heads, an MLP three times as wide as the
    hidden size. Rows are those of a Qwen3 checkpoint (151,936) for the Qwen3 tokenizer, else the tokens rounded up to a
    multiple of 64.

    Args:
        num_key_value_heads: default half of `num_attention_heads`, at least 1.
        head_dim: default `hidden_size / num_attention_heads`.
        intermediate_size: default `3 * hidden_size`.
        tie: whether the output matrix is the embedding matrix.
        seed: of the random weights.

    Raises:
        ConfigError: sizes that do not fit together.
    """
    if num_key_value_heads is None:
        num_key_value_heads = num_attention_heads // 2 if num_attention_heads % 2 == 0 else num_attention_heads
    sizes = {
        "hidden_size": hidden_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
        "num_key_value_heads": num_key_value_heads,
        "head_dim": 2 if head_dim is None else head_dim,
        "intermediate_size": 1 if intermediate_size is None else intermediate_size,
        "max_position_embeddings": max_position_embeddings,
    }
    for name, value in sizes.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}.")
    if not 0 < rope_theta < float("inf"):
        raise ConfigError(f"rope_theta must be above 0, got {rope_theta}.")
    if not 0 <= initializer_range < float("inf"):
        raise ConfigError(f"initializer_range must be at least 0, got {initializer_range}.")
    if not 0 <= attention_dropout < 1:
        raise ConfigError(f"attention_dropout must lie in 0 <= p < 1, got {attention_dropout}.")
    if num_attention_heads % num_key_value_heads:
        raise ConfigError(
            f"num_attention_heads ({num_attention_heads}) must be divisible by num_key_value_heads "
            f"({num_key_value_heads}); use a divisor of it."
        )
    if head_dim is None and hidden_size % num_attention_heads:
        raise ConfigError(
            f"hidden_size ({hidden_size}) must be divisible by num_attention_heads ({num_attention_heads}), "
            "or head_dim be given."
        )
    head_dim = hidden_size // num_attention_heads if head_dim is None else head_dim
    if head_dim % 2:
        raise ConfigError(f"head_dim ({head_dim}) must be even: rotary positions turn pairs of dimensions.")
    config = Qwen3Config(
        vocab_size=tiny_rows(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size if intermediate_size is None else intermediate_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        num_key_value_heads=num_key_value_heads,
        head_dim=head_dim,
        max_position_embeddings=max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
        initializer_range=initializer_range,
        attention_dropout=attention_dropout,
        tie_word_embeddings=tie,
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        temperature=0.6,
        top_k=20,
        top_p=0.95,
    )
    return model.eval()


def tiny_rows(tokenizer: Any) -> int:
    """Embedding rows of a fresh model for a tokenizer: a Qwen3 checkpoint's, or the next multiple of 64."""
    num_tokens = max(tokenizer.get_vocab().values()) + 1
    if num_tokens == QWEN3_TOKENS:
        return QWEN3_ROWS
    return -(-num_tokens // ROW_MULTIPLE) * ROW_MULTIPLE
