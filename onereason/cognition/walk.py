"""Reading a timeline item by item, keeping what a careful reader would keep in mind.

Evidence for a target is what a walk holds when it stands before the target, so nothing later can enter a trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from onereason.cognition.interests import UNKNOWN, live_interest


class Walk:
    """A reader of one timeline.

    What is read is counted when somebody asks for the counts, and each item once: most of a timeline is only passed.

    Attributes:
        items: the item indices read so far.
    """

    __slots__ = (
        "_base",
        "_counts",
        "_domain_of",
        "_interest_of",
        "_interests",
        "_live",
        "_num_placed",
        "_places",
        "_values",
        "_window",
        "items",
    )

    def __init__(
        self,
        interest_of: Sequence[int],
        domain_of: Sequence[str],
        values: Mapping[str, Sequence[str]],
        base: Mapping[str, Mapping[str, float]],
        window: int,
    ):
        """
        Args:
            interest_of: interest of each item, negative where unknown.
            domain_of: domain of each item.
            values: attribute -> value of each item, '' where unknown.
            base: attribute -> value -> share among all events.
            window: recent events that decide which interest is live.
        """
        self._interest_of, self._domain_of, self._values, self._base = interest_of, domain_of, values, base
        self._window = window
        self._interests: list[int] = []
        self._live: tuple[int, int] | None = None
        self._places: dict[int, list[int]] = {}
        self._num_placed = 0
        self._counts: dict[str, tuple[int, dict[str, int]]] = {}
        self.items: list[int] = []

    def read(self, item: int) -> None:
        """Takes in the next item."""
        self.items.append(item)
        self._live = None

    def read_all(self, items: Iterable[int]) -> None:
        """Takes in the next items, oldest first."""
        self.items.extend(items)
        self._live = None

    @property
    def interests(self) -> list[int]:
        """The interest of each item read, negative where unknown."""
        known = self._interests
        if len(known) < len(self.items):
            known.extend(map(self._interest_of.__getitem__, self.items[len(known) :]))
        return known

    @property
    def places(self) -> dict[int, list[int]]:
        """Interest -> positions of its items, oldest first."""
        places, interests = self._places, self.interests
        for place in range(self._num_placed, len(interests)):
            interest = interests[place]
            if interest in places:
                places[interest].append(place)
            elif interest != UNKNOWN:
                places[interest] = [place]
        self._num_placed = len(interests)
        return places

    @property
    def domains(self) -> dict[str, int]:
        """Domain -> items read."""
        return self._count_more({}, self._domain_of, 0)

    def count(self, name: str) -> dict[str, int]:
        """Value of an attribute -> items read that bear it."""
        start, counts = self._counts.get(name) or (0, {})
        if start < len(self.items):
            self._counts[name] = (len(self.items), self._count_more(counts, self._values[name], start))
        return counts

    def _count_more(self, counts: dict[str, int], values: Sequence[str], start: int) -> dict[str, int]:
        for item in self.items[start:]:
            if value := values[item]:
                counts[value] = counts.get(value, 0) + 1
        return counts

    def live(self) -> tuple[int, int]:
        """The interest that leads the recent events, and how often it stands there (see `live_interest`)."""
        if self._live is None:
            recent: list[int] = []
            for interest in reversed(self.interests):
                if interest != UNKNOWN:
                    recent.append(interest)
                    if len(recent) == self._window:
                        break
            recent.reverse()
            self._live = live_interest(recent)
        return self._live

    def leaning(self, name: str, min_count: int) -> tuple[str, int]:
        """The value of an attribute that the items read exceed the general share by most, and their number.

        '' and 0 where no value occurs `min_count` times more often than it does in general.
        """
        counts = self.count(name)
        best, number, most = "", 0, 0.0
        total = -1
        for value, count in counts.items():
            if count >= min_count:
                if total < 0:
                    base, total = self._base[name], sum(counts.values())
                excess = count - total * base.get(value, 0.0)
                if excess > most or (excess == most and value < best):
                    best, number, most = value, count, excess
        return best, number

    def last(self, name: str) -> str:
        """The value of an attribute of the item read last, '' where unknown."""
        return self._values[name][self.items[-1]] if self.items else ""
