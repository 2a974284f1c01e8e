"""A model on a vLLM server, asked as the in-process one is: prompts as token ids, traces sampled, items by exact beams.

The server runs `onereason.serving.vllm_trie`; the beams are grown here, level by level: all beams of all prompts go out
in few requests, whose prompts the server has in its prefix cache, and the likeliest admitted codes come back with their
log-probabilities among all tokens. Items, order and scores are those of `onereason.decoding`.

Notation: `B` prompts, `N` traces a prompt, `K` beams, `L` levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from onereason.decoding.beam import BeamResult
from onereason.decoding.recommender import PromptWriter, resolve_prompt_settings, write_prompts
from onereason.decoding.think import Traces
from onereason.endpoint import Endpoint, EndpointMalformed
from onereason.errors import ConfigError
from onereason.model.folder import load_tokenizer_folder
from onereason.model.sampling import SamplingConfig

if TYPE_CHECKING:
    from onereason.itemic.filters import NodeFilter

PROMPTS_A_REQUEST = 256
REQUESTS_AT_ONCE = 32
NO_LOGPROB = -9000.0
"""vLLM writes -9999 where a log-probability is -inf."""

Question = TypeVar("Question")
Reply = TypeVar("Reply")


@dataclass(frozen=True)
class RemoteRecommender(PromptWriter):
    """What `Recommender` does, on a server.

    Attributes:
        endpoint: the server and the name of the model.
    """

    endpoint: Endpoint

    def search(
        self,
        prompts: Sequence[Sequence[int] | np.ndarray],
        domains: Sequence[str],
        num_beams: int,
        node_filter: NodeFilter | None = None,
    ) -> BeamResult:
        """The `K` best sids of each prompt's domain; see `onereason.decoding.beam.beam_search`.

        Raises:
            ConfigError: the filter leaves a prompt nothing.
            EndpointError: the server does not answer, or without the trie plug-in.
        """
        roots = [self.trie.root_of(domain) for domain in domains]
        if node_filter is not None:
            node_filter.require_not_empty(roots)
        options = [self._options(roots[row], row, node_filter) for row in range(len(prompts))]
        return self._grow([list(map(int, prompt)) for prompt in prompts], roots, num_beams, options)

    def think(
        self,
        prompts: Sequence[Sequence[int] | np.ndarray],
        domains: Sequence[str],
        seeds: Sequence[Sequence[int | Sequence[int]]],
        num_beams: int,
        sampling: SamplingConfig | None = None,
        node_filter: NodeFilter | None = None,
    ) -> tuple[Traces, BeamResult]:
        """Traces, and the `K` best sids behind each: row `b * N + n` belongs to trace `n` of prompt `b`.

        The server draws from streams of its own: equal seeds give equal traces there, not those of the in-process
        model.
        """
        roots = [self.trie.root_of(domain) for domain in domains]
        if node_filter is not None:
            node_filter.require_not_empty(roots)
        traces = self.sample_traces(prompts, seeds, sampling)
        stems, stem_roots, options = [], [], []
        for row, (prompt, own) in enumerate(zip(prompts, traces.lists(), strict=True)):
            for trace in own:
                stems.append([*map(int, prompt), *trace, *self.between(domains[row])])
                stem_roots.append(roots[row])
                options.append(self._options(roots[row], row, node_filter))
        return traces, self._grow(stems, stem_roots, num_beams, options)

    def sample_traces(
        self,
        prompts: Sequence[Sequence[int] | np.ndarray],
        seeds: Sequence[Sequence[int | Sequence[int]]],
        sampling: SamplingConfig | None = None,
    ) -> Traces:
        """One trace a seed behind each prompt, which ends inside an open think block; see `Traces`.

        Log-probabilities are over all tokens but those that are never drawn (`<think>`, and rows of the model's head
        that are no token), which in process are counted in: a difference of their share, next to nothing in a model
        that was trained.
        """
        sampling = sampling or SamplingConfig()
        ids, num = self.think_ids, len(seeds[0])
        stops = [ids.closing[0], *ids.stops]
        common: dict[str, Any] = {
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k or -1,
            "top_p": sampling.top_p,
            "stop_token_ids": stops,
            "logit_bias": {str(ids.opening[0]): -100.0},  # as in process, where it is never drawn
            "ignore_eos": True,
            "logprobs": 1,
            "return_token_ids": True,
            "vllm_xargs": {"items": "free"},
        }
        asked = [
            {**common, "prompt": list(map(int, prompt)), "seed": _as_seed(seed)}
            for prompt, own in zip(prompts, seeds, strict=True)
            for seed in own
        ]
        found = _at_once(lambda payload: _read_trace(self._choices(payload, 1)[0], self.endpoint), asked)
        width = max((len(tokens) for tokens, _ in found), default=0)
        token_ids = torch.full((len(found), width), -1)
        logprobs, closing = torch.zeros(len(found), width), torch.zeros(len(found))
        closed = torch.zeros(len(found), dtype=torch.bool)
        for row, (tokens, scores) in enumerate(found):
            length = len(tokens)
            if tokens and tokens[-1] in stops:
                length -= 1
                closed[row] = tokens[-1] == ids.closing[0]
                closing[row] = scores[-1] if closed[row] else 0.0
            token_ids[row, :length] = torch.tensor(tokens[:length], dtype=torch.long)
            logprobs[row, :length] = torch.tensor(scores[:length])
        shape = (len(prompts), num)
        width = int((token_ids >= 0).sum(1).max()) if len(found) else 0
        return Traces(
            token_ids[:, :width].view(*shape, width),
            closed.view(shape),
            logprobs[:, :width].view(*shape, width),
            closing.view(shape),
        )

    def _grow(
        self, prompts: list[list[int]], roots: Sequence[int], num_beams: int, options: Sequence[dict[str, Any]]
    ) -> BeamResult:
        """Beams behind every prompt, which ends where the first code is to come."""
        trie = self.trie
        beams = [[_Beam((), (), root)] for root in roots]
        for level in range(trie.num_levels):
            asked = [(row, beam) for row, own in enumerate(beams) for beam in own]
            texts = [[*prompts[row], *beam.codes] for row, beam in asked]
            offers = self._next_codes(texts, [self._at_level(options[row], level) for row, _ in asked], num_beams)
            grown: list[list[tuple[float, int, int, _Beam]]] = [[] for _ in prompts]
            place = [0] * len(prompts)
            for (row, beam), offer in zip(asked, offers, strict=True):
                for token, value in offer.items():
                    node = trie.find(beam.node, [token])
                    if node is not None:
                        child = _Beam((*beam.codes, token), (*beam.logprobs, value), node)
                        grown[row].append((-sum(child.logprobs), place[row], token, child))
                place[row] += 1
            beams = [[beam for *_, beam in sorted(own, key=lambda found: found[:3])[:num_beams]] for own in grown]
        return self._as_result(beams, num_beams)

    def _next_codes(
        self, texts: list[list[int]], options: list[dict[str, Any]], num_beams: int
    ) -> list[dict[int, float]]:
        """Behind each text, the likeliest codes that are admitted, with their log-probabilities among all tokens."""
        groups: dict[str, list[int]] = {}
        for place, option in enumerate(options):
            groups.setdefault(repr(option), []).append(place)
        parts = [
            places[start : start + PROMPTS_A_REQUEST]
            for places in groups.values()
            for start in range(0, len(places), PROMPTS_A_REQUEST)
        ]

        def ask(part: list[int]) -> list[dict[int, float]]:
            payload = {
                "prompt": [texts[place] for place in part],
                "max_tokens": 1,
                "temperature": 1.0,
                "top_k": -1,
                "top_p": 1.0,
                "logprobs": num_beams + 1,  # one may be the token that stands for all the rest
                "return_tokens_as_token_ids": True,
                "vllm_xargs": {"items": "score", **options[part[0]]},
            }
            return [_read_offer(choice, self.endpoint) for choice in self._choices(payload, len(part))]

        found: list[dict[int, float]] = [{} for _ in texts]
        for part, offers in zip(parts, _at_once(ask, parts), strict=True):
            for place, offer in zip(part, offers, strict=True):
                found[place] = offer
        return found

    def _choices(self, payload: dict[str, Any], number: int) -> list[dict[str, Any]]:
        answer = self.endpoint.post("completions", payload)
        choices = answer.get("choices")
        if not isinstance(choices, list) or len(choices) != number:
            raise EndpointMalformed(f"{self.endpoint.base_url} did not answer {number} prompt(s): {str(answer)[:120]}")
        return sorted(choices, key=lambda choice: choice["index"])

    def _options(self, root: int, row: int, node_filter: NodeFilter | None) -> dict[str, Any]:
        """What the server must know of a request's deny and allow lists."""
        if node_filter is None:
            return {}
        trie, first = self.trie, row * self.trie.num_nodes
        low, high = np.searchsorted(node_filter.node_keys, [first + trie.first_leaf, first + trie.num_nodes])
        leaves = node_filter.node_keys[low:high] - first
        has_allow = bool(node_filter.has_allow[row])
        if node_filter.shared is not None and not has_allow:
            closed = np.flatnonzero(node_filter.shared.open_counts[trie.first_leaf :] == 0) + trie.first_leaf
            leaves = np.union1d(leaves, closed)
        begin, end = trie.leaf_ranges([root])
        leaves = leaves[(leaves >= begin[0]) & (leaves < end[0])]
        patterns = trie.paths(leaves)
        if trie.begin_ids[root] >= 0:
            patterns = np.insert(patterns, 0, trie.begin_ids[root], axis=1)
        return {"allow" if has_allow else "deny": patterns.ravel().tolist()} if has_allow or len(leaves) else {}

    def _at_level(self, options: dict[str, Any], level: int) -> dict[str, Any]:
        """For formats without begin tokens the server is told how many codes stand."""
        return options if self.trie.begin_ids[0] >= 0 else {**options, "written": level}

    def _as_result(self, beams: Sequence[Sequence[_Beam]], num_beams: int) -> BeamResult:
        shape = (len(beams), num_beams)
        sequences = torch.full((*shape, self.trie.num_levels), -1)
        levels, leaves = torch.zeros(*shape, self.trie.num_levels), torch.full(shape, -1)
        for row, own in enumerate(beams):
            for place, beam in enumerate(own):
                sequences[row, place] = torch.tensor(beam.codes)
                levels[row, place] = torch.tensor(beam.logprobs)
                leaves[row, place] = beam.node
        valid = leaves >= 0
        return BeamResult(sequences, levels.sum(-1).masked_fill(~valid, -torch.inf), valid, leaves, levels)


@dataclass(frozen=True)
class _Beam:
    codes: tuple[int, ...]
    logprobs: tuple[float, ...]
    node: int


def connect(
    base_url: str,
    model_dir: str | Path,
    *,
    model: str | None = None,
    style: str | None = None,
    max_history: int | None = None,
    language: str | None = None,
    timeout_seconds: float = 120.0,
) -> RemoteRecommender:
    """A recommender on a server, with the tokenizer, catalog and prompts of a model folder; its weights are not read.

    Args:
        base_url: up to and with the version, e.g. `http://localhost:8000/v1`.
        model: the name it is served under; by default the only one there is.

    Raises:
        EndpointError: nobody answers there.
        ConfigError: the server has several models, or not that one.
    """
    asking = Endpoint(base_url, model or "any", timeout_seconds=timeout_seconds)
    served = [entry["id"] for entry in asking.get("models").get("data", []) if "id" in entry]
    if (model is None and len(served) != 1) or (model is not None and model not in served):
        wanted = "one of them has to be named" if model is None else f"{model!r} is not among them"
        raise ConfigError(f"{base_url} serves {', '.join(served) or 'nothing'}; {wanted}.")
    settings = resolve_prompt_settings(Path(model_dir), style, max_history, language)
    writer = write_prompts(load_tokenizer_folder(model_dir), *settings)
    endpoint = Endpoint(base_url, model or served[0], timeout_seconds=timeout_seconds)
    return RemoteRecommender(**vars(writer), endpoint=endpoint)


def _at_once(ask: Callable[[Question], Reply], asked: Sequence[Question]) -> list[Reply]:
    """The answers in the order of the questions; the first error is raised once all under way have ended."""
    if len(asked) == 1:
        return [ask(asked[0])]
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        return list(pool.map(ask, asked))


def _as_seed(seed: int | Sequence[int]) -> int:
    """A seed of numpy's kind as the one number that a server takes."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0]) & 0x7FFFFFFF


def _read_offer(choice: dict[str, Any], endpoint: Endpoint) -> dict[int, float]:
    """`{"token_id:17": -0.3, ...}` as numbers, without what is not admitted."""
    try:
        offered = choice["logprobs"]["top_logprobs"][0]
        return {int(name.removeprefix("token_id:")): value for name, value in offered.items() if value > NO_LOGPROB}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise EndpointMalformed(
            f"{endpoint.base_url} answered without log-probabilities by token id ({error!r}); start it with "
            "`onereason serve`."
        ) from error


def _read_trace(choice: dict[str, Any], endpoint: Endpoint) -> tuple[list[int], list[float]]:
    try:
        tokens, scores = list(choice["token_ids"]), list(choice["logprobs"]["token_logprobs"])
    except (KeyError, TypeError) as error:
        raise EndpointMalformed(
            f"{endpoint.base_url} answered without token ids ({error!r}); it must be vLLM 0.10.2 or newer."
        ) from error
    if len(tokens) != len(scores):
        raise EndpointMalformed(
            f"{endpoint.base_url} answered {len(tokens)} tokens and {len(scores)} log-probabilities."
        )
    return tokens, scores
