"""Amazon Beauty (2014, 5-core) as JSON lines: one object an item, one item list a user.

`items.jsonl`: `item_id`, `title` (or null), `brand` (or null), `categories`, and any other keys.
`interactions.jsonl`: `user_id`, `item_ids` in time order. The source knows the order only, so an interaction's
timestamp is its position in the user's list.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from onereason.data.raw import DEFAULT_DOMAIN, RawTables
from onereason.data.readers.files import build_caption, clean_text, iter_objects, read_field, single_path
from onereason.errors import DataError


def read(paths: Sequence[Path], domain: str = DEFAULT_DOMAIN) -> RawTables:
    """Reads a folder with `items.jsonl` and `interactions.jsonl`; every item gets `domain`."""
    folder = single_path(paths, "one folder with items.jsonl and interactions.jsonl")
    files = (folder / "items.jsonl", folder / "interactions.jsonl")
    return RawTables(_read_items(files[0], domain), _read_interactions(files[1]), files)


def _read_items(path: Path, domain: str) -> pl.DataFrame:
    rows = []
    for where, row in iter_objects(path, "items"):
        item_id = read_field(row, "item_id", (int, str), where)
        title = clean_text(read_field(row, "title", (str,), where, required=False))
        brand = clean_text(read_field(row, "brand", (str,), where, required=False))
        categories = read_field(row, "categories", (list,), where, required=False) or []
        if not all(isinstance(c, str) for c in categories):
            raise DataError(f"{where}: 'categories' should be a list of text, is {categories!r:.60}.")
        rest = {k: v for k, v in row.items() if k not in ("item_id", "title") and v is not None}
        caption = build_caption(title, brand, categories)
        rows.append((str(item_id), domain, title, caption, json.dumps(rest, ensure_ascii=False)))
    columns = ["item_id", "domain", "title", "text", "attributes"]
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def _read_interactions(path: Path) -> pl.DataFrame:
    users: list[str] = []
    items: list[str | None] = []
    positions: list[int] = []
    for where, row in iter_objects(path, "interactions"):
        user = str(read_field(row, "user_id", (int, str), where))
        sequence = read_field(row, "item_ids", (list,), where, required=False) or [None]
        if sequence != [None] and not all(type(item) in (int, str) for item in sequence):
            raise DataError(f"{where}: 'item_ids' should be a list of item ids, is {sequence!r:.60}.")
        users += [user] * len(sequence)
        items += [None if item is None else str(item) for item in sequence]
        positions += range(len(sequence))
    return pl.DataFrame(
        {"user_id": users, "item_id": items, "timestamp": positions},
        schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64},
    )
