"""Mixing corpora by shares: which row of which corpus comes when.

Shares count rows. Every corpus is gone through in seeded permutations, so no row is seen a second time before every
row of its corpus was seen once.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import overload

import numpy as np

from onereason.errors import ConfigError

ALIGNMENT_SHARES: dict[str, float] = {"persona": 24.30, "sequential": 65.73, "caption": 4.94, "general": 5.03}
"""Percent of the rows a task has in itemic alignment (OneRec-Think, multi-task integration)."""

GROUP_WINDOW = 50
"""Batches whose rows are sorted together by `group_by_length`."""


@dataclass(frozen=True)
class MixtureOrder(Sequence[tuple[str, int]]):
    """The order of a mixture; item `i` is (corpus name, row of that corpus).

    Attributes:
        names: corpora that take part.
        corpus: int16 `[n]`, positions in `names`.
        row: int64 `[n]`.
    """

    names: tuple[str, ...]
    corpus: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    @overload
    def __getitem__(self, index: int) -> tuple[str, int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, int]]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.names[self.corpus[index]], int(self.row[index])

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return ((self.names[c], r) for c, r in zip(self.corpus.tolist(), self.row.tolist(), strict=True))

    def counts(self) -> dict[str, int]:
        """Rows of each corpus."""
        found = np.bincount(self.corpus, minlength=len(self.names)).tolist()
        return dict(zip(self.names, found, strict=True))


def mix(
    corpora: Mapping[str, Sized],
    shares: Mapping[str, float],
    num_rows: int | None,
    seed: int,
    reference: str | None = None,
) -> MixtureOrder:
    """The order of a mixture; the same arguments give the same order.

    Args:
        corpora: name -> rows (only their number is read).
        shares: name -> share of the rows; they need not sum to 1, and corpora without one (or with 0) take no part.
        num_rows: rows of the mixture, dealt out by largest remainder; None goes through `reference` exactly once.
        seed: of every permutation.
        reference: a corpus with a positive share; by default the one with the largest.

    Raises:
        ConfigError: unknown corpora, a share that is negative or no number, no positive share, an empty corpus with a
            positive share, or `num_rows` below 1.
    """
    wanted = _check_shares(corpora, shares)
    if num_rows is not None:
        if num_rows < 1:
            raise ConfigError(f"num_rows must be at least 1, got {num_rows}; leave it out to use every row once.")
        counts = allot(num_rows, wanted)
    else:
        reference = max(wanted, key=lambda name: wanted[name]) if reference is None else reference
        if reference not in wanted:
            raise ConfigError(f"reference {reference!r} has no positive share; use one of {', '.join(wanted)}.")
        size = len(corpora[reference])
        others = {name: share for name, share in wanted.items() if name != reference}
        counts = {reference: size}
        if others:
            counts |= allot(round(size * math.fsum(others.values()) / wanted[reference]), others)
    names = tuple(wanted)
    corpus = np.repeat(np.arange(len(names), dtype=np.int16), [counts[name] for name in names])
    corpus = np.random.default_rng([seed, 0]).permutation(corpus)
    row = np.zeros(len(corpus), dtype=np.int64)
    for position, name in enumerate(names):
        row[corpus == position] = _cycle(len(corpora[name]), counts[name], name, seed)
    return MixtureOrder(names, corpus, row)


def group_by_length(order: MixtureOrder, lengths: np.ndarray, batch_size: int, seed: int) -> MixtureOrder:
    """The same rows, so arranged that every batch holds rows of like length, and batches come in random order.

    Inside each window of `GROUP_WINDOW` batches rows are sorted by length and cut into batches, and the batches are
    shuffled: little padding, and no drift from long to short rows. A last incomplete batch stays last.

    Args:
        lengths: int `[n]`, tokens of each row of `order`.
        batch_size: rows of an optimizer step over all processes.
        seed: of the shuffles.
    """
    rng = np.random.default_rng([seed, 2])
    window = GROUP_WINDOW * batch_size
    parts = []
    for start in range(0, len(order), window):
        rows = start + np.argsort(lengths[start : start + window], kind="stable")
        whole = len(rows) // batch_size
        # a random offset decides which rows the incomplete batch takes, so that it is not always the longest ones
        rows = np.roll(rows, -int(rng.integers(len(rows)))) if len(rows) % batch_size else rows
        batches = rows[: whole * batch_size].reshape(whole, batch_size)
        parts += [batches[rng.permutation(whole)].ravel(), rows[whole * batch_size :]]
    chosen = np.concatenate(parts)
    return MixtureOrder(order.names, order.corpus[chosen], order.row[chosen])


def allot(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """`total` dealt out by largest remainder: each count is within 1 of its exact share, and they sum to `total`."""
    weight = math.fsum(shares.values())
    exact = {name: total * share / weight for name, share in shares.items()}
    counts = {name: math.floor(value) for name, value in exact.items()}
    rest = total - sum(counts.values())
    by_remainder = sorted(exact, key=lambda name: (counts[name] - exact[name], -shares[name], name))
    for name in by_remainder[:rest]:
        counts[name] += 1
    return counts


def _check_shares(corpora: Mapping[str, Sized], shares: Mapping[str, float]) -> dict[str, float]:
    """The positive shares, in the order of their names (so that the order of a file's keys changes nothing)."""
    unknown = sorted(set(shares) - set(corpora))
    if unknown:
        raise ConfigError(
            f"shares name unknown corpora {', '.join(unknown)}; known are {', '.join(sorted(corpora)) or '(none)'}."
        )
    for name, share in shares.items():
        if not math.isfinite(share) or share < 0:
            raise ConfigError(f"share of {name!r} is {share}; shares must be numbers of at least 0.")
    wanted = {name: float(shares[name]) for name in sorted(shares) if shares[name] > 0}
    if not wanted:
        raise ConfigError(f"no corpus has a positive share (got {dict(shares)}); give at least one.")
    empty = [name for name in wanted if not len(corpora[name])]
    if empty:
        raise ConfigError(f"corpus {empty[0]!r} is empty but has share {wanted[empty[0]]}; build it or drop its share.")
    return wanted


def _cycle(size: int, count: int, name: str, seed: int) -> np.ndarray:
    """`count` row numbers of a corpus: one seeded permutation after another, the last one cut short."""
    rng = np.random.default_rng(
        [seed, zlib.crc32(name.encode())]
    )  # own stream a corpus: shares of others do not touch it
    rounds = [rng.permutation(size) for _ in range(-(-count // size))]
    return np.concatenate([*rounds, np.zeros(0, np.int64)])[:count].astype(np.int64)
