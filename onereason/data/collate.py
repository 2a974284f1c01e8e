"""Encoded rows -> padded batches for training.

Notation: `B` rows of a batch, `T` tokens of its longest row (rounded up).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onereason.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""Label of a token that takes no loss; what transformers and PyTorch's cross-entropy skip."""


def build_labels(row: Mapping[str, Any]) -> list[int]:
    """The labels of a row `{"input_ids", "loss_mask"}`: the token where the mask is True, `IGNORED` elsewhere."""
    return [
        token if supervised else IGNORED for token, supervised in zip(row["input_ids"], row["loss_mask"], strict=True)
    ]


class LossMaskCollator:
    """Pads rows `{"input_ids", "loss_mask"}` on the right.

    A call returns `input_ids`, `attention_mask` and `labels`, int64 `[B, T]` each. A label is the token itself where
    the loss mask is True and `IGNORED` elsewhere; the model shifts the labels, so a row's first token never counts.
    """

    def __init__(self, pad_token_id: int, pad_to_multiple_of: int | None = None):
        """
        Args:
            pad_token_id: fills the end of shorter rows.
            pad_to_multiple_of: rounds `T` up, for kernels that want it.
        """
        if pad_token_id is None or pad_token_id < 0:
            raise ConfigError(f"pad_token_id must be a token id, got {pad_token_id}; give the tokenizer a pad token.")
        if pad_to_multiple_of is not None and pad_to_multiple_of < 1:
            raise ConfigError(f"pad_to_multiple_of must be at least 1, got {pad_to_multiple_of}.")
        self.pad_token_id = pad_token_id
        self.pad_to_multiple_of = pad_to_multiple_of or 1

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        import torch

        if not rows:
            raise DataError("a batch needs at least one row.")
        longest = max(len(row["input_ids"]) for row in rows)
        width = -(-longest // self.pad_to_multiple_of) * self.pad_to_multiple_of
        input_ids = torch.full((len(rows), width), self.pad_token_id, dtype=torch.int64)  # [B, T]
        labels = torch.full((len(rows), width), IGNORED, dtype=torch.int64)  # [B, T]
        attention_mask = torch.zeros((len(rows), width), dtype=torch.int64)  # [B, T]
        for index, row in enumerate(rows):
            ids = torch.as_tensor(row["input_ids"], dtype=torch.int64)
            mask = torch.as_tensor(row["loss_mask"], dtype=torch.bool)
            if len(ids) != len(mask):
                raise DataError(
                    f"a row has {len(ids)} input_ids and {len(mask)} entries in loss_mask; they must agree."
                )
            input_ids[index, : len(ids)] = ids
            attention_mask[index, : len(ids)] = 1
            labels[index, : len(ids)][mask] = ids[mask]
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
