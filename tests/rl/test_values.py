"""What rewards read beside the rollouts: a scorer's word on every item, and the log's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from onereason.data.timelines import build_timelines, split_leave_one_out
from onereason.errors import ConfigError
from onereason.rl.extract import build_reward_inputs
from onereason.rl.p_score import PScoreNetwork, PScoreNetworkConfig, PScorer
from onereason.rl.prompts import Prompts
from onereason.rl.rewards import RewardTerm, build_reward
from onereason.rl.rollout import RolloutConfig, RolloutSampling, roll_out
from onereason.rl.values import ItemValues, SignalConfig, read_duration_labels, rolled_out_items
from tests.rl.reference import ASKED, HISTORIES, build_recommender

PROMPTS = Prompts(np.array([2, 0, 1]), list(HISTORIES), [np.array([n]) for n in (1, 0, 2)], ASKED, {})


@pytest.fixture(scope="module")
def world():
    """A recommender, rollouts of whatever tokens, of which few are items, and their record."""
    recommender = build_recommender()
    sampling = RolloutSampling(max_new_tokens=4, temperature=8.0)
    config = RolloutConfig(num_traces=2, num_items=16, items="free", sampling=sampling)
    rollouts = roll_out(recommender, HISTORIES, ASKED, [(0, g) for g in range(3)], config)
    beams = RolloutConfig(num_traces=2, num_items=8, sampling=RolloutSampling(max_new_tokens=4))
    good = roll_out(recommender, HISTORIES, ASKED, [(0, g) for g in range(3)], beams)
    return recommender, rollouts, good


def test_items_are_those_a_list_would_hold(world):
    recommender, free, beams = world
    for rollouts in (free, beams):
        found = rolled_out_items(recommender.trie, rollouts)
        for place in np.ndindex(found.shape):
            if not rollouts.legal[place]:
                assert found[place] == -1
                continue
            under = recommender.trie.items_at(int(rollouts.leaves[place]))
            assert found[place] == under[0]
            codes = recommender.vocabulary.code_ids(recommender.catalog.codes[[found[place]]])[0].tolist()
            assert codes == rollouts.sequences[place].tolist()
    assert (rolled_out_items(recommender.trie, beams) >= 0).any()


def test_scores_are_the_scorers_own_of_each_item(world):
    recommender, _, rollouts = world
    torch.manual_seed(0)
    scorer = PScorer(PScoreNetwork(24, 1, PScoreNetworkConfig(hidden_size=8)), recommender.catalog.item_ids, ("like",))
    inputs = build_reward_inputs(recommender, PROMPTS, [2, 0, 1], rollouts)
    found = ItemValues(scorer).add_to(inputs, recommender, PROMPTS, [2, 0, 1], rollouts, recommender.catalog.domains)
    items = rolled_out_items(recommender.trie, rollouts)
    for g, number in enumerate([2, 0, 1]):
        for n, k in np.ndindex(items.shape[1:]):
            alone = scorer.score([HISTORIES[number]], items[g, n, k].reshape(1, 1, 1))[0, 0, 0]
            assert found.values["p_score"][g, n, k] == pytest.approx(alone)
    total = build_reward([RewardTerm("p_score")]).compute(found).total
    np.testing.assert_allclose(total, np.where(inputs.valid, found.values["p_score"], 0))
    assert set(found.values) == {"p_score"} and inputs.values == {}  # the record that was given stays as it is


def test_nothing_is_added_where_nothing_is_read(world):
    recommender, _, rollouts = world
    inputs = build_reward_inputs(recommender, PROMPTS, [2, 0, 1], rollouts)
    values = ItemValues()
    assert values.add_to(inputs, recommender, PROMPTS, [2, 0, 1], rollouts, recommender.catalog.domains).values == {}
    assert values.order_items(recommender) is recommender


def test_a_sid_stands_for_its_item_with_most_training_interactions(world):
    """As in evaluation: items 1 and 4 share a sid; ties go to the first in the catalog."""
    recommender, _, rollouts = world
    assert recommender.catalog.items_with_sid(1).tolist() == [1, 4]
    torch.manual_seed(0)
    scorer = PScorer(PScoreNetwork(24, 1, PScoreNetworkConfig(hidden_size=8)), recommender.catalog.item_ids, ("like",))
    for train, first in (([[4, 1], [4]], 4), ([[4, 1], [1, 1]], 1), ([[4, 1], []], 1)):
        values = ItemValues(scorer, None, [np.array(items, np.int64) for items in train])
        ordered = values.order_items(recommender)
        codes = recommender.vocabulary.code_ids(recommender.catalog.codes[[1]])[0].tolist()
        root = ordered.trie.root_of(recommender.catalog.domains[1])
        leaf = ordered.trie.find(root, codes)
        assert leaf == recommender.trie.find(root, codes)  # rollouts mean the same leaves
        one = replace(rollouts, leaves=torch.full_like(rollouts.leaves, leaf))
        assert np.array_equal(rolled_out_items(ordered.trie, one), np.where(rollouts.legal.numpy(), first, -1))


def test_labels_are_the_logs_word_on_the_item_that_was_rolled_out(world):
    recommender, _, rollouts = world
    train = [np.array([3, 3]), np.array([1, 2]), np.array([0, 7, 9])]
    labels = [np.array([1.0, -1.0]), np.array([1.0, 1.0]), np.array([1.0, 0.0, -1.0])]
    inputs = build_reward_inputs(recommender, PROMPTS, [0, 1, 2], rollouts)
    catalog = recommender.catalog
    record = ItemValues(None, labels, train).add_to(inputs, recommender, PROMPTS, [0, 1, 2], rollouts, catalog.domains)
    assert set(record.values) == {"duration_aware"}  # nothing is made that no reward reads
    found = record.values["duration_aware"]
    seen = set()
    for g, number in enumerate([0, 1, 2]):
        user = PROMPTS.users[number]
        for n, k in np.ndindex(found.shape[1:]):
            expected = 0.0
            for item, label in zip(train[user], labels[user], strict=True):  # of two, the newest
                same = catalog.codes[item].tolist() == inputs.candidates[g, n, k].tolist()
                if same and catalog.domains[item] == ASKED[g]:
                    expected = label
            assert found[g, n, k] == expected
            seen.add(expected)
    assert len(seen) > 1


def test_labels_of_training_interactions_alone_by_hand():
    rows = [
        # user, item, time, seconds watched, length, disliked
        ("a", "x", 1, 10.0, 20.0, 0.0),
        ("a", "y", 2, 19.0, 20.0, 0.0),
        ("a", "x", 3, 15.0, 20.0, 1.0),
        ("a", "z", 4, None, 20.0, 0.0),
        ("a", "y", 5, 99.0, 20.0, 0.0),  # validation
        ("a", "y", 6, 99.0, 20.0, 0.0),  # test
        ("b", "z", 1, 1.0, 20.0, 0.0),
        ("b", "z", 2, 1.0, 20.0, 0.0),  # too short a timeline to be split: all of it trains
    ]
    names = ["user_id", "item_id", "timestamp", "signal_watch_seconds", "signal_duration_seconds", "signal_dislike"]
    table = pl.DataFrame(rows, schema=names, orient="row")
    timelines = build_timelines(table, {"x": 0, "y": 1, "z": 2})
    split = split_leave_one_out(timelines)
    labels = read_duration_labels(table, timelines, split, SignalConfig(negative="dislike", threshold=0.5), "here")
    # a: quantiles 1/3, 3/3, 2/3 (disliked), unknown; b: both are the longest of two.
    assert [own.tolist() for own in labels] == [[0, 1, -1, 0], [1, 1]]
    assert [len(own) for own in labels] == [len(items) for items in split.train]
    with pytest.raises(
        ConfigError, match=r"reads the signal 'seconds', which here does not log; it logs watch_seconds"
    ):
        read_duration_labels(table, timelines, split, SignalConfig(watch="seconds"), "here")
