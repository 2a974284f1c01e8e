"""The trainer of `recipes.rl`: rollouts are rewarded, and the policy follows their advantages.

Notation: `G` groups of a process's generation batch, `N` traces, `K` items, `R` rows, `T` columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from onereason.itemic.trie import domain_positions
from onereason.rl.advantages import AdvantageConfig, compute_advantages
from onereason.rl.extract import build_reward_inputs
from onereason.rl.guards import hits, rollout_metrics
from onereason.rl.losses import LossConfig, compute_loss
from onereason.rl.records import LossInputs
from onereason.rl.rewards import CombinedReward, format_advantages
from onereason.rl.rollout import Rollouts
from onereason.rl.rows import build_rows
from onereason.rl.values import ItemValues
from recipes.rollout_trainer import Batch, RolloutPlan, RolloutTrainer


@dataclass(frozen=True)
class Reinforcement(RolloutPlan):
    """What a run of reinforcement optimises.

    Attributes:
        format_subset: how many rollouts of a group get an advantage for being legal (`format_advantages`); 0 for none.
        reward, values: how rollouts are judged, and what the rewards read for it.
        advantage, loss: how the policy is moved.
    """

    reward: CombinedReward
    values: ItemValues
    advantage: AdvantageConfig
    loss: LossConfig
    format_subset: int | float = 0


class RecommendationGRPOTrainer(RolloutTrainer):
    """GRPO over two-stage rollouts."""

    plan: Reinforcement

    def __init__(self, *args: Any, ref_model: Any = None, **kwargs: Any):
        """
        Args:
            ref_model: the frozen reference of the KL term, where there is one.
        """
        super().__init__(*args, **kwargs)
        names, position = domain_positions(self.plan.recommender.catalog)
        self._domains = np.array(names, dtype=object)[position].tolist()
        self._reference = None if ref_model is None else self._freeze(ref_model)

    def _judge(self, asked: Sequence[int], rollouts: Rollouts) -> Batch:
        """The rows of rollouts with their advantages; logs rewards and what was skipped."""
        run = self.plan
        found = build_reward_inputs(run.recommender, run.prompts, asked, rollouts, run.seed + self.state.global_step)
        found = run.values.add_to(found, run.recommender, run.prompts, asked, rollouts, self._domains)
        rewards = run.reward.compute(found)
        advantages = compute_advantages(
            rewards.total, found.valid, found.thinks, run.advantage, rewards.kept, found.guided
        )
        rows = build_rows(rollouts, self.processing_class.pad_token_id)
        device = rows["labels"].device
        num_rows = len(rows["labels"])
        of_trace = torch.from_numpy(advantages.trace.reshape(num_rows, 1)).to(device).float()
        item = advantages.item
        if run.format_subset:
            item = item + format_advantages(found, run.format_subset)
        of_item = torch.from_numpy(item.reshape(num_rows, -1)).to(device).float()
        own = of_item.gather(1, rows["item_ids"].clamp(min=0))
        rows["advantages"] = torch.where(rows["item_mask"], own, of_trace * rows["trace_mask"])
        hit = torch.from_numpy(hits(found).reshape(num_rows, -1)).to(device)
        own_hit = torch.where(rows["item_mask"], hit.gather(1, rows["item_ids"].clamp(min=0)), hit.any(1, keepdim=True))
        rows["miss_weights"] = torch.where(own_hit, 1.0, run.loss.miss_weight)
        self._log_all(rewards.metrics | rollout_metrics(found), {**rewards.skipped, **advantages.skipped})
        if self._reference is not None:
            rows["ref_logprobs"] = self._score_rows(self._reference, rows)
        return rows

    def _compute_loss(self, model: Any, inputs: Batch) -> torch.Tensor:
        """The loss of a micro-step, normalised over the whole optimizer step on every process."""
        run = self.plan
        logprobs, entropy = self._row_logprobs(model, inputs)
        accumulated = self.current_gradient_accumulation_steps
        outputs = compute_loss(
            LossInputs(
                policy_logprobs=logprobs,
                rollout_logprobs=inputs["rollout_logprobs"],
                advantages=inputs["advantages"],
                trace_mask=inputs["trace_mask"],
                item_mask=inputs["item_mask"],
                token_weights=inputs["token_weights"],
                item_ids=inputs["item_ids"],
                miss_weights=inputs["miss_weights"],
                ref_logprobs=inputs.get("ref_logprobs"),
                num_rollout_tokens=self._share_of_tokens(inputs),
                num_rows=float(len(logprobs) * accumulated),
            ),
            run.loss,
        )
        metrics = dict(outputs.metrics)
        for stage in ("trace", "item"):
            weights = inputs["token_weights"] * inputs[f"{stage}_mask"]
            if total := float(weights.sum()):
                metrics[f"entropy/{stage}"] = float((entropy.detach() * weights).sum()) / total
        for name, value in metrics.items():
            self._metrics["train"][name].append(value)
        return outputs.loss
