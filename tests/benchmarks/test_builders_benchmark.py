"""The builders' benchmark runs every corpus, and its table and its figures agree."""

from __future__ import annotations

import json
import os
import subprocess
import sys

CORPORA = {
    "persona",
    "sequential",
    "caption",
    "pretraining",
    "perception",
    "derivation",
    "evolution",
    "rationale",
    "recommendation",
    "instruction",
}


def test_figures_stand_on_the_last_line(repository):
    command = [sys.executable, str(repository / "benchmarks" / "builders.py"), "--quick"]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    figures = json.loads(last)
    assert (figures["users"], figures["items"]) == (600, 1200)
    assert set(figures["corpora"]) == CORPORA
    for name, case in figures["corpora"].items():
        assert any(
            line.startswith(f"| {name} | {case['rows']:,} | {case['rows_per_second_per_core']:,} |") for line in table
        ), name
        assert case["rows"] > 100 and 0 < case["peak_gib"] < 4
    assert figures["corpora"]["caption"]["rows"] == 1200  # an item a row
    assert figures["corpora"]["sequential"]["rows"] >= 1200  # two styles of 600 users
    rates = [case["rows_per_second_per_core"] for case in figures["corpora"].values()]
    assert min(rates) <= figures["rows_per_second_per_core"] <= max(rates)
    assert list(figures["slowest"].values()) == [min(rates)]
    assert figures["peak_gib"] == max(case["peak_gib"] for case in figures["corpora"].values())
    assert figures["speedup_write"] > 1
