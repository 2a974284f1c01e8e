"""Teachers from the command line."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from onereason.cognition.teachers import TEACHER_OPTIONS, add_teacher_arguments, load_teacher, teacher_from_arguments
from onereason.errors import ConfigError, ModelError
from tests.chat_server import ChatServer, says
from tests.cognition.teachers.assignments import questions


def parse(*given: str, workers: int | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_teacher_arguments(parser)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    assert parser.format_help()
    args = parser.parse_args(given)
    if workers is not None:
        args.workers = workers
    return args


ENDPOINT = ("--teacher", "endpoint", "--teacher-url", "http://h/v1", "--teacher-model", "m")


def test_the_template_teacher_is_the_default():
    teacher = teacher_from_arguments(parse())
    assert teacher.name == "template" and teacher.write(questions(1))[0].text == "evidence"
    assert {name: getattr(parse(), name) for name in TEACHER_OPTIONS} == {
        "teacher": "template",
        "teacher_model": None,
        "teacher_temperature": 0.0,
        "teacher_max_tokens": 2048,
        "teacher_extra": None,
    }


def test_every_argument_reaches_the_endpoint_teacher(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    answers = iter(["one", "two"])
    with ChatServer(lambda payload: says(next(answers))) as server:
        given = ["--teacher", "endpoint", "--teacher-url", server.url, "--teacher-model", "qwen"]
        given += ["--teacher-key-env", "MY_KEY", "--teacher-temperature", "0.5", "--teacher-max-tokens", "77"]
        given += ["--teacher-extra", '{"top_p": 0.9}', "--teacher-price-in", "2", "--teacher-price-out", "3"]
        given += ["--teacher-concurrency", "5", "--teacher-requests-per-minute", "6000", "--teacher-timeout", "9"]
        given += ["--teacher-tokens-per-minute", "900000", "--teacher-tries", "4", "--teacher-max-failures", "6"]
        given += ["--out", str(tmp_path / "corpus"), "--seed", "3"]
        teacher = teacher_from_arguments(parse(*given))
        assert [draft.text for draft in teacher.write(questions(2))] in (["one", "two"], ["two", "one"])
        sent = server.payloads[0]
        assert server.headers[0]["Authorization"] == "Bearer secret"
        assert (sent["model"], sent["temperature"], sent["max_tokens"], sent["top_p"]) == ("qwen", 0.5, 77, 0.9)
        assert "seed" in sent and teacher.name == "endpoint:qwen" and teacher.seed == 3
        assert teacher.summary()["cost"] == pytest.approx((14 * 2 + 10 * 3) / 1e6)
    assert (teacher.concurrency, teacher.max_consecutive_failures) == (5, 6)
    assert (teacher._request_limit.per_minute, teacher._token_limit.per_minute) == (6000, 900_000)
    assert (teacher.endpoint.timeout_seconds, teacher.endpoint.tries) == (9, 4)
    assert (tmp_path / "teacher_cache" / "answers.jsonl").read_bytes().count(b"\n") == 2  # beside the corpus
    assert teacher_from_arguments(parse(*given, "--teacher-cache", str(tmp_path / "c"))).cache_dir == tmp_path / "c"


def test_workers_share_the_limits():
    given = (*ENDPOINT, "--teacher-requests-per-minute", "100", "--teacher-tokens-per-minute", "1000")
    teacher = teacher_from_arguments(parse(*given, workers=4))
    assert (teacher.concurrency, teacher._request_limit.per_minute, teacher._token_limit.per_minute) == (2, 25, 250)
    assert teacher_from_arguments(parse(*given, workers=50)).concurrency == 1
    assert teacher.cache_dir is None  # without --out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--teacher", "gpt"), "--teacher 'gpt' is not known; use template, local:MODEL_DIR or endpoint"),
        (("--teacher", "local:"), "--teacher 'local:' is not known"),
        (("--teacher", "endpoint"), "needs --teacher-url URL and --teacher-model NAME"),
        (ENDPOINT[:4], "needs --teacher-url URL and --teacher-model NAME"),
        (ENDPOINT[2:], "--teacher-url belongs to --teacher endpoint, got 'template'"),
        ((*ENDPOINT, "--teacher-concurrency", "0"), "concurrency must be at least 1, got 0"),
        ((*ENDPOINT, "--teacher-timeout", "0"), "timeout_seconds must be above 0"),
        ((*ENDPOINT, "--teacher-tries", "0"), "tries must be at least 1"),
        ((*ENDPOINT[:3], "h/v1", *ENDPOINT[4:]), "must start with http:// or https://"),
    ],
)
def test_mistakes(given, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        teacher_from_arguments(parse(*given))


def test_a_local_teacher_needs_its_folder(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        teacher_from_arguments(parse("--teacher", f"local:{tmp_path / 'no'}"))
    (tmp_path / "model").mkdir()
    given = ("--teacher", f"local:{tmp_path / 'model'}", "--teacher-max-tokens", "9", "--teacher-dtype", "float32")
    teacher = teacher_from_arguments(parse(*given, "--teacher-temperature", "0.5", "--seed", "3"))
    assert (teacher.name, teacher.max_tokens, teacher.temperature) == ("local:model", 9, 0.5)
    assert (teacher.seed, teacher.device, teacher.dtype) == (3, "auto", "float32")
    with pytest.raises(ModelError, match=str(tmp_path / "model")):
        teacher.write(questions(1))


@pytest.mark.parametrize("extra", ["{", "[1]", "3"])
def test_extra_fields_are_an_object(extra, capsys):
    with pytest.raises(SystemExit):
        parse("--teacher-extra", extra)
    assert "argument --teacher-extra" in capsys.readouterr().err


def test_the_arguments_load_no_library(repository):
    code = (
        "import argparse, sys, json\n"
        "from onereason.cognition.teachers import add_teacher_arguments, teacher_from_arguments\n"
        "parser = argparse.ArgumentParser(); add_teacher_arguments(parser); parser.format_help()\n"
        "teacher_from_arguments(parser.parse_args([])).write([])\n"
        "print(json.dumps([m for m in ('torch', 'numpy', 'httpx', 'asyncio', 'rich') if m in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository, check=True)
    assert json.loads(found.stdout) == []


def test_a_bar_is_shown_on_a_terminal_only(tmp_path, repository):
    """The same run with stderr a pseudo-terminal, under another bar, and a pipe."""
    code = (
        "import sys\n"
        "from rich.console import Console\nfrom rich.progress import Progress\n"
        "from onereason.cognition.teachers import progress\n"
        "progress.LINE_SECONDS = 0.0\n"
        "def work():\n"
        "    with progress.show_progress(3, 'asking m') as advance:\n"
        "        for _ in range(3): advance(1)\n"
        "if sys.argv[1] == 'nested':\n"
        "    with Progress(console=Console(stderr=True)) as bar:\n"
        "        bar.add_task('shards', total=1); work()\n"
        "else: work()\n"
    )

    def run(kind: str, terminal: bool) -> str:
        read, write = os.openpty() if terminal else os.pipe()
        process = subprocess.Popen([sys.executable, "-c", code, kind], stderr=write, cwd=repository)
        os.close(write)
        shown = b""
        while True:
            try:
                part = os.read(read, 4096)
            except OSError:  # a pseudo-terminal whose other end is closed
                break
            if not part:
                break
            shown += part
        os.close(read)
        assert process.wait(30) == 0
        return shown.decode()

    assert "asking m" in run("alone", True) and "3/3" in run("alone", True)
    assert "asking m: 3 of 3, " in run("nested", True)
    assert run("alone", False) == ""


def test_load_teacher_passes_over_what_belongs_to_others():
    assert load_teacher("template", url="http://h/v1", temperature=0.5).name == "template"
