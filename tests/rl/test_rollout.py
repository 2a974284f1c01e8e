"""Two-stage rollouts and their rows, against plain unpadded passes over each rollout's literal tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from onereason.errors import ConfigError
from onereason.rl.rollout import RolloutConfig, RolloutSampling, _choose_mode, roll_out
from onereason.rl.rows import IGNORED, attention_bias, build_rows
from tests.rl.reference import ASKED, BARE, FORMAT, HISTORIES, build_recommender, plain_logprobs

SEEDS = [(0, 3), (0, 4), (0, 5)]


@pytest.fixture(scope="module", params=[FORMAT, BARE], ids=["begin tokens", "bare"])
def recommender(request):
    return build_recommender(request.param)


@pytest.fixture(scope="module")
def domains(recommender):
    return ASKED if recommender.vocabulary.format.has_begin else ["*"] * 3


@pytest.fixture
def few(recommender, monkeypatch):
    """Leaves few tokens to draw, so that some traces close, some stop and some run out."""
    ids = recommender.think_ids
    kept = {*range(100, 104), ids.closing[0], *ids.stops}
    banned = torch.tensor([t for t in range(recommender.model.config.vocab_size) if t not in kept])
    monkeypatch.setitem(vars(recommender), "think_ids", replace(ids, banned=banned))


def config(items="beam", mode="think", temperature=1.0, **changes) -> RolloutConfig:
    sampling = RolloutSampling(max_new_tokens=6, temperature=temperature, top_k=0, top_p=1.0)
    return RolloutConfig(
        **({"mode": mode, "num_traces": 4, "num_items": 5, "items": items} | changes), sampling=sampling
    )


CASES = [config(), config(mode="no_think"), config("sample", temperature=3.0), config("free", temperature=8.0)]
CASES.append(config("sample", mode="no_think"))
CASES.append(config(mode="mixed"))


def literal(rollouts, g: int, n: int) -> tuple[list[int], list[int]]:
    """Prompt and trace, and what stands between trace and codes."""
    return [*rollouts.prompts[g], *rollouts.traces.lists()[g][n]], rollouts.between[g]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.items}-{c.mode}")
def test_logprobs_and_rows_equal_plain_passes_over_every_rollout(recommender, domains, few, case):
    rollouts = roll_out(recommender, HISTORIES, domains, SEEDS, case)
    rows = build_rows(rollouts)
    num_traces, num_items, temperature = 4, 5, case.sampling.temperature
    assert rollouts.shape == (3, num_traces, num_items)
    thinks = rollouts.thinks
    if case.mode == "think":
        assert not rollouts.traces.closed.all() and rollouts.traces.closed.any()
    assert thinks.tolist() == {"think": [True] * 3, "no_think": [False] * 3}.get(case.mode, thinks.tolist())
    assert case.mode != "mixed" or (thinks.any() and not thinks.all())
    bias = attention_bias(rows["base_mask"], num_items, 3, torch.float64)
    model = recommender.model
    with torch.no_grad():
        logits = model(rows["input_ids"], attention_mask=bias, position_ids=rows["position_ids"]).logits
    scored = (logits / temperature).log_softmax(-1).gather(2, rows["labels"].clamp(min=0)[..., None])[..., 0]
    mask = rows["trace_mask"] | rows["item_mask"]
    assert torch.equal(mask, rows["labels"] != IGNORED)
    # The rows' own forward pass gives what the rollout kept ...
    torch.testing.assert_close(scored[mask].float(), rows["rollout_logprobs"][mask], rtol=1e-5, atol=2e-5)
    assert (rows["rollout_logprobs"][~mask] == 0).all()
    tempered = _Tempered(model, temperature)
    for g in range(3):
        for n in range(num_traces):
            row = g * num_traces + n
            thought, between = literal(rollouts, g, n)
            closed = bool(thinks[g]) and bool(rollouts.traces.closed[g, n])
            # ... and that of each rollout's literal tokens alone.
            whole = plain_logprobs(tempered, [*thought, *between])
            start = len(rollouts.prompts[g]) - 1
            length = len(thought) - len(rollouts.prompts[g]) + closed
            found = scored[row][rows["trace_mask"][row]]
            torch.testing.assert_close(found, whole[start : start + length])
            labels = rows["labels"][row][rows["trace_mask"][row]].tolist()
            assert labels == [*thought, *between][start + 1 : start + 1 + length]
            for k in range(num_items):
                own = rows["item_ids"][row] == k
                if not rollouts.valid[g, n, k]:
                    assert not own.any()
                    continue
                codes = rollouts.sequences[g, n, k].tolist()
                assert rows["labels"][row][own].tolist() == codes
                expected = plain_logprobs(tempered, [*thought, *between, *codes])[-3:]
                torch.testing.assert_close(scored[row][own], expected)
    weights = rows["token_weights"]
    assert (weights[rows["trace_mask"]] == 1).all() and (weights[~mask] == 0).all()
    items_weight = (weights * rows["item_mask"]).sum(1)  # L codes of each valid item, a K-th each
    expected = rollouts.valid.any(2).flatten() * 3.0  # fewer than N x K items leave rows of no_think empty
    assert items_weight.tolist() == pytest.approx(expected.tolist())


class _Tempered:
    def __init__(self, model, temperature):
        self.model, self.temperature = model, temperature

    def __call__(self, *args, **kwargs):
        out = self.model(*args, **kwargs)
        out.logits = out.logits / self.temperature
        return out


def test_rollouts_do_not_depend_on_the_batch(recommender, domains, few):
    for case in CASES:
        together = roll_out(recommender, HISTORIES, domains, SEEDS, case)
        alone = roll_out(recommender, HISTORIES, domains, SEEDS, replace(case, batch_size=1))
        assert together.traces.lists() == alone.traces.lists()
        assert torch.equal(together.sequences, alone.sequences)
        assert torch.equal(together.leaves, alone.leaves)
        torch.testing.assert_close(together.logprobs, alone.logprobs)
        torch.testing.assert_close(together.traces.closing_logprobs, alone.traces.closing_logprobs)


def test_what_is_rolled_out_is_legal_unless_it_is_free(recommender, domains, few):
    for case in CASES:
        rollouts = roll_out(recommender, HISTORIES, domains, SEEDS, case)
        roots = [recommender.trie.root_of(domain) for domain in domains]
        for g in range(3):
            for codes, leaf, valid in zip(
                rollouts.sequences[g].reshape(-1, 3).tolist(),
                rollouts.leaves[g].flatten().tolist(),
                rollouts.valid[g].flatten().tolist(),
                strict=True,
            ):
                node = recommender.trie.find(roots[g], codes)
                assert leaf == (-1 if node is None or not valid else node)
        if case.items != "free":
            assert torch.equal(rollouts.legal, rollouts.valid)
        else:
            assert not rollouts.legal.all()
    beams = roll_out(recommender, HISTORIES, domains, SEEDS, config(mode="no_think"))
    for row in beams.leaves.reshape(3, -1).tolist():  # N x K beams of one search, shared out over the rows
        existing = [leaf for leaf in row if leaf >= 0]
        assert len(set(existing)) == len(existing)


def test_generated_tokens_count_each_trace_once(recommender, domains, few):
    rollouts = roll_out(recommender, HISTORIES, domains, SEEDS, config())
    traces = sum(
        len(t) + bool(c)
        for g, row in enumerate(rollouts.traces.lists())
        for t, c in zip(row, rollouts.traces.closed[g], strict=True)
    )
    assert rollouts.num_generated_tokens == traces + 3 * int(rollouts.valid.sum())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_traces": 1}, "num_traces must be at least 2, got 1. A trace is judged against the others"),
        ({"num_items": 0}, "num_items must be at least 1"),
        ({"temperature": 0.6}, "temperature must be 1 where items are beams"),
        ({"temperature": 0.0, "items": "sample"}, "temperature must be above 0"),
    ],
)
def test_what_cannot_be_rolled_out_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        config(**changes)


def test_mixed_rollouts_are_those_of_either_mode(recommender, domains, few):
    mixed = roll_out(recommender, HISTORIES, domains, SEEDS, config(mode="mixed"))
    for mode in ("think", "no_think"):
        own = mixed.thinks if mode == "think" else ~mixed.thinks
        alone = roll_out(recommender, HISTORIES, domains, SEEDS, config(mode=mode))
        assert own.any() and torch.equal(mixed.sequences[own], alone.sequences[own])
        lists = [traces for traces, kept in zip(alone.traces.lists(), own.tolist(), strict=True) if kept]
        assert lists == [traces for traces, kept in zip(mixed.traces.lists(), own.tolist(), strict=True) if kept]
    many = [(7, seed) for seed in range(400)]
    share = np.mean([_choose_mode(seed, config(mode="mixed", think_share=0.2)) == "think" for seed in many])
    assert 0.14 < share < 0.26  # three standard deviations


def domain_answers(recommender, domains) -> list[int]:
    """An item of each prompt's domain that the search finds last, if at all."""
    catalog, whole = recommender.catalog, recommender.vocabulary.format.has_begin
    return [max(i for i, d in enumerate(catalog.domains) if not whole or d == domain) for domain in domains]


@pytest.mark.parametrize("mode", ["think", "no_think"])
def test_the_likelihood_of_the_answer_is_that_of_a_plain_pass(recommender, domains, few, mode):
    answers = domain_answers(recommender, domains)
    rollouts = roll_out(recommender, HISTORIES, domains, SEEDS, config(mode=mode), answers)
    codes = recommender.vocabulary.code_ids(recommender.catalog.codes[answers]).tolist()
    for g in range(3):
        for n in range(4):
            thought, between = literal(rollouts, g, n)
            expected = plain_logprobs(recommender.model, [*thought, *between, *codes[g]])[-3:].sum()
            assert float(rollouts.answer_logprobs[g, n]) == pytest.approx(float(expected), abs=1e-4)
    # Scoring answers leaves the rollouts as they are.
    without = roll_out(recommender, HISTORIES, domains, SEEDS, config(mode=mode))
    assert torch.equal(without.sequences, rollouts.sequences) and without.answer_logprobs is None


@pytest.mark.parametrize("mode", ["think", "no_think"])
def test_the_next_item_stands_in_the_last_place_where_it_was_not_found(recommender, domains, few, mode):
    answers = domain_answers(recommender, domains)
    case = config(mode=mode, include_positive=True, num_items=2)
    rollouts = roll_out(recommender, HISTORIES, domains, SEEDS, case, answers)
    plain = roll_out(recommender, HISTORIES, domains, SEEDS, replace(case, include_positive=False))
    codes = torch.from_numpy(recommender.vocabulary.code_ids(recommender.catalog.codes[answers]).astype("int64"))
    searches = (3, 4, 2) if mode == "think" else (3, 1, 8)  # prompts, searches of each, items of each
    found = (rollouts.sequences == codes[:, None, None]).all(-1).view(searches)
    assert found.any(-1).all() and rollouts.valid.view(searches)[..., -1].all()
    guided, before = rollouts.guided.view(searches), (plain.sequences == codes[:, None, None]).all(-1).view(searches)
    assert torch.equal(guided[..., -1], ~before.any(-1)) and not guided[..., :-1].any()
    assert guided.any() or mode == "no_think"  # there, the eight items of a search are nearly all there are
    assert torch.equal(rollouts.sequences[~rollouts.guided], plain.sequences[~rollouts.guided])
    rows = build_rows(rollouts)
    bias = attention_bias(rows["base_mask"], 2, 3, torch.float64)
    with torch.no_grad():
        logits = recommender.model(
            rows["input_ids"], attention_mask=bias, position_ids=rows["position_ids"]
        ).logits.log_softmax(-1)
    scored = logits.gather(2, rows["labels"].clamp(min=0)[..., None])[..., 0]
    items = rows["item_mask"]
    torch.testing.assert_close(scored[items].float(), rows["rollout_logprobs"][items], rtol=1e-5, atol=2e-5)
    assert rollouts.num_generated_tokens == plain.num_generated_tokens - 3 * int((rollouts.guided & plain.valid).sum())
    with pytest.raises(ConfigError, match="include_positive needs the next items"):
        roll_out(recommender, HISTORIES, domains, SEEDS, case)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"think_share": 1.0}, "think_share must lie between 0 and 1"),
        ({"include_positive": True, "temperature": 2.0, "items": "sample"}, r"include_positive needs \S+temperature 1"),
    ],
)
def test_modes_and_guides_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        config(**changes)
