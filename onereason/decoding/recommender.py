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

from onereason.data.prompt_sets import LANGUAGES, language_name, load_prompt_set, own_prompt_files
from onereason.decoding.beam import BeamResult, beam_search, check_search, search_stems
from onereason.decoding.stems import Stems, check_prompt_lengths, eval_mode, left_pad, prefill
from onereason.decoding.think import ThinkIds, Traces, close_traces, load_think_ids, sample_traces
from onereason.errors import ConfigError, ModelError
from onereason.io import MANIFEST_NAME, read_json
from onereason.itemic.catalog import Catalog
from onereason.itemic.trie import ItemTrie, build_catalog_trie
from onereason.itemic.trie_file import load_or_build_catalog_trie
from onereason.itemic.vocabulary import ItemicVocabulary
from onereason.model.device import resolve_device
from onereason.model.sampling import SamplingConfig

if TYPE_CHECKING:
    from onereason.data.prompts import RecommendationPrompt
    from onereason.itemic.filters import NodeFilter
    from onereason.model.folder import ModelFolder

DEFAULT_STYLE, DEFAULT_MAX_HISTORY, DEFAULT_LANGUAGE = "chat", 50, "en"
DTYPES = ("float32", "bfloat16", "auto")


@dataclass(frozen=True)
class PromptWriter:
    """How the histories of a catalog's items become prompts; a base of whatever answers them.

    Attributes:
        vocabulary: the itemic tokens' ids.
        catalog: the items.
        trie: the catalog's prefix tree.
        prompt: writes a history as a prompt.
        max_history: how many of the newest items a prompt shows.
    """

    vocabulary: ItemicVocabulary
    catalog: Catalog
    trie: ItemTrie
    prompt: RecommendationPrompt
    max_history: int

    @property
    def vocab_size(self) -> int:
        """Rows of the model's head, as far as they are known here: those that are tokens."""
        return len(self.prompt.tokenizer)

    @cached_property
    def think_ids(self) -> ThinkIds:
        """The tokens around a trace.

        Raises:
            ModelError: the tokenizer has no think tokens.
        """
        return load_think_ids(self.prompt.tokenizer, self.vocab_size)

    @cached_property
    def pattern_ids(self) -> np.ndarray:
        """Token ids of every item's pattern, int64 `[N, P]`."""
        return self.vocabulary.pattern_ids(self.catalog.codes, self.catalog.domains)

    @cached_property
    def think_prompt(self) -> RecommendationPrompt:
        """Writes a history as the prompt of an answer with a trace."""
        from onereason.data.prompts import RecommendationPrompt

        prompt = self.prompt
        return RecommendationPrompt(prompt.tokenizer, self.vocabulary, prompt.style, "think", prompt.language)

    def render(self, history: np.ndarray, domain: str, mode: str = "no_think") -> list[int]:
        """The prompt of a history (item indices, oldest first).

        In mode `no_think` it ends with the domain's begin token, in mode `think` inside an open think block.

        Raises:
            ConfigError: mode `think` in prompt style `plain`, which has no turns.
        """
        from onereason.data.prompts import MODES

        patterns = self.pattern_ids[history[-self.max_history :]]
        if mode not in MODES:
            raise ConfigError(f"prompt mode {mode!r} is not known; use {' or '.join(MODES)}.")
        if mode == "no_think":
            return self.prompt.encode(patterns, domain) + self.vocabulary.prefix_ids(domain)
        if self.prompt.style == "plain":
            raise ConfigError("prompt style 'plain' has no think block; use style 'chat', or mode no_think.")
        return self.think_prompt.encode(patterns, domain) + self.think_ids.opening

    def between(self, domain: str) -> list[int]:
        """The tokens between a trace and the codes of its answer: what closes the trace, and the begin token."""
        return [*self.think_ids.closing, *self.vocabulary.prefix_ids(domain)]


@dataclass(frozen=True)
class Recommender(PromptWriter):
    """A model, its catalog, and how its prompts are written.

    Attributes:
        model: the language model, on its device.
    """

    model: Any

    @property
    def vocab_size(self) -> int:
        return self.model.config.vocab_size

    def search(
        self,
        prompts: Sequence[Sequence[int] | np.ndarray],
        domains: Sequence[str],
        num_beams: int,
        node_filter: NodeFilter | None = None,
        restricted: bool = False,
    ) -> BeamResult:
        """The `K` best sids of each prompt's domain; see `beam_search`."""
        device = self.model.device
        input_ids, attention_mask = left_pad(prompts)
        return beam_search(
            self.model,
            self.trie,
            self.roots(domains),
            input_ids.to(device),
            attention_mask.to(device),
            num_beams,
            node_filter=node_filter,
            restricted=restricted,
        )

    def think(
        self,
        prompts: Sequence[Sequence[int] | np.ndarray],
        domains: Sequence[str],
        seeds: Sequence[Sequence[int | Sequence[int]]],
        num_beams: int,
        sampling: SamplingConfig | None = None,
        node_filter: NodeFilter | None = None,
        restricted: bool = False,
    ) -> tuple[Traces, BeamResult]:
        """Samples traces behind prompts rendered in mode `think`, and searches from each trace's cache.

        A trace that does not close within its budget is cut, closed, and answered all the same; `Traces.closed` says
        which.

        Args:
            seeds: `N` a prompt; as many traces are sampled.
            sampling: budget, temperature, top-k, top-p.

        Returns:
            the traces, and the `K` best sids of each: row `b * N + n` belongs to trace `n` of prompt `b`.
        """
        check_search(self.model, self.trie, self.roots(domains), len(prompts), num_beams, node_filter)
        traces, stems = self.think_stems(prompts, domains, seeds, sampling)
        with eval_mode(self.model):
            return traces, search_stems(
                self.model,
                self.trie,
                self.roots(domains),
                stems,
                num_beams,
                node_filter=node_filter,
                restricted=restricted,
            )

    def think_stems(
        self,
        prompts: Sequence[Sequence[int] | np.ndarray],
        domains: Sequence[str],
        seeds: Sequence[Sequence[int | Sequence[int]]],
        sampling: SamplingConfig | None = None,
    ) -> tuple[Traces, Stems]:
        """Samples traces as `think` does; gives the stems that end where the first code is to come behind each."""
        sampling = sampling or SamplingConfig()
        ids, device = self.think_ids, self.model.device
        if len(seeds) != len(prompts) or not seeds or not seeds[0]:
            raise ConfigError(f"expected a seed or more for each of {len(prompts)} prompts, got {list(seeds)!r:.80}.")
        input_ids, attention_mask = left_pad(prompts)
        suffixes = [self.between(domain) for domain in domains]
        room = sampling.max_new_tokens + max(map(len, suffixes)) + self.trie.num_levels
        check_prompt_lengths(self.model, input_ids.shape[1], room, thinking=True)
        with eval_mode(self.model):
            stems = prefill(self.model, input_ids.to(device), attention_mask.to(device)).fork(len(seeds[0]))
            traces, stems = sample_traces(
                self.model, stems, seeds, ids.closing[0], ids.stops, ids.banned.to(device), sampling
            )
            return traces, close_traces(stems, suffixes)

    def roots(self, domains: Sequence[str]) -> torch.Tensor:
        """The trie's root of each domain, int64 `[B]`."""
        return torch.tensor([self.trie.root_of(domain) for domain in domains], device=self.model.device)

    def with_priority(self, priority: np.ndarray) -> Recommender:
        """The same, with items under one sid ordered by `priority` `[N]`, the highest first."""
        return replace(self, trie=build_catalog_trie(self.catalog, self.vocabulary, priority))


def load_recommender(
    model_dir: str | Path,
    *,
    style: str | None = None,
    max_history: int | None = None,
    language: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
) -> Recommender:
    """Loads a complete model folder (weights, tokenizer, `itemic.json`, catalog).

    `style`, `max_history` and `language` default to what the folder's `manifest.json` records under `"prompt"`, then
    to an English chat prompt of 50 items. `device` "auto" is the GPU where there is one; `dtype` "auto" is bfloat16
    where the machine computes it fast, else float32.

    Raises:
        ModelError: the folder is incomplete or no extended model folder.
        CatalogError, FormatError: it has no catalog, or one of another format.
        ConfigError: an unknown device, type or language, or `max_history` below 1.
    """
    from onereason.model.folder import load_model_folder
    from onereason.model.precision import has_fast_bfloat16

    model_dir = Path(model_dir)
    style, max_history, language = resolve_prompt_settings(model_dir, style, max_history, language)
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is not known; use {' or '.join(DTYPES)}.")
    found_device = resolve_device(device)
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    if dtype == "auto":
        dtype = "bfloat16" if has_fast_bfloat16() else "float32"
    folder = load_model_folder(model_dir, dtype=dtype, device=found_device)
    return Recommender(**vars(write_prompts(folder, style, max_history, language)), model=folder.model.eval())


def write_prompts(folder: ModelFolder, style: str, max_history: int, language: str) -> PromptWriter:
    """What writes prompts for an opened model folder; `CatalogError` where it has no catalog."""
    from onereason.data.prompts import RecommendationPrompt
    from onereason.model.folder import require_catalog

    catalog = require_catalog(folder)
    return PromptWriter(
        folder.vocabulary,
        catalog,
        load_or_build_catalog_trie(folder.path, catalog, folder.vocabulary),
        RecommendationPrompt(folder.tokenizer, folder.vocabulary, style=style, language=language),
        max_history,
    )


def resolve_prompt_settings(
    model_dir: Path, style: str | None, max_history: int | None, language: str | None
) -> tuple[str, int, str]:
    """Style, history and language of a folder's prompts: as given, else as it records them, else the defaults."""
    recorded = read_prompt_settings(model_dir)
    style = style or recorded.get("style", DEFAULT_STYLE)
    max_history = recorded.get("max_history", DEFAULT_MAX_HISTORY) if max_history is None else max_history
    language = language or recorded.get("language", DEFAULT_LANGUAGE)
    load_prompt_set("recommendation", language)
    if max_history < 1:
        raise ConfigError(f"max_history must be at least 1, got {max_history}.")
    return style, max_history, language


def read_prompt_settings(model_dir: Path) -> dict[str, Any]:
    """What the folder's manifest records about its prompts; empty where it says nothing.

    Returns:
        some of `style`, `max_history` and `language`. A language that is none of the package's is a folder of prompt
        sets, which the model folder may hold: then its path is given.

    Raises:
        ModelError: a value of the wrong type.
    """
    path = model_dir / MANIFEST_NAME
    manifest = read_json(path, "model manifest") if path.is_file() else {}
    settings = manifest.get("prompt") if isinstance(manifest, dict) else None
    if not isinstance(settings, dict):
        return {}
    max_history = settings.get("max_history", DEFAULT_MAX_HISTORY)
    if not isinstance(max_history, int) or max_history < 1:
        raise ModelError(f"{path}: prompt.max_history should be a whole number from 1, is {max_history!r}.")
    language = settings.get("language", DEFAULT_LANGUAGE)
    if not isinstance(language, str) or not language:
        raise ModelError(f"{path}: prompt.language should be en, zh or a folder of prompt sets, is {language!r}.")
    if language not in LANGUAGES and (model_dir / language).is_dir():
        settings = settings | {"language": str(model_dir / language)}
    return settings


def carry_prompt_settings(model_dir: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """What another folder needs to be asked as this one: `prompt` of its manifest, and the prompt sets to copy into it.

    Returns:
        the settings, with the language by its name; place in the folder -> file. Both empty where nothing is recorded.
    """
    settings = read_prompt_settings(model_dir)
    if not settings:
        return {}, {}
    language = settings.get("language", DEFAULT_LANGUAGE)
    name = language_name(language)
    return settings | {"language": name}, {f"{name}/{path.name}": path for path in own_prompt_files(language)}
