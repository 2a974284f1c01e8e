"""Adapters beside split rows."""

from __future__ import annotations

import pytest
import torch

from onereason.errors import ConfigError
from onereason.model.extend import extend_model, is_tied
from onereason.model.warmup import LORA_TARGETS, add_lora, merge_lora

IDS = torch.randint(0, 291, (2, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def extended(request, tokenizer, build, small_format):
    return extend_model(build(request.param), tokenizer, small_format)


def test_adapters_start_as_the_identity_and_only_they_and_the_rows_learn(extended):
    model, _, vocabulary = extended
    tied, logits = is_tied(model), model(IDS).logits
    state = torch.get_rng_state()
    assert add_lora(model, vocabulary, rank=3, alpha=6.0) is model
    assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(model(IDS).logits, logits, rtol=0, atol=1e-6)
    model(IDS, labels=IDS).loss.backward()
    names = {n for n, p in model.named_parameters() if p.grad is not None}
    assert names == {n for n, p in model.named_parameters() if p.requires_grad}
    rows = {"model.embed_tokens.new.weight"} | (set() if tied else {"lm_head.new.weight"})
    adapters = {
        f"model.layers.{n}.{part}.{target}.lora_{side}.default.weight"
        for n in range(2)
        for side in "AB"
        for target in LORA_TARGETS
        for part in ["mlp" if target.startswith(("gate", "up", "down")) else "self_attn"]
    }
    assert names == rows | adapters


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_merging_reproduces_the_adapted_logits(extended, dropout):
    model, _, vocabulary = extended
    before, start = {k: v.clone() for k, v in model.state_dict().items()}, model(IDS).logits
    add_lora(model, vocabulary, rank=3, alpha=6.0, dropout=dropout)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    model.train()
    for _ in range(4):
        model(IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    adapted = model(IDS).logits
    assert (adapted - start).abs().max() > 0.5
    layer = model.model.layers[1].mlp.up_proj
    update = 2.0 * layer.lora_B["default"].weight.detach() @ layer.lora_A["default"].weight.detach()  # alpha / rank = 2
    merge_lora(model)
    torch.testing.assert_close(model(IDS).logits, adapted, rtol=0, atol=1e-5)
    after = model.state_dict()
    assert list(after) == list(before) and not hasattr(model, "peft_config")
    assert all(type(m) is torch.nn.Linear for m in (model.lm_head, model.model.layers[0].self_attn.q_proj))
    assert all(p.requires_grad for p in model.parameters())
    name = "model.layers.1.mlp.up_proj.weight"
    torch.testing.assert_close(after[name], before[name] + update, rtol=0, atol=1e-6)
    assert torch.equal(after["model.embed_tokens.weight"][:280], before["model.embed_tokens.weight"][:280])
    assert torch.equal(after["model.layers.0.input_layernorm.weight"], before["model.layers.0.input_layernorm.weight"])


def test_seed_decides_the_adapters(extended, build):
    model, _, vocabulary = extended
    other = build(is_tied(model))
    add_lora(model, vocabulary, rank=2, seed=4)
    add_lora(other, vocabulary, rank=2, seed=4)
    pairs = [(p, q) for (n, p), q in zip(model.named_parameters(), other.parameters(), strict=True) if "lora_A" in n]
    assert len(pairs) == 14 and all(torch.equal(p, q) for p, q in pairs)


def test_a_chosen_layer_alone(extended):
    model, _, vocabulary = extended
    add_lora(model, vocabulary, rank=2, target_modules=["q_proj"])
    assert {n.split(".")[4] for n, p in model.named_parameters() if "lora_" in n} == {"q_proj"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "lora rank must be at least 1, got 0"),
        ({"dropout": 1.0}, r"lora dropout must lie in 0 <= p < 1, got 1\.0"),
        ({"target_modules": ["qkv"]}, r"target_modules \['qkv'\] are no linear layers of the model; it has down_proj"),
        ({"target_modules": []}, r"target_modules \[\] are no linear layers"),
    ],
)
def test_bad_requests_leave_the_model_plain(extended, options, message):
    model, _, vocabulary = extended
    with pytest.raises(ConfigError, match=message):
        add_lora(model, vocabulary, **options)
    assert type(model.lm_head) is torch.nn.Linear and all(p.requires_grad for p in model.parameters())
