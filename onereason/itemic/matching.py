"""How far code sequences agree, and how far they spread.

Codes stand in arrays of integers: codes of the format or their token ids, -1 where there is no item. A code of -1
equals nothing, itself included. All sequences of a call are of one domain, as they are where the begin token is forced:
equal codes of two domains are different items, and nothing here can tell.

Notation: `P` targets, `K` items, `L` levels.
"""

from __future__ import annotations

import numpy as np


def common_prefix_levels(candidates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Levels that agree from the first one on, `[..., L]` against `[P, L]` -> int64 `[..., P]`, 0 .. L.

    A level counts only below levels that agree, since a code means something only under its prefix.

    Raises:
        ValueError: another number of levels.
    """
    return np.logical_and.accumulate(_agreements(candidates, targets), axis=-1).sum(-1)


def matching_levels(candidates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Levels that agree, each by itself, `[..., L]` against `[P, L]` -> int64 `[..., P]`, 0 .. L.

    Raises:
        ValueError: another number of levels.
    """
    return _agreements(candidates, targets).sum(-1)


def _agreements(candidates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """True where a level agrees, bool `[..., P, L]`."""
    if targets.ndim != 2 or candidates.shape[-1:] != targets.shape[1:]:
        raise ValueError(
            f"candidates {candidates.shape} and targets {targets.shape} must be [..., levels] and [targets, levels], "
            "with as many levels."
        )
    candidates = candidates[..., None, :]
    return (candidates == targets) & (candidates >= 0)


def num_first_codes(sequences: np.ndarray) -> np.ndarray:
    """`m`, the number of distinct first codes among K items; `[..., K, L]` -> int64 `[...]`."""
    first = np.sort(sequences[..., 0], axis=-1)
    opens = first >= 0
    opens[..., 1:] &= first[..., 1:] != first[..., :-1]
    return opens.sum(-1)


def first_code_diversity(sequences: np.ndarray) -> np.ndarray:
    """`R_div = max(0, m - 1) / (K - 1)` of K items; `[..., K, L]` -> float64 `[...]`.

    OneReason, Eq. 11, with `m` of `num_first_codes`. 1 where every item has a first code of its own, 0 where all share
    one; with a single item there is nothing to spread and it is 0.
    """
    return np.maximum(num_first_codes(sequences) - 1, 0) / max(sequences.shape[-2] - 1, 1)
