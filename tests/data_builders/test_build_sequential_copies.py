"""Perturbed copies of sequential rows: what may change, and what may not."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from data_builders.build_sequential import perturb


class Scripted(random.Random):
    """Answers `random()` from a list, so that the expected copy can be written down."""

    def __init__(self, answers: list[float]):
        super().__init__(0)
        self.answers = iter(answers)

    def random(self) -> float:
        return next(self.answers)


def test_perturb_by_hand() -> None:
    # drop 0.5: of 1 2 3 4 5 the draws .9 .1 .7 .8 .6 leave out 2 -> 1 3 4 5.
    # swap 0.5: draw .2 exchanges 1 and 3 and steps past both; draw .9 leaves 4 5 -> 3 1 4 5.
    rng = Scripted([0.9, 0.1, 0.7, 0.8, 0.6, 0.2, 0.9])
    assert perturb([1, 2, 3, 4, 5], 0.5, 0.5, rng) == [3, 1, 4, 5]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=12), st.floats(0, 0.99), st.floats(0, 1), st.integers(0, 99))
def test_copies_hold_two_or_more_items_of_the_history(history: list[int], drop: float, swap: float, seed: int) -> None:
    copy = perturb(history, drop, swap, random.Random(seed))
    assert len(copy) >= 2
    assert not Counter(copy) - Counter(history)
    assert perturb(history, 0.0, 0.0, random.Random(seed)) == history


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.integers(0, 99))
def test_swapping_moves_no_item_further_than_one_place(length: int, seed: int) -> None:
    copy = perturb(range(length), 0.0, 0.5, random.Random(seed))
    assert all(abs(place - item) <= 1 for place, item in enumerate(copy))
