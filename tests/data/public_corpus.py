"""Small Explorer corpora written row by row, and what an import of them holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from onereason.data.readers.explorer import LAYOUT
from onereason.data.readers.streaming.importer import ImportOptions, import_corpus
from tests.data.public_reference import EXPLORER

INTS, FLOATS, TEXTS = pl.List(pl.Int64), pl.List(pl.Float32), pl.List(pl.String)
CODES = FLOATS
SMALL = ImportOptions(memory_limit="500MB", threads=1)


def user_schema() -> dict[str, Any]:
    """Every column the reader knows, as the corpus has them."""
    schema: dict[str, Any] = {"ec_time_ms": pl.Int64}
    for name, _, items, kind, times, signals, further in EXPLORER:
        floats = name in ("video_history", "video")
        schema |= {items: INTS, times: TEXTS if kind == "date" else INTS}
        schema |= dict.fromkeys(signals, FLOATS if floats else INTS)
        schema |= {c: TEXTS if c.endswith(("_type", "_industry")) else INTS for c in further}
    return schema


def video(pids: list[int], seconds: list[int], prefix: str = "video_history", **signals: list[float]) -> dict[str, Any]:
    """The video lists of a user, with zeros for signals that are not given."""
    columns = next(signals for name, *_, signals, _ in EXPLORER if name == prefix)
    row: dict[str, Any] = {f"{prefix}_sampled_pid_list": pids, f"{prefix}_ts_list": seconds}
    for column in columns:
        short = column.removeprefix(prefix + "_").removesuffix("_list")
        row[column] = signals.get(short, [0.0] * len(pids))
    return row


def write_corpus(
    folder: Path,
    users: list[dict[str, Any]],
    sids: Sequence[tuple[Any, ...]],
    captions: Sequence[tuple[Any, ...]] = (),
    tags: Sequence[tuple[Any, ...]] = (),
) -> Path:
    """The four tables, one file each; lists a user does not have are null."""
    folder.mkdir(parents=True)
    schema = user_schema()
    rows = [{column: user.get(column) for column in schema} for user in users]
    pl.DataFrame(rows, schema=schema).write_parquet(folder / "OneReason_UserProfile.parquet")
    for name, column, kind, values in (
        ("OneReason_Pid2Sid", "sid_three", FLOATS, sids),
        ("OneReason_Pid2Caption", "caption", pl.String, captions),
        ("OneReason_Pid2Tag", "tag_lv3", pl.String, tags),
    ):
        table = pl.DataFrame(values, schema={"pid": pl.Int64, "domain": pl.String, column: kind}, orient="row")
        table.write_parquet(folder / f"{name}.parquet")
    return folder


def run(folder: Path, out: Path, options: ImportOptions = SMALL) -> dict[str, Any]:
    return import_corpus(LAYOUT, [folder], out / "data", out / "catalog", options)


def events(out: Path) -> list[tuple[Any, ...]]:
    table = pl.read_parquet(out / "data" / "interactions.parquet", glob=False)
    return table.select("user_id", "item_id", "timestamp", "action").rows()


def rejects(out: Path) -> list[tuple[Any, ...]]:
    table = pl.read_parquet(out / "data" / "rejected.parquet")
    return table.select("user_id", "file", "row", "family", "reason", "interactions", "detail").rows()


VIDEOS = [(n, "video/video", [n, n + 1, n + 2]) for n in range(1, 9)]
GOODS = [(n, "goods", [n, 0, 8191]) for n in range(1, 9)]
