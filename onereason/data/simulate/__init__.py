"""The simulated world: four domains of items, users whose next item follows from a chain of steps, and the truth.

`simulate_world(WorldConfig(users=2000))` makes the tables in memory, `write_world` puts them on disk, `general_rows`
makes simple language-instruction rows. The package's own import is light: numpy and Polars load with the first call.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from onereason.data.simulate.config import WorldConfig

if TYPE_CHECKING:
    from onereason.data.simulate.general import general_rows
    from onereason.data.simulate.learnability import measure_learnability
    from onereason.data.simulate.write import World, simulate_world, write_world

__all__ = ["World", "WorldConfig", "general_rows", "measure_learnability", "simulate_world", "write_world"]

_HOMES = {
    "World": "write",
    "general_rows": "general",
    "measure_learnability": "learnability",
    "simulate_world": "write",
    "write_world": "write",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
