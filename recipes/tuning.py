"""What the recipes share that train all parameters, or adapters beside the itemic rows: configuration and model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from onereason.errors import ConfigError
from onereason.model.dropout import add_dropout
from onereason.model.folder import ModelFolder
from onereason.model.warmup import add_lora, merge_lora
from recipes.common import DataConfig, SelectionConfig, TrainingConfig


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters on attention and MLP; the itemic rows are trained beside them."""

    rank: int = 32
    """Rank of the update."""
    alpha: float = 64.0
    """Scale; the update is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Dropout before the adapters."""


@dataclass(frozen=True)
class DropoutConfig:
    """Regularisation of models trained from scratch; pretrained ones need none."""

    embedding: float = 0.0
    """On the embedding output."""
    hidden: float = 0.0
    """On every attention and MLP output."""


@dataclass(frozen=True)
class ModelRunConfig:
    """A run from one model folder to another."""

    model: str
    """Model folder to start from."""
    out: str
    """Run folder: checkpoints, logs, and the finished model in `out/model`."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Optimisation."""
    tuning: Literal["full", "lora"] = "full"
    """`full` trains every parameter, `lora` adapters and the itemic rows."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Used when `tuning` is lora."""
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    """Choice of the checkpoint on validation users."""
    resume: bool = True
    """Go on from the newest checkpoint in `out`, if there is one."""

    def __post_init__(self) -> None:
        if self.tuning == "lora" and (self.training.deepspeed or self.training.fsdp):
            raise ConfigError("tuning=lora runs under one process or DDP; use tuning=full with DeepSpeed or FSDP.")


@dataclass(frozen=True)
class TuningConfig(ModelRunConfig):
    """A run on corpora."""

    data: DataConfig = field(default_factory=DataConfig)
    """Corpora and their mixture."""
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    """Extra dropout while training."""


def add_adapters(folder: ModelFolder, config: ModelRunConfig) -> None:
    """Puts the adapters in place, where the configuration asks for them."""
    if config.tuning == "lora":
        lora = config.lora
        add_lora(folder.model, folder.vocabulary, lora.rank, lora.alpha, lora.dropout, seed=config.training.seed)


def prepare_model(folder: ModelFolder, config: TuningConfig) -> None:
    """The folder's model as it trains: with adapters and dropout, where the configuration asks for them."""
    add_adapters(folder, config)
    if config.dropout.embedding or config.dropout.hidden:
        add_dropout(folder.model, embedding=config.dropout.embedding, hidden=config.dropout.hidden)


def choose_merge(config: ModelRunConfig) -> Callable[[Any], Any]:
    """What makes the trained model a plain one again."""
    return merge_lora if config.tuning == "lora" else lambda model: model
