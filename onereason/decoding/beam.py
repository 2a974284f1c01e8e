"""Exact constrained beam search that prefills each prompt once.

The beams of a stem (a prompt, or a prompt and a trace behind it) are nodes of a tree that grows behind it: at level `l`
the live beams are query positions of the prompt's own sequence, each attending to its stem, to its own ancestors and to
itself (see `onereason.decoding.stems`). Only children in the item trie are candidates, so every beam is an item.

Notation: `B` prompts, `N` stems a prompt, `S = B * N` stems, `T` prompt tokens, `K` beams, `L` levels, `V` vocabulary,
`D` hidden size, `A` tree nodes so far, `R` roots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from onereason.decoding.stems import Stems, check_prompt_lengths, eval_mode, language_model, prefill
from onereason.decoding.tree import StemTree, take_rows
from onereason.errors import ConfigError, ModelError
from onereason.itemic.trie import ItemTrie, TrieTensors
from onereason.model.sampling import stable_topk

if TYPE_CHECKING:
    from onereason.itemic.filters import FilterTensors, NodeFilter

LOGITS_BUDGET = 2**25
"""Float32 numbers held at once (128 MiB); stems are scored in groups whose logits and candidates stay under it."""
CANDIDATE_COST = 16
"""Float32 numbers that one candidate takes while the best are chosen (indices, nodes, parents, scores)."""


@dataclass(frozen=True)
class BeamResult:
    """What a search found, the best first. A search over stems has one row a stem, `B * N` in all.

    Attributes:
        sequences: int64 `[B, K, L]`, code token ids; -1 where not valid.
        scores: float32 `[B, K]`, log-probability of the codes given the prompt, summed over levels, normalised over
            the whole vocabulary (every row of the model), or over each level's codes in a restricted search; -inf where
            not valid.
        valid: bool `[B, K]`; True selects beams that exist (fewer than `K` where the root has fewer sids).
        leaves: int64 `[B, K]`, the trie's leaf nodes; -1 where not valid.
        level_logprobs: float32 `[B, K, L]`, the score's part of each code (a begin token that was scored is in none of
            them); 0 where not valid.
    """

    sequences: torch.Tensor
    scores: torch.Tensor
    valid: torch.Tensor
    leaves: torch.Tensor
    level_logprobs: torch.Tensor


@torch.no_grad()
def beam_search(
    model: Any,
    trie: ItemTrie,
    roots: torch.Tensor,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    num_beams: int,
    *,
    node_filter: NodeFilter | None = None,
    restricted: bool = False,
) -> BeamResult:
    """The `num_beams` best sids of each prompt by beam search over the trie.

    Ties are broken the same way every time: the earlier beam first, then the lower token id. The model runs in eval
    mode (its modules' modes are restored) and its `generation_config` plays no part.

    Args:
        model: a causal language model of transformers (or a PEFT model around one), any float type.
        trie: the items.
        roots: int64 `[B]`, the trie's root of each prompt; or `[B, R]` (-1 fills) where the model chooses: the begin
            token of a root is then scored as a level of its own, at which no root is dropped.
        input_ids: int64 `[B, T]`, left-padded prompts that end where the first code (or begin token) is to come.
        attention_mask: `[B, T]`, 1 selects prompt tokens.
        num_beams: `K`.
        node_filter: which items each of the `B` prompts may get (`onereason.itemic.filters`).
        restricted: normalises over each level's codes instead of the whole vocabulary, and computes only their logits.
            A begin token that is scored is normalised over the whole vocabulary all the same.

    Raises:
        ConfigError: `num_beams` below 1, an empty prompt, a prompt too long for the model, or a prompt for which the
            filter leaves no item.
        ModelError: an attention implementation without 4D masks, a vocabulary too small, or scores that are NaN.
    """
    check_search(model, trie, roots, len(input_ids), num_beams, node_filter)
    tree_depth = trie.num_levels - 1 + (roots.dim() == 2)
    if len(attention_mask):
        check_prompt_lengths(model, int(attention_mask.sum(1).max()), tree_depth + 1)
    with eval_mode(model):
        stems = prefill(model, input_ids, attention_mask, room=num_beams * tree_depth)
        return search_stems(model, trie, roots, stems, num_beams, node_filter=node_filter, restricted=restricted)


@torch.no_grad()
def search_stems(
    model: Any,
    trie: ItemTrie,
    roots: torch.Tensor,
    stems: Stems,
    num_beams: int,
    *,
    node_filter: NodeFilter | None = None,
    restricted: bool = False,
) -> BeamResult:
    """The `num_beams` best sids of each stem, without another prefill; see `beam_search`.

    Args:
        roots: int64 `[B]` or `[B, R]`, shared by the stems of a prompt.
        stems: end where the first code (or begin token) is to come. They can be continued or searched again after.

    Returns:
        one row a stem: rows `b * N .. b * N + N - 1` are the stems of prompt `b`.
    """
    check_search(model, trie, roots, stems.shape[0], num_beams, node_filter)
    head, vocab_size = language_model(model).get_output_embeddings(), model.config.vocab_size
    device = stems.hidden.device
    tables = trie.on(device)
    allowed = None if node_filter is None else node_filter.on(device)
    scorer = _Scorer(head, vocab_size, tables, allowed, stems.shape[1], num_beams)
    tree = StemTree(stems)
    with eval_mode(model):
        if roots.dim() == 2:
            nodes, scores = _start_at_roots(scorer, tree, trie, roots.to(device))
        else:
            nodes = roots.to(device).repeat_interleave(stems.shape[1])[:, None]  # [S, 1]
            scores = torch.zeros(nodes.shape, device=device)
        sequences = torch.zeros(*nodes.shape, 0, dtype=torch.long, device=device)
        so_far = scores[..., None]  # [S, K, 1 + levels], the scores along each beam's path
        for level in range(trie.num_levels):
            span = trie.level_ranges[level] if restricted else None
            nodes, scores, parents = scorer.advance(tree.hidden, nodes, scores, span)
            tokens = torch.where(nodes >= 0, tables.token[nodes.clamp(min=0)].long(), nodes)  # [S, K]
            sequences = torch.cat([take_rows(sequences, parents), tokens[..., None]], -1)
            so_far = torch.cat([take_rows(so_far, parents), scores[..., None]], -1)
            if level + 1 < trie.num_levels:
                tree.grow(tokens.clamp(min=0), parents)
    missing = num_beams - nodes.shape[1]
    if missing:
        nodes = torch.nn.functional.pad(nodes, (0, missing), value=-1)
        scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
        sequences = torch.nn.functional.pad(sequences, (0, 0, 0, missing), value=-1)
        so_far = torch.nn.functional.pad(so_far, (0, 0, 0, missing), value=-torch.inf)
    valid = nodes >= 0
    level_logprobs = so_far.diff(dim=-1).masked_fill(~valid[..., None], 0.0)
    return BeamResult(sequences.masked_fill(~valid[..., None], -1), scores, valid, nodes, level_logprobs)


@dataclass(frozen=True)
class _Scorer:
    """Scores the children of live beams and keeps the best."""

    head: Any
    vocab_size: int
    tables: TrieTensors
    allowed: FilterTensors | None
    num_stems: int
    num_beams: int

    def logits(self, hidden: torch.Tensor, span: tuple[int, int] | None = None) -> torch.Tensor:
        """Float32 logits `[..., V]` of hidden states, or those of the token ids `span[0] .. span[1] - 1`."""
        if span is None:
            return self.head(hidden).float()
        rows = slice(*span)
        if type(self.head) is torch.nn.Linear:
            bias = None if self.head.bias is None else self.head.bias[rows]
            return torch.nn.functional.linear(hidden, self.head.weight[rows], bias).float()
        return self.head(hidden)[..., rows].float()  # a wrapped head (PEFT) has no plain rows

    def advance(
        self, hidden: torch.Tensor, nodes: torch.Tensor, scores: torch.Tensor, span: tuple[int, int] | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One level: live beams `[S, K]` -> the best children's nodes, scores and parent beams `[S, K']`.

        `K'` is `num_beams`, or the most children any stem has where that is less; -1 marks beams that do not exist.
        """
        total, live = nodes.shape
        counts = torch.where(nodes >= 0, self.tables.num_children(nodes.clamp(min=0)), 0)
        most = int(counts.sum(1).max())
        width = self.vocab_size if span is None else span[1] - span[0]
        group = max(1, LOGITS_BUDGET // max(live * width, CANDIDATE_COST * most))
        parts = []
        for start in range(0, total, group):
            part = slice(start, start + group)
            logits = self.logits(hidden[part], span).flatten(0, 1)  # [s * K, V]
            row, child = self.tables.expand(nodes[part].flatten().clamp(min=0), counts[part].flatten())
            kept_counts = counts[part]
            if self.allowed is not None:
                prompt = (start + row // live) // self.num_stems
                permitted = self.allowed.permitted(prompt, child)
                row, child = row[permitted], child[permitted]
                kept_counts = torch.bincount(row, minlength=kept_counts.numel()).view_as(kept_counts)
            so_far = scores[part].flatten() - logits.logsumexp(-1)
            token = self.tables.token[child].long() - (0 if span is None else span[0])
            candidates = logits[row, token] + so_far[row]
            if candidates.isnan().any():
                raise ModelError("the model's scores are NaN; its weights are broken or its float type overflows.")
            parts.append(_best_children(candidates, child, row, kept_counts, min(self.num_beams, max(1, most))))
        best_nodes, best_scores, parents = (torch.cat(list(column)) for column in zip(*parts, strict=True))
        return best_nodes, best_scores, parents


def _start_at_roots(
    scorer: _Scorer, tree: StemTree, trie: ItemTrie, roots: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Roots `[B, R]` as live beams `[S, R]`, each scored by its begin token, which is appended."""
    begin = torch.as_tensor(trie.begin_ids, device=roots.device)[roots.clamp(min=0)]  # [B, R]
    if bool(((begin < 0) & (roots >= 0)).any()):
        raise ConfigError("the model can choose among roots only where each has a begin token; give one root a prompt.")
    nodes = roots.repeat_interleave(scorer.num_stems, 0)  # [S, R]
    tokens = begin.clamp(min=0).repeat_interleave(scorer.num_stems, 0)
    if scorer.allowed is not None:
        prompt = torch.arange(len(roots), device=roots.device).repeat_interleave(scorer.num_stems)
        prompt = prompt[:, None].expand_as(nodes)
        open_root = scorer.allowed.permitted(prompt.reshape(-1), nodes.clamp(min=0).reshape(-1)).view_as(nodes)
        nodes = nodes.masked_fill(~open_root, -1)
    group = max(1, LOGITS_BUDGET // scorer.vocab_size)
    parts = zip(tree.hidden[:, 0].split(group), tokens.split(group), strict=True)
    scores = torch.cat([scorer.logits(hidden).log_softmax(-1).gather(1, token) for hidden, token in parts])  # [S, R]
    tree.grow(tokens, torch.zeros_like(tokens))
    return nodes, scores.masked_fill(nodes < 0, -torch.inf)


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


def check_search(
    model: Any,
    trie: ItemTrie,
    roots: torch.Tensor,
    num_prompts: int,
    num_beams: int,
    node_filter: NodeFilter | None = None,
) -> None:
    """What a search refuses, to be called before anything is computed; see `beam_search`."""
    if num_beams < 1:
        raise ConfigError(f"num_beams must be at least 1, got {num_beams}.")
    highest = max(max(end for _, end in trie.level_ranges) - 1, int(trie.begin_ids.max()))
    if highest >= model.config.vocab_size:
        raise ModelError(
            f"the catalog's tokens go up to id {highest}, the model has {model.config.vocab_size} rows; "
            "extend the model with the catalog's format (`onereason extend`)."
        )
    if len(roots) != num_prompts:
        raise ConfigError(f"{num_prompts} prompts need as many roots (or rows of roots), got {len(roots)}.")
    lowest = 0 if roots.dim() == 1 else -1
    if roots.dim() > 2 or int(roots.min()) < lowest or int(roots.max()) >= len(trie.domains):
        raise ConfigError(
            f"roots must be positions of the trie's {len(trie.domains)} domains ({', '.join(trie.domains)}), got "
            f"{roots.tolist()}."
        )
    if roots.dim() == 2:
        if bool((roots < 0).all(1).any()):
            raise ConfigError("a prompt has no root to search under: its row of roots is all -1.")
        ordered = roots.sort(1).values
        if bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any()):
            raise ConfigError("a prompt names a root twice; give each root once (-1 fills).")
    if node_filter is not None:
        if node_filter.trie is not trie:
            raise ConfigError("the filter was built for another trie; build it again with build_filter.")
        _require_items(node_filter, roots)


def _require_items(node_filter: NodeFilter, roots: torch.Tensor) -> None:
    """`ConfigError` for the first request for which the filter leaves nothing under any of its roots."""
    if len(node_filter) != len(roots):
        raise ConfigError(f"the filter is for {len(node_filter)} requests, there are {len(roots)} prompts.")
    options = roots.cpu().numpy().reshape(len(roots), -1)  # [B, R]
    counts = np.stack([node_filter.count_allowed(np.maximum(column, 0)) for column in options.T], 1)
    best = np.where(options >= 0, counts, -1).argmax(1)
    node_filter.require_not_empty(options[np.arange(len(options)), best])
