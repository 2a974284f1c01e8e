"""The knobs of the simulated world, checked when they are set."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any

from onereason.data.simulate.names import DOMAINS, FACETS, PERSONAS, TOPICS
from onereason.errors import ConfigError

GROUP_SIZE = 4
"""Topics of one neighbourhood; the number of topics is a multiple of it."""


def _knob(default: Any, help: str, low: float | None = None, high: float | None = None) -> Any:
    return field(default=default, metadata={"help": help, "low": low, "high": high})


@dataclass(frozen=True)
class WorldConfig:
    """Every knob of a world. The same values give the same bytes."""

    users: int = _knob(2000, "accounts", 1, 10_000_000)
    items: int = _knob(2000, "items over all domains", 1, 10_000_000)
    seed: int = _knob(0, "seed of everything that is drawn", 0, 2**63 - 1)
    noise: float = _knob(0.15, "chance that an event has nothing to do with any interest", 0.0, 0.5)
    chain_length: int = _knob(3, "steps from history to next item: infer, then n - 2 moves, then carry", 3, 10)
    shared_device_share: float = _knob(0.1, "share of accounts that two people use in turns", 0.0, 1.0)
    topics: int = _knob(24, "topics people care about, a multiple of 4", 8, len(TOPICS))
    personas: int = _knob(len(PERSONAS), "kinds of people", 1, len(PERSONAS))
    window: int = _knob(8, "events of the acting person that count as recent evidence", 3, 50)
    saturation: int = _knob(3, "times the live interest stands in the window before it moves", 1, 50)
    min_length: int = _knob(12, "events of the shortest timeline", 5, 10_000)
    max_length: int = _knob(36, "events after which a timeline ends with its next two moves in a row", 5, 10_000)
    popularity_exponent: float = _knob(0.7, "Zipf exponent of popularity inside a cell of items", 0.0, 3.0)
    style_strength: float = _knob(0.5, "share of a person's choices that bear the persona's own style", 0.0, 1.0)
    start: str = _knob("2025-01-01", "first day, YYYY-MM-DD")

    def __post_init__(self) -> None:
        for name, spec in self.__dataclass_fields__.items():
            value, low, high = getattr(self, name), spec.metadata["low"], spec.metadata["high"]
            kind = type(spec.default)
            if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
                raise ConfigError(f"{name} should be of type {kind.__name__}, got {value!r}.")
            if low is not None and not low <= value <= high:
                raise ConfigError(f"{name} must lie between {low} and {high}, got {value}.")
        if self.topics % GROUP_SIZE:
            raise ConfigError(f"topics must be a multiple of {GROUP_SIZE}, got {self.topics}; use 24 or 28.")
        cells = len(DOMAINS) * self.topics * len(FACETS)
        if self.items < cells:
            raise ConfigError(
                f"items must be at least {cells} (4 domains x {self.topics} topics x {len(FACETS)} facets, one item "
                f"each), got {self.items}; raise --items or lower --topics."
            )
        if self.max_length < self.min_length:
            raise ConfigError(f"max_length ({self.max_length}) must be at least min_length ({self.min_length}).")
        if 2 * self.saturation > self.window:
            raise ConfigError(
                f"saturation ({self.saturation}) must be at most half of window ({self.window}), so that an interest "
                "can both grow and be left; raise --window."
            )
        self.start_seconds  # noqa: B018  (a malformed date raises)

    @property
    def num_moves(self) -> int:
        """How often the persona's map is applied between inferring the interest and carrying it into a domain."""
        return self.chain_length - 2

    @property
    def start_seconds(self) -> int:
        """The first day as seconds since 1970, UTC."""
        try:
            day = datetime.datetime.strptime(self.start, "%Y-%m-%d").replace(tzinfo=datetime.UTC)
        except ValueError:
            raise ConfigError(f"start must be a day written YYYY-MM-DD, got {self.start!r}.") from None
        return int(day.timestamp())
