"""The working folder that holds the shards of a corpus in the making until the corpus is whole.

The working folder of `runs/persona` is `runs/.persona.building`:

| file | holds |
|---|---|
| `rows-00012.jsonl` | the rows of shard 12, one JSON object a line |
| `rejected-00012.jsonl` | what gave no row, and why; absent if there is nothing |
| `ids-00012.u64` | an 8-byte hash of each row's id |
| `shard-00012.json` | its counts; written last, so that its presence means the rest is there |
| `build.json` | what the shards are made of; shards of another build are not used |
| `source.pickle` | the row source, for worker processes |
| `lock` | held by the process that builds |
| `corpus/`, `replaced/` | the finished corpus, and the one it takes the place of, around the last rename |
| `published` | written before the last rename: where it stands and `corpus/` does not, the corpus is in its place |
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import inspect
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

import onereason
from data_builders.cards import CARD_FILE, REJECTED_FILE, ROWS_FILE, Tally, no_row_left, render_card
from data_builders.shards import RowSource, Shard
from onereason.errors import DataError, StorageError
from onereason.io import MANIFEST_NAME, read_json, require_output_dir, storage_errors, write_json, write_text

LOCK_FILE, BUILD_FILE, SOURCE_FILE, PUBLISHED_FILE = "lock", "build.json", "source.pickle", "published"
_OURS = re.compile(r"lock|published|corpus|replaced|\.?(source|build|(rows|rejected|ids|shard)-\d+)\.[\w.]+")
_PROMPTS = (".yaml", ".jinja")
_IDS_AT_ONCE = 8_000_000
"""Hashes of ids held in memory at once, 8 bytes each and as much again to sort them."""


@dataclass
class WorkingFolder:
    """Shards of one build.

    Attributes:
        path: the folder.
        out: where the corpus will stand, links followed.
        shards: all shards of the build.
    """

    path: Path
    out: Path
    shards: Sequence[Shard]

    def missing(self) -> list[Shard]:
        return [shard for shard in self.shards if shard.read_summary(self.path) is None]

    def num_finished(self) -> int:
        return len(self.shards) - len(self.missing())

    def finish(self, manifest: Mapping[str, Any], title: str, description: str, overwrite: bool) -> Tally:
        """Puts the shards together and the corpus in its place; returns its counts.

        Raises:
            DataError: no row is left, or two rows have one id.
        """
        tally = Tally()
        holding: dict[str, list[Shard]] = {"rows": [], "rejected": []}
        for shard in self.shards:
            summary = shard.read_summary(self.path)
            assert summary is not None, f"shard {shard.number} has not been built"
            tally.merge(Tally.from_json(summary["tally"]))
            for kind, shards in holding.items():
                if shard.file(self.path, kind).name in summary["sizes"]:
                    shards.append(shard)
        if not tally.counts["rows"]:
            self.discard()
            raise no_row_left(self.out, tally.rejected)
        if twice := self.duplicate_ids(holding["rows"], tally.counts["rows"]):
            self.discard()
            shown = ", ".join(repr(row_id) for row_id in twice[:3])
            raise DataError(f"rows of {self.out} must have unique ids; {len(twice)} stand there twice, e.g. {shown}.")
        corpus = self.path / "corpus"
        try:
            with storage_errors(self.out):
                corpus.mkdir()
                self._concatenate("rows", holding["rows"], corpus / ROWS_FILE)
                if holding["rejected"]:
                    self._concatenate("rejected", holding["rejected"], corpus / REJECTED_FILE)
                manifest = {**manifest, **tally.to_manifest()}
                write_json(corpus / MANIFEST_NAME, manifest)
                write_text(corpus / CARD_FILE, render_card(title, description, manifest, *tally.first_rows.values()))
                require_output_dir(self.out, overwrite)
                self._publish(corpus)
        except BaseException:
            if not self.is_published:
                (self.path / PUBLISHED_FILE).unlink(missing_ok=True)
                _remove(corpus)
            raise
        self.discard()
        return tally

    def _concatenate(self, kind: str, shards: Sequence[Shard], path: Path) -> None:
        with path.open("wb") as target:
            for shard in shards:
                with shard.file(self.path, kind).open("rb") as part:
                    shutil.copyfileobj(part, target, 1 << 20)

    def _publish(self, corpus: Path) -> None:
        """Moves the finished corpus to its place.

        What stands there now comes back in the next run if this one is killed in between.
        """
        (self.path / PUBLISHED_FILE).touch()
        if self.out.exists():
            os.replace(self.out, self.path / "replaced")
        try:
            os.replace(corpus, self.out)
        except OSError:
            self.restore()
            raise

    @property
    def is_published(self) -> bool:
        return (self.path / PUBLISHED_FILE).exists() and not (self.path / "corpus").exists()

    def restore(self) -> None:
        """Puts back the corpus that was to be replaced, if it was moved away and nothing has taken its place."""
        replaced = self.path / "replaced"
        if replaced.is_dir() and not self.out.exists():
            os.replace(replaced, self.out)

    def duplicate_ids(self, shards: Sequence[Shard], num_rows: int) -> list[str]:
        """Ids that more than one row of these shards has, sorted."""
        passes = -(-num_rows // _IDS_AT_ONCE)
        found: set[str] = set()
        for part in range(passes):
            pieces = [hashes[hashes % np.uint64(passes) == np.uint64(part)] for hashes in map(self._id_hashes, shards)]
            hashes = np.sort(np.concatenate(pieces))
            twice = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
            if len(twice):
                found |= self._ids_with(twice, shards)
        return sorted(found)

    def _id_hashes(self, shard: Shard) -> np.ndarray:
        return np.fromfile(shard.file(self.path, "ids", "u64"), np.uint64)

    def _ids_with(self, twice: np.ndarray, shards: Sequence[Shard]) -> set[str]:
        """Which ids with one of these hashes really stand there twice: two ids may share a hash."""
        counts: Counter[str] = Counter()
        for shard in shards:
            places = set(np.flatnonzero(np.isin(self._id_hashes(shard), twice)).tolist())
            if places:
                with shard.file(self.path, "rows").open("rb") as lines:
                    counts.update(orjson.loads(line)["id"] for at, line in enumerate(lines) if at in places)
        return {row_id for row_id, count in counts.items() if count > 1}

    def discard(self) -> None:
        """Removes all but the lock, what says that the corpus is in its place last."""
        for path in self.path.iterdir():
            if path.name not in (LOCK_FILE, PUBLISHED_FILE):
                _remove(path)
        (self.path / PUBLISHED_FILE).unlink(missing_ok=True)


@contextlib.contextmanager
def open_working_folder(
    out: Path, source: RowSource, manifest: Mapping[str, Any], shards: Sequence[Shard]
) -> Iterator[WorkingFolder]:
    """The working folder of a corpus, locked; with the finished shards of an interrupted build of the same corpus.

    Shards that were made of anything else are removed, with a line on stderr. Without finished shards, nothing is left.

    Raises:
        StorageError: another process is building the corpus, or the folder holds something else.
    """
    out = out.resolve()
    path = working_path(out)
    build = {**manifest, "shards": [len(shards), shards[0].stop if shards else 0], "units": source.num_units}
    build["code"] = hash_code(source)
    build = json.loads(json.dumps(build))
    with contextlib.ExitStack() as stack:
        with storage_errors(path):
            stack.enter_context(_locked(path))
            foreign = sorted(entry.name for entry in path.iterdir() if not _OURS.fullmatch(entry.name))
            if foreign:
                raise StorageError(
                    f"{path} holds {foreign[0]}, which no builder wrote; move it or choose another --out."
                )
            folder = WorkingFolder(path, out, shards)
            stack.callback(_remove_if_empty, folder)
            if folder.is_published:  # and the process was killed before it could remove the shards
                folder.discard()
            (path / PUBLISHED_FILE).unlink(missing_ok=True)
            folder.restore()
            _keep_shards_of(build, folder)
        yield folder


def _remove_if_empty(folder: WorkingFolder) -> None:
    """Removes a working folder without a finished shard."""
    if not any(folder.path.glob("shard-*.json")) and not (folder.path / "replaced").exists():
        shutil.rmtree(folder.path, ignore_errors=True)


def working_path(out: Path) -> Path:
    out = out.resolve()
    return out.parent / f".{out.name}.building"


def remove_published_shards(out: Path) -> None:
    """Removes the shards of a corpus that is in its place, where its builder was killed before it could."""
    with contextlib.suppress(OSError, StorageError):
        folder = WorkingFolder(working_path(out), out.resolve(), [])
        if folder.is_published:
            with _locked(folder.path):
                folder.discard()
                shutil.rmtree(folder.path)


def _keep_shards_of(build: Mapping[str, Any], folder: WorkingFolder) -> None:
    """Removes what was begun for another build, and unfinished files."""
    known = folder.path / BUILD_FILE
    begun = read_json(known) if known.is_file() else None
    if begun != build:
        if begun is not None:
            changed = ", ".join(name for name in build if begun.get(name) != build[name])
            print(f"{folder.path}: an interrupted build had other {changed}; starting anew.", file=sys.stderr)
        folder.discard()
        write_json(known, build)
        return
    numbers = {shard.number for shard in folder.shards} - {shard.number for shard in folder.missing()}
    kept = {f"{number:05d}" for number in numbers}
    for path in folder.path.iterdir():
        number = re.fullmatch(r"(?:rows|rejected|ids|shard)-(\d+)\.(?:jsonl|json|u64)", path.name)
        if path.name not in (LOCK_FILE, BUILD_FILE) and (number is None or number[1] not in kept):
            _remove(path)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock; the system lets go of it when the process ends, however it ends."""
    handle = None
    while handle is None:
        handle = _lock(folder / LOCK_FILE)
    try:
        yield
    finally:
        os.close(handle)


def _lock(path: Path) -> int | None:
    """Descriptor of the locked file; None if the process that held it removed it in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), os.stat(path)):
            return handle
    except FileNotFoundError:
        pass
    except BlockingIOError as error:
        os.close(handle)
        raise StorageError(
            f"another process is building this corpus (it holds {path}); wait for it or choose another --out."
        ) from error
    os.close(handle)
    return None


def hash_code(source: RowSource) -> str:
    """A hash of the toolkit's modules that are loaded, of its prompts, and of the module that holds the source."""
    files = {path for path in Path(onereason.__path__[0]).rglob("*") if path.suffix in _PROMPTS}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("onereason", "data_builders") and getattr(module, "__file__", None):
            files.add(Path(module.__file__))
    with contextlib.suppress(TypeError, OSError):  # a class typed into a console has no file
        files.add(Path(inspect.getfile(type(source))).resolve())
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
