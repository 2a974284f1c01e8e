"""Short runs on rollouts of the tiny world's model, and rewards of one's own for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def rollout_overrides(world: Path, out: Path, **more: Any) -> list[str]:
    """The `key=value` arguments of a short run: 4 steps of 4 prompts with 2 traces of 4 items each."""
    values: dict[str, Any] = {
        "model": world / "model",
        "data": world / "data",
        "out": out,
        "prompts.targets": 4,
        "prompts.min_history": 1,
        "rollout.num_traces": 2,
        "rollout.num_items": 4,
        "rollout.sampling.max_new_tokens": 6,
        "training.learning_rate": 1e-2,
        "training.warmup_steps": 0,
        "training.per_device_train_batch_size": 8,
        "training.max_steps": 4,
        "training.save_steps": 100,
        "training.logging_steps": 1,
    }
    return [f"{key}={json.dumps(str(v) if isinstance(v, Path) else v)}" for key, v in (values | more).items()]


def first_code(inputs: Any, code: int = 0) -> np.ndarray:
    """1 for items whose first code is `code`."""
    return (inputs.candidates[..., 0] == code).astype(float)


def parity(inputs: Any, odd: bool = False) -> np.ndarray:
    """1 for items whose first code is even, or odd."""
    return ((inputs.candidates[..., 0] % 2 == 1) == odd).astype(float)


def constant(inputs: Any) -> np.ndarray:
    return np.ones(inputs.shape)


def broken(inputs: Any) -> np.ndarray:
    """As `parity`, but NaN throughout every second group, in one item of it."""
    values = parity(inputs)
    values[1::2, 0, 0] = np.nan
    return values


RECORDED: list[Any] = []
"""What `record` was given, in order."""


def record(inputs: Any) -> np.ndarray:
    """0, and keeps what it is given."""
    RECORDED.append(inputs)
    return np.zeros(inputs.shape)
