"""Beam search against teacher forcing of every item, a plain reference search, and transformers' `generate`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen3ForCausalLM

from onereason.decoding import beam
from onereason.decoding.beam import beam_search, stable_topk
from onereason.decoding.stems import left_pad
from onereason.errors import ConfigError, ModelError
from onereason.itemic.filters import build_filter
from onereason.itemic.trie import build_trie
from tests.decoding.reference import (
    VOCAB,
    check_row,
    make_items,
    make_model,
    make_prompts,
    reference_search,
    teacher_forced,
    unique_paths,
)


@pytest.fixture(scope="module")
def model() -> Qwen3ForCausalLM:
    return make_model()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("levels", [1, 3, 4])
def test_enough_beams_rank_every_item_as_teacher_forcing_does(levels, tied):
    model = make_model(levels, tie_word_embeddings=tied)
    tokens = make_items(levels, 25)
    trie = build_trie(tokens)
    prompts = make_prompts([5, 9, 1])
    paths = unique_paths(tokens)
    num_beams = len(paths) + 4  # more beams than sids
    result = beam_search(model, trie, torch.zeros(3, dtype=torch.long), *left_pad(prompts), num_beams)
    assert result.sequences.shape == (3, num_beams, levels)
    for row, prompt in enumerate(prompts):
        scores = teacher_forced(model, prompt, paths)
        ranking = sorted(paths, key=lambda p: -scores[p])
        check_row(result, row, ranking, [scores[p] for p in ranking])
        assert result.leaves[row, : len(paths)].tolist() == [trie.find(0, p) for p in ranking]


@pytest.mark.parametrize(("levels", "num_beams"), [(1, 3), (2, 1), (3, 4), (4, 7), (8, 5)])
def test_narrow_search_equals_the_reference(model, levels, num_beams):
    tokens = make_items(levels, 40, seed=levels)
    prompts = make_prompts([3, 12, 7, 7], seed=levels)
    result = beam_search(model, build_trie(tokens), torch.zeros(4, dtype=torch.long), *left_pad(prompts), num_beams)
    for row, prompt in enumerate(prompts):
        check_row(result, row, *reference_search(model, prompt, unique_paths(tokens), num_beams))


def test_each_prompt_searches_under_its_own_root(model):
    tokens = make_items(3, 30)
    roots = np.arange(30) % 3  # domain 3 owns no item
    trie = build_trie(tokens, roots, ("a", "b", "c", "d"))
    prompts = make_prompts([4, 6, 8, 5])
    asked = torch.tensor([2, 0, 3, 1])
    result = beam_search(model, trie, asked, *left_pad(prompts), 12)
    for row, (prompt, root) in enumerate(zip(prompts, asked.tolist(), strict=True)):
        paths = unique_paths(tokens[roots == root])
        if paths:
            check_row(result, row, *reference_search(model, prompt, paths, 12))
        else:
            check_row(result, row, [], [])


def test_equals_generate_with_a_prefix_function(model):
    tokens = make_items(3, 40, seed=5)
    paths = unique_paths(tokens)
    prompts = make_prompts([6, 6], seed=5)
    input_ids, mask = left_pad(prompts)
    following = {p[:d]: sorted({q[d] for q in paths if q[:d] == p[:d]}) for p in paths for d in range(3)}
    # `generate` keeps 2K candidates a step and stops at an end token, so none is set.
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, None
    out = model.generate(
        input_ids,
        attention_mask=mask,
        max_new_tokens=3,
        num_beams=5,
        num_return_sequences=5,
        do_sample=False,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
        prefix_allowed_tokens_fn=lambda _, ids: following.get(tuple(ids[6:].tolist()), [0]),
    )
    result = beam_search(model, build_trie(tokens), torch.zeros(2, dtype=torch.long), input_ids, mask, 5)
    assert out.sequences[:, 6:].view(2, 5, 3).tolist() == result.sequences.tolist()
    np.testing.assert_allclose(result.scores, out.sequences_scores.view(2, 5), rtol=1e-4)


def test_generation_config_does_not_leak_in(model):
    tokens = make_items(3, 20)
    request = (build_trie(tokens), torch.zeros(1, dtype=torch.long), *left_pad(make_prompts([5])), 6)
    plain = beam_search(model, *request)
    other = make_model()
    other.generation_config.update(do_sample=True, top_k=1, top_p=0.1, temperature=9.0, num_beams=2)
    changed = beam_search(other, *request)
    assert torch.equal(plain.scores, changed.scores) and torch.equal(plain.sequences, changed.sequences)


def test_groups_of_logits_do_not_change_the_result(model, monkeypatch):
    tokens = make_items(3, 30)
    request = (build_trie(tokens), torch.zeros(5, dtype=torch.long), *left_pad(make_prompts([5, 3, 8, 2, 6])), 6)
    whole = beam_search(model, *request)
    monkeypatch.setattr(beam, "LOGITS_BUDGET", 1)  # one prompt at a time
    single = beam_search(model, *request)
    assert torch.equal(whole.sequences, single.sequences)
    torch.testing.assert_close(whole.scores, single.scores, rtol=1e-5, atol=0)


def test_ties_go_to_the_earlier_beam_then_the_lower_token():
    flat = make_model()
    with torch.no_grad():
        flat.model.embed_tokens.weight.zero_()  # every token has the same logit, at every step
    tokens = make_items(2, 30, seed=3)
    result = beam_search(flat, build_trie(tokens), torch.zeros(2, dtype=torch.long), *left_pad([[1], [2, 3]]), 7)
    expected = unique_paths(tokens)[:7]  # sorted by token, level after level
    for row in range(2):
        check_row(result, row, expected, [-2 * np.log(VOCAB)] * 7)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3), st.integers(1, 12), st.data())
def test_stable_topk_equals_a_stable_sort(rows, width, data):
    value = st.sampled_from([-np.inf, -2.0, -1.0, 0.0, 1.0])
    values = np.array(
        data.draw(st.lists(st.lists(value, min_size=width, max_size=width), min_size=rows, max_size=rows))
    )
    k = data.draw(st.integers(1, width))
    expected = np.argsort(-values, axis=1, kind="stable")[:, :k]
    assert stable_topk(torch.tensor(values), k).tolist() == expected.tolist()


def test_modes_of_modules_are_restored():
    model = make_model(attention_dropout=0.5)
    model.train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    request = (build_trie(make_items(2, 9)), torch.zeros(1, dtype=torch.long), *left_pad(make_prompts([5])), 3)
    first = beam_search(model, *request)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(first.scores, beam_search(model, *request).scores)  # no dropout inside
    assert torch.equal(first.scores, beam_search(model.eval(), *request).scores)


def test_bfloat16_scores_are_float32_and_close():
    model = make_model()
    request = (build_trie(make_items(3, 20)), torch.zeros(2, dtype=torch.long), *left_pad(make_prompts([5, 3])), 40)
    exact = beam_search(model, *request)
    rough = beam_search(make_model().to(torch.bfloat16), *request)
    assert rough.scores.dtype == torch.float32
    for row in range(2):
        expected = {tuple(p): s for p, s in zip(exact.sequences[row].tolist(), exact.scores[row].tolist(), strict=True)}
        found = {tuple(p): s for p, s in zip(rough.sequences[row].tolist(), rough.scores[row].tolist(), strict=True)}
        assert set(found) == set(expected)
        # bfloat16 keeps 8 bits: logits of about 10 are off by up to 0.04 each, three levels deep.
        assert all(abs(found[p] - s) < 0.5 for p, s in expected.items() if np.isfinite(s))


def test_eager_attention_gives_the_same(model):
    request = (build_trie(make_items(3, 20)), torch.zeros(2, dtype=torch.long), *left_pad(make_prompts([5, 9])), 8)
    eager = make_model(attn_implementation="eager")
    torch.testing.assert_close(
        beam_search(model, *request).scores, beam_search(eager, *request).scores, rtol=1e-4, atol=0
    )


def test_prompt_at_the_limit_fits_and_one_more_is_refused(model):
    trie, root = build_trie(make_items(3, 5)), torch.zeros(1, dtype=torch.long)
    assert beam_search(model, trie, root, *left_pad(make_prompts([61])), 2).valid.all()
    with pytest.raises(ConfigError, match=r"has 62 tokens; with 3 codes behind it.*max_position_embeddings \(64\)"):
        beam_search(model, trie, root, *left_pad(make_prompts([62])), 2)


def test_bad_requests_are_named(model):
    trie, root = build_trie(make_items(3, 5)), torch.zeros(1, dtype=torch.long)
    with pytest.raises(ConfigError, match="num_beams must be at least 1, got 0"):
        beam_search(model, trie, root, *left_pad([[1]]), 0)
    with pytest.raises(ConfigError, match="every prompt needs at least one token"):
        beam_search(model, trie, root.repeat(2), *left_pad([[1], []]), 2)
    with pytest.raises(ConfigError, match="prompts must be padded on the left"):
        beam_search(model, trie, root, torch.tensor([[1, 0]]), torch.tensor([[1, 0]]), 2)
    with pytest.raises(ModelError, match=r"tokens go up to id 200, the model has 96 rows"):
        beam_search(model, build_trie(np.array([[200]])), root, *left_pad([[1]]), 2)
    broken = make_model()
    with torch.no_grad():
        broken.model.norm.weight.fill_(torch.nan)
    with pytest.raises(ModelError, match="the model's scores are NaN"):
        beam_search(broken, trie, root, *left_pad([[1]]), 2)
    sliding = make_model(use_sliding_window=True, sliding_window=4, max_window_layers=0)
    with pytest.raises(ModelError, match="needs full attention in every layer"):
        beam_search(sliding, trie, root, *left_pad([[1]]), 2)


def test_left_pad():
    input_ids, mask = left_pad([[1, 2], np.array([3]), []], pad_id=9)
    assert input_ids.tolist() == [[1, 2], [9, 3], [9, 9]]
    assert mask.tolist() == [[1, 1], [0, 1], [0, 0]]


def test_runs_under_bfloat16_autocast(model):
    request = (build_trie(make_items(3, 20)), torch.zeros(2, dtype=torch.long), *left_pad(make_prompts([5, 3])), 40)
    exact = beam_search(model, *request)
    with torch.autocast("cpu", torch.bfloat16):
        rough = beam_search(model, *request)
    valid = exact.valid
    assert torch.equal(valid, rough.valid) and rough.scores.dtype == torch.float32
    assert (exact.scores[valid] - rough.scores[valid]).abs().max() < 0.5  # ranks may differ, sorted scores hardly


def test_peft_model_searches_with_its_adapter():
    peft = pytest.importorskip("peft")
    model = make_model()
    tokens = make_items(3, 20)
    request = (build_trie(tokens), torch.zeros(1, dtype=torch.long), *left_pad(make_prompts([5])), 30)
    plain = beam_search(model, *request)
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    found = beam_search(adapted, *request)
    assert not torch.allclose(found.scores[found.valid], plain.scores[plain.valid])
    check_row(found, 0, *reference_search(adapted.eval(), make_prompts([5])[0], unique_paths(tokens), 30))


def test_roots_given_twice_and_filters_of_another_trie_are_refused(model):
    tokens = make_items(3, 12)
    trie = build_trie(tokens, np.arange(12) % 2, ("a", "b"), begin_ids=[1, 2])
    prompt = left_pad([[5, 6]])
    with pytest.raises(ConfigError, match="names a root twice"):
        beam_search(model, trie, torch.tensor([[1, 1]]), *prompt, 2)
    other = build_filter(build_trie(tokens), deny=[[0]])
    with pytest.raises(ConfigError, match="was built for another trie"):
        beam_search(model, trie, torch.tensor([0]), *prompt, 2, node_filter=other)


def test_roots_that_are_none_are_refused(model):
    trie = build_trie(make_items(3, 12), np.arange(12) % 2, ("a", "b"), begin_ids=[1, 2])
    prompt = left_pad([[5, 6]])
    for roots, message in (
        (torch.tensor([0, 1]), "1 prompts need as many roots"),
        (torch.tensor([2]), r"positions of the trie's 2 domains \(a, b\), got \[2\]"),
        (torch.tensor([-1]), "positions of the trie's 2 domains"),
        (torch.tensor([[-1, -1]]), "is all -1"),
    ):
        with pytest.raises(ConfigError, match=message):
            beam_search(model, trie, roots, *prompt, 2)
