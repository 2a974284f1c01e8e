"""Items a trace cites: are they in the catalogue, and in the history (OneReason, Eq. 24-25)?

The same shares as `onereason.itemic.citations` gives, with malformed patterns counted as cited and not legal, and quick
enough for every row of a corpus.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from onereason.cognition.checks.patterns import PatternReader
from onereason.cognition.checks.problem import Problem
from onereason.itemic.citations import share


class Citations(NamedTuple):
    """What a trace cites.

    Attributes:
        legal: distinct patterns of items of the catalogue, in order of their first citation.
        illegal: distinct whole patterns that no item of the catalogue bears.
        unmet: those of `legal` that are not in the history.
        num_malformed: runs of itemic tokens that are no whole pattern.
    """

    legal: tuple[str, ...]
    illegal: tuple[str, ...]
    unmet: tuple[str, ...]
    num_malformed: int

    @property
    def legality(self) -> float | None:
        """Legal citations over all, malformed ones among them (Eq. 24); None where nothing is cited."""
        return share(len(self.legal), len(self.legal) + len(self.illegal) + self.num_malformed)

    @property
    def history_validity(self) -> float | None:
        """Legal citations that are in the history over legal ones (Eq. 25); None without a legal one."""
        return share(len(self.legal) - len(self.unmet), len(self.legal))

    def problems(self, at_least: int = 0) -> list[Problem]:
        """`citation_malformed`, `citation_illegal`, `citation_not_in_history`, and `citation_missing` where fewer
        than `at_least` items of the history are cited."""
        found = [Problem("citation_illegal", pattern) for pattern in self.illegal]
        found += [Problem("citation_not_in_history", pattern) for pattern in self.unmet]
        if self.num_malformed:
            found.append(Problem("citation_malformed", f"{self.num_malformed} runs of itemic tokens"))
        met = len(self.legal) - len(self.unmet)
        if met < at_least:
            found.append(Problem("citation_missing", f"{met} of at least {at_least}"))
        return found


class CitationReader:
    """Reads the citations of traces about one catalogue."""

    def __init__(self, reader: PatternReader, patterns: Sequence[str]) -> None:
        """
        Args:
            reader: of the catalogue's format.
            patterns: of the catalogue's items, by item index.
        """
        self.reader = reader
        self._patterns = patterns
        self._known = frozenset(patterns)

    def read(self, trace: str, history: Iterable[int]) -> Citations:
        """What a trace cites.

        A cited pattern is in the history when any item that bears it is.

        Args:
            history: item indices.
        """
        cited = list(dict.fromkeys(self.reader.read(trace)[0]))
        num_malformed = 0
        illegal: Sequence[str] = ()
        if not self._known.issuperset(cited) or self.reader.find_stray(trace) is not None:
            format = self.reader.format
            parsed = format.parse(trace)
            cited = list(dict.fromkeys(format.render(i.codes, i.domain) for i in parsed.items))
            num_malformed = parsed.num_malformed
            illegal = [pattern for pattern in cited if pattern not in self._known]
            cited = [pattern for pattern in cited if pattern in self._known]
        if not cited:
            return Citations((), tuple(illegal), (), num_malformed)
        unmet = set(cited).difference(map(self._patterns.__getitem__, history))
        missing = tuple([pattern for pattern in cited if pattern in unmet]) if unmet else ()
        return Citations(tuple(cited), tuple(illegal), missing, num_malformed)
