"""A builder for the tests of the engine; also a program, so that it can be killed, limited and given workers.

Unit `i` gives `i % 3` rows; units that give none are rejected. Every call is written to `--log`.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.common import build_parser, run_builder
from data_builders.engine import Reject, add_engine_arguments, build_corpus
from onereason.errors import DataError


def rows_of(unit: int, seed: int, size: int) -> list[dict[str, Any]]:
    draw = random.Random(f"{seed}:{unit}").randrange(10**6)
    return [
        {
            "id": f"u{unit}:{k}",
            "task": ("ask", "judge")[k],
            "loss": "all",
            "mode": ("think", "no_think")[k],
            "domain": ("video", "prod")[unit % 2],
            "teacher": "template",
            "text": f"ü€😀 {draw} " + "x" * size,
        }
        for k in range(unit % 3)
    ]


@dataclass
class Units:
    num_units: int
    seed: int
    size: int = 0
    log: Path | None = None
    delay: float = 0.0
    fail: int = -1
    kill: int = -1

    def build(self, start: int, stop: int) -> tuple[list[dict[str, Any]], list[Reject]]:
        if self.log:
            with self.log.open("a") as log:
                log.write(f"{start} {stop} {os.getpid()}\n")
        time.sleep(self.delay * (3 if start == 0 else 1))  # the first shard is not the first to be finished
        if start <= self.fail < stop:
            raise DataError(f"unit {self.fail} is broken.")
        if start <= self.kill < stop:
            os.kill(os.getpid(), signal.SIGKILL)
        rows = [row for unit in range(start, stop) for row in rows_of(unit, self.seed, self.size)]
        rejects = [
            Reject(f"u{unit}", ("odd", "even")[unit % 2 == 0], f"unit {unit}")
            for unit in range(start, stop)
            if unit % 3 == 0
        ]
        return rows, rejects


def build(args: argparse.Namespace) -> None:
    source = Units(args.units, args.seed, args.size, args.log, args.delay, args.fail, args.kill)
    build_corpus(args, source, title="Units", description="Rows of units.", inputs=[], options=["units", "size"])


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(__doc__, timelines=False)
    parser.add_argument("--units", type=int, default=20)
    parser.add_argument("--size", type=int, default=0, help="characters more in each row")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that each shard takes")
    parser.add_argument("--fail", type=int, default=-1, help="the unit whose shard raises an error")
    parser.add_argument("--kill", type=int, default=-1, help="the unit whose shard kills its process")
    parser.add_argument("--peak-memory", action="store_true", help="print the peak memory in KiB at the end")
    add_engine_arguments(parser)
    code = run_builder(parser, build, argv)
    if "--peak-memory" in (argv or sys.argv):
        print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return code


if __name__ == "__main__":
    sys.exit(main())
