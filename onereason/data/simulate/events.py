"""Events as an interaction table: moments, actions, logged signals."""

from __future__ import annotations

import numpy as np
import polars as pl

from onereason.data.schema import INTERACTION_SCHEMA, check_columns
from onereason.data.simulate.config import WorldConfig
from onereason.data.simulate.names import ACTIONS, DOMAINS, KINDS
from onereason.data.simulate.users import NOISE, Behaviour
from onereason.data.simulate.world import ItemTable

DAY = 86_400
_VIDEO, _PROD, _AD, _LIVING = (DOMAINS.index(d) for d in ("video", "prod", "ad", "living"))


def flat_rows(behaviour: Behaviour) -> tuple[np.ndarray, np.ndarray]:
    """User and step `[N]` of every event, sorted by user, then step."""
    exists = np.arange(len(behaviour.item)) < behaviour.lengths[:, None]  # [U, S]
    user, step = np.nonzero(exists)
    return user, step


def user_names(users: int) -> np.ndarray:
    """`u000000`, `u000001`, ... in order, so that sorting names sorts users."""
    width = max(6, len(str(users - 1)))
    return np.array([f"u{i:0{width}d}" for i in range(users)])


def build_interaction_table(
    config: WorldConfig, items: ItemTable, behaviour: Behaviour, item_ids: list[str], rng: np.random.Generator
) -> pl.DataFrame:
    """The interactions with the dataset's columns and `signal_*` columns (null where a domain does not log them)."""
    user, step = flat_rows(behaviour)
    item, domain = behaviour.item[step, user], behaviour.domain[step, user]
    interested = behaviour.kind[step, user] != NOISE
    n = len(user)

    timestamps = _timestamps(config, behaviour, user, step, rng)
    strong = rng.random(n) < np.where(interested, 0.35, 0.05)
    actions = np.array([ACTIONS[d] for d in DOMAINS])[domain, strong.astype(int)]

    # An item has one length; who does not care leaves early.
    lengths = np.round(np.exp(rng.normal(3.7, 0.5, size=len(items)))) + 5
    duration = np.where(domain == _LIVING, lengths[item] * 30, lengths[item])
    share = np.where(interested, rng.beta(5, 2, size=n), rng.beta(1.2, 5, size=n))
    share = np.where(strong, np.maximum(share, 0.6), share)
    share = np.where(share > 0.92, 1.0, share)
    stars = np.clip(np.round(rng.normal(np.where(interested, 4.3, 2.6), 0.8)), 1, 5)
    timed = (domain == _VIDEO) | (domain == _LIVING)
    bought = (domain == _PROD) & strong
    signals = {
        "signal_watch_seconds": (timed, np.round(share * duration)),
        "signal_duration_seconds": (timed, duration),
        "signal_play_done": (domain == _VIDEO, share >= 1.0),
        "signal_like": (domain == _VIDEO, strong),
        "signal_follow": (domain == _LIVING, strong),
        "signal_buy": (domain == _PROD, strong),
        "signal_convert": (domain == _AD, strong),
        "signal_rating": (bought, stars),
    }
    table = pl.DataFrame(
        {
            "user_id": user_names(config.users)[user],
            "item_id": np.array(item_ids)[item],
            "timestamp": timestamps,
            "action": actions,
            "domain": np.array(DOMAINS)[domain],
            **{name: _nullable(logged, values) for name, (logged, values) in signals.items()},
        }
    )
    check_columns(table, INTERACTION_SCHEMA, "simulated interactions")
    return table


def _timestamps(
    config: WorldConfig, behaviour: Behaviour, user: np.ndarray, step: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Strictly increasing seconds inside a user: minutes inside a session, hours or days between sessions."""
    new = behaviour.new_session[step, user]
    within = rng.integers(20, 900, size=len(user))
    between = (rng.gamma(1.5, 1.2, size=len(user)) * DAY).astype(np.int64) + 6 * 3600
    gap = np.where(new, between, within)
    total = np.cumsum(gap)
    first = step == 0
    base = np.maximum.accumulate(np.where(first, total, 0))
    arrival = rng.integers(0, 30 * DAY, size=config.users)
    return (config.start_seconds + arrival[user] + total - base).astype(np.int64)


def _nullable(logged: np.ndarray, values: np.ndarray) -> pl.Series:
    """float32, null where the event does not log the signal."""
    column = np.where(logged, values, np.nan).astype(np.float32)
    return pl.Series(column, dtype=pl.Float32).fill_nan(None)


def kind_names(kind: np.ndarray) -> np.ndarray:
    return np.array(KINDS)[kind]
