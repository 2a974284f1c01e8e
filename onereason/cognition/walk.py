"""Reading a timeline item by item, keeping what a careful reader would keep in mind.

Evidence for a target is what a walk holds when it stands before the target, so nothing later can enter a trace.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from onereason.cognition.interests import live_interest


class Walk:
    """A reader of one timeline.

    Attributes:
        items: the item indices read so far.
        places: interest -> positions of its items, oldest first.
        traits: attribute -> value -> items read that bear it.
        domains: domain -> items read.
        num_known: items read that have an interest.
    """

    __slots__ = (
        "_base",
        "_domain_of",
        "_interest_of",
        "_recent",
        "_values",
        "domains",
        "items",
        "num_known",
        "places",
        "traits",
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
        self._recent: deque[int] = deque(maxlen=window)
        self.items: list[int] = []
        self.places: dict[int, list[int]] = {}
        self.traits: dict[str, dict[str, int]] = {name: {} for name in values}
        self.domains: dict[str, int] = {}
        self.num_known = 0

    def read(self, item: int) -> None:
        """Takes in the next item."""
        interest = self._interest_of[item]
        if interest >= 0:
            self.num_known += 1
            self._recent.append(interest)
            self.places.setdefault(interest, []).append(len(self.items))
        for name, values in self._values.items():
            value = values[item]
            if value:
                counts = self.traits[name]
                counts[value] = counts.get(value, 0) + 1
        domain = self._domain_of[item]
        self.domains[domain] = self.domains.get(domain, 0) + 1
        self.items.append(item)

    def live(self) -> tuple[int, int]:
        """The interest that leads the recent events, and how often it stands there (see `live_interest`)."""
        return live_interest(self._recent)  # type: ignore[arg-type]

    def leaning(self, name: str, min_count: int) -> tuple[str, int]:
        """The value of an attribute that the items read exceed the general share by most, and their number.

        '' and 0 where no value occurs `min_count` times more often than it does in general.
        """
        counts = self.traits[name]
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
