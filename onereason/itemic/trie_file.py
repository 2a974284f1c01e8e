"""A trie on disk: one safetensors file, read in a moment where building takes seconds.

The file is a shortcut, never a source: all it holds follows from the catalog and the vocabulary. It carries a hash of
what it was built from, and is used only where that is the hash of the catalog at hand.

Notation: `N` items, `L` levels, `R` roots.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from onereason.errors import CatalogError
from onereason.io import atomic_file
from onereason.itemic.catalog import Catalog
from onereason.itemic.trie import TRIE_ARRAYS, ItemTrie, build_catalog_trie, domain_positions
from onereason.itemic.vocabulary import ItemicVocabulary, require_same_format

TRIE_FILE = "catalog.trie"
"""Its suffix is not `.safetensors`: inference servers take every such file of a model folder for weights."""
TRIE_VERSION = 1
_DESCRIPTION = {
    "version": int,
    "catalog_hash": str,
    "content_hash": str,
    "num_levels": int,
    "domains": list,
    "first_leaf": int,
    "level_ranges": list,
}
"""What the file says of itself, as JSON under the one metadata key `trie`: the order of several is not kept."""


def hash_catalog(catalog: Catalog, vocabulary: ItemicVocabulary) -> str:
    """SHA-256 (hexadecimal) of all that `build_catalog_trie` reads: codes, domains, popularity and the vocabulary.

    Raises:
        FormatError: the catalog and the vocabulary use different formats.
    """
    require_same_format(vocabulary.format, catalog.format, "the catalog")
    _, roots = domain_positions(catalog)
    digest = hashlib.sha256(json.dumps([TRIE_VERSION, len(catalog), vocabulary.to_dict()]).encode())
    for part in (catalog.codes, roots, catalog.popularity):
        digest.update(part.ravel().data)
    return digest.hexdigest()


def save_trie(trie: ItemTrie, path: str | Path, catalog_hash: str) -> None:
    """Writes a trie atomically; equal tries give equal bytes. `catalog_hash` is the catalog's, see `hash_catalog`.

    Raises:
        StorageError: the file cannot be written.
    """
    arrays = {name: np.ascontiguousarray(getattr(trie, name)) for name in TRIE_ARRAYS}
    description = {
        "version": TRIE_VERSION,
        "catalog_hash": catalog_hash,
        "num_levels": trie.num_levels,
        "domains": list(trie.domains),
        "first_leaf": trie.first_leaf,
        "level_ranges": [list(level) for level in trie.level_ranges],
    }
    description["content_hash"] = _hash_content(description, arrays)
    with atomic_file(path) as temporary:
        save_file(arrays, temporary, {"trie": json.dumps(description)})


def read_catalog_hash(path: str | Path) -> str:
    """The hash of the catalog a trie file was built from; reads no array.

    Raises: as `load_trie`, save what only its arrays show.
    """
    return _read(Path(path), arrays=False)[0]["catalog_hash"]


def load_trie(path: str | Path) -> ItemTrie:
    """Reads what `save_trie` wrote. Whether it belongs to a catalog is the caller's to check (`read_catalog_hash`).

    Raises:
        CatalogError: no file there, one of another kind or version, or one whose bytes changed since it was written.
    """
    description, arrays = _read(Path(path), arrays=True)
    if _hash_content(description, arrays) != description["content_hash"]:
        raise _broken(path, "its bytes are not the ones that were written")
    return ItemTrie(
        domains=tuple(description["domains"]),
        num_levels=description["num_levels"],
        first_leaf=description["first_leaf"],
        level_ranges=tuple((first, end) for first, end in description["level_ranges"]),
        **arrays,
    )


def save_catalog_trie(folder: str | Path, catalog: Catalog, vocabulary: ItemicVocabulary) -> None:
    """Builds the tree of a catalog and writes it into a model folder that holds (or will hold) both."""
    trie = build_catalog_trie(catalog, vocabulary)
    save_trie(trie, Path(folder) / TRIE_FILE, hash_catalog(catalog, vocabulary))


def load_or_build_catalog_trie(folder: str | Path, catalog: Catalog, vocabulary: ItemicVocabulary) -> ItemTrie:
    """The tree of a model folder's catalog (`build_catalog_trie`), read from the folder where it has a fitting file.

    A file of another catalog, a broken one or none: the tree is built. The folder is left as it is.

    Raises:
        FormatError: the catalog and the vocabulary use different formats.
    """
    path = Path(folder) / TRIE_FILE
    require_same_format(vocabulary.format, catalog.format, "the catalog")
    if path.is_file():
        try:
            if read_catalog_hash(path) == hash_catalog(catalog, vocabulary):
                return load_trie(path)
        except CatalogError:
            pass  # the catalog is at hand and says the same
    return build_catalog_trie(catalog, vocabulary)


def _read(path: Path, arrays: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The file's description, and its arrays where they are asked for."""
    if not path.is_file():
        raise CatalogError(f"{path} holds no trie (no such file); build one with build_catalog_trie.")
    try:
        with safe_open(path, framework="np") as file:
            description = json.loads((file.metadata() or {}).get("trie", "null"))
            _check_description(path, description, set(file.keys()))
            return description, {name: file.get_tensor(name) for name in TRIE_ARRAYS} if arrays else {}
    except (OSError, SafetensorError, ValueError) as error:
        if isinstance(error, CatalogError):
            raise
        raise _broken(path, str(error)) from error


def _check_description(path: Path, description: Any, names: set[str]) -> None:
    if not isinstance(description, dict) or "version" not in description:
        raise _broken(path, "it is a safetensors file of something else")
    if description["version"] != TRIE_VERSION:
        raise _broken(path, f"it has version {description['version']}, this release reads {TRIE_VERSION}")
    wrong = [key for key, kind in _DESCRIPTION.items() if not isinstance(description.get(key), kind)]
    if wrong or names != set(TRIE_ARRAYS):
        raise _broken(path, f"parts are missing or of another type: {', '.join(wrong) or sorted(names)}")


def _broken(path: str | Path, problem: str) -> CatalogError:
    return CatalogError(
        f"{path} cannot be read as a trie: {problem}; remove it, and the trie is built from the catalog."
    )


def _hash_content(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 (hexadecimal) of the description, without this hash, and of the arrays."""
    said = {key: description[key] for key in sorted(_DESCRIPTION) if key != "content_hash"}
    digest = hashlib.sha256(json.dumps(said).encode())
    for name in TRIE_ARRAYS:
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()
