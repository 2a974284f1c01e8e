"""The OneReason Explorer corpus: OneReason_UserProfile, OneReason_Pid2Sid, OneReason_Pid2Caption, OneReason_Pid2Tag.

A row of `UserProfile` is one anonymous user; `u` and eight digits number the rows over the sorted shards, from 0. Item
ids are `<domain>:<pid>`, because a pid stands for different items in different domains.

What becomes of the lists:

| family | list of items | action | time |
|---|---|---|---|
| `video_history`, `video` | `video_history_sampled_pid_list`, `video_sampled_pid_list` | play | `..._ts_list` |
| `ad_click` | `outer_loop_history_action_pid_list_click` | click | `..._ts` |
| `ad_convert` | `outer_loop_history_action_pid_list_pos` | convert | `..._ts` |
| `ad_target` | `outer_loop_deep_target_pid` | convert | `..._ts` |
| `goods` | `ec_item_id_list` | click; order where `ec_cvr_label_list` is above 0 | `ec_time_ms_list` |
| `goods_click` | `ec_good_click_item_id_list_extend` | click | lag `ec_trunc_clk_lag` |
| `goods_order` | `ec_good_order_item_id_list_extend` | order | lag `ec_trunc_buy_lag` |
| `goods_shown` | `ec_colossus_rs_item_id_list` | the strongest flag: order, cart, click | lag, see below |
| `live` | `live_hist_author_id_list` (the host is the item) | watch | the day, as midnight UTC |

- **Times** are seconds; a moment of 10^11 or more is read as milliseconds.
- **Lags** are hours before `ec_time_ms`, the moment the goods features were taken. Where that is unknown, they count
  back from the newest time the user has in any other family; a user without any time counts back from 0, so that the
  order is right and the dates mean nothing (counted as `users_without_reference_time`). Analyses of the corpus differ
  on whether a lag is in hours, as its data card says, or in days: `lag_unit` decides.
- **Shown goods** are impressions, mostly never clicked: an entry without a click, cart or buy flag is no interaction
  (counted as `shown_only`). Their lag is `ec_colossus_rs_lagv1_list`. Where it is missing, the entries have no time at
  all: they stand in the order of the list, one second apart, before everything of the user that has a time, so that
  none becomes a target.
- **Ads among videos**: an id of a video list that the table of sids knows as `video/ad` only is that ad.
- Click type and industry of ads are text and no signals; they are left out, but their lengths must fit.
"""

from __future__ import annotations

from onereason.data.readers.streaming.layout import Family, ItemTable, Layout, UserTable


def _video(name: str, prefix: str) -> Family:
    signals = {
        "neg_feedback": "neg_feedback",
        "like": "like",
        "comment": "comment",
        "forward": "forward",
        "collect": "collect",
        "watch_time": "watch_seconds",
        "play_done": "play_done",
        "duration": "duration_seconds",
    }
    return Family(
        name,
        domain="video",
        items=f"{prefix}_sampled_pid_list",
        action="play",
        clock="absolute",
        times=f"{prefix}_ts_list",
        signals={f"{prefix}_{column}_list": signal for column, signal in signals.items()},
    )


def _ad(name: str, items: str, action: str, checked: tuple[str, ...] = ()) -> Family:
    return Family(name, "ad", items, action, "absolute", times=f"{items}_ts", checked=checked)


_CLICK = "outer_loop_history_action_pid_list_click"
_SHOWN = "ec_colossus_rs"
_LIVE_REQUIRED = {
    "play_cnt": "play_count",
    "valid_play_duration": "valid_play_duration",
    "like_cnt": "like_count",
}
_LIVE_OPTIONAL = {
    "show_cnt": "show_count",
    "valid_play_cnt": "valid_play_count",
    "play_duration": "play_duration",
    "comment_cnt": "comment_count",
    "reduce_similar_cnt": "reduce_similar_count",
    "report_live_cnt": "report_count",
    "follow_author_cnt": "follow_count",
}

FAMILIES = (
    _video("video_history", "video_history"),
    _video("video", "video"),
    _ad("ad_click", _CLICK, "click", checked=(f"{_CLICK}_type", f"{_CLICK}_industry")),
    _ad("ad_convert", "outer_loop_history_action_pid_list_pos", "convert"),
    _ad("ad_target", "outer_loop_deep_target_pid", "convert"),
    Family(
        "goods",
        domain="prod",
        items="ec_item_id_list",
        action="click",
        clock="absolute",
        times="ec_time_ms_list",
        signals={"ec_cvr_label_list": "order"},
        raised={"order": "order"},
    ),
    Family("goods_click", "prod", "ec_good_click_item_id_list_extend", "click", "lag", times="ec_trunc_clk_lag"),
    Family("goods_order", "prod", "ec_good_order_item_id_list_extend", "order", "lag", times="ec_trunc_buy_lag"),
    Family(
        "goods_shown",
        domain="prod",
        items=f"{_SHOWN}_item_id_list",
        action="click",
        clock="lag",
        times=f"{_SHOWN}_lagv1_list",
        times_optional=True,
        signals={
            f"{_SHOWN}_is_click_list": "click",
            f"{_SHOWN}_is_cart_list": "cart",
            f"{_SHOWN}_is_buy_list": "order",
        },
        checked=(f"{_SHOWN}_lagv2_list",),
        chosen_by=("click", "cart", "order"),
        raised={"order": "order", "cart": "cart"},
    ),
    Family(
        "live",
        domain="living",
        items="live_hist_author_id_list",
        action="watch",
        clock="date",
        times="live_hist_timestamp_list",
        signals={f"live_hist_{c}_list": s for c, s in (_LIVE_REQUIRED | _LIVE_OPTIONAL).items()},
        optional=frozenset(f"live_hist_{column}_list" for column in _LIVE_OPTIONAL),
        checked=("live_hist_live_id_list",),
    ),
)
"""The families of a row of `OneReason_UserProfile`."""

LAYOUT = Layout(
    reader="explorer",
    format="onereason",
    users=UserTable(("OneReason_UserProfile",), FAMILIES, reference="ec_time_ms"),
    sids=(ItemTable(("OneReason_Pid2Sid",), ("sid_three",)),),
    captions=(ItemTable(("OneReason_Pid2Caption",), ("caption",)),),
    tags=(ItemTable(("OneReason_Pid2Tag",), ("tag_lv3",)),),
    domains={"video/video": "video", "video/ad": "ad", "goods": "prod", "live": "living"},
    actions=("play", "watch", "click", "cart", "convert", "order"),
    rerouted={"video": "ad"},
)
"""What `onereason.data.readers.streaming.importer.import_corpus` reads."""
