"""The sharded engine: the same bytes however the units are cut and built, refusals, duplicates, memory."""

from __future__ import annotations

import argparse
import dataclasses
import json
import stat
import sys
import threading
from pathlib import Path

import pytest

from data_builders import build_persona, build_sequential, working_folder
from data_builders.engine import Reject, build_corpus
from onereason.errors import DataError, StorageError
from onereason.io import read_json, read_jsonl


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def arguments(out: Path, **more: object) -> argparse.Namespace:
    given = {"out": out, "overwrite": False, "seed": 0, "shard_size": 2, "workers": 1, "engine": "local"}
    return argparse.Namespace(**given | more)


class Rows:
    """A unit a row."""

    def __init__(self, rows: list[dict]):
        self.rows = rows
        self.num_units = len(rows)

    def build(self, start: int, stop: int) -> tuple[list[dict], list[Reject]]:
        return self.rows[start:stop], []


def row(row_id: str, text: str = "") -> dict:
    return {"id": row_id, "task": "t", "loss": "all", "mode": "no_think", "text": text}


def write(out: Path, rows: list[dict], **more: object) -> None:
    build_corpus(arguments(out, **more), Rows(rows), title="T", description="D", inputs=[], options=[])


@pytest.fixture(scope="module")
def expected(engine_corpus, tmp_path_factory) -> dict[str, bytes]:
    """Built in one shard."""
    out = tmp_path_factory.mktemp("expected") / "out"
    assert engine_corpus.main(["--out", str(out)]) == 0
    return files_of(out)


def test_the_corpus(engine_corpus, expected):
    assert sorted(expected) == ["CARD.md", "manifest.json", "rejected.jsonl", "rows.jsonl"]
    rows = [row for unit in range(20) for row in engine_corpus.rows_of(unit, 0, 0)]
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows]
    assert expected["rows.jsonl"].decode() == "".join(lines)
    # 0 3 6 9 12 15 18 give no row; 7 units (1 4 7 ...) give one, 6 (2 5 8 ...) two.
    rejected = [json.loads(line) for line in expected["rejected.jsonl"].splitlines()]
    assert rejected[:2] == [
        {"id": "u0", "reason": "even", "detail": "unit 0"},
        {"id": "u3", "reason": "odd", "detail": "unit 3"},
    ]
    manifest = json.loads(expected["manifest.json"])
    assert list(manifest["counts"].items()) == [
        ("rows", 19),
        ("mode_no_think", 6),
        ("mode_think", 13),
        ("task_ask", 13),
        ("task_judge", 6),
        ("domain_prod", 10),  # 1 7 13 19 and twice 5 11 17
        ("domain_video", 9),  # 4 10 16 and twice 2 8 14
        ("teacher_template", 19),
    ]
    assert list(manifest["rejected"].items()) == [("even", 4), ("odd", 3)]
    assert manifest["rejected_examples"] == {
        "even": [{"id": f"u{i}", "detail": f"unit {i}"} for i in (0, 6, 12)],
        "odd": [{"id": f"u{i}", "detail": f"unit {i}"} for i in (3, 9, 15)],
    }
    assert manifest["config"] | {"units": 20, "size": 0} == manifest["config"] and manifest["seed"] == 0
    assert not {"shard_size", "workers", "engine"} & set(manifest["config"])
    card = expected["CARD.md"].decode()
    assert "| even | 4 |" in card and "- odd: u3 (unit 3); u9 (unit 9); u15 (unit 15)" in card
    assert card.index('"id": "u1:0"') < card.index('"id": "u2:1"') and card.count('"id"') == 2  # the first of each task


@pytest.mark.parametrize("size", ["1", "3", "7", "20"])
def test_the_same_bytes_for_every_shard_size(engine_corpus, expected, tmp_path, size):
    assert engine_corpus.main(["--out", str(tmp_path / "out"), "--shard-size", size]) == 0
    assert files_of(tmp_path / "out") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_same_bytes_from_worker_processes(run_corpus, expected, tmp_path):
    """The first shard is finished after others."""
    log = tmp_path / "log"
    done = run_corpus(tmp_path / "out", "--shard-size", "3", "--workers", "2", "--delay", "0.05", "--log", log)
    assert done.returncode == 0 and "wrote" in done.stdout and "19 rows, rejected {'even': 4, 'odd': 3}" in done.stdout
    assert files_of(tmp_path / "out") == expected
    calls = [line.split() for line in log.read_text().splitlines()]
    assert sorted(int(start) for start, _, _ in calls) == list(range(0, 20, 3))
    assert len({pid for _, _, pid in calls}) == 2


def test_the_same_bytes_from_ray(run_program, engine_corpus, expected, tmp_path):
    """Two builds in a Ray that runs already, one of them with an error."""
    pytest.importorskip("ray")
    common = ["--shard-size", "3", "--engine", "ray", "--workers", "2", "--out"]
    program = f"""
import ray, runpy, sys
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=2**27)
for more in (["out"], ["broken", "--fail", "13"]):
    sys.argv = ["", *{common}, {str(tmp_path)!r} + "/" + more[0], *more[1:]]
    try:
        runpy.run_path({engine_corpus.__file__!r}, run_name="__main__")
    except SystemExit as end:
        print("code", end.code)
assert ray.is_initialized()
"""
    done = run_program("-c", program)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("code")] == ["code 0", "code 2"]
    assert files_of(tmp_path / "out") == expected
    errors = [line for line in done.stderr.splitlines() if line.startswith("engine_corpus.py: ")]
    assert len(errors) == 1 and "unit 13 is broken. " in errors[0] and "of 7 shards stay in " in errors[0]


@pytest.mark.parametrize("options", [["--workers", "2"], ["--engine", "ray", "--workers", "2"]])
def test_builders_give_the_same_bytes_from_workers(world, run_program, tmp_path, options):
    if "ray" in options:
        pytest.importorskip("ray")
    inputs = [*world.data, "--catalog", str(world.root / "catalog"), "--shard-size", "1"]
    more = ["--cuts", "2", "--copies", "1", "--drop", "0.3", "--max-history", "3"]
    assert build_sequential.main([*inputs, *more, "--out", str(tmp_path / "here")]) == 0
    done = run_program("-m", "data_builders.build_sequential", *inputs, *more, *options, "--out", tmp_path / "there")
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "here") == files_of(tmp_path / "there")


def test_builders_give_the_same_bytes_for_every_shard_size(world, tmp_path):
    inputs = [*world.data, "--catalog", str(world.root / "catalog")]
    for size in ("1", "3", "100"):
        assert (
            build_persona.main([*inputs, "--variants", "2", "--shard-size", size, "--out", str(tmp_path / size)]) == 0
        )
    assert files_of(tmp_path / "1") == files_of(tmp_path / "3") == files_of(tmp_path / "100")


def test_lone_surrogates_and_large_numbers_are_written(tmp_path):
    rows = [row("a\ud83d", "half \ud83d, whole \U0001f600") | {"n": 2**70, "of": ({"\udc00": 1},)}, row("b")]
    write(tmp_path / "out", rows)
    assert read_jsonl(tmp_path / "out/rows.jsonl")[0] == row("a\ufffd", "half \ufffd, whole \U0001f600") | {
        "n": 2**70,
        "of": [{"\ufffd": 1}],
    }


@pytest.mark.parametrize("at_once", [3, 1000])
def test_duplicates_within_and_across_shards_are_found(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(working_folder, "_IDS_AT_ONCE", at_once)
    ids = ["a", "a", "b", "c", "d", "e", "f", "b", "x\ud83d", "x\udc00"]  # the last two are written alike
    message = r"must have unique ids; 3 stand there twice, e\.g\. 'a', 'b', 'x\ufffd'\."
    with pytest.raises(DataError, match=message):
        write(tmp_path / "out", [row(i) for i in ids])
    assert list(tmp_path.iterdir()) == []


def test_ids_that_share_a_hash_are_no_duplicates(tmp_path, monkeypatch):
    monkeypatch.setattr("data_builders.shards.hash_id", lambda row_id: b"8 bytes.")
    write(tmp_path / "out", [row(i) for i in "abcde"])
    assert len(read_jsonl(tmp_path / "out/rows.jsonl")) == 5


def test_no_row_left(tmp_path):
    for rows in ([], [[]]):
        source = Rows(rows)
        source.build = lambda start, stop: ([], [Reject("u", "empty")])
        with pytest.raises(DataError, match=r"no row is left for .*out: rejected ({'empty': 1}|nothing, the input is)"):
            build_corpus(arguments(tmp_path / "out"), source, title="T", description="D", inputs=[], options=[])
        assert list(tmp_path.iterdir()) == []


def test_the_manifest_holds_no_path_of_this_machine(tmp_path):
    given = arguments(tmp_path / "out", table=tmp_path / "a.csv", tables=[tmp_path / "b.csv"], language="zh")
    extra = {"prompts": {"persona": 1}}
    options = ["table", "tables", "language"]
    build_corpus(given, Rows([row("a")]), title="T", description="D", inputs=[], options=options, extra=extra)
    config = read_json(tmp_path / "out/manifest.json")["config"]
    assert config == {"table": "a.csv", "tables": ["b.csv"], "language": "zh", "prompts": {"persona": 1}}


def test_the_finished_folder_has_usual_permissions(tmp_path):
    write(tmp_path / "out", [row("a")])
    (tmp_path / "usual").mkdir()
    (tmp_path / "usual" / "file").touch()
    for path, usual in ((tmp_path / "out", tmp_path / "usual"), (tmp_path / "out/rows.jsonl", tmp_path / "usual/file")):
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


def test_overwriting(tmp_path):
    out = tmp_path / "out"
    write(out, [row("a")])
    with pytest.raises(StorageError, match="pass --overwrite"):
        write(out, [row("b")])
    (tmp_path / "link").symlink_to(out)
    write(tmp_path / "link", [row("b")], overwrite=True)
    assert (tmp_path / "link").is_symlink() and read_jsonl(out / "rows.jsonl") == [row("b")]
    with pytest.raises(StorageError, match="it is or holds"):
        build_corpus(
            arguments(out, overwrite=True), Rows([]), title="", description="", inputs=[out / "rows.jsonl"], options=[]
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "out"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard-size", "0"], "--shard-size must be at least 1, got 0."),
        (["--workers", "0"], "--workers must be at least 1, got 0."),
        (["--engine", "ray"], '--engine ray: Ray is not installed; run `pip install "ray[data]"` or use'),
    ],
)
def test_mistakes(engine_corpus, tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    assert engine_corpus.main(["--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_sources_that_cannot_leave_the_process(tmp_path):
    source = Rows([row("a"), row("b"), row("c")])
    source.parallel = False
    given = {"title": "T", "description": "D", "inputs": [], "options": []}
    for more in ({"workers": 2}, {"engine": "ray"}):
        with pytest.raises(ValueError, match=r"can only be made in one process .*use --workers 1 --engine local"):
            build_corpus(arguments(tmp_path / "out", **more), source, **given)
    source.parallel = True
    source.lock = threading.Lock()  # not picklable
    with pytest.raises(ValueError, match=r"can only be made in one process \(Rows cannot be pickled: "):
        build_corpus(arguments(tmp_path / "out", workers=2), source, **given)
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_rows(run_corpus, tmp_path):
    """2,000 and 20,000 rows of 4,000 characters: kept in memory, the larger corpus would take 80 MB more."""
    peaks = []
    for units in (2000, 20_000):
        more = ["--units", units, "--size", "4000", "--shard-size", "200", "--peak-memory"]
        done = run_corpus(tmp_path / str(units), *more)
        assert done.returncode == 0
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] < 1.1 * peaks[0]
    assert (tmp_path / "20000/rows.jsonl").stat().st_size > 80_000_000


def test_units_are_what_they_say(engine_corpus):
    """A source that is cut anywhere gives the rows of its whole range."""
    source = engine_corpus.Units(20, 5)
    whole = source.build(0, 20)
    for cut in range(21):
        first, second = source.build(0, cut), source.build(cut, 20)
        assert (first[0] + second[0], first[1] + second[1]) == whole
    assert dataclasses.replace(source, seed=6).build(0, 20) != whole
