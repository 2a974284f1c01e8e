"""Random formats, catalogs, prompts and filters: what a search may never do, and what it must always find."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from onereason.decoding import beam
from onereason.decoding.beam import BeamResult, beam_search, search_stems
from onereason.decoding.stems import left_pad, prefill
from onereason.errors import ConfigError
from onereason.itemic.catalog import Catalog
from onereason.itemic.filters import NodeFilter, build_filter, build_shared_filter
from onereason.itemic.format import ANY_DOMAIN, ItemicFormat, Marker
from onereason.itemic.trie import ItemTrie, build_catalog_trie
from onereason.itemic.vocabulary import ItemicVocabulary
from tests.decoding.reference import make_model

FIRST_TOKEN = 20
SIZES = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
# float64: what differs between two batches is rounding, and rounding must not decide which beam comes first.
MODEL = make_model(3, **SIZES, num_attention_heads=2, num_key_value_heads=1).double()
FLAT = make_model(3, **SIZES, num_attention_heads=2, num_key_value_heads=1)
with torch.no_grad():
    FLAT.model.embed_tokens.weight.zero_()  # every token has the same logit, at every step

Sid = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A catalog and a batch of requests, with what each may get worked out from sets of items.

    Attributes:
        roots: `[B]`, or `[B, R]` where the model chooses.
        sids: for each request, `(root, code tokens)` of what it may get.
        refused: the first request that may get nothing, where there is a filter.
    """

    trie: ItemTrie
    prompts: list[list[int]]
    roots: list
    num_beams: int
    node_filter: NodeFilter | None
    sids: list[set[tuple[int, Sid]]]
    permitted: list[set[int]]
    refused: int | None


@st.composite
def formats(draw) -> ItemicFormat:
    sizes = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=8)))
    names = draw(st.sampled_from([[ANY_DOMAIN], ["video"], ["video", "prod"], ["video", "prod", "ad"]]))
    begin = names != [ANY_DOMAIN] or draw(st.booleans())
    end = draw(st.booleans())
    domains = {name: Marker(f"<{name}>" if begin else None, f"</{name}>" if end else None) for name in names}
    return ItemicFormat("f", sizes, "<s_{level}_{code}>", domains, markers_first=draw(st.booleans()))


@st.composite
def cases(draw) -> Case:
    format = draw(formats())
    names = list(format.domains)
    num_items = draw(st.integers(1, 14))
    code = [st.integers(0, size - 1) for size in format.codes_per_level]
    codes = np.array(draw(st.lists(st.tuples(*code), min_size=num_items, max_size=num_items)))
    position = draw(st.lists(st.integers(0, len(names) - 1), min_size=num_items, max_size=num_items))
    catalog = Catalog(format, [str(i) for i in range(num_items)], codes, [names[p] for p in position])
    vocabulary = ItemicVocabulary(format, FIRST_TOKEN)
    trie = build_catalog_trie(catalog, vocabulary)

    batch = draw(st.integers(1, 4))
    token = st.integers(1, FIRST_TOKEN - 1)
    prompts = draw(st.lists(st.lists(token, min_size=1, max_size=6), min_size=batch, max_size=batch))
    root = st.integers(0, len(names) - 1)
    if format.has_begin and draw(st.booleans()):
        options = st.lists(root, unique=True, min_size=1, max_size=len(names))
        rows = draw(st.lists(options, min_size=batch, max_size=batch))
        roots = [row + [-1] * (len(names) - len(row)) for row in rows]
    else:
        roots = draw(st.lists(root, min_size=batch, max_size=batch))
        rows = [[r] for r in roots]

    few = st.lists(st.integers(0, num_items - 1), max_size=num_items // 2)  # empty, and with repetitions
    many = st.lists(st.integers(0, num_items - 1), max_size=2 * num_items)
    denied, opened = (st.lists(st.none() | some, min_size=batch, max_size=batch) for some in (few, many))
    everything = set(range(num_items))
    permitted, node_filter = [everything] * batch, None
    kind = draw(st.sampled_from(["both", "deny", "allow", "none"]))
    if kind != "none":
        deny = draw(denied) if kind != "allow" else None
        allow = draw(opened) if kind != "deny" else None
        shared, stock = None, everything
        if draw(st.booleans()):
            out, only = draw(st.none() | few), draw(st.none() | many)
            shared = build_shared_filter(trie, deny=out, allow=only)
            stock = (everything if only is None else set(only)) - set(out or [])
        node_filter = build_filter(trie, deny, allow, shared)
        allowed = [everything if row is None else set(row) for row in allow or [None] * batch]
        permitted = [stock & a - set(d or []) for a, d in zip(allowed, deny or [None] * batch, strict=True)]
    sid = vocabulary.code_ids(codes)
    sids = [
        {(position[i], tuple(sid[i].tolist())) for i in may if position[i] in row}
        for may, row in zip(permitted, rows, strict=True)
    ]
    refused = next((b for b, found in enumerate(sids) if not found), None) if node_filter is not None else None
    return Case(trie, prompts, roots, draw(st.integers(1, 16)), node_filter, sids, permitted, refused)


def search(case: Case, model, restricted: bool = False, num_beams: int | None = None) -> BeamResult:
    request = (torch.tensor(case.roots), *left_pad(case.prompts), num_beams or case.num_beams)
    return beam_search(model, case.trie, *request, node_filter=case.node_filter, restricted=restricted)


def found_sids(case: Case, result: BeamResult, row: int) -> list[tuple[int, Sid]]:
    """`(root, code tokens)` of the beams of a row, the roots read from the leaves."""
    leaves = result.leaves[row][result.valid[row]].numpy()
    tokens = [tuple(path) for path in result.sequences[row][result.valid[row]].tolist()]
    assert case.trie.paths(leaves).tolist() == [list(path) for path in tokens]
    nodes = leaves
    for _ in range(case.trie.num_levels):
        nodes = case.trie.parents(nodes)
    return list(zip(nodes.tolist(), tokens, strict=True))


def check_lawful(case: Case, result: BeamResult) -> None:
    """Items that exist and may be had, each once, as many as there are, the best first."""
    for row, sids in enumerate(case.sids):
        found = found_sids(case, result, row)
        assert set(found) <= sids
        assert len(set(found)) == len(found) == min(case.num_beams, len(sids))
        for leaf in result.leaves[row][result.valid[row]].tolist():
            assert set(case.trie.items_at(leaf).tolist()) & case.permitted[row]
        assert result.valid[row].tolist() == [k < len(found) for k in range(case.num_beams)]
        scores = result.scores[row].tolist()
        assert scores == sorted(scores, reverse=True)
        assert np.isfinite(scores[: len(found)]).all() and set(scores[len(found) :]) <= {-np.inf}
        assert (result.sequences[row, len(found) :] == -1).all() and (result.leaves[row, len(found) :] == -1).all()


FUZZ = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=False
)


@torch.no_grad()
def brute_force(case: Case, row: int, restricted: bool) -> dict[tuple[int, Sid], float]:
    """The score of everything a request may get, teacher-forced in one plain batch without padding."""
    sids = sorted(case.sids[row])
    chosen = isinstance(case.roots[row], list)
    rows = [[int(case.trie.begin_ids[root])] * chosen + list(path) for root, path in sids]
    prompt = case.prompts[row]
    logits = MODEL(torch.tensor([prompt + tokens for tokens in rows])).logits[:, len(prompt) - 1 : -1]
    total = torch.zeros(len(rows), dtype=torch.double)
    for step in range(len(rows[0])):
        low, high = case.trie.level_ranges[step - chosen] if restricted and step >= chosen else (0, logits.shape[-1])
        token = torch.tensor([tokens[step] for tokens in rows])
        total += logits[:, step].gather(1, token[:, None])[:, 0] - logits[:, step, low:high].logsumexp(-1)
    return dict(zip(sids, total.tolist(), strict=True))


@FUZZ
@given(cases(), st.booleans())
def test_searches_are_lawful_and_find_the_best(case, restricted):
    event(f"filter: {case.node_filter is not None}, refused: {case.refused is not None}")
    if case.refused is not None:
        with pytest.raises(ConfigError, match=f"request {case.refused} has nothing to choose from"):
            search(case, MODEL, restricted)
        return
    result = search(case, MODEL, restricted)
    check_lawful(case, result)
    again = search(case, MODEL, restricted)
    assert torch.equal(result.leaves, again.leaves) and torch.equal(result.scores, again.scores)
    every = search(case, MODEL, restricted, num_beams=20)
    for row, sids in enumerate(case.sids):
        if sids:
            expected = brute_force(case, row, restricted)
            ranking = found_sids(case, every, row)
            assert ranking == sorted(sids, key=lambda sid: -expected[sid])
            np.testing.assert_allclose(every.scores[row, : len(sids)], [expected[s] for s in ranking], rtol=1e-5)
            narrow = found_sids(case, result, row)
            np.testing.assert_allclose(result.scores[row, : len(narrow)], [expected[s] for s in narrow], rtol=1e-5)


@FUZZ
@given(cases(), st.randoms(use_true_random=False))
def test_a_prompt_gets_the_same_in_any_batch(case, random):
    if case.refused is not None:
        return
    result = search(case, MODEL)
    order = list(range(len(case.prompts)))
    random.shuffle(order)
    for row in range(len(order)):
        alone = _part(case, [row])
        same = search(alone, MODEL)
        assert torch.equal(same.leaves[0], result.leaves[row])
        assert torch.equal(same.sequences[0], result.sequences[row])
        torch.testing.assert_close(same.scores[0], result.scores[row], rtol=1e-5, atol=0)
    shuffled = search(_part(case, order), MODEL)
    assert torch.equal(shuffled.leaves, result.leaves[order])


def _part(case: Case, rows: list[int]) -> Case:
    """The requests `rows` of a case; their filter is made anew from the items it permits."""
    node_filter = None
    if case.node_filter is not None:
        node_filter = build_filter(case.trie, allow=[sorted(case.permitted[row]) for row in rows])
    return Case(
        case.trie,
        [case.prompts[row] for row in rows],
        [case.roots[row] for row in rows],
        case.num_beams,
        node_filter,
        [case.sids[row] for row in rows],
        [case.permitted[row] for row in rows],
        None,
    )


@FUZZ
@given(cases(), st.booleans())
def test_ties_go_to_the_lower_tokens(case, restricted):
    """Where every token is as likely as any other, the first sids in the order of their tokens win."""
    if case.refused is not None:
        return
    result = search(case, FLAT, restricted)
    check_lawful(case, result)
    for row, sids in enumerate(case.sids):
        asked = case.roots[row]
        order = asked if isinstance(asked, list) else [asked]  # roots that are chosen among tie in the order asked
        expected = sorted(sids, key=lambda sid: (order.index(sid[0]), sid[1]))[: case.num_beams]
        assert found_sids(case, result, row) == expected


@FUZZ
@given(cases(), st.integers(1, 3))
def test_groups_of_stems_do_not_change_the_result(case, num_stems):
    if case.refused is not None:
        return
    request = (case.trie, torch.tensor(case.roots))
    stems = prefill(MODEL, *left_pad(case.prompts)).fork(num_stems)
    texts = torch.arange(1, num_stems + 1).expand(len(case.prompts), -1)[..., None]  # a token of its own to each
    stems = stems.append(texts)
    whole = search_stems(MODEL, *request, stems, case.num_beams, node_filter=case.node_filter)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beam, "LOGITS_BUDGET", 1)  # one stem at a time
        single = search_stems(MODEL, *request, stems, case.num_beams, node_filter=case.node_filter)
    assert torch.equal(whole.leaves, single.leaves)
    torch.testing.assert_close(whole.scores, single.scores, rtol=1e-5, atol=0)
    for stem in range(num_stems):
        longer = [[*prompt, stem + 1] for prompt in case.prompts]
        plain = beam_search(MODEL, *request, *left_pad(longer), case.num_beams, node_filter=case.node_filter)
        assert torch.equal(whole.leaves[stem::num_stems], plain.leaves)


def test_an_empty_deny_list_denies_nothing():
    format = ItemicFormat("f", (3, 3), "<s_{level}_{code}>", {ANY_DOMAIN: Marker()})
    catalog = Catalog(format, ["a", "b", "c"], np.array([[0, 1], [2, 2], [0, 1]]))
    trie = build_catalog_trie(catalog, ItemicVocabulary(format, FIRST_TOKEN))
    request = (trie, torch.tensor([0, 0]), *left_pad([[1, 2], [3]]), 4)
    plain = beam_search(MODEL, *request)
    empty = beam_search(MODEL, *request, node_filter=build_filter(trie, deny=[[], None]))
    assert torch.equal(plain.leaves, empty.leaves) and torch.equal(plain.scores, empty.scores)
    one = beam_search(MODEL, *request, node_filter=build_filter(trie, deny=[[0], [0, 2]]))
    assert one.valid.sum(1).tolist() == [2, 1]  # item c keeps the sid that it shares with item a
    with pytest.raises(ConfigError, match=r"request 1 has nothing .* none passes its deny list"):
        beam_search(MODEL, *request, node_filter=build_filter(trie, deny=[[], [0, 1, 2]]))
    with pytest.raises(ConfigError, match=r"request 0 has nothing .* none passes its allow list"):
        beam_search(MODEL, *request, node_filter=build_filter(trie, allow=[[], None]))
