"""Traces: sampled chains of thought, all stems of a batch at once behind prompts that are prefilled once.

Every trace draws from its own stream of random numbers, so a trace depends on its seed and prompt, not on its
neighbours in the batch, the batch's size or the number of processes.

Notation: `B` prompts, `N` traces a prompt, `S = B * N` stems, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from onereason.decoding.stems import Stems, check_prompt_lengths, eval_mode, language_model, left_pad
from onereason.errors import ConfigError, ModelError
from onereason.model.sampling import SamplingConfig, draw


@dataclass(frozen=True)
class ThinkIds:
    """The tokens around a trace, as Qwen3 writes them; build it with `load_think_ids`.

    Attributes:
        opening: `<think>` and a line break.
        closing: `</think>` and an empty line; its first token closes a trace.
        stops: tokens that end a turn.
        banned: int64, tokens that are never drawn: `<think>`, and rows without a token.
    """

    opening: list[int]
    closing: list[int]
    stops: list[int]
    banned: torch.Tensor


def load_think_ids(tokenizer: Any, vocab_size: int) -> ThinkIds:
    """The tokens around a trace of a tokenizer, for a model with `vocab_size` rows.

    Raises:
        ModelError: the tokenizer lacks `<think>` or `</think>` as one token.
    """
    from onereason.data.chat import TEXT_END, THINK_END, THINK_START, TURN_END
    from onereason.model.folder import unused_row_ids

    known = tokenizer.get_vocab()
    missing = [token for token in (THINK_START, THINK_END) if token not in known]
    if missing:
        raise ModelError(
            f"the tokenizer has no token {' or '.join(missing)}: the model cannot think before it answers; "
            "take a Qwen3 tokenizer, or evaluate mode no_think only."
        )
    opening, closing = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (f"{THINK_START}\n", f"{THINK_END}\n\n")
    )
    banned = [known[THINK_START], *unused_row_ids(vocab_size, tokenizer)]
    return ThinkIds(
        opening, closing, [known[token] for token in (TURN_END, TEXT_END) if token in known], torch.tensor(banned)
    )


@dataclass(frozen=True)
class Traces:
    """Sampled traces, one a stem.

    Attributes:
        token_ids: int64 `[B, N, M]`, without the closing token; -1 behind a trace's end.
        closed: bool `[B, N]`; False where a trace ran out of its budget, or ended its turn inside the block.
        logprobs: float32 `[B, N, M]`, of each token under the model's whole distribution (every row, before any is
            left out) at the temperature sampled from (at 1 where that is 0); 0 behind a trace's end.
        closing_logprobs: float32 `[B, N]`, of the token that closed a trace; 0 where it did not close.
    """

    token_ids: torch.Tensor
    closed: torch.Tensor
    logprobs: torch.Tensor
    closing_logprobs: torch.Tensor

    @property
    def lengths(self) -> torch.Tensor:
        """int64 `[B, N]`, tokens of each trace."""
        return (self.token_ids >= 0).sum(-1)

    def lists(self) -> list[list[list[int]]]:
        """Token ids of every trace of every prompt."""
        return [[[t for t in trace if t >= 0] for trace in traces] for traces in self.token_ids.tolist()]


@torch.no_grad()
def sample_traces(
    model: Any,
    stems: Stems,
    seeds: Sequence[Sequence[int | Sequence[int]]],
    close_id: int,
    stop_ids: Sequence[int] = (),
    banned_ids: torch.Tensor | None = None,
    config: SamplingConfig | None = None,
) -> tuple[Traces, Stems]:
    """Goes on from every stem with a sampled trace.

    Args:
        stems: end inside an open think block.
        seeds: one a stem, `[B][N]`; equal seeds behind equal prompts give equal traces.
        close_id: the token that closes a trace (`</think>`).
        stop_ids: tokens that end the turn; a trace that draws one is cut there.
        banned_ids: int64, tokens that are never drawn (rows without a token).

    Returns:
        the traces, and the stems that end where they end (before the closing token).

    Raises:
        ConfigError: the budget does not fit the model's positions.
        ModelError: scores that are NaN.
    """
    config = config or SamplingConfig()
    batch, num = stems.shape
    if len(seeds) != batch or any(len(row) != num for row in seeds):
        raise ConfigError(f"expected {num} seeds for each of {batch} prompts, got {[len(row) for row in seeds]}.")
    check_prompt_lengths(model, int(stems.lengths.max()), config.max_new_tokens, thinking=True)
    head = language_model(model).get_output_embeddings()
    device = stems.hidden.device
    streams = [np.random.default_rng(seed) for row in seeds for seed in row]
    alive = torch.ones(batch * num, dtype=torch.bool, device=device)
    closed = torch.zeros_like(alive)
    closing = torch.zeros(batch * num, device=device)
    stops = torch.tensor([close_id, *stop_ids], device=device)
    columns, logprobs = [], []
    with eval_mode(model):
        for _ in range(config.max_new_tokens):
            logits = head(stems.hidden.flatten(0, 1)).float()  # [S, V]
            if logits.isnan().any():
                raise ModelError("the model's scores are NaN; its weights are broken or its float type overflows.")
            whole = (logits / (config.temperature or 1.0)).log_softmax(-1)
            if banned_ids is not None:
                logits[:, banned_ids] = -torch.inf
            uniform = torch.tensor([stream.random() for stream in streams], dtype=torch.float64, device=device)
            tokens = draw(logits, uniform, config)
            chosen = whole.gather(1, tokens[:, None])[:, 0]
            closes = alive & (tokens == close_id)
            closed |= closes
            closing = torch.where(closes, chosen, closing)
            alive &= ~torch.isin(tokens, stops)
            if not alive.any():
                break
            columns.append(tokens.masked_fill(~alive, -1))
            logprobs.append(chosen.masked_fill(~alive, 0.0))
            stems = stems.append(tokens.view(batch, num, 1), alive.view(batch, num, 1))
    empty = torch.zeros(batch * num, 0, device=device)
    token_ids = torch.stack(columns, 1) if columns else empty.long()
    scores = torch.stack(logprobs, 1) if logprobs else empty
    shape = (batch, num, token_ids.shape[1])
    closing, closed = closing.view(batch, num), closed.view(batch, num)
    return Traces(token_ids.view(shape), closed, scores.view(shape), closing), stems


def close_traces(stems: Stems, suffixes: Sequence[Sequence[int]]) -> Stems:
    """Appends what stands between a trace and its answer, one list of tokens a prompt, of any length."""
    tokens, mask = left_pad([row[::-1] for row in suffixes])  # padded on the right, so that stems grow side by side
    tokens, mask = tokens.flip(1), mask.flip(1).bool()
    shape = (*stems.shape, tokens.shape[1])
    device = stems.hidden.device
    return stems.append(tokens[:, None].expand(shape).to(device), mask[:, None].expand(shape).to(device))
