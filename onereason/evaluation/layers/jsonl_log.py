"""An append-only file of JSON lines that survives a kill: what was appended is there, whole, or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from onereason.io import read_jsonl, storage_errors


class JsonlLog:
    """Records in the order in which they were appended.

    Opening one cuts off an unfinished last line, which only a killed or failed write leaves behind.
    """

    def __init__(self, path: Path):
        self.path = path
        self._mend()

    def _mend(self) -> None:
        if not self.path.is_file():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self.path.open("r+b") as handle:
                handle.truncate(whole)

    def read(self) -> list[dict[str, Any]]:
        return read_jsonl(self.path) if self.path.is_file() else []

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Appends records in one write that is on disk when this returns; a write that fails leaves none of them."""
        block = b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)
        with storage_errors(self.path), self.path.open("ab") as handle:
            before = handle.tell()
            try:
                handle.write(block)
                handle.flush()
                os.fsync(handle.fileno())
            except OSError:
                os.ftruncate(handle.fileno(), before)
                raise
