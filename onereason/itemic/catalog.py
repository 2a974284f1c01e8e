"""The catalog: item <-> semantic id <-> text.

One row an item. Two items may bear one sid (a collision): both stay, and every score in the toolkit is per item.

Notation: `N` items, `L` levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from onereason.errors import CatalogError, FormatError, ModelError
from onereason.io import atomic_dir, atomic_file, build_manifest, read_json, write_json
from onereason.itemic.format import ANY_DOMAIN, ItemicFormat

CATALOG_TABLE = "catalog.parquet"
CATALOG_META = "catalog.json"
_COLUMNS = {"item_id": pl.String, "domain": pl.String, "caption": pl.String, "popularity": pl.Int64}


class Catalog:
    """Items of one format.

    Attributes:
        format: the itemic format of the codes.
        item_ids: `N` item ids, in catalog order ("item index" everywhere means a position in this order).
        domains: `N` domain names.
        codes: int32 `[N, L]`.
        captions: `N` texts, empty where unknown.
        popularity: int64 `[N]`, interactions in the training part (0 where unknown).
    """

    def __init__(
        self,
        format: ItemicFormat,
        item_ids: Sequence[str],
        codes: np.ndarray,
        domains: Sequence[str] | None = None,
        captions: Sequence[str] | None = None,
        popularity: np.ndarray | None = None,
    ):
        n = len(item_ids)
        self.format = format
        self.item_ids = [str(i) for i in item_ids]
        codes = np.asarray(codes)
        if codes.size and codes.dtype.kind not in "iu":
            raise CatalogError(f"catalog codes should be whole numbers, are {codes.dtype}.")
        largest = np.iinfo(np.int32).max  # out of every format, and not wrapped around by the cast
        self.codes = np.ascontiguousarray(np.clip(codes.astype(np.int64), -1, largest), dtype=np.int32)
        self.domains = [ANY_DOMAIN] * n if domains is None else list(domains)
        self.captions = [""] * n if captions is None else [c or "" for c in captions]
        self.popularity = np.zeros(n, np.int64) if popularity is None else np.asarray(popularity, np.int64)
        self._validate()

    def _validate(self) -> None:
        n = len(self.item_ids)
        if n == 0:
            raise CatalogError("the catalog is empty: no item has a semantic id.")
        if self.codes.ndim != 2 or len(self.codes) != n:
            raise CatalogError(f"catalog codes have shape {self.codes.shape}, expected [{n}, L] for {n} items.")
        if not len(self.domains) == len(self.captions) == len(self.popularity) == n:
            raise CatalogError("catalog columns have unequal lengths.")
        if self.codes.shape[1] != self.format.num_levels:
            raise FormatError(
                f"the catalog's ids have {self.codes.shape[1]} levels, format {self.format.name!r} has "
                f"{self.format.num_levels}; use the format (or --levels) the ids were made with."
            )
        sizes = np.array(self.format.codes_per_level)
        bad = np.flatnonzero(((self.codes < 0) | (self.codes >= sizes)).any(1))
        if len(bad):
            self.format.validate_codes(self.codes[bad[0]].tolist())
        for domain in dict.fromkeys(self.domains):
            self.format.marker(domain)
        if len(set(self.item_ids)) < n:
            seen: set[str] = set()
            twice = next(i for i in self.item_ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise CatalogError(f"item {twice!r} stands twice in the catalog; item ids must be unique.")

    # -- look-ups -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.item_ids)

    @cached_property
    def index(self) -> dict[str, int]:
        """item id -> item index."""
        return {item: i for i, item in enumerate(self.item_ids)}

    def indices(self, item_ids: Sequence[str], what: str = "the request") -> np.ndarray:
        """Item indices `[n]` of item ids; `CatalogError` counting and naming the ones it lacks."""
        found = [self.index.get(str(i), -1) for i in item_ids]
        missing = [str(i) for i, f in zip(item_ids, found, strict=True) if f < 0]
        if missing:
            raise CatalogError(
                f"the catalog lacks {len(set(missing))} item(s) of {what}, e.g. {missing[0]!r}; "
                "run `onereason tokenize` on the data these items are in."
            )
        return np.asarray(found, dtype=np.int64)

    @cached_property
    def sid_keys(self) -> np.ndarray:
        """One integer per item `[N]` (int64), equal for two items exactly when domain tokens and codes are equal."""
        key = self._domain_numbers
        if self._has_wide_sids:  # number the sids that occur
            return np.unique(np.column_stack([key, self.codes]), axis=0, return_inverse=True)[1].reshape(-1)
        for level, size in enumerate(self.format.codes_per_level):
            key = key * size + self.codes[:, level]
        return key

    @property
    def _has_wide_sids(self) -> bool:
        """Whether the format has more sids than an int64 holds (e.g. 5 levels of 8192)."""
        return len(self.format.domains) * math.prod(self.format.codes_per_level) > np.iinfo(np.int64).max

    @cached_property
    def _domain_numbers(self) -> np.ndarray:
        """Position of each item's domain in the format `[N]` (int64); 0 where tokens do not tell domains apart."""
        names = {d: i for i, d in enumerate(self.format.domains)}
        shared = ANY_DOMAIN in names
        return np.array([0 if shared else names[d] for d in self.domains], dtype=np.int64)

    @cached_property
    def _sid_groups(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.lexsort((np.arange(len(self)), -self.popularity, self.sid_keys))
        return self.sid_keys[order], order

    def items_with_sid(self, index: int) -> np.ndarray:
        """Indices of every item that bears item `index`'s sid, the most popular first."""
        keys, order = self._sid_groups
        low, high = np.searchsorted(keys, [self.sid_keys[index], self.sid_keys[index] + 1])
        return order[low:high]

    def find(self, codes: Sequence[int], domain: str = ANY_DOMAIN) -> np.ndarray:
        """Indices of the items with these codes in this domain, the most popular first; empty when there is none.

        Raises:
            FormatError: codes or domain that the format does not have.
        """
        self.format.validate_codes(codes)
        self.format.marker(domain)
        key = 0 if ANY_DOMAIN in self.format.domains else list(self.format.domains).index(domain)
        if self._has_wide_sids:
            found = np.flatnonzero((self.codes == np.asarray(codes)).all(1) & (self._domain_numbers == key))
            return self.items_with_sid(found[0]) if len(found) else found
        for code, size in zip(codes, self.format.codes_per_level, strict=True):
            key = key * size + int(code)
        keys, order = self._sid_groups
        low, high = np.searchsorted(keys, [key, key + 1])
        return order[low:high]

    def render(self, index: int) -> str:
        """The itemic pattern of an item as text."""
        return self.format.render(self.codes[index].tolist(), self.domains[index])

    def collisions(self) -> dict[str, int]:
        """`num_items`, `num_sids`, `num_items_in_collision`, `largest_bucket`."""
        _, counts = np.unique(self.sid_keys, return_counts=True)
        return {
            "num_items": len(self),
            "num_sids": len(counts),
            "num_items_in_collision": int(counts[counts > 1].sum()),
            "largest_bucket": int(counts.max()),
        }

    # -- storage --------------------------------------------------------------------------------------------------

    def to_frame(self) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "item_id": self.item_ids,
                "domain": self.domains,
                "codes": pl.Series(self.codes.tolist(), dtype=pl.List(pl.Int32)),
                "caption": self.captions,
                "popularity": self.popularity,
            },
            schema_overrides=_COLUMNS,
        )

    def write_into(self, folder: str | Path, manifest: Mapping[str, Any] | None = None) -> None:
        """Writes `catalog.parquet` and `catalog.json` into an existing folder (each atomically)."""
        folder = Path(folder)
        with atomic_file(folder / CATALOG_TABLE) as temporary:
            self.to_frame().write_parquet(temporary)
        meta = {"version": 1, "format": self.format.to_dict(), "counts": self.collisions()}
        meta["manifest"] = dict(manifest or build_manifest("catalog", counts=self.collisions()))
        write_json(folder / CATALOG_META, meta)

    def save(self, folder: str | Path, manifest: Mapping[str, Any] | None = None, overwrite: bool = False) -> None:
        """Writes the catalog as a folder of its own."""
        with atomic_dir(folder, overwrite) as temporary:
            self.write_into(temporary, manifest)

    @classmethod
    def load(cls, folder: str | Path) -> Catalog:
        """Reads a catalog from a catalog folder or a model folder."""
        folder = Path(folder)
        if not folder.is_dir():
            raise CatalogError(f"{folder} holds no catalog (no such folder); make one with `onereason tokenize`.")
        if not (folder / CATALOG_META).is_file() or not (folder / CATALOG_TABLE).is_file():
            raise CatalogError(
                f"{folder} holds no catalog (expected {CATALOG_META} and {CATALOG_TABLE}); "
                "make one with `onereason tokenize`."
            )
        meta = read_json(folder / CATALOG_META, "catalog description")
        if not isinstance(meta, dict):
            raise CatalogError(f"{folder / CATALOG_META} is malformed: expected an object, got {type(meta).__name__}.")
        format = ItemicFormat.from_dict(meta.get("format", {}), source=str(folder / CATALOG_META))
        try:
            table = pl.read_parquet(folder / CATALOG_TABLE, glob=False)
            for column, dtype in {**_COLUMNS, "codes": pl.List(pl.Int32)}.items():
                if table.schema.get(column) != dtype:
                    raise CatalogError(
                        f"{folder / CATALOG_TABLE}: column {column!r} should be {dtype}, is {table.schema.get(column)}."
                    )
            codes = np.asarray(table["codes"].to_list(), dtype=np.int32)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
            if isinstance(error, CatalogError):
                raise
            raise CatalogError(f"{folder / CATALOG_TABLE} cannot be read as a catalog: {error}.") from error
        return cls(
            format,
            table["item_id"].to_list(),
            codes,
            table["domain"].to_list(),
            table["caption"].to_list(),
            table["popularity"].to_numpy(),
        )


def load_model_catalog(folder: str | Path) -> Catalog:
    """The catalog of a model folder; the error says how a model gets one."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(f"model folder {folder} does not exist; make one with `onereason extend`.")
    if not (folder / CATALOG_META).is_file() and not (folder / CATALOG_TABLE).is_file():
        raise CatalogError(
            f"{folder} holds no catalog ({CATALOG_META}, {CATALOG_TABLE}), so its items are unknown; "
            f"run `onereason extend --base {folder} --catalog DIR --out DIR`."
        )
    return Catalog.load(folder)
