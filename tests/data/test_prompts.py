"""Prompt wording, and recommendation prompts as token ids."""

from __future__ import annotations

import numpy as np
import pytest

from onereason.data.chat import encode_row
from onereason.data.prompts import (
    PERSONA_TEMPLATES,
    RECOMMENDATION_SYSTEM,
    RecommendationPrompt,
    add_switch,
    caption_messages,
    domain_noun,
    recommendation_messages,
)
from onereason.errors import ConfigError, FormatError, ModelError
from onereason.itemic.format import load_format
from onereason.itemic.vocabulary import ItemicVocabulary


def patterns(words, n: int) -> tuple[np.ndarray, str, str]:
    """Ids `[n, P]` and text of `n` items, and a domain of the format."""
    format = words.format
    domains = [list(format.domains)[i % len(format.domains)] for i in range(n)]
    codes = np.random.default_rng(n).integers(0, 8, (n, 2))
    ids = words.vocabulary.pattern_ids(codes, domains)
    text = "".join(format.render(c, d) for c, d in zip(codes.tolist(), domains, strict=True))
    return ids, text, list(format.domains)[-1]


@pytest.mark.parametrize("n", [0, 1, 2, 7])
@pytest.mark.parametrize(("style", "mode"), [("chat", "no_think"), ("chat", "think"), ("plain", "no_think")])
def test_spliced_ids_equal_the_tokenised_text(any_words, style, mode, n):
    prompt = RecommendationPrompt(any_words.tokenizer, any_words.vocabulary, style=style, mode=mode)
    ids, text, domain = patterns(any_words, n)
    for _ in range(2):  # the second time from the remembered frame
        rendered = prompt.render(text, domain)
        assert prompt.encode(ids, domain) == any_words.tokenizer(rendered, add_special_tokens=False)["input_ids"]


def test_rendered_prompt(words):
    prompt = RecommendationPrompt(words.tokenizer, words.vocabulary)
    pattern = "<|video_begin|><s_a_1><s_b_2>"
    opening = f"<|im_start|>system\n{RECOMMENDATION_SYSTEM}<|im_end|>\n<|im_start|>user\n"
    question = f"The user's history in chronological order:\n{pattern}\nWhich live stream comes next? /no_think"
    answer = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert prompt.render(pattern, "living") == opening + question + answer
    thinking = RecommendationPrompt(words.tokenizer, words.vocabulary, mode="think").render(pattern, "living")
    assert thinking.endswith("Which live stream comes next? /think<|im_end|>\n<|im_start|>assistant\n")
    assert RecommendationPrompt(words.tokenizer, words.vocabulary, style="plain").render(pattern, "living") == pattern


@pytest.mark.parametrize("mode", ["no_think", "think"])
def test_the_prompt_begins_the_training_row(any_words, mode):
    ids, text, domain = patterns(any_words, 3)
    format, vocabulary = any_words.format, any_words.vocabulary
    target = format.render((5, 6), domain)
    trace = "<think>\nbecause\n</think>\n\n" if mode == "think" else ""
    answer = {"role": "assistant", "content": trace + target}
    row = {"id": "r", "task": "sequential", "loss": "target_items", "mode": mode}
    row["messages"] = [*recommendation_messages(text, domain, format, mode), answer]
    encoded = encode_row(row, any_words.tokenizer, vocabulary)
    prompt = RecommendationPrompt(any_words.tokenizer, vocabulary, mode=mode).encode(ids, domain)
    assert encoded["input_ids"][: len(prompt)] == prompt
    if mode == "no_think":  # the answer follows at once: what decoding appends is what training saw
        begin = vocabulary.prefix_ids(domain)
        assert encoded["input_ids"][len(prompt) : len(prompt) + len(begin)] == begin
    assert not any(encoded["loss_mask"][: len(prompt)])


def test_plain_prompt_begins_the_plain_training_row(any_words):
    ids, text, domain = patterns(any_words, 3)
    row = {"id": "r", "task": "sequential", "loss": "next_items", "mode": "no_think"}
    row["text"] = text + any_words.format.render((5, 6), domain)
    encoded = encode_row(row, any_words.tokenizer, any_words.vocabulary)
    prompt = RecommendationPrompt(any_words.tokenizer, any_words.vocabulary, style="plain").encode(ids, domain)
    assert encoded["input_ids"][: len(prompt)] == prompt == ids.reshape(-1).tolist()


def test_the_question_names_the_domain_where_tokens_tell_domains_apart():
    several, one = load_format("onereason"), load_format("openonerec")
    assert "Which product comes next?" in recommendation_messages("", "prod", several)[1]["content"]
    assert "Which item comes next?" in recommendation_messages("", "beauty", one)[1]["content"]
    assert caption_messages("<x>", "ad", several)[1]["content"] == "Describe this advertisement: <x> /no_think"
    assert caption_messages("<x>", "beauty", one, "think")[1]["content"] == "Describe this item: <x> /think"
    with pytest.raises(FormatError, match="domain 'beauty' is not in format 'onereason'"):
        recommendation_messages("", "beauty", several)


def test_nouns():
    assert domain_noun("prod", plural=True) == "products"
    assert domain_noun("Beauty_care") == "beauty care item" and domain_noun("item") == "item"


def test_switch_is_added_once():
    assert add_switch("a", "think") == "a /think"
    assert add_switch("a /no_think", "no_think") == "a /no_think"
    with pytest.raises(ConfigError, match="mode 'deep' is not known; use no_think or think"):
        add_switch("a", "deep")


def test_persona_templates_tell_one_item_a_line():
    for template in PERSONA_TEMPLATES:
        line = template.item.format(pattern="<p>", caption="<c>", noun="video")
        assert "<p>" in line and "<c>" in line and "\n" not in line
        assert "\n" not in template.opening + template.heading


def test_wrong_arguments(words):
    with pytest.raises(ConfigError, match="prompt style 'poem' is not known; use chat or plain"):
        RecommendationPrompt(words.tokenizer, words.vocabulary, style="poem")
    with pytest.raises(ConfigError, match="prompt mode 'deep' is not known"):
        RecommendationPrompt(words.tokenizer, words.vocabulary, mode="deep")
    with pytest.raises(ConfigError, match="'plain' is text without turns"):
        RecommendationPrompt(words.tokenizer, words.vocabulary, style="plain").messages("", "video")
    with pytest.raises(FormatError, match="domain 'game' is not in format"):
        RecommendationPrompt(words.tokenizer, words.vocabulary).encode(np.zeros((0, 3)), "game")
    shifted = ItemicVocabulary(words.format, words.vocabulary.first_token_id + 1)
    with pytest.raises(ModelError, match="does not match the tokenizer"):
        RecommendationPrompt(words.tokenizer, shifted)
