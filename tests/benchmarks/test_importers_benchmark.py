"""The benchmark of the importers runs, both joins find the same, and its last line holds the figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


def test_figures_stand_on_the_last_line(repository, tmp_path):
    shape = {"items": 4000, "captions": 2000, "tags": 600, "users": 400}
    arguments = [part for name, rows in shape.items() for part in (f"--{name}", str(rows))]
    arguments += ["--entries", "20", "--memory-limit", "500MB", "--threads", "1", "--work", str(tmp_path)]
    arguments += ["--compare", "1", "--grow", "0.1", "1"]
    done = subprocess.run(
        [sys.executable, str(repository / "benchmarks" / "importers.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"PYTHONPATH": str(repository)},
    )
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout.splitlines()[-1])
    small, large = value["growth"]
    full = value["full"]
    # 4000 sids and 4 twice, 2000 captions, 600 tags, 400 users.
    assert full["shape"] == shape and full["table_rows"] == 4004 + 2000 + 600 + 400
    assert small["shape"] == {"items": 400, "captions": 200, "tags": 60, "users": 40}
    assert value["rows"] == full["rows"] == full["table_rows"] + full["list_entries"]
    assert value["rows_per_second"] == pytest.approx(value["rows"] / value["seconds"])
    assert value["growth_peak_gib"] == pytest.approx(large["peak_gib"] / small["peak_gib"])
    assert value["growth_rows"] == pytest.approx(large["rows"] / small["rows"]) and large["rows"] == full["rows"]
    assert small["memory_limit"] == large["memory_limit"] == "500MB"
    assert 0.05 < value["peak_gib"] < 1 and value["memory_limit"] == "500MB"
    ours, eager = value["comparison"]["ours"], value["comparison"]["eager"]
    assert (ours["interactions"], ours["items"]) == (eager["interactions"], eager["items"])
    assert value["comparison"]["peak_gib_ratio"] == pytest.approx(eager["peak_gib"] / ours["peak_gib"])
    assert list(tmp_path.iterdir()) == [], "tables and outputs are deleted"
