r"""Reinforcement for recommendation: traces and items rolled out by the policy, rewarded, and learned from (GRPO).

    accelerate launch -m recipes.rl --config recipes/configs/rl/tiny.yaml \
        model=runs/sft/model data=runs/world out=runs/rl
    accelerate launch ... prompts.domains=[video] out=runs/rl_video   # a specialist
    accelerate launch --config_file recipes/accelerate_configs/zero2.yaml -m recipes.rl \
        --config recipes/configs/rl/qwen3-1.7b.yaml model=... data=... out=...

Every step rolls out N traces of each prompt and K items under each trace (OneReason, Eq. 6 and 8), from the policy as
it stands; rewards, advantages, clipping and losses are chosen in the configuration (`onereason.rl`). Batch sizes count
traces. With `selection.data` the checkpoint is chosen by recall on validation users, asked in `selection.mode`. A
collapse (`guards`) stops the run and says which figure fell and why that happens. Run the command again after an
interruption: it goes on from the newest checkpoint. The result is the model folder `out/model`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from onereason.data.prompts import RecommendationPrompt
from onereason.data.schema import INTERACTIONS_FILE, load_dataset
from onereason.data.timelines import build_timelines, split_leave_one_out
from onereason.decoding.recommender import Recommender
from onereason.errors import ConfigError
from onereason.itemic.trie import build_catalog_trie, domain_positions
from onereason.model.folder import ModelFolder, require_catalog
from onereason.rl.advantages import AdvantageConfig
from onereason.rl.guards import GuardConfig
from onereason.rl.losses import LossConfig
from onereason.rl.prompts import PromptConfig, Prompts, build_prompts
from onereason.rl.rewards import RewardConfig
from onereason.rl.rollout import RolloutConfig
from recipes.common import build_validation, load_start_model
from recipes.rl_trainer import CollapseGuard, Reinforcement, build_rl_trainer, make_rl_arguments
from recipes.run import claim_run_folder, finish_run, leave_process, parse_command_line, prepare_process, start_run
from recipes.trainers import build_callbacks
from recipes.tuning import ModelRunConfig, add_adapters, choose_merge


@dataclass(frozen=True)
class RlConfig(ModelRunConfig):
    """Reinforcement; starts from the SFT's model folder (or, for a specialist or a second stage, from another)."""

    data: str = ""
    """Dataset folder whose training timelines are asked about."""
    prompts: PromptConfig = field(default_factory=PromptConfig)
    """Which moments of the timelines are asked about."""
    prompt: Literal["chat", "plain"] = "chat"
    """Prompt style; mode `think` needs `chat`."""
    max_history: int = 50
    """Newest items in a prompt."""
    language: str = "en"
    """Wording of the prompts, see `selection.language`."""
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    """Traces and items of a prompt."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """What rollouts are rewarded for."""
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    """How rewards become advantages."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The policy's loss."""
    minibatches: int = 1
    """Optimizer steps that the rollouts of one generation are cut into."""
    num_iterations: int = 1
    """How often the rollouts of one generation are gone through."""
    guards: GuardConfig = field(default_factory=GuardConfig)
    """When a run counts as collapsed and is stopped."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data:
            raise ConfigError("data is not set: name the dataset folder whose timelines are asked about.")
        for name in ("minibatches", "num_iterations", "max_history"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.training.attn_implementation not in ("sdpa", "eager"):
            raise ConfigError(
                "training.attn_implementation must be sdpa or eager in recipes.rl (rows are trees of one trace and its "
                f"items, which need a 4D mask), got {self.training.attn_implementation}."
            )


def build_recommender(folder: ModelFolder, config: RlConfig) -> Recommender:
    """The folder's model as it is asked."""
    catalog = require_catalog(folder)
    trie = build_catalog_trie(catalog, folder.vocabulary)
    prompt = RecommendationPrompt(folder.tokenizer, folder.vocabulary, style=config.prompt, language=config.language)
    return Recommender(folder.model, folder.vocabulary, catalog, trie, prompt, config.max_history)


def load_prompts(config: RlConfig, recommender: Recommender) -> Prompts:
    """The prompts of the dataset's training part."""
    timelines = build_timelines(load_dataset(config.data).interactions, recommender.catalog.index)
    names, position = domain_positions(recommender.catalog)
    domains = np.array(names, dtype=object)[position].tolist()
    train = split_leave_one_out(timelines).train
    return build_prompts(train, timelines.user_ids, domains, config.prompts, config.training.seed)


def run(config: RlConfig) -> None:
    prepare_process()
    make = make_rl_arguments(
        config.rollout.num_traces, config.minibatches, config.num_iterations, config.rollout.sampling.temperature
    )
    checkpoint, arguments = start_run(config, config.selection, make)
    folder = load_start_model(config.model, config.training)
    recommender = build_recommender(folder, config)
    prompts = load_prompts(config, recommender)
    reward = config.reward.build(recommender.trie.num_levels, config.rollout.num_items)
    validate = build_validation(config.selection, folder, config.training.seed)
    reinforcement = Reinforcement(
        recommender, prompts, config.rollout, reward, config.advantage, config.loss, config.training.seed
    )
    add_adapters(folder, config)
    reference = load_start_model(config.model, config.training).model if config.loss.kl_beta else None
    claim_run_folder(config)
    guard = CollapseGuard(config.guards, Path(config.out))
    trainer = build_rl_trainer(
        folder.model,
        folder.tokenizer,
        reinforcement,
        arguments,
        reference,
        validate,
        [*build_callbacks(config.selection), guard],
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    guard.raise_collapse()
    counts = {"prompts": len(prompts), **{f"left_out_{reason}": count for reason, count in prompts.counts.items()}}
    finish_run(
        config,
        trainer,
        [Path(config.data) / INTERACTIONS_FILE],
        counts,
        prepare=lambda fresh: add_adapters(fresh, config),
        merge=choose_merge(config),
    )


if __name__ == "__main__":
    leave_process(parse_command_line(RlConfig, run, __doc__))
