"""Merged and raced candidates against plain loops over dictionaries, and by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.decoding.merging import MERGES, merge_candidates, race
from onereason.errors import ConfigError


def naive_merge(lists: list[list[tuple[int, float]]], method: str) -> list[tuple[int, float]]:
    """`(leaf, score)` lists of one prompt -> one list; ranks are summed as fractions, so equal sums are equal."""
    found: dict[int, list] = {}
    for candidates in lists:  # a dictionary keeps the order in which leaves are first met
        for rank, (leaf, score) in enumerate(candidates, 1):
            found.setdefault(leaf, []).append(Fraction(1, 60 + rank) if method == "reciprocal_rank" else score)
    if method == "max":
        merged = {leaf: max(values) for leaf, values in found.items()}
    elif method == "sum":
        merged = {leaf: sum(Fraction(math.exp(v)) for v in values) / len(lists) for leaf, values in found.items()}
    else:
        merged = {leaf: sum(values) for leaf, values in found.items()}
    ranking = sorted(merged, key=lambda leaf: -merged[leaf])  # stable: ties stay in the order of the first meeting
    return [(leaf, math.log(merged[leaf]) if method == "sum" else float(merged[leaf])) for leaf in ranking]


@st.composite
def batches(draw) -> list[list[list[tuple[int, float]]]]:
    """`[B][N]` lists of `(leaf, score)`, the best first, from few leaves and few scores: overlaps and ties."""
    batch, num = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    leaf = st.integers(0, 7)
    score = st.sampled_from([-0.25, -0.5, -1.0, -2.5, -3.0])
    one = st.lists(st.tuples(leaf, score), max_size=6, unique_by=lambda pair: pair[0])
    one = one.map(lambda pairs: sorted(pairs, key=lambda pair: -pair[1]))
    return [[draw(one) for _ in range(num)] for _ in range(batch)]


def as_arrays(batch, width: int) -> tuple[np.ndarray, np.ndarray]:
    leaves = np.full((len(batch), len(batch[0]), width), -1, np.int64)
    scores = np.full(leaves.shape, -np.inf, np.float32)
    for b, lists in enumerate(batch):
        for n, candidates in enumerate(lists):
            for k, (leaf, score) in enumerate(candidates):
                leaves[b, n, k], scores[b, n, k] = leaf, score
    return leaves, scores


@settings(max_examples=150, deadline=None, derandomize=True)
@given(batches(), st.integers(0, 2), st.sampled_from(MERGES), st.none() | st.integers(0, 12))
def test_merging_equals_a_naive_loop(batch, fill, method, size):
    width = max(len(candidates) for lists in batch for candidates in lists) + fill
    leaves, scores = merge_candidates(*as_arrays(batch, width), method, size)
    expected = [naive_merge(lists, method) for lists in batch]
    length = max(map(len, expected)) if size is None else size
    assert leaves.shape == scores.shape == (len(batch), length)
    assert (leaves.dtype, scores.dtype) == (np.int64, np.float32)
    for b, ranking in enumerate(expected):
        ranking = ranking[:length]
        assert leaves[b].tolist() == [leaf for leaf, _ in ranking] + [-1] * (length - len(ranking))
        np.testing.assert_allclose(scores[b, : len(ranking)], [score for _, score in ranking], rtol=1e-6)
        assert (scores[b, len(ranking) :] == -np.inf).all()


def test_merging_by_hand():
    leaves = np.array([[[4, 9, 2], [9, 7, -1]]])
    scores = np.log(np.array([[[0.5, 0.3, 0.1], [0.6, 0.4, 1.0]]], np.float32))
    # Best: 9 .6, 4 .5, 7 .4, 2 .1.
    found, best = merge_candidates(leaves, scores, "max")
    assert found.tolist() == [[9, 4, 7, 2]]
    np.testing.assert_allclose(np.exp(best), [[0.6, 0.5, 0.4, 0.1]], rtol=1e-6)
    # Mean over two lists: 9 (.3 + .6) / 2, 4 .5 / 2, 7 .4 / 2, 2 .1 / 2.
    found, mean = merge_candidates(leaves, scores, "sum")
    assert found.tolist() == [[9, 4, 7, 2]]
    np.testing.assert_allclose(np.exp(mean), [[0.45, 0.25, 0.2, 0.05]], rtol=1e-6)
    # Ranks: 9 1/62 + 1/61, 4 1/61, 7 1/62, 2 1/63.
    found, ranks = merge_candidates(leaves, scores, "reciprocal_rank", size=3)
    assert found.tolist() == [[9, 4, 7]]
    np.testing.assert_allclose(ranks, [[1 / 62 + 1 / 61, 1 / 61, 1 / 62]], rtol=1e-6)
    assert merge_candidates(leaves, scores)[1].tolist() == mean.tolist()  # the default


def test_ties_go_to_the_candidate_met_first():
    # In every list order 5 has the ranks 1 2 3 and 8 the ranks 3 1 2 (or 2 3 1): the same sums, in another order, which
    # adding floats from left to right does not always make equal.
    for first, second, third in ([[5, 0, 8], [8, 5, 1], [2, 8, 5]], [[5, 8, 0], [1, 5, 8], [8, 2, 5]]):
        leaves = np.array([[first, second, third]])
        scores = np.array([[[-1.0, -2.0, -3.0]] * 3])
        for method in ("sum", "reciprocal_rank"):
            assert merge_candidates(leaves, scores, method)[0][0, :2].tolist() == [5, 8], (first, method)
    # 8 and 5 tie in both lists: 8 stands first in the earliest list that has either.
    assert merge_candidates(np.array([[[8, 5], [5, 8]]]), np.full((1, 2, 2), -1.0), "max")[0].tolist() == [[8, 5]]


def test_equal_terms_give_equal_sums_in_any_order():
    # Candidates 100 and 200 have the same ranks, and so the same scores, in another order of the lists: always a tie.
    rng = np.random.default_rng(0)
    scores = -0.37 * np.arange(1, 13, dtype=np.float32) ** 1.1
    tried = 0
    while tried < 100:
        ranks = rng.integers(0, 12, 5)
        other = rng.permutation(ranks)
        if (ranks == other).any():  # both cannot stand in one place
            continue
        tried += 1
        leaves = np.arange(1000, 1060).reshape(5, 12)
        leaves[np.arange(5), ranks], leaves[np.arange(5), other] = 100, 200
        for method in ("sum", "reciprocal_rank"):
            merged, values = merge_candidates(leaves[None], np.broadcast_to(scores, (1, 5, 12)), method)
            place = {leaf: at for at, leaf in enumerate(merged[0].tolist())}
            assert values[0, place[100]] == values[0, place[200]]
            assert (place[100] < place[200]) == (ranks[0] < other[0])


def test_candidates_without_any_probability():
    leaves = np.array([[[1, 2], [2, 1]]])
    scores = np.array([[[-1.0, -np.inf], [-np.inf, -np.inf]]], np.float32)
    with np.errstate(all="raise"):
        for method in ("max", "sum"):
            found, merged = merge_candidates(leaves, scores, method)
            assert found.tolist() == [[1, 2]]
            np.testing.assert_allclose(merged, [[-1.0 - (method == "sum") * math.log(2), -np.inf]], rtol=1e-6)


def test_very_unlikely_candidates_keep_their_sums():
    # exp(-2000) is 0 in any float; its logarithm is not lost. log((e^-2000 + e^-2000) / 2) = -2000.
    leaves, scores = np.array([[[3, 4], [3, 5]]]), np.array([[[-2000.0, -2001.0], [-2000.0, -2001.0]]], np.float32)
    found, merged = merge_candidates(leaves, scores, "sum")
    assert found.tolist() == [[3, 4, 5]]
    np.testing.assert_allclose(merged, [[-2000.0, -2001.0 - math.log(2), -2001.0 - math.log(2)]], rtol=1e-6)


@pytest.mark.parametrize("method", MERGES)
def test_nothing_to_merge(method):
    nothing = np.full((2, 3, 4), -1), np.full((2, 3, 4), -np.inf, np.float32)
    assert merge_candidates(*nothing, method)[0].shape == (2, 0)
    leaves, scores = merge_candidates(*nothing, method, size=2)
    assert leaves.tolist() == [[-1, -1]] * 2 and scores.tolist() == [[-np.inf] * 2] * 2
    no_width = np.zeros((2, 3, 0), np.int64), np.zeros((2, 3, 0), np.float32)
    assert merge_candidates(*no_width, method, size=1)[0].tolist() == [[-1], [-1]]
    one = np.array([[[-1, -1]], [[6, -1]]])
    assert merge_candidates(one, np.zeros((2, 1, 2), np.float32), method)[0].tolist() == [[-1], [6]]


def test_an_unknown_merge_is_named():
    with pytest.raises(ConfigError, match="merge 'mean' is not known; use max, sum, reciprocal_rank"):
        merge_candidates(np.zeros((1, 1, 1), np.int64), np.zeros((1, 1, 1)), "mean")


# -- race -------------------------------------------------------------------------------------------------------------


def naive_race(first: list[int], second: list[int]) -> tuple[list[int], list[int]]:
    taken: list[int] = []
    source: list[int] = []
    for number, leaves in enumerate((first, second)):
        for leaf in leaves:
            if leaf >= 0 and leaf not in taken:
                taken.append(leaf)
                source.append(number)
    return taken, source


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(1, 3), st.integers(0, 6), st.integers(0, 6), st.data())
def test_a_race_equals_a_naive_loop(batch, width, other_width, data):
    def lists(size: int) -> list[list[int]]:
        one = st.lists(st.integers(0, 8), max_size=size, unique=True).map(lambda row: row + [-1] * (size - len(row)))
        return data.draw(st.lists(one, min_size=batch, max_size=batch))

    first, second = lists(width), lists(other_width)
    num_first, num_second = data.draw(st.integers(0, width)), data.draw(st.integers(0, other_width))
    arrays = (np.array(rows, np.int64).reshape(batch, -1) for rows in (first, second))
    leaves, source = race(*arrays, num_first, num_second)
    assert leaves.shape == source.shape == (batch, num_first + num_second)
    for b in range(batch):
        taken, origin = naive_race(first[b][:num_first], second[b][:num_second])
        fill = [-1] * (num_first + num_second - len(taken))
        assert leaves[b].tolist() == taken + fill
        assert source[b].tolist() == origin + fill


def test_the_public_protocol():
    # 64 beams each; 32 of the thinking mode (0 .. 31), then 32 of the other (20 .. 51), of which 20 .. 31 are there.
    thinking, plain = np.arange(64)[None], np.arange(20, 84)[None]
    leaves, source = race(thinking, plain, 32, 32)
    assert leaves[0].tolist() == [*range(52), *[-1] * 12]
    assert source[0].tolist() == [0] * 32 + [1] * 20 + [-1] * 12


def test_a_race_takes_no_more_than_there_are():
    lists = np.arange(4)[None]
    with pytest.raises(ConfigError, match="takes 5 of the first search's 4 candidates; raise beams"):
        race(lists, lists, 5, 2)
    with pytest.raises(ConfigError, match="takes -1 of the second search's 4 candidates"):
        race(lists, lists, 2, -1)


def test_a_filled_race_takes_the_next_of_both_in_turns():
    think, plain = np.array([[1, 2, 3, 4, 9]]), np.array([[1, 2, 5, 3, -1]])
    # 1 2 3 from thinking, 1 2 5 from not thinking: 1 and 2 leave two places free; then 4, 3 (again), 9 in turns
    leaves, source = race(think, plain, 3, 3, fill=True)
    assert leaves.tolist() == [[1, 2, 3, 5, 4, 9]] and source.tolist() == [[0, 0, 0, 1, 0, 0]]
    assert race(think, plain, 3, 3)[0].tolist() == [[1, 2, 3, 5, -1, -1]]
