"""How many items of a catalogue carry given words: what tells a phrase that names one item from one that names a kind.

Notation: `N` items.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

import numpy as np

MAX_REMEMBERED = 200_000
"""Answers that are kept."""

FEW_ITEMS = 64
"""The texts of so many items are looked through sooner than they are thinned out by further words."""


class TextIndex:
    """The texts of a catalogue's items, searched by word.

    Memory is that of the texts, plus 4 bytes for every distinct word of an item.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        """
        Args:
            texts: all words of each item, as `Normalised.spaced` writes them; parts that should not read on into each
                other are kept apart by a word that is none, such as `|`.
        """
        self.texts = texts
        numbers: dict[str, int] = {}
        words = array("i")
        lengths = np.zeros(len(texts), np.int64)
        for item, text in enumerate(texts):
            of_item = {numbers.setdefault(word, len(numbers)) for word in text.split()}
            words.extend(of_item)
            lengths[item] = len(of_item)
        flat = np.array(words, np.int32)
        order = np.argsort(flat, kind="stable")
        self._items = np.repeat(np.arange(len(texts), dtype=np.int32), lengths)[order]
        self._ends = np.cumsum(np.bincount(flat, minlength=len(numbers)))
        self._numbers = numbers
        self._known: dict[tuple[bool, tuple[str, ...], int], int] = {}

    def _items_with(self, word: str) -> np.ndarray:
        """Ascending item indices; empty where no item has the word."""
        number = self._numbers.get(word)
        if number is None:
            return self._items[:0]
        return self._items[self._ends[number - 1] if number else 0 : self._ends[number]]

    def _items_that_may(self, words: Iterable[str]) -> np.ndarray:
        """Ascending indices of items that may have all these words: few of them, or those that do."""
        found = sorted(map(self._items_with, set(words)), key=len)
        items = found[0] if found else self._items[:0]
        for more in found[1:]:
            if len(items) <= FEW_ITEMS:
                break
            places = np.searchsorted(more, items)
            places[places == len(more)] = 0
            items = items[more[places] == items]
        return items

    def count_words(self, words: Iterable[str], limit: int) -> int:
        """How many items have all these words, in any order, counted up to `limit`."""
        key = (False, tuple(sorted(set(words))), limit)
        if key not in self._known:
            self._remember(key, self._count([f" {word} " for word in key[1]], self._items_that_may(key[1]), limit))
        return self._known[key]

    def count_run(self, words: Sequence[str], limit: int) -> int:
        """How many items have these words one directly after another, counted up to `limit`."""
        key = (True, tuple(words), limit)
        if key not in self._known:
            self._remember(key, self._count([f" {' '.join(words)} "], self._items_that_may(words), limit))
        return self._known[key]

    def _count(self, pieces: Sequence[str], items: np.ndarray, limit: int) -> int:
        """How many of the items hold all pieces, counted up to `limit`."""
        count = 0
        texts = self.texts
        for start in range(0, len(items), FEW_ITEMS):  # common words are carried by the first few already
            for item in items[start : start + FEW_ITEMS].tolist():
                text = texts[item]
                count += all(map(text.__contains__, pieces))
                if count >= limit:
                    return limit
        return count

    def _remember(self, key: tuple[bool, tuple[str, ...], int], count: int) -> None:
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[key] = count
