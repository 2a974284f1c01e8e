"""Items drawn from a model's own distribution behind stems, over the item trie or freely.

Where beams are the best items, these are samples, with replacement: what reinforcement explores with. The items of a
stem depend on the stem's seed alone, not on its neighbours in the batch.

Notation: `B` prompts, `N` stems a prompt, `S = B * N` stems, `K` items a stem, `L` levels, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from onereason.decoding.beam import LOGITS_BUDGET, BeamResult, check_search
from onereason.decoding.stems import Stems, eval_mode, language_model
from onereason.decoding.tree import StemTree
from onereason.errors import ConfigError, ModelError
from onereason.itemic.trie import ItemTrie, TrieTensors
from onereason.model.sampling import SamplingConfig, draw

_EVERY_TOKEN = SamplingConfig(max_new_tokens=1, temperature=1.0, top_k=0, top_p=1.0)


@torch.no_grad()
def sample_items(
    model: Any,
    trie: ItemTrie,
    roots: torch.Tensor,
    stems: Stems,
    num_items: int,
    seeds: Sequence[Sequence[int | Sequence[int]]],
    temperature: float = 1.0,
    constrained: bool = True,
) -> BeamResult:
    """Draws `num_items` items behind each stem.

    Args:
        roots: int64 `[B]`, the trie's root of each prompt.
        stems: end where the first code is to come. They can be continued or searched again after.
        seeds: one a stem, `[B][N]`.
        temperature: of the distribution drawn from.
        constrained: draws each code among the children in the trie, in proportion to their probabilities, so that
            every item is legal; else from the whole vocabulary, and a sequence that is no item has leaf -1.

    Returns:
        one row a stem, items in the order they were drawn (the same item can come twice). `level_logprobs` and `scores`
        are those of the tempered distribution over the whole vocabulary, also where children alone were drawn from.

    Raises:
        ConfigError: `num_items` below 1, a temperature that is not positive, or seeds that do not fit the stems.
        ModelError: scores that are NaN.
    """
    check_search(model, trie, roots, stems.shape[0], num_items)
    batch, num = stems.shape
    if roots.dim() != 1:
        raise ConfigError("items are sampled under one root a prompt; give roots of shape [B].")
    if not 0 < temperature < float("inf"):
        raise ConfigError(f"temperature must be above 0, got {temperature}; items are searched, not drawn, at 0.")
    if len(seeds) != batch or any(len(row) != num for row in seeds):
        raise ConfigError(f"expected {num} seeds for each of {batch} prompts, got {[len(row) for row in seeds]}.")
    head, device = language_model(model).get_output_embeddings(), stems.hidden.device
    tables = trie.on(device)
    draws = np.stack([np.random.default_rng(s).random((trie.num_levels, num_items)) for row in seeds for s in row], 1)
    uniform = torch.from_numpy(draws).to(device)  # [L, S, K]
    tree = StemTree(stems)
    nodes = roots.to(device).repeat_interleave(num)[:, None]  # [S, 1]
    tokens_so_far, logprobs_so_far = [], []
    with eval_mode(model):
        for level in range(trie.num_levels):
            drawn = [
                _draw_codes(
                    head, tables, tree.hidden[rows], nodes[rows], uniform[level, rows], temperature, constrained
                )
                for rows in _groups(len(nodes), num_items * model.config.vocab_size)
            ]
            tokens, logprobs, nodes = (torch.cat(column) for column in zip(*drawn, strict=True))  # [S, K] each
            tokens_so_far.append(tokens)
            logprobs_so_far.append(logprobs)
            if level + 1 < trie.num_levels:
                live = torch.arange(num_items, device=device).expand(len(tokens), -1)
                tree.grow(tokens, torch.zeros_like(live) if level == 0 else live)
    level_logprobs = torch.stack(logprobs_so_far, -1)
    valid = torch.ones_like(nodes, dtype=torch.bool)
    return BeamResult(torch.stack(tokens_so_far, -1), level_logprobs.sum(-1), valid, nodes, level_logprobs)


def _groups(total: int, cost: int) -> list[slice]:
    """Ranges of stems whose logits stay under `LOGITS_BUDGET`."""
    size = max(1, LOGITS_BUDGET // cost)
    return [slice(start, start + size) for start in range(0, total, size)]


def _draw_codes(
    head: Any,
    tables: TrieTensors,
    hidden: torch.Tensor,
    nodes: torch.Tensor,
    uniform: torch.Tensor,
    temperature: float,
    constrained: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One level: hidden states `[s, K, D]`, nodes `[s, K]`, draws `[s, K]` -> tokens, logprobs and nodes `[s, K]`.

    At the first level all items of a stem go on from one hidden state: there K is 1 in states and nodes.
    """
    num_items = uniform.shape[1]
    logits = head(hidden).float() / temperature  # [s, K or 1, V]
    if logits.isnan().any():
        raise ModelError("the model's scores are NaN; its weights are broken or its float type overflows.")
    whole = logits.logsumexp(-1)  # [s, K or 1]
    live = nodes.shape[1]
    if constrained:
        counts = tables.num_children(nodes)  # [s, live]
        row, child = tables.expand(nodes.flatten(), counts.flatten())
        flat = counts.flatten()
        place = torch.arange(len(row), device=row.device) - (flat.cumsum(0) - flat)[row]
        width = int(flat.max())
        children = torch.full((len(flat), width), -1, dtype=torch.long, device=row.device)
        children[row, place] = child
        options = torch.full((len(flat), width), -torch.inf, device=row.device)
        options[row, place] = logits.flatten(0, 1)[row, tables.token[child].long()]
    else:
        options = logits.flatten(0, 1)
    if live == 1:
        options = options.repeat_interleave(num_items, 0)
    picked = draw(options, uniform.flatten(), _EVERY_TOKEN).view(uniform.shape)  # [s, K]
    if constrained:
        children = children.view(len(nodes), live, width).expand(-1, num_items, -1)
        nodes = children.gather(2, picked[..., None])[..., 0]
        tokens = tables.token[nodes].long()
    else:
        tokens = picked
        nodes = tables.step(nodes.expand(-1, num_items).flatten(), tokens.flatten()).view(tokens.shape)
    chosen = logits.expand(-1, num_items, -1).gather(2, tokens[..., None])[..., 0]
    return tokens, chosen - whole, nodes
