"""Does a trace give its answer away?

A trace is written as if the answer were unknown. It leaks where it holds the target's semantic id, its item id, its
title or caption, an attribute that few items bear, or a phrase that says the answer is known. The kinds are listed in
`KINDS`.

What many items share names a kind, not an item: words that at least `min_items` items of the catalogue carry are never
a leak, be they a category, a brand, or a title that is no more than a category's name. Words that stand in an item the
prompt shows are no leak either. Not found are paraphrases in other words, and numbers written as words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

from onereason.cognition.checks.patterns import PatternReader
from onereason.cognition.checks.phrases import Surroundings
from onereason.cognition.checks.prepared import PreparedTarget, TargetFacts
from onereason.cognition.checks.sid_leaks import SidReader
from onereason.cognition.checks.text_index import TextIndex
from onereason.cognition.normalise import normalise
from onereason.errors import ConfigError, DataError
from onereason.itemic.format import ItemicFormat

__all__ = ["KINDS", "MIN_ITEMS", "CatalogColumns", "CatalogTexts", "Leak", "LeakDetector", "TargetFacts", "find_leaks"]

MIN_ITEMS = 3
"""Words that so many items carry name no item."""

KINDS: dict[str, str] = {
    "pattern": "the target's whole pattern",
    "pattern_codes": "its code tokens in a row without its begin token, or under another domain's",
    "pattern_spelled": "its codes with space or words between them, or as numbers: `s_a 12, s_b 7`, `a12 b7`, `12-7-3`",
    "sid_part": "all of its codes but one, in the order of levels, outside a citation",
    "sid_shuffled": "its codes, or all but one, in another order of levels",
    "rare_code": "one of its code tokens that few items bear, outside a citation",
    "item_id": "its item id; a short number or a word only behind `item`, `id` or the like",
    "title": "its title, whatever the case, accents, width, punctuation and spaces",
    "title_typo": "its title with a few typos: one from 10 letters on, two from 20, three from 40",
    "title_part": "half of its title in a row, its first three words, or what is left of it without the brand",
    "title_words": "its title's words close together in another order",
    "caption": "its caption",
    "caption_typo": "its caption with a few typos",
    "caption_part": "eight words of its caption in a row (13 characters of Chinese or Japanese)",
    "caption_words": "the words of a caption close together in another order (of a long one nearly all)",
    "caption_copy": "half of the word trigrams of a longer caption, in any order of its sentences",
    "attribute": "a value that few items bear: a brand, an exact price, an id; or any value of a guarded attribute",
    "attribute_typo": "a value of more than eight words that few items bear, with a few typos",
    "attribute_part": "eight words of it in a row",
    "attribute_words": "its words close together in another order",
    "attribute_copy": "half of its word trigrams",
    "title_backwards": "its title's letters from the last to the first",
    "judge_instruction": "a phrase to whoever judges the trace: `ignore all instructions`, `give the highest score`",
    "announced": "a phrase that says the answer is known: `the answer is`, `the user next watched`",
}
"""Kind of leak -> what it is."""


class Leak(NamedTuple):
    """One thing that gives the answer away: a kind of `KINDS`, and the words of the trace that do."""

    kind: str
    excerpt: str


class CatalogColumns(Protocol):
    """A catalogue's items in words, by item index (such as `onereason.cognition.facts.ItemFacts`)."""

    @property
    def item_ids(self) -> Sequence[str]: ...
    @property
    def patterns(self) -> Sequence[str]: ...
    @property
    def titles(self) -> Sequence[str]: ...
    @property
    def captions(self) -> Sequence[str]: ...
    @property
    def attributes(self) -> Sequence[Mapping[str, Sequence[str]]]: ...
    @property
    def format(self) -> ItemicFormat: ...


@dataclass(frozen=True)
class CatalogTexts:
    """Columns of a catalogue; titles and captions are '' where unknown, attributes an empty mapping."""

    item_ids: Sequence[str]
    patterns: Sequence[str]
    titles: Sequence[str]
    captions: Sequence[str]
    attributes: Sequence[Mapping[str, Sequence[str]]]
    format: ItemicFormat


def find_leaks(
    trace: str,
    target: TargetFacts,
    format: ItemicFormat,
    *,
    brands: Collection[str] = ("brand",),
    guarded: Collection[str] = (),
) -> list[Leak]:
    """What a trace gives away of one target, where nothing is known of other items.

    Every piece of title or caption counts, common or not; attributes count where `target.unique` names them. Whole
    patterns with other codes are citations. `LeakDetector` knows the catalogue, and is quicker.

    Args:
        brands: attributes that hold a brand; a title without it still names the item.
        guarded: attributes whose values never may stand in a trace.
    """
    prepared = PreparedTarget(target, format, brands, guarded)
    return [Leak(*one) for one in prepared.find(trace, SidReader(PatternReader(format)), Surroundings(None, MIN_ITEMS))]


class LeakDetector:
    """Looks for leaks of a catalogue's items in traces.

    The forms of an item are made when it is first asked about, and kept. What is found depends on the catalogue's
    items, not on their order.
    """

    def __init__(
        self,
        items: CatalogColumns,
        *,
        min_items: int = MIN_ITEMS,
        brands: Collection[str] = ("brand",),
        guarded: Collection[str] = (),
        max_prepared: int = 50_000,
        patterns: PatternReader | None = None,
    ) -> None:
        """
        Args:
            items: the catalogue.
            min_items: words that so many items carry name no item.
            brands: attributes that hold a brand; a title without it still names the item.
            guarded: attributes whose values never may stand in a trace, however many items bear them.
            max_prepared: items whose forms are kept.
            patterns: reader of the format, where other checks read the same traces with it.

        Raises:
            ConfigError: `min_items` below 1.
            DataError: columns of unequal lengths.
        """
        if min_items < 1:
            raise ConfigError(f"min_items must be at least 1, got {min_items}.")
        n = len(items.item_ids)
        for name in ("patterns", "titles", "captions", "attributes"):
            if len(getattr(items, name)) != n:
                raise DataError(f"{name} has {len(getattr(items, name))} entries for {n} items; give one each.")
        self.items = items
        self.min_items = min_items
        self._brands = tuple(brands)
        self._guarded = frozenset(guarded)
        self._max_prepared = max_prepared
        self._patterns = patterns or PatternReader(items.format)
        self._prepared: dict[int, PreparedTarget] = {}
        self._alone = Surroundings(self, min_items)

    def __len__(self) -> int:
        return len(self.items.item_ids)

    def find(self, trace: str, target: int, shown: Sequence[int] = ()) -> list[Leak]:
        """What a trace gives away of item `target`; empty where it gives nothing away.

        Args:
            target: item index.
            shown: items that the prompt shows. What their texts say is no leak, save for the target's own and those
                of items under its semantic id.
        """
        prepared = self._prepared.get(target)
        if prepared is None:
            prepared = self._prepare(target)
        if not len(shown):
            found = prepared.find(trace, self._reader, self._alone)
        else:
            texts, patterns = _ShownTexts(self, target, shown), _ShownPatterns(self.items.patterns, shown)
            found = prepared.find(trace, self._reader, Surroundings(self, self.min_items, texts), patterns)
        return [Leak(*one) for one in found]

    def facts(self, target: int) -> TargetFacts:
        """What is known of an item, and what of it few items bear."""
        items = self.items
        codes = self._codes[target]
        attributes = items.attributes[target]
        counts, forms = self._value_counts
        unique = {v for of in attributes.values() for v in of if counts[forms[v]] < self.min_items}
        return TargetFacts(
            items.patterns[target],
            codes,
            items.item_ids[target],
            items.titles[target],
            items.captions[target],
            attributes,
            frozenset(unique),
            frozenset(level for level, code in enumerate(codes) if self._code_counts[level, code] < self.min_items),
        )

    def count_words(self, words: Sequence[str], limit: int) -> int:
        """How many items have all these words, in any order, counted up to `limit`."""
        return self._index.count_words(words, limit)

    def count_run(self, words: Sequence[str], limit: int) -> int:
        """How many items have these words one directly after another, counted up to `limit`."""
        return self._index.count_run(words, limit)

    def read_catalog(self) -> None:
        """Reads the catalogue's texts now and not with the first trace."""
        _ = self._index, self._codes, self._code_counts, self._value_counts

    # -- made on first use ----------------------------------------------------------------------------------------

    def _prepare(self, target: int) -> PreparedTarget:
        prepared = PreparedTarget(self.facts(target), self.items.format, self._brands, self._guarded)
        if len(self._prepared) >= self._max_prepared:
            self._prepared.clear()
        self._prepared[target] = prepared
        return prepared

    @cached_property
    def _reader(self) -> SidReader:
        return SidReader(self._patterns, frozenset(self.items.patterns))

    @cached_property
    def _codes(self) -> list[tuple[int, ...]]:
        return [self._patterns.parse_pattern(pattern) for pattern in self.items.patterns]

    @cached_property
    def _code_counts(self) -> Counter[tuple[int, int]]:
        """(level, code) -> items that bear it."""
        return Counter(pair for codes in self._codes for pair in enumerate(codes))

    @cached_property
    def _value_counts(self) -> tuple[Counter[str], dict[str, str]]:
        """Squeezed value -> items that bear it under any name, and value -> squeezed value."""
        forms: dict[str, str] = {}
        counts: Counter[str] = Counter()
        for attributes in self.items.attributes:
            values = {value for of in attributes.values() for value in of}
            for value in values:
                if value not in forms:
                    forms[value] = normalise(value).squeezed
            counts.update({forms[value] for value in values})
        return counts, forms

    @cached_property
    def _index(self) -> TextIndex:
        return TextIndex([self.text(item) for item in range(len(self))])

    def text(self, item: int) -> str:
        """All words of an item; title, caption and values are kept apart by `|`."""
        items = self.items
        values = [value for of in items.attributes[item].values() for value in of]
        parts = [items.titles[item], items.captions[item], *values]
        return "|".join(normalise(part).spaced for part in parts)


class _ShownTexts:
    """The texts of shown items, made when something suspicious is found."""

    def __init__(self, detector: LeakDetector, target: int, shown: Sequence[int]) -> None:
        self._detector, self._target, self._shown = detector, target, shown
        self._texts: list[str] | None = None

    def __iter__(self) -> Iterator[str]:
        if self._texts is None:
            patterns = self._detector.items.patterns
            own = patterns[self._target]
            texts = self._detector._index.texts
            self._texts = [texts[item] for item in dict.fromkeys(self._shown) if patterns[item] != own]
        return iter(self._texts)


class _ShownPatterns(Collection[str]):
    def __init__(self, patterns: Sequence[str], shown: Sequence[int]) -> None:
        self._patterns, self._shown = patterns, shown

    def __contains__(self, pattern: object) -> bool:
        return any(self._patterns[item] == pattern for item in self._shown)

    def __iter__(self) -> Iterator[str]:
        return (self._patterns[item] for item in self._shown)

    def __len__(self) -> int:
        return len(self._shown)
