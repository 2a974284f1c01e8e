"""General text that balances the recipe and takes no loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson

from data_builders.build_general import general_row
from data_builders.common import ROWS_FILE, Row
from data_builders.engine import Reject
from onereason.errors import DataError

TASK = "balance"


def balance_file(path: Path) -> Path:
    """The JSON-lines file behind `--balance`: a corpus folder's rows, or the file itself.

    Raises:
        DataError: neither is there.
    """
    found = path / ROWS_FILE if path.is_dir() else path
    if not found.is_file():
        raise DataError(f"--balance {path}: expected a JSON-lines file or a corpus folder with {ROWS_FILE}.")
    return found


def find_lines(path: Path) -> np.ndarray:
    """Int64 byte offsets of the lines that are not empty."""
    starts, at = [], 0
    with path.open("rb") as handle:
        for line in handle:
            if line.strip():
                starts.append(at)
            at += len(line)
    return np.array(starts, dtype=np.int64)


def balance_row(record: object, row_id: str) -> Row | str:
    """A row without loss, or the reason why a record gives none.

    Args:
        record: an object with `text`, or in a shape that `build_general` reads.
    """
    if isinstance(record, Mapping) and isinstance(record.get("text"), str):
        if not record["text"].strip():
            return "no_text"
        return {"id": row_id, "task": TASK, "loss": "none", "mode": "no_think", "text": record["text"]}
    row = general_row(record, row_id)
    return row if isinstance(row, str) else row | {"task": TASK, "loss": "none"}


@dataclass
class BalanceSection:
    """Lines of a file in a seeded order, from the start again where there are too few; nothing else is read of it.

    Attributes:
        path: the JSON-lines file.
        lines: byte offsets of its lines.
        chosen: line of each unit.
    """

    path: Path
    lines: np.ndarray
    chosen: Sequence[int]
    name: str = TASK
    left_out: dict[str, int] = field(default_factory=dict)

    @classmethod
    def sample(cls, path: Path, number: int, seed: int) -> BalanceSection:
        """`number` lines of a file; `DataError` if it has none."""
        lines = find_lines(path)
        if not len(lines):
            raise DataError(f"--balance {path} holds no line.")
        order = np.random.default_rng([seed, 4]).permutation(len(lines))
        return cls(path, lines, np.resize(order, number).tolist())

    @property
    def num_units(self) -> int:
        return len(self.chosen)

    def rows_of(self, unit: int, rows: list[Row], rejects: list[Reject]) -> None:
        line = self.chosen[unit]
        row_id = f"{TASK}:{line}" if unit < len(self.lines) else f"{TASK}:{line}:{unit // len(self.lines)}"
        with self.path.open("rb") as handle:
            handle.seek(self.lines[line])
            text = handle.readline()
        try:
            made = balance_row(orjson.loads(text), row_id)
        except orjson.JSONDecodeError:
            made = "not_json"
        if isinstance(made, str):
            rejects.append(Reject(row_id, made))
        else:
            rows.append(made)
