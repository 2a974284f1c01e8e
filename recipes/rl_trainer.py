"""TRL's GRPOTrainer whose step rolls the policy out in two stages and trains on rows of one trace and its items.

What TRL brings: sampling of prompts in groups, buffering of rollouts over minibatches and iterations, checkpoints,
logs, every kind of parallel training. What is ours: the rollouts (`onereason.rl.rollout`), rewards, advantages and
losses, which are pure functions over records. Names with a leading underscore are those of the TRL version that
`pyproject.toml` pins.

A row of a batch is one trace with its K items, so the K-fold growth of the items is inside rows: batch sizes,
minibatches and accumulation count traces.

Notation: `G` groups of a process's generation batch, `N` traces, `K` items, `L` levels, `R` rows, `T` columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainingArguments
from trl import GRPOConfig as GRPOArguments
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing, unwrap_model_for_generation
from trl.trainer.utils import add_fused_lm_head

from onereason.decoding.recommender import Recommender
from onereason.errors import CollapseError, ConfigError
from onereason.io import write_jsonl
from onereason.rl.advantages import AdvantageConfig, compute_advantages
from onereason.rl.extract import build_reward_inputs
from onereason.rl.guards import GuardConfig, find_collapse, hits, rollout_metrics
from onereason.rl.losses import LossConfig, compute_loss
from onereason.rl.prompts import Prompts
from onereason.rl.records import LossInputs
from onereason.rl.rewards import CombinedReward
from onereason.rl.rollout import RolloutConfig, Rollouts, roll_out
from onereason.rl.rows import attention_bias, build_rows
from recipes.trainers import RecommendationTrainer, Validate, supervised_positions_only

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Reinforcement:
    """What a run of reinforcement optimises.

    Attributes:
        recommender: tokenizer, catalog and trie; its model is replaced by the policy at hand.
        prompts: what is asked.
        rollout, reward, advantage, loss: how the policy is rolled out, judged and moved.
        seed: of the rollouts.
    """

    recommender: Recommender
    prompts: Prompts
    rollout: RolloutConfig
    reward: CombinedReward
    advantage: AdvantageConfig
    loss: LossConfig
    seed: int


def make_rl_arguments(num_traces: int, minibatches: int, num_iterations: int, temperature: float = 1.0) -> Any:
    """Makes TRL's arguments out of transformers'.

    Args:
        minibatches: optimizer steps a generation of rollouts is cut into.
        num_iterations: how often each is gone through.
        temperature: of the rollouts; log-probabilities are taken at it.

    Raises (when called):
        ConfigError: a batch that does not hold whole groups of `num_traces`, on each process.
    """

    def make(**options: Any) -> TrainingArguments:
        steps = options["gradient_accumulation_steps"] * minibatches
        rows = options["per_device_train_batch_size"] * steps
        if rows % num_traces:
            raise ConfigError(
                f"training.per_device_train_batch_size x gradient_accumulation_steps x minibatches ({rows} traces a "
                f"process and generation) must be divisible by rollout.num_traces ({num_traces}), so that a group's "
                f"traces stay together; use {-(-rows // num_traces) * num_traces}."
            )
        period = minibatches * num_iterations
        for name in ("save_steps", "eval_steps"):
            every = options.get(name) or 0
            if every >= 1 and every % period:
                raise ConfigError(
                    "checkpoints must fall between generations, or a resumed run rolls out anew what an interrupted "
                    f"one had half used: {name} is {every:g}, minibatches x num_iterations {period}; use a multiple of "
                    f"{period}."
                )
        return GRPOArguments(
            num_generations=num_traces,
            steps_per_generation=steps,
            num_iterations=num_iterations,
            per_device_eval_batch_size=num_traces,
            beta=0.0,  # the reference is ours: TRL would keep another adapter, or load the model once more
            temperature=temperature,
            disable_dropout=True,
            log_completions=False,
            **options,
        )

    return make


GUARD_LOG = "guards.jsonl"


class CollapseGuard(TrainerCallback):
    """Stops a run whose figures collapse; keeps their curve in `out/guards.jsonl`.

    The log lines of a run before are read again, so that a resumed run is judged against the run's own start.
    """

    def __init__(self, config: GuardConfig, out: Path):
        self.config, self.path = config, out / GUARD_LOG
        self.history: list[dict[str, Any]] = []
        self.reason: str | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.history = [line for line in map(_guard_line, state.log_history) if line is not None]

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        line = _guard_line({**(logs or {}), "step": state.global_step})
        if line is None:
            return
        self.history.append(line)
        if state.is_world_process_zero:
            write_jsonl(self.path, self.history)
        self.reason = find_collapse(self.history, self.config)
        if self.reason is not None:
            control.should_training_stop = True

    def raise_collapse(self) -> None:
        """`CollapseError` where the run was stopped for one."""
        if self.reason is not None:
            raise CollapseError(
                f"stopped at step {self.history[-1]['step']}: {self.reason} The curve is in {self.path}, earlier "
                "checkpoints beside it."
            )


def _guard_line(logged: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the guards read of a log line; None where it is none of a rollout."""
    kept = {name: value for name, value in logged.items() if name.startswith(("rollout/", "reward/", "kl/"))}
    return {"step": logged["step"], **kept} if kept else None


class RecommendationGRPOTrainer(RecommendationTrainer, GRPOTrainer):
    """TRL's GRPOTrainer over two-stage rollouts; evaluation is constrained recall on validation users."""

    def __init__(self, *args: Any, reinforcement: Reinforcement, ref_model: Any = None, **kwargs: Any):
        """
        Args:
            ref_model: the frozen reference of the KL term, where there is one.
        """
        super().__init__(*args, reward_funcs=_no_reward, **kwargs)
        self.reinforcement = reinforcement
        self._reference = None
        if ref_model is not None:
            add_fused_lm_head(ref_model, temperature=self.temperature)
            self._reference = self.accelerator.prepare_model(ref_model.requires_grad_(False), evaluation_mode=True)
        self._num_items = reinforcement.rollout.num_items
        self._num_levels = reinforcement.recommender.trie.num_levels

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Batch:
        """Rolls out, rewards, and judges the prompts of a generation batch; gives its rows."""
        run = self.reinforcement
        num_traces = run.rollout.num_traces
        asked = [row["prompt"] for row in inputs[::num_traces]]
        assert [row["prompt"] for row in inputs] == list(np.repeat(asked, num_traces)), "a group is split"
        seeds = [(run.seed, self.state.global_step, number) for number in asked]
        with (
            torch.no_grad(),
            disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs),
            unwrap_model_for_generation(self.model_wrapped, self.accelerator) as model,
            self.accelerator.autocast(),
        ):
            rollouts = roll_out(
                replace(run.recommender, model=model),
                [run.prompts.histories[number] for number in asked],
                [run.prompts.domains[number] for number in asked],
                seeds,
                run.rollout,
            )
        rows = self._judge(asked, rollouts)
        if self._reference is not None:
            rows["ref_logprobs"] = self._reference_logprobs(rows)
        rows["num_rollout_tokens"] = self.accelerator.gather(rows["token_weights"].sum()).sum()
        return rows

    def _judge(self, asked: Sequence[int], rollouts: Rollouts) -> Batch:
        """The rows of rollouts with their advantages; logs rewards and what was skipped."""
        run = self.reinforcement
        found = build_reward_inputs(run.recommender, run.prompts, asked, rollouts, run.seed + self.state.global_step)
        rewards = run.reward.compute(found)
        has_trace = run.rollout.mode == "think"
        advantages = compute_advantages(rewards.total, found.valid, has_trace, run.advantage, rewards.kept)
        rows = build_rows(rollouts, self.processing_class.pad_token_id)
        device = rows["labels"].device
        num_rows = len(rows["labels"])
        of_trace = torch.from_numpy(advantages.trace.reshape(num_rows, 1)).to(device).float()
        of_item = torch.from_numpy(advantages.item.reshape(num_rows, -1)).to(device).float()
        own = of_item.gather(1, rows["item_ids"].clamp(min=0))
        rows["advantages"] = torch.where(rows["item_mask"], own, of_trace * rows["trace_mask"])
        hit = torch.from_numpy(hits(found).reshape(num_rows, -1)).to(device)
        own_hit = torch.where(rows["item_mask"], hit.gather(1, rows["item_ids"].clamp(min=0)), hit.any(1, keepdim=True))
        rows["miss_weights"] = torch.where(own_hit, 1.0, run.loss.miss_weight)
        self._log_all(rewards.metrics | rollout_metrics(found), {**rewards.skipped, **advantages.skipped})
        return rows

    def _compute_loss(self, model: Any, inputs: Batch) -> torch.Tensor:
        """The loss of a micro-step, normalised over the whole optimizer step on every process."""
        run = self.reinforcement
        logprobs, entropy = self._row_logprobs(model, inputs)
        accumulated = self.current_gradient_accumulation_steps
        num_tokens = inputs["num_rollout_tokens"] * accumulated / self.args.steps_per_generation
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
                # Gradients are averaged over processes, so each counts its share of the step.
                num_rollout_tokens=float(num_tokens) / self.accelerator.num_processes,
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

    def _row_logprobs(self, model: Any, rows: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of each column's label, and the entropy it was one outcome of; `[R, T]` both, 0 unscored."""
        bias = attention_bias(rows["base_mask"], self._num_items, self._num_levels, torch.float32)
        with supervised_positions_only(), self.accelerator.autocast():
            out = model(
                input_ids=rows["input_ids"],
                attention_mask=bias,
                position_ids=rows["position_ids"],
                shift_labels=rows["labels"],
                fused_lm_head=True,
            )
        return out.log_probs, out.entropy

    @torch.no_grad()
    def _reference_logprobs(self, rows: Batch) -> torch.Tensor:
        """Of the reference, `[R, T]`, in parts of a micro-step's size."""
        parts = []
        size = self.args.per_device_train_batch_size
        for start in range(0, len(rows["labels"]), size):
            part = {name: rows[name][start : start + size] for name in _FORWARD}
            parts.append(self._row_logprobs(self._reference, part)[0])
        return torch.cat(parts)

    def _log_all(self, metrics: Mapping[str, float], reasons: Mapping[str, int]) -> None:
        """Means over processes; skipped groups by reason as numbers of the generation batch."""
        gathered = gather_object([dict(metrics)])
        for name in sorted(set().union(*gathered)):
            values = [found[name] for found in gathered if name in found]
            self._metrics["train"][name].append(float(np.mean(values)))
        skipped: Counter[str] = Counter()
        for found in gather_object([dict(reasons)]):
            skipped.update(found)
        for reason, count in skipped.items():
            self._metrics["train"][f"skipped/{reason}"].append(float(count))

    def _send_telemetry(self) -> None:
        """Nobody is told of a run."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The finished folder's manifest says what the model was made from."""


_FORWARD = ("input_ids", "position_ids", "labels", "base_mask")


def _no_reward(**kwargs: Any) -> list[float]:
    raise AssertionError("rewards are computed from rollouts")


def build_rl_trainer(
    model: Any,
    tokenizer: Any,
    reinforcement: Reinforcement,
    arguments: TrainingArguments,
    ref_model: Any = None,
    validate: Validate | None = None,
    callbacks: Sequence[Any] = (),
) -> RecommendationGRPOTrainer:
    """The trainer of `recipes.rl`; `arguments` were made by `make_rl_arguments`."""
    return RecommendationGRPOTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict({"prompt": range(len(reinforcement.prompts))}),
        processing_class=tokenizer,
        callbacks=list(callbacks),
        validate=validate,
        reinforcement=reinforcement,
        ref_model=ref_model,
    )
