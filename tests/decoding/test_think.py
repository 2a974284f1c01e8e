"""Traces against a naive loop, drawing against transformers' warpers, answers after a trace against teacher forcing."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from onereason.decoding.stems import left_pad, prefill
from onereason.decoding.think import (
    SamplingConfig,
    close_traces,
    draw,
    sample_traces,
)
from onereason.errors import ConfigError, ModelError
from tests.decoding.reference import (
    VOCAB,
    invert,
    make_model,
    make_prompts,
    naive_trace,
    plain_forward,
    warped,
    ways_to_end,
)

WIDE = SamplingConfig(max_new_tokens=12, temperature=1.3, top_k=0, top_p=1.0)
"""From the whole distribution; flat enough that traces close at different lengths."""
PROMPTS = make_prompts([5, 9, 1])


@pytest.fixture(scope="module")
def model():
    return make_model(initializer_range=0.25).double()  # rounding must not decide between two tokens


# -- drawing one token ------------------------------------------------------------------------------------------------


CONFIGS = [
    SamplingConfig(temperature=0.6, top_k=50, top_p=0.95),
    SamplingConfig(temperature=1.0, top_k=0, top_p=1.0),
    SamplingConfig(temperature=1.0, top_k=0, top_p=0.7),
    SamplingConfig(temperature=2.5, top_k=9, top_p=1.0),
    SamplingConfig(temperature=1.7, top_k=7, top_p=0.8),
    SamplingConfig(temperature=0.3, top_k=1, top_p=0.5),
    SamplingConfig(temperature=5.0, top_k=1000, top_p=0.99),  # more than there are
    SamplingConfig(temperature=1.0, top_k=5, top_p=1e-9),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_drawing_equals_transformers_warpers_and_an_inverse_distribution(config):
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 2, (400, 60)).astype(np.float32))
    logits[:100, ::3] = -torch.inf  # banned
    uniform = torch.from_numpy(rng.random(400))
    uniform[:4] = torch.tensor([0.0, 1 - 2**-53, 2**-60, 0.5], dtype=torch.double)
    probabilities = warped(logits, config).numpy()
    expected = [
        invert(row, p, u, config) for row, p, u in zip(logits.numpy(), probabilities, uniform.tolist(), strict=True)
    ]
    assert draw(logits, uniform, config).tolist() == expected


def test_a_draw_on_a_border_goes_to_the_next_token():
    # Four equal tokens begin at 0, .25, .5 and .75, all exact; 1, which no stream gives, stays inside the top-p.
    logits, uniform = torch.zeros(5, 4), torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    assert draw(logits, uniform, SamplingConfig(temperature=1.0, top_p=1.0)).tolist() == [0, 1, 2, 3, 3]
    assert draw(logits, uniform, SamplingConfig(temperature=1.0, top_p=0.5)).tolist() == [0, 0, 1, 1, 1]


def test_top_p_counts_the_distribution_that_top_k_leaves():
    # Probabilities .4 .3 .2 .1; the two most likely are left with 4/7 = .571 and 3/7. Top-p .55 is reached by the first
    # alone after top-k; over all four tokens the first would not reach it (.4 < .55).
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    grid = (torch.arange(100) + 0.5) / 100
    many = logits.expand(100, -1)
    assert set(draw(many, grid, SamplingConfig(temperature=1.0, top_k=2, top_p=0.55)).tolist()) == {0}
    assert Counter(draw(many, grid, SamplingConfig(temperature=1.0, top_k=0, top_p=0.55)).tolist()) == {0: 57, 1: 43}
    # Temperature comes first: at 0.5 the probabilities are 16 9 4 1 of 30, and .53 is reached by the first alone.
    assert set(draw(many, grid, SamplingConfig(temperature=0.5, top_k=0, top_p=0.53)).tolist()) == {0}


def test_ties_at_the_border_of_top_k_go_to_the_lower_token():
    # Four equal logits, two places: transformers' warper keeps all four, the search keeps two.
    logits = torch.tensor([[1.0, 3.0, 3.0, 3.0, 3.0]])
    config = SamplingConfig(temperature=1.0, top_k=2, top_p=1.0)
    grid = (torch.arange(100) + 0.5) / 100
    assert Counter(draw(logits.expand(100, -1), grid, config).tolist()) == {1: 50, 2: 50}
    assert (warped(logits, config) > 0).sum() == 4


def test_greedy_takes_the_first_of_the_most_likely():
    logits = torch.tensor([[0.0, 2.0, 2.0], [5.0, -torch.inf, 1.0]])
    assert draw(logits, torch.tensor([0.99, 0.99]), SamplingConfig(temperature=0)).tolist() == [1, 0]


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[3], CONFIGS[4], SamplingConfig(temperature=1.5, top_p=0.9)])
def test_draws_follow_the_distribution(config):
    logits = torch.from_numpy(np.random.default_rng(3).normal(0, 0.8, (1, 12)).astype(np.float32))
    count = 200_000
    uniform = torch.from_numpy(np.random.default_rng(4).random(count))
    found = np.bincount(draw(logits.expand(count, -1), uniform, config).numpy(), minlength=12)
    expected = warped(logits, config)[0].numpy() * count
    assert (found[expected == 0] == 0).all()
    kept = expected > 0
    assert kept.sum() > 1 and chisquare(found[kept], expected[kept]).pvalue > 1e-3


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"max_new_tokens": 0}, "thinking budget must be at least 1 token, got 0"),
        ({"temperature": -0.1}, "temperature must be 0 or a number from 0.001, got -0.1"),
        ({"temperature": float("nan")}, "temperature must be 0 or a number from 0.001, got nan"),
        ({"temperature": float("inf")}, "temperature must be 0 or a number from 0.001, got inf"),
        ({"top_k": -1}, "top_k must be at least 0"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\], got 0.0"),
        ({"top_p": 1.1}, r"top_p must lie in \(0, 1\], got 1.1"),
    ],
)
def test_sampling_that_means_nothing_is_refused(changes, match):
    with pytest.raises(ConfigError, match=match):
        SamplingConfig(**changes)


# -- traces -----------------------------------------------------------------------------------------------------------


def check_traces(model, traces, prompts, seeds, close_id, stop_ids, banned, config) -> None:
    longest = 0
    for b, prompt in enumerate(prompts):
        for n, seed in enumerate(seeds[b]):
            tokens, closed, logprobs = naive_trace(model, prompt, seed, close_id, stop_ids, banned, config)
            longest = max(longest, len(tokens))
            assert traces.lists()[b][n] == tokens
            assert bool(traces.closed[b, n]) == closed
            assert int(traces.lengths[b, n]) == len(tokens)
            np.testing.assert_allclose(traces.logprobs[b, n, : len(tokens)], logprobs, rtol=1e-4)
            assert (traces.token_ids[b, n, len(tokens) :] == -1).all()
            assert (traces.logprobs[b, n, len(tokens) :] == 0).all()
    assert traces.token_ids.shape == (*traces.closed.shape, longest)


SEEDS = [[11, 12, 13, 14], [21, 22, (2, 3), 24], [31, 31, 33, 34]]
CLOSE, STOPS = 7, [55, 9]


@pytest.mark.parametrize(
    "config",
    [
        WIDE,
        SamplingConfig(max_new_tokens=9, temperature=2.0, top_k=20, top_p=0.9),
        SamplingConfig(max_new_tokens=5, temperature=0.6),
        SamplingConfig(max_new_tokens=6, temperature=0),
    ],
)
def test_traces_equal_a_naive_loop(model, config):
    banned = torch.tensor([3, 40, 41])
    stems = prefill(model, *left_pad(PROMPTS)).fork(4)
    traces, after = sample_traces(model, stems, SEEDS, CLOSE, STOPS, banned, config)
    check_traces(model, traces, PROMPTS, SEEDS, CLOSE, STOPS, banned, config)
    assert traces.lists()[2][0] == traces.lists()[2][1]  # equal seeds behind equal prompts
    assert after.lengths.tolist() == [
        [len(p) + int(n) for n in row] for p, row in zip(PROMPTS, traces.lengths, strict=True)
    ]
    for b, prompt in enumerate(PROMPTS):  # the stems end where the traces end
        for n, trace in enumerate(traces.lists()[b]):
            hidden, _ = plain_forward(model, prompt + trace)
            torch.testing.assert_close(after.hidden[b, n], hidden[-1], rtol=1e-6, atol=0)


def test_traces_close_stop_and_run_out(model):
    # Every way to end among 40 traces; a stop token leaves the block open, as the budget does.
    seeds = [[[b, n] for n in range(40)] for b in range(3)]
    stops = list(range(20, 28))
    stems = prefill(model, *left_pad(PROMPTS)).fork(40)
    traces, _ = sample_traces(model, stems, seeds, CLOSE, stops, None, WIDE)
    assert ways_to_end(traces, WIDE) == {"closed", "stopped", "cut"}
    drawn = set(traces.token_ids.flatten().tolist())
    assert not drawn & {CLOSE, *stops}


def test_a_trace_does_not_depend_on_its_neighbours(model):
    stems = prefill(model, *left_pad(PROMPTS)).fork(4)
    together, _ = sample_traces(model, stems, SEEDS, CLOSE, STOPS, None, WIDE)
    for b, prompt in enumerate(PROMPTS):
        for n, seed in enumerate(SEEDS[b]):
            alone, _ = sample_traces(model, prefill(model, *left_pad([prompt])), [[seed]], CLOSE, STOPS, None, WIDE)
            assert alone.lists()[0][0] == together.lists()[b][n]
            assert alone.closed[0, 0] == together.closed[b, n]


def test_first_tokens_of_many_traces_follow_the_distribution(model):
    count, config = 3000, SamplingConfig(max_new_tokens=1, temperature=1.5, top_k=15, top_p=0.9)
    stems = prefill(model, *left_pad(PROMPTS[:1])).fork(count)
    traces, _ = sample_traces(model, stems, [[[5, n] for n in range(count)]], close_id=0, config=config)
    probabilities = warped(plain_forward(model, PROMPTS[0])[1][-1:].float(), config)[0].numpy()
    assert probabilities[0] == 0  # the closing token is none of them
    found = np.bincount(traces.token_ids.flatten().numpy(), minlength=VOCAB)
    kept = probabilities > 0
    assert not found[~kept].any() and kept.sum() > 5
    assert chisquare(found[kept], probabilities[kept] * count).pvalue > 1e-3


def test_banned_tokens_are_never_drawn(model):
    likely = plain_forward(model, PROMPTS[0])[1][-1].argsort(descending=True)[:60]
    stems = prefill(model, *left_pad(PROMPTS[:1])).fork(50)
    traces, _ = sample_traces(model, stems, [list(range(50))], 95, banned_ids=likely, config=WIDE)
    assert not set(traces.token_ids.flatten().tolist()) & set(likely.tolist())
    everything_else = torch.tensor([t for t in range(VOCAB) if t not in (7, 8)])
    traces, _ = sample_traces(model, stems, [list(range(50))], 7, banned_ids=everything_else, config=WIDE)
    assert set(traces.token_ids.flatten().tolist()) == {8, -1} and traces.closed.any()


def test_all_traces_that_close_at_once_are_empty(model):
    close = int(plain_forward(model, PROMPTS[0])[1][-1].argmax())
    stems = prefill(model, *left_pad(PROMPTS[:1])).fork(3)
    traces, after = sample_traces(model, stems, [[1, 2, 3]], close, config=SamplingConfig(20, temperature=0))
    assert traces.token_ids.shape == traces.logprobs.shape == (1, 3, 0)
    assert traces.token_ids.dtype == torch.int64
    assert traces.closed.tolist() == [[True] * 3] and traces.lists() == [[[], [], []]]
    assert traces.lengths.tolist() == [[0, 0, 0]] and after.lengths.tolist() == [[5, 5, 5]]
    assert torch.equal(after.hidden, stems.hidden)


def test_a_float_type_set_for_new_models_does_not_coarsen_the_draws(model):
    stems = prefill(model, *left_pad(PROMPTS)).fork(4)
    plain, _ = sample_traces(model, stems, SEEDS, CLOSE, STOPS, None, WIDE)
    torch.set_default_dtype(torch.bfloat16)
    try:
        same, _ = sample_traces(model, stems, SEEDS, CLOSE, STOPS, None, WIDE)
    finally:
        torch.set_default_dtype(torch.float32)
    assert plain.lists() == same.lists()


def test_requests_for_traces_that_cannot_be_are_named(model):
    stems = prefill(model, *left_pad(PROMPTS)).fork(2)
    with pytest.raises(ConfigError, match=r"expected 2 seeds for each of 3 prompts, got \[2, 1, 2\]"):
        sample_traces(model, stems, [[1, 2], [3], [4, 5]], CLOSE)
    with pytest.raises(ConfigError, match=r"expected 2 seeds for each of 3 prompts, got \[2\]"):
        sample_traces(model, stems, [[1, 2]], CLOSE)
    with pytest.raises(ConfigError, match=r"has 9 tokens; with 56 tokens of thought and answer behind it.*\(64\)"):
        sample_traces(model, stems, [[1, 2]] * 3, CLOSE, config=SamplingConfig(max_new_tokens=56))
    broken = make_model()
    with torch.no_grad():
        broken.lm_head.weight.fill_(torch.nan)
    with pytest.raises(ModelError, match="the model's scores are NaN"):
        sample_traces(broken, prefill(make_model(1), *left_pad([[1]])), [[1]], CLOSE, config=WIDE)


def test_sampling_runs_in_eval_mode_and_restores_it():
    model = make_model(attention_dropout=0.9)
    stems = prefill(model, *left_pad(PROMPTS)).fork(4)
    plain, _ = sample_traces(model, stems, SEEDS, CLOSE, STOPS, None, WIDE)
    model.train()
    same, _ = sample_traces(model, stems, SEEDS, CLOSE, STOPS, None, WIDE)
    assert model.training and model.model.layers[0].self_attn.training
    assert plain.lists() == same.lists()


def test_suffixes_of_unequal_length_close_traces(model):
    stems = prefill(model, *left_pad(PROMPTS)).fork(2)
    traces, stems = sample_traces(model, stems, [[1, 2], [3, 4], [5, 6]], CLOSE, STOPS, None, WIDE)
    suffixes = [[7, 60], [7, 61, 62, 63], [7]]
    closed = close_traces(stems, suffixes)
    for b, prompt in enumerate(PROMPTS):
        for n, trace in enumerate(traces.lists()[b]):
            text = prompt + trace + suffixes[b]
            assert closed.lengths[b, n] == len(text)
            torch.testing.assert_close(closed.hidden[b, n], plain_forward(model, text)[0][-1], rtol=1e-6, atol=0)
