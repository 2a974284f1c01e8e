"""The frame around a training run: arguments and the end of the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import recipes.run
from recipes.common import TrainingConfig
from recipes.run import build_training_arguments, leave_process

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("fast", [True, False])
def test_bf16_auto_follows_the_hardware(fast: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(recipes.run, "has_fast_bfloat16", lambda: fast)
    assert build_training_arguments(TrainingConfig(bf16="auto"), tmp_path).bf16 is fast
    assert build_training_arguments(TrainingConfig(bf16=True), tmp_path).bf16 is True
    assert build_training_arguments(TrainingConfig(), tmp_path).bf16 is False


def test_one_process_ends_as_python_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(SystemExit) as end:
        leave_process(2)
    assert end.value.code == 2


def test_one_of_several_processes_waits_for_no_thread_but_runs_exit_functions() -> None:
    program = (
        "import atexit, threading, time\n"
        "from recipes.run import leave_process\n"
        "threading.Thread(target=time.sleep, args=(120,)).start()\n"  # holds the interpreter's own shutdown back
        "atexit.register(print, 'tracker closed')\n"
        "leave_process(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env=os.environ | {"WORLD_SIZE": "2"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert (done.returncode, done.stdout) == (3, "tracker closed\n"), done.stderr
