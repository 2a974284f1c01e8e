"""Streams of random choices, one a unit of work: cheap to open, the same on every machine.

Builders draw every choice from a stream seeded by `(seed, unit)`, so that a row does not depend on how units are cut
into shards. Opening `random.Random` for each of millions of rows would cost more than making them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")

_MASK = (1 << 64) - 1


def mix_bits(value: int) -> int:
    """64 well mixed bits of a number (the finaliser of SplitMix64: Steele, Lea and Flood, 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


class Stream:
    """Choices out of the upper bits of a 64-bit linear congruential generator (Knuth's MMIX)."""

    __slots__ = ("_state",)

    def __init__(self, seed: int, unit: int, salt: int = 0) -> None:
        """
        Args:
            seed: of the build.
            unit: number of the unit.
            salt: keeps several streams of one unit apart.
        """
        self._state = mix_bits(mix_bits(mix_bits(seed & _MASK) ^ (unit & _MASK)) ^ (salt & _MASK))

    def below(self, n: int) -> int:
        """A number in `0 .. n - 1`, for `n` up to 2^32."""
        self._state = state = (self._state * 6364136223846793005 + 1442695040888963407) & _MASK
        return (state >> 32) * n >> 32

    def between(self, low: int, high: int) -> int:
        """A number in `low .. high`, both ends included."""
        return low + self.below(high - low + 1)

    def chance(self, share: float) -> bool:
        """True with probability `share`."""
        return self.below(1 << 32) < share * (1 << 32)

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def shuffle(self, values: list[Any]) -> None:
        """Puts a list in a random order, in place."""
        below = self.below
        for last in range(len(values) - 1, 0, -1):
            other = below(last + 1)
            values[last], values[other] = values[other], values[last]

    def sample(self, n: int, k: int) -> list[int]:
        """`k` different numbers in `0 .. n - 1`, in random order; `k` may not exceed `n`."""
        if k > n:
            raise ValueError(f"cannot take {k} different numbers below {n}.")
        if 2 * k >= n:
            values = list(range(n))
            self.shuffle(values)
            return values[:k]
        found: dict[int, None] = {}
        while len(found) < k:
            found[self.below(n)] = None
        return list(found)
