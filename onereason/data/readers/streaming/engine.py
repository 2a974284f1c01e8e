"""DuckDB as the engine of an import: one connection with a memory limit, a folder to spill to, and clear errors."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onereason.errors import ConfigError, DataError, StorageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
MIN_MEMORY = 200 * 10**6
"""The least memory the joins work with, in bytes."""


def parse_memory(text: str) -> int:
    """`4GB`, `512MB`, `1.5GiB` -> bytes; `ConfigError` for anything else or less than `MIN_MEMORY`."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]i?B)\s*", text, re.IGNORECASE)
    if match is None:
        raise ConfigError(f"memory limit {text!r} is not a size; write e.g. 4GB or 512MB.")
    size = int(float(match[1]) * _UNITS[match[2].upper()])
    if size < MIN_MEMORY:
        raise ConfigError(f"memory limit {text} is too small; the joins need at least {MIN_MEMORY // 10**6}MB.")
    return size


def sql_text(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("'", "''") + "'"


def sql_name(column: str) -> str:
    """A quoted identifier."""
    return '"' + column.replace('"', '""') + '"'


def sql_file(path: Path) -> str:
    """A file name as a literal; characters that would be a pattern stand for themselves."""
    return sql_text(re.sub(r"([*?\[])", r"[\1]", str(path)))


@contextlib.contextmanager
def open_engine(beside: Path, memory: int, threads: int) -> Iterator[tuple[DuckDBPyConnection, Path]]:
    """A connection to a scratch database in a folder beside `beside`, and that folder; both are gone at the end.

    Raises:
        StorageError: no space is left for what does not fit in memory.
        ConfigError: the memory limit is too small for the join.
    """
    import duckdb

    beside.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{beside.name}.work.", dir=beside.parent))
    con = None
    try:
        con = duckdb.connect(
            str(work / "scratch.duckdb"),
            config={
                "memory_limit": f"{memory}B",
                "threads": threads,
                "temp_directory": str(work / "spill"),
                "preserve_insertion_order": True,
                "autoinstall_known_extensions": False,
            },
        )
        con.execute("SET enable_progress_bar = false")
        con.execute("SET checkpoint_threshold = '256MB'")
        yield con, work
    except duckdb.OutOfMemoryException as error:
        if "max_temp_directory_size" in str(error):
            raise StorageError(f"no space left to spill to in {work.parent}; free some space and run again.") from error
        raise ConfigError(
            f"the import needs more memory than the limit of {memory / 1e9:.1f} GB; raise --memory-limit or lower "
            f"--threads ({first_line(error)})."
        ) from error
    except (RuntimeError, duckdb.InterruptException) as error:
        if "interrupted" in str(error).lower():  # how DuckDB says that the user pressed Ctrl-C
            raise KeyboardInterrupt from error
        raise
    finally:
        if con is not None:
            con.close()
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turns DuckDB's refusals to read a file into a `DataError` that names it."""
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        if "No space left on device" in str(error):
            raise
        raise DataError(f"{path} cannot be read as parquet: {first_line(error)}.") from error


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


class Stages:
    """The steps of an import on stderr, with counts: a line each, silent where stderr is not a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description:22}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task: Any = None

    def __enter__(self) -> Stages:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def start(self, what: str, total: int) -> None:
        """The next step, of `total` parts."""
        self._task = self._progress.add_task(what, total=total, note="")

    def advance(self, note: str = "") -> None:
        """One part is done; `note` says what has come of the step so far."""
        self._progress.update(self._task, advance=1, note=note)
