"""The cognition benchmark runs, and the template teacher finds the truth of a small world."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

WHAT = {"interests", "persona", "live", "relations", "bridges", "transitions", "chains"}


def run(repository, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "benchmarks" / "cognition.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.fixture(scope="module")
def agreement(repository):
    """The benchmark's counts of hits."""
    spec = importlib.util.spec_from_file_location("cognition_benchmark", repository / "benchmarks" / "cognition.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["cognition_benchmark"] = module
    spec.loader.exec_module(module)
    return module.Agreement


def test_figures_stand_on_the_last_line(repository):
    done = run(repository, "--users", "300", "--items", "600", "--seeds", "0,1")
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    figures = json.loads(last)
    assert (figures["users"], figures["items"], figures["seeds"]) == (300, 600, [0, 1])
    assert set(figures) >= WHAT
    for what in WHAT:
        for number, measure in enumerate(("precision", "recall")):
            by_seed = [seed[number] for seed in figures[what]["by_seed"]]
            assert figures[what][measure] == pytest.approx(sum(by_seed) / 2, abs=2e-4)
            assert 0 < figures[what][measure] <= 1
        row = f"| {what} | {figures[what]['precision']:.3f} | {figures[what]['recall']:.3f} |"
        assert row in table
    assert figures["interests"]["precision"] > 0.99 and figures["live"]["precision"] > 0.95


def test_precision_and_recall(agreement):
    found = agreement()
    assert (found.precision, found.recall) == (0, 0)
    found.add([1, 2, 3, 3], [2, 4])  # 1 of 3 found, 1 of 2 true
    found.add([], [5])
    assert (found.precision, found.recall) == (1 / 3, 1 / 3)
