"""A real vLLM server against the model in process: items, order, scores, traces, lists, a catalog that is replaced."""

from __future__ import annotations

import json
import threading
import time

import httpx
import numpy as np
import pytest
import torch

from onereason.cli import main
from onereason.decoding.recommender import load_recommender
from onereason.errors import ConfigError
from onereason.itemic.filters import build_filter, build_shared_filter
from onereason.itemic.trie import build_catalog_trie
from onereason.model.sampling import SamplingConfig
from onereason.serving.remote import connect
from tests.serving.conftest import make_catalog

HISTORIES = [np.array([0, 5, 7]), np.array([3]), np.arange(12), np.array([9, 9, 1])]
ASKED = ["video", "prod", "video", "prod"]


@pytest.fixture(scope="module")
def local(model_dir):
    return load_recommender(model_dir)


@pytest.fixture(scope="module")
def remote(server, model_dir):
    return connect(server.url, model_dir)


def same(found, expected):
    assert torch.equal(found.valid, expected.valid) and torch.equal(found.leaves, expected.leaves)
    assert torch.equal(found.sequences, expected.sequences)
    assert torch.allclose(found.scores, expected.scores, atol=1e-3)
    assert torch.allclose(found.level_logprobs, expected.level_logprobs, atol=1e-3)


def test_items_order_and_scores_are_those_of_the_model_in_process(local, remote):
    prompts = [remote.render(history, domain) for history, domain in zip(HISTORIES, ASKED, strict=True)]
    assert prompts == [local.render(history, domain) for history, domain in zip(HISTORIES, ASKED, strict=True)]
    for beams in (1, 8, 40):  # more beams than a domain has sids, too
        same(remote.search(prompts, ASKED, beams), local.search(prompts, ASKED, beams))


def test_deny_allow_and_shared_lists(local, remote):
    prompts = [local.render(history, domain) for history, domain in zip(HISTORIES, ASKED, strict=True)]
    trie = local.trie
    lists = {"deny": [[1, 2, 4, 5], None, [7], [0, 3, 6]], "allow": [None, [0, 3, 9, 12], [1, 2, 4, 7, 8], None]}
    same_filter = build_filter(trie, **lists)
    same(remote.search(prompts, ASKED, 12, same_filter), local.search(prompts, ASKED, 12, same_filter))
    shared = build_shared_filter(trie, deny=np.arange(0, 40, 2))
    shared_filter = build_filter(trie, **lists, shared=shared)
    same(remote.search(prompts, ASKED, 12, shared_filter), local.search(prompts, ASKED, 12, shared_filter))
    with pytest.raises(ConfigError):
        remote.search(prompts[:1], ASKED[:1], 4, build_filter(trie, allow=[[0]]))  # item 0 is of another domain


def test_traces_and_the_items_behind_them(local, remote):
    prompts = [local.render(history, domain, "think") for history, domain in zip(HISTORIES, ASKED, strict=True)]
    greedy = SamplingConfig(12, temperature=0.0)
    ours, theirs = (one.think(prompts, ASKED, [[0]] * 4, 6, greedy) for one in (local, remote))
    assert theirs[0].lists() == ours[0].lists() and torch.equal(theirs[0].closed, ours[0].closed)
    same(theirs[1], ours[1])
    drawn = SamplingConfig(12, temperature=1.0, top_k=0, top_p=1.0)
    first, again = (remote.sample_traces(prompts, [[1, [2, 3]]] * 4, drawn) for _ in range(2))
    assert first.lists() == again.lists() and first.lists()[0][0] != first.lists()[0][1]
    # Log-probabilities are those of the policy, less what is never drawn, whatever the items are held to.
    never = local.think_ids.banned
    for prompt, traces, scores in zip(prompts, first.lists(), first.logprobs, strict=True):
        for trace, row in zip(traces, scores, strict=True):
            with torch.no_grad():
                logits = local.model(torch.tensor([[*prompt, *trace]])).logits[0].float()
            logits = logits.index_fill(1, never, -torch.inf).log_softmax(-1)
            own = logits[torch.arange(len(prompt) - 1, len(prompt) + len(trace) - 1), torch.tensor(trace)]
            assert torch.allclose(row[: len(trace)], own, atol=1e-3)


def test_free_text_of_a_client_that_asks_for_nothing_holds_no_illegal_item(server, local):
    begin = local.vocabulary.prefix_ids("video")
    payload = {"model": "tiny-rec", "prompt": begin, "max_tokens": 3, "n": 20, "temperature": 1.0, "seed": 1}
    answer = httpx.post(f"{server.url}/completions", json={**payload, "return_token_ids": True}, timeout=60).json()
    items = {tuple(choice["token_ids"]) for choice in answer["choices"]}
    root = local.trie.root_of("video")
    assert len(items) > 5 and all(local.trie.find(root, item) is not None for item in items)
    wrong = httpx.post(f"{server.url}/completions", json={**payload, "vllm_xargs": {"items": "all"}}, timeout=60)
    assert wrong.status_code == 400 and "items must be legal, score, free" in wrong.text


def test_recommend_says_the_same_through_a_server(server, model_dir, capsys):
    asked = ["recommend", "--model", str(model_dir), "--items", "i01,i05,i09", "--domain", "video", "--json"]
    assert main(asked) == 0
    ours = json.loads(capsys.readouterr().out)
    assert main([*asked, "--base-url", server.url]) == 0
    theirs = json.loads(capsys.readouterr().out)
    assert [row["item_id"] for row in theirs["recommendations"]] == [row["item_id"] for row in ours["recommendations"]]
    scores = [[row["score"] for row in answer["recommendations"]] for answer in (ours, theirs)]
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)


def test_models_that_are_not_there(server, model_dir):
    with pytest.raises(ConfigError, match="serves tiny-rec; 'other' is not among them"):
        connect(server.url, model_dir, model="other")


def test_a_catalog_is_replaced_under_load_without_one_illegal_item(server, local):
    """Sampling clients run all the while; each item is of the catalog before or of the one after, and after the swap
    of the one after alone. A broken catalog changes nothing."""
    vocabulary = local.vocabulary
    tries = {seed: build_catalog_trie(make_catalog(seed), vocabulary) for seed in (7, 8)}
    root, begin = tries[7].root_of("video"), vocabulary.prefix_ids("video")
    seen: list[tuple[float, tuple[int, ...]]] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            asked = time.monotonic()
            payload = {"model": "tiny-rec", "prompt": begin, "max_tokens": 3, "n": 8, "temperature": 1.0}
            answer = httpx.post(f"{server.url}/completions", json={**payload, "return_token_ids": True}, timeout=60)
            seen.extend((asked, tuple(choice["token_ids"])) for choice in answer.json()["choices"])

    clients = [threading.Thread(target=ask) for _ in range(3)]
    for client in clients:
        client.start()
    try:
        time.sleep(2)
        make_catalog(8).save(server.catalog, overwrite=True)
        time.sleep(4)
        swapped = time.monotonic()
        time.sleep(2)
        (server.catalog / "catalog.parquet").write_bytes(b"broken")
        time.sleep(3)
    finally:
        stop.set()
        for client in clients:
            client.join()
        make_catalog(7).save(server.catalog, overwrite=True)
    legal = {seed: {item for _, item in seen if trie.find(root, item) is not None} for seed, trie in tries.items()}
    before = [item for asked, item in seen if asked < swapped]
    after = [item for asked, item in seen if asked >= swapped]
    assert len(before) > 20 and len(after) > 20
    assert all(item in legal[7] | legal[8] for item in before) and set(before) & (legal[7] - legal[8])
    assert all(item in legal[8] for item in after)
