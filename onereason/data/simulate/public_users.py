"""Users of generated public tables: their lists, with planted faults, and what an importer must find in them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from onereason.data.readers.streaming.layout import Family, Layout
from onereason.data.simulate.public_items import Universe

if TYPE_CHECKING:
    from onereason.data.simulate.public_tables import PublicTables

NOW_MS = 1_770_163_200_000
"""The newest moment of the corpus: 4 February 2026, 00:00 UTC."""

_DAY_MS = 86_400_000
_REROUTED_SHARE = 0.01
_CHOSEN_SHARE = 0.15
_SHARES = {
    "video_history": (0.50, 1.0),
    "video": (0.03, 0.95),
    "ad_click": (0.05, 0.7),
    "ad_convert": (0.02, 0.5),
    "ad_target": (0.01, 0.1),
    "goods": (0.01, 0.1),
    "goods_click": (0.12, 0.7),
    "goods_order": (0.06, 0.5),
    "goods_shown": (0.15, 0.7),
    "live": (0.05, 0.7),
    "video_target": (0.05, 0.9),
    "ad_history": (0.2, 0.7),
    "goods_history": (0.2, 0.7),
    "goods_target": (0.05, 0.5),
}
"""Family -> its share of all list entries, and the share of users who have any of it."""


@dataclass(frozen=True)
class _Lists:
    """The lists of one family over the users of a shard, and the faults planted in them (at most one a list or entry).

    Attributes:
        lengths, first: entries of each user's list, and where they start among all entries.
        owner: the user of each entry.
        unequal, timeless, silent: users whose list has a shorter aligned list, no times, or a signal that is null.
        unknown, null_item, bad_time: entries whose item has no sid, that have no item, or an unreadable time.
    """

    lengths: np.ndarray
    first: np.ndarray
    owner: np.ndarray
    unequal: np.ndarray
    timeless: np.ndarray
    silent: np.ndarray
    unknown: np.ndarray
    null_item: np.ndarray
    bad_time: np.ndarray


def user_shards(
    config: PublicTables, layout: Layout, universe: Universe, truth: dict[str, Counter[str]]
) -> Iterator[pl.DataFrame]:
    """Shards of the user table; `truth` counts, by family, what the planted faults do to its entries.

    `truth["quarantined"]`, `truth["fixed"]` and `truth["users"]` count lists and users.
    """
    for start in range(0, config.users, config.users_per_shard):
        size = min(config.users_per_shard, config.users - start)
        rng = config.rng(1, start)
        columns: list[pl.Series] = []
        skipped = np.zeros(size, bool)
        if layout.users.id is not None:
            ids = (np.arange(start, start + size) + 1) * 7919
            again = config.draw(rng, "duplicate_users", size - 1) + 1
            ids[again], skipped[again] = ids[0], True
            columns += [pl.Series(layout.users.id, ids), pl.Series("split", (rng.random(size) < 0.1).astype(np.int64))]
            truth["users"]["duplicate_user"] += len(again)
        for family in layout.users.families:
            lists = _draw_lists(config, family, size, rng)
            columns += _family_columns(family, layout, universe, lists, skipped, rng, truth)
        if layout.users.reference is not None:
            moments = pl.Series(layout.users.reference, NOW_MS + rng.integers(0, 3_600_000, size))
            columns.append(_null_unless(rng.random(size) < 0.9, moments))
        truth["users"]["found"] += size
        yield pl.DataFrame(columns)


def _draw_lists(config: PublicTables, family: Family, users: int, rng: np.random.Generator) -> _Lists:
    share, present = _SHARES[family.name]
    mean = max(1.0, config.entries * share / present)
    lengths = np.where(rng.random(users) < present, rng.geometric(1 / mean, users), 0)
    owner = np.repeat(np.arange(users, dtype=np.int32), lengths)
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    of_lists = [
        config.fault("unequal_lists") if family.signals or family.times else 0.0,
        config.fault("null_times") if family.times and not family.times_optional else 0.0,
        config.fault("null_signals") if family.signals and not family.chosen_by else 0.0,
    ]
    of_entries = [
        config.fault("no_sid"),
        config.fault("null_items"),
        config.fault("bad_times") if family.times else 0.0,
    ]
    unequal, timeless, silent = (chosen & (lengths > 0) for chosen in _one_of(of_lists, users, rng))
    return _Lists(lengths, first, owner, unequal, timeless, silent, *_one_of(of_entries, len(owner), rng))


def _one_of(shares: list[float], size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Disjoint masks bool `[size]`, each True for about its share."""
    drawn, edges = rng.random(size), [0.0, *np.cumsum(shares)]
    return [(drawn >= low) & (drawn < high) for low, high in itertools.pairwise(edges)]


def _family_columns(
    family: Family,
    layout: Layout,
    universe: Universe,
    lists: _Lists,
    skipped: np.ndarray,
    rng: np.random.Generator,
    truth: dict[str, Counter[str]],
) -> list[pl.Series]:
    """The list columns of one family, null for users who have none."""
    size = len(lists.owner)
    pids, rerouted = _draw_items(family, layout, universe, lists.unknown, rng)
    if layout.users.id is not None and family.clock == "history" and not family.signals:
        ids = pl.Series(np.where(lists.null_item, np.nan, pids.astype(np.float64)))  # the release pads these with NaN
    else:
        ids = _null_unless(~lists.null_item, pl.Series(pids))
    columns = {family.items: ids}
    if family.times:
        columns[family.times] = _draw_times(family, lists, rng)
    chosen = rng.random(size) < _CHOSEN_SHARE if family.chosen_by else np.ones(size, bool)
    for number, (column, signal) in enumerate(family.signals.items()):
        columns[column] = _draw_signal(family, signal, number, chosen, rng)
    for column in family.checked:
        text = column.endswith(("_type", "_industry"))
        columns[column] = pl.Series(rng.integers(0, 50, size)).cast(pl.String if text else pl.Int64)
    _count(family, truth, lists, skipped, chosen, rerouted)

    flat = pl.DataFrame({"owner": pl.Series(lists.owner).set_sorted(), **columns})
    grouped = flat.group_by("owner", maintain_order=True).agg(pl.all()).drop("owner")
    held = lists.lengths > 0
    index = _null_unless(held, pl.Series(np.maximum(np.cumsum(held) - 1, 0))).cast(pl.UInt32)
    table = grouped.select(pl.all().gather(index))
    aligned = [*([family.times] if family.times else []), *family.signals]
    if lists.unequal.any():
        longer = pl.col(aligned[-1])
        shorter = longer.list.head(longer.list.len() - 1)
        table = table.with_columns(pl.when(pl.Series(lists.unequal)).then(shorter).otherwise(longer))
    for name, missing in ((family.times, lists.timeless), (next(iter(family.signals), None), lists.silent)):
        if name is not None and missing.any():
            table = table.with_columns(_null_unless(~missing, table[name]))
    return table.get_columns()


def _null_unless(keep: np.ndarray, values: pl.Series) -> pl.Series:
    """The values where `keep`, null elsewhere."""
    return pl.select(pl.when(pl.Series(keep)).then(values).alias(values.name)).to_series()


def _draw_items(
    family: Family, layout: Layout, universe: Universe, unknown: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pids by popularity (a few items have most of the entries), and which entries of a video list are ads."""
    domain = "video" if layout.reader == "recif" and family.domain == "ad" else family.domain
    size = universe.sizes[domain]
    i = np.minimum((size * rng.random(len(unknown)) ** 2).astype(np.int64), size - 1)
    pids = universe.pids(domain, np.where(unknown, size + i, i))
    rerouted = np.zeros(len(unknown), bool)
    if other := layout.rerouted.get(family.domain):
        rerouted = ~unknown & (rng.random(len(unknown)) < _REROUTED_SHARE)
        # Pids that several domains share would be the video's.
        ads = rng.integers(universe.shared, universe.sizes[other], len(unknown))
        pids = np.where(rerouted, universe.pids(other, ads), pids)
    return pids, rerouted


def _draw_times(family: Family, lists: _Lists, rng: np.random.Generator) -> pl.Series:
    """Times in order, at least a second apart inside a list; unreadable ones where planted."""
    bad = lists.bad_time
    if family.clock == "lag":
        return pl.Series(np.where(bad, -1, rng.integers(0, 720, len(bad))))
    if family.clock == "date":
        days = pl.Series(NOW_MS - _DAY_MS * rng.integers(1, 400, len(bad))).cast(pl.Datetime("ms"))
        return days.dt.strftime("%Y%m%d").zip_with(pl.Series(~bad), pl.Series(["unknown"]))
    passed = np.cumsum(rng.integers(1000, 1_000_000, len(bad)))
    held = lists.lengths[lists.lengths > 0]
    last = np.repeat(passed[(lists.first + lists.lengths - 1)[lists.lengths > 0]], held)
    newest = NOW_MS if family.name in ("video", "ad_target", "goods") else NOW_MS - _DAY_MS
    return pl.Series(np.where(bad, 0, newest - (last - passed)))


def _draw_signal(family: Family, signal: str, number: int, chosen: np.ndarray, rng: np.random.Generator) -> pl.Series:
    size = len(chosen)
    if family.chosen_by:  # click, cart, order: a click where the entry is an interaction, sometimes more
        more = rng.choice(3, size, p=[0.85, 0.05, 0.10]) == number
        return pl.Series((chosen & more if number else chosen).astype(np.int64))
    if signal.endswith(("seconds", "duration")):
        values = rng.integers(0, 64, size)
    elif signal.endswith("count"):
        values = rng.integers(0, 5, size)
    else:
        values = (rng.random(size) < 0.1).astype(np.int64)
    return pl.Series(values.astype(np.float32 if family.clock == "absolute" and family.domain == "video" else np.int64))


def _count(
    family: Family,
    truth: dict[str, Counter[str]],
    lists: _Lists,
    skipped: np.ndarray,
    chosen: np.ndarray,
    rerouted: np.ndarray,
) -> None:
    counts, lengths = truth[family.name], lists.lengths
    counts["found"] += int(lengths[~skipped].sum())
    for reason, users in (("unequal_lists", lists.unequal), ("no_timestamps", lists.timeless)):
        counts[reason] += int(lengths[users & ~skipped].sum())
        truth["quarantined"][reason] += int((users & ~skipped).sum())
    truth["fixed"]["null_signal_lists"] += int((lists.silent & ~skipped).sum())
    left = ~(lists.unequal | lists.timeless | skipped)[lists.owner]
    entries = {"null_item": lists.null_item, "bad_timestamp": lists.bad_time, "shown_only": ~chosen}
    for reason, those in {**entries, "no_sid": lists.unknown}.items():
        counts[reason] += int((left & those).sum())
        left &= ~those
    counts["usable"] += int(left.sum())
    truth["fixed"]["rerouted_interactions"] += int((left & rerouted).sum())
