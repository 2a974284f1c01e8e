"""Raw Amazon 2014 review data (McAuley et al.): reviews and product metadata, plain or gz, one object a line.

Reviews (`reviews_Beauty_5.json.gz`) are JSON: `reviewerID`, `asin`, `overall`, `unixReviewTime`, ... Metadata
(`meta_Beauty.json.gz`) is written as Python literals with single quotes: `asin`, `title`, `brand`, `categories`
(a list of paths), `price`, `description`, ... The rating becomes `signal_rating`. Reviews carry a day, not a moment:
those of one user and day keep the file's order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from onereason.data.raw import DEFAULT_DOMAIN, RawTables
from onereason.data.readers.files import (
    build_caption,
    clean_text,
    iter_lines,
    iter_objects,
    list_files,
    parse_object,
    pick_file,
    read_field,
)
from onereason.errors import ConfigError, DataError

MAX_RATING = 1e30
SUFFIXES = (".json", ".json.gz", ".jsonl", ".jsonl.gz")
_LEADING_ASIN = re.compile(r"""\s*\{\s*['"]asin['"]:\s*['"]([^'"\\]+)['"]""")


def read(paths: Sequence[Path], domain: str = DEFAULT_DOMAIN, k_core: int = 5) -> RawTables:
    """Reads one reviews file and one metadata file, alone or in a folder.

    Args:
        paths: the folder, or the two files; the metadata's name starts with `meta`, the reviews' with `reviews`.
        domain: domain of every item.
        k_core: users and items with fewer than this many reviews are left out, over and over until none is left;
            0 or 1 keeps all. Repeated reviews (same user, item and time) count once.
    """
    if k_core < 0:
        raise ConfigError(f"k_core must be at least 0, got {k_core}; 0 keeps all users and items.")
    files = list_files(paths, "Amazon file")
    reviews_path = pick_file(files, SUFFIXES, "reviews", prefix="reviews")
    meta_path = pick_file(files, SUFFIXES, "metadata", prefix="meta")
    reviews = _read_reviews(reviews_path)
    found = {
        "items": reviews["item_id"].n_unique(),
        "users": reviews["user_id"].n_unique(),
        "interactions": reviews.height,
    }
    kept = filter_k_core(reviews, k_core)
    rejected = {
        "k_core_items": found["items"] - kept["item_id"].n_unique(),
        "k_core_users": found["users"] - kept["user_id"].n_unique(),
        "k_core_interactions": found["interactions"] - kept.height,
    }
    if reviews.height == 0:
        raise DataError(f"reviews {reviews_path}: the file holds no review.")
    if kept.height == 0:
        raise DataError(f"reviews {reviews_path}: no user and item have {k_core} reviews each; lower k_core.")
    items = _read_metadata(meta_path, set(kept["item_id"].unique()), domain)
    return RawTables(items, kept, (reviews_path, meta_path), found, rejected)


def filter_k_core(interactions: pl.DataFrame, k: int) -> pl.DataFrame:
    """The largest part in which every user and every item has at least `k` distinct (user, item, timestamp) rows."""
    distinct = interactions.select("user_id", "item_id", "timestamp").unique(maintain_order=True)
    height = -1
    while k > 1 and distinct.height != height:
        height = distinct.height
        for column in ("user_id", "item_id"):
            distinct = distinct.filter(pl.len().over(column) >= k)
    pairs = distinct.select("user_id", "item_id").unique()
    return interactions.join(pairs, on=["user_id", "item_id"], how="semi", maintain_order="left")


def _read_reviews(path: Path) -> pl.DataFrame:
    users: list[str] = []
    items: list[str] = []
    times: list[int] = []
    ratings: list[float | None] = []
    for where, row in iter_objects(path, "reviews"):
        users.append(read_field(row, "reviewerID", (str,), where))
        items.append(read_field(row, "asin", (str,), where))
        time = read_field(row, "unixReviewTime", (int,), where)
        rating = read_field(row, "overall", (int, float), where, required=False)
        if abs(time) >= 2**63 or (rating is not None and abs(rating) > MAX_RATING):
            raise DataError(f"{where}: unixReviewTime {time!r:.30} or overall {rating!r:.30} is out of range.")
        times.append(time)
        ratings.append(rating)
    columns = {"user_id": users, "item_id": items, "timestamp": times, "signal_rating": ratings}
    types = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "signal_rating": pl.Float32}
    return pl.DataFrame(columns, schema=types).with_columns(action=pl.lit("review"))


def _read_metadata(path: Path, wanted: set[str], domain: str) -> pl.DataFrame:
    rows = []
    for number, line in iter_lines(path, "metadata"):
        # Most products are not in the k-core, and reading a literal is slow: look at the leading id first.
        leading = _LEADING_ASIN.match(line)
        if leading and leading[1] not in wanted:
            continue
        where = f"metadata {path}, line {number}"
        row = parse_object(line, where, python_literal=True)
        asin = read_field(row, "asin", (str,), where)
        if asin in wanted:
            rows.append((asin, domain, *_describe(row, where)))
    columns = ["item_id", "domain", "title", "text", "attributes"]
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def _describe(row: Mapping[str, Any], where: str) -> tuple[str | None, str | None, str]:
    """Title, caption, and attributes as JSON."""
    title = clean_text(read_field(row, "title", (str,), where, required=False))
    brand = clean_text(read_field(row, "brand", (str,), where, required=False))
    paths = read_field(row, "categories", (list,), where, required=False) or []
    if not all(isinstance(p, list) and all(isinstance(c, str) for c in p) for p in paths):
        raise DataError(f"{where}: 'categories' should be a list of lists of text, is {paths!r:.60}.")
    categories = list(dict.fromkeys(c for c in (clean_text(c) for p in paths for c in p) if c))
    attributes = {
        "brand": brand,
        "categories": categories or None,
        "price": read_field(row, "price", (int, float), where, required=False),
        "description": clean_text(read_field(row, "description", (str,), where, required=False)),
    }
    known = {key: value for key, value in attributes.items() if value is not None}
    return title, build_caption(title, brand, categories), json.dumps(known, ensure_ascii=False)
