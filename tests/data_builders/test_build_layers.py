"""Rows of the layered evaluation: each question against the world it is made of, nothing held out but R3's targets."""

# ruff: noqa: RUF001

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from itertools import pairwise, product
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from data_builders import build_recommendation
from data_builders.build_layers import gsm8k_row, main, mix
from data_builders.layer_sources import load_episodes
from onereason.cognition.trace import load_headings
from onereason.data.prompt_sets import load_prompt_set
from onereason.data.schema import INTERACTION_SCHEMA, ITEM_SCHEMA, Dataset, save_dataset
from onereason.data.simulate import WorldConfig, simulate_world, write_world
from onereason.evaluation.layers.generation import Generation
from onereason.evaluation.layers.rows import bind_format, load_rows
from onereason.evaluation.layers.scoring import aggregate, score_answers
from onereason.evaluation.layers.tasks import load_task, next_item
from onereason.evaluation.layers.tasks.base import EvaluationRow
from onereason.evaluation.layers.tasks.choices import LETTERS
from onereason.io import read_json, read_jsonl
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format

FORMAT = load_format("onereason", 3, 8)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A simulated world of 25 users and 120 items with ids of their own, and the rows made of it."""
    root = tmp_path_factory.mktemp("simulated")
    world = simulate_world(WorldConfig(users=25, items=120, topics=8, seed=1))
    write_world(world, root / "data")
    items = world.dataset.items
    index = np.random.default_rng(0).permutation(512)[: items.height]
    codes = np.stack([index // 64, index // 8 % 8, index % 8], 1)
    catalog = Catalog(FORMAT, items["item_id"].to_list(), codes, items["domain"].to_list(), items["text"].to_list())
    catalog.save(root / "catalog")
    arguments = ["--data", str(root / "data"), "--catalog", str(root / "catalog")]
    assert main([*arguments, "--out", str(root / "rows")]) == 0
    rows = defaultdict(list)
    for row in read_jsonl(root / "rows/rows.jsonl"):
        rows[row["task"]].append(row)
    patterns = {catalog.render(i): item for i, item in enumerate(catalog.item_ids)}
    return SimpleNamespace(root=root, world=world, catalog=catalog, rows=rows, patterns=patterns, arguments=arguments)


def asked(row: dict) -> str:
    return row["messages"][-1]["content"]


def test_rows_pass_their_tasks_checks(simulated):
    rows = bind_format(load_rows(simulated.root / "rows/rows.jsonl"), FORMAT)
    manifest = read_json(simulated.root / "rows/manifest.json")
    assert manifest["counts"] == {"rows": len(rows), **Counter(row.task for row in rows)}
    assert list(manifest["counts"])[1:] == [
        *("caption", "grounding", "item_qa", "item2item", "action_selection", "topic", "direct", "next_item")
    ]
    assert manifest["counts"]["caption"] == 120 and manifest["counts"]["item2item"] == 500  # of 5 relations an item
    assert {"items.parquet", "chains.parquet"} <= {name.rpartition("/")[2] for name in manifest["inputs"]}
    card = (simulated.root / "rows/CARD.md").read_text()
    assert "# Layered evaluation" in card and "| next_item_targets | validation |" in card
    assert "The targets of `next_item` rows, and nothing else, are validation items" in card


def test_captions_and_grounding(simulated):
    caption = simulated.rows["caption"][0]
    item = simulated.catalog.item_ids[0]
    pattern = simulated.catalog.render(0)
    assert caption["messages"] == [
        {"role": "system", "content": load_prompt_set("perception").text("caption.system")},
        {"role": "user", "content": f"Describe this advertisement: {pattern}"},
    ]
    assert (caption["id"], caption["reference"]) == (f"caption:{item}", {"caption": simulated.catalog.captions[0]})
    text_of = dict(zip(simulated.catalog.item_ids, simulated.catalog.captions, strict=True))
    for row in simulated.rows["grounding"]:
        item = simulated.patterns[row["reference"]["pattern"]]
        assert row["id"] == f"grounding:{item}" and asked(row).endswith(f"? {text_of[item]}")


def test_questions_about_attributes_have_one_right_choice(simulated):
    attributes = {
        item: json.loads(text)
        for item, text in simulated.world.dataset.items.select("item_id", "attributes").iter_rows()
    }
    names = set()
    for row in simulated.rows["item_qa"]:
        _, item, name = row["id"].split(":")
        reference = row["reference"]
        right = reference["choices"][LETTERS.index(reference["answer"])]
        assert right == attributes[item][name] and len(set(reference["choices"])) == len(reference["choices"])
        values = {a[name] for i, a in attributes.items() if i.split("_")[0] == item.split("_")[0]}
        assert set(reference["choices"]) <= values and len(reference["choices"]) == min(4, len(values))
        names.add(name)
    assert names == {"category", "facet", "style", "brand", "price"}


def test_wrong_items_are_unrelated_by_the_truth(simulated):
    topics = dict(simulated.world.truth["items"].select("item_id", "topic").iter_rows())
    pairs = {(s, r): t for s, r, t in simulated.world.truth["item_relations"].iter_rows()}
    for row in simulated.rows["item2item"]:
        _, source, relation = row["id"].split(":")
        reference = row["reference"]
        choices = [simulated.patterns[pattern] for pattern in reference["choices"]]
        right = choices.pop(LETTERS.index(reference["answer"]))
        assert right == pairs[source, relation]
        near = {topics[source]} | {topics[t] for (s, _), t in pairs.items() if s == source}
        assert len(choices) >= 1 and not near & {topics[item] for item in choices}
        assert {item.split("_")[0] for item in choices} == {right.split("_")[0]}


@pytest.mark.parametrize("with_truth", [True, False])
def test_no_wrong_choice_stands_for_an_item_that_goes_with_the_source(simulated, tmp_path, with_truth):
    """Over a catalog where every third item shares its sid with another, against all relations."""
    known = simulated.catalog
    place = np.arange(len(known.item_ids))
    place = np.where(place % 3 == 2, place - 2, place)
    codes = np.stack([place // 8 % 8, place % 8], 1)
    codes = np.concatenate([codes, place[:, None] // 64], 1)
    catalog = Catalog(load_format("onereason", 3, 8), known.item_ids, codes, known.domains, known.captions)
    catalog.save(tmp_path / "catalog")
    save_dataset(simulated.world.dataset, tmp_path / "data")
    if with_truth:
        (tmp_path / "data/truth").mkdir()  # the truth alone, beside the dataset
        for name, table in simulated.world.truth.items():
            table.write_parquet(tmp_path / f"data/truth/{name}.parquet")
    arguments = [
        "--data",
        str(tmp_path / "data"),
        "--catalog",
        str(tmp_path / "catalog"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*arguments, "--choices", "8"]) == 0
    pattern_of = {item: catalog.render(i) for i, item in enumerate(catalog.item_ids)}
    together = {(pattern, pattern) for pattern in pattern_of.values()}
    if with_truth:
        topics = dict(simulated.world.truth["items"].select("item_id", "topic").iter_rows())
        partners = {
            (topics[s], topics[t])
            for s, t in simulated.world.truth["item_relations"].select("source", "target").iter_rows()
        }
        for one, other in product(topics, repeat=2):
            if topics[one] == topics[other] or (topics[one], topics[other]) in partners:
                together |= {(pattern_of[one], pattern_of[other]), (pattern_of[other], pattern_of[one])}
    else:
        for _, group in simulated.world.dataset.interactions.group_by("user_id", maintain_order=True):
            for one, other in pairwise(group["item_id"].to_list()[:-2]):
                together |= {(pattern_of[one], pattern_of[other]), (pattern_of[other], pattern_of[one])}
    num_wrong = 0
    for row in read_jsonl(tmp_path / "out/rows.jsonl"):
        if row["task"] == "item2item":
            choices = list(row["reference"]["choices"])
            right = choices.pop(LETTERS.index(row["reference"]["answer"]))
            source = pattern_of[row["id"].split(":")[1]]
            assert (source, right) in together and not any((source, wrong) in together for wrong in choices)
            num_wrong += len(choices)
    assert num_wrong > 300


def test_the_letter_of_the_right_choice_is_random(simulated):
    for task in ("item_qa", "item2item"):
        letters = Counter(row["reference"]["answer"] for row in simulated.rows[task])
        assert min(letters[letter] for letter in "ABCD") > 0.15 * len(simulated.rows[task])


def interactions_of(simulated, user: str) -> pl.DataFrame:
    return simulated.world.dataset.interactions.filter(pl.col("user_id") == user)


def training_entries(simulated, user: str) -> list[str]:
    """Date, action and pattern of a user's interactions but the last two."""
    render = {item: pattern for pattern, item in simulated.patterns.items()}
    table = interactions_of(simulated, user)
    days = pl.from_epoch(table["timestamp"], "s").dt.strftime("%Y-%m-%d")
    entries = [f"{d} {a} {render[i]}" for d, a, i in zip(days, table["action"], table["item_id"], strict=True)]
    return entries[:-2]


@pytest.mark.parametrize("task", ["action_selection", "topic", "direct"])
def test_timelines_hold_the_training_part_and_nothing_else(simulated, task):
    assert simulated.rows[task]
    for row in simulated.rows[task]:
        shown = asked(row).split("\n")[1:-1]
        assert shown == training_entries(simulated, row["id"].partition(":")[2])


def history_patterns(row: dict) -> list[str]:
    """The patterns of a row that asks for the next item, one after another."""
    return [FORMAT.render(item.codes, item.domain) for item in FORMAT.parse(row["messages"][1]["content"]).items]


def test_the_next_item_is_the_validation_item_behind_the_training_part(simulated):
    users = simulated.world.dataset.interactions["user_id"].unique(maintain_order=True).to_list()
    assert [row["id"] for row in simulated.rows["next_item"]] == [f"next_item:{user}" for user in users]
    nouns = {"video": "video", "prod": "product", "ad": "advertisement", "living": "live stream"}
    for row, user in zip(simulated.rows["next_item"], users, strict=True):
        items = interactions_of(simulated, user)["item_id"].to_list()
        assert [simulated.patterns[pattern] for pattern in history_patterns(row)] == items[-52:-2]
        assert simulated.patterns[row["reference"]["pattern"]] == items[-2]
        assert row["reference"]["headings"] == ["Persona:", "Interests:", "Transition:"]
        first, shown, last = asked(row).split("\n")
        assert first == "The user's history in chronological order:" and shown == "".join(history_patterns(row))
        assert last == f"Which {nouns[items[-2].partition('_')[0]]} comes next?"
        system = {"role": "system", "content": load_prompt_set("recommendation").text("system")}
        assert row["messages"] == [system, {"role": "user", "content": asked(row)}]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_who_writes_as_the_training_corpus_does_scores_1_on_answers_and_traces(simulated, tmp_path, language):
    options = ["--targets", "3", "--modes", "think", "--language", language, "--out", str(tmp_path / "corpus")]
    assert build_recommendation.main([*simulated.arguments, *options]) == 0
    rows, answers = [], []
    for row in read_jsonl(tmp_path / "corpus/rows.jsonl"):
        system, user, assistant = row["messages"]
        user = {"role": "user", "content": user["content"].removesuffix(" /think")}
        pattern = assistant["content"].rpartition("\n")[2]
        reference = {"pattern": pattern, "headings": list(load_headings(language))}
        rows.append(EvaluationRow(row["id"], "next_item", [system, user], reference, format=FORMAT))
        answers.append(Generation(row["id"], "think", assistant["content"], 1, 1, 1.0, False, False))
        history = "".join(history_patterns(row))
        assert next_item.build_messages(history, row["domain"], FORMAT, language) == [system, user]
    assert len(rows) > 30
    found = aggregate(score_answers(rows, answers)[0], {}, 0)["next_item"]["modes"]["think"]
    assert found["counts"]["malformed"] == 0
    assert {metric: value["value"] for metric, value in found["metrics"].items()} == {
        **dict.fromkeys(("pass_at_1", "in_domain", "first_code"), 1.0),
        **dict.fromkeys(("trace_in_form", "cited_in_history"), 1.0),
    }


def test_selected_actions_are_those_of_the_longest_episode(simulated):
    chains = simulated.world.truth["chains"]
    for row in simulated.rows["action_selection"]:
        user = row["id"].partition(":")[2]
        entries = training_entries(simulated, user)
        episodes = [
            (topic, [p for p in positions if p < len(entries)])
            for topic, positions in chains.filter(pl.col("user_id") == user).select("topic", "positions").iter_rows()
        ]
        topic = asked(row).rpartition(" interest in ")[2].removesuffix(", those that it leads on to included?")
        actions = row["reference"]["actions"]
        own = [[entries[p] for p in positions] for t, positions in episodes if t == topic]
        assert len(actions) >= 2 and [o for o in own if len(o) >= len(actions)] == [actions]
        # no longer episode of another interest could have been asked for
        lengths = Counter((t, len(p)) for t, p in episodes)
        longest = {t: max(len(p) for name, p in episodes if name == t) for t, _ in episodes}
        assert len(actions) == max(n for t, n in longest.items() if lengths[t, n] == 1)


def test_chains_tell_what_the_truth_tells(simulated):
    truth = simulated.world.truth["interactions"]
    chosen = {row["id"].partition(":")[2]: row["reference"]["actions"] for row in simulated.rows["action_selection"]}
    kinds = set()
    for row in simulated.rows["topic"]:
        user = row["id"].partition(":")[2]
        chain = row["reference"]["logic_chain"]
        assert [f"{e['date']} {e['action']}" for e in chain["events"]] == chosen[user]
        assert f"interest in {chain['name']} evolve in its longest episode?" in asked(row)
        entries = training_entries(simulated, user)
        events = truth.filter(pl.col("user_id") == user).to_dicts()
        for event in chain["events"]:
            told = [
                e for e, entry in zip(events, entries, strict=False) if entry == f"{event['date']} {event['action']}"
            ]
            assert any(t["topic"] in event["logic"] for t in told)
            kinds |= {t["kind"] for t in told}
    assert {"trigger", "widen", "echo", "saturate"} <= kinds
    direct = {row["id"].partition(":")[2]: row["reference"] for row in simulated.rows["direct"]}
    topic = {row["id"].partition(":")[2]: row["reference"] for row in simulated.rows["topic"]}
    assert direct and set(direct) < set(topic) and all(topic[user] == chain for user, chain in direct.items())
    assert "interest in" not in "".join(asked(row) for row in simulated.rows["direct"])


def test_the_seed_decides(simulated, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        arguments = [*simulated.arguments, "--max-rows", "7", "--seed", seed]
        assert main([*arguments, "--out", str(tmp_path / name)]) == 0
    a, b, c = ((tmp_path / name / "rows.jsonl").read_bytes() for name in "abc")
    assert a == b != c
    assert set(Counter(json.loads(line)["task"] for line in a.splitlines()).values()) == {7}


def test_timelines_keep_their_newest_entries(simulated, tmp_path):
    assert main([*simulated.arguments, "--max-history", "5", "--out", str(tmp_path / "rows")]) == 0
    every = read_jsonl(tmp_path / "rows/rows.jsonl")
    rows = [row for row in every if row["task"] == "topic"]
    rejected = read_json(tmp_path / "rows/manifest.json")["rejected"]
    assert len(rows) + rejected.get("action_selection, topic, direct: no_interest_of_two_events", 0) == 25
    for row in rows:
        shown = asked(row).split("\n")[1:-1]
        assert shown == training_entries(simulated, row["id"].partition(":")[2])[-5:]
        events = row["reference"]["logic_chain"]["events"]
        assert len(events) >= 2 and all(f"{e['date']} {e['action']}" in shown for e in events)
    shorter = [row for row in every if row["task"] == "next_item"]
    for row, whole in zip(shorter, simulated.rows["next_item"], strict=True):
        assert history_patterns(row) == history_patterns(whole)[-5:] and row["reference"] == whole["reference"]


def test_chinese(simulated, tmp_path):
    assert main([*simulated.arguments, "--max-rows", "40", "--language", "zh", "--out", str(tmp_path / "rows")]) == 0
    assert main([*simulated.arguments, "--max-rows", "40", "--out", str(tmp_path / "english")]) == 0
    chinese, english = (read_jsonl(tmp_path / name / "rows.jsonl") for name in ("rows", "english"))
    for row, same in zip(chinese, english, strict=True):
        assert (row["id"], row["task"]) == (same["id"], same["task"])
        if row["task"] == "next_item":  # the headings of a trace are those of the language
            assert row["reference"] == same["reference"] | {"headings": ["用户画像：", "兴趣：", "转移："]}
        elif row["task"] not in ("topic", "direct"):  # the logic of a chain is told in the language
            assert row["reference"] == same["reference"]
    of_task = {row["task"]: row for row in chinese}
    assert asked(of_task["caption"]).startswith("请描述这个") and asked(of_task["grounding"]).startswith("这是哪个")
    assert asked(of_task["direct"]).endswith("该用户的主要兴趣是如何演变的？")
    question = load_prompt_set("recommendation", "zh").text("user").partition("{history}")
    assert asked(of_task["next_item"]).startswith(question[0]) and question[0].startswith("该用户")
    assert all(
        "兴趣" in e["logic"] or "拓展" in e["logic"] for e in of_task["topic"]["reference"]["logic_chain"]["events"]
    )
    config = read_json(tmp_path / "rows/manifest.json")["config"]
    assert config["language"] == "zh"
    names = ("domains", "perception", "derivation", "evolution", "recommendation", "trace")
    assert config["prompt_version"] == ", ".join(load_prompt_set(name, "zh").describe() for name in names)


def test_lists_are_asked_for_their_narrowest_value(tmp_path):
    """Of a list, no value of the item's own is a wrong choice; names that nobody shares are not asked for."""
    lists = [["care", "soap"], ["care", "cream"], ["care", "soap"], ["care", "cream"]]
    n = len(lists)
    names = [f"i{i}" for i in range(n)]
    texts = [json.dumps({"categories": of, "asin": f"B{i}"}) for i, of in enumerate(lists)]
    columns = {"item_id": names, "domain": ["video"] * n, "title": names, "text": names, "attributes": texts}
    interactions = pl.DataFrame(
        [("ann", i, t, "click", "video") for t, i in enumerate(names)], schema=INTERACTION_SCHEMA, orient="row"
    )
    save_dataset(Dataset(pl.DataFrame(columns, schema=ITEM_SCHEMA), interactions), tmp_path / "data")
    codes = np.array([(0, 0, i) for i in range(n)])
    Catalog(FORMAT, names, codes, ["video"] * n, names).save(tmp_path / "catalog")
    arguments = ["--data", str(tmp_path / "data"), "--catalog", str(tmp_path / "catalog")]
    assert main([*arguments, "--out", str(tmp_path / "rows")]) == 0
    rows = [row for row in read_jsonl(tmp_path / "rows/rows.jsonl") if row["task"] == "item_qa"]
    assert [row["id"] for row in rows] == [f"item_qa:i{i}:categories" for i in range(n)]
    for row, of in zip(rows, lists, strict=True):
        choices = row["reference"]["choices"]
        assert sorted(choices) == ["cream", "soap"]
        assert choices[LETTERS.index(row["reference"]["answer"])] == of[-1]


def test_a_truth_of_another_world_is_refused(simulated, tmp_path, capsys):
    write_world(simulate_world(WorldConfig(users=25, items=120, topics=8, seed=1)), tmp_path / "data")
    pl.read_parquet(tmp_path / "data/interactions.parquet")[:-1].write_parquet(tmp_path / "data/interactions.parquet")
    arguments = ["--data", str(tmp_path / "data"), *simulated.arguments[2:], "--out", str(tmp_path / "rows")]
    assert main(arguments) == 2
    assert "interactions.parquet does not tell of" in capsys.readouterr().err


def test_who_answers_with_the_reference_scores_1_on_every_task(simulated):
    speak = {
        "caption": lambda r: r["caption"],
        "grounding": lambda r: r["pattern"],
        "item_qa": lambda r: f"The answer is {r['answer']}.",
        "item2item": lambda r: r["choices"][LETTERS.index(r["answer"])],
        "action_selection": lambda r: json.dumps(r["actions"]),
        "topic": json.dumps,
        "direct": lambda r: f"```json\n{json.dumps(r, indent=1)}\n```",
        "next_item": lambda r: r["pattern"],
    }
    rows = bind_format(load_rows(simulated.root / "rows/rows.jsonl"), FORMAT)
    answers = [
        Generation(
            row.id, "think", f"<think>\nso\n</think>\n\n{speak[row.task](row.reference)}", 1, 1, 1.0, False, False
        )
        for row in rows
    ]
    tables = aggregate(score_answers(rows, answers)[0], {}, 0)
    assert list(tables) == list(speak)
    for name, table in tables.items():
        found = table["modes"]["think"]
        assert found["counts"]["malformed"] == 0
        assert {m: found["metrics"][m]["value"] for m in load_task(name).metrics} == pytest.approx(
            dict.fromkeys(load_task(name).metrics, 1.0)
        )


# -- other data -----------------------------------------------------------------------------------------------------


def test_data_without_a_truth_gives_what_it_can(world, tmp_path):
    out = tmp_path / "rows"
    assert main([*world.data, "--catalog", str(world.root / "catalog"), "--out", str(out)]) == 0
    rows = bind_format(load_rows(out / "rows.jsonl"), load_format("onereason", 2, 8))
    assert Counter(row.task for row in rows) == {"caption": 12, "grounding": 12, "item2item": 7, "next_item": 3}
    rejected = read_json(out / "manifest.json")["rejected"]
    assert rejected == {
        "caption: empty_caption": 1,
        "grounding: empty_caption": 1,
        "item_qa: no_attribute_to_ask_about": 13,
        "next_item: no_validation_item_behind_a_history": 1,  # cid has one item
    }
    # ann 0 1 2 3 4 5 and dee 3 2 9 train: 2 and 3 stand next to each other twice, all others once.
    beside = {0: 1, 1: 0, 2: 3, 3: 2, 4: 3, 5: 4, 9: 2}
    near = {0: {1}, 1: {0, 2}, 2: {1, 3, 9}, 3: {2, 4}, 4: {3, 5}, 5: {4}, 9: {2}}
    items = {pattern: i for i, pattern in enumerate(world.patterns)}
    found = {}
    for row in rows:
        if row.task == "item2item":
            source = int(row.id.split(":")[1][1:])
            choices = [items[c] for c in row.reference["choices"]]
            found[source] = choices.pop(LETTERS.index(row.reference["answer"]))
            assert not near[source] & set(choices)
    assert found == beside


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        # By hand: user -> (history, target). bob has three items, cid one.
        ([], {"ann": ([0, 1, 2, 3, 4, 5], 6), "bob": ([8], 9), "dee": ([3, 2, 9], 1)}),
        # Items at 3 and 4 validate; the first of them is the target. bob has none at 3, and cid none at all.
        (
            ["--split-method", "temporal", "--validation-start", "3", "--test-start", "5"],
            {"ann": ([0, 1, 2], 3), "dee": ([3, 2, 9], 1)},
        ),
        (
            ["--split-method", "temporal", "--validation-start", "5", "--test-start", "7", "--max-history", "2"],
            {"ann": ([3, 4], 5)},
        ),
    ],
)
def test_what_comes_next_follows_the_split(world, tmp_path, split, expected):
    out = tmp_path / "rows"
    assert main([*world.data, "--catalog", str(world.root / "catalog"), *split, "--out", str(out)]) == 0
    format = load_format("onereason", 2, 8)
    found = {}
    for row in bind_format(load_rows(out / "rows.jsonl"), format):
        if row.task == "next_item":
            shown = [world.patterns.index(format.render(i.codes, i.domain)) for i in format.parse(asked_of(row)).items]
            found[row.id.partition(":")[2]] = (shown, world.patterns.index(row.reference["pattern"]))
    assert found == expected
    rejected = read_json(out / "manifest.json")["rejected"]
    assert rejected["next_item: no_validation_item_behind_a_history"] == 4 - len(expected)


def asked_of(row) -> str:
    return row.messages[-1]["content"]


def test_captions_that_several_sids_share_ground_nothing(world, tmp_path):
    catalog = world.catalog
    captions = ["same" if i < 3 else c for i, c in enumerate(catalog.captions)]
    Catalog(catalog.format, catalog.item_ids, catalog.codes, catalog.domains, captions).save(tmp_path / "catalog")
    assert main([*world.data, "--catalog", str(tmp_path / "catalog"), "--out", str(tmp_path / "rows")]) == 0
    manifest = read_json(tmp_path / "rows/manifest.json")
    assert manifest["rejected"]["grounding: caption_of_several_sids"] == 3
    assert manifest["counts"]["grounding"] == 10 and manifest["counts"]["caption"] == 13


def test_episodes_need_a_truth(world):
    assert load_episodes(world.root / "data", SimpleNamespace(), 50, Counter()) is None


# -- gsm8k and mistakes ---------------------------------------------------------------------------------------------


def test_gsm8k_rows():
    row = gsm8k_row({"question": " How many? ", "answer": "3 * 6 = <<3*6=18>>18\n#### 1,800"}, "test:1")
    assert row["id"] == "gsm8k:test:1" and row["reference"] == {"answer": "1,800"}
    assert asked(row).startswith("How many?\nReason step by step")
    assert gsm8k_row({"question": "a"}, "x") == "no_question_and_answer"
    assert gsm8k_row({"question": "a", "answer": "b"}, "x") == "no_number"


def test_the_public_file_without_data(shared_dir, tmp_path):
    path = shared_dir / "data/gsm8k/gsm8k_test.jsonl"
    assert main(["--gsm8k", str(path), "--max-rows", "2000", "--out", str(tmp_path / "rows")]) == 0
    rows = load_rows(tmp_path / "rows/rows.jsonl")
    assert len(rows) == 1319 and rows[0].reference == {"answer": "18"}
    assert read_json(tmp_path / "rows/manifest.json")["rejected"] == {}


def test_mix_says_where_the_true_choice_is():
    for seed in range(5):
        choices, letter = mix("yes", ["a", "b"], random.Random(seed))
        assert sorted(choices) == ["a", "b", "yes"] and choices[LETTERS.index(letter)] == "yes"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "there is nothing to make rows of; give --data and --catalog, or --gsm8k FILE"),
        (["--data", "x"], "--data and --catalog belong together"),
        (["--gsm8k", "nowhere.jsonl"], "GSM8K not found"),
        (["--gsm8k", "x", "--max-rows", "0"], "--max-rows (0) must be at least 1"),
        (["--gsm8k", "x", "--language", "fr"], "prompt set 'domains' for language 'fr' not found"),
        (["--gsm8k", "x", "--choices", "11"], "--choices must lie between 2 and 10, got 11"),
    ],
)
def test_mistakes(tmp_path, capsys, options, message):
    assert main([*options, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_an_empty_file_is_refused(tmp_path, capsys):
    (tmp_path / "empty.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    assert main(["--gsm8k", str(tmp_path / "empty.jsonl"), "--out", str(tmp_path / "out")]) == 2
    assert "no row is left" in capsys.readouterr().err and not (tmp_path / "out").exists()
