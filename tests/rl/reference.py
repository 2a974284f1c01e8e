"""A random recommender in float64, so that ranks and differences are beyond doubt."""

from __future__ import annotations

import numpy as np
import torch

from onereason.data.prompts import RecommendationPrompt
from onereason.decoding.recommender import Recommender
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import ItemicFormat, Marker
from onereason.itemic.trie import build_catalog_trie
from onereason.model.extend import extend_model
from onereason.model.tiny import build_tiny_model, build_tiny_tokenizer

BOTH = {"video": Marker("<|video_begin|>", "<|video_end|>"), "prod": Marker("<|prod_begin|>", "<|prod_end|>")}
FORMAT = ItemicFormat("world", (4, 4, 4), "<s_{level}_{code}>", BOTH)
BARE = ItemicFormat("bare", (4, 4, 4), "<s_{level}_{code}>", {"*": Marker()})

HISTORIES = [np.array([0, 5, 7]), np.array([3]), np.arange(9)]
ASKED = ["video", "prod", "video"]


def build_recommender(format: ItemicFormat = FORMAT) -> Recommender:
    rng = np.random.default_rng(7)
    codes = rng.integers(0, 3, (24, 3))
    codes[4] = codes[1]
    names = list(format.domains)
    domains = [names[0] if n % 3 else names[-1] for n in range(24)]
    catalog = Catalog(format, [f"i{n:02d}" for n in range(24)], codes, domains)
    tokenizer = build_tiny_tokenizer(["a red apple pie", "a green tea set"] * 3, vocab_size=300)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 1024}
    model = build_tiny_model(tokenizer, **sizes, initializer_range=0.4)
    model, tokenizer, vocabulary = extend_model(model, tokenizer, format, init="copy_default")
    prompt = RecommendationPrompt(tokenizer, vocabulary)
    trie = build_catalog_trie(catalog, vocabulary)
    return Recommender(vocabulary, catalog, trie, prompt, 50, model.double().eval())


@torch.no_grad()
def plain_logprobs(model, tokens: list[int]) -> torch.Tensor:
    """Log-probability of each token given those before it, one plain unpadded pass; `[T - 1]`."""
    logits = model(torch.tensor([tokens]), use_cache=False).logits[0].log_softmax(-1)
    return logits[:-1].gather(1, torch.tensor(tokens)[1:, None])[:, 0]
