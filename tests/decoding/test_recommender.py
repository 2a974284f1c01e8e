"""`Recommender.think`: its candidates against a search behind the literal tokens of prompt, trace and closing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from onereason.data.prompts import RecommendationPrompt
from onereason.decoding.recommender import Recommender, load_recommender, read_prompt_settings
from onereason.decoding.think import (
    SamplingConfig,
    ThinkIds,
    load_think_ids,
)
from onereason.errors import ConfigError, ModelError
from onereason.io import write_json
from onereason.itemic.catalog import Catalog
from onereason.itemic.filters import build_filter
from onereason.itemic.format import ItemicFormat, Marker
from onereason.itemic.trie import build_catalog_trie
from onereason.model.extend import extend_model
from onereason.model.folder import save_model_folder
from onereason.model.tiny import build_tiny_model, build_tiny_tokenizer
from tests.decoding.reference import (
    check_row,
    naive_trace,
    reference_search,
    ways_to_end,
)

FORMAT = ItemicFormat(
    "world",
    (4, 4, 4),
    "<s_{level}_{code}>",
    {"video": Marker("<|video_begin|>", "<|video_end|>"), "prod": Marker("<|prod_begin|>", "<|prod_end|>")},
)


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    """Two domains, collisions, and a random Qwen3 with a chat tokenizer; float64, so that ranks are beyond doubt."""
    rng = np.random.default_rng(7)
    codes = rng.integers(0, 3, (24, 3))
    codes[4] = codes[1]
    domains = ["video" if n % 3 else "prod" for n in range(24)]
    catalog = Catalog(FORMAT, [f"i{n:02d}" for n in range(24)], codes, domains)
    tokenizer = build_tiny_tokenizer(["a red apple pie", "a green tea set"] * 3, vocab_size=300)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 1024}
    model = build_tiny_model(tokenizer, **sizes, initializer_range=0.4)
    model, tokenizer, vocabulary = extend_model(model, tokenizer, FORMAT, init="copy_default")
    prompt = RecommendationPrompt(tokenizer, vocabulary)
    trie = build_catalog_trie(catalog, vocabulary)
    return Recommender(vocabulary, catalog, trie, prompt, 50, model.double().eval())


def few_tokens(recommender: Recommender, kept: list[int]) -> ThinkIds:
    """Think ids that leave few tokens to draw, so that some traces close, some stop and some run out."""
    ids = recommender.think_ids
    rows = recommender.model.config.vocab_size
    return replace(ids, banned=torch.tensor([t for t in range(rows) if t not in {*kept, ids.closing[0], *ids.stops}]))


HISTORIES = [np.array([0, 5, 7]), np.array([3]), np.arange(9)]
ASKED = ["video", "prod", "video"]


def test_thinking_equals_a_search_behind_the_literal_tokens(recommender, monkeypatch):
    monkeypatch.setitem(vars(recommender), "think_ids", few_tokens(recommender, list(range(100, 104))))
    ids, sampling = recommender.think_ids, SamplingConfig(max_new_tokens=6, temperature=20.0, top_k=0, top_p=1.0)
    prompts = [recommender.render(h, d, "think") for h, d in zip(HISTORIES, ASKED, strict=True)]
    assert all(prompt[-len(ids.opening) :] == ids.opening for prompt in prompts)
    seeds = [[[b, 10 + n] for n in range(6)] for b in range(3)]
    traces, result = recommender.think(prompts, ASKED, seeds, 5, sampling)
    assert ways_to_end(traces, sampling) == {"closed", "stopped", "cut"}
    assert len(set(traces.lengths.flatten().tolist())) > 3
    tokenizer = recommender.prompt.tokenizer
    assert result.sequences.shape == (18, 5, 3)
    for b, (prompt, domain) in enumerate(zip(prompts, ASKED, strict=True)):
        root = recommender.trie.root_of(domain)
        leaves = np.arange(*(int(end) for end in recommender.trie.leaf_ranges(root)))
        paths = sorted(map(tuple, recommender.trie.paths(leaves).tolist()))
        for n in range(6):
            # Prompt, trace, "</think>", an empty line, the begin token, as the tokenizer writes them.
            closing = tokenizer("</think>\n\n", add_special_tokens=False)["input_ids"]
            begin = tokenizer.convert_tokens_to_ids(f"<|{domain}_begin|>")
            text = [*prompt, *traces.lists()[b][n], *closing, begin]
            check_row(result, b * 6 + n, *reference_search(recommender.model, text, paths, 5))
            assert set(result.leaves[b * 6 + n].tolist()) <= set(leaves.tolist())
            around = (ids.closing[0], ids.stops, ids.banned, sampling)
            tokens, closed, _ = naive_trace(recommender.model, prompt, seeds[b][n], *around)
            assert (traces.lists()[b][n], bool(traces.closed[b, n])) == (tokens, closed)


def test_thinking_with_filters_and_restricted_scores(recommender):
    prompts = [recommender.render(h, d, "think") for h, d in zip(HISTORIES, ASKED, strict=True)]
    node_filter = build_filter(recommender.trie, deny=[HISTORIES[0], [], HISTORIES[2]])
    sampling = SamplingConfig(max_new_tokens=3)
    seeds = [[1, 2], [3, 4], [5, 6]]
    traces, result = recommender.think(prompts, ASKED, seeds, 30, sampling, node_filter, restricted=True)
    counts = node_filter.count_allowed([recommender.trie.root_of(domain) for domain in ASKED])
    assert result.valid.sum(1).tolist() == np.repeat(counts, 2).tolist()
    literal = [
        [*prompt, *trace, *recommender.think_ids.closing, *recommender.vocabulary.prefix_ids(domain)]
        for prompt, domain, row in zip(prompts, ASKED, traces.lists(), strict=True)
        for trace in row
    ]
    twice = build_filter(recommender.trie, deny=[d for d in (HISTORIES[0], [], HISTORIES[2]) for _ in range(2)])
    same = recommender.search(literal, [d for d in ASKED for _ in range(2)], 30, twice, restricted=True)
    assert torch.equal(result.leaves, same.leaves)
    torch.testing.assert_close(result.scores, same.scores, rtol=1e-5, atol=0)


def test_a_trace_that_runs_out_is_answered(recommender):
    prompts = [recommender.render(HISTORIES[0], "video", "think")]
    sampling = SamplingConfig(max_new_tokens=2, temperature=0)
    traces, result = recommender.think(prompts, ["video"], [[0]], 4, sampling)
    assert traces.closed.tolist() == [[False]] and traces.lengths.tolist() == [[2]]
    assert result.valid.all()


def test_think_ids_are_those_of_the_tokenizer(recommender):
    ids, tokenizer = recommender.think_ids, recommender.prompt.tokenizer
    assert tokenizer.decode(ids.opening) == "<think>\n" and tokenizer.decode(ids.closing) == "</think>\n\n"
    assert ids.closing[0] == tokenizer.convert_tokens_to_ids("</think>")
    assert ids.stops == tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    known = set(tokenizer.get_vocab().values())
    rows = recommender.model.config.vocab_size
    opening = tokenizer.convert_tokens_to_ids("<think>")
    assert set(ids.banned.tolist()) == {opening} | (set(range(rows)) - known)
    bare = build_tiny_tokenizer(["a b"], vocab_size=270)
    bare.get_vocab = lambda: {"a": 0, "<think>": 1}
    with pytest.raises(ModelError, match="has no token </think>: the model cannot think"):
        load_think_ids(bare, 300)


def test_the_plain_style_cannot_think(recommender):
    prompt = RecommendationPrompt(recommender.prompt.tokenizer, recommender.vocabulary, style="plain")
    plain = replace(recommender, prompt=prompt)
    with pytest.raises(ConfigError, match="prompt style 'plain' has no think block; use style 'chat'"):
        plain.render(HISTORIES[0], "video", "think")


def test_a_prompt_too_long_to_think_behind_is_refused_before_work(recommender):
    prompts = [recommender.render(h, d, "think") for h, d in zip(HISTORIES, ASKED, strict=True)]
    longest = max(map(len, prompts))
    closing = len(recommender.think_ids.closing)
    budget = 1024 - longest - closing - 1 - 3  # closing, the begin token, three codes
    calls: list[int] = []
    handle = recommender.model.model.register_forward_hook(lambda *_: calls.append(1))
    try:
        sampling = SamplingConfig(max_new_tokens=budget + 1)
        message = f"the longest prompt has {longest} tokens; with {1025 - longest} tokens of thought and answer"
        with pytest.raises(ConfigError, match=message):
            recommender.think(prompts, ASKED, [[0], [1], [2]], 3, sampling)
        assert not calls
    finally:
        handle.remove()
    # One token less fits (every trace closes at once, so that the budget is not walked).
    ids = few_tokens(recommender, [])
    short = replace(recommender)
    vars(short)["think_ids"] = replace(ids, stops=[], banned=ids.banned)
    assert short.think(prompts, ASKED, [[0], [1], [2]], 3, SamplingConfig(max_new_tokens=budget))[1].valid.all()


def test_a_search_that_cannot_be_is_refused_before_thinking(recommender, monkeypatch):
    monkeypatch.setattr("onereason.decoding.recommender.prefill", lambda *_: pytest.fail("prompts were computed"))
    prompts = [recommender.render(HISTORIES[0], "video", "think")]
    nothing = build_filter(recommender.trie, deny=[np.arange(len(recommender.catalog))])
    with pytest.raises(ConfigError, match="request 0 has nothing to choose from"):
        recommender.think(prompts, ["video"], [[0]], 4, SamplingConfig(max_new_tokens=2), nothing)
    with pytest.raises(ConfigError, match="num_beams must be at least 1, got 0"):
        recommender.think(prompts, ["video"], [[0]], 0, SamplingConfig(max_new_tokens=2))


# -- how a model folder wants to be asked ---------------------------------------------------------------------------


def test_thinking_asks_in_the_language_of_the_prompt(recommender):
    tokenizer, vocabulary = recommender.prompt.tokenizer, recommender.vocabulary
    chinese = replace(recommender, prompt=RecommendationPrompt(tokenizer, vocabulary, language="zh"))
    ids = chinese.render(HISTORIES[0], "video", "think")
    prompt = RecommendationPrompt(tokenizer, vocabulary, "chat", "think", "zh")
    assert ids == prompt.encode(chinese.pattern_ids[HISTORIES[0]], "video") + chinese.think_ids.opening
    assert ids != recommender.render(HISTORIES[0], "video", "think")


def test_a_model_folder_is_asked_in_the_language_it_records(recommender, tmp_path):
    folder, tokenizer = tmp_path / "model", recommender.prompt.tokenizer
    manifest = {"prompt": {"style": "chat", "max_history": 7, "language": "zh"}}
    save_model_folder(recommender.model, tokenizer, recommender.vocabulary, recommender.catalog, folder, manifest)
    loaded = load_recommender(folder, device="cpu")
    assert (loaded.prompt.language, loaded.max_history) == ("zh", 7)
    assert load_recommender(folder, device="cpu", language="en").prompt.language == "en"
    with pytest.raises(ConfigError, match="prompt set 'recommendation' for language 'fr' not found"):
        load_recommender(folder, device="cpu", language="fr")


def test_recorded_prompt_settings(tmp_path):
    def recorded(prompt) -> dict:
        write_json(tmp_path / "manifest.json", {"prompt": prompt})
        return read_prompt_settings(tmp_path)

    assert recorded({"style": "plain"}) == {"style": "plain"} and recorded(None) == {}
    assert recorded({"language": "zh"}) == {"language": "zh"}
    assert recorded({"language": "mine"}) == {"language": "mine"}
    (tmp_path / "mine").mkdir()  # a model folder may hold the prompt sets it was trained with
    assert recorded({"language": "mine"}) == {"language": str(tmp_path / "mine")}
    with pytest.raises(ModelError, match=r"prompt\.language should be en, zh or a folder of prompt sets, is 3"):
        recorded({"language": 3})
