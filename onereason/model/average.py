"""The weighted mean of several models' weights: a baseline that unifies specialists without training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from onereason.errors import ConfigError, ModelError
from onereason.model.folder import (
    CONFIG_FILE,
    ModelFolder,
    check_weights,
    load_model_folder,
    load_tokenizer_folder,
    require_same_items,
    require_same_tokens,
)

_OWN = ("_name_or_path", "dtype", "transformers_version", "use_cache", "bos_token_id", "eos_token_id", "pad_token_id")
"""Keys of a model's configuration that may differ: they change nothing of what its weights compute."""


def normalise_weights(weights: Sequence[float] | None, paths: Sequence[Path]) -> list[float]:
    """Weights that sum to 1; equal ones where none are given.

    Raises:
        ConfigError: fewer than two models, one of them twice, another number of weights, or a weight that is not above
            0.
    """
    if len(paths) < 2:
        raise ConfigError(f"--models names {len(paths)} folder; an average needs two or more.")
    places = [path.resolve() for path in paths]
    if twice := [path for path, place in zip(paths, places, strict=True) if places.count(place) > 1]:
        raise ConfigError(f"--models names {twice[0]} twice; name it once, with a larger one of --weights.")
    weights = [1.0] * len(paths) if weights is None else list(weights)
    if len(weights) != len(paths):
        raise ConfigError(f"--weights has {len(weights)} numbers for {len(paths)} models; give one each.")
    if wrong := [weight for weight in weights if not 0 < weight < float("inf")]:
        raise ConfigError(f"--weights must be above 0, got {wrong[0]:g}; leave a model out that should not count.")
    return [weight / sum(weights) for weight in weights]


def check_same_shape(paths: Sequence[Path]) -> ModelFolder:
    """The first folder without its weights; refuses models that cannot be averaged, before any weights are read.

    Raises:
        ModelError, FormatError, CatalogError: an incomplete folder, or another vocabulary, format, catalog or
            architecture than the first one's.
    """
    first: ModelFolder | None = None
    for path in paths:
        folder = load_tokenizer_folder(path)
        check_weights(folder.path)
        first = first or folder
        what = f"--models {path}"
        require_same_tokens(first, folder, what, "the first model")
        require_same_items(first, folder, what, "the first model")
        ours, theirs = (_shape_settings(f.path) for f in (first, folder))
        if differs := sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)):
            key = differs[0]
            raise ModelError(
                f"{what}: {key} is {theirs.get(key)!r}, of {first.path} {ours.get(key)!r} ({CONFIG_FILE}); only models "
                "of one architecture can be averaged, e.g. specialists that started from one model."
            )
    assert first is not None, "there are models"
    return first


def _shape_settings(path: Path) -> dict[str, Any]:
    try:
        config = AutoConfig.from_pretrained(path).to_dict()
    except (OSError, ValueError) as error:
        raise ModelError(f"{path / CONFIG_FILE} cannot be read as a model's configuration: {error}") from error
    return {key: value for key, value in config.items() if key not in _OWN}


@torch.no_grad()
def average_models(paths: Sequence[Path], weights: Sequence[float], advance: Callable[[], None] = lambda: None) -> Any:
    """A model with the mean of all models' weights.

    Sums are float32; in memory are the sum and one model at a time. The mean has the type of the models, of different
    ones the wider.

    Args:
        paths: model folders that `check_same_shape` lets pass.
        weights: of the models, sum 1.
        advance: called when a model has been added.

    Raises:
        ModelError: a folder that cannot be loaded, or weights of different names or shapes.
    """
    total: dict[str, torch.Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    model: Any = None
    for path, weight in zip(paths, weights, strict=True):
        model = own = value = None  # the model before leaves memory first
        model = load_model_folder(path).model
        own = dict(model.named_parameters())  # tied ones once
        if total:
            _require_same_names(total, own, path, paths[0])
        for name, value in own.items():
            part = value.float() * weight
            total[name] = total[name].add_(part) if name in total else part
            dtypes[name] = torch.promote_types(dtypes.get(name, value.dtype), value.dtype)
        advance()
    for name, value in model.named_parameters():
        value.data = total.pop(name).to(dtypes[name])
    return model


def _require_same_names(
    expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], path: Path, first: Path
) -> None:
    for name in sorted({*expected, *found}):
        ours, theirs = (list(of[name].shape) if name in of else None for of in (expected, found))
        if ours != theirs:
            raise ModelError(f"--models {path}: weight {name} has shape {theirs}, in {first} {ours}.")
