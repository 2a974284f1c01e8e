"""Any CSV, TSV or Parquet file by a column map.

CSV fields are read as text, so that an id such as `007` stays as it is. Rows end at LF only. Timestamps are whole
numbers in `time_unit`, or dates; without a timestamp column the row order of the file is the order in time.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from onereason.data.raw import DEFAULT_DOMAIN, RawTables
from onereason.data.readers.files import single_path
from onereason.data.schema import INTERACTION_SCHEMA, ITEM_SCHEMA, SIGNAL_PREFIX
from onereason.errors import ConfigError, DataError
from onereason.io import require_file

PARQUET = (".parquet", ".pq")
SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
UNITS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_INTERACTION_NAMES = tuple(name for name in INTERACTION_SCHEMA if name != "domain")


def read(
    paths: Sequence[Path],
    domain: str | None = None,
    columns: Mapping[str, str] | None = None,
    items: str | Path | None = None,
    item_columns: Mapping[str, str] | None = None,
    time_unit: str = "s",
) -> RawTables:
    """Reads one interactions file and, where given, one items file.

    Args:
        paths: the interactions file.
        domain: domain of every item; where None, the items' `domain` column, or "item" where they have none.
        columns: schema name -> column of the interactions file: `user_id`, `item_id`, `timestamp`, `action`,
            `signal_*`; without an items file also `title`, `text` and `domain` (an item's first row counts). A name
            that is not mapped is looked up under itself; the file's other columns are left out.
        items: the items file; without it the items are those of the interactions.
        item_columns: the same for the items file: `item_id`, `domain`, `title`, `text`. Its other columns become
            `attributes`.
        time_unit: s, ms, us or ns, of timestamps that are numbers; they are cut to whole seconds.

    Raises:
        ConfigError: a name in a map that the schema does not have, or an unknown time unit.
        DataError: a missing, malformed or mistyped file; a mapped column that the file lacks.
    """
    if time_unit not in UNITS_PER_SECOND:
        raise ConfigError(f"time_unit {time_unit!r} is not known; use one of {', '.join(UNITS_PER_SECOND)}.")
    path = single_path(paths, "one interactions file")
    source = read_table(path)
    names = [*_INTERACTION_NAMES, *([] if items else ["title", "text", "domain"])]
    mapped = _map_columns(source, columns or {}, names, path, "columns", signals=True)
    for name in ("user_id", "item_id"):
        _require(name, mapped, source, path, "columns")
    known = {name: source[column].alias(name) for name, column in mapped.items()}
    frame = pl.DataFrame([s for n, s in known.items() if n in _INTERACTION_NAMES and n != "timestamp"])
    times = _read_times(known["timestamp"], time_unit, path) if "timestamp" in known else _row_positions(frame)
    signals = [_read_signal(s, path) for n, s in known.items() if n.startswith(SIGNAL_PREFIX)]
    interactions = frame.with_columns(times, *signals)

    inputs = [path]
    if items is None:
        described = pl.DataFrame([s for n, s in known.items() if n in ITEM_SCHEMA])
        table = described.filter(pl.col("item_id").is_not_null()).unique("item_id", keep="first", maintain_order=True)
    else:
        item_path = Path(items)
        inputs.append(item_path)
        table = _read_items(item_path, item_columns or {})
    if domain is not None or "domain" not in table.columns:
        table = table.with_columns(domain=pl.lit(domain or DEFAULT_DOMAIN))
    return RawTables(table, interactions, tuple(inputs))


def parse_column_map(text: str) -> dict[str, str]:
    """`user_id=uid,item_id=iid` -> `{"user_id": "uid", "item_id": "iid"}`; `ConfigError` for any other form."""
    mapped: dict[str, str] = {}
    for part in text.split(","):
        name, sign, column = (piece.strip() for piece in part.partition("="))
        if not (name and sign and column):
            raise ConfigError(f"column map {text!r}: {part!r} is not of the form name=column, e.g. user_id=uid.")
        if name in mapped:
            raise ConfigError(f"column map {text!r}: {name!r} stands twice.")
        mapped[name] = column
    return mapped


def read_table(path: Path) -> pl.DataFrame:
    """A Parquet file, or a CSV / TSV file (also `.gz`) with every field as text.

    Raises:
        DataError: the file is missing, of an unknown kind, or malformed; for CSV with the line.
    """
    require_file(path, "table")
    suffixes = [s for s in path.suffixes if s != ".gz"]
    suffix = suffixes[-1].lower() if suffixes else ""
    try:
        if suffix in PARQUET:
            return pl.read_parquet(path, glob=False)
        if suffix not in SEPARATORS:
            raise DataError(f"table {path}: the name should end with {', '.join((*SEPARATORS, *PARQUET))} or .csv.gz.")
        table = pl.read_csv(path, separator=SEPARATORS[suffix], infer_schema=False, glob=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, EOFError) as error:
        if suffix in SEPARATORS:
            _check_fields(path, SEPARATORS[suffix])
        raise DataError(f"table {path} cannot be read: {error}.") from error
    # A row with too few fields reads as nulls at its end: only then is a second, slower look needed.
    if table.width and table.to_series(-1).null_count():
        _check_fields(path, SEPARATORS[suffix])
        table = table.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines
    return table


def _check_fields(path: Path, separator: str) -> None:
    """`DataError` naming the first line that is not UTF-8 or whose number of fields differs from the header's."""
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as raw:
            # A bare CR inside a field is text; the csv module would refuse it.
            lines = (line.decode().rstrip("\r\n").replace("\r", " ") + "\n" for line in raw)
            reader = csv.reader(lines, delimiter=separator)
            width = None
            for row in reader:
                number = reader.line_num
                width = len(row) if width is None else width
                if row and len(row) != width:
                    raise DataError(f"table {path}, line {number}: {len(row)} fields, the header has {width}.")
    except (csv.Error, UnicodeDecodeError, OSError, EOFError) as error:
        raise DataError(f"table {path}, after line {number}: {error}.") from error


def _map_columns(
    source: pl.DataFrame, given: Mapping[str, str], names: Sequence[str], path: Path, option: str, signals: bool
) -> dict[str, str]:
    """Schema name -> column of the file, for the names that the map or the file itself gives."""
    for name, column in given.items():
        if name not in names and not (signals and name.startswith(SIGNAL_PREFIX) and name != SIGNAL_PREFIX):
            allowed = ", ".join([*names, *([f"{SIGNAL_PREFIX}NAME"] if signals else [])])
            raise ConfigError(f"{option}: {name!r} is not a name of the schema; use {allowed}.")
        if column not in source.columns:
            raise DataError(f"table {path}: column {column!r} ({option}: {name}) is missing; {_list(source)}.")
    found = {name: name for name in names if name in source.columns}
    if signals:
        found |= {c: c for c in source.columns if c.startswith(SIGNAL_PREFIX)}
    return {**found, **given}


def _require(name: str, mapped: Mapping[str, str], source: pl.DataFrame, path: Path, option: str) -> None:
    if name not in mapped:
        flag = option.replace("_", "-")
        raise DataError(f"table {path}: no column {name!r}; {_list(source)}; name it, e.g. --{flag} {name}=COLUMN.")


def _list(source: pl.DataFrame) -> str:
    return f"it has {', '.join(source.columns)}"


def _read_items(path: Path, given: Mapping[str, str]) -> pl.DataFrame:
    source = read_table(path)
    names = [name for name in ITEM_SCHEMA if name != "attributes"]
    mapped = _map_columns(source, given, names, path, "item_columns", signals=False)
    _require("item_id", mapped, source, path, "item_columns")
    rest = [c for c in source.columns if c not in mapped.values()]
    attributes = [
        json.dumps({k: v for k, v in row.items() if v is not None}, ensure_ascii=False, default=str)
        for row in source.select(rest).iter_rows(named=True)
    ]
    table = pl.DataFrame([source[column].alias(name) for name, column in mapped.items()])
    return table.with_columns(pl.Series("attributes", attributes, dtype=pl.String)) if rest else table


def _row_positions(frame: pl.DataFrame) -> pl.Series:
    return frame.select(timestamp=pl.int_range(pl.len(), dtype=pl.Int64).over("user_id"))["timestamp"]


def _read_times(column: pl.Series, time_unit: str, path: Path) -> pl.Series:
    """Numbers in whole seconds, or dates; text is tried as whole numbers, then as dates."""
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        numbers = text.cast(pl.Int64, strict=False)
        if numbers.null_count() > column.null_count():
            numbers = text.cast(pl.Float64, strict=False)
        if numbers.null_count() > column.null_count():
            return _read_dates(text, numbers, path)
        column = numbers
    divisor = UNITS_PER_SECOND[time_unit]
    return column // divisor if divisor > 1 and column.dtype.is_numeric() else column


def _read_dates(text: pl.Series, numbers: pl.Series, path: Path) -> pl.Series:
    """Dates; the first row that is neither a date nor one of `numbers` is named, or where the two are mixed."""
    try:
        dates = text.str.to_datetime(strict=False)
    except pl.exceptions.PolarsError:
        dates = pl.repeat(None, len(text), dtype=pl.Datetime, eager=True).alias(text.name)
    undated = dates.is_null() & text.is_not_null()
    failed = (undated & numbers.is_null()).arg_true()
    if len(failed):
        raise DataError(
            f"table {path}, row {failed[0] + 1}: timestamp {text[failed[0]]!r} is neither a whole number nor a date; "
            f"{len(failed)} row(s) are like it."
        )
    if undated.any():
        row = undated.arg_true()[0]
        raise DataError(
            f"table {path}, row {row + 1}: timestamp {text[row]!r} is a number, others are dates; give one kind."
        )
    return dates


def _read_signal(column: pl.Series, path: Path) -> pl.Series:
    if column.dtype != pl.String:
        return column
    numbers = column.str.strip_chars().cast(pl.Float32, strict=False)
    failed = (numbers.is_null() & column.is_not_null()).arg_true()
    if len(failed):
        raise DataError(
            f"table {path}, row {failed[0] + 1}: {column.name} {column[failed[0]]!r} is not a number; "
            f"{len(failed)} row(s) are like it."
        )
    return numbers
