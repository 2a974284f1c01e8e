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

from dataclasses import dataclass

from recipes.common import build_validation, corpus_files, count_tokens, load_mixture, load_start_model
from recipes.run import claim_run_folder, finish_run, leave_process, parse_command_line, prepare_process, start_run
from recipes.trainers import build_callbacks, build_trainer
from recipes.tuning import TuningConfig, add_adapters, choose_merge, prepare_model


@dataclass(frozen=True)
class AlignConfig(TuningConfig):
    """Multi-task alignment; starts from the warm-up's model folder."""


def run(config: AlignConfig) -> None:
    prepare_process()
    checkpoint, arguments = start_run(config, config.selection)
    folder = load_start_model(config.model, config.training)
    validate = build_validation(config.selection, folder, config.training.seed)
    mixture = load_mixture(config.data, folder.tokenizer, folder.vocabulary, config.training, arguments.world_size)
    prepare_model(folder, config)
    claim_run_folder(config)
    callbacks = build_callbacks(config.selection)
    trainer = build_trainer(folder.model, mixture, arguments, folder.tokenizer.pad_token_id, validate, callbacks)
    trainer.train(resume_from_checkpoint=checkpoint)
    finish_run(
        config,
        trainer,
        corpus_files(config.data, mixture),
        count_tokens(mixture),
        prepare=lambda fresh: add_adapters(fresh, config),
        merge=choose_merge(config),
    )


if __name__ == "__main__":
    leave_process(parse_command_line(AlignConfig, run, __doc__))
