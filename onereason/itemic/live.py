"""A catalog that is replaced while it is in use: new items appear, sold-out ones go, requests run on.

A reader takes one snapshot and works with it to the end. A snapshot never changes, so no reader sees the items of one
catalog with the tree of another, and none waits for a writer.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from onereason.errors import CatalogError, FormatError
from onereason.itemic.catalog import Catalog
from onereason.itemic.trie import ItemTrie
from onereason.itemic.vocabulary import require_same_format


@dataclass(frozen=True, eq=False)
class CatalogSnapshot:
    """A catalog and the tree of its items, as they were at one moment.

    Attributes:
        catalog: the items.
        trie: the tree built from this catalog; its item indices are the catalog's.
        version: 1 for the first, one more after each swap.
    """

    catalog: Catalog
    trie: ItemTrie
    version: int


class LiveCatalog:
    """The catalog in use. Reading takes no lock; swaps are made one after another."""

    def __init__(self, catalog: Catalog, trie: ItemTrie):
        _check_pair(catalog, trie)
        self._current = CatalogSnapshot(catalog, trie, 1)
        self._lock = threading.Lock()

    @property
    def current(self) -> CatalogSnapshot:
        """The newest snapshot. Take it once a request: a second read may give another."""
        return self._current

    def swap(self, catalog: Catalog, trie: ItemTrie) -> int:
        """Puts a new catalog in use and returns its version. Snapshots taken before stay whole and usable.

        Raises:
            CatalogError: catalog and trie have different numbers of items.
            FormatError: another format than the catalog in use, or token ids of another vocabulary.
        """
        _check_pair(catalog, trie)
        with self._lock:
            before = self._current
            require_same_format(before.catalog.format, catalog.format, "the new catalog")
            if _vocabulary(trie) != _vocabulary(before.trie):
                raise FormatError(
                    f"the new catalog's trie has codes in the token ids {list(trie.level_ranges)} and begin tokens "
                    f"{trie.begin_ids.tolist()}, the one in use {list(before.trie.level_ranges)} and "
                    f"{before.trie.begin_ids.tolist()}; build it with the vocabulary of the model in use."
                )
            # One reference is replaced: a reader has the pair from before or this one.
            self._current = CatalogSnapshot(catalog, trie, before.version + 1)
            return self._current.version


def _check_pair(catalog: Catalog, trie: ItemTrie) -> None:
    if len(catalog) != trie.num_items:
        raise CatalogError(
            f"the catalog has {len(catalog)} items, the trie {trie.num_items}; build the trie from this catalog."
        )


def _vocabulary(trie: ItemTrie) -> tuple[object, ...]:
    """What a model must know of a trie's tokens."""
    return trie.domains, trie.level_ranges, tuple(trie.begin_ids.tolist())
