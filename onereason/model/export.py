"""A model folder, or a base and its adapter, as one plain model that is shown to write the same as before.

Proof is greedy generation from a few prompts, in float32: with the adapter beside the weights and with the adapter in
them, before the weights are written and after they are read back, here and in other runtimes.

Notation: `P` prompts, `T` tokens written behind each, `V` vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onereason.errors import ConfigError, ModelError
from onereason.model.adapter import find_base, is_adapter, load_with_adapter, merge_adapter, require_own_base
from onereason.model.folder import ModelFolder, check_weights, load_model_folder, load_tokenizer_folder

NUM_TOKENS = 16
"""Tokens that are compared behind each prompt."""
TIE = 1e-3
"""Logits closer than this are one choice for two ways of adding up the same numbers in float32."""


@dataclass(frozen=True)
class ExportSource:
    """What is exported; no weights are read yet.

    Attributes:
        path: the model folder or the adapter.
        folder: the model folder, or the adapter's base: tokenizer, vocabulary and catalog.
        adapter: whether `path` is an adapter.
    """

    path: Path
    folder: ModelFolder
    adapter: bool


def open_source(path: str | Path, base: str | Path | None = None) -> ExportSource:
    """Checks a model folder, or an adapter against its base.

    Args:
        base: of an adapter; by default the folder it was trained on.

    Raises:
        ModelError: neither is at `path`, the folder or the base is incomplete, or the adapter belongs to another base.
        FormatError, CatalogError: itemic formats or a catalog that do not fit.
        ConfigError: a base for what is no adapter.
    """
    path = Path(path)
    if is_adapter(path):
        place = find_base(path, base)
        folder = load_tokenizer_folder(place)
        check_weights(folder.path)
        require_own_base(path, folder)
        return ExportSource(path, folder, True)
    if base is not None:
        raise ConfigError(f"--base goes with an adapter, and {path} holds none; leave --base out.")
    inner = [name for name in ("model", "adapter") if (path / name).is_dir()]
    if path.is_dir() and inner and not (path / "config.json").is_file():
        raise ModelError(f"{path} is the folder of a run; name {' or '.join(str(path / name) for name in inner)}.")
    folder = load_tokenizer_folder(path)
    check_weights(folder.path)
    return ExportSource(path, folder, False)


def load_source(source: ExportSource) -> tuple[Any, torch.dtype]:
    """The model in float32, an adapter beside its weights; and the type that the (base's) weights are stored in.

    Raises:
        ModelError: weights that cannot be loaded, or an adapter that has no place in them.
    """
    if source.adapter:
        adapted, stored = load_with_adapter(source.folder, source.path)
        return adapted, stored
    model = load_model_folder(source.folder.path).model
    stored = model.dtype
    return model.float().eval(), stored


def to_plain(model: Any, source: ExportSource) -> Any:
    """The model with the adapter, where it has one, in its weights."""
    return merge_adapter(model) if source.adapter else model


def to_dtype(model: Any, dtype: torch.dtype) -> Any:
    """The model with its weights in another type, in place; `ModelError` where one leaves the type's range.

    Buffers stay: rotary frequencies are float32 in a model that is loaded in any type.
    """
    for name, value in model.named_parameters():
        value.data = value.data.to(dtype)
        if not torch.isfinite(value).all():
            raise ModelError(
                f"{name} leaves the range of {str(dtype).removeprefix('torch.')}; export as bfloat16 or float32."
            )
    return model


def check_shard_size(size: str) -> str:
    """A size as transformers reads it, e.g. `5GB`; `ConfigError` for anything else."""
    if not re.fullmatch(r"[0-9]*[1-9][0-9]*(\.[0-9]+)?[KMGT]?B", size.strip(), re.IGNORECASE):
        raise ConfigError(f"--max-shard-size {size!r} is no size; write a number and a unit, e.g. 5GB or 500MB.")
    return size.strip().upper()


@dataclass(frozen=True)
class GreedyRun:
    """What a model writes greedily behind each prompt.

    Attributes:
        tokens: `P` lists of `T` ids.
        logits: `P` tensors `[T, V]`, float32, those that each token was chosen by.
    """

    tokens: list[list[int]]
    logits: list[Tensor]


@torch.no_grad()
def write_greedily(
    model: Any, prompts: Sequence[Sequence[int]], unused: Sequence[int], num_tokens: int = NUM_TOKENS
) -> GreedyRun:
    """The likeliest token, `num_tokens` times behind each prompt; the end of a turn does not end it.

    Args:
        unused: ids without a token, which are never chosen.
    """
    banned = torch.tensor(list(unused), dtype=torch.long, device=model.device)
    tokens: list[list[int]] = []
    logits: list[Tensor] = []
    for prompt in prompts:
        ids, cache, own_tokens, own_logits = torch.tensor([list(prompt)], device=model.device), None, [], []
        for _ in range(num_tokens):
            out = model(input_ids=ids, past_key_values=cache, use_cache=True)
            own_logits.append(out.logits[0, -1].float().cpu())
            ids = out.logits[0, -1].float().index_fill(0, banned, -torch.inf).argmax().view(1, 1)
            own_tokens.append(int(ids))
            cache = out.past_key_values
        tokens.append(own_tokens)
        logits.append(torch.stack(own_logits))
    return GreedyRun(tokens, logits)


@dataclass(frozen=True)
class Comparison:
    """Two greedy runs over the same prompts.

    Attributes:
        prompts, tokens: how many prompts, and tokens behind each.
        equal: prompts with the same tokens.
        ties: prompts that part where two logits lie closer than `TIE`; what follows has another context.
        different: prompts that part elsewhere.
        max_logit_difference: largest difference of any logit up to where prompts part; None without the second logits.
        first_difference: of the first different prompt: its number, the token's number, and both tokens.
    """

    prompts: int
    tokens: int
    equal: int
    ties: int
    different: int
    max_logit_difference: float | None
    first_difference: tuple[int, int, int, int] | None

    def to_dict(self) -> dict[str, Any]:
        """The figures, for a manifest."""
        return {name: value for name, value in asdict(self).items() if name != "first_difference"}


def compare(expected: GreedyRun, tokens: Sequence[Sequence[int]], logits: Sequence[Tensor] | None = None) -> Comparison:
    """Another model's tokens (and logits) against those of `expected`.

    Raises:
        ModelError: it wrote another number of tokens.
    """
    shape = [len(own) for own in expected.tokens]
    if [len(found) for found in tokens] != shape:
        raise ModelError(f"expected {shape} tokens behind the prompts, found {[len(found) for found in tokens]}.")
    ties, different, largest, first = 0, 0, 0.0, None
    for number, (ours, theirs, own) in enumerate(zip(expected.tokens, tokens, expected.logits, strict=True)):
        parts = next((t for t, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]), None)
        if logits is not None:
            shared = len(ours) if parts is None else parts + 1
            largest = max(largest, float((own[:shared] - logits[number][:shared]).abs().max()))
        if parts is None:
            continue
        if float(own[parts, ours[parts]] - own[parts, theirs[parts]]) <= TIE:
            ties += 1
        else:
            different += 1
            first = first or (number, parts, ours[parts], theirs[parts])
    return Comparison(
        prompts=len(shape),
        tokens=shape[0],
        equal=len(shape) - ties - different,
        ties=ties,
        different=different,
        max_logit_difference=None if logits is None else largest,
        first_difference=first,
    )


def require_equal(comparison: Comparison, what: str, tokenizer: Any) -> None:
    """`ModelError` where prompts part elsewhere than at a tie."""
    if comparison.first_difference is not None:
        prompt, token, ours, theirs = comparison.first_difference
        ours_text, theirs_text = tokenizer.convert_ids_to_tokens([ours, theirs])
        raise ModelError(
            f"{what}: {comparison.different} of {comparison.prompts} prompts go on in another way than before, e.g. "
            f"prompt {prompt + 1} at token {token + 1}: {theirs_text!r} in place of {ours_text!r}; nothing is written."
        )
