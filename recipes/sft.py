"""Supervised fine-tuning on cognition corpora: rows that think and rows that answer at once, in one mixture.

    accelerate launch -m recipes.sft --config recipes/configs/sft/tiny.yaml \
        model=runs/align/model data.corpora.decision=runs/corpora/decision ... out=runs/sft
    accelerate launch --config_file recipes/accelerate_configs/zero3.yaml -m recipes.sft \
        --config recipes/configs/sft/qwen3-8b.yaml model=... out=...

Training runs through TRL's SFTTrainer on tokens and masks of `onereason.data.chat`: the loss falls on the assistant's
span (with its think block where it holds text), normalised over all supervised tokens of a step, never on prompt or
padding; what is too long loses its oldest history. With `selection.data` the checkpoint is chosen by recall on
validation users, asked in `selection.mode`. Run the command again after an interruption: it goes on from the newest
checkpoint. The result is the model folder `out/model`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from onereason.errors import ConfigError
from recipes.common import build_validation, corpus_files, count_tokens, load_mixture, load_start_model
from recipes.run import claim_run_folder, finish_run, leave_process, parse_command_line, prepare_process, start_run
from recipes.sft_trainer import build_examples, build_sft_trainer, isolates_rows, make_sft_arguments
from recipes.trainers import build_callbacks
from recipes.tuning import TuningConfig, add_adapters, choose_merge, prepare_model


@dataclass(frozen=True)
class SftConfig(TuningConfig):
    """Supervised fine-tuning; starts from the alignment's model folder."""

    packing: bool = False
    """Rows share examples of `data.max_length` tokens, each row a sample of its own; batch sizes count such examples.
    Meant for flash attention: sdpa and eager compute the whole square of a micro-step's tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.training.label_smoothing_factor:
            raise ConfigError(
                "training.label_smoothing_factor must be 0 in recipes.sft (its loss is computed without whole logits), "
                f"got {self.training.label_smoothing_factor}."
            )
        if self.packing and not isolates_rows(self.training.attn_implementation):
            raise ConfigError(
                "packing needs attention that stays inside the rows of a pack: training.attn_implementation must be "
                f"sdpa, eager or flash attention, got {self.training.attn_implementation}."
            )


def run(config: SftConfig) -> None:
    prepare_process()
    checkpoint, arguments = start_run(config, config.selection, make_sft_arguments(config.packing))
    folder = load_start_model(config.model, config.training)
    validate = build_validation(config.selection, folder, config.training.seed)
    training = replace(config.training, group_by_length=False) if config.packing else config.training
    mixture = load_mixture(config.data, folder.tokenizer, folder.vocabulary, training, arguments.world_size)
    examples = build_examples(mixture, config.data.max_length if config.packing else None, config.training.seed)
    prepare_model(folder, config)
    claim_run_folder(config)
    trainer = build_sft_trainer(folder, examples, arguments, validate, build_callbacks(config.selection))
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
    leave_process(parse_command_line(SftConfig, run, __doc__))
