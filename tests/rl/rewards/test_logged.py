"""What logs and scorers say: play-time quantiles by counting, labels, look-ups, and the rewards that read them."""

from __future__ import annotations

from dataclasses import replace
from math import floor, log2
from typing import Any

import numpy as np
import pytest

from onereason.errors import ConfigError, RewardError
from onereason.itemic.format import ANY_DOMAIN
from onereason.rl.rewards import (
    RewardTerm,
    build_reward,
    label_interactions,
    look_up_logged,
    play_time_quantiles,
)
from onereason.rl.rewards.logged import DurationAware, PScore
from tests.rl.reward_worlds import draw_inputs, make_inputs

NAN = float("nan")


def test_quantiles_by_hand() -> None:
    # Durations 8 .. 15 are one bucket, 16 another: [3, 5, 5, 9] -> 1/4, 3/4, 3/4, 4/4; [2] -> 1.
    play, durations = [5.0, 3.0, 9.0, 5.0, 2.0], [8.0, 15.0, 9.5, 12.0, 16.0]
    assert play_time_quantiles(np.array(play), np.array(durations)).tolist() == [0.75, 0.25, 1, 0.75, 1]


def test_a_bound_opens_its_bucket() -> None:
    """Each power of the base lies in a bucket with what comes after it, also where logarithms round down."""
    for base, powers in ((2.0, 40), (10.0, 15), (3.0, 30)):
        for power in range(powers):
            durations = np.array([base**power, base**power * 1.5, base**power * 0.99])
            found = play_time_quantiles(np.array([1.0, 2.0, 0.5]), durations, base=base)
            assert found.tolist() == [0.5, 1, 1]  # the last is alone


def test_quantiles_among_other_interactions() -> None:
    # Against [1, 4, 4, 9] of the same bucket; nobody watched anything of 100 seconds.
    watched = np.array([4.0, 1.0, 9.0, 4.0]), np.array([20.0, 20.0, 30.0, 31.0])
    found = play_time_quantiles(np.array([0.0, 1.0, 4.0, 5.0, 10.0, 5.0]), np.array([16.0] * 5 + [100.0]), *watched)
    np.testing.assert_array_equal(found, [0, 0.25, 0.75, 0.75, 1, NAN])


def test_what_is_missing_has_no_quantile_and_counts_in_no_bucket() -> None:
    play = np.array([1.0, NAN, 2.0, 3.0, 4.0, 5.0])
    durations = np.array([10.0, 10.0, NAN, 0.0, -1.0, 10.0])
    np.testing.assert_array_equal(play_time_quantiles(play, durations), [0.5, NAN, NAN, NAN, NAN, 1])


def test_no_interactions_have_no_quantiles() -> None:
    assert play_time_quantiles(np.array([]), np.array([])).shape == (0,)
    assert np.isnan(play_time_quantiles(np.array([1.0]), np.array([1.0]), np.array([]), np.array([]))).all()


@pytest.mark.parametrize("seed", range(4))
def test_quantiles_equal_counting(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
        play, durations = rng.integers(0, 9, number).astype(float), rng.uniform(0.1, 40, number)
        play[rng.random(number) < 0.1] = NAN
        durations[rng.random(number) < 0.1] = NAN
        return play, durations

    play, durations = draw(40)
    watched = draw(60) if seed % 2 else (play, durations)
    expected = []
    for time, length in zip(play, durations, strict=True):
        bucket = [
            t
            for t, d in zip(*watched, strict=True)
            if not np.isnan(t + d + length) and floor(log2(d)) == floor(log2(length))
        ]
        expected.append(sum(t <= time for t in bucket) / len(bucket) if bucket and not np.isnan(time) else NAN)
    given = watched if seed % 2 else ()
    np.testing.assert_allclose(play_time_quantiles(play, durations, *given), expected, rtol=1e-15)


def test_quantiles_refuse_what_does_not_fit() -> None:
    one, two = np.ones(1), np.ones(2)
    for base in (1.0, 0.5, float("inf"), NAN):
        with pytest.raises(ConfigError, match="base must be a number above 1"):
            play_time_quantiles(one, one, base=base)
    with pytest.raises(ValueError, match="go together"):
        play_time_quantiles(one, one, one)
    with pytest.raises(ValueError, match="one an interaction"):
        play_time_quantiles(one, two)
    with pytest.raises(ValueError, match="one an interaction"):
        play_time_quantiles(one, one, one, two)


def test_labels_by_hand() -> None:
    """+1 strictly beyond the threshold; negative feedback beats everything; what is not known is nothing."""
    quantiles = np.array([0.76, 0.75, 0.2, 1.0, NAN, NAN])
    negative = np.array([False, False, False, True, False, True])
    assert label_interactions(quantiles, negative).tolist() == [1, 0, 0, -1, 0, -1]
    assert label_interactions(quantiles, negative, threshold=0.1).tolist() == [1, 1, 1, -1, 0, -1]
    for threshold in (1.0, -0.1, NAN):
        with pytest.raises(ConfigError, match=r"threshold must lie in \[0, 1\)"):
            label_interactions(quantiles, negative, threshold)


def test_look_up_by_hand() -> None:
    inputs = make_inputs([[[[0, 1], [1, 1], [2, 2], [-1, -1], [0, 1]]]], valid=[[[True] * 4 + [False]]])
    codes = [np.array([[0, 1], [1, 1], [0, 1], [2, 2]])]
    found = look_up_logged(inputs, codes, [["video", "video", "video", "prod"]], [np.array([5, 6, 7, 8])], missing=-9)
    # The newest of two; another domain's codes are no logged item; 0 where nothing was rolled out.
    assert found.tolist() == [[[7, 6, -9, -9, 0]]]
    anything = replace(inputs, domains=[ANY_DOMAIN])
    assert look_up_logged(anything, codes, [["video"] * 3 + ["prod"]], [np.array([5, 6, 7, 8])]).tolist() == [
        [[7, 6, 8, 0, 0]]
    ]
    assert not look_up_logged(inputs, [np.empty((0, 2), int)], [[]], [np.array([])]).any()
    with pytest.raises(ValueError, match="group 0: 4 items, 3 domains, 4 numbers"):
        look_up_logged(inputs, codes, [["video"] * 3], [np.arange(4)])
    with pytest.raises(ValueError):
        look_up_logged(inputs, [], [], [])


@pytest.mark.parametrize("seed", range(3))
def test_look_up_equals_a_table(seed: int) -> None:
    rng = np.random.default_rng(seed)
    domains = ["video", "prod", "video", "video", "prod"]
    inputs = draw_inputs(seed, levels=2, domains=domains)
    codes = [rng.integers(0, 3, (n, 2)) for n in (0, 3, 9, 20, 20)]
    names = [rng.choice(["video", "prod"], len(c)).tolist() for c in codes]
    numbers = [rng.normal(size=len(c)) for c in codes]
    found = look_up_logged(inputs, codes, names, numbers, missing=0.5)
    for g in range(5):
        table = {}
        for item, name, number in zip(codes[g].tolist(), names[g], numbers[g], strict=True):
            if name == domains[g]:
                table[tuple(item)] = number
        for n, k in np.ndindex(inputs.shape[1:]):
            expected = table.get(tuple(inputs.candidates[g, n, k].tolist()), 0.5) if inputs.valid[g, n, k] else 0
            assert found[g, n, k] == expected
    assert 0 < (found == 0.5).sum() < found.size


# Two groups of one trace with three items; the last item of the second does not exist.
PAIR = make_inputs(np.zeros((2, 1, 3, 2)), valid=[[[True] * 3], [[True, True, False]]])


def test_the_log_and_the_scorer_are_read_as_they_stand() -> None:
    labels, scores = np.array([[[1.0, 0, -1]], [[0, 1, 1]]]), np.array([[[0.5, 0.25, 1]], [[0, 0.125, 0.75]]])
    inputs = replace(PAIR, values={"duration_aware": labels, "p_score": scores, "other": -labels})
    assert DurationAware()(inputs).tolist() == [[[1, 0, -1]], [[0, 1, 0]]]
    assert PScore()(inputs).tolist() == [[[0.5, 0.25, 1]], [[0, 0.125, 0]]]
    assert DurationAware("other")(inputs).tolist() == [[[-1, 0, 1]], [[0, -1, 0]]]
    assert DurationAware().reads == ("duration_aware",) and PScore("mine").reads == ("mine",)
    both = build_reward([RewardTerm("duration_aware", 2.0), RewardTerm("p_score", 4.0)], "sum")
    assert both.compute(inputs).total.tolist() == [[[4, 1, 2]], [[0, 2.5, 0]]]
    assert both.reads == {"duration_aware": "duration_aware", "p_score": "p_score"}


def test_labels_that_are_none_are_refused() -> None:
    values = np.array([[[1, 0, NAN]], [[0, 0.5, 7]]])
    with pytest.raises(RewardError, match=r"value 'duration_aware' holds 0\.5, expected labels -1, 0 and 1"):
        DurationAware()(replace(PAIR, values={"duration_aware": values}))
    values[1, 0, 1] = 0  # the 7 stands where no item is; NaN means that nothing is known
    found = DurationAware()(replace(PAIR, values={"duration_aware": values}))
    np.testing.assert_array_equal(found, [[[1, 0, NAN]], [[0, 0, 0]]])


@pytest.mark.parametrize(("name", "way_out"), [("p_score", "ranking model"), ("duration_aware", "look_up_logged")])
def test_values_that_are_not_there_or_do_not_fit(name: str, way_out: str) -> None:
    reward = build_reward([RewardTerm(name)])
    with pytest.raises(RewardError, match=rf"have no value '{name}' \(values given: none\); .*{way_out}"):
        reward.compute(PAIR)
    wrong: dict[str, Any] = {"like": np.zeros(2), name: np.zeros((2, 3))}
    with pytest.raises(RewardError, match=rf"value '{name}' has shape \(2, 3\), expected \(2, 1, 3\)"):
        reward.compute(replace(PAIR, values=wrong))
    with pytest.raises(RewardError, match=r"values given: like"):
        reward.compute(replace(PAIR, values={"like": np.zeros(2)}))
