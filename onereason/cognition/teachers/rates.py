"""What a minute may hold."""

from __future__ import annotations

import time
from collections.abc import Callable


class RateLimit:
    """A token bucket that holds one request: what a minute may hold is spread evenly over it, without bursts.

    So no minute, wherever it begins, holds more than `per_minute` and what one request takes.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic):
        """
        Args:
            per_minute: requests, or tokens.
            clock: seconds.
        """
        self.per_minute = per_minute
        self._clock = clock
        self._free = -float("inf")

    def reserve(self, amount: float = 1.0) -> float:
        """Takes `amount` and returns the seconds to wait before it may be used."""
        now = self._clock()
        start = max(now, self._free)
        self._free = start + amount * 60.0 / self.per_minute
        return start - now

    def correct(self, difference: float) -> None:
        """Takes `difference` more, or gives it back where it is negative: what was reserved was an estimate."""
        self._free += difference * 60.0 / self.per_minute
