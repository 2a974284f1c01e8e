"""From split to queries."""

from __future__ import annotations

import numpy as np
import pytest

from onereason.data.timelines import Examples, Split, Timelines
from onereason.errors import ConfigError, DataError
from onereason.evaluation.queries import (
    build_queries,
    choose_examples,
    history_stratum,
    make_split,
    select_domains,
)


def test_one_query_a_user_and_domain():
    examples = Examples(
        np.array([4, 9]),
        [np.array([0, 3]), np.array([], int)],
        [np.array([2, 1, 0, 2]), np.array([3])],
    )
    queries = build_queries(examples, np.array([0, 1, 0, 1]))
    assert queries.users.tolist() == [4, 4, 9]
    assert queries.domains.tolist() == [0, 1, 1]
    assert [t.tolist() for t in queries.targets] == [[2, 0, 2], [1], [3]]
    assert queries.history_lengths.tolist() == [2, 2, 0]
    assert queries.last_items.tolist() == [3, 3, -1]


def test_queries_of_some_domains():
    examples = Examples(np.array([4, 9]), [np.array([0, 3]), np.array([1])], [np.array([2, 1, 0]), np.array([3])])
    queries = build_queries(examples, np.array([0, 1, 0, 1]))  # users 4, 4, 9 ask for domains 0, 1, 1
    found = select_domains(queries, ["prod"], ["video", "prod", "ad"])
    assert found.users.tolist() == [4, 9] and found.domains.tolist() == [1, 1]
    assert [h.tolist() for h in found.histories] == [[0, 3], [1]]
    assert [t.tolist() for t in found.targets] == [[1], [3]]
    with pytest.raises(ConfigError, match="domains names 'goods'; the format tells apart video, prod, ad"):
        select_domains(queries, ["prod", "goods"], ["video", "prod", "ad"])
    with pytest.raises(DataError, match="none of the 3 queries asks for ad"):
        select_domains(queries, ["ad"], ["video", "prod", "ad"])


def test_strata_by_hand():
    names, stratum = history_stratum(np.array([0, 1, 2, 3, 4, 5, 9, 10, 19, 20, 49, 50, 900]))
    assert names == ["0", "1-2", "3-4", "5-9", "10-19", "20-49", "50+"]
    assert stratum.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]


def test_draws_keep_order_and_follow_the_seed():
    examples = Examples(np.arange(50), [np.array([i]) for i in range(50)], [np.array([0])] * 50)
    split = Split([], examples, examples)
    drawn = choose_examples(split, "test", 7, seed=3)
    assert len(drawn) == 7 and (np.diff(drawn.users) > 0).all()
    assert [h[0] for h in drawn.histories] == drawn.users.tolist()
    assert choose_examples(split, "test", 7, seed=3).users.tolist() == drawn.users.tolist()
    assert choose_examples(split, "validation", 50) is examples


def test_bad_requests_are_named():
    empty = Examples(np.array([], int), [], [])
    with pytest.raises(DataError, match="the validation split is empty"):
        choose_examples(Split([], empty, empty), "validation")
    timelines = Timelines(["u"], np.array([0, 1]), np.array([0]), np.array([5]))
    with pytest.raises(ConfigError, match="split method 'random' is not known; use leave_one_out or temporal"):
        make_split(timelines, "random")
    with pytest.raises(ConfigError, match="needs --validation-start and --test-start"):
        make_split(timelines, "temporal", 3)
