"""A model folder made ready to recommend: histories in, beams and ranked items out.

Notation: `B` requests, `N` catalog items, `P` tokens of a pattern, `K` beams.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from onereason.decoding.beam import BeamResult, beam_search, left_pad
from onereason.errors import ConfigError, ModelError
from onereason.io import MANIFEST_NAME, read_json
from onereason.itemic.catalog import Catalog
from onereason.itemic.trie import ItemTrie, build_catalog_trie
from onereason.itemic.vocabulary import ItemicVocabulary

if TYPE_CHECKING:
    from onereason.data.prompts import RecommendationPrompt

DEFAULT_STYLE, DEFAULT_MAX_HISTORY = "chat", 50
DTYPES = ("float32", "bfloat16", "auto")


@dataclass(frozen=True)
class Recommender:
    """A model, its catalog, and how its prompts are written.

    Attributes:
        model: the language model, on its device.
        vocabulary: the itemic tokens' ids.
        catalog: the items.
        trie: the catalog's prefix tree.
        prompt: writes a history as a prompt.
        max_history: how many of the newest items a prompt shows.
    """

    model: Any
    vocabulary: ItemicVocabulary
    catalog: Catalog
    trie: ItemTrie
    prompt: RecommendationPrompt
    max_history: int

    @cached_property
    def pattern_ids(self) -> np.ndarray:
        """Token ids of every item's pattern, int64 `[N, P]`."""
        return self.vocabulary.pattern_ids(self.catalog.codes, self.catalog.domains)

    def render(self, history: np.ndarray, domain: str) -> list[int]:
        """The prompt of a history (item indices, oldest first) that ends with the domain's begin token."""
        patterns = self.pattern_ids[history[-self.max_history :]]
        return self.prompt.encode(patterns, domain) + self.vocabulary.prefix_ids(domain)

    def search(
        self, prompts: Sequence[Sequence[int] | np.ndarray], domains: Sequence[str], num_beams: int
    ) -> BeamResult:
        """The `K` best sids of each prompt's domain."""
        device = self.model.device
        input_ids, attention_mask = left_pad(prompts)
        roots = torch.tensor([self.trie.root_of(domain) for domain in domains], device=device)
        return beam_search(self.model, self.trie, roots, input_ids.to(device), attention_mask.to(device), num_beams)

    def with_priority(self, priority: np.ndarray) -> Recommender:
        """The same, with items under one sid ordered by `priority` `[N]`, the highest first."""
        return replace(self, trie=build_catalog_trie(self.catalog, self.vocabulary, priority))


def load_recommender(
    model_dir: str | Path,
    *,
    style: str | None = None,
    max_history: int | None = None,
    device: str = "auto",
    dtype: str = "float32",
) -> Recommender:
    """Loads a complete model folder (weights, tokenizer, `itemic.json`, catalog).

    `style` and `max_history` default to what the folder's `manifest.json` records under `"prompt"`, then to a chat
    prompt of 50 items. `device` "auto" is the GPU where there is one; `dtype` "auto" is bfloat16 where the machine
    computes it fast, else float32.

    Raises:
        ModelError: the folder is incomplete or no extended model folder.
        CatalogError, FormatError: it has no catalog, or one of another format.
        ConfigError: an unknown device or type, or `max_history` below 1.
    """
    from onereason.data.prompts import RecommendationPrompt
    from onereason.model.folder import load_model_folder, require_catalog
    from onereason.model.precision import has_fast_bfloat16

    model_dir = Path(model_dir)
    recorded = read_prompt_settings(model_dir)
    style = style or recorded.get("style", DEFAULT_STYLE)
    max_history = max_history or recorded.get("max_history", DEFAULT_MAX_HISTORY)
    if max_history < 1:
        raise ConfigError(f"max_history must be at least 1, got {max_history}.")
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is not known; use {' or '.join(DTYPES)}.")
    found_device = _resolve_device(device)
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    if dtype == "auto":
        dtype = "bfloat16" if has_fast_bfloat16() else "float32"
    folder = load_model_folder(model_dir, dtype=dtype, device=found_device)
    catalog = require_catalog(folder)
    return Recommender(
        folder.model.eval(),
        folder.vocabulary,
        catalog,
        build_catalog_trie(catalog, folder.vocabulary),
        RecommendationPrompt(folder.tokenizer, folder.vocabulary, style=style),
        max_history,
    )


def read_prompt_settings(model_dir: Path) -> dict[str, Any]:
    """What the folder's manifest records about its prompts: `style`, `max_history`; empty where it says nothing."""
    path = model_dir / MANIFEST_NAME
    manifest = read_json(path, "model manifest") if path.is_file() else {}
    settings = manifest.get("prompt") if isinstance(manifest, dict) else None
    if not isinstance(settings, dict):
        return {}
    max_history = settings.get("max_history", DEFAULT_MAX_HISTORY)
    if not isinstance(max_history, int) or max_history < 1:
        raise ModelError(f"{path}: prompt.max_history should be a whole number from 1, is {max_history!r}.")
    return settings


def _resolve_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device {device!r} is not known; use auto, cpu, cuda or cuda:N.") from error
    if found.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {device!r} is not supported; use auto, cpu, cuda or cuda:N.")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r} was asked for, but this machine shows no CUDA GPU; use --device cpu.")
    return found
