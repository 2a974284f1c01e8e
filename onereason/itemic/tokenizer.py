"""The itemic tokenizer: text (and collaborative evidence) -> vector -> codes; fitted once, used for new items too.

A tokenizer folder holds `tokenizer.json`, `codebooks.npz`, `embedder/`, and `collaborative.npz` where collaborative
evidence was used.

Notation: `N` items, `D` text dimensions, `E` collaborative dimensions, `L` levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from onereason.config import check_seed
from onereason.errors import CatalogError, ConfigError, DataError
from onereason.io import atomic_dir, read_json, write_json
from onereason.itemic.align import build_collaborative_vectors, fill_from_neighbours, fuse, normalize_rows
from onereason.itemic.catalog import Catalog
from onereason.itemic.collisions import POLICIES, Taken, add_level, domain_groups, reassign
from onereason.itemic.embed import Embedder, load_embedder
from onereason.itemic.format import ANY_DOMAIN, ItemicFormat
from onereason.itemic.quantize import (
    Codebooks,
    Encoding,
    check_vectors,
    compute_errors,
    compute_variance,
    encode,
    fit_rq_kmeans,
)

TOKENIZER_FILE = "tokenizer.json"
CODEBOOKS_FILE = "codebooks.npz"
COLLABORATIVE_FILE = "collaborative.npz"
EMBEDDER_DIR = "embedder"


@dataclass(frozen=True)
class TokenizerConfig:
    """How item vectors become codes."""

    collaborative_weight: float = 0.0
    """Share of the collaborative block in the fused vector, 0 (text alone) to 1."""
    collaborative_dim: int = 128
    """Dimensions of the collaborative block, `E`."""
    window: int = 10
    """Items this many steps apart in a history count as neighbours."""
    collision: str = "reassign"
    """What two items with equal codes get: `keep`, `reassign` or `extra_level`."""
    extra_codes: int | None = None
    """Codes of the extra level; by default as many as the largest bucket needs."""
    iterations: int = 20
    """K-means iterations a level."""
    max_points_per_centroid: int = 256
    """K-means sees a sample of at most this many vectors a code."""
    seed: int = 0
    """Seed of the factorisation and of k-means."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.collision not in POLICIES:
            raise ConfigError(f"collision policy {self.collision!r} is not known; use one of {', '.join(POLICIES)}.")
        if not 0.0 <= self.collaborative_weight <= 1.0:
            raise ConfigError(f"collaborative weight must lie between 0 and 1, got {self.collaborative_weight}.")
        if self.extra_codes is not None and self.collision != "extra_level":
            raise ConfigError("extra codes are given, but the collision policy is not 'extra_level'.")
        for name in ("collaborative_dim", "window", "iterations", "max_points_per_centroid", "extra_codes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}.")


@dataclass(frozen=True)
class TokenizedItems:
    """The items a tokenizer was fitted on.

    Attributes:
        format: what `codes` fit; one level longer than the codebooks under `extra_level`.
        codes: int32 `[N, L]`, after the collision policy.
        groups: int64 `[N]`, which items can collide at all (see `collisions.domain_groups`).
        encoded: codes and residual errors before the collision policy.
        errors: float32 `[N, L]`, residual errors of `codes` (without the extra level).
        variance: sum of squared distances to the mean vector; relative errors divide by it.
        vectors: float32 `[N, D + E]`, what was quantized.
        num_without_evidence: items whose collaborative vector comes from their text-nearest neighbours.
    """

    format: ItemicFormat
    codes: np.ndarray
    groups: np.ndarray
    encoded: Encoding
    errors: np.ndarray
    variance: float
    vectors: np.ndarray
    num_without_evidence: int


@dataclass(frozen=True)
class ItemVectors:
    """What is known of items as vectors.

    Attributes:
        fused: float32 `[N, D + E]`, text and collaborative block (`[N, D]` with collaborative weight 0).
        known_text, known_collaborative: `[M, D]` and `[M, E]` of the items with collaborative evidence, or `None`.
        num_without_evidence: items whose collaborative vector comes from their text-nearest neighbours.
    """

    fused: np.ndarray
    known_text: np.ndarray | None
    known_collaborative: np.ndarray | None
    num_without_evidence: int


def build_item_vectors(text: np.ndarray, histories: Sequence[np.ndarray], config: TokenizerConfig) -> ItemVectors:
    """Text vectors `[N, D]` fused with what training histories say, as the configuration weighs them.

    Raises:
        DataError: a collaborative weight, and histories without evidence.
    """
    text = normalize_rows(text)
    if config.collaborative_weight == 0:
        return ItemVectors(text, None, None, 0)
    collaborative, evidence = build_collaborative_vectors(
        histories, len(text), config.collaborative_dim, config.window, seed=config.seed
    )
    known_text, known_collaborative = text[evidence], collaborative[evidence]
    collaborative[~evidence] = fill_from_neighbours(text[~evidence], known_text, known_collaborative)
    fused = fuse(text, collaborative, config.collaborative_weight)
    return ItemVectors(fused, known_text, known_collaborative, int((~evidence).sum()))


class ItemicTokenizer:
    """Embedder, optional collaborative reference, codebooks, and the format the codes are written in.

    Attributes:
        format: the format of catalogs this tokenizer makes.
        known_text, known_collaborative: `[M, D]` and `[M, E]` of the items with collaborative evidence, `None` with
            collaborative weight 0.
    """

    def __init__(
        self,
        format: ItemicFormat,
        embedder: Embedder,
        codebooks: Codebooks,
        config: TokenizerConfig,
        known_text: np.ndarray | None = None,
        known_collaborative: np.ndarray | None = None,
    ):
        self.format = format
        self.embedder = embedder
        self.codebooks = codebooks
        self.config = config
        self.known_text = known_text
        self.known_collaborative = known_collaborative

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        format: ItemicFormat,
        embedder: Embedder,
        *,
        vectors: np.ndarray | None = None,
        domains: Sequence[str] | None = None,
        histories: Sequence[np.ndarray] = (),
        config: TokenizerConfig | None = None,
        progress: bool = False,
    ) -> tuple[ItemicTokenizer, TokenizedItems]:
        """Fits one shared codebook over all items and gives each its codes.

        Args:
            texts: `N` item texts.
            format: declares levels and codes; `extra_level` adds one.
            embedder: fitted; used for the texts unless `vectors` [N, D] are given.
            domains: `N` domain names, for collisions; by default one domain.
            histories: item indices a user in time order, training part only; read when the collaborative weight is
                above 0.

        Raises:
            DataError, ConfigError, FormatError, CatalogError: see `fit_rq_kmeans`, `build_collaborative_vectors`,
                `collisions`.
        """
        config = config or TokenizerConfig()
        groups = domain_groups(format, [ANY_DOMAIN] * len(texts) if domains is None else domains)
        text = check_vectors(embedder.embed(texts) if vectors is None else vectors)
        if not len(text) == len(groups) == len(texts):
            raise DataError(f"{len(texts)} texts, {len(text)} vectors and {len(groups)} domains do not match.")
        items = build_item_vectors(text, histories, config)
        fused = items.fused
        codebooks = fit_rq_kmeans(
            fused,
            format.codes_per_level,
            seed=config.seed,
            iterations=config.iterations,
            max_points_per_centroid=config.max_points_per_centroid,
            progress=progress,
        )
        encoded = encode(codebooks, fused)
        final, codes, errors = format, encoded.codes, encoded.errors
        if config.collision == "reassign":
            codes = reassign(codebooks, fused, codes, groups)
            errors = compute_errors(codebooks, fused, codes)
        elif config.collision == "extra_level":
            final, codes = add_level(format, codes, groups, config.extra_codes)
        tokenizer = cls(final, embedder, codebooks, config, items.known_text, items.known_collaborative)
        variance = compute_variance(fused)
        return tokenizer, TokenizedItems(
            final, codes, groups, encoded, errors, variance, fused, items.num_without_evidence
        )

    def encode_items(self, texts: Sequence[str], vectors: np.ndarray | None = None) -> np.ndarray:
        """Codes int32 `[n, L]` of new items by the fitted codebooks, before any collision policy.

        Their collaborative block, where the tokenizer has one, comes from their text-nearest known items.

        Args:
            texts: `n` item texts.
            vectors: `[n, D]` text vectors to use instead of the embedder.
        """
        return encode(self.codebooks, self._fused(texts, vectors)).codes

    def add_items(
        self,
        catalog: Catalog,
        item_ids: Sequence[str],
        texts: Sequence[str],
        domains: Sequence[str] | None = None,
        vectors: np.ndarray | None = None,
    ) -> Catalog:
        """The catalog with new items behind the old ones; no old item's sid changes.

        The collision policy of the fit holds for the new items, against the old ones and among themselves.

        Raises:
            FormatError: the catalog's format is another one.
            CatalogError: an id stands in the catalog already, or there is no free sid left.
        """
        from onereason.itemic.vocabulary import require_same_format

        require_same_format(self.format, catalog.format, "the catalog")
        fused = self._fused(texts, vectors)
        codes = encode(self.codebooks, fused).codes
        domains = [ANY_DOMAIN] * len(texts) if domains is None else list(domains)
        groups = domain_groups(self.format, domains)
        taken = Taken(catalog.codes, domain_groups(self.format, catalog.domains))
        if self.config.collision == "reassign":
            codes = reassign(self.codebooks, fused, codes, groups, taken)
        elif self.config.collision == "extra_level":
            _, codes = add_level(self.format, codes, groups, self.format.codes_per_level[-1], taken)
        return Catalog(
            catalog.format,
            [*catalog.item_ids, *item_ids],
            np.concatenate([catalog.codes, codes]),
            [*catalog.domains, *domains],
            [*catalog.captions, *texts],
            np.concatenate([catalog.popularity, np.zeros(len(texts), dtype=np.int64)]),
        )

    def _fused(self, texts: Sequence[str], vectors: np.ndarray | None) -> np.ndarray:
        text = normalize_rows(check_vectors(self.embedder.embed(texts) if vectors is None else vectors))
        if len(text) != len(texts):
            raise DataError(f"{len(texts)} texts and {len(text)} vectors do not match.")
        if self.known_text is None or self.known_collaborative is None:
            return text
        check_vectors(text, self.known_text.shape[1])
        collaborative = fill_from_neighbours(text, self.known_text, self.known_collaborative)
        return fuse(text, collaborative, self.config.collaborative_weight)

    # -- storage --------------------------------------------------------------------------------------------------

    def write_into(self, folder: str | Path) -> None:
        """Writes the tokenizer's files into an existing folder."""
        folder = Path(folder)
        value = {"version": 1, "format": self.format.to_dict(), "config": asdict(self.config)}
        write_json(folder / TOKENIZER_FILE, value)
        self.codebooks.save(folder / CODEBOOKS_FILE)
        self.embedder.save(folder / EMBEDDER_DIR)
        if self.known_text is not None and self.known_collaborative is not None:
            with (folder / COLLABORATIVE_FILE).open("wb") as handle:
                np.savez(handle, text=self.known_text, collaborative=self.known_collaborative)

    def save(self, folder: str | Path, overwrite: bool = False) -> None:
        """Writes a tokenizer folder atomically."""
        with atomic_dir(folder, overwrite) as temporary:
            self.write_into(temporary)

    @classmethod
    def load(cls, folder: str | Path) -> ItemicTokenizer:
        """Reads a tokenizer folder; `CatalogError` where it holds none or a malformed one."""
        folder = Path(folder)
        if not (folder / TOKENIZER_FILE).is_file():
            raise CatalogError(
                f"{folder} holds no itemic tokenizer (expected {TOKENIZER_FILE}); make one with `onereason tokenize` "
                "(a catalog from ready ids has none)."
            )
        value = read_json(folder / TOKENIZER_FILE, "tokenizer description")
        try:
            config = TokenizerConfig(**value["config"])
            format = ItemicFormat.from_dict(value["format"], source=str(folder / TOKENIZER_FILE))
            known_text = known_collaborative = None
            if config.collaborative_weight > 0:
                with np.load(folder / COLLABORATIVE_FILE, allow_pickle=False) as arrays:
                    known_text, known_collaborative = arrays["text"], arrays["collaborative"]
        except (OSError, KeyError, TypeError) as error:
            raise CatalogError(f"{folder} holds a malformed itemic tokenizer: {error!r}.") from error
        codebooks = Codebooks.load(folder / CODEBOOKS_FILE)
        return cls(format, load_embedder(folder / EMBEDDER_DIR), codebooks, config, known_text, known_collaborative)


def build_catalog(
    format: ItemicFormat,
    item_ids: Sequence[str],
    codes: np.ndarray,
    domains: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    histories: Sequence[np.ndarray] = (),
) -> Catalog:
    """A catalog whose popularity counts interactions in `histories` (item indices, training part only)."""
    popularity = np.zeros(len(item_ids), dtype=np.int64)
    if len(histories):
        popularity = np.bincount(np.concatenate(list(histories)).astype(np.int64), minlength=len(item_ids))
    return Catalog(format, item_ids, codes, domains, captions, popularity)


def arrange_sids(sids: dict[str, tuple[int, ...]], item_ids: Sequence[str], source: str = "the ids file") -> np.ndarray:
    """Ready ids as codes int32 `[N, L]` in the order of `item_ids`.

    Raises:
        CatalogError: an item has no id in `sids`; counts and names them.
    """
    missing = [item for item in item_ids if item not in sids]
    if missing:
        raise CatalogError(
            f"{source} lacks {len(missing)} of {len(item_ids)} item(s), e.g. {missing[0]!r}; give ids made from this "
            "dataset, or drop these items from it."
        )
    return np.array([sids[item] for item in item_ids], dtype=np.int32)
