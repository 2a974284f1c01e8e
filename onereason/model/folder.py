"""Model folders: everything a recommender needs, in one place.

A model folder holds `config.json`, `model.safetensors`, the tokenizer's files with its chat template,
`generation_config.json`, `itemic.json`, the catalog (`catalog.parquet`, `catalog.json`, where one is known), its trie
(`catalog.trie`) and `manifest.json`. Whoever opens it needs nothing else.

Rows without a token. A model may have more embedding rows than its tokenizer has tokens. Such a row has a logit like
any other and would be sampled as an id that decodes to nothing. `save_model_folder` lists them as `suppress_tokens` in
`generation_config.json`, which `model.generate` obeys. Other runtimes do not read that key: give them
`unused_row_ids(...)` themselves (vLLM: `logit_bias` of -100 on these ids, or `allowed_token_ids` without them; a
decoding loop of one's own: set their logits to -inf before the softmax).
"""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.integrations import deepspeed as hf_deepspeed
from transformers.utils import logging as hf_logging

from onereason.errors import CatalogError, ModelError, first_line
from onereason.io import MANIFEST_NAME, atomic_dir, read_json, write_json
from onereason.itemic.catalog import CATALOG_META, CATALOG_TABLE, Catalog
from onereason.itemic.format import ItemicFormat
from onereason.itemic.trie_file import save_catalog_trie
from onereason.itemic.vocabulary import ItemicVocabulary, require_same_format

CONFIG_FILE, WEIGHTS_FILE, WEIGHTS_INDEX_FILE = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
MAX_SHARD_SIZE = "1000GB"
"""Weights are one file unless `onereason export --max-shard-size` cuts them."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class ModelFolder:
    """An opened model folder.

    Attributes:
        path: where it stands.
        model: the language model (None from `load_tokenizer_folder`). Training recipes replace it by a wrapped one.
        tokenizer: the transformers tokenizer.
        vocabulary: ids of the itemic tokens.
        catalog: the items, None where the folder has none.
    """

    path: Path
    model: Any
    tokenizer: Any
    vocabulary: ItemicVocabulary
    catalog: Catalog | None


def load_model_folder(
    path: str | Path,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    attn_implementation: str = "sdpa",
) -> ModelFolder:
    """Opens a model folder; everything cheap is checked before the weights are read.

    Weights are loaded whole in every process, also under DeepSpeed ZeRO-3, which shards them afterwards.

    Args:
        dtype: type of the weights ("float32", "bfloat16", "float16" or a torch type); None keeps the stored type.
        device: where the model goes; None leaves it on the CPU.
        attn_implementation: transformers' name of the attention kernel.

    Raises:
        ModelError: the folder is incomplete, or tokenizer, `itemic.json` and weights do not belong together.
        CatalogError, FormatError: the catalog is malformed or of another format.
    """
    torch_dtype = _resolve_dtype(dtype)
    folder = load_tokenizer_folder(path)
    check_weights(folder.path)
    with _whole_weights(), quiet_progress(), _without_load_report():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder.path, dtype=torch_dtype, attn_implementation=attn_implementation, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError, ImportError) as error:
            raise ModelError(f"{folder.path}: the model cannot be loaded: {first_line(error)}") from error
    model, found = loaded
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found[problem]:
            raise ModelError(
                f"{folder.path}: weights and {CONFIG_FILE} do not belong together: {len(found[problem])} "
                f"{problem.replace('_', ' ')}, e.g. {sorted(map(str, found[problem]))[0]}; write the folder again."
            )
    check_rows(model.get_input_embeddings().weight.shape[0], folder.vocabulary, folder.path)
    folder.model = model if device is None else model.to(device)
    return folder


def weight_files(path: str | Path) -> list[Path]:
    """The files that hold a model folder's weights: `model.safetensors`, or the shards its index names.

    Raises:
        ModelError: one of them is missing, or the index is malformed.
    """
    path = Path(path)
    names = [WEIGHTS_FILE]
    if (path / WEIGHTS_INDEX_FILE).is_file():
        index = read_json(path / WEIGHTS_INDEX_FILE, "weights index")
        shards = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(shards, dict) or not shards:
            raise ModelError(f"{path / WEIGHTS_INDEX_FILE} is malformed: it maps no weight to a file.")
        names = sorted(set(shards.values()))
    if missing := [name for name in names if not (path / name).is_file()]:
        raise ModelError(f"{path} holds no {missing[0]}; the model folder is incomplete, write it again.")
    return [path / name for name in names]


def check_weights(path: Path) -> None:
    """`ModelError` unless the folder's weight files are there and their headers can be read."""
    for file in weight_files(path):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file} cannot be read as weights ({error}); write the folder again.") from error


def count_parameters(path: Path) -> int:
    """Numbers in the folder's weights; a tied matrix is stored, and counts, once."""
    total = 0
    for file in weight_files(path):
        with safe_open(file, framework="pt") as weights:
            total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return total


def load_tokenizer_folder(path: str | Path) -> ModelFolder:
    """Opens a model folder without its weights: tokenizer, vocabulary, catalog; `model` is None.

    Raises: as `load_model_folder`.
    """
    path = Path(path)
    if not path.is_dir():
        raise ModelError(f"model folder {path} does not exist; make one with `onereason extend`.")
    vocabulary = ItemicVocabulary.load(path)
    check_rows(stored_rows(path), vocabulary, path)
    missing = next((name for name in TOKENIZER_FILES if not (path / name).is_file()), None)
    if missing:
        raise ModelError(f"{path} holds no {missing}; the model folder is incomplete, write it again.")
    catalog = load_folder_catalog(path, vocabulary.format)
    tokenizer = load_tokenizer(path)
    vocabulary.check_tokenizer(tokenizer)
    return ModelFolder(path, None, tokenizer, vocabulary, catalog)


def load_folder_catalog(path: Path, format: ItemicFormat) -> Catalog | None:
    """The catalog of a model folder, None where it has none; `FormatError` where it has another format."""
    present = [name for name in (CATALOG_META, CATALOG_TABLE) if (path / name).is_file()]
    if not present:
        return None
    catalog = Catalog.load(path)  # names the missing one of the two files
    require_same_format(format, catalog.format, f"the catalog in {path}")
    return catalog


def load_tokenizer(path: str | Path) -> Any:
    """The transformers tokenizer at a folder; `ModelError` where it cannot be read."""
    try:
        return AutoTokenizer.from_pretrained(path)
    except Exception as error:  # tokenizers raises bare Exception on a malformed tokenizer.json
        raise ModelError(f"{path}: the tokenizer cannot be loaded: {first_line(error)}") from error


def require_catalog(folder: ModelFolder) -> Catalog:
    """The folder's catalog; `CatalogError` where it has none."""
    if folder.catalog is None:
        raise CatalogError(
            f"{folder.path} holds no catalog ({CATALOG_META}, {CATALOG_TABLE}), so its items are unknown; "
            f"run `onereason extend --base {folder.path} --catalog DIR --out DIR`."
        )
    return folder.catalog


def require_same_tokens(expected: ModelFolder, found: ModelFolder, what: str, owner: str) -> None:
    """Refuses a model whose tokens are not those of another one; weights play no part.

    Args:
        what: what is refused, e.g. `teachers.video`.
        owner: what `expected` is, e.g. `the student`.

    Raises:
        FormatError: another itemic format.
        ModelError: other tokens, or other ids.
    """
    require_same_format(expected.vocabulary.format, found.vocabulary.format, f"{what} ({found.path})")
    if found.tokenizer.get_vocab() != expected.tokenizer.get_vocab():
        raise ModelError(
            f"{what}: {found.path} has another vocabulary than {owner} ({len(found.tokenizer)} tokens against "
            f"{len(expected.tokenizer)}); both must come from the same extended model."
        )


def require_same_items(expected: ModelFolder, found: ModelFolder, what: str, owner: str) -> None:
    """`CatalogError` where two models of one format know different items, or the same under other semantic ids.

    Captions and popularity may differ: no token depends on them. A folder without a catalog knows no items.
    """
    ours, theirs = expected.catalog, found.catalog
    if ours is None or theirs is None:
        if ours is theirs:
            return
        with_one, without = (found, expected) if ours is None else (expected, found)
        raise CatalogError(f"{what}: {without.path} holds no catalog, {with_one.path} does; give both the same.")
    differs = (
        "items"
        if ours.item_ids != theirs.item_ids
        else "domains"
        if ours.domains != theirs.domains
        else ""
        if np.array_equal(ours.codes, theirs.codes)
        else "semantic ids"
    )
    if differs:
        raise CatalogError(
            f"{what}: the catalog of {found.path} ({len(theirs)} items) has other {differs} than that of {owner} "
            f"({expected.path}, {len(ours)} items); build both from one catalog."
        )


def save_model_folder(
    model: Any,
    tokenizer: Any,
    vocabulary: ItemicVocabulary,
    catalog: Catalog | None,
    out: str | Path,
    manifest: Mapping[str, Any],
    overwrite: bool = False,
    extra_files: Mapping[str, Path] | None = None,
    max_shard_size: str = MAX_SHARD_SIZE,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Writes a complete model folder atomically. Equal inputs give equal bytes.

    `model` is a plain transformers model: split rows and adapters are merged first (`onereason.model.warmup`).

    Args:
        extra_files: copied into the folder: place in it -> file, e.g. the prompt sets that it is asked with.
        max_shard_size: of a file of weights, as transformers writes sizes.
        finish: gets the whole folder before it takes its place at `out`; what it raises leaves nothing behind.

    Raises:
        ModelError: tokenizer, vocabulary and model rows do not belong together, or the model is still split.
        FormatError: the catalog is of another format.
        StorageError: `out` cannot be written, or is not empty without `overwrite`.
    """
    vocabulary.check_tokenizer(tokenizer)
    if type(model.get_input_embeddings()) is not torch.nn.Embedding:
        raise ModelError("the model's new rows are still split off; call merge_new_rows or merge_lora before saving.")
    rows = model.get_input_embeddings().weight.shape[0]
    check_rows(rows, vocabulary, Path(out))
    if catalog is not None:
        require_same_format(vocabulary.format, catalog.format, "the catalog")
    set_suppressed_rows(model, tokenizer)
    for trace in ("is_local", "local_files_only"):  # how this process found the tokenizer is not the folder's business
        tokenizer.init_kwargs.pop(trace, None)
    with atomic_dir(out, overwrite) as temporary, quiet_progress():
        model.save_pretrained(temporary, max_shard_size=max_shard_size)
        tokenizer.save_pretrained(temporary)
        vocabulary.save(temporary)
        if catalog is not None:
            catalog.write_into(temporary)
            save_catalog_trie(temporary, catalog, vocabulary)
        for place, source in (extra_files or {}).items():
            (temporary / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, temporary / place)
        write_json(temporary / MANIFEST_NAME, dict(manifest))
        for file in weight_files(temporary):
            # safetensors writes for its owner only; a model folder is read by others as its other files are.
            file.chmod((temporary / CONFIG_FILE).stat().st_mode)
        if finish is not None:
            finish(temporary)


def set_suppressed_rows(model: Any, tokenizer: Any) -> list[int]:
    """Makes the rows without a token the `suppress_tokens` of the model's generation config; returns them."""
    rows = model.get_input_embeddings().weight.shape[0]
    unused = unused_row_ids(rows, tokenizer)
    # A list of an earlier, smaller vocabulary would suppress the new tokens: it is replaced, not extended.
    model.generation_config.suppress_tokens = unused or None
    return unused


def unused_row_ids(vocab_rows: int, tokenizer: Any) -> list[int]:
    """Ids below `vocab_rows` that no token of the tokenizer has, ascending. No runtime may generate them."""
    return sorted(set(range(vocab_rows)) - set(tokenizer.get_vocab().values()))


def check_rows(rows: int, vocabulary: ItemicVocabulary, path: Path) -> None:
    """`ModelError` unless a model of `rows` embedding rows covers the vocabulary's ids."""
    if rows < vocabulary.end_token_id:
        raise ModelError(
            f"{path}: the model has {rows} embedding rows, format {vocabulary.format.name!r} needs ids up to "
            f"{vocabulary.end_token_id - 1}; weights and itemic.json come from different runs of `onereason extend`."
        )


def stored_rows(path: Path) -> int:
    """`vocab_size` of the folder's `config.json`."""
    if not (path / CONFIG_FILE).is_file():
        raise ModelError(f"{path} holds no {CONFIG_FILE}; the model folder is incomplete, write it again.")
    config = read_json(path / CONFIG_FILE, "model configuration")
    rows = config.get("vocab_size") if isinstance(config, dict) else None
    if not isinstance(rows, int):
        raise ModelError(f"{path / CONFIG_FILE} is malformed: vocab_size should be a number, is {rows!r}.")
    return rows


def _resolve_dtype(dtype: torch.dtype | str | None) -> torch.dtype | str:
    if dtype is None:
        return "auto"
    if isinstance(dtype, str) and dtype not in DTYPES:
        raise ModelError(f"dtype {dtype!r} is not known; use {', '.join(DTYPES)}.")
    return DTYPES[dtype] if isinstance(dtype, str) else dtype


@contextlib.contextmanager
def _whole_weights() -> Iterator[None]:
    """Keeps transformers from sharding while it loads: splitting rows needs the whole matrix in every process."""
    reference = hf_deepspeed._hf_deepspeed_config_weak_ref
    config = reference() if reference is not None else None
    hf_deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if config is not None:
            hf_deepspeed.set_hf_deepspeed_config(config)


@contextlib.contextmanager
def _without_load_report() -> Iterator[None]:
    """transformers' table of missing and unexpected weights is said by us, in one line."""
    logger = logging.getLogger("transformers.modeling_utils")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def quiet_progress() -> Iterator[None]:
    """transformers' progress bars only where a person watches."""
    if sys.stderr.isatty() or not hf_logging.is_progress_bar_enabled():
        yield
        return
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.enable_progress_bar()
