"""Rows in the formats of other trainers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from onereason.data.chat import encode_row, load_template
from onereason.data.exports import FORMATS, NotExpressible, carries_loss, dataset_info, export_format, export_row
from onereason.errors import ConfigError

ITEM = "<|video_begin|><s_a_1><s_b_2>"
THINK = "<think>\nPies.\n</think>\n\n"
NO_THINK = "<think>\n\n</think>\n\n"


def chat(*turns: tuple[str, str], mode: str = "no_think", loss: str = "assistant") -> dict:
    messages = [{"role": role, "content": content} for role, content in turns]
    return {"id": "r", "task": "t", "loss": loss, "mode": mode, "domain": "video", "user": "ann", "messages": messages}


PLAIN = chat(("system", "Be brief."), ("user", "What? /no_think"), ("assistant", "Four."))
THINKING = chat(("user", "Next? /think"), ("assistant", THINK + ITEM), mode="think")
LONG = chat(("user", "One?"), ("assistant", "Two."), ("user", "The user?"), ("assistant", "Liked."))
TOOL = chat(("user", "One?"), ("assistant", "look"), ("tool", "pie"), ("assistant", "Pie."))
TEXT = {"id": "x", "task": "t", "loss": "all", "mode": "no_think", "text": "liked it"}


# -- records, by hand -----------------------------------------------------------------------------------------------


def test_trl_messages():
    assert export_row(PLAIN, "trl_messages") == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What? /no_think"},
            {"role": "assistant", "content": "Four."},
        ]
    }
    assert export_row(THINKING, "trl_messages")["messages"][-1]["content"] == THINK + ITEM
    assert len(export_row(TOOL, "trl_messages")["messages"]) == 4


def test_trl_prompt_completion():
    assert export_row(PLAIN, "trl_prompt_completion") == {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What? /no_think"}],
        "completion": [{"role": "assistant", "content": "Four."}],
        "chat_template_kwargs": {"enable_thinking": False},
    }
    found = export_row(THINKING, "trl_prompt_completion")
    assert found["completion"] == [{"role": "assistant", "content": THINK + ITEM}]
    assert found["chat_template_kwargs"] == {"enable_thinking": True}
    assert [message["content"] for message in export_row(LONG, "trl_prompt_completion")["prompt"]] == [
        "One?",
        "Two.",
        "The user?",
    ]


def test_sharegpt():
    assert export_row(PLAIN, "sharegpt") == {
        "conversations": [{"from": "human", "value": "What? /no_think"}, {"from": "gpt", "value": "Four."}],
        "system": "Be brief.",
    }
    assert export_row(THINKING, "sharegpt") == {
        "conversations": [{"from": "human", "value": "Next? /think"}, {"from": "gpt", "value": THINK + ITEM}],
        "system": "",
    }
    tags = [turn["from"] for turn in export_row(TOOL, "sharegpt")["conversations"]]
    assert tags == ["human", "gpt", "observation", "gpt"]


def test_alpaca():
    assert export_row(PLAIN, "alpaca") == {
        "instruction": "What? /no_think",
        "input": "",
        "output": "Four.",
        "system": "Be brief.",
        "history": [],
    }
    assert export_row(LONG, "alpaca") == {
        "instruction": "The user?",
        "input": "",
        "output": "Liked.",
        "system": "",
        "history": [["One?", "Two."]],
    }


def test_explorer():
    assert export_row(PLAIN, "explorer") == [
        {"system": "Be brief.", "prompt": "What? /no_think", "response": NO_THINK + "Four."}
    ]
    assert export_row(THINKING, "explorer") == [{"system": "", "prompt": "Next? /think", "response": THINK + ITEM}]


def test_llama_factory_is_sharegpt_or_alpaca():
    assert export_row(LONG, "llama_factory") == export_row(LONG, "sharegpt")
    assert export_row(LONG, "llama_factory", formatting="alpaca") == export_row(LONG, "alpaca")


def test_text():
    assert export_row(TEXT, "trl_text") == {"text": "liked it"}


def test_the_empty_think_block_is_written_where_asked():
    assert export_row(PLAIN, "alpaca", empty_think=True)["output"] == NO_THINK + "Four."
    assert export_row(PLAIN, "explorer", empty_think=False)[0]["response"] == "Four."
    assert export_row(THINKING, "alpaca", empty_think=True)["output"] == THINK + ITEM
    found = export_row(PLAIN, "trl_prompt_completion", empty_think=True)
    assert found["completion"][0]["content"] == NO_THINK + "Four."
    assert found["chat_template_kwargs"] == {"enable_thinking": True}  # else the block would stand there twice


def test_a_row_stays_as_it_was():
    before = json.dumps([PLAIN, LONG])
    for name in FORMATS:
        if name not in ("trl_text", "explorer"):
            export_row(PLAIN, name, empty_think=True)
            export_row(LONG, name, empty_think=True)
    assert json.dumps([PLAIN, LONG]) == before


# -- what cannot be said --------------------------------------------------------------------------------------------

CHATS = [name for name in FORMATS if name != "trl_text"]
ALTERNATING = ["sharegpt", "alpaca", "explorer", "llama_factory"]


@pytest.mark.parametrize(
    ("row", "names", "reason"),
    [
        (TEXT, CHATS, "text_row"),
        (PLAIN, ["trl_text"], "conversation"),
        ({**TEXT, "loss": "none"}, ["trl_text"], "loss_none"),
        ({**PLAIN, "loss": "none"}, CHATS, "loss_none"),
        (chat(("user", "What?"), loss="all"), CHATS, "no_answer"),
        (chat(("assistant", "Four.")), ["trl_prompt_completion"], "no_prompt"),
        (chat(("assistant", "Four.")), ALTERNATING, "turns_do_not_alternate"),
        (chat(("user", "a"), ("user", "b"), ("assistant", "c")), ALTERNATING, "turns_do_not_alternate"),
        (chat(("user", "a"), ("user", "b"), ("user", "c"), ("assistant", "d")), ALTERNATING, "turns_do_not_alternate"),
        (chat(("user", "a"), ("system", "b"), ("assistant", "c")), ALTERNATING, "system_turn_inside"),
        (TOOL, ["alpaca", "explorer"], "tool_turn"),
        (LONG, ["explorer"], "several_turns"),
    ],
)
def test_what_a_format_cannot_say_is_refused(row, names, reason):
    for name in names:
        with pytest.raises(NotExpressible) as error:
            export_row(row, name)
        assert error.value.reason == reason, name


def test_tool_calls_are_kept_by_trl_alone():
    row = chat(("user", "a"), ("assistant", ""), ("tool", "b"), ("assistant", "c"))
    row["messages"][1]["tool_calls"] = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    assert "tool_calls" in export_row(row, "trl_messages")["messages"][1]
    with pytest.raises(NotExpressible, match="tool_turn"):
        export_row(row, "sharegpt")


def test_which_losses_are_carried():
    for name in CHATS:
        assert carries_loss(PLAIN, export_format(name))
        assert not carries_loss({**PLAIN, "loss": "target_items"}, export_format(name))
    assert carries_loss(TEXT, export_format("trl_text"))
    assert not carries_loss({**TEXT, "loss": "next_items"}, export_format("trl_text"))
    assert carries_loss(LONG, export_format("sharegpt"))
    assert not carries_loss(LONG, export_format("trl_prompt_completion"))  # its first answer is part of the prompt


def test_unknown_formats():
    with pytest.raises(ConfigError, match="export format 'csv' is not known; use one of trl_messages"):
        export_row(PLAIN, "csv")
    with pytest.raises(ConfigError, match="formatting 'openai' is not known; use sharegpt or alpaca"):
        export_row(PLAIN, "llama_factory", formatting="openai")


# -- other trainers' own readers ------------------------------------------------------------------------------------


def load(tmp_path, records):
    """The records as `datasets` reads them from JSON lines."""
    from datasets import load_dataset

    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))


def test_trl_reads_messages(words, tmp_path):
    from trl.data_utils import is_conversational, maybe_apply_chat_template

    rows = [PLAIN, THINKING, LONG]
    data = load(tmp_path, [export_row(row, "trl_messages") for row in rows])
    for row, example in zip(rows, data, strict=True):
        assert is_conversational(example)
        text = maybe_apply_chat_template(example, words.tokenizer)["text"]
        seen = encode_row(row, words.tokenizer, words.vocabulary)
        assert words.tokenizer(text, add_special_tokens=False)["input_ids"] == seen["input_ids"]


def test_trl_trains_on_what_the_rows_supervise(words, tmp_path):
    """TRL's SFT tokenisation, as its trainer does it: the assistant's mask, and the prompt's length."""
    rows = [PLAIN, THINKING]
    template = load_template("qwen3_training")
    for row, example in zip(rows, load(tmp_path, [export_row(row, "trl_messages") for row in rows]), strict=True):
        found = words.tokenizer.apply_chat_template(
            example["messages"], chat_template=template, return_assistant_tokens_mask=True, return_dict=True
        )
        seen = encode_row(row, words.tokenizer, words.vocabulary)
        assert found["assistant_masks"] == [int(flag) for flag in seen["loss_mask"]]


def test_trl_reads_prompt_and_completion(words, tmp_path):
    from trl.data_utils import is_conversational, maybe_apply_chat_template

    rows = [PLAIN, THINKING]
    data = load(tmp_path, [export_row(row, "trl_prompt_completion") for row in rows])
    for row, example in zip(rows, data, strict=True):
        assert is_conversational(example)
        found = maybe_apply_chat_template(example, words.tokenizer)
        seen = encode_row(row, words.tokenizer, words.vocabulary)
        ids, mask = np.array(seen["input_ids"]), np.array(seen["loss_mask"])
        first = int(np.flatnonzero(mask)[0])
        assert found["prompt"] == words.tokenizer.decode(ids[:first])
        assert found["completion"] == words.tokenizer.decode(ids[first:])  # what is supervised, and the turn's newline


def llama_factory_conversation(record: dict, info: dict) -> tuple[str, list[tuple[str, str]]]:
    """System and turns as LLaMA-Factory's converters read a record by its `dataset_info.json` entry."""
    columns = info["columns"]
    if info["formatting"] == "alpaca":
        turns = [pair for old in record[columns["history"]] for pair in zip(("user", "assistant"), old, strict=True)]
        asked = "\n".join(text for text in (record[columns["prompt"]], record[columns["query"]]) if text)
        return record[columns["system"]], [*turns, ("user", asked), ("assistant", record[columns["response"]])]
    tags = info["tags"]
    roles = {tags["user_tag"]: "user", tags["assistant_tag"]: "assistant", tags["observation_tag"]: "tool"}
    turns = [(roles[turn[tags["role_tag"]]], turn[tags["content_tag"]]) for turn in record[columns["messages"]]]
    accepted = [{"user", "tool"}, {"assistant"}]
    assert len(turns) % 2 == 0 and all(role in accepted[i % 2] for i, (role, _) in enumerate(turns))
    return record[columns["system"]], turns


@pytest.mark.parametrize("formatting", ["sharegpt", "alpaca"])
def test_llama_factory_reads_its_entry(formatting):
    info = dataset_info("pies", "pies.jsonl", formatting)
    assert list(info) == ["pies"]
    assert info["pies"]["file_name"] == "pies.jsonl"
    for row in (PLAIN, THINKING, LONG):
        record = export_row(row, "llama_factory", formatting=formatting)
        system, turns = llama_factory_conversation(record, info["pies"])
        assert [("system", system)] * bool(system) + turns == [(m["role"], m["content"]) for m in row["messages"]]
