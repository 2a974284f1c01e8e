"""Evolution rows: what a dated timeline says of one interest, every action copied, nothing made up."""

from __future__ import annotations

import datetime
import json
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from data_builders.build_evolution import main, single_longest
from onereason.cognition.chains import Episode, find_episodes
from onereason.cognition.knowledge import build_knowledge
from onereason.data.chat import check_row, parse_answer
from onereason.data.schema import INTERACTIONS_FILE
from onereason.io import read_json, read_jsonl
from tests.chat_server import ChatServer, Reply, says
from tests.cognition_worlds import (
    DAY,
    MARKED,
    START,
    make_facts,
    shop,
    simulated,
    write_simulated,
    write_world,
)

HISTORIES = shop().histories
TRACES = (
    re.compile(
        r"(?P<count>\d+) of (?P<total>\d+) entries make up the longest episode of (?P<topic>.+), "
        r"from (?P<first>\S+) to (?P<last>\S+):"
    ),
    re.compile(
        r"The longest episode of (?P<topic>.+) runs from (?P<first>\S+) to (?P<last>\S+) "
        r"in (?P<count>\d+) of (?P<total>\d+) entries;"
    ),
)
TOPIC = re.compile(
    r"interest in (.+?)(?:, those that it leads on to included\?|, with those that it leads on to\."
    r"| evolve in its longest episode\?| through it\.) /(?:no_)?think$"
)


@pytest.fixture(scope="module")
def shop_arguments(tmp_path_factory) -> list[str]:
    return write_world(tmp_path_factory.mktemp("shop"), shop().facts, HISTORIES).arguments


@pytest.fixture(scope="module")
def simulated_arguments(tmp_path_factory) -> list[str]:
    return write_simulated(tmp_path_factory.mktemp("simulated"))


@pytest.fixture(scope="module")
def rows(simulated_arguments, tmp_path_factory) -> list[dict]:
    """Of the simulated world, the newest 20 entries shown, a third of the users asked about what is not there."""
    out = tmp_path_factory.mktemp("evolution") / "out"
    more = ["--max-history", "20", "--empty-share", "0.3"]
    assert main([*simulated_arguments, "--out", str(out), *more]) == 0
    return read_jsonl(out / "rows.jsonl")


def turns(row) -> tuple[str, str, str]:
    return tuple(message["content"] for message in row["messages"])


def shown_entries(row) -> list[str]:
    """The timeline of a question."""
    return turns(row)[1].splitlines()[1:-1]


def told_entries(row) -> list[str]:
    """The entries of an answer."""
    value = json.loads(parse_answer(turns(row)[2]).answer)
    if isinstance(value, list):
        return value
    assert list(value) == ["logic_chain"]
    chain = value["logic_chain"]
    if chain == []:
        return []
    assert list(chain) == ["name", "events"] and all(list(e) == ["date", "action", "logic"] for e in chain["events"])
    return [f"{event['date']} {event['action']}" for event in chain["events"]]


def stands_in_order(part: Sequence[str], whole: Sequence[str]) -> bool:
    rest = iter(whole)
    return all(entry in rest for entry in part)


def training_entries(newest: int) -> dict[str, tuple[list[int], list[str]]]:
    """User -> items and entries of the simulated world's training part, read off its interactions."""
    facts, found = simulated().facts, {}
    place = {name: index for index, name in enumerate(facts.item_ids)}
    table = simulated().world.dataset.interactions.sort("user_id", "timestamp", maintain_order=True)
    for (user,), group in table.group_by("user_id", maintain_order=True):
        group = group[:-2] if len(group) >= 3 else group
        items = [place[name] for name in group["item_id"]][-newest:]
        days = [str(datetime.datetime.fromtimestamp(t, datetime.UTC).date()) for t in group["timestamp"]][-newest:]
        actions = group["action"].to_list()[-newest:]
        parts = zip(days, actions, items, strict=True)
        found[user] = items, [f"{day} {action} {facts.patterns[item]}" for day, action, item in parts]
    return found


# -- rows -----------------------------------------------------------------------------------------------------------


def test_questions_show_the_newest_training_entries(rows):
    known = training_entries(20)
    for row in rows:
        check_row(row)
        assert shown_entries(row) == known[row["user"]][1]
        assert row["id"].startswith(f"{row['user']}:") and row["loss"] == "assistant" and row["teacher"] == "template"
        assert turns(row)[1].endswith(f" /{row['mode']}")
        assert (parse_answer(turns(row)[2]).think is None) == (row["mode"] == "no_think")
    assert len({row["id"] for row in rows}) == len(rows)
    assert min(Counter((row["task"], row["mode"]) for row in rows).values()) > 50
    assert {row["task"] for row in rows} == {"action_selection", "topic", "direct"}


def test_entries_are_copied_in_order(rows):
    by_id = {row["id"]: row for row in rows}
    for row in rows:
        told = told_entries(row)
        assert stands_in_order(told, shown_entries(row))
        if row["id"].endswith((":topic", ":action_selection", ":direct")):
            assert len(told) >= 3
            # the tasks of a user are about the same episode
            assert told == told_entries(by_id[f"{row['user']}:topic"])


def test_a_question_that_names_an_interest_has_the_one_longest_episode_of_it_as_its_answer(rows):
    knowledge, known = simulated().knowledge, training_entries(20)
    outside = 0
    for row in rows:
        if not row["id"].endswith((":topic", ":action_selection")):
            continue
        assert "longest episode" in turns(row)[1]
        items, entries = known[row["user"]]
        topic = knowledge.interests.names.index(TOPIC.search(turns(row)[1])[1])
        episodes = [e for e in find_episodes(knowledge, items) if e.interest == topic]
        told = told_entries(row)
        assert [[entries[p] for p in e.places] for e in episodes if len(e) >= len(told)] == [told]
        of_topic = [entry for item, entry in zip(items, entries, strict=True) if knowledge.interest_of[item] == topic]
        outside += not set(of_topic) <= set(told)
    assert outside > 50  # the question must say which entries it means


def test_an_episode_is_asked_about_where_no_other_of_its_interest_is_as_long():
    def episode(interest: int, first: int, length: int) -> Episode:
        return Episode(interest, range(first, first + length), ["stay"] * length, [interest] * length, [""] * length)

    tea, tents, toys = episode(0, 0, 3), episode(1, 3, 4), episode(2, 7, 3)
    assert single_longest([]) == []
    assert single_longest([tea, tents, toys, episode(1, 10, 3)]) == [tea, tents, toys]
    assert single_longest([tea, tents, toys, episode(1, 10, 4)]) == [tea, toys]
    assert single_longest([tea, episode(0, 10, 3)]) == []


def test_logic_belongs_to_its_step(rows):
    knowledge, facts = simulated().knowledge, simulated().facts
    place = {pattern: item for item, pattern in enumerate(facts.patterns)}
    steps = Counter()
    for row in rows:
        if not row["id"].endswith((":topic", ":direct")):
            continue
        chain = json.loads(parse_answer(turns(row)[2]).answer)["logic_chain"]
        topic = chain["name"]
        for number, event in enumerate(chain["events"]):
            item = place[event["action"].split()[1]]
            interest = knowledge.interests.names[knowledge.interest_of[item]]
            assert (event["logic"] == f"An interest in {topic} begins.") == (number == 0)
            if number == 0:
                assert interest == topic
            elif event["logic"].startswith(f"The interest in {topic} leads on to "):
                assert event["logic"].endswith(f" leads on to {interest}.") and interest != topic
                steps["move"] += 1
            elif event["logic"] == f"The interest in {topic} holds.":
                assert interest == topic
                steps["stay"] += 1
            else:
                side = re.fullmatch(f"The interest in {re.escape(topic)} narrows to its (.+)\\.", event["logic"])[1]
                assert interest == topic and facts.attributes[item][knowledge.cue] == (side,)
                steps["narrow"] += 1
    assert min(steps[step] for step in ("move", "stay", "narrow")) > 50


def test_direct_is_asked_of_a_single_longest_episode(rows):
    knowledge = simulated().knowledge
    by_id, asked, not_asked = {row["id"]: row for row in rows}, 0, 0
    for user, (items, entries) in training_entries(20).items():
        lengths = [len(e) for e in find_episodes(knowledge, items) if len(e) >= 3]
        if (topic := by_id.get(f"{user}:topic")) is None:
            assert f"{user}:direct" not in by_id
            continue
        length = len(told_entries(topic))
        single = lengths.count(max(lengths)) == 1 and length == max(lengths)
        assert (f"{user}:direct" in by_id) == single and length <= len(entries)
        asked += single
        not_asked += not single
        if single:
            assert not TOPIC.search(turns(by_id[f"{user}:direct"])[1])
    assert asked > 100 and not_asked > 20


def test_empty_answers_are_for_what_is_not_there_and_only_for_that(rows):
    knowledge = simulated().knowledge
    names, known = knowledge.interests.names, training_entries(20)
    absent = Counter()
    for row in rows:
        kind = row["id"].rpartition(":")[2]
        items = known[row["user"]][0]
        if kind == "none":
            assert row["task"] == "direct" and find_episodes(knowledge, items) == []
        elif row["task"] != "direct":
            topic = names.index(TOPIC.search(turns(row)[1])[1])
            held = topic in {knowledge.interest_of[item] for item in items}
            assert held == (kind != "absent")
        assert (told_entries(row) == []) == (kind in ("absent", "none"))
        absent[kind, row["task"]] += 1
    # 0.3 of 400 users, who have each left something out
    assert abs(absent["absent", "topic"] + absent["absent", "action_selection"] - 120) < 40
    assert min(absent["absent", "topic"], absent["absent", "action_selection"]) > 30


def test_traces_state_what_holds(rows):
    found = Counter()
    for row in rows:
        trace = parse_answer(turns(row)[2]).think
        if trace is None:
            continue
        told, shown = told_entries(row), shown_entries(row)
        stated = next((match for form in TRACES if (match := form.match(trace))), None)
        kind = row["id"].rpartition(":")[2]
        if kind == "absent":
            assert trace == f"No entry of the timeline speaks of {TOPIC.search(turns(row)[1])[1]}."
        elif kind != "none":
            assert (int(stated["count"]), int(stated["total"])) == (len(told), len(shown))
            assert (stated["first"], stated["last"]) == (told[0].split()[0], told[-1].split()[0])
            asked = TOPIC.search(turns(row)[1])
            assert row["task"] == "direct" or stated["topic"] == asked[1]
        found[kind] += 1
    assert min(found[kind] for kind in ("absent", "topic", "direct", "action_selection")) > 30


def test_users_without_an_episode_have_no_main_interest(tmp_path):
    # u0 to u7 go round five interests, v stays with one, w leaves at once
    facts = make_facts([("video", {"category": f"kind {n % 5}"}) for n in range(20)])
    steps = {f"u{n}": [*range(n, n + 10), 0, 1] for n in range(8)} | {
        "v": [0, 5, 10, 0, 5, 10, 0, 1],
        "w": [1, 2, 3, 4],
    }
    world = write_world(tmp_path, facts, steps, actions=("click",))
    more = ["--empty-share", "1", "--think-share", "1"]
    assert main([*world.arguments, "--out", str(tmp_path / "out"), *more]) == 0
    knowledge = build_knowledge(facts, [np.array(h[:-2]) for h in steps.values()])
    ids = {row["id"]: row for row in read_jsonl(tmp_path / "out/rows.jsonl")}
    without = {u for u, h in steps.items() if not find_episodes(knowledge, h[:-2])}
    assert {key.partition(":")[0] for key in ids if key.endswith(":none")} == without == set(steps) - {"v"}
    for user in without:
        row = ids[f"{user}:none"]
        assert turns(row)[2] == '<think>\nNo interest holds for several entries.\n</think>\n\n{"logic_chain":[]}'
    # an interest that holds and goes nowhere is worth no chain, but it is there
    (reject,) = read_jsonl(tmp_path / "out/rejected.jsonl")
    assert (reject["id"], reject["reason"]) == ("v", "chain_without_turn")
    assert "v:absent" in ids and not any(f"u{n}:absent" in ids for n in range(8))  # they have met all five


@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_of_validation_or_test_is_in_any_file(shop_arguments, tmp_path, language):
    more = ["--language", language, "--empty-share", "0"]
    assert main([*shop_arguments, "--out", str(tmp_path / "out"), *more]) == 0
    for path in (tmp_path / "out").iterdir():
        text = path.read_text("utf-8")
        assert MARKED not in text
        assert not any(shop().facts.patterns[item] in text for item in (40, 41))
    dates = [str(datetime.datetime.fromtimestamp(START + t * DAY, datetime.UTC).date()) for t in range(30)]
    rows = read_jsonl(tmp_path / "out/rows.jsonl")
    assert rows
    for row in rows:
        history = HISTORIES[row["user"]]
        assert shown_entries(row) == [
            f"{dates[t]} {('click', 'like')[t % 2]} {shop().facts.patterns[item]}"
            for t, item in enumerate(history[:-2])
        ]


def test_every_user_gives_rows_or_a_reason(shop_arguments, tmp_path):
    assert main([*shop_arguments, "--out", str(tmp_path / "out"), "--empty-share", "0"]) == 0
    rows, rejected = read_jsonl(tmp_path / "out/rows.jsonl"), read_jsonl(tmp_path / "out/rejected.jsonl")
    users, left_out = {row["user"] for row in rows}, {reject["id"] for reject in rejected}
    assert users | left_out == set(HISTORIES) and not users & left_out
    reasons = {reject["id"]: (reject["reason"], reject["detail"]) for reject in rejected}
    assert reasons["one"] == ("history_too_short", "1 items")
    assert reasons["two"] == ("no_episode", "2 entries")
    assert read_json(tmp_path / "out/manifest.json")["rejected"] == Counter(reason for reason, _ in reasons.values())


def test_logs_without_dates_number_their_entries(shop_arguments, tmp_path):
    world = write_world(tmp_path, shop().facts, HISTORIES)
    path = tmp_path / "data" / INTERACTIONS_FILE
    pl.read_parquet(path).with_columns((pl.col("timestamp") - START) // DAY).write_parquet(path)
    more = ["--max-history", "12", "--empty-share", "0", "--think-share", "1"]
    assert main([*world.arguments, "--out", str(tmp_path / "out"), *more]) == 0
    assert read_json(tmp_path / "out/manifest.json")["config"]["dated"] is False
    rows = read_jsonl(tmp_path / "out/rows.jsonl")
    assert rows
    for row in rows:
        entries, told = shown_entries(row), told_entries(row)
        assert [entry.split()[0] for entry in entries] == [f"#{n:03d}" for n in range(1, len(entries) + 1)]
        assert 3 <= len(told) <= len(entries) <= 12 and stands_in_order(told, entries)
        assert "YYYY" not in turns(row)[0]
        if row["task"] != "action_selection":  # the prompt says what stands in the place of a date
            assert '"date": the number of the entry, such as "#001"' in turns(row)[0]
        stated = next(match for form in TRACES if (match := form.match(parse_answer(turns(row)[2]).think)))
        assert (stated["first"], stated["last"]) == (told[0].split()[0], told[-1].split()[0])


@pytest.mark.parametrize("share", ["0", "1"])
def test_shares_of_nothing_and_of_all_are_exact(shop_arguments, tmp_path, share):
    more = ["--think-share", share, "--empty-share", share]
    assert main([*shop_arguments, "--out", str(tmp_path / "out"), *more]) == 0
    rows = read_jsonl(tmp_path / "out/rows.jsonl")
    assert {row["mode"] for row in rows} == {"think" if share == "1" else "no_think"}
    empty = {row["user"] for row in rows if row["id"].endswith(":absent")}
    # nobody has met the odd theme and the marked ones
    assert empty == ({user for user in HISTORIES if user != "one"} if share == "1" else set())


def test_shards_and_workers_change_nothing(shop_arguments, tmp_path):
    for name, more in (("a", ["--shard-size", "3"]), ("b", []), ("c", ["--shard-size", "10", "--workers", "2"])):
        assert main([*shop_arguments, "--out", str(tmp_path / name), *more]) == 0
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
        assert path.read_bytes() == (tmp_path / "c" / path.name).read_bytes(), path.name


def test_chinese_rows(simulated_arguments, rows, tmp_path):
    more = ["--max-history", "20", "--empty-share", "0.3", "--language", "zh"]
    assert main([*simulated_arguments, "--out", str(tmp_path / "out"), *more]) == 0
    chinese = read_jsonl(tmp_path / "out/rows.jsonl")
    assert [(row["id"], row["task"], row["mode"]) for row in chinese] == [(r["id"], r["task"], r["mode"]) for r in rows]
    for row, english in zip(chinese, rows, strict=True):
        check_row(row)
        assert told_entries(row) == told_entries(english)
        assert all(re.search("[\u4e00-\u9fff]", text) for text in turns(row)[:2]) and "\\u" not in turns(row)[2]
        if row["task"] != "action_selection" and told_entries(row):
            events = json.loads(parse_answer(turns(row)[2]).answer)["logic_chain"]["events"]
            assert all(event["logic"].startswith("对") and event["logic"].endswith("。") for event in events)
    assert read_json(tmp_path / "out/manifest.json")["config"]["prompt_version"] == "evolution/zh/2"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--think-share", "2"], "--think-share must lie between 0 and 1, got 2"),
        (["--empty-share", "-1"], "--empty-share must lie between 0 and 1, got -1"),
        (["--empty-share", "nan"], "--empty-share must lie between 0 and 1, got nan"),
        (["--min-events", "1"], "--min-events (1) must be at least 2 and at most --max-history (50)"),
        (
            ["--min-events", "9", "--max-history", "8"],
            "--min-events (9) must be at least 2 and at most --max-history (8)",
        ),
        (["--language", "fr"], "not found; use en or zh"),
        (["--theme-attribute", "colour"], "has the attribute 'colour'"),
        (["--min-events", "40", "--empty-share", "0"], "no row is left"),
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
    "renamed": None,
    "foreign": "chain_action_not_in_timeline",
    "broken": "teacher_broken_json",
    "none": "teacher_broken_json",
    "mind": "chain_mind_reading",
    "flat": "chain_order_free",
    "fewer": "chain_entries_differ",
    "turned": {"chain_order", "chain_date_order"},
    "keys": "chain_keys",
    "half_pair": "teacher_broken_json",
    "cited": "chain_open_evidence",
    "empty": "teacher_empty",
}
"""What a model does -> the reason, or reasons, that its rows are left out for; None keeps them."""


class FaultyTeacher:
    """Writes the template's chains, except that it fails in one of several ways at most of them."""

    def __init__(self, chains: dict[str, dict]):
        self.chains = chains
        self.ways: dict[str, str] = {}  # one for each timeline: its rows ask for one chain

    def __call__(self, payload) -> Reply:
        prompt = payload["messages"][-1]["content"]
        timeline = prompt.removeprefix("Timeline:\n").partition("\n\nInterest: ")[0]
        chain = json.loads(json.dumps(self.chains[timeline]))
        events = chain["events"]
        assert prompt.endswith("\n".join(f"{event['date']} {event['action']}" for event in events))
        way = self.ways.setdefault(timeline, list(REASONS)[len(self.ways) % len(REASONS)])
        unseen = next(pattern for pattern in simulated().facts.patterns if pattern not in timeline)
        if way == "renamed":
            chain["name"] = chain["name"].upper()
        elif way == "foreign":
            events[1]["action"] = f"{events[1]['action'].split()[0]} {unseen}"
        elif way == "none":
            chain = []
        elif way == "mind":
            events[1]["logic"] += " They secretly long for it."
        elif way == "flat":
            for event in events:
                event["logic"] = f"It is about {chain['name']}."
        elif way == "fewer":
            events.pop()
        elif way == "turned":
            events.reverse()
        elif way == "keys":
            events[0]["item"] = "tea"
        elif way == "half_pair":
            events[1]["logic"] += " \ud83c"
        elif way == "cited":
            events[1]["logic"] += f" It is like {unseen}."
        text = json.dumps({"logic_chain": chain})
        return says({"broken": text[:-9], "empty": ""}.get(way, f"Here it is:\n{text}" if way == "well" else text))


def test_what_a_model_tells_badly_is_counted_and_left_out(simulated_arguments, tmp_path):
    more = ["--max-history", "20", "--min-events", "6", "--empty-share", "0", "--think-share", "0.5"]
    assert main([*simulated_arguments, "--out", str(tmp_path / "template"), *more]) == 0
    template = read_jsonl(tmp_path / "template/rows.jsonl")
    answers = {row["id"]: json.loads(parse_answer(turns(row)[2]).answer) for row in template}
    chains = {
        "\n".join(shown_entries(row)): answers[row["id"]]["logic_chain"] for row in template if row["task"] == "topic"
    }
    teacher = FaultyTeacher(chains)
    with ChatServer(teacher) as server:
        endpoint = f"--teacher endpoint --teacher-url {server.url} --teacher-model m --teacher-tries 1".split()
        more += [*endpoint, "--teacher-concurrency", "1"]
        assert main([*simulated_arguments, "--out", str(tmp_path / "out"), *more]) == 0
    did = Counter(teacher.ways["\n".join(shown_entries(row))] for row in template if row["task"] != "action_selection")
    assert min(did[way] for way in REASONS) > 20
    rows, rejected = read_jsonl(tmp_path / "out/rows.jsonl"), read_jsonl(tmp_path / "out/rejected.jsonl")
    reasons = Counter(reject["reason"] for reject in rejected if ":" in reject["id"])
    for way, number in did.items():
        expected = REASONS[way]
        if isinstance(expected, set):
            assert sum(reasons.pop(reason, 0) for reason in expected) == number, way
        elif expected is not None:
            reasons[expected] -= number
    assert not any(reasons.values()), reasons
    written = [row for row in rows if row["task"] != "action_selection"]
    assert len(written) == did["well"] + did["renamed"]
    assert all(row["teacher"] == "endpoint:m" for row in written)
    assert all(row["teacher"] == "template" for row in rows if row["task"] == "action_selection")
    for row in written:  # under the name that was asked about
        assert json.loads(parse_answer(turns(row)[2]).answer) == answers[row["id"]]
