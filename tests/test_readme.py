"""The commands the documents show are commands that exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from onereason.cli import VERBS, build_parser

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md")


def command_lines() -> list[str]:
    """Every line of every code block, continuation lines joined, comments and alternatives cut off."""
    lines = []
    for document in DOCUMENTS:
        for block in re.findall(r"```[a-z]*\n(.*?)```", (REPOSITORY / document).read_text("utf-8"), re.DOTALL):
            joined = block.replace("\\\n", " ")
            lines += [line.split("  #")[0].strip() for line in joined.splitlines() if line.strip()]
    return lines


LINES = command_lines()


def lines_of(program: str) -> list[str]:
    return [line for line in LINES if line.startswith(program + " ")]


def test_the_documents_show_both_commands_and_every_verb() -> None:
    assert {"make demo", "make test"} <= {" ".join(line.split()[:2]) for line in lines_of("make")}
    assert {line.split()[1] for line in lines_of("onereason")} == set(VERBS)


@pytest.mark.parametrize("line", lines_of("onereason"))
def test_a_shown_command_parses(line: str) -> None:
    arguments = shlex.split(line)[1:]
    build_parser(arguments[0]).parse_args(arguments)  # exits where an argument is unknown or missing


@pytest.mark.parametrize("line", lines_of("make"))
def test_a_shown_target_exists(line: str) -> None:
    assert re.search(rf"^{line.split()[1]}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)


FILES_NAMED = [line for line in LINES if re.search(r"python3? -m |accelerate launch|benchmarks/", line)]


@pytest.mark.parametrize("line", FILES_NAMED)
def test_a_shown_module_or_file_exists(line: str) -> None:
    for module in re.findall(r"-m ([a-z_.]+)", line):
        assert importlib.util.find_spec(module), module
    for path in re.findall(r"((?:recipes|benchmarks)/[\w./-]+\.(?:yaml|py|sh))", line):
        assert (REPOSITORY / path).is_file(), path
