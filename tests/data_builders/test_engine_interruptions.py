"""Builds that are killed, stopped, out of space or begun twice: what is finished stays, and the end is the same.

The programs are real processes; they are killed, limited and interrupted by the system.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

UNITS = 12


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def calls(log: Path) -> list[int]:
    """First units of the shards that were built, in the order in which they were begun."""
    return [int(line.split()[0]) for line in log.read_text().splitlines()] if log.exists() else []


def finished(working: Path) -> set[int]:
    return {int(path.stem.partition("-")[2]) for path in working.glob("shard-*.json")}


def wait_for(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.002)


def kill(process: subprocess.Popen[str]) -> None:
    """Ends the program alone, as the system does when memory runs out; its workers must end by themselves."""
    process.kill()
    process.communicate(timeout=30)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def start_corpus(start_program, engine_corpus, tmp_path):
    """Starts a build of `out`, one unit a shard, that logs its calls to `log`."""

    def start(*more: object) -> subprocess.Popen[str]:
        options = ["--units", UNITS, "--shard-size", 1, "--log", tmp_path / "log", *more]
        return start_program(engine_corpus.__file__, "--out", tmp_path / "out", *options)

    return start


@pytest.fixture
def finish_corpus(start_corpus):
    def finish(*more: object) -> subprocess.CompletedProcess[str]:
        with start_corpus(*more) as process:
            stdout, stderr = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    return finish


@pytest.fixture(scope="module")
def expected(engine_corpus, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("expected") / "out"
    assert engine_corpus.main(["--units", str(UNITS), "--out", str(out)]) == 0
    return files_of(out)


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_again_and_again_and_finished(start_corpus, finish_corpus, expected, tmp_path, workers):
    """No finished shard is built again, and at most the shards that were being built are lost."""
    log, working = tmp_path / "log", tmp_path / ".out.building"
    rng = random.Random(workers)
    for _ in range(3):
        before, kept = len(calls(log)), finished(working)
        process = start_corpus("--workers", workers, "--delay", "0.03")
        new = rng.randint(1, 3)
        wait_for(lambda: len(calls(log)) >= before + new or process.poll() is not None)  # noqa: B023
        time.sleep(rng.random() * 0.04)
        kill(process)
        wait_for(lambda: not any(map(is_alive, pids(log))))
        assert not set(calls(log)[before:]) & kept
        assert len(calls(log)[before:]) - len(finished(working) - kept) <= workers
    assert finished(working) and not (tmp_path / "out").exists()
    before, kept = len(calls(log)), finished(working)
    assert finish_corpus("--workers", workers).returncode == 0
    assert set(calls(log)[before:]) == set(range(UNITS)) - kept and len(calls(log)) - before == UNITS - len(kept)
    assert files_of(tmp_path / "out") == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "out"]


def pids(log: Path) -> set[int]:
    return {int(line.split()[2]) for line in log.read_text().splitlines()}


KILL_AT = """
import os, runpy, signal, sys
from pathlib import Path
moment, real = sys.argv.pop(1), os.replace

def replace(source, target):
    if moment == "before " + Path(target).name:
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
    if moment == "after " + Path(target).name:
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = replace
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


MOMENTS = """before build.json, after rows-00004.jsonl, before shard-00004.json, after shard-00004.json,
before manifest.json, after CARD.md, before out, after out"""


@pytest.mark.parametrize("moment", re.split(r",\s", MOMENTS))
def test_killed_at_a_certain_moment(run_program, engine_corpus, finish_corpus, expected, tmp_path, moment):
    options = ["--units", UNITS, "--shard-size", 1, "--out", tmp_path / "out"]
    died = run_program("-c", KILL_AT, moment, engine_corpus.__file__, *options)
    assert died.returncode == -signal.SIGKILL
    done = finish_corpus()
    if moment == "after out":  # the corpus was in its place
        assert done.returncode == 2 and "pass --overwrite" in done.stderr and calls(tmp_path / "log") == []
    else:
        assert done.returncode == 0, done.stderr
        kept = {"before build.json": 0, "after rows-00004.jsonl": 4, "before shard-00004.json": 4}
        kept |= {"after shard-00004.json": 5}
        assert calls(tmp_path / "log") == list(range(kept.get(moment, UNITS), UNITS))
    assert files_of(tmp_path / "out") == expected
    assert {path.name for path in tmp_path.iterdir()} - {"log"} == {"out"}


@pytest.mark.parametrize("moment", ["after replaced", "after out"])
def test_killed_while_a_corpus_is_replaced(run_program, engine_corpus, finish_corpus, expected, tmp_path, moment):
    """Either the old corpus comes back or the new one is there."""
    assert finish_corpus("--seed", "7").returncode == 0
    old = files_of(tmp_path / "out")
    options = ["--units", UNITS, "--shard-size", 1, "--overwrite", "--out", tmp_path / "out"]
    assert run_program("-c", KILL_AT, moment, engine_corpus.__file__, *options).returncode == -signal.SIGKILL
    assert finish_corpus().returncode == 2  # without --overwrite
    assert files_of(tmp_path / "out") == (old if moment == "after replaced" else expected)
    assert finish_corpus("--overwrite").returncode == 0
    assert files_of(tmp_path / "out") == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "out"]


def test_an_error_keeps_the_finished_shards(finish_corpus, expected, tmp_path):
    done = finish_corpus("--fail", "8")
    message = f"unit 8 is broken. 8 of 12 shards stay in {tmp_path}/.out.building; run the same command to go on.\n"
    assert done.returncode == 2 and done.stderr.endswith(message) and done.stderr.count("\n") == 1
    assert finish_corpus().returncode == 0
    assert calls(tmp_path / "log") == [*range(9), *range(8, 12)]
    assert files_of(tmp_path / "out") == expected


def test_an_error_in_the_first_shard_leaves_nothing(finish_corpus, tmp_path):
    assert finish_corpus("--fail", "0").returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


@pytest.mark.parametrize(
    ("options", "changed"),
    [(["--seed", "1"], "seed"), (["--size", "3"], "config"), (["--shard-size", "2"], "shards")],
)
def test_shards_of_other_settings_are_not_used(finish_corpus, run_corpus, tmp_path, options, changed):
    assert finish_corpus("--fail", "8").returncode == 2
    (tmp_path / "log").unlink()
    done = finish_corpus(*options)
    assert done.returncode == 0
    assert done.stderr == f"{tmp_path}/.out.building: an interrupted build had other {changed}; starting anew.\n"
    assert calls(tmp_path / "log")[0] == 0
    assert run_corpus(tmp_path / "fresh", "--units", UNITS, *options).returncode == 0
    assert files_of(tmp_path / "out") == files_of(tmp_path / "fresh")


def test_shards_of_other_code_are_not_used(run_program, engine_corpus, tmp_path):
    program = tmp_path / "builder.py"
    source = Path(engine_corpus.__file__).read_text()
    program.write_text(source)
    assert run_program(program, "--out", tmp_path / "out", "--shard-size", "1", "--fail", "8").returncode == 2
    program.write_text(source.replace("ü€😀", "other"))
    done = run_program(program, "--out", tmp_path / "out", "--shard-size", "1")
    assert done.returncode == 0 and "an interrupted build had other code; starting anew." in done.stderr
    assert "ü€😀" not in (tmp_path / "out/rows.jsonl").read_text()


def test_a_shortened_file_is_built_again(finish_corpus, expected, tmp_path):
    """As a power cut may leave it."""
    assert finish_corpus("--fail", "8").returncode == 2
    rows = tmp_path / ".out.building/rows-00005.jsonl"
    rows.write_bytes(rows.read_bytes()[:-5])
    (tmp_path / ".out.building/shard-00002.json").write_bytes(b'{"sizes"')
    (tmp_path / "log").unlink()
    assert finish_corpus().returncode == 0
    assert calls(tmp_path / "log") == [2, 5, *range(8, UNITS)]
    assert files_of(tmp_path / "out") == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_by_the_user(start_corpus, finish_corpus, expected, tmp_path, workers):
    with start_corpus("--workers", workers, "--delay", "0.1") as process:
        wait_for(lambda: len(finished(tmp_path / ".out.building")) >= 3)
        os.killpg(process.pid, signal.SIGINT)  # a terminal tells the whole group
        stderr = process.communicate(timeout=30)[1]
    kept = len(finished(tmp_path / ".out.building"))
    assert process.returncode == 130 and 3 <= kept < UNITS
    assert re.fullmatch(rf"engine_corpus.py: interrupted\. {kept} of 12 shards stay in .*; run the same .*\n", stderr)
    assert finish_corpus().returncode == 0
    assert files_of(tmp_path / "out") == expected


def test_a_second_process_is_refused(start_corpus, finish_corpus, expected, tmp_path):
    with start_corpus("--delay", "0.1") as first:
        wait_for(lambda: calls(tmp_path / "log"))
        second = finish_corpus()
        assert second.returncode == 2 and "another process is building this corpus" in second.stderr
        assert first.communicate(timeout=30) and first.returncode == 0
    assert calls(tmp_path / "log") == list(range(UNITS))
    assert files_of(tmp_path / "out") == expected


def test_processes_that_start_together(start_corpus, expected, tmp_path):
    """One of them builds, whatever the others meet; nothing is left over."""
    processes = [start_corpus() for _ in range(4)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes].count(0) == 1
    refusals = [error for process, error in zip(processes, errors, strict=True) if process.returncode]
    assert all("another process is building" in error or "pass --overwrite" in error for error in refusals)
    assert files_of(tmp_path / "out") == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "out"]


def test_a_full_disk_keeps_the_finished_shards(run_program, engine_corpus, finish_corpus, tmp_path):
    """A limit on file size stands for the full disk: shards of one row fit, those of two do not, nor does the whole."""
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), -1)); "
        "sys.argv = sys.argv[2:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    log, size = tmp_path / "log", ["--size", "3000"]
    program = [engine_corpus.__file__, "--out", tmp_path / "out", "--units", UNITS, "--shard-size", 1, "--log", log]
    kept = tmp_path / ".out.building"
    for limit, shards in ((5000, 2), (20_000, UNITS)):
        done = run_program("-c", limited, limit, *program, *size)
        assert done.returncode == 2 and "no space left while writing" in done.stderr, done.stderr
        assert f" {shards} of 12 shards stay in {kept};" in done.stderr and done.stderr.count("\n") == 1
        assert finished(kept) == set(range(shards)) and not list(kept.glob(".*")) and not (kept / "corpus").exists()
    assert finish_corpus(*size).returncode == 0
    assert calls(log) == [0, 1, 2, *range(2, UNITS)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "out"]


def test_a_worker_that_is_killed(finish_corpus, expected, tmp_path):
    done = finish_corpus("--workers", 2, "--kill", 8, "--delay", "0.02")
    assert done.returncode == 2 and "--workers 2: a worker process was ended from outside" in done.stderr
    kept = finished(tmp_path / ".out.building")
    assert f" {len(kept)} of 12 shards stay" in done.stderr and kept
    (tmp_path / "log").unlink()
    assert finish_corpus("--workers", 2).returncode == 0
    assert set(calls(tmp_path / "log")) == set(range(UNITS)) - kept
    assert files_of(tmp_path / "out") == expected


def test_a_folder_of_somebody_else_is_left_alone(finish_corpus, tmp_path):
    working = tmp_path / ".out.building"
    working.mkdir()
    (working / "thesis.txt").write_text("x")
    done = finish_corpus()
    assert done.returncode == 2 and "holds thesis.txt, which no builder wrote" in done.stderr
    assert (working / "thesis.txt").read_text() == "x"
