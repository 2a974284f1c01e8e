"""What an import of the Explorer tables refuses before long work, and what it takes although it looks odd."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from onereason.data.readers.explorer import LAYOUT
from onereason.data.readers.streaming.importer import ImportOptions, import_corpus
from onereason.errors import ConfigError, DataError, StorageError
from tests.data.public_corpus import CODES, SMALL, VIDEOS, events, run, video, write_corpus
from tests.data.public_reference import CLICK


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "in", [video([1], [1])], VIDEOS)


def refuse(corpus: Path, tmp_path: Path, match: str, error: type[Exception] = DataError) -> None:
    with pytest.raises(error, match=match):
        run(corpus, tmp_path / "out")
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()], "something was left behind"


@pytest.mark.parametrize(
    ("table", "column", "expected"),
    [
        ("UserProfile", "video_history_ts_list", r"list of numbers \(list\[int64\]\)"),
        ("UserProfile", "ec_colossus_rs_is_buy_list", r"list of numbers \(list\[float\]\)"),
        ("UserProfile", "live_hist_author_id_list", r"list of numbers \(list\[int64\]\)"),
        ("Pid2Sid", "sid_three", r"list of numbers \(list\[float\]\)"),
        ("Pid2Sid", "domain", r"text \(string\)"),
        ("Pid2Caption", "caption", r"text \(string\)"),
        ("Pid2Tag", "pid", r"whole numbers \(int64\)"),
    ],
)
def test_a_missing_column_is_named(corpus, tmp_path, table, column, expected):
    path = corpus / f"OneReason_{table}.parquet"
    pl.read_parquet(path).drop(column).write_parquet(path)
    refuse(
        corpus, tmp_path, f"OneReason_{table}.parquet: column '{column}' is missing \\(expected {expected}\\); it has"
    )


@pytest.mark.parametrize(
    ("table", "column", "value", "message"),
    [
        (
            "UserProfile",
            "video_history_ts_list",
            [["1"]],
            r"should be list of numbers \(list\[int64\]\), is VARCHAR\[\]",
        ),
        (
            "UserProfile",
            "video_history_sampled_pid_list",
            [1],
            r"should be list of numbers \(list\[int64\]\), is BIGINT",
        ),
        ("UserProfile", "ec_time_ms", ["now"], r"should be a number \(int64\), is VARCHAR"),
        ("UserProfile", f"{CLICK}_type", ["x"], r"should be a list, is VARCHAR"),
        ("Pid2Sid", "pid", ["1"] * 8, r"should be whole numbers \(int64\), is VARCHAR"),
        ("Pid2Sid", "sid_three", ["1,2,3"] * 8, r"should be list of numbers \(list\[float\]\), is VARCHAR"),
    ],
)
def test_a_wrong_type_is_named(corpus, tmp_path, table, column, value, message):
    path = corpus / f"OneReason_{table}.parquet"
    pl.read_parquet(path).with_columns(pl.Series(column, value)).write_parquet(path)
    refuse(corpus, tmp_path, f"OneReason_{table}.parquet: column '{column}' {message}")


def test_columns_of_nulls_may_have_any_type(corpus, tmp_path):
    path = corpus / "OneReason_UserProfile.parquet"
    nulls = {c: pl.lit(None) for c in ("live_hist_author_id_list", "live_hist_timestamp_list", "ec_time_ms")}
    texts = {c: pl.lit(None, pl.String) for c in ("ec_item_id_list", "ec_cvr_label_list", "video_like_list")}
    pl.read_parquet(path).with_columns(**nulls, **texts).write_parquet(path)
    run(corpus, tmp_path / "out")
    assert events(tmp_path / "out") == [("u00000000", "video:1", 1, "play")]


def test_columns_the_corpus_may_lack(corpus, tmp_path):
    path = corpus / "OneReason_UserProfile.parquet"
    optional = ["ec_time_ms", "ec_colossus_rs_lagv1_list", "live_hist_comment_cnt_list", f"{CLICK}_type"]
    pl.read_parquet(path).drop(optional).write_parquet(path)
    run(corpus, tmp_path / "out")
    assert events(tmp_path / "out") == [("u00000000", "video:1", 1, "play")]


def test_a_missing_table_says_what_is_there(corpus, tmp_path):
    (corpus / "OneReason_Pid2Tag.parquet").unlink()
    refuse(
        corpus,
        tmp_path,
        r"table OneReason_Pid2Tag not found in .*/in: expected OneReason_Pid2Tag.parquet, OneReason_Pid2Tag-\*.parquet "
        r"or a folder OneReason_Pid2Tag \(there is OneReason_Pid2Caption.parquet, OneReason_Pid2Sid.parquet, One",
    )


def test_a_table_in_two_places_or_an_empty_folder(corpus, tmp_path):
    folder = corpus / "OneReason_Pid2Sid"
    folder.mkdir()
    refuse(corpus, tmp_path, "table OneReason_Pid2Sid: folder .*OneReason_Pid2Sid holds no .parquet file")
    pl.read_parquet(corpus / "OneReason_Pid2Sid.parquet").write_parquet(folder / "part-0.parquet")
    refuse(corpus, tmp_path, "table OneReason_Pid2Sid stands in 2 places .*; keep one of them")


def test_paths_that_are_no_folder_and_files_that_are_no_parquet(corpus, tmp_path):
    refuse(tmp_path / "nothing", tmp_path, "nothing does not exist; --in expects the folder")
    refuse(corpus / "OneReason_Pid2Sid.parquet", tmp_path, "OneReason_Pid2Sid.parquet is a file; --in expects")
    path = corpus / "OneReason_Pid2Caption.parquet"
    path.write_bytes(path.read_bytes()[:200])
    refuse(corpus, tmp_path, "OneReason_Pid2Caption.parquet cannot be read as parquet")


def test_a_file_that_breaks_in_the_middle(corpus, tmp_path):
    path = corpus / "OneReason_Pid2Sid.parquet"
    rows = [(n, "video/video", [float(n % 8192), 1.0, 2.0]) for n in range(50_000)]
    schema = {"pid": pl.Int64, "domain": pl.String, "sid_three": CODES}
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(path, row_group_size=5_000)
    content = bytearray(path.read_bytes())
    content[10_000:30_000] = bytes(20_000)
    path.write_bytes(content)
    refuse(corpus, tmp_path, "OneReason_Pid2Sid.parquet cannot be read as parquet")


def test_nothing_left_says_why(tmp_path):
    folder = write_corpus(tmp_path / "in", [video([99], [1])], VIDEOS)
    refuse(folder, tmp_path, r"explorer: no interaction is left \(dropped: no_sid 1\)")
    refuse(
        write_corpus(tmp_path / "in2", [{}], VIDEOS), tmp_path, "no interaction is left .dropped: none, the lists are"
    )


def test_options_and_places_are_checked(corpus, tmp_path):
    for options, message in (
        ({"memory_limit": "plenty"}, "memory limit 'plenty' is not a size; write e.g. 4GB"),
        ({"memory_limit": "1MB"}, "memory limit 1MB is too small"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"max_users": 0}, "max_users must be at least 1, got 0"),
        ({"lag_unit": "weeks"}, "lag_unit 'weeks' is not known; use hours or days"),
    ):
        with pytest.raises(ConfigError, match=message):
            ImportOptions(**options)
    out = tmp_path / "out"
    for catalog in (out, out / "catalog", tmp_path):
        with pytest.raises(StorageError):
            import_corpus(LAYOUT, [corpus], out, catalog)
    run(corpus, tmp_path / "a")
    with pytest.raises(StorageError, match="exists and is not empty"):
        run(corpus, tmp_path / "a")
    import_corpus(LAYOUT, [corpus], tmp_path / "a/data", tmp_path / "a/catalog", SMALL, overwrite=True)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["catalog", "data"], "the scratch folder is gone"


def test_file_names_with_special_characters(tmp_path):
    folder = write_corpus(tmp_path / "it's [1]*?", [video([1], [1])], VIDEOS)
    run(folder, tmp_path / "o'ut [2]")
    assert events(tmp_path / "o'ut [2]") == [("u00000000", "video:1", 1, "play")]
