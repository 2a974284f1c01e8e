"""Generated public tables: their schemas, that they are what the manifest says, and the same every time."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter

import polars as pl
import pytest

from onereason.data.simulate.public_items import Universe
from onereason.data.simulate.public_tables import FAULTS, PublicTables, build_universe, main, parse_faults, write_tables
from onereason.errors import ConfigError
from tests.data.public_reference import CLICK, EXPLORER, EXPLORER_DOMAINS, FLAGS, POS, good_sid, read_shards

INTS, FLOATS, TEXTS = pl.List(pl.Int64), pl.List(pl.Float32), pl.List(pl.String)
SMALL = {
    "users": 80,
    "items": 600,
    "entries": 40.0,
    "rows_per_shard": 250,
    "users_per_shard": 30,
    "users_per_group": 10,
}
ALL_FAULTS = dict.fromkeys(FAULTS, 0.05)


def make(folder, schema, **options):
    config = PublicTables(**{"schema": schema, "seed": 5, **SMALL, **options})
    return write_tables(config, folder / schema)["counts"], folder / schema


def test_the_explorer_schema(tmp_path):
    _, folder = make(tmp_path, "explorer")
    users = pl.read_parquet(folder / "OneReason_UserProfile/part-00000.parquet").schema
    video = ("neg_feedback", "like", "comment", "forward", "collect", "watch_time", "play_done", "duration")
    expected = {
        **{f"{prefix}_{column}_list": FLOATS for prefix in ("video", "video_history") for column in video},
        **dict.fromkeys(("video_sampled_pid_list", "video_history_sampled_pid_list"), INTS),
        **dict.fromkeys(("video_ts_list", "video_history_ts_list", CLICK, f"{CLICK}_ts", POS, f"{POS}_ts"), INTS),
        **dict.fromkeys((f"{CLICK}_type", f"{CLICK}_industry", "live_hist_timestamp_list"), TEXTS),
        **dict.fromkeys(("outer_loop_deep_target_pid", "outer_loop_deep_target_pid_ts"), INTS),
        **dict.fromkeys(("ec_item_id_list", "ec_cvr_label_list", "ec_time_ms_list"), INTS),
        **dict.fromkeys(("ec_good_click_item_id_list_extend", "ec_trunc_clk_lag"), INTS),
        **dict.fromkeys(("ec_good_order_item_id_list_extend", "ec_trunc_buy_lag"), INTS),
        **{f"ec_colossus_rs_{c}_list": INTS for c in ("item_id", "is_click", "is_cart", "is_buy", "lagv1")},
        **{f"live_hist_{c}_list": INTS for c in ("author_id", "play_cnt", "valid_play_duration", "like_cnt")},
        "ec_time_ms": pl.Int64,
    }
    assert {column: users[column] for column in expected} == expected
    columns = {
        "Pid2Sid": ("sid_three", FLOATS),
        "Pid2Caption": ("caption", pl.String),
        "Pid2Tag": ("tag_lv3", pl.String),
    }
    for name, (column, kind) in columns.items():
        table = pl.read_parquet(folder / f"OneReason_{name}/part-00000.parquet")
        assert dict(table.schema) == {"pid": pl.Int64, "domain": pl.String, column: kind}
    shards = {name: len(list((folder / f"OneReason_{name}").iterdir())) for name in ("UserProfile", "Pid2Sid")}
    assert shards == {"UserProfile": 3, "Pid2Sid": 3}


def test_the_recif_schema(tmp_path):
    _, folder = make(tmp_path, "recif", users_per_shard=1000)
    users = pl.read_parquet(folder / "onerec_bench_release.parquet").schema
    doubles = pl.List(pl.Float64)
    assert dict(users) == {
        "uid": pl.Int64,
        "split": pl.Int64,
        **{f"hist_video_{c}": INTS for c in ("pid", *FLAGS)},
        **{"hist_ad_pid": doubles, "hist_goods_pid": doubles},
        **{f"target_video_{c}": INTS for c in ("pid", *FLAGS)},
        **{"target_ad_pid": INTS, "target_goods_pid": INTS},
    }
    assert dict(pl.read_parquet(folder / "video_ad_pid2sid-00000.parquet").schema) == {"pid": pl.Int64, "sid": INTS}
    assert dict(pl.read_parquet(folder / "goods_pid2sid.parquet").schema) == {"pid": pl.Int64, "sid": INTS}
    assert dict(pl.read_parquet(folder / "pid2caption-00000.parquet").schema) == {"pid": pl.Int64, "caption": pl.String}


def test_the_planted_faults_of_the_item_tables_are_there(tmp_path):
    counts, folder = make(tmp_path, "explorer", faults=ALL_FAULTS)
    found: Counter[str] = Counter()
    first: dict[tuple[str, int], list[float]] = {}
    for _, row in read_shards(folder, "OneReason_Pid2Sid"):
        found["rows"] += 1
        key = (row["domain"], row["pid"])
        if row["domain"] not in EXPLORER_DOMAINS:
            found["unknown_domain"] += 1
        elif not good_sid(row["sid_three"]):
            found["broken"] += 1
        elif key in first:
            found["duplicate" if first[key] == row["sid_three"] else "conflicting"] += 1
        else:
            first[key] = row["sid_three"]
    planted = dict(counts["tables"]["sids"])
    broken = sum(planted.pop(name) for name in ("wrong_length", "out_of_range", "not_whole"))
    assert planted.pop("usable") == 600 + found["duplicate"] + found["conflicting"]
    assert dict(found) == planted | {"broken": broken} and len(first) == 600
    # 250 + 250 + 100 rows: 5 % of each is 12 (round half to even), 12, 5
    assert (found["duplicate"], found["conflicting"], broken, found["unknown_domain"]) == (29, 29, 29, 29)
    assert len({pid for _, pid in first}) < 600, "pids repeat over domains"

    for name, table in (("captions", "OneReason_Pid2Caption"), ("tags", "OneReason_Pid2Tag")):
        rows = [row for _, row in read_shards(folder, table)]
        column = "caption" if name == "captions" else "tag_lv3"
        keys = [(row["domain"], row["pid"]) for row in rows if row["domain"] in EXPLORER_DOMAINS]
        blank = [row[column] for row in rows if not (row[column] or "").strip()]
        assert counts["tables"][name] == {
            "rows": len(rows), "duplicate": len(keys) - len(set(keys)), "blank": len(blank),
            "unknown_domain": len(rows) - len(keys),
        }  # fmt: skip
        assert set(keys) <= set(first) and len(set(keys)) == {"captions": 348, "tags": 90}[name]
        assert None in blank and any(blank)
        if name == "tags":
            assert "goods" not in {domain for domain, _ in keys}


def test_the_planted_faults_of_users_are_there(tmp_path):
    counts, folder = make(tmp_path, "explorer", faults=ALL_FAULTS)
    sids = {
        (EXPLORER_DOMAINS[row["domain"]], row["pid"])
        for _, row in read_shards(folder, "OneReason_Pid2Sid")
        if row["domain"] in EXPLORER_DOMAINS and good_sid(row["sid_three"])
    }
    rows = [row for _, row in read_shards(folder, "OneReason_UserProfile")]
    assert len(rows) == counts["users"]["found"] == 80
    unequal = timeless = silent = 0
    for name, domain, items, kind, times, signals, _ in EXPLORER:
        family: Counter[str] = Counter()
        for row in rows:
            ids = row[items] or []
            family["found"] += len(ids)
            lists = [row[c] for c in [times, *signals] if row[c] is not None]
            if any(len(other) != len(ids) for other in lists):
                unequal += 1
                family["unequal_lists"] += len(ids)
                continue
            if ids and row[times] is None:
                timeless += 1
                family["no_timestamps"] += len(ids)
                continue
            silent += bool(ids) and any(row[c] is None for c in signals)
            for i, pid in enumerate(ids):
                moment = row[times][i]
                if pid is None:
                    family["null_item"] += 1
                elif moment == "unknown" or (kind == "lag" and moment < 0) or (kind == "absolute" and moment == 0):
                    family["bad_timestamp"] += 1
                elif name == "goods_shown" and not any(row[c][i] for c in signals):
                    family["shown_only"] += 1
                elif (domain, pid) not in sids and not (domain == "video" and ("ad", pid) in sids):
                    family["no_sid"] += 1
                else:
                    family["usable"] += 1
        assert dict(family) == counts["families"][name], name
    assert counts["quarantined"] == {"unequal_lists": unequal, "no_timestamps": timeless} and min(unequal, timeless) > 5
    assert counts["fixed"]["null_signal_lists"] == silent > 0


def test_without_faults_everything_fits(tmp_path):
    counts, folder = make(tmp_path, "explorer")
    assert counts["tables"] == {
        "sids": {"rows": 600, "usable": 600}, "captions": {"rows": 348}, "tags": {"rows": 90}
    }  # fmt: skip
    assert all(set(family) <= {"found", "usable", "shown_only"} for family in counts["families"].values())
    assert counts["quarantined"] == {} and set(counts["fixed"]) == {"rerouted_interactions"}
    # Within a list, times rise by at least a second, so that no two interactions are one.
    for _, row in read_shards(folder, "OneReason_UserProfile"):
        times = row["video_history_ts_list"] or []
        assert all(later - earlier >= 1000 for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize("schema", ["explorer", "recif"])
def test_the_same_configuration_gives_the_same_tables(tmp_path, schema):
    first, folder = make(tmp_path / "a", schema, faults=ALL_FAULTS)
    again, other = make(tmp_path / "b", schema, faults=ALL_FAULTS)
    assert first == again
    files = sorted(p.relative_to(folder) for p in folder.rglob("*.parquet"))
    assert files and all(pl.read_parquet(folder / p).equals(pl.read_parquet(other / p)) for p in files)
    changed, _ = make(tmp_path / "c", schema, faults=ALL_FAULTS, seed=6)
    assert changed != first


def test_pids_are_unique_in_a_domain_and_unknown_ones_are_nobodys():
    universe = build_universe(PublicTables(items=5000))
    seen: dict[int, set[str]] = {}
    for domain, size in universe.sizes.items():
        pids = universe.pids(domain, pl.arange(0, 2 * size, eager=True).to_numpy())
        assert len(set(pids.tolist())) == 2 * size
        for pid in pids[:size].tolist():
            seen.setdefault(pid, set()).add(domain)
        assert not set(pids[size:].tolist()) & set(universe.pids(domain, pl.arange(0, size, eager=True).to_numpy()))
    shared = [domains for domains in seen.values() if len(domains) > 1]
    assert len(shared) == 5 and all(domains == {"video", "ad", "prod", "living"} for domains in shared)


def test_positions_are_shuffled_without_repetition():
    universe = Universe({"video": 70, "ad": 20, "prod": 7})
    number, i = universe.locate(pl.arange(0, 97, eager=True).to_numpy(), ("video", "ad", "prod"))
    assert sorted(zip(number.tolist(), i.tolist(), strict=True)) == [
        (n, i) for n, size in enumerate((70, 20, 7)) for i in range(size)
    ]
    assert number.tolist() != sorted(number.tolist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schema": "netflix"}, "schema 'netflix' is not known; use explorer or recif"),
        ({"users": 0}, "users must be at least 1, got 0"),
        ({"items": 50}, "items must be at least 100"),
        ({"items": 100, "captions": 101}, "captions must be 0 to 100 for 100 items, got 101"),
        ({"items": 1000, "schema": "recif", "captions": 900}, "captions must be 0 to 875 for 1000 items, got 900"),
        ({"faults": {"gremlins": 0.1}}, "fault gremlins=0.1 should be one of duplicate_sids"),
        ({"faults": {"no_sid": 0.5}}, "fault no_sid=0.5 should be .* with a share of 0 to 0.3"),
    ],
)
def test_the_configuration_is_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        PublicTables(**options)


def test_faults_on_the_command_line():
    assert parse_faults(["no_sid=0.02", "null_items=0"]) == {"no_sid": 0.02, "null_items": 0.0}
    with pytest.raises(ConfigError, match="--fault 'no_sid' is not of the form name=share"):
        parse_faults(["no_sid"])


def test_the_command(tmp_path, capsys, repository):
    command = [sys.executable, "-m", "onereason.data.simulate.public_tables", "--schema", "recif", "--out"]
    arguments = [str(tmp_path / "out"), "--users", "5", "--items", "100", "--captions", "0", "--fault", "no_sid=0.1"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=repository, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "sids: 100 rows" in done.stdout and "users: 5 rows" in done.stdout and done.stderr == ""
    assert len(read_shards(tmp_path / "out", "onerec_bench_release")) == 5
    assert main(["--out", str(tmp_path / "out")]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
