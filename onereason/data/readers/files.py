"""What readers share: finding files, lines and JSON objects with their numbers, captions.

Lines end at LF only: a bare CR belongs to the text.
"""

from __future__ import annotations

import ast
import gzip
import html
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

from rich.progress import Progress

from onereason.data.validate import known_brand
from onereason.errors import DataError
from onereason.io import parse_json, require_file

PROGRESS_LINES = 5000


def single_path(paths: Sequence[Path], expects: str) -> Path:
    """The one path of a reader that takes one."""
    if len(paths) != 1:
        raise DataError(f"expected {expects}, got {len(paths)} paths: {', '.join(map(str, paths))}.")
    return paths[0]


def list_files(paths: Sequence[Path], what: str) -> list[Path]:
    """The files among `paths`, with folders replaced by the files in them, by name."""
    files: list[Path] = []
    for path in paths:
        files += sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [require_file(path, what)]
    return files


def pick_file(files: Sequence[Path], suffixes: tuple[str, ...], what: str, prefix: str = "") -> Path:
    """The only file whose name starts with `prefix` and ends with one of `suffixes`."""
    found = [p for p in files if p.name.startswith(prefix) and p.name.endswith(suffixes)]
    if len(found) == 1:
        return found[0]
    pattern = " or ".join(f"{prefix}*{suffix}" for suffix in suffixes)
    seen = ", ".join(p.name for p in found or files) or "no file"
    raise DataError(
        f"{what}: expected one file {pattern}, found {len(found)} (there is {seen}); name the files one by one."
    )


def iter_lines(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """`(number, line)` of a UTF-8 text file, plain or gz; numbers start at 1, blank lines are left out.

    Shows a progress bar where stderr is a terminal.

    Raises:
        DataError: the file is missing, no UTF-8, or a broken gz file; with the line where reading stopped.
    """
    path = require_file(path, what)
    number = 0
    with Progress(disable=not sys.stderr.isatty(), transient=True) as progress, path.open("rb") as raw:
        task = progress.add_task(f"reading {path.name}", total=path.stat().st_size)
        handle = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
        try:
            for number, line in enumerate(handle, 1):
                if number % PROGRESS_LINES == 0:
                    progress.update(task, completed=raw.tell())
                text = line.decode("utf-8").removesuffix("\n").removesuffix("\r")
                if text.strip():
                    yield number, text
        except UnicodeDecodeError as error:
            raise DataError(f"{what} {path}, line {number}: not UTF-8 text ({error}).") from error
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{what} {path}, after line {number}: broken gz file ({error}).") from error


def parse_object(text: str, where: str, python_literal: bool = False) -> dict[str, Any]:
    """The object in one line of JSON; with `python_literal`, a line may also be a Python dict with single quotes."""
    value: Any
    try:
        value = parse_json(text)
    except ValueError as error:
        if not python_literal:
            raise DataError(f"{where}: not valid JSON ({error}).") from error
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError) as literal_error:
            reason = str(literal_error) or type(literal_error).__name__
            raise DataError(f"{where}: neither JSON ({error}) nor a Python literal ({reason}).") from literal_error
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object, got {type(value).__name__}.")
    return value


def iter_objects(path: Path, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """`(where, object)` of a JSON-lines file, plain or gz; `where` names file and line for error messages."""
    for number, line in iter_lines(path, what):
        where = f"{what} {path}, line {number}"
        yield where, parse_object(line, where)


def read_field(row: Mapping[str, Any], key: str, kinds: tuple[type, ...], where: str, required: bool = True) -> Any:
    """`row[key]`, checked to be of one of `kinds`; null or absent is None where not required."""
    value = row.get(key)
    if value is None and not required:
        return None
    if value is None:
        raise DataError(f"{where}: {key!r} is missing; the object has {', '.join(map(str, row)) or 'no key'}.")
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise DataError(f"{where}: {key!r} should be {names}, is {type(value).__name__} {value!r:.60}.")
    return value


def clean_text(text: str | None) -> str | None:
    """Text without HTML entities (`&amp;`) and surrounding blanks; None where nothing is left."""
    return html.unescape(text).strip() or None if text is not None else None


def build_caption(title: str | None, brand: str | None, categories: Sequence[str]) -> str | None:
    """A short natural caption of a product, e.g. `Red Shatter Nail Polish, by OPI. Category: Makeup, Nails.`

    The brand is left out where the title names it already; None where nothing is known.
    """
    brand = known_brand(brand)
    name = title or ""
    if brand and brand.lower() not in name.lower():
        name = f"{name}, by {brand}" if name else brand
    category = f"Category: {', '.join(categories)}" if categories else ""
    return ". ".join(part.rstrip(".") for part in (name, category) if part) + "." if name or category else None
