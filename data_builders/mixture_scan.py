"""One pass over corpora that are to be mixed: a few numbers a row are kept, and where the row stands in its file."""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from data_builders.cards import Row
from data_builders.shards import Reject, hash_id
from onereason.data.chat import check_row, parse_answer
from onereason.data.held_out import is_held_out
from onereason.data.prompts import add_switch
from onereason.data.selection import RowTable
from onereason.errors import DataError
from onereason.io import parse_json

_CHUNK = 1024
_BAR_BYTES = 1 << 20
_DROPPED = ("mode", "teacher", "messages")

Measure = Callable[[Sequence[Row]], Sequence[int]]
"""The size of each row."""


@dataclass(frozen=True)
class Part:
    """A corpus of the mixture: its name, its rows, and its share."""

    name: str
    path: Path
    share: float


class Scan:
    """What is known of all rows, about 40 bytes each; everything by the row's place in the scan.

    Attributes:
        corpus: number of the corpus.
        domains: name -> number of each domain met.
        domain: number of the domain, -1 without one.
        offset: first byte of the row in its file.
        content: hash of what the row says.
        names: hash of corpus and id.
        size: of the row.
        thinks, is_held_out: 1 or 0.
        bare, bare_size: hash and size of what is left without the trace, 0 where nothing can be taken away.
    """

    def __init__(self) -> None:
        self.domains: dict[str, int] = {}
        self.corpus, self.domain, self.offset = array("h"), array("i"), array("q")
        self.content, self.names, self.size = array("Q"), array("Q"), array("I")
        self.thinks, self.is_held_out = array("b"), array("b")
        self.bare, self.bare_size = array("Q"), array("I")

    def __len__(self) -> int:
        return len(self.corpus)

    def add(self, corpus: int, offset: int, row: Row, content: int, size: int, held_out: bool) -> None:
        domain = row.get("domain")
        self.corpus.append(corpus)
        self.domain.append(-1 if domain is None else self.domains.setdefault(domain, len(self.domains)))
        self.offset.append(offset)
        self.content.append(content)
        self.names.append(int.from_bytes(hash_id(f"{corpus} {row['id']}"), "little"))
        self.size.append(size)
        self.thinks.append(row["mode"] == "think")
        self.is_held_out.append(held_out)

    def table(self) -> RowTable:
        corpus, content, domain, size = map(np.asarray, (self.corpus, self.content, self.domain, self.size))
        return RowTable(corpus, content, np.asarray(self.thinks).view(bool), domain, size)


def scan_corpora(
    parts: Sequence[Part],
    held_out: float,
    measure: Measure,
    convert: bool,
    reject: Callable[[Reject], None],
) -> Scan:
    """Reads every row once; nothing of it is kept but numbers.

    Args:
        held_out: share of users whose rows are marked.
        measure: sizes of rows.
        convert: looks at what is left of rows without their trace too.
        reject: is told of each line that holds no row.
    """
    scan = Scan()
    for number, part in enumerate(parts):
        waiting: list[tuple[int, Row, int]] = []
        for place, offset, line in _lines(part):
            row = read_row(line)
            if isinstance(row, Reject):
                reject(Reject(f"{part.name}:line {place}", row.reason, row.detail))
                continue
            waiting.append((offset, row, hash_content(row)))
            if len(waiting) == _CHUNK:
                _flush(scan, number, waiting, held_out, measure, convert)
        _flush(scan, number, waiting, held_out, measure, convert)
    return scan


def _flush(
    scan: Scan, number: int, waiting: list[tuple[int, Row, int]], held_out: float, measure: Measure, convert: bool
) -> None:
    if not waiting:
        return
    sizes = measure([row for _, row, _ in waiting])
    for (offset, row, content), size in zip(waiting, sizes, strict=True):
        scan.add(number, offset, row, content, size, is_held_out(row.get("user"), held_out))
    if convert:
        bare = [drop_trace(row) for _, row, _ in waiting]
        left = iter(measure(found) if (found := [row for row in bare if row is not None]) else ())
        scan.bare.extend([0 if row is None else hash_content(row) for row in bare])
        scan.bare_size.extend([0 if row is None else next(left) for row in bare])
    waiting.clear()


def _lines(part: Part) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and content of each line that is not blank, with a bar over the bytes read."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar, part.path.open("rb") as handle:
        task = bar.add_task(f"reading {part.name}", total=part.path.stat().st_size)
        position, shown = 0, 0
        for number, line in enumerate(handle, 1):
            offset, position = position, position + len(line)
            if not line.isspace():
                yield number, offset, line
            if position - shown >= _BAR_BYTES:
                bar.update(task, completed=position)
                shown = position


def read_row(line: bytes) -> Row | Reject:
    """The row of a line, or why it is none."""
    try:
        row = load_line(line)
    except ValueError as error:
        return Reject("", "not_json", str(error))
    if not isinstance(row, dict):
        return Reject("", "not_an_object", type(row).__name__)
    if not isinstance(row.get("id"), str) or not row["id"]:
        return Reject("", "no_id", repr(row.get("id")))
    try:
        check_row(row)
    except DataError as error:
        return Reject("", "malformed_row", str(error))
    return row


def load_line(line: bytes) -> Any:
    """The JSON value of a line."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:  # half an emoji, NaN, or no JSON at all
        return parse_json(line)


def hash_content(row: Row) -> int:
    """64 bits of what a row says and what of it is supervised; its id and provenance play no part."""
    said = orjson.dumps([row["loss"], row.get("text"), _spoken(row)])
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "little")


def _spoken(row: Row) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in row.get("messages") or ()]


def drop_trace(row: Row) -> Row | None:
    """The row asked not to think, without its trace and who wrote it; None where there is no trace to take away.

    Only the last answer may hold a trace, so that nothing of one is left in the turns before.
    """
    messages = row.get("messages") or ()
    if row["mode"] != "think" or [m["role"] for m in messages[-2:]] != ["user", "assistant"]:
        return None
    *before, asked, said = messages
    answer = parse_answer(said["content"])
    if answer.think is None or not answer.answer or any(parse_answer(m["content"]).think for m in before):
        return None
    question = asked["content"]
    question = f"{question[:-6]}/no_think" if question.endswith("/think") else add_switch(question, "no_think")
    kept = {key: value for key, value in row.items() if key not in _DROPPED}
    messages = [*before, {**asked, "content": question}, {**said, "content": answer.answer}]
    return {**kept, "mode": "no_think", "messages": messages}


def read_rows(scan: Scan, parts: Sequence[Part], positions: np.ndarray, bare: np.ndarray) -> Iterator[Row]:
    """Rows by their places in the scan, in this order, each id behind its corpus's name.

    Args:
        bare: boolean, by the same places: the rows that lose their trace.
    """
    handles = [part.path.open("rb") for part in parts]
    try:
        for position in positions.tolist():
            corpus = scan.corpus[position]
            handles[corpus].seek(scan.offset[position])
            row = load_line(handles[corpus].readline())
            if bare[position]:
                row = drop_trace(row)
            yield {**row, "id": f"{parts[corpus].name}:{row['id']}"}
    finally:
        for handle in handles:
            handle.close()


def count_rows(rows: Sequence[Row]) -> list[int]:
    """Every row counts 1."""
    return [1] * len(rows)


class TokenCounter:
    """The tokens of rows as a model reads them."""

    def __init__(self, folder: Path):
        from onereason.data.rendering import RowTokenizer
        from onereason.model.folder import load_tokenizer_folder

        model = load_tokenizer_folder(folder)
        self._tokenize = RowTokenizer(model.tokenizer, model.vocabulary)

    def __call__(self, rows: Sequence[Row]) -> list[int]:
        return np.diff(self._tokenize(rows).offsets).tolist()
