"""Cases of a benchmark, each in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


def peak_mebibytes() -> float:
    """Highest resident memory of this process so far; Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def measure_case(file: str, case: Mapping[str, Any], threads: int, time_limit: float) -> dict[str, Any]:
    """The last line of `FILE --case CASE` as JSON, or how long it was waited for."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    command = [sys.executable, os.path.abspath(file), "--case", json.dumps(case)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=time_limit, env=environment)
    except subprocess.TimeoutExpired:
        return {"did_not_finish_seconds": time_limit}
    if done.returncode != 0:
        sys.exit(f"case {json.dumps(case)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
