"""Two-stage rollouts (OneReason, Eq. 6 and 8): N traces of each prompt, K items under each trace.

Each prompt is prefilled once and each trace once: the items of a trace go on from its cache (`onereason.decoding`).
What is rolled out does not depend on the batch, as every trace has a stream of random numbers of its own.

Notation: `G` prompts, `N` traces a prompt, `K` items a trace, `L` levels, `M` trace tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch

from onereason.data.prompts import Mode
from onereason.decoding.beam import BeamResult, search_stems
from onereason.decoding.item_sampling import sample_items
from onereason.decoding.likelihood import compute_logprobs
from onereason.decoding.recommender import Recommender
from onereason.decoding.stems import Stems, check_prompt_lengths, eval_mode, left_pad, prefill
from onereason.decoding.think import Traces
from onereason.errors import ConfigError
from onereason.model.sampling import SamplingConfig


@dataclass(frozen=True)
class RolloutSampling(SamplingConfig):
    """How traces are drawn: by default from the policy as it is, whose gradient is then the policy's own."""

    max_new_tokens: int = 512
    """The thinking budget."""
    temperature: float = 1.0
    """1 draws from the policy itself."""
    top_k: int = 0
    """0 draws from all tokens."""
    top_p: float = 1.0
    """1 draws from all tokens."""


@dataclass(frozen=True)
class RolloutConfig:
    """How the policy is rolled out."""

    mode: Literal["think", "no_think", "mixed"] = "think"
    """`think` samples traces first; `no_think` rolls N x K items out at once behind an empty think block; `mixed` does
    one or the other, prompt by prompt."""
    think_share: float = 0.5
    """With `mixed`, how often a prompt is thought about, as drawn from its seed."""
    num_traces: int = 8
    """N, traces a prompt (rows a prompt in mode `no_think`)."""
    num_items: int = 32
    """K, items under each trace."""
    items: Literal["beam", "sample", "free"] = "beam"
    """`beam`: the best over the trie; `sample`: drawn over the trie; `free`: drawn from the whole vocabulary, so that
    some are illegal (for a format reward)."""
    sampling: RolloutSampling = field(default_factory=RolloutSampling)
    """Thinking budget and how traces are drawn; the temperature also holds for items that are drawn."""
    include_positive: bool = False
    """Puts the next item in the place of a trace's last one where none of its items is that: a guide from the log,
    without which a group that finds nothing teaches nothing. Traces do not answer for it."""
    batch_size: int = 32
    """Prompts rolled out at once."""

    def __post_init__(self) -> None:
        for name, least in (("num_traces", 2), ("num_items", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"rollout.{name} must be at least {least}, got {getattr(self, name)}.{_WHY[name]}")
        if not 0 < self.think_share < 1:
            raise ConfigError(
                f"rollout.think_share must lie between 0 and 1, got {self.think_share}; rollout.mode think and "
                "no_think stand for the ends."
            )
        if self.sampling.temperature <= 0:
            raise ConfigError(
                "rollout.sampling.temperature must be above 0: all traces of a group would be equal; 1 is usual."
            )
        if self.items == "beam" and self.sampling.temperature != 1:
            raise ConfigError(
                f"rollout.sampling.temperature must be 1 where items are beams, got {self.sampling.temperature}: beams "
                "are scored at 1, and the log-probabilities of traces and items are taken at one temperature; set "
                "rollout.items=sample, or temperature 1."
            )
        if self.include_positive and self.sampling.temperature != 1:
            raise ConfigError(
                f"rollout.include_positive needs rollout.sampling.temperature 1, got {self.sampling.temperature}: the "
                "next item's log-probabilities are taken at 1."
            )


_WHY = {
    "num_traces": " A trace is judged against the others of its prompt: with one alone its gradient vanishes.",
    "num_items": "",
    "batch_size": "",
}


@dataclass(frozen=True)
class Rollouts:
    """Rollouts of `G` prompts.

    Attributes:
        thinks: bool `[G]`; True selects prompts that were thought about.
        prompts: `G` token lists; those end inside the open think block.
        between: `G` token lists, what stands between a trace and the codes (empty without thinking).
        traces: the traces, `[G, N, M]`; M is 0 without thinking.
        sequences: int64 `[G, N, K, L]`, code token ids; -1 where not valid.
        logprobs: float32 `[G, N, K, L]`, of each code over the whole vocabulary; 0 where not valid.
        valid: bool `[G, N, K]`; True selects items that exist.
        leaves: int64 `[G, N, K]`, the trie's leaves; -1 where not valid, or no item of the catalog.
        guided: bool `[G, N, K]`; True selects items that were put there, not rolled out (`include_positive`).
        answer_logprobs: float32 `[G, N]`, log-likelihood of the next item's codes behind each trace (without thinking:
            behind the prompt); None where no answers were given.
    """

    thinks: torch.Tensor
    prompts: list[list[int]]
    between: list[list[int]]
    traces: Traces
    sequences: torch.Tensor
    logprobs: torch.Tensor
    valid: torch.Tensor
    leaves: torch.Tensor
    guided: torch.Tensor
    answer_logprobs: torch.Tensor | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(G, N, K)`."""
        return self.valid.shape  # type: ignore[return-value]

    @property
    def legal(self) -> torch.Tensor:
        """bool `[G, N, K]`; True selects rolled-out items that are in the catalog."""
        return self.valid & (self.leaves >= 0)

    @property
    def num_generated_tokens(self) -> int:
        """Tokens of traces and of items, each trace once."""
        items = int((self.valid & ~self.guided).sum()) * self.sequences.shape[-1]
        return int(self.traces.lengths.sum() + self.traces.closed.sum()) + items


def roll_out(
    recommender: Recommender,
    histories: Sequence[np.ndarray],
    domains: Sequence[str],
    seeds: Sequence[Sequence[int]],
    config: RolloutConfig,
    answers: Sequence[int] | None = None,
) -> Rollouts:
    """Rolls the recommender's model out; it runs in eval mode, without gradients.

    Args:
        histories: `G` arrays of item indices, oldest first.
        domains: `G` domains, of the items asked for.
        seeds: `G` seeds (each a sequence of numbers); trace `n` draws from `(*seed, n)`.
        answers: `G` item indices, the next items: their likelihood behind each trace is told.

    Raises:
        ConfigError: a prompt that leaves no room for trace and answer, or `include_positive` without answers.
        ModelError: a tokenizer without think tokens, or scores that are NaN.
    """
    if config.include_positive and answers is None:
        raise ConfigError("rollout.include_positive needs the next items; give answers.")
    modes = [_choose_mode(seed, config) for seed in seeds]
    order = sorted(range(len(modes)), key=lambda number: modes[number])  # a batch is of one mode
    parts, taken = [], 0
    while taken < len(order):
        mode = modes[order[taken]]
        batch = [number for number in order[taken : taken + config.batch_size] if modes[number] == mode]
        taken += len(batch)
        parts.append(
            _roll_out_batch(
                recommender,
                mode,
                [histories[number] for number in batch],
                [domains[number] for number in batch],
                [seeds[number] for number in batch],
                config,
                None if answers is None else [answers[number] for number in batch],
            )
        )
    return _concatenate(parts, np.argsort(order).tolist())


def _choose_mode(seed: Sequence[int], config: RolloutConfig) -> Mode:
    if config.mode != "mixed":
        return config.mode
    # A stream of its own: no trace has this number.
    drawn = np.random.default_rng([*seed, config.num_traces]).random()
    return "think" if drawn < config.think_share else "no_think"


def _roll_out_batch(
    recommender: Recommender,
    mode: Mode,
    histories: Sequence[np.ndarray],
    domains: Sequence[str],
    seeds: Sequence[Sequence[int]],
    config: RolloutConfig,
    answers: Sequence[int] | None,
) -> Rollouts:
    num_traces, num_items = config.num_traces, config.num_items
    prompts = [recommender.render(h, d, mode) for h, d in zip(histories, domains, strict=True)]
    own = [[(*seed, trace) for trace in range(num_traces)] for seed in seeds]
    if mode == "think":
        traces, stems = recommender.think_stems(prompts, domains, own, config.sampling)
        between = [recommender.between(domain) for domain in domains]
    else:
        stems = _prefill(recommender, prompts)
        traces, between = _no_traces(len(prompts), num_traces, stems.hidden.device), [[] for _ in prompts]
        own, num_items = [row[:1] for row in own], num_traces * num_items
    scored = None if answers is None else _score_answers(recommender, stems, answers)
    found = _roll_out_items(recommender, stems, domains, own, num_items, config)
    guided = torch.zeros_like(found.valid)
    if config.include_positive and scored is not None:
        found, guided = _include_answers(recommender, found, domains, *scored)
    shape = (len(prompts), num_traces, config.num_items)
    return Rollouts(
        torch.full((len(prompts),), mode == "think"),
        prompts,
        between,
        traces,
        found.sequences.view(*shape, -1),
        found.level_logprobs.view(*shape, -1),
        found.valid.view(shape),
        found.leaves.view(shape),
        guided.view(shape),
        None if scored is None else scored[1].sum(-1).expand(shape[:2]),
    )


def _score_answers(recommender: Recommender, stems: Stems, answers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of the answers, int64 `[B, L]`, and their log-probabilities behind each stem, float32 `[B, N, L]`."""
    codes = recommender.vocabulary.code_ids(recommender.catalog.codes[np.asarray(answers)])
    tokens = torch.as_tensor(np.ascontiguousarray(codes), dtype=torch.long, device=stems.hidden.device)
    behind = tokens[:, None].expand(-1, stems.shape[1], -1)
    return tokens, compute_logprobs(recommender.model, stems, behind)


def _include_answers(
    recommender: Recommender, found: BeamResult, domains: Sequence[str], tokens: torch.Tensor, logprobs: torch.Tensor
) -> tuple[BeamResult, torch.Tensor]:
    """The items `[B, N, K]` with the answer in the last place where it is not among them; where that is, bool."""
    trie = recommender.trie
    nodes = [trie.find(trie.root_of(d), t) for d, t in zip(domains, tokens.tolist(), strict=True)]
    assert None not in nodes, "an answer is an item of its domain"
    wanted = torch.tensor([int(node or 0) for node in nodes], device=tokens.device)[:, None, None]  # [B, 1, 1]
    shape = (*logprobs.shape[:2], found.valid.shape[1])  # [B, N, K]
    leaves, valid = found.leaves.view(shape), found.valid.view(shape)
    missing = ~((leaves == wanted) & valid).any(-1, keepdim=True)
    guided = missing & (torch.arange(shape[2], device=tokens.device) == shape[2] - 1)
    replaced = replace(
        found,
        sequences=torch.where(guided[..., None], tokens[:, None, None], found.sequences.view(*shape, -1)),
        level_logprobs=torch.where(guided[..., None], logprobs[:, :, None], found.level_logprobs.view(*shape, -1)),
        valid=valid | guided,
        leaves=torch.where(guided, wanted, leaves),
    )
    return replaced, guided


def _roll_out_items(
    recommender: Recommender,
    stems: Stems,
    domains: Sequence[str],
    seeds: Sequence[Sequence[Sequence[int]]],
    num_items: int,
    config: RolloutConfig,
) -> BeamResult:
    """Items behind each stem, `[B * N, K]`; those of a stem that are drawn have a stream of their own."""
    model, trie, roots = recommender.model, recommender.trie, recommender.roots(domains)
    if config.items == "beam":
        return search_stems(model, trie, roots, stems, num_items)
    streams = [[(*seed, 1) for seed in row] for row in seeds]
    temperature = config.sampling.temperature
    return sample_items(model, trie, roots, stems, num_items, streams, temperature, config.items == "sample")


def _prefill(recommender: Recommender, prompts: Sequence[Sequence[int]]) -> Stems:
    device, model = recommender.model.device, recommender.model
    input_ids, attention_mask = left_pad(prompts)
    check_prompt_lengths(model, input_ids.shape[1], recommender.trie.num_levels)
    with eval_mode(model):
        return prefill(model, input_ids.to(device), attention_mask.to(device))


def _no_traces(num_prompts: int, num_traces: int, device: torch.device) -> Traces:
    shape = (num_prompts, num_traces)
    zeros = torch.zeros(shape, device=device)
    return Traces(zeros.new_zeros(*shape, 0).long(), torch.ones_like(zeros).bool(), zeros.new_zeros(*shape, 0), zeros)


def _concatenate(parts: Sequence[Rollouts], order: Sequence[int]) -> Rollouts:
    """Rollouts of several batches of prompts as one, in this order; traces are filled up to the longest."""
    longest = max(part.traces.token_ids.shape[2] for part in parts)

    def widen(values: torch.Tensor, fill: float) -> torch.Tensor:
        return torch.nn.functional.pad(values, (0, longest - values.shape[2]), value=fill)

    def join(values: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat(list(values))[list(order)]

    prompts = [prompt for part in parts for prompt in part.prompts]
    between = [tokens for part in parts for tokens in part.between]
    answers = [part.answer_logprobs for part in parts if part.answer_logprobs is not None]
    return Rollouts(
        join([part.thinks for part in parts]),
        [prompts[place] for place in order],
        [between[place] for place in order],
        Traces(
            join([widen(part.traces.token_ids, -1) for part in parts]),
            join([part.traces.closed for part in parts]),
            join([widen(part.traces.logprobs, 0.0) for part in parts]),
            join([part.traces.closing_logprobs for part in parts]),
        ),
        join([part.sequences for part in parts]),
        join([part.logprobs for part in parts]),
        join([part.valid for part in parts]),
        join([part.leaves for part in parts]),
        join([part.guided for part in parts]),
        join(answers) if answers else None,
    )
