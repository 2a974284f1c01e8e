"""The append-only log: whole lines only, whoever appends and whenever they are killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from onereason.errors import StorageError
from onereason.jsonl_log import JsonlLog


def test_appends_say_where_they_begin(tmp_path):
    log = JsonlLog(tmp_path / "log.jsonl")
    assert log.read() == [] and list(log.iter_lines()) == [] and not log.path.exists()
    assert log.append([{"a": 1}, {"b": "é"}]) == 0
    second = log.append([{"c": 3}], durable=False)
    assert second == len('{"a":1}\n{"b":"é"}\n'.encode())
    assert log.read() == [{"a": 1}, {"b": "é"}, {"c": 3}]
    assert list(log.iter_lines()) == [(0, b'{"a":1}\n'), (8, '{"b":"é"}\n'.encode()), (second, b'{"c":3}\n')]
    assert next(iter(log.iter_lines(8)))[0] == 8


@pytest.mark.parametrize("length", [1, 10, 100_000])
def test_an_unfinished_line_is_cut_off(tmp_path, length):
    path = tmp_path / "log.jsonl"
    for before in (b"", b'{"a":1}\n'):
        path.write_bytes(before + b"x" * length)
        assert [line for _, line in JsonlLog.iter_lines(_unopened(path))] == ([before] if before else [])
        log = JsonlLog(path)
        assert path.read_bytes() == before
        path.write_bytes(before + b"x" * length)  # another process died after this one opened the log
        assert log.append([{"b": 2}]) == len(before)
        assert path.read_bytes() == before + b'{"b":2}\n'


def _unopened(path) -> JsonlLog:
    """A log whose file was not mended."""
    log = JsonlLog(path.with_name("other"))
    log.path = path
    return log


def test_a_large_file_is_opened_without_reading_it(tmp_path):
    path = tmp_path / "log.jsonl"
    with path.open("wb") as handle:
        handle.truncate(1 << 40)  # a terabyte of nothing, which takes no room
        handle.seek(0, os.SEEK_END)
        handle.write(b"\nhalf")
    JsonlLog(path)
    assert path.stat().st_size == (1 << 40) + 1


def test_processes_that_append_at_once_mix_no_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    code = (
        "import sys; from pathlib import Path; from onereason.jsonl_log import JsonlLog\n"
        "log = JsonlLog(Path(sys.argv[1]))\n"
        "for i in range(100): log.append([{'by': sys.argv[2], 'i': i, 'pad': 'x' * 20000}], durable=False)"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "abc"]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    for name in "abc":
        assert [line["i"] for line in lines if line["by"] == name] == list(range(100))
    assert len(lines) == 300


def test_a_log_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        JsonlLog(tmp_path / "file" / "log.jsonl").append([{}])
