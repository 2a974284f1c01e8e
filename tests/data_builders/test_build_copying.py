"""Rows that write a list of items again."""

from __future__ import annotations

from collections import Counter

import pytest

from data_builders.build_copying import main
from onereason.data.chat import check_row
from onereason.io import read_json, read_jsonl


def build(world, out, *more):
    return main(["--catalog", str(world.root / "catalog"), "--out", str(out), *more])


def test_each_row_is_a_list_and_the_same_list(world, tmp_path):
    assert build(world, tmp_path / "out", "--num-rows", "600", "--min-items", "2", "--max-items", "5") == 0
    rows = read_jsonl(tmp_path / "out/rows.jsonl")
    lengths, met = Counter(), Counter()
    for row in rows:
        check_row(row)
        question, answer = (message["content"] for message in row["messages"])
        items = world.catalog.format.parse(question).items
        written = [world.catalog.format.render(item.codes, item.domain) for item in items]
        assert question == answer == "".join(written) and len(set(written)) == len(written)
        lengths[len(written)] += 1
        met.update(written)
    assert len(rows) == 600 and set(lengths) == {2, 3, 4, 5} and min(lengths.values()) > 110  # 150 each, deviation 10.6
    assert set(met) == set(world.patterns)
    expected = sum(met.values()) / len(met)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in met.values())
    assert read_json(tmp_path / "out/manifest.json")["config"]["max_items"] == 5


def test_seeds_differ_and_workers_do_not(world, tmp_path):
    for name, more in (("a", ()), ("b", ("--workers", "2", "--shard-size", "16")), ("c", ("--seed", "1"))):
        assert build(world, tmp_path / name, "--num-rows", "64", "--max-items", "6", *more) == 0
    first, second, third = (read_jsonl(tmp_path / name / "rows.jsonl") for name in "abc")
    assert first == second and first != third


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--num-rows", "0"), "--num-rows must be at least 1, got 0"),
        (("--min-items", "0"), "lists of 0 to 16 items cannot be made"),
        (("--min-items", "4", "--max-items", "3"), "lists of 4 to 3 items cannot be made"),
        (("--max-items", "100"), "too few for lists of 100: lower --max-items"),
    ],
)
def test_lists_that_cannot_be_made(world, tmp_path, capsys, options, message):
    assert build(world, tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
