"""Rows that are too long give up their oldest history; instruction and answer stay whole.

- A conversation, and a text of itemic patterns, lose items from the front: from the start of a pattern to the start of
  the next, so that words behind an item (its caption, a separator) leave with it.
- A text that tells of items line by line (a persona) loses whole lines from the front, so that no caption is left
  standing beside another item's tokens; a heading leaves with the last of its lines.

Notation: `R` rows, `T` tokens of all rows.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from onereason.data.rendering import PackedRows
from onereason.data.spans import cut_history, find_patterns
from onereason.itemic.vocabulary import ItemicVocabulary

Tokenize = Callable[[Sequence[Mapping[str, Any]]], PackedRows]


def fit_rows(
    rows: Sequence[Mapping[str, Any]],
    packed: PackedRows,
    tokenize: Tokenize,
    vocabulary: ItemicVocabulary,
    max_length: int,
    turn_start: int,
) -> tuple[PackedRows, np.ndarray]:
    """The tokenised rows, each of at most `max_length` tokens.

    Args:
        rows, packed: the rows, and what `tokenize` makes of them.
        turn_start: id of the token that opens a turn.

    Returns:
        The rows, and a boolean `[R]` that is False where a row cannot be made to fit; such a row has no tokens left.
    """
    lengths = np.diff(packed.offsets)
    fits = np.ones(len(rows), dtype=bool)
    if not (lengths > max_length).any():
        return packed, fits
    patterns = find_patterns(packed.ids, packed.offsets, vocabulary)
    parts = []
    for index, (low, high) in enumerate(zip(packed.offsets[:-1].tolist(), packed.offsets[1:].tolist(), strict=True)):
        ids, in_assistant = packed.ids[low:high], packed.in_assistant[low:high]
        if len(ids) > max_length:
            row = rows[index]
            starts = patterns.starts[slice(*np.searchsorted(patterns.rows, [index, index + 1]))] - low
            lines = row["text"].split("\n") if row.get("text") is not None and row["loss"] in ("all", "none") else []
            has_items = [bool(vocabulary.format.parse(line).items) for line in lines]
            if sum(has_items) > 1:
                cut = _fit_lines(lines, has_items, tokenize, max_length)
            else:
                cut = _fit_items(row, ids, in_assistant, starts, max_length, turn_start)
            fits[index] = cut is not None
            ids, in_assistant = (ids[:0], in_assistant[:0]) if cut is None else cut
        parts.append((ids, in_assistant))
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids, _ in parts])]).astype(np.int64)
    return PackedRows(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), offsets), fits


def _fit_items(
    row: Mapping[str, Any],
    ids: np.ndarray,
    in_assistant: np.ndarray,
    starts: np.ndarray,
    max_length: int,
    turn_start: int,
) -> tuple[np.ndarray, np.ndarray] | None:
    """A row's tokens without its oldest items; None where that does not suffice.

    Cutting tokens equals tokenising the cut text, because both ends of a cut stand at an added token.

    Args:
        ids, in_assistant: of the row's tokens.
        starts: where its patterns begin.
    """
    excess = len(ids) - max_length
    if row.get("text") is not None:
        still = np.zeros(len(starts), dtype=np.int64)
        # the first pattern of what remains is context only, so two must stay for one to be supervised
        spans = cut_history(excess, starts, still, still > 0, num_last=2 if row["loss"] == "next_items" else 1)
    else:
        turns = np.cumsum(ids == turn_start)[starts]
        protected = in_assistant[starts]
        if row["messages"][0]["role"] == "system":
            protected = protected | (turns == 1)
        spans = cut_history(excess, starts, turns, protected)
    if spans is None:
        return None
    kept = np.ones(len(ids), dtype=bool)
    for low, high in spans:
        kept[low:high] = False
    return ids[kept], in_assistant[kept]


def _fit_lines(
    lines: Sequence[str], has_items: Sequence[bool], tokenize: Tokenize, max_length: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """A text's tokens without as few of its oldest item lines as it takes; None where the last one does not fit."""

    def cut(number: int) -> PackedRows:
        return tokenize([{"text": "\n".join(lines[i] for i in drop_item_lines(has_items, number))}])

    most = sum(has_items) - 1
    number = bisect.bisect_left(range(1, most), True, key=lambda n: len(cut(n).ids) <= max_length) + 1
    packed = cut(number)
    return (packed.ids, packed.in_assistant) if len(packed.ids) <= max_length else None


def drop_item_lines(has_items: Sequence[bool], number: int) -> list[int]:
    """Which lines of a text are left when the first `number` lines that hold items are gone.

    The first line (the opening) stays unless it holds an item. Other lines without items are headings: one leaves when
    every item line up to the next heading has left.
    """
    gone = set(np.flatnonzero(has_items)[:number].tolist())
    heading, alive = None, False
    for i in range(1, len(has_items) + 1):
        if i == len(has_items) or not has_items[i]:
            if heading is not None and not alive and i > heading + 1:
                gone.add(heading)
            heading, alive = i, False
        elif i not in gone:
            alive = True
    return [i for i in range(len(has_items)) if i not in gone]
