"""Derivation rows: one hop from the source alone, of related pairs, the target named nowhere."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from data_builders.build_derivation import main
from onereason.cognition.associations import flatten_histories
from onereason.cognition.bridges import BRIDGE_FIELDS, BRIDGE_TYPES, ORIGINS, PairRules, find_pairs, judge_pairs
from onereason.cognition.judge.relations import RELATIONS
from onereason.data.chat import check_row, parse_answer
from onereason.data.prompts import domain_noun
from onereason.data.schema import save_dataset
from onereason.io import read_json, read_jsonl
from onereason.itemic.catalog import Catalog
from tests.chat_server import ChatServer, Reply, says
from tests.cognition_worlds import MARKED, arguments, make_facts, shop, simulated, write_simulated, write_world

PATTERN = re.compile(r"<\|\w+_begin\|>(?:<s_\w_\d+>)+")
CHOICE = re.compile(r"^([A-J])\. (<\S+)", re.MULTILINE)
WINDOW = 4


@pytest.fixture(scope="module")
def shop_arguments(tmp_path_factory) -> list[str]:
    return write_world(tmp_path_factory.mktemp("shop"), shop().facts, shop().histories).arguments


@pytest.fixture(scope="module")
def simulated_arguments(tmp_path_factory) -> list[str]:
    return write_simulated(tmp_path_factory.mktemp("simulated"))


@pytest.fixture(scope="module")
def corpus(simulated_arguments, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("derivation") / "out"
    more = ["--choice-share", "0.3", "--think-share", "0.6", "--num-choices", "5"]
    assert main([*simulated_arguments, "--out", str(out), *more]) == 0
    return out


@pytest.fixture(scope="module")
def rows(corpus) -> list[dict]:
    return read_jsonl(corpus / "rows.jsonl")


def turns(row) -> tuple[str, str, str]:
    return tuple(message["content"] for message in row["messages"])


def hop_of(row_id: str) -> tuple[int, str, int]:
    """Source, origin and target of a row's or a reject's id."""
    source, origin, target = row_id.split(":")[:3]
    item_ids = simulated().facts.item_ids
    return item_ids.index(source), origin, item_ids.index(target)


def related_interests() -> np.ndarray:
    """Interests that stand near each other at least as often as by chance, counted pair by pair."""
    knowledge = simulated().knowledge
    number = len(knowledge.interests)
    seen = np.zeros((number, number))
    for history in simulated().histories:
        of = [knowledge.interest_of[item] for item in history.tolist()]
        for left in range(len(of)):
            for right in range(left + 1, min(left + WINDOW + 1, len(of))):
                if of[left] != of[right] and min(of[left], of[right]) >= 0:
                    seen[of[left], of[right]] += 1
                    seen[of[right], of[left]] += 1
    sums = seen.sum(1)
    return (seen * seen.sum() >= np.outer(sums, sums)) & (seen > 0) | np.eye(number, dtype=bool)


# -- rows -----------------------------------------------------------------------------------------------------------


def test_bridge_rows_answer_with_the_six_fields(rows):
    bridges = [row for row in rows if row["task"] == "bridge"]
    facts, separate = simulated().facts, Counter()
    for row in bridges:
        check_row(row)
        _, asked, said = turns(row)
        source, _, target = hop_of(row["id"])
        answer = parse_answer(said)
        fields = json.loads(answer.answer)
        assert tuple(fields) == BRIDGE_FIELDS
        assert all(isinstance(fields[name], str) and fields[name] for name in BRIDGE_FIELDS[:-1])
        assert fields["bridge_type"] in BRIDGE_TYPES
        assert isinstance(fields["confidence"], float) and 0 <= fields["confidence"] <= 1
        noun = domain_noun(facts.domains[target], True, "en")
        assert fields["continuation_direction"] == f"{noun} about {facts.themes[target]}"
        assert fields["source_need"].startswith(facts.themes[source])
        assert noun in asked and asked.endswith(f" /{row['mode']}")
        assert (answer.think is None) == (row["mode"] == "no_think")
        assert answer.think is None or fields["reason_seed"] in answer.think
        assert row["id"].endswith(":bridge") and row["teacher"] == "template" and row["loss"] == "assistant"
        assert row["domain"] == facts.domains[target]
        separate[fields["bridge_type"]] += 1
    assert len(bridges) > 1500 and len(separate) >= 5


def test_bridge_types_are_those_of_the_items(rows):
    facts, interest_of = simulated().facts, simulated().knowledge.interest_of
    for row in rows:
        if row["task"] == "bridge":
            source, _, target = hop_of(row["id"])
            kind = json.loads(parse_answer(turns(row)[2]).answer)["bridge_type"]
            same, crosses = interest_of[source] == interest_of[target], facts.domains[source] != facts.domains[target]
            assert same == (kind in ("alternative", "upgrade", "cross_domain"))
            assert (kind == "cross_domain") == (same and crosses)


def test_the_target_stands_nowhere_in_a_bridge_row(rows):
    facts = simulated().facts
    for row in rows:
        if row["task"] == "bridge":
            source, _, target = hop_of(row["id"])
            text = "\n".join(turns(row))
            assert PATTERN.findall(text) == [facts.patterns[source]]
            assert facts.patterns[source] in turns(row)[1]
            assert facts.titles[target].lower() not in text.lower()
            assert facts.item_ids[target] not in text


def test_choices_hold_the_target_among_unrelated_items(rows):
    facts, interest_of, related = simulated().facts, simulated().knowledge.interest_of, related_interests()
    place = {pattern: item for item, pattern in enumerate(facts.patterns)}
    letters, asked = Counter(), 0
    for row in rows:
        if row["task"] == "item2item":
            check_row(row)
            source, _, target = hop_of(row["id"])
            _, user, said = turns(row)
            assert row["mode"] == "no_think" and row["domain"] == facts.domains[target]
            choices = dict(CHOICE.findall(user))
            assert list(choices) == list("ABCDE")[: len(choices)] and choices[said] == facts.patterns[target]
            shown = PATTERN.findall(user)
            assert shown[0] == facts.patterns[source] and len(set(shown)) == len(shown) == len(choices) + 1
            for pattern in choices.values():
                item = place[pattern]
                assert facts.domains[item] == facts.domains[target]
                assert item == target or not related[interest_of[source], interest_of[item]]
            letters[said] += 1
            asked += len(choices) == 5
    assert asked == sum(letters.values()) > 700
    assert min(letters[letter] for letter in "ABCDE") > 0.15 * asked  # the right answer has no place of its own


def test_no_wrong_choice_stands_for_an_item_that_goes_with_the_source(tmp_path):
    """Over a catalog where every third item shares its sid with another, against all pairs that were ever seen."""
    known, place = simulated(), np.arange(len(simulated().facts))
    place = np.where(place % 3 == 2, place - 2, place)  # under the sid of an item two places before
    domains = known.catalog.domains
    codes = np.stack([place // 64, place % 64], 1)
    catalog = Catalog(known.catalog.format, known.facts.item_ids, codes, domains, known.catalog.captions)
    patterns = [catalog.render(i) for i in range(len(domains))]
    assert len(set(patterns)) < 0.8 * len(patterns)
    catalog.save(tmp_path / "catalog")
    save_dataset(known.world.dataset, tmp_path / "data")
    more = ["--choice-share", "1", "--num-choices", "10"]
    assert main([*arguments(tmp_path), "--out", str(tmp_path / "out"), *more]) == 0

    knowledge = known.knowledge
    pairs = find_pairs(knowledge, *flatten_histories(known.histories), None, PairRules(window=WINDOW, partners=10**6))
    go_together = judge_pairs(knowledge, pairs) < RELATIONS.index("unrelated")
    related = {(patterns[i], patterns[i]) for i in range(len(patterns))}
    for source, target in zip(pairs.sources[go_together].tolist(), pairs.targets[go_together].tolist(), strict=True):
        related |= {(patterns[source], patterns[target]), (patterns[target], patterns[source])}
    num_wrong = 0
    for row in read_jsonl(tmp_path / "out/rows.jsonl"):
        _, user, said = turns(row)
        source, choices = PATTERN.findall(user)[0], dict(CHOICE.findall(user))
        right = choices.pop(said)
        assert (source, right) in related and not any((source, wrong) in related for wrong in choices.values())
        num_wrong += len(choices)
    assert num_wrong > 10_000


def test_only_related_pairs_teach_and_of_those_that_say_the_same_one(corpus, rows):
    knowledge, facts = simulated().knowledge, simulated().facts
    items, offsets = flatten_histories(simulated().histories)
    pairs = find_pairs(knowledge, items, offsets, None, PairRules(window=WINDOW))
    classes: dict[tuple[int, str, int], int] = {}
    says_: dict[tuple[int, str, int], tuple] = {}
    best: dict[tuple, int] = {}
    columns = (pairs.sources, pairs.origins, pairs.targets, pairs.types, judge_pairs(knowledge, pairs))
    for source, origin, target, kind, relation in zip(*(column.tolist() for column in columns), strict=True):
        hop = (source, ORIGINS[origin], target)
        classes[hop] = relation
        says_[hop] = (source, kind, knowledge.interest_of[target], facts.domains[target])
        best[says_[hop]] = min(relation, best.get(says_[hop], relation))
    rejected = read_jsonl(corpus / "rejected.jsonl")
    found = {hop_of(row["id"]): 0 for row in rows}
    for reject in rejected:
        relation = RELATIONS.index(reject["reason"]) if reject["reason"] in RELATIONS else 0
        found[hop_of(reject["id"])] = relation
    assert all(classes[hop] == relation for hop, relation in found.items())
    assert len(found) == len(rows) + len(rejected) == len(best)
    assert {says_[hop]: relation for hop, relation in found.items()} == best
    manifest = read_json(corpus / "manifest.json")
    counts = Counter(best.values())
    assert manifest["rejected"]["uncertain"] == counts[1] > 100
    assert manifest["rejected"]["unrelated"] == counts[2] > 100
    assert manifest["config"]["pairs_found"] == len(pairs)
    assert manifest["config"]["pairs_that_say_the_same"] == len(pairs) - len(best)
    assert manifest["config"]["searches"] == 0


def test_shares_are_about_what_is_asked(rows):
    choices = sum(row["task"] == "item2item" for row in rows)
    bridges = [row for row in rows if row["task"] == "bridge"]
    thinks = sum(row["mode"] == "think" for row in bridges)
    # more than four standard deviations of a thousand draws
    assert abs(choices / len(rows) - 0.3) < 0.05 and abs(thinks / len(bridges) - 0.6) < 0.06


@pytest.mark.parametrize(
    ("choice", "think", "kinds"),
    [
        ("0", "0", {("bridge", "no_think")}),
        ("0", "1", {("bridge", "think")}),
        ("1", "1", {("item2item", "no_think")}),
    ],
)
def test_shares_of_nothing_and_of_all_are_exact(shop_arguments, tmp_path, choice, think, kinds):
    more = ["--choice-share", choice, "--think-share", think]
    assert main([*shop_arguments, "--out", str(tmp_path / "out"), *more]) == 0
    assert {(row["task"], row["mode"]) for row in read_jsonl(tmp_path / "out/rows.jsonl")} == kinds


@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_of_validation_or_test_is_in_any_file(shop_arguments, tmp_path, language):
    assert main([*shop_arguments, "--out", str(tmp_path / "out"), "--language", language]) == 0
    for path in (tmp_path / "out").iterdir():
        text = path.read_text("utf-8")
        assert MARKED not in text and not re.search(r"\bi4[01]\b", text)
    for row in read_jsonl(tmp_path / "out/rows.jsonl"):
        if row["task"] == "bridge":  # wrong choices may be any item of the catalogue
            assert not any(shop().facts.patterns[item] in "".join(turns(row)) for item in (40, 41))


def test_shards_and_workers_change_nothing(shop_arguments, tmp_path):
    for name, more in (("a", ["--shard-size", "7"]), ("b", []), ("c", ["--shard-size", "50", "--workers", "2"])):
        assert main([*shop_arguments, "--out", str(tmp_path / name), *more]) == 0
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
        assert path.read_bytes() == (tmp_path / "c" / path.name).read_bytes(), path.name


def test_searches_after_a_play_are_an_origin_of_their_own(tmp_path, capsys):
    # half of the users stay with tea, half with tents; every second event is a search, 900 seconds after the play
    facts = make_facts([("video", {"category": ("tea", "tents", "trains")[n % 3]}) for n in range(12)])
    steps = {f"u{n}": [0, 3, 6, 9, 0, 3, 6, 9] if n % 2 else [1, 4, 7, 10, 1, 4, 7, 10] for n in range(16)}
    world = write_world(tmp_path, facts, steps, actions=("play", "search"), step=900)

    def origins(name: str, *more: str) -> tuple[set[tuple[str, ...]], int]:
        out = tmp_path / name
        assert main([*world.arguments, "--out", str(out), "--choice-share", "0", *more]) == 0
        rows = read_jsonl(out / "rows.jsonl")
        assert not (out / "rejected.jsonl").exists() and rows
        for row in rows:
            assert ("users search for" in turns(row)[2]) == (row["id"].split(":")[1] == "search")
        found = {tuple(row["id"].split(":")[:3:2]) for row in rows if ":search:" in row["id"]}
        return found, read_json(out / "manifest.json")["config"]["searches"]

    # Six of eight events train: three searches of each of 16 users. A play stands on an even place, its search behind
    # it: a search is a next step too, and is told as a search.
    everything = {("i0", "i3"), ("i6", "i9"), ("i1", "i4"), ("i7", "i10")}
    assert origins("with", "--search-actions", "query, search") == (everything, 48)
    assert capsys.readouterr().err == (
        "--search-actions: no event has the action query; events of the training part have play, search\n"
    )
    assert origins("none") == (set(), 0)
    assert origins("late", "--search-actions", "search", "--search-seconds", "899") == (set(), 0)
    assert capsys.readouterr().err == "no search follows another event within 899 s\n"
    assert origins("just", "--search-actions", "search", "--search-seconds", "900") == (everything, 48)
    assert capsys.readouterr().err == ""


def test_chinese_rows(shop_arguments, tmp_path):
    for language in ("en", "zh"):
        assert main([*shop_arguments, "--out", str(tmp_path / language), "--language", language]) == 0
    english, chinese = (read_jsonl(tmp_path / language / "rows.jsonl") for language in ("en", "zh"))
    assert [(row["id"], row["task"], row["mode"]) for row in english] == [
        (row["id"], row["task"], row["mode"]) for row in chinese
    ]
    for row in chinese:
        check_row(row)
        system, user, said = turns(row)
        assert all(re.search("[\u4e00-\u9fff]", text) for text in (system, user))
        if row["task"] == "bridge":
            fields = json.loads(parse_answer(said).answer)
            assert tuple(fields) == BRIDGE_FIELDS and fields["bridge_type"] in BRIDGE_TYPES
            assert "倍" in fields["reason_seed"] and "\\u" not in said
    described = read_json(tmp_path / "zh/manifest.json")["config"]["prompt_version"]
    assert described == "domains/zh/1, derivation/zh/1, trace/zh/3"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--think-share", "1.1"], "--think-share must lie between 0 and 1, got 1.1"),
        (["--choice-share", "-0.1"], "--choice-share must lie between 0 and 1, got -0.1"),
        (["--choice-share", "nan"], "--choice-share must lie between 0 and 1, got nan"),
        (["--num-choices", "1"], "--num-choices must lie between 2 and 10, got 1"),
        (["--num-choices", "11"], "--num-choices must lie between 2 and 10, got 11"),
        (["--window", "0"], "--window (0) and --partners (8) must be at least 1"),
        (["--partners", "0"], "--window (4) and --partners (0) must be at least 1"),
        (["--language", "fr"], "not found; use en or zh"),
        (["--teacher", "endpoint"], "--teacher endpoint needs --teacher-url"),
        (
            ["--search-actions", "serch,buy"],
            "--search-actions 'serch,buy': no event has such an action; events of the training part have click, like.",
        ),
        (["--judge", "teacher"], "which a bridge does not have; leave them out."),
        (["--search-actions", " ,"], "--search-actions ' ,': no event has such an action"),
    ],
)
def test_mistakes_are_told_in_one_line(shop_arguments, tmp_path, capsys, more, said):
    assert main([*shop_arguments, "--out", str(tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


# -- a language model as teacher ------------------------------------------------------------------------------------


REASONS = {
    "well": None,
    "judged": None,
    "uncertain": "teacher_uncertain",
    "unrelated": "teacher_unrelated",
    "odd_relation": "bridge_field_wrong",
    "broken": "teacher_broken_json",
    "list": "teacher_broken_json",
    "missing": "bridge_field_missing",
    "sure": "bridge_field_wrong",
    "type": "bridge_field_wrong",
    "title": "leak_title",
    "split_title": "leak_title",
    "pattern": "leak_pattern",
    "half_pair": "teacher_broken_json",
    "empty": "teacher_empty",
    "chinese": "wrong_language",
}
"""What a model does -> the reason that its rows are left out for; None keeps them."""


class FaultyTeacher:
    """Describes hops, except that it fails in one of several ways at most of them."""

    def __init__(self) -> None:
        self.did: Counter[str] = Counter()
        self.answers: defaultdict[str, list[dict]] = defaultdict(list)

    def __call__(self, payload) -> Reply:
        prompt = payload["messages"][-1]["content"]
        target = shop().facts.captions.index(re.search(r"never to be named: (.*)\n", prompt)[1])
        way = list(REASONS)[sum(self.did.values()) % len(REASONS)]
        self.did[way] += 1
        fields = {
            "source_need": "a warm drink",
            "bridge_type": "complement",
            "abstract_bridge": "from drinks to the outdoors",
            "continuation_direction": "more of the outdoors",
            "reason_seed": "they go together",
            "confidence": 0.5,
        }
        title = shop().facts.titles[target]
        fields |= {
            "judged": {"relation": "Explicitly related", "extra": 1},
            "uncertain": {"relation": "uncertain"},
            "unrelated": {"relation": "Unrelated"},
            "odd_relation": {"relation": "close"},
            "sure": {"confidence": 1.5},
            "type": {"bridge_type": "bought together"},
            "title": {"reason_seed": f"they want {title.upper()}"},
            "split_title": {"reason_seed": title.replace(" ", "\n")},
            "pattern": {"abstract_bridge": shop().facts.patterns[target]},
            "half_pair": {"source_need": "tea \ud83c"},
            "chinese": {
                "reason_seed": "喝茶的人常常也会去露营所以这两类东西经常放在一起选购而且往往同时出现在一个人的时间线里"
            },
        }.get(way, {})
        if way == "missing":
            del fields["reason_seed"]
        text = json.dumps(fields)
        return says(
            {"broken": text[:-5], "list": "[1, 2]", "empty": "", "judged": f"```json\n{text}\n```"}.get(way, text)
        )


def test_what_a_model_says_badly_is_counted_and_left_out(shop_arguments, tmp_path):
    teacher = FaultyTeacher()
    with ChatServer(teacher) as server:
        endpoint = f"--teacher endpoint --teacher-url {server.url} --teacher-model m --teacher-tries 1".split()
        more = ["--choice-share", "0", "--think-share", "0.5", "--teacher-concurrency", "1"]
        assert main([*shop_arguments, "--out", str(tmp_path / "out"), *endpoint, *more]) == 0
    assert min(teacher.did[way] for way in REASONS) >= 3
    expected = Counter()
    for way, number in teacher.did.items():
        expected[REASONS[way]] += number
    rows = read_jsonl(tmp_path / "out/rows.jsonl")
    rejected = Counter(reject["reason"] for reject in read_jsonl(tmp_path / "out/rejected.jsonl"))
    of_pairs = {reason: rejected.pop(reason) for reason in ("uncertain", "unrelated")}
    assert len(rows) == expected.pop(None) and rejected == expected
    assert read_json(tmp_path / "out/manifest.json")["rejected"] == rejected + Counter(of_pairs)
    assert {row["mode"] for row in rows} == {"think", "no_think"}
    for row in rows:
        fields = json.loads(parse_answer(turns(row)[2]).answer)
        assert tuple(fields) == BRIDGE_FIELDS and fields["source_need"] == "a warm drink"
        assert row["teacher"] == "endpoint:m"


def test_a_chinese_corpus_takes_no_english_fields(shop_arguments, tmp_path, capsys):
    fields = dict.fromkeys(BRIDGE_FIELDS, "喝茶的人常去露营") | {"bridge_type": "complement", "confidence": 0.5}
    english = fields | {"source_need": "a warm drink and a long walk", "reason_seed": "people who do one do the other"}
    english |= {"abstract_bridge": "from drinks to the outdoors", "continuation_direction": "tents"}
    for name, said, code in (("zh", fields, 0), ("en", english, 2)):
        with ChatServer(lambda payload, said=said: says(json.dumps(said))) as server:
            endpoint = f"--teacher endpoint --teacher-url {server.url} --teacher-model m --teacher-tries 1".split()
            more = ["--choice-share", "0", "--language", "zh", "--out", str(tmp_path / name / "out")]
            assert main([*shop_arguments, *endpoint, *more]) == code
    assert "no row is left" in (error := capsys.readouterr().err) and "'wrong_language': 62" in error
    rejected = read_json(tmp_path / "zh/out/manifest.json")["rejected"]
    assert "wrong_language" not in rejected
