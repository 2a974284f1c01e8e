"""Item understanding: exact rows of a small catalog, every reason for a missing one, both languages, teachers."""

# ruff: noqa: RUF001

from __future__ import annotations

import json
import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import yaml

from data_builders.build_perception import main
from data_builders.perception_rows import Exercise, exercise_row
from onereason.data.prompt_sets import load_prompt_set
from onereason.data.prompts import domain_noun
from onereason.data.schema import INTERACTION_SCHEMA, ITEM_SCHEMA, Dataset, save_dataset
from onereason.evaluation.layers.tasks.choices import LETTERS
from onereason.io import read_json, read_jsonl
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format
from tests.chat_server import ChatServer, says
from tests.cognition_worlds import write_simulated

FORMAT = load_format("onereason", 2, 4)
ITEMS = (
    # domain, codes, caption, attributes
    ("video", (0, 0), "Brewing tea, step by step 2021.", {"category": "tea", "brand": "Oolo", "price": "3"}),
    ("video", (0, 1), "Brewing tea at home.", {"category": "tea", "brand": "Oolo", "price": "12"}),
    ("video", (0, 2), "Iced tea at home!!!", {"category": "tea", "brand": "Unknown", "price": "$30"}),
    ("video", (0, 3), "Baking cake at home.", {"category": "cake", "price": "9"}),
    ("video", (1, 0), "Baking cake at home.", {"category": "cake", "brand": "Oolo"}),
    ("video", (1, 1), "", {}),
    ("prod", (0, 0), "12345 #deal", {"category": "tea"}),
)
"""With `--min-items 2`: tea and cake are asked for in videos; Oolo and a low price (3, 9 of 3, 9, 12, 30) are told."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    root = tmp_path_factory.mktemp("shop")
    names = [f"i{i}" for i in range(len(ITEMS))]
    domains, codes, captions, attributes = zip(*ITEMS, strict=True)
    catalog = Catalog(FORMAT, names, np.array(codes), list(domains), list(captions))
    catalog.save(root / "catalog")
    columns = {"item_id": names, "domain": domains, "title": captions, "text": captions}
    items = pl.DataFrame(columns | {"attributes": list(map(json.dumps, attributes))}, schema=ITEM_SCHEMA)
    rows = [("ann", name, t, "click", domains[t]) for t, name in enumerate(names)]
    save_dataset(Dataset(items, pl.DataFrame(rows, schema=INTERACTION_SCHEMA, orient="row")), root / "data")
    first = root / "first"  # the English texts in their first wording, so that rows can be written down
    first.mkdir()
    for name in ("domains", "perception"):
        prompts = load_prompt_set(name)
        texts = {"version": prompts.version} | {
            key: list(found if key.startswith(("noun.", "price.", "share.")) else found[:1])
            for key, found in prompts.texts.items()
        }
        (first / f"{name}.yaml").write_text(yaml.safe_dump(texts))
    patterns = [catalog.render(i) for i in range(len(ITEMS))]
    return SimpleNamespace(root=root, patterns=patterns, first=str(first))


def build(shop, out, *options: str, language: str | None = None) -> dict[str, dict]:
    """Row id -> row."""
    arguments = ["--data", str(shop.root / "data"), "--catalog", str(shop.root / "catalog"), "--min-items", "2"]
    assert main([*arguments, "--language", language or shop.first, "--out", str(out), *options]) == 0
    return {row["id"]: row for row in read_jsonl(out / "rows.jsonl")}


def asked(row: dict) -> str:
    return row["messages"][1]["content"]


def answered(row: dict) -> str:
    return row["messages"][2]["content"]


def reasons(out) -> set[tuple[str, str]]:
    return {(one["id"], one["reason"]) for one in read_jsonl(out / "rejected.jsonl")}


# -- exact rows -----------------------------------------------------------------------------------------------------


def test_a_caption_row_without_thinking(shop, tmp_path):
    rows = build(shop, tmp_path / "out", "--think-share", "0")
    prompts = load_prompt_set("perception")
    assert rows["caption:i0"] == {
        "id": "caption:i0",
        "task": "caption",
        "loss": "assistant",
        "mode": "no_think",
        "messages": [
            {"role": "system", "content": prompts.text("caption.system")},
            {"role": "user", "content": "Describe this video: <|video_begin|><s_a_0><s_b_0> /no_think"},
            {"role": "assistant", "content": "Brewing tea"},  # "step" and "by" are one caption's, the year is no code's
        ],
        "domain": "video",
        "teacher": "template",
    }
    captions = {name: answered(row) for name, row in rows.items() if row["task"] == "caption"}
    assert captions == {
        "caption:i0": "Brewing tea",
        "caption:i1": "Brewing tea at home.",
        "caption:i2": "tea at home!",
        "caption:i3": "Baking cake at home.",
        "caption:i4": "Baking cake at home.",
    }


def test_captions_hold_what_the_codes_can(shop, tmp_path):
    # 5 captions: brewing log2(5/2), tea behind it log2(2/2), at log2(5/4), home behind it log2(4/4).
    rows = build(shop, tmp_path / "few", "--think-share", "0", "--caption-bits", "1.5")
    assert answered(rows["caption:i1"]) == "Brewing tea"
    rows = build(shop, tmp_path / "full", "--think-share", "0", "--captions", "full")
    assert answered(rows["caption:i0"]) == "Brewing tea, step by step 2021."
    assert answered(rows["caption:i6"]) == "12345 #deal"


def test_grounding_asks_with_the_whole_caption(shop, tmp_path):
    rows = build(shop, tmp_path / "out", "--think-share", "0")
    row = rows["grounding:i0"]
    assert row["messages"] == [
        {"role": "system", "content": load_prompt_set("perception").text("grounding.system")},
        {"role": "user", "content": "Which video is this? Brewing tea, step by step 2021. /no_think"},
        {"role": "assistant", "content": "<|video_begin|><s_a_0><s_b_0>"},
    ]
    grounded = {name: answered(row) for name, row in rows.items() if row["task"] == "grounding"}
    assert grounded == {f"grounding:i{i}": shop.patterns[i] for i in (0, 1, 2, 6)}
    assert asked(rows["grounding:i6"]) == "Which product is this? 12345 #deal /no_think"


def test_questions_are_choices_and_free_in_equal_numbers(shop, tmp_path):
    rows = build(shop, tmp_path / "out", "--think-share", "0", "--num-questions", "3")
    forms = Counter(name.rpartition(":")[2] for name, row in rows.items() if row["task"] == "item_qa")
    assert forms == {"choice": 5, "free": 5}  # of 5 videos the category; nothing else has two values
    free = rows["item_qa:i3:category:free"]
    assert asked(free) == "What is this video about: <|video_begin|><s_a_0><s_b_3> /no_think"
    assert answered(free) == "It is about cake."
    for i, value in enumerate(("tea", "tea", "tea", "cake", "cake")):
        row = rows[f"item_qa:i{i}:category:choice"]
        question, *lines, last = asked(row).split("\n")
        choices = [*lines, last.removesuffix(" /no_think")]
        # The first wording of the set names the attribute, that of the angle asks what the item is about.
        assert question in (
            f"What is the category of this video: {shop.patterns[i]}",
            f"What is this video about: {shop.patterns[i]}",
        )
        assert sorted(choice[3:] for choice in choices) == ["cake", "tea"]
        assert [choice[:3] for choice in choices] == ["A. ", "B. "]
        assert choices[LETTERS.index(answered(row))][3:] == value


GATHERED = "most are about tea, many are about cake, most are from Oolo, most have a low price"
TRACES = {
    # Under <s_a_0> stand 4 videos: 3 of tea, 1 of cake, 2 from Oolo, 2 at a low price. Under <s_a_1> only 2.
    "caption:i0": f"<s_a_0> gathers videos: {GATHERED}.\n"
    "Read together, this video is about tea, from Oolo, at a low price.",
    "caption:i2": f"<s_a_0> gathers videos: {GATHERED}.\nRead together, this video is about tea.",
    "caption:i4": "Read together, this video is about cake, from Oolo.",
    # Of what is asked for, only the group is told.
    "item_qa:i0:category:free": "<s_a_0> gathers videos: most are about tea, many are about cake.\n"
    "Read together, this video is from Oolo, at a low price.",
    "item_qa:i2:category:choice": "<s_a_0> gathers videos: most are about tea, many are about cake.",
    "item_qa:i4:category:choice": "Read together, this video is from Oolo.",
    # All 3 videos about tea begin with <s_a_0>; the brand stands in no caption.
    "grounding:i2": "The video described is about tea.\nAmong videos about tea, nearly all begin with <s_a_0>.",
}


def test_traces_read_the_codes_from_the_first_on(shop, tmp_path):
    rows = build(shop, tmp_path / "out", "--think-share", "1")
    bare = build(shop, tmp_path / "bare", "--think-share", "0")
    for name, trace in TRACES.items():
        row = rows[name]
        thought, _, answer = answered(row).partition("\n</think>\n\n")
        assert (row["mode"], thought) == ("think", f"<think>\n{trace}")
        assert asked(row).endswith(" /think")
        if not name.endswith("choice"):
            assert answer == answered(bare[name])


def test_what_gives_no_row_or_no_trace(shop, tmp_path):
    rows = build(shop, tmp_path / "out", "--think-share", "1")
    assert reasons(tmp_path / "out") == {
        ("grounding:i3", "caption_of_several_sids"),
        ("grounding:i4", "caption_of_several_sids"),
        ("caption:i5", "no_caption"),
        ("grounding:i5", "no_caption"),
        ("item_qa:i5", "no_attribute"),
        ("caption:i6", "coarse_caption_empty"),
        ("item_qa:i6", "no_attribute"),  # "tea" is the only category of products
        ("grounding:i6:think", "trace_without_evidence"),  # the only product about tea
    }
    assert rows["grounding:i6"]["mode"] == "no_think" and asked(rows["grounding:i6"]).endswith(" /no_think")
    manifest = read_json(tmp_path / "out/manifest.json")
    assert manifest["counts"] == {
        "rows": 19,
        "mode_no_think": 1,
        "mode_think": 18,
        "task_caption": 5,
        "task_grounding": 4,
        "task_item_qa": 10,
        "domain_prod": 1,
        "domain_video": 18,
        "teacher_template": 19,
    }
    assert manifest["config"]["prompt_version"] == "domains/first/1, perception/first/1"
    assert manifest["config"]["code_bits"] == 4.0 and manifest["config"]["language"] == "first"


def test_an_answer_that_stands_in_the_trace_does_without_it():
    exercise = Exercise("caption:i0", "caption", "video", "s", "u", "Tea.", True, "Read together, this is about tea.")
    row, without = exercise_row(exercise, "Tea.", "template")
    assert (without.id, without.reason) == ("caption:i0:think", "answer_in_trace")
    assert (row["mode"], answered(row), asked(row)) == ("no_think", "Tea.", "u /no_think")
    row, without = exercise_row(exercise, "Cake.", "template")
    assert without is None and answered(row) == "<think>\nRead together, this is about tea.\n</think>\n\nCake."
    assert exercise_row(exercise, "R", "template")[1] is None  # a letter is no word


# -- seeds, shards, languages ---------------------------------------------------------------------------------------


def test_wordings_are_dealt_by_the_seed(shop, tmp_path):
    a = build(shop, tmp_path / "a", language="en")
    b = build(shop, tmp_path / "b", language="en")
    c = build(shop, tmp_path / "c", "--seed", "1", language="en")
    assert a == b != c and set(a) == set(c)
    prompts = load_prompt_set("perception")
    wordings = {
        text.format(noun="video", pattern=shop.patterns[i]) + f" /{mode}": text
        for text in prompts.variants("caption.user")
        for i in range(5)
        for mode in ("think", "no_think")
    }
    found = Counter()
    for seed in range(12):
        rows = build(shop, tmp_path / f"seed{seed}", "--seed", str(seed), language="en")
        found.update(wordings[asked(row)] for row in rows.values() if row["task"] == "caption")
        assert {row["mode"] for row in rows.values()} == {"think", "no_think"}
    assert set(found) == set(prompts.variants("caption.user"))
    assert found.most_common(1)[0][0] == prompts.text("caption.user")  # what evaluation asks with


def test_a_grounding_trace_names_no_code_that_is_not_the_answers(tmp_path):
    arguments = write_simulated(tmp_path)[:4]  # data and catalog
    more = ["--think-share", "1", "--num-questions", "0"]
    assert main([*arguments, "--out", str(tmp_path / "out"), *more]) == 0
    named = Counter()
    for row in read_jsonl(tmp_path / "out/rows.jsonl"):
        if row["task"] == "grounding" and row["mode"] == "think":
            trace, _, pattern = answered(row).partition("\n</think>\n\n")
            codes = set(re.findall(r"<s_[a-z]_[0-9]+>", trace))
            assert codes <= {re.search(r"<s_a_[0-9]+>", pattern)[0]}
            named[len(codes)] += 1
    assert min(named[0], named[1]) > 50


def test_shards_and_workers_change_nothing(shop, tmp_path):
    build(shop, tmp_path / "one", language="en")
    build(shop, tmp_path / "many", "--shard-size", "2", "--workers", "2", language="en")
    for name in ("rows.jsonl", "rejected.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_chinese(shop, tmp_path):
    rows = build(shop, tmp_path / "out", "--think-share", "1", language="zh")
    prompts = load_prompt_set("perception", "zh")
    asked_in = {t.format(noun="视频", pattern=shop.patterns[0]) + " /think" for t in prompts.variants("caption.user")}
    assert asked(rows["caption:i0"]) in asked_in
    assert rows["caption:i0"]["messages"][0]["content"] in prompts.variants("caption.system")
    assert answered(rows["caption:i0"]) == (
        "<think>\n<s_a_0>汇集了一批视频：大多数讲的是tea，不少讲的是cake，大多数来自Oolo，大多数价位低。\n"
        "合起来看，这个视频关于tea，来自Oolo，价位低。\n</think>\n\nBrewing tea"
    )
    assert answered(rows["grounding:i2"]) == (
        "<think>\n描述中的视频关于tea。\n在关于tea的视频中，几乎全部以<s_a_0>开头。\n</think>\n\n" + shop.patterns[2]
    )
    assert domain_noun("prod", language="zh") in asked(rows["grounding:i6"])


# -- teachers -------------------------------------------------------------------------------------------------------


def test_a_language_model_writes_descriptions_and_free_answers(shop, tmp_path):
    def reply(payload: dict):
        prompt = payload["messages"][-1]["content"]
        if "Question:" in prompt:
            return says("Surely  tea." if "True value: tea" in prompt else "I would not know.")
        if "step by step" in prompt:
            return says("Tea in 5 steps.")
        if "Iced" in prompt:
            return says("Cold <|video_begin|><s_a_0><s_b_0>")
        return says("99 #deal") if "Brewing" in prompt else says("", finish_reason="stop")

    with ChatServer(reply) as server:
        options = ("--teacher", "endpoint", "--teacher-url", server.url, "--teacher-model", "m", "--think-share", "0")
        rows = build(shop, tmp_path / "out", *options)
        messages = [payload["messages"] for payload in server.payloads]
    assert len(messages) == 9  # 5 captions and 4 free answers: those of i3 and i4 are asked for in the same words
    prompts = load_prompt_set("perception")
    assert [
        {"role": "system", "content": prompts.text("teacher.caption.system").format(words=20)},
        {
            "role": "user",
            "content": "A video. Its caption: Brewing tea, step by step 2021.\n"
            "What is known of it: about tea, from Oolo, at a low price",
        },
    ] in messages
    assert (answered(rows["caption:i0"]), rows["caption:i0"]["teacher"]) == ("Tea in steps.", "endpoint:m")
    assert answered(rows["item_qa:i0:category:free"]) == "Surely tea."
    assert rows["item_qa:i0:category:choice"]["teacher"] == rows["grounding:i0"]["teacher"] == "template"
    assert {
        ("caption:i1", "coarse_caption_empty"),
        ("caption:i2", "teacher_itemic_tokens"),
        ("caption:i3", "teacher_empty"),
        ("caption:i4", "teacher_empty"),
        ("item_qa:i3:category:free", "teacher_answer_without_value"),
        ("item_qa:i4:category:free", "teacher_answer_without_value"),
    } < reasons(tmp_path / "out")


def test_a_long_answer_of_a_language_model_is_left_out(shop, tmp_path):
    with ChatServer(lambda payload: says("tea and cake " * 9)) as server:
        options = ("--teacher", "endpoint", "--teacher-url", server.url, "--teacher-model", "m", "--max-chars", "50")
        rows = build(shop, tmp_path / "out", *options)
    assert "caption:i0" not in rows and ("caption:i0", "teacher_answer_too_long") in reasons(tmp_path / "out")


# -- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--think-share", "1.5"], "--think-share must lie between 0 and 1, got 1.5"),
        (["--num-questions", "-1"], "--num-questions (-1) must be at least 0"),
        (["--num-choices", "11"], "--num-choices must lie between 2 and 10, got 11"),
        (["--caption-bits", "0"], "--caption-bits must be above 0, got 0.0"),
        (["--caption-bits", "nan"], "--caption-bits must be above 0, got nan"),
        (["--language", "fr"], "prompt set 'domains' for language 'fr' not found; use en or zh"),
        (["--theme-attribute", "colour"], "has the attribute 'colour'; use one of brand, category, price"),
    ],
)
def test_mistakes(shop, tmp_path, capsys, options, message):
    arguments = ["--data", str(shop.root / "data"), "--catalog", str(shop.root / "catalog")]
    assert main([*arguments, "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_without_questions(shop, tmp_path):
    rows = build(shop, tmp_path / "out", "--num-questions", "0")
    assert {row["task"] for row in rows.values()} == {"caption", "grounding"}
    assert not any("item_qa" in name for name, _ in reasons(tmp_path / "out"))


def test_a_catalog_without_attributes(world, tmp_path):
    arguments = [*world.data, "--catalog", str(world.root / "catalog"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--think-share", "1"]) == 0
    manifest = read_json(tmp_path / "out/manifest.json")
    assert manifest["counts"]["task_caption"] == manifest["counts"]["task_grounding"] == 12
    assert manifest["counts"]["mode_no_think"] == 24 and "mode_think" not in manifest["counts"]
    assert manifest["rejected"] == {"trace_without_evidence": 24, "no_attribute": 13, "no_caption": 2}
