"""Rollouts as rewards see them: codes, legality, right answers, and what traces cite."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from onereason.model.sampling import SamplingConfig
from onereason.rl.extract import build_reward_inputs
from onereason.rl.prompts import Prompts
from onereason.rl.rollout import RolloutConfig, roll_out
from tests.rl.reference import ASKED, BARE, FORMAT, HISTORIES, build_recommender

PROMPTS = Prompts(
    np.arange(4), [*HISTORIES, np.array([1])], [np.array([n]) for n in (1, 0, 2, 4)], [*ASKED, "video"], {}
)
SAMPLING = SamplingConfig(max_new_tokens=4, temperature=8.0, top_k=0, top_p=1.0)


def rollouts_of(recommender, domains, items="free"):
    config = RolloutConfig(num_traces=2, num_items=6, items=items, sampling=SAMPLING)
    return roll_out(recommender, HISTORIES, domains, [(0, g) for g in range(3)], config)


@pytest.mark.parametrize("format", [FORMAT, BARE], ids=["begin tokens", "bare"])
def test_candidates_are_codes_of_the_format_where_they_are_items(format):
    recommender = build_recommender(format)
    domains = ASKED if format is FORMAT else ["*"] * 3
    prompts = replace(PROMPTS, domains=[*domains, domains[0]])
    rollouts = rollouts_of(recommender, domains, "sample")
    mended = replace(rollouts, leaves=rollouts.leaves.clone())
    mended.leaves[0, 0, 2] = -1  # as a free draw that is no item
    found = build_reward_inputs(replace(recommender, max_history=2), prompts, [0, 1, 2], mended, seed=5)
    catalog = recommender.catalog
    for g in range(3):
        for n in range(2):
            for k in range(6):
                if (g, n, k) == (0, 0, 2):
                    assert found.candidates[g, n, k].tolist() == [-1] * 3
                    assert found.valid[g, n, k] and not found.legal[g, n, k]
                    continue
                text = recommender.prompt.tokenizer.decode(mended.sequences[g, n, k])
                own = "".join(f"<s_{'abc'[level]}_{code}>" for level, code in enumerate(found.candidates[g, n, k]))
                assert text == own
                assert found.legal[g, n, k]
    assert [p.tolist() for p in found.positives] == [catalog.codes[[i]].tolist() for i in (1, 0, 2)]
    assert [h.tolist() for h in found.histories] == [catalog.codes[h[-2:]].tolist() for h in HISTORIES]
    expected = [["*"] * len(h[-2:]) if format is BARE else [catalog.domains[i] for i in h[-2:]] for h in HISTORIES]
    assert found.history_domains == expected
    assert found.domains == domains
    assert found.seed == 5
    assert np.array_equal(found.trace_lengths, mended.traces.lengths.numpy())


def test_traces_are_read_for_the_items_they_cite():
    recommender = build_recommender()
    rollouts = rollouts_of(recommender, ASKED)
    known = recommender.catalog
    missing = next(
        codes for codes in ((a, b, 3) for a in range(4) for b in range(4)) if len(known.find(codes, "video")) == 0
    )
    text = f"a red {known.render(1)} pie {FORMAT.render(missing, 'video')} <s_a_1> {known.render(0)}"
    tokens = recommender.prompt.tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = torch.full((3, 2, len(tokens)), -1)
    ids[1, 0] = torch.tensor(tokens)
    traces = replace(rollouts.traces, token_ids=ids)
    found = build_reward_inputs(recommender, PROMPTS, [0, 1, 2], replace(rollouts, traces=traces))
    assert found.traces[1][0] == text
    assert found.traces[0] == ["", ""]
    # Whole patterns in order, those that are no item as -1; then one row for the broken one.
    none = [-1, -1, -1]
    assert found.cited[1][0].tolist() == [known.codes[1].tolist(), none, known.codes[0].tolist(), none]
    assert found.cited_domains[1][0] == ["video", "video", "prod", "*"]
    assert found.cited[0][0].shape == (0, 3)
