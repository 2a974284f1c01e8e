"""The catalog of a running server, read again when its folder changes.

A catalog is replaced by putting another folder in its place (`onereason tokenize --out`, or a rename). It is read in
the background; until it is there, and where it cannot be used, the one before keeps serving.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from onereason.itemic.catalog import CATALOG_META, CATALOG_TABLE, Catalog
from onereason.itemic.live import CatalogSnapshot, LiveCatalog
from onereason.itemic.trie_file import load_or_build_catalog_trie
from onereason.itemic.vocabulary import ItemicVocabulary

CHECK_SECONDS = 0.5

Stamp = tuple[tuple[int, int, int], ...]
"""Inode, modification time (ns) and size of the catalog's files."""


class CatalogWatch:
    """A `LiveCatalog` that follows a folder.

    Attributes:
        folder: of the catalog (or a model folder).
        live: the catalog in use.
        problem: why the newest catalog in the folder is not in use, None where it is.
    """

    def __init__(self, folder: Path, vocabulary: ItemicVocabulary):
        """Reads the catalog; raises what `Catalog.load` and the trie raise."""
        self.folder, self.vocabulary = folder, vocabulary
        self._stamp = read_stamp(folder)
        catalog = Catalog.load(folder)
        self.live = LiveCatalog(catalog, load_or_build_catalog_trie(folder, catalog, vocabulary))
        self.problem: str | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def current(self) -> CatalogSnapshot:
        return self.live.current

    def start(self) -> CatalogWatch:
        """Looks at the folder every half second, in a thread that ends with the process."""
        self._thread = threading.Thread(target=self._follow, name="catalog-watch", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def check(self) -> bool:
        """Reads the catalog again where its files have changed; True where another is in use after it."""
        stamp = read_stamp(self.folder)
        if stamp is None or stamp == self._stamp:
            return False  # a folder that is being replaced is not there for a moment
        self._stamp = stamp
        try:
            catalog = Catalog.load(self.folder)
            self.live.swap(catalog, load_or_build_catalog_trie(self.folder, catalog, self.vocabulary))
        except Exception as error:  # whatever it is: a thread that ends would follow no further catalog
            self.problem = str(error)
            logging.getLogger(__name__).error(
                "catalog %s is not used, the one before keeps serving: %s", self.folder, error
            )
            return False
        self.problem = None
        return True

    def _follow(self) -> None:
        while not self._stop.wait(CHECK_SECONDS):
            began = time.monotonic()
            if self.check():
                logging.getLogger(__name__).info(
                    "catalog %s: version %d, %d items, read in %.1f s",
                    self.folder,
                    self.current.version,
                    len(self.current.catalog),
                    time.monotonic() - began,
                )


def read_stamp(folder: Path) -> Stamp | None:
    """What tells one catalog in a folder from the next; None where its files are not there."""
    try:
        found = [(folder / name).stat() for name in (CATALOG_META, CATALOG_TABLE)]
    except OSError:
        return None
    return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in found)
