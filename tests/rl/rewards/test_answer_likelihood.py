"""The answer's likelihood as a reward: nats or probability, what it tells apart, what it is refused for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onereason.errors import ConfigError, RewardError
from onereason.rl.advantages import compute_advantages
from onereason.rl.records import RewardInputs
from onereason.rl.rewards import RewardTerm, build_reward
from onereason.rl.rewards.traces import ANSWER_LIKELIHOOD

NATS = np.array([[-2.0, -5.0], [-40.0, -1.0]])


def make(values: dict[str, np.ndarray] | None = None) -> RewardInputs:
    """Two groups of two traces with three items, none of which is right; the last item of the first does not exist."""
    valid = np.ones((2, 2, 3), bool)
    valid[0, 0, 2] = False
    codes = np.where(valid[..., None], 1, -1) * np.ones(2, int)
    none: list[Any] = [[np.zeros((0, 2), int)] * 2] * 2
    return RewardInputs(
        candidates=codes,
        valid=valid,
        legal=valid,
        positives=[np.array([[5, 5]])] * 2,
        histories=[np.zeros((0, 2), int)] * 2,
        domains=["video"] * 2,
        history_domains=[[]] * 2,
        thinks=np.ones(2, bool),
        closed=np.ones((2, 2), bool),
        trace_lengths=np.ones((2, 2), int),
        traces=[["a", "b"]] * 2,
        cited=none,
        cited_domains=[[[], []]] * 2,
        values={ANSWER_LIKELIHOOD: np.repeat(NATS[..., None], 3, 2)} if values is None else values,
    )


def compute(*terms: RewardTerm, combine: str = "sum", inputs: RewardInputs | None = None) -> np.ndarray:
    return build_reward(terms, combine).compute(inputs or make()).total  # type: ignore[arg-type]


def test_nats_from_a_floor_on_and_probabilities() -> None:
    nats = compute(RewardTerm("answer_likelihood", weight=0.5))
    np.testing.assert_allclose(nats[0], [[-1, -1, 0], [-2.5] * 3])
    np.testing.assert_allclose(nats[1], [[-15] * 3, [-0.5] * 3])  # -40 counts as -30
    chances = compute(RewardTerm("answer_likelihood", options={"kind": "probability", "least": -3}), combine="product")
    np.testing.assert_allclose(chances[0], np.array([[np.exp(-2), np.exp(-2), 0], [np.exp(-3)] * 3]))


def test_it_tells_traces_apart_where_no_item_hits() -> None:
    inputs = make()
    hits = compute(RewardTerm("hit"), inputs=inputs)
    assert not hits.any()
    total = compute(RewardTerm("hit"), RewardTerm("answer_likelihood", weight=0.1), inputs=inputs)
    found = compute_advantages(total, inputs.valid, inputs.thinks)
    assert (np.sign(found.trace) == [[1, -1], [-1, 1]]).all() and found.skipped == {}


def test_what_it_needs_is_said() -> None:
    with pytest.raises(RewardError, match=r"have no value 'answer_loglikelihood'.*roll out with answers"):
        compute(RewardTerm("answer_likelihood"), inputs=make({}))
    with pytest.raises(ConfigError, match=r"negative and fit no product; set kind: probability"):
        build_reward((RewardTerm("answer_likelihood"), RewardTerm("hit")), "product")
    with pytest.raises(ConfigError, match="least must be below 0 nats"):
        build_reward((RewardTerm("answer_likelihood", options={"least": 0}),), "sum")
