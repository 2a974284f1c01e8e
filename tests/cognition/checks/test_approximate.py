"""Approximate matching against the textbook dynamic programme."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onereason.cognition.checks.approximate import Pieces, distance, find_mistyped, scan_distances, typos_allowed

WORDS = st.text("abc", min_size=1, max_size=9)


def by_table(first: str, second: str) -> int:
    """Optimal string alignment distance, cell by cell."""
    rows = [[i + j if not i or not j else 0 for j in range(len(second) + 1)] for i in range(len(first) + 1)]
    for i in range(1, len(first) + 1):
        for j in range(1, len(second) + 1):
            changed = first[i - 1] != second[j - 1]
            rows[i][j] = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + changed)
            if i > 1 and j > 1 and first[i - 1] == second[j - 2] and first[i - 2] == second[j - 1]:
                rows[i][j] = min(rows[i][j], rows[i - 2][j - 2] + 1)
    return rows[-1][-1]


@given(WORDS, WORDS)
def test_distance(first, second):
    assert distance(first, second) == by_table(first, second)


@given(WORDS, WORDS)
def test_distance_to_the_best_piece_that_ends_at_each_place(wanted, text):
    best = [min(by_table(wanted, text[i:j]) for i in range(j + 1)) for j in range(1, len(text) + 1)]
    assert list(scan_distances(wanted, text, anywhere=True)) == best


def test_distance_of_nothing():
    assert distance("", "abc") == distance("abc", "") == 3


@pytest.mark.parametrize(("n", "typos"), [(9, 0), (10, 1), (23, 1), (24, 2), (39, 2), (40, 3), (400, 3)])
def test_longer_texts_may_have_more_typos(n, typos):
    assert typos_allowed(n) == typos


@st.composite
def mistyped(draw) -> tuple[str, str, int]:
    """A text, the same with at most the allowed typos, and how many there are at most."""
    text = draw(st.text("abcdefgh", min_size=10, max_size=60))
    typos = typos_allowed(len(text))
    letters = list(text)
    for _ in range(typos):
        at = draw(st.integers(0, len(letters) - 2))
        what = draw(st.sampled_from(["drop", "put in", "replace", "swap"]))
        if what == "drop":
            del letters[at]
        elif what == "put in":
            letters.insert(at, draw(st.sampled_from("abcz")))
        elif what == "replace":
            letters[at] = draw(st.sampled_from("abcz"))
        else:
            letters[at], letters[at + 1] = letters[at + 1], letters[at]
    return text, "".join(letters), typos


@given(mistyped(), st.text("ijk", max_size=30), st.text("ijk", max_size=30))
def test_a_mistyped_text_is_found_wherever_it_stands(case, before, after):
    wanted, written, typos = case
    # Two edits of one place may cost more than two by this distance, which touches a character once.
    if by_table(wanted, written) > typos:
        return
    pieces = Pieces.of(wanted, typos)
    text = before + written + after
    assert pieces.may_stand_in(text)
    found = find_mistyped(wanted, pieces, text)
    assert found and min(value for _, value in found) <= by_table(wanted, written)


def test_another_text_is_not_found():
    pieces = Pieces.of("velvetnailpolish", 1)
    assert find_mistyped("velvetnailpolish", pieces, "abluenailpolishremover") == []
    assert not pieces.may_stand_in("lipsticksandmore")
