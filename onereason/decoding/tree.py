"""What grows behind stems: live sequences as columns of their prompt's own cache.

A live sequence sees its stem, its own ancestors and itself (see `onereason.decoding.stems`).

Notation: `B` prompts, `N` stems a prompt, `S = B * N` stems, `K` live sequences a stem, `D` hidden size, `A` tree nodes
so far.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from onereason.decoding.stems import Stems


class StemTree:
    """The live sequences of every stem as columns behind the prompts.

    Attributes:
        hidden: `[S, K, D]`, the hidden states at the live sequences.
    """

    def __init__(self, stems: Stems):
        self.stems = stems
        self.hidden = stems.hidden.flatten(0, 1)[:, None]  # [S, 1, D]
        self._ancestors = stems.visible.new_zeros(len(self.hidden), 1, 0)  # [S, K, A], nodes of all stems of the prompt
        self._depth = 0
        self._writes = stems.writes

    def grow(self, tokens: torch.Tensor, parents: torch.Tensor) -> None:
        """Appends tokens `[S, K]`: children of the live sequences `parents` `[S, K]`."""
        batch, num = self.stems.shape
        live = tokens.shape[1]
        count = num * live
        itself = torch.eye(count, dtype=torch.bool, device=tokens.device).view(num, live, count).repeat(batch, 1, 1)
        self._ancestors = torch.cat([take_rows(self._ancestors, parents), itself], -1)
        visible = self.stems.visible.repeat_interleave(live, 1)  # [B, N * K, columns]
        seen = torch.cat([visible, self._ancestors.view(batch, count, -1)], -1)
        positions = (self.stems.lengths + self._depth).repeat_interleave(live, 1)
        # The cache holds the tree's earlier levels behind the stems: these are rewound to, not the stems alone.
        stems = replace(self.stems, writes=self._writes)
        hidden, self._writes = stems.forward(tokens.view(batch, count), positions, seen)
        self.hidden = hidden.view(batch * num, live, -1)
        self._depth += 1


def take_rows(rows: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
    """Rows `[S, K, X]` of the parents `[S, K']` -> `[S, K', X]`."""
    return rows.gather(1, parents[..., None].expand(-1, -1, rows.shape[2]))
