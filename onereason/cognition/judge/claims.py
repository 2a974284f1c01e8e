"""Is what a text says of the items it cites what the catalogue says of them?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from onereason.cognition.checks.patterns import PatternReader
from onereason.cognition.normalise import normalise


class Claim(NamedTuple):
    """A value that a text states of an item.

    Attributes:
        pattern: the item's itemic pattern.
        value: what is stated.
        attribute: of which attribute; None where the text names none, so that any of the item's values will do.
    """

    pattern: str
    value: str
    attribute: str | None = None


class ItemColumns(Protocol):
    """A catalogue's items in words, by item index (such as `onereason.cognition.facts.ItemFacts`)."""

    @property
    def patterns(self) -> Sequence[str]: ...
    @property
    def titles(self) -> Sequence[str]: ...
    @property
    def attributes(self) -> Sequence[Mapping[str, Sequence[str]]]: ...


class FactTable:
    """What the catalogue says of its items, by pattern; items under one pattern answer together."""

    def __init__(self, items: ItemColumns) -> None:
        self._items = items
        self._of_pattern: dict[str, list[int]] = {}
        for index, pattern in enumerate(items.patterns):
            self._of_pattern.setdefault(pattern, []).append(index)
        self._forms: dict[str, str] = {}
        # A bracket holds a claim where some item bears what stands in it; "(twice)" is a remark.
        self._known = {self._form(v) for of in items.attributes for values in of.values() for v in values}

    def _form(self, text: str) -> str:
        form = self._forms.get(text)
        if form is None:
            form = self._forms[text] = normalise(text).squeezed
        return form

    def is_value(self, text: str) -> bool:
        """Whether any item bears this value."""
        return normalise(text).squeezed in self._known

    def is_true(self, claim: Claim) -> bool:
        """Whether an item under the claim's pattern bears the value; titles count where no attribute is named."""
        stated = normalise(claim.value).squeezed
        for index in self._of_pattern.get(claim.pattern, ()):
            attributes = self._items.attributes[index]
            if claim.attribute is not None:
                values: Sequence[str] = attributes.get(claim.attribute, ())
            else:
                values = [self._items.titles[index], *(v for several in attributes.values() for v in several)]
            if any(stated == self._form(value) for value in values):
                return True
        return False


_BRACKET = re.compile(r"\s?[(（]([^()（）]{1,80})[)）]")  # noqa: RUF001
_SEPARATOR = re.compile(r"[,;，；、/]")  # noqa: RUF001


def _has_bracket(text: str, last_characters: frozenset[str]) -> bool:
    """Whether a bracket opens behind something that may be a pattern."""
    for bracket in "(（":  # noqa: RUF001
        at = text.find(bracket)
        while at > 0:
            before = text[at - 1]
            if before in last_characters or (before.isspace() and text[max(0, at - 2)] in last_characters):
                return True
            at = text.find(bracket, at + 1)
    return False


def read_claims(text: str, reader: PatternReader, facts: FactTable) -> list[Claim]:
    """The claims of `PATTERN (value, value)`; remarks that are no value of any item are passed over."""
    if not _has_bracket(text, reader.last_characters):
        return []
    found = []
    for match in reader.whole.finditer(text):
        bracket = _BRACKET.match(text, match.end())
        if bracket is None:
            continue
        inside = bracket.group(1)
        values = [inside] if facts.is_value(inside) else _SEPARATOR.split(inside)
        found += [Claim(match.group(), value.strip()) for value in values if facts.is_value(value)]
    return found
