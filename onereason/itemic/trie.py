"""The prefix tree of a catalog's semantic ids, as flat arrays.

Nodes are numbered breadth first: the roots (one a domain, so that an item of another domain is never admitted), then
the first level's nodes, and so on; inside a level they are sorted by prefix. The children of a node are therefore
consecutive nodes, in ascending order of their token, and two arrays say everything: where a node's children start, and
which token leads to a node. Items that share a sid share a leaf.

Notation: `N` items, `L` levels, `R` roots, `n` nodes, `M` nodes looked up at once, `C` children found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from onereason.errors import CatalogError, FormatError
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import ANY_DOMAIN
from onereason.itemic.vocabulary import ItemicVocabulary, require_same_format

if TYPE_CHECKING:
    import torch

MAX_NODES = 2**31 - 1


@dataclass(frozen=True)
class TrieTensors:
    """The trie's arrays on one device.

    Attributes:
        child_start: int32 `[n + 1]`; the children of node `i` are the nodes `child_start[i] .. child_start[i + 1] - 1`.
        token: int32 `[n]`, the token that leads to a node (-1 for roots).
    """

    child_start: torch.Tensor
    token: torch.Tensor

    def num_children(self, nodes: torch.Tensor) -> torch.Tensor:
        """Nodes of any shape -> how many children each has (int64, same shape)."""
        return (self.child_start[nodes + 1] - self.child_start[nodes]).long()

    def expand(self, nodes: torch.Tensor, counts: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """All children of nodes `[M]` -> `(row [C], child [C])`: child node `child[i]` belongs to `nodes[row[i]]`.

        Rows ascend, and inside a row tokens ascend. `counts` `[M]` overrides the number of children taken a node (0
        leaves a node out). Memory is proportional to the children found, not to the widest node.
        """
        import torch

        counts = self.num_children(nodes) if counts is None else counts
        row = torch.repeat_interleave(torch.arange(len(nodes), device=nodes.device), counts)
        first = self.child_start[nodes].long() - (counts.cumsum(0) - counts)
        return row, first[row] + torch.arange(len(row), device=nodes.device)


@dataclass(frozen=True, eq=False)
class ItemTrie:
    """A prefix tree over items; build it with `build_trie` or `build_catalog_trie`.

    Attributes:
        domains: `R` names, the domain of each root.
        num_levels: `L`, the depth of every leaf.
        child_start: int32 `[n + 1]`, see `TrieTensors`.
        token: int32 `[n]`, see `TrieTensors`.
        first_leaf: the number of the first leaf; leaves are the last nodes.
        leaf_start: int64 `[leaves + 1]`; leaf `first_leaf + j` holds `leaf_items[leaf_start[j]:leaf_start[j + 1]]`.
        leaf_items: int64 `[N]`, item indices, inside a leaf the highest priority first.
        item_leaf: int64 `[N]`, the leaf node of each item.
    """

    domains: tuple[str, ...]
    num_levels: int
    child_start: np.ndarray
    token: np.ndarray
    first_leaf: int
    leaf_start: np.ndarray
    leaf_items: np.ndarray
    item_leaf: np.ndarray
    _tensors: dict[str, TrieTensors] = field(default_factory=dict, repr=False)

    @property
    def num_nodes(self) -> int:
        return len(self.token)

    @property
    def num_leaves(self) -> int:
        return self.num_nodes - self.first_leaf

    def root_of(self, domain: str = ANY_DOMAIN) -> int:
        """The root node under which a domain's items stand."""
        if ANY_DOMAIN in self.domains:
            return self.domains.index(ANY_DOMAIN)
        if domain not in self.domains:
            raise FormatError(f"domain {domain!r} has no items' tree; the format has {', '.join(self.domains)}.")
        return self.domains.index(domain)

    def items_at(self, leaf: int) -> np.ndarray:
        """Item indices under a leaf node, the highest priority first."""
        low, high = self.leaf_start[leaf - self.first_leaf], self.leaf_start[leaf - self.first_leaf + 1]
        return self.leaf_items[low:high]

    def find(self, root: int, tokens: Sequence[int]) -> int | None:
        """The node that a prefix of tokens leads to from a root, `None` where no item has this prefix."""
        node = root
        for token in tokens:
            low, high = self.child_start[node], self.child_start[node + 1]
            position = low + int(np.searchsorted(self.token[low:high], token))
            if position == high or self.token[position] != token:
                return None
            node = int(position)
        return node

    def on(self, device: torch.device | str) -> TrieTensors:
        """The arrays as tensors on a device, made once."""
        import torch

        key = str(torch.device(device))
        if key not in self._tensors:
            self._tensors[key] = TrieTensors(
                torch.from_numpy(self.child_start).to(device), torch.from_numpy(self.token).to(device)
            )
        return self._tensors[key]


def build_trie(
    tokens: np.ndarray,
    roots: np.ndarray | None = None,
    domains: Sequence[str] = (ANY_DOMAIN,),
    priority: np.ndarray | None = None,
) -> ItemTrie:
    """The tree of items' code tokens, sorted and numbered without a Python loop over items.

    Args:
        tokens: token ids `[N, L]` of the codes (begin and end tokens left out).
        roots: `[N]`, position in `domains` of each item's domain; all 0 by default.
        domains: `R` names.
        priority: `[N]`; items under one leaf are ordered by it, the highest first, ties by item index.

    Raises:
        CatalogError: no items, no levels, or negative tokens.
    """
    tokens = np.asarray(tokens)
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise CatalogError(f"a trie needs token ids of shape [items, levels], got shape {tokens.shape}.")
    if tokens.min() < 0 or tokens.max() > MAX_NODES:
        raise CatalogError(f"token ids must lie in 0 .. {MAX_NODES}, got {tokens.min()} .. {tokens.max()}.")
    count, levels = tokens.shape
    roots = np.zeros(count, np.int64) if roots is None else np.asarray(roots, np.int64)
    if roots.shape != (count,) or roots.min() < 0 or roots.max() >= len(domains):
        raise CatalogError(f"roots must be {count} positions in {list(domains)}, got shape {roots.shape}.")

    ranking = np.zeros(count, np.int64) if priority is None else -np.asarray(priority, np.int64)
    order = np.lexsort((ranking, *(tokens[:, level] for level in reversed(range(levels))), roots))
    ordered_tokens, ordered_roots = tokens[order], roots[order]

    # A row opens a new node at a level when it differs from the row before it up to that level.
    opens = np.empty(count, bool)
    opens[0] = True
    opens[1:] = ordered_roots[1:] != ordered_roots[:-1]
    node_tokens = [np.full(len(domains), -1, np.int32)]
    child_counts: list[np.ndarray] = []
    parent_of_row, parents = ordered_roots, len(domains)
    for level in range(levels):
        opens[1:] |= ordered_tokens[1:, level] != ordered_tokens[:-1, level]
        node_of_row = np.cumsum(opens) - 1
        child_counts.append(np.bincount(parent_of_row[opens], minlength=parents))
        node_tokens.append(ordered_tokens[opens, level].astype(np.int32))
        parent_of_row, parents = node_of_row, int(node_of_row[-1]) + 1
    token = np.concatenate(node_tokens)
    if len(token) > MAX_NODES:
        raise CatalogError(f"the catalog's tree has {len(token)} nodes; at most {MAX_NODES} are supported.")
    first_leaf = len(token) - parents
    child_start = np.full(len(token) + 1, len(token), np.int32)
    child_start[0] = len(domains)
    child_start[1 : first_leaf + 1] = len(domains) + np.cumsum(np.concatenate(child_counts))
    item_leaf = np.empty(count, np.int64)
    item_leaf[order] = first_leaf + parent_of_row
    leaf_start = np.append(np.flatnonzero(opens), count).astype(np.int64)
    return ItemTrie(
        tuple(domains), levels, child_start, token, first_leaf, leaf_start, order.astype(np.int64), item_leaf
    )


def build_catalog_trie(catalog: Catalog, vocabulary: ItemicVocabulary, priority: np.ndarray | None = None) -> ItemTrie:
    """The tree of a catalog in a tokenizer's ids: one root a domain of the format.

    Items under one leaf are ordered by `priority` `[N]`, the catalog's popularity by default, the highest first.

    Raises:
        FormatError: the catalog and the vocabulary use different formats.
    """
    require_same_format(vocabulary.format, catalog.format, "the catalog")
    domains, roots = domain_positions(catalog)
    priority = catalog.popularity if priority is None else priority
    return build_trie(vocabulary.code_ids(catalog.codes), roots, domains, priority)


def domain_positions(catalog: Catalog) -> tuple[tuple[str, ...], np.ndarray]:
    """The format's domains `[R]`, and each item's position in them `[N]` (all 0 where tokens tell none apart)."""
    domains = tuple(catalog.format.domains)
    if ANY_DOMAIN in domains:
        return domains, np.zeros(len(catalog), np.int64)
    position = {domain: i for i, domain in enumerate(domains)}
    return domains, np.array([position[d] for d in catalog.domains], dtype=np.int64)
