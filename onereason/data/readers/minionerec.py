r"""MiniOneRec, LC-Rec and RecBole files: `.inter`, `.inter.json`, `.item.json`.

- `NAME.train.inter`, `.valid.inter`, `.test.inter`: tab-separated with the header
  `user_id:token\titem_id_list:token_seq\titem_id:token`: a row is a window (the history, then the next item). A user's
  windows overlap, in any order of the rows, and are joined into one timeline. With `user_id:token\titem_id:token_seq`
  a row is a user's whole list; with `user_id:token\titem_id:token[\ttimestamp:float][\trating:float]` it is one
  interaction.
- `NAME.inter.json`: `{"user": [item, ...]}` (LC-Rec).
- `NAME.item.json`: `{"item": {"title": ..., "description": ..., ...}}`.
- `NAME.index.json`: semantic ids; `onereason.itemic.sids.read_sids` reads them.

Where the source knows the order only, a timestamp is the position in the user's timeline.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from onereason.data.raw import DEFAULT_DOMAIN, RawTables
from onereason.data.readers.files import build_caption, clean_text, iter_lines, list_files, pick_file, read_field
from onereason.errors import DataError
from onereason.io import read_json

_ORDER = {"train": 0, "valid": 1, "validation": 1, "test": 2}


def read(paths: Sequence[Path], domain: str = DEFAULT_DOMAIN) -> RawTables:
    """Reads the interaction files and the item file, alone or in a folder; every item gets `domain`.

    Raises:
        DataError: a file is missing or malformed, or a user's windows do not overlap.
    """
    files = list_files(paths, "MiniOneRec file")
    item_path = pick_file(files, (".item.json",), "items")
    inter = [p for p in files if p.name.endswith(".inter")]
    if inter:
        inter.sort(key=lambda p: (_ORDER.get(p.name.split(".")[-2], 3), p.name))
        interactions = read_inter_files(inter)
    else:
        inter = [pick_file(files, (".inter", ".inter.json"), "interactions")]
        interactions = _from_timelines(_read_inter_json(inter[0]))
    return RawTables(_read_items(item_path, domain), interactions, (*inter, item_path))


def read_inter_files(paths: Sequence[Path]) -> pl.DataFrame:
    """Interactions of `.inter` files of one data set, in the order given."""
    timelines: dict[str, list[str]] = {}
    single: dict[str, list[Any]] = {"user_id": [], "item_id": [], "timestamp": [], "signal_rating": []}
    for path in paths:
        lines = iter_lines(path, "interactions")
        header = [field.strip() for field in next(lines, (1, ""))[1].split("\t")]
        names = {field.partition(":")[0]: i for i, field in enumerate(header)}
        kinds = {field.partition(":")[0]: field.partition(":")[2] for field in header}
        if "user_id" not in names or not {"item_id", "item_id_list"} & set(names):
            raise DataError(
                f"interactions {path}, line 1: the header should be tab-separated with user_id:token and "
                f"item_id:token (or item_id_list:token_seq), is {' '.join(header)!r:.80}."
            )
        sequences = kinds.get("item_id") == "token_seq" or "item_id_list" in names
        for number, line in lines:
            where = f"interactions {path}, line {number}"
            fields = [field.strip() for field in line.split("\t")]
            if len(fields) != len(header):
                raise DataError(f"{where}: {len(fields)} tab-separated fields, the header has {len(header)}.")
            user = fields[names["user_id"]]
            if not user:
                raise DataError(f"{where}: user_id is empty.")
            if sequences:
                history = fields[names["item_id_list"]].split() if "item_id_list" in names else []
                target = fields[names["item_id"]].split() if "item_id" in names else []
                timelines[user] = join_window(timelines.get(user, []), history, target, f"{where}: user {user!r}")
                continue
            single["user_id"].append(user)
            single["item_id"].append(fields[names["item_id"]] or None)
            for column, name in (("timestamp", "timestamp"), ("signal_rating", "rating")):
                text = fields[names[name]] if name in names else None
                single[column].append(_number(text, f"{where}: {name}") if text is not None else None)
    if timelines and single["user_id"]:
        raise DataError(f"interactions {paths[0]}: files with sequences and files with single items do not mix.")
    return _from_timelines(timelines) if timelines else _from_rows(single)


def join_window(timeline: list[str], history: Sequence[str], target: Sequence[str], where: str) -> list[str]:
    """A user's timeline with one more window (`history` then `target`) joined to it.

    The usual window continues the timeline. Others are contained in it, lie before it (rows written newest first), or
    begin inside it and go on.

    Raises:
        DataError: the window shares no item with either end of the timeline.
    """
    window = [*history, *target]
    if not timeline or not window:
        return timeline or window
    if history and len(history) <= len(timeline) and timeline[-len(history) :] == list(history):
        # A history shorter than the timeline is either cut to a length, or an older window seen again.
        contained = len(history) < len(timeline) and _contains(timeline, window)
        return timeline if contained else [*timeline, *target]
    if _contains(timeline, window):
        return timeline
    if _contains(window, timeline):
        return window
    longest = min(len(timeline), len(window)) - 1
    after = next((n for n in range(longest, 0, -1) if timeline[-n:] == window[:n]), 0)
    before = next((n for n in range(longest, 0, -1) if timeline[:n] == window[-n:]), 0)
    if not after and not before:
        raise DataError(
            f"{where}: the row's items do not continue the user's earlier rows; files of one data set only."
        )
    return timeline + window[after:] if after >= before else window[:-before] + timeline


def _contains(outer: Sequence[str], inner: Sequence[str]) -> bool:
    size = len(inner)
    return any(list(outer[i : i + size]) == list(inner) for i in range(len(outer) - size + 1))


def _from_timelines(timelines: dict[str, list[str]]) -> pl.DataFrame:
    rows = [(u, item, i) for u, sequence in timelines.items() for i, item in enumerate(sequence or [None])]
    return pl.DataFrame(rows, schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}, orient="row")


def _from_rows(columns: dict[str, list[Any]]) -> pl.DataFrame:
    types = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Float64, "signal_rating": pl.Float32}
    table = pl.DataFrame(columns, schema=types)
    if table["timestamp"].null_count() == table.height:
        table = table.with_columns(timestamp=pl.int_range(pl.len()).over("user_id"))
    return table if table["signal_rating"].count() else table.drop("signal_rating")


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{where} should be a number, is {text!r:.40}.") from None


def _read_inter_json(path: Path) -> dict[str, list[str]]:
    value = read_json(path, "interactions")
    if not isinstance(value, dict):
        raise DataError(f'interactions {path}: expected an object {{"user": [item, ...]}}, got {type(value).__name__}.')
    for user, items in value.items():
        if not isinstance(items, list) or not all(type(item) in (int, str) for item in items):
            raise DataError(f"interactions {path}: user {user!r}: expected a list of item ids, got {items!r:.60}.")
    return {user: [str(item) for item in items] for user, items in value.items()}


def _read_items(path: Path, domain: str) -> pl.DataFrame:
    value = read_json(path, "items")
    if not isinstance(value, dict):
        raise DataError(f'items {path}: expected an object {{"item": {{"title": ...}}}}, got {type(value).__name__}.')
    rows = []
    for item, row in value.items():
        where = f"items {path}: item {item!r}"
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object with a title, got {type(row).__name__}.")
        title = clean_text(read_field(row, "title", (str,), where, required=False))
        brand = row.get("brand") if isinstance(row.get("brand"), str) else None
        rest = {k: v for k, v in row.items() if k != "title" and v not in (None, "", [])}
        caption = build_caption(title, clean_text(brand), _categories(row))
        rows.append((item, domain, title, caption, json.dumps(rest, ensure_ascii=False)))
    columns = ["item_id", "domain", "title", "text", "attributes"]
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def _categories(row: dict[str, Any]) -> list[str]:
    """LC-Rec writes `"categories": "Beauty,Makeup"`, others a list."""
    value = row.get("categories", row.get("category"))
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return [c for c in (clean_text(p) for p in parts if isinstance(p, str)) if c]
