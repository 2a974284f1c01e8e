"""What a trace does to the right answer: trace indicators (OneReason, Eq. 22-25).

All likelihoods are teacher-forced and computed in batches. Along a trace, every cut is a stem of the same cached
sequence, so that the whole path costs one pass over the trace and one short pass behind it.

Notation: `B` traces, `C` cuts of a trace, `L` levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onereason.decoding.likelihood import answer_loglikelihoods
from onereason.decoding.recommender import Recommender

NUM_SEGMENTS = 8
"""A trace is cut into this many parts of nearly equal length."""


def trace_cuts(num_tokens: int, num_segments: int = NUM_SEGMENTS) -> list[int]:
    """Where a trace is cut: `num_segments + 1` numbers of tokens from 0 to all of it."""
    return [round(num_tokens * part / num_segments) for part in range(num_segments + 1)]


def compute_loglikelihoods(
    recommender: Recommender,
    prompts: Sequence[np.ndarray],
    traces: Sequence[Sequence[int]],
    targets: Sequence[int],
    histories: Sequence[np.ndarray],
    domains: Sequence[str],
) -> list[list[float]]:
    """The target's log-likelihood without thinking, then along the trace.

    Args:
        prompts: `B` prompts in mode `think`, inside the open think block.
        traces: `B` lists of token ids, without the closing token.
        targets: `B` item indices.
        histories: `B` histories, for the prompts in mode `no_think`.
        domains: `B` domains of the targets.

    Returns:
        `B` lists: `log p(y | x)` with an empty think block, then `l_t = log p(y | x, c_1 .. c_t)` (Eq. 23) at the
        `NUM_SEGMENTS + 1` cuts of `trace_cuts`; the last minus the first is dLL (Eq. 22).
    """
    vocabulary, ids = recommender.vocabulary, recommender.think_ids
    answers = vocabulary.code_ids(recommender.catalog.codes[np.asarray(targets)]).tolist()
    thought = [[*prompt.tolist(), *trace] for prompt, trace in zip(prompts, traces, strict=True)]
    closing = [[*ids.closing, *vocabulary.prefix_ids(domain)] for domain in domains]
    cuts = [
        [len(prompt) + cut for cut in trace_cuts(len(trace))] for prompt, trace in zip(prompts, traces, strict=True)
    ]
    along = answer_loglikelihoods(recommender.model, thought, answers, closing, cuts)  # [B, C]
    plain = [recommender.render(history, domain) for history, domain in zip(histories, domains, strict=True)]
    # The last token of the prompt is fed again behind the rest, as every answer stands behind at least one.
    without = answer_loglikelihoods(recommender.model, [p[:-1] for p in plain], answers, [p[-1:] for p in plain])
    return np.concatenate([without.cpu().numpy(), along.cpu().numpy()], 1).astype(np.float64).tolist()
