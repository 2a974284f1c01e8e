"""What an import counts: by step, by family, by reason, with a few examples each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_EXAMPLES = 5

REASONS = ("", "unequal_lists", "no_timestamps", "null_item", "bad_item_id", "bad_timestamp", "shown_only")
"""Why an entry of a list is left out when it is read; a reason's number is its position, 0 means it stays."""
UNEQUAL_LISTS, NO_TIMESTAMPS, NULL_ITEM, BAD_ITEM_ID, BAD_TIMESTAMP, SHOWN_ONLY = range(1, 7)
NO_SID, DUPLICATE = "no_sid", "duplicate_interactions"
"""Why an entry is left out afterwards: its item has no semantic id; another has its user, item and time."""

SID_REASONS = ("", "null_pid", "unknown_domain", "wrong_length", "not_whole", "out_of_range")
"""Why a row of a table of semantic ids is left out."""


@dataclass
class Ledger:
    """Counts and examples; every number of the manifest comes from here."""

    tables: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Table -> rows by what became of them."""
    families: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Family -> entries of its lists by what became of them: `found`, `kept`, and the reasons."""
    quarantined: Counter[str] = field(default_factory=Counter)
    """Reason -> lists of a user (or whole users) that were left out."""
    users: Counter[str] = field(default_factory=Counter)
    """Users by what became of them."""
    fixed: Counter[str] = field(default_factory=Counter)
    """What was mended."""
    misses: Counter[str] = field(default_factory=Counter)
    """Items that a table lacks."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> some of what was left out or missing."""

    def show(self, reason: str, examples: Iterable[str]) -> None:
        """Keeps the first few examples of a reason."""
        shown = self.examples.setdefault(reason, [])
        for example in examples:
            if len(shown) >= MAX_EXAMPLES:
                break
            if example not in shown:
                shown.append(example)

    def rejected(self) -> dict[str, int]:
        """Reason -> entries of lists left out, over all families; reasons that never occur are left out."""
        total: Counter[str] = Counter()
        for counts in self.families.values():
            total.update({k: v for k, v in counts.items() if k not in ("found", "kept")})
        ordered = (*REASONS[1:], NO_SID, DUPLICATE)
        return {reason: total[reason] for reason in ordered if total[reason]}
