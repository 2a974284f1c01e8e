"""Two baselines that know no text and no model: what is popular, and what followed the last item.

Both learn from the training histories only and rank items of the target's domain only, as the model does when its
begin token is forced.

Notation: `N` items, `U` users, `Q` queries, `k` ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass(frozen=True)
class Baselines:
    """Counts of the training part; build it with `fit_baselines`.

    Attributes:
        popularity: int64 `[N]`, training interactions of each item.
        transitions: CSR `[N, N]`, how often the column's item came directly after the row's.
        item_domain: int64 `[N]`, position of each item's domain (all 0 where the format tells none apart).
    """

    popularity: np.ndarray
    transitions: sparse.csr_array
    item_domain: np.ndarray

    def rank_popular(self, domains: np.ndarray, k: int) -> np.ndarray:
        """The `k` most popular items of each query's domain: `[Q]` -> item indices `[Q, k]`, -1 past the last item.

        Ties go to the lower item index.
        """
        table = {d: self._popular(d, k) for d in np.unique(domains).tolist()}
        return np.stack([table[d] for d in domains.tolist()]) if len(domains) else np.empty((0, k), np.int64)

    def rank_markov(self, last_items: np.ndarray, domains: np.ndarray, k: int) -> np.ndarray:
        """First-order Markov: the items of the domain that followed the last item most often, then popular ones.

        Args:
            last_items: `[Q]`, the newest item of each history, -1 for an empty one.
            domains: `[Q]`, the domain asked for.
            k: ranks.

        Returns:
            item indices `[Q, k]`, distinct inside a row, -1 past the domain's last item. Ties of a transition count
            go to the more popular item, then to the lower index.
        """
        ranked = np.full((len(last_items), k), -1, np.int64)
        for domain in np.unique(domains).tolist():
            asked = np.flatnonzero(domains == domain)
            states, inverse = np.unique(last_items[asked], return_inverse=True)
            ranked[asked] = self._markov_table(states, domain, k)[inverse]
        return ranked

    def _popular(self, domain: int, k: int) -> np.ndarray:
        items = np.flatnonzero(self.item_domain == domain)
        best = items[np.argsort(-self.popularity[items], kind="stable")][:k]
        return np.pad(best, (0, k - len(best)), constant_values=-1)

    def _markov_table(self, states: np.ndarray, domain: int, k: int) -> np.ndarray:
        """Rows of `rank_markov` for distinct last items `[S]` -> `[S, k]`."""
        # A back-off list of 2k leaves k items even when all k followers are popular ones.
        backoff = np.broadcast_to(self._popular(domain, 2 * k), (len(states), 2 * k))
        followers = np.full((len(states), k), -1, np.int64)
        known = np.flatnonzero(states >= 0)
        rows = self.transitions[states[known]].tocoo()
        inside = self.item_domain[rows.col] == domain
        row, item, count = rows.row[inside], rows.col[inside], rows.data[inside]
        order = np.lexsort((item, -self.popularity[item], -count, row))
        row, item = row[order], item[order]
        position = np.arange(len(row)) - np.searchsorted(row, row)
        first = position < k
        followers[known[row[first]], position[first]] = item[first]
        repeated = (backoff[:, :, None] == followers[:, None, :]).any(2) if len(states) else backoff < 0
        both = np.concatenate([followers, np.where(repeated, -1, backoff)], axis=1)
        # A stable sort by "absent" moves the gaps behind the items and keeps their order.
        return np.take_along_axis(both, np.argsort(both < 0, axis=1, kind="stable"), axis=1)[:, :k]


def fit_baselines(train: Sequence[np.ndarray], item_domain: np.ndarray) -> Baselines:
    """Counts items and direct successions over training histories (`U` arrays of item indices, oldest first)."""
    count = len(item_domain)
    flat = np.concatenate([*train, np.empty(0, np.int64)]).astype(np.int64)
    user = np.repeat(np.arange(len(train)), [len(h) for h in train])
    follows = user[1:] == user[:-1]
    ones = np.ones(int(follows.sum()), np.int64)
    pairs = sparse.coo_array((ones, (flat[:-1][follows], flat[1:][follows])), shape=(count, count))
    return Baselines(np.bincount(flat, minlength=count).astype(np.int64), pairs.tocsr(), np.asarray(item_domain))
