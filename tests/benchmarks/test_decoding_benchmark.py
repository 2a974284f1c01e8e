"""The decoding benchmark runs, and its last line holds the figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


def test_figures_stand_on_the_last_line(repository):
    small = {"prompts": 2, "tokens": 12, "beams": 3, "levels": 3, "codes": 8, "items": 50, "hidden": 64, "layers": 1}
    arguments = [part for name, value in small.items() for part in (f"--{name}", str(value))]
    arguments += ["--repeats", "1", "--grow-beams", "5", "--grow-tokens", "--grow-items"]
    done = subprocess.run(
        [sys.executable, str(repository / "benchmarks" / "decoding.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(repository)},
    )
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout.splitlines()[-1])
    assert value["comparison"]["shape"] == small
    systems = value["comparison"]["systems"]
    for system in ("prefix_fn", "processor"):
        ratio = systems[system]["seconds"] / systems["beam_search"]["seconds"]
        assert value[f"speedup_{system}"] == pytest.approx(ratio)
        assert value[f"same_sequences_{system}"] is True
    assert value["max_score_difference"] < 1e-4 and value["prefill_ratio"] > 0 and value["trie_build_seconds"] > 0
    assert [(row["grown"], row["value"]) for row in value["growth"]] == [("beams", 5)]
