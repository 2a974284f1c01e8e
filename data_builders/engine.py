"""The sharded corpus engine: a source of rows -> a corpus folder, in parallel, restartable, the same bytes every time.

A row source makes the rows of any range of its units (users, items, pairs, lines) on its own. The engine cuts the units
into shards, has them built by this process, by worker processes or by Ray Data, and puts the shards together in their
order. A build that was killed goes on with the shards it lacks (see `data_builders.working_folder`).
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import multiprocessing
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from data_builders.cards import corpus_config, describe_counts, describe_judging
from data_builders.common import add_engine_arguments, check_engine_arguments
from data_builders.formats import FORMAT_KEY, read_catalog_format
from data_builders.shards import Reject, RowSource, Shard, shards_of
from data_builders.working_folder import SOURCE_FILE, WorkingFolder, open_working_folder
from onereason.errors import ConfigError, OnereasonError
from onereason.io import atomic_file, build_manifest, require_output_dir

__all__ = ["Reject", "RowSource", "add_engine_arguments", "build_corpus"]


def build_corpus(
    args: argparse.Namespace,
    source: RowSource,
    *,
    title: str,
    description: str,
    inputs: Sequence[Path],
    options: Sequence[str],
    extra: Mapping[str, Any] | None = None,
    kind: str = "corpus",
) -> None:
    """Builds a corpus folder.

    Args:
        args: with `out`, `overwrite`, `seed`, the engine's arguments and the options; where there is a `catalog`, its
            format is recorded.
        source: makes the rows. With several workers it is pickled once. An attribute `parallel = False` says that it
            cannot leave this process.
        title, description: of the data card.
        inputs: files the corpus is made of, for the manifest's hashes.
        options: names of the arguments that the manifest records; everything the rows depend on must be among them, in
            `inputs` or in `extra`, because an interrupted build goes on only where all of these are the same.
        extra: further settings to record, e.g. versions of prompt sets.
        kind: of the artefact, for its manifest.

    Raises:
        ConfigError: workers or engine do not fit the source.
        DataError: no row is left, or two rows have one id.
        StorageError: the output cannot be written, or another process is building it.
    """
    check_engine_arguments(args)
    if (args.workers > 1 or args.engine == "ray") and not getattr(source, "parallel", True):
        raise ConfigError(
            f"--workers {args.workers} --engine {args.engine}: these rows can only be made in one process (their "
            "teacher cannot be handed to others); use --workers 1 --engine local."
        )
    require_output_dir(args.out, args.overwrite, inputs)
    manifest = build_manifest(kind, inputs=inputs, config=corpus_config(args, options, extra), seed=args.seed)
    if getattr(args, "catalog", None) is not None:
        manifest[FORMAT_KEY] = read_catalog_format(args.catalog)
    shards = shards_of(source.num_units, args.shard_size)
    begun = time.monotonic()
    with open_working_folder(args.out, source, manifest, shards) as folder:
        # A process that held the lock before this one may have finished the corpus.
        require_output_dir(args.out, args.overwrite, inputs)
        with _kept_shards(folder):
            _build_missing(args, source, folder)
            tally = folder.finish(manifest, title, description, args.overwrite)
    seconds = time.monotonic() - begun
    print(f"wrote {args.out}: {describe_counts(tally)} in {seconds:.1f} s")
    if warning := describe_judging(tally):
        print(f"warning: {args.out}: {warning}", file=sys.stderr)


@contextlib.contextmanager
def _kept_shards(folder: WorkingFolder) -> Iterator[None]:
    """Says in whatever stops the build that its finished shards stay."""
    try:
        yield
    except (OnereasonError, KeyboardInterrupt) as error:
        kept = folder.num_finished()
        text = str(error) or "interrupted."
        if kept:
            text += f" {kept} of {len(folder.shards)} shards stay in {folder.path}; run the same command to go on."
        error.args = (text,)
        raise


def _build_missing(args: argparse.Namespace, source: RowSource, folder: WorkingFolder) -> None:
    """Builds the shards that the folder lacks."""
    missing = folder.missing()
    if not missing:
        return
    build: Callable[..., Generator[int]]
    if args.engine == "ray":
        from data_builders.ray_engine import build_with_ray as build
    elif args.workers > 1:
        build = build_with_processes
    else:
        build = build_here
    with (
        shard_progress(len(folder.shards), len(folder.shards) - len(missing)) as advance,
        contextlib.closing(build(folder, source, missing, args.workers)) as counts,
    ):
        for num_rows in counts:
            advance(num_rows)


@contextlib.contextmanager
def shard_progress(total: int, done: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal; yields what is called with the rows of each finished shard."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("shards"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f} rows/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("shards", total=total, completed=done, rate=0.0)
        begun = time.monotonic()
        rows = 0

        def advance(num_rows: int) -> None:
            nonlocal rows
            rows += num_rows
            bar.update(task, advance=1, rate=rows / max(time.monotonic() - begun, 1e-9))

        yield advance


# -- this process ---------------------------------------------------------------------------------------------------


def build_here(folder: WorkingFolder, source: RowSource, missing: Sequence[Shard], workers: int) -> Generator[int]:
    """Builds shards one after the other; yields the number of rows of each."""
    for shard in missing:
        yield build_shard(source, folder.path, shard)


def build_shard(source: RowSource, path: Path, shard: Shard) -> int:
    """Builds and writes one shard; returns its number of rows.

    Rows are trees, freed by their reference counts: the cyclic collector would only walk over all of them, again and
    again.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        rows, rejects = source.build(shard.start, shard.stop)
        take_counts = getattr(source, "take_counts", dict)
        shard.write(path, rows, rejects, take_counts())
        return len(rows)
    finally:
        if collecting:
            gc.enable()


# -- worker processes -----------------------------------------------------------------------------------------------


def build_with_processes(
    folder: WorkingFolder, source: RowSource, missing: Sequence[Shard], workers: int
) -> Generator[int]:
    """Builds shards in worker processes; yields the number of rows of each, in the order in which they finish.

    Processes are spawned, not forked: a fork copies the locks of Polars' threads in whatever state they are.
    """
    blob = folder.path / SOURCE_FILE
    write_pickle(blob, source, pickle.dumps)
    pool = ProcessPoolExecutor(
        min(workers, len(missing)), multiprocessing.get_context("spawn"), initializer=_prepare_worker
    )
    running: set[Future[int]] = set()
    waiting = iter(missing)
    try:
        while True:
            # A short queue: what is queued is built even if the build is to stop.
            for shard in waiting:
                running.add(pool.submit(build_pickled_shard, blob, folder.path, shard))
                if len(running) > workers:
                    break
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise ConfigError(
            f"--workers {workers}: a worker process was ended from outside, e.g. because memory ran out; use fewer "
            "workers or a smaller --shard-size."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def write_pickle(path: Path, source: RowSource, dumps: Callable[[Any], bytes]) -> None:
    """Writes the source for the workers to read; `ConfigError` if it cannot leave this process."""
    try:
        blob = dumps(source)
    except Exception as error:  # whatever an attribute's own pickling raises
        raise ConfigError(
            f"these rows can only be made in one process ({type(source).__name__} cannot be pickled: {error}); use "
            "--workers 1 --engine local."
        ) from error
    with atomic_file(path) as temporary:
        temporary.write_bytes(blob)


def build_pickled_shard(blob: Path, path: Path, shard: Shard) -> int:
    """`build_shard` in a worker, which reads the source once."""
    return build_shard(_load_source(blob, blob.stat().st_mtime_ns), path, shard)


@functools.lru_cache(maxsize=1)
def _load_source(blob: Path, modified: int) -> RowSource:
    source = pickle.loads(blob.read_bytes())
    gc.freeze()
    return source


def _prepare_worker() -> None:
    """A worker finishes its shard when the user interrupts, and ends when its parent has been killed."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
