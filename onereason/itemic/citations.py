"""Items that a text cites, and whether they exist and were met (OneReason, Eq. 24-25).

Notation: `L` levels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from onereason.itemic.catalog import Catalog
from onereason.itemic.format import ItemicFormat

CitedItem = tuple[str, tuple[int, ...]]
"""An item as text names it: domain and codes `[L]`."""


def extract_cited_items(text: str | None, format: ItemicFormat) -> list[CitedItem]:
    """The distinct items whose whole patterns stand in a text, in order of their first citation.

    An item cited again does not count again, so that one repeated truth cannot outweigh an invention.
    """
    return list(dict.fromkeys((item.domain, item.codes) for item in format.parse(text or "").items))


def legality(cited: Sequence[CitedItem], catalog: Catalog, num_malformed: int = 0) -> float | None:
    """Cited items that are in the catalog, over cited items (OneReason, Eq. 24); None where nothing is cited.

    Args:
        num_malformed: runs of itemic tokens that are no whole pattern, where these count as cited, and not legal.
    """
    return share(len(_legal_buckets(cited, catalog)), len(cited) + num_malformed)


def history_validity(cited: Sequence[CitedItem], history: Collection[int], catalog: Catalog) -> float | None:
    """Legal cited items that are in the history, over legal cited items (OneReason, Eq. 25); None without a legal one.

    A cited sid is in the history when any item that bears it is.

    Args:
        history: item indices.
    """
    buckets = _legal_buckets(cited, catalog)
    met = np.fromiter(history, np.int64, len(history))
    return share(sum(bool(np.isin(bucket, met).any()) for bucket in buckets), len(buckets))


def share(part: int, whole: int) -> float | None:
    """`part / whole`, None where there is no whole."""
    return part / whole if whole else None


def _legal_buckets(cited: Sequence[CitedItem], catalog: Catalog) -> list[np.ndarray]:
    """The item indices under each cited sid that the catalog has."""
    buckets = [catalog.find(codes, domain) for domain, codes in cited]
    return [bucket for bucket in buckets if len(bucket)]
