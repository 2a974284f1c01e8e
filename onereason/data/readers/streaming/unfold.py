"""A user's lists as rows of the table `entries`: one row an entry, with the reason where it cannot be used.

Pure text: each function makes SQL from a layout. A list that breaks its family's rules gives one row with that reason
instead of its entries, so that everything found is counted.
"""

from __future__ import annotations

from collections.abc import Iterable

from onereason.data.readers.streaming.engine import sql_name
from onereason.data.readers.streaming.layout import HISTORY_END, MILLISECONDS_FROM, Family, Layout
from onereason.data.readers.streaming.ledger import (
    BAD_ITEM_ID,
    BAD_TIMESTAMP,
    NO_TIMESTAMPS,
    NULL_ITEM,
    SHOWN_ONLY,
    UNEQUAL_LISTS,
)
from onereason.data.readers.streaming.sources import Shard

TIMED, LAGGED, UNTIMED = 0, 1, 2
"""What `t` of an entry is: the time in seconds; seconds before the reference time; places before the oldest time."""

LAG_SECONDS = {"hours": 3600, "days": 86_400}
_LARGEST_MOMENT = 10**14
_LARGEST_LAG = 10**7

MACROS = (
    # Seconds of a moment in seconds or milliseconds; null for what is no moment.
    f"CREATE MACRO moment_seconds(x) AS CASE WHEN x > 0 AND x < {_LARGEST_MOMENT} THEN "
    f"CASE WHEN x >= {MILLISECONDS_FROM} THEN x::BIGINT // 1000 ELSE x::BIGINT END END",
    # Seconds of a day or a moment in text: 20250131, 2025-01-31, 2025-01-31 10:20:30, or a number as above.
    "CREATE MACRO date_seconds(x) AS coalesce(epoch(CASE length(x) WHEN 8 THEN try_strptime(x, '%Y%m%d') "
    "WHEN 10 THEN try_strptime(x, '%Y-%m-%d') "
    "WHEN 19 THEN try_strptime(x, ['%Y-%m-%d %H:%M:%S', '%Y-%m-%dT%H:%M:%S']) END)::BIGINT, "
    "CASE WHEN length(x) > 8 THEN moment_seconds(TRY_CAST(x AS BIGINT)) END)",
    "CREATE MACRO finite(x) AS CASE WHEN isfinite(TRY_CAST(x AS FLOAT)) THEN TRY_CAST(x AS FLOAT) END",
)
"""SQL functions that the queries use."""


def create_entries(layout: Layout) -> str:
    """The table that `select_entries` fills; `weight` is how many entries of a list a row stands for."""
    signals = "".join(f", {sql_name(signal)} FLOAT" for signal in layout.signals)
    return (
        "CREATE OR REPLACE TEMP TABLE entries (user INTEGER, family UTINYINT, position INTEGER, weight INTEGER, "
        "reason UTINYINT, culprit UTINYINT, culprit_length INTEGER, null_lists UTINYINT, domain UTINYINT, pid BIGINT, "
        f"t BIGINT, clock UTINYINT, action UTINYINT{signals})"
    )


def aligned_columns(family: Family) -> list[str]:
    """The list columns that must be as long as the items'; the number of a culprit is its position."""
    return [*([family.times] if family.times else []), *family.signals, *family.checked]


def select_entries(
    layout: Layout, number: int, shard: Shard, start: int, stop: int, first_user: int, lag_unit: str, skipped: str = ""
) -> str:
    """Entries of family `number` of the users in rows `start` to `stop - 1` of a shard, as `entries` holds them.

    Args:
        first_user: number of the user in row 0 of the shard.
        lag_unit: a key of `LAG_SECONDS`.
        skipped: SQL condition, starting with AND, that leaves users out.
    """
    family = layout.users.families[number]
    aligned = [(n, column) for n, column in enumerate(aligned_columns(family)) if not shard.is_null(column)]
    lists = {f"s{n}": _list(shard, column) for n, column in enumerate(family.signals)}
    lists |= {"ids": _list(shard, family.items), "times": _list(shard, family.times)}
    lengths = "".join(f", len({sql_name(column)}) AS n{n}" for n, column in aligned)
    rows = (
        f"SELECT {first_user} + file_row_number AS user, {', '.join(f'{sql} AS {name}' for name, sql in lists.items())}"
        f"{lengths} FROM {shard.source} WHERE file_row_number >= {start} AND file_row_number < {stop}{skipped}"
    )

    unequal = [(f"n{n} <> entries", n) for n, _ in aligned]
    statuses = [(" OR ".join(test for test, _ in unequal), UNEQUAL_LISTS)] if unequal else []
    if family.times is not None and not family.times_optional:
        statuses.append(("entries > 0 AND times IS NULL", NO_TIMESTAMPS))
    signals = [(n, column) for n, column in enumerate(family.signals) if not shard.is_null(column)]
    judged = (
        f"SELECT *, {_case(statuses, '0')} AS status, {_case(unequal, 'NULL')} AS culprit, "
        f"{_case(((test, f'n{n}') for test, n in unequal), 'NULL')} AS culprit_length, "
        f"{' + '.join(f'(s{n} IS NULL)::UTINYINT' for n, _ in signals) or '0'} AS null_lists, "
        f"times IS NULL AS no_times FROM (SELECT *, coalesce(len(ids), 0) AS entries FROM ({rows}))"
    )

    ids = "CASE WHEN status = 0 THEN ids ELSE [NULL] END"  # a list that is left out is one row
    values = "".join(f", unnest(CASE WHEN status = 0 THEN {name} END) AS {name}" for name in lists if name != "ids")
    unfolded = (
        "SELECT user, entries, status, culprit, culprit_length, null_lists, no_times, "
        f"generate_subscripts({ids}, 1) - 1 AS position, unnest({ids}) AS id{values} FROM ({judged})"
    )
    fractional = _is_fractional(shard, family.items)
    signal_values = {signal: f"s{n}" for n, signal in enumerate(family.signals.values())}
    clock, t = _clock(family, _is_fractional(shard, family.times), lag_unit)
    reasons = _reasons(family, fractional, signal_values)
    raised = [(_above_0(signal_values[name]), layout.actions.index(action)) for name, action in family.raised.items()]
    columns = (f"finite({signal_values[s]})" if s in signal_values else "NULL" for s in layout.signals)
    return (
        f"SELECT user, {number}, position, CASE WHEN status = 0 THEN 1 ELSE entries END, "
        f"CASE WHEN status = 0 THEN {_case(reasons, '0')} ELSE status END, culprit, culprit_length, "
        "CASE WHEN status = 0 AND position = 0 THEN null_lists ELSE 0 END, "
        f"{layout.domain_names.index(family.domain)}, TRY_CAST(id AS BIGINT), t, {clock}, "
        f"{_case(raised, str(layout.actions.index(family.action)))}, {', '.join(columns)} "
        f"FROM (SELECT *, {t} AS t FROM ({unfolded}))"
    )


def _clock(family: Family, fractional: bool, lag_unit: str) -> tuple[str, str]:
    """SQL of `clock` and of `t`, null where an entry's time cannot be read (NaN is above any limit)."""
    if family.clock == "history":
        return str(TIMED), f"{HISTORY_END} - entries + position"
    if family.clock == "target":
        return str(TIMED), f"{HISTORY_END} + position"
    if family.clock == "absolute":
        return str(TIMED), "moment_seconds(times)"
    if family.clock == "date":
        return str(TIMED), f"date_seconds({'TRY_CAST(times AS BIGINT)' if fractional else 'times'}::VARCHAR)"
    seconds = f"CASE WHEN times >= 0 AND times <= {_LARGEST_LAG} THEN (times * {LAG_SECONDS[lag_unit]})::BIGINT END"
    if not family.times_optional:
        return str(LAGGED), seconds
    return (
        f"CASE WHEN no_times THEN {UNTIMED} ELSE {LAGGED} END",
        f"CASE WHEN no_times THEN entries - position ELSE {seconds} END",
    )


def _reasons(family: Family, fractional: bool, signal_values: dict[str, str]) -> list[tuple[str, int]]:
    """Tests of an entry and the reason each stands for; the first that holds decides."""
    tests = [("id IS NULL OR isnan(id)" if fractional else "id IS NULL", NULL_ITEM)]
    if fractional:  # from 2^53 on a double does not hold every whole number
        tests.append((f"NOT isfinite(id) OR id <> floor(id) OR abs(id) >= {2**53}", BAD_ITEM_ID))
    tests += [("TRY_CAST(id AS BIGINT) IS NULL", BAD_ITEM_ID), ("t IS NULL", BAD_TIMESTAMP)]
    if family.chosen_by:
        chosen = " OR ".join(_above_0(signal_values[name]) for name in family.chosen_by)
        tests.append((f"NOT ({chosen})", SHOWN_ONLY))
    return tests


def _above_0(value: str) -> str:
    return f"coalesce(finite({value}) > 0, false)"


def _case(tests: Iterable[tuple[str, object]], otherwise: str) -> str:
    """SQL: the value of the first test that holds."""
    branches = " ".join(f"WHEN {test} THEN {value}" for test, value in tests)
    return f"CASE {branches} ELSE {otherwise} END" if branches else otherwise


def _list(shard: Shard, column: str | None) -> str:
    return "NULL::BIGINT[]" if column is None or shard.is_null(column) else sql_name(column)


def _is_fractional(shard: Shard, column: str | None) -> bool:
    return column is not None and shard.types.get(column, "").startswith(("FLOAT", "DOUBLE"))
