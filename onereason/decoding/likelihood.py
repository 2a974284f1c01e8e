"""Teacher forcing over stems: how likely given answers are, after a prompt, a trace, or a part of a trace.

Notation: `B` prompts, `T` prompt tokens, `N` stems a prompt, `S` tokens of an answer, `C` cuts of a trace, `M` trace
tokens, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from onereason.decoding.stems import Stems, check_prompt_lengths, eval_mode, language_model, left_pad, prefill
from onereason.errors import ModelError

LOGITS_BUDGET = 2**25
"""Float32 numbers held at once (128 MiB)."""


@torch.no_grad()
def compute_logprobs(
    model: Any, stems: Stems, tokens: torch.Tensor, token_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Log-probability of each token `[B, N, S]` behind its stem, over the whole vocabulary: float32 `[B, N, S]`.

    `token_mask` (bool, all by default) is as in `Stems.append`; the others get 0. The stems can be continued after.
    """
    with eval_mode(model):
        hidden, _ = stems.feed(tokens, token_mask)
        before = torch.cat([stems.hidden[:, :, None], hidden[:, :, :-1]], 2).flatten(0, 2)  # predicts each token
        head = language_model(model).get_output_embeddings()
        wanted, parts = tokens.flatten(), []
        group = max(1, LOGITS_BUDGET // model.config.vocab_size)
        for start in range(0, len(before), group):
            logits = head(before[start : start + group]).float()
            part = wanted[start : start + group, None]
            parts.append(logits.gather(1, part)[:, 0] - logits.logsumexp(-1))
    logprobs = torch.cat(parts).view(tokens.shape)
    if logprobs.isnan().any():
        raise ModelError("the model's scores are NaN; its weights are broken or its float type overflows.")
    return logprobs if token_mask is None else logprobs.masked_fill(~token_mask, 0.0)


@torch.no_grad()
def answer_loglikelihoods(
    model: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    between: Sequence[Sequence[int]],
    cuts: Sequence[Sequence[int]] | None = None,
) -> torch.Tensor:
    """Log-likelihood of an answer after each of several beginnings of its prompt, in one pass a batch.

    A cut is a number of prompt tokens: the answer stands behind that many tokens and what is put `between` (the closing
    of a think block, a begin token, which are given, not scored).

    Args:
        prompts: `B` token lists: prompt and, where there is one, its trace.
        answers: `B` token lists that are scored.
        between: `B` token lists, none of them empty.
        cuts: `C` numbers of tokens for each prompt, from 1 to its length; the whole prompt by default.

    Returns:
        float32 `[B, C]`, natural logarithms; rows with fewer cuts are filled by their last one.
    """
    # The hidden state at a cut is not at hand, so what stands between has at least one token that is not scored.
    assert all(between), "what stands between a cut and the answer needs at least one token"
    behind = [[*b, *a] for a, b in zip(answers, between, strict=True)]
    sizes = [(len(prompt), len(tokens)) for prompt, tokens in zip(prompts, behind, strict=True)]
    check_prompt_lengths(model, *max(sizes, key=sum))
    device = next(model.parameters()).device
    input_ids, attention_mask = left_pad(prompts)
    longest = input_ids.shape[1]
    rows = [[len(p)] for p in prompts] if cuts is None else [list(row) for row in cuts]
    within = [1 <= cut <= len(p) for p, row in zip(prompts, rows, strict=True) for cut in row]
    assert all(within), "a cut goes from 1 to its prompt's length"
    width = max(map(len, rows))
    rows = [row + row[-1:] * (width - len(row)) for row in rows]
    with eval_mode(model):
        stems = prefill(model, input_ids.to(device), attention_mask.to(device)).fork(width)
        lengths = torch.tensor(rows, device=device)  # [B, C]
        padding = longest - torch.tensor([len(p) for p in prompts], device=device)
        column = torch.arange(longest, device=device)
        inside = column < (padding[:, None] + lengths)[..., None]  # [B, C, T]
        stems = replace(stems, visible=stems.visible & inside, lengths=lengths)
        tokens, mask = (x.to(device) for x in _right_pad(behind))
        shape = (len(prompts), width, tokens.shape[1])
        logprobs = compute_logprobs(model, stems, tokens[:, None].expand(shape), mask[:, None].bool().expand(shape))
    skipped = torch.tensor([len(b) for b in between], device=device)[:, None, None]
    return logprobs.masked_fill(torch.arange(shape[2], device=device) < skipped, 0.0).sum(-1)


def _right_pad(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, mask = left_pad([list(row)[::-1] for row in rows])
    return tokens.flip(1), mask.flip(1)
