"""OpenOneRec's RecIF release: `onerec_bench_release`, `video_ad_pid2sid`, `goods_pid2sid`, `pid2caption`.

A row of `onerec_bench_release` is one user with an id (`uid`; the first row of an id counts). Item ids are
`<domain>:<pid>`; videos and ads share one space of pids and one table of sids, goods have their own.

| family | list of items | action | signals |
|---|---|---|---|
| `video_history`, `video_target` | `hist_video_pid`, `target_video_pid` | play | the five flags |
| `ad_history`, `ad_target` | `hist_ad_pid`, `target_ad_pid` | click | |
| `goods_history`, `goods_target` | `hist_goods_pid`, `target_goods_pid` | click | |

- **Times**: the corpus has none. A history is in order, oldest first, and a target comes after every history, so the
  n-th event from the end of a history list gets the timestamp 1,000,000 - n and the n-th of a target list (from 0)
  1,000,000 + n. The temporal split at 1,000,000 therefore parts history from target. How the families interleave is
  not known; at one timestamp they stand in the order of the table above, histories first.
- **Ids as floating-point numbers** (the release pads some lists with NaN) are read where they are whole; a NaN is an
  entry without an item, and counted.
- **Captions** name no domain: they belong to videos and ads, and to a product only where no video or ad has its pid.
- `split` (0 train, 1 test) is kept in `users.parquet`; nothing is left out by it.
- `hist_longview_video_list` repeats videos of the history in an order that cannot be placed, and is left out, as are
  the texts of the interactive and reasoning tasks.
"""

from __future__ import annotations

from onereason.data.readers.streaming.layout import Clock, Family, ItemTable, Layout, UserTable

_FLAGS = {
    "longview": "long_view",
    "like": "like",
    "follow": "follow",
    "forward": "forward",
    "not_interested": "not_interested",
}


def _family(clock: Clock, kind: str, domain: str, action: str, flags: bool = False) -> Family:
    prefix = f"{'hist' if clock == 'history' else 'target'}_{kind}"
    signals = {f"{prefix}_{column}": signal for column, signal in _FLAGS.items()} if flags else {}
    return Family(f"{kind}_{clock}", domain, f"{prefix}_pid", action, clock, signals=signals)


FAMILIES = (
    _family("history", "video", "video", "play", flags=True),
    _family("history", "ad", "ad", "click"),
    _family("history", "goods", "prod", "click"),
    _family("target", "video", "video", "play", flags=True),
    _family("target", "ad", "ad", "click"),
    _family("target", "goods", "prod", "click"),
)
"""The families of a row of `onerec_bench_release`."""

LAYOUT = Layout(
    reader="recif",
    format="openonerec",
    users=UserTable(("onerec_bench_release",), FAMILIES, id="uid", extra=("split",)),
    sids=(
        ItemTable(("video_ad_pid2sid",), ("sid",), domains=("video", "ad")),
        ItemTable(("goods_pid2sid", "product_pid2sid"), ("sid",), domains=("prod",)),
    ),
    captions=(ItemTable(("pid2caption",), ("caption", "dense_caption"), domains=("video", "ad", "prod")),),
    tags=(),
    domains={"video": "video", "ad": "ad", "prod": "prod"},
    actions=("play", "click"),
    captions_yield={"prod": "video"},
)
"""What `onereason.data.readers.streaming.importer.import_corpus` reads."""
