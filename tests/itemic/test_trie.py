"""The prefix tree: its arrays by hand, and against a dictionary of prefixes on random catalogs."""

from __future__ import annotations

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
