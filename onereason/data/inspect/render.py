"""Rows as the model sees them: the decoded token ids, which of them are supervised, and what the items are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from onereason.data.inspect.lengths import compute_lengths, supervise
from onereason.data.inspect.reading import Row
from onereason.data.rendering import RowTokenizer
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import PRESETS, ItemicFormat, ItemicPattern
from onereason.itemic.vocabulary import ItemicVocabulary

UNKNOWN_ITEM = "not in the catalog"
NO_CAPTION = "no caption"


@dataclass(frozen=True)
class Piece:
    """A stretch of a rendered row.

    Attributes:
        text: as the tokens decode.
        supervised: whether its tokens take a loss.
        caption: of the item whose pattern this is; None outside patterns and where no catalog is known.
    """

    text: str
    supervised: bool
    caption: str | None = None


@dataclass(frozen=True)
class RenderedRow:
    """A row as the model sees it.

    Attributes:
        row: the row itself.
        number: its line in the file.
        pieces: together the whole text.
        prompt, supervised, whole: tokens (see `onereason.data.inspect.lengths`).
    """

    row: Row
    number: int
    pieces: tuple[Piece, ...]
    prompt: int
    supervised: int
    whole: int

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def supervised_text(self) -> str:
        """What the model is trained to write, all supervised stretches together."""
        return "".join(piece.text for piece in self.pieces if piece.supervised)


class Captions:
    """What an itemic pattern stands for, by a catalog."""

    def __init__(self, catalog: Catalog):
        self.catalog = catalog
        self._known: dict[tuple[str, tuple[int, ...]], str] = {}

    def find(self, pattern: ItemicPattern) -> str:
        """The caption of the most popular item with this sid, and how many others share it."""
        key = (pattern.domain, pattern.codes)
        if key not in self._known:
            self._known[key] = self._look_up(pattern)
        return self._known[key]

    def _look_up(self, pattern: ItemicPattern) -> str:
        found = self.catalog.find(pattern.codes, pattern.domain)
        if not len(found):
            return UNKNOWN_ITEM
        caption = self.catalog.captions[found[0]].strip() or NO_CAPTION
        return caption if len(found) == 1 else f"{caption} (and {len(found) - 1} more under this sid)"


def render_rows(
    rows: Sequence[Row],
    numbers: Sequence[int],
    tokenizer: Any,
    vocabulary: ItemicVocabulary,
    captions: Captions | None = None,
) -> list[RenderedRow]:
    """Rows through the chat template, the tokenizer and the loss mask, and back to text.

    Args:
        rows: rows of a corpus.
        numbers: the line of each.
        captions: None where no catalog is known.
    """
    if not rows:
        return []
    packed = RowTokenizer(tokenizer, vocabulary)(rows)
    mask = supervise(rows, packed, vocabulary)
    lengths = compute_lengths(rows, packed, mask)
    rendered = []
    for i, (row, number) in enumerate(zip(rows, numbers, strict=True)):
        span = slice(packed.offsets[i], packed.offsets[i + 1])
        stretches = decode_stretches(packed.ids[span], mask[span], tokenizer)
        pieces = split_at_items(stretches, vocabulary.format, captions)
        counts = (int(lengths.prompt[i]), int(lengths.supervised[i]), int(lengths.whole[i]))
        rendered.append(RenderedRow(row, number, tuple(pieces), *counts))
    return rendered


def decode_stretches(ids: np.ndarray, mask: np.ndarray, tokenizer: Any) -> list[tuple[str, bool]]:
    """Token ids `[T]` as text, cut where the mask `[T]` changes: (text, whether it is supervised)."""
    borders = [0, *(np.flatnonzero(mask[1:] != mask[:-1]) + 1).tolist(), len(ids)]
    decode = tokenizer.decode
    return [
        (decode(ids[low:high].tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False), bool(mask[low]))
        for low, high in pairwise(borders)
        if high > low
    ]


def split_at_items(
    stretches: Sequence[tuple[str, bool]], format: ItemicFormat, captions: Captions | None
) -> list[Piece]:
    """Stretches of text cut once more around whole itemic patterns, each with its item's caption.

    A pattern that only partly takes a loss shows its caption at its end.
    """
    if captions is None:
        return [Piece(text, supervised) for text, supervised in stretches]
    text = "".join(part for part, _ in stretches)
    items = format.parse(text).items
    ends = np.cumsum([0, *(len(part) for part, _ in stretches)]).tolist()
    borders = sorted({*ends, *(item.start for item in items), *(item.end for item in items)})
    by_end = {item.end: item for item in items}
    pieces = []
    for low, high in pairwise(borders):
        supervised = stretches[int(np.searchsorted(ends, low, side="right")) - 1][1]
        item = by_end.get(high)
        pieces.append(Piece(text[low:high], supervised, captions.find(item) if item and low >= item.start else None))
    return pieces


def guess_format(texts: Sequence[str]) -> ItemicFormat | None:
    """The preset whose patterns stand in some texts: the one with the most whole and no broken ones; None for none."""
    best: ItemicFormat | None = None
    most = 0
    for format in PRESETS.values():
        found = [format.parse(text) for text in texts]
        whole = sum(len(part.items) for part in found) - sum(part.num_malformed for part in found)
        if whole > most:
            best, most = format, whole
    return best
