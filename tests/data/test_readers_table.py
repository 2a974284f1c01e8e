"""Any CSV or Parquet by a column map, and the `onereason data import` command on it."""

from __future__ import annotations

import gzip
import json
from datetime import datetime

import polars as pl
import pytest

from onereason.cli import main
from onereason.data.readers import import_dataset
from onereason.data.readers.table import parse_column_map, read_table
from onereason.data.schema import load_dataset
from onereason.errors import ConfigError, DataError

EVENTS = "uid,iid,when,kind,secs,note\n007,p,20,click,1.5,a\n007,q,10,buy,,b\n8,p,5,,2,c\n"
ITEMS = 'iid,name,caption,price,color\np,Pen,"A ""blue"" pen\r, fine\nand long",3,blue\nq,Pot,,,\n'
MAP = {"user_id": "uid", "item_id": "iid", "timestamp": "when", "action": "kind", "signal_watch": "secs"}


def write(folder, name: str, content: str | bytes):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_two_csv_files_by_hand(tmp_path):
    items = write(tmp_path, "items.csv", ITEMS)
    dataset = import_dataset(
        "table",
        write(tmp_path, "events.csv", EVENTS),
        columns=MAP,
        items=items,
        item_columns={"item_id": "iid", "title": "name", "text": "caption"},
    )
    assert dataset.interactions.rows() == [
        ("007", "q", 10, "buy", "item", None),
        ("007", "p", 20, "click", "item", 1.5),
        ("8", "p", 5, "interact", "item", 2.0),
    ]
    assert dataset.interactions.columns[-1] == "signal_watch"
    assert dataset.items.rows() == [
        ("p", "item", "Pen", 'A "blue" pen\r, fine\nand long', '{"price": "3", "color": "blue"}'),
        ("q", "item", "Pot", "Pot", "{}"),
    ]
    assert dataset.manifest["config"]["items"] == "items.csv"
    assert set(dataset.manifest["inputs"]) == {"events.csv", "items.csv"}


def test_items_come_from_the_interactions_without_a_file_of_their_own(tmp_path):
    content = "user_id\titem_id\ttitle\tdomain\nu\tp\tPen\tprod\nu\tq\tQuiz\tvideo\nv\tp\tother\tprod\n"
    dataset = import_dataset("table", write(tmp_path, "t.tsv", content))
    assert dataset.items.select("item_id", "domain", "title").rows() == [("p", "prod", "Pen"), ("q", "video", "Quiz")]
    # Without times the order of the rows is the order in time.
    assert dataset.interactions.select("user_id", "item_id", "timestamp", "domain").rows() == [
        ("u", "p", 0, "prod"),
        ("u", "q", 1, "video"),
        ("v", "p", 0, "prod"),
    ]
    assert import_dataset("table", tmp_path / "t.tsv", domain="ad").domains == ["ad"]


def test_parquet_and_gz_equal_csv(tmp_path):
    reference = import_dataset("table", write(tmp_path, "events.csv", EVENTS), columns=MAP)
    zipped = import_dataset("table", write(tmp_path, "e.csv.gz", gzip.compress(EVENTS.encode())), columns=MAP)
    typed = pl.DataFrame(
        {
            "uid": ["007", "007", "8"],
            "iid": ["p", "q", "p"],
            "when": [datetime(1970, 1, 1, 0, 0, second) for second in (20, 10, 5)],
            "kind": ["click", "buy", None],
            "secs": [1.5, None, 2.0],
        }
    )
    typed.write_parquet(tmp_path / "events.parquet")
    parquet = import_dataset("table", tmp_path / "events.parquet", columns=MAP)
    for other in (zipped, parquet):
        assert other.interactions.equals(reference.interactions) and other.items.equals(reference.items)


@pytest.mark.parametrize(
    ("times", "unit", "seconds"),
    [
        (("1500", "2999"), "s", [1500, 2999]),
        (("1500", "2999"), "ms", [1, 2]),
        (("1500000.0", "2999999"), "us", [1, 2]),
        (("1970-01-01", "1970-01-02"), "s", [0, 86400]),
        (("1970-01-01 00:00:10", "1970-01-02 00:00:00"), "s", [10, 86400]),
        (("1970-01-01T00:00:10", "1970-01-02T00:00:00"), "ms", [10, 86400]),
    ],
)
def test_times(tmp_path, times, unit, seconds):
    path = write(tmp_path, "t.csv", "user_id,item_id,timestamp\n" + "".join(f"u,p,{time}\n" for time in times))
    dataset = import_dataset("table", path, time_unit=unit)
    assert dataset.interactions["timestamp"].to_list() == seconds


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user_id,item_id\nu,p\nu,p,q\n", r"t\.csv, line 3: 3 fields, the header has 2"),
        ("user_id,item_id\nu,p\n\nu\n", r"t\.csv, line 4: 1 fields, the header has 2"),
        ('user_id,item_id\n"u\nv",p\nw\n', r"t\.csv, line 4: 1 fields"),
        (b"user_id,item_id\nu,p\xff\n", r"t\.csv, after line 1: .*utf-8"),
        ("", r"t\.csv cannot be read"),
        ("user_id,item\nu,p\n", r"no column 'item_id'; it has user_id, item; name it, e\.g\. --columns item_id=COLUMN"),
        ("user_id,item_id,timestamp\nu,p,1\nu,q,noon\n", r"row 2: timestamp 'noon' is neither .* nor a date; 1 row"),
        ("user_id,item_id,timestamp\nu,p,1\nu,q,2020-01-01\n", r"row 1: timestamp '1' is a number, others are dates"),
        ("user_id,item_id,timestamp\nu,p,1.5\n", r"are not whole numbers, e\.g\. 1\.5"),
        ("user_id,item_id,signal_x\nu,p,1\nu,q,high\n", r"row 2: signal_x 'high' is not a number; 1 row"),
        ("user_id,item_id\n,p\n", "1 of 1 rows have no user_id"),
    ],
)
def test_malformed_tables_are_named(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        import_dataset("table", write(tmp_path, "t.csv", content))


def test_blank_lines_are_no_rows(tmp_path):
    path = write(tmp_path, "t.csv", "user_id,item_id\nu,p\n\nu,q\n\n")
    assert import_dataset("table", path).interactions.height == 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"columns": {"user": "uid"}},
            ConfigError,
            r"columns: 'user' is not a name of the schema; use user_id, .*signal_NAME",
        ),
        ({"columns": {"user_id": "id"}}, DataError, r"column 'id' \(columns: user_id\) is missing; it has uid, iid"),
        (
            {"columns": {**MAP, "title": "note"}, "items": "items.csv"},
            ConfigError,
            "'title' is not a name of the schema",
        ),
        (
            {"columns": MAP, "items": "items.csv", "item_columns": {"price": "price"}},
            ConfigError,
            "item_columns: 'price'",
        ),
        ({"columns": MAP, "items": "items.csv"}, DataError, r"e\.g\. --item-columns item_id=COLUMN"),
        ({"columns": MAP, "items": "absent.csv"}, DataError, "table not found"),
        ({"columns": MAP, "time_unit": "h"}, ConfigError, "time_unit 'h' is not known; use one of s, ms, us, ns"),
    ],
)
def test_wrong_maps_are_named(tmp_path, options, error, message):
    path = write(tmp_path, "events.csv", EVENTS)
    write(tmp_path, "items.csv", ITEMS)
    options = {k: tmp_path / v if k == "items" else v for k, v in options.items()}
    with pytest.raises(error, match=message):
        import_dataset("table", path, **options)


def test_unknown_kinds_and_broken_parquet(tmp_path):
    with pytest.raises(DataError, match=r"the name should end with \.csv, \.tsv, \.tab, \.parquet, \.pq"):
        read_table(write(tmp_path, "t.xlsx", "x"))
    with pytest.raises(DataError, match=r"t\.parquet cannot be read"):
        read_table(write(tmp_path, "t.parquet", "x"))


@pytest.mark.parametrize("text", ["user_id", "user_id=", "=uid", "user_id=uid,,", "user_id=a,user_id=b"])
def test_column_maps_of_another_form_are_refused(text):
    assert parse_column_map("user_id=uid, item_id = iid") == {"user_id": "uid", "item_id": "iid"}
    with pytest.raises(ConfigError, match="column map"):
        parse_column_map(text)


def test_real_captions_with_bare_cr(shared_dir):
    """KuaiRec: 10,728 videos; a bare CR ends no row. Three stand inside captions, a fourth at an unquoted one's end."""
    table = read_table(shared_dir / "data" / "kuairec" / "kuairec_caption_category.csv")
    assert table.height == 10_728
    assert table["caption"].str.contains("\r").sum() == 3
    assert table["video_id"].n_unique() == 10_728


# -- the command --------------------------------------------------------------------------------------------------


def test_command_writes_a_dataset_and_prints_the_counts(tmp_path, capsys):
    events = write(tmp_path, "events.csv", EVENTS + "8,p,5,,2,again\n")
    out = tmp_path / "out"
    columns = ",".join(f"{name}={column}" for name, column in MAP.items())
    arguments = ["data", "import", "--reader", "table", "--in", str(events), "--out", str(out), "--columns", columns]
    assert main([*arguments, "--domain", "prod", "--policy", "min_interactions=1", "duplicates=drop"]) == 0
    printed = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    assert ["found", "2", "2", "4"] in lines and ["kept", "2", "2", "3"] in lines
    assert ["dropped", "duplicate interactions", "1"] in lines
    assert ["fixed", "interactions sorted in time", "1"] in lines
    dataset = load_dataset(out)
    assert dataset.domains == ["prod"]
    assert dataset.manifest["rejected"] == {"duplicate_interactions": 1}
    assert dataset.manifest["config"]["columns"] == MAP
    assert str(tmp_path) not in json.dumps(dataset.manifest)
    # A second run leaves the folder alone unless told otherwise, and the same input gives the same bytes.
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    assert main(arguments) == 2
    assert "exists and is not empty; choose another path or pass --overwrite" in capsys.readouterr().err
    assert main([*arguments, "--domain", "prod", "--overwrite"]) == 0
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--policy", "duplicate=keep"], "--policy: unknown key duplicate; did you mean duplicates?"),
        (
            ["--policy", "duplicates=some"],
            "--policy: duplicates: Input should be 'drop', 'keep' or 'refuse', got 'some'.",
        ),
        (["--policy", "min_interactions=0"], "--policy: policy min_interactions must be at least 1, got 0."),
        (["--policy", "min_interactions"], "--policy 'min_interactions' is not of the form key=value"),
        (["--policy", "time_disorder=refuse"], "1 interactions of 1 user(s) stand after a later one"),
        (["--item-columns", "item_id=iid"], "give it with --items FILE"),
        (["--k-core", "5"], "reader 'table' has no option 'k_core'"),
    ],
)
def test_command_refuses_in_one_line_and_leaves_nothing(tmp_path, capsys, extra, message):
    events = write(tmp_path, "events.csv", EVENTS)
    columns = ",".join(f"{name}={column}" for name, column in MAP.items())
    arguments = ["data", "import", "--reader", "table", "--in", str(events), "--columns", columns]
    assert main([*arguments, "--out", str(tmp_path / "out"), *extra]) == 2
    error = capsys.readouterr().err
    assert error.startswith("onereason data: ") and error.count("\n") == 1
    assert message in error
    assert [p.name for p in tmp_path.iterdir()] == ["events.csv"]
