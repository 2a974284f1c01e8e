"""OneRec-Think's sequences (`sequential_data_processed.txt`): a line is `user item item ...`, oldest first.

Items are known by id only; a timestamp is the position in the line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from onereason.data.raw import DEFAULT_DOMAIN, RawTables
from onereason.data.readers.files import iter_lines, single_path
from onereason.errors import DataError


def read(paths: Sequence[Path], domain: str = DEFAULT_DOMAIN) -> RawTables:
    """Reads the sequence text; every item gets `domain`. A line with a user alone is an empty history.

    Raises:
        DataError: the file is missing, a user stands on two lines, or a field is no number (a wrong file).
    """
    path = single_path(paths, "one text file of 'user item item ...' lines")
    users: list[str] = []
    items: list[str | None] = []
    positions: list[int] = []
    seen: dict[str, int] = {}
    for number, line in iter_lines(path, "sequences"):
        user, *sequence = line.split()
        for word in (user, *sequence):
            if not (word.isascii() and word.isdigit()):
                raise DataError(
                    f"sequences {path}, line {number}: {word!r:.40} is not an id; expected whole numbers "
                    "'user item item ...'."
                )
        if user in seen:
            raise DataError(
                f"sequences {path}, line {number}: user {user!r} stands on line {seen[user]} already; "
                "expected one line a user."
            )
        seen[user] = number
        users += [user] * max(len(sequence), 1)
        items += sequence or [None]
        positions += range(max(len(sequence), 1))
    interactions = pl.DataFrame(
        {"user_id": users, "item_id": items, "timestamp": positions},
        schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64},
    )
    names = interactions["item_id"].drop_nulls().unique(maintain_order=True)
    return RawTables(pl.DataFrame({"item_id": names, "domain": [domain] * len(names)}), interactions, (path,))
