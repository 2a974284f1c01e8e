"""transformers' Trainer as the recipes use it: constrained recall for evaluation, and no loss out of nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
from trl.trainer import utils as trl_utils

from onereason.data.collate import LossMaskCollator
from recipes.common import EncodedMixture, SelectionConfig

Validate = Callable[[Any], Mapping[str, float]]
"""Model -> metrics on validation users."""


class RecommendationTrainer(Trainer):
    """transformers' Trainer whose evaluation is constrained recall on validation users.

    It stands before another trainer class in a list of bases, to do the same for that one.
    """

    def __init__(self, *args: Any, validate: Validate | None = None, **kwargs: Any):
        eval_dataset = [] if validate is not None else None  # transformers wants one; validation reads users instead
        super().__init__(*args, eval_dataset=eval_dataset, **kwargs)
        self._validate = validate

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Runs on the main process and shares the figures, so that every process chooses the same checkpoint."""
        values: list[Any] = [None]
        if self.accelerator.is_main_process and self._validate is not None:
            model = self.accelerator.unwrap_model(self.model)
            values = [{f"eval_{name}": float(value) for name, value in self._validate(model).items()}]
        if self.accelerator.num_processes > 1:
            torch.distributed.broadcast_object_list(values)
        Trainer.log(self, dict(values[0]))  # TRL's own would add what it has gathered of the training loss
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, values[0])
        return values[0]

    def _get_num_items_in_batch(self, *args: Any, **kwargs: Any) -> torch.Tensor | int | None:
        """Supervised tokens of the whole step; at least 1, as the loss of a step without any is 0 and not 0 / 0."""
        found = super()._get_num_items_in_batch(*args, **kwargs)
        return found.clamp(min=1) if isinstance(found, torch.Tensor) else found


def build_trainer(
    model: Any,
    dataset: EncodedMixture,
    arguments: TrainingArguments,
    pad_token_id: int,
    validate: Validate | None = None,
    callbacks: Sequence[Any] = (),
) -> RecommendationTrainer:
    """The trainer of a recipe."""
    return RecommendationTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=LossMaskCollator(pad_token_id),
        callbacks=list(callbacks),
        validate=validate,
    )


def build_callbacks(selection: SelectionConfig) -> list[EarlyStoppingCallback]:
    """Ends a run that gains nothing any more, where the selection asks for it."""
    return [EarlyStoppingCallback(selection.patience)] if selection.data and selection.patience else []


@contextlib.contextmanager
def supervised_positions_only() -> Iterator[None]:
    """Lets the output layer meet supervised positions alone, also without a GPU.

    TRL gathers them on GPUs; elsewhere it scores prompts and padding too, for devices that compile anew for every
    shape. A CPU does not: with a fifth of the tokens supervised, a step on one is four to five times faster.
    """
    before = trl_utils._use_triton
    trl_utils._use_triton = lambda device: device.type == "cpu" or before(device)
    try:
        yield
    finally:
        trl_utils._use_triton = before
