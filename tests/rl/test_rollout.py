"""Two-stage rollouts and their rows, against plain unpadded passes over each rollout's literal tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from onereason.errors import ConfigError
from onereason.model.sampling import SamplingConfig
from onereason.rl.rollout import RolloutConfig, roll_out
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
    sampling = SamplingConfig(max_new_tokens=6, temperature=temperature, top_k=0, top_p=1.0)
    return RolloutConfig(
        **({"mode": mode, "num_traces": 4, "num_items": 5, "items": items} | changes), sampling=sampling
    )


CASES = [config(), config(mode="no_think"), config("sample", temperature=3.0), config("free", temperature=8.0)]
CASES.append(config("sample", mode="no_think"))


def literal(rollouts, g: int, n: int) -> tuple[list[int], list[int]]:
    """Prompt and trace, and what stands between trace and codes."""
    return [*rollouts.prompts[g], *rollouts.traces.lists()[g][n]], rollouts.between[g]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.items}-{c.mode}")
def test_logprobs_and_rows_equal_plain_passes_over_every_rollout(recommender, domains, few, case):
    rollouts = roll_out(recommender, HISTORIES, domains, SEEDS, case)
    rows = build_rows(rollouts)
    num_traces, num_items, temperature = 4, 5, case.sampling.temperature
    assert rollouts.shape == (3, num_traces, num_items)
    if case.mode == "think":
        assert not rollouts.traces.closed.all() and rollouts.traces.closed.any()
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
            closed = case.mode == "think" and bool(rollouts.traces.closed[g, n])
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
