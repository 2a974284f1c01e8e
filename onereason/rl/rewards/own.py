"""A user's own reward: a function by its dotted path.

Notation: `G` groups, `N` traces a group, `K` items a trace.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from onereason.errors import ConfigError, RewardError
from onereason.rl.rewards.base import Reward, spread_over_items

if TYPE_CHECKING:
    from onereason.rl.records import RewardInputs


@dataclass(frozen=True)
class OwnReward(Reward):
    """Calls `function(inputs, **options)`, which gives a number an item `[G, N, K]` or a trace `[G, N]`.

    NaN says that the function cannot tell; what it gives for items that were not rolled out is not read.
    """

    path: str
    """`package.module:function` or `package.module.function`."""
    function: Callable[..., Any]
    """What the path names."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments."""

    def __call__(self, inputs: RewardInputs) -> np.ndarray:
        given = self.function(inputs, **self.options)
        try:
            values = np.asarray(given, np.float64)
        except (TypeError, ValueError) as error:
            raise RewardError(
                f"reward {self.path}: gives {type(given).__name__}, no array of numbers: {error}."
            ) from error
        if values.shape == inputs.shape[:2]:
            return spread_over_items(values, inputs)
        if values.shape != inputs.shape:
            raise RewardError(
                f"reward {self.path}: gives shape {values.shape}, expected {inputs.shape} (groups, traces, items) or "
                f"{inputs.shape[:2]} (groups, traces); return one number an item or a trace."
            )
        return np.where(inputs.valid, values, 0.0)


def load_own_reward(path: str, options: Mapping[str, Any]) -> OwnReward:
    """The function a path names, with options it takes.

    Raises:
        ConfigError: there is no such module or function, or it does not take the options.
    """
    module_name, sign, name = path.partition(":")
    if not sign:
        module_name, _, name = path.rpartition(".")
    if not (module_name and name) or module_name.startswith("."):
        raise ConfigError(f"reward {path!r} is no path; write package.module:function.")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"reward {path}: module {module_name!r} cannot be imported ({error}); check the name, and that its folder "
            "is on PYTHONPATH."
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        what = "has no" if function is None else f"is no function ({type(function).__name__}):"
        raise ConfigError(f"reward {path}: module {module_name!r} {what} {name!r}; write package.module:function.")
    try:
        inspect.signature(function).bind(None, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"reward {path}: {error}; it is called as {name}(inputs, **options) with options {sorted(options)}."
        ) from error
    return OwnReward(path, function, dict(options))
