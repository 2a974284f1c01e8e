"""Packing: several short rows share one long one, so that little of a batch is padding.

Rows stay whole, and each of them is a sample of its own: whoever trains on a pack keeps attention inside its rows.

Notation: `n` rows, `P` packs.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator

import numpy as np

from onereason.errors import ConfigError, DataError

PACK_WINDOW = 4096
"""Rows that are packed together; packs leave a window in random order."""


class Packs:
    """Rows in packs: pack `p` holds the rows `rows[offsets[p]:offsets[p + 1]]`.

    Attributes:
        rows: int64 `[n]`, every row once.
        offsets: int64 `[P + 1]`.
    """

    def __init__(self, rows: np.ndarray, offsets: np.ndarray):
        self.rows, self.offsets = rows, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, pack: int) -> np.ndarray:
        return self.rows[self.offsets[pack] : self.offsets[pack + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[pack] for pack in range(len(self)))


def pack_rows(lengths: np.ndarray, max_length: int, seed: int) -> Packs:
    """Packs of at most `max_length` tokens, by best fit, the longest rows first.

    Rows are packed window by window in their order, so that a mixture's order holds but for places inside a window.

    Args:
        lengths: int `[n]`, tokens of each row.
        seed: of the packs' order inside a window.

    Raises:
        ConfigError: `max_length` below 1.
        DataError: a row that is longer.
    """
    if max_length < 1:
        raise ConfigError(f"max_length must be at least 1, got {max_length}.")
    if len(lengths) and lengths.max() > max_length:
        raise DataError(f"a row of {lengths.max()} tokens does not fit packs of {max_length}; raise max_length.")
    rng = np.random.default_rng([seed, 3])
    packs: list[list[int]] = []
    for start in range(0, len(lengths), PACK_WINDOW):
        found = _best_fit(lengths[start : start + PACK_WINDOW], max_length)
        packs += [[start + row for row in found[i]] for i in rng.permutation(len(found)).tolist()]
    rows = np.array([row for pack in packs for row in pack], dtype=np.int64)
    return Packs(rows, np.concatenate([[0], np.cumsum([len(pack) for pack in packs])]).astype(np.int64))


def _best_fit(lengths: np.ndarray, max_length: int) -> list[list[int]]:
    """Each row, the longest first, goes where it leaves the least room; rows of a pack stand in their order."""
    packs: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, pack), ascending
    for row in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[row])
        place = bisect.bisect_left(room, (length, 0))
        if place < len(room):
            left, pack = room.pop(place)
        else:
            left, pack = max_length, len(packs)
            packs.append([])
        packs[pack].append(row)
        bisect.insort(room, (left - length, pack))
    return [sorted(pack) for pack in packs]
