"""Tokens that a chat template gives a meaning: in a text of the data they would end a turn or open a trace.

A tokenizer reads them as what they are wherever they stand, so no text that comes from outside may hold one.
"""

from __future__ import annotations

import re

CONTROL_PATTERN = (
    r"<\|(?:im_start|im_end|endoftext|object_ref_start|object_ref_end|box_start|box_end|vision_\w+|fim_\w+|repo_name|"
    r"file_sep)\|>|</?(?:think|tool_call|tool_response)>"
)
"""A regular expression of Qwen3's control tokens, itemic tokens not among them; also for Polars."""

_CONTROL = re.compile(CONTROL_PATTERN)
_THINK_BLOCK = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)


def find_control_token(text: str, *, may_think: bool = False) -> str | None:
    """The first control token of a text, None where there is none; `may_think` allows a think block at its beginning.

    `find_control_token("<think>\\na\\n</think>\\n\\nb", may_think=True)` is None.
    """
    if "<" not in text:
        return None
    if may_think and (block := _THINK_BLOCK.match(text)):
        return find_control_token(block.group(1)) or find_control_token(text[block.end() :])
    found = _CONTROL.search(text)
    return found.group() if found else None
