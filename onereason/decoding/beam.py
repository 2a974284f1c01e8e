"""Exact constrained beam search that prefills each prompt once.

The beams of a prompt are nodes of a tree that grows behind it: at level `l` the live beams are query positions of the
same sequence, each attending to the prompt, to its own ancestors and to itself (a 4D mask). The cache holds a prompt
once; nothing is expanded or reordered. Only children in the item trie are candidates, so every beam is an item.

Notation: `B` prompts, `T` prompt tokens, `K` beams, `L` levels, `V` vocabulary, `D` hidden size, `A` tree nodes so far.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from onereason.errors import ConfigError, ModelError
from onereason.itemic.trie import ItemTrie, TrieTensors

LOGITS_BUDGET = 2**25
"""Float32 numbers held at once (128 MiB); prompts are scored in groups whose logits and candidates stay under it."""
CANDIDATE_COST = 16
"""Float32 numbers that one candidate takes while the best are chosen (indices, nodes, parents, scores)."""


@dataclass(frozen=True)
class BeamResult:
    """What a search found, the best first.

    Attributes:
        sequences: int64 `[B, K, L]`, code token ids; -1 where not valid.
        scores: float32 `[B, K]`, log-probability of the codes given the prompt, summed over levels, normalised over
            the whole vocabulary (every row of the model); -inf where not valid.
        valid: bool `[B, K]`; True selects beams that exist (fewer than `K` where the root has fewer sids).
        leaves: int64 `[B, K]`, the trie's leaf nodes; -1 where not valid.
    """

    sequences: torch.Tensor
    scores: torch.Tensor
    valid: torch.Tensor
    leaves: torch.Tensor


@torch.no_grad()
def beam_search(
    model: Any,
    trie: ItemTrie,
    roots: torch.Tensor,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    num_beams: int,
) -> BeamResult:
    """The `num_beams` best sids of each prompt by beam search over the trie.

    Ties are broken the same way every time: the earlier beam first, then the lower token id. The model runs in eval
    mode (its modules' modes are restored) and its `generation_config` plays no part.

    Args:
        model: a causal language model of transformers (or a PEFT model around one), any float type.
        trie: the items.
        roots: int64 `[B]`, the trie's root of each prompt.
        input_ids: int64 `[B, T]`, left-padded prompts that end where the first code is to come.
        attention_mask: `[B, T]`, 1 selects prompt tokens.
        num_beams: `K`.

    Raises:
        ConfigError: `num_beams` below 1, an empty prompt, or a prompt too long for the model.
        ModelError: an attention implementation without 4D masks, a vocabulary too small, or scores that are NaN.
    """
    _check_request(model, trie, input_ids, attention_mask, num_beams)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder, head = base.get_decoder(), base.get_output_embeddings()
    tables = trie.on(input_ids.device)
    batch, device = len(input_ids), input_ids.device
    lengths = attention_mask.sum(1)
    with _eval_mode(model):
        out = decoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=(attention_mask.cumsum(1) - 1).clamp(min=0),
            use_cache=True,
        )
        hidden, cache = out.last_hidden_state[:, -1:], out.past_key_values  # [B, 1, D]
        nodes = roots.to(device)[:, None]
        scores = torch.zeros(batch, 1, device=device)
        sequences = torch.zeros(batch, 1, 0, dtype=torch.long, device=device)
        ancestors = torch.zeros(batch, 1, 0, dtype=torch.bool, device=device)  # [B, K, A]
        prompt_bias = _additive(attention_mask.bool(), hidden.dtype)[:, None]  # [B, 1, T]
        for level in range(trie.num_levels):
            nodes, scores, parents = _advance(head, base.config.vocab_size, hidden, tables, nodes, scores, num_beams)
            tokens = torch.where(nodes >= 0, tables.token[nodes.clamp(min=0)].long(), nodes)  # [B, K]
            sequences = torch.cat([_take(sequences, parents), tokens[..., None]], -1)
            if level + 1 == trie.num_levels:
                break
            live = tokens.shape[1]
            itself = torch.eye(live, dtype=torch.bool, device=device).expand(batch, live, live)
            ancestors = torch.cat([_take(ancestors, parents), itself], -1)
            tree_bias = _additive(ancestors, hidden.dtype)
            hidden = decoder(
                input_ids=tokens.clamp(min=0),
                attention_mask=torch.cat([prompt_bias.expand(-1, live, -1), tree_bias], -1)[:, None],
                position_ids=(lengths[:, None] + level).expand(-1, live),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state  # [B, K, D]
    missing = num_beams - nodes.shape[1]
    if missing:
        nodes = torch.nn.functional.pad(nodes, (0, missing), value=-1)
        scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
        sequences = torch.nn.functional.pad(sequences, (0, 0, 0, missing), value=-1)
    valid = nodes >= 0
    return BeamResult(sequences.masked_fill(~valid[..., None], -1), scores, valid, nodes)


def _advance(
    head: Any,
    vocab_size: int,
    hidden: torch.Tensor,
    tables: TrieTensors,
    nodes: torch.Tensor,
    scores: torch.Tensor,
    num_beams: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One level: live beams `[B, K]` -> the best children's nodes, scores and parent beams `[B, K']`.

    `K'` is `num_beams`, or the most children any prompt has where that is less; -1 marks beams that do not exist.
    """
    batch, live = nodes.shape
    counts = torch.where(nodes >= 0, tables.num_children(nodes.clamp(min=0)), 0)
    most = int(counts.sum(1).max())
    kept = max(1, min(num_beams, most))
    group = max(1, LOGITS_BUDGET // max(live * vocab_size, CANDIDATE_COST * most))
    parts = []
    for start in range(0, batch, group):
        part = slice(start, start + group)
        logits = head(hidden[part]).float().flatten(0, 1)  # [b * K, V]
        row, child = tables.expand(nodes[part].flatten().clamp(min=0), counts[part].flatten())
        total = scores[part].flatten() - logits.logsumexp(-1)
        candidates = logits[row, tables.token[child].long()] + total[row]
        if candidates.isnan().any():
            raise ModelError("the model's scores are NaN; its weights are broken or its float type overflows.")
        parts.append(_best_children(candidates, child, row, counts[part], kept))
    best_nodes, best_scores, parents = (torch.cat(list(column)) for column in zip(*parts, strict=True))
    return best_nodes, best_scores, parents


def _best_children(
    candidates: torch.Tensor, child: torch.Tensor, row: torch.Tensor, counts: torch.Tensor, kept: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ragged candidates `[C]` of `b` prompts (children of beams `counts [b, K]`) -> the best `kept` of each prompt."""
    batch, live = counts.shape
    per_prompt = counts.sum(1)
    width = max(kept, int(per_prompt.max()))
    prompt = row // live
    position = torch.arange(len(row), device=row.device) - (per_prompt.cumsum(0) - per_prompt)[prompt]
    scores = torch.full((batch, width), -torch.inf, device=row.device)
    scores[prompt, position] = candidates
    nodes = torch.full((batch, width), -1, dtype=torch.long, device=row.device)
    nodes[prompt, position] = child
    parents = torch.zeros((batch, width), dtype=torch.long, device=row.device)
    parents[prompt, position] = row % live
    chosen = stable_topk(scores, kept)
    return nodes.gather(1, chosen), scores.gather(1, chosen), parents.gather(1, chosen)


def stable_topk(values: torch.Tensor, k: int) -> torch.Tensor:
    """Indices `[B, k]` of the largest of `values` `[B, W]`, descending; of equal values the earlier index comes first.

    `torch.topk` picks among equal values at will; it serves here to find the k-th value only.
    """
    least = values.topk(k, dim=1).values[:, -1:]
    above, equal = values > least, values == least
    keep = above | (equal & (equal.cumsum(1) <= k - above.sum(1, keepdim=True)))
    index = keep.nonzero()[:, 1].view(len(values), k)
    return index.gather(1, values.gather(1, index).sort(stable=True, dim=1, descending=True).indices)


def left_pad(prompts: Sequence[Sequence[int] | np.ndarray], pad_id: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Token lists -> `input_ids` and `attention_mask` (int64 `[B, T]`), padded on the left."""
    width = max(map(len, prompts), default=0)
    input_ids = np.full((len(prompts), width), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(prompts), width), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = prompt
        attention_mask[row, width - len(prompt) :] = 1
    return torch.from_numpy(input_ids), torch.from_numpy(attention_mask)


def check_prompt_lengths(model: Any, longest: int, num_levels: int) -> None:
    """`ConfigError` where a prompt and the codes behind it do not fit the model's positions."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and longest + num_levels > limit:
        raise ConfigError(
            f"the longest prompt has {longest} tokens; with {num_levels} codes behind it, it exceeds the model's "
            f"max_position_embeddings ({limit}); shorten the histories (--max-history)."
        )


def _check_request(
    model: Any, trie: ItemTrie, input_ids: torch.Tensor, attention_mask: torch.Tensor, num_beams: int
) -> None:
    if num_beams < 1:
        raise ConfigError(f"num_beams must be at least 1, got {num_beams}.")
    lengths = attention_mask.sum(1)
    if input_ids.shape[0] == 0 or int(lengths.min()) == 0:
        raise ConfigError("every prompt needs at least one token; got an empty batch or an empty prompt.")
    if bool((attention_mask[:, 1:] < attention_mask[:, :-1]).any()):
        raise ConfigError("prompts must be padded on the left: the attention mask falls from 1 to 0 inside a row.")
    check_prompt_lengths(model, int(lengths.max()), trie.num_levels)
    implementation = getattr(model.config, "_attn_implementation", "sdpa")
    if implementation not in ("sdpa", "eager"):
        raise ModelError(
            f"attention implementation {implementation!r} takes no 4D mask; load the model with "
            "attn_implementation='sdpa' or 'eager'."
        )
    layer_types = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if layer_types != {"full_attention"}:
        raise ModelError(f"the search needs full attention in every layer; the model has {sorted(layer_types)}.")
    vocab = model.config.vocab_size
    if int(trie.token.max()) >= vocab:
        raise ModelError(
            f"the catalog's tokens go up to id {int(trie.token.max())}, the model has {vocab} rows; "
            "extend the model with the catalog's format (`onereason extend`)."
        )


@contextlib.contextmanager
def _eval_mode(model: Any) -> Iterator[None]:
    """Every module in eval mode inside; each module's own mode restored after."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _take(rows: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
    """Rows `[B, K, X]` of the parents `[B, K']` -> `[B, K', X]`."""
    return rows.gather(1, parents[..., None].expand(-1, -1, rows.shape[2]))


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask whose True selects what is attended to, as a bias of 0 and the type's lowest number."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)
