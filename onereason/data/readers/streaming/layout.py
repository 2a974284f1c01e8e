"""How a public corpus is laid out: which tables it has, and how a user's lists become interactions.

A corpus is one table of users (a row a user, a list column an ordered sequence, further list columns aligned with it),
tables of semantic ids, of captions and of tags. `explorer` and `recif` declare theirs with these records; nothing below
knows a column of either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Clock = Literal["absolute", "date", "lag", "history", "target"]

HISTORY_END = 1_000_000
"""Where a corpus knows only the order: the moment between history and target. The last event of a history list lies one
before it, the first event of a target list at it, so that a temporal split at it parts the two."""

MILLISECONDS_FROM = 10**11
"""A moment of this size or more is in milliseconds (as seconds it would lie after the year 5000)."""


@dataclass(frozen=True)
class Family:
    """One primary sequence of a user with the lists aligned to it."""

    name: str
    """What reports call it."""
    domain: str
    """Domain of its items."""
    items: str
    """List column of the item ids."""
    action: str
    """What the user did."""
    clock: Clock
    """Where the time of an entry comes from: `absolute` seconds or milliseconds, `date` a day such as 20250131, `lag`
    hours (or days) before the user's reference time, `history` or `target` the order alone."""
    times: str | None = None
    """List column of the times, for the first three clocks."""
    times_optional: bool = False
    """Whether a table or a user may lack the times: the entries then stand, in order, before all that have a time."""
    signals: Mapping[str, str] = field(default_factory=dict)
    """List column -> the signal it becomes, without the prefix `signal_`."""
    optional: frozenset[str] = frozenset()
    """Signal columns that a table may lack."""
    checked: tuple[str, ...] = ()
    """Aligned list columns that are not imported; where a table has them, their lengths are checked."""
    chosen_by: tuple[str, ...] = ()
    """Signals of which at least one must be above 0 for an entry to be an interaction; all entries are where empty."""
    raised: Mapping[str, str] = field(default_factory=dict)
    """Signal -> the action an entry has where the signal is above 0; the first that holds decides."""


@dataclass(frozen=True)
class UserTable:
    """One row a user."""

    names: tuple[str, ...]
    """The table's names; the first that is found is read."""
    families: tuple[Family, ...]
    id: str | None = None
    """Column of the user's id; without one, a user is numbered by row."""
    reference: str | None = None
    """Column of the moment lags count back from; without a value there, the user's newest time is taken."""
    extra: tuple[str, ...] = ()
    """Whole-number columns kept in `users.parquet` where the table has them."""


@dataclass(frozen=True)
class ItemTable:
    """A table with one row an item: semantic ids, captions or tags."""

    names: tuple[str, ...]
    """The table's names; the first that is found is read."""
    values: tuple[str, ...]
    """Names of the column that holds the value; the first that is found is read."""
    domains: tuple[str, ...] = ()
    """Domains its rows speak of, where it has no column `domain`."""


@dataclass(frozen=True)
class Layout:
    """A public corpus."""

    reader: str
    """Name of the reader."""
    format: str
    """Preset of the itemic format of its semantic ids."""
    users: UserTable
    sids: tuple[ItemTable, ...]
    captions: tuple[ItemTable, ...]
    tags: tuple[ItemTable, ...]
    domains: Mapping[str, str]
    """Domain as the tables write it -> domain of the item ids, in the order of their numbers."""
    actions: tuple[str, ...]
    """Every action, the weakest first: of two interactions with one item at one moment the stronger stays."""
    rerouted: Mapping[str, str] = field(default_factory=dict)
    """Domain of a family -> the domain its ids are looked up in when the first has none."""
    captions_yield: Mapping[str, str] = field(default_factory=dict)
    """Domain -> another whose items of the same number own the caption, where captions name no domain."""

    @property
    def domain_names(self) -> tuple[str, ...]:
        """Domains of the item ids; a domain's number is its position."""
        return tuple(dict.fromkeys(self.domains.values()))

    @property
    def signals(self) -> tuple[str, ...]:
        """Every signal, in the order the families name them."""
        return tuple(dict.fromkeys(s for family in self.users.families for s in family.signals.values()))
