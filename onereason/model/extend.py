"""Adding a format's tokens to a tokenizer and a model.

Itemic tokens are added as plain (not special) tokens with `normalized=False`: text splits exactly at them, and decoding
with `skip_special_tokens=True` keeps them. Their ids are contiguous, from the tokenizer's end: inside the padding rows
that Qwen3 checkpoints have, and past them only when these run out. Rows without a token are never generated, see
`onereason.model.folder`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AddedToken

from onereason.errors import ConfigError, ModelError
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import ItemicFormat
from onereason.itemic.vocabulary import ItemicVocabulary, require_same_format
from onereason.model.folder import set_suppressed_rows
from onereason.model.initialise import build_rows, check_init, compute_row_statistics

PAD_TO_MULTIPLE = 64


class Extension(NamedTuple):
    """The extended model and tokenizer (the same objects, changed in place) and the ids of the new tokens."""

    model: Any
    tokenizer: Any
    vocabulary: ItemicVocabulary


def find_vocabulary(tokenizer: Any, format: ItemicFormat) -> ItemicVocabulary | None:
    """The format's ids in a tokenizer that has all its tokens, None where it has none of them.

    Raises:
        ModelError: it has some of them, or has them in another order.
    """
    known = tokenizer.get_vocab()
    tokens = format.tokens()
    ids = [known.get(token) for token in tokens]
    missing = [token for token, found in zip(tokens, ids, strict=True) if found is None]
    if len(missing) == len(tokens):
        return None
    if missing:
        has = next(token for token, found in zip(tokens, ids, strict=True) if found is not None)
        raise ModelError(
            f"the tokenizer already has {len(tokens) - len(missing)} of the {len(tokens)} tokens of format "
            f"{format.name!r} (it has {has}, it lacks {missing[0]}); use the format it was made with, or a tokenizer "
            "without itemic tokens."
        )
    first = known[tokens[0]]
    at = next((i for i, found in enumerate(ids) if found != first + i), None)
    if at is not None:
        raise ModelError(
            f"the tokenizer has the tokens of format {format.name!r} in another order: {tokens[at]} is id {ids[at]}, "
            f"expected {first + at}; declare a format with the tokenizer's levels, codes and order."
        )
    return ItemicVocabulary(format, first)


def extend_tokenizer(tokenizer: Any, format: ItemicFormat) -> ItemicVocabulary:
    """Adds the format's tokens behind the tokenizer's last id; a tokenizer that has them stays as it is.

    Raises:
        ModelError: as `find_vocabulary`.
    """
    found = find_vocabulary(tokenizer, format)
    if found is not None:
        return found
    first = max(tokenizer.get_vocab().values()) + 1
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in format.tokens()])
    vocabulary = find_vocabulary(tokenizer, format)
    assert vocabulary is not None and vocabulary.first_token_id == first
    return vocabulary


def extend_model(
    model: Any,
    tokenizer: Any,
    format: ItemicFormat,
    *,
    catalog: Catalog | None = None,
    vectors: np.ndarray | None = None,
    init: str = "mean_noise",
    pad_to_multiple: int = PAD_TO_MULTIPLE,
    seed: int = 0,
) -> Extension:
    """Adds the format's tokens to tokenizer and model, in place, and initialises their rows.

    Input rows, and output rows when the embeddings are untied, are initialised from their own matrix; tied ones stay
    tied. Rows past the last token (up to the multiple) get the mean of the old rows. A model whose tokenizer has the
    tokens already keeps its rows. The caller's random state is left as it was.

    Args:
        catalog: needed by `init="description"` and `init="vectors"`.
        vectors: item vectors `[items, E]` in the order of the catalog, for `init="vectors"`.
        init: see `onereason.model.initialise`.
        pad_to_multiple: rows grow to a multiple of this, and only when the tokens do not fit. 1 leaves no row without a
            token behind when the rows grow.
        seed: of the initial rows.

    Raises:
        ModelError: the tokenizer has other itemic tokens, or more tokens than the model has rows.
        FormatError: the catalog is of another format.
        ConfigError: an unknown `init`, or one that lacks its catalog or its vectors.
    """
    check_init(init, catalog, vectors)
    if pad_to_multiple < 1:
        raise ConfigError(f"pad_to_multiple must be at least 1, got {pad_to_multiple}.")
    if catalog is not None:
        require_same_format(format, catalog.format, "the catalog")
    found = find_vocabulary(tokenizer, format)
    old_ids = torch.tensor(sorted(tokenizer.get_vocab().values()))
    rows_before = model.get_input_embeddings().weight.shape[0]
    if int(old_ids[-1]) >= rows_before:
        raise ModelError(
            f"the tokenizer has ids up to {int(old_ids[-1])}, the model only {rows_before} embedding rows; "
            "use the tokenizer the model was trained with."
        )
    if found is not None:
        set_suppressed_rows(model, tokenizer)
        return Extension(model, tokenizer, found)

    generator = torch.Generator().manual_seed(seed)
    std = getattr(model.config, "initializer_range", 0.02)
    starts: list[tuple[Tensor, Tensor]] = []  # input, then output rows: (new rows [N, D], row of unused ids [D])
    for weight in _matrices(model):
        statistics = compute_row_statistics(weight[old_ids])
        rows = build_rows(init, weight, statistics, tokenizer, format, catalog, vectors, std, generator)
        starts.append((rows, statistics.mean))

    vocabulary = extend_tokenizer(tokenizer, format)
    rows_after = rows_before
    if vocabulary.end_token_id > rows_before:
        rows_after = -(-vocabulary.end_token_id // pad_to_multiple) * pad_to_multiple
        with torch.random.fork_rng(devices=[]):
            model.resize_token_embeddings(rows_after, mean_resizing=False)
    with torch.no_grad():
        for weight, (rows, mean) in zip(_matrices(model), starts, strict=True):
            weight[max(rows_before, vocabulary.end_token_id) :] = mean.to(weight)
            weight[vocabulary.first_token_id : vocabulary.end_token_id] = rows.to(weight)
    set_suppressed_rows(model, tokenizer)
    return Extension(model, tokenizer, vocabulary)


def is_tied(model: Any) -> bool:
    """Whether the output matrix is the embedding matrix."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def _matrices(model: Any) -> list[nn.Parameter]:
    """The embedding matrix, and the output matrix where it is another one; each [V, D]."""
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return [embedding] if head is embedding else [embedding, head]
