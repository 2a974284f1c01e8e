"""Which rows of several corpora go into one mixture: no row twice, think ratios, shares of rows or tokens.

Pure functions over arrays that hold a few numbers a row; the rows themselves stay on disk.

Notation: `C` corpora, `R` rows of all corpora, one corpus after another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onereason.data.mixture import allot
from onereason.errors import ConfigError, DataError


@dataclass(frozen=True)
class RowTable:
    """What a selection knows of rows; arrays `[R]`.

    Attributes:
        corpus: number of the corpus.
        content: uint64 hash of what a row says.
        thinks: True for rows with a trace.
        domain: number of the domain, -1 where a row has none.
        size: 1, or the tokens of the row.
    """

    corpus: np.ndarray
    content: np.ndarray
    thinks: np.ndarray
    domain: np.ndarray
    size: np.ndarray


def drop_duplicates(content: np.ndarray) -> np.ndarray:
    """Boolean `[R]`: True on the first row of each content."""
    kept = np.zeros(len(content), dtype=bool)
    kept[np.unique(content, return_index=True)[1]] = True
    return kept


def keep_think_ratio(
    table: RowTable, alive: np.ndarray, ratios: Mapping[int, float], default: float | None, seed: int
) -> np.ndarray:
    """Boolean `[R]`: what is left when rows of the mode that is too frequent are dropped at random.

    Ratios hold within each corpus and domain that has rows of both modes; where one mode is missing there is nothing to
    balance, and all rows stay.

    Args:
        alive: boolean `[R]`, the rows that take part.
        ratios: domain -> share of rows that think, 0 to 1.
        default: for domains without one; None leaves them as they are.
    """
    kept = alive.copy()
    rng = np.random.default_rng([seed, 1])
    order = rng.permutation(len(alive))
    for corpus in range(int(table.corpus.max(initial=-1)) + 1):
        for domain in np.unique(table.domain[table.corpus == corpus]).tolist():
            ratio = ratios.get(domain, default)
            if ratio is None:
                continue
            own = order[alive[order] & (table.corpus[order] == corpus) & (table.domain[order] == domain)]
            think, direct = own[table.thinks[own]], own[~table.thinks[own]]
            if not len(think) or not len(direct):
                continue
            if ratio in (0.0, 1.0):
                kept[think if ratio == 0.0 else direct] = False
            elif len(think) * (1 - ratio) > len(direct) * ratio:
                kept[think[round(len(direct) * ratio / (1 - ratio)) :]] = False
            else:
                kept[direct[round(len(think) * (1 - ratio) / ratio) :]] = False
    return kept


def draw_shares(
    table: RowTable, alive: np.ndarray, shares: Sequence[float], total: float | None, seed: int
) -> np.ndarray:
    """Positions `[n]` of a mixture's rows in random order; no row is drawn twice.

    Within a corpus, domains and modes keep their proportions (largest remainder), so a think ratio stays as it is.

    Args:
        alive: boolean `[R]`, the rows that take part.
        shares: `[C]`, share of the mixture's size (rows, or tokens where `size` holds tokens) of each corpus; they need
            not sum to 1.
        total: size of the mixture; None takes as much as the scarcest corpus allows.

    Raises:
        ConfigError: no positive share, or a corpus is too small for `total`.
        DataError: a corpus with a share has no row left.
    """
    wanted = np.asarray(shares, dtype=np.float64)
    if not wanted.sum() or (wanted < 0).any() or not np.isfinite(wanted).all():
        raise ConfigError(f"shares must be numbers from 0 with one above it, got {list(shares)}.")
    wanted = wanted / wanted.sum()
    available = np.bincount(table.corpus[alive], table.size[alive].astype(np.float64), minlength=len(wanted))
    used = np.flatnonzero(wanted)
    for corpus in used.tolist():
        if not available[corpus]:
            raise DataError(f"corpus number {corpus} has share {shares[corpus]:g} but no row is left of it.")
    largest = float((available[used] / wanted[used]).min())
    size = largest if total is None else float(total)
    if size > largest + 1e-6:
        scarce = int(used[np.argmin(available[used] / wanted[used])])
        raise ConfigError(
            f"a mixture of {size:g} needs {size * wanted[scarce]:.0f} of corpus number {scarce}, which has "
            f"{available[scarce]:.0f}; ask for at most {math.floor(largest)}, or lower its share."
        )
    rng = np.random.default_rng([seed, 2])
    chosen = []
    for corpus in used.tolist():
        rows = np.flatnonzero(alive & (table.corpus == corpus))
        rows = rows[rng.permutation(len(rows))]
        chosen.append(_draw_strata(table, rows, size * wanted[corpus]))
    drawn = np.concatenate(chosen)
    return drawn[rng.permutation(len(drawn))]


def _draw_strata(table: RowTable, rows: np.ndarray, budget: float) -> np.ndarray:
    """Rows of one corpus up to a budget of size, each domain and mode in proportion; the first of each in `rows`."""
    stratum = (table.domain[rows] + 1) * 2 + table.thinks[rows]
    kinds, sizes = np.unique(stratum, return_inverse=True)[0], table.size[rows].astype(np.float64)
    totals = {int(kind): float(sizes[stratum == kind].sum()) for kind in kinds}
    whole = sum(totals.values())
    if budget >= whole:
        return rows
    if np.all(sizes == 1):
        counts = allot(round(budget), {str(kind): total for kind, total in totals.items()})
        return np.concatenate([rows[stratum == int(kind)][:count] for kind, count in counts.items()])
    parts = []
    for kind, total in totals.items():
        own = rows[stratum == kind]
        running = np.cumsum(table.size[own])
        parts.append(own[: int(np.searchsorted(running, budget * total / whole, side="right"))])
    return np.concatenate(parts)
