"""An append-only file of JSON lines that survives a kill: what was appended is there, whole, or not at all.

Several processes may append to one file: a lock of the operating system, which a killed process gives back, keeps their
records apart. On a file system without locks, one process at a time is safe.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from onereason.io import read_jsonl, storage_errors, to_json_line

_BLOCK = 1 << 16


class JsonlLog:
    """Records in the order in which they were appended.

    Opening one cuts off an unfinished last line, which only a killed or failed write leaves behind.
    """

    def __init__(self, path: Path):
        self.path = path
        if path.is_file():
            with storage_errors(path), path.open("r+b") as handle:
                _lock(handle)
                _cut_unfinished_line(handle)

    def read(self) -> list[dict[str, Any]]:
        return read_jsonl(self.path) if self.path.is_file() else []

    def iter_lines(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """The place of each whole line from byte `start` on, and its bytes with the line break; a line at a time."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as handle:
            handle.seek(start)
            for line in handle:
                if not line.endswith(b"\n"):  # another process is writing it
                    return
                yield start, line
                start += len(line)

    def append(self, records: Iterable[Mapping[str, Any]], durable: bool = True) -> int:
        """Appends records in one write; a write that fails leaves none of them. Returns the place of the first.

        Args:
            durable: they are on disk when this returns. Otherwise they are with the operating system: safe if the
                process is killed, not if the power fails.
        """
        block = b"".join(map(to_json_line, records))
        with storage_errors(self.path), self.path.open("a+b") as handle:
            _lock(handle)
            before = _cut_unfinished_line(handle)
            try:
                handle.write(block)
                handle.flush()
                if durable:
                    os.fsync(handle.fileno())
            except OSError:
                os.ftruncate(handle.fileno(), before)
                raise
        return before


def _lock(handle: BinaryIO) -> None:
    """Waits until no other process holds the file; closing it lets go."""
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)


def _cut_unfinished_line(handle: BinaryIO) -> int:
    """Truncates the file behind its last line break; returns its size."""
    size = end = handle.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - (1 if end == size else _BLOCK))  # nearly always the last byte is the line break
        handle.seek(start)
        found = handle.read(end - start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        handle.truncate(end)
    handle.seek(0, os.SEEK_END)
    return end
