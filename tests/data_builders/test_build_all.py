"""Every corpus in one command: what is built, kept and refused, and the table that tells of it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from data_builders.build_all import CORPORA, main, parse_overrides
from onereason import prompt_sets
from onereason.data.chat import check_row
from onereason.errors import ConfigError
from onereason.io import read_json, read_jsonl
from tests.cognition_worlds import make_facts, write_simulated, write_world

SYNTHETIC = 12
LESS = ("instruction.num_rows=120", "pretraining.granularity=item")
"""Overrides that keep the corpora small."""
QUICK = ("--only", "caption,sequential,persona")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> list[str]:
    """`--data` and `--catalog` of a simulated world."""
    return write_simulated(tmp_path_factory.mktemp("simulated"))


@pytest.fixture(scope="module")
def built(arguments, tmp_path_factory) -> Path:
    """All corpora."""
    out = tmp_path_factory.mktemp("built") / "corpora"
    assert main([*LESS, *arguments, "--out", str(out), "--synthetic", str(SYNTHETIC), "--seed", "3"]) == 0
    return out


def refused(capsys, given: list[str]) -> str:
    """Runs, expects exit code 2 and one line, and returns it."""
    capsys.readouterr()
    assert main(given) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# -- what is built --------------------------------------------------------------------------------------------------


def test_every_corpus_stands_there(built):
    assert sorted(path.name for path in built.iterdir()) == sorted([*CORPORA, "summary.json", "SUMMARY.md"])
    for name in CORPORA:
        rows = read_jsonl(built / name / "rows.jsonl")
        for row in rows:
            check_row(row)
        manifest = read_json(built / name / "manifest.json")
        assert len(rows) == manifest["counts"]["rows"] > 0 and manifest["seed"] == 3
        assert manifest["config"].get("language", "en") == "en"


def test_the_figures_are_those_of_the_manifests(built):
    figures = read_json(built / "summary.json")
    table = (built / "SUMMARY.md").read_text().splitlines()
    assert list(figures) == list(CORPORA)
    for name, line in zip(CORPORA, table[2:], strict=True):
        lines = (built / name / "rows.jsonl").read_bytes().splitlines()
        left_out = built / name / "rejected.jsonl"
        reasons = [row["reason"] for row in read_jsonl(left_out)] if left_out.is_file() else []
        found = figures[name]
        assert found["rows"] == len(lines)
        assert found["think"] == sum(json.loads(row)["mode"] == "think" for row in lines)
        assert found["rejected"] == {reason: reasons.count(reason) for reason in set(reasons)}
        assert found["megabytes"] == round((built / name / "rows.jsonl").stat().st_size / 2**20, 1)
        assert found["seconds"] >= 0
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[:5] == [name, *(f"{found[key]:,}" for key in ("rows", "think", "megabytes", "seconds"))]
        assert cells[5] == (", ".join(f"{count:,} {why}" for why, count in found["rejected"].items()) or "none")
    assert figures["general"]["rows"] == SYNTHETIC and figures["instruction"]["rows"] == 120
    assert figures["recommendation"]["think"] > 0 and figures["rationale"]["rejected"]


def test_overrides_reach_the_builder(built):
    assert read_json(built / "instruction/manifest.json")["config"]["num_rows"] == 120
    assert {row["task"] for row in read_jsonl(built / "pretraining/rows.jsonl")} != {"instruction"}
    assert read_json(built / "pretraining/manifest.json")["config"]["granularity"] == "item"


def test_each_corpus_is_what_its_own_builder_makes(built, arguments, tmp_path):
    from data_builders import build_recommendation

    given = [*arguments, "--seed", "3", "--shard-size", "7", "--out", str(tmp_path / "alone")]
    assert build_recommendation.main(given) == 0
    assert contents(tmp_path / "alone") == contents(built / "recommendation")


def test_chinese(arguments, tmp_path):
    out = tmp_path / "zh"
    given = [*LESS, *arguments, "--out", str(out), "--language", "zh", "--synthetic", "3"]
    assert main(given) == 0
    for name in CORPORA:
        if name == "general":
            continue
        config = read_json(out / name / "manifest.json")["config"]
        assert config["language"] == "zh" and "/en/" not in config["prompt_version"]
        for row in read_jsonl(out / name / "rows.jsonl"):
            if ":plain:" in row["id"]:  # patterns alone
                continue
            said = row["text"] if "text" in row else row["messages"][0]["content"]
            assert any("一" <= letter <= "鿿" for letter in said), (name, row["id"])


# -- going on -------------------------------------------------------------------------------------------------------


def test_finished_corpora_are_kept(built, arguments, tmp_path, capsys):
    out = tmp_path / "corpora"
    shutil.copytree(built, out)
    shutil.rmtree(out / "evolution")
    shutil.rmtree(out / "general")
    before = contents(out)
    capsys.readouterr()
    given = [*LESS, *arguments, "--out", str(out), "--synthetic", str(SYNTHETIC), "--seed", "3"]
    assert main(given) == 0
    printed = capsys.readouterr().out
    assert printed.count(": kept") == len(CORPORA) - 2 and "evolution: kept" not in printed
    after = contents(out)
    of_new = ("evolution/", "general/", "summary.json", "SUMMARY.md")
    assert {name: text for name, text in after.items() if not name.startswith(of_new)} == {
        name: text for name, text in before.items() if not name.startswith(of_new)
    }
    for name in ("evolution", "general"):
        assert contents(out / name) == contents(built / name)
    # the others' seconds are remembered
    ours, theirs = (read_json(folder / "summary.json") for folder in (out, built))
    assert all(ours[name] == theirs[name] for name in CORPORA if name not in ("evolution", "general"))
    assert {name: row | {"seconds": 0} for name, row in ours.items()} == {
        name: row | {"seconds": 0} for name, row in theirs.items()
    }


KILLED = """
import os, sys
from data_builders import build_all, build_sequential

def kill(args):
    os._exit(9)

build_sequential.build = kill
sys.exit(build_all.main(sys.argv[1:]))
"""


def test_a_kill_between_corpora_loses_none(arguments, tmp_path, run_program, capsys):
    out, program = tmp_path / "corpora", tmp_path / "killed.py"
    program.write_text(KILLED)
    given = [*QUICK, *arguments, "--out", str(out)]
    assert run_program(program, *given).returncode == 9
    assert sorted(path.name for path in out.iterdir()) == ["persona", "summary.json"]
    persona = contents(out / "persona")
    assert main(given) == 0
    assert "[1/3] persona: kept" in capsys.readouterr().out and contents(out / "persona") == persona
    assert list(read_json(out / "summary.json")) == ["persona", "sequential", "caption"]
    assert main([*QUICK, *arguments, "--out", str(tmp_path / "whole")]) == 0
    for name in ("persona", "sequential", "caption"):
        assert contents(out / name) == contents(tmp_path / "whole" / name)


def test_some_corpora_and_then_others(arguments, tmp_path):
    out = tmp_path / "corpora"
    given = [*arguments, "--out", str(out)]
    assert main(["--only", "caption, persona", "persona.variants=2", *given]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["SUMMARY.md", "caption", "persona", "summary.json"]
    assert main(["--only", "sequential", *given]) == 0  # the others' own arguments need not be said again
    assert list(read_json(out / "summary.json")) == ["persona", "sequential", "caption"]
    assert (out / "SUMMARY.md").read_text().count("\n") == 5


def test_a_corpus_of_its_builder_is_taken_as_it_is(built, arguments, tmp_path, capsys):
    from data_builders import build_captions

    out = tmp_path / "corpora"
    assert build_captions.main([*arguments[2:], "--out", str(out / "caption")]) == 0
    capsys.readouterr()
    assert main(["--only", "caption", *arguments, "--out", str(out), "--workers", "2"]) == 0
    printed = capsys.readouterr().out
    assert "caption: kept" in printed and "| caption | 600 | 0 | 0.3 |  | none |" in printed


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--seed", "1"], "seed 3, now 1"),
        (["--language", "zh"], "language en, now zh; prompt_version domains/en/1"),
        (["--theme-attribute", "style"], "theme_attribute None, now style"),
        (["--split-method", "temporal", "--validation-start", "1", "--test-start", "2"], "test_start None, now 2"),
        (["recommendation.targets=8"], "targets 1, now 8"),
        (["--synthetic", "13"], "synthetic 12, now 13"),
    ],
)
def test_other_settings_are_refused(built, arguments, capsys, more, said):
    before = contents(built)
    given = [*LESS, *arguments, "--out", str(built), "--synthetic", str(SYNTHETIC), "--seed", "3", *more]
    error = refused(capsys, given)
    assert said in error and "choose another --out, or remove" in error
    assert contents(built) == before


@pytest.mark.parametrize("more", [["--seed", "1"], ["--seed", "3", "--language", "zh"]])
def test_other_settings_are_refused_for_a_corpus_that_others_stand_beside(built, arguments, tmp_path, capsys, more):
    out = tmp_path / "corpora"
    shutil.copytree(built / "persona", out / "persona")
    assert "persona was built with other settings" in refused(
        capsys, ["--only", "caption", *arguments, "--out", str(out), *more]
    )
    assert [path.name for path in out.iterdir()] == ["persona"]


def test_other_data_is_refused(built, arguments, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(Path(arguments[1]).parent, moved)
    given = ["--data", str(moved / "data"), "--catalog", str(moved / "catalog"), "--out", str(built), "--seed", "3"]
    given += ["--synthetic", str(SYNTHETIC)]
    assert main([*LESS, *given]) == 0  # the same data in another place
    import polars as pl

    table = moved / "data/interactions.parquet"
    pl.read_parquet(table).head(-1).write_parquet(table)
    assert "another interactions.parquet" in refused(capsys, [*LESS, *given])


def test_another_file_of_general_text_is_refused(arguments, tmp_path, capsys):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"question": "1 + 1?", "answer": "2"}\n')
    given = ["--only", "general", *arguments, "--out", str(tmp_path / "corpora")]
    assert main([*given, "--general", str(tmp_path / "a.jsonl")]) == 0
    assert main([*given, "--general", str(tmp_path / "a.jsonl")]) == 0
    assert "another b.jsonl" in refused(capsys, [*given, "--general", str(tmp_path / "b.jsonl")])
    assert "synthetic None, now 3" in refused(capsys, [*given, "--synthetic", "3"])


def test_settings_of_what_was_never_finished_bind_nobody(arguments, tmp_path, capsys):
    out = tmp_path / "corpora"
    given = ["--only", "persona", "--catalog", arguments[3], "--out", str(out)]
    assert "nowhere is not a dataset folder" in refused(capsys, [*given, "--data", "nowhere", "--seed", "1"])
    assert not out.exists()
    assert main([*given, "--data", arguments[1]]) == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["recommendation.target=8"], "corpus recommendation: unrecognized arguments: --target=8; see `python -m"),
        (["recommendation.targets=many"], "corpus recommendation: argument --targets: invalid int value: 'many'"),
        (["perception.captions=short"], "corpus perception: argument --captions: invalid choice: 'short'"),
        (["instruction.think_share=3"], "corpus instruction: --think-share must lie between 0 and 1, got 3.0."),
        (["sequential.drop=-1"], "corpus sequential: --copies (0) must be at least 0, --drop (-1.0) in 0 <= p < 1"),
        (["caption.workers=0"], "corpus caption: --workers must be at least 1, got 0."),
        (["rationale.relevance=embedding"], "corpus rationale: relevance by embedding reads"),
        (["evolution.teacher=endpoint"], "corpus evolution: --teacher endpoint needs --teacher-url URL"),
        (["perception.out=elsewhere"], "out is the same for all corpora of a folder; leave it out."),
        (["persona.validation-start=7"], "validation-start is the same for all corpora"),
        (["persona.overwrite=true"], "overwrite is the same for all"),
        (["persona.variants"], "'persona.variants': write NAME.ARGUMENT=VALUE, NAME out of persona, sequential,"),
        (["poem.lines=4"], "'poem.lines=4': write NAME.ARGUMENT=VALUE"),
        (["persona.=4"], "'persona.=4': write NAME.ARGUMENT=VALUE"),
        (["--only", "caption", "persona.variants=2"], "persona.variants=2: corpus persona is not built here."),
        (["--only", "caption,poem"], "--only 'caption,poem' must name corpora out of persona, sequential,"),
        (["--only", ","], "--only ',' must name corpora"),
        (["--only", "general"], "corpus general needs a source: --general FILE or --synthetic N."),
        (["--general", "nowhere.jsonl"], "corpus general: general data not found: expected a file at nowhere.jsonl"),
        (["--general", "x", "--synthetic", "3"], "give either --general FILE or --synthetic N."),
        (["--synthetic", "-3"], "corpus general: --synthetic must be at least 1, got -3."),
        (["--language", "fr"], "corpus persona: prompt set 'domains' for language 'fr' not found; use en or zh"),
        (["--seed", "-1"], "--seed must"),
        (["--workers", "0"], "--workers must be at least 1, got 0."),
        (["--split-method", "temporal"], "--split-method temporal needs --validation-start and --test-start"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_built(arguments, tmp_path, capsys, more, said):
    assert said in refused(capsys, [*more, *arguments, "--out", str(tmp_path / "corpora")])
    assert list(tmp_path.iterdir()) == []


def test_what_no_builder_wrote_is_left_alone(arguments, tmp_path, capsys):
    given = [*QUICK, *arguments, "--out", str(tmp_path / "corpora")]
    place = tmp_path / "corpora/caption"  # the last of the three
    place.mkdir(parents=True)
    (place / "mine.txt").write_text("mine")
    assert f"output folder {place} exists and is not empty" in refused(capsys, given)
    (place / "manifest.json").write_text('{"kind": "dataset"}')
    assert f"{place} is no corpus" in refused(capsys, given)
    assert [path.name for path in (tmp_path / "corpora").iterdir()] == ["caption"]
    shutil.rmtree(tmp_path / "corpora")
    (tmp_path / "corpora").write_text("a file")
    assert "corpora" in refused(capsys, given)
    assert (tmp_path / "corpora").read_text() == "a file"


def test_a_builder_that_fails_ends_the_command_with_its_line(arguments, tmp_path, capsys):
    folder = tmp_path / "mine"
    shutil.copytree(Path(prompt_sets.__file__).parent / "en", folder)
    (folder / "recommendation.yaml").write_text("version: 2\nsystem: Go on.\n")
    given = [*QUICK, *arguments, "--out", str(tmp_path / "corpora"), "--language", str(folder)]
    error = refused(capsys, given)
    assert "prompt set 'recommendation'" in error and "has no text 'user'; add it to the file." in error
    assert sorted(path.name for path in (tmp_path / "corpora").iterdir()) == ["persona", "summary.json"]


def test_interrupted(arguments, tmp_path, capsys, monkeypatch):
    from data_builders import build_sequential

    def stop(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(build_sequential, "build", stop)
    assert main([*QUICK, *arguments, "--out", str(tmp_path / "corpora")]) == 130
    assert capsys.readouterr().err.count("\n") == 1 and (tmp_path / "corpora/persona/rows.jsonl").is_file()


def test_overrides_as_command_lines():
    assert parse_overrides(["persona.max_history=4", "persona.variants=2", "caption.shard-size=9"]) == {
        "persona": ["--max-history=4", "--variants=2"],
        "caption": ["--shard-size=9"],
    }
    assert parse_overrides(["derivation.search_actions=a=b,c"]) == {"derivation": ["--search-actions=a=b,c"]}
    with pytest.raises(ConfigError, match="write NAME"):
        parse_overrides(["variants=2"])


def test_every_builder_has_a_parser_of_its_own(repository):
    for name, (module, _) in CORPORA.items():
        builder = sys.modules.get(f"data_builders.{module}") or __import__(f"data_builders.{module}", fromlist=["x"])
        assert {"--out", "--seed"} <= set(builder.make_parser()._option_string_actions), name


# -- items without categories ---------------------------------------------------------------------------------------


def test_without_categories_what_is_about_interests_is_left_out_and_named(tmp_path, capsys):
    facts = make_facts([(("video", "prod")[n % 2], {"colour": ("red", "blue")[n // 2 % 2]}) for n in range(16)], None)
    histories = {f"u{n}": [(n + k) % 16 for k in range(6)] for n in range(8)}
    world = write_world(tmp_path / "world", facts, histories)
    given = [*world.arguments, "--out", str(tmp_path / "out")]
    assert main([*given, "--only", "caption,evolution"]) == 2
    assert "evolution cannot be built: no item has a category" in capsys.readouterr().err
    assert main(["instruction.num_rows=60", *given]) == 0
    assert "left out derivation, evolution, rationale, recommendation: no item" in capsys.readouterr().out
    built = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert built == set(CORPORA) - {"derivation", "evolution", "rationale", "recommendation", "general"}
