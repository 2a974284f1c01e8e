"""Rollouts -> what a reward looks at: codes, legality, right answers, histories, and the items that traces cite.

Notation: `G` groups, `N` traces, `K` items, `L` levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onereason.decoding.recommender import Recommender
from onereason.itemic.format import ANY_DOMAIN
from onereason.rl.prompts import Prompts
from onereason.rl.records import RewardInputs
from onereason.rl.rewards.traces import ANSWER_LIKELIHOOD
from onereason.rl.rollout import Rollouts


def build_reward_inputs(
    recommender: Recommender, prompts: Prompts, asked: Sequence[int], rollouts: Rollouts, seed: int = 0
) -> RewardInputs:
    """The record of rollouts behind the prompts numbered `asked` (`G` of them).

    A prompt's history is what it shows: the newest `max_history` items.
    """
    catalog, vocabulary = recommender.catalog, recommender.vocabulary
    legal = rollouts.legal.cpu().numpy()
    starts = vocabulary.code_ids(np.zeros((1, catalog.codes.shape[1]), np.int64))[0]  # [L]
    candidates = np.where(legal[..., None], rollouts.sequences.cpu().numpy() - starts, -1)
    tell_apart = ANY_DOMAIN not in vocabulary.format.domains
    domain_of = (lambda item: catalog.domains[item]) if tell_apart else (lambda item: ANY_DOMAIN)
    histories = [prompts.histories[number][-recommender.max_history :] for number in asked]
    texts = _decode(recommender, rollouts)
    answers = None if rollouts.answer_logprobs is None else rollouts.answer_logprobs.double().cpu().numpy()
    found = [[_find_cited(recommender, text) for text in row] for row in texts]
    return RewardInputs(
        candidates=candidates,
        valid=rollouts.valid.cpu().numpy(),
        legal=legal,
        positives=[catalog.codes[prompts.positives[number]].astype(np.int64) for number in asked],
        histories=[catalog.codes[history].astype(np.int64) for history in histories],
        domains=[prompts.domains[number] if tell_apart else ANY_DOMAIN for number in asked],
        history_domains=[[domain_of(item) for item in history.tolist()] for history in histories],
        thinks=rollouts.thinks.numpy(),
        closed=rollouts.traces.closed.cpu().numpy(),
        trace_lengths=rollouts.traces.lengths.cpu().numpy(),
        traces=texts,
        cited=[[codes for codes, _ in row] for row in found],
        cited_domains=[[domains for _, domains in row] for row in found],
        values={} if answers is None else {ANSWER_LIKELIHOOD: np.repeat(answers[..., None], legal.shape[2], 2)},
        seed=seed,
        guided=rollouts.guided.cpu().numpy(),
    )


def _decode(recommender: Recommender, rollouts: Rollouts) -> list[list[str]]:
    traces = rollouts.traces.lists()
    flat = [tokens for row in traces for tokens in row]
    texts = iter(recommender.prompt.tokenizer.batch_decode(flat, skip_special_tokens=False))
    return [[next(texts) for _ in row] for row in traces]


def _find_cited(recommender: Recommender, text: str) -> tuple[np.ndarray, list[str]]:
    """Codes `[c, L]` and domains of the patterns in a text; -1 where one is no item, or no whole pattern."""
    format, trie = recommender.vocabulary.format, recommender.trie
    parsed = format.parse(text)
    codes, domains = [], []
    for item in parsed.items:
        tokens = recommender.vocabulary.code_ids(np.array([item.codes]))[0].tolist()
        known = trie.find(trie.root_of(item.domain), tokens) is not None
        codes.append(item.codes if known else (-1,) * format.num_levels)
        domains.append(item.domain)
    codes += [(-1,) * format.num_levels] * parsed.num_malformed
    domains += [ANY_DOMAIN] * parsed.num_malformed
    return np.array(codes, np.int64).reshape(-1, format.num_levels), domains
