"""Persona texts: wording, grouping, captions, and nothing after the training part."""

from __future__ import annotations

import pytest

from data_builders.build_persona import main, persona_row
from data_builders.common import ItemTexts
from onereason.data.chat import check_row
from onereason.data.prompts import persona_templates
from onereason.io import read_json, read_jsonl


def build(world, out, *more: str) -> int:
    return main([*world.data, "--catalog", str(world.root / "catalog"), "--out", str(out), *more])


def items_of(world) -> ItemTexts:
    texts = ItemTexts.of(world.catalog)
    return ItemTexts(texts.patterns, [c.rstrip(".") for c in texts.captions], texts.domains, texts.format)


def test_grouped_by_domain_the_newest_domain_last(world):
    p = world.patterns
    row = persona_row("u", [0, 1, 4], items_of(world), template=0)  # video, prod, video
    assert row == {
        "id": "u:persona:0",
        "task": "persona",
        "loss": "all",
        "mode": "no_think",
        "user": "u",
        "text": "A portrait of one user.\n"
        "Of the products, the user liked these:\n"
        f"product {p[1]}, captioned thing number 1.\n"
        "Of the videos, the user liked these:\n"
        f"video {p[0]}, captioned thing number 0.\n"
        f"video {p[4]}, captioned thing number 4.",
    }


def test_grouped_by_recency(world):
    p = world.patterns
    text = persona_row("u", [0, 1, 4, 5], items_of(world), template=3)["text"]
    # 4 items in thirds: edges 0, 4/3 -> 1, 8/3 -> 2, 4
    assert text.split("\n") == [
        "User profile.",
        "At first the user chose:",
        f"- thing number 0 {p[0]}",
        "Later the user chose:",
        f"- thing number 1 {p[1]}",
        "Most recently the user chose:",
        f"- thing number 4 {p[4]}",
        f"- thing number 5 {p[5]}",
    ]
    assert persona_row("u", [4], items_of(world), template=3)["text"].split("\n")[1] == "Recently the user chose:"


@pytest.mark.parametrize("template", range(len(persona_templates())))
@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_every_item_stands_once_beside_its_caption(world, template, length):
    items, history = items_of(world), [7, 0, 4, 9, 5][:length]
    lines = persona_row("u", history, items, template)["text"].split("\n")
    for item in history:
        found = [line for line in lines if items.patterns[item] in line]
        assert len(found) == 1 and items.captions[item] in found[0]
    assert sum("<s_a_" in line for line in lines) == length


def test_corpus(world, tmp_path):
    assert build(world, tmp_path / "out", "--variants", "5") == 0
    rows = read_jsonl(tmp_path / "out/rows.jsonl")
    assert [row["id"] for row in rows] == [f"{u}:persona:{v}" for u in ("ann", "bob", "cid", "dee") for v in range(5)]
    known = {"ann": {0, 1, 3, 4, 5}, "bob": {8}, "cid": {11}, "dee": {3, 9}}  # item 2 has no caption
    for row in rows:
        check_row(row)
        shown = {i for i, pattern in enumerate(world.patterns) if pattern in row["text"]}
        assert shown == known[row["id"].partition(":")[0]]
    openings = {row["text"].partition("\n")[0] for row in rows if row["id"].startswith("ann")}
    assert openings == {template.opening for template in persona_templates()}
    assert read_json(tmp_path / "out/manifest.json")["counts"]["rows"] == 20


def test_newest_items_are_kept(world, tmp_path):
    assert build(world, tmp_path / "out", "--max-history", "2") == 0
    ann = read_jsonl(tmp_path / "out/rows.jsonl")[0]["text"]
    assert [i for i, pattern in enumerate(world.patterns) if pattern in ann] == [4, 5]


def test_the_seed_decides(world, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert build(world, tmp_path / name, "--seed", seed) == 0
    a, b, c = ((tmp_path / name / "rows.jsonl").read_bytes() for name in "abc")
    assert a == b != c


def test_users_without_captioned_items_are_counted(world, tmp_path):
    options = ["--split-method", "temporal", "--validation-start", "0", "--test-start", "3"]
    assert build(world, tmp_path / "out", *options) == 2  # nobody has a training item
    options[3] = "1"
    assert build(world, tmp_path / "out", *options) == 0
    assert read_json(tmp_path / "out/manifest.json")["rejected"] == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--variants", "6"], "--variants must be at most 5 (the templates), got 6"),
        (["--max-history", "0"], "--max-history must be at least 1, got 0"),
        (["--max-caption-chars", "0"], "--max-caption-chars must be at least 1, got 0"),
    ],
)
def test_mistakes(world, tmp_path, capsys, options, message):
    assert build(world, tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []
