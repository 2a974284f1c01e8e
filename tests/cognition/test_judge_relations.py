"""Three classes of pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onereason.cognition.judge.relations import (
    RELATIONS,
    RelationRules,
    compute_pmi,
    judge_relation,
    judge_relations,
)
from onereason.errors import ConfigError


@pytest.mark.parametrize(
    ("count", "lift", "support", "shares", "expected"),
    [
        (3, 2.0, 20, True, "explicitly_related"),
        (3, 2.0, 20, False, "uncertain"),  # nothing bridges it
        (3, 3.0, 20, False, "explicitly_related"),  # so often that it speaks for itself
        (3, 2.0, 4, True, "uncertain"),  # a lift of few sightings
        (3, 1.2, 20, True, "uncertain"),
        (3, 0.5, 20, True, "uncertain"),  # it shares a theme, and is avoided all the same
        (3, 1.0, 20, False, "unrelated"),
        (0, 9.0, 20, True, "unrelated"),  # never seen
    ],
)
def test_classes(count, lift, support, shares, expected):
    assert judge_relation(count, lift, support, shares) == expected


def test_arrays_and_thresholds():
    found = judge_relations(
        np.array([3, 3, 0]), np.array([2.0, 1.0, 2.0]), np.array([20, 20, 20]), np.array([True, False, True])
    )
    assert found.dtype == np.int8 and [RELATIONS[c] for c in found] == ["explicitly_related", "unrelated", "unrelated"]
    strict = RelationRules(min_count=4)
    assert judge_relation(3, 2.0, 20, True, strict) == "uncertain"


def test_pmi():
    # 8 pairs, the source in 4 and the target in 2 of them, together in 2: lift 2 * 8 / (4 * 2) = 2
    assert compute_pmi(np.array([2, 0]), np.array([4, 4]), np.array([2, 0]), 8).tolist() == [math.log(2), -math.inf]


def test_bad_rules():
    with pytest.raises(ConfigError, match="min_count"):
        RelationRules(min_count=0)
    with pytest.raises(ConfigError, match="must rise in this order"):
        RelationRules(min_lift=4.0)
