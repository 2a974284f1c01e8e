"""Whether a trace holds a text it must not hold: whole, mistyped, cut short, in another order, or copied in part.

Nothing is found that a catalogue's items share: a piece of text counts only where fewer than `min_items` items carry
it, for then it tells which item is meant. Neither is anything found that the prompt shows already.

Notation: `n` words of the text that is looked for; a CJK character is a word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from math import ceil
from typing import Protocol

from onereason.cognition.checks.approximate import Pieces, distance, find_mistyped, may_stand_in, typos_allowed
from onereason.cognition.lexicon import all_words
from onereason.cognition.normalise import Normalised, mostly_cjk

SHORT_WORDS = 16
"""A text of at most so many words is known again by its words in another order; a longer one by its trigrams."""

LIST_SHARE = 0.9
"""Share of a longer text's content words that stand for it in any order, where they stand close together."""

LEAST_BACKWARDS = 10
"""Letters a title needs to be looked for backwards."""

LONG_RUN, LONG_RUN_CJK = 8, 13
"""Words in a row that are a copy, where they come from a longer text."""

WORDS_SHARE, WORDS_SHARE_CJK = 0.8, 0.9
"""Share of a title's words that name the item where they stand close together."""

COPY_SHARE = 0.5
"""Share of a longer text's word trigrams (for CJK, runs of 4 characters) that make a near-copy."""

MIN_GRAMS = 6
"""Trigrams a text must have for its share to mean something."""


class Counts(Protocol):
    """How many items carry words (`TextIndex`)."""

    def count_words(self, words: Sequence[str], limit: int) -> int: ...
    def count_run(self, words: Sequence[str], limit: int) -> int: ...


class Surroundings:
    """What may be said."""

    __slots__ = ("counts", "min_items", "shown")

    def __init__(self, counts: Counts | None, min_items: int, shown: Iterable[str] = ()) -> None:
        """
        Args:
            counts: how many items carry words; None where nothing is known of other items: then every phrase counts.
            min_items: words that so many items carry name no item.
            shown: the texts of the items that the prompt shows, as `Normalised.spaced`.
        """
        self.counts = counts
        self.min_items = min_items
        self.shown = shown

    def tells(self, run: Sequence[str]) -> bool:
        """Whether a run of words names few items, and is not what the prompt says."""
        if self.counts is not None and self.counts.count_run(run, self.min_items) >= self.min_items:
            return False
        return not self.is_shown(f" {' '.join(run)} ")

    def is_shown(self, spaced: str) -> bool:
        """Whether a shown item has these words in a row."""
        return any(spaced in text for text in self.shown)

    def is_common(self, words: Sequence[str]) -> bool:
        """Whether at least `min_items` items carry these words, in any order."""
        return self.counts is not None and self.counts.count_words(words, self.min_items) >= self.min_items


class Phrase:
    """A text of a target and the pieces it is recognised by; made once, then held against any number of traces.

    What every trace is held against lies in slots, the rest is made when a trace comes near.
    """

    __slots__ = (
        "__dict__",
        "_backwards",
        "_is_common",
        "_least_run",
        "_least_scattered",
        "_least_start",
        "brand",
        "content",
        "is_name",
        "kind",
        "spaced",
        "squeezed",
        "typos",
        "words",
    )

    def __init__(
        self, kind: str, normalised: Normalised, *, is_name: bool = False, brand: frozenset[str] = frozenset()
    ) -> None:
        """
        Args:
            kind: what leaks are called after: `title`, `caption`, `attribute`.
            normalised: the text.
            is_name: the text is a name, so that its first words stand for it.
            brand: words of the item's brand; what is left of a name without them still names the item.
        """
        self.kind = kind
        self.is_name = is_name
        self.words = normalised.words
        self.spaced = normalised.spaced
        self.squeezed = normalised.squeezed
        backwards = self.squeezed[::-1]
        is_told = is_name and len(backwards) >= LEAST_BACKWARDS and backwards != self.squeezed
        self._backwards = backwards if is_told else ""
        self.content = frozenset(self.words) - all_words("function_words")
        self.typos = typos_allowed(len(self.squeezed))
        self.brand = brand & self.content
        self._is_common: bool | None = None
        # Words in a row, and content words, without which nothing but the whole text can be found.
        n, num_content = len(self.words), len(self.content)
        self._least_run = min(n, max(3, (n + 1) // 2) if is_name else LONG_RUN)
        self._least_start = min(self._least_run, max(2, min(3, n - 1))) if is_name else self._least_run
        if is_name:
            self._least_scattered = min((4 * num_content + 4) // 5, num_content - len(self.brand))
        else:
            self._least_scattered = (4 * num_content + 4) // 5 if n <= SHORT_WORDS else (num_content + 2) // 3

    @cached_property
    def pieces(self) -> Pieces:
        return Pieces.of(self.squeezed, self.typos)

    @cached_property
    def is_short(self) -> bool:
        return len(self.words) <= SHORT_WORDS

    @cached_property
    def _is_cjk(self) -> bool:
        return mostly_cjk(self.words)

    @cached_property
    def min_run(self) -> int:
        """Words in a row that are a part of this text."""
        n = len(self.words)
        if self.is_name:
            return min(n, max(5 if self._is_cjk else 3, ceil(n / 2)))
        return min(n, LONG_RUN_CJK if self._is_cjk else LONG_RUN)

    @cached_property
    def min_start(self) -> int:
        """First words of this text that are a part of it."""
        if not self.is_name:
            return self.min_run
        least, most = (3, 6) if self._is_cjk else (2, 3)
        return min(self.min_run, max(least, min(most, len(self.words) - 1)))

    @cached_property
    def min_words(self) -> int:
        """Different words of this text that stand for it where they stand close together."""
        return ceil((WORDS_SHARE_CJK if self._is_cjk else WORDS_SHARE) * len(self.content))

    @cached_property
    def anchors(self) -> list[str]:
        """Pieces of which every run that counts holds one: the shortest start, and short runs at a fixed stride."""
        size = min(self.min_run, 2 if self.min_run < LONG_RUN else 4)
        stride = self.min_run - size + 1
        runs = [self.words[at : at + size] for at in range(0, len(self.words) - size + 1, stride)]
        return [f" {' '.join(run)} " for run in (self.words[: self.min_start], *runs)]

    @cached_property
    def runs(self) -> list[str]:
        """The shortest runs that count."""
        size = self.min_run
        runs = [self.words[at : at + size] for at in range(len(self.words) - size + 1)]
        return [f" {' '.join(run)} " for run in (self.words[: self.min_start], *runs)]

    @cached_property
    def remainder(self) -> list[str]:
        """A title's words without its brand; empty where that leaves none or all of them, or a single word."""
        left = [word for word in self.words if word not in self.brand]
        return left if self.is_name and 1 < len(left) < len(self.words) else []

    @cached_property
    def grams(self) -> frozenset[tuple[str, ...]]:
        return _grams(self.words, 4 if self._is_cjk else 3)

    @cached_property
    def _slots(self) -> Counter[str]:
        """Word -> its places in trigrams."""
        return Counter(word for gram in self.grams for word in gram)

    # -- search ---------------------------------------------------------------------------------------------------

    def find(self, trace: Normalised, around: Surroundings) -> list[tuple[str, str]]:
        """`(kind, excerpt)` of what a trace holds of this text; empty for most traces, after a few look-ups."""
        if not self.words or self._is_common:
            return []
        if self._backwards and self._backwards in trace.squeezed and not self._names_nothing(around):
            return [(f"{self.kind}_backwards", self._backwards)]
        num_shared, typos = len(self.content & trace.word_set), self.typos
        if typos:
            # A typo spoils two words at most, where it joins them.
            is_near = num_shared >= len(self.content) - 2 * typos
            wanted, text = self.squeezed, trace.squeezed
            suspicious = wanted in text or (is_near and may_stand_in(wanted, typos, text))
        else:
            suspicious = self.spaced in trace.spaced
        if not suspicious and (
            num_shared < 2 or (num_shared < self._least_scattered and not self._may_have_run(trace.word_set))
        ):
            return []
        found = self._find_pieces(trace, around, num_shared, suspicious)
        return [] if found and self._names_nothing(around) else found

    def _find_pieces(
        self, trace: Normalised, around: Surroundings, num_shared: int, suspicious: bool
    ) -> list[tuple[str, str]]:
        """What is found, be it common or not.

        Args:
            num_shared: content words that the trace has.
            suspicious: whether all of this text may stand in it.
        """
        found = self._find_whole(trace, around) if suspicious else []
        if found or num_shared < 2:
            return found
        found = self._find_runs(trace, around) or self._find_remainder(trace, around)
        if found:
            return found
        if self.is_name or self.is_short:
            return self._find_words(trace, around, self.min_words) if num_shared >= self.min_words else []
        if num_shared * 3 < len(self.content):
            return []
        found = self._find_copy(trace, around)
        if not found and num_shared >= (need := ceil(LIST_SHARE * len(self.content))):
            found = self._find_words(trace, around, need)
        return found

    def _may_have_run(self, words: frozenset[str]) -> bool:
        """Whether so many words of this text as make a run stand in a row in it, all of them among these."""
        length = 0
        for at, word in enumerate(self.words, 1):
            length = length + 1 if word in words else 0
            if length >= self._least_run or length == at >= self._least_start:
                return True
        return False

    def _names_nothing(self, around: Surroundings) -> bool:
        """Whether many items carry all of this text, so that no part of it names one."""
        if self._is_common is None:
            counts = around.counts
            self._is_common = counts is not None and counts.count_run(self.words, around.min_items) >= around.min_items
        return self._is_common

    def _find_whole(self, trace: Normalised, around: Surroundings) -> list[tuple[str, str]]:
        """The whole text, letter by letter, or with a few typos."""
        if self.squeezed in trace.squeezed and around.tells(self.words):
            return [(self.kind, self.spaced.strip())]
        if not self.typos:
            return []
        for end, _ in find_mistyped(self.squeezed, self.pieces, trace.squeezed):
            run = self._words_at(trace, end)
            if run == self.words:
                continue
            # Words that an item carries as they stand are not mistyped: they are that item's.
            if around.counts is not None and around.counts.count_run(run, 1):
                continue
            if around.tells(run) and around.tells(self.words):
                return [(f"{self.kind}_typo", " ".join(run))]
        return []

    def _words_at(self, trace: Normalised, end: int) -> list[str]:
        """The whole words of a trace that are most like this text, among those that end near character `end`."""
        lengths = [len(word) for word in trace.words]
        borders = [0]
        for length in lengths:
            borders.append(borders[-1] + length)
        n, slack = len(self.squeezed), max(self.typos, 4)
        starts = [i for i, b in enumerate(borders) if end - n - slack <= b <= end - n + slack]
        ends = [i for i, b in enumerate(borders) if end - slack <= b <= end + slack]
        starts = starts or [max(i for i, b in enumerate(borders) if b <= max(0, end - n))]
        ends = ends or [min(i for i, b in enumerate(borders) if b >= end)]
        options = [
            (distance(self.squeezed, "".join(trace.words[i:j])), j - i, i, j) for i in starts for j in ends if i < j
        ]
        if not options:
            return [self.squeezed]
        _, _, low, high = min(options)
        return trace.words[low:high]

    def _find_runs(self, trace: Normalised, around: Surroundings) -> list[tuple[str, str]]:
        """Words of this text that stand in a row: enough of them, or its first ones."""
        holds = trace.spaced.__contains__
        if not any(map(holds, self.anchors)) or not any(map(holds, self.runs)):
            return []
        for start, length in longest_runs(self.words, trace.words):
            if length < (self.min_start if start == 0 else self.min_run):
                continue
            run = self.words[start : start + length]
            if len(self.content.intersection(run)) >= min(2, len(self.content)) and around.tells(run):
                whole = length == len(self.words)
                return [(self.kind if whole else f"{self.kind}_part", " ".join(run))]
        return []

    def _find_remainder(self, trace: Normalised, around: Surroundings) -> list[tuple[str, str]]:
        """A title without its brand."""
        left = self.remainder
        if left and f" {' '.join(left)} " in trace.spaced and self.content.intersection(left) and around.tells(left):
            return [(f"{self.kind}_part", " ".join(left))]
        return []

    def _find_words(self, trace: Normalised, around: Surroundings, need: int) -> list[tuple[str, str]]:
        """So many content words close together, in any order."""
        if need < 2:
            return []
        words = trace.words
        places = [at for at, word in enumerate(words) if word in self.content]
        # Other words may come between words; between characters they make other words.
        reach = len(self.words) + 2 if self._is_cjk else ceil(1.5 * len(self.words)) + 1
        inside: Counter[str] = Counter()
        low = 0
        for place in places:
            inside[words[place]] += 1
            while place - places[low] >= reach:
                low = self._step(inside, words, places, low)
            if inside[words[place]] > 1 or len(inside) < need:
                continue
            while inside[words[places[low]]] > 1:  # what stands there again says nothing more
                low = self._step(inside, words, places, low)
            region = " ".join(words[places[low] : place + 1])
            if not around.is_common(sorted(inside)) and not around.is_shown(f" {region} "):
                return [(f"{self.kind}_words", region)]
        return []

    @staticmethod
    def _step(inside: Counter[str], words: list[str], places: list[int], low: int) -> int:
        """Takes the first place out of a window."""
        word = words[places[low]]
        inside[word] -= 1
        if not inside[word]:
            del inside[word]
        return low + 1

    def _may_hold_grams(self, words: frozenset[str], number: int) -> bool:
        """Whether a text of these words may hold so many of the trigrams, each of which needs all its words."""
        slots = self._slots
        return sum([slots[word] for word in words & slots.keys()]) >= number * (4 if self._is_cjk else 3)

    def _find_copy(self, trace: Normalised, around: Surroundings) -> list[tuple[str, str]]:
        """Much of a longer text, in any order of its sentences."""
        grams = self.grams
        size = 4 if self._is_cjk else 3
        if len(grams) < MIN_GRAMS or not self._may_hold_grams(trace.word_set, ceil(COPY_SHARE * len(grams))):
            return []
        held = grams & _grams(trace.words, size)
        if len(held) < COPY_SHARE * len(grams):
            return []
        for one in around.shown:
            held -= _grams(one.split(), size)
        if len(held) < COPY_SHARE * len(grams):
            return []
        words = sorted({word for gram in held for word in gram} & self.content)
        if not words or around.is_common(words):
            return []
        return [(f"{self.kind}_copy", f"{len(held)} of {len(grams)} runs of {size} words")]


def _grams(words: Sequence[str], size: int) -> frozenset[tuple[str, ...]]:
    return frozenset(zip(*(words[offset:] for offset in range(size)), strict=False))


def longest_runs(wanted: Sequence[str], words: Sequence[str]) -> list[tuple[int, int]]:
    """Runs of `wanted` that stand in `words` and grow no further: distinct `(start, length)`, the longest first."""
    places: dict[str, list[int]] = {}
    for at, word in enumerate(wanted):
        places.setdefault(word, []).append(at)
    found: set[tuple[int, int]] = set()
    growing: dict[int, int] = {}  # position in `wanted` -> length of the run that ends there
    for word in words:
        grown = {at: growing.get(at - 1, 0) + 1 for at in places.get(word, ())}
        found.update((at - length + 1, length) for at, length in growing.items() if at + 1 not in grown)
        growing = grown
    found.update((at - length + 1, length) for at, length in growing.items())
    return sorted(found, key=lambda run: (-run[1], run[0]))
