"""`onereason pipeline` with real commands: order, skipping, staleness, kills, signals, locks; what files may say."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from onereason.cli import VERBS, build_parser, main
from onereason.config import load_config
from onereason.data.schema import ITEMS_FILE
from onereason.errors import ConfigError
from onereason.io import read_json
from onereason.itemic.catalog import Catalog
from onereason.pipeline.plan import Stage, load_plan
from onereason.pipeline.records import begin, judge, locked, write_record

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = sorted((REPOSITORY / "recipes/configs/pipeline").glob("*.yaml"))
WORK = """
    import sys, pathlib
    out, *words = sys.argv[1:]
    out = pathlib.Path(out)
    with pathlib.Path(__file__).with_name("ran.txt").open("a") as ran:
        print(out, file=ran)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(" ".join(words))
    print("wrote", out)
"""


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    add_script("work", WORK)


def add_script(name: str, text: str) -> None:
    Path(f"{name}.py").write_text(textwrap.dedent(text))


def write_pipeline(*stages: dict[str, Any], **more: Any) -> Path:
    path = Path("pipeline.yaml")
    path.write_text(yaml.safe_dump({"run": "run", "stages": list(stages), **more}, sort_keys=False))
    return path


def stage(name: str, *words: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "command": ["python", "work.py", "{out}", *words], **more}


def ran() -> list[str]:
    """The outs that were written, in order, without the run's folder."""
    file = Path("ran.txt")
    return [line.removeprefix("run/") for line in file.read_text().splitlines()] if file.is_file() else []


def pipeline(*arguments: str) -> int:
    return main(["pipeline", "pipeline.yaml", *arguments])


# -- order, needs, placeholders ---------------------------------------------------------------------------------------


def test_stages_run_in_order_and_what_is_done_is_skipped(capfd: pytest.CaptureFixture[str]) -> None:
    write_pipeline(
        stage("a", "{word}", "{seed}"),
        stage("waits", "{late}"),
        stage("b"),
        stage("late", "{a}"),
        seed=7,
        vars={"word": "two words"},
    )
    assert pipeline() == 0
    assert ran() == ["a", "late", "waits", "b"]
    assert Path("run/a").read_text() == "two words 7"
    assert Path("run/waits").read_text() == "run/late"
    assert "wrote run/late" in capfd.readouterr().out
    assert Path("run/logs/late.log").read_text() == "$ python work.py run/late run/a\nwrote run/late\n"
    assert pipeline() == 0
    assert ran() == ["a", "late", "waits", "b"]
    assert "[2/4] late: done" in capfd.readouterr().out


def test_needs_are_the_stages_named_or_else_the_one_before() -> None:
    write_pipeline(
        stage("a"), stage("b"), stage("c", "{a}/x"), stage("d", needs=[]), stage("e", "{a}", needs=["d"]), stage("f")
    )
    found = {s.name: s.needs for s in load_plan("pipeline.yaml").stages}
    assert found == {"a": (), "b": ("a",), "c": ("a",), "d": (), "e": ("a", "d"), "f": ("e",)}


def test_one_stage_a_domain() -> None:
    write_pipeline(
        stage("base"),
        stage("rl", "{domain}", "{base}", for_each="domains"),
        stage("score", "{rl}", for_each=["ad", "video"]),
        stage("unify", "teachers.{domain}={rl.*}/model", "--models", "{rl.*}", "{rl.video}"),
        stage("after", needs=["rl"]),
        vars={"domains": ["video", "ad"]},
    )
    assert pipeline() == 0
    assert ran() == ["base", "rl/video", "rl/ad", "score/ad", "score/video", "unify", "after"]
    assert Path("run/rl/ad").read_text() == "ad run/base"
    assert Path("run/score/video").read_text() == "run/rl/video"
    assert Path("run/unify").read_text() == (
        "teachers.video=run/rl/video/model teachers.ad=run/rl/ad/model --models run/rl/video run/rl/ad run/rl/video"
    )
    plan = load_plan("pipeline.yaml")
    assert plan["score.ad"].needs == ("rl.ad",)
    assert plan["unify"].needs == plan["after"].needs == ("rl.video", "rl.ad")


def test_a_recipe_becomes_the_command_that_would_be_typed() -> None:
    for name in ("single.yaml", "zero.yaml", "sft-big.yaml"):
        Path(name).touch()
    recipe = {
        "name": "sft",
        "recipe": "recipes.sft",
        "config": "sft-{size}.yaml",
        "set": {
            "model": "{base}/model",
            "data.corpora": {"mixture": "{base}/rows"},
            "prompts.users": "{users}",
            "prompts.domains": ["{size}"],
            "training.learning_rate": 1e-4,
            "training.bf16": True,
        },
    }
    write_pipeline(
        stage("base", "{options}", "{{}}"),
        recipe,
        {**recipe, "name": "other", "launch": "zero.yaml"},
        launch="single.yaml",
        vars={"size": "big", "users": [0, 0.3], "options": ["--data", "{run}/x", 3]},
    )
    plan = load_plan("pipeline.yaml")
    assert shlex.join(plan["base"].command) == "python work.py run/base --data run/x 3 '{}'"
    assert list(plan["sft"].command) == [
        *("accelerate", "launch", "--config_file", "single.yaml", "-m", "recipes.sft", "--config", "sft-big.yaml"),
        *("out=run/sft", "model=run/base/model", 'data.corpora={"mixture": "run/base/rows"}', "prompts.users=[0, 0.3]"),
        *('prompts.domains=["big"]', "training.learning_rate=0.0001", "training.bf16=true"),
    ]
    assert plan["sft"].done == Path("run/sft/model")
    assert plan["other"].command[3] == "zero.yaml"


def test_a_text_is_read_as_a_shell_would() -> None:
    write_pipeline({"name": "a", "command": "python work.py {out}\n  'one word'  {run}"})
    assert load_plan("pipeline.yaml")["a"].command == ("python", "work.py", "run/a", "one word", "run")


def test_the_command_line_changes_variables_and_the_folder() -> None:
    write_pipeline(stage("a", "{n}"), vars={"n": 1})
    assert pipeline("run=elsewhere", "vars.n=2") == 0
    assert Path("elsewhere/a").read_text() == "2" and not Path("run").exists()


def test_commands_of_the_toolkit() -> None:
    """Two real verbs give what they give when they are typed."""
    write_pipeline(
        {"name": "world", "command": "onereason simulate --out {out} --users 40 --items 100 --topics 8 --seed {seed}"},
        {
            "name": "catalog",
            "command": "onereason tokenize --data {world} --out {out} --format onereason --levels 2 --codes 8",
        },
        seed=3,
    )
    assert pipeline() == 0
    assert main(["simulate", "--out", "typed", "--users", "40", "--items", "100", "--topics", "8", "--seed", "3"]) == 0
    assert Path("run/world", ITEMS_FILE).read_bytes() == Path("typed", ITEMS_FILE).read_bytes()
    assert len(Catalog.load("run/catalog")) == 100


# -- what a file may not say ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "more", "message"),
    [
        ([stage("a", "{b}")], {}, r"stage a: \{b\} is not known"),
        ([stage("first"), stage("b", "{frist}")], {}, r"stage b: \{frist\} is not known; did you mean first\?"),
        ([stage("first"), stage("b", needs=["frist"])], {}, "stage b: needs: no stage is called 'frist'"),
        ([stage("a", "{b}"), stage("b", "{c}"), stage("c", "{a}")], {}, "in a circle: a -> b -> c -> a"),
        ([stage("a", "{a}")], {}, "in a circle: a -> a"),
        ([stage("a", out="{run}/x"), stage("b", out="{run}/./x")], {}, "stages a and b have one out"),
        ([stage("a", out="{run}/x"), stage("b", out="{run}/x/y")], {}, "the out of stage b lies inside that of a"),
        ([stage("a", out="other/x")], {}, "out other/x must lie inside run"),
        ([stage("a", out="{run}/../run")], {}, "must lie inside run"),
        ([stage("a", out="{run}/logs/x")], {}, "must lie inside run, and not in .pipeline, logs"),
        ([stage("a", "{domain}")], {}, r"\{domain\} is not known"),
        ([stage("a", for_each="ds")], {"vars": {"ds": "video"}}, "for_each names 'ds', which is no list in vars"),
        ([stage("a", for_each=["x", "x"])], {}, "for_each must list domains, each once"),
        ([stage("a", for_each=["x/y"])], {}, "'x/y' must be made of letters"),
        ([stage("a", for_each=["x", "y"]), stage("b", "{a}")], {}, r"a is one stage a domain; write \{a.x\}, or \{a"),
        ([stage("a"), stage("b", "{a.*}")], {}, r"\{a.\*\} names no stage with for_each"),
        ([stage("a", for_each=["x", "y"], out="{run}/same")], {}, "stages a.x and a.y have one out"),
        ([stage("a"), stage("a")], {}, "stage name 'a' is taken"),
        ([stage("seed")], {}, "stage name 'seed' is taken"),
        ([stage("a b")], {}, "stage name 'a b' must be made of letters"),
        ([stage("a")], {"vars": {"out": 1}}, "vars.out: choose another name"),
        ([stage("a", "{")], {}, "holds a single {"),
        ([stage("a", "}")], {}, "holds a single }"),
        ([{"name": "a", "command": "no-such-program x"}], {}, "there is no program 'no-such-program'"),
        ([{"name": "a", "command": "python 'x"}], {}, "command cannot be read: No closing quotation"),
        ([{"name": "a", "command": ""}], {}, "command is empty"),
        ([{"name": "a"}], {}, "give a command or a recipe, one of them"),
        ([stage("a", recipe="recipes.sft")], {}, "give a command or a recipe, one of them"),
        ([stage("a", set={"x": 1})], {}, "config, set and launch belong to a recipe"),
        ([{"name": "a", "recipe": "recipes.sft"}], {"launch": "none.yaml"}, "configuration file not found: none.yaml"),
        (
            [{"name": "a", "recipe": "recipes.sft", "config": "none.yaml"}],
            {"launch": "work.py"},
            "stage a: configuration file not found: none.yaml",
        ),
        (
            [{"name": "a", "recipe": "recipes.sft", "set": {"out": "x"}}],
            {"launch": "work.py"},
            "out belongs beside recipe",
        ),
        ([stage("a", comand="x")], {}, "unknown key stages.1.comand; did you mean stages.1.command"),
        ([], {}, "run and stages must not be empty"),
        ([stage("a")], {"seed": -1}, "seed must lie in"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_runs(stages: list, more: dict, message: str) -> None:
    write_pipeline(stage("fine", needs=[]), *stages, **more) if stages else write_pipeline(**more)
    with pytest.raises(ConfigError, match=message) as caught:
        load_plan("pipeline.yaml")
    assert "pipeline.yaml" in str(caught.value)
    assert pipeline() == 2
    assert ran() == [] and not Path("run").exists()


# -- stale ------------------------------------------------------------------------------------------------------------


def states() -> dict[str, tuple[str, str]]:
    found = judge(load_plan("pipeline.yaml"))
    return {name: (status.state, status.why) for name, status in found.items()}


def test_a_changed_command_is_refused_and_redone_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    def write(word: str) -> None:
        write_pipeline(stage("a", word), stage("b", "{a}"), stage("c", needs=[]), stage("d", "{b}"))

    write("old")
    assert pipeline() == 0
    write("new")
    assert pipeline() == 2
    said = capsys.readouterr().err
    assert "stage a is stale: its command changed: old -> new." in said and "`--redo a` removes run/a" in said
    assert Path("run/a").read_text() == "old" and len(ran()) == 4
    assert states()["b"] == ("stale", "a is stale") and states()["c"] == ("done", "")
    assert pipeline("--until", "c") == 2  # also what stands before
    assert pipeline("--only", "c") == 0
    assert pipeline("--redo", "a") == 0
    assert Path("run/a").read_text() == "new"
    assert ran()[4:] == ["a", "b", "d"]
    assert {state for state, _ in states().values()} == {"done"}
    assert sorted(path.name for path in Path("run/.pipeline").iterdir()) == [
        "a.json",
        "b.json",
        "c.json",
        "d.json",
        "lock",
    ]


def test_a_need_that_was_made_anew_makes_stale() -> None:
    write_pipeline(stage("a"), stage("b", "{a}"), stage("c", "{b}"))
    assert pipeline() == 0
    Path("run/a").unlink()
    assert states() == {
        "a": ("to run", "run/a is gone"),
        "b": ("stale", "a is to run again"),
        "c": ("stale", "b is stale"),
    }
    assert pipeline("--only", "a") == 0
    assert states() == {"a": ("done", ""), "b": ("stale", "a was made anew"), "c": ("stale", "b is stale")}
    assert pipeline() == 2
    assert pipeline("--redo", "b") == 0
    assert ran() == ["a", "b", "c", "a", "b", "c"]


def test_other_needs_outs_and_configurations_make_stale() -> None:
    Path("launch.yaml").touch()
    Path("sft.yaml").write_text("a: 1")
    recipe = {"name": "sft", "recipe": "recipes.sft", "config": "sft.yaml"}

    def finish(found: Stage) -> None:
        plan = load_plan("pipeline.yaml")
        found.done.mkdir(parents=True)
        record = begin(found, None, {name: judge(plan)[name] for name in found.needs})
        write_record(plan, found, record)

    write_pipeline(stage("a"), stage("b"), recipe, launch="launch.yaml")
    assert pipeline("--until", "b") == 0
    finish(load_plan("pipeline.yaml")["sft"])
    assert states()["sft"] == ("done", "")
    Path("sft.yaml").write_text("a: 2")
    assert states()["sft"] == ("stale", "sft.yaml changed")
    Path("sft.yaml").write_text("a: 1")
    write_pipeline(stage("a"), stage("b"), {**recipe, "needs": ["a"]}, launch="launch.yaml")
    assert states()["sft"] == ("stale", "it needs a now; it does not need b any more")
    write_pipeline(stage("a"), stage("b", out="{run}/c"), recipe, launch="launch.yaml")
    assert states()["b"][1] == "its command changed: run/b -> run/c; its out was run/b"


def test_what_another_hand_wrote_is_neither_taken_nor_removed(capsys: pytest.CaptureFixture[str]) -> None:
    write_pipeline(stage("a"), stage("b"))
    Path("run").mkdir()
    Path("run/a").write_text("mine")
    assert pipeline() == 2
    assert "run/a is there, and no record of this run says who wrote it; move it away" in capsys.readouterr().err
    assert pipeline("--redo", "a") == 2
    assert Path("run/a").read_text() == "mine" and ran() == []


def test_redo_removes_whole_folders_and_links_but_not_what_they_lead_to() -> None:
    Path("kept").mkdir()
    Path("kept/file").touch()
    add_script(
        "link",
        """
        import pathlib
        pathlib.Path("run/a").symlink_to(pathlib.Path("kept").resolve())
        """,
    )
    write_pipeline({"name": "a", "command": "python link.py"})
    assert pipeline() == 0
    assert pipeline("--redo", "a") == 0
    assert Path("run/a").is_symlink() and Path("kept/file").exists()


# -- choosing ---------------------------------------------------------------------------------------------------------


def test_only_and_until(capsys: pytest.CaptureFixture[str]) -> None:
    write_pipeline(stage("a"), stage("b", for_each=["x", "y"]), stage("c"), stage("d"))
    assert pipeline("--until", "b") == 0
    assert ran() == ["a", "b/x", "b/y"]
    assert pipeline("--only", "d") == 2
    assert "stage d needs c, which is not done" in capsys.readouterr().err
    assert pipeline("--only", "d,c") == 0
    assert ran()[3:] == ["c", "d"]
    assert pipeline("--redo", "b.y", "--until", "b.y") == 0
    assert ran()[5:] == ["b/y"] and not Path("run/d").exists()
    assert pipeline("--only", "e") == 2
    assert "--only e: no such stage" in capsys.readouterr().err
    assert pipeline("--only", "a", "--until", "b") == 2
    assert "exclude each other" in capsys.readouterr().err


def test_a_dry_run_shows_states_and_touches_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def rows() -> list[list[str]]:
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
        return [[cell.strip() for cell in line.strip("│").split("│")][:2] for line in lines]

    write_pipeline(stage("a", "1"), stage("b"))
    assert pipeline("--dry-run") == 0
    assert rows() == [["a", "to run"], ["b", "to run"]]
    assert not Path("run").exists()
    assert pipeline("--until", "a") == 0
    capsys.readouterr()
    assert pipeline("--dry-run") == 0
    assert rows() == [["a", "done"], ["b", "to run"]]
    write_pipeline(stage("a", "2"), stage("b"))
    assert pipeline("--dry-run") == 0
    assert rows()[0] == ["a", "stale"]
    assert pipeline("--dry-run", "--redo", "a") == 0
    assert rows()[0] == ["a", "to run"]
    assert Path("run/a").read_text() == "1"


# -- what fails, and what is killed -----------------------------------------------------------------------------------


def test_a_failed_stage_is_told_and_run_again(capfd: pytest.CaptureFixture[str]) -> None:
    add_script(
        "fails",
        """
        import pathlib, sys, time
        time.sleep(0.3)
        for number in range(30):
            print("line", number)
        if not pathlib.Path("mended").exists():
            sys.exit(3)
        pathlib.Path(sys.argv[1]).touch()
        """,
    )
    write_pipeline(stage("a"), {"name": "b", "command": "python fails.py {out}"}, stage("c"))
    assert pipeline() == 2
    said = capfd.readouterr().err
    assert "stage b ended with exit code 3 after 0 s; its output is in run/logs/b.log." in said
    assert "line 29\n---" in said and "line 10\n" in said and "line 9\n" not in said
    assert ran() == ["a"] and states()["b"] == ("to run", "failed")
    first = read_json("run/.pipeline/b.json")["seconds"]
    Path("mended").touch()
    assert pipeline() == 0
    assert ran() == ["a", "c"]
    both = read_json("run/.pipeline/b.json")["seconds"]
    assert first > 0.3 and first + 0.3 < both < first + 60


def test_a_stage_that_writes_nothing_failed(capsys: pytest.CaptureFixture[str]) -> None:
    write_pipeline({"name": "a", "command": "python -c pass", "done": "whole"})
    assert pipeline() == 2
    assert "stage a ended well and wrote no run/a/whole" in capsys.readouterr().err


SLOW = """
    import pathlib, signal, sys, time
    out = pathlib.Path(sys.argv[1])
    out.mkdir(exist_ok=True)
    def note(number, frame):
        with pathlib.Path("signals.txt").open("a") as file:
            print(number, file=file)
        sys.exit(1)
    signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGTERM, note)
    for part in range(4):
        if (out / str(part)).exists():
            continue
        while part == 2 and not pathlib.Path("go").exists():
            time.sleep(0.05)
        with pathlib.Path("parts.txt").open("a") as file:
            print(part, file=file)
        (out / str(part)).touch()
    (out / "whole").touch()
"""


@pytest.fixture
def slow() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a driver whose stage has written two of four parts and waits for the file `go`."""
    add_script("slow", SLOW)
    write_pipeline(stage("a"), {"name": "b", "command": "python slow.py {out}", "done": "whole"}, stage("c"))
    drivers = []

    def start() -> subprocess.Popen[bytes]:
        path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        driver = subprocess.Popen(
            [sys.executable, "-m", "onereason.cli", "pipeline", "pipeline.yaml"],
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        drivers.append(driver)
        wait_for(lambda: Path("parts.txt").is_file() and "1\n" in Path("parts.txt").read_text())
        return driver

    yield start
    Path("go").touch()
    for driver in drivers:
        driver.kill()
        driver.communicate()


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.02)


def held_by() -> str:
    return Path("run/.pipeline/lock").read_text()


def stage_process() -> int:
    found = held_by()
    assert found.startswith("stage b: process ")
    return int(found.split(";")[0].rpartition(" ")[2])


def alive(process: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    return False


def test_all_killed_at_once_goes_on_where_it_stopped(slow: Callable[[], subprocess.Popen[bytes]]) -> None:
    driver = slow()
    child = stage_process()
    driver.kill()
    os.kill(child, signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not alive(child))
    assert states()["b"] == ("to run", "was interrupted")
    Path("go").touch()
    assert pipeline() == 0
    assert Path("parts.txt").read_text().split() == ["0", "1", "2", "3"]
    assert ran() == ["a", "c"]


def test_a_stage_outlives_its_killed_driver_and_is_not_run_twice(
    slow: Callable[[], subprocess.Popen[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    driver = slow()
    child = stage_process()
    driver.kill()
    driver.wait()
    assert alive(child)
    assert pipeline() == 2
    assert f"run is in use (stage b: process {child}; driver: process {driver.pid})" in capsys.readouterr().err
    Path("go").touch()
    wait_for(lambda: not alive(child))
    assert pipeline() == 0
    assert "[2/3] b: done" in capsys.readouterr().out
    assert Path("parts.txt").read_text().split() == ["0", "1", "2", "3"]
    assert read_json("run/.pipeline/b.json")["state"] == "done"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_passes_to_the_stage(
    number: signal.Signals, code: int, slow: Callable[[], subprocess.Popen[bytes]]
) -> None:
    driver = slow()
    child = stage_process()
    driver.send_signal(number)
    assert driver.wait(60) == code
    assert Path("signals.txt").read_text() == f"{number.value}\n" and not alive(child)
    assert states()["b"] == ("to run", "failed")
    Path("go").touch()
    assert pipeline() == 0
    assert Path("parts.txt").read_text().split() == ["0", "1", "2", "3"]


def test_two_drivers_do_not_run_on_one_folder(capsys: pytest.CaptureFixture[str]) -> None:
    write_pipeline(stage("a"))
    with locked(load_plan("pipeline.yaml")):
        assert pipeline() == 2
        assert f"run is in use (driver: process {os.getpid()})" in capsys.readouterr().err
        assert pipeline("--dry-run") == 0
    assert pipeline() == 0


def test_a_broken_record_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    write_pipeline(stage("a"))
    assert pipeline() == 0
    Path("run/.pipeline/a.json").write_text("[]")
    assert pipeline() == 2
    assert "run/.pipeline/a.json" in capsys.readouterr().err


# -- the shipped files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_shipped_file_says_what_its_commands_understand(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    recipes = {}
    for found in load_plan(path).stages:
        program, *arguments = found.command
        if program == "accelerate":
            module = arguments[arguments.index("-m") + 1]
            if module not in recipes:
                recipes[module] = importlib.import_module(module)
            cls = next(
                value
                for name, value in vars(recipes[module]).items()
                if name.endswith("Config") and getattr(value, "__module__", "") == module
            )
            overrides = arguments[arguments.index("--config") + 2 :]
            config = load_config(cls, arguments[arguments.index("--config") + 1], overrides)
            assert config.out == str(found.out)
        elif "onereason.cli" in arguments or program == "onereason":
            words = arguments[arguments.index("onereason.cli") + 1 :] if "onereason.cli" in arguments else arguments
            if words[0] in VERBS:
                build_parser(words[0]).parse_args(words)
        else:
            assert (program, arguments[0]) == ("python", "-m") and arguments[1].startswith("data_builders.build_")
            if importlib.util.find_spec(arguments[1]):
                builder = importlib.import_module(arguments[1])
                if hasattr(builder, "make_parser"):
                    builder.make_parser().parse_args(arguments[2:])


def test_four_files_are_shipped() -> None:
    assert {path.stem for path in SHIPPED} == {"demo", "tiny", "beauty", "qwen3-1.7b"}


# -- the report -------------------------------------------------------------------------------------------------------


def test_a_run_ends_with_a_report(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = ["--model", str(world.model), "--data", str(world.data), "--num-beams", "6", "--k", "2,6"]
    evaluation += ["--prompt", "chat", "--modes", "no_think,think,race", "--think-budget", "4"]
    evaluation += ["--indicators"]
    train = """
        import json, pathlib, sys
        out = pathlib.Path(sys.argv[1])
        (out / "model").mkdir(parents=True)
        lines = [{"step": n, "loss": 1.0, "reward/hit": n / 4} for n in range(4)]
        (out / "log_history.json").write_text(json.dumps(lines))
    """
    add_script("train", train)
    write_pipeline(
        {"name": "rl", "command": "python train.py {out}", "done": "model", "report": "mixed RL"},
        {
            "name": "eval",
            "command": ["onereason", "evaluate", "--out", "{out}/results.json", *evaluation],
            "done": "results.json",
            "report": "SFT",
        },
        {
            "name": "special",
            "for_each": ["prod"],
            "command": ["onereason", "evaluate", "--out", "{out}/results.json", *evaluation, "--domains", "{domain}"],
            "done": "results.json",
            "report": "specialist",
        },
    )
    assert pipeline() == 0
    assert "report: run/report.md" in capsys.readouterr().out
    results = json.loads(Path("run/results.json").read_text())
    rows = {(row["stage"], row["domain"]): row for row in results["stages"]}
    assert list(rows) == [("SFT", "all"), ("SFT", "video"), ("SFT", "prod"), ("specialist", "prod")]
    whole = read_json("run/eval/results.json")
    assert rows["SFT", "all"]["recall"]["think"]["6"] == whole["metrics"]["think"]["item"]["recall_at_6"]
    # Asked alone or among others, the queries of a domain and the answers at once are the same.
    assert rows["specialist", "prod"]["queries"] == rows["SFT", "prod"]["queries"]
    assert rows["specialist", "prod"]["recall"]["model"] == rows["SFT", "prod"]["recall"]["model"]
    assert results["curves"]["mixed RL"]["reward"] == {"reward/hit": [[0, 0], [1, 0.25], [2, 0.5], [3, 0.75]]}
    for name in ("report.md", "report.html", "report/stages.png", "report/curves_mixed_rl.png"):
        assert Path("run", name).stat().st_size > 0
    assert set(results["seconds"]) == {"rl", "eval", "special.prod"}
