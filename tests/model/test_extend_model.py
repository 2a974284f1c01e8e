"""Vocabulary extension: ids, rows, and everything that must stay as it was."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import AddedToken

from onereason.errors import ConfigError, FormatError, ModelError
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format
from onereason.model.extend import extend_model, find_vocabulary, is_tied
from onereason.model.folder import unused_row_ids
from onereason.model.initialise import MEAN_NOISE_SCALE


def test_tokens_are_contiguous_and_split_exactly(tokenizer, build, small_format):
    before = tokenizer("a red apple x_a_1")["input_ids"]
    _, tokenizer, vocabulary = extend_model(build(), tokenizer, small_format)
    tokens = small_format.tokens()
    assert tokenizer.convert_tokens_to_ids(tokens) == list(range(280, 291))
    assert (vocabulary.first_token_id, vocabulary.end_token_id) == (280, 291)
    assert tokenizer("a red apple x_a_1")["input_ids"] == before
    text = "a <|prod_begin|><s_a_2><s_b_0>red<|im_end|><s_a_22>"
    ids = tokenizer(text)["input_ids"]
    # codes a0..a2 280..282, b0..b3 283..286, video 287 288, prod 289 290; <s_a_22> is not a token
    assert [i for i in ids if i >= 280] == [289, 282, 283]
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == text.replace("<|im_end|>", "")


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("init", ["mean_noise", "description", "copy_default"])
def test_old_rows_and_layers_stay_bitwise(tokenizer, build, small_format, tie, init):
    model = build(tie)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    catalog = Catalog(small_format, ["i", "j"], [[0, 1], [2, 3]], ["video", "prod"], ["red apple", "green tea"])
    extend_model(model, tokenizer, small_format, catalog=catalog, init=init)
    after = model.state_dict()
    assert list(after) == list(before) and is_tied(model) == tie
    for name, value in before.items():
        if "embed_tokens" in name or "lm_head" in name:
            assert len(after[name]) == 320  # 291 tokens fit into the free rows
            assert torch.equal(after[name][:280], value[:280]) and torch.equal(after[name][291:], value[291:])
            assert (after[name][280:291] != value[280:291]).any(dim=1).all()
        else:
            assert torch.equal(after[name], value)


def test_each_matrix_starts_from_its_own_rows(tokenizer, build, small_format):
    model = build(tie=False)
    with torch.no_grad():
        model.lm_head.weight += 5.0
    old = [w.detach().clone()[:280] for w in (model.model.embed_tokens.weight, model.lm_head.weight)]
    extend_model(model, tokenizer, small_format, seed=3)
    generator = torch.Generator().manual_seed(3)
    for weight, rows in zip((model.model.embed_tokens.weight, model.lm_head.weight), old, strict=True):
        expected = rows.mean(0) + MEAN_NOISE_SCALE * rows.std(0, correction=0) * torch.randn(
            11, 16, generator=generator
        )
        torch.testing.assert_close(weight[280:291], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize(("multiple", "rows"), [(1, 328), (64, 384), (100, 400)])
def test_rows_grow_only_when_needed_and_to_the_multiple(tokenizer, build, tie, multiple, rows):
    format = load_format("minionerec", 3, 16)  # 48 tokens: ids 280 to 327, the model has 320 rows
    model, tokenizer, vocabulary = extend_model(build(tie), tokenizer, format, pad_to_multiple=multiple)
    assert model.get_input_embeddings().weight.shape == model.get_output_embeddings().weight.shape == (rows, 16)
    assert model.config.vocab_size == model.get_output_embeddings().out_features == rows
    assert is_tied(model) == tie and vocabulary.end_token_id == 328
    unused = list(range(328, rows))
    assert unused_row_ids(rows, tokenizer) == unused
    assert model.generation_config.suppress_tokens == (unused or None)
    mean = model.get_input_embeddings().weight[:280].mean(0)
    for row in unused:
        torch.testing.assert_close(model.get_input_embeddings().weight[row], mean)


def test_seed_decides_and_the_callers_random_state_stays(tokenizer, build):
    format = load_format("minionerec", 3, 16)
    state = torch.get_rng_state()
    weights = [
        extend_model(build(), copy.deepcopy(tokenizer), format, seed=seed).model.lm_head.weight for seed in (0, 0, 1)
    ]
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0][280:328], weights[2][280:328])


def test_bfloat16_stays_bfloat16(tokenizer, build, small_format):
    model, *_ = extend_model(build(tie=False).to(torch.bfloat16), tokenizer, small_format)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.lm_head.weight[280:291].isfinite().all()


def test_again_with_the_same_format_changes_nothing(tokenizer, build, small_format):
    model, tokenizer, vocabulary = extend_model(build(), tokenizer, small_format)
    before = [p.clone() for p in model.parameters()]
    again = extend_model(model, tokenizer, small_format, seed=9, init="copy_default")
    assert again.vocabulary == vocabulary and len(tokenizer) == 291
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_tokenizer_that_has_the_tokens_is_adopted(tokenizer, build, small_format):
    tokenizer.add_tokens(["<other>", *[AddedToken(t, normalized=False) for t in small_format.tokens()], "<more>"])
    model = build()
    before = model.lm_head.weight.clone()
    _, _, vocabulary = extend_model(model, tokenizer, small_format)
    assert vocabulary.first_token_id == 281 and torch.equal(model.lm_head.weight, before)
    assert model.generation_config.suppress_tokens == list(range(293, 320))


def test_a_tokenizer_with_the_tokens_in_another_order_is_refused(tokenizer, small_format):
    tokens = small_format.tokens()
    tokenizer.add_tokens([tokens[1], tokens[0], *tokens[2:]])
    with pytest.raises(ModelError, match=r"'small' in another order: <s_a_1> is id 280, expected 282;"):
        find_vocabulary(tokenizer, small_format)


def test_a_format_that_shares_tokens_is_refused(tokenizer, build, small_format):
    model, tokenizer, _ = extend_model(build(), tokenizer, small_format)
    # 18 codes + 4 markers, of which 3 + 4 codes and 4 markers are known
    message = r"already has 11 of the 22 tokens of format 'small' \(it has <s_a_0>, it lacks <s_a_3>\)"
    with pytest.raises(ModelError, match=message):
        extend_model(model, tokenizer, small_format.with_shape(2, 9))
    assert len(tokenizer) == 291 and model.config.vocab_size == 320


def test_bad_requests(tokenizer, build, small_format):
    with pytest.raises(ConfigError, match="pad_to_multiple must be at least 1, got 0"):
        extend_model(build(), tokenizer, small_format, pad_to_multiple=0)
    with pytest.raises(ConfigError, match="needs --catalog"):
        extend_model(build(), tokenizer, small_format, init="description")
    catalog = Catalog(load_format("minionerec", 2, 4), ["i"], np.zeros((1, 2), int))
    with pytest.raises(FormatError, match="the catalog uses format 'minionerec'"):
        extend_model(build(), tokenizer, small_format, catalog=catalog)
    model = build()
    tokenizer.add_tokens([f"<extra_{n}>" for n in range(41)])  # ids 280 to 320, rows end at 319
    with pytest.raises(ModelError, match="ids up to 320, the model only 320 embedding rows"):
        extend_model(model, tokenizer, small_format)
