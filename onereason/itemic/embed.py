"""Text embedders: item texts -> float32 vectors.

`TfidfEmbedder` needs no download and is the default; `SentenceEmbedder` runs a sentence-transformers model;
`ArrayEmbedder` stands for vectors computed elsewhere. Each is saved as a folder without pickle and read back by
`load_embedder`.

Notation: `N` texts, `D` dimensions, `W` words.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from onereason.errors import CatalogError, ConfigError, DataError, ModelError
from onereason.io import read_json, require_file, write_json
from onereason.itemic.align import normalize_rows
from onereason.itemic.quantize import check_vectors

EMBEDDER_FILE = "embedder.json"
VECTORS_FILE = "vectors.npz"
"""The items' vectors beside a catalog, as `load_precomputed` reads them."""
_ARRAYS_FILE = "arrays.npz"
_VOCABULARY_FILE = "vocabulary.json"

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = rf"[{_CJK}]|[^\W{_CJK}]+"
"""A word is a run of letters and digits, or one character of a script that writes without spaces."""


class Embedder(Protocol):
    """What the tokenizer needs of an embedder."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> float32 `[N, D]`."""
        ...

    def save(self, folder: str | Path) -> None:
        """Writes the embedder into an existing or new folder."""
        ...

    def describe(self) -> dict[str, Any]:
        """Kind and settings, for manifests."""
        ...


class TfidfEmbedder:
    """TF-IDF of words and word pairs, reduced by truncated SVD (latent semantic analysis); rows have length 1.

    Attributes:
        vocabulary: term -> column.
        idf: float32 `[W]`.
        components: float32 `[D, W]`.
    """

    def __init__(self, vocabulary: dict[str, int], idf: np.ndarray, components: np.ndarray):
        self.vocabulary = vocabulary
        self.idf = idf.astype(np.float32)
        self.components = components.astype(np.float32)
        self._vectorizer = _vectorizer(vocabulary=vocabulary)
        self._vectorizer.idf_ = self.idf

    @classmethod
    def fit(cls, texts: Sequence[str], dim: int = 256, max_terms: int = 20_000, seed: int = 0) -> TfidfEmbedder:
        """Learns vocabulary, weights and directions from `texts`; `D` is at most `dim`, `N` and `W`.

        Raises:
            DataError: no text holds a word.
        """
        from sklearn.decomposition import TruncatedSVD

        if dim < 1:
            raise ConfigError(f"the dimension of the text embedding must be at least 1, got {dim}.")
        vectorizer = _vectorizer(max_features=max_terms)
        try:
            matrix = vectorizer.fit_transform(texts)
        except ValueError as error:
            raise DataError(
                f"none of the {len(texts)} item texts holds a word; TF-IDF has nothing to embed."
            ) from error
        svd = TruncatedSVD(min(dim, *matrix.shape), random_state=seed)
        with np.errstate(invalid="ignore", divide="ignore"):  # sklearn's variance shares, unused here
            svd.fit(matrix)
        vocabulary = {term: int(column) for term, column in sorted(vectorizer.vocabulary_.items())}
        return cls(vocabulary, vectorizer.idf_, svd.components_)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> `[N, D]`; a text without a known word is a row of zeros."""
        return normalize_rows(self._vectorizer.transform(texts) @ self.components.T)

    def save(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / EMBEDDER_FILE, self.describe())
        write_json(folder / _VOCABULARY_FILE, self.vocabulary)
        with (folder / _ARRAYS_FILE).open("wb") as handle:
            np.savez(handle, idf=self.idf, components=self.components)

    @classmethod
    def load(cls, folder: str | Path) -> TfidfEmbedder:
        folder = Path(folder)
        vocabulary = read_json(folder / _VOCABULARY_FILE, "TF-IDF vocabulary")
        try:
            with np.load(folder / _ARRAYS_FILE, allow_pickle=False) as arrays:
                return cls(vocabulary, arrays["idf"], arrays["components"])
        except (OSError, KeyError, ValueError) as error:
            raise CatalogError(f"{folder / _ARRAYS_FILE} cannot be read as a TF-IDF embedder: {error}.") from error

    def describe(self) -> dict[str, Any]:
        return {"kind": "tfidf", "dim": len(self.components), "terms": len(self.vocabulary)}


def _vectorizer(**options: Any):
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(token_pattern=_WORD, ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32, **options)


class SentenceEmbedder:
    """A sentence-transformers model, by hub name or folder; rows have length 1. Loaded when it is first used."""

    def __init__(self, name_or_path: str, batch_size: int = 64, device: str | None = None):
        if batch_size < 1:
            raise ConfigError(f"batch size must be at least 1, got {batch_size}.")
        self.name_or_path = str(name_or_path)
        self.batch_size = batch_size
        self.device = device
        self._model: Any = None

    def load_model(self) -> Any:
        """The loaded model.

        Raises:
            ModelError: sentence-transformers is not installed, or the model cannot be loaded.
        """
        if self._model is None:
            try:
                from sentence_transformers import SentenceTransformer
            except ImportError as error:
                raise ModelError(
                    f"embedding with {self.name_or_path!r} needs sentence-transformers; install it with "
                    "`pip install 'onereason[text]'`, or use the embedder tfidf."
                ) from error
            from transformers.utils import logging

            shows_bars = logging.is_progress_bar_enabled()
            if not sys.stderr.isatty():
                logging.disable_progress_bar()
            try:
                self._model = SentenceTransformer(self.name_or_path, device=self.device)
            except Exception as error:  # the hub, safetensors and torch each raise errors of their own
                raise ModelError(
                    f"sentence-transformers model {self.name_or_path!r} cannot be loaded "
                    f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}); give a "
                    "folder that holds the model, or a name that is in the local cache when there is no network."
                ) from error
            finally:
                if shows_bars:
                    logging.enable_progress_bar()
        return self._model

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        from rich.console import Console
        from rich.progress import Progress

        model = self.load_model()
        # Longest first within a chunk keeps padding low; a chunk bounds what is sorted and held at once.
        chunk = self.batch_size * 32
        parts = []
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("embedding", total=len(texts))
            for start in range(0, len(texts), chunk):
                part = list(texts[start : start + chunk])
                parts.append(
                    model.encode(
                        part, batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
                    ).astype(np.float32)
                )
                bar.advance(task, len(part))
        return np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)

    def save(self, folder: str | Path) -> None:
        """Writes the name only: the model itself stays where it is."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(folder) / EMBEDDER_FILE, self.describe())

    def describe(self) -> dict[str, Any]:
        return {"kind": "sentence", "name_or_path": self.name_or_path, "batch_size": self.batch_size}


@dataclass(frozen=True)
class ArrayEmbedder:
    """Vectors computed elsewhere. It cannot embed a new text: the caller brings the vector."""

    dim: int

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        raise ConfigError(
            "this tokenizer was fitted on precomputed vectors and cannot embed text; give the new items' "
            f"[n, {self.dim}] vectors of the same embedding."
        )

    def save(self, folder: str | Path) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(folder) / EMBEDDER_FILE, self.describe())

    def describe(self) -> dict[str, Any]:
        return {"kind": "array", "dim": self.dim}


def load_embedder(folder: str | Path) -> Embedder:
    """Reads an embedder of any kind; `CatalogError` where the folder holds none."""
    path = Path(folder) / EMBEDDER_FILE
    if not path.is_file():
        raise CatalogError(f"{folder} holds no embedder (expected {EMBEDDER_FILE}); make it with `onereason tokenize`.")
    value = read_json(path, "embedder description")
    kind = value.get("kind") if isinstance(value, dict) else None
    try:
        if kind == "tfidf":
            return TfidfEmbedder.load(folder)
        if kind == "sentence":
            return SentenceEmbedder(value["name_or_path"], int(value["batch_size"]))
        if kind == "array":
            return ArrayEmbedder(int(value["dim"]))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CatalogError | DataError | ConfigError):
            raise
        raise CatalogError(f"{path} is malformed: {error!r}.") from error
    raise CatalogError(f"{path}: unknown embedder kind {kind!r}; known are tfidf, sentence, array.")


def load_precomputed(path: str | Path, item_ids: Sequence[str]) -> np.ndarray:
    """Vectors from a file, one an item in the order of `item_ids`: float32 `[N, D]`.

    - `.npy`: an array `[N, D]` in the order of the item table.
    - `.npz`: the same as `vectors`, with an optional `item_ids` array that gives its own order.
    - `.parquet`: columns `item_id` and `vector` (a list or array of floats).

    Raises:
        DataError: the file is missing or malformed, the count differs, an item has no vector, or values are not finite.
    """
    path = require_file(path, "precomputed vectors")
    ids: list[str] | None = None
    try:
        if path.suffix == ".npy":
            vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                if "vectors" not in arrays:
                    raise DataError(f"{path}: expected an array named 'vectors', it has {', '.join(arrays)}.")
                vectors = arrays["vectors"]
                ids = [str(i) for i in arrays["item_ids"]] if "item_ids" in arrays else None
        elif path.suffix == ".parquet":
            ids, vectors = _read_parquet(path)
        else:
            raise DataError(f"{path}: precomputed vectors are a .npy, .npz or .parquet file, got {path.suffix!r}.")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as precomputed vectors: {error}.") from error
    check_vectors(vectors, what=str(path))
    expected = len(item_ids) if ids is None else len(ids)
    if len(vectors) != expected:
        raise DataError(
            f"{path} holds {len(vectors)} vectors for {expected} items; give one row an item, in the order of the "
            "item table, or a file that names its items."
        )
    if ids is not None:
        place = {item: row for row, item in enumerate(ids)}
        missing = [item for item in item_ids if item not in place]
        if missing:
            raise DataError(f"{path} lacks the vectors of {len(missing)} item(s), e.g. {missing[0]!r}.")
        vectors = vectors[np.fromiter((place[item] for item in item_ids), np.int64, len(item_ids))]
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _read_parquet(path: Path) -> tuple[list[str], np.ndarray]:
    import polars as pl

    try:
        table = pl.read_parquet(path)
        if not {"item_id", "vector"} <= set(table.columns):
            raise DataError(f"{path}: expected the columns item_id and vector, it has {', '.join(table.columns)}.")
        if table.height == 0:
            raise DataError(f"{path} holds no row.")
        lengths = table["vector"].cast(pl.List(pl.Float32)).list.len()
        if lengths.null_count() or lengths.n_unique() > 1:
            shown = sorted({str(length) for length in lengths.unique()})[:3]
            raise DataError(f"{path}: every vector needs the same length, got lengths {', '.join(shown)}.")
        vectors = table["vector"].cast(pl.Array(pl.Float32, int(lengths[0]))).to_numpy()
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} cannot be read as precomputed vectors: {error}.") from error
    return [str(i) for i in table["item_id"]], vectors
