"""The files of a corpus, and its rows line by line with what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from onereason.data.chat import check_row
from onereason.errors import DataError
from onereason.io import MANIFEST_NAME, parse_json, read_json, require_file

ROWS_FILE, REJECTED_FILE = "rows.jsonl", "rejected.jsonl"
NAMED = ("task", "loss", "mode", "domain", "user", "teacher")
"""Keys whose faults have a code of their own; the others are `bad_content`."""
MAX_DETAIL = 200
"""Characters of an explanation."""

Row = dict[str, Any]


@dataclass(frozen=True)
class CorpusFiles:
    """Where a corpus lies.

    Attributes:
        rows: the JSON-lines file of rows.
        rejected: the file of what was left out, None where there is none.
        manifest: what the corpus was made from, empty where there is no manifest.
    """

    rows: Path
    rejected: Path | None
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One line of a rows file: a row, or what is wrong with it.

    Attributes:
        number: from 1.
        offset: bytes before it.
        row: None where the line holds no row.
        reason: a short code where it holds none, e.g. `not_json`.
        detail: the reason in words.
    """

    number: int
    offset: int
    row: Row | None
    reason: str = ""
    detail: str = ""


def find_corpus(path: str | Path) -> CorpusFiles:
    """The files of a corpus folder, or of a rows file (with its folder's manifest where the file is that folder's).

    Raises:
        DataError: nothing stands at `path`, the folder holds no rows, or the manifest is malformed.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / ROWS_FILE).is_file():
            raise DataError(f"corpus folder {path} holds no {ROWS_FILE}; name a rows file or a folder with one.")
        path = path / ROWS_FILE
    require_file(path, "corpus", "Give a JSON-lines file of rows or a corpus folder.")
    if path.name != ROWS_FILE:
        return CorpusFiles(path, None, {})
    rejected, manifest = path.with_name(REJECTED_FILE), path.with_name(MANIFEST_NAME)
    value = read_json(manifest, "manifest") if manifest.is_file() else {}
    if not isinstance(value, dict):
        raise DataError(f"manifest {manifest} is malformed: expected an object, got {type(value).__name__}.")
    return CorpusFiles(path, rejected if rejected.is_file() else None, value)


def iter_lines(path: Path) -> Iterator[Line]:
    """Every line that is not blank. Lines end at LF only: a bare CR belongs to the text."""
    offset = 0
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            if line.strip():
                yield parse_line(line, number, offset)
            offset += len(line)


def read_lines_at(path: Path, places: Sequence[tuple[int, int]]) -> Iterator[Line]:
    """The lines at `(number, offset)` places, in the order given."""
    with path.open("rb") as handle:
        for number, offset in places:
            handle.seek(offset)
            yield parse_line(handle.readline(), number, offset)


def parse_line(line: bytes, number: int = 1, offset: int = 0) -> Line:
    """One line of JSON as a `Line`."""
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")  # the mark some editors put before UTF-8
    try:
        row = load_json(line)
    except ValueError as error:
        return Line(number, offset, None, "not_json", f"not valid JSON ({error})")
    problem = find_problem(row)
    return Line(number, offset, row) if problem is None else Line(number, offset, None, *problem)


def load_json(line: bytes) -> Any:
    """A JSON value, by the quick parser where it can and by `onereason.io.parse_json` where it cannot.

    Raises:
        ValueError: neither can read it.
    """
    try:
        return orjson.loads(line)
    except ValueError:
        return parse_json(line)


def find_problem(row: Any) -> tuple[str, str] | None:
    """What keeps a JSON value from being a row of a corpus, as (code, words); None for a row.

    The rules are those of training (`onereason.data.chat.check_row`), and an id besides.
    """
    if not isinstance(row, dict):
        return "not_an_object", f"expected an object, got {type(row).__name__}"
    if not isinstance(row.get("id"), str) or not row["id"]:
        return "bad_id", f"id should be a non-empty string, is {row.get('id')!r:.60}"
    try:
        check_row(row)
    except DataError as error:
        words = str(error).removeprefix(f"row {row['id']!r}: ")
        key = words.partition(" ")[0]
        return f"bad_{key if key in NAMED else 'content'}", words[:MAX_DETAIL].rstrip(".")
    return None
