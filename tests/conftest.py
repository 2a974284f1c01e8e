"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with real data (`data/beauty`, `data/qwen3_tokenizer`, ...); tests that need it skip without it."""
    path = Path(os.environ.get("ONEREASON_SHARED", REPOSITORY.parent / "shared"))
    if not (path / "data").is_dir():
        pytest.skip(f"real data is not at {path} (set ONEREASON_SHARED to the folder that holds data/)")
    return path
