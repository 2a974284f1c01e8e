"""Shards: a range of a corpus's units, built and written on its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from data_builders.cards import Row, Tally
from onereason.io import atomic_file, to_json_line


@dataclass(frozen=True)
class Reject:
    """Something that gave no row.

    Attributes:
        id: of the unit, or of the row it would have been.
        reason: a code, e.g. `no_captioned_item`.
        detail: what was found, for a person who looks into it.
    """

    id: str
    reason: str
    detail: str = ""


class RowSource(Protocol):
    """Makes the rows of any range of its units on its own; picklable.

    What a unit gives depends on the unit alone: random choices are drawn from a stream seeded by `(seed, unit)`, so
    that the rows do not depend on how the units are cut into shards.

    A source may also have a method `take_counts() -> dict[str, int]`: further counts of what was built since it was
    called last, for the manifest.
    """

    @property
    def num_units(self) -> int: ...

    def build(self, start: int, stop: int) -> tuple[list[Row], list[Reject]]:
        """Rows of the units `[start, stop)` in their order, and what gave none."""
        ...


@dataclass(frozen=True)
class Shard:
    """The units `[start, stop)`."""

    number: int
    start: int
    stop: int

    def file(self, folder: Path, kind: str, suffix: str = "jsonl") -> Path:
        return folder / f"{kind}-{self.number:05d}.{suffix}"

    def write(
        self, folder: Path, rows: Sequence[Row], rejects: Sequence[Reject], counts: Mapping[str, int] | None = None
    ) -> None:
        """Writes the shard's files, each whole or not at all, the summary last; `counts` go into its tally."""
        sizes = {}
        for path, chunks in (
            (self.file(folder, "rows"), map(to_json_line, rows)),
            (self.file(folder, "rejected"), map(to_json_line, rejects)),
            (self.file(folder, "ids", "u64"), (hash_id(row["id"]) for row in rows)),
        ):
            if not (rejects if path.name.startswith("rejected") else rows):
                continue
            with atomic_file(path) as temporary:
                with temporary.open("wb") as handle:
                    handle.writelines(chunks)
                sizes[path.name] = temporary.stat().st_size
        tally = Tally()
        tally.add(rows)
        tally.counts.update(counts or {})
        tally.reject([(reject.id, reject.reason, reject.detail) for reject in rejects])
        with atomic_file(self.file(folder, "shard", "json")) as temporary:
            temporary.write_bytes(to_json_line({"sizes": sizes, "tally": tally.to_json()}))

    def read_summary(self, folder: Path) -> dict[str, Any] | None:
        """Sizes and tally if the shard is finished and its files have the sizes they were written with, else None."""
        try:
            summary = orjson.loads(self.file(folder, "shard", "json").read_bytes())
            # After a power cut a file may be shorter than it was written.
            whole = all((folder / name).stat().st_size == size for name, size in summary["sizes"].items())
        except (FileNotFoundError, ValueError):
            return None
        return summary if whole else None


def shards_of(num_units: int, shard_size: int) -> list[Shard]:
    starts = range(0, num_units, shard_size)
    return [Shard(number, start, min(start + shard_size, num_units)) for number, start in enumerate(starts)]


def hash_id(row_id: str) -> bytes:
    """8 bytes, the same in every process, and the same for ids that are written alike."""
    return hashlib.blake2b(row_id.encode(errors="replace"), digest_size=8).digest()
