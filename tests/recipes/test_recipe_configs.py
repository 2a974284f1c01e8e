"""Every shipped YAML and JSON is loaded by its own class."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from onereason.config import load_config
from onereason.pipeline.config import PipelineConfig
from recipes.align import AlignConfig
from recipes.common import SelectionConfig
from recipes.distill import DistillConfig
from recipes.p_score import PScoreConfig
from recipes.rl import RlConfig
from recipes.rollout_run import RolloutRunConfig
from recipes.rollout_trainer import make_rl_arguments
from recipes.run import build_training_arguments
from recipes.sft import SftConfig
from recipes.warmup import WarmupConfig

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "recipes" / "configs"
CLASSES = {
    "warmup": WarmupConfig,
    "align": AlignConfig,
    "sft": SftConfig,
    "rl": RlConfig,
    "distill": DistillConfig,
    "p_score": PScoreConfig,
    "pipeline": PipelineConfig,
}
FILES = sorted(CONFIGS.rglob("*.yaml"))


def test_every_folder_of_configurations_has_a_class() -> None:
    assert {p.relative_to(CONFIGS).parts[0] for p in FILES} == set(CLASSES)
    assert len(FILES) >= 12


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_recipe_configuration_loads(path: Path, tmp_path: Path) -> None:
    config = load_config(CLASSES[path.relative_to(CONFIGS).parts[0]], path)
    if isinstance(config, PScoreConfig):
        assert config.objectives
    elif isinstance(config, PipelineConfig):
        assert config.stages
    elif isinstance(config, RolloutRunConfig):
        training, rollout = config.training, config.rollout
        make = make_rl_arguments(rollout.num_traces, config.minibatches, config.num_iterations)
        build_training_arguments(replace(training, bf16=False), tmp_path, config.selection, make)
    else:
        assert set(config.data.shares) <= set(config.data.corpora)


def test_a_checkpoint_is_chosen_on_the_domains_asked_for() -> None:
    assert SelectionConfig(domains=["ad"]).evaluation(seed=3).domains == ("ad",)


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "recipes/accelerate_configs").glob("*.yaml")), ids=lambda p: p.stem
)
def test_accelerate_configuration_loads(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert (
        config.distributed_type.name
        == {
            "single": "NO",
            "ddp": "MULTI_GPU",
            "fsdp2": "FSDP",
            "zero2": "DEEPSPEED",
            "zero3": "DEEPSPEED",
        }[path.stem]
    )
    if path.stem.startswith("zero"):
        named = yaml.safe_load(path.read_text())["deepspeed_config"]["deepspeed_config_file"]
        assert json.loads((REPOSITORY / named).read_text())["zero_optimization"]["stage"] == int(path.stem[-1])
