"""Likelihoods of given answers against one plain forward pass an answer."""

from __future__ import annotations

import pytest
import torch

from onereason.decoding import likelihood
from onereason.decoding.beam import beam_search
from onereason.decoding.likelihood import answer_loglikelihoods, compute_logprobs
from onereason.decoding.stems import left_pad, prefill
from onereason.errors import ConfigError, ModelError
from onereason.itemic.trie import build_trie
from tests.decoding.reference import VOCAB, make_items, make_model, make_prompts, plain_forward, with_lora

PROMPTS = make_prompts([5, 9, 1, 7])
ANSWERS = [[40, 47, 53], [41], [44, 46, 52, 59, 60], [45, 50]]
BETWEEN = [[90], [7, 8, 91], [90], [3, 91]]


@pytest.fixture(scope="module")
def model():
    return make_model()


def plain_logprobs(model, text: list[int], answer: list[int]) -> list[float]:
    """Log-probability of each token of an answer behind a text, over the whole vocabulary."""
    logprobs = plain_forward(model, text + answer)[1].double().log_softmax(-1)
    return [logprobs[len(text) - 1 + step, token].item() for step, token in enumerate(answer)]


@pytest.mark.parametrize("kind", ["tied", "untied", "lora"])
def test_logprobs_equal_plain_forward_passes(kind):
    model = {
        "tied": make_model,
        "untied": lambda: make_model(tie_word_embeddings=False),
        "lora": lambda: with_lora(make_model(tie_word_embeddings=False), "q_proj", "lm_head"),
    }[kind]()
    stems = prefill(model, *left_pad(PROMPTS)).fork(2)
    first = torch.randint(1, 40, (4, 2, 3), generator=torch.Generator().manual_seed(0))
    first_mask = torch.arange(3) < torch.tensor([[3, 1], [0, 2], [2, 2], [1, 0]])[..., None]
    stems = stems.append(first, first_mask)
    tokens = torch.randint(1, VOCAB, (4, 2, 4), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(4) < torch.tensor([[4, 2], [1, 0], [3, 4], [2, 1]])[..., None]
    found = compute_logprobs(model, stems, tokens, mask)
    whole = compute_logprobs(model, stems, tokens)  # the stems are as they were
    assert found.dtype == torch.float32 and found.shape == (4, 2, 4)
    assert (found[~mask] == 0).all()
    for b, prompt in enumerate(PROMPTS):
        for n in range(2):
            text = prompt + first[b, n][first_mask[b, n]].tolist()
            expected = torch.tensor(plain_logprobs(model, text, tokens[b, n].tolist()))
            torch.testing.assert_close(whole[b, n], expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found[b, n][mask[b, n]], expected[mask[b, n]], rtol=1e-4, atol=1e-5)


def test_stems_go_on_after_they_are_scored(model):
    stems = prefill(model, *left_pad(PROMPTS))
    compute_logprobs(model, stems, torch.full((4, 1, 6), 5))
    after = stems.append(torch.full((4, 1, 2), 11))
    for b, prompt in enumerate(PROMPTS):
        hidden, _ = plain_forward(model, [*prompt, 11, 11])
        torch.testing.assert_close(after.hidden[b, 0], hidden[-1], rtol=1e-4, atol=1e-5)


def test_groups_of_logits_do_not_change_the_result(model, monkeypatch):
    stems = prefill(model, *left_pad(PROMPTS)).fork(2)
    tokens = torch.randint(1, VOCAB, (4, 2, 3), generator=torch.Generator().manual_seed(1))
    whole = compute_logprobs(model, stems, tokens)
    sizes = []
    model.lm_head.register_forward_hook(lambda _, __, logits: sizes.append(logits.numel()))
    monkeypatch.setattr(likelihood, "LOGITS_BUDGET", 5 * VOCAB + 1)
    torch.testing.assert_close(compute_logprobs(model, stems, tokens), whole, rtol=1e-5, atol=0)
    assert sizes == [5 * VOCAB] * 4 + [4 * VOCAB]  # 24 tokens


def test_answers_behind_whole_prompts(model):
    found = answer_loglikelihoods(model, PROMPTS, ANSWERS, BETWEEN)
    assert found.shape == (4, 1) and found.dtype == torch.float32
    for row, (prompt, answer, between) in enumerate(zip(PROMPTS, ANSWERS, BETWEEN, strict=True)):
        expected = sum(plain_logprobs(model, prompt + between, answer))
        torch.testing.assert_close(found[row, 0].item(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_answers_behind_cut_prompts(kind):
    model = make_model(attn_implementation=kind)
    cuts = [[1, 3, 5], [9, 2], [1], [4, 4, 7]]  # in any order, repeated, of any number
    found = answer_loglikelihoods(model, PROMPTS, ANSWERS, BETWEEN, cuts)
    assert found.shape == (4, 3)
    for row, (prompt, answer, between) in enumerate(zip(PROMPTS, ANSWERS, BETWEEN, strict=True)):
        filled = (cuts[row] * 3)[:3] if len(cuts[row]) == 1 else [*cuts[row], cuts[row][-1]][:3]
        for column, cut in enumerate(filled):
            expected = sum(plain_logprobs(model, prompt[:cut] + between, answer))
            torch.testing.assert_close(found[row, column].item(), expected, rtol=1e-4, atol=0)


def test_a_row_does_not_depend_on_its_neighbours(model):
    cuts = [[1, 3, 5], [9, 2, 4], [1, 1, 1], [4, 4, 7]]
    together = answer_loglikelihoods(model, PROMPTS, ANSWERS, BETWEEN, cuts)
    for row in range(4):
        one = slice(row, row + 1)
        alone = answer_loglikelihoods(model, PROMPTS[one], ANSWERS[one], BETWEEN[one], cuts[one])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=0)


def test_a_found_beam_scores_as_the_answer_it_is(model):
    # The same number from two sides: the search's score of an item, and the likelihood of its codes behind the prompt.
    prompts = [[*p, 93] for p in PROMPTS]
    trie = build_trie(make_items(3, 20))
    result = beam_search(model, trie, torch.zeros(4, dtype=torch.long), *left_pad(prompts), 3)
    for beam in range(3):
        answers = result.sequences[:, beam].tolist()
        found = answer_loglikelihoods(model, PROMPTS, answers, [[93]] * 4)
        torch.testing.assert_close(found[:, 0], result.scores[:, beam], rtol=1e-4, atol=0)


def test_the_model_runs_in_eval_mode():
    model = make_model(attention_dropout=0.9)
    plain = answer_loglikelihoods(model, PROMPTS, ANSWERS, BETWEEN)
    stems, tokens = prefill(model, *left_pad(PROMPTS)), torch.full((4, 1, 3), 9)
    scored = compute_logprobs(model, stems, tokens)
    model.train()
    assert torch.equal(compute_logprobs(model, stems, tokens), scored)
    assert torch.equal(answer_loglikelihoods(model, PROMPTS, ANSWERS, BETWEEN), plain)
    assert model.training and model.model.layers[1].self_attn.training


def test_what_cannot_be_scored_is_refused_before_work(model):
    calls: list[int] = []
    handle = model.model.register_forward_hook(lambda *_: calls.append(1))
    try:
        long = make_prompts([60, 5])
        with pytest.raises(ConfigError, match=r"has 60 tokens; with 5 .* behind it.*max_position_embeddings \(64\)"):
            answer_loglikelihoods(model, long, [[40, 41, 42, 43], [40]], [[90], [90]])
        with pytest.raises(AssertionError, match="at least one token"):
            answer_loglikelihoods(model, PROMPTS, ANSWERS, [[90], [], [90], [90]])
        for cut in (0, 6):
            with pytest.raises(AssertionError, match="from 1 to its prompt's length"):
                answer_loglikelihoods(model, PROMPTS, ANSWERS, BETWEEN, [[1, cut], [2], [1], [3]])
        assert not calls
    finally:
        handle.remove()
    # A long answer behind a short prompt, a short one behind a long prompt: each fits.
    both = answer_loglikelihoods(model, long, [[40, 41], [40, 41, 42, 43, 44, 45]], [[90], [90]])
    for row, answer in enumerate([[40, 41], [40, 41, 42, 43, 44, 45]]):
        expected = sum(plain_logprobs(model, [*long[row], 90], answer))
        torch.testing.assert_close(both[row, 0].item(), expected, rtol=1e-4, atol=0)


def test_scores_that_are_no_numbers_are_named():
    broken = make_model(tie_word_embeddings=False)
    with torch.no_grad():
        broken.lm_head.weight[50].fill_(torch.nan)
    with pytest.raises(ModelError, match="the model's scores are NaN"):
        answer_loglikelihoods(broken, PROMPTS, ANSWERS, BETWEEN)
