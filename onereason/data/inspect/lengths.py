"""Lengths of rows in tokens: of the prompt, of what is supervised, and of the whole row.

Notation: `R` rows, `T` tokens of all rows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onereason.data.inspect.reading import Row, read_lines_at
from onereason.data.inspect.statistics import Cell, Place
from onereason.data.rendering import PackedRows, RowTokenizer
from onereason.data.spans import build_loss_mask, find_patterns
from onereason.itemic.vocabulary import ItemicVocabulary

KINDS = ("prompt", "supervised", "whole")
_CHUNK = 1024  # rows tokenised at once


@dataclass(frozen=True)
class Lengths:
    """Tokens of each row.

    Attributes:
        prompt: int64 `[R]`, tokens before the last answer; 0 in a row of plain text.
        supervised: int64 `[R]`, tokens that take a loss.
        whole: int64 `[R]`, all tokens.
    """

    prompt: np.ndarray
    supervised: np.ndarray
    whole: np.ndarray


@dataclass(frozen=True)
class LengthSummary:
    """Mean, median, 95th percentile and maximum of some lengths; a percentile is the smallest length that at least
    that share of the rows does not exceed."""

    mean: float
    p50: int
    p95: int
    max: int

    @classmethod
    def of(cls, lengths: np.ndarray) -> LengthSummary:
        p50, p95 = np.percentile(lengths, [50, 95], method="inverted_cdf")
        return cls(float(lengths.mean()), int(p50), int(p95), int(lengths.max()))


@dataclass(frozen=True)
class Measured:
    """Lengths of a sample of a corpus.

    Attributes:
        lengths: of the sample's rows.
        cells: task and mode of each row `[R]`.
    """

    lengths: Lengths
    cells: Sequence[Cell]

    def summary(self, cell: Cell | None = None) -> Mapping[str, LengthSummary]:
        """Kind of `KINDS` -> summary, over the rows of one task and mode or over all."""
        chosen = np.array([cell is None or found == cell for found in self.cells], dtype=bool)
        return {kind: LengthSummary.of(getattr(self.lengths, kind)[chosen]) for kind in KINDS}


def supervise(rows: Sequence[Row], packed: PackedRows, vocabulary: ItemicVocabulary) -> np.ndarray:
    """Boolean `[T]`: True where a token takes a loss in training (nowhere in a row of loss `none`)."""
    patterns = find_patterns(packed.ids, packed.offsets, vocabulary)
    losses = np.array([row["loss"] for row in rows])
    return build_loss_mask(losses, packed.offsets, packed.in_assistant, patterns)


def compute_lengths(rows: Sequence[Row], packed: PackedRows, mask: np.ndarray) -> Lengths:
    """Lengths of tokenised rows.

    Args:
        rows: as they were tokenised.
        packed: their tokens.
        mask: boolean `[T]`, True where a token takes a loss.
    """
    whole = np.diff(packed.offsets)
    before = np.concatenate([[0], np.cumsum(mask)])
    supervised = before[packed.offsets[1:]] - before[packed.offsets[:-1]]
    opens = packed.in_assistant.copy()
    opens[1:] &= ~packed.in_assistant[:-1]
    row_starts = packed.offsets[:-1][whole > 0]
    opens[row_starts] = packed.in_assistant[row_starts]
    places = np.flatnonzero(opens)
    last = np.searchsorted(places, packed.offsets[1:]) - 1  # the last answer that opens before the row's end
    answers = (last >= 0) & (places[np.maximum(last, 0)] >= packed.offsets[:-1]) if len(places) else whole < 0
    prompt = np.where([row.get("messages") is None for row in rows], 0, whole)
    if len(places):
        prompt = np.where(answers, places[np.maximum(last, 0)] - packed.offsets[:-1], prompt)
    return Lengths(prompt, supervised, whole)


def measure(path: Path, places: Sequence[Place], tokenizer: Any, vocabulary: ItemicVocabulary) -> Measured:
    """Tokenises the rows at the given places of a file, in chunks."""
    tokenize = RowTokenizer(tokenizer, vocabulary)
    parts: list[Lengths] = []
    cells: list[Cell] = []
    for rows in _chunks(path, places):
        packed = tokenize(rows)
        parts.append(compute_lengths(rows, packed, supervise(rows, packed, vocabulary)))
        cells += [(row["task"], row["mode"]) for row in rows]
    lengths = Lengths(*(np.concatenate([getattr(part, kind) for part in parts]) for kind in KINDS))
    return Measured(lengths, cells)


def _chunks(path: Path, places: Sequence[Place]) -> Iterator[list[Row]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("counting tokens", total=len(places))
        for start in range(0, len(places), _CHUNK):
            chosen = places[start : start + _CHUNK]
            yield [line.row for line in read_lines_at(path, chosen) if line.row is not None]
            bar.advance(task, len(chosen))
