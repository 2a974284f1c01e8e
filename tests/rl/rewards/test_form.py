"""The format reward: legality, closed traces, their form, and the subset that is looked at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onereason.errors import ConfigError
from onereason.rl.rewards import Format, RewardTerm, build_reward, format_advantages, format_subset
from tests.rl.reward_worlds import draw_inputs, make_inputs

# Two traces of three items: legal, not of the catalog, not there; the second trace did not close.
SMALL = make_inputs(
    [[[[0, 1], [-1, -1], [0, 0]]] * 2], valid=[[[True, True, False]] * 2], closed=np.array([[True, False]])
)
STAGES = {"structure": "stages", "headings": ("First", "Then")}
GOOD = "First: what was seen\nThen: what follows"


def test_form_by_hand() -> None:
    assert Format()(SMALL).tolist() == [[[1, 0, 0], [0, 0, 0]]]


@pytest.mark.parametrize("seed", range(3))
def test_a_legal_item_behind_a_closed_trace(seed: int) -> None:
    closed = np.random.default_rng(seed).random((5, 4)) < 0.5
    inputs = draw_inputs(seed, closed=closed)
    for g, n, k in np.ndindex(inputs.shape):
        expected = inputs.valid[g, n, k] and -1 not in inputs.candidates[g, n, k] and closed[g, n]
        assert Format()(inputs)[g, n, k] == expected


@pytest.mark.parametrize("subset", [1, 3, 7, 100])
def test_a_number_of_rollouts_is_drawn_among_those_there(subset: int) -> None:
    inputs = draw_inputs(4)
    looked_at = format_subset(inputs, subset)
    assert not (looked_at & ~inputs.valid).any()
    assert looked_at.sum((1, 2)).tolist() == [min(subset, n) for n in inputs.valid.sum((1, 2))]


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.9])
def test_a_share_of_rollouts_is_drawn(share: float) -> None:
    inputs = draw_inputs(5)
    expected = [max(1, round(n * share)) for n in inputs.valid.sum((1, 2)).tolist()]
    assert format_subset(inputs, share).sum((1, 2)).tolist() == expected


def test_one_is_a_rollout_and_one_point_zero_is_all() -> None:
    inputs = draw_inputs(6)
    assert np.array_equal(format_subset(inputs, 1.0), inputs.valid)
    assert np.array_equal(format_subset(inputs), inputs.valid)
    assert (format_subset(inputs, 1).sum((1, 2)) == 1).all()


def test_the_draw_is_seeded_and_differs_between_groups_and_seeds() -> None:
    inputs = make_inputs(np.zeros((6, 4, 8, 2)), seed=1)
    first = format_subset(inputs, 8)
    assert np.array_equal(first, format_subset(inputs, 8))
    assert not np.array_equal(first, format_subset(replace(inputs, seed=2), 8))
    assert len({row.tobytes() for row in first}) == 6
    # A group's draw does not depend on the groups behind it.
    assert np.array_equal(first[:2], format_subset(make_inputs(np.zeros((2, 4, 8, 2)), seed=1), 8))


def test_all_rollouts_are_equally_likely() -> None:
    inputs = make_inputs(np.zeros((2000, 2, 3, 1)), valid=np.ones((2000, 2, 3), bool) & [True, True, False], seed=3)
    counts = format_subset(inputs, 1).sum(0)  # 4 places, about 500 each: 5 standard deviations are 97
    assert counts.sum() == 2000 and not counts[:, 2].any() and (abs(counts[:, :2] - 500) < 97).all()


def test_what_is_not_looked_at_gets_nothing() -> None:
    inputs = draw_inputs(7)
    looked_at = format_subset(inputs, 0.5)
    assert np.array_equal(Format(0.5)(inputs), np.where(looked_at, Format()(inputs), 0))
    assert (looked_at & (Format()(inputs) == 0)).sum() > 0  # illegal ones are looked at, too


def test_format_advantages_are_1_and_0() -> None:
    inputs = draw_inputs(8)
    found = format_advantages(inputs, 5)
    assert np.array_equal(found, (format_subset(inputs, 5) & inputs.legal).astype(float))
    assert set(np.unique(found)) == {0.0, 1.0}
    # The subset that is asked for counts, not that of the form.
    assert np.array_equal(format_advantages(inputs, 5, Format(2)), found)


def test_guided_items_are_not_drawn_and_get_no_advantage() -> None:
    guided = np.zeros((3, 2, 4), bool)
    guided[:, :, 3] = True
    inputs = make_inputs(np.zeros((3, 2, 4, 2)), guided=guided)
    for subset in (None, 1.0, 5, 0.5):
        looked_at = format_subset(inputs, subset)
        assert not (looked_at & guided).any()
        assert np.array_equal(format_advantages(inputs, subset), looked_at.astype(float))
    assert (format_subset(inputs, 0.5).sum((1, 2)) == 3).all()  # half of the six that were rolled out
    assert Format()(inputs).all()  # a product keeps them


@pytest.mark.parametrize(
    ("text", "tokens", "stages"),
    [
        (GOOD, 1, 1),
        ("", 1, 0),
        ("Then: a\nFirst: b", 1, 0),
        ("First: a", 1, 0),
        ("First: a\nThen: b\nThen: c", 1, 0),
        ("First: \nThen: b", 1, 0),
        (GOOD + "<think>", 0, 0),
        (GOOD + "<|im_end|>", 0, 0),
    ],
)
def test_the_form_of_a_trace(text: str, tokens: int, stages: int) -> None:
    inputs = make_inputs(np.zeros((1, 2, 2, 2)), traces=[[text, GOOD]])
    assert Format(structure="tokens")(inputs).tolist() == [[[tokens] * 2, [1] * 2]]
    assert Format(**STAGES)(inputs).tolist() == [[[stages] * 2, [1] * 2]]
    assert Format()(inputs).all()
    assert np.array_equal(format_advantages(inputs, None, Format(**STAGES)), Format(**STAGES)(inputs))


def test_long_traces_are_in_form() -> None:
    inputs = make_inputs(np.zeros((1, 1, 1, 2)), traces=[["First: x\nThen: " + "word " * 5000]])
    assert Format(**STAGES)(inputs).all()


def test_a_group_without_traces_is_not_out_of_form() -> None:
    """Both modes in one run: the empty trace of a group that did not think is no fault of its items."""
    inputs = make_inputs(np.zeros((2, 1, 2, 2)), traces=[[""], [""]], thinks=np.array([True, False]))
    assert Format(**STAGES)(inputs).tolist() == [[[0, 0]], [[1, 1]]]


@pytest.mark.parametrize("subset", [0, -1, 0.0, 1.5, True, float("nan")])
def test_subsets_that_are_none(subset: Any) -> None:
    with pytest.raises(ConfigError, match="subset must be a whole number of rollouts from 1 on, or a share"):
        Format(subset)
    with pytest.raises(ConfigError, match="subset must be"):
        format_subset(SMALL, subset)


def test_headings_and_structure_go_together() -> None:
    with pytest.raises(ConfigError, match=r"headings \(\[\]\) must be given with structure 'stages'"):
        Format(structure="stages")
    with pytest.raises(ConfigError, match="structure is 'none'"):
        Format(headings=("First",))
    with pytest.raises(ConfigError, match="headings must be distinct"):
        Format(structure="stages", headings=("First", "First"))


def test_a_subset_fits_no_product() -> None:
    terms = [RewardTerm("hit"), RewardTerm("format", options={"subset": 4})]
    with pytest.raises(ConfigError, match=r"reward format: subset \(4\) would make a product 0 for every rollout"):
        build_reward(terms, "product")
    build_reward(terms, "sum")
    build_reward([RewardTerm("hit"), RewardTerm("format", options={"subset": 1.0})], "product")
