"""Which moments are asked about, and what counts as a right answer at each."""

from __future__ import annotations

import numpy as np
import pytest

from onereason.data.held_out import is_held_out, user_share
from onereason.errors import ConfigError, DataError
from onereason.rl.prompts import PromptConfig, build_prompts

DOMAINS = ["video", "prod"] * 5
"""Even items are videos, odd ones products."""
TRAIN = [np.array([0, 1, 2, 3, 4, 4, 1]), np.array([5, 6]), np.array([7, 8, 9, 0, 2])]
USERS = ["ann", "bob", "cat"]


def build(**changes):
    return build_prompts(TRAIN, USERS, DOMAINS, PromptConfig(**({"targets": 3, "min_history": 2} | changes)))


def test_the_newest_training_items_are_asked_for_behind_what_came_before():
    prompts = build()
    assert prompts.users.tolist() == [0, 0, 0, 2, 2, 2]
    assert [h.tolist() for h in prompts.histories[:3]] == [[0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 4]]
    assert [p.tolist() for p in prompts.positives] == [[4], [4], [1], [9], [0], [2]]
    assert prompts.domains == ["video", "video", "prod", "prod", "video", "video"]
    assert prompts.counts == {"history_too_short": 1}


def test_a_horizon_takes_later_items_of_the_same_domain_each_once():
    # From place 4 of ann on: 4, 4, 1: the videos are {4}. From place 2 of cat on: 9, 0, 2: products {9}; from 3: 0, 2.
    prompts = build(horizon=3)
    assert [p.tolist() for p in prompts.positives] == [[4], [4], [1], [9], [0, 2], [2]]


def test_a_domain_makes_a_specialist_and_the_rest_is_counted():
    prompts = build(domains=["prod"])
    assert prompts.domains == ["prod", "prod"]
    assert prompts.counts == {"other_domains": 4, "history_too_short": 1}
    with pytest.raises(ConfigError, match=r"names 'toys'; the catalog's domains are prod, video"):
        build(domains=["toys"])


def test_users_are_split_as_a_mixture_holds_them_out():
    names = [f"u{n}" for n in range(400)]
    train = [np.arange(4)] * 400
    low = build_prompts(train, names, DOMAINS, PromptConfig(targets=1, users=(0.0, 0.3)))
    high = build_prompts(train, names, DOMAINS, PromptConfig(targets=1, users=(0.3, 1.0)))
    assert {names[u] for u in low.users} == {name for name in names if is_held_out(name, 0.3)}
    assert sorted([*low.users, *high.users]) == list(range(400))
    assert 0.2 < len(low) / 400 < 0.4
    assert low.counts["other_users"] == len(high)
    assert all(0 <= user_share(name) < 1 for name in names)


def test_prompts_are_drawn_by_seed():
    config = PromptConfig(targets=3, min_history=2, max_prompts=4)
    first, again, other = (build_prompts(TRAIN, USERS, DOMAINS, config, seed) for seed in (0, 0, 1))
    assert len(first) == 4
    assert [h.tolist() for h in first.histories] == [h.tolist() for h in again.histories]
    assert [h.tolist() for h in first.histories] != [h.tolist() for h in other.histories]


def test_no_prompt_at_all_says_what_was_left_out():
    with pytest.raises(DataError, match=r"no prompt is left .*3 history_too_short.*prompts.min_history 9"):
        build(min_history=9)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"targets": 0}, "prompts.targets must be at least 1, got 0"),
        ({"users": (0.5, 0.5)}, "two rising shares"),
        ({"max_prompts": 0}, "prompts.max_prompts must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        PromptConfig(**changes)
