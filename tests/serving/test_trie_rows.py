"""The mask over a server's batch against a scanner that reads text; a client's beams against the in-process search."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onereason.decoding.beam import beam_search
from onereason.decoding.stems import left_pad
from onereason.errors import ConfigError
from onereason.itemic.filters import build_filter
from onereason.itemic.trie import build_trie
from onereason.serving.trie_rows import check_options, mask_logits, read_request, rest_token
from tests.decoding.reference import VOCAB, make_model, make_prompts
from tests.decoding.test_processor import BEGIN, DOMAINS, ITEMS, ROOTS, TRIE, read_admitted

REST = rest_token(TRIE)


def random_rows(seed: int, number: int) -> list[list[int]]:
    """Texts with items of either domain, whole ones and prefixes, between other tokens."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(number):
        row = rng.integers(0, 8, rng.integers(1, 5)).tolist()
        for item in rng.integers(0, len(ITEMS), rng.integers(1, 3)):
            row += [*rng.integers(0, 8, rng.integers(0, 3)).tolist(), BEGIN[ROOTS[item]], *ITEMS[item].tolist()]
        rows.append(row[: len(row) - int(rng.integers(0, 5))])
    return rows


def test_legal_rows_keep_what_a_reader_of_the_text_admits():
    rows = random_rows(0, 200)
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(len(rows), VOCAB)).astype(np.float32))
    before = logits.clone()
    cuts = np.random.default_rng(2).integers(0, 6, len(rows))  # where prompt ends and output begins plays no part
    requests = {
        place: read_request(TRIE, {}, row[: len(row) - cut], row[len(row) - cut :])
        for place, (row, cut) in enumerate(zip(rows, cuts, strict=True))
        if place % 5  # rows without a request are left alone
    }
    found = mask_logits(logits, requests)
    assert found is logits
    kinds = set()
    for place, row in enumerate(rows):
        admitted = read_admitted(row) if place % 5 else set(range(VOCAB))
        kept = torch.tensor([token in admitted for token in range(VOCAB)])
        assert torch.equal(found[place][kept], before[place][kept]) and (found[place][~kept] == -torch.inf).all()
        kinds.add(len(admitted) > 30)
    assert kinds == {True, False}


@pytest.fixture(scope="module")
def model():
    return make_model()


def search_step_by_step(model, prompts, roots, num_beams, options):
    """As a client searches: each level asks for the likeliest next tokens behind every beam's own prompt."""
    found = []
    for prompt, root, option in zip(prompts, roots, options, strict=True):
        beams = [((), 0.0)]
        for _ in range(TRIE.num_levels):
            grown = []
            for place, (codes, score) in enumerate(beams):
                row = torch.tensor([[*prompt, BEGIN[root], *codes]])
                with torch.no_grad():
                    logits = model(row).logits[:, -1].float()
                request = read_request(TRIE, {"items": "score", **option}, row[0].tolist(), [])
                logprobs = mask_logits(logits, {0: request})[0].log_softmax(-1)
                assert logprobs.exp().sum() == pytest.approx(1, abs=1e-5)
                top = logprobs.topk(num_beams + 1)
                grown += [
                    (-score - value, place, token, (*codes, token), score + value)
                    for value, token in zip(top.values.tolist(), top.indices.tolist(), strict=True)
                    if token != REST and value > -torch.inf
                ]
            beams = [(codes, score) for _, _, _, codes, score in sorted(grown)[:num_beams]]
        found.append(beams)
    return found


def test_a_clients_beams_are_those_of_the_search_in_process(model):
    prompts, roots = make_prompts([3, 5, 4, 2]), [0, 1, 0, 1]
    deny = [None, ITEMS[[1, 3, 5, 7]], None, None]
    allow = [None, None, ITEMS[[0, 2, 4, 6, 8]], ITEMS[[9, 11]]]
    options, lists = [], {"deny": [], "allow": []}
    for root, *given in zip(roots, deny, allow, strict=True):
        option = {}
        for name, codes in zip(lists, given, strict=True):
            lists[name].append(None)
            if codes is not None:
                option[name] = [token for row in codes.tolist() for token in (BEGIN[root], *row)]
                same = (ITEMS[:, None] == codes).all(-1).any(1) & (root == ROOTS)
                lists[name][-1] = np.flatnonzero(same)
        options.append(option)
    rendered = [[*prompt, BEGIN[root]] for prompt, root in zip(prompts, roots, strict=True)]
    ids, mask = left_pad(rendered)
    expected = beam_search(model, TRIE, torch.tensor(roots), ids, mask, 8, node_filter=build_filter(TRIE, **lists))
    found = search_step_by_step(model, prompts, roots, 8, options)
    for number, beams in enumerate(found):
        valid = expected.valid[number]
        assert [list(codes) for codes, _ in beams] == expected.sequences[number][valid].tolist()
        assert [score for _, score in beams] == pytest.approx(expected.scores[number][valid].tolist(), abs=1e-4)
    assert len(found[2]) <= 5 and len(found[3]) <= 2


def test_codes_that_are_no_prefix_leave_the_rest_token_alone():
    foreign = ITEMS[ROOTS == 1][0].tolist()
    for mode in ("legal", "score"):
        logits = mask_logits(
            torch.randn(2, VOCAB),
            {
                0: read_request(TRIE, {"items": mode}, [4, BEGIN[0], 3], []),
                1: read_request(TRIE, {"items": mode, "allow": []}, [BEGIN[1]], foreign[:1]),
            },
        )
        assert torch.equal(logits.argmax(-1), torch.tensor([REST, REST]))
        assert (torch.isfinite(logits).sum(-1) == 1).all()


def test_free_rows_and_requests_that_keep_their_catalog():
    logits = torch.randn(3, VOCAB)
    before = logits.clone()
    other = build_trie(ITEMS[:2], ROOTS[:2], DOMAINS, begin_ids=BEGIN)
    requests = {
        0: read_request(TRIE, {"items": "free"}, [BEGIN[0]], []),
        1: read_request(TRIE, {}, [BEGIN[0]], []),
        2: read_request(other, {}, [BEGIN[0]], []),
    }
    mask_logits(logits, requests)
    assert torch.equal(logits[0], before[0])
    assert set(torch.nonzero(logits[1] > -torch.inf)[:, 0].tolist()) == set(ITEMS[ROOTS == 0][:, 0].tolist())
    assert set(torch.nonzero(logits[2] > -torch.inf)[:, 0].tolist()) == {int(ITEMS[0, 0])}


def test_rows_of_the_head_that_are_no_token():
    logits, unused = torch.zeros(3, VOCAB), torch.tensor([VOCAB - 1])
    requests = {0: read_request(TRIE, {}, [1], []), 1: read_request(TRIE, {"items": "score"}, [BEGIN[0]], [])}
    mask_logits(logits, requests, unused)
    assert (logits[[0, 2], VOCAB - 1] == -torch.inf).all() and torch.isfinite(logits[2, : VOCAB - 1]).all()
    code = int(ITEMS[ROOTS == 0][0, 0])
    assert logits[1].log_softmax(-1)[code] == pytest.approx(-np.log(VOCAB), abs=1e-5)  # counted in where it is scored


def test_formats_without_begin_tokens_say_how_many_codes_stand():
    trie = build_trie(ITEMS)
    logits = torch.randn(3, VOCAB)
    before = logits.clone()
    path = ITEMS[0].tolist()
    mask_logits(
        logits,
        {
            0: read_request(trie, {}, [1, 2, *path[:1]], []),
            1: read_request(trie, {"written": 0}, [1, 2], [*path[:1]]),
            2: read_request(trie, {"written": 1}, [1, 2, *path[:1]], [path[1], path[2], 5]),
        },
    )
    assert torch.equal(logits[0], before[0]) and torch.equal(logits[2], before[2])
    expected = {row[1] for row in ITEMS.tolist() if row[0] == path[0]}
    assert set(torch.nonzero(logits[1] > -torch.inf)[:, 0].tolist()) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"items": "all"}, "items must be legal, score, free, got 'all'"),
        ({"deny": "4"}, "deny must be a list of token ids"),
        ({"allow": [1.5]}, "allow must be a list of token ids"),
        ({"written": -1}, "written must be a number of codes"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ConfigError, match=message):
        check_options(options)
    with pytest.raises(ConfigError, match=message):
        read_request(TRIE, options, [], [])


def test_lists_of_another_width():
    with pytest.raises(ConfigError, match="deny must hold 4 token ids a sid, got 3 in all"):
        read_request(TRIE, {"deny": [1, 2, 3]}, [], [])
