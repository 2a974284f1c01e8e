"""Random rows for losses, what they stand for as plain rollouts, and two judges: loops of our own, and TRL's own code.

Everything is float64, so that equal means equal. The loops follow the papers' formulas in probabilities, one token of
one rollout at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import torch
from trl import GRPOTrainer

from onereason.rl.losses import LossConfig, compute_loss
from onereason.rl.records import LossInputs

TYPES = ("grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo", "ecpo", "gbpo")
TRL_TYPES = ("grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo")


def build_inputs(
    rng: np.random.Generator,
    trace_lengths: Sequence[int] = (3, 0, 5, 1),
    valid: Sequence[Sequence[bool]] = ((True, True, True),) * 4,
    num_levels: int = 2,
    spread: float = 0.4,
    beta: float = 1.0,
) -> LossInputs:
    """Rows with two columns of prompt, traces padded on the left, and K branches of `num_levels` columns.

    Args:
        valid: `R` times `K`; True selects items that a row has.
        spread: standard deviation of the log-ratios.
        beta: what misses (about half of the items) weigh.
    """
    valid = np.array(valid)
    num_rows, num_items = valid.shape
    width = 2 + max(trace_lengths)
    shape = (num_rows, width + num_items * num_levels)
    trace_mask, item_mask = np.zeros(shape, bool), np.zeros(shape, bool)
    item_ids, weights = np.full(shape, -1), np.zeros(shape)
    advantages, miss_weights = np.zeros(shape), np.ones(shape)
    for row in range(num_rows):
        trace_mask[row, width - trace_lengths[row] : width] = True
        advantages[row, :width] = rng.normal()
        hit = rng.random(num_items) < 0.5
        miss_weights[row, :width] = 1.0 if (hit & valid[row]).any() else beta
        for item in np.flatnonzero(valid[row]):
            columns = slice(width + item * num_levels, width + (item + 1) * num_levels)
            item_mask[row, columns], item_ids[row, columns] = True, item
            weights[row, columns] = 1 / valid[row].sum()
            advantages[row, columns] = rng.normal()
            miss_weights[row, columns] = 1.0 if hit[item] else beta
    weights[trace_mask] = 1.0
    scored = trace_mask | item_mask
    rollout = np.where(scored, -rng.exponential(size=shape) - 0.01, 0.0)
    policy = np.where(scored, np.minimum(rollout + rng.normal(0, spread, shape), -0.001), 0.0)
    reference = np.where(scored, np.minimum(rollout + rng.normal(0, spread, shape), -0.001), 0.0)
    tensors = (policy, rollout, advantages * scored, trace_mask, item_mask, weights, item_ids, miss_weights, reference)
    return LossInputs(*map(torch.from_numpy, tensors))


def loss_and_gradient(inputs: LossInputs, config: LossConfig) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    """The loss, its gradient at the policy's log-probabilities `[R, T]`, and the metrics."""
    policy = inputs.policy_logprobs.clone().requires_grad_()
    out = compute_loss(replace(inputs, policy_logprobs=policy), config)
    return out.loss.detach(), torch.autograd.grad(out.loss, policy)[0], out.metrics


@dataclass(frozen=True)
class PlainRollout:
    """Attributes: row: whose it is. columns: of its tokens, in order. weight: how much of a rollout it counts."""

    row: int
    columns: list[int]
    weight: float


def expand(inputs: LossInputs) -> list[PlainRollout]:
    """A row as one rollout (trace, then item) an item; as the trace alone where it has none."""
    rollouts = []
    for row in range(len(inputs.trace_mask)):
        trace = torch.nonzero(inputs.trace_mask[row])[:, 0].tolist()
        ids = sorted(set(inputs.item_ids[row].tolist()) - {-1})
        for item in ids:
            own = torch.nonzero(inputs.item_ids[row] == item)[:, 0].tolist()
            rollouts.append(PlainRollout(row, trace + own, 1 / len(ids)))
        if not ids:
            rollouts.append(PlainRollout(row, trace, 1.0))
    return rollouts


def plain_loss(inputs: LossInputs, config: LossConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradient by loops over plain rollouts and their tokens."""
    policy = inputs.policy_logprobs.clone().requires_grad_()
    num_rows = len(policy)
    rollouts = expand(inputs)
    means, total, num_tokens = 0 * policy.sum(), 0 * policy.sum(), 0.0
    for rollout in rollouts:
        mean_log_ratio = sum(
            (policy[rollout.row, t] - inputs.rollout_logprobs[rollout.row, t] for t in rollout.columns),
            policy.new_zeros(()),
        ) / max(len(rollout.columns), 1)
        of_tokens = policy.new_zeros(())
        for t in rollout.columns:
            at = (rollout.row, t)
            in_trace = bool(inputs.trace_mask[at])
            value = _token_loss(policy[at], inputs, at, in_trace, config, mean_log_ratio)
            value = value * inputs.miss_weights[at] * (config.trace_weight if in_trace else config.item_weight)
            if config.kl_beta:
                reference = inputs.ref_logprobs[at]
                value = value + config.kl_beta * ((reference - policy[at]).exp() - (reference - policy[at]) - 1)
            of_tokens = of_tokens + value
        total = total + rollout.weight * of_tokens
        num_tokens += rollout.weight * len(rollout.columns)
        means = means + rollout.weight * of_tokens / max(len(rollout.columns), 1)
    if config.type in ("bnpo", "dapo", "cispo"):
        loss = total / max(num_tokens, 1)
    elif config.type == "dr_grpo":
        loss = total / (num_rows * config.max_completion_length)
    else:
        loss = means / num_rows
    return loss.detach(), torch.autograd.grad(loss, policy)[0]


def _token_loss(log_p, inputs, at, in_trace, config, mean_log_ratio):
    """One token's loss as the papers write it, in probabilities."""
    p, old = log_p.exp(), inputs.rollout_logprobs[at].exp()
    advantage = float(inputs.advantages[at])
    low, high = config.trace_clip if in_trace else config.item_clip
    if config.type == "cispo":
        most = config.cispo_max[0 if in_trace else 1]
        return -min(float((p / old).detach()), most) * advantage * log_p
    if config.type == "gbpo":  # J = pi / pi'_old A; OneRec V2
        floor = float(p.detach()) if advantage >= 0 else 1 - float(p.detach())
        return -(p / max(float(old.detach()), floor)) * advantage
    ratio = p / old
    if config.type == "gspo":
        ratio = mean_log_ratio.exp()
    elif config.type == "ecpo":  # pi'_old = max(sg(pi) / (1 + eps + delta), pi_old); OneRec V1
        ratio = p / max(float(p.detach()) / (1 + high + config.ecpo_delta), float(old.detach()))
    clipped = min(max(float(ratio.detach()), 1 - low), 1 + high)
    if config.max_ratio is not None and float(ratio.detach()) > config.max_ratio:
        ratio = ratio.new_tensor(config.max_ratio)
    inside = float(ratio.detach()) * advantage <= clipped * advantage
    return -(ratio * advantage) if inside else ratio.new_tensor(-clipped * advantage)


def trl_loss(inputs: LossInputs, config: LossConfig) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    """Loss, gradient and metrics of TRL's own `GRPOTrainer._compute_loss` on the plain rollouts.

    Every row must have equally many items: TRL knows no weights of rollouts. Bounds are given to TRL a token each,
    which its clamp takes as it takes a number.
    """
    rollouts = expand(inputs)
    width = max(len(rollout.columns) for rollout in rollouts)
    rows = torch.tensor([rollout.row for rollout in rollouts])[:, None]
    columns = torch.tensor([rollout.columns + [0] * (width - len(rollout.columns)) for rollout in rollouts])
    mask = torch.tensor([[1] * len(r.columns) + [0] * (width - len(r.columns)) for r in rollouts])
    policy = inputs.policy_logprobs.clone().requires_grad_()
    in_trace = inputs.trace_mask[rows, columns]
    of_trace, of_item = config.trace_clip, config.item_clip
    if config.type == "cispo":
        of_trace, of_item = [(0.0, most) for most in config.cispo_max]

    def of_stage(trace: float, item: float) -> torch.Tensor:
        return torch.full_like(policy[rows, columns], item, requires_grad=False).masked_fill(in_trace, trace)

    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        loss_type="grpo" if config.type == "gspo" else config.type,
        importance_sampling_level="sequence" if config.type == "gspo" else "token",
        epsilon_low=of_stage(of_trace[0], of_item[0]),
        epsilon_high=of_stage(of_trace[1], of_item[1]),
        beta=config.kl_beta,
        max_completion_length=config.max_completion_length,
        args=SimpleNamespace(delta=config.max_ratio, use_bias_correction_kl=False, steps_per_generation=1),
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
        current_gradient_accumulation_steps=1,
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (
            policy[rows, columns],
            torch.zeros_like(mask, dtype=policy.dtype),
            None,
        ),
    )
    batch = {
        "prompt_ids": torch.zeros(len(rollouts), 1, dtype=torch.long),
        "prompt_mask": torch.ones(len(rollouts), 1, dtype=torch.long),
        "completion_ids": torch.zeros_like(mask),
        "completion_mask": mask,
        "advantages": inputs.advantages[rows, columns],
        "old_per_token_logps": inputs.rollout_logprobs[rows, columns],
        "ref_per_token_logps": inputs.ref_logprobs[rows, columns],
        "num_items_in_batch": mask.sum(),
    }
    loss = GRPOTrainer._compute_loss(trainer, trainer.model, batch)
    metrics = {name: values[0] for name, values in trainer._metrics["train"].items()}
    return loss.detach(), torch.autograd.grad(loss, policy)[0], metrics


def make_row(ratios: Sequence[float], advantages: Sequence[float], num_trace: int, **changes: object) -> LossInputs:
    """One row without padding whose first `num_trace` tokens are a trace, the others one item; pi_old is 1/4."""
    size = len(ratios)
    trace_mask = torch.arange(size)[None] < num_trace
    rollout = torch.full((1, size), 0.25, dtype=torch.float64).log()
    inputs = LossInputs(
        policy_logprobs=rollout + torch.tensor([ratios], dtype=torch.float64).log(),
        rollout_logprobs=rollout,
        advantages=torch.tensor([advantages], dtype=torch.float64),
        trace_mask=trace_mask,
        item_mask=~trace_mask,
        token_weights=torch.ones(1, size, dtype=torch.float64),
        item_ids=torch.where(trace_mask, -1, 0),
        miss_weights=torch.ones(1, size, dtype=torch.float64),
    )
    return replace(inputs, **changes)


def trl_advantages(rewards: np.ndarray, num_generations: int, scale: str) -> np.ndarray:
    """The advantages that TRL's own `_generate_and_score_completions` gives rewards `[B]`; NaN where there is none."""
    size = len(rewards)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True, is_gradient_checkpointing=False),
        accelerator=SimpleNamespace(device="cpu", process_index=0, gather=lambda x: x),
        args=SimpleNamespace(
            per_device_train_batch_size=size,
            steps_per_generation=1,
            gradient_accumulation_steps=1,
            gradient_checkpointing_kwargs=None,
        ),
        environment_factories=None,
        tools=None,
        environments=None,
        pad_to_multiple_of=None,
        mask_truncated_completions=False,
        num_iterations=1,
        use_vllm=False,
        beta=0.0,
        num_generations=num_generations,
        multi_objective_aggregation="sum_then_normalize",
        reward_weights=torch.ones(1, dtype=torch.float64),
        scale_rewards=scale,
        reward_func_names=["r"],
        log_multimodal=False,
        _tokenizer=SimpleNamespace(pad_token_id=0),
        _metrics={"train": defaultdict(list)},
        _logs=defaultdict(list, rewards=defaultdict(list)),
        _pending_extra_logs={},
        _pending_metrics={},
        _generate=lambda prompts: ([[1]] * size, [[1]] * size, None, [""] * size, None, {}, None, None),
        _calculate_rewards=lambda *args: torch.from_numpy(rewards)[:, None],
    )
    batch = GRPOTrainer._generate_and_score_completions(trainer, [{"prompt": ""}] * size)
    return batch["advantages"].numpy()
