"""Rewards of traces: citations in the history, and length. What the answer's likelihood gives is tested beside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onereason.errors import ConfigError
from onereason.itemic.format import ANY_DOMAIN
from onereason.rl.records import RewardInputs
from onereason.rl.rewards import RewardTerm, build_reward
from onereason.rl.rewards.traces import HistoryGrounding, TraceLength
from tests.rl.reward_worlds import make_inputs

NONE: list[list[int]] = []


def make(cited: Any, cited_domains: Any, histories: Any, history_domains: Any) -> RewardInputs:
    """Two items a trace, of which nothing is read."""
    groups, traces = len(cited), len(cited[0])
    return make_inputs(
        np.zeros((groups, traces, 2, 2)),
        cited=[[np.reshape(np.array(c, np.int64), (-1, 2)) for c in row] for row in cited],
        cited_domains=cited_domains,
        histories=[np.reshape(np.array(h, np.int64), (-1, 2)) for h in histories],
        history_domains=history_domains,
    )


def grounding(inputs: RewardInputs, **options: Any) -> list[list[float]]:
    found = HistoryGrounding(**options)(inputs)
    assert (found[..., 0] == found[..., 1]).all()
    return found[..., 0].tolist()


def test_grounding_by_hand() -> None:
    v, p = "video", "prod"
    inputs = make(
        [
            # In the history; twice the same; another domain's codes; one of two; not legal, twice.
            [[[0, 1]], [[0, 1], [0, 1], [2, 2]], [[0, 1]], [[1, 1], [0, 1]], [[-1, -1], [0, 1], [-1, -1]], NONE],
            # The other group's history is not this one's.
            [[[0, 1]], [[3, 3]], NONE, [[-1, -1]], [[3, 3], [0, 1]], [[3, 3], [2, 0]]],
        ],
        [
            [[v], [v, v, v], [p], [v, p], [v, v, v], []],
            [[v], [p], [], [v], [p, p], [p, v]],
        ],
        [[[0, 1], [1, 1]], [[3, 3], [3, 3]]],
        [[v, v], [p, v]],
    )
    expected = [[1, 1 / 2, 0, 1 / 2, 1 / 3, 0], [0, 1, 0, 0, 1 / 2, 1 / 2]]
    np.testing.assert_allclose(grounding(inputs), expected, rtol=1e-15)
    expected[0][5] = expected[1][2] = -0.25
    np.testing.assert_allclose(grounding(inputs, no_citation=-0.25), expected, rtol=1e-15)


def test_copying_the_history_does_not_pay() -> None:
    shown = [[0, n] for n in range(4)]
    inputs = make([[shown, shown[:2], [*shown[:2], [1, 1]]]], [[["v"] * 4, ["v"] * 2, ["v"] * 3]], [shown], [["v"] * 4])
    assert grounding(inputs) == [[1, 1, 2 / 3]]
    # max_cited / cited: 2/4, 2/2, and 2/3 of the share of two in three.
    np.testing.assert_allclose(grounding(inputs, max_cited=2), [[0.5, 1, 4 / 9]], rtol=1e-15)


def test_a_broken_citation_does_not_merge_the_domains_of_others() -> None:
    """What is no pattern of the format has no domain of its own; elsewhere equal codes stay items of two domains."""
    inputs = make(
        [[[[0, 1]], [[-1, -1]]]], [[["prod"], [ANY_DOMAIN]]], [[[0, 1]]], [["video"]]
    )  # fmt: skip
    assert grounding(inputs) == [[0, 0]]


def test_formats_without_domains_compare_codes_alone() -> None:
    inputs = make([[[[0, 1]], [[0, 2]]]], [[[ANY_DOMAIN], [ANY_DOMAIN]]], [[[0, 1]]], [[ANY_DOMAIN]])
    assert grounding(inputs) == [[1, 0]]


@pytest.mark.parametrize("seed", range(4))
def test_grounding_equals_sets_of_named_items(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def draw(most: int) -> tuple[list[list[int]], list[str]]:
        number = rng.integers(0, most)
        codes = rng.integers(0, 3, (number, 2))
        codes[rng.random(number) < 0.2] = -1
        return codes.tolist(), rng.choice(["video", "prod", "ad"], number).tolist()

    drawn = [[draw(6) for _ in range(5)] for _ in range(4)]
    shown = [draw(8) for _ in range(4)]
    inputs = make(
        [[c for c, _ in row] for row in drawn],
        [[d for _, d in row] for row in drawn],
        [c for c, _ in shown],
        [d for _, d in shown],
    )
    expected = np.zeros((4, 5))
    for g, n in np.ndindex(4, 5):
        history = {(name, *codes) for codes, name in zip(*shown[g], strict=True)}
        named = [(name, *codes) for codes, name in zip(*drawn[g][n], strict=True)]
        legal, broken = {item for item in named if -1 not in item}, sum(-1 in item for item in named)
        if named:
            expected[g, n] = len(legal & history) / (len(legal) + broken)
    np.testing.assert_allclose(grounding(inputs), expected, rtol=1e-15)
    assert len(np.unique(expected)) > 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"no_citation": float("nan")}, "no_citation must be a number, got nan"),
        ({"max_cited": 0}, "max_cited must be at least 1 .* got 0"),
    ],
)
def test_grounding_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HistoryGrounding(**options)


def test_length_by_hand() -> None:
    """DAPO, Eq. 13, with a maximum of 20 tokens and a cache of 8."""
    lengths = np.array([[0, 12, 13, 16, 20, 50]])
    inputs = make_inputs(np.zeros((1, 6, 2, 2)), trace_lengths=lengths, valid=[[[True, False]] * 6])
    penalty = TraceLength(soft=12, hard=20)(inputs)
    # ((20 - 8) - |y|) / 8 between.
    np.testing.assert_array_equal(penalty[0, :, 0], [0, 0, -1 / 8, -4 / 8, -1, -1])
    assert not penalty[..., 1].any()  # nothing was rolled out there
    assert not np.signbit(penalty[0, :2]).any()  # no -0 in logs
    factor = TraceLength(soft=12, hard=20, kind="factor")(inputs)
    np.testing.assert_array_equal(factor[0, :, 0], [1, 1, 7 / 8, 4 / 8, 0, 0])


@pytest.mark.parametrize(("soft", "hard"), [(-1, 4), (4, 4), (5, 4)])
def test_length_bounds_rise(soft: int, hard: int) -> None:
    with pytest.raises(ConfigError, match=rf"soft \({soft}\) must be at least 0 and below hard \({hard}\)"):
        TraceLength(soft, hard)


def test_a_penalty_fits_no_product() -> None:
    term = RewardTerm("trace_length", options={"soft": 1, "hard": 2})
    with pytest.raises(ConfigError, match=r"reward trace_length: a penalty of 0 would make .* set kind: factor"):
        build_reward([RewardTerm("hit"), term], "product")
    build_reward([RewardTerm("hit"), term], "sum")
    with pytest.raises(ConfigError, match="hard"):
        build_reward([RewardTerm("trace_length", options={"soft": 1})], "sum")
