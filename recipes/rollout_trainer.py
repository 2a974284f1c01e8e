"""TRL's GRPOTrainer whose step rolls the policy out in two stages and trains on rows of one trace and its items.

What TRL brings: sampling of prompts in groups, buffering of rollouts over minibatches and iterations, checkpoints,
logs, every kind of parallel training. What is ours: the rollouts (`onereason.rl.rollout`), and the pure functions over
records that judge them. Names with a leading underscore are those of the TRL version that `pyproject.toml` pins.

A row of a batch is one trace with its K items, so the K-fold growth of the items is inside rows: batch sizes,
minibatches and accumulation count traces.

Notation: `G` groups of a process's generation batch, `N` traces, `K` items, `L` levels, `R` rows, `T` columns.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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

from onereason.data.schema import INTERACTIONS_FILE
from onereason.decoding.recommender import Recommender
from onereason.errors import CollapseError, ConfigError
from onereason.io import write_jsonl
from onereason.model.folder import ModelFolder
from onereason.rl.guards import GuardConfig, find_collapse
from onereason.rl.prompts import Prompts
from onereason.rl.rollout import RolloutConfig, Rollouts, roll_out
from onereason.rl.rows import attention_bias
from recipes.rollout_run import RolloutRunConfig, count_prompts
from recipes.run import claim_run_folder, finish_run
from recipes.trainers import RecommendationTrainer, Validate, build_callbacks, supervised_positions_only
from recipes.tuning import add_adapters, choose_merge

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class RolloutPlan:
    """What a run rolls out.

    Attributes:
        recommender: tokenizer, catalog and trie; its model is replaced by the policy at hand.
        prompts: what is asked.
        rollout: how.
        seed: of the rollouts.
    """

    recommender: Recommender
    prompts: Prompts
    rollout: RolloutConfig
    seed: int


def make_rl_arguments(
    num_traces: int, minibatches: int, num_iterations: int, temperature: float = 1.0
) -> Callable[..., TrainingArguments]:
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


class RolloutTrainer(RecommendationTrainer, GRPOTrainer):
    """TRL's GRPOTrainer over two-stage rollouts; evaluation is constrained recall on validation users."""

    def __init__(self, *args: Any, plan: RolloutPlan, **kwargs: Any):
        super().__init__(*args, reward_funcs=_no_reward, **kwargs)
        self.plan = plan
        self._num_levels = plan.recommender.trie.num_levels

    @abstractmethod
    def _judge(self, asked: Sequence[int], rollouts: Rollouts) -> Batch:
        """The rows of the rollouts behind the prompts numbered `asked`, with what the loss needs beside them."""

    def _freeze(self, model: Any) -> Any:
        """Another model, ready to score rows as the policy does."""
        add_fused_lm_head(model, temperature=self.temperature)
        return self.accelerator.prepare_model(model.requires_grad_(False), evaluation_mode=True)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Batch:
        """Rolls out and judges the prompts of a generation batch; gives its rows."""
        plan = self.plan
        num_traces = plan.rollout.num_traces
        asked = [row["prompt"] for row in inputs[::num_traces]]
        assert [row["prompt"] for row in inputs] == list(np.repeat(asked, num_traces)), "a group is split"
        seeds = [(plan.seed, self.state.global_step, number) for number in asked]
        with (
            torch.no_grad(),
            disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs),
            unwrap_model_for_generation(self.model_wrapped, self.accelerator) as model,
            self.accelerator.autocast(),
        ):
            rollouts = roll_out(
                replace(plan.recommender, model=model),
                [plan.prompts.histories[number] for number in asked],
                [plan.prompts.domains[number] for number in asked],
                seeds,
                plan.rollout,
                [int(plan.prompts.positives[number][0]) for number in asked],
            )
        rows = self._judge(asked, rollouts)
        rows["num_rollout_tokens"] = self.accelerator.gather(rows["token_weights"].sum()).sum()
        return rows

    def _share_of_tokens(self, inputs: Batch) -> float:
        """Rollout tokens of the optimizer step; a process's share, as gradients are averaged over processes."""
        total = inputs["num_rollout_tokens"] * self.current_gradient_accumulation_steps / self.args.steps_per_generation
        return float(total) / self.accelerator.num_processes

    def _row_logprobs(self, model: Any, rows: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of each column's label, and the entropy it was one outcome of; `[R, T]` both, 0 unscored."""
        dtype = next(self.accelerator.unwrap_model(model).parameters()).dtype
        bias = attention_bias(rows["base_mask"], self.plan.rollout.num_items, self._num_levels, dtype)
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
    def _score_rows(self, model: Any, rows: Batch) -> torch.Tensor:
        """Log-probabilities of the rows' labels under a frozen model, `[R, T]`, in parts of a micro-step's size."""
        parts = []
        size = self.args.per_device_train_batch_size
        for start in range(0, len(rows["labels"]), size):
            part = {name: rows[name][start : start + size] for name in FORWARD}
            parts.append(self._row_logprobs(model, part)[0])
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


FORWARD = ("input_ids", "position_ids", "labels", "base_mask")
"""What of a row a model reads."""


def _no_reward(**kwargs: Any) -> list[float]:
    raise AssertionError("rewards are computed from rollouts")


def train_on_rollouts(
    cls: type[RolloutTrainer],
    config: RolloutRunConfig,
    folder: ModelFolder,
    plan: RolloutPlan,
    arguments: TrainingArguments,
    checkpoint: str | None,
    validate: Validate | None = None,
    **options: Any,
) -> None:
    """Claims the run's folder, trains, and writes `out/model`, with LoRA `out/adapter` too.

    Args:
        folder: the model as it trains, with its adapters.
        arguments, checkpoint: see `start_run`.
        options: of the trainer's class.

    Raises:
        CollapseError: a guard stopped the run.
    """
    claim_run_folder(config)
    guard = CollapseGuard(config.guards, Path(config.out))
    callbacks = [*build_callbacks(config.selection), guard]
    trainer = build_rollout_trainer(
        cls, folder.model, folder.tokenizer, plan, arguments, validate, callbacks, **options
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    guard.raise_collapse()
    finish_run(
        config,
        trainer,
        [Path(config.data) / INTERACTIONS_FILE],
        count_prompts(plan.prompts),
        prepare=lambda fresh: add_adapters(fresh, config),
        merge=choose_merge(config),
    )


def build_rollout_trainer(
    cls: type[RolloutTrainer],
    model: Any,
    tokenizer: Any,
    plan: RolloutPlan,
    arguments: TrainingArguments,
    validate: Validate | None = None,
    callbacks: Sequence[Any] = (),
    **options: Any,
) -> RolloutTrainer:
    """A trainer over the plan's prompts.

    Args:
        arguments: made by `make_rl_arguments`.
        options: of the class itself.
    """
    return cls(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict({"prompt": range(len(plan.prompts))}),
        processing_class=tokenizer,
        callbacks=list(callbacks),
        validate=validate,
        plan=plan,
        **options,
    )
