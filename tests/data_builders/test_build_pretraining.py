"""Pre-training corpora: both forms one to one, any format and language, nothing after the training part."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from data_builders.build_pretraining import main
from onereason.data.chat import check_row
from onereason.data.schema import INTERACTION_SCHEMA, ITEM_SCHEMA, Dataset, save_dataset
from onereason.io import read_json, read_jsonl
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format

FORMAT = load_format("onereason", 2, 8)
NUM_ITEMS = 40
PLANTED = (NUM_ITEMS - 2, NUM_ITEMS - 1)
"""Items that only validation and test hold."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Two domains, dates, searches, captions and attributes; the training part repeats short paths of items."""
    root = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    domains = ["video" if i % 2 == 0 else "prod" for i in range(NUM_ITEMS)]
    categories = [("tea", "tents", "trains")[i // 2 % 3] for i in range(NUM_ITEMS)]
    captions = [f"{categories[i]} for calm people, number {i}" for i in range(NUM_ITEMS)]
    names = [f"i{i}" for i in range(NUM_ITEMS)]
    codes = np.stack([np.arange(NUM_ITEMS) // 8, np.arange(NUM_ITEMS) % 8], 1)
    catalog = Catalog(FORMAT, names, codes, domains, captions)
    catalog.save(root / "catalog")
    attributes = [json.dumps({"category": categories[i], "brand": f"brand{i % 4}"}) for i in range(NUM_ITEMS)]
    columns = {"item_id": names, "domain": domains, "title": captions, "text": captions, "attributes": attributes}
    rows = []
    for user in range(30):
        start = int(rng.integers(0, NUM_ITEMS - 12))
        history = [*range(start, start + 8), *PLANTED]
        times = 1_700_000_000 + np.arange(len(history)) * 600
        typed = ["tea" if at == 3 and user % 3 == 0 else "" for at in range(len(history))]
        rows += [
            (f"u{user:02}", names[i], int(t), "click", domains[i], q)
            for i, t, q in zip(history, times, typed, strict=True)
        ]
    schema = {**INTERACTION_SCHEMA, "query": pl.String}
    interactions = pl.DataFrame(rows, schema=schema, orient="row")
    save_dataset(Dataset(pl.DataFrame(columns, schema=ITEM_SCHEMA), interactions), root / "data")
    text = root / "text.jsonl"
    text.write_text("".join(json.dumps({"text": f"Sentence number {n}."}) + "\n" for n in range(50)), "utf-8")
    patterns = [catalog.render(i) for i in range(NUM_ITEMS)]
    return SimpleNamespace(root=root, patterns=patterns, text=text)


def build(shop, out, *more: str) -> int:
    return main(["--data", str(shop.root / "data"), "--catalog", str(shop.root / "catalog"), "--out", str(out), *more])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_corpus(shop, tmp_path, language):
    assert build(shop, tmp_path / "out", "--language", language) == 0
    rows = read_jsonl(tmp_path / "out/rows.jsonl")
    for row in rows:
        check_row(row)
        assert "{" not in json.dumps(row.get("text") or row["messages"][-1]["content"]), row
    assert {row["task"] for row in rows} == {"token", "item", "relational", "user"}
    forms = Counter((":".join(row["id"].split(":")[:2]), row["id"].rpartition(":")[2]) for row in rows)
    kinds = {kind for kind, _ in forms}
    assert kinds == {
        *("token:prefix", "token:parts"),
        *(f"item:{kind}" for kind in ("caption", "grounding", "audience", "appeal", "dislike")),
        *(f"relational:{kind}" for kind in ("next", "cross_domain", "search", "flow")),
        *(f"user:{kind}" for kind in ("grouped", "interleaved", "chain")),
    }
    assert all(forms[kind, "qa"] == forms[kind, "free"] > 0 for kind in kinds)
    for row in rows:
        assert ("messages" in row) == row["id"].endswith(":qa") and ("text" in row) == row["id"].endswith(":free")
        free_loss = "next_items" if row["id"].startswith("user:chain") else "all"
        assert row["loss"] == ("assistant" if "messages" in row else free_loss)
    config = read_json(tmp_path / "out/manifest.json")["config"]
    assert config["prompt_version"] == f"domains/{language}/1, pretraining/{language}/1"
    if language == "zh":  # the wording is Chinese; captions and categories are the dataset's
        assert sum(any("\u4e00" <= c <= "\u9fff" for c in json.dumps(row, ensure_ascii=False)) for row in rows) == len(
            rows
        )


def test_only_training_interactions_appear(shop, tmp_path):
    assert build(shop, tmp_path / "out", "--granularity", "relational,user", "--min-support", "1") == 0
    text = (tmp_path / "out/rows.jsonl").read_text("utf-8")
    assert not any(shop.patterns[item] in text for item in PLANTED)
    assert build(shop, tmp_path / "items", "--granularity", "item") == 0  # what an item is says nothing about users
    assert all(shop.patterns[item] in (tmp_path / "items/rows.jsonl").read_text("utf-8") for item in PLANTED)


def test_one_granularity_a_corpus(shop, tmp_path):
    assert build(shop, tmp_path / "all") == 0
    every = read_jsonl(tmp_path / "all/rows.jsonl")
    parts = []
    for name in ("token", "item", "relational", "user"):
        assert build(shop, tmp_path / name, "--granularity", name) == 0
        rows = read_jsonl(tmp_path / name / "rows.jsonl")
        assert {row["task"] for row in rows} == {name}
        parts += rows
    assert parts == every


def test_same_bytes_whatever_the_shards(shop, tmp_path):
    balance = ["--balance", str(shop.text), "--balance-share", "0.1"]
    for name, more in (
        ("a", ["--shard-size", "7"]),
        ("b", ["--shard-size", "5000"]),
        ("c", ["--seed", "1"]),
        ("d", ["--workers", "2", "--shard-size", "60"]),
    ):
        assert build(shop, tmp_path / name, *more, *balance) == 0
    a, b, c, d = ((tmp_path / name / "rows.jsonl").read_bytes() for name in "abcd")
    assert a == b == d != c


@pytest.mark.parametrize("as_corpus", [False, True])
def test_balance_share(shop, tmp_path, as_corpus):
    source = shop.text
    if as_corpus:
        (tmp_path / "general").mkdir()
        (tmp_path / "general/rows.jsonl").write_bytes(shop.text.read_bytes())
        source = tmp_path / "general"
    options = ["--granularity", "item", "--balance", str(source), "--balance-share", "0.25"]
    assert build(shop, tmp_path / "out", *options) == 0
    rows = read_jsonl(tmp_path / "out/rows.jsonl")
    balance = [row for row in rows if row["task"] == "balance"]
    # 40 items with 5 kinds in 2 forms are 400 rows; a third of that is a quarter of all
    assert len(rows) - len(balance) == 400 and len(balance) == 133
    assert {row["loss"] for row in balance} == {"none"} and {row["mode"] for row in balance} == {"no_think"}
    assert set(Counter(row["text"] for row in balance).values()) == {2, 3}  # 133 over 50 lines
    assert len({row["id"] for row in rows}) == len(rows)


@pytest.mark.parametrize("preset", ["openonerec", "minionerec"])
def test_other_formats(shop, tmp_path, preset):
    """Tokens that tell no domains apart: histories still have two domains, in words."""
    old = Catalog.load(shop.root / "catalog")
    Catalog(load_format(preset, 2, 8), old.item_ids, old.codes, old.domains, old.captions).save(tmp_path / "catalog")
    options = [
        "--data",
        str(shop.root / "data"),
        "--catalog",
        str(tmp_path / "catalog"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(options) == 0
    rows = read_jsonl(tmp_path / "out/rows.jsonl")
    for row in rows:
        check_row(row)
    assert {row["task"] for row in rows} == {"token", "item", "relational", "user"}
    assert any("<|sid_begin|>" in json.dumps(row) for row in rows) == (preset == "openonerec")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--granularity", "word"], "--granularity 'word' must name token, item, relational, user"),
        (["--granularity", "item,item"], "each at most once"),
        (["--min-support", "0"], "--min-support must be at least 1, got 0"),
        (["--window-hours", "nan"], "--window-hours must be at least 0, got nan"),
        (["--window-hours", "inf"], "--window-hours must be at least 0, got inf"),
        (["--max-hops", "1"], "--max-hops must be at least 2, got 1"),
        (["--caption-share", "1.5"], "--caption-share must lie between 0 and 1, got 1.5"),
        (["--balance-share", "0.5"], "--balance FILE and --balance-share belong together"),
        (["--balance", "nowhere", "--balance-share", "0.5"], "--balance nowhere: expected a JSON-lines file"),
        (["--balance-share", "1"], "--balance-share must be at least 0 and below 1"),
        (["--language", "xx"], "prompt set 'domains' for language 'xx' not found"),
    ],
)
def test_mistakes(shop, tmp_path, capsys, options, message):
    assert build(shop, tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []
