"""Generated text -> what is scored: JSON, citations.

Generating, extracting, scoring and aggregating are four steps, so that an answer that cannot be read is told apart from
one that is wrong: it scores as a miss, and is counted apart.

The readers stand in lower rooms, because corpora are checked by the same ones.
"""

from __future__ import annotations

from onereason.data.json_answers import extract_json, extract_selection
from onereason.itemic.citations import CitedItem, extract_cited_items, history_validity, legality

__all__ = ["CitedItem", "extract_cited_items", "extract_json", "extract_selection", "history_validity", "legality"]
