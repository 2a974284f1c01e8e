"""What the table of seeds makes of the seeds' own figures."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.think_pays import pool, summarise


def test_pooling_is_the_mean_with_the_standard_error_of_a_mean():
    intervals = [
        {"difference": 0.10, "low": 0.02, "high": 0.18},
        {"difference": 0.04, "low": -0.02, "high": 0.10},
        {"difference": 0.01, "low": -0.09, "high": 0.11},
    ]
    pooled = pool(intervals)
    assert pooled["difference"] == pytest.approx(0.05)
    half = np.sqrt(0.08**2 + 0.06**2 + 0.10**2) / 3
    assert (pooled["low"], pooled["high"]) == pytest.approx((0.05 - half, 0.05 + half))
    assert pool(intervals[:1]) == pytest.approx(intervals[0])


def row(stage, seed, low):
    recall = {system: dict.fromkeys(("1", "8", "64"), 0.1 * seed) for system in ("model", "think", "race")}
    difference = {"difference": low + 0.05, "low": low, "high": low + 0.1}
    return {
        "stage": stage,
        "domain": "video",
        "seed": seed,
        "recall": recall,
        "think_minus_no_think": dict.fromkeys(("1", "8", "64"), difference),
        "traces": {"delta_loglikelihood": 0.5},
    }


def test_ahead_in_all_seeds_together_and_in_each():
    rows = [row("SFT", 1, -0.06), row("SFT", 3, -0.02), row("RL", 1, -0.01), row("RL", 3, 0.03), row("RFT", 1, 0.01)]
    sft, rl, rft = summarise(rows)
    assert [line["stage"] for line in (sft, rl, rft)] == ["SFT", "RL", "RFT"] and sft["seeds"] == 2
    assert sft["think"]["8"] == pytest.approx(0.2)
    assert not sft["ahead"]["8"] and rl["ahead"]["8"] and rft["ahead"]["8"]  # .06 +- .035 is clear of zero
    assert not rl["ahead_in_every_seed"]["8"] and rft["ahead_in_every_seed"]["8"]
    assert rl["dll"] == [0.5, 0.5]
