"""Rationale rows: reason from the pruned context, asked with the whole history."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from data_builders.build_rationales import main, parse_weights
from onereason.cognition.relevance import RelevanceWeights
from onereason.data.chat import check_row, parse_answer
from onereason.errors import ConfigError
from onereason.io import read_json, read_jsonl
from tests.chat_server import ChatServer, Reply, says
from tests.cognition_worlds import MARKED, make_facts, shop, write_world

PATTERN = re.compile(r"<\|\w+_begin\|>(?:<s_\w_\d+>)+")
HISTORIES = shop().histories
PATTERNS = shop().facts.patterns


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> list[str]:
    return write_world(tmp_path_factory.mktemp("shop"), shop().facts, HISTORIES).arguments


@pytest.fixture(scope="module")
def corpus(arguments, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("rationales") / "out"
    assert main([*arguments, "--out", str(out), "--targets", "100", "--max-history", "7", "--k", "3"]) == 0
    return out


def turns(row) -> tuple[str, str, str]:
    return tuple(message["content"] for message in row["messages"])


def test_each_target_gives_a_row_or_a_reason(corpus):
    rows, rejected = read_jsonl(corpus / "rows.jsonl"), read_jsonl(corpus / "rejected.jsonl")
    training = {user: h[:-2] if len(h) >= 3 else h for user, h in HISTORIES.items()}
    wanted = {f"{user}:{place}" for user, h in training.items() for place in range(3, len(h))}
    found = {row["id"].removesuffix(":rationale") for row in rows}
    assert found | {r["id"] for r in rejected} == wanted | {"one", "two", "short"}
    assert len(rows) == len(found) == len(wanted) + 3 - len(rejected)
    assert {r["id"]: r["reason"] for r in rejected if ":" not in r["id"]} == dict.fromkeys(
        ("one", "two", "short"), "history_too_short"
    )


def test_rows_show_the_history_and_reason_from_the_relevant_few(corpus):
    for row in read_jsonl(corpus / "rows.jsonl"):
        check_row(row)
        user, place, _ = row["id"].rsplit(":", 2)
        shown, target = HISTORIES[user][: int(place)][-7:], HISTORIES[user][int(place)]
        _, asked, said = turns(row)
        answer = parse_answer(said)
        assert PATTERN.findall(asked) == [PATTERNS[i] for i in shown] and asked.endswith(" /think")
        assert answer.answer == PATTERNS[target]
        cited = PATTERN.findall(answer.think)
        assert 1 <= len(cited) <= 3 and len(set(cited)) == len(cited)
        assert set(cited) <= {PATTERNS[i] for i in shown} - {PATTERNS[target]}
        assert (row["task"], row["mode"], row["loss"], row["user"]) == ("rationale", "think", "assistant", user)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_of_validation_or_test_is_in_any_file(arguments, tmp_path, language):
    assert main([*arguments, "--out", str(tmp_path / "out"), "--targets", "100", "--language", language]) == 0
    for path in (tmp_path / "out").iterdir():
        text = path.read_text("utf-8")
        assert MARKED not in text
        assert path.name == "manifest.json" or not any(PATTERNS[item] in text for item in (40, 41))
    described = read_json(tmp_path / "out/manifest.json")["config"]["prompt_version"]
    assert described == f"domains/{language}/1, recommendation/{language}/1, rationale/{language}/1"


def test_shards_change_nothing(arguments, tmp_path):
    for size, name in ((3, "a"), (2000, "b")):
        assert main([*arguments, "--out", str(tmp_path / name), "--targets", "3", "--shard-size", str(size)]) == 0
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_each_view_finds_its_own(tmp_path):
    # items 0-7 share their first code, so do 8-15; vectors say that 8 is like 3; 1 and 3 stand near each other
    facts = make_facts([("video", {"category": "tea"})] * 16)
    histories = {f"u{n}": [1, 3, 9, 9] for n in range(3)} | {"v": [2, 1, 8, 9, 3, 10, 10]}
    world = write_world(tmp_path, facts, histories)
    vectors = np.eye(16, dtype=np.float32)
    vectors[8] = vectors[3]
    np.save(tmp_path / "vectors.npy", vectors)

    def cited(relevance: str) -> list[str]:
        out = tmp_path / relevance
        more = ["--relevance", relevance, "--vectors", str(tmp_path / "vectors.npy"), "--window", "1", "--k", "1"]
        assert main([*world.arguments, "--out", str(out), *more]) == 0
        (row,) = read_jsonl(out / "rows.jsonl")
        assert row["id"] == "v:4:rationale" and turns(row)[2].endswith(world.patterns[3])
        return [str(facts.patterns.index(p)) for p in PATTERN.findall(parse_answer(turns(row)[2]).think)]

    assert cited("embedding=1") == ["8"]
    # 1 and 3 stand side by side three times, 9 and 3 once (in v): 1 has 3 + 1 + 1 neighbours, 3 has 3 + 1
    assert cited("co_occurrence=1") == ["1"]
    assert cited("prefix=1") == ["1"]  # 2 and 1 share the first of two codes; the newer counts
    manifest = read_json(tmp_path / "embedding=1/manifest.json")
    assert "vectors.npy" in manifest["inputs"] and manifest["config"]["relevance"] == "embedding=1"
    assert "vectors.npy" not in read_json(tmp_path / "prefix=1/manifest.json")["inputs"]


def test_a_model_reasons_from_the_pruned_context_alone(arguments, tmp_path):
    seen: list[tuple[tuple[str, ...], str]] = []

    def answer(payload) -> Reply:
        context, _, asked = payload["messages"][-1]["content"].partition("\n\nChosen next")
        pruned = PATTERN.findall(context)
        target = PATTERNS[shop().facts.captions.index(asked.rpartition(": ")[2])]
        way = len(seen) % 3
        seen.append((tuple(pruned), target))
        text = f"They keep looking at {pruned[0]}, so something of that kind fits."
        foreign = next(p for p in PATTERNS if p not in (*pruned, target))
        return says(text if way == 0 else f"{text} {target if way == 1 else foreign}")

    with ChatServer(answer) as server:
        endpoint = f"--teacher endpoint --teacher-url {server.url} --teacher-model m --teacher-tries 1".split()
        more = ["--k", "2", "--targets", "4", "--teacher-concurrency", "1"]
        assert main([*arguments, "--out", str(tmp_path / "out"), *endpoint, *more]) == 0
    assert all(1 <= len(pruned) <= 2 for pruned, _ in seen)
    rows, reasons = read_jsonl(tmp_path / "out/rows.jsonl"), read_json(tmp_path / "out/manifest.json")["rejected"]
    answers = [parse_answer(turns(row)[2]) for row in rows]
    good = {(pruned[0], target) for pruned, target in seen[::3]}  # users who are asked the same share an answer
    assert {(PATTERN.findall(answer.think)[0], answer.answer) for answer in answers} == good
    assert reasons["leak_pattern"] >= len(seen[1::3])
    refused = sum(n for reason, n in reasons.items() if reason not in ("history_too_short", "no_bridge"))
    assert refused - reasons["target_without_theme"] >= len(seen) - len(seen[::3])


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("prefix=1,co_occurrence=2", (1, 0, 2)),
        (" embedding = 0.5 ", (0, 0.5, 0)),
        ("prefix", (1, 0, 0)),
        ("prefix=0,embedding=1", (0, 1, 0)),
    ],
)
def test_weights_are_read(text, weights):
    assert parse_weights(text) == RelevanceWeights(*weights)


@pytest.mark.parametrize("text", ["", "price=1", "prefix=-1", "prefix=x", "prefix=1,", "prefix=1;embedding=1"])
def test_what_is_no_weight_is_refused(text):
    with pytest.raises(ConfigError, match="write VIEW=WEIGHT with a view out of prefix, embedding, co_occurrence"):
        parse_weights(text)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--k", "0"], "--k must be at least 1, got 0"),
        (["--window", "0"], "--window must be at least 1, got 0"),
        (["--targets", "0"], "--targets must be at least 1, got 0"),
        (
            ["--min-history", "9", "--max-history", "8"],
            "--min-history (9) must be at least 1 and at most --max-history",
        ),
        (["--relevance", "prefix=0"], "relevance weights must be numbers from 0 with one above it"),
        (["--relevance", "prefix=nan"], "relevance weights must be numbers from 0 with one above it"),
        (
            ["--relevance", "embedding=1"],
            "which does not exist; make the catalog with `onereason tokenize --save-vectors`",
        ),
        (
            ["--relevance", "embedding", "--vectors", "no.npy"],
            "relevance by embedding reads no.npy, which does not exist",
        ),
        (["--min-history", "60", "--max-history", "70"], "no row is left"),
        (["--judge", "teacher"], "--judge and --judge-thresholds score the three stages"),
        (["--judge-thresholds", "logic=0.5"], "--judge and --judge-thresholds score the three stages"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, tmp_path, capsys, more, said):
    assert main([*arguments, "--out", str(tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
