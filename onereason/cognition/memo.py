"""Answers that are kept: rows of a corpus say the same few things in ever new combinations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MAX_KEPT = 20_000
"""Answers that are kept; all are forgotten when there are more, so that memory stays bounded."""


class Memo(dict[K, V], Generic[K, V]):
    """The answers of a pure function by its argument; `memo[key]` asks it where the answer is not known.

    A copy that is pickled knows no answers.
    """

    def __init__(self, compute: Callable[[K], V], most: int = MAX_KEPT) -> None:
        super().__init__()
        self._compute = compute
        self._most = most

    def __missing__(self, key: K) -> V:
        if len(self) >= self._most:
            self.clear()
        self[key] = value = self._compute(key)
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return Memo, (self._compute, self._most)
