"""The tokenizer benchmark runs, and its last line holds the figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


def run(repository, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "benchmarks" / "tokenizer.py"), "--threads", "1", *arguments]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def test_figures_stand_on_the_last_line(repository):
    done = run(repository, "--vectors", "800", "--dim", "8", "--codes", "8", "--levels", "2", "--beam", "1")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout.splitlines()[-1])
    (row,) = value["results"]
    assert (row["num_vectors"], row["dim"], row["levels"], row["codes"]) == (800, 8, 2, 8)
    for system in ("onereason", "faiss"):
        assert 0 < row[system]["relative_mse"] < 1
        assert row[system]["seconds"] > 0
    assert row["ratio"]["seconds"] == pytest.approx(row["faiss"]["seconds"] / row["onereason"]["seconds"])


def test_a_case_past_its_time_limit_is_said_so(repository):
    done = run(repository, "--vectors", "800", "--dim", "8", "--codes", "8", "--time-limit", "0.01")
    assert done.returncode == 0, done.stderr
    assert "did not finish in 0.01 s" in " ".join(done.stdout.replace("│", " ").split())
    (row,) = json.loads(done.stdout.splitlines()[-1])["results"]
    assert row["onereason"] == row["faiss"] == {"did_not_finish_seconds": 0.01}
    assert row["ratio"] == {}


def test_codes_that_faiss_cannot_count_are_refused(repository):
    done = run(repository, "--codes", "100")
    assert done.returncode == 2
    assert "--codes 100 is not a power of 2" in done.stderr
