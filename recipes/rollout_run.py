"""What recipes share whose model rolls out while it trains: configuration, recommender and prompts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from onereason.data.prompts import RecommendationPrompt
from onereason.data.schema import load_dataset
from onereason.data.timelines import build_timelines, split_leave_one_out
from onereason.decoding.recommender import Recommender
from onereason.errors import ConfigError
from onereason.itemic.trie import build_catalog_trie, domain_positions
from onereason.model.folder import ModelFolder, require_catalog
from onereason.rl.guards import GuardConfig
from onereason.rl.prompts import PromptConfig, Prompts, build_prompts
from onereason.rl.rollout import RolloutConfig
from recipes.tuning import ModelRunConfig


@dataclass(frozen=True)
class RolloutRunConfig(ModelRunConfig):
    """A run on rollouts of the model itself."""

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
                "training.attn_implementation must be sdpa or eager here (rows are trees of one trace and its items, "
                f"which need a 4D mask), got {self.training.attn_implementation}."
            )
        if self.prompt != "chat" and self.rollout.mode != "no_think":
            raise ConfigError(
                f"rollout.mode {self.rollout.mode} needs prompt chat, got {self.prompt!r}: text without turns has no "
                "think block; or set rollout.mode=no_think."
            )


def build_recommender(folder: ModelFolder, config: RolloutRunConfig) -> Recommender:
    """The folder's model as it is asked."""
    catalog = require_catalog(folder)
    trie = build_catalog_trie(catalog, folder.vocabulary)
    prompt = RecommendationPrompt(folder.tokenizer, folder.vocabulary, style=config.prompt, language=config.language)
    return Recommender(folder.vocabulary, catalog, trie, prompt, config.max_history, folder.model)


def load_prompts(config: RolloutRunConfig, recommender: Recommender) -> Prompts:
    """The prompts of the dataset's training part."""
    timelines = build_timelines(load_dataset(config.data).interactions, recommender.catalog.index)
    names, position = domain_positions(recommender.catalog)
    domains = np.array(names, dtype=object)[position].tolist()
    train = split_leave_one_out(timelines).train
    return build_prompts(train, timelines.user_ids, domains, config.prompts, config.training.seed)


def count_prompts(prompts: Prompts) -> dict[str, int]:
    """Counts for the manifest."""
    return {"prompts": len(prompts), **{f"left_out_{reason}": count for reason, count in prompts.counts.items()}}
