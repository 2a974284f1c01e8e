"""Shards of a corpus built by Ray Data: on this machine, or on the cluster that `RAY_ADDRESS` names.

The workers of a cluster write the shards themselves, so all of its machines must see the output folder under one path.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pickle
import tempfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_builders.engine import build_pickled_shard, write_pickle
from data_builders.shards import RowSource, Shard
from data_builders.working_folder import SOURCE_FILE, WorkingFolder

_OBJECT_STORE_BYTES = 128 << 20
"""Only numbers of shards travel through Ray."""
_TASKS_PER_WORKER = 16
"""So many portions of shards: few, since each costs Ray time, yet enough for the workers to end together."""


def build_with_ray(folder: WorkingFolder, source: RowSource, missing: Sequence[Shard], workers: int) -> Generator[int]:
    """Builds shards in Ray Data; yields the number of rows of each, in the order in which they finish."""
    from ray import cloudpickle

    # Ray's own pickling also takes classes of the program that was started (`__main__`), which its workers lack.
    blob = folder.path / SOURCE_FILE
    write_pickle(blob, source, cloudpickle.dumps)
    with _running_ray(workers):
        import ray.data

        table = ray.data.from_items(
            [{"number": shard.number, "start": shard.start, "stop": shard.stop} for shard in missing],
            override_num_blocks=min(len(missing), _TASKS_PER_WORKER * workers),
        )
        built = table.map_batches(
            functools.partial(_build_batch, blob=blob, path=folder.path),
            batch_size=1,
            compute=ray.data.TaskPoolStrategy(size=workers),
            num_cpus=1,
        )
        for outcome in built.iter_rows():
            if outcome["error"]:
                raise pickle.loads(outcome["error"])
            yield int(outcome["num_rows"])


@contextlib.contextmanager
def _running_ray(workers: int) -> Iterator[None]:
    """Ray as it runs already, else the cluster of `RAY_ADDRESS`, else Ray on this machine while the corpus is built."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    if ray.is_initialized():
        yield
        return
    with contextlib.ExitStack() as stack:
        settings: dict[str, Any] = {}
        if not os.environ.get("RAY_ADDRESS"):
            # The paths of Ray's sockets must be short, whatever TMPDIR is.
            place = tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
            settings = {
                "num_cpus": workers,
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
                "_temp_dir": stack.enter_context(place),
            }
        stack.callback(ray.shutdown)
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **settings)
        yield


def _build_batch(batch: dict[str, np.ndarray], blob: Path, path: Path) -> dict[str, list[Any]]:
    """Builds the shards of a batch. An error is handed over as a value: Ray would try again, and wrap it."""
    counts, errors = [], []
    for number, start, stop in zip(batch["number"], batch["start"], batch["stop"], strict=True):
        count, error = 0, b""
        try:
            count = build_pickled_shard(blob, path, Shard(int(number), int(start), int(stop)))
        except Exception as problem:
            error = pickle.dumps(problem)
        counts.append(count)
        errors.append(error)
    return {"num_rows": counts, "error": errors}
