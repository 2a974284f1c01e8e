"""Token warm-up: trains the rows of the itemic tokens and nothing else (OneRec-Think, stage 1; OneReason, stage 1).

    accelerate launch -m recipes.warmup --config recipes/configs/warmup/tiny.yaml \
        model=runs/base data.corpora.persona=runs/corpora/persona out=runs/warmup
    accelerate launch --config_file recipes/accelerate_configs/zero3.yaml -m recipes.warmup \
        --config recipes/configs/warmup/qwen3-1.7b.yaml model=... data.corpora.persona=... out=...

Every other parameter is bit-identical afterwards, and the optimizer holds state for the new rows alone: input rows, and
output rows when the embeddings are untied. Run the command again after an interruption: it goes on from the newest
checkpoint. The result is the model folder `out/model`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from onereason.model.warmup import merge_new_rows, split_new_rows
from recipes.common import DataConfig, TrainingConfig, corpus_files, count_tokens, load_mixture, load_start_model
from recipes.run import claim_run_folder, finish_run, leave_process, parse_command_line, prepare_process, start_run
from recipes.trainers import build_trainer


@dataclass(frozen=True)
class WarmupConfig:
    """Token warm-up. The paper trains on persona grounding alone."""

    model: str
    """Model folder written by `onereason extend`."""
    out: str
    """Run folder: checkpoints, logs, and the finished model in `out/model`."""
    data: DataConfig = field(default_factory=DataConfig)
    """Corpora and their mixture."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Optimisation."""
    resume: bool = True
    """Go on from the newest checkpoint in `out`, if there is one."""


def run(config: WarmupConfig) -> None:
    prepare_process()
    checkpoint, arguments = start_run(config)
    folder = load_start_model(config.model, config.training)
    mixture = load_mixture(config.data, folder.tokenizer, folder.vocabulary, config.training, arguments.world_size)
    split_new_rows(folder.model, folder.vocabulary)
    claim_run_folder(config)
    trainer = build_trainer(folder.model, mixture, arguments, folder.tokenizer.pad_token_id)
    trainer.train(resume_from_checkpoint=checkpoint)
    finish_run(
        config,
        trainer,
        corpus_files(config.data, mixture),
        count_tokens(mixture),
        prepare=lambda fresh: split_new_rows(fresh.model, fresh.vocabulary),
        merge=merge_new_rows,
    )


if __name__ == "__main__":
    leave_process(parse_command_line(WarmupConfig, run, __doc__))
