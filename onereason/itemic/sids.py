"""Ready semantic ids: JSON files that map an item id to its code tokens, in the spellings found in public repositories.

`{"0": ["<a_114>", "<b_32>", "<c_79>"], ...}` (MiniOneRec, LC-Rec `.index.json`, CollisionGenRec), the same with
`<s_a_114>` tokens (OneRec-Think), with one string an item (`"<a_114><b_32><c_79>"`, begin and end tokens allowed), or
with plain integers (`[114, 32, 79]`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onereason.errors import FormatError
from onereason.io import read_json
from onereason.itemic.format import level_letter

_MARKER = re.compile(r"<\|[^<>|]*\|>")
_CODE_TOKEN = re.compile(r"<(?:[A-Za-z]+_)?(?P<level>[a-z])_(?P<code>[0-9]{1,9})>")


def read_sids(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Semantic ids of a JSON file, item id -> codes, in the file's order; every item has the same number of levels.

    Raises:
        DataError: the file is missing or not JSON.
        FormatError: an id is not a list of code tokens with the levels a, b, c, ... in order, or its number of levels
            differs from the first item's. The message names the item.
    """
    return parse_sids(read_json(path, "semantic ids"), str(path))


def parse_sids(value: Any, source: str = "semantic ids") -> dict[str, tuple[int, ...]]:
    """What `read_sids` does, for a value already read from JSON."""
    if not isinstance(value, Mapping):
        raise FormatError(f'{source}: expected an object {{"item": ["<a_1>", "<b_2>", ...]}}, got {_kind(value)}.')
    if not value:
        raise FormatError(f"{source}: holds no item; expected at least one semantic id.")
    sids: dict[str, tuple[int, ...]] = {}
    first_item = ""
    for item, written in value.items():
        codes = _parse_sid(written, item, source)
        if not sids:
            first_item = item
        elif len(codes) != len(sids[first_item]):
            raise FormatError(
                f"{source}: item {item!r} has {len(codes)} levels, item {first_item!r} has {len(sids[first_item])}; "
                "every item needs the same number of levels."
            )
        sids[item] = codes
    return sids


def _parse_sid(written: Any, item: str, source: str) -> tuple[int, ...]:
    if isinstance(written, str):
        tokens: list[Any] = re.findall(r"<[^<>]*>|[^<>\s]+", _MARKER.sub("", written))
    elif isinstance(written, list):
        tokens = [t for t in written if not (isinstance(t, str) and _MARKER.fullmatch(t))]
    else:
        raise FormatError(f"{source}: item {item!r}: expected a list of code tokens, got {_kind(written)}.")
    if not 1 <= len(tokens) <= 26:
        raise FormatError(f"{source}: item {item!r} has {len(tokens)} levels; a semantic id has 1 to 26.")
    codes = []
    for level, token in enumerate(tokens):
        if isinstance(token, int) and not isinstance(token, bool):
            codes.append(_check_code(token, item, source))
            continue
        match = _CODE_TOKEN.fullmatch(token) if isinstance(token, str) else None
        if match is None:
            raise FormatError(
                f"{source}: item {item!r}: {token!r} is not a code token; expected e.g. "
                f"'<{level_letter(level)}_12>', '<s_{level_letter(level)}_12>' or an integer."
            )
        if match["level"] != level_letter(level):
            raise FormatError(
                f"{source}: item {item!r}: {token!r} stands at level {level_letter(level)}; "
                "levels must be in the order a, b, c, ..."
            )
        codes.append(_check_code(int(match["code"]), item, source))
    return tuple(codes)


def _check_code(code: int, item: str, source: str) -> int:
    if code < 0:
        raise FormatError(f"{source}: item {item!r}: code {code} is negative; codes start at 0.")
    if code >= 2**31:
        raise FormatError(f"{source}: item {item!r}: code {code!r:.30} is larger than any codebook.")
    return code


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
