"""Allow and deny lists over a trie: what each request may get, without building the trie again.

A request may get the items of its allow list (all items where it has none), less those of its deny list and less those
that the shared filter closes. A leaf (sid) is permitted while one of its items is, any other node while one of its
children is. A request costs what its own lists hold; what many requests have in common (out of stock, a region) stands
in a `SharedFilter`, which is made once and costs a request nothing.

A look-up needs the exceptions only. Of a request with an allow list they are the permitted nodes; of any other, the
nodes that its deny list closes on top of the shared filter. Both are sorted keys, `request * num_nodes + node`.

Notation: `N` items, `L` levels, `n` nodes, `R` roots, `B` requests, `C` candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from onereason.errors import CatalogError, ConfigError
from onereason.itemic.trie import ItemTrie

if TYPE_CHECKING:
    import torch

LAST_KEY = 2**63 - 1
"""Stands behind the keys of a filter: a search among them always ends at an entry."""


@dataclass(frozen=True, eq=False)
class SharedFilter:
    """What every request of a batch, a server or a region may get; build it with `build_shared_filter`.

    Attributes:
        trie: the tree it filters.
        open_items: bool `[N]`; True selects the items it leaves open.
        open_counts: int32 `[n]`, how many children of a node (of a leaf: items) are open.
        open_leaves: int64 `[R]`, how many leaves under a root are open.
    """

    trie: ItemTrie
    open_items: np.ndarray
    open_counts: np.ndarray
    open_leaves: np.ndarray
    _tensors: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)

    def on(self, device: torch.device | str) -> torch.Tensor:
        """Bool `[n]` on a device, made once; True selects open nodes."""
        import torch

        key = str(torch.device(device))
        if key not in self._tensors:
            self._tensors[key] = torch.from_numpy(self.open_counts > 0).to(device)
        return self._tensors[key]


@dataclass(frozen=True)
class FilterTensors:
    """A filter's look-up of nodes on one device.

    Attributes:
        node_keys, has_allow: as in `NodeFilter`.
        open_nodes: bool `[n]`; True selects the nodes that the shared filter leaves open. None where there is none.
        num_nodes: `n`.
    """

    node_keys: torch.Tensor
    has_allow: torch.Tensor
    open_nodes: torch.Tensor | None
    num_nodes: int

    def permitted(self, request: torch.Tensor, node: torch.Tensor) -> torch.Tensor:
        """Requests `[C]` and nodes `[C]` -> bool `[C]`; True selects nodes under which the request may get an item.

        The root of a domain without items is no node to ask about: `NodeFilter.num_allowed` says 0 of it.
        """
        import torch

        key = request.long() * self.num_nodes + node
        listed = self.node_keys[torch.searchsorted(self.node_keys, key)] == key
        unlisted = ~listed if self.open_nodes is None else self.open_nodes[node] & ~listed
        return torch.where(self.has_allow[request], listed, unlisted)


@dataclass(frozen=True, eq=False)
class NodeFilter:
    """What each of `B` requests may get; build it with `build_filter`.

    Attributes:
        trie: the tree it filters.
        shared: what holds for every request, None where nothing does.
        has_allow: bool `[B]`; True selects requests with an allow list.
        node_keys: int64, sorted, `request * num_nodes + node`: the permitted nodes of requests with an allow list, and
            the nodes that the others' deny lists close beyond the shared filter; `LAST_KEY` at the end.
        item_keys: the same of items, `request * num_items + item`.
        num_allow: int64 `[B]`, the length of each allow list as it was given, -1 where there is none.
        num_deny: the same of deny lists.
    """

    trie: ItemTrie
    shared: SharedFilter | None
    has_allow: np.ndarray
    node_keys: np.ndarray
    item_keys: np.ndarray
    num_allow: np.ndarray
    num_deny: np.ndarray
    _tensors: dict[str, FilterTensors] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.has_allow)

    def on(self, device: torch.device | str) -> FilterTensors:
        """The look-up of nodes on a device, made once."""
        import torch

        key = str(torch.device(device))
        if key not in self._tensors:
            self._tensors[key] = FilterTensors(
                torch.from_numpy(self.node_keys).to(device),
                torch.from_numpy(self.has_allow).to(device),
                None if self.shared is None else self.shared.on(device),
                self.trie.num_nodes,
            )
        return self._tensors[key]

    def permitted_items(self, request: ArrayLike, item: ArrayLike) -> np.ndarray:
        """Requests `[C]` and item indices `[C]` -> bool `[C]`; True selects items the request may get."""
        request, item = np.asarray(request, np.int64), np.asarray(item, np.int64)
        listed = _contains(self.item_keys, request * self.trie.num_items + item)
        unlisted = ~listed if self.shared is None else self.shared.open_items[item] & ~listed
        return np.where(self.has_allow[request], listed, unlisted)

    def num_allowed(self, root: int, request: int) -> int:
        """How many sids (leaves) under a root a request may get."""
        return int(self._count_leaves(np.array([root]), np.array([request]))[0])

    def count_allowed(self, roots: ArrayLike) -> np.ndarray:
        """How many sids each request may get under its root: roots `[B]` -> int64 `[B]`.

        Raises:
            ConfigError: not one root a request.
        """
        found = np.asarray(roots)
        if found.shape != (len(self),):
            raise ConfigError(f"roots must be one root a request, {len(self)} in all, got shape {found.shape}.")
        return self._count_leaves(found, np.arange(len(self)))

    def require_not_empty(self, roots: ArrayLike) -> None:
        """`ConfigError` naming the first request that may get nothing under its root; roots `[B]`."""
        empty = np.flatnonzero(self.count_allowed(roots) == 0)
        if not len(empty):
            return
        request, root = int(empty[0]), int(np.asarray(roots)[empty[0]])
        domain = self.trie.domains[root]
        first, end = (int(leaf) - self.trie.first_leaf for leaf in self.trie.leaf_ranges(root))
        num_items = int(self.trie.leaf_start[end] - self.trie.leaf_start[first])
        if num_items == 0:
            raise ConfigError(
                f"request {request} has nothing to choose from: the catalog has no item of domain {domain!r}; "
                "ask for a domain that has items."
            )
        named = {"its allow list": int(self.num_allow[request]), "its deny list": int(self.num_deny[request])}
        lists = [f"{name} ({length} item(s))" for name, length in named.items() if length >= 0]
        if self.shared is not None:
            lists.append(f"the shared filter ({int(self.shared.open_leaves[root])} of {end - first} sids open)")
        raise ConfigError(
            f"request {request} has nothing to choose from: of the {num_items} items of domain {domain!r}, none passes "
            f"{' and '.join(lists)}; permit at least one of them or ask for another domain."
        )

    def _count_leaves(self, roots: np.ndarray, requests: np.ndarray) -> np.ndarray:
        """Permitted leaves under roots `[M]` of requests `[M]`: int64 `[M]`. A root's leaves are consecutive nodes."""
        first, end = self.trie.leaf_ranges(roots)
        total = end - first if self.shared is None else self.shared.open_leaves[roots]
        base = requests * self.trie.num_nodes
        listed = np.searchsorted(self.node_keys, base + end) - np.searchsorted(self.node_keys, base + first)
        return np.where(self.has_allow[requests], listed, total - listed)


def build_shared_filter(
    trie: ItemTrie, *, deny: ArrayLike | None = None, allow: ArrayLike | None = None
) -> SharedFilter:
    """One filter for all requests, in one pass over the tree.

    Args:
        deny: item indices that no request may get.
        allow: the only item indices that any request may get; None for all.

    Raises:
        CatalogError: an item index the catalog does not have.
    """
    open_items = np.ones(trie.num_items, bool)
    if allow is not None:
        open_items[:] = False
        open_items[_check_items(allow, trie, "the shared allow list")] = True
    if deny is not None:
        open_items[_check_items(deny, trie, "the shared deny list")] = False

    counts = np.zeros(trie.num_nodes, np.int32)
    counts[trie.first_leaf :] = np.add.reduceat(open_items[trie.leaf_items], trie.leaf_start[:-1], dtype=np.int32)
    starts = trie.level_starts
    for depth in reversed(range(trie.num_levels)):
        low, high, end = starts[depth : depth + 3]
        before = np.append(0, np.cumsum(counts[high:end] > 0))  # open nodes of the next depth before each of them
        children = trie.child_start[low : high + 1] - high
        counts[low:high] = before[children[1:]] - before[children[:-1]]
    before = np.append(0, np.cumsum(counts[trie.first_leaf :] > 0))
    first, last = trie.leaf_ranges(np.arange(len(trie.domains)))
    open_leaves = before[last - trie.first_leaf] - before[first - trie.first_leaf]
    return SharedFilter(trie, open_items, counts, open_leaves)


def build_filter(
    trie: ItemTrie,
    deny: Sequence[ArrayLike | None] | None = None,
    allow: Sequence[ArrayLike | None] | None = None,
    shared: SharedFilter | None = None,
) -> NodeFilter:
    """The filter of `B` requests. Cost: (what the lists hold) x `L`, and sorting it.

    Args:
        trie: the tree to filter.
        deny: `B` lists of item indices that a request must not get, None where it has no such list.
        allow: `B` lists of the only item indices that a request may get, None for all.
        shared: what holds for every request beside its own lists.

    Raises:
        CatalogError: an item index the catalog does not have.
        ConfigError: neither `deny` nor `allow`, two of unequal lengths, or a shared filter of another trie.
    """
    if deny is None and allow is None:
        raise ConfigError("a filter needs deny or allow, one list or None a request, e.g. deny=[None, [4, 7]].")
    deny = [None] * len(allow or []) if deny is None else deny
    allow = [None] * len(deny) if allow is None else allow
    if len(deny) != len(allow):
        raise ConfigError(f"deny has {len(deny)} lists and allow {len(allow)}; both need one list or None a request.")
    if shared is not None and shared.trie is not trie:
        raise ConfigError("the shared filter was built for another trie; build it again with build_shared_filter.")

    denied, num_deny = _list_items(deny, trie, "deny")
    allowed, num_allow = _list_items(allow, trie, "allow")
    has_allow = num_allow >= 0
    left = np.setdiff1d(allowed, denied, assume_unique=True)
    item_keys = np.sort(np.concatenate([left, denied[~has_allow[denied // trie.num_items]]]))
    if shared is not None:
        item_keys = item_keys[shared.open_items[item_keys % trie.num_items]]
    request, item = np.divmod(item_keys, trie.num_items)
    leaf_keys = request * trie.num_nodes + trie.item_leaf[item]
    permits = has_allow[request]
    node_keys = np.concatenate(
        [_permitted_nodes(trie, leaf_keys[permits]), _closed_nodes(trie, shared, leaf_keys[~permits])]
    )
    return NodeFilter(
        trie,
        shared,
        has_allow,
        np.append(np.sort(node_keys), LAST_KEY),
        np.append(item_keys, LAST_KEY),
        num_allow,
        num_deny,
    )


def _permitted_nodes(trie: ItemTrie, leaf_keys: np.ndarray) -> np.ndarray:
    """The keys of permitted leaves (repeated where several items are) -> those of the leaves and all nodes above."""
    parts = [np.unique(leaf_keys)]
    for _ in range(trie.num_levels):
        parts.append(np.unique(_parent_keys(trie, parts[-1])))
    return np.concatenate(parts)


def _closed_nodes(trie: ItemTrie, shared: SharedFilter | None, leaf_keys: np.ndarray) -> np.ndarray:
    """The leaf key of each denied item that the shared filter leaves open -> keys of the nodes with nothing left.

    A node is closed when as many of its children (of a leaf: its items) are as the shared filter leaves open.
    """
    parts, keys = [], leaf_keys
    for height in range(trie.num_levels + 1):
        keys, counts = np.unique(keys, return_counts=True)
        nodes = keys % trie.num_nodes
        if shared is not None:
            open_counts = shared.open_counts[nodes]
        elif height == 0:
            open_counts = trie.leaf_start[nodes - trie.first_leaf + 1] - trie.leaf_start[nodes - trie.first_leaf]
        else:
            open_counts = trie.child_start[nodes + 1] - trie.child_start[nodes]
        parts.append(keys[counts == open_counts])
        if height < trie.num_levels:
            keys = _parent_keys(trie, parts[-1])
    return np.concatenate(parts)


def _parent_keys(trie: ItemTrie, keys: np.ndarray) -> np.ndarray:
    """Node keys -> the keys of the nodes above, of the same requests."""
    nodes = keys % trie.num_nodes
    return keys - nodes + trie.parents(nodes)


def _list_items(lists: Sequence[ArrayLike | None], trie: ItemTrie, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Lists of `B` requests -> sorted keys `request * num_items + item`, each once, and lengths `[B]` (-1: no list)."""
    found = [
        None if items is None else _check_items(items, trie, f"the {name} list of request {b}")
        for b, items in enumerate(lists)
    ]
    lengths = np.array([-1 if items is None else len(items) for items in found], np.int64)
    requests = np.repeat(np.arange(len(found)), np.maximum(lengths, 0))
    items = np.concatenate([np.empty(0, np.int64), *(items for items in found if items is not None)])
    return np.unique(requests * trie.num_items + items), lengths


def _check_items(items: ArrayLike, trie: ItemTrie, name: str) -> np.ndarray:
    """Item indices as int64 `[n]`; `CatalogError` naming the list where it is none, or the catalog lacks an item."""
    found = np.asarray(items)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise CatalogError(
            f"{name} must be item indices, got {found.dtype} of shape {found.shape}; "
            "Catalog.indices gives the indices of item ids."
        )
    outside = found[(found < 0) | (found >= trie.num_items)]
    if len(outside):
        raise CatalogError(
            f"{name} holds item index {outside[0]}, the catalog has 0 .. {trie.num_items - 1}; "
            "Catalog.indices gives the indices of item ids."
        )
    return found.astype(np.int64)


def _contains(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """True where sorted `keys` (`LAST_KEY` at the end) hold what is wanted: bool, the shape of `wanted`."""
    return keys[np.searchsorted(keys, wanted)] == wanted
