"""What is known of the stages that have run: records, what became stale, the lock, and removal for another run.

A record, `RUN/.pipeline/STAGE.json`, is written before a stage starts and when it ends, so that the driver knows after
a kill what it had begun. Every time a stage is made anew its record gets another id, and records hold the ids of what
the stage was made from.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from onereason.config import build_config
from onereason.errors import ConfigError, StorageError
from onereason.io import hash_file, read_json, storage_errors, write_json
from onereason.pipeline.plan import Plan, Stage

LOCK_FILE = "lock"
_REMOVED = "removed-"


@dataclass(frozen=True)
class Record:
    """What is known of a stage that was begun.

    Attributes:
        id: of this making of the stage.
        state: `begun` (the driver saw no end of it), `failed`, or `done`.
        command: its arguments.
        out: what it writes.
        files: configuration file -> SHA-256.
        needs: stage -> id of its record.
        seconds: that its tries took, as far as the driver saw them end.
    """

    id: str
    state: Literal["begun", "failed", "done"]
    command: tuple[str, ...]
    out: str
    files: Mapping[str, str]
    needs: Mapping[str, str]
    seconds: float = 0.0


@dataclass(frozen=True)
class Status:
    """Where a stage stands.

    Attributes:
        state: `done`, `to run`, or `stale`: it was made from something else than what the file says now.
        why: of a stale stage, what changed; of one to run, what is there of it.
        record: None where it was never begun.
    """

    state: Literal["done", "to run", "stale"]
    why: str
    record: Record | None


def record_path(plan: Plan, stage: Stage) -> Path:
    return plan.records / f"{stage.name}.json"


def read_record(plan: Plan, stage: Stage) -> Record | None:
    path = record_path(plan, stage)
    if not path.is_file():
        return None
    try:
        return build_config(Record, read_json(path, "record of a stage"), str(path))
    except ConfigError as error:
        raise StorageError(f"{error} It is no record of a stage; see what stands there.") from error


def write_record(plan: Plan, stage: Stage, record: Record) -> None:
    write_json(record_path(plan, stage), asdict(record))


def hash_files(stage: Stage) -> dict[str, str]:
    return {str(path): hash_file(path) for path in stage.files}


def begin(stage: Stage, before: Record | None, needs: Mapping[str, Status]) -> Record:
    """The record of a stage that is about to start; one that goes on keeps its id."""
    ids = {name: status.record.id for name, status in needs.items() if status.record is not None}
    goes_on = before is not None and before.state != "done"
    return Record(
        before.id if before is not None and goes_on else uuid.uuid4().hex,
        "begun",
        stage.command,
        str(stage.out),
        hash_files(stage),
        ids,
        before.seconds if before is not None and goes_on else 0.0,
    )


def judge(plan: Plan) -> dict[str, Status]:
    """Where every stage stands, by its record, its out, and the stages it needs."""
    found: dict[str, Status] = {}
    for stage in plan.stages:
        found[stage.name] = _judge_stage(stage, read_record(plan, stage), {name: found[name] for name in stage.needs})
    return found


def _judge_stage(stage: Stage, record: Record | None, needs: Mapping[str, Status]) -> Status:
    if record is None:
        if os.path.lexists(stage.done) or (stage.out.is_dir() and any(stage.out.iterdir())):
            return Status("stale", f"{stage.out} is there, and no record of this run says who wrote it", None)
        return Status("to run", "", None)
    changes = _changes(stage, record, needs)
    if changes:
        return Status("stale", "; ".join(changes), record)
    if stage.done.exists() and record.state != "failed":  # a driver that was killed left `begun`
        return Status("done", "", record)
    why = {"done": f"{stage.done} is gone", "failed": "failed", "begun": "was interrupted"}[record.state]
    return Status("to run", why, record)


def _changes(stage: Stage, record: Record, needs: Mapping[str, Status]) -> list[str]:
    """What a stage was made from that is otherwise now, in words."""
    changes = []
    if record.command != stage.command:
        old, new = list(record.command), list(stage.command)
        gone = " ".join(word for word in old if word not in new) or "nothing"
        come = " ".join(word for word in new if word not in old) or "nothing"
        changes.append(f"its command changed: {gone} -> {come}" if gone != come else "its command has another order")
    if record.out != str(stage.out):
        changes.append(f"its out was {record.out}")
    files = hash_files(stage)
    if set(files) == set(record.files):  # another file is another command
        changes += [f"{name} changed" for name in files if files[name] != record.files[name]]
    for name, status in needs.items():
        if name not in record.needs:
            changes.append(f"it needs {name} now")
        elif status.state == "stale":
            changes.append(f"{name} is stale")
        elif status.state == "to run":
            changes.append(f"{name} is to run again")
        elif status.record is not None and status.record.id != record.needs[name]:
            changes.append(f"{name} was made anew")
    changes += [f"it does not need {name} any more" for name in record.needs if name not in needs]
    return changes


def remove_stages(plan: Plan, stages: Sequence[Stage]) -> None:
    """Removes what these stages, which have records, wrote, and the records.

    The last come first, and an out leaves its place in one rename: a kill in between leaves nothing half removed.
    """
    for stage in reversed(stages):
        if stage.out.resolve() in (Path.cwd(), *Path.cwd().parents):
            raise StorageError(f"{stage.out} is or holds the working folder; change to another one first.")
        with storage_errors(stage.out):
            if os.path.lexists(stage.out):
                os.replace(stage.out, plan.records / f"{_REMOVED}{uuid.uuid4().hex}")
            record_path(plan, stage).unlink()
    _clear(plan)


def _clear(plan: Plan) -> None:
    for path in plan.records.glob(f"{_REMOVED}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextlib.contextmanager
def locked(plan: Plan) -> Iterator[int]:
    """Holds a run against other drivers; yields the lock's descriptor, for stages to hold it too.

    A stage that outlives a killed driver so keeps the next one from starting it a second time.
    """
    path = plan.records / LOCK_FILE
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"{plan.run} is in use ({os.read(handle, 200).decode(errors='replace') or 'by another driver'}); wait "
                "for it, or end that process. A stage goes on when the driver above it was killed."
            ) from None
        say_holder(handle, f"driver: process {os.getpid()}")
        _clear(plan)
        yield handle
    finally:
        os.close(handle)


def say_holder(handle: int, text: str) -> None:
    """Writes into the lock who holds it."""
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode(), 0)
