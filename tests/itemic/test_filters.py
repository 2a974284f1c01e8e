"""Allow and deny lists: by hand, and against sets of items on random tries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.errors import CatalogError, ConfigError
from onereason.itemic.filters import LAST_KEY, build_filter, build_shared_filter
from onereason.itemic.trie import build_trie

# 0 root | 1: 5, 2: 6 | 3: 57 (items 0, 3), 4: 58 (item 1), 5: 69 (item 2)
TOKENS = np.array([[5, 7], [5, 8], [6, 9], [5, 7]])


def permitted_nodes(filter, request: int) -> list[int]:
    nodes = torch.arange(filter.trie.num_nodes)
    return nodes[filter.on("cpu").permitted(torch.full_like(nodes, request), nodes)].tolist()


def permitted_items(filter, request: int) -> list[int]:
    items = np.arange(filter.trie.num_items)
    return items[filter.permitted_items(np.full_like(items, request), items)].tolist()


def test_a_sid_closes_when_all_its_items_are_denied():
    trie = build_trie(TOKENS)
    filter = build_filter(trie, deny=[[0], [3, 0, 3], [0, 1, 3], None, np.array([2, 0, 3, 1])])
    assert permitted_nodes(filter, 0) == [0, 1, 2, 3, 4, 5]  # item 3 is left under node 3
    assert permitted_items(filter, 0) == [1, 2, 3]
    assert permitted_nodes(filter, 1) == [0, 1, 2, 4, 5]
    assert permitted_nodes(filter, 2) == [0, 2, 5]
    assert permitted_nodes(filter, 3) == [0, 1, 2, 3, 4, 5]
    assert permitted_nodes(filter, 4) == []
    assert [filter.num_allowed(0, request) for request in range(5)] == [3, 2, 1, 3, 0]
    # Closed: node 3 of request 1; 1, 3, 4 of request 2; all 6 of request 4.
    expected = [6 * 1 + 3, *(6 * 2 + node for node in (1, 3, 4)), *(6 * 4 + node for node in range(6))]
    assert filter.node_keys.tolist() == [*expected, LAST_KEY]


def test_an_allow_list_opens_only_what_it_names():
    filter = build_filter(build_trie(TOKENS), deny=[None, [0], [1], None], allow=[[0], [0, 2], [1], []])
    assert permitted_nodes(filter, 0) == [0, 1, 3]
    assert permitted_items(filter, 0) == [0]
    assert permitted_nodes(filter, 1) == [0, 2, 5]
    assert permitted_nodes(filter, 2) == permitted_nodes(filter, 3) == []
    assert filter.count_allowed([0, 0, 0, 0]).tolist() == [1, 1, 0, 0]
    assert filter.num_allow.tolist() == [1, 2, 1, 0]
    assert filter.num_deny.tolist() == [-1, 1, 1, -1]


def test_shared_and_own_lists_close_a_node_together():
    trie = build_trie(TOKENS)
    shared = build_shared_filter(trie, deny=[1, 0])
    assert shared.open_counts.tolist() == [2, 1, 1, 1, 0, 1]
    assert shared.open_leaves.tolist() == [2]
    filter = build_filter(trie, deny=[None, [3], [1], [3, 2]], shared=shared)
    assert permitted_nodes(filter, 0) == [0, 1, 2, 3, 5]
    assert permitted_nodes(filter, 1) == [0, 2, 5]  # node 4 closed for all, node 3 for this request: so is node 1
    assert permitted_nodes(filter, 2) == [0, 1, 2, 3, 5]  # item 1 is closed already and not counted twice
    assert permitted_nodes(filter, 3) == []
    assert permitted_items(filter, 0) == [2, 3]
    assert filter.count_allowed([0] * 4).tolist() == [2, 1, 2, 0]
    allowed = build_filter(trie, allow=[[0, 1, 3]], shared=shared)
    assert permitted_nodes(allowed, 0) == [0, 1, 3]
    assert permitted_items(allowed, 0) == [3]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_filters_equal_sets_of_items(data):
    levels, domains = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    row = st.tuples(st.integers(0, domains - 1), *[st.integers(0, 2)] * levels)
    table = np.array(data.draw(st.lists(row, min_size=1, max_size=14)))
    trie = build_trie(table[:, 1:], table[:, 0], [f"d{i}" for i in range(domains)])
    everything = range(trie.num_items)
    indices = st.lists(st.sampled_from(everything), max_size=2 * trie.num_items)
    wish = st.none() | indices | st.just(list(everything))
    lists = data.draw(st.lists(st.tuples(wish, wish), min_size=1, max_size=4))
    shared_lists = data.draw(st.none() | st.tuples(wish, wish))
    shared = None
    if shared_lists is not None:
        shared = build_shared_filter(trie, deny=shared_lists[0], allow=shared_lists[1])
    deny, allow = [list(column) for column in zip(*lists, strict=True)]
    filter = build_filter(trie, deny, allow, shared)
    assert len(filter) == len(lists)

    for request, own in enumerate(lists):
        left = set(everything)
        for denied, allowed in [own, shared_lists or (None, None)]:
            left -= set(denied or [])
            left &= set(everything if allowed is None else allowed)
        leaves = {int(trie.item_leaf[item]) for item in left}
        paths = [(int(table[item, 0]), table[item, 1:].tolist()) for item in left]
        nodes = {trie.find(root, path[:depth]) for root, path in paths for depth in range(levels + 1)}
        assert permitted_items(filter, request) == sorted(left)
        empty = set(range(domains)) - set(table[:, 0].tolist())
        assert [node for node in permitted_nodes(filter, request) if node not in empty] == sorted(nodes)
        for root in range(domains):
            first, end = trie.leaf_ranges(root)
            count = sum(first <= leaf < end for leaf in leaves)
            assert filter.num_allowed(root, request) == count
            if len(lists) == 1:
                assert filter.count_allowed([root]).tolist() == [count]
    roots = [data.draw(st.integers(0, domains - 1)) for _ in lists]
    counts = [filter.num_allowed(root, request) for request, root in enumerate(roots)]
    assert filter.count_allowed(roots).tolist() == counts
    if min(counts) > 0:
        filter.require_not_empty(roots)
    else:
        with pytest.raises(ConfigError, match=f"^request {counts.index(0)} has nothing to choose from"):
            filter.require_not_empty(roots)


def test_a_request_costs_what_its_lists_hold():
    tokens = np.random.default_rng(0).integers(0, 64, (20_000, 3))
    trie = build_trie(tokens)
    filter = build_filter(trie, deny=[[5], None], allow=[None, [5, 6]])
    # At most a closed leaf and what is above it; at most two permitted paths of 4 nodes that meet at the root.
    assert len(filter.node_keys) <= 4 + (2 * 3 + 1) + 1
    assert filter.item_keys.tolist() == [5, 20_000 + 5, 20_000 + 6, LAST_KEY]
    assert filter.shared is None and filter.on("cpu").open_nodes is None


def test_tensors_are_made_once_a_device():
    trie = build_trie(TOKENS)
    shared = build_shared_filter(trie, allow=[2])
    first, second = (build_filter(trie, deny=[[0]], shared=shared) for _ in range(2))
    assert first.on("cpu") is first.on(torch.device("cpu"))
    assert first.on("cpu").open_nodes is second.on("cpu").open_nodes is shared.on("cpu")
    assert shared.on("cpu").tolist() == [True, False, True, False, False, True]


def test_nothing_left_names_the_request_and_its_lists():
    trie = build_trie(TOKENS, np.array([0, 0, 2, 0]), ("x", "y", "z"))
    shared = build_shared_filter(trie, deny=[1])
    filter = build_filter(trie, deny=[None, [0, 3], None], allow=[None, None, [2]], shared=shared)
    filter.require_not_empty([0, 2, 2])
    with pytest.raises(
        ConfigError,
        match=r"^request 1 has nothing to choose from: of the 3 items of domain 'x', none passes its deny list "
        r"\(2 item\(s\)\) and the shared filter \(1 of 2 sids open\); permit at least one of them or ask for another",
    ):
        filter.require_not_empty([0, 0, 2])
    with pytest.raises(ConfigError, match=r"request 2 .* none passes its allow list \(1 item\(s\)\) and the shared"):
        filter.require_not_empty([0, 2, 0])
    with pytest.raises(
        ConfigError, match=r"request 0 .*: the catalog has no item of domain 'y'; ask for a domain that"
    ):
        filter.require_not_empty([1, 2, 2])
    with pytest.raises(ConfigError, match=r"one root a request, 3 in all, got shape \(2,\)"):
        filter.require_not_empty([0, 0])


def test_bad_lists_are_named():
    trie = build_trie(TOKENS)
    with pytest.raises(CatalogError, match=r"deny list of request 1 holds item index 4, the catalog has 0 .. 3"):
        build_filter(trie, deny=[[1], [2, 4]])
    with pytest.raises(CatalogError, match=r"allow list of request 0 holds item index -1"):
        build_filter(trie, allow=[[-1]])
    with pytest.raises(CatalogError, match=r"shared allow list must be item indices, got bool of shape \(4,\)"):
        build_shared_filter(trie, allow=np.ones(4, bool))
    with pytest.raises(CatalogError, match="shared deny list holds item index 9"):
        build_shared_filter(trie, deny=[9])
    with pytest.raises(ConfigError, match="deny has 2 lists and allow 1"):
        build_filter(trie, deny=[[1], None], allow=[None])
    with pytest.raises(ConfigError, match="a filter needs deny or allow"):
        build_filter(trie)
    with pytest.raises(ConfigError, match="built for another trie"):
        build_filter(trie, deny=[None], shared=build_shared_filter(build_trie(TOKENS)))
