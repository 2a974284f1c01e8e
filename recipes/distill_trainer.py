"""The trainer of `recipes.distill`: the student rolls out, its domain's teacher scores what it wrote (MOPD).

Notation: `G` groups of a process's generation batch, `N` traces, `K` items, `R` rows, `T` columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from onereason.errors import ConfigError
from onereason.rl.distillation import (
    distillation_loss,
    information_gain,
    select_informative,
    token_advantages,
    truncated_weights,
)
from onereason.rl.extract import build_reward_inputs
from onereason.rl.guards import rollout_metrics
from onereason.rl.rollout import Rollouts
from onereason.rl.rows import build_rows
from recipes.rollout_trainer import FORWARD, Batch, RolloutPlan, RolloutTrainer
from recipes.teachers import Teachers


@dataclass(frozen=True)
class DistillationConfig:
    """How the student follows its teachers."""

    importance: tuple[float, float] = (0.5, 2.0)
    """Tokens count whose probability changed since the rollout by a factor inside these bounds (Eq. 18)."""
    share: float = 0.8
    """Of the information gain, kept by the fewest rollouts that hold so much of it (Eq. 21); 1 keeps all."""
    trace_weight: float = 1.0
    """Weight of trace tokens."""
    item_weight: float = 1.0
    """Weight of item tokens."""
    max_advantage: float = 5.0
    """Bound on a token's advantage, in nats: one that the teacher rules out must not outweigh all others."""

    def __post_init__(self) -> None:
        low, high = self.importance
        if not 0 <= low <= 1 <= high:
            raise ConfigError(f"distillation.importance must enclose 1, got {list(self.importance)}.")
        if not 0 < self.share <= 1:
            raise ConfigError(f"distillation.share must lie in 0 < share <= 1, got {self.share}.")
        for name in ("trace_weight", "item_weight"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"distillation.{name} must be at least 0, got {getattr(self, name)}.")
        if not self.max_advantage > 0:
            raise ConfigError(f"distillation.max_advantage must be above 0, got {self.max_advantage}.")


@dataclass(frozen=True)
class Distillation(RolloutPlan):
    """What a run of distillation follows.

    Attributes:
        config: how.
    """

    config: DistillationConfig


class DistillationTrainer(RolloutTrainer):
    """On-policy distillation from a teacher a domain."""

    plan: Distillation

    def __init__(self, *args: Any, teachers: Teachers, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._teachers = teachers
        teachers.prepare(self._freeze)

    def _judge(self, asked: Sequence[int], rollouts: Rollouts) -> Batch:
        """The rows of rollouts with their teachers' log-probabilities; those without information get no weight."""
        plan = self.plan
        rows = build_rows(rollouts, self.processing_class.pad_token_id)
        domains = np.repeat([plan.prompts.domains[number] for number in asked], plan.rollout.num_traces)
        scores = torch.zeros_like(rows["rollout_logprobs"])
        for domain in sorted(set(domains.tolist())):
            own = torch.from_numpy(domains == domain).to(scores.device)
            part = {name: rows[name][own] for name in FORWARD}
            scores[own] = self._score_rows(self._teachers.model(domain), part)
        rows["teacher_logprobs"] = scores
        stages = rows["trace_mask"] * plan.config.trace_weight + rows["item_mask"] * plan.config.item_weight
        rows["token_weights"] = rows["token_weights"] * stages
        advantages = self._advantages(scores, rows["rollout_logprobs"])
        gains = information_gain(advantages, rows["token_weights"])
        kept = self._select(gains)
        metrics = rollout_metrics(build_reward_inputs(plan.recommender, plan.prompts, asked, rollouts))
        for domain in sorted(set(domains.tolist())):
            own = torch.from_numpy(domains == domain).to(gains.device)
            metrics[f"teacher/gain_{domain}"] = float(gains[own].mean())
        metrics["teacher/kept"] = float(kept.float().mean())
        rows["token_weights"] = rows["token_weights"] * kept[:, None]
        self._log_all(metrics, {})
        return rows

    def _advantages(self, teacher_logprobs: torch.Tensor, policy_logprobs: torch.Tensor) -> torch.Tensor:
        most = self.plan.config.max_advantage
        return token_advantages(teacher_logprobs, policy_logprobs).clamp(-most, most)

    def _select(self, gains: torch.Tensor) -> torch.Tensor:
        """Which rows are kept, chosen among those of all processes; bool `[R]`."""
        everywhere = self.accelerator.gather(gains)
        start = self.accelerator.process_index * len(gains)
        return select_informative(everywhere, self.plan.config.share)[start : start + len(gains)]

    def _compute_loss(self, model: Any, inputs: Batch) -> torch.Tensor:
        """The loss of a micro-step, normalised over the whole optimizer step on every process."""
        logprobs, _ = self._row_logprobs(model, inputs)
        advantages = self._advantages(inputs["teacher_logprobs"], logprobs)
        importance = truncated_weights(logprobs, inputs["rollout_logprobs"], *self.plan.config.importance)
        weights = inputs["token_weights"]
        loss = distillation_loss(logprobs, advantages, importance, weights, self._share_of_tokens(inputs))
        for stage in ("trace", "item"):
            own = weights * inputs[f"{stage}_mask"]
            if total := float(own.sum()):
                # The divergence from the teacher, as the student's own tokens show it (reverse KL).
                value = float((own * (logprobs - inputs["teacher_logprobs"]).detach()).sum()) / total
                self._metrics["train"][f"kl/teacher_{stage}"].append(value)
                cut = float((own * (importance == 0)).sum()) / total
                self._metrics["train"][f"importance_cut/{stage}"].append(cut)
        return loss
