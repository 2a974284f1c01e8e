"""User timelines as flat arrays, and the splits that evaluation and training share.

Notation: `U` users, `E` evaluation examples. Item indices are positions in the catalog (or item table) they were built
with. Histories are oldest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from onereason.errors import CatalogError, DataError


@dataclass(frozen=True)
class Timelines:
    """All users' interactions in time order, in CSR form.

    Attributes:
        user_ids: `U` names.
        offsets: int64 `[U + 1]`; user `u` owns `items[offsets[u]:offsets[u + 1]]`.
        items: int64, item indices.
        timestamps: int64, aligned with `items`.
    """

    user_ids: list[str]
    offsets: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray

    def __len__(self) -> int:
        return len(self.user_ids)

    def of(self, user: int) -> np.ndarray:
        """Item indices of one user, oldest first."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]


@dataclass(frozen=True)
class Examples:
    """Evaluation examples: what is known, and what comes next.

    Attributes:
        users: int64 `[E]`, index into `Timelines.user_ids`.
        histories: `E` int64 arrays of item indices, oldest first.
        targets: `E` int64 arrays of item indices that are correct answers (one under leave-one-out).
    """

    users: np.ndarray
    histories: list[np.ndarray]
    targets: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.histories)

    def select(self, chosen: np.ndarray) -> Examples:
        """The examples at these positions."""
        return Examples(self.users[chosen], [self.histories[i] for i in chosen], [self.targets[i] for i in chosen])


@dataclass(frozen=True)
class Split:
    """Training histories (one array of item indices a user of `Timelines`, oldest first) and two sets of examples."""

    train: list[np.ndarray]
    validation: Examples
    test: Examples

    def examples(self, name: str) -> Examples:
        if name not in ("validation", "test"):
            raise DataError(f"split {name!r} is not known; use 'validation' or 'test'.")
        return self.validation if name == "validation" else self.test


def build_timelines(interactions: pl.DataFrame, index: Mapping[str, int]) -> Timelines:
    """Timelines over the item indices of `index` (item id -> index), users in order of first appearance.

    Raises:
        CatalogError: an interaction's item is not in `index`.
    """
    if interactions.height == 0:
        raise DataError("the interactions table is empty; there is no user to build a timeline of.")
    names = pl.DataFrame(
        {"item_id": list(index), "_item": np.fromiter(index.values(), np.int64, len(index))},
        schema={"item_id": pl.String, "_item": pl.Int64},
    )
    table = interactions.select("user_id", "item_id", "timestamp").join(
        names, on="item_id", how="left", maintain_order="left"
    )
    missing = table.filter(pl.col("_item").is_null())
    if missing.height:
        raise CatalogError(
            f"the catalog lacks {missing['item_id'].n_unique()} item(s) of the interactions, e.g. "
            f"{missing['item_id'][0]!r} ({missing.height} interactions); make the catalog from "
            "the data these interactions are in, or import them with their items (`onereason data import`)."
        )
    users = table["user_id"].unique(maintain_order=True)
    table = sort_by_user(table)
    counts = np.bincount(table["_user"].to_numpy(), minlength=len(users))
    return Timelines(
        users.to_list(),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        table["_item"].to_numpy().astype(np.int64),
        table["timestamp"].to_numpy().astype(np.int64),
    )


def sort_by_user(table: pl.DataFrame) -> pl.DataFrame:
    """Interactions in the order of timelines: users as they first appear (their number in `_user`), then time."""
    users = table["user_id"].unique(maintain_order=True)
    rank = pl.DataFrame({"user_id": users, "_user": np.arange(len(users))})
    return table.join(rank, on="user_id", how="left", maintain_order="left").sort(
        ["_user", "timestamp"], maintain_order=True
    )


def keep_last(histories: list[np.ndarray], n: int | None) -> list[np.ndarray]:
    """The newest `n` items of each history (all of them when `n` is None)."""
    if n is None:
        return histories
    if n < 1:
        raise DataError(f"keep-last must be at least 1, got {n}.")
    return [h[-n:] for h in histories]


def split_leave_one_out(timelines: Timelines, min_items: int = 3) -> Split:
    """Last item test, the one before validation, the rest training.

    Users with fewer than `min_items` (at least 3) interactions train and are not evaluated.
    """
    train, users, val_h, val_t, test_h, test_t = [], [], [], [], [], []
    for user in range(len(timelines)):
        items = timelines.of(user)
        if len(items) < max(min_items, 3):
            train.append(items)
            continue
        train.append(items[:-2])
        users.append(user)
        val_h.append(items[:-2])
        val_t.append(items[-2:-1])
        test_h.append(items[:-1])
        test_t.append(items[-1:])
    index = np.asarray(users, dtype=np.int64)
    return Split(train, Examples(index, val_h, val_t), Examples(index, test_h, test_t))


def split_temporal(timelines: Timelines, validation_start: int, test_start: int) -> Split:
    """Cuts at two moments: before `validation_start` trains, up to `test_start` validates, the rest tests.

    The targets of an example are all of a user's items inside the period; users without history before it are left
    out of that part.
    """
    if not validation_start < test_start:
        raise DataError(f"validation_start ({validation_start}) must lie before test_start ({test_start}).")
    train: list[np.ndarray] = []
    parts: dict[str, tuple[list[int], list[np.ndarray], list[np.ndarray]]] = {
        "validation": ([], [], []),
        "test": ([], [], []),
    }
    for user in range(len(timelines)):
        items = timelines.of(user)
        times = timelines.timestamps[timelines.offsets[user] : timelines.offsets[user + 1]]
        first, second = np.searchsorted(times, [validation_start, test_start])
        train.append(items[:first])
        for name, low, high in (("validation", first, second), ("test", second, len(items))):
            if low > 0 and high > low:
                who, histories, targets = parts[name]
                who.append(user)
                histories.append(items[:low])
                targets.append(items[low:high])
    return Split(
        train,
        *(Examples(np.asarray(who, dtype=np.int64), h, t) for who, h, t in (parts["validation"], parts["test"])),
    )
