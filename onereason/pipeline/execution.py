"""Running one stage: its command, its log, and signals that pass through."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from onereason.io import storage_errors
from onereason.pipeline.plan import Stage, search_path
from onereason.pipeline.records import say_holder

POLL_SECONDS = 0.1
"""How often what a stage prints is passed on."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Ended:
    """How a stage ended.

    Attributes:
        code: its exit code; negative, the signal that ended it.
        seconds: it took.
        signal: the first that the driver got meanwhile.
        last_lines: what it printed last.
    """

    code: int
    seconds: float
    signal: int | None
    last_lines: list[str]


def stage_environment() -> dict[str, str]:
    """What a stage's process gets unless it is set already."""
    found = {
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # accelerate gives a process one CPU thread unless told otherwise; small models gain nothing from more than 8
        "OMP_NUM_THREADS": str(min(8, os.cpu_count() or 1)),
    }
    if shutil.which("nvidia-smi") is None:
        found["DS_ACCELERATOR"] = "cpu"  # else DeepSpeed warns at each start that it found no GPU
    return found | os.environ | {"PATH": search_path()}


def run_stage(stage: Stage, log: Path, lock: int) -> Ended:
    """Runs a stage's command; what it prints goes to the terminal and, appended, to `log`.

    The command writes to the log itself, so that it goes on when the driver is killed. It leads a process group of its
    own, to which SIGINT, SIGTERM and SIGHUP are passed on.

    Args:
        lock: descriptor of the run's lock, held by the command as well.
    """
    with storage_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as writer, log.open("rb") as reader:
            writer.write(f"$ {shlex.join(stage.command)}\n".encode())
            writer.flush()
            start = reader.seek(0, os.SEEK_END)
            began = time.monotonic()
            with _passing_signals() as passed:
                child = subprocess.Popen(
                    stage.command,
                    stdin=subprocess.DEVNULL,
                    stdout=writer,
                    stderr=subprocess.STDOUT,
                    env=stage_environment(),
                    start_new_session=True,
                    pass_fds=(lock,),
                )
                passed.adopt(child)
                say_holder(lock, f"stage {stage.name}: process {child.pid}; driver: process {os.getpid()}")
                while True:
                    try:
                        code = child.wait(POLL_SECONDS)
                        break
                    except subprocess.TimeoutExpired:
                        _pass_on(reader)
            _pass_on(reader)
            seconds = time.monotonic() - began
            say_holder(lock, f"driver: process {os.getpid()}")
            return Ended(code, seconds, passed.first, _last_lines(reader, start))


def _pass_on(reader: BinaryIO) -> None:
    printed = reader.read()
    if printed:
        with contextlib.suppress(OSError, ValueError):  # a terminal that is gone is no reason to lose the stage
            sys.stdout.buffer.write(printed)
            sys.stdout.flush()


def _last_lines(reader: BinaryIO, start: int, most: int = 20) -> list[str]:
    end = reader.seek(0, os.SEEK_END)
    reader.seek(max(start, end - 65536))
    return reader.read().decode("utf-8", "replace").splitlines()[-most:]


class _Passed:
    """Signals that came, and the process group they go to."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | None = None
        self.first: int | None = None

    def __call__(self, number: int, frame: Any) -> None:
        self.first = self.first or number
        self.send(number)

    def adopt(self, child: subprocess.Popen[bytes]) -> None:
        self.child = child
        if self.first is not None:  # it came while the process was being made
            self.send(self.first)

    def send(self, number: int) -> None:
        if self.child is not None and self.child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, number)


@contextlib.contextmanager
def _passing_signals() -> Iterator[_Passed]:
    """While open, signals do not end this process; one that is ignored (`nohup`) stays ignored."""
    passed = _Passed()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    taken = [number for number in _SIGNALS if before[number] is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, passed)
    try:
        yield passed
    finally:
        for number in taken:
            signal.signal(number, before[number])
