"""Progress of slow teachers, where a person watches."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator

LINE_SECONDS = 15.0


@contextlib.contextmanager
def show_progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Yields what is called with each number of texts that are done.

    On a terminal it shows a bar, or a line now and then where another bar is on the screen already (a builder's
    shards); in worker processes and in files nothing.
    """
    from rich.console import Console
    from rich.file_proxy import FileProxy
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    done, begun, shown = 0, time.monotonic(), time.monotonic()
    visible = sys.stderr.isatty() and multiprocessing.parent_process() is None
    if isinstance(sys.stderr, FileProxy):

        def say(count: int) -> None:
            nonlocal done, shown
            done, now = done + count, time.monotonic()
            if visible and now - shown >= LINE_SECONDS:
                shown = now
                print(f"{what}: {done} of {total}, {done / (now - begun):.2f} a second", file=sys.stderr)

        yield say
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not visible, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
