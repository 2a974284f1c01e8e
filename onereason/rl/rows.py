"""Rollouts as rows a model is trained on: one trace with the K items under it, each token once.

A row's columns are its *base* (prompt, trace, what closes it), padded on the left, and K branches of L columns, one an
item: the base's last token, then all codes but the last. A branch sees the base and itself (a 4D mask), so each of its
columns predicts the item's next code as if the item alone stood behind the base. A prompt and a trace are so computed
once, not K times.

Notation: `G` prompts, `N` traces a prompt, `R = G * N` rows, `K` items a row, `L` levels, `A` base columns, `M` trace
tokens, `T = A + K * L` columns.
"""

from __future__ import annotations

import numpy as np
import torch

from onereason.rl.rollout import Rollouts

IGNORED = -100
"""Label of a column whose prediction is not scored."""


def build_rows(rollouts: Rollouts, pad_id: int = 0) -> dict[str, torch.Tensor]:
    """Rows in the order of prompts, then traces, on the rollouts' device.

    Returns:
        `input_ids`, `position_ids`, `labels`: int64 `[R, T]`; the label of a column is the token it predicts.
        `base_mask`: bool `[R, A]`; True selects base tokens, False padding.
        `trace_mask`, `item_mask`: bool `[R, T]`; True selects columns that predict a token of the trace (the one that
            closes it included, where it closed by itself), a code.
        `item_ids`: int64 `[R, T]`, which item a column belongs to, -1 for the base.
        `rollout_logprobs`: float32 `[R, T]`, of the labels, by the policy that rolled out; 0 elsewhere.
        `token_weights`: float32 `[R, T]`: 1 for trace tokens, 1 / (valid items of the row) for codes, 0 elsewhere.
    """
    num_prompts, num_traces, num_items = rollouts.shape
    num_levels, device = rollouts.sequences.shape[-1], rollouts.valid.device
    num_rows, num_branch = num_prompts * num_traces, num_items * num_levels
    traces = rollouts.traces.lists()
    whole = [
        [*rollouts.prompts[g], *traces[g][n], *rollouts.between[g]]
        for g in range(num_prompts)
        for n in range(num_traces)
    ]
    width = max(map(len, whole)) - 1
    lengths = np.array([len(tokens) - 1 for tokens in whole])
    base = np.full((num_rows, width), pad_id, np.int64)
    for row, tokens in enumerate(whole):
        base[row, width - len(tokens) + 1 :] = tokens[:-1]
    column = np.arange(width)
    base_mask = column >= (width - lengths)[:, None]  # [R, A]

    # A base column predicts the column right of it; the base's last one predicts the anchor, which is given.
    prompt_lengths = np.repeat([len(prompt) for prompt in rollouts.prompts], num_traces)
    trace_lengths = rollouts.traces.lengths.cpu().numpy().reshape(-1)
    closed = rollouts.traces.closed.cpu().numpy().reshape(-1) & (trace_lengths >= 0)
    closed &= np.repeat([len(tokens) > 0 for tokens in rollouts.between], num_traces)
    first = width - lengths + prompt_lengths - 1  # the column that predicts the trace's first token
    step = column - first[:, None]  # [R, A]
    predicts_trace = (step >= 0) & (step < (trace_lengths + closed)[:, None])
    following = np.concatenate([base[:, 1:], np.array([[tokens[-1]] for tokens in whole])], 1)
    base_labels = np.where(predicts_trace, following, IGNORED)

    sequences = rollouts.sequences.reshape(num_rows, num_items, num_levels)
    valid = rollouts.valid.reshape(num_rows, num_items, 1).expand(-1, -1, num_levels)
    anchor = torch.tensor([tokens[-1] for tokens in whole], device=device)[:, None, None].expand(-1, num_items, 1)
    branch = torch.cat([anchor, sequences[..., :-1].clamp(min=0)], -1)
    branch_labels = torch.where(valid, sequences, IGNORED)
    behind = torch.from_numpy(lengths).to(device)[:, None] + torch.arange(num_levels, device=device).repeat(num_items)
    positions = torch.from_numpy(np.maximum(column - (width - lengths)[:, None], 0)).to(device)

    logprobs = torch.cat(
        [rollouts.traces.logprobs, rollouts.traces.logprobs.new_zeros(*rollouts.valid.shape[:2], 1)], -1
    )
    logprobs = logprobs.reshape(num_rows, -1).clone()  # [R, M + 1]
    ends = torch.from_numpy(trace_lengths).to(device)[:, None]
    logprobs.scatter_(1, ends, rollouts.traces.closing_logprobs.reshape(-1, 1).to(logprobs.dtype))
    place = torch.from_numpy(np.clip(step, 0, logprobs.shape[1] - 1)).to(device)
    trace_mask = torch.from_numpy(predicts_trace).to(device)
    base_logprobs = logprobs.gather(1, place).masked_fill(~trace_mask, 0.0)

    none = torch.zeros(num_rows, num_branch, dtype=torch.bool, device=device)
    item_columns = valid.reshape(num_rows, -1)
    weights = 1.0 / rollouts.valid.reshape(num_rows, num_items).sum(1, keepdim=True).clamp(min=1)
    ids = torch.arange(num_items, device=device).repeat_interleave(num_levels).expand(num_rows, -1)
    return {
        "input_ids": torch.cat([torch.from_numpy(base).to(device), branch.reshape(num_rows, -1)], 1),
        "position_ids": torch.cat([positions, behind], 1),
        "labels": torch.cat([torch.from_numpy(base_labels).to(device), branch_labels.reshape(num_rows, -1)], 1),
        "base_mask": torch.from_numpy(base_mask).to(device),
        "trace_mask": torch.cat([trace_mask, none], 1),
        "item_mask": torch.cat([torch.zeros_like(trace_mask), item_columns], 1),
        "item_ids": torch.cat([torch.full_like(positions, -1), torch.where(item_columns, ids, -1)], 1),
        "rollout_logprobs": torch.cat([base_logprobs, rollouts.logprobs.reshape(num_rows, -1)], 1).float(),
        "token_weights": torch.cat([trace_mask.float(), item_columns * weights], 1),
    }


def attention_bias(base_mask: torch.Tensor, num_items: int, num_levels: int, dtype: torch.dtype) -> torch.Tensor:
    """The 4D mask of rows: 0 where a column sees another, the type's least number elsewhere; `[R, 1, T, T]`.

    Args:
        base_mask: bool `[R, A]`; True selects base tokens.
    """
    num_rows, width = base_mask.shape
    device = base_mask.device
    branch = num_items * num_levels
    causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    seen = torch.zeros(num_rows, width + branch, width + branch, dtype=torch.bool, device=device)
    seen[:, :width, :width] = causal & base_mask[:, None]
    seen[:, width:, :width] = base_mask[:, None]
    own = torch.block_diag(*[torch.ones(num_levels, num_levels, device=device).tril()] * num_items).bool()
    seen[:, width:, width:] = own
    seen |= torch.eye(width + branch, dtype=torch.bool, device=device)  # no query may see nothing at all
    bias = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)
    return bias[:, None]
