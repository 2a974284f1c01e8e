"""Who imports whom: downwards only, and help without heavy libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from onereason.cli import VERBS

LAYERS = [
    {"io", "config", "errors", "endpoint", "jsonl_log"},
    {"itemic"},
    {"model", "data"},
    {"decoding", "cognition"},
    {"serving", "evaluation", "rl", "pipeline"},
    {"cli", "commands", "recipes", "data_builders"},
]
"""Rooms from the bottom up. Rooms of one layer do not import each other, save in the lowest and the highest."""

HEAVY = ("torch", "polars", "sklearn", "transformers", "faiss", "matplotlib", "datasets", "scipy", "httpx")
TOP_PACKAGES = ("onereason", "recipes", "data_builders")


def layer_of(room: str) -> int:
    return next((level for level, rooms in enumerate(LAYERS) if room in rooms), -1)


def room_of(module: str) -> str | None:
    """`onereason.data.schema` -> `data`, `recipes.align` -> `recipes`; None for the bare package and for others."""
    head, *rest = module.split(".")
    if head == "onereason":
        return rest[0] if rest else None
    return head if head in TOP_PACKAGES else None


def imported_modules(path: Path) -> list[tuple[int, str]]:
    """`(line, module)` of every import statement, inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the whole name"
            # `from onereason import io` names a room in the second place.
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def all_modules(repository: Path) -> list[Path]:
    return sorted(path for package in TOP_PACKAGES for path in (repository / package).rglob("*.py"))


def module_room(repository: Path, path: Path) -> str | None:
    return room_of(".".join(path.relative_to(repository).with_suffix("").parts))


def may_import(room: str, other: str) -> bool:
    if room == other:
        return True
    if other in ("recipes", "data_builders") and room in ("cli", "commands"):
        return False  # they are no part of the installed package
    low, high = 0, len(LAYERS) - 1
    same = layer_of(room) == layer_of(other) and layer_of(room) in (low, high)
    return same or layer_of(other) < layer_of(room)


@pytest.mark.parametrize(
    ("room", "other", "allowed"),
    [
        ("data", "itemic", True),
        ("data", "model", False),
        ("model", "data", False),
        ("itemic", "data", False),
        ("evaluation", "decoding", True),
        ("decoding", "evaluation", False),
        ("io", "errors", True),
        ("commands", "serving", True),
        ("commands", "recipes", False),
        ("recipes", "data_builders", True),
    ],
)
def test_the_rule(room, other, allowed):
    assert may_import(room, other) == allowed


def test_every_module_stands_in_a_known_room(repository):
    unknown = {
        str(path.relative_to(repository))
        for path in all_modules(repository)
        if path.name != "__init__.py" and layer_of(module_room(repository, path) or "") < 0
    }
    assert not unknown


def test_imports_point_downwards(repository):
    wrong = []
    for path in all_modules(repository):
        room = module_room(repository, path)
        for line, module in imported_modules(path):
            other = room_of(module)
            if room in (None, "__init__"):
                assert other is None or other == "__version__", f"{path}:{line} imports {module}"
            elif other is not None and layer_of(other) >= 0 and not may_import(room, other):
                wrong.append(f"{path.relative_to(repository)}:{line}: {room} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_the_package_does_not_import_tests_or_benchmarks(repository):
    wrong = [
        f"{path}:{line} {module}"
        for path in all_modules(repository)
        for line, module in imported_modules(path)
        if module.split(".")[0] in ("tests", "benchmarks")
    ]
    assert not wrong


def loaded_after(code: str, repository: Path) -> set[str]:
    """Heavy libraries that a fresh interpreter has loaded after running `code`."""
    program = f"import sys\n{code}\nprint('LOADED', *[m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=repository, timeout=120, check=True
    )
    return set(result.stdout.rsplit("LOADED", 1)[1].split())


@pytest.mark.parametrize(
    "module", ["onereason", "onereason.cli", "onereason.io", "onereason.data.readers", "onereason.rl.rewards"]
)
def test_imports_without_heavy_libraries(repository, module):
    assert loaded_after(f"import {module}", repository) == set()


def module_of(repository: Path, verb: str) -> Path:
    return repository / "onereason" / "commands" / f"{verb.replace('-', '_')}.py"


def test_help_of_every_verb_without_heavy_libraries(repository):
    present = [
        verb for verb in VERBS if (repository / "onereason" / "commands" / f"{verb.replace('-', '_')}.py").is_file()
    ]
    code = "from onereason.cli import build_parser\n" + "\n".join(
        f"assert build_parser({verb!r}).format_help(), {verb!r}" for verb in present
    )
    assert loaded_after(code, repository) == set()
    assert "data" in present


def test_every_verb_has_a_module(repository):
    missing = [
        verb for verb in VERBS if not (repository / "onereason" / "commands" / f"{verb.replace('-', '_')}.py").is_file()
    ]
    assert not missing
