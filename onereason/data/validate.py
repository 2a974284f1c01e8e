"""From raw tables to a dataset: every problem is counted, and refused, dropped or fixed as the policy says.

Readers hand over two Polars tables in source order. `validate` casts them to the schema of `onereason.data.schema`,
applies the `Policy`, and writes what it found, kept, dropped and fixed into the dataset's manifest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from onereason.data.control_tokens import CONTROL_PATTERN
from onereason.data.raw import DEFAULT_ACTION, cast_interactions, cast_items
from onereason.data.schema import INTERACTION_SCHEMA, ITEM_SCHEMA, SIGNAL_PREFIX, Dataset
from onereason.errors import ConfigError, DataError
from onereason.io import build_manifest

UNKNOWN_BRANDS = frozenset({"", "unknown", "generic", "n/a", "none", "no brand", "unbranded"})
"""Brand names (lower case) that say there is no brand."""


@dataclass(frozen=True)
class Policy:
    """What happens to rows that break the rules. "refuse" stops with an error that counts them and shows one."""

    duplicates: Literal["drop", "keep", "refuse"] = "drop"
    """Interactions with the same user, item and timestamp: all but the first are dropped, or all kept."""

    unknown_items: Literal["drop", "refuse"] = "refuse"
    """Interactions that name no item, or an item that is not in the item table."""

    time_disorder: Literal["sort", "refuse"] = "sort"
    """Interactions that stand, in the source, after a later one of the same user."""

    empty_histories: Literal["drop", "refuse"] = "drop"
    """Users with fewer than `min_interactions` interactions, among them users with an empty or null item list."""

    null_titles: Literal["fill", "drop", "refuse"] = "fill"
    """Items without a title, where the source has titles: filled from brand and category (or the text), or dropped
    together with their interactions."""

    min_interactions: int = 1
    """The fewest interactions a user needs to be kept."""

    def __post_init__(self) -> None:
        if self.min_interactions < 1:
            raise ConfigError(f"policy min_interactions must be at least 1, got {self.min_interactions}.")


class _Ledger:
    """Counts by reason of what was dropped and what was fixed; reasons that never occur are left out."""

    def __init__(self, rejected: Mapping[str, int] | None = None):
        self.rejected: dict[str, int] = {k: int(v) for k, v in (rejected or {}).items() if v}
        self.fixed: dict[str, int] = {}

    def drop(self, reason: str, count: int) -> None:
        if count:
            self.rejected[reason] = self.rejected.get(reason, 0) + count

    def fix(self, reason: str, count: int) -> None:
        if count:
            self.fixed[reason] = self.fixed.get(reason, 0) + count


def validate(
    items: pl.DataFrame,
    interactions: pl.DataFrame,
    policy: Policy | None = None,
    source: str = "the data",
    *,
    inputs: Iterable[str | Path] = (),
    config: Mapping[str, Any] | None = None,
    found: Mapping[str, int] | None = None,
    rejected: Mapping[str, int] | None = None,
    seed: int | None = None,
) -> Dataset:
    """Fills the schema and applies the policy.

    Args:
        items: `item_id`, and where known `domain`, `title`, `text`, `attributes` (a JSON object as text).
        interactions: in source order: `user_id`, `item_id` (null: the user exists and this row names no item),
            `timestamp` (whole numbers, or dates), and where known `action` and numeric `signal_*` columns.
        policy: what happens to rows that break the rules; the defaults when None.
        source: what error messages call the data.
        inputs: files read, hashed into the manifest.
        config: the reader's configuration, for the manifest.
        found: rows in the source by table name, where the reader itself left some out.
        rejected: what the reader itself left out, by reason.
        seed: for the manifest of generated data.

    Returns:
        The dataset; interactions sorted by user (order of first appearance in the source), then time, then source
        order. `manifest["counts"]` holds what is kept, found and fixed, `manifest["rejected"]` what was dropped.

    Raises:
        DataError: a missing column, a wrong type, null or repeated item ids, null user ids, times that are not whole
            numbers, anything the policy refuses, or nothing left.
    """
    policy = Policy() if policy is None else policy
    ledger = _Ledger(rejected)
    items = _drop_control_tokens(cast_items(items, source), ["title", "text", "attributes"], "item_texts", ledger)
    raw = _drop_control_tokens(cast_interactions(interactions, source), ["action"], "actions", ledger)
    raw = raw.with_columns(pl.col("action").fill_null(DEFAULT_ACTION))
    counts_found = {
        "items": items.height,
        "interactions": raw["item_id"].count(),
        "users": raw["user_id"].n_unique(),
        **(found or {}),
    }

    items = _apply_titles(items, policy, source, ledger)
    users = raw.select("user_id").unique(maintain_order=True).with_row_index("_user")
    raw = raw.join(users, on="user_id", how="left", maintain_order="left")
    table = _drop_unknown(raw, items, policy, source, ledger)
    _check_order(table, policy, source, ledger)
    table = _apply_duplicates(table, policy, source, ledger)
    table = _drop_short(table, users, policy, source, ledger)
    items = items.filter("_keep").select(list(ITEM_SCHEMA))
    for what, kept in (("item", items), ("interaction", table)):
        if kept.height == 0:
            dropped = ", ".join(f"{reason} {count}" for reason, count in ledger.rejected.items())
            raise DataError(f"{source}: no {what} is left (dropped: {dropped or 'none, the source is empty'}).")
    table = table.sort(["_user", "timestamp"], maintain_order=True)
    signals = [c for c in table.columns if c.startswith(SIGNAL_PREFIX)]
    table = table.select(*INTERACTION_SCHEMA, *signals)

    manifest = build_manifest(
        "dataset",
        inputs=inputs,
        config={**(config or {}), "policy": asdict(policy)},
        seed=seed,
        counts={
            "items": items.height,
            "users": table["user_id"].n_unique(),
            "interactions": table.height,
            "items_without_interactions": items.height - table["item_id"].n_unique(),
            "by_domain": _count_domains(items, table),
            "found": counts_found,
            "fixed": ledger.fixed,
        },
        rejected=ledger.rejected,
    )
    return Dataset(items, table, manifest)


def title_from_attributes(attributes: Mapping[str, Any]) -> str | None:
    """A short name from a brand and the last (most specific) category, or from whatever text there is; None if none.

    `{"brand": "OPI", "categories": ["Makeup", "Nails", "Nail Polish"]}` gives "OPI Nail Polish".
    """
    brand = known_brand(attributes.get("brand"))
    categories = attributes.get("categories", attributes.get("category"))
    if isinstance(categories, list):
        categories = next((c for c in reversed(categories) if isinstance(c, str) and c.strip()), None)
    parts = [p.strip() for p in (brand, categories) if isinstance(p, str) and p.strip()]
    if not parts:
        parts = [v.strip() for v in attributes.values() if isinstance(v, str) and v.strip() and v != brand]
        parts = [p for p in parts if p.lower() not in UNKNOWN_BRANDS]
    return " ".join(parts) or None


def known_brand(brand: Any) -> str | None:
    """The brand, or None where the source writes "Unknown" and the like."""
    if not isinstance(brand, str) or brand.strip().lower() in UNKNOWN_BRANDS:
        return None
    return brand.strip()


def _drop_control_tokens(table: pl.DataFrame, names: list[str], what: str, ledger: _Ledger) -> pl.DataFrame:
    """The table without chat and think tokens in its texts, which would end a turn in whatever is made of them."""
    found = pl.any_horizontal(pl.col(name).str.contains(CONTROL_PATTERN).fill_null(False) for name in names)
    count = table.select(found.sum()).item()
    if not count:
        return table
    ledger.fix(f"{what}_with_control_tokens", count)
    plain = (pl.col(name).str.replace_all(CONTROL_PATTERN, " ").alias(name) for name in names)
    table = table.with_columns(plain)
    return table.with_columns(pl.when(pl.col(n).str.strip_chars() != "").then(pl.col(n)).alias(n) for n in names)


# -- items --------------------------------------------------------------------------------------------------------


def _apply_titles(items: pl.DataFrame, policy: Policy, source: str, ledger: _Ledger) -> pl.DataFrame:
    """Titles and texts filled; `_keep` is False for items the policy drops."""
    untitled = pl.col("title").is_null() & pl.col("_titled")
    missing = items.filter(untitled)
    if missing.height and policy.null_titles == "refuse":
        raise DataError(
            f"{source}, items: {missing.height} of {items.height} items have no title, e.g. item "
            f"{missing['item_id'][0]!r}; fill them with policy null_titles=fill or drop them with null_titles=drop."
        )
    if policy.null_titles == "drop":
        ledger.drop("items_without_title", missing.height)
        items = items.with_columns(_keep=~untitled)
    else:
        items = items.with_columns(_keep=pl.lit(True))
        if missing.height:
            filled = [
                title_from_attributes(_parse_attributes(attributes, item, source)) or text
                for item, attributes, text in missing.select("item_id", "attributes", "text").iter_rows()
            ]
            names = pl.DataFrame(
                {"item_id": missing["item_id"], "_filled": filled}, schema={"item_id": pl.String, "_filled": pl.String}
            )
            items = items.join(names, on="item_id", how="left", maintain_order="left")
            items = items.with_columns(pl.coalesce("title", "_filled").alias("title"))
            ledger.fix("titles_filled", names["_filled"].count())
    # Every item needs a text to embed and to show: its title, or at the least its id.
    nameless = items.filter(pl.col("_keep") & pl.col("text").is_null() & pl.col("title").is_null())
    ledger.fix("texts_from_id", nameless.height)
    return items.with_columns(text=pl.coalesce("text", "title", pl.format("Item {}", "item_id")))


def _parse_attributes(text: str, item: str, source: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{source}, items: the attributes of item {item!r} are not JSON: {error}.") from error
    return value if isinstance(value, dict) else {}


# -- interactions -------------------------------------------------------------------------------------------------


def _drop_unknown(raw: pl.DataFrame, items: pl.DataFrame, policy: Policy, source: str, ledger: _Ledger) -> pl.DataFrame:
    """Interactions whose item is known and kept, with their item's domain."""
    table = raw.join(items.select("item_id", "domain", "_keep"), on="item_id", how="left", maintain_order="left")
    unknown = table.filter(pl.col("_keep").is_null())
    # A user whose rows all lack an item has an empty history, which another rule counts.
    has_items = table.group_by("_user").agg(pl.col("item_id").count().alias("_items"))
    unknown = unknown.join(has_items, on="_user", how="left", maintain_order="left").filter(pl.col("_items") > 0)
    if unknown.height and policy.unknown_items == "refuse":
        row = unknown.row(0, named=True)
        example = "no item" if row["item_id"] is None else f"item {row['item_id']!r}"
        raise DataError(
            f"{source}: {unknown.height} of {raw['item_id'].count()} interactions name an item that is not in the item "
            f"table, e.g. user {row['user_id']!r} with {example}; add these items, or drop the "
            "interactions with policy unknown_items=drop."
        )
    ledger.drop("interactions_of_unknown_items", unknown["item_id"].count())
    ledger.drop("interactions_without_item", unknown["item_id"].null_count())
    ledger.drop("interactions_of_items_without_title", table.filter(~pl.col("_keep")).height)
    return table.filter("_keep").drop("_keep")


def _check_order(table: pl.DataFrame, policy: Policy, source: str, ledger: _Ledger) -> None:
    late = table.filter(pl.col("timestamp") < pl.col("timestamp").cum_max().over("_user"))
    if late.height and policy.time_disorder == "refuse":
        row = late.row(0, named=True)
        raise DataError(
            f"{source}: {late.height} interactions of {late['_user'].n_unique()} user(s) stand after a later one of "
            f"the same user, e.g. user {row['user_id']!r}, item {row['item_id']!r}, time {row['timestamp']}; "
            "sort the source, or let it be sorted with policy time_disorder=sort."
        )
    ledger.fix("interactions_sorted_in_time", late.height)
    ledger.fix("users_sorted_in_time", late["_user"].n_unique())


def _apply_duplicates(table: pl.DataFrame, policy: Policy, source: str, ledger: _Ledger) -> pl.DataFrame:
    if policy.duplicates == "keep":
        return table
    key = ["_user", "item_id", "timestamp"]
    kept = table.unique(key, keep="first", maintain_order=True)
    count = table.height - kept.height
    if count and policy.duplicates == "refuse":
        row = table.filter(pl.struct(key).is_duplicated()).row(0, named=True)
        raise DataError(
            f"{source}: {count} interactions repeat another's user, item and time, e.g. user {row['user_id']!r}, item "
            f"{row['item_id']!r}, time {row['timestamp']}; drop them with policy duplicates=drop or keep them with "
            "duplicates=keep."
        )
    ledger.drop("duplicate_interactions", count)
    return kept


def _drop_short(table: pl.DataFrame, users: pl.DataFrame, policy: Policy, source: str, ledger: _Ledger) -> pl.DataFrame:
    lengths = users.join(table.group_by("_user").len(), on="_user", how="left", maintain_order="left")
    lengths = lengths.with_columns(pl.col("len").fill_null(0))
    short = lengths.filter(pl.col("len") < policy.min_interactions)
    if short.height and policy.empty_histories == "refuse":
        raise DataError(
            f"{source}: {short.height} of {users.height} users have fewer than {policy.min_interactions} "
            f"interaction(s), e.g. user {short['user_id'][0]!r} with {short['len'][0]}; drop them with policy "
            "empty_histories=drop or lower min_interactions."
        )
    ledger.drop("users_with_empty_history", short.filter(pl.col("len") == 0).height)
    ledger.drop("users_with_short_history", short.filter(pl.col("len") > 0).height)
    ledger.drop("interactions_of_short_histories", int(short["len"].sum()))
    return table.join(short.select("_user"), on="_user", how="anti", maintain_order="left")


def _count_domains(items: pl.DataFrame, interactions: pl.DataFrame) -> dict[str, dict[str, int]]:
    by_item = dict(items.group_by("domain").len().iter_rows())
    by_interaction = dict(interactions.group_by("domain").len().iter_rows())
    ordered = sorted(by_item, key=lambda d: (-by_item[d], d))
    return {d: {"items": by_item[d], "interactions": by_interaction.get(d, 0)} for d in ordered}
