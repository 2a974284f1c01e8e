"""The prefix tree: its arrays by hand, and against a dictionary of prefixes on random catalogs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.errors import CatalogError, FormatError
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import ItemicFormat, Marker
from onereason.itemic.trie import build_catalog_trie, build_trie
from onereason.itemic.vocabulary import ItemicVocabulary


def test_arrays_of_a_hand_made_tree():
    # Roots 0 (x) and 1 (y). Under x: 5-7 (items 0 and 3), 5-8 (item 1); under y: 5-7 (item 2), 6-9 (item 4).
    # Breadth first: 0 x, 1 y | 2 x5, 3 y5, 4 y6 | 5 x57, 6 x58, 7 y57, 8 y69.
    tokens = np.array([[5, 7], [5, 8], [5, 7], [5, 7], [6, 9]])
    trie = build_trie(tokens, np.array([0, 0, 1, 0, 1]), ("x", "y"), priority=np.array([1, 9, 0, 4, 0]))
    assert trie.token.tolist() == [-1, -1, 5, 5, 6, 7, 8, 7, 9]
    assert trie.child_start.tolist() == [2, 3, 5, 7, 8, 9, 9, 9, 9, 9]
    assert (trie.first_leaf, trie.num_leaves, trie.num_nodes) == (5, 4, 9)
    assert trie.item_leaf.tolist() == [5, 6, 7, 5, 8]
    assert trie.items_at(5).tolist() == [3, 0]  # priority 4 before 1
    assert trie.items_at(8).tolist() == [4]
    assert trie.find(0, [5, 8]) == 6
    assert trie.find(1, [5, 8]) is None
    assert trie.find(0, [6]) is None
    assert trie.find(1, []) == 1


def test_moving_up_and_down_a_hand_made_tree():
    # Domain w has no item, nor has z. 0 w, 1 x, 2 y, 3 z | 4 x5, 5 x6, 6 y5 | 7 x57, 8 x58, 9 x62, 10 y57.
    tokens = np.array([[5, 7], [5, 8], [6, 2], [5, 7], [5, 7]])
    trie = build_trie(tokens, np.array([1, 1, 1, 2, 1]), ("w", "x", "y", "z"))
    assert trie.child_start.tolist() == [4, 4, 6, 7, 7, 9, 10, 11, 11, 11, 11, 11]
    assert trie.parents(np.arange(11)).tolist() == [-1, -1, -1, -1, 1, 1, 2, 4, 4, 5, 6]
    assert trie.parents([[10, 4], [7, 0]]).tolist() == [[6, 1], [4, -1]]
    assert trie.paths([10, 7, 9]).tolist() == [[5, 7], [5, 7], [6, 2]]
    assert trie.paths(trie.item_leaf).tolist() == tokens.tolist()
    assert trie.paths([]).shape == (0, 2)
    assert trie.level_starts == (0, 4, 7, 11)
    first, end = trie.leaf_ranges([0, 1, 2, 3])
    assert (first.tolist(), end.tolist()) == ([7, 7, 10, 11], [7, 10, 11, 11])


def test_bytes_of_a_tree():
    # 9 nodes: child_start 10 and token 9 int32; 4 leaves: leaf_start 5 int32; 5 items: leaf_items and item_leaf int32;
    # 2 roots: begin_ids int64. 4 * (10 + 9 + 5 + 5 + 5) + 8 * 2 = 152.
    tokens = np.array([[5, 7], [5, 8], [5, 7], [5, 7], [6, 9]])
    trie = build_trie(tokens, np.array([0, 0, 1, 0, 1]), ("x", "y"))
    assert trie.nbytes == 152
    assert trie.num_items == 5
    wide = build_trie(np.random.default_rng(0).integers(0, 8192, (50_000, 3)))
    assert wide.nbytes / wide.num_items < 30


def test_expand_lists_children_of_every_node_in_token_order():
    tokens = np.array([[5, 7], [5, 8], [6, 9], [5, 3]])  # root 0 | 1: 5, 2: 6 | 3: 53, 4: 57, 5: 58, 6: 69
    tables = build_trie(tokens).on("cpu")
    row, child = tables.expand(torch.tensor([2, 0, 6, 1]))  # node 6 is a leaf
    assert row.tolist() == [0, 1, 1, 3, 3, 3]
    assert child.tolist() == [6, 1, 2, 3, 4, 5]
    assert tables.num_children(torch.tensor([[2, 0], [6, 1]])).tolist() == [[1, 2], [0, 3]]
    row, child = tables.expand(torch.tensor([1, 0]), torch.tensor([0, 2]))
    assert row.tolist() == [1, 1] and child.tolist() == [1, 2]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_prefix_and_no_other_is_in_the_tree(data):
    levels, domains = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    item = st.tuples(st.integers(0, domains - 1), *[st.integers(0, 3)] * levels)
    items = data.draw(st.lists(item, min_size=1, max_size=30))
    table = np.array(items)
    trie = build_trie(table[:, 1:], table[:, 0], [f"d{i}" for i in range(domains)])

    children: dict[tuple, set[int]] = {(root,): set() for root in range(domains)}
    for path in items:
        for depth in range(1, levels + 1):
            children.setdefault(path[:depth], set()).add(path[depth])
    tables = trie.on("cpu")
    for path, expected in children.items():
        node = trie.find(path[0], path[1:])
        _, child = tables.expand(torch.tensor([node]))
        assert tables.token[child].tolist() == sorted(expected)
    assert trie.num_nodes == len(children) + len(set(items))
    for index, path in enumerate(items):
        leaf = trie.find(path[0], path[1:])
        assert trie.item_leaf[index] == leaf
        assert trie.items_at(leaf).tolist() == [i for i, other in enumerate(items) if other == path]


def build_reference(tokens, roots, num_roots, priority):
    """The tree's arrays from lists of prefixes, as plain Python lists."""
    paths = [(root, *path) for root, path in zip(roots, tokens, strict=True)]
    levels = len(tokens[0])
    nodes = [(root,) for root in range(num_roots)]
    for depth in range(2, levels + 2):
        nodes += sorted({path[:depth] for path in paths})
    number = {path: i for i, path in enumerate(nodes)}
    children = [sum(other[:-1] == path for other in nodes if len(other) > 1) for path in nodes]
    buckets = [
        sorted((i for i, path in enumerate(paths) if path == leaf), key=lambda i: (-priority[i], i))
        for leaf in nodes
        if len(leaf) == levels + 1
    ]
    return {
        "child_start": [num_roots + sum(children[:i]) for i in range(len(nodes) + 1)],
        "token": [path[-1] if len(path) > 1 else -1 for path in nodes],
        "first_leaf": len(nodes) - len(buckets),
        "leaf_start": [sum(map(len, buckets[:i])) for i in range(len(buckets) + 1)],
        "leaf_items": [i for bucket in buckets for i in bucket],
        "item_leaf": [number[path] for path in paths],
    }


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_arrays_equal_those_of_plain_python(data):
    levels, domains = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 4))
    # Ids up to 2**31 - 1: a key of 63 bits holds two such levels, so up to four keys decide.
    token = st.sampled_from([0, 1, 2, 70_000, 2**31 - 1]) if data.draw(st.booleans()) else st.integers(5, 7)
    item = st.tuples(st.integers(0, domains - 1), st.integers(0, 2), *[token] * levels)
    distinct = data.draw(st.lists(item, min_size=1, max_size=12))
    table = np.array(data.draw(st.lists(st.sampled_from(distinct), min_size=1, max_size=25)))
    roots, priority, tokens = table[:, 0], table[:, 1], table[:, 2:]
    prioritised = data.draw(st.booleans())
    trie = build_trie(tokens, roots, [f"d{i}" for i in range(domains)], priority if prioritised else None)

    expected = build_reference(
        tokens.tolist(), roots.tolist(), domains, priority.tolist() if prioritised else [0] * len(table)
    )
    found = {name: np.asarray(getattr(trie, name)).tolist() for name in expected}
    assert found == expected
    assert trie.level_ranges == tuple(zip(tokens.min(0).tolist(), (tokens.max(0) + 1).tolist(), strict=True))
    assert trie.paths(trie.item_leaf).tolist() == tokens.tolist()
    above = [-1] * domains + [n for n in range(trie.num_nodes) for _ in range(*trie.child_start[n : n + 2].tolist())]
    assert trie.parents(np.arange(trie.num_nodes)).tolist() == above
    first, end = trie.leaf_ranges(np.arange(domains))
    for root in range(domains):
        assert set(range(first[root], end[root])) == set(trie.item_leaf[roots == root].tolist())


def test_ranges_and_begin_tokens_are_kept():
    trie = build_trie(np.array([[3, 9], [4, 7]]))
    assert trie.level_ranges == ((3, 5), (7, 10))
    assert trie.begin_ids.tolist() == [-1]
    trie = build_trie(
        np.array([[3, 9], [4, 7]]), np.array([0, 1]), ("x", "y"), level_ranges=[(0, 5), (5, 10)], begin_ids=[None, 12]
    )
    assert trie.level_ranges == ((0, 5), (5, 10))
    assert trie.begin_ids.tolist() == [-1, 12]
    assert trie.find(0, [3, 9]) == 4  # 0 x, 1 y, 2 x3, 3 y4
    with pytest.raises(CatalogError, match=r"tokens of level 1 must lie in 5 .. 8, got 7 .. 9"):
        build_trie(np.array([[3, 9], [4, 7]]), level_ranges=[(0, 5), (5, 9)])
    with pytest.raises(CatalogError, match="one range for each of 2 levels, got 1"):
        build_trie(np.array([[3, 9]]), level_ranges=[(0, 5)])
    with pytest.raises(CatalogError, match=r"one token id a domain of \['\*'\], got 2"):
        build_trie(np.array([[3, 9]]), begin_ids=[1, 2])
    with pytest.raises(CatalogError, match=r"priority must be one number an item, 1 in all, got shape \(2,\)"):
        build_trie(np.array([[3, 9]]), priority=np.array([1, 2]))


def test_catalog_trie_knows_the_vocabulary():
    layout = ItemicFormat("two", (4, 2), "<{level}{code}>", {"a": Marker("<A>"), "b": Marker("<B>", "</B>")})
    trie = build_catalog_trie(Catalog(layout, ["x"], np.array([[2, 1]]), ["b"]), ItemicVocabulary(layout, 100))
    assert trie.level_ranges == ((100, 104), (104, 106))  # then <A> 106, <B> 107, </B> 108
    assert trie.begin_ids.tolist() == [106, 107]
    assert trie.paths(trie.item_leaf).tolist() == [[102, 105]]
    bare = ItemicFormat("bare", (4,), "<{level}{code}>", {"*": Marker()})
    trie = build_catalog_trie(Catalog(bare, ["x"], np.array([[2]])), ItemicVocabulary(bare, 7))
    assert (trie.level_ranges, trie.begin_ids.tolist()) == (((7, 11),), [-1])


def test_catalog_trie_keeps_domains_apart_and_popular_items_first():
    layout = ItemicFormat("two", (2, 2), "<{level}{code}>", {"a": Marker("<A>"), "b": Marker("<B>")})
    codes = np.array([[0, 1], [0, 1], [0, 1], [1, 1]])
    catalog = Catalog(layout, list("wxyz"), codes, ["a", "b", "b", "a"], popularity=np.array([5, 1, 2, 0]))
    trie = build_catalog_trie(catalog, ItemicVocabulary(layout, 100))
    # Level a: ids 100, 101; level b: 102, 103.
    assert trie.items_at(trie.find(trie.root_of("b"), [100, 103])).tolist() == [2, 1]
    assert trie.items_at(trie.find(trie.root_of("a"), [100, 103])).tolist() == [0]
    assert trie.find(trie.root_of("b"), [101]) is None
    other = build_catalog_trie(catalog, ItemicVocabulary(layout, 100), priority=np.array([0, 3, 2, 0]))
    assert other.items_at(other.find(other.root_of("b"), [100, 103])).tolist() == [1, 2]
    with pytest.raises(FormatError, match="domain 'c' has no items' tree; the format has a, b"):
        trie.root_of("c")


def test_catalog_of_another_format_is_refused():
    one = ItemicFormat("one", (2, 2), "<{level}{code}>", {"*": Marker()})
    two = ItemicFormat("two", (2, 3), "<{level}{code}>", {"*": Marker()})
    with pytest.raises(FormatError, match=r"the catalog uses format 'one' .* the model uses 'two'"):
        build_catalog_trie(Catalog(one, ["x"], np.array([[0, 0]])), ItemicVocabulary(two, 0))


def test_bad_input_is_named():
    with pytest.raises(CatalogError, match=r"needs token ids of shape \[items, levels\], got shape \(0, 3\)"):
        build_trie(np.zeros((0, 3), int))
    with pytest.raises(CatalogError, match=r"token ids must lie in .*, got -1 .. 2"):
        build_trie(np.array([[-1, 2]]))
    with pytest.raises(CatalogError, match=r"roots must be 1 positions in \['\*'\]"):
        build_trie(np.array([[1, 2]]), np.array([1]))


def test_tensors_are_made_once_a_device():
    trie = build_trie(np.array([[1, 2]]))
    assert trie.on("cpu") is trie.on(torch.device("cpu"))


def test_walk_finds_the_leaf_of_every_item_and_no_other():
    rng = np.random.default_rng(3)
    tokens, roots = rng.integers(0, 4, (40, 3)), rng.integers(0, 2, 40)
    trie = build_trie(tokens, roots, ("a", "b"))
    assert trie.walk(roots, tokens).tolist() == trie.item_leaf.tolist()
    everything = np.array(list(itertools.product(range(5), repeat=3)))
    for root in (0, 1):
        expected = [-1 if (node := trie.find(root, path)) is None else node for path in everything.tolist()]
        assert trie.walk(np.full(len(everything), root), everything).tolist() == expected
        assert set(expected) > {-1}
