"""Padding encoded rows to batches."""

from __future__ import annotations

import pytest

from onereason.data.collate import IGNORED, LossMaskCollator, build_labels
from onereason.errors import ConfigError, DataError

ROWS = [
    {"input_ids": [5, 6, 7], "loss_mask": [False, True, True]},
    {"input_ids": [8], "loss_mask": [True]},
]


def test_a_batch_is_padded_on_the_right():
    batch = LossMaskCollator(pad_token_id=0)(ROWS)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [8, IGNORED, IGNORED]]
    assert IGNORED == -100


def test_labels_of_one_row():
    assert [build_labels(row) for row in ROWS] == [[IGNORED, 6, 7], [8]]


def test_a_real_token_equal_to_the_pad_token_keeps_its_label():
    batch = LossMaskCollator(pad_token_id=7)(ROWS)
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [8, IGNORED, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(("multiple", "width"), [(1, 3), (3, 3), (4, 4), (8, 8)])
def test_width_is_rounded_up(multiple, width):
    batch = LossMaskCollator(0, pad_to_multiple_of=multiple)(ROWS)
    assert {name: tuple(value.shape) for name, value in batch.items()} == dict.fromkeys(batch, (2, width))
    assert batch["attention_mask"].sum() == 4


def test_padding_changes_no_loss(words):
    """The mean loss of a padded batch is the token-weighted mean of its rows alone."""
    import torch

    from onereason.model.tiny import build_tiny_model

    torch.manual_seed(0)
    model = build_tiny_model(words.tokenizer, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, seed=0).eval()
    rows = [
        {"input_ids": [5, 6, 7, 9, 4], "loss_mask": [False, True, True, False, True]},
        {"input_ids": [8, 3], "loss_mask": [False, True]},
    ]
    collate = LossMaskCollator(0)
    with torch.no_grad():
        both = model(**collate(rows)).loss
        alone = [model(**collate([row])).loss for row in rows]
    torch.testing.assert_close(both, (3 * alone[0] + alone[1]) / 4, rtol=1e-5, atol=0)  # 3 and 1 supervised tokens


def test_wrong_input():
    with pytest.raises(ConfigError, match="pad_token_id must be a token id, got None"):
        LossMaskCollator(None)
    with pytest.raises(ConfigError, match="pad_to_multiple_of must be at least 1, got 0"):
        LossMaskCollator(0, 0)
    with pytest.raises(DataError, match="a row has 2 input_ids and 1 entries in loss_mask"):
        LossMaskCollator(0)([{"input_ids": [1, 2], "loss_mask": [True]}])
    with pytest.raises(DataError, match="at least one row"):
        LossMaskCollator(0)([])
