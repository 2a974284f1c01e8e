"""Frozen teachers that score what a student wrote, one a domain.

Teachers are model folders, or adapters that a run with `tuning=lora` left beside its model. Adapters of one base share
it: the base is held once, and a teacher's adapter and itemic rows, a few per cent of it, are laid in when its domain is
scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from onereason.errors import ConfigError, ModelError
from onereason.model.adapter import AdapterSettings, is_adapter, load_adapter_weights, read_adapter_settings
from onereason.model.folder import ModelFolder, load_tokenizer_folder, require_same_tokens
from onereason.model.warmup import add_lora
from recipes.common import TrainingConfig, load_start_model


class Teachers:
    """Frozen models by domain.

    Args:
        paths: domain -> model folder, or folder of an adapter.
        student: teachers need its vocabulary, its catalog's format, and its tokenizer.
        training: type and attention of the models.

    Raises:
        ConfigError, ModelError, FormatError: a folder that is missing, or does not fit the student.
    """

    def __init__(self, paths: Mapping[str, str], student: ModelFolder, training: TrainingConfig):
        for domain, path in paths.items():
            own = load_tokenizer_folder(_base_of(path))  # no weights are read
            require_same_tokens(student, own, f"teachers.{domain}", "the student")
        self._models: dict[str, Any] = {}
        self._adapters: dict[str, dict[str, torch.Tensor]] = {}
        self._model_of: dict[str, str] = {}
        self._laid_in: dict[str, str] = {}
        loras: dict[str, AdapterSettings] = {}
        for domain, path in paths.items():
            key = str(Path(path).resolve())
            if is_adapter(path):
                settings = read_adapter_settings(path)
                key = settings.base
                if (other := loras.setdefault(key, settings)) != settings:
                    raise ConfigError(
                        f"teachers.{domain}: {path} has rank {settings.rank} and alpha {settings.alpha}, "
                        f"another teacher on the base {key} {other.rank} and {other.alpha}; adapters that share a base "
                        "need the same."
                    )
                self._adapters[domain] = load_adapter_weights(path)
            self._model_of[domain] = key
        for domain, key in self._model_of.items():
            if key in self._models:
                continue
            folder = load_start_model(key, training)
            if key in loras and domain not in self._adapters:
                raise ConfigError(
                    f"teachers.{domain} is {key} itself, which other teachers' adapters are laid into; give its "
                    "adapter, or a copy of the folder."
                )
            if key in loras:
                add_lora(folder.model, folder.vocabulary, loras[key].rank, loras[key].alpha)
                for name, adapter in self._adapters.items():
                    if self._model_of[name] == key:
                        _check_names(name, adapter, folder.model)
            self._models[key] = folder.model.requires_grad_(False).eval()

    def prepare(self, ready: Callable[[Any], Any]) -> None:
        """Replaces each model by what `ready` makes of it (on its device, say)."""
        self._models = {key: ready(model) for key, model in self._models.items()}

    @property
    def num_models(self) -> int:
        """Whole models that are held."""
        return len(self._models)

    def model(self, domain: str) -> Any:
        """The domain's teacher; valid until another domain's is asked for."""
        key = self._model_of[domain]
        model = self._models[key]
        if domain in self._adapters and self._laid_in.get(key) != domain:
            own = dict(model.named_parameters(remove_duplicate=False))
            with torch.no_grad():
                for name, value in self._adapters[domain].items():
                    own[name].copy_(value)
            self._laid_in[key] = domain
        return model


def _base_of(path: str) -> str:
    return read_adapter_settings(path).base if is_adapter(path) else path


def _check_names(domain: str, adapter: Mapping[str, torch.Tensor], model: Any) -> None:
    own = {name: p.shape for name, p in model.named_parameters(remove_duplicate=False)}
    wrong = sorted(name for name, value in adapter.items() if own.get(name) != value.shape)
    if wrong:
        raise ModelError(f"teachers.{domain}: the adapter does not fit its base ({wrong[0]} has no place in it).")
