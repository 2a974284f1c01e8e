r"""Reinforcement for recommendation: traces and items rolled out by the policy, rewarded, and learned from (GRPO).

    accelerate launch -m recipes.rl --config recipes/configs/rl/tiny.yaml \
        model=runs/sft/model data=runs/world out=runs/rl
    accelerate launch ... prompts.domains=[video] out=runs/rl_video   # a specialist
    accelerate launch --config_file recipes/accelerate_configs/ddp.yaml -m recipes.rl \
        --config recipes/configs/rl/qwen3-1.7b.yaml model=... data=... out=...

Every step rolls out N traces of each prompt and K items under each trace (OneReason, Eq. 6 and 8), from the policy as
it stands; rewards, advantages, clipping and losses are chosen in the configuration (`onereason.rl`). Batch sizes count
traces. With `selection.data` the checkpoint is chosen by recall on validation users, asked in `selection.mode`. A
collapse (`guards`) stops the run and says which figure fell and why that happens. Run the command again after an
interruption: it goes on from the newest checkpoint. The result is the model folder `out/model`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from onereason.data.schema import load_dataset
from onereason.data.timelines import build_timelines, split_leave_one_out
from onereason.errors import ConfigError
from onereason.itemic.catalog import load_model_catalog
from onereason.rl.advantages import AdvantageConfig
from onereason.rl.losses import LossConfig
from onereason.rl.p_score import load_p_scorer
from onereason.rl.rewards import Format, RewardConfig
from onereason.rl.rewards.logged import DURATION_AWARE, P_SCORE
from onereason.rl.values import KNOWN_VALUES, ItemValues, SignalConfig, read_duration_labels
from recipes.common import build_validation, load_start_model
from recipes.rl_trainer import RecommendationGRPOTrainer, Reinforcement
from recipes.rollout_run import RolloutRunConfig, build_recommender, load_prompts
from recipes.rollout_trainer import make_rl_arguments, train_on_rollouts
from recipes.run import leave_process, parse_command_line, prepare_process, start_run
from recipes.tuning import add_adapters


@dataclass(frozen=True)
class RlConfig(RolloutRunConfig):
    """Reinforcement; starts from the SFT's model folder (or, for a specialist or a second stage, from another)."""

    reward: RewardConfig = field(default_factory=RewardConfig)
    """What rollouts are rewarded for."""
    scorer: str | None = None
    """Folder of the P-Score (`recipes.p_score`) that the reward `p_score` reads."""
    signals: SignalConfig = field(default_factory=SignalConfig)
    """What the reward `duration_aware` reads of the log."""
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    """How rewards become advantages."""
    format_subset: int | float = 0
    """Rollouts of each group (a number, or a share) that get an advantage of 1 more where they are legal items behind
    closed traces (OneRec V1): against illegal ones where `rollout.items` is free. 0 for none."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The policy's loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format_subset:
            Format(self.format_subset)  # says what is wrong with it
        for name, key in self.reward.build().reads.items():
            if name not in KNOWN_VALUES:
                raise ConfigError(
                    f"reward {key} reads the value {name!r}, which recipes.rl does not make; it makes "
                    f"{', '.join(KNOWN_VALUES)}."
                )
            if name == P_SCORE and self.scorer is None:
                raise ConfigError(f"reward {key} needs a scorer: set scorer to a folder that recipes.p_score made.")


def load_values(config: RlConfig) -> ItemValues:
    """What the rewards read beside the rollouts; nothing is loaded that none of them does."""
    names = config.reward.build().reads
    if P_SCORE not in names and DURATION_AWARE not in names:
        return ItemValues()
    catalog, interactions = load_model_catalog(config.model), load_dataset(config.data).interactions
    scorer = load_p_scorer(str(config.scorer), catalog) if P_SCORE in names else None
    timelines = build_timelines(interactions, catalog.index)
    split, labels = split_leave_one_out(timelines), None
    if DURATION_AWARE in names:
        labels = read_duration_labels(interactions, timelines, split, config.signals, config.data)
    return ItemValues(scorer, labels, split.train)


def run(config: RlConfig) -> None:
    prepare_process()
    make = make_rl_arguments(
        config.rollout.num_traces, config.minibatches, config.num_iterations, config.rollout.sampling.temperature
    )
    checkpoint, arguments = start_run(config, config.selection, make)
    values = load_values(config)
    folder = load_start_model(config.model, config.training)
    recommender = values.order_items(build_recommender(folder, config))
    prompts = load_prompts(config, recommender)
    reward = config.reward.build(recommender.trie.num_levels, config.rollout.num_items)
    validate = build_validation(config.selection, folder, config.training.seed)
    plan = Reinforcement(
        recommender,
        prompts,
        config.rollout,
        config.training.seed,
        reward,
        values,
        config.advantage,
        config.loss,
        config.format_subset,
    )
    add_adapters(folder, config)
    reference = load_start_model(config.model, config.training).model if config.loss.kl_beta else None
    train_on_rollouts(
        RecommendationGRPOTrainer, config, folder, plan, arguments, checkpoint, validate, ref_model=reference
    )


if __name__ == "__main__":
    leave_process(parse_command_line(RlConfig, run, __doc__))
