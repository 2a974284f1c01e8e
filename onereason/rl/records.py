"""The named records between the steps of reinforcement: rollouts -> rewards -> advantages -> loss.

A group is one prompt with its `N` traces and the `K` items under each of them. Rewards and advantages are numpy, as
they are few; losses are torch.

Notation: `G` groups, `N` traces a group, `K` items a trace, `L` levels of an item's codes, `M` trace tokens, `R` rows
of a batch, `T` token positions of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass(frozen=True)
class RewardInputs:
    """What a reward may look at. Codes are the format's (0 .. codes - 1 a level), not token ids.

    Attributes:
        candidates: int64 `[G, N, K, L]`, each item's codes; -1 where an item does not exist, or is no item of the
            catalog (`legal` tells the two apart).
        valid: bool `[G, N, K]`; True selects items that were rolled out (fewer than `K` where the catalog has fewer),
            and guided ones.
        legal: bool `[G, N, K]`; True selects rolled-out items that are in the catalog.
        positives: `G` int64 arrays `[P, L]`, the codes of the user's positive set, the next one first.
        histories: `G` int64 arrays `[n, L]`, codes of the items the prompt shows, oldest first.
        domains: `G` domain names, of the items asked for; `history_domains` has one a history item.
        thinks: bool `[G]`; True selects groups with traces.
        closed: bool `[G, N]`; True selects traces that ended by themselves inside their budget.
        trace_lengths: int64 `[G, N]`, tokens of each trace (0 without thinking).
        traces: `[G][N]` texts; empty without thinking.
        cited: `[G][N]` int64 arrays `[c, L]`, codes of the itemic patterns a trace cites, in order; -1 rows where what
            is cited is no item of the catalog. `cited_domains` has their domains.
        values: further numbers by name, float64 `[G, N, K]`, one an item (e.g. `p_score`).
        seed: of whatever a reward draws (the subset a format reward looks at).
        guided: bool `[G, N, K]`; True selects items that were put there, not rolled out; None where there are none.
    """

    candidates: np.ndarray
    valid: np.ndarray
    legal: np.ndarray
    positives: Sequence[np.ndarray]
    histories: Sequence[np.ndarray]
    domains: Sequence[str]
    history_domains: Sequence[Sequence[str]]
    thinks: np.ndarray
    closed: np.ndarray
    trace_lengths: np.ndarray
    traces: Sequence[Sequence[str]]
    cited: Sequence[Sequence[np.ndarray]]
    cited_domains: Sequence[Sequence[Sequence[str]]]
    values: dict[str, np.ndarray] = field(default_factory=dict)
    seed: int = 0
    guided: np.ndarray | None = None

    @property
    def rolled_out(self) -> np.ndarray:
        """bool `[G, N, K]`; True selects items that the policy rolled out itself."""
        return self.valid if self.guided is None else self.valid & ~self.guided

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(G, N, K)`."""
        return self.valid.shape  # type: ignore[return-value]


@dataclass(frozen=True)
class LossInputs:
    """A batch of rows as a loss sees it; every field but the log-probabilities of the policy is constant.

    A row is one trace with the `K` items under it, each token once. Its tokens' weights make a row count what `K`
    rollouts (trace and item) of weight `1 / K` would: trace tokens have weight 1, item tokens `1 / K`.

    Attributes:
        policy_logprobs: float32 `[R, T]`, of the trained model; carries the gradient.
        rollout_logprobs: float32 `[R, T]`, of the policy that made the rollouts, at the same tokens.
        advantages: float32 `[R, T]`; a trace token answers for its trace, an item token for its item.
        trace_mask: bool `[R, T]`; True selects trace tokens (with the one that closes the trace).
        item_mask: bool `[R, T]`; True selects item tokens. No token is in both.
        token_weights: float32 `[R, T]`, how often a token counts (see above); 0 outside both masks.
        item_ids: int64 `[R, T]`, which of a row's items a token belongs to; -1 outside `item_mask`.
        miss_weights: float32 `[R, T]`, 1 for tokens of hits, beta for those of misses (OneReason, Eq. 14).
        ref_logprobs: float32 `[R, T]` of the frozen reference; None without a KL term.
        num_rollout_tokens: sum of `token_weights` over the whole optimizer step, a process's share of it (gradients are
            averaged over processes), where a loss is normalised over the step; None normalises over this batch.
        num_rows: a process's rows of the whole optimizer step; None takes this batch's.
    """

    policy_logprobs: torch.Tensor
    rollout_logprobs: torch.Tensor
    advantages: torch.Tensor
    trace_mask: torch.Tensor
    item_mask: torch.Tensor
    token_weights: torch.Tensor
    item_ids: torch.Tensor
    miss_weights: torch.Tensor
    ref_logprobs: torch.Tensor | None = None
    num_rollout_tokens: float | None = None
    num_rows: float | None = None


@dataclass(frozen=True)
class LossOutputs:
    """Attributes: loss: the scalar to descend. metrics: what to log, detached, by key without prefix."""

    loss: torch.Tensor
    metrics: dict[str, float]
