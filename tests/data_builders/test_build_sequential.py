"""Sequential rows: windows, cuts, both styles, and nothing after the training part."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.build_sequential import main, perturb, random_cuts, sequential_row, windows
from data_builders.common import ItemTexts
from onereason.data.chat import check_row
from onereason.data.prompt_sets import load_prompt_set
from onereason.io import read_json, read_jsonl


def build(world, out, *more: str) -> int:
    return main([*world.data, "--catalog", str(world.root / "catalog"), "--out", str(out), *more])


def text_of(row: dict) -> str:
    return row.get("text") or "".join(m["content"] for m in row["messages"])


def test_row_of_each_style(world):
    items = ItemTexts.of(world.catalog)
    p = world.patterns
    chat = sequential_row("u", [0, 1, 3], items, "chat", 7)
    question = f"The user's history in chronological order:\n{p[0]}{p[1]}\nWhich product comes next? /no_think"
    assert chat == {
        "id": "u:chat:7",
        "task": "sequential",
        "loss": "next_items",
        "mode": "no_think",
        "domain": "prod",
        "user": "u",
        "messages": [
            {"role": "system", "content": load_prompt_set("recommendation").text("system")},
            {"role": "user", "content": question},
            {"role": "assistant", "content": p[3]},
        ],
    }
    plain = sequential_row("u", [0, 1, 3], items, "plain", 7)
    assert plain == {k: chat[k] for k in ("task", "loss", "mode", "domain", "user")} | {
        "id": "u:plain:7",
        "text": p[0] + p[1] + p[3],
    }


def test_windows_share_one_item():
    # 3 items before each answer: [4, 8) supervises 5 6 7, [1, 5) supervises 2 3 4, [0, 2) supervises 1
    assert windows(8, 3) == [(0, 2), (1, 5), (4, 8)]
    assert windows(4, 3) == [(0, 4)]
    assert windows(1, 3) == windows(0, 3) == []


@given(length=st.integers(0, 200), max_history=st.integers(1, 60))
def test_every_item_but_the_first_is_supervised_once(length, max_history):
    spans = windows(length, max_history)
    assert Counter(i for start, end in spans for i in range(start + 1, end)) == Counter(range(1, length))
    assert all(1 <= end - 1 - start <= max_history for start, end in spans)


def test_cuts_end_at_places_of_their_own():
    cuts = random_cuts(8, 3, 4, random.Random(0))
    ends = [end for _, end in cuts]
    assert len(set(ends)) == 4 and not set(ends) & {2, 5, 8} and all(start == max(0, end - 4) for start, end in cuts)
    assert random_cuts(2, 3, 4, random.Random(0)) == []
    assert [end for _, end in random_cuts(6, 9, 99, random.Random(0))] == [2, 3, 4, 5]  # all there are


def test_corpus(world, tmp_path):
    assert build(world, tmp_path / "out") == 0
    rows = read_jsonl(tmp_path / "out/rows.jsonl")
    assert [row["id"] for row in rows] == ["ann:chat:6", "ann:plain:6", "dee:chat:3", "dee:plain:3"]
    p = world.patterns
    assert rows[1]["text"] == "".join(p[:6]) and rows[3]["text"] == p[3] + p[2] + p[9]
    for row in rows:
        check_row(row)
    manifest = read_json(tmp_path / "out/manifest.json")
    assert manifest["counts"] == {"rows": 4, "mode_no_think": 4, "task_sequential": 4, "domain_prod": 4}
    assert manifest["rejected"] == {"fewer_than_2_training_items": 2}  # bob and cid
    assert manifest["rejected_examples"] == {
        "fewer_than_2_training_items": [{"id": "bob", "detail": "1 items"}, {"id": "cid", "detail": "1 items"}]
    }
    assert manifest["config"]["max_history"] == 50 and manifest["seed"] == 0
    assert set(manifest["inputs"]) == {"interactions.parquet", "catalog.parquet", "catalog.json"}
    card = (tmp_path / "out/CARD.md").read_text()
    assert "# Sequential preference modelling" in card and "| fewer_than_2_training_items | 2 |" in card


def test_no_validation_or_test_item_is_in_any_row(world, tmp_path):
    assert build(world, tmp_path / "out", "--cuts", "9", "--max-history", "2") == 0
    rows = read_jsonl(tmp_path / "out/rows.jsonl")
    held_out = {"ann": (6, 7), "dee": (1, 12)}
    for row in rows:
        for item in held_out[row["id"].partition(":")[0]]:
            assert world.patterns[item] not in text_of(row)


def test_cuts_and_styles(world, tmp_path):
    options = ["--styles", "plain", "--cuts", "2", "--max-history", "3", "--seed", "5"]
    assert build(world, tmp_path / "out", *options) == 0
    ids = [row["id"] for row in read_jsonl(tmp_path / "out/rows.jsonl")]
    # ann has 6 training items: windows end at 3 and 6, cuts at two of 2, 4, 5; dee has 3: a window at 3, a cut at 2
    assert ids[:2] == ["ann:plain:3", "ann:plain:6"] and set(ids[2:4]) < {f"ann:plain:{end}" for end in (2, 4, 5)}
    assert ids[4:] == ["dee:plain:3", "dee:plain:2"] and len(set(ids)) == 6
    assert build(world, tmp_path / "again", *options) == 0
    for name in ("rows.jsonl", "manifest.json", "CARD.md"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@given(length=st.integers(2, 30), drop=st.floats(0, 0.99), swap=st.floats(0, 1), seed=st.integers(0, 10))
def test_copies_keep_at_least_two_items_and_move_none_further_than_one_place(length, drop, swap, seed):
    copy = perturb(range(length), drop, swap, random.Random(seed))
    assert 2 <= len(copy) == len(set(copy)) and set(copy) <= set(range(length))
    assert all(abs(place - sorted(copy).index(item)) <= 1 for place, item in enumerate(copy))


def test_copies_at_the_extremes():
    assert perturb([5, 6, 7, 8, 9], 0, 0, random.Random(0)) == [5, 6, 7, 8, 9]
    assert perturb([5, 6, 7, 8, 9], 0, 1, random.Random(0)) == [6, 5, 8, 7, 9]


def test_corpus_with_copies(world, tmp_path):
    options = ["--styles", "plain", "--copies", "2", "--drop", "0.5", "--swap", "0.5"]
    assert build(world, tmp_path / "out", *options) == 0
    rows = {row["id"]: row["text"] for row in read_jsonl(tmp_path / "out/rows.jsonl")}
    users = {"ann:plain:6": range(6), "dee:plain:3": (3, 2, 9)}
    assert set(rows) == {base + end for base in users for end in ("", ":copy1", ":copy2")}
    for row_id, text in rows.items():
        known = users[row_id.partition(":copy")[0]]
        shown = {i for i, pattern in enumerate(world.patterns) if pattern in text}
        assert shown <= set(known) and len(shown) >= 2


def test_temporal_split(world, tmp_path):
    options = ["--split-method", "temporal", "--validation-start", "2", "--test-start", "3", "--styles", "plain"]
    assert build(world, tmp_path / "out", *options) == 0
    p = world.patterns  # timestamps 0 and 1 train
    texts = [row["text"] for row in read_jsonl(tmp_path / "out/rows.jsonl")]
    assert texts == [p[0] + p[1], p[8] + p[9], p[3] + p[2]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--styles", "poem"], "--styles 'poem' must name chat, plain or one of them, each once."),
        (["--styles", "chat,chat"], "--styles 'chat,chat' must name"),
        (["--max-history", "0"], "--max-history (0) must be at least 1"),
        (["--drop", "1"], "--drop (1.0) in 0 <= p < 1"),
        (["--split-method", "temporal"], "--split-method temporal needs --validation-start and --test-start"),
        (["--test-start", "4"], "--validation-start and --test-start belong to --split-method temporal"),
        (["--catalog", "nowhere"], "nowhere holds no catalog"),
        (["--data", "nowhere"], "nowhere is not a dataset folder"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_nothing(world, tmp_path, capsys, options, message):
    assert build(world, tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_existing_corpus_is_kept_unless_told_otherwise(world, tmp_path, capsys):
    assert build(world, tmp_path / "out") == 0
    assert build(world, tmp_path / "out", "--styles", "plain") == 2
    assert "pass --overwrite" in capsys.readouterr().err
    assert build(world, tmp_path / "out", "--styles", "plain", "--overwrite") == 0
    assert len(read_jsonl(tmp_path / "out/rows.jsonl")) == 2


def test_beauty_supervises_every_training_item_but_the_first(shared_dir, tmp_path):
    """198,502 interactions of 22,363 users less two held-out items and one first item each: 131,413 targets."""
    import json

    with (shared_dir / "data/beauty/interactions.jsonl").open("rb") as lines:
        lengths = [len(json.loads(line)["item_ids"]) - 2 for line in lines]
    assert sum(end - start - 1 for n in lengths for start, end in windows(n, 50)) == 198_502 - 3 * 22_363
