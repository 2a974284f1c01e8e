"""`onereason data import --reader explorer`: what is printed, and options that do not belong together."""

from __future__ import annotations

import json

import polars as pl
import pytest

from onereason.cli import main
from onereason.data.simulate.public_tables import PublicTables, write_tables
from onereason.itemic.catalog import Catalog


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "in"
    write_tables(PublicTables(users=30, items=300, entries=30, faults={"no_sid": 0.1, "unequal_lists": 0.1}), folder)
    return folder


def command(folder, tmp_path, *more: str) -> int:
    return main(["data", "import", "--in", str(folder), "--out", str(tmp_path / "data"), *more])


def test_an_import_prints_what_it_found_kept_and_missed(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    arguments = ["--reader", "explorer", "--catalog-out", str(tmp_path / "catalog"), "--memory-limit", "500MB"]
    assert command(folder, tmp_path, *arguments, "--threads", "1", "--max-users", "20") == 0
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    manifest = json.loads((tmp_path / "data/manifest.json").read_text())
    counts = manifest["counts"]
    assert counts["found"]["users"] == 20 and manifest["config"]["max_users"] == 20
    history = counts["families"]["video_history"]
    left_out = history["found"] - history["kept"]
    assert f"video_history {history['found']:,} {history['kept']:,} {left_out:,} " in printed
    assert f"no sid {history['no_sid']:,}" in printed
    assert f"missing items no caption {counts['misses']['items_no_caption']:,}" in printed
    assert f"left out of users unequal lists {counts['quarantined']['unequal_lists']:,}" in printed
    assert f"table sids rows {counts['tables']['sids']['rows']:,}" in printed
    assert printed.endswith(f"dataset: {tmp_path / 'data'} catalog: {tmp_path / 'catalog'}")
    assert len(Catalog.load(tmp_path / "catalog")) == counts["items"]
    assert pl.read_parquet(tmp_path / "data/interactions.parquet").height == counts["interactions"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--reader", "explorer"],
            "--reader explorer comes with semantic ids; give their place with --catalog-out DIR.",
        ),
        (["--reader", "recif", "--catalog-out", "c", "--domain", "x"], "--domain does not apply to --reader recif"),
        (["--reader", "recif", "--catalog-out", "c", "--policy", "a=b"], "--policy does not apply to --reader recif"),
        (
            ["--reader", "beauty", "--catalog-out", "c"],
            "--catalog-out does not apply to --reader beauty; leave it out.",
        ),
        (["--reader", "table", "--max-users", "5"], "--max-users does not apply to --reader table"),
        (["--reader", "explorer", "--catalog-out", "c", "--memory-limit", "lots"], "memory limit 'lots' is not a size"),
    ],
)
def test_options_that_do_not_belong_together(folder, tmp_path, capsys, arguments, message):
    assert command(folder, tmp_path, *arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    arguments = ["--reader", "explorer", "--catalog-out", str(tmp_path / "catalog")]
    assert command(tmp_path / "empty", tmp_path, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("onereason data: table OneReason_UserProfile not found in ") and error.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty"]
