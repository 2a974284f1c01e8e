"""Rejection sampling with a real tiny Qwen3: rows against loops over single rollouts, runs that end in one result."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_builders import build_mixture, build_rft, rft_rollouts, rft_teachers
from data_builders.build_rft import main
from data_builders.rft_selection import HitTable, Limits, find_repeated, select_hits
from data_builders.shards import hash_id
from onereason.cognition.checks.leakage import LeakDetector
from onereason.cognition.facts import load_item_facts
from onereason.data.chat import check_row, encode_row, parse_answer
from onereason.decoding.recommender import load_recommender
from onereason.io import read_json, read_jsonl
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format
from onereason.model.extend import extend_model
from onereason.model.folder import load_model_folder, save_model_folder
from onereason.model.tiny import BASE_TEXTS, build_tiny_model, build_tiny_tokenizer
from onereason.rl.rollout import RolloutConfig, RolloutSampling, roll_out
from tests.data_builders.rft_world import histories, write_rft_world
from tests.data_builders.test_engine_interruptions import KILL_AT
from tests.recipes.conftest import overrides, run_in_process
from tests.recipes.tiny_world import catalog
from tests.rl.reference import plain_logprobs

PATTERN = re.compile(r"<\|(\w+)_begin\|><s_a_(\d+)><s_b_(\d+)>")
ITEMS = catalog()
TRACES, NUM_ITEMS, BUDGET = 8, 5, 24
ALL_HITS = ["--max-per-prompt", "99", "--max-bin-share", "1", "--max-similarity", "1"]


@pytest.fixture(scope="module")
def rft_world(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("rft")
    write_rft_world(root)
    return root


def arguments(world: Path, out: Path, *more: object, teacher: str = "ours/model") -> list[str]:
    sizes = f"--min-history 1 --num-traces {TRACES} --num-items {NUM_ITEMS} --think-budget {BUDGET} --dtype float32"
    own = [] if "--teacher" in more else ["--teacher", str(world / teacher)]
    drawn = [] if "--items" in more else ["--items", "sample"]
    return ["--data", str(world / "data"), "--out", str(out), *own, *sizes.split(), *drawn, *map(str, more)]


def build(world: Path, out: Path, *more: object, **options: str) -> Path:
    assert main(arguments(world, out, *more, **options)) == 0
    return out


def files_of(*folders: Path) -> dict[str, bytes]:
    return {f"{f.name}/{path.name}": path.read_bytes() for f in folders for path in sorted(f.iterdir())}


@pytest.fixture(scope="module")
def all_hits(rft_world, tmp_path_factory) -> Path:
    """Every verified hit, thinking only; the pairs beside it."""
    out = tmp_path_factory.mktemp("all") / "out"
    pairs = ["--pairs", out.with_name("pairs"), "--pairs-per-prompt", 2]
    return build(rft_world, out, *ALL_HITS, "--no-think-share", 0, *pairs)


@pytest.fixture(scope="module")
def direct_hits(rft_world, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("direct") / "out"
    return build(rft_world, out, *ALL_HITS, "--mode", "no_think", "--items", "beam")


@pytest.fixture(scope="module")
def teacher(rft_world):
    return load_recommender(rft_world / "ours" / "model", style="chat", max_history=50, language="en")


def moments() -> list[tuple[str, int, np.ndarray, int]]:
    """User, place, what came before and the target, for all training items but the first of each user."""
    return [
        (f"u{user}", place, history[:place], int(history[place]))
        for user, history in enumerate(histories())
        for place in range(1, len(history) - 2)
    ]


def codes_of(item: int) -> tuple[str, tuple[int, ...]]:
    return ITEMS.domains[item], tuple(ITEMS.codes[item].tolist())


def read_patterns(text: str) -> list[tuple[str, tuple[int, ...]]]:
    return [(domain, (int(a), int(b))) for domain, a, b in PATTERN.findall(text)]


# -- rows -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected(rft_world, teacher):
    """What single rollouts, read as text, say of every trace: `(reason, trace, answer)` by id, and the difficulties."""
    sampling = RolloutSampling(max_new_tokens=BUDGET)
    config = RolloutConfig(num_traces=TRACES, num_items=NUM_ITEMS, items="sample", sampling=sampling, batch_size=1)
    leaks = LeakDetector(load_item_facts(rft_world / "data", ITEMS))
    known = {codes_of(item) for item in range(len(ITEMS))}
    verdicts, difficulties, prompts, written = {}, {}, {}, {}
    for user, place, before, target in moments():
        name = f"{user}:{place}:think"
        seed = (0, int.from_bytes(hash_id(name), "little"))
        rollouts = roll_out(teacher, [before], [ITEMS.domains[target]], [seed], config)
        prompts[name] = rollouts.prompts[0]
        num_hits = 0
        for n, tokens in enumerate(rollouts.traces.lists()[0]):
            text = teacher.prompt.tokenizer.decode(tokens).strip()
            answers = [
                read_patterns(ITEMS.render(target).split("<s_")[0] + teacher.prompt.tokenizer.decode(codes))[0]
                for codes in rollouts.sequences[0, n].tolist()
            ]
            hit = codes_of(target) in answers
            num_hits += hit
            rest = PATTERN.sub(" ", text)
            if not hit:
                reason = "miss"
            elif not rollouts.traces.closed[0, n]:
                reason = "trace_unclosed"
            elif "\ufffd" in text:
                reason = "trace_undecodable"
            elif not text:
                reason = "trace_empty"
            elif "<" in rest:
                reason = "stray_tokens"
            elif not set(read_patterns(text)) <= known:
                reason = "citation_illegal"
            elif found := leaks.find(text, target, before.tolist()):
                reason = f"leak_{found[0].kind}"
            else:
                reason = ""
            verdicts[f"{name}:{n}"] = (reason, text, ITEMS.render(target))
            written[f"{name}:{n}"] = tokens
        difficulties[name] = 1 - num_hits / TRACES
    return SimpleNamespace(verdicts=verdicts, difficulties=difficulties, prompts=prompts, tokens=written)


def test_rows_are_the_verified_hits_of_single_rollouts(all_hits, expected):
    rows = {row["id"]: row for row in read_jsonl(all_hits / "rows.jsonl")}
    # Of traces that say the same, the first is a row.
    wanted, said = {}, set()
    for row_id, (reason, trace, answer) in expected.verdicts.items():
        key = (row_id.rpartition(":")[0], trace)
        if not reason and key not in said:
            said.add(key)
            wanted[row_id] = (trace, answer)
    found = {row_id: parse_answer(row["messages"][-1]["content"]) for row_id, row in rows.items()}
    assert {row_id: (answer.think, answer.answer) for row_id, answer in found.items()} == wanted
    assert len(wanted) > 20 and {row["difficulty"] for row in rows.values()} > {0.5}
    for row_id, row in rows.items():
        check_row(row)
        name, _, _ = row_id.rpartition(":")
        assert row["difficulty"] == pytest.approx(expected.difficulties[name]) and row["user"] == name.split(":")[0]
        assert (row["mode"], row["task"], row["teacher"]) == ("think", "rft", "local:ours/model")


def test_what_gives_no_row_is_counted_by_reason_with_examples(all_hits, expected):
    verdicts = expected.verdicts
    rejected = {r["id"]: r["reason"] for r in read_jsonl(all_hits / "rejected.jsonl")}
    twice = {row_id for row_id, reason in rejected.items() if reason == "trace_twice"}
    assert {i: r for i, r in rejected.items() if i not in twice} == {i: r for i, (r, *_) in verdicts.items() if r}
    assert all(verdicts[row_id][0] == "" for row_id in twice)
    manifest = read_json(all_hits / "manifest.json")
    assert manifest["rejected"] == Counter(rejected.values())
    assert {"miss", "trace_unclosed", "citation_illegal"} <= set(rejected.values())
    for reason, examples in manifest["rejected_examples"].items():
        assert len(examples) == min(3, manifest["rejected"][reason])
        assert all(rejected[example["id"]] == reason for example in examples)
    by_domain = Counter(ITEMS.domains[target] for *_, target in moments())
    hit = {(row["id"].rpartition(":")[0], row["domain"]) for row in read_jsonl(all_hits / "rows.jsonl")}
    for domain, asked in by_domain.items():
        assert manifest["counts"][f"asked_think_{domain}"] == asked
        assert manifest["counts"][f"traces_think_{domain}"] == asked * TRACES
        assert manifest["counts"][f"hit_think_{domain}"] == sum(of == domain for _, of in hit)


def test_a_row_trains_on_the_tokens_that_the_teacher_wrote(all_hits, expected, teacher):
    for row in read_jsonl(all_hits / "rows.jsonl"):
        encoded = encode_row(row, teacher.prompt.tokenizer, teacher.vocabulary)
        asked = expected.prompts[row["id"].rpartition(":")[0]]
        opening = len(teacher.think_ids.opening)
        assert encoded["input_ids"][: len(asked)] == asked
        assert not any(encoded["loss_mask"][: len(asked) - opening])
        supervised = [i for i, keep in zip(encoded["input_ids"], encoded["loss_mask"], strict=True) if keep]
        said = teacher.prompt.tokenizer.decode(supervised)
        assert said.removesuffix("\n").removesuffix("<|im_end|>") == row["messages"][-1]["content"]


def test_direct_hits_are_those_of_a_ranking_of_all_items(direct_hits, teacher):
    """Without thinking, N x K beams are the best of the domain's items; each is scored by a pass of its own."""
    rows = {row["id"]: row for row in read_jsonl(direct_hits / "rows.jsonl")}
    model = teacher.model
    found = 0
    for user, place, before, target in moments():
        domain = ITEMS.domains[target]
        prompt = teacher.render(before, domain, "no_think")
        scores = {}
        for item in range(len(ITEMS)):
            if ITEMS.domains[item] == domain:
                codes = teacher.vocabulary.code_ids(ITEMS.codes[[item]])[0].tolist()
                scores[item] = float(plain_logprobs(model, [*prompt, *codes])[-2:].sum())
        better = sum(score > scores[target] for score in scores.values())
        row = rows.get(f"{user}:{place}:no_think:0")
        num_beams = min(TRACES * NUM_ITEMS, len(scores))
        assert (row is not None) == (better < num_beams)
        if row is not None:
            found += 1
            assert row["messages"][-1]["content"] == ITEMS.render(target) and row["mode"] == "no_think"
            assert row["difficulty"] == pytest.approx(better / num_beams)
            assert row["messages"][-2]["content"].endswith("/no_think")
    assert found == len(rows) > 0


def test_a_domain_is_answered_by_its_own_teacher(rft_world, tmp_path):
    alone = {
        domain: read_jsonl(
            build(rft_world, tmp_path / name, *ALL_HITS, "--domains", domain, teacher=f"{name}/model") / "rows.jsonl"
        )
        for domain, name in (("prod", "ours"), ("video", "theirs"))
    }
    both = ["--teacher", rft_world / "ours/model", "--teacher", f"video={rft_world / 'theirs/model'}"]
    build(rft_world, tmp_path / "both", *both, *ALL_HITS)
    rows = read_jsonl(tmp_path / "both" / "rows.jsonl")
    assert {(row["domain"], row["teacher"]) for row in rows} == {
        ("prod", "local:ours/model"),
        ("video", "local:theirs/model"),
    }
    for domain, expected in alone.items():
        assert {row["id"]: row for row in rows if row["domain"] == domain} == {row["id"]: row for row in expected}
    config = read_json(tmp_path / "both" / "manifest.json")["config"]
    assert config["teachers"] == {"prod": "local:ours/model", "video": "local:theirs/model"}
    inputs = read_json(tmp_path / "both" / "manifest.json")["inputs"]
    assert {"ours/model/model.safetensors", "theirs/model/model.safetensors", "rows.jsonl"} <= set(inputs)


def test_rollouts_of_a_prompt_depend_on_seed_and_prompt_alone(rft_world, all_hits, tmp_path):
    rows = {row["id"]: row for row in read_jsonl(all_hits / "rows.jsonl")}
    some = build(rft_world, tmp_path / "some", *ALL_HITS, "--no-think-share", 0, "--max-prompts", 20)
    others = build(rft_world, tmp_path / "others", *ALL_HITS, "--no-think-share", 0, "--seed", 1)
    of_some = {row["id"]: row for row in read_jsonl(some / "rows.jsonl")}
    assert of_some == {row_id: rows[row_id] for row_id in of_some} and 0 < len(of_some) < len(rows)
    of_others = {row["id"]: row for row in read_jsonl(others / "rows.jsonl")}
    assert not any(row == rows.get(row_id) for row_id, row in of_others.items() if row["difficulty"])


def test_a_longer_horizon_has_several_right_answers(rft_world, tmp_path):
    options = ["--horizon", 3, "--max-per-prompt", 99, "--max-bin-share", 1, "--no-think-share", 0.9]
    rows = read_jsonl(build(rft_world, tmp_path / "out", *options) / "rows.jsonl")
    train = {f"u{user}": history[:-2] for user, history in enumerate(histories())}
    said = defaultdict(list)
    for row in rows:
        user, place, mode, _ = row["id"].split(":")
        ahead = train[user][int(place) : int(place) + 3]
        right = [ITEMS.render(item) for item in ahead if ITEMS.domains[item] == ITEMS.domains[ahead[0]]]
        answer = parse_answer(row["messages"][-1]["content"]).answer
        assert answer in right and row["domain"] == ITEMS.domains[ahead[0]]
        said[user, place, mode].append(right.index(answer))
    assert {n for of in said.values() for n in of} >= {0, 1}
    direct = [of for (*_, mode), of in said.items() if mode == "no_think"]
    assert max(map(len, direct)) > 1 and all(len(set(of)) == len(of) for of in direct)


def test_cited_items_may_have_to_stand_in_the_history(rft_world, all_hits, tmp_path):
    strict = build(rft_world, tmp_path / "out", *ALL_HITS, "--no-think-share", 0, "--citations", "history")
    shown = {f"{user}:{place}": {codes_of(int(i)) for i in before} for user, place, before, _ in moments()}
    rows = read_jsonl(all_hits / "rows.jsonl")
    kept = {
        row["id"]
        for row in rows
        if set(read_patterns(parse_answer(row["messages"][-1]["content"]).think)) <= shown[row["id"].rsplit(":", 2)[0]]
    }
    assert {row["id"] for row in read_jsonl(strict / "rows.jsonl")} == kept
    assert 0 < len(kept) < len(rows)


def test_similar_traces_of_a_prompt_are_one_row(rft_world, expected, tmp_path):
    def trigrams(row_id: str) -> set[tuple[int, ...]]:
        tokens = expected.tokens[row_id]
        return set(zip(tokens, tokens[1:], tokens[2:], strict=False))

    more = ["--no-think-share", 0, "--max-per-prompt", 99, "--max-bin-share", 1, "--max-similarity", 0.1]
    out = build(rft_world, tmp_path / "out", *more)
    kept, repeated = [], {}
    for row_id, (reason, *_) in expected.verdicts.items():
        if reason:
            continue
        others = [other for other in kept if other.rpartition(":")[0] == row_id.rpartition(":")[0]]
        both = [len(trigrams(row_id) & trigrams(o)) / len(trigrams(row_id) | trigrams(o)) for o in others]
        if any(share >= 0.1 for share in both):
            repeated[row_id] = others[next(n for n, share in enumerate(both) if share >= 0.1)]
        else:
            kept.append(row_id)
    assert {row["id"] for row in read_jsonl(out / "rows.jsonl")} == set(kept)
    found = {r["id"]: r["detail"] for r in read_jsonl(out / "rejected.jsonl") if r["reason"] == "trace_similar"}
    assert found == {row_id: f"as trace {first.rpartition(':')[2]}" for row_id, first in repeated.items()}
    assert found


def test_a_format_that_tells_no_domains_apart(rft_world, tmp_path):
    items = Catalog(load_format("openonerec", 2, 8), ITEMS.item_ids, ITEMS.codes, ITEMS.domains, ITEMS.captions)
    tokenizer = build_tiny_tokenizer([*items.captions, *BASE_TEXTS * 4], vocab_size=600)
    model = build_tiny_model(tokenizer, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, seed=0)
    model, tokenizer, vocabulary = extend_model(model, tokenizer, items.format, seed=0)
    save_model_folder(model, tokenizer, vocabulary, items, tmp_path / "model", {"kind": "test"})
    whole = ["--num-items", len(items), "--items", "beam", "--mode", "no_think", "--max-bin-share", 1]
    out = build(rft_world, tmp_path / "out", "--teacher", tmp_path / "model", *whole)
    rows = {row["id"]: row for row in read_jsonl(out / "rows.jsonl")}
    assert len(rows) == len(moments())  # beams hold all items, so every prompt is hit
    for user, place, _, target in moments():
        row = rows[f"{user}:{place}:no_think:0"]
        assert row["messages"][-1]["content"] == items.render(target) and row["domain"] == items.domains[target]


# -- which hits become rows -----------------------------------------------------------------------------------------


def table(*hits: tuple[str, str, float, int, int]) -> HitTable:
    """Hits as mode, domain, difficulty, place, key."""
    modes, domains, difficulties, places, keys = zip(*hits, strict=True)
    numbers = {domain: n for n, domain in enumerate(dict.fromkeys(domains))}
    return HitTable(
        np.array([mode == "think" for mode in modes]),
        np.array([numbers[domain] for domain in domains]),
        np.array(difficulties),
        np.array(places),
        np.array(keys, np.uint64),
    )


def test_a_full_bin_keeps_first_hits_before_second_ones():
    hits = [("think", "a", 0.1, place, 10 * prompt + place) for prompt in range(4) for place in range(2)]
    hits += [("think", "a", 0.6, 0, 99), ("think", "a", 0.9, 0, 98)]
    # 10 hits, none beyond 2 a prompt; a bin keeps 5: the 4 first ones, and the second one of the lowest key
    reasons = select_hits(table(*hits), Limits(2, 4, 0.5))
    assert reasons.tolist() == ["", ""] + ["", "beyond_bin_limit"] * 3 + ["", ""]
    assert select_hits(table(*hits), Limits(1, 4, 1.0)).tolist() == ["", "beyond_prompt_limit"] * 4 + ["", ""]


def test_domains_are_balanced_and_direct_answers_shared_out():
    hits = [("think", "a", 0.5, 0, key) for key in (3, 1, 2, 0)] + [
        ("think", "b", 0.5, 0, 7),
        ("think", "b", 0.5, 0, 6),
    ]
    hits += [("no_think", "a", 0.5, 0, key) for key in (5, 4)] + [("no_think", "b", 0.5, 0, key) for key in (1, 2, 3)]
    reasons = select_hits(table(*hits), Limits(1, 4, 1.0, balance_domains=1.5, no_think_share=0.25))
    # b has 2 thinking rows, so a keeps 3; at once a has 2, so b keeps 3; a quarter of (3 + 1) and of (2 + .67)
    assert reasons[:6].tolist() == ["beyond_domain_limit", "", "", "", "", ""]
    assert reasons[6:8].tolist() == ["beyond_no_think_share", ""]
    assert reasons[8:].tolist() == ["", "beyond_no_think_share", "beyond_no_think_share"]


def test_limits_hold_on_random_hits():
    rng = np.random.default_rng(0)
    size = 600
    hits = HitTable(
        rng.random(size) < 0.6,
        rng.integers(0, 3, size),
        rng.choice([0, 0.25, 0.5, 0.75], size),
        rng.integers(0, 4, size),
        rng.permutation(size).astype(np.uint64),
    )
    reasons = select_hits(hits, Limits(2, 4, 0.3, None, 0.4))
    rows = list(zip(hits.thinks, hits.domain, hits.difficulty, hits.place, hits.key, reasons, strict=True))
    for domain in range(3):
        num_thinking = 0
        for thinks in (True, False):
            own = [row for row in rows if row[0] == thinks and row[1] == domain and row[3] < 2]
            bound = int(np.ceil(0.3 * len(own)))
            kept = []
            for difficulty in (0, 0.25, 0.5, 0.75):
                of_bin = sorted((row for row in own if row[2] == difficulty), key=lambda row: (row[3], row[4]))
                kept += of_bin[:bound]
            if not thinks:
                kept = sorted(kept, key=lambda row: (row[3], row[4]))[: round(num_thinking * 0.4 / 0.6)]
            num_thinking = len(kept)
            found = [row for row in rows if row[0] == thinks and row[1] == domain and not row[5]]
            assert sorted(row[4] for row in found) == sorted(row[4] for row in kept)


def test_traces_that_share_most_trigrams_are_one():
    base = list(range(20))  # 18 trigrams
    almost = [*base[:19], 99]  # 17 of 19 in common: .894
    half = [*base[:11], *range(50, 59)]  # 9 of 27: .333
    assert find_repeated([base, almost, half, base, []], 0.8) == [None, 0, None, 0, None]
    assert find_repeated([base, almost, half, base, []], 0.9) == [None, None, None, 0, None]
    assert find_repeated([[1, 2], [1, 2], [2, 1]], 1.0) == [None, 0, None]


def test_both_modes_share_a_corpus_and_rows_come_with_limits(rft_world, tmp_path):
    out = build(rft_world, tmp_path / "out", "--no-think-share", 0.25, "--max-per-prompt", 1)
    rows = read_jsonl(out / "rows.jsonl")
    number = Counter((row["domain"], row["mode"]) for row in rows)
    for domain in ("video", "prod"):
        assert number[domain, "no_think"] == round(number[domain, "think"] / 3) > 0
    assert max(Counter(row["id"].rpartition(":")[0] for row in rows).values()) == 1
    manifest = read_json(out / "manifest.json")
    bins = {name: count for name, count in manifest["counts"].items() if name.startswith("bin_")}
    assert bins == Counter(f"bin_{row['mode']}_{min(int(row['difficulty'] * 4), 3)}" for row in rows)
    rejected = read_jsonl(out / "rejected.jsonl")
    assert manifest["rejected"] == Counter(r["reason"] for r in rejected)
    ids = [row["id"] for row in rows] + [r["id"] for r in rejected]
    assert len(set(ids)) == len(ids)  # a trace is a row, or has one reason
    assert sum(":think:" in i for i in ids) == TRACES * len(moments())


def test_another_choice_of_rows_needs_no_new_rollouts(rft_world, tmp_path, monkeypatch, capsys):
    out = build(rft_world, tmp_path / "out", "--max-per-prompt", 1)
    fresh = build(rft_world, tmp_path / "fresh", "--max-per-prompt", 3)
    monkeypatch.setattr(rft_rollouts, "roll_out", None)
    build(rft_world, out, "--max-per-prompt", 3, "--overwrite")
    assert "holds these rollouts already" in capsys.readouterr().out
    assert (out / "rows.jsonl").read_bytes() == (fresh / "rows.jsonl").read_bytes()
    shutil.rmtree(out)
    assert main(arguments(rft_world, out, "--seed", 1)) == 2
    assert "holds rollouts of another build (different: seed); choose another" in capsys.readouterr().err
    assert main(arguments(rft_world, out, "--top-k", 5)) == 2
    assert "holds rollouts of another build (different: top_k); choose another" in capsys.readouterr().err
    monkeypatch.undo()
    build(rft_world, out, "--seed", 1, "--overwrite")
    assert read_json(out.with_name("out_rollouts") / "manifest.json")["seed"] == 1


# -- the same bytes -------------------------------------------------------------------------------------------------


def test_a_killed_build_ends_in_the_same_bytes(rft_world, tmp_path, start_program):
    def places(name: str) -> list[Path]:
        return [tmp_path / name / place for place in ("out", "out_rollouts", "pairs")]

    def command(name: str, size: int = 16) -> list[str]:
        folder = tmp_path / name
        return arguments(rft_world, folder / "out", "--pairs", folder / "pairs", "--shard-size", size)

    assert main(command("straight")) == 0
    expected = files_of(*places("straight"))
    assert len(expected) == 4 + 4 + 3
    killed = tmp_path / "killed"
    working = killed / ".out_rollouts.building"
    for moment in ("before shard-00002.json", "before pairs", "before out"):
        finished = len(list(working.glob("shard-*.json")))
        with start_program("-c", KILL_AT, moment, build_rft.__file__, *command("killed")) as process:
            printed, errors = process.communicate(timeout=300)
        assert process.returncode == -signal.SIGKILL
        assert "starting anew" not in errors
        asked = re.search(r"rolled out (\d+) prompts", printed)
        assert (int(asked[1]) if asked else 0) == (
            2 * len(moments()) - 16 * finished if moment == "before pairs" else 0
        )
    assert finished == 0 and not (killed / "out").exists()
    assert main(command("killed")) == 0
    assert files_of(*places("killed")) == expected
    assert main(command("other", 7)) == 0
    assert files_of(*places("other")) == expected


# -- what is refused, and what is said ------------------------------------------------------------------------------


def foreign_teacher(folder: Path, rft_world: Path, kind: str) -> Path:
    ours = load_model_folder(rft_world / "ours" / "model")
    items = ours.catalog
    model, tokenizer, vocabulary = ours.model, ours.tokenizer, ours.vocabulary
    if kind == "catalog":
        items = Catalog(items.format, items.item_ids, items.codes[::-1].copy(), items.domains[::-1], items.captions)
    else:
        format = load_format("onereason", 2, 16) if kind == "format" else items.format
        items = Catalog(format, items.item_ids, items.codes, items.domains, items.captions)
        tokenizer = build_tiny_tokenizer(["other words altogether"] * 4, vocab_size=300)
        model = build_tiny_model(tokenizer, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, seed=0)
        model, tokenizer, vocabulary = extend_model(model, tokenizer, format, seed=0)
    save_model_folder(model, tokenizer, vocabulary, items, folder / kind / "model", {"kind": "test"})
    return folder / kind / "model"


def test_teachers_that_do_not_fit_are_refused_before_any_rollout(rft_world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rft_teachers, "load_recommender", None)
    ours = rft_world / "ours" / "model"
    said = {
        "format": r"--teacher video \(.*\) uses format 'onereason' with codes a level \[16, 16\]",
        "vocabulary": r"--teacher video: .* has another vocabulary than the first teacher",
        "catalog": r"--teacher video: the catalog of .* has other domains than that of the first teacher",
    }
    for kind, message in said.items():
        foreign = foreign_teacher(tmp_path, rft_world, kind)
        teachers = ["--teacher", f"prod={ours}", "--teacher", f"video={foreign}"]
        assert main(arguments(rft_world, tmp_path / "out", *teachers)) == 2
        assert re.search(message, capsys.readouterr().err)
    other = tmp_path / "asked" / "model"
    shutil.copytree(ours, other)
    manifest = read_json(other / "manifest.json") | {"prompt": {"style": "chat", "max_history": 3, "language": "zh"}}
    (other / "manifest.json").write_text(json.dumps(manifest))
    cases = [
        (["--teacher", f"prod={ours}", "--teacher", f"video={other}"], "different prompts (max_history: 3, 50)"),
        (["--teacher", f"prod={ours}", "--domains", "prod,video"], "domain 'video' has no teacher"),
        (["--teacher", f"prod={ours}", "--domains", "video"], "--teacher names 'prod', which --domains leaves out"),
        (["--teacher", f"shoes={ours}"], "the catalog's domains are prod, video"),
        (["--teacher", f"prod={ours}", "--teacher", f"prod={other}"], "--teacher names domain 'prod' twice"),
        (["--teacher", ours, "--teacher", other], "two folders for all domains"),
        (["--teacher", "prod="], "write DOMAIN=FOLDER"),
        (["--teacher", tmp_path / "nothing"], "does not exist"),
        (["--teacher", ours, "--min-history", "6"], "no prompt is left for reinforcement"),
        (["--teacher", ours, "--max-prompts", "1"], "no prompt asks for domain"),
        (["--teacher", ours, "--mode", "no_think", "--no-think-share", "0.5"], "leave it out with --mode no_think"),
        (["--teacher", ours, "--mode", "no_think", "--pairs", tmp_path / "pairs"], "--pairs needs --mode think"),
        (
            ["--teacher", ours, "--temperature", "0.7", "--items", "beam"],
            "--temperature must be 1 where items are beams",
        ),
        (["--teacher", ours, "--pairs", tmp_path / "out" / "pairs"], "must be different folders"),
        (["--teacher", ours, "--max-bin-share", "0"], "--max-bin-share must lie above 0"),
        (["--teacher", ours, "--no-think-share", "1"], "--no-think-share must be at least 0 and below 1"),
        (["--teacher", ours, "--workers", "2"], "can only be made in one process"),
    ]
    for more, message in cases:
        assert main(arguments(rft_world, tmp_path / "out", *more)) == 2
        assert message in capsys.readouterr().err
    assert not any(path.name.startswith(("out", "pairs", ".out")) for path in tmp_path.iterdir())


def test_a_domain_that_nothing_hits_is_counted_and_said(rft_world, tmp_path, monkeypatch, capsys):
    real = rft_rollouts.hits

    def without_prod(inputs):
        found = real(inputs)
        return found & np.array([domain != "prod" for domain in inputs.domains])[:, None, None]

    monkeypatch.setattr(rft_rollouts, "hits", without_prod)
    out = build(rft_world, tmp_path / "out")
    printed = capsys.readouterr()
    asked = sum(ITEMS.domains[target] == "prod" for *_, target in moments())
    assert f"domain prod: none of {asked} prompts has a verified hit in mode think;" in printed.err
    assert "domain video" not in printed.err
    assert re.search(r"rolled out \d+ prompts in [\d.]+ s: [\d.]+ prompts/s, \d+ tokens/s", printed.out)
    counts = read_json(out / "manifest.json")["counts"]
    assert counts["hit_think_prod"] == 0 and "domain_prod" not in counts and counts["domain_video"] > 0
    assert main(arguments(rft_world, tmp_path / "none", "--domains", "prod")) == 2
    assert "no row is left" in capsys.readouterr().err


def test_a_corpus_without_pairs_is_whole_and_the_lack_is_an_error(rft_world, tmp_path, monkeypatch, capsys):
    real = rft_rollouts.hits
    monkeypatch.setattr(rft_rollouts, "hits", lambda inputs: real(inputs).any((1, 2), keepdims=True) & inputs.legal)
    assert (
        main(arguments(rft_world, tmp_path / "out", "--pairs", tmp_path / "pairs")) == 2
    )  # all traces of a prompt hit
    assert "no prompt has both a verified hit and a verified miss" in capsys.readouterr().err
    assert not (tmp_path / "pairs").exists() and read_jsonl(tmp_path / "out" / "rows.jsonl")


# -- what corpora and pairs are for ---------------------------------------------------------------------------------


def test_recipes_and_mixtures_take_the_corpus(rft_world, all_hits, direct_hits, tmp_path):
    parts = ["--corpus", f"hits={all_hits}:1", "--corpus", f"direct={direct_hits}:1"]
    assert build_mixture.main([*parts, "--think", "0.5", "--out", str(tmp_path / "mixture")]) == 0
    rows = read_jsonl(tmp_path / "mixture" / "rows.jsonl")
    assert {row["mode"] for row in rows} == {"think", "no_think"} and all("difficulty" in row for row in rows)
    changes = {"model": rft_world / "ours" / "model", "data.max_length": 512, "training.max_steps": 2}
    given = [
        a for a in overrides("sft", rft_world, tmp_path / "run", **changes) if not a.startswith(("data.c", "data.s"))
    ]
    run_in_process("sft", [*given, f"data.corpora.rft={tmp_path / 'mixture'}", "data.shares.rft=1.0"])
    counts = read_json(tmp_path / "run" / "model" / "manifest.json")["counts"]
    assert counts["steps"] == 2 and counts["rft_supervised_tokens"] > 0


def test_pairs_set_a_hit_against_a_miss_of_one_prompt(all_hits, expected):
    verdicts = expected.verdicts
    pairs = read_jsonl(all_hits.with_name("pairs") / "pairs.jsonl")
    by_prompt = defaultdict(list)
    for pair in pairs:
        name, _, numbers = pair["id"].rpartition(":")
        hit, miss = numbers.split("-")
        by_prompt[name].append((hit, miss))
        reason, trace, answer = verdicts[f"{name}:{hit}"]
        assert reason == "" and pair["chosen"] == [
            {"role": "assistant", "content": f"<think>\n{trace}\n</think>\n\n{answer}"}
        ]
        reason, trace, answer = verdicts[f"{name}:{miss}"]
        said = parse_answer(pair["rejected"][0]["content"])
        assert reason == "miss" and said.think == trace and said.answer != answer
        assert read_patterns(said.answer)[0][0] == pair["domain"]
        assert [message["role"] for message in pair["prompt"]] == ["system", "user"]
    assert all(len(of) <= 2 for of in by_prompt.values()) and max(map(len, by_prompt.values())) == 2
    for of in by_prompt.values():
        assert len({hit for hit, _ in of}) == len({miss for _, miss in of}) == len(of)
    manifest = read_json(all_hits.with_name("pairs") / "manifest.json")
    assert manifest["kind"] == "preference_pairs" and manifest["counts"]["pairs"] == len(pairs) > 3


def test_trl_trains_on_pairs(rft_world, all_hits, tmp_path):
    """TRL's own trainer: at the start the policy is the reference, so the loss is ln 2, and it falls from there."""
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer

    folder = load_model_folder(rft_world / "ours" / "model")
    file = str(all_hits.with_name("pairs") / "pairs.jsonl")
    pairs = load_dataset("json", data_files=file, split="train", cache_dir=str(tmp_path / "cache"))
    before = {name: value.clone() for name, value in folder.model.named_parameters()}
    options = {"per_device_train_batch_size": len(pairs), "learning_rate": 1e-3, "max_steps": 4, "logging_steps": 1}
    options |= {"report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True, "save_strategy": "no"}
    trainer = DPOTrainer(
        folder.model,
        args=DPOConfig(output_dir=str(tmp_path / "dpo"), max_length=512, **options),
        train_dataset=pairs,
        processing_class=folder.tokenizer,
    )
    decode = folder.tokenizer.decode
    for example, pair in zip(trainer.train_dataset, pairs, strict=True):
        asked = folder.tokenizer.apply_chat_template(pair["prompt"], tokenize=False, add_generation_prompt=True)
        assert decode(example["prompt_ids"]) == asked
        for side in ("chosen", "rejected"):
            assert decode(example[f"{side}_ids"]) == f"{pair[side][0]['content']}<|im_end|>\n"
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[0] == pytest.approx(np.log(2), abs=1e-4)
    assert losses[-1] < losses[0] - 0.01
    moved = [name for name, value in folder.model.named_parameters() if not torch.equal(value, before[name])]
    assert len(moved) == len(before)
