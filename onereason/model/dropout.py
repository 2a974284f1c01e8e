"""Dropout for models trained from scratch. Qwen3 has none of its own (only on attention weights).

Hooks act on outputs, so no parameter, weight file or configuration changes, and they pass through gradient
checkpointing, DDP and DeepSpeed as the modules do.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from onereason.errors import ConfigError


def add_dropout(model: Any, embedding: float = 0.0, hidden: float = 0.0) -> list[RemovableHandle]:
    """Adds dropout, active in training mode only; `handle.remove()` on each handle takes it away again.

    Args:
        embedding: probability on the embedding output.
        hidden: probability on the output of every attention and every MLP, before the residual sum.

    Raises:
        ConfigError: a probability outside 0 <= p < 1.
    """
    for name, p in (("embedding", embedding), ("hidden", hidden)):
        if not 0.0 <= p < 1.0:
            raise ConfigError(f"dropout {name} must lie in 0 <= p < 1, got {p}.")
    handles = []
    if embedding:
        handles.append(model.get_input_embeddings().register_forward_hook(_hook(embedding)))
    if hidden:
        for layer in model.get_decoder().layers:
            handles += [part.register_forward_hook(_hook(hidden)) for part in (layer.self_attn, layer.mlp)]
    return handles


def _hook(p: float) -> Any:
    def drop(module: nn.Module, inputs: Any, output: Any) -> Any:
        if not module.training:
            return output
        if isinstance(output, tuple):  # attention returns (output, weights)
            return (nn.functional.dropout(output[0], p), *output[1:])
        return nn.functional.dropout(output, p)

    return drop
