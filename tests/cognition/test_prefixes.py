"""Prefix groups and their most frequent values, against counting one group at a time."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from onereason.cognition.prefixes import find_top_values, number_prefixes


def test_items_share_a_number_where_domain_and_codes_agree():
    codes = np.array([[0, 1, 2], [0, 1, 3], [0, 1, 2], [1, 1, 2], [0, 1, 2]])
    first, second, third = number_prefixes(codes, ["v", "v", "v", "v", "p"])
    assert first.tolist() == [1, 1, 1, 2, 0]  # p 0 before v 0 and v 1
    assert second.tolist() == [1, 1, 1, 2, 0]
    assert third.tolist() == [1, 2, 1, 3, 0]


@pytest.mark.parametrize("seed", range(4))
def test_top_values_equal_counting_by_hand(seed):
    rng = np.random.default_rng(seed)
    groups = np.unique(rng.integers(0, 30, 200), return_inverse=True)[1]
    values = rng.integers(-1, 5, 200)
    top = find_top_values(groups, values, 2)
    of_group = defaultdict(list)
    for group, value in zip(groups.tolist(), values.tolist(), strict=True):
        of_group[group].append(value)
    for group, members in of_group.items():
        counts = sorted(Counter(v for v in members if v >= 0).items(), key=lambda one: (-one[1], one[0]))[:2]
        wanted = counts + [(-1, 0)] * (2 - len(counts))
        assert top.values[group].tolist() == [value for value, _ in wanted]
        assert top.shares[group].tolist() == pytest.approx([count / len(members) for _, count in wanted])


def test_groups_without_values():
    top = find_top_values(np.array([0, 0, 1]), np.array([-1, -1, -1]), 2)
    assert top.values.tolist() == [[-1, -1], [-1, -1]] and top.shares.tolist() == [[0, 0], [0, 0]]
    assert find_top_values(np.zeros(0, int), np.zeros(0, int), 1).values.shape == (0, 1)
