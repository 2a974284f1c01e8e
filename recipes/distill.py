r"""On-policy distillation from one teacher a domain (MOPD; OneReason, Eq. 17-21): what unifies specialists.

    accelerate launch -m recipes.distill --config recipes/configs/distill/tiny.yaml \
        model=runs/rl/model data=runs/world out=runs/distill \
        teachers.video=runs/rl_video/model teachers.ad=runs/rl_ad/model ...

The student rolls out, the teacher of the prompt's domain scores every token of it, and the student follows where the
teacher finds its tokens likelier. Rollouts with little to learn from are left out. A teacher is a model folder, or the
`out/adapter` of a run of `recipes.rl` with `tuning=lora`: such teachers share one base in memory.

Checkpoints, selection, guards and resumption are those of `recipes.rl`. The result is the model folder `out/model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onereason.errors import ConfigError
from onereason.rl.prompts import Prompts
from recipes.common import build_validation, load_start_model
from recipes.distill_trainer import Distillation, DistillationConfig, DistillationTrainer
from recipes.rollout_run import RolloutRunConfig, build_recommender, load_prompts
from recipes.rollout_trainer import make_rl_arguments, train_on_rollouts
from recipes.run import leave_process, parse_command_line, prepare_process, start_run
from recipes.teachers import Teachers
from recipes.tuning import add_adapters


@dataclass(frozen=True)
class DistillConfig(RolloutRunConfig):
    """Distillation; `model` is the student."""

    teachers: Mapping[str, str] = field(default_factory=dict)
    """Domain -> folder of its teacher."""
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    """How the student follows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.teachers:
            raise ConfigError("teachers is empty: name a folder a domain, e.g. teachers.video=runs/rl_video/model.")


def check_domains(teachers: Mapping[str, str], prompts: Prompts) -> None:
    """`ConfigError` unless every domain that is asked for has a teacher, and every teacher is asked."""
    asked = set(prompts.domains)
    if missing := sorted(asked - set(teachers)):
        raise ConfigError(
            f"teachers has none for {', '.join(missing)}; name one, or leave the domain out of prompts.domains (now "
            f"asked for: {', '.join(sorted(asked))})."
        )
    if idle := sorted(set(teachers) - asked):
        raise ConfigError(
            f"teachers names {', '.join(idle)}, which no prompt asks for (asked for: {', '.join(sorted(asked))}); "
            "leave it out, or widen prompts.domains and prompts.users."
        )


def run(config: DistillConfig) -> None:
    prepare_process()
    make = make_rl_arguments(
        config.rollout.num_traces, config.minibatches, config.num_iterations, config.rollout.sampling.temperature
    )
    checkpoint, arguments = start_run(config, config.selection, make)
    folder = load_start_model(config.model, config.training)
    recommender = build_recommender(folder, config)
    prompts = load_prompts(config, recommender)
    check_domains(config.teachers, prompts)
    teachers = Teachers(config.teachers, folder, config.training)
    validate = build_validation(config.selection, folder, config.training.seed)
    plan = Distillation(recommender, prompts, config.rollout, config.training.seed, config.distillation)
    add_adapters(folder, config)
    train_on_rollouts(DistillationTrainer, config, folder, plan, arguments, checkpoint, validate, teachers=teachers)


if __name__ == "__main__":
    leave_process(parse_command_line(DistillConfig, run, __doc__))
