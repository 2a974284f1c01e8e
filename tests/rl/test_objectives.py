"""What logged signals say: rules, duration buckets, nulls, and what is refused."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from onereason.config import build_config
from onereason.errors import ConfigError, DataError
from onereason.rl.objectives import Objective, build_labels, fit_duration_buckets, read_signals

NAN = np.nan


def labels_of(values, train=None, **rule):
    objective = Objective(**({"signal": "x"} | rule))
    signals = {"signal_x": np.array(values, dtype=float)}
    train = np.ones(len(values), dtype=bool) if train is None else np.array(train)
    return build_labels({"o": objective}, signals, train)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"rule": "positive"}, [0, 0, 1, 1]),
        ({"rule": "zero"}, [1, 1, 0, 0]),
        ({"rule": "at_least", "threshold": 2.0}, [0, 0, 0, 1]),
    ],
)
def test_rules_read_signals_and_nulls_stay_unknown(rule, expected):
    labels = labels_of([-1.0, 0.0, 1.5, 2.0, NAN], **rule)
    assert labels.values[:, 0].tolist() == [*expected, 0]
    assert labels.known[:, 0].tolist() == [True] * 4 + [False]
    assert not labels.sampled.any()
    assert labels.counts == {"o": {"null": 1, "positives": sum(expected), "negatives": 4 - sum(expected)}}


def test_sampled_negatives_leave_exposures_without_the_signal_out():
    labels = labels_of([1.0, 0.0, NAN], negatives="sampled")
    assert labels.known[:, 0].tolist() == [True, False, False]
    assert labels.sampled[:, 0].tolist() == [True, False, False]
    both = labels_of([1.0, 0.0, NAN], negatives="both")
    assert both.known[:, 0].tolist() == both.sampled[:, 0].tolist() == [True, True, False]


def test_rule_interaction_takes_every_event():
    labels = build_labels({"click": Objective("interaction", negatives="sampled")}, {}, np.ones(3, bool))
    assert labels.values[:, 0].tolist() == [1, 1, 1]
    assert labels.known.all() and labels.sampled.all()


def test_duration_buckets_by_hand():
    # Durations 10 10 10 20 30 40 in two buckets: the edge is the value that 1/2 of them reach, of 10 10 10 | 20 30 40
    # the upper one, 20. Medians of what was watched: of 1 2 6 it is 2, of 5 15 25 it is 15.
    durations = np.array([10.0, 10, 10, 20, 30, 40])
    watched = np.array([1.0, 2, 6, 5, 15, 25])
    buckets = fit_duration_buckets(watched, durations, 0.5, 2)
    assert buckets.edges.tolist() == [20.0]
    assert buckets.thresholds.tolist() == [2.0, 15.0]
    assert buckets.exceeds(watched, durations).tolist() == [False, False, True, False, False, True]
    # 6 s of a short item are long, of a long one they are not.
    assert buckets.exceeds(np.array([6.0, 6.0]), np.array([5.0, 100.0])).tolist() == [True, False]


def test_equal_durations_make_one_bucket():
    buckets = fit_duration_buckets(np.arange(4.0), np.full(4, 7.0), 0.5, 10)
    assert buckets.edges.tolist() == [] and buckets.thresholds.tolist() == [1.5]


def test_thresholds_come_from_the_training_part_alone():
    objective = Objective("quantile", "watch", duration="length", num_buckets=1)
    train = np.array([True, True, True, False, False])
    signals = {"signal_watch": np.array([1.0, 2, 3, 100, 200]), "signal_length": np.full(5, 9.0)}
    labels = build_labels({"long": objective}, signals, train)
    assert labels.buckets["long"].thresholds.tolist() == [2.0]
    assert labels.values[:, 0].tolist() == [0, 0, 1, 1, 1]
    assert labels.counts["long"] == {"null": 0, "positives": 1, "negatives": 2}


def test_signals_stand_in_the_order_of_timelines():
    table = pl.DataFrame(
        {
            "user_id": ["b", "a", "b"],
            "timestamp": [5, 1, 2],
            "signal_like": pl.Series([1.0, None, 0.0], dtype=pl.Float32),
        }
    )
    found = read_signals(table, {"like": Objective(signal="like")}, "here")
    np.testing.assert_array_equal(found["signal_like"], [0.0, 1.0, NAN])  # b at 2, b at 5, a
    assert read_signals(table, {"like": Objective(signal="signal_like")}, "here").keys() == found.keys()


def test_an_unknown_column_is_refused_with_those_there_are():
    table = pl.DataFrame({"user_id": ["a"], "timestamp": [1], "signal_like": [1.0], "signal_buy": [0.0]})
    with pytest.raises(ConfigError, match=r"objective 'o' reads signal_liek, .* do not have; .* signal_like, signal_b"):
        read_signals(table, {"o": Objective(signal="liek")}, "here")
    with pytest.raises(ConfigError, match="log no signal; use rule interaction"):
        read_signals(table.drop("signal_like", "signal_buy"), {"o": Objective(signal="like")}, "here")
    with pytest.raises(ConfigError, match="objectives is empty"):
        read_signals(table, {}, "here")


@pytest.mark.parametrize(
    ("values", "rule", "message"),
    [
        ([0.0, 0.0, NAN], {}, r"objective 'o' \(positive of signal_x\) has no positive .*1 null, 0 positives, 2 neg"),
        ([1.0, 1.0], {}, "has no negative .* use negatives sampled"),
        ([NAN, NAN], {}, "signal_x is null in all 2 training interactions"),
    ],
)
def test_one_class_is_refused(values, rule, message):
    with pytest.raises(DataError, match=message):
        labels_of(values, **rule)


def test_positives_outside_training_do_not_count():
    with pytest.raises(DataError, match="has no positive in the training part"):
        labels_of([0.0, 1.0], train=[True, False])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rule": "interaction"}, "negatives must be sampled"),
        ({"rule": "interaction", "signal": "x", "negatives": "sampled"}, "reads no signal"),
        ({}, "name its column"),
        ({"rule": "at_least", "signal": "x"}, "threshold belongs to rule at_least"),
        ({"signal": "x", "threshold": 1.0}, "threshold belongs to rule at_least"),
        ({"rule": "quantile", "signal": "x"}, "duration belongs to rule quantile"),
        ({"rule": "quantile", "signal": "x", "duration": "d", "quantile": 1.0}, "between 0 and 1"),
        ({"signal": "x", "weight": -1.0}, "weight must be 0 or more"),
        ({"signal": "x", "pos_weight": 0}, "pos_weight must be above 0"),
        ({"signal": "x", "pos_weight": "even"}, "pos_weight"),
        ({"signal": "x", "rule": "often"}, "rule"),
        ({"signal": "x", "treshold": 1.0}, "did you mean threshold"),
    ],
)
def test_objectives_that_contradict_themselves(values, message):
    with pytest.raises(ConfigError, match=message):
        build_config(Objective, values)
