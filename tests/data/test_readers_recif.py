"""OpenOneRec's RecIF tables: a hand-written corpus for every rule, a generated one against plain loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from onereason.data.readers.recif import LAYOUT
from onereason.data.readers.streaming.importer import ImportOptions, import_corpus
from onereason.data.readers.streaming.layout import HISTORY_END
from onereason.data.schema import load_dataset
from onereason.data.simulate.public_tables import FAULTS, PublicTables, write_tables
from onereason.data.timelines import build_timelines, split_temporal
from onereason.errors import DataError
from onereason.itemic.catalog import Catalog
from tests.data.public_reference import FLAGS, Reference, check_import

INTS, DOUBLES = pl.List(pl.Int64), pl.List(pl.Float64)
SCHEMA: dict[str, Any] = {
    "uid": pl.Int64,
    "split": pl.Int8,
    **{f"{part}_video_{c}": INTS for part in ("hist", "target") for c in ("pid", *FLAGS)},
    "hist_ad_pid": DOUBLES,
    "target_ad_pid": INTS,
    "hist_goods_pid": DOUBLES,
    "target_goods_pid": INTS,
    "hist_longview_video_list": DOUBLES,
}
SMALL = ImportOptions(memory_limit="500MB", threads=1)


def videos(part: str, pids: list[int], **flags: list[int] | None) -> dict[str, Any]:
    """The video lists of a user, with zeros for flags that are not given."""
    row: dict[str, Any] = {f"{part}_video_{flag}": [0] * len(pids) for flag in FLAGS}
    return {f"{part}_video_pid": pids, **row, **{f"{part}_video_{flag}": v for flag, v in flags.items()}}


def write_corpus(
    folder: Path,
    users: list[dict[str, Any]],
    video_ad: list[tuple[Any, ...]],
    goods: list[tuple[Any, ...]],
    captions: list[tuple[Any, ...]],
    goods_name: str = "goods_pid2sid",
    caption: str = "caption",
) -> Path:
    folder.mkdir(parents=True)
    rows = [{column: user.get(column) for column in SCHEMA} for user in users]
    pl.DataFrame(rows, schema=SCHEMA).write_parquet(folder / "onerec_bench_release.parquet")
    for name, column, kind, values in (
        ("video_ad_pid2sid", "sid", INTS, video_ad),
        (goods_name, "sid", INTS, goods),
        ("pid2caption", caption, pl.String, captions),
    ):
        table = pl.DataFrame(values, schema={"pid": pl.Int64, column: kind}, orient="row")
        table.write_parquet(folder / f"{name}.parquet")
    return folder


def run(folder: Path, out: Path, options: ImportOptions = SMALL) -> dict[str, Any]:
    return import_corpus(LAYOUT, [folder], out / "data", out / "catalog", options)


def events(out: Path) -> list[tuple[Any, ...]]:
    table = pl.read_parquet(out / "data/interactions.parquet")
    return table.select("user_id", "item_id", "timestamp", "action").rows()


SIDS = [(n, [n, n, n]) for n in range(1, 10)]
END = 1_000_000


@pytest.mark.parametrize(
    ("goods_name", "caption"), [("goods_pid2sid", "caption"), ("product_pid2sid", "dense_caption")]
)
def test_a_whole_user(tmp_path, goods_name, caption):
    user = {
        "uid": 42,
        "split": 1,
        **videos("hist", [1, 2, 3], longview=[1, 0, 1], not_interested=[0, 1, 0]),
        **videos("target", [4, 5], like=[0, 1]),
        "hist_ad_pid": [6.0, float("nan"), 7.0],
        "target_ad_pid": [1],
        "hist_goods_pid": [1.0, 2.0],
        "target_goods_pid": [3],
        "hist_longview_video_list": [9.0],
    }
    goods = [(n, [0, 0, n]) for n in (1, 2, 3)]
    texts = [(1, "a film"), (3, "a song"), (2, None), (2, "a game")]
    folder = write_corpus(tmp_path / "in", [user], SIDS, goods, texts, goods_name, caption)
    manifest = run(folder, tmp_path / "out")
    assert events(tmp_path / "out") == [
        ("42", "video:1", END - 3, "play"),
        ("42", "ad:6", END - 3, "click"),
        ("42", "video:2", END - 2, "play"),
        ("42", "prod:1", END - 2, "click"),
        ("42", "video:3", END - 1, "play"),
        ("42", "ad:7", END - 1, "click"),
        ("42", "prod:2", END - 1, "click"),
        ("42", "video:4", END, "play"),
        ("42", "ad:1", END, "click"),
        ("42", "prod:3", END, "click"),
        ("42", "video:5", END + 1, "play"),
    ]
    table = pl.read_parquet(tmp_path / "out/data/interactions.parquet").filter(action="play")
    assert table.select("signal_long_view", "signal_like", "signal_not_interested").rows() == [
        (1, 0, 0), (0, 0, 1), (1, 0, 0), (0, 0, 0), (0, 1, 0),
    ]  # fmt: skip
    assert manifest["rejected"] == {"null_item": 1}
    items = pl.read_parquet(tmp_path / "out/data/items.parquet")
    # Captions name no domain: pid 1 is a video's and an ad's; goods 1 to 3 have a video's pid and get none.
    assert dict(items.select("item_id", "text").rows()) == {
        "video:1": "a film", "ad:1": "a film", "video:2": "a game", "video:3": "a song", "video:4": "", "video:5": "",
        "ad:6": "", "ad:7": "", "prod:1": "", "prod:2": "", "prod:3": "",
    }  # fmt: skip
    assert items["item_id"].to_list()[:3] == ["video:1", "ad:1", "video:2"], "in order of the tables of sids"
    users = pl.read_parquet(tmp_path / "out/data/users.parquet").to_dicts()
    assert users == [
        {"user_id": "42", "file": "onerec_bench_release.parquet", "row": 0, "interactions": 11, "split": 1}
    ]


def test_a_product_has_a_caption_where_no_video_has_its_pid(tmp_path):
    user = {"uid": 1, "target_goods_pid": [1, 20], "target_ad_pid": [1]}
    goods = [(1, [0, 0, 1]), (20, [0, 0, 2])]
    run(write_corpus(tmp_path / "in", [user], SIDS, goods, [(1, "a film"), (20, "a shoe")]), tmp_path / "out")
    items = pl.read_parquet(tmp_path / "out/data/items.parquet").select("item_id", "text").rows()
    assert items == [("ad:1", "a film"), ("prod:1", ""), ("prod:20", "a shoe")]


def test_users_without_an_id_or_with_anothers_are_left_out(tmp_path):
    users = [
        {"uid": 5, **videos("hist", [1, 2])},
        {"uid": None, **videos("hist", [3])},
        {"uid": 5, **videos("hist", [4])},
        {"uid": 6, **videos("hist", [9, 77])},
        {"uid": 7, **videos("hist", [1, 2], like=[1])},
    ]
    manifest = run(write_corpus(tmp_path / "in", users, SIDS, SIDS, []), tmp_path / "out")
    assert [row[:2] for row in events(tmp_path / "out")] == [("5", "video:1"), ("5", "video:2"), ("6", "video:9")]
    counts = manifest["counts"]
    assert counts["quarantined"] == {"null_user": 1, "duplicate_user": 1, "unequal_lists": 1, "empty_history": 1}
    assert counts["found"] == {"items": 18, "users": 5, "interactions": 6}, "lists of users left out are not read"
    assert manifest["rejected"] == {"unequal_lists": 2, "no_sid": 1}
    rejected = pl.read_parquet(tmp_path / "out/data/rejected.parquet")
    assert rejected.select("user_id", "row", "family", "reason", "interactions", "detail").rows() == [
        (None, 1, None, "null_user", 0, None),
        ("5", 2, None, "duplicate_user", 0, None),
        ("7", 4, "video_history", "unequal_lists", 2, "hist_video_like has 1, hist_video_pid 2"),
        ("7", 4, None, "empty_history", 0, None),
    ]


def test_columns_are_checked(tmp_path):
    folder = write_corpus(tmp_path / "in", [{"uid": 1, **videos("hist", [1])}], SIDS, SIDS, [])
    path = folder / "onerec_bench_release.parquet"
    table = pl.read_parquet(path)
    table.drop("uid").write_parquet(path)
    with pytest.raises(
        DataError, match=r"onerec_bench_release.parquet: column 'uid' is missing \(expected whole numbers"
    ):
        run(folder, tmp_path / "out")
    table.with_columns(uid=pl.lit("x")).write_parquet(path)
    with pytest.raises(DataError, match=r"column 'uid' should be whole numbers \(int64\), is VARCHAR"):
        run(folder, tmp_path / "out")
    table.write_parquet(path)
    pl.DataFrame({"pid": [1], "text": ["x"]}).write_parquet(folder / "pid2caption.parquet")
    with pytest.raises(DataError, match=r"pid2caption.parquet: column 'caption' is missing \(expected text"):
        run(folder, tmp_path / "out")


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recif")
    config = PublicTables(
        schema="recif", users=150, items=900, captions=500, entries=60, faults=dict.fromkeys(FAULTS, 0.03), seed=4,
        rows_per_shard=400, users_per_shard=60, users_per_group=25,
    )  # fmt: skip
    return folder / "in", write_tables(config, folder / "in")


def test_an_import_finds_what_plain_loops_find(generated, tmp_path):
    folder, truth = generated
    manifest = run(folder, tmp_path)
    reference = Reference(folder, "recif")
    check_import(reference, tmp_path / "data", tmp_path / "catalog", manifest)
    assert len(reference.interactions) > 5000 and reference.quarantined["duplicate_user"] == 5
    counts, planted = manifest["counts"], truth["counts"]
    for name, group in planted["tables"].items():
        assert {k: v for k, v in counts["tables"][name].items() if k != "joined"} == group, name
    for name, family in planted["families"].items():
        found = dict(counts["families"][name])
        usable = found.pop("kept") + found.pop("duplicate_interactions", 0)
        assert found | {"usable": usable} == family, name
    assert counts["fixed"] == planted["fixed"]
    assert counts["quarantined"]["duplicate_user"] == planted["users"]["duplicate_user"]


def test_the_toolkit_reads_what_was_imported(generated, tmp_path):
    folder, _ = generated
    run(folder, tmp_path)
    dataset, catalog = load_dataset(tmp_path / "data"), Catalog.load(tmp_path / "catalog")
    assert catalog.format.name == "openonerec" and set(catalog.domains) == {"video", "ad", "prod"}
    timelines = build_timelines(dataset.interactions, catalog.index)
    # A split at the end of the histories makes the targets the answers.
    split = split_temporal(timelines, HISTORY_END - 1, HISTORY_END)
    reference = [row for row in Reference(folder, "recif").interactions if row[2] >= HISTORY_END]
    with_history = {row[0] for row in Reference(folder, "recif").interactions if row[2] < HISTORY_END}
    expected = [item for user, item, *_ in reference if user in with_history]
    assert [catalog.item_ids[i] for targets in split.test.targets for i in targets.tolist()] == expected
    assert catalog.render(0).endswith("<|sid_end|>")
