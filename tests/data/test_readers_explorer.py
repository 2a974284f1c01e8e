"""The OneReason Explorer tables: a hand-written corpus for every rule, generated ones against plain loops."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest

from onereason.data.readers.streaming import importer
from onereason.data.readers.streaming.importer import ImportOptions
from onereason.data.schema import load_dataset
from onereason.data.simulate.public_tables import FAULTS, PublicTables, write_tables
from onereason.data.timelines import build_timelines, split_leave_one_out
from onereason.itemic.catalog import Catalog
from tests.data.public_corpus import CODES, GOODS, VIDEOS, events, rejects, run, video, write_corpus
from tests.data.public_reference import CLICK, POS, Reference, check_import

DAY = 86_400


def test_a_whole_user(tmp_path):
    folder = write_corpus(
        tmp_path / "in",
        [
            {},
            {
                **video([1, 2], [1000, 2000], like=[1.0, 0.0], watch_time=[3.5, 60.0], duration=[10.0, 61.0]),
                **video([3], [9000], "video", play_done=[1.0]),
                CLICK: [7, 8],
                f"{CLICK}_ts": [3000, 4000],
                f"{CLICK}_type": ["a", "b"],
                f"{CLICK}_industry": ["c", "d"],
                POS: [7],
                f"{POS}_ts": [3500],
                "outer_loop_deep_target_pid": [8],
                "outer_loop_deep_target_pid_ts": [9500],
                "ec_item_id_list": [1, 2],
                "ec_cvr_label_list": [0, 1],
                "ec_time_ms_list": [5000, 6000],
                "live_hist_author_id_list": [1],
                "live_hist_timestamp_list": ["19700102"],
                "live_hist_play_cnt_list": [4],
                "live_hist_valid_play_duration_list": [120],
                "live_hist_like_cnt_list": [2],
            },
        ],
        [*VIDEOS[:3], (7, "video/ad", [7, 7, 7]), (8, "video/ad", [8, 8, 8]), *GOODS[:2], (1, "live", [1, 1, 1])],
        [(1, "video/video", "first"), (1, "goods", "a shoe"), (1, "live", "['tea']")],
        [(1, "video/video", 'Food/"Tea"')],
    )
    manifest = run(folder, tmp_path / "out")
    assert events(tmp_path / "out") == [
        ("u00000001", "video:1", 1000, "play"),
        ("u00000001", "video:2", 2000, "play"),
        ("u00000001", "ad:7", 3000, "click"),
        ("u00000001", "ad:7", 3500, "convert"),
        ("u00000001", "ad:8", 4000, "click"),
        ("u00000001", "prod:1", 5000, "click"),
        ("u00000001", "prod:2", 6000, "order"),
        ("u00000001", "video:3", 9000, "play"),
        ("u00000001", "ad:8", 9500, "convert"),
        ("u00000001", "living:1", DAY, "watch"),
    ]
    table = pl.read_parquet(tmp_path / "out/data/interactions.parquet")
    first, ad, live = (table.row(n, named=True) for n in (0, 2, 9))
    assert {k: v for k, v in first.items() if k.startswith("signal_") and v is not None} == {
        "signal_neg_feedback": 0, "signal_like": 1, "signal_comment": 0, "signal_forward": 0, "signal_collect": 0,
        "signal_watch_seconds": 3.5, "signal_play_done": 0, "signal_duration_seconds": 10,
    }  # fmt: skip
    assert all(v is None for k, v in ad.items() if k.startswith("signal_"))
    assert {k: v for k, v in live.items() if k.startswith("signal_") and v is not None} == {
        "signal_play_count": 4, "signal_valid_play_duration": 120, "signal_like_count": 2,
    }  # fmt: skip
    items = {row["item_id"]: row for row in pl.read_parquet(tmp_path / "out/data/items.parquet").to_dicts()}
    assert items["video:1"]["text"] == "first" and json.loads(items["video:1"]["attributes"]) == {"tag": 'Food/"Tea"'}
    assert items["living:1"]["text"] == "['tea']" and items["prod:1"]["text"] == "a shoe"
    assert items["video:2"]["text"] == "" and items["video:2"]["attributes"] == "{}"
    counts = manifest["counts"]
    assert (counts["items"], counts["users"], counts["interactions"]) == (8, 1, 10)
    assert counts["found"] == {"items": 8, "users": 2, "interactions": 10}
    assert counts["misses"] == {
        "interactions_no_sid": 0, "items_no_sid": 0, "items_no_caption": 5, "items_no_tag": 7,
    }  # fmt: skip
    assert counts["quarantined"] == {"empty_history": 1} and manifest["rejected"] == {}
    name = "OneReason_UserProfile.parquet"
    assert rejects(tmp_path / "out") == [("u00000000", name, 0, None, "empty_history", 0, None)]
    users = pl.read_parquet(tmp_path / "out/data/users.parquet").to_dicts()
    assert users == [{"user_id": "u00000001", "file": name, "row": 1, "interactions": 10}]


def test_lists_that_do_not_fit_are_quarantined_and_the_rest_stays(tmp_path):
    short = video([1, 2, 3], [10, 20, 30])
    short["video_history_like_list"] = [0.0, 0.0]
    orphan = video([1], [40])
    orphan["video_sampled_pid_list"], orphan["video_like_list"] = None, [1.0]
    timeless = video([2, 3], [50, 60])
    timeless["video_history_ts_list"] = None
    empty = video([4], [70])
    empty["video_history_collect_list"] = []
    silent = video([5, 6], [80, 90])
    silent["video_history_forward_list"] = None
    industry = {CLICK: [7], f"{CLICK}_ts": [5], f"{CLICK}_type": ["a"], f"{CLICK}_industry": ["b", "c"]}
    users = [{**short, **video([8], [100], "video")}, orphan, timeless, empty, silent, industry]
    folder = write_corpus(tmp_path / "in", users, [*VIDEOS, (7, "video/ad", [0, 0, 0])])
    manifest = run(folder, tmp_path / "out")
    assert events(tmp_path / "out") == [
        ("u00000000", "video:8", 100, "play"),
        ("u00000001", "video:1", 40, "play"),
        ("u00000004", "video:5", 80, "play"),
        ("u00000004", "video:6", 90, "play"),
    ]
    file = "OneReason_UserProfile.parquet"
    items = "video_history_sampled_pid_list"
    assert rejects(tmp_path / "out") == [
        ("u00000000", file, 0, "video_history", "unequal_lists", 3, f"video_history_like_list has 2, {items} 3"),
        ("u00000001", file, 1, "video", "unequal_lists", 0, "video_like_list has 1, video_sampled_pid_list 0"),
        ("u00000002", file, 2, "video_history", "no_timestamps", 2, "video_history_ts_list"),
        ("u00000002", file, 2, None, "empty_history", 0, None),
        ("u00000003", file, 3, "video_history", "unequal_lists", 1, f"video_history_collect_list has 0, {items} 1"),
        ("u00000003", file, 3, None, "empty_history", 0, None),
        ("u00000005", file, 5, "ad_click", "unequal_lists", 1, f"{CLICK}_industry has 2, {CLICK} 1"),
        ("u00000005", file, 5, None, "empty_history", 0, None),
    ]
    assert manifest["counts"]["quarantined"] == {"unequal_lists": 4, "no_timestamps": 1, "empty_history": 3}
    assert manifest["counts"]["fixed"] == {"null_signal_lists": 1}
    assert manifest["rejected"] == {"unequal_lists": 5, "no_timestamps": 2}
    assert pl.read_parquet(tmp_path / "out/data/interactions.parquet")["signal_forward"].to_list() == [0, 0, None, None]


def test_entries_that_cannot_be_read_are_left_out_one_by_one(tmp_path):
    row = video([1, 2, 3, 4], [10, 20, 30, 40])
    row["video_history_sampled_pid_list"][1] = None
    row["video_history_ts_list"] = [10, 20, 0, None]
    row |= {
        "live_hist_author_id_list": [1, 2, 3, 4, 5, 6],
        "live_hist_timestamp_list": ["2025-01-02", "20250230", "soon", None, "20250101", "1735689601000"],
    }
    sids = [*VIDEOS, *[(n, "live", [n, n, n]) for n in range(1, 7)]]
    folder = write_corpus(tmp_path / "in", [row], sids)
    manifest = run(folder, tmp_path / "out")
    new_year = 1_735_689_600  # 1 January 2025, 00:00 UTC
    assert events(tmp_path / "out") == [
        ("u00000000", "video:1", 10, "play"),
        ("u00000000", "living:5", new_year, "watch"),
        ("u00000000", "living:6", new_year + 1, "watch"),
        ("u00000000", "living:1", new_year + DAY, "watch"),
    ]
    assert manifest["rejected"] == {"null_item": 1, "bad_timestamp": 5}
    file = "OneReason_UserProfile.parquet"
    assert rejects(tmp_path / "out") == [
        ("u00000000", file, 0, "video_history", "null_item", 1, "video_history_sampled_pid_list"),
        ("u00000000", file, 0, "video_history", "bad_timestamp", 2, "video_history_ts_list"),
        ("u00000000", file, 0, "live", "bad_timestamp", 3, "live_hist_timestamp_list"),
    ]


def test_ids_written_as_floats_are_read_where_they_are_whole(tmp_path):
    folder = write_corpus(tmp_path / "in", [video([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])], VIDEOS)
    path = folder / "OneReason_UserProfile.parquet"
    ids = pl.Series("video_history_sampled_pid_list", [[1.0, float("nan"), 2.5, float("inf"), 2.0**60]])
    pl.read_parquet(path).with_columns(ids).write_parquet(path)
    manifest = run(folder, tmp_path / "out")
    assert events(tmp_path / "out") == [("u00000000", "video:1", 1, "play")]
    assert manifest["rejected"] == {"null_item": 1, "bad_item_id": 3}


def test_semantic_ids_are_checked_row_by_row(tmp_path):
    folder = write_corpus(
        tmp_path / "in",
        [video([1, 2, 3, 4, 5, 6, 7, 8], list(range(1, 9)))],
        [
            (1, "video/video", [0.0, 8191.0, 5.0]),
            (2, "video/video", [1.0, 2.0]),
            (3, "video/video", [1.0, 2.0, 8192.0]),
            (4, "video/video", [1.0, -1.0, 3.0]),
            (5, "video/video", [1.0, 2.5, 3.0]),
            (6, "video/video", [1.0, None, 3.0]),
            (7, "video/video", None),
            (8, "music", [1.0, 2.0, 3.0]),
            (None, "video/video", [1.0, 2.0, 3.0]),
            (9, None, [1.0, 2.0, 3.0]),
        ],
    )
    manifest = run(folder, tmp_path / "out")
    assert events(tmp_path / "out") == [("u00000000", "video:1", 1, "play")]
    counts = manifest["counts"]
    assert counts["tables"]["sids"] == {
        "rows": 10, "usable": 1, "null_pid": 1, "unknown_domain": 2, "wrong_length": 2, "not_whole": 2,
        "out_of_range": 2,
    }  # fmt: skip
    assert manifest["rejected"] == {"no_sid": 7}
    assert counts["misses"]["interactions_no_sid"] == 7 and counts["misses"]["items_no_sid"] == 7
    assert counts["examples"]["no_sid"] == [f"video:{n}" for n in range(2, 7)]
    assert counts["examples"]["sids: out_of_range"] == ["pid 3", "pid 4"]
    assert pl.read_parquet(tmp_path / "out/catalog/catalog.parquet")["codes"].to_list() == [[0, 8191, 5]]


def test_the_first_row_of_a_key_wins_over_all_shards(tmp_path):
    folder = write_corpus(tmp_path / "in", [{**video([1, 2, 3], [1, 2, 3])}], VIDEOS[:1], [(1, "video/video", "one")])
    schema = {"pid": pl.Int64, "domain": pl.String, "sid_three": CODES}
    shards = {
        "OneReason_Pid2Sid-00001": [(2, "video/video", [2, 2, 2]), (1, "video/video", [1, 2, 3])],
        "OneReason_Pid2Sid-00002": [
            (1, "goods", [9, 9, 9]),
            (1, "video/video", [4, 4, 4]),
            (3, "video/video", [3, 3, 3]),
        ],
        "OneReason_Pid2Sid-00003": [(1, "video/video", [4, 4, 4]), (2, "video/video", [2, 2, 2])],
    }
    (folder / "OneReason_Pid2Sid.parquet").rename(folder / "OneReason_Pid2Sid-00000.parquet")
    for name, rows in shards.items():
        pl.DataFrame(rows, schema=schema, orient="row").write_parquet(folder / f"{name}.parquet")
    texts = [(2, "video/video", None), (2, "video/video", "  "), (1, "video/video", "again"), (2, "video/video", "two"),
             (2, "video/video", "late"), (1, "music", "x"), (None, "goods", "x"), (77, "goods", "unused")]  # fmt: skip
    schema = {"pid": pl.Int64, "domain": pl.String, "caption": pl.String}
    (folder / "OneReason_Pid2Caption.parquet").rename(folder / "OneReason_Pid2Caption-00000.parquet")
    pl.DataFrame(texts, schema=schema, orient="row").write_parquet(folder / "OneReason_Pid2Caption-00001.parquet")
    manifest = run(folder, tmp_path / "out")
    catalog = pl.read_parquet(tmp_path / "out/catalog/catalog.parquet")
    assert catalog.select("item_id", "codes", "caption").rows() == [
        ("video:1", [1, 2, 3], "one"),
        ("video:2", [2, 2, 2], "two"),
        ("video:3", [3, 3, 3], ""),
    ]
    tables = manifest["counts"]["tables"]
    # Equal to the first: pid 1 in shard 1, pid 2 in shard 3. Other codes: pid 1 in shards 2 and 3.
    assert tables["sids"] == {"rows": 8, "usable": 8, "duplicate": 2, "conflicting": 2}
    assert manifest["counts"]["examples"]["sids: duplicate"] == ["video:1", "video:2"]
    assert manifest["counts"]["examples"]["sids: conflicting"] == ["video:1"]
    # Keys (video, 1) twice and (video, 2) four times: 1 + 3 rows after the first.
    assert tables["captions"] == {
        "rows": 9, "null_pid": 1, "unknown_domain": 1, "blank": 2, "duplicate": 4, "joined": 2,
    }  # fmt: skip
    assert manifest["counts"]["misses"]["items_no_caption"] == 1
    assert manifest["counts"]["examples"]["no_caption"] == ["video:3"]


def test_times_from_10_to_the_11_on_are_milliseconds(tmp_path):
    times = [10**11 - 1, 10**11, 1_770_163_200_999, 10**14 - 1, 10**14, -5]
    folder = write_corpus(tmp_path / "in", [video([1, 2, 3, 4, 5, 6], times)], VIDEOS)
    manifest = run(folder, tmp_path / "out")
    assert events(tmp_path / "out") == [
        ("u00000000", "video:2", 10**8, "play"),
        ("u00000000", "video:3", 1_770_163_200, "play"),
        ("u00000000", "video:1", 10**11 - 1, "play"),
        ("u00000000", "video:4", 10**11 - 1, "play"),
    ]
    assert manifest["rejected"] == {"bad_timestamp": 2}


def goods_user(**columns: Any) -> dict[str, Any]:
    return {
        "ec_good_click_item_id_list_extend": [1, 2],
        "ec_trunc_clk_lag": [5, 0],
        "ec_good_order_item_id_list_extend": [3],
        "ec_trunc_buy_lag": [2],
        **columns,
    }


@pytest.mark.parametrize(
    ("columns", "reference"),
    [
        ({"ec_time_ms": 1_000_000_000_000, **video([1], [10])}, 1_000_000_000),  # the snapshot's own time
        (video([1, 2], [500_000, 400_000]), 500_000),  # the newest time of the user
        ({}, 0),  # no time at all
    ],
)
def test_lags_count_back_from_the_users_reference_time(tmp_path, columns, reference):
    folder = write_corpus(tmp_path / "in", [goods_user(**columns)], [*VIDEOS, *GOODS])
    manifest = run(folder, tmp_path / "out")
    goods = [(item, time, action) for _, item, time, action in events(tmp_path / "out") if item.startswith("prod")]
    hour = 3600
    assert goods == [
        ("prod:1", reference - 5 * hour, "click"),
        ("prod:3", reference - 2 * hour, "order"),
        ("prod:2", reference, "click"),
    ]
    assert manifest["counts"]["fixed"].get("users_without_reference_time", 0) == (reference == 0)


def test_lags_may_count_days(tmp_path):
    folder = write_corpus(tmp_path / "in", [goods_user(ec_time_ms=10**12)], GOODS)
    run(folder, tmp_path / "out", ImportOptions("500MB", 1, lag_unit="days"))
    assert events(tmp_path / "out")[0] == ("u00000000", "prod:1", 10**9 - 5 * DAY, "click")


def test_lags_that_are_no_past_are_left_out(tmp_path):
    row = goods_user(ec_time_ms=10**12, ec_trunc_clk_lag=[-1, None])
    folder = write_corpus(tmp_path / "in", [row], GOODS)
    assert run(folder, tmp_path / "out")["rejected"] == {"bad_timestamp": 2}


SHOWN = {
    "ec_colossus_rs_item_id_list": [1, 2, 3, 4, 5],
    "ec_colossus_rs_is_click_list": [0, 1, 1, 0, None],
    "ec_colossus_rs_is_cart_list": [0, 0, 1, 1, 0],
    "ec_colossus_rs_is_buy_list": [0, 0, 1, 0, 0],
}


def test_shown_goods_count_where_a_flag_says_so(tmp_path):
    row = {"ec_time_ms": 10**12, "ec_colossus_rs_lagv1_list": [1, 2, 3, 4, 5], **SHOWN}
    folder = write_corpus(tmp_path / "in", [row], GOODS)
    manifest = run(folder, tmp_path / "out")
    assert events(tmp_path / "out") == [
        ("u00000000", "prod:4", 10**9 - 4 * 3600, "cart"),
        ("u00000000", "prod:3", 10**9 - 3 * 3600, "order"),
        ("u00000000", "prod:2", 10**9 - 2 * 3600, "click"),
    ]
    assert manifest["rejected"] == {"shown_only": 2}
    assert not (tmp_path / "out/data/rejected.parquet").exists()
    signals = pl.read_parquet(tmp_path / "out/data/interactions.parquet").select(
        "signal_click", "signal_cart", "signal_order"
    )
    assert signals.rows() == [(0, 1, 0), (1, 1, 1), (1, 0, 0)]


@pytest.mark.parametrize("column_is_there", [True, False])
@pytest.mark.parametrize(
    ("timed", "oldest"),
    [
        (video([1, 2], [700, 900]), 700),
        ({**video([1], [10_000]), "ec_good_click_item_id_list_extend": [8], "ec_trunc_clk_lag": [1]}, 6_400),
        ({"ec_time_ms": 5_000_000}, 5_000_000),
        ({}, 0),
    ],
)
def test_shown_goods_without_lags_stand_in_order_before_all_else(tmp_path, timed, oldest, column_is_there):
    folder = write_corpus(tmp_path / "in", [{**SHOWN, **timed}], [*VIDEOS, *GOODS])
    if not column_is_there:
        path = folder / "OneReason_UserProfile.parquet"
        pl.read_parquet(path).drop("ec_colossus_rs_lagv1_list").write_parquet(path)
    run(folder, tmp_path / "out")
    # Five entries in the list: the second, third and fourth stand 4, 3 and 2 before the oldest time.
    assert [(item, time) for _, item, time, _ in events(tmp_path / "out")][:3] == [
        ("prod:2", oldest - 4),
        ("prod:3", oldest - 3),
        ("prod:4", oldest - 2),
    ]


def test_an_ad_in_a_video_list_is_that_ad(tmp_path):
    sids = [
        (1, "video/video", [1, 1, 1]),
        (1, "video/ad", [2, 2, 2]),
        (2, "video/ad", [3, 3, 3]),
        (3, "goods", [4, 4, 4]),
    ]
    folder = write_corpus(tmp_path / "in", [video([1, 2, 3], [1, 2, 3])], sids)
    manifest = run(folder, tmp_path / "out")
    assert events(tmp_path / "out") == [("u00000000", "video:1", 1, "play"), ("u00000000", "ad:2", 2, "play")]
    assert manifest["counts"]["fixed"] == {"rerouted_interactions": 1} and manifest["rejected"] == {"no_sid": 1}
    assert pl.read_parquet(tmp_path / "out/catalog/catalog.parquet")["codes"].to_list() == [[1, 1, 1], [3, 3, 3]]


def test_of_two_interactions_at_one_moment_the_stronger_stays(tmp_path):
    row = {
        **video([1, 1, 1], [5, 5, 6], like=[1, 0, 0]),
        "ec_item_id_list": [1, 1],
        "ec_cvr_label_list": [0, 1],
        "ec_time_ms_list": [7000, 7000],
    }
    folder = write_corpus(tmp_path / "in", [row], [*VIDEOS, *GOODS])
    manifest = run(folder, tmp_path / "out")
    assert events(tmp_path / "out") == [
        ("u00000000", "video:1", 5, "play"),
        ("u00000000", "video:1", 6, "play"),
        ("u00000000", "prod:1", 7000, "order"),
    ]
    assert pl.read_parquet(tmp_path / "out/data/interactions.parquet")["signal_like"].to_list() == [1, 0, None]
    assert manifest["rejected"] == {"duplicate_interactions": 2}


def test_popularity_counts_training_only(tmp_path):
    users = [video([1, 2, 1, 3], [1, 2, 3, 4]), video([1, 2], [1, 2]), video([3], [1]), video([4, 1, 1], [1, 2, 3])]
    folder = write_corpus(tmp_path / "in", users, VIDEOS)
    run(folder, tmp_path / "out")
    # Training: 1 2 | 1 2 | 3 | 4; of the first user the last 1 and 3 are left out, of the last both 1.
    catalog = Catalog.load(tmp_path / "out/catalog")
    assert dict(zip(catalog.item_ids, catalog.popularity.tolist(), strict=True)) == {
        "video:1": 2, "video:2": 2, "video:3": 1, "video:4": 1,
    }  # fmt: skip


def test_users_are_numbered_over_sorted_shards(tmp_path):
    folder = write_corpus(tmp_path / "in", [video([1], [1]), video([2], [2])], VIDEOS)
    users = folder / "OneReason_UserProfile"
    users.mkdir()
    (folder / "OneReason_UserProfile.parquet").rename(users / "part-00001.parquet")
    other = write_corpus(tmp_path / "other", [video([3], [3]), video([4], [4]), video([5], [5])], VIDEOS)
    (other / "OneReason_UserProfile.parquet").rename(users / "part-00000.parquet")
    run(folder, tmp_path / "out")
    expected = [(f"u{n:08d}", f"video:{item}", item, "play") for n, item in enumerate([3, 4, 5, 1, 2])]
    assert events(tmp_path / "out") == expected
    for wanted in (1, 3, 4):
        run(folder, tmp_path / f"out{wanted}", ImportOptions("500MB", 1, max_users=wanted))
        assert events(tmp_path / f"out{wanted}") == expected[:wanted]


# -- generated corpora against plain loops ---------------------------------------------------------------------------

SHARES = {name: 0.03 for name in FAULTS if name != "duplicate_users"}


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explorer")
    config = PublicTables(
        users=150, items=900, captions=500, tags=200, entries=60, faults=SHARES, seed=3, rows_per_shard=400,
        users_per_shard=60, users_per_group=25,
    )  # fmt: skip
    return folder / "in", write_tables(config, folder / "in")


def test_an_import_finds_what_plain_loops_find(generated, tmp_path):
    folder, truth = generated
    manifest = run(folder, tmp_path)
    reference = Reference(folder, "explorer")
    check_import(reference, tmp_path / "data", tmp_path / "catalog", manifest)
    assert len(reference.interactions) > 5000 and reference.quarantined["unequal_lists"] > 10
    counts, planted = manifest["counts"], truth["counts"]
    for name, group in planted["tables"].items():
        assert {k: v for k, v in counts["tables"][name].items() if k != "joined"} == group, name
    for name, family in planted["families"].items():
        found = dict(counts["families"][name])
        usable = found.pop("kept") + found.pop("duplicate_interactions", 0)
        assert found | {"usable": usable} == family, name
    assert counts["fixed"] == planted["fixed"]
    assert {k: counts["quarantined"][k] for k in planted["quarantined"]} == planted["quarantined"]


@pytest.mark.parametrize("threads", [1, 2])
def test_batches_and_threads_leave_the_result_alone(generated, tmp_path, monkeypatch, threads):
    folder, _ = generated
    whole = run(folder, tmp_path / "whole")
    monkeypatch.setattr(importer, "BYTES_AN_ENTRY", 10**6)  # batches of 500 entries instead of one
    parts = run(folder, tmp_path / "parts", ImportOptions("500MB", threads))
    assert parts == whole
    for name in ("data/interactions", "data/items", "data/users", "data/rejected", "catalog/catalog"):
        one, other = (pl.read_parquet(tmp_path / way / f"{name}.parquet") for way in ("whole", "parts"))
        assert one.equals(other), name


def test_the_toolkit_reads_what_was_imported(generated, tmp_path):
    folder, _ = generated
    manifest = run(folder, tmp_path)
    dataset, catalog = load_dataset(tmp_path / "data"), Catalog.load(tmp_path / "catalog")
    assert set(dataset.domains) == {"video", "prod", "ad", "living"} and catalog.format.name == "onereason"
    timelines = build_timelines(dataset.interactions, catalog.index)
    by_user: dict[str, list[str]] = {}
    for user, item, *_ in Reference(folder, "explorer").interactions:
        by_user.setdefault(user, []).append(item)
    assert timelines.user_ids == list(by_user)
    assert [[catalog.item_ids[i] for i in timelines.of(u)] for u in range(len(timelines))] == list(by_user.values())
    training = [item for items in split_leave_one_out(timelines).train for item in items.tolist()]
    assert catalog.popularity.tolist() == [training.count(i) for i in range(len(catalog))]
    meta = json.loads((tmp_path / "catalog/catalog.json").read_text())
    assert meta["counts"] == catalog.collisions() and catalog.collisions()["num_items_in_collision"] > 0
    assert meta["manifest"]["kind"] == "catalog" and manifest["inputs"] == meta["manifest"]["inputs"]
    assert catalog.render(0).startswith(f"<|{catalog.domains[0]}_begin|><s_a_")
