"""Training the rows of the itemic tokens and nothing else, with or without low-rank adapters.

`split_new_rows` puts the new rows into modules of their own beside the frozen full matrices. Every other parameter is
bit-identical after training because it never has a gradient, and an optimizer holds state for the new rows alone. Each
module owns the weights it uses, so DDP, FSDP and DeepSpeed ZeRO handle them as any others; the only shared parameters
are those of tied embeddings. `merge_new_rows` writes the rows back and restores the plain model.

`add_lora` adds PEFT's low-rank adapters beside split rows. PEFT's own `trainable_token_indices` would copy the whole
embedding matrix in each step and fails with tied embeddings under TRL; split rows do neither. The model stays a plain
transformers model (no `PeftModel` around it), so checkpoints hold adapters and rows alike and resume.

Notation: `V` rows, `D` hidden, `N` new rows, `B` batch, `T` tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from onereason.errors import ConfigError, ModelError
from onereason.itemic.vocabulary import ItemicVocabulary

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def _merged_weight(base: Tensor, new: Tensor, first: int) -> Tensor:
    """The full matrix [V, D] as a copy in which the new rows stand at their place; differentiable."""
    return torch.cat([base[:first], new, base[first + len(new) :]])


class SplitEmbedding(nn.Module):
    """An embedding whose rows `first_row .. first_row + N - 1` are looked up in `new`, all others in `base`.

    `base` keeps (stale) rows at the new tokens' place, so that it is the original module, unchanged.
    """

    def __init__(self, base: nn.Embedding, new: nn.Embedding, first_row: int):
        super().__init__()
        self.base, self.new, self.first_row = base, new, first_row

    def forward(self, input_ids: Tensor) -> Tensor:
        """Token ids [B, T] -> vectors [B, T, D]."""
        place = input_ids - self.first_row
        is_new = (place >= 0) & (place < self.new.num_embeddings)
        new = self.new(place.clamp(0, self.new.num_embeddings - 1))
        return torch.where(is_new.unsqueeze(-1), new, self.base(input_ids))

    @property
    def weight(self) -> Tensor:
        """The full matrix [V, D], a copy: for code that reads `get_input_embeddings().weight`."""
        return _merged_weight(self.base.weight, self.new.weight, self.first_row)


class SplitHead(nn.Module):
    """The output layer whose logits `first_row .. first_row + N - 1` come from `new`, all others from `base`."""

    bias = None
    """For losses that read weight and bias of the head instead of calling it."""

    def __init__(self, base: nn.Linear, new: nn.Linear, first_row: int):
        super().__init__()
        self.base, self.new, self.first_row = base, new, first_row

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states [B, T, D] -> logits [B, T, V]."""
        full, new = self.base(hidden), self.new(hidden)
        return torch.cat([full[..., : self.first_row], new, full[..., self.first_row + self.new.out_features :]], -1)

    @property
    def weight(self) -> Tensor:
        """The full matrix [V, D], a copy through which gradients flow: for fused losses that take hidden states."""
        return _merged_weight(self.base.weight, self.new.weight, self.first_row)


def split_new_rows(model: Any, vocabulary: ItemicVocabulary) -> list[nn.Parameter]:
    """Splits the itemic tokens' rows off, in place; they alone require gradients afterwards.

    Returns the trainable parameters: the new rows [N, D], which are input and output rows at once when the embeddings
    are tied, else the input rows and the output rows. Add dropout (`onereason.model.dropout`) after this, not before.

    Raises:
        ModelError: the model is split already, its rows do not cover the vocabulary, its weights are sharded, or its
            output layer has a bias.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if isinstance(embedding, SplitEmbedding):
        raise ModelError("the model's new rows are split off already; call merge_new_rows first.")
    first, end = vocabulary.first_token_id, vocabulary.end_token_id
    for matrix in (embedding.weight, head.weight):
        if hasattr(matrix, "ds_id"):
            raise ModelError(
                "the model's weights are sharded (DeepSpeed ZeRO-3) before its rows are split; "
                "load it with load_model_folder, which keeps them whole until the trainer shards them."
            )
        if len(matrix) < end:
            raise ModelError(
                f"the model has {len(matrix)} rows, format {vocabulary.format.name!r} needs ids up to {end - 1}; "
                "run `onereason extend` on it first."
            )
    if head.bias is not None:
        raise ModelError("the model's output layer has a bias; only output layers without one (Qwen3's) can be split.")
    tied = head.weight is embedding.weight
    model.requires_grad_(False)

    new_embedding = nn.Embedding.from_pretrained(embedding.weight.detach()[first:end].clone(), freeze=False)
    new_head = nn.Linear(embedding.embedding_dim, end - first, bias=False, device="meta")
    new_head.weight = new_embedding.weight if tied else nn.Parameter(head.weight.detach()[first:end].clone())
    names = {id(module): name for name, module in model.named_modules()}
    embedding_name, head_name = names[id(embedding)], names[id(head)]
    model.set_input_embeddings(SplitEmbedding(embedding, new_embedding, first).train(model.training))
    model.set_output_embeddings(SplitHead(head, new_head, first).train(model.training))
    if tied:  # what transformers ties and saves once goes by name
        model._tied_weights_keys = {
            f"{head_name}.{part}.weight": f"{embedding_name}.{part}.weight" for part in ("base", "new")
        }
        model.all_tied_weights_keys = dict(model._tied_weights_keys)
    return _new_rows(model)


def merge_new_rows(model: Any) -> Any:
    """Writes the new rows back into the full matrices and restores the plain modules, in place; returns the model.

    Every parameter requires gradients again, as in a freshly loaded model.

    Raises:
        ModelError: the model is not split.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(embedding, SplitEmbedding) or not isinstance(head, SplitHead):
        raise ModelError("the model's new rows are not split off; call split_new_rows before merge_new_rows.")
    with torch.no_grad():
        for split in (embedding, head):  # tied: the same values are written twice
            split.base.weight[split.first_row : split.first_row + len(split.new.weight)] = split.new.weight
    model.set_input_embeddings(embedding.base)
    model.set_output_embeddings(head.base)
    if "_tied_weights_keys" in vars(model):
        del model._tied_weights_keys
        model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
    model.requires_grad_(True)
    return model


def add_lora(
    model: Any,
    vocabulary: ItemicVocabulary,
    rank: int = 32,
    alpha: float = 64.0,
    dropout: float = 0.0,
    target_modules: Sequence[str] = LORA_TARGETS,
    seed: int = 0,
) -> Any:
    """Splits the new rows off and adds low-rank adapters, in place; only these two require gradients.

    Returns the model. The adapters start as the identity: logits do not change.

    Args:
        rank: of the update; it is multiplied by `alpha / rank`.
        dropout: before the adapters, in training mode.
        target_modules: names of the linear layers that get an adapter.
        seed: of the adapters' first values; the caller's random state is left as it was.

    Raises:
        ConfigError: peft is not installed, or rank, dropout or target modules are not possible.
        ModelError: as `split_new_rows`.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("low-rank adapters need peft; install onereason with its extra `train`.") from error
    if rank < 1:
        raise ConfigError(f"lora rank must be at least 1, got {rank}.")
    if not 0.0 <= dropout < 1.0:
        raise ConfigError(f"lora dropout must lie in 0 <= p < 1, got {dropout}.")
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    unknown = sorted(set(target_modules) - (linear - {"lm_head"}))
    if unknown or not target_modules:
        raise ConfigError(
            f"lora target_modules {unknown or list(target_modules)} are no linear layers of the model; "
            f"it has {', '.join(sorted(linear - {'lm_head'}))}."
        )
    split_new_rows(model, vocabulary)
    scale: Any = alpha  # annotated as a whole number, used as any
    config = LoraConfig(r=rank, lora_alpha=scale, lora_dropout=dropout, target_modules=list(target_modules))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    for rows in _new_rows(model):
        rows.requires_grad_(True)
    return model


def merge_lora(model: Any) -> Any:
    """Adds the adapters to their layers' weights, merges the new rows, restores the plain model; returns it.

    Raises:
        ModelError: the model's rows are not split off (`add_lora` does that).
    """
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            model.set_submodule(name, module.get_base_layer())
    vars(model).pop("peft_config", None)
    return merge_new_rows(model)


def _new_rows(model: Any) -> list[nn.Parameter]:
    """The new rows' parameters, each once."""
    embedding, head = model.get_input_embeddings().new.weight, model.get_output_embeddings().new.weight
    return [embedding] if head is embedding else [embedding, head]
