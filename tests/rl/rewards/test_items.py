"""Rewards of items, by hand and against loops over candidates and positives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onereason.errors import ConfigError
from onereason.rl.records import RewardInputs
from onereason.rl.rewards import RewardTerm, build_reward
from onereason.rl.rewards.items import Diversity, Graded, Hit, RolloutBeam
from tests.rl.reward_worlds import draw_inputs, make_inputs


def count_levels(candidate: np.ndarray, positive: np.ndarray, match: str) -> int:
    """Levels that agree, one comparison after the other."""
    count = 0
    for a, b in zip(candidate.tolist(), positive.tolist(), strict=True):
        if a == b and a >= 0:
            count += 1
        elif match == "prefix":
            break
    return count


def best_by_loops(inputs: RewardInputs, match: str = "prefix") -> np.ndarray:
    """`[G, N, K]`: the most levels an item shares with a positive that has codes."""
    best = np.zeros(inputs.shape, int)
    for g, n, k in np.ndindex(inputs.shape):
        for positive in inputs.positives[g]:
            if inputs.valid[g, n, k] and (positive >= 0).all():
                best[g, n, k] = max(best[g, n, k], count_levels(inputs.candidates[g, n, k], positive, match))
    return best


# One trace of four items against (1, 2, 3): three levels from the first on, two, the last two, none.
HAND = make_inputs([[[[1, 2, 3], [1, 2, 0], [0, 2, 3], [0, 0, 0]], [[0, 2, 3], [0, 0, 3], [2, 2, 2], [-1, -1, -1]]]],
                   [[[1, 2, 3]]])  # fmt: skip


def test_rollout_beam_by_hand() -> None:
    # Prefix: 3 and nothing; position: 3 and 2; either for the trace's items alike.
    assert RolloutBeam()(HAND).tolist() == [[[3.0] * 4, [0.0] * 4]]
    assert RolloutBeam(match="position")(HAND).tolist() == [[[3.0] * 4, [2.0] * 4]]
    np.testing.assert_allclose(RolloutBeam("position", normalise=True)(HAND), [[[1.0] * 4, [2 / 3] * 4]], rtol=1e-15)


@pytest.mark.parametrize("match", ["prefix", "position"])
@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_rollout_beam_is_the_best_of_a_trace(match: Any, levels: int, seed: int) -> None:
    inputs = draw_inputs(seed, levels)
    expected = np.zeros(inputs.shape)
    for g, n in np.ndindex(inputs.shape[:2]):
        best = max(best_by_loops(inputs, match)[g, n].tolist())
        for k in range(inputs.shape[2]):
            expected[g, n, k] = best if inputs.valid[g, n, k] else 0
    assert np.array_equal(RolloutBeam(match)(inputs), expected)
    np.testing.assert_allclose(RolloutBeam(match, normalise=True)(inputs), expected / levels, rtol=1e-15)
    assert len(np.unique(expected)) > 1


def test_hit_by_hand() -> None:
    assert Hit()(HAND).tolist() == [[[1, 0, 0, 0], [0, 0, 0, 0]]]


@pytest.mark.parametrize("seed", range(3))
def test_hit_is_membership_in_the_positive_set(seed: int) -> None:
    inputs = draw_inputs(seed, levels=2)
    for g, n, k in np.ndindex(inputs.shape):
        positives = [row for row in inputs.positives[g].tolist() if -1 not in row]
        expected = bool(inputs.valid[g, n, k]) and inputs.candidates[g, n, k].tolist() in positives
        assert Hit()(inputs)[g, n, k] == expected
    assert 0 < Hit()(inputs).mean() < 1


def test_an_item_without_codes_equals_nothing_not_even_a_positive_without_codes() -> None:
    inputs = make_inputs([[[[-1, -1], [0, 1]]]], [[[-1, -1]]])
    for reward in (Hit(), Graded(), RolloutBeam(), RolloutBeam("position")):
        assert not reward(inputs).any()


def test_an_item_that_was_not_rolled_out_is_no_candidate() -> None:
    """What stands in its place is not read."""
    inputs = make_inputs([[[[1, 2], [0, 0]]]], [[[1, 2]]], valid=[[[False, True]]])
    for reward in (Hit(), Graded(), RolloutBeam(), RolloutBeam("position")):
        assert not reward(inputs).any()


def test_grades_by_hand() -> None:
    np.testing.assert_array_equal(Graded()(HAND), [[[1.0, 0.6, 0, 0], [0, 0, 0, 0]]])
    own = Graded((0.1, 0.5, 0.7))(make_inputs([[[[1, 0, 0], [1, 2, 0], [1, 2, 3], [0, 2, 3]]]], [[[1, 2, 3]]]))
    np.testing.assert_array_equal(own, [[[0.1, 0.5, 0.7, 0.0]]])


def test_grades_of_other_numbers_of_levels_lie_on_lines_between() -> None:
    assert Graded().grades(3).tolist() == [0.0, 0.3, 0.6, 1.0]
    assert Graded().grades(1).tolist() == [0, 1]
    # 1/2 lies midway between 1/3 (0.3) and 2/3 (0.6); a quarter at 3/4 of the way to 1/3, three quarters at 1/4 of the
    # way from 2/3 to 1.
    np.testing.assert_allclose(Graded().grades(2), [0, 0.45, 1], rtol=1e-12)
    np.testing.assert_allclose(Graded().grades(4), [0, 0.225, 0.45, 0.7, 1], rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_an_item_gets_the_grade_of_its_best_prefix(seed: int) -> None:
    inputs = draw_inputs(seed, levels=3)
    table = {0: 0.0, 1: 0.3, 2: 0.6, 3: 1.0}
    expected = np.vectorize(table.get)(best_by_loops(inputs))
    assert np.array_equal(Graded()(inputs), expected) and len(np.unique(expected)) == 4


@pytest.mark.parametrize("levels", [(), (0.5, 0.3, 1.0), (-0.1, 0.5, 1.0), (0.3, 0.6, 1.1), (0.3, float("nan"), 1.0)])
def test_grades_run_from_0_to_1_and_never_fall(levels: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="levels must be grades from 0 to 1 that never fall"):
        Graded(levels)


def test_one_grade_a_level() -> None:
    terms = [RewardTerm("graded", options={"levels": [0.5, 1.0]})]
    build_reward(terms)  # the number of levels is not known yet
    with pytest.raises(ConfigError, match=r"reward graded: levels holds 2 grades, but sids have 3 levels; give 3"):
        build_reward(terms, num_levels=3)


def test_diversity_by_hand() -> None:
    # First codes 0 0 1 2: 3 distinct of 4; 1 1 1 1: one; an illegal item adds nothing: 0, 5 of 4.
    codes = [[0, 0, 1, 2], [1, 1, 1, 1], [0, 5, -1, -1]]
    inputs = make_inputs([[[[c, 7 if c >= 0 else -1] for c in row] for row in codes]])
    np.testing.assert_allclose(Diversity()(inputs), [[[2 / 3] * 4, [0] * 4, [1 / 3] * 4]], rtol=1e-15)


@pytest.mark.parametrize("seed", range(3))
def test_diversity_counts_distinct_first_codes(seed: int) -> None:
    inputs = draw_inputs(seed, codes=5)
    found = Diversity()(inputs)
    for g, n in np.ndindex(inputs.shape[:2]):
        first = {int(c[0]) for c, there in zip(inputs.candidates[g, n], inputs.valid[g, n], strict=True) if there}
        expected = max(0, len(first - {-1}) - 1) / 5  # K - 1, of the items asked for
        np.testing.assert_allclose(found[g, n], np.where(inputs.valid[g, n], expected, 0), rtol=1e-15)
    assert len(np.unique(found)) > 2


def test_one_item_a_trace_cannot_spread() -> None:
    assert Diversity()(make_inputs([[[[0, 1]], [[1, 1]]]])).tolist() == [[[0], [0]]]
    with pytest.raises(ConfigError, match=r"reward diversity: with one item a trace .* roll out at least 2 items"):
        build_reward([RewardTerm("hit"), RewardTerm("diversity")], "product", num_items=1)
    build_reward([RewardTerm("hit"), RewardTerm("diversity")], "sum", num_items=1)


def test_a_trace_does_not_answer_for_its_guide() -> None:
    """Of two traces one found an item that shares a level, and the next item stands in its last place; the other has
    found the next item itself.
    """
    codes = [[[1, 0], [2, 2], [1, 2]], [[1, 2], [2, 0], [2, 1]]]
    inputs = make_inputs([codes], [[[1, 2]]], guided=np.array([[[False, False, True], [False] * 3]]))
    assert RolloutBeam()(inputs).tolist() == [[[1, 1, 2], [2, 2, 2]]]
    # First codes 1 2 (and 1 of the guide): two of three, either way; 1 2 2 as well.
    assert Diversity()(inputs).tolist() == [[[0.5] * 3, [0.5] * 3]]
    assert Hit()(inputs).tolist() == [[[0, 0, 1], [1, 0, 0]]]
    alone = make_inputs([[[[0, 0], [0, 1], [1, 2]]]], [[[1, 2]]], guided=np.array([[[False, False, True]]]))
    assert Diversity()(alone).tolist() == [[[0, 0, 0.5]]]  # one first code is rolled out, two are there
