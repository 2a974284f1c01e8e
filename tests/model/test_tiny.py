"""Tiny tokenizers and models: the kind Qwen3 is, and reproducible."""

from __future__ import annotations

import unicodedata

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, Qwen2Tokenizer, Qwen3ForCausalLM

from onereason.errors import ConfigError
from onereason.model.tiny import BASE_TEXTS, build_tiny_model, build_tiny_tokenizer, load_chat_template


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_round_trips_up_to_nfc(_tokenizer, text):
    assert _tokenizer.decode(_tokenizer(text)["input_ids"]) == unicodedata.normalize("NFC", text)


def test_special_tokens_stand_behind_the_bpe_and_behave_as_in_qwen3(tokenizer):
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    assert tokenizer.convert_tokens_to_ids(names) == [275, 276, 277, 278, 279]
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.bos_token) == ("<|endoftext|>", "<|im_end|>", None)
    ids = tokenizer("<|im_start|>x<think>y</think><|im_end|>")["input_ids"]
    # x and y are single bytes; no token is split, thinking marks survive, chat marks do not
    assert [ids[0], ids[2], ids[4], ids[5]] == [276, 278, 279, 277] and len(ids) == 6
    assert tokenizer.decode(ids, skip_special_tokens=True) == "x<think>y</think>"


def test_it_learns_the_texts_and_is_reproducible():
    first, second = (build_tiny_tokenizer(["zebra crossing"] * 5 + list(BASE_TEXTS), 400) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
    assert first.tokenize("zebra") == ["zebra"]
    assert len(build_tiny_tokenizer(["ab ab"], 2048)) < 300  # nothing more to merge


def test_reloads_as_the_same_class_with_the_same_ids(tokenizer, build, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    build().save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "a red apple<|im_end|> 日本 <think>\r\n"
    assert type(loaded) is type(tokenizer) is Qwen2Tokenizer
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.chat_template == tokenizer.chat_template == load_chat_template()


def test_vocabulary_below_the_bytes_is_refused():
    with pytest.raises(
        ConfigError, match=r"vocab_size must be at least 261 \(256 bytes, 5 special tokens\), got 260\."
    ):
        build_tiny_tokenizer(["a"], 260)


def test_model_follows_its_arguments(tokenizer):
    model = build_tiny_model(tokenizer, hidden_size=24, num_hidden_layers=3, num_attention_heads=4)
    config = model.config
    assert isinstance(model, Qwen3ForCausalLM)
    assert (config.vocab_size, config.intermediate_size, config.num_key_value_heads, config.head_dim) == (320, 72, 2, 6)
    # 320 x 24 rows; a layer: q 24x24, k and v 24x12 each, o 24x24, two head norms of 6, MLP 3 x 24x72, two norms of 24
    layer = 576 + 2 * 288 + 576 + 12 + 5184 + 48
    assert sum(p.numel() for p in model.parameters()) == 320 * 24 + 3 * layer + 24
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_seed_decides_the_weights_and_the_callers_random_state_stays(build):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = build(seed=1), build(seed=1), build(seed=2)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_untied_has_two_matrices(build):
    model = build(tie=False)
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"hidden_size": 10, "num_attention_heads": 4}, r"hidden_size \(10\) must be divisible by num_attention_heads"),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, r"must be divisible by num_key_value_heads \(3\)"),
        ({"head_dim": 5}, r"head_dim \(5\) must be even"),
        ({"num_hidden_layers": 0}, r"num_hidden_layers must be at least 1, got 0\."),
    ],
)
def test_impossible_sizes_are_refused(tokenizer, sizes, message):
    with pytest.raises(ConfigError, match=message):
        build_tiny_model(tokenizer, **sizes)
