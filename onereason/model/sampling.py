"""Sampling: tokens drawn from a model's scores, each row from its own stream of random numbers.

A text so depends on its seed and prompt, not on its neighbours in the batch, the batch's size or the number of
processes.

Notation: `S` rows, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import LogitsProcessor

from onereason.errors import ConfigError, ModelError


@dataclass(frozen=True)
class SamplingConfig:
    """How traces are sampled; the defaults are the public OneReason benchmark's."""

    max_new_tokens: int = 4096
    """The thinking budget: a trace that has not closed by then is cut."""
    temperature: float = 0.6
    """0 takes the most likely token every time."""
    top_k: int = 50
    """Only the `top_k` most likely tokens are drawn; 0 for all."""
    top_p: float = 0.95
    """Only the most likely tokens that together reach this probability are drawn."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"the thinking budget must be at least 1 token, got {self.max_new_tokens}.")
        if not (self.temperature == 0 or 1e-3 <= self.temperature < float("inf")):
            raise ConfigError(f"temperature must be 0 or a number from 0.001, got {self.temperature}.")
        if self.top_k < 0:
            raise ConfigError(f"top_k must be at least 0 (0 draws from all tokens), got {self.top_k}.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must lie in (0, 1], got {self.top_p}.")


def draw(logits: torch.Tensor, uniform: torch.Tensor, config: SamplingConfig) -> torch.Tensor:
    """One token a row of float32 logits `[S, V]`, by inverting the cumulative distribution at `uniform` `[S]`.

    Temperature, then the `top_k` most likely, then the fewest of these that reach `top_p` (Holtzman et al. 2020, "The
    curious case of neural text degeneration"); the most likely token always stays. Tokens stand in the order of their
    logits, equal ones in their own; where all of them may be drawn, in their own order throughout.
    """
    if config.temperature == 0:
        return logits.argmax(-1)
    k = min(config.top_k or logits.shape[1], logits.shape[1])
    if k == logits.shape[1] and config.top_p == 1:  # nothing is left out, so no order is needed
        cumulative = (logits.double() / config.temperature).softmax(-1).cumsum(-1)
        total = cumulative[:, -1:]
        place = torch.searchsorted(cumulative, uniform.double()[:, None] * total, right=True)
        return torch.minimum(place, (cumulative < total).sum(-1, keepdim=True))[:, 0]
    tokens = stable_topk(logits, k)
    values = logits.gather(1, tokens)
    probabilities = (values.double() / config.temperature).softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill(before >= config.top_p, 0.0)
    cumulative = probabilities.cumsum(-1)
    # The first place whose cumulative probability exceeds the draw.
    place = torch.searchsorted(cumulative, (uniform.double() * cumulative[:, -1])[:, None], right=True)
    last = (probabilities > 0).sum(-1, keepdim=True) - 1
    return tokens.gather(1, torch.minimum(place, last))[:, 0]


def stable_topk(values: torch.Tensor, k: int) -> torch.Tensor:
    """Indices `[B, k]` of the largest of `values` `[B, W]`, descending; of equal values the earlier index comes first.

    `torch.topk` picks among equal values at will; it serves here to find the k-th value only.
    """
    least = values.topk(k, dim=1).values[:, -1:]
    above, equal = values > least, values == least
    keep = above | (equal & (equal.cumsum(1) <= k - above.sum(1, keepdim=True)))
    index = keep.nonzero()[:, 1].view(len(values), k)
    return index.gather(1, values.gather(1, index).sort(stable=True, dim=1, descending=True).indices)


class RowSampler(LogitsProcessor):
    """Makes `generate` write what each row's own stream draws: it leaves one token with a score."""

    def __init__(self, seeds: Sequence[int], sampling: SamplingConfig):
        self.sampling = sampling
        self._streams = [np.random.default_rng(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores `[S, V]` -> 0 for the chosen token of each row, -inf for all others."""
        if scores.isnan().any():
            raise ModelError("the model's scores are NaN; its weights are broken or its float type overflows.")
        uniform = torch.tensor([stream.random() for stream in self._streams], device=scores.device)
        chosen = torch.tensor(self.choose(draw(scores, uniform, self.sampling).tolist()), device=scores.device)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)

    def choose(self, drawn: list[int]) -> list[int]:
        """The token to write in each row, where the model drew `drawn`."""
        return drawn
