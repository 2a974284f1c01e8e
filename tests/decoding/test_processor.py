"""The logits processor against a dictionary of prefixes and a scanner that reads text from left to right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessorList

from onereason.decoding.beam import beam_search
from onereason.decoding.processor import TrieLogitsProcessor
from onereason.decoding.stems import left_pad
from onereason.errors import ConfigError
from onereason.itemic.trie import ItemTrie, build_trie
from tests.decoding.reference import VOCAB, make_items, make_model, make_prompts, unique_paths

DOMAINS, BEGIN = ("a", "b", "c"), [92, 89, 95]
ITEMS = make_items(3, 30)
ROOTS = np.arange(30) % 2  # domain c has no item
TRIE = build_trie(ITEMS, ROOTS, DOMAINS, begin_ids=BEGIN)
PATHS = [unique_paths(ITEMS[root == ROOTS]) for root in range(3)]


@pytest.fixture(scope="module")
def model():
    model = make_model()
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, None
    return model


def following(root: int, prefix: tuple[int, ...]) -> set[int]:
    return {path[len(prefix)] for path in PATHS[root] if path[: len(prefix)] == prefix}


def read_admitted(tokens: list[int], levels: int = 3) -> set[int]:
    """What may follow a text, read from left to right: codes inside a pattern, anything but an empty domain outside."""
    root, prefix = None, ()
    for token in tokens:
        if token in BEGIN:
            root, prefix = BEGIN.index(token), ()
        elif root is not None:
            prefix += (token,)
            if len(prefix) == levels:
                root = None
    if root is None:
        return set(range(VOCAB)) - {BEGIN[2]}
    return following(root, prefix)


def check_admitted(processor: TrieLogitsProcessor, rows: list[list[int]], expected: list[set[int]]) -> None:
    """The scores of admitted tokens stand as they were, all others are at -inf."""
    scores = torch.from_numpy(np.random.default_rng(1).normal(size=(len(rows), VOCAB)).astype(np.float32))
    before = scores.clone()
    found = processor(torch.tensor(rows), scores)
    for row, admitted in enumerate(expected):
        kept = torch.tensor([token in admitted for token in range(VOCAB)])
        assert torch.equal(found[row][kept], before[row][kept])
        assert (found[row][~kept] == -torch.inf).all()


# -- one step down the tree -------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.integers(1, 40), st.integers(1, 9), st.integers(1, 6), st.randoms(use_true_random=False))
def test_step_equals_a_dictionary(levels, count, codes, num_roots, random):
    items = np.array([[random.randrange(codes) for _ in range(levels)] for _ in range(count)])  # levels share their ids
    roots = np.array([random.randrange(num_roots) for _ in items])
    trie = build_trie(items, roots, [f"d{root}" for root in range(num_roots)])
    children = {
        (node, int(trie.token[child])): child
        for node in range(trie.num_nodes)
        for child in range(trie.child_start[node], trie.child_start[node + 1])
    }
    queries = [(node, token) for node in range(-1, trie.num_nodes) for token in range(-1, codes + 1)]
    nodes, tokens = torch.tensor(queries).T
    expected = [children.get(query, -1) for query in queries]
    assert trie.on("cpu").step(nodes, tokens).tolist() == expected
    assert trie.on("cpu").step(nodes[:0], tokens[:0]).tolist() == []


# -- an item is asked for ---------------------------------------------------------------------------------------------


def test_items_of_each_prompts_domain_are_admitted():
    # Two prompts of 4 tokens, three rows each, as `generate` lays beams out; a row has so many codes already.
    prompts, roots = [[1, 92, 50, 92], [7, 8, 9, 89]], torch.tensor([0, 1])
    processor = TrieLogitsProcessor(TRIE, prompt_length=4, roots=roots)
    for written in range(3):
        codes = [[path[:written] for path in PATHS[root][::6]][:3] for root in (0, 1)]
        rows = [prompt + list(prefix) for prompt, three in zip(prompts, codes, strict=True) for prefix in three]
        expected = [following(root, prefix) for root in (0, 1) for prefix in codes[root]]
        assert len(rows) == 6 and all(expected)
        check_admitted(processor, rows, expected)
        check_admitted(processor, rows, expected)  # called again, in whatever order: the tokens are the state
        order = [2, 0, 1, 5, 3, 4]
        check_admitted(processor, [rows[i] for i in order], [expected[i] for i in order])


def test_a_row_that_has_left_the_tree_admits_nothing():
    # What `generate` keeps for want of beams: token 0 is no code.
    processor = TrieLogitsProcessor(TRIE, prompt_length=1, roots=torch.tensor([0]))
    check_admitted(processor, [[5, 0], [5, PATHS[0][0][0]]], [set(), following(0, PATHS[0][0][:1])])
    check_admitted(processor, [[5, 0, PATHS[0][0][1]]], [set()])


def test_what_follows_the_item():
    path = list(PATHS[0][0])
    free = TrieLogitsProcessor(TRIE, prompt_length=2, roots=torch.tensor([0]))
    check_admitted(free, [[1, 92, *path]], [set(range(VOCAB))])
    check_admitted(free, [[1, 92, *path, 4, 5]], [set(range(VOCAB))])
    ended = TrieLogitsProcessor(TRIE, prompt_length=2, roots=torch.tensor([0]), end_ids=[60, 3])
    check_admitted(ended, [[1, 92, *path[:2]]], [following(0, tuple(path[:2]))])
    check_admitted(ended, [[1, 92, *path]], [{60, 3}])
    check_admitted(ended, [[1, 92, *path, 60]], [{60, 3}])


def test_one_root_needs_no_roots():
    trie = build_trie(ITEMS)
    processor = TrieLogitsProcessor(trie, prompt_length=3)
    first = {int(token) for token in ITEMS[:, 0]}
    check_admitted(processor, [[1, 2, 3], [4, 5, 6]], [first, first])


@pytest.mark.parametrize("kind", ["beams", "sampling"])
def test_generate_with_end_tokens(model, kind):
    # Items of several domains, then one of two end tokens, which stops the turn.
    prompts = [[*p, begin] for p, begin in zip(make_prompts([4, 8]), (92, 89), strict=True)]
    input_ids, mask = left_pad(prompts)
    processor = TrieLogitsProcessor(TRIE, prompt_length=9, roots=torch.tensor([0, 1]), end_ids=[2, 3])
    how = {"num_beams": 4} if kind == "beams" else {"do_sample": True, "top_k": 2, "temperature": 2.0}
    torch.manual_seed(0)
    out = model.generate(
        input_ids,
        attention_mask=mask,
        max_new_tokens=8,
        num_return_sequences=4,
        eos_token_id=[2, 3],
        logits_processor=LogitsProcessorList([processor]),
        **{"do_sample": False} | how,
    )
    answers = out[:, 9:].view(2, 4, -1)
    assert answers.shape[2] == 4
    for root in range(2):
        assert {tuple(row[:3]) for row in answers[root].tolist()} <= set(PATHS[root])
    assert set(answers[..., 3].flatten().tolist()) <= {2, 3}


def test_beams_of_a_small_domain(model):
    # More beams than sids: every sid is found once, as by `beam_search`, before the beams that hold nothing.
    trie = build_trie(ITEMS[:4], np.array([0, 1, 1, 0]), ("a", "b"), begin_ids=BEGIN[:2])
    input_ids, mask = left_pad(make_prompts([5, 5]))
    processor = TrieLogitsProcessor(trie, prompt_length=5, roots=torch.tensor([1, 0]))
    out = model.generate(
        input_ids,
        attention_mask=mask,
        max_new_tokens=3,
        num_beams=2,
        num_return_sequences=2,
        do_sample=False,
        logits_processor=LogitsProcessorList([processor]),
    )
    result = beam_search(model, trie, torch.tensor([1, 0]), input_ids, mask, 2)
    assert out[:, 5:].view(2, 2, 3).tolist() == result.sequences.tolist()


# -- text and items ---------------------------------------------------------------------------------------------------

token = st.sampled_from([1, 2, *BEGIN, *{t for path in PATHS[0][:4] + PATHS[1][:4] for t in path}])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.data())
def test_text_is_free_and_patterns_are_items(width, data):
    rows = data.draw(st.lists(st.lists(token, min_size=width, max_size=width), min_size=1, max_size=4))
    check_admitted(TrieLogitsProcessor(TRIE), rows, [read_admitted(row) for row in rows])


def test_patterns_by_hand():
    path = PATHS[1][0]
    rows = [
        [1, 1, 1, 1, 1],  # text
        [1, 1, 1, 1, 89],  # a pattern of domain b opens
        [1, 1, 1, 89, path[0]],
        [1, 1, 89, *path[:2]],
        [1, 89, *path],  # the pattern is whole: text
        [89, *path, 1],
        [1, 92, path[0], 1, 89],  # the newest begin token counts
    ]
    text = set(range(VOCAB)) - {95}  # nothing of domain c could follow its begin token
    first = following(1, ())
    expected = [text, first, following(1, path[:1]), following(1, path[:2]), text, text, first]
    check_admitted(TrieLogitsProcessor(TRIE), rows, expected)


def test_sampled_text_holds_items_of_the_catalog_only(model):
    input_ids, mask = left_pad(make_prompts([3, 6, 1]))
    torch.manual_seed(0)
    out = model.generate(
        input_ids,
        attention_mask=mask,
        max_new_tokens=40,
        num_return_sequences=16,
        do_sample=True,
        temperature=6.0,
        top_k=60,
        logits_processor=LogitsProcessorList([TrieLogitsProcessor(TRIE)]),
    )
    patterns = 0
    for row in out[:, 6:].tolist():
        for at, token in enumerate(row):
            if token in BEGIN:
                root, codes = BEGIN.index(token), tuple(row[at + 1 : at + 4])
                assert any(path[: len(codes)] == codes for path in PATHS[root])
                patterns += 1
    assert patterns > 10 and any(token < 40 for token in out[:, 6:].flatten().tolist())


# -- requests that mean nothing ---------------------------------------------------------------------------------------


def test_what_cannot_be_is_named():
    with pytest.raises(ConfigError, match=r"the trie has 3 roots \(a, b, c\); give roots"):
        TrieLogitsProcessor(TRIE, prompt_length=3)
    for more in ({"roots": torch.tensor([0])}, {"end_ids": [1]}):
        with pytest.raises(ConfigError, match="roots and end_ids belong to prompt_length"):
            TrieLogitsProcessor(TRIE, **more)
    bare: ItemTrie = build_trie(ITEMS)
    with pytest.raises(ConfigError, match="without begin tokens, items cannot be told from text; give prompt_length"):
        TrieLogitsProcessor(bare)


def test_roots_and_prompts_that_do_not_fit_are_refused():
    trie = build_trie(np.array([[40, 50], [41, 51]]), np.array([0, 1]), ("a", "b"), begin_ids=[1, 2])
    with pytest.raises(ConfigError, match=r"positions of the trie's 2 domains \(a, b\), got \[7\]"):
        TrieLogitsProcessor(trie, prompt_length=2, roots=torch.tensor([7]))
    two = TrieLogitsProcessor(trie, prompt_length=2, roots=torch.tensor([0, 1]))
    with pytest.raises(ConfigError, match="1 rows cannot be shared among 2 roots"):
        two(torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 60))
    with pytest.raises(ConfigError, match=r"prompt_length \(2\) exceeds the 1 tokens"):
        two(torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, 60))
