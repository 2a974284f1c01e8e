"""Mixtures: shares, think ratios, no row twice, held-out users apart, whole or not at all."""

from __future__ import annotations

import json
import signal
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from data_builders import build_persona
from data_builders.build_mixture import main, parse_part, parse_think
from data_builders.mixture_scan import Part, Scan, count_rows, drop_trace, is_held_out, scan_corpora
from onereason.data.chat import check_row, encode_rows
from onereason.errors import ConfigError
from onereason.io import read_json, read_jsonl, write_jsonl
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import ItemicFormat, load_format
from tests.cognition_worlds import shop, write_world

TRACE = "<think>\nso\n</think>\n\n"


def row(row_id: str, said: str, think: bool = False, **more) -> dict:
    """A row that asks `said?` and answers `said.`"""
    switch = "think" if think else "no_think"
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": f"{said}? /{switch}"},
        {"role": "assistant", "content": f"{TRACE if think else ''}{said}."},
    ]
    start = {"id": row_id, "task": "test", "loss": "assistant", "mode": switch, "messages": messages}
    return start | ({"teacher": "template"} if think else {}) | more


def decisions(prefix: str, count: int, **more) -> list[dict]:
    """`count` questions, each asked in both modes."""
    return [row(f"{n}:{think}", f"{prefix} {n}", think, **more) for n in range(count) for think in (True, False)]


class Corpora:
    """Corpora in a folder, and mixtures of them."""

    def __init__(self, root: Path):
        self.root = root

    def write(self, name: str, rows: list[dict]) -> None:
        (self.root / name).mkdir()
        write_jsonl(self.root / name / "rows.jsonl", rows)

    def arguments(self, shares: dict[str, float], *more: str, out: str = "out") -> list[str]:
        named = [f"--corpus={name}={self.root / name}:{share}" for name, share in shares.items()]
        return ["--out", str(self.root / out), *named, *more]

    def mix(self, shares: dict[str, float], *more: str, out: str = "out") -> list[dict]:
        assert main(self.arguments(shares, *more, out=out)) == 0
        return read_jsonl(self.root / out / "rows.jsonl")

    def manifest(self, out: str = "out") -> dict:
        return read_json(self.root / out / "manifest.json")


@pytest.fixture
def corpora(tmp_path) -> Corpora:
    return Corpora(tmp_path)


def modes(rows: list[dict]) -> Counter[tuple[str, str]]:
    """(corpus, mode) -> rows."""
    return Counter((r["id"].partition(":")[0], r["mode"]) for r in rows)


# -- shares ---------------------------------------------------------------------------------------------------------


def test_shares_of_rows_in_one_random_order(corpora):
    corpora.write("a", decisions("a", 30, domain="video"))
    corpora.write("b", decisions("b", 100))
    rows = corpora.mix({"a": 60, "b": 40}, "--size", "50")
    # 50 rows: 30 of a and 20 of b, each with as many of either mode as before
    assert modes(rows) == {("a", "think"): 15, ("a", "no_think"): 15, ("b", "think"): 10, ("b", "no_think"): 10}
    names = [r["id"].partition(":")[0] for r in rows]
    assert names != sorted(names) and len({r["id"] for r in rows}) == 50
    for r in rows:
        check_row(r)
    counts = corpora.manifest()["counts"]
    assert counts == {
        "rows": 50,
        "mode_no_think": 25,
        "mode_think": 25,
        "task_test": 50,
        "domain_video": 30,
        "teacher_template": 25,
        "corpus_a": 30,
        "corpus_a_no_think": 15,
        "corpus_a_think": 15,
        "corpus_b": 20,
        "corpus_b_no_think": 10,
        "corpus_b_think": 10,
        "domain_video_no_think": 15,
        "domain_video_think": 15,
        "held_out_rows": 0,
    }
    assert corpora.manifest()["rejected"] == {"beyond_share": 210}
    assert corpora.manifest()["config"]["shares"] == {"a": 60.0, "b": 40.0}
    assert not (corpora.root / "out/rejected.jsonl").exists() and not (corpora.root / "out/held_out.jsonl").exists()


def test_rows_are_copied_as_they_are_but_for_the_id(corpora):
    odd = row("é\u2028", "\U0001f600 {x} %s", domain="video", user="u", note={"n": [1, None]})
    corpora.write("a", [odd])
    assert corpora.mix({"a": 1}) == [odd | {"id": "a:é\u2028"}]


def test_ids_are_unique_where_corpora_use_the_same(corpora):
    for name in ("a", "b"):
        corpora.write(name, decisions(name, 10))
    ids = [r["id"] for r in corpora.mix({"a": 1, "b": 1})]
    assert len(ids) == len(set(ids)) == 40 and {i.partition(":")[2] for i in ids} == {
        r["id"] for r in decisions("", 10)
    }


def test_the_same_inputs_give_the_same_bytes(corpora):
    for name in ("a", "b"):
        corpora.write(name, decisions(name, 40, user="u"))
    options = ["--think", "0.3", "--held-out", "0.5", "--size", "20"]
    for out, seed in (("x", "1"), ("y", "1"), ("z", "2")):
        assert main(corpora.arguments({"a": 1, "b": 2}, *options, "--seed", seed, out=out)) == 0
    for path in (corpora.root / "x").iterdir():
        assert path.read_bytes() == (corpora.root / "y" / path.name).read_bytes()
    assert (corpora.root / "x/rows.jsonl").read_bytes() != (corpora.root / "z/rows.jsonl").read_bytes()


def test_a_file_may_stand_for_its_folder(corpora):
    write_jsonl(corpora.root / "lines.jsonl", decisions("a", 3))
    assert main(["--out", str(corpora.root / "out"), f"--corpus=a={corpora.root / 'lines.jsonl'}:1"]) == 0
    assert len(read_jsonl(corpora.root / "out/rows.jsonl")) == 6


# -- what is said twice ---------------------------------------------------------------------------------------------


def test_what_two_rows_say_is_kept_once_where_it_stands_first(corpora):
    corpora.write("a", [row("1", "x"), row("2", "x"), row("3", "y")])
    again = row("1", "y", domain="video", user="u", teacher="endpoint:m")
    # other loss, other words, other mode: other rows
    corpora.write("b", [again, row("2", "y", loss="all"), row("3", "z"), row("4", "x", think=True)])
    rows = corpora.mix({"a": 2, "b": 3})
    assert {r["id"] for r in rows} == {"a:1", "a:3", "b:2", "b:3", "b:4"}
    assert corpora.manifest()["rejected"] == {"said_before": 2}


def test_an_id_that_stands_twice_in_a_corpus_counts_once(corpora):
    corpora.write("a", [row("1", "x"), row("1", "y"), row("2", "y"), row("1", "x")])
    rows = corpora.mix({"a": 1})
    assert sorted((r["id"], r["messages"][2]["content"]) for r in rows) == [("a:1", "x."), ("a:2", "y.")]
    assert corpora.manifest()["rejected"] == {"id_twice": 2}
    rejected = read_jsonl(corpora.root / "out/rejected.jsonl")
    assert rejected == [{"id": "a:1", "reason": "id_twice", "detail": ""}] * 2


# -- think ratios ---------------------------------------------------------------------------------------------------


def test_think_ratios_hold_in_each_corpus_and_domain(corpora):
    corpora.write(
        "a", decisions("v", 30, domain="video") + [r | {"id": f"ad{r['id']}"} for r in decisions("w", 30, domain="ad")]
    )
    corpora.write("b", decisions("b", 30))
    corpora.write("c", [row(str(n), f"c {n}", think=True) for n in range(50)])
    rows = corpora.mix({"a": 1, "b": 1, "c": 1}, "--think", "0.5", "--think", "ad=0.25")
    of = Counter((r["id"][0], r.get("domain"), r["mode"]) for r in rows)
    # a: 60 videos and 30 + 10 ads; b: 60 rows; c has 50 rows that think and nothing to balance them, and is the
    # scarcest: 50 of each, from a 30 videos and 20 ads
    assert of == {
        ("a", "video", "think"): 15,
        ("a", "video", "no_think"): 15,
        ("a", "ad", "think"): 5,
        ("a", "ad", "no_think"): 15,
        ("b", None, "think"): 25,
        ("b", None, "no_think"): 25,
        ("c", None, "think"): 50,
    }
    assert corpora.manifest()["rejected"] == {"beyond_think_ratio": 20, "beyond_share": 60}
    assert corpora.manifest()["config"]["think"] == 0.5
    assert corpora.manifest()["config"]["think_of_domain"] == {"ad": 0.25}


@pytest.mark.parametrize(("ratio", "think", "no_think"), [("0", 0, 30), ("1", 30, 0), ("0.1", 3, 30), ("0.9", 30, 3)])
def test_ratios_at_the_ends(corpora, ratio, think, no_think):
    corpora.write("a", decisions("a", 30))
    of = modes(corpora.mix({"a": 1}, "--think", ratio))
    assert (of["a", "think"], of["a", "no_think"]) == (think, no_think)


def test_rows_beyond_the_ratio_lose_their_trace_where_that_is_new(corpora):
    # of ten questions that are asked thinking, four are asked in the other mode too
    both = decisions("a", 4)
    alone = [row(f"alone {n}", f"alone {n}", think=True) for n in range(6)]
    corpora.write("a", both + alone)
    rows = corpora.mix({"a": 1}, "--think", "0.25", "--convert")
    # 14 rows: 3.5, so 4 think when 6 lose their trace, and those are the six that nobody else asks
    assert len(rows) == 14 and modes(rows) == {("a", "think"): 4, ("a", "no_think"): 10}
    converted = [r for r in rows if r["id"].startswith("a:alone")]
    for r in converted:
        assert r == row(r["id"], r["id"].removeprefix("a:"))  # as if it had been asked so from the start
        check_row(r)
    assert corpora.manifest()["counts"]["converted"] == 6 and "rejected" not in corpora.manifest()["counts"]
    assert corpora.manifest()["rejected"] == {}
    assert corpora.manifest()["config"]["convert"] is True


def test_what_is_left_without_a_trace_is_compared_with_all_corpora(corpora):
    corpora.write("a", [row(str(n), f"x {n}", think=True) for n in range(10)])
    corpora.write("b", [row(str(n), f"x {n}") for n in range(8)])
    rows = corpora.mix({"a": 1, "b": 1}, "--think", "0", "--convert")
    # of a only 8 and 9 say something new, and shares are equal
    assert modes(rows) == {("a", "no_think"): 2, ("b", "no_think"): 2}
    contents = [json.dumps(r["messages"]) for r in rows]
    assert len(set(contents)) == 4 and len({r["id"] for r in rows}) == 4
    assert corpora.manifest()["rejected"] == {"beyond_share": 6, "beyond_think_ratio": 8}


def test_without_convert_nothing_changes_its_mode(corpora):
    corpora.write("a", decisions("a", 4) + [row(f"alone {n}", f"alone {n}", think=True) for n in range(6)])
    rows = corpora.mix({"a": 1}, "--think", "0.5")
    assert modes(rows) == {("a", "think"): 4, ("a", "no_think"): 4}
    assert all(r["mode"] == "think" for r in rows if "alone" in r["id"])


@pytest.mark.parametrize(
    "changed",
    [
        {"mode": "no_think"},
        {"messages": None, "text": "x", "loss": "all"},
        {"messages": [{"role": "user", "content": "x /think"}], "loss": "all"},
        {"messages": [{"role": "assistant", "content": f"{TRACE}x"}]},
        {"messages": [{"role": "user", "content": "x /think"}, {"role": "assistant", "content": "x"}]},
        {"messages": [{"role": "user", "content": "x /think"}, {"role": "assistant", "content": "<think>\nso"}]},
        {"messages": [{"role": "user", "content": "x /think"}, {"role": "assistant", "content": TRACE}]},
        {
            "messages": [
                {"role": "user", "content": "x /think"},
                {"role": "assistant", "content": f"{TRACE}y"},
                {"role": "user", "content": "x /think"},
                {"role": "assistant", "content": f"{TRACE}z"},
            ]
        },
    ],
)
def test_rows_whose_trace_cannot_be_taken_away(changed):
    found = {key: value for key, value in (row("1", "x", think=True) | changed).items() if value is not None}
    check_row(found)
    assert drop_trace(found) is None


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("x /think", "x /no_think"), ("x\n/think", "x\n/no_think"), ("x", "x /no_think"), ("x /no_think", "x /no_think")],
)
def test_the_switch_is_turned(asked, expected):
    found = row("1", "x", think=True, user="u")
    found["messages"][1]["content"] = asked
    bare = drop_trace(found)
    assert bare["messages"][1]["content"] == expected and bare["messages"][2]["content"] == "x."
    assert bare["mode"] == "no_think" and "teacher" not in bare and bare["user"] == "u"
    assert found["mode"] == "think" and found["messages"][1]["content"] == asked  # the row itself is left alone


# -- held-out users -------------------------------------------------------------------------------------------------


def test_held_out_users_are_in_no_training_row_of_any_corpus(corpora):
    corpora.write("a", [row(f"{n}", f"a {n}", user=f"u{n % 40}") for n in range(200)])
    corpora.write("b", [row(f"{n}", f"b {n}", user=f"u{n % 40}") for n in range(100)] + [row("none", "none")])
    rows = corpora.mix({"a": 1, "b": 1}, "--held-out", "0.3")
    held = read_jsonl(corpora.root / "out/held_out.jsonl")
    trained_on, held_out = {r.get("user") for r in rows}, {r["user"] for r in held}
    assert held_out == {f"u{n}" for n in range(40) if is_held_out(f"u{n}", 0.3)} and 4 < len(held_out) < 20
    assert not trained_on & held_out
    assert {r["id"].partition(":")[0] for r in held} == {"a", "b"}
    assert len(held) == sum(is_held_out(f"u{n % 40}", 0.3) for n in [*range(200), *range(100)])
    assert corpora.manifest()["counts"]["held_out_rows"] == len(held)
    # another mixture, another seed: the same users
    corpora.mix({"b": 1}, "--held-out", "0.3", "--seed", "7", out="other")
    assert {r["user"] for r in read_jsonl(corpora.root / "other/held_out.jsonl")} <= held_out


def test_a_larger_share_holds_out_the_same_users_and_more():
    users = [f"u{n}" for n in range(3000)]
    held = [{u for u in users if is_held_out(u, share)} for share in (0, 0.1, 0.2, 0.999999)]
    assert held[0] == set() and held[1] < held[2] < held[3]
    assert len(held[1]) == pytest.approx(300, abs=60) and len(held[3]) >= 2998
    assert not is_held_out(None, 0.9)


def test_what_a_held_out_user_is_asked_is_no_training_row(corpora):
    out = next(f"u{n}" for n in range(99) if is_held_out(f"u{n}", 0.5))
    kept = next(f"u{n}" for n in range(99) if not is_held_out(f"u{n}", 0.5))
    corpora.write("a", [row("1", "x", user=out), row("2", "x", user=kept), row("3", "y", user=kept)])
    assert [r["id"] for r in corpora.mix({"a": 1}, "--held-out", "0.5")] == ["a:3"]
    assert [r["id"] for r in read_jsonl(corpora.root / "out/held_out.jsonl")] == ["a:1"]


# -- bad lines ------------------------------------------------------------------------------------------------------


def test_lines_that_hold_no_row_are_counted_and_set_aside(corpora):
    corpora.write("a", [])
    good = json.dumps(row("1", "x"))
    bad = [
        "{broken",
        "[1]",
        "7",
        json.dumps(row("2", "x") | {"loss": "some"}),
        json.dumps(row("3", "x") | {"messages": []}),
        json.dumps({k: v for k, v in row("4", "x").items() if k != "id"}),
        json.dumps(row("5", "x") | {"id": 5}),
        '{"id": "\udcff"}'.encode("utf-8", "surrogateescape").decode("latin-1"),
    ]
    lines = [good, "", "  ", *bad, json.dumps(row("9", "half an emoji \ud83d"))]
    (corpora.root / "a/rows.jsonl").write_bytes("\n".join(lines).encode("latin-1"))
    rows = corpora.mix({"a": 1})
    assert {r["id"]: r["messages"][2]["content"] for r in rows} == {"a:1": "x.", "a:9": "half an emoji \ufffd."}
    rejected = read_jsonl(corpora.root / "out/rejected.jsonl")
    assert [(r["id"], r["reason"]) for r in rejected] == [
        ("a:line 4", "not_json"),
        ("a:line 5", "not_an_object"),
        ("a:line 6", "not_an_object"),
        ("a:line 7", "malformed_row"),
        ("a:line 8", "malformed_row"),
        ("a:line 9", "no_id"),
        ("a:line 10", "no_id"),
        ("a:line 11", "not_json"),
    ]
    assert "loss is 'some'" in rejected[3]["detail"]
    assert corpora.manifest()["rejected"] == {"malformed_row": 2, "no_id": 2, "not_an_object": 2, "not_json": 2}
    assert corpora.manifest()["rejected_examples"]["no_id"][0] == {"id": "a:line 9", "detail": "None"}
    assert "malformed_row" in (corpora.root / "out/CARD.md").read_text()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--think", "2"], "--think '2': write a ratio from 0 to 1, or DOMAIN=RATIO"),
        (["--think", "ad=x"], "--think 'ad=x': write a ratio"),
        (["--think", "ad=0.5"], "--think names domain 'ad', which no row has; rows have video"),
        (["--held-out", "1"], "--held-out must be at least 0 and below 1, got 1.0"),
        (["--held-out", "nan"], "--held-out must be at least 0"),
        (["--size", "0"], "--size must be a number of at least 1, got 0.0"),
        (["--size", "nan"], "--size must be a number of at least 1"),
        (["--size", "inf"], "--size must be a number of at least 1"),
        (["--size", "9"], "a mixture of 9 needs 9 of corpus 'a', which has 8; ask for at most 8"),
        (["--unit", "token"], "--unit token and --tokenizer MODEL_DIR belong together"),
        (["--tokenizer", "x"], "--unit token and --tokenizer MODEL_DIR belong together"),
        (["--convert"], "--convert needs a ratio to convert to"),
        (["--corpus", "a=nowhere:1"], "corpus 'a' not found"),
        (["--corpus", "b:1"], "write NAME=FOLDER:SHARE"),
        (["--corpus", "a:b=x:1"], "a name may hold letters, digits"),
        (["--corpus", "b=x:0"], "the share must be a number above 0, got '0'"),
        (["--corpus", "b=x:nan"], "the share must be a number above 0"),
    ],
)
def test_mistakes_are_told_in_one_line(corpora, capsys, more, said):
    corpora.write("a", decisions("a", 4, domain="video"))
    assert main(corpora.arguments({"a": 1}, *more)) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert sorted(path.name for path in corpora.root.iterdir()) == ["a"]


def test_a_corpus_named_twice_is_refused(corpora, capsys):
    corpora.write("a", decisions("a", 4))
    assert main([*corpora.arguments({"a": 1}), "--corpus", f"a={corpora.root / 'a'}:2"]) == 2
    assert "--corpus names 'a' twice" in capsys.readouterr().err


def test_a_corpus_that_another_says_all_of_has_no_row_left(corpora, capsys):
    for name in ("a", "b"):
        corpora.write(name, decisions("same", 4))
    assert main(corpora.arguments({"a": 1, "b": 1})) == 2
    assert "corpus 'b' has share 1 but no row is left of it" in capsys.readouterr().err
    assert not (corpora.root / "out").exists()


def test_a_mixture_never_takes_the_place_of_its_corpora(corpora, capsys):
    corpora.write("a", decisions("a", 4))
    before = (corpora.root / "a/rows.jsonl").read_bytes()
    (corpora.root / "a/manifest.json").write_text("{}")
    assert main(corpora.arguments({"a": 1}, "--overwrite", out="a")) == 2
    assert "cannot be overwritten: it is or holds" in capsys.readouterr().err
    assert (corpora.root / "a/rows.jsonl").read_bytes() == before


def test_parts_and_ratios_are_read():
    here = str(Path(__file__))
    assert parse_part(f" a.b-1 ={here}:0.5") == Part("a.b-1", Path(here), 0.5)
    assert parse_think(["0.5", "ad=0.1", "x=y=1"]) == ({"ad": 0.1, "x=y": 1.0}, 0.5)
    assert parse_think([]) == ({}, None)
    with pytest.raises(ConfigError):
        parse_think(["ad="])


# -- tokens ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A model folder, and what counts the tokens of rows in it."""
    from onereason.model.folder import load_tokenizer_folder
    from tests.recipes.tiny_world import write_world

    root = tmp_path_factory.mktemp("model")
    write_world(root)
    model = load_tokenizer_folder(root / "model")

    def count(rows: list[dict]) -> list[int]:
        return encode_rows(rows, model.tokenizer, model.vocabulary, progress=False).lengths.tolist()

    return root / "model", count


@pytest.mark.parametrize("more", [[], ["--think", "0.2", "--convert"]])
def test_shares_of_tokens_are_what_a_model_reads(corpora, tokenizer, more):
    folder, count = tokenizer
    corpora.write(
        "a", [row(f"{n}:{t}", "word " * (n % 9 + 1) + str(n), t) for n in range(60) for t in (True, n % 2 > 0)]
    )
    corpora.write("b", [row(str(n), "long words " * (n % 5 + 3) + str(n)) for n in range(60)])
    rows = corpora.mix({"a": 3, "b": 1}, "--unit", "token", "--tokenizer", str(folder), "--size", "2500", *more)
    tokens = Counter[str]()
    for r, n in zip(rows, count(rows), strict=True):
        tokens[r["id"].partition(":")[0]] += n
    counts, longest = corpora.manifest()["counts"], max(count(rows))
    assert {name: counts[f"tokens_{name}"] for name in "ab"} == tokens
    assert 1875 - longest < tokens["a"] <= 1875 and 625 - longest < tokens["b"] <= 625
    assert bool(counts.get("converted")) == bool(more)
    assert corpora.manifest()["config"]["tokenizer"] == "model"


# -- at scale -------------------------------------------------------------------------------------------------------


def test_a_scan_keeps_some_forty_bytes_a_row(corpora):
    arrays = [value for value in vars(Scan()).values() if hasattr(value, "itemsize")]
    assert sum(array.itemsize for array in arrays) <= 48
    filler = "x" * 2000
    corpora.write("a", [row(str(n), f"{filler} {n}", think=n % 2 == 0) for n in range(6000)])  # 24 MB
    part = Part("a", corpora.root / "a/rows.jsonl", 1.0)
    tracemalloc.start()
    scan = scan_corpora([part], 0.1, count_rows, True, lambda reject: None)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(scan) == 6000
    assert kept < 6000 * 80 and peak < 12_000_000  # a chunk of rows, not all of them


def test_a_mixture_that_is_killed_leaves_nothing_in_its_place(corpora, start_program, repository):
    corpora.write("a", decisions("a", 15_000, user="u"))
    arguments = corpora.arguments({"a": 1}, "--size", "30000")
    program = repository / "data_builders/build_mixture.py"
    process = start_program(program, *arguments)
    deadline = time.monotonic() + 60
    while not list(corpora.root.glob(".out.*/rows.jsonl")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
    assert not (corpora.root / "out").exists()
    assert main(arguments) == 0
    assert len(read_jsonl(corpora.root / "out/rows.jsonl")) == 30_000


# -- itemic formats -------------------------------------------------------------------------------------------------


def itemic(corpora: Corpora, name: str, said: str, recorded: str = "", **shape: int) -> None:
    """A corpus that speaks of an item, and records a format or none."""
    corpora.write(name, [row(f"{name}{n}", f"{name} {n} {said}") for n in range(4)])
    if recorded:
        manifest = {"kind": "corpus", "itemic_format": load_format(recorded, **shape).to_dict()}
        (corpora.root / name / "manifest.json").write_text(json.dumps(manifest))


def refusal(corpora: Corpora, capsys, *names: str) -> str:
    assert main(corpora.arguments(dict.fromkeys(names, 1.0))) == 2
    assert not (corpora.root / "out").exists()
    return capsys.readouterr().err


def test_corpora_of_different_formats_are_refused_by_their_manifests(corpora, capsys):
    itemic(corpora, "a", "<|video_begin|><s_a_1><s_b_2>", "onereason", levels=2, codes=64)
    itemic(corpora, "b", "<|video_begin|><s_a_1><s_b_2>", "onereason", levels=2, codes=32)
    assert (
        "corpora 'a' and 'b' write items in different itemic formats: 'a' in 'onereason' (<s_a_N><s_b_N>, "
        "codes a level [64, 64], domains video, prod, living, ad), 'b' in 'onereason' (<s_a_N><s_b_N>, "
        "codes a level [32, 32], "
    ) in refusal(corpora, capsys, "a", "b")
    itemic(corpora, "c", "<|sid_begin|><s_a_1><s_b_2><|sid_end|>", "openonerec", levels=2, codes=64)
    assert "corpora 'a' and 'c' write" in refusal(corpora, capsys, "a", "c")


def test_rows_without_a_manifest_are_told_by_their_spelling(corpora, capsys):
    itemic(corpora, "a", "<|video_begin|><s_a_1><s_b_2>", "onereason", levels=2, codes=64)
    itemic(corpora, "three", "<|video_begin|><s_a_1><s_b_2><s_c_0>")
    itemic(corpora, "bare", "<a_1><b_2>")
    itemic(corpora, "other", "<|sid_begin|><s_a_1><s_b_2>")
    for name, spelled in (
        ("three", "an unrecorded one (<s_a_N><s_b_N><s_c_N> with <|video_begin|>)"),
        ("bare", "an unrecorded one (<a_N><b_N>)"),
        ("other", "an unrecorded one (<s_a_N><s_b_N> with <|sid_begin|>)"),
    ):
        for names in (("a", name), (name, "a")):
            assert f"{name!r} in {spelled}; build them with one catalog" in refusal(corpora, capsys, *names)
    assert "corpora 'three' and 'bare' write" in refusal(corpora, capsys, "three", "bare")


def test_corpora_of_one_format_and_those_without_items_are_mixed(corpora):
    itemic(corpora, "a", "<|video_begin|><s_a_1><s_b_2>", "onereason", levels=2, codes=64)
    itemic(corpora, "b", "<|ad_begin|><s_a_9><s_b_2>", "onereason", levels=2, codes=64)
    itemic(corpora, "foreign", "<|ad_begin|><s_a_9><s_b_3>")
    itemic(corpora, "general", "1 < 2")
    assert len(corpora.mix(dict.fromkeys(("a", "general", "foreign", "b"), 1.0))) == 16
    format = load_format("onereason", 2, 64)
    assert ItemicFormat.from_dict(corpora.manifest()["itemic_format"]) == format
    # a mixture is a corpus of that format
    itemic(corpora, "c", "<a_1><b_2>", "minionerec", levels=2, codes=64)
    assert main(corpora.arguments({"out": 1.0, "c": 1.0}, out="again")) == 2
    assert len(corpora.mix({"general": 1.0}, out="none")) == 4 and "itemic_format" not in corpora.manifest("none")


def test_builders_record_the_format_of_the_catalog(tmp_path):
    arguments = write_world(tmp_path, shop().facts, shop().histories).arguments
    assert build_persona.main([*arguments, "--out", str(tmp_path / "persona")]) == 0
    recorded = read_json(tmp_path / "persona/manifest.json")["itemic_format"]
    assert ItemicFormat.from_dict(recorded) == Catalog.load(tmp_path / "catalog").format
