"""The public corpora read by plain loops: what an import of a small folder must give, written without the importer.

Column names, times and rules stand here as literals, after the corpora's own descriptions.
"""

from __future__ import annotations

import datetime
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import polars as pl

EXPLORER_DOMAINS = {"video/video": "video", "video/ad": "ad", "goods": "prod", "live": "living"}
STRENGTH = ["play", "watch", "click", "cart", "convert", "order"]
VIDEO_SIGNALS = {
    "neg_feedback": "neg_feedback",
    "like": "like",
    "comment": "comment",
    "forward": "forward",
    "collect": "collect",
    "watch_time": "watch_seconds",
    "play_done": "play_done",
    "duration": "duration_seconds",
}
LIVE_SIGNALS = {
    "play_cnt": "play_count",
    "valid_play_duration": "valid_play_duration",
    "like_cnt": "like_count",
    "show_cnt": "show_count",
    "valid_play_cnt": "valid_play_count",
    "play_duration": "play_duration",
    "comment_cnt": "comment_count",
    "reduce_similar_cnt": "reduce_similar_count",
    "report_live_cnt": "report_count",
    "follow_author_cnt": "follow_count",
}
CLICK = "outer_loop_history_action_pid_list_click"
POS = "outer_loop_history_action_pid_list_pos"

# family, domain, items, kind of time, times, signals, further aligned lists
EXPLORER = [
    *(
        (name, "video", f"{name}_sampled_pid_list", "absolute", f"{name}_ts_list",
         {f"{name}_{c}_list": s for c, s in VIDEO_SIGNALS.items()}, [])
        for name in ("video_history", "video")
    ),
    ("ad_click", "ad", CLICK, "absolute", f"{CLICK}_ts", {}, [f"{CLICK}_type", f"{CLICK}_industry"]),
    ("ad_convert", "ad", POS, "absolute", f"{POS}_ts", {}, []),
    ("ad_target", "ad", "outer_loop_deep_target_pid", "absolute", "outer_loop_deep_target_pid_ts", {}, []),
    ("goods", "prod", "ec_item_id_list", "absolute", "ec_time_ms_list", {"ec_cvr_label_list": "order"}, []),
    ("goods_click", "prod", "ec_good_click_item_id_list_extend", "lag", "ec_trunc_clk_lag", {}, []),
    ("goods_order", "prod", "ec_good_order_item_id_list_extend", "lag", "ec_trunc_buy_lag", {}, []),
    ("goods_shown", "prod", "ec_colossus_rs_item_id_list", "lag", "ec_colossus_rs_lagv1_list",
     {"ec_colossus_rs_is_click_list": "click", "ec_colossus_rs_is_cart_list": "cart",
      "ec_colossus_rs_is_buy_list": "order"}, ["ec_colossus_rs_lagv2_list"]),
    ("live", "living", "live_hist_author_id_list", "date", "live_hist_timestamp_list",
     {f"live_hist_{c}_list": s for c, s in LIVE_SIGNALS.items()}, ["live_hist_live_id_list"]),
]  # fmt: skip
FLAGS = {"longview": "long_view", "like": "like", "follow": "follow", "forward": "forward",
         "not_interested": "not_interested"}  # fmt: skip
RECIF = [
    (f"{kind}_{clock}", domain, f"{part}_{kind}_pid", clock, None,
     {f"{part}_{kind}_{c}": s for c, s in FLAGS.items()} if kind == "video" else {}, [])
    for part, clock in (("hist", "history"), ("target", "target"))
    for kind, domain in (("video", "video"), ("ad", "ad"), ("goods", "prod"))
]  # fmt: skip


def read_shards(folder: Path, *names: str) -> list[tuple[str, dict[str, Any]]]:
    """`(file name, row)` of every row of a table, in order of the shards."""
    for name in names:
        single, inner = folder / f"{name}.parquet", folder / name
        files = (
            [single]
            if single.is_file()
            else sorted(inner.glob("*.parquet")) or sorted(folder.glob(f"{name}-*.parquet"))
        )
        if files:
            return [(path.name, row) for path in files for row in pl.read_parquet(path).to_dicts()]
    return []


def good_sid(codes: Any) -> bool:
    return (
        codes is not None
        and len(codes) == 3
        and all(c is not None and math.isfinite(c) and c == int(c) and 0 <= c < 8192 for c in codes)
    )


class Reference:
    """What an import must find, by loops; see the attributes.

    Attributes:
        interactions: rows `(user_id, item_id, timestamp, action, domain, signals)`, in order.
        families, quarantined, fixed: counts, as the manifest has them.
        rejected: rows `(user_id, family, reason, interactions)`.
        sids: `(domain, pid)` -> `(order, codes)`, the first row of each key.
    """

    def __init__(self, folder: Path, schema: str, lag_seconds: int = 3600):
        self.schema, self.lag_seconds = schema, lag_seconds
        self.families: dict[str, Counter[str]] = defaultdict(Counter)
        self.quarantined: Counter[str] = Counter()
        self.fixed: Counter[str] = Counter()
        self.missing: set[tuple[str, int]] = set()
        self.rejected: list[tuple[str, str | None, str, int]] = []
        self.interactions: list[tuple[str, str, int, str, str, dict[str, float]]] = []
        self.sids: dict[tuple[str, int], tuple[int, tuple[int, ...]]] = {}
        self.captions: dict[tuple[str, int], str] = {}
        self.tags: dict[tuple[str, int], str] = {}
        self._read_items(folder)
        users = read_shards(folder, "OneReason_UserProfile", "onerec_bench_release")
        seen: set[int] = set()
        for number, (_, row) in enumerate(users):
            name = f"u{number:08d}" if schema == "explorer" else str(row["uid"])
            if schema == "recif":
                if row["uid"] in seen:
                    self.quarantined["duplicate_user"] += 1
                    self.rejected.append((name, None, "duplicate_user", 0))
                    continue
                seen.add(row["uid"])
            self._read_user(name, row)

    def _read_items(self, folder: Path) -> None:
        if self.schema == "explorer":
            tables = [(read_shards(folder, "OneReason_Pid2Sid"), "sid_three", [None])]
        else:
            tables = [
                (read_shards(folder, "video_ad_pid2sid"), "sid", ["video", "ad"]),
                (read_shards(folder, "goods_pid2sid", "product_pid2sid"), "sid", ["prod"]),
            ]
        for rows, column, domains in tables:
            for _, row in rows:
                for domain in domains:
                    domain = domain or EXPLORER_DOMAINS.get(row["domain"])
                    if domain and row["pid"] is not None and good_sid(row[column]):
                        codes = tuple(int(c) for c in row[column])
                        self.sids.setdefault((domain, row["pid"]), (len(self.sids), codes))
        if self.schema == "explorer":
            for name, column, texts in (
                ("OneReason_Pid2Caption", "caption", self.captions),
                ("OneReason_Pid2Tag", "tag_lv3", self.tags),
            ):
                for _, row in read_shards(folder, name):
                    domain = EXPLORER_DOMAINS.get(row["domain"])
                    if domain and (row[column] or "").strip():
                        texts.setdefault((domain, row["pid"]), row[column])
        else:
            for _, row in read_shards(folder, "pid2caption"):
                text = row.get("caption", row.get("dense_caption"))
                if (text or "").strip():
                    video = ("video", row["pid"]) in self.sids
                    for domain in ["video", "ad"] + ([] if video else ["prod"]):
                        self.captions.setdefault((domain, row["pid"]), text)

    def find(self, domain: str, pid: int) -> str | None:
        """The domain of the item that a list of `domain` means by `pid`."""
        if (domain, pid) in self.sids:
            return domain
        rerouted = self.schema == "explorer" and domain == "video" and ("ad", pid) in self.sids
        return "ad" if rerouted else None

    def _read_user(self, name: str, row: dict[str, Any]) -> None:
        entries = []  # [kind, value of time, family number, position, domain, pid, action, signals]
        for number, (family, domain, items, kind, times, signals, further) in enumerate(
            EXPLORER if self.schema == "explorer" else RECIF
        ):
            counts = self.families[family]
            ids = row[items] or []
            counts["found"] += len(ids)
            aligned = [row.get(c) for c in ([times] if times else []) + list(signals) + further]
            if any(other is not None and len(other) != len(ids) for other in aligned):
                self._quarantine(name, family, "unequal_lists", len(ids))
                continue
            when = row.get(times) if times else None
            if ids and times and when is None and family != "goods_shown":
                self._quarantine(name, family, "no_timestamps", len(ids))
                continue
            if ids:
                self.fixed["null_signal_lists"] += sum(c in row and row[c] is None for c in signals)
            left_out: Counter[str] = Counter()
            for i, pid in enumerate(ids):
                values = {s: row[c][i] for c, s in signals.items() if row.get(c) is not None and row[c][i] is not None}
                reason, value, tick = None, 0, kind
                if pid is None or pid != pid:
                    reason = "null_item"
                elif pid != int(pid):
                    reason = "bad_item_id"
                else:
                    tick, value = self._time(kind, when, i, len(ids))
                    if value is None:
                        reason = "bad_timestamp"
                    elif family == "goods_shown" and not any(v > 0 for v in values.values()):
                        counts["shown_only"] += 1
                        continue
                if reason:
                    counts[reason] += 1
                    left_out[reason] += 1
                    continue
                entries.append([tick, value, number, i, domain, int(pid), self._action(family, values), values])
            self.rejected += [(name, family, reason, n) for reason, n in sorted(left_out.items())]
        self._finish(name, row, entries)

    def _quarantine(self, name: str, family: str, reason: str, entries: int) -> None:
        self.families[family][reason] += entries
        self.quarantined[reason] += 1
        self.rejected.append((name, family, reason, entries))

    def _time(self, kind: str, when: list[Any] | None, i: int, size: int) -> tuple[str, int | None]:
        if kind == "history":
            return "absolute", 1_000_000 - size + i
        if kind == "target":
            return "absolute", 1_000_000 + i
        if when is None:
            return "untimed", size - i
        if kind == "date":
            try:
                day = datetime.datetime.strptime(when[i], "%Y%m%d").replace(tzinfo=datetime.UTC)
            except (TypeError, ValueError):
                return "absolute", None
            return "absolute", int(day.timestamp())
        if when[i] is None or when[i] < 0 or (kind == "absolute" and when[i] == 0):
            return kind, None
        if kind == "lag":
            return "lag", when[i] * self.lag_seconds
        return "absolute", when[i] // 1000 if when[i] >= 10**11 else when[i]

    def _action(self, family: str, values: dict[str, float]) -> str:
        if family == "goods":
            return "order" if values.get("order", 0) > 0 else "click"
        if family == "goods_shown":
            return next((action for action in ("order", "cart") if values.get(action, 0) > 0), "click")
        plain = {"ad_convert": "convert", "goods_order": "order", "live": "watch"}
        if family == "ad_target":
            return "convert" if self.schema == "explorer" else "click"
        return plain.get(family) or ("play" if family.startswith("video") else "click")

    def _finish(self, name: str, row: dict[str, Any], entries: list[list[Any]]) -> None:
        absolute = [e[1] for e in entries if e[0] == "absolute"]
        lags = [e[1] for e in entries if e[0] == "lag"]
        reference = row.get("ec_time_ms")
        reference = None if reference is None else reference // 1000
        if lags and reference is None and not absolute:
            self.fixed["users_without_reference_time"] += 1
        reference = reference if reference is not None else max(absolute, default=0)
        oldest = min([*absolute, *([reference - max(lags)] if lags else [])], default=reference)
        alike: dict[tuple[str, int, int], list[tuple[Any, ...]]] = defaultdict(list)
        for kind, value, number, i, domain, pid, action, values in entries:
            family = (EXPLORER if self.schema == "explorer" else RECIF)[number][0]
            actual = self.find(domain, pid)
            if actual is None:
                self.families[family]["no_sid"] += 1
                self.missing.add((domain, pid))
                continue
            self.fixed["rerouted_interactions"] += actual != domain
            moment = {"absolute": value, "lag": reference - value, "untimed": oldest - value}[kind]
            rank = (-STRENGTH.index(action), number, i)
            event = (name, f"{actual}:{pid}", moment, action, actual, values)
            alike[actual, pid, moment].append((rank, family, (moment, number, i), event))
        kept = []
        for group in alike.values():
            first, *others = sorted(group, key=lambda entry: entry[0])
            kept.append(first)
            self.families[first[1]]["kept"] += 1
            for other in others:
                self.families[other[1]]["duplicate_interactions"] += 1
        if not kept:
            self.quarantined["empty_history"] += 1
            self.rejected.append((name, None, "empty_history", 0))
        self.interactions += [event for *_, event in sorted(kept, key=lambda entry: entry[2])]

    def catalog(self) -> list[tuple[str, str, list[int], str, int]]:
        """Rows `(item_id, domain, codes, caption, popularity)`; popularity leaves out each user's last two items."""
        uses: Counter[str] = Counter()
        training: Counter[str] = Counter()
        by_user: dict[str, list[str]] = defaultdict(list)
        for user, item, *_ in self.interactions:
            by_user[user].append(item)
            uses[item] += 1
        for items in by_user.values():
            training.update(items[:-2] if len(items) >= 3 else items)
        rows = []
        for (domain, pid), (order, codes) in self.sids.items():
            item = f"{domain}:{pid}"
            if uses[item]:
                rows.append((order, (item, domain, list(codes), self.captions.get((domain, pid), ""), training[item])))
        return [row for _, row in sorted(rows)]


def check_import(reference: Reference, dataset: Path, catalog: Path, manifest: dict[str, Any]) -> None:
    """Every file and count of an import against the reference."""
    table = pl.read_parquet(dataset / "interactions.parquet")
    signals = [c for c in table.columns if c.startswith("signal_")]
    found = [
        (r["user_id"], r["item_id"], r["timestamp"], r["action"], r["domain"],
         {s.removeprefix("signal_"): r[s] for s in signals if r[s] is not None})
        for r in table.iter_rows(named=True)
    ]  # fmt: skip
    assert found == reference.interactions
    items = pl.read_parquet(catalog / "catalog.parquet")
    assert items.select("item_id", "domain", "codes", "caption", "popularity").rows() == reference.catalog()
    listed = pl.read_parquet(dataset / "items.parquet")
    assert listed.select("item_id", "domain", "title", "text").rows() == [
        (item, domain, None, caption) for item, domain, _, caption, _ in reference.catalog()
    ]

    counts = manifest["counts"]
    positive = {name: {k: v for k, v in c.items() if v} for name, c in reference.families.items()}
    assert counts["families"] == positive
    assert counts["quarantined"] == {k: v for k, v in reference.quarantined.items() if v}
    assert counts["fixed"] == {k: v for k, v in reference.fixed.items() if v}
    assert counts["misses"]["items_no_sid"] == len(reference.missing)
    assert counts["misses"]["interactions_no_sid"] == sum(c["no_sid"] for c in reference.families.values())
    assert counts["misses"]["items_no_caption"] == sum(not row[3] for row in reference.catalog())
    total: Counter[str] = Counter()
    for family in reference.families.values():
        total.update({k: v for k, v in family.items() if v and k not in ("found", "kept")})
    assert manifest["rejected"] == dict(total)

    rejected = dataset / "rejected.parquet"
    assert rejected.exists() == bool(reference.rejected)
    if reference.rejected:
        rows = pl.read_parquet(rejected).select("user_id", "family", "reason", "interactions").rows()
        assert sorted(rows, key=str) == sorted(reference.rejected, key=str)
