"""Traces of perception: an itemic pattern read code by code, and a description narrowed down to codes.

A trace is composed from what a catalog's items have in common: those under the first code, those under the first two,
and so on; of a prefix of few items nothing is said, for it would be said of the item itself. Then comes what is known
of the item, save what is asked for. The other way, from words to codes, a trace says which kind is described, and with
which code most items of that kind begin, where the item does too: it argues for no code that is not the answer's.

Notation: `N` items, `L` levels, `A` aspects, `G` groups of items that share a prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onereason.cognition.aspects import THEME, Aspect
from onereason.cognition.prefixes import TopValues, find_top_values, number_prefixes
from onereason.data.prompt_sets import PromptSet
from onereason.data.prompts import attribute_noun, domain_noun
from onereason.itemic.format import ANY_DOMAIN, ItemicFormat, level_letter

MIN_GROUP = 3
"""Of fewer items nothing is said in common: it would be said of the item itself."""
SHARES = (0.8, 0.5, 0.25, 0.1)
"""From which share of a group on its value is said of nearly all, most, many or some; below, it is not said."""
MAX_FACTS = 5
"""Facts that are told of an item."""
MAX_TRAITS = 2
"""Traits of a prefix that are told beside its theme, in a description."""


@dataclass(frozen=True)
class CatalogReading:
    """A catalog's codes, what their prefixes have in common, and the words for it; picklable.

    Attributes:
        format: the itemic format.
        codes: int32 `[N, L]`.
        domains: `N` names of what is asked for: the domain, or `*` where tokens tell none apart.
        patterns: `N` itemic patterns.
        aspects: the `A` sides of the items.
        groups: for each level but the last, int64 `[N]`: the item's prefix.
        sizes: for each of them, int64 `[G]`: its items.
        tops: for each of them and each aspect, the two most frequent values.
        places: for each aspect, the most frequent first prefix of the items of one domain and value.
        kinds: for each aspect, int64 `[N]`: the number of the item's domain and value in `places`, -1 for none.
        kind_sizes: for each aspect, the items of each kind.
        first_items: int64 `[G]`, an item under each prefix of the first level.
        prompts: prompt set `perception`.
        language: of the nouns.
    """

    format: ItemicFormat
    codes: np.ndarray
    domains: Sequence[str]
    patterns: Sequence[str]
    aspects: Sequence[Aspect]
    groups: Sequence[np.ndarray]
    sizes: Sequence[np.ndarray]
    tops: Sequence[Sequence[TopValues]]
    places: Sequence[TopValues]
    kinds: Sequence[np.ndarray]
    kind_sizes: Sequence[np.ndarray]
    first_items: np.ndarray
    prompts: PromptSet
    language: str


def read_catalog(
    format: ItemicFormat,
    codes: np.ndarray,
    domains: Sequence[str],
    patterns: Sequence[str],
    aspects: Sequence[Aspect],
    prompts: PromptSet,
    language: str,
) -> CatalogReading:
    """Counts what the items under each prefix have in common; see `CatalogReading` for the arguments."""
    asked = [ANY_DOMAIN] * len(domains) if ANY_DOMAIN in format.domains else list(domains)
    prefixes = number_prefixes(codes, asked)
    groups = prefixes[:-1]
    domain_numbers = np.unique(np.asarray(asked), return_inverse=True)[1].reshape(-1)
    kinds = []
    for aspect in aspects:
        known = aspect.numbers >= 0
        kind = np.full(len(codes), -1, np.int64)
        kind[known] = np.unique(
            domain_numbers[known] * len(aspect.values) + aspect.numbers[known], return_inverse=True
        )[1].reshape(-1)
        kinds.append(kind)
    return CatalogReading(
        format,
        codes,
        asked,
        patterns,
        aspects,
        groups,
        [np.bincount(ids) for ids in groups],
        [[find_top_values(ids, aspect.numbers, 2) for aspect in aspects] for ids in groups],
        [find_top_values(kind[kind >= 0], prefixes[0][kind >= 0], 1) for kind in kinds],
        kinds,
        [np.bincount(kind[kind >= 0]) for kind in kinds],
        np.unique(prefixes[0], return_index=True)[1],
        prompts,
        language,
    )


class Reader:
    """Reads the items `[start, stop)` of a catalog.

    What is said of a prefix is composed once and kept, so that a reader grows with the prefixes of its items.
    """

    def __init__(self, catalog: CatalogReading, start: int, stop: int) -> None:
        self._catalog = catalog
        self._start = start
        self._codes = catalog.codes[start:stop].tolist()
        self._groups = [ids[start:stop].tolist() for ids in catalog.groups]
        self._kinds = [kind[start:stop].tolist() for kind in catalog.kinds]
        self._numbers = [aspect.numbers[start:stop].tolist() for aspect in catalog.aspects]
        self._lines: dict[tuple[int, int, int], str] = {}
        self._places: dict[tuple[int, int], tuple[int, str] | None] = {}
        self._text = catalog.prompts.text
        self._code_tokens = [
            catalog.format.code_token.replace("{level}", level_letter(level))
            for level in range(catalog.format.num_levels)
        ]
        self._join = self._text("trace.join")
        self._item_line = self._text("trace.item")
        self._shares = catalog.prompts.variants("share.words")
        self._facts = [[self._fill(f"angle.{a.angle}.fact", a, value) for value in a.values] for a in catalog.aspects]

    def value(self, index: int, aspect: int) -> str | None:
        """The item's value, None where nothing is known."""
        number = self._numbers[aspect][index - self._start]
        return None if number < 0 else self._catalog.aspects[aspect].values[number]

    def facts(self, index: int, without: int | None = None) -> list[str]:
        """What is known of an item, as phrases, the theme first; `without` an aspect."""
        return self._phrases(index, [a for a in self._known(index) if a != without])

    def _known(self, index: int) -> list[int]:
        """The aspects of which something is known."""
        at = index - self._start
        return [a for a, numbers in enumerate(self._numbers) if numbers[at] >= 0]

    def _phrases(self, index: int, aspects: Sequence[int]) -> list[str]:
        at = index - self._start
        return [self._facts[a][self._numbers[a][at]] for a in aspects[:MAX_FACTS]]

    def read_pattern(self, index: int, asked: int | None = None) -> str | None:
        """The trace from a pattern to a description, or to the answer of a question; None where nothing can be said.

        Args:
            index: of the item.
            asked: the aspect a question asks for; nothing is told of the item's own value.
        """
        at = index - self._start
        lines: list[str] = []
        for level, groups in enumerate(self._groups):
            key = (level, groups[at], -1 if asked is None else asked)
            line = self._lines.get(key)
            if line is None:
                line = self._lines[key] = self._prefix_line(level, index, asked, "next" if lines else "first")
            if line:
                lines.append(line)
        if facts := self.facts(index, without=asked):
            lines.append(self._item_line.format(noun=self.noun(index), facts=self._join.join(facts)))
        return "\n".join(lines) or None

    def read_description(self, index: int, description: str) -> str | None:
        """The trace from a description to a pattern; None where nothing is known of the item or of its kind.

        Traits are told only where the description names them. The first code that most items of a kind have is named
        where it is the item's own; else the trace stays with the kind.
        """
        aspects, text = self._catalog.aspects, description.lower()
        told = [
            a for a in self._known(index) if aspects[a].angle == THEME or (self.value(index, a) or "").lower() in text
        ]
        at = index - self._start
        found = []
        for a in told[:2]:
            key = (a, self._kinds[a][at])
            if key not in self._places:
                self._places[key] = self._place_line(*key, index)
            if (place := self._places[key]) is not None:
                found.append(place)
        if not found:
            return None
        facts = self._join.join(self._phrases(index, told))
        # a first code that is the only one is the whole answer
        own = self._codes[at][0] if len(self._codes[at]) > 1 else -1
        lines = [line for code, line in found if code == own]
        return "\n".join([self._text("trace.described").format(noun=self.noun(index), facts=facts), *lines])

    def noun(self, index: int, plural: bool = False) -> str:
        return domain_noun(self._catalog.domains[index], plural, self._catalog.language)

    # -- lines --------------------------------------------------------------------------------------------------------

    def _prefix_line(self, level: int, index: int, asked: int | None, wording: str) -> str:
        """What the items under a prefix have in common; '' for a prefix of few items, or of all kinds of them."""
        group = self._groups[level][index - self._start]
        if self._catalog.sizes[level][group] < MIN_GROUP or not (findings := self._findings(level, group, asked)):
            return ""
        return self._text(f"trace.{wording}").format(
            codes=self._tokens(self._codes[index - self._start][: level + 1]),
            nouns=self.noun(index, plural=True),
            findings=self._join.join(findings),
        )

    def _findings(self, level: int, group: int, asked: int | None) -> list[str]:
        """Of the asked aspect and the theme; in a description, of the theme and the traits that most items share."""
        mains: list[str] = []
        others: list[str] = []
        for a, aspect in enumerate(self._catalog.aspects):
            is_main = a == asked or (asked is None and aspect.angle == THEME)
            if not is_main and asked is not None and aspect.angle != THEME:
                continue
            least = SHARES[-1] if is_main or asked is not None else SHARES[1]
            top = self._catalog.tops[level][a]
            for value, share in zip(top.values[group].tolist(), top.shares[group].tolist(), strict=True):
                if value >= 0 and share >= least:
                    text = self._fill(f"angle.{aspect.angle}.finding", aspect, aspect.values[value], share)
                    (mains if is_main else others).append(text)
                if not is_main:
                    break  # the most frequent value will do
        return mains + others[:MAX_TRAITS]

    def _place_line(self, aspect: int, kind: int, index: int) -> tuple[int, str] | None:
        """The first code that most items of a domain and value have, and how it is told; None where they are few.

        Of a code that few of them have, or a small share, nothing is told: -1 and ''.
        """
        catalog = self._catalog
        size, top = int(catalog.kind_sizes[aspect][kind]), catalog.places[aspect]
        if size < MIN_GROUP:
            return None
        group, share = int(top.values[kind, 0]), float(top.shares[kind, 0])
        if share < SHARES[-1] or round(share * size) < MIN_GROUP:
            return -1, ""
        code = int(catalog.codes[catalog.first_items[group], 0])
        told = self._text("trace.where").format(
            nouns=self.noun(index, plural=True),
            fact=self._phrases(index, [aspect])[0],
            places=self._text("trace.place").format(share=self._share(share), codes=self._tokens([code])),
        )
        return code, told

    def _tokens(self, codes: Sequence[int]) -> str:
        return "".join(token.replace("{code}", str(c)) for token, c in zip(self._code_tokens, codes, strict=False))

    def _share(self, share: float) -> str:
        return next(word for word, low in zip(self._shares, SHARES, strict=True) if share >= low)

    def _fill(self, key: str, aspect: Aspect, value: str, share: float | None = None) -> str:
        noun = attribute_noun(aspect.name, self._catalog.language)
        return self._text(key).format(attribute=noun, value=value, share="" if share is None else self._share(share))
