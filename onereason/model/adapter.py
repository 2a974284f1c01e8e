"""Adapters: what a run with LoRA trained, low-rank updates and itemic rows, as a folder of PEFT's own format.

A folder holds `adapter_config.json` and `adapter_model.safetensors` as PEFT writes them (the itemic rows are its
`trainable_token_indices`), so that PEFT opens it beside the base model. The toolkit's own runs add `itemic.json`, the
tokenizer and `manifest.json`, which say what base the adapter belongs to; adapters of other trainers lack some of them,
and what they lack is not checked.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from onereason.errors import ConfigError, ModelError
from onereason.io import MANIFEST_NAME, atomic_dir, hash_file, read_json, write_json
from onereason.itemic.vocabulary import ITEMIC_FILE, ItemicVocabulary, require_same_format
from onereason.model.folder import TOKENIZER_FILES, ModelFolder, load_model_folder, load_tokenizer, weight_files
from onereason.model.warmup import LORA_TARGETS

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_SPELLINGS = ((".default.weight", ".weight"), (".new.weight", ".token_adapter.trainable_tokens_delta"))
"""How the names of `add_lora`'s parameters end, and how PEFT's files spell them."""


@dataclass(frozen=True)
class AdapterSettings:
    """What `adapter_config.json` says: the base's folder (or hub name), rank and alpha."""

    base: str
    rank: int
    alpha: float


def is_adapter(path: str | Path) -> bool:
    return (Path(path) / ADAPTER_CONFIG).is_file()


def save_adapter(
    trained: Mapping[str, Tensor],
    base: ModelFolder,
    rank: int,
    alpha: float,
    dropout: float,
    manifest: Mapping[str, Any],
    out: str | Path,
    extra_files: Mapping[str, Path] | None = None,
) -> None:
    """Writes the adapter of a run that `add_lora` prepared, atomically; one that stands there is replaced.

    Args:
        trained: the parameters that require gradients, by `add_lora`'s names.
        base: the folder that the run started from.
        manifest: its inputs hold the hashes of the base's weights.
        extra_files: see `save_model_folder`.
    """
    from peft import LoraConfig

    weights = {
        _peft_name(name): value.detach().to("cpu", torch.float32).contiguous() for name, value in trained.items()
    }
    matrices = [name.removeprefix(_PREFIX).rpartition(".token_adapter.")[0] for name in weights]
    itemic = list(range(base.vocabulary.first_token_id, base.vocabulary.end_token_id))
    scale: Any = alpha  # annotated as a whole number, used as any
    config = LoraConfig(
        r=rank,
        lora_alpha=scale,
        lora_dropout=dropout,
        target_modules=sorted(LORA_TARGETS),
        trainable_token_indices={name.rpartition(".")[2]: itemic for name in matrices if name},
        base_model_name_or_path=str(base.path.resolve()),
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    with atomic_dir(out, overwrite=True) as folder:
        config.save_pretrained(str(folder))
        save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        (folder / ADAPTER_WEIGHTS).chmod((folder / ADAPTER_CONFIG).stat().st_mode)
        base.tokenizer.save_pretrained(folder)
        base.vocabulary.save(folder)
        for place, source in (extra_files or {}).items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / place)
        write_json(folder / MANIFEST_NAME, dict(manifest))


def read_adapter_settings(path: str | Path) -> AdapterSettings:
    """`ModelError` where the folder holds no LoRA adapter of a causal language model."""
    file = Path(path) / ADAPTER_CONFIG
    config = read_json(file, "adapter configuration")
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise ModelError(f"{file}: peft_type is {kind!r}; only LoRA adapters can be used.")
    base, rank, alpha = (config.get(key) for key in ("base_model_name_or_path", "r", "lora_alpha"))
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or not isinstance(base, str | None):
        raise ModelError(f"{file} is malformed: expected base_model_name_or_path, r and lora_alpha.")
    return AdapterSettings(base or "", rank, float(alpha))


def load_adapter_weights(path: str | Path) -> dict[str, Tensor]:
    """The adapter's tensors by `add_lora`'s names; `ModelError` where they cannot be read, or are no numbers."""
    file = Path(path) / ADAPTER_WEIGHTS
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file}: the adapter cannot be read: {error}") from error
    if broken := [name for name, value in weights.items() if not torch.isfinite(value).all()]:
        raise ModelError(f"{file}: {broken[0]} holds values that are no numbers; the run that trained it diverged.")
    return {_own_name(name): value for name, value in weights.items()}


def find_base(path: str | Path, base: str | Path | None) -> Path:
    """The folder of an adapter's base: `base`, or where it stood when the adapter was trained.

    Raises:
        ModelError: it is not there.
    """
    place = Path(base) if base is not None else Path(read_adapter_settings(path).base or ".")
    if not place.is_dir() or (base is None and place == Path(".")):
        known = "is not named in it" if place == Path(".") else f"({place}) is not there"
        raise ModelError(f"the base of adapter {path} {known}; name its model folder with --base.")
    return place


def require_own_base(path: str | Path, base: ModelFolder) -> None:
    """Refuses a base that the adapter was not trained on: by hash, itemic format, and vocabulary, where it tells them.

    Raises:
        ModelError: other weights, other ids of the itemic tokens, or another vocabulary.
        FormatError: another itemic format.
    """
    path = Path(path)
    hashes = recorded_hashes(path)
    if hashes:
        for file in weight_files(base.path):
            if (found := hash_file(file)) not in hashes:
                raise ModelError(
                    f"adapter {path} was trained on other weights than {base.path}: none of the inputs in its "
                    f"{MANIFEST_NAME} is {file.name} with SHA-256 {found[:12]}; pass --base with the folder that the "
                    "run started from."
                )
    if (path / ITEMIC_FILE).is_file():
        own = ItemicVocabulary.load(path)
        require_same_format(base.vocabulary.format, own.format, f"adapter {path}")
        if own.first_token_id != base.vocabulary.first_token_id:
            raise ModelError(
                f"adapter {path} has the itemic tokens from id {own.first_token_id}, {base.path} from "
                f"{base.vocabulary.first_token_id}; pass --base with the folder that the run started from."
            )
    if all((path / name).is_file() for name in TOKENIZER_FILES):
        tokenizer = load_tokenizer(path)
        if tokenizer.get_vocab() != base.tokenizer.get_vocab():
            raise ModelError(
                f"adapter {path} has another vocabulary than {base.path} ({len(tokenizer)} tokens against "
                f"{len(base.tokenizer)}); pass --base with the folder that the run started from."
            )


def recorded_hashes(path: str | Path) -> set[str]:
    """The hashes of the inputs that a folder's manifest names; empty where it has none."""
    file = Path(path) / MANIFEST_NAME
    manifest = read_json(file, "manifest") if file.is_file() else {}
    inputs = manifest.get("inputs") if isinstance(manifest, dict) else None
    return set(inputs.values()) if isinstance(inputs, dict) else set()


def load_with_adapter(base: ModelFolder, path: str | Path) -> tuple[Any, torch.dtype]:
    """The base's model under PEFT with the adapter beside its layers, float32, in evaluation mode.

    Returns:
        the model, and the type that the base's weights are stored in.

    Raises:
        ConfigError: peft is not installed.
        ModelError: the adapter has no place in the base, or lacks some of it.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ConfigError("adapters need peft; install onereason with its extra `train`.") from error
    weights = load_adapter_weights(path)
    model = load_model_folder(base.path).model
    stored = model.dtype
    try:
        with warnings.catch_warnings():  # of what is missing or no longer tied, which is said below, or done
            warnings.simplefilter("ignore", UserWarning)
            adapted = PeftModel.from_pretrained(model.float(), str(path)).eval()
    except (ValueError, KeyError, RuntimeError, IndexError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        raise ModelError(f"adapter {path} does not fit {base.path}: {reason}") from error
    expected = {_own_name(name): value for name, value in _adapter_state(adapted).items()}
    for name in sorted({*expected, *weights}):
        if name not in expected or name not in weights:
            where = f"{base.path} has no place for it" if name not in expected else f"{ADAPTER_WEIGHTS} lacks it"
            raise ModelError(f"adapter {path} does not fit {base.path}: {name}: {where}.")
    return adapted, stored


def _adapter_state(model: Any) -> dict[str, Tensor]:
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(model, save_embedding_layers=False)


def merge_adapter(adapted: Any) -> Any:
    """The plain model with the adapter in its weights (PEFT's `merge_and_unload`).

    Embeddings that were trained apart from the output layer are no longer tied; the model's configuration says so.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Input and output embeddings are no longer tied")
        return adapted.merge_and_unload(safe_merge=True)


def _peft_name(name: str) -> str:
    for own, theirs in _SPELLINGS:
        if name.endswith(own):
            return _PREFIX + name.removesuffix(own) + theirs
    return _PREFIX + name


def _own_name(name: str) -> str:
    name = name.removeprefix(_PREFIX)
    own, theirs = _SPELLINGS[1]
    if name.endswith(theirs):
        return name.removesuffix(theirs) + own
    return name.removesuffix(".weight") + ".default.weight" if "lora_" in name else name
