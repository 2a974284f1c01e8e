"""Dropout by hooks: where it acts, when it acts, and that it leaves no trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from onereason.errors import ConfigError
from onereason.model.dropout import add_dropout

IDS = torch.arange(40).reshape(2, 20)


def test_evaluation_is_untouched_and_handles_take_it_away(build):
    model = build()
    expected, keys = model(IDS).logits, list(model.state_dict())
    handles = add_dropout(model, embedding=0.5, hidden=0.5)
    assert len(handles) == 1 + 2 * 2  # embedding; attention and MLP of two layers
    assert torch.equal(model(IDS).logits, expected)
    model.train()
    assert not torch.allclose(model(IDS).logits, expected)
    for handle in handles:
        handle.remove()
    assert torch.equal(model(IDS).logits, expected)
    assert list(model.state_dict()) == keys


def test_the_embedding_output_is_dropped_and_rescaled(build):
    model = build()
    add_dropout(model, embedding=0.25)
    whole = model.get_input_embeddings()(IDS)
    model.train()
    torch.manual_seed(0)
    found = model.get_input_embeddings()(IDS)
    kept = found != 0
    torch.testing.assert_close(found[kept], whole[kept] / 0.75)
    assert 0.70 < kept.float().mean() < 0.80  # 640 numbers: standard error 0.017


def test_attention_and_mlp_outputs_are_dropped_before_the_residual_sum(build):
    """With p close to 1 nothing of a layer survives: hidden states stay the embeddings."""
    model = build()
    add_dropout(model, hidden=1 - 1e-9)
    model.train()
    states = model(IDS, output_hidden_states=True).hidden_states
    assert torch.equal(states[1], states[0])
    model.eval()
    states = model(IDS, output_hidden_states=True).hidden_states
    assert not torch.allclose(states[1], states[0])


def test_it_equals_dropout_written_into_the_layers(build):
    """The independent way: the same random numbers drawn by modules put around attention and MLP."""

    class Dropped(nn.Module):
        def __init__(self, inner: nn.Module):
            super().__init__()
            self.inner = inner

        def forward(self, *args, **kwargs):
            out = self.inner(*args, **kwargs)
            if isinstance(out, tuple):
                return nn.functional.dropout(out[0], 0.3), *out[1:]
            return nn.functional.dropout(out, 0.3)

    model, reference = build(), build()
    add_dropout(model, hidden=0.3)
    for layer in reference.model.layers:
        layer.self_attn, layer.mlp = Dropped(layer.self_attn), Dropped(layer.mlp)
    model.train()
    reference.train()
    torch.manual_seed(1)
    found = model(IDS).logits
    torch.manual_seed(1)
    assert torch.equal(found, reference(IDS).logits)


def test_gradient_checkpointing_draws_the_same_dropout(build):
    model = build()
    add_dropout(model, embedding=0.2, hidden=0.2)
    model.train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(2)
        model(IDS, labels=IDS, use_cache=False).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
        model.zero_grad()
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("options", "name"), [({"embedding": 1.0}, "embedding"), ({"hidden": -0.1}, "hidden")])
def test_impossible_probabilities_are_refused(build, options, name):
    with pytest.raises(ConfigError, match=f"dropout {name} must lie in 0 <= p < 1"):
        add_dropout(build(), **options)
