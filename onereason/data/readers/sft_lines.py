"""The Explorer's SFT lines: one JSON array of length 1 a line that holds `{"system", "prompt", "response"}` -> rows.

Plain objects are read too. Only the response is rewritten, into the one spelling that rows have: a trace becomes
`<think>\\nTRACE\\n</think>\\n\\nANSWER`; an empty block goes (the chat template writes it), and so do blanks around
trace and answer. Lines in that spelling come back unchanged from `onereason.data.exports.to_explorer`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onereason.data.chat import TEXT_END, THINK_END, THINK_START, TURN_END, TURN_START, parse_answer
from onereason.data.inspect.reading import load_json
from onereason.errors import DataError
from onereason.io import require_file
from onereason.itemic.format import ANY_DOMAIN, ItemicFormat

FIELDS = ("system", "prompt", "response")
_SWITCHES = (("/no_think", "no_think"), ("/think", "think"))

Row = dict[str, Any]


@dataclass(frozen=True)
class BadLine:
    """A line that gave no row.

    Attributes:
        id: file name and line number.
        reason: `not_json`, `not_one_object`, `missing_field`, `bad_field`, `empty_field`, `chat_token_in_text`,
            `think_not_closed`, `several_think_blocks`, `empty_answer` or `switch_contradicts_answer`.
        detail: the reason in words.
    """

    id: str
    reason: str
    detail: str


class _Bad(Exception):
    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def read_sft_lines(
    paths: Sequence[Path], format: ItemicFormat, *, task: str = "sft", teacher: str | None = None
) -> Iterator[Row | BadLine]:
    """Every line of some files as a row, or as what is wrong with it, in order. Lines end at LF only.

    Args:
        paths: UTF-8 files.
        format: of the itemic patterns in answers, which say a row's domain.
        task: of the rows.
        teacher: who wrote the answers, where known.

    Raises:
        DataError: a file is missing, or two files have one name (ids would repeat).
    """
    names = [path.name for path in paths]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"two files are called {twice}; rows are named by file and line, so rename one of them.")
    for path in paths:
        with require_file(path, "SFT lines").open("rb") as handle:
            for number, line in enumerate(handle, 1):
                if not line.strip():
                    continue
                name = f"{path.name}:{number}"
                try:
                    record = parse_record(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
                    yield build_row(record, name, format, task, teacher)
                except _Bad as bad:
                    yield BadLine(name, bad.reason, bad.detail)


def parse_record(line: bytes) -> dict[str, str]:
    """The three fields of one line; a missing or null `system` is empty."""
    try:
        value = load_json(line)
    except ValueError as error:
        raise _Bad("not_json", f"not valid JSON ({error})") from error
    if isinstance(value, list):
        if len(value) != 1:
            raise _Bad("not_one_object", f"expected an array of length 1, got length {len(value)}")
        value = value[0]
    if not isinstance(value, dict):
        raise _Bad("not_one_object", f"expected an object, got {type(value).__name__}")
    record = {}
    for field in FIELDS:
        text = value.get(field)
        if text is None and field == "system":
            text = ""
        if text is None:
            raise _Bad("missing_field", f"{field!r} is missing; the object has {', '.join(value) or 'no key'}")
        if not isinstance(text, str):
            raise _Bad("bad_field", f"{field!r} should be a string, is {type(text).__name__}")
        if not text.strip() and field != "system":
            raise _Bad("empty_field", f"{field!r} is empty")
        token = next((token for token in (TURN_START, TURN_END, TEXT_END) if token in text), None)
        if token is not None:  # it would end or open a turn inside the text
            raise _Bad("chat_token_in_text", f"{field!r} holds {token}")
        record[field] = text
    return record


def build_row(
    record: dict[str, str], name: str, format: ItemicFormat, task: str = "sft", teacher: str | None = None
) -> Row:
    """A row of loss `assistant`; its mode is what the answer does: think where there is a trace.

    The domain is that of the patterns in the answer, where they are of one domain and the format tells domains apart.
    """
    answer = parse_answer(record["response"])
    if not answer.closed:
        raise _Bad("think_not_closed", "the response opens a think block and does not close it")
    if record["response"].count(THINK_END) > 1 or record["response"].count(THINK_START) > 1:
        raise _Bad("several_think_blocks", "the response holds more than one think block")
    if not answer.answer:
        raise _Bad("empty_answer", "nothing follows the think block")
    mode = "no_think" if answer.think is None else "think"
    switch = find_switch(record["prompt"])
    if switch not in (None, mode):
        found = "has no trace" if mode == "no_think" else "has a trace"
        raise _Bad("switch_contradicts_answer", f"the prompt asks for {switch}, the response {found}")
    messages = [{"role": "system", "content": record["system"]}] if record["system"] else []
    content = answer.answer if answer.think is None else f"<think>\n{answer.think}\n</think>\n\n{answer.answer}"
    messages += [{"role": "user", "content": record["prompt"]}, {"role": "assistant", "content": content}]
    row: Row = {"id": name, "task": task, "loss": "assistant", "mode": mode}
    domain = find_domain(answer.answer, format)
    if domain is not None:
        row["domain"] = domain
    if teacher is not None:
        row["teacher"] = teacher
    return row | {"messages": messages}


def find_switch(prompt: str) -> str | None:
    """The mode that the end of a prompt asks for, None where it asks for none."""
    end = prompt.rstrip()
    return next((mode for word, mode in _SWITCHES if end.endswith(word)), None)


def find_domain(answer: str, format: ItemicFormat) -> str | None:
    """The one domain of the items in an answer; None without items, with several domains, or where tokens name none."""
    if ANY_DOMAIN in format.domains or not any(marker in answer for marker in format.marker_tokens):
        return None
    domains = {item.domain for item in format.parse(answer).items}
    return domains.pop() if len(domains) == 1 else None
