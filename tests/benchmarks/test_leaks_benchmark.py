"""The leaks benchmark runs, and its last line holds the figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from benchmarks.leak_kinds import PLANTS


def test_figures_stand_on_the_last_line(repository):
    arguments = ["--quick", "--planted", "4", "--users", "60", "--items", "120"]
    done = subprocess.run(
        [sys.executable, str(repository / "benchmarks" / "leaks.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(repository)},
    )
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout.splitlines()[-1])
    assert set(value["kinds"]) == set(PLANTS)
    assert all(one["caught"] == one["planted"] for one in value["kinds"].values()), value["kinds"]
    assert value["planted"] == value["caught"] == sum(one["planted"] for one in value["kinds"].values()) > 100
    made = value["catalogues"]["made"]
    assert made["clean"] > 40 and made["false_alarm_rate"] == 0
    assert value["false_alarm_rate"] == pytest.approx(made["false_alarm_rate"])
    assert value["traces_per_second"] == made["traces_per_second"] > 0


def test_a_folder_without_beauty_is_said(repository, tmp_path):
    done = subprocess.run(
        [sys.executable, str(repository / "benchmarks" / "leaks.py"), "--quick", "--beauty", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and "holds no items.jsonl" in done.stderr
