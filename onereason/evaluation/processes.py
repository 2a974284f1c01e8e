"""Evaluation on several processes: who takes which part, and waiting for each other.

Started by `accelerate launch` or `torchrun`, every process takes each `world`-th part; what they make is on disk, so
all they exchange is the word that they are done.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Part = TypeVar("Part")

WAIT = timedelta(days=7)
"""How long a process waits for the others: parts may take very different times."""


@dataclass(frozen=True)
class Processes:
    """This process among those of the run; alone by default."""

    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process scores and writes the results."""
        return self.rank == 0

    def share(self, parts: Sequence[Part]) -> list[Part]:
        """The parts this process takes."""
        return list(parts[self.rank :: self.world])

    def progress(self) -> Progress:
        """A bar on stderr, shown by the main process where stderr is a terminal."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not (self.is_main and sys.stderr.isatty()),
            transient=True,
        )

    def wait(self) -> None:
        """Returns when every process has come here."""
        if self.world > 1:
            import torch

            torch.distributed.barrier()


def join_processes() -> Processes:
    """The processes a launcher started, or this one alone."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Processes()
    import torch

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=WAIT)  # only barriers: no tensor leaves its device
    return Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())


def local_device(device: str) -> str:
    """`auto` on a machine with GPUs is this process's own GPU; any other device stays as it is."""
    import torch

    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if device == "auto" and rank is not None and torch.cuda.is_available() else device
