"""Figures of rollouts against plain loops, and which curves count as a collapse."""

from __future__ import annotations

import json
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.config import build_config
from onereason.errors import ConfigError
from onereason.rl.guards import CAUSES, GuardConfig, find_collapse, hits, rollout_metrics
from onereason.rl.records import RewardInputs
from onereason.rl.rewards.traces import ANSWER_LIKELIHOOD


def build(candidates, positives=None, **changes) -> RewardInputs:
    """Of codes `[G, N, K, L]`, all of them legal; -1 in the first code: rolled out and no item; -2: not rolled out."""
    candidates = np.asarray(candidates, np.int64)
    num_groups, num_traces = candidates.shape[:2]
    valid, legal = candidates[..., 0] > -2, candidates[..., 0] >= 0
    nothing = [[np.empty((0, candidates.shape[-1]), np.int64)] * num_traces] * num_groups
    fields = {
        "candidates": np.where(legal[..., None], candidates, -1),
        "valid": valid,
        "legal": legal,
        "positives": [np.asarray(p, np.int64) for p in positives or [[[9, 9]]] * num_groups],
        "histories": [np.empty((0, candidates.shape[-1]), np.int64)] * num_groups,
        "domains": ["video"] * num_groups,
        "history_domains": [[]] * num_groups,
        "thinks": np.ones(num_groups, bool),
        "closed": np.ones((num_groups, num_traces), bool),
        "trace_lengths": np.full((num_groups, num_traces), 4),
        "traces": [[""] * num_traces] * num_groups,
        "cited": nothing,
        "cited_domains": [[[]] * num_traces] * num_groups,
    }
    return RewardInputs(**fields | changes)


# ---- figures


def test_figures_by_hand():
    # Group 1: trace 1 has (0, 1) and (1, 1), trace 2 (0, 1) and no item; group 2: (2, 0) (2, 0) | (2, 3), nothing.
    inputs = build(
        [[[[0, 1], [1, 1]], [[0, 1], [-1, 0]]], [[[2, 0], [2, 0]], [[2, 3], [-2, 0]]]],
        positives=[[[1, 1], [5, 5]], [[4, 4]]],
        closed=np.array([[True, False], [True, True]]),
        trace_lengths=np.array([[2, 8], [4, 6]]),
        values={ANSWER_LIKELIHOOD: np.array([[[-1.0] * 2, [-3.0] * 2], [[-5.0] * 2, [-7.0] * 2]])},
    )
    assert rollout_metrics(inputs) == {
        # First codes 0 1 0 2 2 2, second 1 1 1 0 0 3.
        "rollout/item_entropy_1": pytest.approx(log(3) / 3 + log(6) / 6 + log(2) / 2),
        "rollout/item_entropy_2": pytest.approx(log(2) / 2 + log(3) / 3 + log(6) / 6),
        "rollout/first_code_diversity": 1 / 4,  # 1 0 | 0 0
        "rollout/legality": pytest.approx(6 / 7),
        "rollout/recall": pytest.approx((1 / 2 + 0) / 2),
        "rollout/hit_groups": 0.5,
        "rollout/trace_tokens": 5.0,
        "rollout/closed": 0.75,
        "rollout/answer_loglikelihood_think": -4.0,
    }


def test_empty_traces_count_as_empty():
    # A total collapse: every trace closes at once. It is a length of 0, not a batch without traces.
    found = rollout_metrics(build([[[[0, 1]]]], trace_lengths=np.array([[0]])))
    assert (found["rollout/trace_tokens"], found["rollout/closed"]) == (0.0, 1.0)


def test_figures_of_traces_are_of_the_groups_that_think():
    items = [[[[0, 1]]], [[[0, 1]]]]
    values = {ANSWER_LIKELIHOOD: np.array([[[-2.0]], [[-9.0]]])}
    lengths = {"trace_lengths": np.array([[6], [0]]), "closed": np.array([[True], [False]]), "values": values}
    found = rollout_metrics(build(items, thinks=np.array([True, False]), **lengths))
    assert (found["rollout/trace_tokens"], found["rollout/closed"]) == (6.0, 1.0)
    assert found["rollout/answer_loglikelihood_think"] == -2.0
    assert found["rollout/answer_loglikelihood_no_think"] == -9.0
    found = rollout_metrics(build(items, thinks=np.array([False, False]), **lengths))
    assert not {"rollout/trace_tokens", "rollout/closed", "rollout/answer_loglikelihood_think"} & set(found)
    assert found["rollout/answer_loglikelihood_no_think"] == -5.5


def test_what_there_is_none_of_is_left_out():
    found = rollout_metrics(build([[[[-2, 0]]]], positives=[np.empty((0, 2))]))
    assert set(found) == {"rollout/trace_tokens", "rollout/closed"}
    # Nothing legal has no entropy, but a legality and a recall.
    found = rollout_metrics(build([[[[-1, 0]]]]))
    assert found["rollout/legality"] == found["rollout/recall"] == found["rollout/first_code_diversity"] == 0
    assert not any("entropy" in name for name in found)
    # A group without a positive has no recall; the others have.
    found = rollout_metrics(build([[[[0, 1]]], [[[0, 1]]]], positives=[np.empty((0, 2)), [[0, 1], [2, 2]]]))
    assert (found["rollout/recall"], found["rollout/hit_groups"]) == (0.5, 1.0)


def test_guides_are_no_rollouts():
    guided = np.array([[[False, True]]])
    found = rollout_metrics(build([[[[0, 1], [5, 5]]]], positives=[[[5, 5]]], guided=guided))
    assert found["rollout/recall"] == found["rollout/hit_groups"] == 0
    assert found["rollout/item_entropy_1"] == found["rollout/first_code_diversity"] == 0


def test_hits_are_legal_items_of_the_positive_set():
    inputs = build(
        [[[[0, 1], [1, 0]], [[-1, 1], [-2, 1]]], [[[0, 1], [2, 2]], [[3, 3], [2, 2]]]],
        positives=[[[0, 1], [-1, -1]], [[2, 2], [3, 3]]],
    )
    assert hits(inputs).tolist() == [[[True, False], [False, False]], [[False, True], [True, True]]]
    assert not hits(build([[[[0, 1]]]], positives=[np.empty((0, 2))])).any()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_items=st.integers(1, 4))
def test_figures_equal_plain_loops(seed, num_items):
    rng = np.random.default_rng(seed)
    shape = (3, 2, num_items)
    codes = rng.integers(0, 3, (*shape, 2))
    codes[..., 0] = np.where(rng.random(shape) < 0.2, rng.choice([-1, -2], shape), codes[..., 0])
    positives = [rng.integers(0, 3, (rng.integers(0, 4), 2)) for _ in range(3)]
    guided = rng.random(shape) < 0.1
    thinks = rng.random(3) < 0.7
    lengths, closed = rng.integers(0, 9, shape[:2]), rng.random(shape[:2]) < 0.5
    found = rollout_metrics(build(codes, positives, guided=guided, thinks=thinks, trace_lengths=lengths, closed=closed))

    expected, all_legal, num_rolled, diversities, recalls = {}, [], 0, [], []
    for g in range(3):
        of_group = []
        for n in range(2):
            own = [tuple(codes[g, n, k].tolist()) for k in range(num_items) if not guided[g, n, k]]
            rolled = [item for item in own if item[0] != -2]
            legal = [item for item in rolled if item[0] != -1]
            num_rolled += len(rolled)
            of_group += legal
            if rolled:
                distinct = len({item[0] for item in legal})
                diversities.append(max(distinct - 1, 0) / (num_items - 1) if num_items > 1 else 0.0)
        all_legal += of_group
        wanted = {tuple(p.tolist()) for p in positives[g]}
        if wanted:
            recalls.append(sum(p in of_group for p in wanted) / len(wanted))
    for level in range(2 if all_legal else 0):
        of_level = [item[level] for item in all_legal]
        shares = [of_level.count(code) / len(of_level) for code in set(of_level)]
        expected[f"item_entropy_{level + 1}"] = -sum(share * log(share) for share in shares)
    if num_rolled:
        expected["legality"] = len(all_legal) / num_rolled
        expected["first_code_diversity"] = sum(diversities) / len(diversities)
    if recalls:
        expected["recall"] = sum(recalls) / len(recalls)
        expected["hit_groups"] = sum(r > 0 for r in recalls) / len(recalls)
    if thinks.any():
        expected["trace_tokens"] = sum(lengths[g].sum() for g in range(3) if thinks[g]) / (2 * thinks.sum())
        expected["closed"] = sum(closed[g].sum() for g in range(3) if thinks[g]) / (2 * thinks.sum())
    assert found == {f"rollout/{name}": pytest.approx(value, abs=1e-12) for name, value in expected.items()}


# ---- collapse

HEALTHY = {
    "rollout/item_entropy_1": 2.0,
    "rollout/item_entropy_2": 1.5,
    "rollout/first_code_diversity": 0.6,
    "rollout/legality": 0.98,
    "rollout/recall": 0.1,
    "rollout/trace_tokens": 120.0,
    "rollout/closed": 0.95,
    "kl/reference": 0.02,
}


def curve(length: int, **ends: float) -> list[dict[str, float]]:
    """Log lines of a healthy run; figures in `ends` move to there in a straight line, and stay for the last quarter."""
    lines = []
    for step in range(length):
        line = dict(HEALTHY, step=step)
        for name, end in ends.items():
            key = name if name in HEALTHY else f"rollout/{name}"
            line[key] = HEALTHY[key] + (end - HEALTHY[key]) * min(step / (0.75 * length), 1)
        lines.append(line)
    return lines


@pytest.mark.parametrize(
    ("name", "end", "said"),
    [
        ("item_entropy_1", 0.1, "item_entropy_1 fell from 1.75"),
        ("item_entropy_2", 0.1, "item_entropy_2 fell from 1.31"),
        ("first_code_diversity", 0.0, "first_code_diversity fell from"),
        ("legality", 0.1, "legality fell from"),
        ("recall", 0.0, "recall fell from"),
        ("trace_tokens", 0.0, "trace_tokens fell from"),
        ("closed", 0.0, "closed fell from"),
        ("kl/reference", 15.0, "kl/reference rose to"),
    ],
)
def test_each_collapse_is_found_with_its_cause(name, end, said):
    lines = curve(20, **{name: end})
    reason = find_collapse(lines, GuardConfig())
    assert reason is not None and reason.startswith(said)
    cause = CAUSES["item_entropy" if name.startswith("item_entropy") else name]
    assert reason.endswith(f"Likely cause: {cause}.")
    # Earlier, nothing was said: a curve is not judged by its direction.
    assert find_collapse(lines[:10], GuardConfig()) is None


def test_what_is_said_of_a_collapse():
    lines = [dict(HEALTHY, **{"rollout/recall": value}) for value in (0.2, 0.4, 0.1, 0.08)]
    reason = find_collapse(lines, GuardConfig(window=2))
    assert reason is not None and reason.startswith("recall fell from 0.3 to 0.09 (bound 0.15). Likely cause: rollouts")
    lines = [dict(HEALTHY, **{"kl/reference": value}) for value in (0.1, 0.2, 12.0, 13.0)]
    reason = find_collapse(lines, GuardConfig(window=2))
    assert reason is not None and reason.startswith("kl/reference rose to 12.5 nats a token (bound 10).")


@pytest.mark.parametrize("name", ["entropy", "diversity", "legality", "recall", "closed", "trace_tokens"])
def test_a_guard_at_0_is_off(name):
    figures = {"entropy": ["item_entropy_1", "item_entropy_2"], "diversity": ["first_code_diversity"]}.get(name, [name])
    lines = curve(20, **dict.fromkeys(figures, 0.0))
    for line in lines[-5:]:
        line |= {f"rollout/{figure}": 0.0 for figure in figures}
    assert find_collapse(lines, GuardConfig()) is not None
    assert find_collapse(lines, GuardConfig(**{f"min_{name}": 0.0})) is None
    steep = [dict(line, **{"kl/reference": 1e9}) for line in curve(20)]
    assert find_collapse(steep, GuardConfig(max_kl=float("inf"))) is None


def test_a_healthy_noisy_run_raises_no_alarm_at_any_length():
    rng = np.random.default_rng(0)
    for _ in range(20):
        lines = []
        for step in range(60):
            # Each figure wanders by a fifth around a slow drift of -20 %; recall by a half.
            drift = 1 - 0.2 * step / 59
            noise = {name: 1 + rng.normal(0, 0.5 if name.endswith("recall") else 0.2) for name in HEALTHY}
            lines.append({name: max(value * drift * noise[name], 0.0) for name, value in HEALTHY.items()})
        assert all(find_collapse(lines[:length], GuardConfig(min_recall=0.2)) is None for length in range(1, 61))


def test_windows_are_the_first_and_the_newest_lines():
    def lines(*values):
        return [dict(HEALTHY, **{"rollout/recall": value}) for value in values]

    config = GuardConfig(window=3, min_recall=0.5)
    assert find_collapse(lines(0.5, 0.5, 0.5, 0, 0), config) is None  # the windows would overlap
    assert find_collapse(lines(0.5, 0.5, 0.5, 0, 0, 0), config) is not None
    assert find_collapse(lines(0.5, 0.5, 0.5, 0.75, 0, 0), config) is None  # a mean of 1/4 is not below half of 1/2
    assert find_collapse(lines(0.5, 0.5, 0.5, 0.74, 0, 0), config) is not None
    # What lies between plays no part, and one good line at the start is no measure.
    assert find_collapse(lines(0.5, 0.5, 0.5, 0, 0, 0.5, 0.5, 0.5), config) is None
    assert find_collapse(lines(0.9, 0.1, 0.1, 0.9, 0.2, 0.2, 0.2), config) is None
    # Against the start, not against the best.
    assert find_collapse(lines(0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1), config) is None


@pytest.mark.parametrize(
    ("tokens", "cause"), [(70.0, "broken off by another token"), (220.0, "run into the thinking budget")]
)
def test_traces_that_no_longer_close_are_broken_off_or_too_long(tokens, cause):
    """As a run on a model whose traces did not pay went: closed .98 -> .49 while traces fell from 172 tokens to 80."""
    start = dict(HEALTHY, **{"rollout/closed": 0.98, "rollout/trace_tokens": 172.0})
    end = dict(HEALTHY, **{"rollout/closed": 0.45, "rollout/trace_tokens": tokens})
    found = find_collapse([start] * 5 + [end] * 5, GuardConfig())
    assert found is not None and found.startswith("closed") and "fell from 0.98 to 0.45" in found and cause in found


def test_traces_that_hardly_closed_at_the_start_are_no_measure():
    def lines(start, end):
        return [dict(HEALTHY, **{"rollout/closed": value}) for value in [start] * 5 + [end] * 5]

    assert find_collapse(lines(0.3, 0.1), GuardConfig()) is None
    assert find_collapse(lines(0.6, 0.45), GuardConfig()) is not None  # a share of traces, not of its start
    assert find_collapse(lines(1.0, 0.55), GuardConfig()) is None


def test_a_figure_that_started_at_0_cannot_fall():
    lines = [dict(HEALTHY, **{"rollout/first_code_diversity": 0.0, "rollout/recall": 0.0}) for _ in range(10)]
    assert find_collapse(lines, GuardConfig()) is None


def test_a_figure_that_the_first_line_lacks_is_watched_all_the_same():
    # Its batch had no legal item, so no entropy.
    lines = curve(20, item_entropy_1=0.0)
    del lines[0]["rollout/item_entropy_1"]
    reason = find_collapse(lines, GuardConfig())
    assert reason is not None and reason.startswith("item_entropy_1 fell")


def test_lines_without_a_figure_are_passed_over():
    # Mixed runs have batches without a trace; logs hold None where nothing was finite.
    lines = curve(20, trace_tokens=0.0)
    for number in (0, 3, 15, 18, 19):
        del lines[number]["rollout/trace_tokens"]
    lines[1]["rollout/trace_tokens"] = None
    reason = find_collapse(lines, GuardConfig())
    assert reason is not None and reason.startswith("trace_tokens fell")
    for line in lines:
        line.pop("rollout/trace_tokens", None)
        line.pop("kl/reference")
    assert find_collapse(lines, GuardConfig()) is None


def test_a_divergence_that_is_no_number_is_a_collapse():
    for value, shown in ((float("nan"), "nan"), (float("inf"), "inf"), (None, "nan")):  # None: as TRL logs NaN
        lines = [*curve(10)[:-1], dict(HEALTHY, **{"kl/reference": value})]
        reason = find_collapse(lines, GuardConfig())
        assert reason is not None and reason.startswith(f"kl/reference rose to {shown} nats")


def test_all_traces_empty_is_found_from_figures_to_verdict():
    def line(length):
        inputs = build([[[[0, 1], [1, 2]]]], positives=[[[0, 1]]], trace_lengths=np.array([[length]]))
        return rollout_metrics(inputs)

    history = [line(length) for length in [50] * 5 + [0] * 5]
    reason = find_collapse(history, GuardConfig())
    assert reason is not None and reason.startswith("trace_tokens fell from 50 to 0")


def test_a_resumed_run_is_judged_as_an_uninterrupted_one():
    # Its log is read again from JSON: against the run's own start, not the resumption's.
    lines = curve(30, recall=0.0)
    before = json.loads(json.dumps(lines[:20]))
    assert find_collapse(before + lines[20:], GuardConfig()) == find_collapse(lines, GuardConfig())
    assert find_collapse(lines, GuardConfig()) is not None
    fell_before = json.loads(json.dumps(curve(10) + curve(40, recall=0.0)[30:]))
    healthy_since = [fell_before[-1]] * 10
    assert find_collapse(healthy_since, GuardConfig()) is None
    assert find_collapse(fell_before + healthy_since, GuardConfig()) is not None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window": 0}, "guards.window must be at least 1, got 0"),
        ({"max_kl": 0.0}, "guards.max_kl must be above 0"),
        ({"max_kl": float("nan")}, "guards.max_kl must be above 0"),
        *[
            ({f"min_{name}": value}, f"guards.min_{name} must lie in 0 .. 1, got {value}")
            for name in ("entropy", "diversity", "legality", "recall", "closed", "trace_tokens")
            for value in (-0.1, 1.1)
        ],
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        build_config(GuardConfig, values)
