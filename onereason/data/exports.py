"""Rows of a corpus in the formats of other trainers.

Each format is a pure function of a row. A trace stays where those trainers look for it: in the text of the assistant's
turn, inside `<think>`. A no-think answer stays bare, because chat templates of Qwen3's kind write its empty think block
themselves; where a trainer's template writes none, `empty_think` puts it into the text.

What every format loses: `id`, `task`, `domain`, `user` and `teacher`; and the row's own loss. Other trainers decide
once a run what takes a loss, so rows of loss `assistant` come out as they are meant; rows of `all`, `target_items` and
`next_items` are trained otherwise (`carries_loss`); rows of loss `none` are not exported, or they would be trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from onereason.errors import ConfigError

Row = Mapping[str, Any]
Record = Any
"""A JSON value: an object, or for the Explorer lines a list of one."""

EMPTY_THINK = "<think>\n\n</think>\n\n"
_TAGS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


class NotExpressible(ValueError):
    """A format has no way to say what a row says; `reason` is a short code."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class ExportFormat:
    """A format of another trainer.

    Attributes:
        help: one line: what a record looks like and who reads it.
        convert: row, `empty_think` -> record; raises `NotExpressible`.
        lost: what a record does not say beyond what no format says, and the settings that keep the rest.
        carries: losses of rows that the trainer's usual settings keep.
        empty_think: whether a no-think answer is written with its empty think block unless asked otherwise.
    """

    help: str
    convert: Callable[[Row, bool], Record]
    lost: str
    carries: tuple[str, ...] = ("assistant",)
    empty_think: bool = False


# -- one function a format ------------------------------------------------------------------------------------------


def to_trl_messages(row: Row, empty_think: bool = False) -> Record:
    """`{"messages": [{"role", "content"}, ...]}`, with every turn as it is."""
    return {"messages": answered_messages(row, empty_think)}


def to_trl_prompt_completion(row: Row, empty_think: bool = False) -> Record:
    """`{"prompt": [turns], "completion": [the last answer], "chat_template_kwargs": {"enable_thinking"}}`.

    With `enable_thinking` false, TRL puts the empty think block of a no-think answer at the end of the prompt, where it
    takes no loss.
    """
    messages = answered_messages(row, empty_think)
    if len(messages) == 1:
        raise NotExpressible("no_prompt")
    kwargs = {"enable_thinking": row["mode"] == "think" or empty_think}
    return {"prompt": messages[:-1], "completion": messages[-1:], "chat_template_kwargs": kwargs}


def to_trl_text(row: Row, empty_think: bool = False) -> Record:
    """`{"text"}` for rows of plain text; conversations are what `trl_messages` is for."""
    if row.get("text") is None:
        raise NotExpressible("conversation")
    if row["loss"] == "none":
        raise NotExpressible("loss_none")
    return {"text": row["text"]}


def to_sharegpt(row: Row, empty_think: bool = False) -> Record:
    """`{"conversations": [{"from", "value"}, ...], "system"}`; turns are `human`, `gpt` and `observation` (a tool)."""
    system, turns = alternating_turns(row, empty_think, asks=("user", "tool"))
    return {
        "conversations": [{"from": _TAGS[turn["role"]], "value": turn["content"]} for turn in turns],
        "system": system,
    }


def to_alpaca(row: Row, empty_think: bool = False) -> Record:
    """`{"instruction", "input", "output", "system", "history"}`; earlier turns are pairs in `history`."""
    system, turns = alternating_turns(row, empty_think)
    texts = [turn["content"] for turn in turns]
    history = [list(pair) for pair in zip(texts[:-2:2], texts[1:-2:2], strict=True)]
    return {"instruction": texts[-2], "input": "", "output": texts[-1], "system": system, "history": history}


def to_explorer(row: Row, empty_think: bool = True) -> Record:
    """`[{"system", "prompt", "response"}]`, a line of the Explorer's SFT files."""
    system, turns = alternating_turns(row, empty_think)
    if len(turns) > 2:
        raise NotExpressible("several_turns")
    return [{"system": system, "prompt": turns[0]["content"], "response": turns[1]["content"]}]


FORMATS: dict[str, ExportFormat] = {
    "trl_messages": ExportFormat(
        "messages with role and content, for TRL's SFTTrainer",
        to_trl_messages,
        "train with assistant_only_loss=True and chat_template_path=.../qwen3_training.jinja, or the prompt is trained "
        "too.",
    ),
    "trl_prompt_completion": ExportFormat(
        "conversational prompt and completion, for TRL's SFTTrainer",
        to_trl_prompt_completion,
        "only the last answer of a conversation is trained (completion_only_loss, TRL's default for these columns).",
    ),
    "trl_text": ExportFormat(
        "plain text, for TRL's SFTTrainer; takes the rows that are no conversations",
        to_trl_text,
        "every token is trained.",
        carries=("all",),
    ),
    "sharegpt": ExportFormat(
        "conversations with from and value, and system; read by LLaMA-Factory and axolotl",
        to_sharegpt,
        "all answers are trained. A trainer that knows no 'system' field loses the system text.",
    ),
    "alpaca": ExportFormat(
        "instruction, input (empty), output, system, history",
        to_alpaca,
        "trainers that know no 'system' or 'history' field lose them.",
    ),
    "explorer": ExportFormat(
        'the Explorer\'s SFT lines, each [{"system", "prompt", "response"}]',
        to_explorer,
        "one question and one answer a line; a no-think answer carries its empty think block.",
        empty_think=True,
    ),
    "llama_factory": ExportFormat(
        "a folder with the data file and its entry in dataset_info.json (--formatting sharegpt or alpaca)",
        to_sharegpt,
        "set template: qwen3 and enable_thinking: null, which keeps both modes; false would strip every trace.",
    ),
}
"""Name -> format."""


def export_format(name: str, formatting: str = "sharegpt") -> ExportFormat:
    """A format by name; `formatting` says how LLaMA-Factory's data file is laid out.

    Raises:
        ConfigError: an unknown name or formatting.
    """
    if name not in FORMATS:
        raise ConfigError(f"export format {name!r} is not known; use one of {', '.join(FORMATS)}.")
    if formatting not in ("sharegpt", "alpaca"):
        raise ConfigError(f"formatting {formatting!r} is not known; use sharegpt or alpaca.")
    found = FORMATS[name]
    if name == "llama_factory" and formatting == "alpaca":
        return ExportFormat(found.help, to_alpaca, found.lost, found.carries, found.empty_think)
    return found


def export_row(row: Row, name: str, *, empty_think: bool | None = None, formatting: str = "sharegpt") -> Record:
    """A well-formed row as a record of a format.

    Args:
        name: a key of `FORMATS`.
        empty_think: whether a no-think answer is written with its empty think block; None for the format's own way.
        formatting: of `llama_factory`.

    Raises:
        NotExpressible: with the reason `text_row`, `conversation`, `loss_none`, `no_answer`, `no_prompt`,
            `several_turns`, `tool_turn`, `system_turn_inside` or `turns_do_not_alternate`.
        ConfigError: as `export_format`.
    """
    format = export_format(name, formatting)
    return format.convert(row, format.empty_think if empty_think is None else empty_think)


def carries_loss(row: Row, format: ExportFormat) -> bool:
    """Whether training in the format puts the loss where the row says.

    Prompt and completion train the last answer only, so a conversation with earlier answers loses theirs.
    """
    if row["loss"] not in format.carries:
        return False
    if format.convert is to_trl_prompt_completion:
        return sum(message["role"] == "assistant" for message in row["messages"]) == 1
    return True


def dataset_info(name: str, file_name: str, formatting: str = "sharegpt") -> dict[str, Any]:
    """The entry of a data file in LLaMA-Factory's `dataset_info.json`, under the data set's name."""
    entry: dict[str, Any] = {"file_name": file_name, "formatting": formatting}
    if formatting == "alpaca":
        columns = {"prompt": "instruction", "query": "input", "response": "output"}
        return {name: {**entry, "columns": {**columns, "system": "system", "history": "history"}}}
    entry["columns"] = {"messages": "conversations", "system": "system"}
    entry["tags"] = {
        "role_tag": "from",
        "content_tag": "value",
        "user_tag": _TAGS["user"],
        "assistant_tag": _TAGS["assistant"],
        "observation_tag": _TAGS["tool"],
        "function_tag": "function_call",
        "system_tag": _TAGS["system"],
    }
    return {name: entry}


# -- what the functions share ---------------------------------------------------------------------------------------


def answered_messages(row: Row, empty_think: bool) -> list[dict[str, Any]]:
    """Copies of a row's messages, which end with an answer that is meant to be trained."""
    if row.get("messages") is None:
        raise NotExpressible("text_row")
    if row["loss"] == "none":
        raise NotExpressible("loss_none")
    messages = [dict(message) for message in row["messages"]]
    if messages[-1]["role"] != "assistant":
        raise NotExpressible("no_answer")
    if empty_think and row["mode"] == "no_think" and "</think>" not in messages[-1]["content"]:
        messages[-1]["content"] = EMPTY_THINK + messages[-1]["content"]
    return messages


def alternating_turns(
    row: Row, empty_think: bool, asks: tuple[str, ...] = ("user",)
) -> tuple[str, list[dict[str, Any]]]:
    """The system text (empty where there is none) and the turns: a question, an answer, a question, an answer ...

    Args:
        asks: roles that may stand in a question's place.
    """
    messages = answered_messages(row, empty_think)
    system = messages.pop(0)["content"] if messages[0]["role"] == "system" else ""
    for message in messages:
        if message["role"] == "system":
            raise NotExpressible("system_turn_inside")
        if message.get("tool_calls") or (message["role"] == "tool" and "tool" not in asks):
            raise NotExpressible("tool_turn")
    places = [asks if place % 2 == 0 else ("assistant",) for place in range(len(messages))]
    if len(messages) % 2 or any(m["role"] not in place for m, place in zip(messages, places, strict=True)):
        raise NotExpressible("turns_do_not_alternate")
    return system, messages
