"""Files: atomic outputs, JSON and JSON lines, hashes, manifests.

Whatever the toolkit writes appears whole or not at all: it is written under a temporary name in the same folder and
renamed at the end. A failure, an interrupt or a full disk leaves no partial output behind.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from onereason import __version__
from onereason.errors import DataError, OnereasonError, StorageError

__all__ = [
    "atomic_dir",
    "atomic_file",
    "build_manifest",
    "hash_file",
    "iter_jsonl",
    "parse_json",
    "read_json",
    "read_jsonl",
    "require_file",
    "require_output_dir",
    "require_writable_parent",
    "short_names",
    "storage_errors",
    "to_json_line",
    "write_json",
    "write_jsonl",
    "write_text",
]

MANIFEST_NAME = "manifest.json"
ARTEFACT_FILES = (MANIFEST_NAME, "catalog.json", "tokenizer.json", "itemic.json")
"""A folder that holds none of them was not written by the toolkit, and is never replaced."""


def require_file(path: str | Path, what: str, hint: str = "") -> Path:
    """The path as a `Path` if a readable file stands there; `DataError` naming `what` otherwise."""
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise DataError(f"{what} not found: expected a file at {path}, found {found}.{' ' + hint if hint else ''}")
    if not os.access(path, os.R_OK):
        raise DataError(f"{what} {path} cannot be read: permission denied.")
    return path


_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_WRITABLE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG}
)


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals to write into one clear line."""
    try:
        yield
    except OnereasonError:
        raise
    except Exception as error:
        # Polars, safetensors and torch wrap a full disk in errors of their own, with the system's words inside.
        number = error.errno if isinstance(error, OSError) else None
        if number in _NO_SPACE or "No space left on device" in str(error) or "File too large" in str(error):
            raise StorageError(f"no space left while writing {path}; free some space and run again.") from error
        if number in _NOT_WRITABLE:
            raise StorageError(f"{path} cannot be written: {os.strerror(number)}; choose another path.") from error
        raise


def require_output_dir(path: str | Path, overwrite: bool = False, inputs: Iterable[str | Path] = ()) -> Path:
    """Checks before long work that an output folder may be written at `path`.

    What `overwrite` replaces is lost, so a folder is replaced only if the toolkit wrote it, and never if it is or holds
    the working folder or one of the `inputs`.
    """
    path = Path(path)
    with storage_errors(path):
        if path.exists() and not path.is_dir():
            raise StorageError(f"output folder {path} is an existing file; choose another path.")
        if path.is_dir() and any(path.iterdir()):
            if not overwrite:
                raise StorageError(
                    f"output folder {path} exists and is not empty; choose another path or pass --overwrite."
                )
            place = path.resolve()
            for kept in (Path.cwd(), *map(Path, inputs)):
                if kept.resolve().is_relative_to(place):
                    raise StorageError(
                        f"output folder {path} cannot be overwritten: it is or holds {kept}; choose another path."
                    )
            if not any((path / name).is_file() for name in ARTEFACT_FILES):
                raise StorageError(
                    f"output folder {path} cannot be overwritten: it holds none of {', '.join(ARTEFACT_FILES)}, so it "
                    "was not written by onereason; choose another path or remove it yourself."
                )
        require_writable_parent(path)
    return path


def require_writable_parent(path: Path) -> None:
    """`StorageError` unless something can be created at `path`: the nearest folder above it is tried."""
    parent = next((p for p in path.absolute().parents if p.exists()), None)
    if parent is not None and not parent.is_dir():
        raise StorageError(f"output {path} cannot be created: {parent} is a file; choose another path.")
    try:
        os.rmdir(tempfile.mkdtemp(prefix=f".{path.name}."[:200], dir=parent))
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise
        raise StorageError(
            f"output {path} cannot be created: {parent} is not writable; choose another path."
        ) from error


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it replaces `path`, on failure it is removed."""
    path = Path(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_dir(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; on success it becomes `path`, on failure it is removed.

    With `overwrite`, an existing folder is replaced in one rename after the new one is complete.
    """
    path = require_output_dir(path, overwrite).resolve()
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            if path.exists():
                retired = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
                os.replace(path, retired)
                try:
                    os.replace(temporary, path)
                except OSError:
                    os.replace(retired, path)
                    raise
                shutil.rmtree(retired, ignore_errors=True)
            else:
                os.replace(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def parse_json(text: str | bytes) -> Any:
    """A JSON value; half an emoji (a lone surrogate, as texts cut to a length hold it) becomes U+FFFD.

    Raises:
        ValueError: not JSON, not UTF-8, nested too deep, or a number of thousands of digits.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    escape = b"\\ud" if isinstance(text, bytes) else "\\ud"
    return _mend_surrogates(value) if escape in text.lower() else value  # type: ignore[operator]


def _mend_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list | tuple):
        return [_mend_surrogates(part) for part in value]
    if isinstance(value, dict):
        return {_mend_surrogates(key): _mend_surrogates(part) for key, part in value.items()}
    return value


def read_json(path: str | Path, what: str = "JSON file") -> Any:
    path = require_file(path, what)
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{what} {path} is not valid JSON: {error}.") from error


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: str | Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes(text.encode())


def iter_jsonl(path: str | Path, what: str = "JSON lines file") -> Iterator[dict[str, Any]]:
    """Rows of a JSON-lines file, one object a line. Lines end at LF only: a bare CR belongs to the text."""
    path = require_file(path, what)
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except ValueError as error:
                raise DataError(f"{what} {path}, line {number}: not valid JSON ({error}).") from error
            if not isinstance(row, dict):
                raise DataError(f"{what} {path}, line {number}: expected an object, got {type(row).__name__}.")
            yield row


def read_jsonl(path: str | Path, what: str = "JSON lines file") -> list[dict[str, Any]]:
    return list(iter_jsonl(path, what))


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes the rows atomically; returns how many."""
    count = 0
    with atomic_file(path) as temporary, temporary.open("wb") as handle:
        for row in rows:
            handle.write(to_json_line(row))
            count += 1
    return count


def to_json_line(row: Mapping[str, Any]) -> bytes:
    """A row as one line of compact JSON, closed by LF; half an emoji (a lone surrogate) becomes U+FFFD."""
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a lone surrogate, a whole number of more than 64 bits, or keys that are no text
        return json.dumps(_mend_surrogates(row), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def hash_file(path: str | Path) -> str:
    """SHA-256 of the file's bytes, hexadecimal."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def short_names(paths: Iterable[str | Path]) -> dict[str, Path]:
    """The shortest tails (`name`, `folder/name`, ...) that tell different files apart -> the files."""
    unique = list(dict.fromkeys(Path(path).absolute() for path in paths))
    names: dict[str, Path] = {}
    for path in unique:
        others = [other.parts for other in unique if other != path]
        size = next(n for n in range(1, len(path.parts) + 1) if all(o[-n:] != path.parts[-n:] for o in others))
        names["/".join(path.parts[-size:])] = path
    return names


def build_manifest(
    kind: str,
    *,
    inputs: Iterable[str | Path] = (),
    config: Mapping[str, Any] | None = None,
    seed: int | None = None,
    counts: Mapping[str, Any] | None = None,
    rejected: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """What every artefact carries: inputs with hashes, seed, configuration, versions, counts kept and rejected.

    Holds no clock time and no absolute path, so that the same inputs give the same bytes. An input is named by its file
    name, with as many folders before it as tell it from the others.
    """
    versions = {"onereason": __version__, "python": platform.python_version()}
    for package in ("duckdb", "numpy", "polars", "torch", "transformers"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "kind": kind,
        "inputs": {name: hash_file(path) for name, path in short_names(inputs).items()},
        "seed": seed,
        "config": dict(config or {}),
        "versions": versions,
        "counts": dict(counts or {}),
        "rejected": dict(rejected or {}),
    }
