"""Recommendation rows with and without a trace: every row worked out anew; nothing of what came after training."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from data_builders import build_recommendation
from data_builders.build_recommendation import main
from onereason.cognition.evidence import gather_evidence
from onereason.cognition.trace import load_headings
from onereason.data.chat import check_row, parse_answer
from onereason.io import read_json, read_jsonl
from tests.chat_server import ChatServer, Reply, says
from tests.cognition_worlds import DAY, MARKED, START, make_facts, shop, simulated, write_simulated, write_world

PATTERN = re.compile(r"<\|\w+_begin\|>(?:<s_\w_\d+>)+")
HISTORIES = shop().histories
PATTERNS = shop().facts.patterns


@pytest.fixture(scope="module")
def shop_arguments(tmp_path_factory) -> list[str]:
    return write_world(tmp_path_factory.mktemp("shop"), shop().facts, HISTORIES).arguments


@pytest.fixture(scope="module")
def simulated_arguments(tmp_path_factory) -> list[str]:
    return write_simulated(tmp_path_factory.mktemp("simulated"))


@pytest.fixture(scope="module")
def all_targets(shop_arguments, tmp_path_factory) -> Path:
    """The shop's corpus with every training item of a user as a target."""
    out = tmp_path_factory.mktemp("all") / "out"
    assert main([*shop_arguments, "--out", str(out), "--targets", "100", "--max-history", "7"]) == 0
    return out


def endpoint_arguments(server: ChatServer) -> list[str]:
    return f"--teacher endpoint --teacher-url {server.url} --teacher-model m --teacher-tries 1".split()


def turns(row) -> tuple[str, str, str]:
    return tuple(message["content"] for message in row["messages"])


# -- rows -----------------------------------------------------------------------------------------------------------


def test_every_training_item_with_a_history_is_asked_for_once_in_each_mode(all_targets):
    rows, rejected = read_jsonl(all_targets / "rows.jsonl"), read_jsonl(all_targets / "rejected.jsonl")
    training = {user: h[:-2] if len(h) >= 3 else h for user, h in HISTORIES.items()}
    wanted = {f"{user}:{place}" for user, h in training.items() for place in range(3, len(h))}
    by_mode = {
        mode: {r["id"].removesuffix(f":{mode}") for r in rows if r["mode"] == mode} for mode in ("think", "no_think")
    }
    reasons = {r["id"]: r["reason"] for r in rejected}
    assert by_mode["no_think"] == wanted
    assert by_mode["think"] | set(reasons) == wanted | {"one", "two", "short"}
    assert not by_mode["think"] & set(reasons) and len(rows) == len({row["id"] for row in rows})
    # users of one, two and two training items
    assert {r["id"]: r["detail"] for r in rejected if r["reason"] == "history_too_short"} == {
        "one": "1 items",
        "two": "2 items",
        "short": "2 items",
    }
    bare = {f"{user}:{place}" for user, h in training.items() for place in range(3, len(h)) if h[place] == 39}
    assert {key for key, reason in reasons.items() if reason == "target_without_theme"} == bare != set()
    manifest = read_json(all_targets / "manifest.json")
    assert manifest["rejected"] == Counter(reasons.values())
    assert manifest["counts"]["mode_think"] == len(by_mode["think"])


def test_rows_show_the_newest_items_before_the_target_and_answer_with_it(all_targets):
    for row in read_jsonl(all_targets / "rows.jsonl"):
        check_row(row)
        user, place, mode = row["id"].rsplit(":", 2)
        history = HISTORIES[user]
        target = history[int(place)]
        system, asked, said = turns(row)
        answer = parse_answer(said)
        assert PATTERN.findall(asked) == [PATTERNS[i] for i in history[: int(place)][-7:]]
        assert answer.answer == PATTERNS[target]
        assert row["domain"] == shop().facts.domains[target] and row["user"] == user
        assert (answer.think is None) == (mode == row["mode"] == "no_think")
        assert row.get("teacher") == (None if mode == "no_think" else "template")
        assert (said == PATTERNS[target]) == (mode == "no_think")
        assert PATTERN.search(system) is None


def test_both_modes_ask_in_the_same_words(all_targets):
    asked = {}
    for row in read_jsonl(all_targets / "rows.jsonl"):
        system, user, _ = turns(row)
        assert user.endswith(f" /{row['mode']}")
        asked.setdefault(row["id"].rpartition(":")[0], set()).add((system, user.removesuffix(f" /{row['mode']}")))
    assert all(len(ways) == 1 for ways in asked.values())


def test_traces_cite_what_is_shown_and_never_the_answer(all_targets):
    headings = tuple(load_headings("en"))
    cited_all = 0
    for row in read_jsonl(all_targets / "rows.jsonl"):
        if row["mode"] == "no_think":
            continue
        _, asked, said = turns(row)
        answer = parse_answer(said)
        cited = PATTERN.findall(answer.think)
        assert set(cited) <= set(PATTERN.findall(asked)) - {answer.answer}
        lines = answer.think.splitlines()
        assert [heading for line in lines for heading in headings if line.startswith(heading)] == list(headings)
        cited_all += len(cited)
    assert cited_all > 300


@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_of_validation_or_test_is_in_any_file(shop_arguments, tmp_path, language):
    more = ["--targets", "100", "--detail", "brief", "--language", language]
    assert main([*shop_arguments, "--out", str(tmp_path / "out"), *more]) == 0
    files = [path for path in (tmp_path / "out").iterdir() if path.name != "manifest.json"]
    assert {path.name for path in files} == {"rows.jsonl", "rejected.jsonl", "CARD.md"}
    for path in files:
        text = path.read_text("utf-8")
        assert MARKED not in text
        for item in (40, 41):
            assert PATTERNS[item] not in text and PATTERNS[item].partition(">")[2] not in text


def test_a_temporal_split_trains_on_what_came_before(shop_arguments, tmp_path):
    # event t of a user is t days after the start: seven events train
    more = [
        "--split-method",
        "temporal",
        "--validation-start",
        str(START + 7 * DAY),
        "--test-start",
        str(START + 8 * DAY),
    ]
    assert main([*shop_arguments, "--out", str(tmp_path / "out"), *more, "--modes", "no_think"]) == 0
    rows = read_jsonl(tmp_path / "out/rows.jsonl")
    # marked items of the shortest histories are training now; users are asked for their seventh or last event
    assert {row["id"] for row in rows} == {
        f"{user}:{min(len(h), 7) - 1}:no_think" for user, h in HISTORIES.items() if len(h) > 3
    }


def test_modes_stand_alone(shop_arguments, tmp_path):
    for modes, expected in (("think", {"think"}), (" no_think ", {"no_think"})):
        assert main([*shop_arguments, "--out", str(tmp_path / modes.strip()), "--modes", modes]) == 0
        assert {row["mode"] for row in read_jsonl(tmp_path / modes.strip() / "rows.jsonl")} == expected


@pytest.mark.parametrize(("targets", "shown"), [(1, 5), (3, 4)])
def test_the_newest_items_are_shown(shop_arguments, tmp_path, targets, shown):
    more = ["--targets", str(targets), "--max-history", str(shown), "--min-history", str(shown)]
    assert main([*shop_arguments, "--out", str(tmp_path / "out"), *more]) == 0
    for row in read_jsonl(tmp_path / "out/rows.jsonl"):
        user, place, _ = row["id"].rsplit(":", 2)
        assert PATTERN.findall(turns(row)[1]) == [PATTERNS[i] for i in HISTORIES[user][: int(place)][-shown:]]
        if row["mode"] == "think":  # the persona counts what is shown
            counts = re.findall(r"(\d) of (\d)", parse_answer(turns(row)[2]).think)
            assert all(int(total) == shown >= int(count) for count, total in counts)


def test_shards_change_nothing(shop_arguments, tmp_path):
    for size, name in ((3, "a"), (5, "b"), (2000, "c")):
        assert main([*shop_arguments, "--out", str(tmp_path / name), "--targets", "3", "--shard-size", str(size)]) == 0
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    for name in files:
        assert len({(tmp_path / out / name).read_bytes() for out in "abc"}) == 1, name


def test_the_seed_changes_wordings_and_nothing_else(shop_arguments, tmp_path):
    for seed in (1, 2):
        assert main([*shop_arguments, "--out", str(tmp_path / str(seed)), "--seed", str(seed)]) == 0
    first, second = (read_jsonl(tmp_path / str(seed) / "rows.jsonl") for seed in (1, 2))
    assert [row["id"] for row in first] == [row["id"] for row in second] and first != second
    cited = [[PATTERN.findall(turn) for row in rows for turn in turns(row)] for rows in (first, second)]
    assert cited[0] == cited[1]


def test_a_single_domain_and_interest(tmp_path):
    facts = make_facts([("prod", {"category": "tea"})] * 8)
    arguments = write_world(tmp_path, facts, {"u": [0, 1, 2, 3, 4, 5, 6], "v": [1, 1, 1, 1, 1, 2, 3]}).arguments
    assert main([*arguments, "--out", str(tmp_path / "out"), "--detail", "brief"]) == 0
    rows = {row["id"]: row for row in read_jsonl(tmp_path / "out/rows.jsonl")}
    first = parse_answer(turns(rows["u:4:think"])[2]).think
    shown = ", ".join(facts.patterns[1:4])
    assert first == (
        f"Persona: no clear leaning; lately tea.\nInterests:\n1. tea, live: {shown}\nTransition: tea holds."
    )
    # what was chosen again and again is the answer, and so may not be cited
    assert turns(rows["v:4:think"])[2] == (
        "<think>\nPersona: no clear leaning; lately tea.\nInterests:\n1. tea\nTransition: tea holds.\n</think>\n\n"
        + facts.patterns[1]
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--modes", "fast"], "--modes 'fast' must name think, no_think or both, each once"),
        (["--modes", "think,think"], "each once"),
        (["--modes", ","], "each once"),
        (["--min-history", "0"], "--min-history (0) must be at least 1"),
        (["--max-history", "2"], "--min-history (3) must be at least 1 and at most --max-history (2)"),
        (["--targets", "0"], "--targets must be at least 1, got 0"),
        (["--num-candidates", "0"], "--num-candidates must be at least 1, got 0"),
        (["--language", "fr"], "not found; use en or zh"),
        (["--theme-attribute", "colour"], "has the attribute 'colour'; use one of brand, category, style"),
        (["--split-method", "temporal"], "needs --validation-start and --test-start"),
        (["--min-history", "60", "--max-history", "70"], "no row is left"),
    ],
)
def test_mistakes_are_told_in_one_line(shop_arguments, tmp_path, capsys, more, said):
    assert main([*shop_arguments, "--out", str(tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", ["read", "cited"])
def test_evidence_from_behind_the_prefix_gives_no_row(shop_arguments, tmp_path, monkeypatch, fault):
    def gather_late(knowledge, walk, target, *more):
        found = gather_evidence(knowledge, walk, target, *more)
        if isinstance(found, str):
            return found
        if fault == "read":
            return replace(found, num_items=found.num_items + 1)
        return replace(found, candidates=[found.candidates[0]._replace(cited=[0, found.num_items])])

    arguments = [*shop_arguments, "--max-history", "5", "--targets", "3"]
    assert main([*arguments, "--out", str(tmp_path / "well")]) == 0
    well = read_json(tmp_path / "well/manifest.json")
    assert well["counts"]["mode_think"] > 20 and "evidence_after_target" not in well["rejected"]
    monkeypatch.setattr(build_recommendation, "gather_evidence", gather_late)
    assert main([*arguments, "--out", str(tmp_path / "late")]) == 0
    late = read_json(tmp_path / "late/manifest.json")
    assert "mode_think" not in late["counts"] and late["counts"]["mode_no_think"] == well["counts"]["mode_no_think"]
    rejected = Counter(r["reason"] for r in read_jsonl(tmp_path / "well/rejected.jsonl"))
    traces = well["counts"]["mode_think"] + sum(n for r, n in rejected.items() if r.startswith(("leak_", "judge_")))
    assert late["rejected"]["evidence_after_target"] == traces


# -- a language model as teacher ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def template_traces(simulated_arguments, tmp_path_factory) -> dict[str, str]:
    """Patterns of a history -> the template's trace."""
    out = tmp_path_factory.mktemp("template") / "out"
    assert main([*simulated_arguments, "--out", str(out), "--modes", "think"]) == 0
    rows = read_jsonl(out / "rows.jsonl")
    return {"".join(PATTERN.findall(turns(row)[1])): parse_answer(turns(row)[2]).think for row in rows}


class FaultyTeacher:
    """Writes what the template would, except that it fails in one of several ways at most targets."""

    WAYS = ("well", "title", "pattern", "foreign", "broken", "empty", "cut", "refusal", "malformed")

    def __init__(self, traces: dict[str, str]):
        self.traces = traces
        self.facts = simulated().facts
        self.did: Counter[str] = Counter()
        self.by_history: dict[str, str] = {}

    def __call__(self, payload) -> Reply:
        prompt = payload["messages"][-1]["content"]
        history, _, asked = prompt.partition("\n\nChosen next")
        shown = PATTERN.findall(history)
        trace = self.traces.get("".join(shown), "none")
        way = self.WAYS[len(self.by_history) % len(self.WAYS)] if trace != "none" else "broken"
        way = self.by_history.setdefault("".join(shown), way)
        self.did[way] += 1
        target = next(i for i, caption in enumerate(self.facts.captions) if asked.endswith(f": {caption}"))
        foreign = next(p for p in self.facts.patterns if p not in shown and p != self.facts.patterns[target])
        replies = {
            "well": trace,
            "title": f"{trace} Perhaps {self.facts.titles[target]}.",
            "pattern": f"{trace} Then {self.facts.patterns[target]}.",
            "foreign": trace.replace(PATTERN.findall(trace)[-1], foreign) if PATTERN.search(trace) else foreign,
            "broken": "They will like it.",
            "empty": "",
            "refusal": "I'm sorry, but I can't help with that.",
        }
        if way == "cut":
            return says(trace, finish_reason="length")
        return Reply(body=b"{broken") if way == "malformed" else says(replies[way])


def test_what_a_model_writes_badly_is_counted_and_left_out(simulated_arguments, template_traces, tmp_path):
    teacher = FaultyTeacher(template_traces)
    with ChatServer(teacher) as server:
        endpoint = endpoint_arguments(server)
        arguments = [*simulated_arguments, "--out", str(tmp_path / "out"), "--modes", "think", *endpoint]
        assert main([*arguments, "--teacher-concurrency", "1", "--teacher-max-failures", "100"]) == 0
        asked = len(server.payloads)
    did = teacher.did
    assert asked == sum(did.values()) and min(did[way] for way in teacher.WAYS) > 10
    rows = read_jsonl(tmp_path / "out/rows.jsonl")
    rejected = read_jsonl(tmp_path / "out/rejected.jsonl")
    reasons = Counter(reject["reason"] for reject in rejected)
    ways = [teacher.by_history["".join(PATTERN.findall(turns(row)[1]))] for row in rows]
    assert set(ways) == {"well"} and len(rows) == did["well"]
    assert all(row["teacher"] == "endpoint:m" for row in rows)
    assert reasons["teacher_empty"] == did["empty"] and reasons["teacher_truncated"] == did["cut"]
    assert reasons["teacher_refused"] == did["refusal"] and reasons["teacher_malformed"] == did["malformed"]
    leaks = sum(count for reason, count in reasons.items() if reason.startswith("leak_"))
    assert leaks == did["title"] + did["pattern"] and reasons["leak_pattern"] == did["pattern"]
    assert sum(reasons.values()) - reasons["no_bridge"] == sum(did.values()) - did["well"]
    manifest = read_json(tmp_path / "out/manifest.json")
    assert manifest["rejected"] == reasons
    assert manifest["counts"] == {
        "rows": did["well"],
        "mode_think": did["well"],
        "task_recommendation": did["well"],
        **{f"domain_{d}": n for d, n in sorted(Counter(row["domain"] for row in rows).items())},
        "teacher_endpoint:m": did["well"],
    }


def test_answers_that_are_paid_for_are_not_asked_for_again(simulated_arguments, template_traces, tmp_path):
    with ChatServer(FaultyTeacher(template_traces)) as server:
        endpoint = endpoint_arguments(server)
        more = [*endpoint, "--teacher-concurrency", "1", "--teacher-max-failures", "100", "--modes", "think"]
        more += ["--teacher-cache", str(tmp_path / "cache")]
        assert main([*simulated_arguments, "--out", str(tmp_path / "a"), *more]) == 0
        first = len(server.payloads)
        assert main([*simulated_arguments, "--out", str(tmp_path / "b"), *more, "--shard-size", "50"]) == 0
        again = len(server.payloads) - first
    assert again < first / 2  # texts are kept, failures are tried again
    well = {row["id"] for row in read_jsonl(tmp_path / "a/rows.jsonl")}
    assert well <= {row["id"] for row in read_jsonl(tmp_path / "b/rows.jsonl")}


def test_a_teacher_that_is_down_stops_the_build(simulated_arguments, tmp_path, capsys):
    with ChatServer(lambda payload: Reply(503, {"error": "busy"})) as server:
        endpoint = endpoint_arguments(server)
        arguments = [*simulated_arguments, "--out", str(tmp_path / "out"), *endpoint, "--teacher-max-failures", "4"]
        assert main(arguments) == 2
        assert len(server.payloads) < 60
    assert "4 requests in a row brought nothing usable" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


GOOD = dict.fromkeys(("safety", "consistency", "logic", "factuality", "informativeness"), 1)


class JudgingTeacher:
    """Writes the template's traces, and judges; every `rate`-th trace gets a verdict that can be read."""

    def __init__(self, traces: dict[str, str], rate: int):
        self.traces, self.rate = traces, rate

    def __call__(self, payload) -> Reply:
        prompt = payload["messages"][-1]["content"]
        if prompt.startswith("What was asked"):
            return says(json.dumps(GOOD) if sum(map(ord, prompt)) % self.rate == 0 else "It is fine.")
        history = prompt.partition("\n\nChosen next")[0]
        return says(self.traces.get("".join(PATTERN.findall(history)), "They will like it."))


@pytest.mark.parametrize("more", [[], ["--shard-size", "100", "--workers", "2"]])
def test_verdicts_that_cannot_be_read_are_counted_and_told(
    simulated_arguments, template_traces, tmp_path, capsys, more
):
    arguments = [*simulated_arguments, "--out", str(tmp_path / "out"), "--modes", "think", "--judge", "teacher", *more]
    with ChatServer(JudgingTeacher(template_traces, 2)) as server:
        assert main([*arguments, *endpoint_arguments(server)]) == 0
        judged = [p["messages"][-1]["content"] for p in server.payloads if "What was asked" in str(p)]
    readable = sum(sum(map(ord, prompt)) % 2 == 0 for prompt in judged)
    assert min(readable, len(judged) - readable) > 50
    counts = read_json(tmp_path / "out/manifest.json")["counts"]
    assert (counts["judged_by_teacher"], counts["judged_by_rules"]) == (readable, len(judged) - readable)
    assert f"| judged_by_rules | {len(judged) - readable} |" in (tmp_path / "out/CARD.md").read_text()
    error = capsys.readouterr().err
    assert f"rules judged {len(judged) - readable} of {len(judged)} traces, because the judge's verdicts" in error
    assert error.startswith("warning: ") and error.count("\n") == 1


def test_a_judge_that_never_answers_readably_gives_no_judged_data(
    simulated_arguments, template_traces, tmp_path, capsys
):
    with ChatServer(JudgingTeacher(template_traces, 10**9)) as server:
        arguments = [*simulated_arguments, "--out", str(tmp_path / "out"), "--judge", "teacher"]
        assert main([*arguments, *endpoint_arguments(server)]) == 2
        assert sum("What was asked" in str(p) for p in server.payloads) == 20
    assert "none of the first 20 verdicts of the judge endpoint:m can be read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_judge_behind_a_teacher_nothing_is_said_of_verdicts(all_targets):
    assert not any("judged" in name for name in read_json(all_targets / "manifest.json")["counts"])
