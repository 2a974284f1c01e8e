"""First values of the rows of new tokens.

Four ways, each seeded:

- `mean_noise`: the mean of the old rows plus noise. A new token starts with the logit of an average token, so the old
  model's distribution hardly moves (Hewitt 2021, "Initializing new word embeddings for pretrained language models").
- `copy_default`: transformers' own start, normal with the config's `initializer_range`.
- `description`: a code token starts where the captions of the items that bear it lie; a begin / end token where its
  domain's name lies. Codes that no captioned item bears get `mean_noise`.
- `vectors`: a code token starts where the vectors of the items that bear it lie (text and co-occurrences, as
  `onereason tokenize --save-vectors` keeps them). A model that knows no language yet begins with the items' likeness.

Notation: `V` rows, `D` hidden, `M` old rows (rows of tokens the tokenizer had before), `N` new tokens, `L` levels,
`I` items, `E` dimensions of item vectors.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from onereason.errors import CatalogError, ConfigError
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import ANY_DOMAIN, ItemicFormat

INITS = ("mean_noise", "description", "vectors", "copy_default")
MEAN_NOISE_SCALE = 0.5
"""Noise of `mean_noise`, in standard deviations of the old rows (a dimension each)."""
DESCRIPTION_NOISE_SCALE = 0.1
"""Noise that keeps equal descriptions apart, in standard deviations of the old rows."""
VECTORS_SCALE = 2.0
"""Root mean square distance of the rows of `vectors` from the mean, in median distances of the old rows."""
MAX_CAPTION_TOKENS = 512
_CHUNK = 4096


@dataclass(frozen=True)
class RowStatistics:
    """Where the old rows lie.

    Attributes:
        mean: [D].
        std: [D].
        deviation_norm: median Euclidean distance of an old row from the mean.
    """

    mean: Tensor
    std: Tensor
    deviation_norm: float


def compute_row_statistics(rows: Tensor) -> RowStatistics:
    """Statistics of old rows [M, D], in float32."""
    rows = rows.detach().float()
    variance, mean = torch.var_mean(rows, dim=0, correction=0)
    return RowStatistics(mean, variance.sqrt(), float((rows - mean).norm(dim=1).median()))


def mean_noise_rows(statistics: RowStatistics, num_rows: int, generator: torch.Generator) -> Tensor:
    """`mean + 0.5 std * noise`, [num_rows, D] float32."""
    noise = torch.randn(num_rows, len(statistics.mean), generator=generator)
    return statistics.mean + MEAN_NOISE_SCALE * statistics.std * noise


def default_rows(num_rows: int, hidden_size: int, initializer_range: float, generator: torch.Generator) -> Tensor:
    """Normal rows [num_rows, hidden_size] with standard deviation `initializer_range`, float32."""
    return initializer_range * torch.randn(num_rows, hidden_size, generator=generator)


def description_rows(
    matrix: Tensor, statistics: RowStatistics, tokenizer: Any, catalog: Catalog, generator: torch.Generator
) -> Tensor:
    """Rows of a format's tokens from what the catalog says about them, [N, D] float32, in the order of `tokens()`.

    With `e_i` the mean row of item i's caption tokens and `v_c` the mean of `e_i` over the items that bear code c, the
    row of c is `mean + d * (v_c - v) / |v_c - v| + noise`: `v` is the mean of `v_c` over the level's described codes
    (captions of one catalog share most words; without this the rows would be nearly equal), `d` the median distance of
    old rows from their mean. A begin token takes `v_c` from the domain's name and `v` from the old rows' mean, an end
    token from the name and the word "end".

    Args:
        matrix: [V, D], input or output matrix of the model before the extension.
        tokenizer: the tokenizer before the extension.

    Raises:
        CatalogError: no item has a caption.
    """
    format = catalog.format
    means = description_means(matrix, tokenizer, catalog)
    rows = mean_noise_rows(statistics, format.num_tokens, generator)
    noise = DESCRIPTION_NOISE_SCALE * statistics.std * torch.randn(rows.shape, generator=generator)
    first = len(format.marker_tokens) if format.markers_first else 0
    for level_means in means:
        described = ~level_means.isnan().any(dim=1)
        centred = level_means[described] - level_means[described].mean(0)
        at = first + described.nonzero().squeeze(1)
        rows[at] = statistics.mean + _rescale(centred, statistics.deviation_norm) + noise[at]
        first += len(level_means)
    texts = marker_descriptions(format)
    first = 0 if format.markers_first else format.num_codes
    for row, text in enumerate(texts, first):
        centred = _mean_rows(matrix, tokenizer, [text]) - statistics.mean
        rows[row] = statistics.mean + _rescale(centred, statistics.deviation_norm)[0] + noise[row]
    return rows


def description_means(matrix: Tensor, tokenizer: Any, catalog: Catalog) -> list[Tensor]:
    """For each level, the mean caption vector of each code, `L` tensors [codes, D]; nan for codes without one."""
    captioned = np.array([i for i, caption in enumerate(catalog.captions) if caption.strip()], dtype=np.int64)
    if not len(captioned):
        raise CatalogError(
            "init 'description' needs captions, the catalog has none; use --init mean_noise, or run "
            "`onereason tokenize` on items with text."
        )
    sizes = catalog.format.codes_per_level
    sums = [torch.zeros(size, matrix.shape[1]) for size in sizes]
    counts = [torch.zeros(size) for size in sizes]
    codes = torch.from_numpy(catalog.codes.astype(np.int64))
    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        for start in progress.track(range(0, len(captioned), _CHUNK), description="reading captions"):
            chunk = captioned[start : start + _CHUNK]
            vectors = _mean_rows(matrix, tokenizer, [catalog.captions[i] for i in chunk])
            for level, (total, count) in enumerate(zip(sums, counts, strict=True)):
                level_codes = codes[chunk, level]
                total.index_add_(0, level_codes, vectors)
                count.index_add_(0, level_codes, torch.ones(len(chunk)))
    return [total / count.unsqueeze(1) for total, count in zip(sums, counts, strict=True)]  # 0 / 0 is nan


def vector_rows(vectors: np.ndarray, statistics: RowStatistics, catalog: Catalog, generator: torch.Generator) -> Tensor:
    """Rows of a format's tokens from item vectors `[I, E]`, [N, D] float32, in the order of `tokens()`.

    The row of a code is the mean, over the items that bear it, of what the codes before it left of their vectors (as
    residual k-means sees it), laid into `D` dimensions by the level's principal axes and a random rotation, and scaled.
    Codes without an item, begin and end tokens get `mean_noise`.
    """
    format, hidden = catalog.format, len(statistics.mean)
    rows = mean_noise_rows(statistics, format.num_tokens, generator)
    rest = torch.from_numpy(np.asarray(vectors, dtype=np.float32))
    rest = rest - rest.mean(0)
    first = len(format.marker_tokens) if format.markers_first else 0
    for level, size in enumerate(format.codes_per_level):
        codes = torch.from_numpy(catalog.codes[:, level].astype(np.int64))
        counts = torch.bincount(codes, minlength=size)
        means = torch.zeros(size, rest.shape[1]).index_add_(0, codes, rest) / counts.clamp(min=1).unsqueeze(1)
        rest = rest - means[codes]
        rotation = torch.linalg.qr(torch.randn(hidden, hidden, generator=generator)).Q
        axes = torch.linalg.svd(means, full_matrices=False).Vh[:hidden]  # [<= D, E]
        laid = means @ axes.T @ rotation[: len(axes)]  # [size, D]
        used = counts > 0
        spread = float(laid[used].pow(2).sum(1).mean().sqrt())
        scale = VECTORS_SCALE * statistics.deviation_norm / max(spread, 1e-12)
        rows[first : first + size][used] = statistics.mean + scale * laid[used]
        first += size
    return rows


def marker_descriptions(format: ItemicFormat) -> list[str]:
    """A few words for each marker token: the domain's name, and "end" for end tokens."""
    texts = []
    for domain, marker in format.domains.items():
        name = "item" if domain == ANY_DOMAIN else domain
        texts += [name] if marker.begin is not None else []
        texts += [f"{name} end"] if marker.end is not None else []
    return texts


def build_rows(
    init: str,
    matrix: Tensor,
    statistics: RowStatistics,
    tokenizer: Any,
    format: ItemicFormat,
    catalog: Catalog | None,
    vectors: np.ndarray | None,
    initializer_range: float,
    generator: torch.Generator,
) -> Tensor:
    """Rows of the format's tokens by the method named `init`, [N, D] float32.

    Raises:
        ConfigError: an unknown `init`, or one that lacks its catalog or its item vectors.
    """
    check_init(init, catalog, vectors)
    if init == "vectors":
        assert catalog is not None and vectors is not None
        return vector_rows(vectors, statistics, catalog, generator)
    if init == "description":
        assert catalog is not None
        return description_rows(matrix, statistics, tokenizer, catalog, generator)
    if init == "copy_default":
        return default_rows(format.num_tokens, matrix.shape[1], initializer_range, generator)
    return mean_noise_rows(statistics, format.num_tokens, generator)


def check_init(init: str, catalog: Catalog | None, vectors: np.ndarray | None = None) -> None:
    """`ConfigError` unless `init` is known and has what it needs; vectors are one a catalog item."""
    if init not in INITS:
        raise ConfigError(f"init {init!r} is not known; use {', '.join(INITS)}.")
    if init == "description" and catalog is None:
        raise ConfigError("init 'description' reads captions and needs --catalog; pass one or use --init mean_noise.")
    if init == "vectors":
        found = None if vectors is None else vectors.shape
        if catalog is None or found is None or len(found) != 2 or found[0] != len(catalog):
            raise ConfigError(
                f"init 'vectors' needs a --catalog with one vector an item, found {found or 'none'}; make it with "
                "`onereason tokenize --save-vectors`, or use --init mean_noise."
            )


def _mean_rows(matrix: Tensor, tokenizer: Any, texts: list[str]) -> Tensor:
    """Mean row of each text's tokens, [n, D] float32."""
    ids = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=MAX_CAPTION_TOKENS)["input_ids"]
    flat = torch.tensor([i for row in ids for i in row])
    offsets = torch.tensor([0, *np.cumsum([len(row) for row in ids])[:-1].tolist()])
    used, flat = flat.unique(return_inverse=True)  # the captions' own rows alone are made float32
    return torch.nn.functional.embedding_bag(flat, matrix.detach()[used].float(), offsets, mode="mean")


def _rescale(vectors: Tensor, norm: float) -> Tensor:
    """Vectors [n, D] brought to one norm; zero vectors stay zero."""
    return norm * torch.nn.functional.normalize(vectors, dim=1, eps=1e-12)
