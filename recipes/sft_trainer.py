"""TRL's SFTTrainer over rows that are tokenised and masked already (`onereason.data.chat`).

What it brings: the loss is computed in tiles from the hidden states of supervised positions, so that the logits of a
batch, which dominate the memory at a vocabulary of 176k, never exist as a whole; rows can be packed; entropy and token
accuracy are logged. Names with a leading underscore are those of the TRL version that `pyproject.toml` pins.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import datasets
from transformers import TrainingArguments
from transformers.utils.generic import is_flash_attention_requested
from trl import SFTConfig as SFTArguments
from trl import SFTTrainer

from onereason.data.collate import build_labels
from onereason.data.packing import Packs, pack_rows
from onereason.model.folder import ModelFolder
from recipes.common import EncodedMixture
from recipes.trainers import RecommendationTrainer, Validate, supervised_positions_only


def isolates_rows(attn_implementation: str) -> bool:
    """Whether attention stays inside the rows of a pack: sdpa and eager do by a mask, flash attention by borders."""
    return attn_implementation in ("sdpa", "eager") or is_flash_attention_requested(
        requested_attention_implementation=attn_implementation
    )


def make_sft_arguments(packing: bool) -> partial[TrainingArguments]:
    """Makes TRL's arguments out of transformers': rows are taken as they come, neither tokenised nor cut again."""
    return partial(SFTArguments, packing=packing, max_length=None, dataset_kwargs={"skip_prepare_dataset": True})


class _Examples:
    """Numbers of examples -> their columns; what `datasets` calls when examples are asked for."""

    def __init__(self, mixture: EncodedMixture, packs: Packs | None):
        self.mixture, self.packs = mixture, packs

    def __getstate__(self) -> dict[str, Any]:
        return {}  # datasets hashes a transform by its pickle; the corpora's arrays would take minutes

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        numbers = batch["example"]
        members = [[n] if self.packs is None else self.packs[n].tolist() for n in numbers]
        rows = [[self.mixture[i] for i in some] for some in members]
        columns = {
            "input_ids": [[token for row in some for token in row["input_ids"]] for some in rows],
            "labels": [[label for row in some for label in build_labels(row)] for some in rows],
        }
        if self.packs is not None:
            columns["seq_lengths"] = [[len(row["input_ids"]) for row in some] for some in rows]
        return columns


def build_examples(mixture: EncodedMixture, pack_length: int | None = None, seed: int = 0) -> datasets.Dataset:
    """The mixture as SFTTrainer reads it; an example is made when it is asked for.

    Args:
        pack_length: tokens of a pack; None leaves every row its own example.
        seed: of the packs' order.

    Returns:
        examples with `input_ids`, `labels` (-100 where no loss falls) and, where they are packed, `seq_lengths`.
    """
    packs = None if pack_length is None else pack_rows(mixture.lengths, pack_length, seed)
    numbers = datasets.Dataset.from_dict({"example": range(len(mixture if packs is None else packs))})
    return numbers.with_transform(_Examples(mixture, packs))


class RecommendationSFTTrainer(RecommendationTrainer, SFTTrainer):
    """TRL's SFTTrainer whose evaluation is constrained recall on validation users."""

    @property
    def _total_train_tokens(self) -> int:
        """Tokens seen; TRL's own count would start anew when a run goes on from a checkpoint."""
        return self.state.num_input_tokens_seen

    @_total_train_tokens.setter
    def _total_train_tokens(self, value: int) -> None:
        self.state.num_input_tokens_seen = value

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The loss of a micro-step, normalised over the supervised tokens of the whole step, on every process."""
        with supervised_positions_only():
            return super().compute_loss(*args, **kwargs)

    def _send_telemetry(self) -> None:
        """Nobody is told of a run."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The finished folder's manifest says what the model was made from."""


def build_sft_trainer(
    folder: ModelFolder,
    examples: datasets.Dataset,
    arguments: TrainingArguments,
    validate: Validate | None = None,
    callbacks: Sequence[Any] = (),
) -> RecommendationSFTTrainer:
    """The trainer of a run of `recipes.sft`; `arguments` were made by `make_sft_arguments`."""
    return RecommendationSFTTrainer(
        model=folder.model,
        args=arguments,
        train_dataset=examples,
        processing_class=folder.tokenizer,
        callbacks=list(callbacks),
        validate=validate,
    )
