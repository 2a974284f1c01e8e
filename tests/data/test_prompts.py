"""Prompt wording, and recommendation prompts as token ids."""

# ruff: noqa: RUF001

from __future__ import annotations

import numpy as np
import pytest

from onereason.data.chat import encode_row
from onereason.data.prompt_sets import load_prompt_set
from onereason.data.prompts import (
    PersonaTemplate,
    RecommendationPrompt,
    add_switch,
    attribute_noun,
    caption_messages,
    describe_prompts,
    domain_noun,
    persona_templates,
    recency_names,
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


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("n", [0, 1, 2, 7])
@pytest.mark.parametrize(("style", "mode"), [("chat", "no_think"), ("chat", "think"), ("plain", "no_think")])
def test_spliced_ids_equal_the_tokenised_text(any_words, style, mode, n, language):
    prompt = RecommendationPrompt(any_words.tokenizer, any_words.vocabulary, style, mode, language)
    ids, text, domain = patterns(any_words, n)
    for _ in range(2):  # the second time from the remembered frame
        rendered = prompt.render(text, domain)
        assert prompt.encode(ids, domain) == any_words.tokenizer(rendered, add_special_tokens=False)["input_ids"]


def test_rendered_prompt(words):
    prompt = RecommendationPrompt(words.tokenizer, words.vocabulary)
    pattern = "<|video_begin|><s_a_1><s_b_2>"
    system = load_prompt_set("recommendation").text("system")
    opening = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n"
    question = f"The user's history in chronological order:\n{pattern}\nWhich live stream comes next? /no_think"
    answer = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert prompt.render(pattern, "living") == opening + question + answer
    thinking = RecommendationPrompt(words.tokenizer, words.vocabulary, mode="think").render(pattern, "living")
    assert thinking.endswith("Which live stream comes next? /think<|im_end|>\n<|im_start|>assistant\n")
    assert RecommendationPrompt(words.tokenizer, words.vocabulary, style="plain").render(pattern, "living") == pattern


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("mode", ["no_think", "think"])
def test_the_prompt_begins_the_training_row(any_words, mode, language):
    ids, text, domain = patterns(any_words, 3)
    format, vocabulary = any_words.format, any_words.vocabulary
    target = format.render((5, 6), domain)
    trace = "<think>\nbecause\n</think>\n\n" if mode == "think" else ""
    answer = {"role": "assistant", "content": trace + target}
    row = {"id": "r", "task": "sequential", "loss": "target_items", "mode": mode}
    row["messages"] = [*recommendation_messages(text, domain, format, mode, language), answer]
    encoded = encode_row(row, any_words.tokenizer, vocabulary)
    prompt = RecommendationPrompt(any_words.tokenizer, vocabulary, mode=mode, language=language).encode(ids, domain)
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


@pytest.mark.parametrize("language", ["en", "zh"])
def test_persona_templates_tell_one_item_a_line(language):
    assert [template.grouping for template in persona_templates(language)] == ["domain"] * 2 + ["recency"] * 3
    assert [len(names) for names in recency_names(language).values()] == [1, 2, 3]
    for template in persona_templates(language):
        line = template.item.format(pattern="<p>", caption="<c>", noun="video")
        assert "<p>" in line and "<c>" in line and "\n" not in line
        assert "\n" not in template.opening + template.heading


def test_wrong_arguments(words):
    with pytest.raises(ConfigError, match="prompt style 'poem' is not known; use chat or plain"):
        RecommendationPrompt(words.tokenizer, words.vocabulary, style="poem")
    with pytest.raises(ConfigError, match="prompt mode 'deep' is not known"):
        RecommendationPrompt(words.tokenizer, words.vocabulary, mode="deep")
    with pytest.raises(ConfigError, match="prompt set 'recommendation' for language 'fr' not found"):
        RecommendationPrompt(words.tokenizer, words.vocabulary, language="fr")
    with pytest.raises(ConfigError, match="'plain' is text without turns"):
        RecommendationPrompt(words.tokenizer, words.vocabulary, style="plain").messages("", "video")
    with pytest.raises(FormatError, match="domain 'game' is not in format"):
        RecommendationPrompt(words.tokenizer, words.vocabulary).encode(np.zeros((0, 3)), "game")
    shifted = ItemicVocabulary(words.format, words.vocabulary.first_token_id + 1)
    with pytest.raises(ModelError, match="does not match the tokenizer"):
        RecommendationPrompt(words.tokenizer, shifted)


# -- wording --------------------------------------------------------------------------------------------------------


def test_the_first_english_wording_is_what_models_were_trained_with():
    format = load_format("onereason")
    assert recommendation_messages("<h>", "living", format, "think") == [
        {
            "role": "system",
            "content": "You are a sequential recommendation engine. Items are written as itemic tokens. Read a user's "
            "history, oldest first, and answer with the one item that comes next, as itemic tokens and nothing else.",
        },
        {
            "role": "user",
            "content": "The user's history in chronological order:\n<h>\nWhich live stream comes next? /think",
        },
    ]
    assert caption_messages("<x>", "prod", format) == [
        {
            "role": "system",
            "content": "You are an expert content analyst. Items are written as itemic tokens. Read an item and "
            "describe what it is about.",
        },
        {"role": "user", "content": "Describe this product: <x> /no_think"},
    ]
    assert persona_templates() == (
        PersonaTemplate(
            "domain",
            "A portrait of one user.",
            "Of the {nouns}, the user liked these:",
            "{noun} {pattern}, captioned {caption}.",
        ),
        PersonaTemplate(
            "domain", "What one user chooses, by kind.", "Among {nouns}:", "- {pattern} is about: {caption}"
        ),
        PersonaTemplate(
            "recency",
            "The interests of one user over time.",
            "{when}:",
            "The user liked the {noun} {pattern}, captioned {caption}.",
        ),
        PersonaTemplate("recency", "User profile.", "{when} the user chose:", "- {caption} {pattern}"),
        PersonaTemplate(
            "recency",
            "A user's story, oldest first.",
            "{when}, this is what happened.",
            "{caption}: the {noun} {pattern}.",
        ),
    )
    names = {1: ("Recently",), 2: ("Earlier", "Recently"), 3: ("At first", "Later", "Most recently")}
    assert recency_names() == names


def test_chinese_wording():
    format = load_format("onereason")
    system, user = recommendation_messages("<h>", "prod", format, language="zh")
    assert user["content"] == "该用户的历史，按时间先后排列：\n<h>\n接下来会是哪个商品？ /no_think"
    assert system["content"] == load_prompt_set("recommendation", "zh").text("system")
    assert caption_messages("<x>", "ad", format, None, "zh")[1]["content"] == "请描述这个广告：<x>"
    assert domain_noun("Beauty_care", plural=True, language="zh") == "beauty care类物品"
    assert (attribute_noun("price_range", "zh"), attribute_noun("wood_kind", "zh")) == ("价位", "wood kind")
    assert (attribute_noun("price_range"), attribute_noun("wood_kind")) == ("price range", "wood kind")


def test_variants_go_round():
    format = load_format("onereason")
    prompts = load_prompt_set("recommendation")
    asked = [recommendation_messages("<h>", "ad", format, variant=v)[1]["content"] for v in range(4)]
    assert asked[0] == asked[3] and len(set(asked)) == len(prompts.variants("user")) == 3
    assert asked[1] == prompts.text("user", 1).format(history="<h>", noun="advertisement") + " /no_think"
    assert caption_messages("<x>", "ad", format, "think", "en", 1)[1]["content"].endswith("into words. /think")


def test_a_folder_of_wording(tmp_path):
    (tmp_path / "recommendation.yaml").write_text("version: 7\nsystem: Recommend.\nuser: '{history} then {noun}?'\n")
    (tmp_path / "domains.yaml").write_text(
        "version: 1\nnoun: {any: [thing, things], tea: [tea, teas], other: ['{name}', x]}\n"
    )
    format = load_format("minionerec")
    system, user = recommendation_messages("<h>", "tea", format, language=str(tmp_path))
    assert (system["content"], user["content"]) == ("Recommend.", "<h> then thing? /no_think")
    assert domain_noun("tea", True, str(tmp_path)) == "teas" and domain_noun("x_Y", language=str(tmp_path)) == "x y"
    assert describe_prompts(("recommendation", "domains"), str(tmp_path)) == (
        f"recommendation/{tmp_path.name}/7, domains/{tmp_path.name}/1"
    )
    assert describe_prompts(("recommendation",)) == "recommendation/en/1"
