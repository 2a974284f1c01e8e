"""Is the JSON of an answer well formed, and about the timeline it was asked of: logic chains and selections?"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from onereason.cognition.checks.problem import Problem, excerpt
from onereason.data.chat import TEXT_END, THINK_END, THINK_START, TURN_END
from onereason.data.json_answers import extract_json

CHAIN_KEYS = ("name", "events")
EVENT_KEYS = ("date", "action", "logic")
_CONTROL_TOKENS = (TURN_END, TEXT_END, THINK_START, THINK_END)
_MAPPINGS = (dict, Mapping)  # the plain class is looked at first
_CHAIN_KEYS, _EVENT_KEYS = frozenset(CHAIN_KEYS), frozenset(EVENT_KEYS)

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_PLACE = re.compile(r"#[0-9]{1,9}")
"""What stands for a date where the logs have no moments: the entry's place."""


def read_json(text: str) -> Any | None:
    """`extract_json`, quicker for a text that is a JSON object and nothing else."""
    if text.startswith("{") and not any(map(text.__contains__, _CONTROL_TOKENS)):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:  # it is stricter
            pass
    return extract_json(text)


def check_chain_text(text: str, timeline: Sequence[str]) -> list[Problem]:
    """`check_logic_chain` of a generated turn; `json_malformed` where it holds no JSON.

    A think block and a code fence around the JSON are passed over.
    """
    value = read_json(text)
    if value is None:
        return [Problem("json_malformed", excerpt(text))]
    return check_logic_chain(value, timeline)


def check_selection_text(text: str, timeline: Sequence[str]) -> list[Problem]:
    """`check_selection` of a generated turn; `json_malformed` where it holds no JSON."""
    value = extract_json(text)
    if value is None:
        return [Problem("json_malformed", excerpt(text))]
    return check_selection(value, timeline)


def check_logic_chain(chain: Any, timeline: Sequence[str]) -> list[Problem]:
    """What is wrong with a logic chain; an empty list where nothing is.

    Reasons: `chain_keys` (not exactly `name` and `events`, or an event not exactly `date`, `action`, `logic`),
    `chain_value` (a name, action or logic that is no text, or an empty one), `chain_without_events`, `chain_date`
    (neither an ISO date nor a place such as `#003`), `chain_date_order`, `chain_action_not_in_timeline` (an entry that
    the timeline does not have, or has less often), `chain_order` (entries out of the timeline's order).

    Args:
        chain: `{"name", "events"}`, or `[]`, which says that there is no chain; `{"logic_chain": ...}` may wrap it.
        timeline: the entries, `"DATE ACTION"` each, oldest first.
    """
    if isinstance(chain, Mapping) and list(chain) == ["logic_chain"]:
        chain = chain["logic_chain"]
    if chain == []:
        return []
    if not isinstance(chain, Mapping) or chain.keys() != _CHAIN_KEYS:
        return [Problem("chain_keys", f"expected {', '.join(CHAIN_KEYS)}, got {_keys(chain)}")]
    if not _is_text(chain["name"]):
        return [Problem("chain_value", f"name is {excerpt(repr(chain['name']))}")]
    events = chain["events"]
    if not isinstance(events, list) or not events:
        return [Problem("chain_without_events", excerpt(repr(events)))]
    for event in events:
        if not isinstance(event, _MAPPINGS) or event.keys() != _EVENT_KEYS:
            return [Problem("chain_keys", f"expected {', '.join(EVENT_KEYS)}, got {_keys(event)}")]
        if not all(map(_is_text, event.values())):
            wrong = next(key for key in EVENT_KEYS if not _is_text(event[key]))
            return [Problem("chain_value", f"{wrong} is {excerpt(repr(event[wrong]))}")]
    return _check_dates([event["date"] for event in events]) + _check_entries(
        [f"{event['date']} {event['action']}" for event in events], timeline, "chain"
    )


def check_selection(selection: Any, timeline: Sequence[str]) -> list[Problem]:
    """What is wrong with a list of entries of a timeline; an empty list where nothing is.

    Reasons: `selection_value` (no list of texts), `selection_action_not_in_timeline`, `selection_order`.
    """
    if not isinstance(selection, list) or not all(map(_is_text, selection)):
        return [Problem("selection_value", excerpt(repr(selection)))]
    return _check_entries(selection, timeline, "selection")


@lru_cache(maxsize=10_000)
def is_iso_date(text: str) -> bool:
    """Whether a text is a day of the calendar as `YYYY-MM-DD`."""
    if not _DAY.fullmatch(text):
        return False
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _check_dates(dates: Sequence[str]) -> list[Problem]:
    # Both spellings sort as text: the days by themselves, the places once they are padded.
    if all(map(is_iso_date, dates)):
        keys = list(dates)
    elif all(map(_PLACE.fullmatch, dates)):
        keys = [date[1:].rjust(9, "0") for date in dates]
    else:
        wrong = next(date for date in dates if not (is_iso_date(date) or _PLACE.fullmatch(date)) or date != dates[0])
        return [Problem("chain_date", excerpt(wrong))]
    if keys == sorted(keys):
        return []
    late = next(i for i in range(1, len(keys)) if keys[i] < keys[i - 1])
    return [Problem("chain_date_order", f"{dates[late - 1]} before {dates[late]}")]


def _check_entries(entries: Sequence[str], timeline: Sequence[str], what: str) -> list[Problem]:
    """Whether entries are a sub-list of the timeline: each as often as it stands there, in its order."""
    place = 0
    for entry in entries:
        try:
            place = timeline.index(entry, place) + 1
        except ValueError:
            missing = Counter(entries) - Counter(timeline)
            if missing:
                return [Problem(f"{what}_action_not_in_timeline", excerpt(lost)) for lost in missing]
            return [Problem(f"{what}_order", excerpt(entry))]
    return []


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _keys(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, Mapping) else excerpt(repr(value))
