"""Beam search against `generate` and brute force; its restricted scores against a normalisation by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LogitsProcessorList

from onereason.decoding import beam
from onereason.decoding.beam import BeamResult, beam_search
from onereason.decoding.processor import TrieLogitsProcessor
from onereason.decoding.stems import left_pad
from onereason.errors import ConfigError, ModelError
from onereason.itemic.filters import build_filter
from onereason.itemic.trie import ItemTrie, build_trie
from tests.decoding.reference import (
    VOCAB,
    check_row,
    make_items,
    make_model,
    make_prompts,
    teacher_forced,
    unique_paths,
    with_lora,
)

DOMAINS = ("a", "b", "c")
BEGIN = [92, 89, 95]
"""Begin tokens, behind the codes of 8 levels (40 .. 87), not in the order of the domains."""


def following(paths: list[tuple[int, ...]]) -> Callable[[tuple[int, ...]], list[int]]:
    """A dictionary of prefixes; token 0 where a beam that `generate` keeps for want of others stands on no path."""
    table: dict[tuple[int, ...], set[int]] = {}
    for path in paths:
        for depth, token in enumerate(path):
            table.setdefault(path[:depth], set()).add(token)
    return lambda prefix: sorted(table.get(prefix, [0]))


def run_generate(model, prompts, num_beams: int, new_tokens: int, **how) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences `[B, K, S]` and summed log-probabilities `[B, K]` of plain beam search."""
    input_ids, mask = left_pad(prompts)
    # `generate` stops at an end token and divides by the length; neither has a meaning here.
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, None
    out = model.generate(
        input_ids,
        attention_mask=mask,
        max_new_tokens=new_tokens,
        num_beams=num_beams,
        num_return_sequences=num_beams,
        do_sample=False,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
        **how,
    )
    sequences = out.sequences[:, input_ids.shape[1] :].view(len(prompts), num_beams, new_tokens)
    return sequences, out.sequences_scores.view(len(prompts), num_beams)


def check_equal(result: BeamResult, sequences: torch.Tensor, scores: torch.Tensor) -> None:
    assert result.valid.all()
    assert sequences.tolist() == result.sequences.tolist()
    np.testing.assert_allclose(result.scores, scores, rtol=1e-4)


SHAPES = [
    # levels, items, beams, prompt lengths, tied
    (3, 40, 5, [6, 6], True),
    (3, 80, 16, [3, 11, 7], False),
    (4, 60, 7, [9, 2, 5, 5], True),
    (4, 30, 2, [8], False),
    (8, 40, 6, [1, 12], True),
    (8, 50, 9, [10, 4, 10], False),
]


@pytest.mark.parametrize("way", ["prefix function", "processor"])
@pytest.mark.parametrize(("levels", "count", "num_beams", "lengths", "tied"), SHAPES)
def test_equals_generate(levels, count, num_beams, lengths, tied, way):
    model = make_model(levels + num_beams, tie_word_embeddings=tied)
    items = make_items(levels, count, seed=levels)
    trie, paths = build_trie(items), unique_paths(items)
    prompts = make_prompts(lengths, seed=levels)
    width, allowed = max(lengths), following(paths)
    if way == "processor":
        how = {"logits_processor": LogitsProcessorList([TrieLogitsProcessor(trie, prompt_length=width)])}
    else:
        how = {"prefix_allowed_tokens_fn": lambda _, ids: allowed(tuple(ids[width:].tolist()))}
    result = beam_search(model, trie, torch.zeros(len(prompts), dtype=torch.long), *left_pad(prompts), num_beams)
    check_equal(result, *run_generate(model, prompts, num_beams, levels, **how))


def test_one_beam_equals_greedy_generate():
    model, items = make_model(3), make_items(4, 50)
    trie, prompts = build_trie(items), make_prompts([6, 9, 2])
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, None
    input_ids, mask = left_pad(prompts)
    processors = LogitsProcessorList([TrieLogitsProcessor(trie, prompt_length=9)])
    greedy = model.generate(
        input_ids, attention_mask=mask, max_new_tokens=4, do_sample=False, logits_processor=processors
    )
    result = beam_search(model, trie, torch.zeros(3, dtype=torch.long), input_ids, mask, 1)
    assert greedy[:, 9:].tolist() == result.sequences[:, 0].tolist()
    for row, prompt in enumerate(prompts):
        path = tuple(result.sequences[row, 0].tolist())
        np.testing.assert_allclose(result.scores[row, 0], teacher_forced(model, prompt, [path])[path], rtol=1e-4)


def make_domains(levels: int, count: int, seed: int = 0) -> tuple[ItemTrie, dict[int, list[tuple[int, ...]]]]:
    """A tree of three domains with begin tokens, and the paths `(begin, codes)` of each."""
    items = make_items(levels, count, seed)
    roots = np.random.default_rng(seed).integers(0, 3, count)
    paths = {
        root: [(BEGIN[root], *path) for path in unique_paths(items[roots == root])] for root in range(len(DOMAINS))
    }
    return build_trie(items, roots, DOMAINS, begin_ids=BEGIN), paths


@pytest.mark.parametrize("way", ["prefix function", "processor"])
@pytest.mark.parametrize(("levels", "num_beams"), [(3, 6), (8, 4)])
def test_prompts_of_several_domains_equal_generate(levels, num_beams, way):
    model = make_model(levels)
    trie, paths = make_domains(levels, 60, seed=levels)
    asked = [2, 0, 1, 2]
    prompts = [[*p, BEGIN[root]] for p, root in zip(make_prompts([4, 9, 6, 1]), asked, strict=True)]
    width = max(map(len, prompts))
    if way == "processor":
        processor = TrieLogitsProcessor(trie, prompt_length=width, roots=torch.tensor(asked))
        how = {"logits_processor": LogitsProcessorList([processor])}
    else:
        allowed = [following([path[1:] for path in paths[root]]) for root in asked]
        how = {"prefix_allowed_tokens_fn": lambda row, ids: allowed[row](tuple(ids[width:].tolist()))}
    result = beam_search(model, trie, torch.tensor(asked), *left_pad(prompts), num_beams)
    check_equal(result, *run_generate(model, prompts, num_beams, levels, **how))


@pytest.mark.parametrize("way", ["prefix function", "processor"])
@pytest.mark.parametrize(("levels", "num_beams"), [(3, 6), (4, 11)])
def test_a_model_that_chooses_its_domain_equals_generate(levels, num_beams, way):
    """The begin token is one more token of a plain beam search; the processor finds it in the text."""
    model = make_model(levels + 20)
    trie, paths = make_domains(levels, 80, seed=levels)
    every = sorted(path for domain in paths.values() for path in domain)
    prompts = make_prompts([5, 9])
    if way == "processor":
        how = {
            "prefix_allowed_tokens_fn": lambda _, ids: BEGIN if len(ids) == 9 else list(range(VOCAB)),
            "logits_processor": LogitsProcessorList([TrieLogitsProcessor(trie)]),
        }
    else:
        allowed = following(every)
        how = {"prefix_allowed_tokens_fn": lambda _, ids: allowed(tuple(ids[9:].tolist()))}
    sequences, scores = run_generate(model, prompts, num_beams, levels + 1, **how)
    result = beam_search(model, trie, torch.tensor([[0, 1, 2]] * 2), *left_pad(prompts), num_beams)
    check_equal(result, sequences[..., 1:], scores)
    begins = np.array(BEGIN)[(result.leaves[..., None] >= torch.tensor(trie.leaf_ranges([0, 1, 2])[1])).sum(-1)]
    assert begins.tolist() == sequences[..., 0].tolist()


def test_brute_force_where_the_model_chooses_among_roots():
    model = make_model(7)
    trie, paths = make_domains(3, 40)
    prompts, options = make_prompts([5, 9, 1, 3]), [[2, 0, 1], [1, -1, -1], [-1, 0, 2], [0, 1, -1]]
    result = beam_search(model, trie, torch.tensor(options), *left_pad(prompts), 50)
    for row, (prompt, roots) in enumerate(zip(prompts, options, strict=True)):
        ours = [path for root in roots if root >= 0 for path in paths[root]]
        scores = teacher_forced(model, prompt, ours)  # the begin token is scored with the codes
        ranking = sorted(ours, key=lambda path: -scores[path])
        check_row(result, row, [path[1:] for path in ranking], [scores[path] for path in ranking])
        leaves = [trie.find(BEGIN.index(path[0]), path[1:]) for path in ranking]
        assert result.leaves[row, : len(ranking)].tolist() == leaves


def test_filters_close_roots_that_the_model_may_choose():
    model = make_model(7)
    trie, paths = make_domains(3, 40)
    first, end = trie.leaf_ranges([0, 1, 2])

    def items_of(root: int) -> np.ndarray:
        return np.flatnonzero((trie.item_leaf >= first[root]) & (trie.item_leaf < end[root]))

    some = items_of(1)[:2]
    node_filter = build_filter(
        trie, deny=[items_of(0), None, None], allow=[None, np.concatenate([items_of(2), some]), None]
    )
    prompts = make_prompts([5, 9, 1])
    result = beam_search(model, trie, torch.tensor([[0, 1]] * 3), *left_pad(prompts), 40, node_filter=node_filter)
    permitted = [
        paths[1],
        sorted({(BEGIN[1], *trie.paths([trie.item_leaf[item]])[0].tolist()) for item in some}),
        paths[0] + paths[1],
    ]
    for row, (prompt, ours) in enumerate(zip(prompts, permitted, strict=True)):
        scores = teacher_forced(model, prompt, ours)
        ranking = sorted(ours, key=lambda path: -scores[path])
        check_row(result, row, [path[1:] for path in ranking], [scores[path] for path in ranking])


def test_a_filter_that_leaves_nothing_is_refused_before_the_prompts_are_computed():
    model = make_model()
    calls = []
    model.model.register_forward_hook(lambda *_: calls.append(1))
    trie = build_trie(make_items(2, 8), np.arange(8) % 2, ("a", "b"), begin_ids=[89, 95])
    prompts = left_pad(make_prompts([5, 9]))
    nothing = build_filter(trie, deny=[[0, 2, 4], [1, 3, 5, 7]])
    with pytest.raises(ConfigError, match="request 1 has nothing to choose from: of the 4 items of domain 'b'"):
        beam_search(model, trie, torch.tensor([1, 1]), *prompts, 4, node_filter=nothing)
    nothing = build_filter(trie, deny=[[], range(8)])
    with pytest.raises(ConfigError, match="request 1 has nothing to choose from"):
        beam_search(model, trie, torch.tensor([[0, 1], [0, 1]]), *prompts, 4, node_filter=nothing)
    with pytest.raises(ConfigError, match="the filter is for 2 requests, there are 1 prompts"):
        beam_search(model, trie, torch.tensor([0]), *left_pad([[1]]), 4, node_filter=nothing)
    assert not calls
    assert beam_search(model, trie, torch.tensor([1, 0]), *prompts, 4, node_filter=build_filter(trie, deny=[[], [1]]))
    assert len(calls) == 2  # the prompts, and the first level's beams


def test_choosing_among_roots_needs_begin_tokens():
    trie = build_trie(make_items(2, 9), np.arange(9) % 2, ("a", "b"), begin_ids=[89, None])
    with pytest.raises(ConfigError, match="only where each has a begin token"):
        beam_search(make_model(), trie, torch.tensor([[0, 1]]), *left_pad([[1, 2]]), 3)
    assert beam_search(make_model(), trie, torch.tensor([[0, -1]]), *left_pad([[1, 2]]), 3).valid.all()


def test_a_begin_token_the_model_has_no_row_for_is_named():
    trie = build_trie(make_items(2, 9), begin_ids=[VOCAB + 4])
    with pytest.raises(ModelError, match=r"tokens go up to id 100, the model has 96 rows"):
        beam_search(make_model(), trie, torch.tensor([[0]]), *left_pad([[1, 2]]), 3)


def test_no_head_computes_more_logits_than_the_budget(monkeypatch):
    model = make_model()
    trie, _ = make_domains(2, 20)
    sizes: list[int] = []
    model.lm_head.register_forward_hook(lambda _, __, logits: sizes.append(logits.numel() // VOCAB))
    monkeypatch.setattr(beam, "LOGITS_BUDGET", 6 * VOCAB)
    beam_search(model, trie, torch.tensor([[0, 1, 2]] * 8), *left_pad(make_prompts([3] * 8)), 2)
    # 8 prompts: 6 and 2 for the begin token; 3 beams each, two prompts at once; 2 beams each, three at once.
    assert sizes == [6, 2, *[6] * 4, 6, 6, 4]


# -- restricted scores ------------------------------------------------------------------------------------------------


@torch.no_grad()
def restricted_by_hand(model, prompt, paths, ranges) -> dict[tuple[int, ...], float]:
    """Each code normalised over its level's codes alone; tokens before the last `L` over the whole vocabulary."""
    scores = {}
    for path in paths:
        logits = model(torch.tensor([prompt + list(path)])).logits[0].double()
        begin = len(path) - len(ranges)
        total = 0.0
        for position, token in enumerate(path):
            row = logits[len(prompt) - 1 + position]
            low, high = (0, VOCAB) if position < begin else ranges[position - begin]
            total += (row[token] - row[low:high].exp().sum().log()).item()
        scores[path] = total
    return scores


class ScaledHead(torch.nn.Linear):
    """Not a plain linear layer: its rows alone do not give its logits."""

    def forward(self, hidden):
        return super().forward(hidden).tanh() * 5


def replace_head(head: torch.nn.Linear):
    torch.manual_seed(2)
    model = make_model(tie_word_embeddings=False)
    torch.nn.init.normal_(head.weight, std=0.4)
    model.lm_head = head
    return model


HEADS = {
    "tied": lambda: make_model(5),
    "untied": lambda: make_model(5, tie_word_embeddings=False),
    "bias": lambda: replace_head(torch.nn.Linear(32, VOCAB, bias=True)),
    "not linear": lambda: replace_head(ScaledHead(32, VOCAB, bias=False)),
    "lora": lambda: with_lora(make_model(5), "q_proj", "v_proj"),
    "lora on the head": lambda: with_lora(make_model(5, tie_word_embeddings=False), "lm_head", "v_proj"),
    "bfloat16": lambda: make_model(5).to(torch.bfloat16),
}


@pytest.mark.parametrize("head", [name for name in HEADS if name != "bfloat16"])
def test_restricted_scores_are_normalised_over_the_codes_of_a_level(head):
    model, items = HEADS[head](), make_items(3, 30)
    if head == "bias":
        torch.nn.init.normal_(model.lm_head.bias, std=2.0)
    # Ranges wider than the codes that occur: what is normalised over is the level, not the catalog.
    ranges = [(39, 46), (46, 52), (52, 60)]
    trie, paths = build_trie(items, level_ranges=ranges), unique_paths(items)
    prompts = make_prompts([5, 9, 1])
    request = (torch.zeros(3, dtype=torch.long), *left_pad(prompts))
    result = beam_search(model, trie, *request, 40, restricted=True)
    narrow = beam_search(model, trie, *request, 3, restricted=True)
    for row, prompt in enumerate(prompts):
        scores = restricted_by_hand(model, prompt, paths, ranges)
        ranking = sorted(paths, key=lambda path: -scores[path])
        check_row(result, row, ranking, [scores[path] for path in ranking])
        beams: list[tuple[int, ...]] = [()]
        for depth in (1, 2, 3):
            children = sorted({p[:depth] for p in paths if p[: depth - 1] in beams})
            so_far = restricted_by_hand(model, prompt, children, ranges[:depth])
            beams = sorted(children, key=lambda path: -so_far[path])[:3]
        check_row(narrow, row, beams, [so_far[path] for path in beams])


def test_a_complete_catalogue_has_restricted_probability_one():
    # Every code under every prefix is an item, so the restricted probabilities of all items sum to 1.
    items = np.array([[40 + a, 43 + b, 47 + c] for a in range(3) for b in range(4) for c in range(2)])
    result = beam_search(
        make_model(), build_trie(items), torch.zeros(2, dtype=torch.long), *left_pad(make_prompts([4, 7])), 24,
        restricted=True,
    )  # fmt: skip
    torch.testing.assert_close(result.scores.exp().sum(1), torch.ones(2), rtol=1e-5, atol=0)


def test_restricted_choice_among_roots_scores_the_begin_token_over_the_whole_vocabulary():
    model = make_model(7)
    trie, paths = make_domains(3, 40)
    result = beam_search(model, trie, torch.tensor([[0, 1, 2]]), *left_pad(make_prompts([6])), 50, restricted=True)
    every = [path for domain in paths.values() for path in domain]
    scores = restricted_by_hand(model, make_prompts([6])[0], every, trie.level_ranges)
    ranking = sorted(every, key=lambda path: -scores[path])
    check_row(result, 0, [path[1:] for path in ranking], [scores[path] for path in ranking])


class WatchProducts(TorchDispatchMode):
    """Notes the widths of every matrix product's outcome."""

    def __init__(self) -> None:
        super().__init__()
        self.widths: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.linear):
            self.widths.append(out.shape[-1])
        return out


@pytest.mark.parametrize("head", ["tied", "untied", "bias", "lora", "bfloat16"])
def test_restricted_search_computes_the_rows_of_its_level_alone(head):
    model, items = HEADS[head](), make_items(3, 30)
    ranges = [(39, 46), (46, 52), (52, 63)]  # 7, 6 and 11 rows; the model has no other products as narrow, or 96 wide
    trie = build_trie(items, level_ranges=ranges)
    request = (trie, torch.zeros(1, dtype=torch.long), *left_pad(make_prompts([5])), 4)
    with WatchProducts() as watched:
        beam_search(model, *request, restricted=True)
    assert [width for width in watched.widths if width in (6, 7, 11)] == [7, 6, 11]
    assert VOCAB not in watched.widths
    with WatchProducts() as watched:
        beam_search(model, *request)
    assert watched.widths.count(VOCAB) == 3  # the watch sees whole heads where there are some


def test_restricted_bfloat16_search_normalises_in_float32():
    model, items = HEADS["bfloat16"](), make_items(2, 20)
    trie = build_trie(items)
    result = beam_search(
        model, trie, torch.zeros(1, dtype=torch.long), *left_pad(make_prompts([5])), 40, restricted=True
    )
    exact = restricted_by_hand(HEADS["tied"](), make_prompts([5])[0], unique_paths(items), trie.level_ranges)
    assert result.scores.dtype == torch.float32
    found = {tuple(p): s for p, s in zip(result.sequences[0].tolist(), result.scores[0].tolist(), strict=True)}
    assert all(abs(found[path] - score) < 0.3 for path, score in exact.items())  # 8 bits a number, two levels
