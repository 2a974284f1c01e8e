"""What the tasks ask: the first wording of their prompt sets, in both languages."""

# ruff: noqa: RUF001

from __future__ import annotations

import pytest

from onereason.errors import ConfigError
from onereason.evaluation.layers.tasks import action_selection, direct, grounding, item2item, item_qa, topic

ENTRIES = ["2025-01-03 play {x}", "2025-01-04 like y"]
TIMELINE = "2025-01-03 play {x}\n2025-01-04 like y"
CHAIN_SYSTEM = (
    "You are a user analyst. Items are written as itemic tokens. Read a user's timeline and tell how one interest "
    'evolves, as JSON and nothing else: {"logic_chain": {"name": the interest, "events": [{"date": "YYYY-MM-DD", '
    '"action": the action, "logic": why it follows}, ...]}}. Without such an interest, answer {"logic_chain": []}.'
)


@pytest.mark.parametrize(
    ("messages", "system", "user"),
    [
        (
            grounding.build_messages("red {tea}", "living"),
            "You are an expert content analyst. Items are written as itemic tokens. Read a description and answer with "
            "the one item it describes, as itemic tokens and nothing else.",
            "Which live stream is this? red {tea}",
        ),
        (
            item_qa.build_messages("<p>", "ad", "price_range", ["low", "{high}"]),
            "You are an expert content analyst. Items are written as itemic tokens. Answer with the letter of the "
            "right choice and nothing else.",
            "What is the price range of this advertisement: <p>\nA. low\nB. {high}",
        ),
        (
            item2item.build_messages("<p>", "prod", ["<q>", "<r>"]),
            "You are a recommendation analyst. Items are written as itemic tokens. Answer with the letter of the item "
            "that goes best with the given one, and nothing else.",
            "A user chose this product: <p>\nWhich of these goes best with it?\nA. <q>\nB. <r>",
        ),
        (
            action_selection.build_messages(ENTRIES, "tea"),
            "You are a user analyst. Items are written as itemic tokens. Read a user's timeline and answer with a JSON "
            "list of the entries that are asked for, copied word for word, and nothing else.",
            f"The user's timeline, oldest first:\n{TIMELINE}\nWhich entries make up the longest episode of the "
            "user's interest in tea, those that it leads on to included?",
        ),
        (
            topic.build_messages(ENTRIES, "tea"),
            CHAIN_SYSTEM,
            f"The user's timeline, oldest first:\n{TIMELINE}\nHow does the user's interest in tea evolve in its "
            "longest episode?",
        ),
        (
            direct.build_messages(ENTRIES),
            CHAIN_SYSTEM,
            f"The user's timeline, oldest first:\n{TIMELINE}\nHow does the user's main interest evolve?",
        ),
    ],
)
def test_the_english_wording_is_what_models_were_trained_with(messages, system, user):
    assert messages == [{"role": "system", "content": system}, {"role": "user", "content": user}]


def test_chinese():
    assert grounding.build_messages("红茶", "prod", "zh")[1]["content"] == "这是哪个商品？红茶"
    asked = item_qa.build_messages("<p>", "video", "brand", ["a", "b"], "zh")[1]["content"]
    assert asked == "这个视频的品牌是什么：<p>\nA. a\nB. b"
    asked = item2item.build_messages("<p>", "ad", ["<q>"], "zh")[1]["content"]
    assert asked == "某用户选择了这个广告：<p>\n下面哪一个与它最相配？\nA. <q>"
    assert topic.build_messages(ENTRIES, "茶", "zh")[1]["content"].endswith(
        "\n该用户对茶的兴趣在最长的一段中是如何演变的？"
    )
    assert direct.build_messages(ENTRIES, "zh")[1]["content"].endswith("\n该用户的主要兴趣是如何演变的？")
    assert action_selection.build_messages(ENTRIES, "茶", "zh")[1]["content"].startswith(
        f"该用户的时间线，由旧到新：\n{TIMELINE}\n"
    )
    assert (
        '{"logic_chain": {"name": 兴趣名称, "events": [{"date": "YYYY-MM-DD"'
        in (direct.build_messages(ENTRIES, "zh")[0]["content"])
    )


def test_an_unknown_language_is_refused():
    with pytest.raises(ConfigError, match="prompt set 'evolution' for language 'fr' not found"):
        topic.build_messages(ENTRIES, "tea", "fr")
