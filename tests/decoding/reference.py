"""Small random models, and decoding spelled out without a cache: what the tests of this room compare with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    Qwen3Config,
    Qwen3ForCausalLM,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from onereason.decoding.think import SamplingConfig

VOCAB, FIRST_CODE, CODES = 96, 40, 6


def make_model(seed: int = 0, **changes) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    values = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "initializer_range": 0.4,
        "tie_word_embeddings": True,
    }
    return Qwen3ForCausalLM(Qwen3Config(**(values | changes))).eval()


def make_items(levels: int, count: int, seed: int = 0) -> np.ndarray:
    """Code token ids `[count, levels]`, each level in its own range of ids, duplicates likely."""
    codes = np.random.default_rng(seed).integers(0, CODES, (count, levels))
    return codes + FIRST_CODE + CODES * np.arange(levels)


def make_prompts(lengths: list[int], seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, FIRST_CODE, n).tolist() for n in lengths]


@torch.no_grad()
def teacher_forced(model, prompt: list[int], paths: list[tuple[int, ...]]) -> dict[tuple[int, ...], float]:
    """Summed log-probability of each path after the prompt, one plain unpadded forward pass a path."""
    scores = {}
    for path in paths:
        logprobs = model(torch.tensor([prompt + list(path)])).logits[0].double().log_softmax(-1)
        steps = range(len(prompt) - 1, len(prompt) - 1 + len(path))
        scores[path] = sum(logprobs[step, token].item() for step, token in zip(steps, path, strict=True))
    return scores


def reference_search(model, prompt, paths, num_beams):
    """Beam search spelled out: keep the best prefixes of each length, scored from scratch."""
    beams: list[tuple[int, ...]] = [()]
    for depth in range(1, len(paths[0]) + 1):
        children = sorted({p[:depth] for p in paths if p[: depth - 1] in beams})
        scores = teacher_forced(model, prompt, children)
        beams = sorted(children, key=lambda p: -scores[p])[:num_beams]
    return beams, [scores[p] for p in beams]


def unique_paths(tokens: np.ndarray) -> list[tuple[int, ...]]:
    return sorted({tuple(row) for row in tokens.tolist()})


def check_row(result, row: int, paths, scores) -> None:
    assert [tuple(p) for p in result.sequences[row].tolist()][: len(paths)] == list(paths)
    np.testing.assert_allclose(result.scores[row, : len(paths)], scores, rtol=1e-4)
    assert result.valid[row].tolist() == [i < len(paths) for i in range(result.valid.shape[1])]
    assert (result.sequences[row, len(paths) :] == -1).all()
    assert (result.scores[row, len(paths) :] == -torch.inf).all()
    assert (result.leaves[row, len(paths) :] == -1).all()


def with_lora(model: Qwen3ForCausalLM, *targets: str):
    """The model under PEFT, its adapter far from nothing."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    return peft.get_peft_model(model, peft.LoraConfig(target_modules=list(targets), init_lora_weights=False)).eval()


@torch.no_grad()
def plain_forward(model, tokens: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states `[T, D]` and logits `[T, V]` of one unpadded row, without a cache."""
    decoder = (model.get_base_model() if hasattr(model, "get_base_model") else model).get_decoder()
    hidden = decoder(input_ids=torch.tensor([tokens]), use_cache=False).last_hidden_state[0]
    return hidden, model(torch.tensor([tokens]), use_cache=False).logits[0]


def warped(logits: torch.Tensor, config: SamplingConfig) -> torch.Tensor:
    """Probabilities `[S, V]` by transformers' warpers, in the order in which `generate` applies them."""
    scores = logits.double()
    scores = TemperatureLogitsWarper(float(config.temperature))(None, scores)
    if config.top_k:
        scores = TopKLogitsWarper(config.top_k)(None, scores)
    if config.top_p < 1:
        scores = TopPLogitsWarper(config.top_p)(None, scores)
    return scores.softmax(-1)


def invert(logits: np.ndarray, probabilities: np.ndarray, uniform: float, config: SamplingConfig) -> int:
    """The token at `uniform` when tokens are laid end to end, the most likely first; in their order if all may come."""
    at = 0.0
    order = np.flatnonzero(probabilities > 0).tolist()
    if 0 < config.top_k < len(logits) or config.top_p < 1:
        order.sort(key=lambda token: (-logits[token], token))
    for token in order:
        at += probabilities[token]
        if uniform < at:
            return token
    return order[-1]


def naive_trace(model, prompt, seed, close_id, stop_ids, banned, config) -> tuple[list[int], bool, list[float]]:
    """One trace: a full forward pass a token, no cache, no padding, no neighbours."""
    stream, tokens, logprobs = np.random.default_rng(seed), [], []
    for _ in range(config.max_new_tokens):
        logits = plain_forward(model, prompt + tokens)[1][-1].float()
        whole = (logits.double() / (config.temperature or 1)).log_softmax(-1)
        logits[banned] = -torch.inf
        uniform = stream.random()
        if config.temperature == 0:
            token = int(logits.argmax())
        else:
            token = invert(logits.numpy(), warped(logits[None], config)[0].numpy(), uniform, config)
        if token == close_id or token in stop_ids:
            return tokens, token == close_id, logprobs
        tokens.append(token)
        logprobs.append(whole[token].item())
    return tokens, False, logprobs


def ways_to_end(traces, config) -> set[str]:
    lengths, closed = traces.lengths.flatten().tolist(), traces.closed.flatten().tolist()
    return {
        "closed" if c else "cut" if length == config.max_new_tokens else "stopped"
        for length, c in zip(lengths, closed, strict=True)
    }
