"""Agreement and spread of code sequences, by hand and against loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.itemic.matching import (
    common_prefix_levels,
    first_code_diversity,
    matching_levels,
    num_first_codes,
)

GAP = [-1, -1, -1]
SEQUENCES = np.array(
    [
        [[1, 2, 3], [1, 5, 3], [4, 2, 3], [7, 0, 0]],
        [[9, 9, 9], [9, 9, 8], [9, 9, 7], [9, 9, 6]],
        [[0, 0, 0], [0, 1, 0], GAP, GAP],
        [GAP, GAP, GAP, GAP],
    ]
)


def test_agreement_by_hand():
    targets = np.array([[1, 5, 3], [4, 2, 0]])
    # 1-2-3 against 1-5-3: the first level, then the third. 4-2-3 against 1-5-3: the third only.
    assert common_prefix_levels(SEQUENCES[0], targets).tolist() == [[1, 0], [3, 0], [0, 2], [0, 0]]
    # 1-2-3 against 4-2-0: the second; 7-0-0 against 4-2-0: the third.
    assert matching_levels(SEQUENCES[0], targets).tolist() == [[2, 1], [3, 0], [1, 2], [0, 1]]


def test_what_does_not_exist_matches_nothing():
    assert common_prefix_levels(np.array(GAP), np.array([GAP])).tolist() == [0]
    assert matching_levels(np.array(GAP), np.array([GAP])).tolist() == [0]
    assert matching_levels(np.array([1, -1, 2]), np.array([[1, -1, 2]])).tolist() == [2]
    assert common_prefix_levels(np.array([1, -1, 2]), np.array([[1, -1, 2]])).tolist() == [1]


def test_no_targets():
    assert common_prefix_levels(SEQUENCES, np.empty((0, 3), np.int64)).shape == (4, 4, 0)


@pytest.mark.parametrize("targets", [np.zeros((2, 4)), np.zeros((2, 1)), np.zeros(3)])
def test_other_levels_are_refused(targets):
    with pytest.raises(ValueError, match="with as many levels"):
        common_prefix_levels(SEQUENCES, targets)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_agreement_equals_a_loop(seed, num_levels):
    rng = np.random.default_rng(seed)
    candidates, targets = rng.integers(-1, 3, (2, 5, num_levels)), rng.integers(-1, 3, (3, num_levels))
    prefix, position = common_prefix_levels(candidates, targets), matching_levels(candidates, targets)
    assert prefix.shape == position.shape == (2, 5, 3)
    for i, j, k in np.ndindex(2, 5, 3):
        same = [a == b and a >= 0 for a, b in zip(candidates[i, j], targets[k], strict=True)]
        assert position[i, j, k] == sum(same)
        assert prefix[i, j, k] == [*same, False].index(False)


def test_diversity_of_first_codes_by_hand():
    assert num_first_codes(SEQUENCES).tolist() == [3, 1, 1, 0]
    # K = 4: (3 - 1) / 3, (1 - 1) / 3, 0, 0.
    assert first_code_diversity(SEQUENCES).tolist() == [2 / 3, 0, 0, 0]
    assert first_code_diversity(SEQUENCES.reshape(2, 2, 4, 3)).tolist() == [[2 / 3, 0], [0, 0]]
    assert first_code_diversity(np.arange(12).reshape(1, 4, 3)).tolist() == [1]
    assert first_code_diversity(SEQUENCES[:, :1]).tolist() == [0, 0, 0, 0]  # one item spreads nothing
    assert first_code_diversity(SEQUENCES[:0]).tolist() == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_first_codes_equal_a_loop(seed, num_items):
    sequences = np.random.default_rng(seed).integers(-1, 4, (3, 2, num_items, 2))
    found, diversity = num_first_codes(sequences), first_code_diversity(sequences)
    for i, j in np.ndindex(3, 2):
        distinct = {code for code in sequences[i, j, :, 0].tolist() if code >= 0}
        assert found[i, j] == len(distinct)
        assert diversity[i, j] == max(0, len(distinct) - 1) / max(num_items - 1, 1)
