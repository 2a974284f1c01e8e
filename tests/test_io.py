"""Files: outputs are whole or absent, rows split on LF only, manifests tell inputs apart."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import signal
from pathlib import Path

import pytest

from onereason import io
from onereason.errors import DataError, StorageError


def listing(folder: Path) -> list[str]:
    """Everything under a folder, hidden names too."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_atomic_file_replaces_on_success(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    io.write_text(path, "one\n")
    io.write_text(path, "zwei ü\n")
    assert path.read_bytes() == "zwei ü\n".encode()
    assert listing(tmp_path) == ["deep", "deep/a.txt"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~io._umask()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_atomic_file_leaves_nothing_on_failure(tmp_path, error):
    path = tmp_path / "a.txt"
    with pytest.raises(error), io.atomic_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert listing(tmp_path) == []
    io.write_text(path, "old")
    with pytest.raises(error), io.atomic_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert (listing(tmp_path), path.read_text()) == (["a.txt"], "old")


def test_write_jsonl_leaves_nothing_when_a_row_fails(tmp_path):
    def rows():
        yield {"a": 1}
        raise ValueError("row 2")

    with pytest.raises(ValueError, match="row 2"):
        io.write_jsonl(tmp_path / "rows.jsonl", rows())
    assert listing(tmp_path) == []


def test_atomic_dir_is_whole_or_absent(tmp_path):
    out = tmp_path / "runs" / "out"
    with pytest.raises(RuntimeError), io.atomic_dir(out) as temporary:
        (temporary / "half").write_text("x")
        raise RuntimeError
    assert listing(tmp_path / "runs") == []
    with io.atomic_dir(out) as temporary:
        (temporary / "manifest.json").write_text("x")
    with pytest.raises(StorageError, match=r"output folder .*out exists and is not empty; .* pass --overwrite"):
        io.require_output_dir(out)
    with pytest.raises(RuntimeError), io.atomic_dir(out, overwrite=True) as temporary:
        raise RuntimeError
    assert listing(out) == ["manifest.json"]
    with io.atomic_dir(out, overwrite=True) as temporary:
        (temporary / "second").write_text("x")
    assert listing(tmp_path / "runs") == ["out", "out/second"]


def test_overwrite_replaces_only_what_the_toolkit_wrote(tmp_path, monkeypatch):
    mine, ours = tmp_path / "mine", tmp_path / "ours"
    for folder, name in ((mine, "thesis.txt"), (ours, "manifest.json")):
        (folder / "inside").mkdir(parents=True)
        (folder / name).write_text("x")
    with pytest.raises(StorageError, match=r"mine cannot be overwritten: it holds none of manifest\.json"):
        io.require_output_dir(mine, overwrite=True)
    assert io.require_output_dir(ours, overwrite=True) == ours
    for given in (ours, ours / "inside", ours / "inside" / "new"):
        with pytest.raises(StorageError, match="ours cannot be overwritten: it is or holds"):
            io.require_output_dir(ours, overwrite=True, inputs=[given])
    assert io.require_output_dir(ours, overwrite=True, inputs=[tmp_path, mine]) == ours
    monkeypatch.chdir(ours / "inside")
    with pytest.raises(StorageError, match="it is or holds"):
        io.require_output_dir("..", overwrite=True)


def test_an_impossible_place_is_refused_before_work(tmp_path):
    with pytest.raises(StorageError, match="File name too long"):
        io.require_output_dir(tmp_path / ("x" * 300))
    if Path("/proc/self").exists():
        with pytest.raises(StorageError, match="cannot be created: /proc is not writable"):
            io.require_output_dir("/proc/x/y")


def test_parse_json_mends_half_an_emoji_and_refuses_depth():
    assert io.parse_json(r'{"t": ["a \ud83d b", "\ud83d\ude00"], "\udc00": 1}') == {
        "t": ["a \ufffd b", "\U0001f600"],
        "\ufffd": 1,
    }
    assert io.parse_json(rb'"\\ud83d"') == "\\ud83d"  # an escaped backslash, not an escape
    for text in ("[" * 100_000, "1" * 5000, b"\xff", "{"):
        with pytest.raises(ValueError):
            io.parse_json(text)


def test_atomic_dir_follows_a_link_to_a_folder(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    with io.atomic_dir(tmp_path / "out", overwrite=True) as temporary:
        (temporary / "a").write_text("x")
    assert (tmp_path / "out").is_symlink()
    assert listing(tmp_path / "disk") == ["a"]


def test_an_output_that_cannot_be_is_refused_before_work(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="is an existing file"):
        io.require_output_dir(tmp_path / "file")
    with pytest.raises(StorageError, match="is a file; choose another path"):
        io.require_output_dir(tmp_path / "file" / "out")
    with pytest.raises(StorageError, match=r"cannot be written: Not a directory; choose another path"):
        io.write_text(tmp_path / "file" / "out" / "a.json", "x")
    with pytest.raises(StorageError, match="File name too long"):
        io.write_text(tmp_path / ("n" * 300), "x")


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path):
    """A limit on file size stands for the full disk: the system refuses the write in the same place."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StorageError, match=r"no space left while writing .*big.txt; free some space"):
            io.write_text(tmp_path / "big.txt", "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert listing(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left while writing"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space left while writing"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot be written: Read-only file system"),
    ],
)
def test_refusals_of_the_system_and_of_libraries(tmp_path, error, message):
    with pytest.raises(StorageError, match=message), io.atomic_dir(tmp_path / "out"):
        raise error
    assert listing(tmp_path) == []


def test_a_missing_input_inside_an_output_is_not_called_an_output_fault(tmp_path):
    with pytest.raises(FileNotFoundError), io.atomic_dir(tmp_path / "out"):
        (tmp_path / "absent").read_bytes()


def test_jsonl_splits_on_lf_only(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'{"a": "x\xc2\x85y\xe2\x80\xa8z"}\r\n\n{"a":\r 2}\n{"a": 3}'
    )  # NEL, LS, CR inside rows; a blank line
    assert io.read_jsonl(path) == [{"a": "x\u0085y\u2028z"}, {"a": 2}, {"a": 3}]


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"a": "ü\n\u2028😀", "b": [1, 2.5, None, True], "c": {}}, '{"a":"ü\\n\u2028😀","b":[1,2.5,null,true],"c":{}}'),
        ({"half \udc00": ["\ud83d", "\ud83d\ude00"]}, '{"half \ufffd":["\ufffd","😀"]}'),
        ({"n": 2**64, 3: ("x", {"y": "\ud800"})}, '{"n":18446744073709551616,"3":["x",{"y":"\ufffd"}]}'),
    ],
)
def test_a_row_is_one_line_of_compact_json(tmp_path, row, line):
    assert io.to_json_line(row) == line.encode() + b"\n"
    io.write_jsonl(tmp_path / "r.jsonl", [row, row])
    assert (tmp_path / "r.jsonl").read_bytes() == 2 * (line.encode() + b"\n")


def test_a_row_that_is_no_json_leaves_nothing(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        io.write_jsonl(tmp_path / "r.jsonl", [{"a": 1}, {"a": object()}])
    assert listing(tmp_path) == []


def test_jsonl_round_trip(tmp_path):
    rows = [{"a": "ü\r\u2028"}, {"b": [1, None]}]
    assert io.write_jsonl(tmp_path / "r.jsonl", iter(rows)) == 2
    assert io.read_jsonl(tmp_path / "r.jsonl") == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n\n{"a"\n', r"rows .*r.jsonl, line 3: not valid JSON"),
        (b'{"a": 1}\n[1]\n', r"line 2: expected an object, got list"),
        (b'{"a": "\xff"}\n', r"line 1: not valid JSON"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, content, message):
    (tmp_path / "r.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        io.read_jsonl(tmp_path / "r.jsonl", "rows")


def test_missing_and_malformed_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"the table not found: expected a file at .*, found nothing\. Make one\."):
        io.require_file(tmp_path / "t", "the table", "Make one.")
    with pytest.raises(DataError, match="found a folder"):
        io.require_file(tmp_path, "the table")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match=r"settings .*bad.json is not valid JSON"):
        io.read_json(tmp_path / "bad.json", "settings")
    if os.geteuid() != 0:
        (tmp_path / "bad.json").chmod(0)
        with pytest.raises(DataError, match="cannot be read: permission denied"):
            io.read_json(tmp_path / "bad.json", "settings")


def test_manifest_names_inputs_by_the_shortest_tail_that_tells_them_apart(tmp_path):
    for name in ("train/data.csv", "test/data.csv", "items.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    paths = [tmp_path / "train/data.csv", tmp_path / "test/data.csv", tmp_path / "items.csv", tmp_path / "items.csv"]
    manifest = io.build_manifest("dataset", inputs=paths, seed=3, counts={"rows": 2}, rejected={"empty": 1})
    digest = {
        name: hashlib.sha256(name.encode()).hexdigest() for name in ("train/data.csv", "test/data.csv", "items.csv")
    }
    assert manifest["inputs"] == digest
    assert (manifest["seed"], manifest["counts"], manifest["rejected"]) == (3, {"rows": 2}, {"empty": 1})
    assert str(tmp_path) not in json.dumps(manifest)
