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
from numpy.typing import ArrayLike

from onereason.errors import CatalogError, FormatError
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import ANY_DOMAIN
from onereason.itemic.vocabulary import ItemicVocabulary, require_same_format

if TYPE_CHECKING:
    import torch

MAX_NODES = 2**31 - 1
MAX_KEY = 2**63 - 1
TRIE_ARRAYS = ("child_start", "token", "leaf_start", "leaf_items", "item_leaf", "begin_ids")
"""The attributes of an `ItemTrie` that are arrays."""


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

    def step(self, nodes: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The children of nodes `[M]` that tokens `[M]` lead to, -1 where there is none (or the node is -1)."""
        import torch

        at = nodes.clamp(min=0)
        low, high = self.child_start[at].long(), self.child_start[at + 1].long()
        end, last = high, len(self.token) - 1
        for _ in range(int((high - low).max()).bit_length() if len(nodes) else 0):
            is_open = low < high
            middle = (low + high) // 2
            below = is_open & (self.token[middle.clamp(max=last)] < tokens)
            low = torch.where(below, middle + 1, low)
            high = torch.where(is_open & ~below, middle, high)
        found = (low < end) & (nodes >= 0)
        found &= self.token[low.clamp(max=last)] == tokens
        return torch.where(found, low, -1)


@dataclass(frozen=True, eq=False)
class ItemTrie:
    """A prefix tree over items; build it with `build_trie` or `build_catalog_trie`.

    Attributes:
        domains: `R` names, the domain of each root.
        num_levels: `L`, the depth of every leaf.
        child_start: int32 `[n + 1]`, see `TrieTensors`.
        token: int32 `[n]`, see `TrieTensors`.
        first_leaf: the number of the first leaf; leaves are the last nodes.
        leaf_start: int32 `[leaves + 1]`; leaf `first_leaf + j` holds `leaf_items[leaf_start[j]:leaf_start[j + 1]]`.
        leaf_items: int32 `[N]`, item indices, inside a leaf the highest priority first. Like `leaf_start`, int64 where
            an int32 does not count the items.
        item_leaf: int32 `[N]`, the leaf node of each item.
        level_ranges: for each level `(first, end)`; the ids of its code tokens lie in `first .. end - 1`.
        begin_ids: int64 `[R]`, the begin token of each root's domain; -1 where the format has none.
    """

    domains: tuple[str, ...]
    num_levels: int
    child_start: np.ndarray
    token: np.ndarray
    first_leaf: int
    leaf_start: np.ndarray
    leaf_items: np.ndarray
    item_leaf: np.ndarray
    level_ranges: tuple[tuple[int, int], ...]
    begin_ids: np.ndarray
    _tensors: dict[str, TrieTensors] = field(default_factory=dict, repr=False)

    @property
    def num_nodes(self) -> int:
        return len(self.token)

    @property
    def num_leaves(self) -> int:
        return self.num_nodes - self.first_leaf

    @property
    def num_items(self) -> int:
        return len(self.item_leaf)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(getattr(self, name).nbytes for name in TRIE_ARRAYS)

    @property
    def level_starts(self) -> tuple[int, ...]:
        """`L + 2` nodes: those of depth `d` (the roots' is 0) are `level_starts[d] .. level_starts[d + 1] - 1`."""
        starts = [0]
        for _ in range(self.num_levels + 1):
            starts.append(int(self.child_start[starts[-1]]))
        return tuple(starts)

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

    def parents(self, nodes: ArrayLike) -> np.ndarray:
        """Nodes of any shape -> the node above each (int64, same shape); -1 above a root."""
        # A root without items repeats the next one's start: the last node that starts at or before a child is its own.
        starts = self.child_start[: self.first_leaf]
        return np.searchsorted(starts, np.asarray(nodes, starts.dtype), side="right") - 1

    def paths(self, leaves: ArrayLike) -> np.ndarray:
        """Leaves `[M]` -> the token ids that lead to each, int64 `[M, L]`."""
        nodes = np.asarray(leaves, np.int64)
        tokens = np.empty((len(nodes), self.num_levels), np.int64)
        for level in reversed(range(self.num_levels)):
            tokens[:, level] = self.token[nodes]
            nodes = self.parents(nodes)
        return tokens

    def walk(self, roots: ArrayLike, tokens: ArrayLike) -> np.ndarray:
        """The leaves that tokens `[M, L]` lead to from roots `[M]`, int64 `[M]`; -1 where they are no sid there."""
        import torch

        nodes = torch.from_numpy(np.asarray(roots, np.int64))
        for column in torch.from_numpy(np.ascontiguousarray(np.asarray(tokens, np.int64).T)):
            nodes = self.on("cpu").step(nodes, column)
        return nodes.numpy()

    def leaf_ranges(self, roots: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Roots of any shape -> `(first, end)`: the leaves under each are `first .. end - 1`."""
        first = np.asarray(roots)
        end = first + 1
        for _ in range(self.num_levels):
            first, end = self.child_start[first], self.child_start[end]
        return first, end

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
    level_ranges: Sequence[tuple[int, int]] | None = None,
    begin_ids: Sequence[int | None] | None = None,
) -> ItemTrie:
    """The tree of items' code tokens, sorted and numbered without a Python loop over items.

    Args:
        tokens: token ids `[N, L]` of the codes (begin and end tokens left out).
        roots: `[N]`, position in `domains` of each item's domain; all 0 by default.
        domains: `R` names.
        priority: `[N]`; items under one leaf are ordered by it, the highest first, ties by item index.
        level_ranges: `L` pairs, see `ItemTrie`; by default from the lowest to the highest token of each level.
        begin_ids: `R` token ids, `None` or -1 where a domain has no begin token; none has one by default.

    Raises:
        CatalogError: no items, no levels, negative tokens, tokens outside their level's range, or arguments of other
            lengths.
    """
    tokens = np.asarray(tokens)
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise CatalogError(f"a trie needs token ids of shape [items, levels], got shape {tokens.shape}.")
    lowest, highest = tokens.min(0).tolist(), tokens.max(0).tolist()
    if min(lowest) < 0 or max(highest) > MAX_NODES:
        raise CatalogError(f"token ids must lie in 0 .. {MAX_NODES}, got {min(lowest)} .. {max(highest)}.")
    count, levels = tokens.shape
    roots = np.zeros(count, np.int64) if roots is None else np.asarray(roots, np.int64)
    if roots.shape != (count,) or roots.min() < 0 or roots.max() >= len(domains):
        raise CatalogError(f"roots must be {count} positions in {list(domains)}, got shape {roots.shape}.")
    if priority is not None and np.shape(priority) != (count,):
        raise CatalogError(f"priority must be one number an item, {count} in all, got shape {np.shape(priority)}.")
    begins = [None] * len(domains) if begin_ids is None else list(begin_ids)
    if len(begins) != len(domains):
        raise CatalogError(f"begin_ids must be one token id a domain of {list(domains)}, got {len(begins)}.")
    ranges = _check_ranges(level_ranges, lowest, highest)

    tokens = tokens.astype(np.int32, copy=False)
    order = np.lexsort(_pack_keys(tokens, roots, ranges, len(domains))[::-1])
    child_start, token, opens = _number_nodes(tokens, roots, order, len(domains))
    index_type = np.int32 if count <= MAX_NODES else np.int64
    leaf_start = np.append(np.flatnonzero(opens), count).astype(index_type)
    first_leaf = len(token) - (len(leaf_start) - 1)
    leaf_of_row = np.cumsum(opens, dtype=np.int32)
    leaf_of_row += first_leaf - 1
    item_leaf = np.empty(count, np.int32)
    item_leaf[order] = leaf_of_row
    if priority is not None:
        sizes = np.diff(leaf_start)
        crowded = np.flatnonzero(np.repeat(sizes > 1, sizes))  # rows under leaves that hold several items
        items = order[crowded]
        order[crowded] = items[np.lexsort((-np.asarray(priority, np.int64)[items], leaf_of_row[crowded]))]
    return ItemTrie(
        tuple(domains),
        levels,
        child_start,
        token,
        first_leaf,
        leaf_start,
        order.astype(index_type, copy=False),
        item_leaf,
        ranges,
        np.array([-1 if begin is None else begin for begin in begins], np.int64),
    )


def _check_ranges(
    level_ranges: Sequence[tuple[int, int]] | None, lowest: list[int], highest: list[int]
) -> tuple[tuple[int, int], ...]:
    """The levels' ranges, the tokens' own by default; `CatalogError` where a token lies outside."""
    seen = tuple((int(low), int(high) + 1) for low, high in zip(lowest, highest, strict=True))
    if level_ranges is None:
        return seen
    ranges = tuple((int(first), int(end)) for first, end in level_ranges)
    if len(ranges) != len(seen):
        raise CatalogError(f"level_ranges must be one range for each of {len(seen)} levels, got {len(ranges)}.")
    for level, ((first, end), (low, stop)) in enumerate(zip(ranges, seen, strict=True)):
        if low < first or stop > end:
            raise CatalogError(
                f"tokens of level {level} must lie in {first} .. {end - 1}, got {low} .. {stop - 1}; "
                "build the trie with the ranges of the vocabulary that made the tokens."
            )
    return ranges


def _pack_keys(
    tokens: np.ndarray, roots: np.ndarray, ranges: Sequence[tuple[int, int]], num_roots: int
) -> list[np.ndarray]:
    """Root and tokens of each item as int64 keys `[N]`, as few as hold them; the first decides, then the next."""
    keys, size = [roots.astype(np.int64)], num_roots
    for level, (first, end) in enumerate(ranges):
        size *= end - first
        if size > MAX_KEY:
            keys.append(np.zeros(len(tokens), np.int64))
            size = end - first
        keys[-1] *= end - first
        keys[-1] -= first
        keys[-1] += tokens[:, level]
    return keys


def _number_nodes(
    tokens: np.ndarray, roots: np.ndarray, order: np.ndarray, num_roots: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`child_start` and `token` of the tree, and which rows of `order` `[N]` (items by path) open a leaf (bool `[N]`).

    A row opens a node at a level when it differs from the row before it up to that level. The children of a node that
    opens at row `r` begin after those that open before `r`.
    """
    column = roots[order]
    opens = np.ones(len(order), bool)
    np.not_equal(column[1:], column[:-1], out=opens[1:])
    rows = np.searchsorted(column, np.arange(num_roots))  # where the nodes of the level above open
    num_nodes = num_roots
    node_tokens, child_starts = [np.full(num_roots, -1, np.int32)], []
    for level in range(tokens.shape[1]):
        column = tokens[order, level]
        opens[1:] |= column[1:] != column[:-1]
        next_rows = np.flatnonzero(opens)
        child_starts.append((num_nodes + np.searchsorted(next_rows, rows)).astype(np.int32))
        node_tokens.append(column[next_rows])
        num_nodes, rows = num_nodes + len(next_rows), next_rows
        if num_nodes > MAX_NODES:
            raise CatalogError(f"the catalog's tree has {num_nodes} nodes or more; at most {MAX_NODES} are supported.")
    child_starts.append(np.full(len(rows) + 1, num_nodes, np.int32))
    return np.concatenate(child_starts), np.concatenate(node_tokens), opens


def build_catalog_trie(catalog: Catalog, vocabulary: ItemicVocabulary, priority: np.ndarray | None = None) -> ItemTrie:
    """The tree of a catalog in a tokenizer's ids: one root a domain of the format.

    Items under one leaf are ordered by `priority` `[N]`, the catalog's popularity by default, the highest first.

    Raises:
        FormatError: the catalog and the vocabulary use different formats.
    """
    require_same_format(vocabulary.format, catalog.format, "the catalog")
    domains, roots = domain_positions(catalog)
    starts = [vocabulary.level_start(level) for level in range(catalog.format.num_levels)]
    return build_trie(
        catalog.codes + np.array(starts, np.int32),  # half the memory of vocabulary.code_ids
        roots,
        domains,
        catalog.popularity if priority is None else priority,
        [(start, start + size) for start, size in zip(starts, catalog.format.codes_per_level, strict=True)],
        [vocabulary.marker_ids(domain)[0] for domain in domains],
    )


def domain_positions(catalog: Catalog) -> tuple[tuple[str, ...], np.ndarray]:
    """The format's domains `[R]`, and each item's position in them `[N]` (all 0 where tokens tell none apart)."""
    domains = tuple(catalog.format.domains)
    if ANY_DOMAIN in domains:
        return domains, np.zeros(len(catalog), np.int64)
    position = {domain: i for i, domain in enumerate(domains)}
    return domains, np.array([position[d] for d in catalog.domains], dtype=np.int64)
