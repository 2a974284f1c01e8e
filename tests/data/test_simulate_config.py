"""Knobs, refusals, the command, and the general-language rows."""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from onereason.cli import main
from onereason.data.simulate import WorldConfig, general_rows, simulate_world, write_world
from onereason.errors import ConfigError, StorageError


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"noise": 0.9}, "noise must lie between 0.0 and 0.5, got 0.9"),
        ({"noise": float("nan")}, "noise must lie between"),
        ({"chain_length": 2}, "chain_length must lie between 3 and 10, got 2"),
        ({"users": 0}, "users must lie between 1 and"),
        ({"users": 2.5}, "users should be of type int, got 2.5"),
        ({"items": 100}, r"items must be at least \d+ .* got 100; raise --items"),
        ({"topics": 10}, "topics must be a multiple of 4, got 10"),
        ({"personas": 7}, "personas must lie between 1 and 6, got 7"),
        ({"shared_device_share": -0.1}, "shared_device_share must lie between"),
        ({"saturation": 5}, r"saturation \(5\) must be at most half of window \(8\)"),
        ({"min_length": 40}, r"max_length \(36\) must be at least min_length \(40\)"),
        ({"start": "01.02.2025"}, "start must be a day written YYYY-MM-DD, got '01.02.2025'"),
        ({"seed": -1}, "seed must lie between 0"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WorldConfig(**knobs)


@pytest.mark.parametrize(
    "knobs",
    [
        {"users": 1, "items": 400, "shared_device_share": 1.0},
        {"users": 20, "items": 96, "topics": 8, "personas": 1},
        {"users": 20, "items": 400, "chain_length": 10, "noise": 0.5},
        {"users": 20, "items": 400, "window": 3, "saturation": 1, "min_length": 5, "max_length": 5},
        {"users": 20, "items": 400, "style_strength": 1.0, "popularity_exponent": 0.0},
    ],
)
def test_worlds_at_the_edge_of_the_knobs(knobs: dict) -> None:
    config = WorldConfig(**knobs)
    world = simulate_world(config)
    truth = world.truth["interactions"]
    assert truth["user_id"].n_unique() == config.users
    assert truth.filter(pl.col("moved"))["relations"].list.len().unique().to_list() == [config.num_moves]
    assert world.truth["users"]["num_interactions"].min() >= config.min_length


def test_start_moves_the_clock_and_nothing_else() -> None:
    a, b = (
        simulate_world(WorldConfig(users=10, items=400, start=s)).dataset.interactions
        for s in ("2025-01-01", "2025-01-03")
    )
    assert (b["timestamp"] - a["timestamp"]).unique().to_list() == [2 * 86_400]
    assert a.drop("timestamp").equals(b.drop("timestamp"))


def test_progress_reaches_the_number_of_users() -> None:
    calls: list[tuple[int, int]] = []
    simulate_world(WorldConfig(users=15, items=400), lambda done, total: calls.append((done, total)))
    assert calls[-1] == (15, 15) and [c[0] for c in calls] == sorted(c[0] for c in calls)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    world = simulate_world(WorldConfig(users=5, items=400))
    broken = type(world)(**{**world.__dict__, "truth": {**world.truth, "zzz": "not a table"}})
    with pytest.raises(AttributeError):
        write_world(broken, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_kept_unless_told(tmp_path: Path) -> None:
    world = simulate_world(WorldConfig(users=5, items=400))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(StorageError, match="not empty; choose another path or pass --overwrite"):
        write_world(world, tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"
    with pytest.raises(StorageError, match="was not written by onereason"):
        write_world(world, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"
    write_world(world, tmp_path / "new")
    (tmp_path / "new" / "truth" / "users.parquet").unlink()
    write_world(world, tmp_path / "new", overwrite=True)
    assert (tmp_path / "new" / "truth" / "users.parquet").is_file()


def test_command_writes_a_world_and_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "w"
    flags = ["--users", "30", "--items", "400", "--noise", "0.2", "--chain-length", "5", "--check"]
    assert main(["simulate", "--out", str(out), *flags]) == 0
    printed = capsys.readouterr().out
    assert "30 users, 400 items" in printed and "oracle" in printed
    assert pl.read_parquet(out / "truth" / "users.parquet")["test_relations"].list.len().unique().to_list() == [3]


def test_help_needs_no_heavy_import() -> None:
    code = (
        "import argparse, sys; from onereason.commands import simulate;"
        "simulate.add_arguments(argparse.ArgumentParser());"
        "print([m for m in ('torch', 'polars', 'sklearn', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--out", str(tmp_path / "w"), "--noise", "2"]) == 2
    error = capsys.readouterr().err
    assert error.strip() == "onereason simulate: noise must lie between 0.0 and 0.5, got 2.0."
    assert list(tmp_path.iterdir()) == []


def _solve(question: str) -> str:
    """The answers once more, read off the question's text."""
    numbers = [int(n) for n in re.findall(r"(?<![\d-])\d+(?![\d-])", question)]
    dates = [datetime.date.fromisoformat(d) for d in re.findall(r"\d{4}-\d\d-\d\d", question)]
    words = re.split(r"[, ]+", re.split(r": ?", question)[-1].rstrip(".?")) if ":" in question else []
    quoted = re.findall(r"'(.*?)'", question)
    if "plus" in question:
        return str(sum(numbers))
    if "Subtract" in question:
        return str(numbers[1] - numbers[0])
    if "pencils" in question:
        return str(numbers[0] * numbers[1])
    if "remains" in question:
        return str(numbers[0] % numbers[1])
    if "days after" in question:
        return (dates[0] + datetime.timedelta(days=numbers[0])).isoformat()
    if "day of the week" in question:
        return dates[0].strftime("%A")
    if "days lie" in question:
        return str((dates[1] - dates[0]).days)
    if "largest" in question:
        return str(max(numbers))
    if "Sort" in question:
        return ", ".join(sorted(words))
    if "How many words" in question:
        return str(len(words))
    if "word of this list" in question:
        return words[["first", "second", "third"].index(question.split()[2])]
    if "capital" in question:
        return quoted[0].upper()
    if "backwards" in question:
        return quoted[0][::-1]
    if "replace" in question:
        return quoted[0].replace(quoted[1], quoted[2])
    assert "hyphens" in question
    return "-".join(words)


def test_general_rows_are_right_and_repeatable() -> None:
    rows = general_rows(11, 400)
    assert rows == general_rows(11, 400) and rows != general_rows(12, 400)
    assert {r["kind"]: sum(q["kind"] == r["kind"] for q in rows) for r in rows} == dict.fromkeys(
        ("arithmetic", "dates", "lists", "strings"), 100
    )
    for row in rows:
        user, assistant = row["messages"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        assert assistant["content"] == row["answer"] == _solve(user["content"])
    with pytest.raises(ConfigError, match="n must not be negative, got -1"):
        general_rows(0, -1)
