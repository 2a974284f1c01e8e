"""Rows of traces with items for the losses' tests, and the plain rollouts that they stand for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from onereason.rl.records import LossInputs

LEVELS = 3


@dataclass
class Copies:
    """The rows' rollouts one by one, `[B, S]` each: trace, then item, padded on the right.

    Attributes:
        rows: the row each comes from.
        of_trace: bool; True selects trace tokens.
    """

    policy: torch.Tensor
    rollout: torch.Tensor
    reference: torch.Tensor
    advantages: torch.Tensor
    miss_weights: torch.Tensor
    mask: torch.Tensor
    of_trace: torch.Tensor
    rows: torch.Tensor


def make_inputs(
    lengths: tuple[int, ...] = (4, 2, 0), items: tuple[int, ...] = (3, 3, 2), seed: int = 0, drift: float = 0.4
) -> LossInputs:
    """Rows with so many trace tokens and items; columns before, between and after them are not scored.

    Args:
        drift: standard deviation of the log-ratio between policy and rollout.
    """
    generator = torch.Generator().manual_seed(seed)
    rows, most = len(lengths), max(items)
    width = 2 + max(lengths) + 1 + most * LEVELS

    def normal() -> torch.Tensor:
        return torch.randn(rows, width, generator=generator, dtype=torch.float64)

    trace_mask = torch.zeros(rows, width, dtype=torch.bool)
    item_ids = torch.full((rows, width), -1)
    for row, (length, number) in enumerate(zip(lengths, items, strict=True)):
        trace_mask[row, 2 : 2 + length] = True
        start = 2 + max(lengths) + 1
        item_ids[row, start : start + number * LEVELS] = torch.arange(number).repeat_interleave(LEVELS)
    item_mask = item_ids >= 0
    scored = trace_mask | item_mask
    rollout = -normal().abs() * scored
    policy = (rollout + drift * normal()) * scored
    of_item = torch.randn(rows, most, generator=generator, dtype=torch.float64)
    of_trace = torch.randn(rows, 1, generator=generator, dtype=torch.float64)
    advantages = torch.where(item_mask, of_item.gather(1, item_ids.clamp(min=0)), of_trace * trace_mask)
    hits = torch.rand(rows, most, generator=generator) < 0.5
    miss = torch.where(hits.gather(1, item_ids.clamp(min=0)) | trace_mask, 1.0, 0.3).double()
    weights = trace_mask.double() + item_mask / torch.tensor(items, dtype=torch.float64)[:, None]
    return LossInputs(
        policy_logprobs=policy.requires_grad_(),
        rollout_logprobs=rollout,
        advantages=advantages,
        trace_mask=trace_mask,
        item_mask=item_mask,
        token_weights=weights,
        item_ids=item_ids,
        miss_weights=miss,
        ref_logprobs=(rollout + 0.3 * normal()) * scored,
    )


def expand(inputs: LossInputs) -> Copies:
    """Every rollout on its own; what carries a gradient still does."""
    parts: list[dict[str, Any]] = []
    for row in range(len(inputs.item_ids)):
        for item in range(int(inputs.item_ids[row].max()) + 1):
            own = torch.cat([inputs.trace_mask[row].nonzero()[:, 0], (inputs.item_ids[row] == item).nonzero()[:, 0]])
            parts.append({"row": row, "columns": own})
    width = max(len(part["columns"]) for part in parts)

    def gather(values: torch.Tensor, fill: float = 0.0) -> torch.Tensor:
        rows = [values[part["row"]][part["columns"]] for part in parts]
        return torch.stack([torch.nn.functional.pad(row, (0, width - len(row)), value=fill) for row in rows])

    assert inputs.ref_logprobs is not None
    return Copies(
        gather(inputs.policy_logprobs),
        gather(inputs.rollout_logprobs),
        gather(inputs.ref_logprobs),
        gather(inputs.advantages),
        gather(inputs.miss_weights, 1.0),
        gather(torch.ones_like(inputs.advantages)),
        gather(inputs.trace_mask.double()).bool(),
        torch.tensor([part["row"] for part in parts]),
    )


def select(inputs: LossInputs, rows: slice, **changes: Any) -> LossInputs:
    """Some rows as a micro-step of their own."""
    tensors = {name: value[rows] for name, value in vars(inputs).items() if isinstance(value, torch.Tensor)}
    return replace(inputs, **tensors, **changes)
