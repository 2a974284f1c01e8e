"""JSON in answers: any value, a selection of entries, a logic chain; None where there is none, or it is cut off."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from onereason.data.chat import parse_answer

_FENCE = "```"
_SEMICOLON = "\uff1b"  # full-width, as Chinese text has it


@dataclass(frozen=True)
class Event:
    """One step of a logic chain; fields a chain leaves out are empty."""

    date: str
    action: str
    logic: str


def extract_json(text: str) -> Any | None:
    """The JSON value of a generated turn's answer, None where there is none or it is cut off.

    The think block and a code fence are stripped. Prose around the value is passed over: where the answer as a whole
    is no JSON, the outermost list or object is read, whichever opens first.
    """
    answer = parse_answer(text).answer
    answer = re.sub(rf"^{_FENCE}[A-Za-z]*", "", answer).removesuffix(_FENCE).strip()
    spans = sorted((answer.find(left), answer.rfind(right)) for left, right in (("[", "]"), ("{", "}")))
    outermost = [answer[start : end + 1] for start, end in spans if 0 <= start < end]
    for candidate in (answer, *outermost):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    return None


def extract_selection(text: str) -> list[str] | None:
    """The elements of an answer that is a JSON list of ids or texts: stripped, distinct, in order; None if it is none.

    The answer to "which of these actions belong to the topic". An empty list is an answer; nulls and empty texts are
    left out.
    """
    value = extract_json(text)
    if not isinstance(value, list):
        return None
    texts = [str(element).strip() for element in value if element is not None]
    return list(dict.fromkeys(element for element in texts if element))


def parse_logic_chain(text: str) -> list[Event] | None:
    """The events of the first chain in a generated turn, None where it is malformed (count such turns apart).

    The think block and a code fence are stripped. A chain is an object with `events`, by itself, in a list (the first
    one counts), or inside `{"logic_chain": ...}`. An empty list says that there is no chain: no events.
    """
    value = extract_json(text)
    while isinstance(value, list) or (isinstance(value, dict) and "logic_chain" in value):
        if value == []:
            return []
        value = value[0] if isinstance(value, list) else value["logic_chain"]
    if not isinstance(value, dict):
        return None
    events = value.get("events")
    events = [events] if isinstance(events, dict) else events
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        return None
    return [Event(*(_as_text(event.get(key)) for key in ("date", "action", "logic"))) for event in events]


def _as_text(value: object) -> str:
    if value is None:
        return ""
    return _SEMICOLON.join(map(str, value)) if isinstance(value, list) else str(value)
