"""Rows -> token ids and loss masks; generated text -> trace and answer."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.data.chat import (
    LOSSES,
    Answer,
    check_row,
    encode_row,
    encode_rows,
    iter_supervised,
    load_template,
    parse_answer,
)
from onereason.data.rendering import RowTokenizer, tokenize_exactly
from onereason.errors import ConfigError, DataError

V1, V2, V3 = ("<|video_begin|><s_a_1><s_b_2>", "<|video_begin|><s_a_3><s_b_4>", "<|video_begin|><s_a_5><s_b_6>")
P1 = "<|prod_begin|><s_a_7><s_b_0>"
NO_THINK = "<think>\n\n</think>\n\n"


def chat(*turns: tuple[str, str], loss: str = "assistant") -> dict:
    messages = [{"role": role, "content": content} for role, content in turns]
    return {"id": "r", "task": "general", "loss": loss, "mode": "no_think", "messages": messages}


def text_row(text: str, loss: str = "next_items") -> dict:
    return {"id": "r", "task": "sequential", "loss": loss, "mode": "no_think", "text": text}


def assert_encodes(words, row: dict, segments: list[tuple[str, bool]], max_length: int | None = None) -> None:
    """Every token id and every bit of the mask; segments are tokenised one by one and borders stand at whole tokens."""
    encoded = encode_row(row, words.tokenizer, words.vocabulary, max_length)
    ids = [words.tokenizer(text, add_special_tokens=False)["input_ids"] for text, _ in segments]
    assert encoded["input_ids"] == [i for part in ids for i in part]
    expected = [flag for part, (_, flag) in zip(ids, segments, strict=True) for _ in part]
    assert encoded["loss_mask"] == expected


# -- loss masks, token by token -------------------------------------------------------------------------------------


def test_assistant_loss_is_the_answer_and_its_stop_token(words):
    row = chat(("system", "Be brief."), ("user", "What is two plus two? /no_think"), ("assistant", "Four."))
    opening = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is two plus two? /no_think<|im_end|>\n"
    opening += "<|im_start|>assistant\n" + NO_THINK  # an empty think block belongs to the prompt
    assert_encodes(words, row, [(opening, False), ("Four.", True), ("<|im_end|>", True), ("\n", False)])


def test_assistant_loss_includes_a_real_think_block(words):
    row = chat(("user", "What? /think"), ("assistant", "<think>\nbecause\n</think>\n\nFour."))
    opening = "<|im_start|>user\nWhat? /think<|im_end|>\n<|im_start|>assistant\n"
    answer = "<think>\nbecause\n</think>\n\nFour.<|im_end|>"
    assert_encodes(words, row, [(opening, False), (answer, True), ("\n", False)])


def test_every_assistant_turn_is_supervised_and_past_thinking_is_dropped(words):
    past = "<think>\nbecause\n</think>\n\nFour."
    row = chat(("user", "What?"), ("assistant", past), ("user", "The user?"), ("assistant", "It is so."))
    segments = [
        ("<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n", False),
        ("Four.<|im_end|>", True),
        ("\n<|im_start|>user\nThe user?<|im_end|>\n<|im_start|>assistant\n" + NO_THINK, False),
        ("It is so.<|im_end|>", True),
        ("\n", False),
    ]
    assert_encodes(words, row, segments)


def test_target_items_are_exactly_the_itemic_tokens_of_the_answer(words):
    row = chat(("user", f"liked {V1}{V2}"), ("assistant", f"It is {V3} because {P1}."), loss="target_items")
    opening = f"<|im_start|>user\nliked {V1}{V2}<|im_end|>\n<|im_start|>assistant\n{NO_THINK}It is "
    segments = [(opening, False), (V3, True), (" because ", False), (P1, True), (".<|im_end|>\n", False)]
    assert_encodes(words, row, segments)


def test_next_items_supervise_all_items_but_the_first(words):
    row = chat(("user", f"liked {V1}{V2}{P1}."), ("assistant", V3), loss="next_items")
    segments = [
        (f"<|im_start|>user\nliked {V1}", False),
        (V2 + P1, True),
        (f".<|im_end|>\n<|im_start|>assistant\n{NO_THINK}", False),
        (V3, True),
        ("<|im_end|>\n", False),
    ]
    assert_encodes(words, row, segments)


def test_next_items_in_a_text(words):
    assert_encodes(words, text_row(V1 + V2 + V3), [(V1, False), (V2 + V3, True)])


def test_a_target_without_history_is_supervised(words):
    row = chat(("user", "What?"), ("assistant", V1), loss="next_items")
    opening = f"<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n{NO_THINK}"
    assert_encodes(words, row, [(opening, False), (V1, True), ("<|im_end|>\n", False)])


def test_loss_none_keeps_the_row_and_supervises_nothing(words):
    assert_encodes(words, text_row(f"liked {V1}{V2}", "none"), [(f"liked {V1}{V2}", False)])
    row = chat(("user", "What?"), loss="none")  # the last turn need not be the assistant's
    assert_encodes(words, row, [("<|im_start|>user\nWhat?<|im_end|>\n", False)])


def test_rows_of_loss_none_are_not_rejected_for_teaching_nothing(words):
    rows = [text_row(V1, "none"), text_row(V1), text_row(V1 + V2)]
    encoded = encode_rows(rows, words.tokenizer, words.vocabulary)
    assert encoded.source.tolist() == [0, 2] and encoded.rejected == {"nothing_supervised": 1}
    assert [ids.tolist() for ids in iter_supervised(encoded)] == [[], words.tokenizer(V2)["input_ids"]]
    assert len(encode_rows(rows[:1], words.tokenizer, words.vocabulary)) == 1  # a corpus may hold nothing else


def test_all_supervises_every_token(words):
    assert_encodes(words, text_row(f"liked {V1}, captioned a pie.", "all"), [(f"liked {V1}, captioned a pie.", True)])
    row = chat(("user", "What?"), ("assistant", "Four."), loss="all")
    whole = f"<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n{NO_THINK}Four.<|im_end|>\n"
    assert_encodes(words, row, [(whole, True)])


def test_broken_patterns_are_not_supervised(words):
    broken = "<|video_begin|><s_a_1>"  # a level is missing
    swapped = "<|video_begin|><s_b_1><s_a_1>"
    assert_encodes(words, text_row(V1 + broken + V2 + swapped), [(V1 + broken, False), (V2, True), (swapped, False)])


def test_end_tokens_are_supervised_where_they_are_rendered(any_words):
    format = any_words.format
    domain = "video" if "video" in format.domains else "*"
    first, second = format.render((1, 2), domain), format.render((3, 4), domain)
    assert_encodes(any_words, text_row(first + second), [(first, False), (second, True)])
    # openonerec renders <|sid_end|>: begin + 2 codes + end; onereason: begin + 2 codes; minionerec: 2 codes
    mask = encode_row(text_row(first + second), any_words.tokenizer, any_words.vocabulary)["loss_mask"]
    assert sum(mask) == {"openonerec": 4, "onereason": 3, "minionerec": 2}[format.name]


def test_spans_equal_those_of_transformers(words):
    messages = chat(
        ("system", "s"), ("user", "a"), ("assistant", "b"), ("user", V1), ("assistant", "<think>\nx</think>c")
    )
    rendered = words.tokenizer.apply_chat_template(
        messages["messages"],
        chat_template=load_template("qwen3_training"),
        return_assistant_tokens_mask=True,
        return_dict=True,
    )
    encoded = encode_row(messages, words.tokenizer, words.vocabulary)
    assert encoded["input_ids"] == rendered["input_ids"]
    assert encoded["loss_mask"] == [bool(m) for m in rendered["assistant_masks"]]


# -- too long -------------------------------------------------------------------------------------------------------


def test_a_text_loses_its_oldest_items(words):
    # 4 patterns of 3 tokens; 9 tokens hold the last three, of which the first is context
    assert_encodes(words, text_row(V1 + V2 + V3 + P1), [(V2, False), (V3 + P1, True)], max_length=11)


def test_a_text_keeps_a_context_and_a_target(words):
    assert_encodes(words, text_row(V1 + V2 + V3), [(V2, False), (V3, True)], max_length=6)
    with pytest.raises(DataError, match=r"row 'r' does not fit max_length 5 even with its oldest history cut"):
        encode_row(text_row(V1 + V2 + V3), words.tokenizer, words.vocabulary, 5)


def test_a_conversation_loses_history_and_keeps_instruction_and_answer(words):
    row = chat(
        ("system", f"As in {P1}{P1}"), ("user", f"liked {V1}{V2}{V3}\nWhat?"), ("assistant", P1 + P1), loss="next_items"
    )
    segments = [
        (f"<|im_start|>system\nAs in {P1}", False),
        (P1, True),
        ("<|im_end|>\n<|im_start|>user\nliked ", False),
        (V3, True),
        (f"\nWhat?<|im_end|>\n<|im_start|>assistant\n{NO_THINK}", False),
        (P1 + P1, True),
        ("<|im_end|>\n", False),
    ]
    full = len(encode_row(row, words.tokenizer, words.vocabulary)["input_ids"])
    assert_encodes(words, row, segments, max_length=full - 4)  # 4 tokens too many: two items of 3 tokens leave
    with pytest.raises(DataError, match="raise max_length"):
        encode_row(row, words.tokenizer, words.vocabulary, full - 7)


def test_a_persona_loses_whole_lines_and_empty_headings(words):
    lines = ["The user.", "At first:", f"red pie {V1}", "Later:", f"two {V2}", f"four {V3}"]
    short = "\n".join([lines[0], *lines[3:]])
    size = len(words.tokenizer(short, add_special_tokens=False)["input_ids"])
    assert_encodes(words, text_row("\n".join(lines), "all"), [(short, True)], max_length=size)
    shorter = "\n".join([lines[0], lines[3], lines[5]])
    assert_encodes(words, text_row("\n".join(lines), "all"), [(shorter, True)], max_length=size - 1)


def test_a_persona_without_loss_is_cut_as_one_with_loss(words):
    text = "\n".join(["The user.", "At first:", f"red pie {V1}", "Later:", f"two {V2}", f"four {V3}"])
    limit = len(words.tokenizer(text, add_special_tokens=False)["input_ids"]) - 1
    cut, kept = (encode_row(text_row(text, loss), words.tokenizer, words.vocabulary, limit) for loss in ("none", "all"))
    assert cut["input_ids"] == kept["input_ids"] and not any(cut["loss_mask"]) and all(kept["loss_mask"])


@pytest.mark.parametrize("cut_by", [0, 1, 5])
def test_cut_conversation_equals_the_shorter_conversation(any_words, cut_by):
    format = any_words.format
    domain = "video" if "video" in format.domains else "*"
    items = [format.render((i, i), domain) for i in range(6)]
    row = chat(("user", "".join(items[:5]) + " What?"), ("assistant", items[5]), loss="target_items")
    shorter = chat(("user", "".join(items[2:5]) + " What?"), ("assistant", items[5]), loss="target_items")
    wanted = encode_row(shorter, any_words.tokenizer, any_words.vocabulary)
    limit = len(wanted["input_ids"]) + min(cut_by, format.pattern_length - 1)
    assert encode_row(row, any_words.tokenizer, any_words.vocabulary, limit) == wanted


# -- whole corpora --------------------------------------------------------------------------------------------------

_PATTERNS = st.lists(st.sampled_from([V1, V2, V3, P1]), max_size=4).map("".join)
_WORDS = st.sampled_from(
    ["", "liked", " two\n", "\n\n", "<s_a_1>", "<s_a_9>", "</think>", "a <think>\nb", "é😀", "<|video_end|>"]
)
_CONTENT = st.lists(st.one_of(_PATTERNS, _WORDS), max_size=5).map("".join)


@st.composite
def _rows(draw) -> list[dict]:
    made = []
    for number in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            row = text_row(draw(_CONTENT) + V1 + V2, draw(st.sampled_from(["all", "next_items", "none"])))
        else:
            turns = [("system", "Be brief.")] * draw(st.integers(0, 1))
            for _ in range(draw(st.integers(0, 1))):
                turns += [("user", draw(_CONTENT)), ("assistant", draw(_CONTENT))]
            turns += [("user", draw(_CONTENT)), ("assistant", draw(_CONTENT) + V3)]
            row = chat(*turns, loss=draw(st.sampled_from(LOSSES)))
        made += [row | {"id": str(number)}] * draw(st.integers(1, 2))
    return made


@given(rows=_rows(), max_length=st.sampled_from([None, 30, 60]))
@settings(max_examples=150, deadline=None)
def test_a_corpus_is_encoded_as_its_rows(words, rows, max_length):
    alone = []
    for row in rows:
        try:
            alone.append(encode_row(row, words.tokenizer, words.vocabulary, max_length))
        except DataError:
            alone.append(None)
    if not any(alone):
        with pytest.raises(DataError, match="no row of the corpus is left"):
            encode_rows(rows, words.tokenizer, words.vocabulary, max_length)
        return
    encoded = encode_rows(rows, words.tokenizer, words.vocabulary, max_length)
    assert encoded[:] == [row for row in alone if row is not None]
    assert encoded.source.tolist() == [i for i, row in enumerate(alone) if row is not None]
    assert sum(encoded.rejected.values()) == sum(row is None for row in alone)
    if max_length is not None:
        assert encoded.lengths.max() <= max_length


@given(rows=_rows())
@settings(max_examples=100, deadline=None)
def test_fast_roads_equal_the_exact_road(words, rows):
    fast, exact = RowTokenizer(words.tokenizer, words.vocabulary)(rows), tokenize_exactly(rows, words.tokenizer)
    for name in ("ids", "in_assistant", "offsets"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(exact, name))


def test_rejected_rows_are_counted_and_logged(words, caplog):
    rows = [text_row(V1 + V2), text_row("word " * 40 + V1 + V2), text_row(V1), text_row("two four")]
    with caplog.at_level(logging.WARNING):
        encoded = encode_rows(rows, words.tokenizer, words.vocabulary, max_length=20)
    assert len(encoded) == 1 and encoded.rejected == {"too_long": 1, "nothing_supervised": 2}
    assert "left out 3 of 4 rows at max_length 20: 2 nothing_supervised, 1 too_long" in caplog.text
    assert [ids.tolist() for ids in iter_supervised(encoded)] == [words.tokenizer(V2)["input_ids"]]


def test_encoded_rows_are_a_sequence(words):
    encoded = encode_rows([text_row(V1 + V2), text_row(V2 + V3 + V1)], words.tokenizer, words.vocabulary)
    assert encoded[-1] == encoded[1] and len(encoded) == 2 and encoded.lengths.tolist() == [6, 9]
    with pytest.raises(IndexError, match="row 2 of 2"):
        encoded[2]


def test_empty_corpus(words):
    with pytest.raises(DataError, match="the corpus is empty"):
        encode_rows([], words.tokenizer, words.vocabulary)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "Chess"}, "row 'r': task is 'Chess'; use a name of lower-case letters, digits and underscores"),
        ({"task": "2nd"}, "task is '2nd'"),
        ({"task": "chess\n"}, r"task is 'chess\\n'"),
        ({"task": ""}, "task is ''"),
        ({"task": 7}, "task is 7"),
        ({"loss": None}, "row 'r': loss is None; use one of all, assistant, target_items, next_items, none"),
        ({"domain": ""}, "row 'r': domain must be a non-empty string, got ''; or leave it out"),
        ({"user": 7}, "user must be a non-empty string, got 7"),
        ({"teacher": ["a"]}, r"teacher must be a non-empty string, got \['a'\]"),
        ({"mode": "deep"}, "mode is 'deep'"),
        ({"text": V1}, "needs either 'text' or 'messages', has both"),
        ({"messages": None}, "has neither"),
        ({"messages": []}, "must be a non-empty list"),
        ({"messages": None, "text": ""}, "must be a non-empty string"),
        ({"messages": None, "text": V1}, "loss 'assistant' needs 'messages'"),
        ({"messages": [{"role": "bot", "content": "a"}]}, "each message needs a role out of system, user, assistant"),
        ({"messages": [{"role": "assistant", "content": None}]}, "the content of a message must be a string, got None"),
        ({"messages": [{"role": "user", "content": "a"}]}, "the last message must be the assistant's, is the user's"),
    ],
)
def test_malformed_rows(change, message):
    row = chat(("user", "a"), ("assistant", "b")) | change
    with pytest.raises(DataError, match=message):
        check_row({key: value for key, value in row.items() if value is not None or key == "loss"})


@pytest.mark.parametrize("task", ["persona", "r3", "item_qa", "x"])
def test_a_row_may_name_its_task_domain_user_and_teacher(task):
    check_row(chat(("user", "a"), ("assistant", "b")) | {"task": task})
    check_row(text_row(V1) | {"task": task, "domain": "video", "user": "u7", "teacher": "endpoint:gpt"})


def test_a_row_that_teaches_nothing(words):
    with pytest.raises(DataError, match="row 'r' has no token that loss 'target_items' supervises"):
        encode_row(chat(("user", V1), ("assistant", "Four."), loss="target_items"), words.tokenizer, words.vocabulary)


# -- generated text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Four.<|im_end|>", Answer(None, "Four.", True)),
        ("<think>\n\n</think>\n\nFour.<|im_end|>\n", Answer(None, "Four.", True)),
        ("<think>\nbecause\n</think>\n\nFour.", Answer("because", "Four.", True)),
        ("because\n</think>\n\nFour.<|endoftext|>x", Answer("because", "Four.", True)),
        ("<think>\nbecause it", Answer("because it", "", False)),
        ("<think>because<|im_end|>", Answer("because", "", False)),
        ("<think>a</think>b</think>c", Answer("a", "b</think>c", True)),
        ("", Answer(None, "", True)),
    ],
)
def test_parse_answer(text, answer):
    assert parse_answer(text) == answer


# -- templates ------------------------------------------------------------------------------------------------------

_SYSTEM, _USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "What?"}
_CALL = {"type": "function", "function": {"name": "look_up", "arguments": {"item": "é", "n": 2}}}
_TOOLS = [{"type": "function", "function": {"name": "look_up", "description": "a <b>", "parameters": {"n": [1]}}}]


def says(content, **more) -> dict:
    return {"role": "assistant", "content": content, **more}


CONVERSATIONS = {
    "user": [_USER],
    "system": [_SYSTEM, _USER],
    "answer": [_USER, says("Four.")],
    "system and answer": [_SYSTEM, _USER, says("Four.")],
    "two turns": [_USER, says("Four."), _USER, says("Five.")],
    "open turn": [_SYSTEM, _USER, says("Four."), _USER],
    "final thinking": [_USER, says("<think>\nbecause\n</think>\n\nFour.")],
    "empty thinking": [_USER, says("<think>\n\n</think>\n\nFour.")],
    "past thinking": [_USER, says("<think>\nbecause\n</think>\n\nFour."), _USER, says("<think>\nso\n</think>\nFive.")],
    "thinking, no opening tag": [_USER, says("because\n</think>\n\nFour.")],
    "thinking, two closing tags": [_USER, says("<think>a</think>b</think>c")],
    "reasoning_content": [_USER, says("Four.", reasoning_content="\nbecause\n")],
    "past reasoning_content": [_USER, says("Four.", reasoning_content="because"), _USER, says("Five.")],
    "blank thinking": [_USER, says("Four.", reasoning_content=" ")],
    "leading newlines": [_USER, says("\n\nFour.\n"), _USER, says("\n\nFive.\n")],
    "late system": [_USER, _SYSTEM, _USER, says("Four.")],
    "answer first": [says("Hello."), _USER, says("Four.")],
    "no user": [_SYSTEM, says("Four.")],
    "two answers": [_USER, says("Four."), says("Five.")],
    "two answers that think": [_USER, says("<think>a</think>Four."), says("<think>b</think>Five.")],
    "empty contents": [{"role": "user", "content": ""}, says("")],
    "no content": [_USER, says(None)],
    "tool call": [_USER, says("", tool_calls=[_CALL]), {"role": "tool", "content": "pie"}, says("A pie.")],
    "tool call with words": [_USER, says("Let me see.", tool_calls=[_CALL["function"], _CALL])],
    "tool call with text arguments": [_USER, says("", tool_calls=[{"name": "f", "arguments": '{"a": 1}'}])],
    "thinking before a tool call": [
        _SYSTEM,
        _USER,
        says("<think>\nI look.\n</think>\n\n", tool_calls=[_CALL]),
        {"role": "tool", "content": "pie"},
        {"role": "tool", "content": "cake"},
        says("<think>\nI see.\n</think>\n\nBoth."),
    ],
    "tool answers between questions": [
        _USER,
        says("", tool_calls=[_CALL, _CALL]),
        {"role": "tool", "content": "pie"},
        {"role": "tool", "content": "cake"},
        says("Both."),
        _USER,
        says("<think>a</think>b"),
    ],
    "tool answer as a user turn": [
        _USER,
        says("<think>a</think>b"),
        {"role": "user", "content": "<tool_response>\npie\n</tool_response>"},
        says("c"),
    ],
}
OPTIONS = [
    dict(add_generation_prompt=generation, tools=tools, **thinking)
    for generation in (False, True)
    for tools in (None, _TOOLS, _TOOLS * 2)
    for thinking in ({}, {"enable_thinking": True}, {"enable_thinking": False})
]


def render(messages: list[dict], template: str, **options) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    return render_jinja_template(conversations=[messages], chat_template=template, **options)[0][0]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_template_renders_as_qwen3s_own(shared_dir, name):
    import json

    own = json.loads((shared_dir / "data/qwen3_tokenizer/tokenizer_config.json").read_text("utf-8"))["chat_template"]
    for options in OPTIONS:
        assert render(CONVERSATIONS[name], load_template("qwen3"), **options) == render(
            CONVERSATIONS[name], own, **options
        )


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_training_template_renders_the_same_text(name):
    for options in OPTIONS:
        expected = render(CONVERSATIONS[name], load_template("qwen3"), **options)
        assert render(CONVERSATIONS[name], load_template("qwen3_training"), **options) == expected


def test_template_renders_a_known_text():
    tool = '{"type": "function", "function": {"name": "look_up", "description": "a <b>", "parameters": {"n": [1]}}}'
    expected = (
        "<|im_start|>system\nBe brief.\n\n# Tools\n\nYou may call one or more functions to assist with the user query."
        "\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        + tool
        + "\n</tools>"
        "\n\nFor each function call, return a json object with function name and arguments within "
        "<tool_call></tool_call> XML tags:\n<tool_call>\n"
        '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n<think>\nI look.\n</think>\n\n"
        '<tool_call>\n{"name": "look_up", "arguments": {"item": "é", "n": 2}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\npie\n</tool_response>\n<tool_response>\ncake\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n<think>\nI see.\n</think>\n\nBoth.<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    options = {"tools": _TOOLS, "add_generation_prompt": True, "enable_thinking": False}
    assert render(CONVERSATIONS["thinking before a tool call"], load_template("qwen3"), **options) == expected


@pytest.mark.parametrize("answer", ["Four.", "\n\nFour.", "<think>\nbecause\n</think>\n\nFour."])
def test_the_prompt_is_a_prefix_of_the_training_text(answer):
    thinks = "because" in answer
    for before in ([_USER], [_SYSTEM, _USER], [_USER, says("Five."), _USER]):
        prompt = render(before, load_template("qwen3"), add_generation_prompt=True, enable_thinking=thinks)
        assert render([*before, says(answer)], load_template("qwen3_training")).startswith(prompt)


def test_turns_without_thinking_are_prefixes_of_longer_conversations():
    conversation = [_SYSTEM, _USER, says("Four."), _USER, says("Five."), _USER]
    whole = render(conversation, load_template("qwen3"))
    for length in (1, 2, 4, 6):  # after a user turn; a final answer shows a think block that a past one does not
        assert whole.startswith(render(conversation[:length], load_template("qwen3")))


def test_unknown_template():
    with pytest.raises(ConfigError, match="chat template 'llama' is not known; use qwen3 or qwen3_training"):
        load_template("llama")
