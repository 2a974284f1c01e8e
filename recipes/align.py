"""Itemic alignment: all parameters (or LoRA and the token rows) on the four tasks (OneRec-Think, stage 2).

    accelerate launch -m recipes.align --config recipes/configs/align/tiny.yaml \
        model=runs/warmup/model data.corpora.sequential=runs/corpora/sequential ... out=runs/align
    accelerate launch --config_file recipes/accelerate_configs/zero2.yaml -m recipes.align \
        --config recipes/configs/align/qwen3-1.7b.yaml model=... out=...

The loss falls on exactly the spans a row declares (`onereason.data.chat`). With `selection.data` the checkpoint is
chosen by recall on validation users, never on test. Run the command again after an interruption: it goes on from the
newest checkpoint. The result is the model folder `out/model`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from transformers import EarlyStoppingCallback

from onereason.errors import ConfigError
from onereason.model.dropout import add_dropout
from onereason.model.folder import ModelFolder
from onereason.model.warmup import add_lora, merge_lora
from recipes.common import DataConfig, SelectionConfig, TrainingConfig, build_validation, load_mixture, load_start_model
from recipes.run import (
    build_trainer,
    claim_run_folder,
    finish_run,
    leave_process,
    parse_command_line,
    prepare_process,
    start_run,
)


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
class AlignConfig:
    """Multi-task alignment."""

    model: str
    """Model folder, usually the warm-up's."""
    out: str
    """Run folder: checkpoints, logs, and the finished model in `out/model`."""
    data: DataConfig = field(default_factory=DataConfig)
    """Corpora and their mixture."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Optimisation."""
    tuning: Literal["full", "lora"] = "full"
    """`full` trains every parameter, `lora` adapters and the itemic rows."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Used when `tuning` is lora."""
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    """Extra dropout while training."""
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    """Choice of the checkpoint on validation users."""
    resume: bool = True
    """Go on from the newest checkpoint in `out`, if there is one."""


def run(config: AlignConfig) -> None:
    prepare_process()
    checkpoint, arguments = start_run(config, config.selection)
    folder = load_start_model(config.model, config.training)
    validate = build_validation(config.selection, folder, config.training.seed)
    dataset = load_mixture(config.data, folder.tokenizer, folder.vocabulary, config.training, arguments.world_size)
    prepare(folder, config)
    if config.dropout.embedding or config.dropout.hidden:
        add_dropout(folder.model, embedding=config.dropout.embedding, hidden=config.dropout.hidden)
    patience = config.selection.patience
    callbacks = [EarlyStoppingCallback(patience)] if validate and patience else []
    claim_run_folder(config)
    trainer = build_trainer(folder.model, dataset, arguments, folder.tokenizer.pad_token_id, validate, callbacks)
    trainer.train(resume_from_checkpoint=checkpoint)
    finish_run(
        config,
        trainer,
        prepare=lambda fresh: prepare(fresh, config),
        merge=merge_lora if config.tuning == "lora" else lambda model: model,
    )


def prepare(folder: ModelFolder, config: AlignConfig) -> None:
    """Puts the adapters in place, where the configuration asks for them."""
    if config.tuning == "lora":
        if config.training.deepspeed or config.training.fsdp:
            raise ConfigError("tuning=lora runs under one process or DDP; use tuning=full with DeepSpeed or FSDP.")
        lora = config.lora
        add_lora(folder.model, folder.vocabulary, lora.rank, lora.alpha, lora.dropout, seed=config.training.seed)


if __name__ == "__main__":
    leave_process(parse_command_line(AlignConfig, run, __doc__))
