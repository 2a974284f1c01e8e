"""Answers on disk: what was asked once is not asked again, by any process, after any interruption.

`answers.jsonl` holds a line an answer, `{"key": ..., ...}`, appended as it comes. In memory are only the keys and where
their lines begin, some 200 bytes an answer, however long the answers are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onereason.io import parse_json, storage_errors
from onereason.jsonl_log import JsonlLog

ANSWERS_FILE = "answers.jsonl"
_OPENING, _KEY_BYTES = b'{"key":"', 16
_KEY_END = len(_OPENING) + 2 * _KEY_BYTES


def answer_key(payload: Mapping[str, Any]) -> str:
    """A hash of what is sent (model, messages, sampling), 32 hexadecimal digits; the order of names does not count."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=_KEY_BYTES).hexdigest()


class AnswerCache:
    """Answers by key, in a folder that several processes may share; without a folder it keeps nothing.

    Where two processes asked the same at once, the answer that was written last counts. A line that cannot be read is
    passed over, and its question is asked again.
    """

    def __init__(self, folder: Path | None):
        """
        Raises:
            StorageError: the folder cannot be made or written.
        """
        self._places: dict[bytes, int] = {}
        self._seen = 0
        self._log: JsonlLog | None = None
        if folder is not None:
            with storage_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                self._log = JsonlLog(folder / ANSWERS_FILE)
                self._log.append([])
            self.refresh()

    def __len__(self) -> int:
        return len(self._places)

    def refresh(self) -> None:
        """Takes in what was appended since, by this process or others."""
        if self._log is None:
            return
        for place, line in self._log.iter_lines(self._seen):
            self._seen = place + len(line)
            if line.startswith(_OPENING):
                try:
                    key = bytes.fromhex(line[len(_OPENING) : _KEY_END].decode())
                except ValueError:
                    continue
                self._places[key] = place

    def get(self, key: str) -> dict[str, Any] | None:
        """The record under a key without the key itself, None where there is none."""
        place = self._places.get(bytes.fromhex(key))
        if place is None or self._log is None:
            return None
        with self._log.path.open("rb") as handle:
            handle.seek(place)
            line = handle.readline()
        try:
            record = parse_json(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or record.pop("key", None) != key:
            del self._places[bytes.fromhex(key)]
            return None
        return record

    def put(self, key: str, record: Mapping[str, Any]) -> None:
        """Appends a record; it survives a kill of the process from here on."""
        if self._log is not None:
            place = self._log.append([{"key": key, **record}], durable=False)
            self._places[bytes.fromhex(key)] = place
