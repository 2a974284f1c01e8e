"""What a corpus holds: counts over all its rows, and seeded samples of where to look, in one pass and little memory.

A row costs 24 bytes of memory however long it is: ids, prompts and whole rows are compared by 64-bit hashes.

Notation: `R` rows, `S` rows of a sample.
"""

from __future__ import annotations

import hashlib
import random
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from onereason.data.inspect.reading import CorpusFiles, Line, Row, iter_lines, load_json
from onereason.errors import DataError

NUM_EXAMPLES = 3
MAX_EXAMPLE = 300
"""Examples kept of each reason, and characters of one."""
KEYS = ("task", "mode", "domain", "teacher", "loss")
"""What rows are counted by; a row without the key is counted as `-`."""

Cell = tuple[str, str]
"""Task and mode."""
Place = tuple[int, int]
"""Number and byte offset of a line."""


@dataclass
class Reasons:
    """Why things were left out: how often, with a few examples of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, example: str = "") -> None:
        self.counts[reason] += 1
        kept = self.examples.setdefault(reason, [])
        if example and len(kept) < NUM_EXAMPLES:
            kept.append(example)


class Reservoir:
    """A uniform sample of at most `size` of the places offered, by the generator's draws (Vitter's algorithm R)."""

    def __init__(self, size: int, rng: random.Random):
        self.size, self.rng = size, rng
        self.offered = 0
        self.places: list[Place] = []

    def offer(self, place: Place) -> None:
        self.offered += 1
        if len(self.places) < self.size:
            self.places.append(place)
        else:
            at = int(self.rng.random() * self.offered)
            if at < self.size:
                self.places[at] = place


@dataclass
class Scan:
    """What one pass over a corpus found.

    Attributes:
        rows: rows that were counted: well formed and let through by the filters.
        filtered: well-formed rows that the filters kept out.
        malformed: lines that hold no row.
        by: key of `KEYS` -> value -> rows.
        cells: (task, mode) -> rows.
        users: distinct users; `rows_with_user` rows name one.
        repeated_ids, repeated_prompts, repeated_rows: rows whose id, whose prompt, whose prompt and answer an
            earlier row has.
        notes: what is odd about rows that are well formed, e.g. a think row without a trace.
        measured: places of the rows whose tokens are counted, in file order.
        shown: places of the rows to show, one of each task and mode in turn.
    """

    rows: int = 0
    filtered: int = 0
    malformed: Reasons = field(default_factory=Reasons)
    by: dict[str, Counter[str]] = field(default_factory=lambda: {key: Counter() for key in KEYS})
    cells: Counter[Cell] = field(default_factory=Counter)
    users: int = 0
    rows_with_user: int = 0
    repeated_ids: int = 0
    repeated_prompts: int = 0
    repeated_rows: int = 0
    notes: Reasons = field(default_factory=Reasons)
    measured: list[Place] = field(default_factory=list)
    shown: list[Place] = field(default_factory=list)

    @property
    def think_share(self) -> float:
        """Rows in mode think / rows."""
        return self.by["mode"]["think"] / self.rows


def scan_corpus(
    path: Path, *, num_measured: int, num_shown: int, seed: int, task: str | None = None, mode: str | None = None
) -> Scan:
    """Counts every row of a file and draws the samples.

    Args:
        num_measured: rows whose tokens will be counted: all, or a uniform sample of this size.
        num_shown: rows to show, spread over tasks and modes.
        seed: of both samples.
        task, mode: only these rows count.

    Raises:
        DataError: no row is left.
    """
    scan = Scan()
    measured = Reservoir(num_measured, random.Random(f"{seed} measured"))
    shown: dict[Cell, Reservoir] = {}
    ids, prompts, wholes, users = (array("Q") for _ in range(4))
    for line in _with_progress(path):
        row = line.row
        if row is None:
            scan.malformed.add(line.reason, f"line {line.number}: {line.detail}")
            continue
        if (task is not None and row["task"] != task) or (mode is not None and row["mode"] != mode):
            scan.filtered += 1
            continue
        scan.rows += 1
        for key in KEYS:
            scan.by[key][_name(row.get(key))] += 1
        cell = (row["task"], row["mode"])
        scan.cells[cell] += 1
        place = (line.number, line.offset)
        measured.offer(place)
        if cell not in shown:
            shown[cell] = Reservoir(num_shown, random.Random(f"{seed} shown {cell}"))
        shown[cell].offer(place)
        prompt, answer = split_prompt(row)
        ids.append(_hash(row["id"].encode("utf-8", "replace")))
        prompts.append(_hash(prompt))
        wholes.append(_hash(prompt + b"\0" + answer))
        if row.get("user") is not None:
            users.append(_hash(str(row["user"]).encode("utf-8", "replace")))
        for note in find_notes(row):
            scan.notes.add(note, f"line {line.number}: {row['id']}")
    _require_rows(scan, path, task, mode)
    scan.rows_with_user = len(users)
    scan.users = _num_distinct(users)
    scan.repeated_ids, scan.repeated_prompts, scan.repeated_rows = (
        len(hashes) - _num_distinct(hashes) for hashes in (ids, prompts, wholes)
    )
    scan.measured = sorted(measured.places)
    scan.shown = spread(shown, num_shown, seed)
    return scan


def spread(samples: dict[Cell, Reservoir], count: int, seed: int) -> list[Place]:
    """`count` places out of the samples of several cells: one of each cell in turn, the cells in a seeded order."""
    cells = sorted(samples)
    random.Random(f"{seed} cells").shuffle(cells)
    rounds = [samples[cell].places[turn] for turn in range(count) for cell in cells if turn < len(samples[cell].places)]
    return rounds[:count]


def split_prompt(row: Row) -> tuple[bytes, bytes]:
    """What a row asks and what it answers, as bytes to compare: all turns but the last answer, and that answer."""
    if row.get("messages") is None:
        return row["text"].encode("utf-8", "replace"), b""
    messages = row["messages"]
    turns = [(m["role"], m["content"]) for m in messages]
    cut = len(turns) - (turns[-1][0] == "assistant")
    return _dump(turns[:cut]), _dump(turns[cut:])


def find_notes(row: Row) -> list[str]:
    """What is odd about a conversation: trace, switch and mode that contradict each other.

    The switch is what closes the last user turn, the trace the think block of the last answer.
    """
    messages = row.get("messages")
    if messages is None or messages[-1]["role"] != "assistant":
        return []
    thinks = row["mode"] == "think"
    notes = []
    trace, closing, _ = messages[-1]["content"].partition("</think>")
    has_trace = bool(closing) and bool(trace.rpartition("<think>")[2].strip())
    if thinks and not has_trace:
        notes.append("think_row_without_trace")
    if not thinks and has_trace:
        notes.append("no_think_row_with_trace")
    asked = next((m["content"].rstrip() for m in reversed(messages) if m["role"] == "user"), "")
    if not asked.endswith(("/think", "/no_think")):
        notes.append("no_switch_in_prompt")
    elif asked.endswith("/no_think") == thinks:
        notes.append("switch_contradicts_mode")
    return notes


def read_rejections(files: CorpusFiles) -> Reasons:
    """Why the corpus' builder left things out: counts of the manifest, examples of the file of rejected rows (or,
    without it, those of the manifest)."""
    reasons = Reasons()
    if files.rejected is not None:
        with files.rejected.open("rb") as handle:
            for line in handle:
                try:
                    value = load_json(line) if line.strip() else None
                except ValueError:
                    continue  # examples only: the counts stand in the manifest
                if isinstance(value, dict):
                    reasons.add(str(value.get("reason", "-")), _describe_reject(value))
    counted = files.manifest.get("rejected")
    if isinstance(counted, dict):
        reasons.counts |= Counter({str(k): v for k, v in counted.items() if isinstance(v, int)})
    kept = files.manifest.get("rejected_examples")
    for reason, examples in kept.items() if isinstance(kept, dict) else ():
        if not reasons.examples.get(reason) and isinstance(examples, list):
            reasons.examples[reason] = [_describe_reject(e) for e in examples[:NUM_EXAMPLES] if isinstance(e, dict)]
    return reasons


def _describe_reject(value: dict[str, Any]) -> str:
    detail = f": {value['detail']}" if value.get("detail") else ""
    return f"{value.get('id', '-')}{detail}"[:MAX_EXAMPLE]


def _name(value: object) -> str:
    return "-" if value is None or value == "" else str(value)


def _hash(value: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(value, digest_size=8).digest(), "little")


def _dump(turns: Sequence[tuple[str, str]]) -> bytes:
    return orjson.dumps(turns)


def _num_distinct(hashes: array[int]) -> int:
    return len(np.unique(np.frombuffer(hashes, dtype=np.uint64))) if hashes else 0


def _require_rows(scan: Scan, path: Path, task: str | None, mode: str | None) -> None:
    if scan.rows:
        return
    if scan.filtered:
        wanted = " and ".join(f"{k} {v!r}" for k, v in (("task", task), ("mode", mode)) if v is not None)
        raise DataError(f"{path} holds {scan.filtered} row(s), none of {wanted}; leave the filter out.")
    if scan.malformed.counts:
        reason = next(iter(scan.malformed.counts))
        raise DataError(
            f"{path} holds no row: {scan.malformed.counts.total()} malformed line(s), "
            f"e.g. {scan.malformed.examples[reason][0]}."
        )
    raise DataError(f"{path} is empty: it holds no row.")


def _with_progress(path: Path) -> Iterable[Line]:
    """The lines of a file, with a bar where stderr is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(f"reading {path.name}", total=path.stat().st_size)
        for line in iter_lines(path):
            yield line
            if line.number % 5000 == 0:
                bar.update(task, completed=line.offset)
