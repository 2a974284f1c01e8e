"""The parts of an import that stand alone: sizes, row ranges, finding tables, quoting."""

from __future__ import annotations

import os
import signal
import threading

import duckdb
import polars as pl
import pytest

from onereason.data.readers import CORPORA, import_dataset
from onereason.data.readers.streaming.batches import cut_rows
from onereason.data.readers.streaming.engine import open_engine, parse_memory, sql_file
from onereason.data.readers.streaming.ledger import Ledger
from onereason.data.readers.streaming.sources import find_shards
from onereason.data.readers.streaming.unfold import MACROS
from onereason.errors import ConfigError, DataError, StorageError


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("512mb", 512 * 10**6), ("1.5 GiB", 3 * 2**29), ("1TB", 10**12)],
)
def test_memory_sizes(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["4", "GB", "4G", "-4GB", "100MB", ""])
def test_memory_sizes_that_are_none_or_too_small(text):
    with pytest.raises(ConfigError, match="memory limit"):
        parse_memory(text)


@pytest.mark.parametrize(
    ("groups", "limit", "ranges"),
    [
        ([], 10, []),
        ([(10, 50)], 10, [(0, 10)]),  # fits as it is
        ([(10, 300)], 10, [(0, 3), (3, 6), (6, 10)]),  # three batches of 100
        ([(10, 40), (10, 40), (10, 40)], 30, [(0, 20), (20, 30)]),  # 40 + 40, then 40
        ([(10, 40), (10, 250), (5, 5)], 25, [(0, 10), (10, 13), (13, 16), (16, 25)]),  # 40 | 3 x 83.3, the last with 5
        ([(2, 10_000)], 2, [(0, 1), (1, 2)]),  # never less than a row
        ([(10, 300)], 5, [(0, 3), (3, 5)]),  # the first five rows only
        ([(10, 0), (10, 0)], 20, [(0, 20)]),
    ],
)
def test_rows_are_cut_into_batches_of_about_100_entries(groups, limit, ranges):
    assert cut_rows(groups, 100, limit) == ranges


def test_tables_are_found_as_a_file_numbered_files_or_a_folder(tmp_path):
    for name in (
        "A.parquet",
        "B-1.parquet",
        "B-0.parquet",
        "B2-0.parquet",
        "B.csv",
        "C/y.parquet",
        "C/x.parquet",
        "C/z.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = {name: find_shards([tmp_path], [name]) for name in "ABCD"}
    assert {n: [p.relative_to(tmp_path).as_posix() for p in files] for n, (_, files) in found.items()} == {
        "A": ["A.parquet"], "B": ["B-0.parquet", "B-1.parquet"], "C": ["C/x.parquet", "C/y.parquet"], "D": [],
    }  # fmt: skip
    assert find_shards([tmp_path], ["X", "A"])[0] == "A", "the name that is there"
    other = tmp_path / "C"
    (other / "D.parquet").write_bytes(b"")
    assert find_shards([tmp_path, other], ["D"])[1] == [other / "D.parquet"], "tables may lie in several folders"
    with pytest.raises(DataError, match="table A stands in 2 places"):
        find_shards([tmp_path], ["A", "B"])


def test_file_names_are_no_patterns(tmp_path):
    for name in ("a[1].parquet", "a1.parquet", "it's*.parquet"):
        pl.DataFrame({"name": [name]}).write_parquet(tmp_path / name)
    for name in ("a[1].parquet", "it's*.parquet"):
        assert duckdb.sql(f"SELECT name FROM read_parquet({sql_file(tmp_path / name)})").fetchall() == [(name,)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("'20250101'", 1735689600),
        ("'2025-01-01'", 1735689600),
        ("'2025-01-01 00:01:00'", 1735689660),
        ("'2025-01-01T00:01:00'", 1735689660),
        ("'1735689600'", 1735689600),
        ("'1735689600123'", 1735689600),
        ("'20251301'", None),
        ("'yesterday'", None),
        ("'abcdefgh'", None),
        ("''", None),
        ("NULL", None),
    ],
)
def test_days_as_seconds(text, seconds):
    with duckdb.connect() as con:
        for macro in MACROS:
            con.execute(macro)
        assert con.execute(f"SELECT date_seconds({text}::VARCHAR)").fetchall() == [(seconds,)]


def test_the_scratch_folder_is_gone_whatever_happens(tmp_path):
    with open_engine(tmp_path / "out", 10**9, 1) as (con, work):
        con.execute("CREATE TABLE t AS SELECT range FROM range(1000)")
        assert work.parent == tmp_path and (work / "scratch.duckdb").is_file()
    with pytest.raises(KeyboardInterrupt), open_engine(tmp_path / "out", 10**9, 1):
        raise KeyboardInterrupt
    small = 3 * 10**8
    with (
        pytest.raises(ConfigError, match=r"needs more memory than the limit of 0\.3 GB; raise --memory-limit"),
        open_engine(tmp_path / "out", small, 1) as (con, _),
    ):
        con.execute("SELECT list(range) FROM range(100_000_000)")
    with (
        pytest.raises(StorageError, match="no space left to spill"),
        open_engine(tmp_path / "out", small, 1) as (con, _),
    ):
        con.execute("SET max_temp_directory_size = '1MB'")
        con.execute("CREATE TEMP TABLE t AS SELECT range, hash(range) AS h FROM range(60_000_000)")
        con.execute("SELECT * FROM t ORDER BY h LIMIT 10_000_000").fetchone()
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_during_a_query_is_an_interrupt(tmp_path):
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt), open_engine(tmp_path / "out", 10**9, 1) as (con, _):
        timer.start()
        con.execute("SELECT sum(hash(a.range + b.range)) FROM range(1_000_000) a, range(1_000_000) b")
    timer.join()
    assert list(tmp_path.iterdir()) == []


def test_examples_are_few_and_different():
    ledger = Ledger()
    ledger.show("no_sid", ["a", "b", "a"])
    ledger.show("no_sid", iter("bcdefg"))
    assert ledger.examples == {"no_sid": ["a", "b", "c", "d", "e"]}


def test_a_corpus_is_no_reader(tmp_path):
    with pytest.raises(ConfigError, match="reader 'explorer' writes to disk"):
        import_dataset("explorer", tmp_path)
    for name, spec in CORPORA.items():
        assert spec.layout.reader == name and spec.help and spec.expects
        families = [family.name for family in spec.layout.users.families]
        assert len(set(families)) == len(families) and set(spec.layout.domain_names) == {
            family.domain for family in spec.layout.users.families
        }
        for family in spec.layout.users.families:
            assert {family.action, *family.raised.values()} <= set(spec.layout.actions)
