"""Which rows of several corpora go into one mixture: no row twice, think ratios, shares of rows or tokens.

Pure functions over arrays that hold a few numbers a row; the rows themselves stay on disk.

Notation: `C` corpora, `R` rows of all corpora, one corpus after another. A *bare* row is what is left of a row with a
trace when the trace is taken away and the switch turned.
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


def keep_first(values: np.ndarray) -> np.ndarray:
    """Boolean `[R]`: True on the first row of each value."""
    kept = np.zeros(len(values), dtype=bool)
    kept[np.unique(values, return_index=True)[1]] = True
    return kept


def find_convertible(content: np.ndarray, bare: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Boolean `[R]`: the rows whose bare row says something that no other row says.

    Args:
        content: uint64 `[R]`.
        bare: uint64 `[R]`, hash of what each row says without its trace, 0 where there is none to take away.
        alive: boolean `[R]`, the rows that take part; bare rows are compared with the others too.
    """
    rows = np.flatnonzero(alive & (bare != 0))
    rows = rows[~np.isin(bare[rows], content)]
    found = np.zeros(len(bare), dtype=bool)
    found[rows[keep_first(bare[rows])]] = True
    return found


def balance_think(
    table: RowTable,
    alive: np.ndarray,
    ratios: Mapping[int, float],
    default: float | None,
    seed: int,
    convertible: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that are left when each corpus and domain has its think ratio, and those of them that become bare.

    Rows of the mode that is too frequent are left out at random; convertible rows become bare instead, and count as
    rows that do not think. Where a corpus and domain has rows of one mode only, and none that could change, there is
    nothing to balance, and all stay.

    Args:
        alive: boolean `[R]`, the rows that take part.
        ratios: domain -> share of rows that think, 0 to 1.
        default: for domains without one; None leaves them as they are.
        convertible: boolean `[R]`, rows that may become bare (`find_convertible`).

    Returns:
        Two boolean arrays `[R]`; the second is True on some rows of the first.
    """
    kept, converted = alive.copy(), np.zeros(len(alive), dtype=bool)
    rows = np.random.default_rng([seed, 1]).permutation(len(alive))
    rows = rows[alive[rows]]
    domains = int(table.domain.max(initial=-1)) + 2
    cell = table.corpus[rows].astype(np.int64) * domains + table.domain[rows] + 1
    order = np.argsort(cell, kind="stable")
    rows, cell = rows[order], cell[order]
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    for own in np.split(rows, starts[1:]) if len(rows) else ():
        ratio = ratios.get(int(table.domain[own[0]]), default)
        if ratio is None:
            continue
        thinks = table.thinks[own]
        think, direct = own[thinks], own[~thinks]
        may = np.zeros(len(think), dtype=bool) if convertible is None else convertible[think]
        num_think, num_bare, num_direct = count_modes(len(think), len(direct), int(may.sum()), ratio)
        bare = think[may][:num_bare]
        converted[bare] = True
        think = think[~converted[think]]
        kept[think[num_think:]] = False
        kept[direct[num_direct:]] = False
    return kept, converted


def count_modes(think: int, direct: int, convertible: int, ratio: float) -> tuple[int, int, int]:
    """How many rows think, become bare, and do not think from the start, so that most rows stay at a think ratio.

    The share of rows that think is as near to `ratio` as whole rows allow.

    Args:
        think, direct: rows with and without a trace.
        convertible: rows with one that may become bare.
        ratio: share of rows that think, 0 to 1.
    """
    if not think or not (direct or convertible):
        return think, 0, direct
    if ratio == 1:
        return think, 0, 0
    if think * (1 - ratio) <= direct * ratio:
        return think, 0, min(direct, round(think * (1 - ratio) / ratio))
    wanted = round(think - ratio * (think + direct))
    if convertible and wanted <= convertible:
        return think - wanted, wanted, direct
    return min(think - convertible, round((direct + convertible) * ratio / (1 - ratio))), convertible, direct


def draw_shares(
    table: RowTable, alive: np.ndarray, names: Sequence[str], shares: Sequence[float], total: float | None, seed: int
) -> np.ndarray:
    """Positions `[n]` of a mixture's rows in random order; no row is drawn twice.

    Within a corpus, domains and modes keep their proportions (largest remainder), so a think ratio stays as it is.
    Shares of rows are exact to a row; shares of tokens are never exceeded, and missed by less than one row.

    Args:
        alive: boolean `[R]`, the rows that take part.
        names: `C` names of the corpora, for messages.
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
            raise DataError(f"corpus {names[corpus]!r} has share {shares[corpus]:g} but no row is left of it.")
    scarce = int(used[np.argmin(available[used] / wanted[used])])
    largest = available[scarce] / wanted[scarce]
    size = largest if total is None else float(total)
    if size > largest * (1 + 1e-9):
        raise ConfigError(
            f"a mixture of {size:g} needs {size * wanted[scarce]:.0f} of corpus {names[scarce]!r}, which has "
            f"{available[scarce]:.0f}; ask for at most {math.floor(largest)}, or lower its share."
        )
    budgets = {corpus: size * wanted[corpus] for corpus in used.tolist()}
    if total is not None and (table.size[alive] == 1).all():
        exact = allot(round(size), {str(corpus): wanted[corpus] for corpus in budgets})
        budgets = {corpus: float(exact[str(corpus)]) for corpus in budgets}
    rng = np.random.default_rng([seed, 2])
    chosen = []
    for corpus, budget in budgets.items():
        rows = np.flatnonzero(alive & (table.corpus == corpus))
        chosen.append(_draw_strata(table, rng.permutation(rows), budget))
    return rng.permutation(np.concatenate(chosen))


def _draw_strata(table: RowTable, rows: np.ndarray, budget: float) -> np.ndarray:
    """Rows of one corpus up to a budget of size, each domain and mode in proportion; the first of each in `rows`."""
    sizes = table.size[rows].astype(np.float64)
    whole = float(sizes.sum())
    if budget > whole - 0.5:
        return rows
    stratum = (table.domain[rows].astype(np.int64) + 1) * 2 + table.thinks[rows]
    kinds = np.unique(stratum).tolist()
    totals = [float(sizes[stratum == kind].sum()) for kind in kinds]
    if (sizes == 1).all():
        counts = allot(round(budget), {str(kind): total for kind, total in zip(kinds, totals, strict=True)})
        return np.concatenate([rows[stratum == kind][: counts[str(kind)]] for kind in kinds])
    parts, taken, due = [], 0.0, 0.0
    for kind, total in zip(kinds, totals, strict=True):
        own = stratum == kind
        running = np.cumsum(sizes[own])
        due += budget * total / whole  # what a stratum could not use up goes to the next
        count = int(np.searchsorted(running, due - taken, side="right"))
        taken += float(running[count - 1]) if count else 0.0
        parts.append(rows[own][:count])
    return np.concatenate(parts)
