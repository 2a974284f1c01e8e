"""Rate limits with a clock that is turned by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from onereason.cognition.teachers.rates import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_requests_are_spread_over_the_minute():
    clock = Clock()
    limit = RateLimit(30, clock)  # one every 2 s
    assert [limit.reserve() for _ in range(4)] == [0, 2, 4, 6]
    clock.now += 5
    assert limit.reserve() == 3
    clock.now += 100  # idle time is not saved up
    assert [limit.reserve() for _ in range(3)] == [0, 2, 4]


def test_large_requests_take_more_and_what_was_too_much_is_given_back():
    clock = Clock()
    limit = RateLimit(600, clock)  # ten tokens a second
    assert limit.reserve(50) == 0 and limit.reserve(20) == 5 and limit.reserve(1) == 7
    limit.correct(-30)
    assert limit.reserve(1) == pytest.approx(7.1 - 3)
    limit.correct(10)
    assert limit.reserve(1) == pytest.approx(7.2 - 3 + 1)
    assert RateLimit(6000, clock).reserve(100_000) == 0  # one that is larger than the minute is let through


def test_no_minute_holds_more_than_the_limit_and_one_request():
    rng, clock = np.random.default_rng(0), Clock()
    limit, begun = RateLimit(100, clock), []
    for amount in rng.integers(1, 20, 500):
        clock.now += rng.exponential(4.0)
        begun.append((clock.now + limit.reserve(amount), amount))
    assert all(first <= second for (first, _), (second, _) in pairwise(begun))
    for start, _ in begun:
        assert sum(amount for time, amount in begun if start <= time < start + 60) <= 100 + 20
