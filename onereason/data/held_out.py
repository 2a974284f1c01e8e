"""Users kept apart by a hash of their name: the same in every corpus, mixture and run, and evenly spread."""

from __future__ import annotations

import hashlib


def user_share(user: str) -> float:
    """Where a user stands in [0, 1)."""
    return _place(user) / 2**64


def is_held_out(user: str | None, share: float) -> bool:
    """Whether a user is among the `share` that stand lowest; a row without a user never is."""
    return user is not None and share > 0 and _place(user) < share * 2**64


def _place(user: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"held out {user}".encode(), digest_size=8).digest(), "little")
