"""Itemic instructions: every answer worked out anew, over formats and languages; nothing after training."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from data_builders.build_instructions import InstructionSource, instruction_row, load_stock, main
from onereason.cognition.instructions import (
    GROUPS,
    Exercise,
    Kind,
    Scene,
    Stock,
    available_kinds,
    build_exercise,
    kind_of_unit,
)
from onereason.cognition.streams import Stream
from onereason.data.chat import check_row, parse_answer
from onereason.data.prompt_sets import load_prompt_set
from onereason.data.schema import INTERACTION_SCHEMA, ITEM_SCHEMA, Dataset, save_dataset
from onereason.io import read_json, read_jsonl
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import ItemicFormat, Marker, load_format

NUM_ITEMS, NUM_USERS = 60, 12
CATEGORIES = ("tea", "tents", "trains")
DAY = 86_400
HELD_OUT = (NUM_ITEMS - 2, NUM_ITEMS - 1)
"""Items that stand in no training history: what every user took second to last, and last."""

FORMATS = {
    "domains": (load_format("onereason", 3, 5), ("video", "prod", "living", "ad")),
    "one domain": (load_format("onereason", 3, 5), ("prod",)),
    "end tokens": (load_format("openonerec", 3, 5), ("video", "prod")),
    "no markers": (load_format("minionerec", 3, 5), ("item",)),
    "four levels": (load_format("onerec_think", 4, 4), ("item",)),
    "one level": (
        ItemicFormat("own", (16,), "[{level}:{code}]", {"x": Marker("(x)", "(/x)"), "y": Marker("(y)", "(/y)")}, True),
        ("x", "y"),
    ),
}
DOMAIN_KINDS = {
    "retrieve.of_domain",
    "match.same_domain",
    "match.which_domain",
    "match.group_by_domain",
    "compare.count_by_domain",
    "verify.all_of_domain",
}
DATE_KINDS = {"retrieve.before_date", "retrieve.after_date", "verify.ordered_by_date"}
LEVEL_KINDS = {"match.shared_codes", "verify.well_formed", "verify.count_well_formed", "verify.repair"}
LEFT_OUT = {
    "domains": set(),
    "one domain": DOMAIN_KINDS,
    "end tokens": DOMAIN_KINDS,
    "no markers": DOMAIN_KINDS | DATE_KINDS,
    "four levels": DOMAIN_KINDS,
    "one level": LEVEL_KINDS,
}
ALL_KINDS = {kind.name: kind for kinds in GROUPS.values() for kind in kinds}


def load_checker():
    path = Path(__file__).with_name("instruction_checker.py")
    spec = importlib.util.spec_from_file_location("instruction_checker", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["instruction_checker"] = module
    spec.loader.exec_module(module)
    return module.Checker


Checker = load_checker()


def write_world(root: Path, format: ItemicFormat, domains: tuple[str, ...], dated: bool) -> SimpleNamespace:
    """A dataset and catalog in which items 0 and 4 share a pattern, and nobody's training part holds `HELD_OUT`."""
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, size, NUM_ITEMS) for size in format.codes_per_level], 1)
    of = [domains[i % len(domains)] for i in range(NUM_ITEMS)]
    codes[4] = codes[0]
    codes[:-2, 0] %= format.codes_per_level[0] - 1
    codes[-2:, 0] = format.codes_per_level[0] - 1  # nobody else has the patterns of `HELD_OUT`
    titles = [f"thing {i}, {CATEGORIES[i % 3]}" for i in range(NUM_ITEMS)]
    names = [f"i{i}" for i in range(NUM_ITEMS)]
    catalog = Catalog(format, names, codes, of, titles)
    catalog.save(root / "catalog")
    attributes = [json.dumps({"category": CATEGORIES[i % 3]}) for i in range(NUM_ITEMS)]
    columns = {"item_id": names, "domain": of, "title": titles, "text": titles, "attributes": attributes}
    rows = []
    for user in range(NUM_USERS):
        history = [*rng.integers(0, NUM_ITEMS - 2, 9 + user).tolist(), *HELD_OUT]
        start = 1_700_000_000 if dated else 0
        step = DAY // 2 if dated else 1
        rows += [(f"u{user}", names[i], start + t * step, "click", of[i]) for t, i in enumerate(history)]
    interactions = pl.DataFrame(rows, schema=INTERACTION_SCHEMA, orient="row")
    save_dataset(Dataset(pl.DataFrame(columns, schema=ITEM_SCHEMA), interactions), root / "data")
    patterns = [catalog.render(i) for i in range(NUM_ITEMS)]
    called: dict[str, set[str]] = {}
    for pattern, title in zip(patterns, titles, strict=True):
        called.setdefault(pattern, set()).add(title)
    return SimpleNamespace(root=root, format=format, patterns=patterns, names=called)


@pytest.fixture(scope="module", params=list(FORMATS))
def world_of_format(request, tmp_path_factory):
    format, domains = FORMATS[request.param]
    world = write_world(tmp_path_factory.mktemp("world"), format, domains, request.param != "no markers")
    world.kind = request.param
    return world


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"), *FORMATS["domains"], True)


def build(world, out, *more: str) -> int:
    return main(
        ["--data", str(world.root / "data"), "--catalog", str(world.root / "catalog"), "--out", str(out), *more]
    )


def answer_of(row) -> str:
    return parse_answer(row["messages"][-1]["content"]).answer


# -- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_answer_is_right(world_of_format, language, tmp_path):
    world = world_of_format
    left_out = LEFT_OUT[world.kind]
    assert build(world, tmp_path / "out", "--num-rows", "960", "--language", language, "--think-share", "0.5") == 0
    rows = read_jsonl(tmp_path / "out/rows.jsonl")
    checker = Checker(world.format, language, world.names)
    for row in rows:
        check_row(row)
        assert checker.verify_instruction(row), row
    assert {row["id"].partition(":")[0] for row in rows} == set(ALL_KINDS) - left_out
    manifest = read_json(tmp_path / "out/manifest.json")
    assert set(manifest["config"]["kinds_left_out"]) == left_out
    assert manifest["config"]["num_kinds"] == len(ALL_KINDS) - len(left_out)
    assert manifest["config"]["prompt_version"] == f"instruction/{language}/1"
    assert len(rows) + sum(manifest["rejected"].values()) == 960 and len(rows) > 940


def test_the_checker_refuses_wrong_answers(shop, tmp_path):
    """An answer of another row of the same kind is wrong unless it is the same text."""
    assert build(shop, tmp_path / "out", "--num-rows", "960", "--think-share", "0") == 0
    checker = Checker(shop.format, "en", shop.names)
    by_kind: dict[str, list] = {}
    for row in read_jsonl(tmp_path / "out/rows.jsonl"):
        by_kind.setdefault(row["id"].partition(":")[0], []).append(row)
    tried = set()
    for kind, rows in by_kind.items():
        for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
            if answer_of(row) != answer_of(other):
                wrong = row | {"messages": [*row["messages"][:2], other["messages"][2]]}
                assert not checker.verify_instruction(wrong)
                tried.add(kind)
    assert tried == set(ALL_KINDS)


def test_traces_hold_steps_and_not_the_answer(shop, tmp_path):
    assert build(shop, tmp_path / "out", "--num-rows", "960", "--think-share", "1") == 0
    for row in read_jsonl(tmp_path / "out/rows.jsonl"):
        found = parse_answer(row["messages"][-1]["content"])
        assert row["mode"] == "think" and found.closed and found.think and len(found.think) > 5
        assert row["messages"][1]["content"].endswith(" /think")
        assert row["messages"][-1]["content"] == f"<think>\n{found.think}\n</think>\n\n{found.answer}"
        if "\n" in found.answer or found.answer[0] in "[{":  # a list or JSON is written once, as the answer
            assert found.answer not in found.think


def test_yes_and_no_are_both_common(shop):
    stock = stock_of(shop)
    prompts = load_prompt_set("instruction")
    kinds = [kind for kind in ALL_KINDS.values() if kind.name in YES_NO]
    for kind in kinds:
        rows, rejects = InstructionSource(stock, {"one": [kind]}, prompts, 300, 0.0, 1).build(0, 300)
        counts = Counter(answer_of(row) for row in rows)
        assert set(counts) == {"yes", "no"} and min(counts.values()) > 60, (kind.name, counts)
        assert len(rejects) < 15


YES_NO = {
    "match.same_first_code",
    "match.same_item",
    "match.same_domain",
    "verify.well_formed",
    "verify.no_duplicates",
    "verify.ordered_by_date",
    "verify.ordered_by_first_code",
    "verify.all_of_domain",
}


# -- exact rows -----------------------------------------------------------------------------------------------------


def small_stock(**changes) -> Stock:
    """One item of domain `prod`, or what `changes` say."""
    fields = {
        "format": load_format("onereason", 3, 8),
        "patterns": ["<|prod_begin|><s_a_1><s_b_2><s_c_3>"],
        "domains": ["prod"],
        "codes": np.array([[1, 2, 3]]),
        "names": [""],
        "themes": [""],
        "user_ids": [],
        "items": np.zeros(0, np.int64),
        "offsets": np.zeros(1, np.int64),
    }
    return Stock(**fields | changes)


def stock_of(world) -> Stock:
    args = SimpleNamespace(data=world.root / "data", catalog=world.root / "catalog", theme_attribute=None)
    args.split_method, args.validation_start, args.test_start = "leave-one-out", None, None
    return load_stock(args)[0]


def test_a_row_by_hand():
    kind = ALL_KINDS["convert.to_json"]
    source = InstructionSource(small_stock(), {"one": [kind]}, load_prompt_set("instruction"), 40, 1.0, 0)
    rows = source.build(0, 40)[0]
    first_wording = [row for row in rows if row["messages"][1]["content"].startswith("Write the item")]
    system = load_prompt_set("instruction").text("system")
    expected = {
        "id": "convert.to_json:",
        "task": "instruction",
        "loss": "assistant",
        "mode": "think",
        "messages": [
            {"role": "system", "content": system},
            {
                "role": "user",
                "content": 'Write the item <|prod_begin|><s_a_1><s_b_2><s_c_3> as a JSON object with the keys "domain" '
                '(text) and "codes" (list of numbers). /think',
            },
            {
                "role": "assistant",
                "content": "<think>\n<|prod_begin|><s_a_1><s_b_2><s_c_3>: domain prod, a=1, b=2, c=3.\n</think>\n\n"
                '{"domain": "prod", "codes": [1, 2, 3]}',
            },
        ],
        "teacher": "template",
    }
    found = [row | {"id": row["id"][:16]} for row in first_wording if row["messages"][0]["content"] == system]
    assert found and all(row == expected for row in found)


def test_domain_and_user_of_a_row():
    patterns = [f"<|{d}_begin|><s_a_{c}><s_b_0><s_c_0>" for c, d in enumerate(("video", "prod", "prod"))]
    stock = small_stock(
        patterns=patterns,
        domains=["video", "prod", "prod"],
        codes=np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]]),
        names=[""] * 3,
        themes=[""] * 3,
        user_ids=["ann"],
        items=np.array([0, 1, 2]),
        offsets=np.array([0, 3]),
    )
    scene = Scene(stock, Stream(0, 0), load_prompt_set("instruction"), think=False)
    kind = Kind("retrieve.nth", lambda scene: None, "items")
    row = instruction_row("a", kind, Exercise({"n": 2}, patterns[1], "\n".join(patterns), answer_items=[1]), scene)
    assert row["domain"] == "prod" and "user" not in row
    scene.user = 0
    row = instruction_row("a", kind, Exercise({"n": 2}, "x", "\n".join(patterns), answer_items=[0, 1]), scene)
    assert "domain" not in row and row["user"] == "ann"


def test_dates_by_hand():
    """Four items on the days 19723 to 19726 (2024-01-01 to 2024-01-04): the whole history is always drawn."""
    patterns = [f"<|prod_begin|><s_a_{c}><s_b_0><s_c_0>" for c in range(4)]
    stock = small_stock(
        patterns=patterns,
        domains=["prod"] * 4,
        codes=np.array([[c, 0, 0] for c in range(4)]),
        names=[""] * 4,
        themes=[""] * 4,
        user_ids=["ann"],
        items=np.arange(4),
        offsets=np.array([0, 4]),
        days=np.arange(19723, 19727),
    )
    seen = set()
    for unit in range(60):
        scene = Scene(stock, Stream(0, unit), load_prompt_set("instruction"), think=True)
        made = build_exercise(ALL_KINDS["retrieve.before_date"], scene)
        date = made.fields["date"]
        seen.add(date)
        number = int(date[-1]) - 1  # items before the date
        assert made.items == "\n".join(f"{p} | 2024-01-0{n}" for n, p in enumerate(patterns, 1))
        assert made.answer == ("\n".join(patterns[:number]) or "none")
        fitting = ", ".join(str(n) for n in range(1, number + 1)) or "none"
        comparisons = [
            f"{n}. {p}: 2024-01-0{n} < {date}: {'yes' if n <= number else 'no'}" for n, p in enumerate(patterns, 1)
        ]
        assert made.steps == [*comparisons, f"Places that fit: {fitting}."]
    assert seen == {f"2024-01-0{n}" for n in range(1, 5)}


# -- which units make what --------------------------------------------------------------------------------------------


def test_units_take_groups_and_kinds_in_turn(shop, tmp_path):
    kinds, skipped = available_kinds(stock_of(shop))
    assert not skipped and kinds == GROUPS
    assert [kind_of_unit(kinds, unit).name for unit in (0, 1, 5, 6, 7)] == [
        "convert.to_json",
        "retrieve.nth",
        "control.json_list",
        "convert.from_json",
        "retrieve.nth_last",
    ]
    assert build(shop, tmp_path / "out", "--num-rows", "600") == 0
    rows = read_jsonl(tmp_path / "out/rows.jsonl")
    groups = Counter(row["id"].partition(".")[0] for row in rows)
    assert groups == dict.fromkeys(GROUPS, 100)
    of_kind = Counter(row["id"].partition(":")[0] for row in rows)
    for group, members in GROUPS.items():
        counts = [of_kind[kind.name] for kind in members]
        assert max(counts) - min(counts) <= 1, group
    think = sum(row["mode"] == "think" for row in rows)
    assert 80 < think < 160  # 600 draws at 0.2: 120, standard deviation 9.8
    assert not any(row["mode"] == "think" for row in build_rows(shop, tmp_path / "none", "--think-share", "0"))


def test_kinds_that_are_asked_for_alone(shop, tmp_path):
    rows = build_rows(shop, tmp_path / "out", "--kinds", "convert.to_lines,retrieve.nth", "--think-share", "0")
    of_kind = Counter(row["id"].partition(":")[0] for row in rows)
    assert of_kind == {"convert.to_lines": 150, "retrieve.nth": 150}
    manifest = read_json(tmp_path / "out/manifest.json")
    assert manifest["config"]["kinds"] == ["convert.to_lines", "retrieve.nth"] and manifest["config"]["num_kinds"] == 2
    kinds, _ = available_kinds(stock_of(shop), ["verify", "convert.swap"])
    assert kinds == {"convert": (ALL_KINDS["convert.swap"],), "verify": GROUPS["verify"]}


@pytest.mark.parametrize(("kinds", "message"), [("convert.tolines", "called convert.tolines; there are: compare,")])
def test_kinds_that_are_unknown(shop, tmp_path, capsys, kinds, message):
    assert build(shop, tmp_path / "out", "--kinds", kinds) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def build_rows(world, out, *more):
    assert build(world, out, "--num-rows", "300", *more) == 0
    return read_jsonl(out / "rows.jsonl")


def test_all_wordings_are_used(shop, tmp_path):
    prompts = load_prompt_set("instruction")
    kind = ALL_KINDS["match.which_domain"]
    rows = InstructionSource(stock_of(shop), {"one": [kind]}, prompts, 300, 0.0, 0).build(0, 300)[0]
    systems = Counter(row["messages"][0]["content"] for row in rows)
    assert set(systems) == set(prompts.variants("system"))
    assert 120 < systems[prompts.text("system")] < 240  # 0.4 + 0.6 / 3 = 0.6 of 300: 180, standard deviation 8.5


def test_same_bytes_whatever_the_shards(shop, tmp_path):
    for name, more in (
        ("a", ["--shard-size", "7"]),
        ("b", ["--shard-size", "1000"]),
        ("c", ["--seed", "1"]),
        ("d", ["--workers", "2", "--shard-size", "100"]),
    ):
        assert build(shop, tmp_path / name, "--num-rows", "250", *more) == 0
    a, b, c, d = ((tmp_path / name / "rows.jsonl").read_bytes() for name in "abcd")
    assert a == b == d != c
    more = build_rows(shop, tmp_path / "more")
    assert [json.loads(line) for line in a.splitlines()] == more[:250]  # more rows change none of the first


def test_rows_of_users_hold_training_items_only(shop, tmp_path):
    assert build(shop, tmp_path / "out", "--num-rows", "1800") == 0
    rows = read_jsonl(tmp_path / "out/rows.jsonl")
    held_out = {shop.patterns[item] for item in HELD_OUT} - {shop.patterns[item] for item in range(NUM_ITEMS - 2)}
    assert len(held_out) == 2
    of_users = [row for row in rows if "user" in row]
    assert len(of_users) > 500
    for row in of_users:
        text = json.dumps(row, ensure_ascii=False)
        assert not any(pattern in text for pattern in held_out), row["id"]
    assert any(pattern in json.dumps(row, ensure_ascii=False) for row in rows for pattern in held_out)  # of the catalog


def test_a_catalog_without_histories_serves_too():
    """Nobody has a training item: kinds that need a history give no row and are counted."""
    stock = small_stock()
    source = InstructionSource(stock, available_kinds(stock)[0], load_prompt_set("instruction"), 600, 0.2, 0)
    rows, rejects = source.build(0, 600)
    assert rows and {reject.reason for reject in rejects} == {"no_material"}
    assert len(rows) + len(rejects) == 600
    checker = Checker(stock.format, "en", {})
    assert all(checker.verify_instruction(row) for row in rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-rows", "0"], "--num-rows must be at least 1, got 0"),
        (["--think-share", "1.5"], "--think-share must lie between 0 and 1, got 1.5"),
        (["--theme-attribute", "colour"], "has the attribute 'colour'"),
        (["--language", "xx"], "prompt set 'instruction' for language 'xx' not found"),
    ],
)
def test_mistakes(shop, tmp_path, capsys, options, message):
    assert build(shop, tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []
