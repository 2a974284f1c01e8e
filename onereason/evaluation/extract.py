"""Generated text -> what is scored: JSON, citations.

Generating, extracting, scoring and aggregating are four steps, so that an answer that cannot be read is told apart from
one that is wrong: it scores as a miss, and is counted apart.

Notation: `L` levels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from onereason.data.chat import parse_answer
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import ItemicFormat

CitedItem = tuple[str, tuple[int, ...]]
"""An item as text names it: domain and codes `[L]`."""

_FENCE = "```"


# -- JSON -----------------------------------------------------------------------------------------------------------


def extract_json(text: str) -> Any | None:
    """The JSON value of a generated turn's answer, None where there is none or it is cut off.

    The think block and a code fence are stripped. Prose around the value is passed over: where the answer as a whole
    is no JSON, the outermost list or object is read, whichever opens first.
    """
    answer = parse_answer(text).answer
    answer = re.sub(rf"^{_FENCE}[A-Za-z]*", "", answer).removesuffix(_FENCE).strip()
    spans = sorted((answer.find(left), answer.rfind(right)) for left, right in (("[", "]"), ("{", "}")))
    outermost = [answer[start : end + 1] for start, end in spans if 0 <= start < end]
    for candidate in (answer, *outermost):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    return None


def extract_selection(text: str) -> list[str] | None:
    """The elements of an answer that is a JSON list of ids or texts: stripped, distinct, in order; None if it is none.

    The answer to "which of these actions belong to the topic". An empty list is an answer; nulls and empty texts are
    left out.
    """
    value = extract_json(text)
    if not isinstance(value, list):
        return None
    texts = [str(element).strip() for element in value if element is not None]
    return list(dict.fromkeys(element for element in texts if element))


# -- citations ------------------------------------------------------------------------------------------------------


def extract_cited_items(trace: str | None, format: ItemicFormat) -> list[CitedItem]:
    """The distinct items whose whole patterns stand in a trace, in order of their first citation.

    An item cited again does not count again, so that one repeated truth cannot outweigh an invention.
    """
    return list(dict.fromkeys((item.domain, item.codes) for item in format.parse(trace or "").items))


def legality(cited: Sequence[CitedItem], catalog: Catalog) -> float | None:
    """Cited items that are in the catalog, over cited items (OneReason, Eq. 24); None where nothing is cited."""
    return len(_legal_buckets(cited, catalog)) / len(cited) if cited else None


def history_validity(cited: Sequence[CitedItem], history: Collection[int], catalog: Catalog) -> float | None:
    """Legal cited items that are in the history, over legal cited items (OneReason, Eq. 25); None without a legal one.

    A cited sid is in the history when any item that bears it is.

    Args:
        history: item indices.
    """
    buckets = _legal_buckets(cited, catalog)
    met = np.fromiter(history, np.int64, len(history))
    return sum(bool(np.isin(bucket, met).any()) for bucket in buckets) / len(buckets) if buckets else None


def _legal_buckets(cited: Sequence[CitedItem], catalog: Catalog) -> list[np.ndarray]:
    """The item indices under each cited sid that the catalog has."""
    buckets = [catalog.find(codes, domain) for domain, codes in cited]
    return [bucket for bucket in buckets if len(bucket)]
