"""Taking what a user has met out of ranked lists."""

from __future__ import annotations

import numpy as np

from onereason.evaluation.recommendation import drop_seen


def test_seen_ids_leave_and_the_rest_moves_up():
    ranked = np.array([[5, 3, 9, 1], [2, 0, -1, -1], [4, 7, 8, 6]])
    seen = [np.array([3, 3, 1]), np.array([0, 2, 8]), np.array([], np.int64)]
    assert drop_seen(ranked, seen).tolist() == [[5, 9, -1, -1], [-1, -1, -1, -1], [4, 7, 8, 6]]
