"""A corpus' figures as tables of text, the same for the terminal and the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onereason.data.inspect.lengths import KINDS, LengthSummary, Measured
from onereason.data.inspect.render import NO_CAPTION, UNKNOWN_ITEM, RenderedRow
from onereason.data.inspect.statistics import KEYS, Reasons, Scan

MOST_VALUES = 20
"""Values of a key that get a line of their own."""


@dataclass(frozen=True)
class SummaryTable:
    """A table of text.

    Attributes:
        title: what it shows.
        columns: names; the first `num_text` hold words, the others numbers.
        rows: cells, one for each column.
        num_text: see `columns`.
        note: a line below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_text: int = 1
    note: str = ""


@dataclass(frozen=True)
class Inspection:
    """All that is known of a corpus.

    Attributes:
        path: the rows file.
        scan: counts over all rows.
        measured: lengths, of all rows or of a sample.
        rejections: what the corpus' builder left out, and why.
        manifest: of the corpus folder, empty without one.
        shown: rows as the model sees them, one of each task and mode in turn.
        tokenizer_note: whose tokens are counted.
        has_catalog: whether itemic patterns carry captions.
        filters: which rows count, where not all do.
    """

    path: Path
    scan: Scan
    measured: Measured
    rejections: Reasons
    manifest: Mapping[str, Any] = field(default_factory=dict)
    shown: Sequence[RenderedRow] = ()
    tokenizer_note: str = ""
    has_catalog: bool = False
    filters: str = ""

    @property
    def name(self) -> str:
        """The corpus folder's name, or the file's."""
        return self.path.resolve().parent.name if self.path.name == "rows.jsonl" else self.path.name


def build_tables(inspection: Inspection) -> list[SummaryTable]:
    """Overview, task by mode, other keys, lengths, oddities, malformed lines, rejections, settings; empty ones left
    out."""
    scan = inspection.scan
    tables = [
        overview_table(inspection),
        cell_table(scan),
        *(key_table(scan, key) for key in ("domain", "teacher", "loss")),
    ]
    tables.append(length_table(inspection))
    tables.append(reason_table("Oddities", scan.notes, "rows", "Rows that are well formed and contradict themselves."))
    tables.append(
        reason_table("Malformed lines", scan.malformed, "lines", "Lines that hold no row; they count nowhere else.")
    )
    tables.append(reason_table("Rejected when the corpus was built", inspection.rejections, "count"))
    tables.append(settings_table(inspection.manifest))
    return [table for table in tables if table.rows]


def overview_table(inspection: Inspection) -> SummaryTable:
    scan = inspection.scan
    rows = [("rows", number(scan.rows)), ("share of think rows", share(scan.by["mode"]["think"], scan.rows))]
    if scan.filtered:
        rows.append(("rows kept out by the filter", number(scan.filtered)))
    rows.append(("malformed lines", number(scan.malformed.counts.total())))
    if scan.rows_with_user:
        rows.append(("users", number(scan.users)))
        rows.append(("rows that name a user", number(scan.rows_with_user)))
    for what, count in (
        ("an id", scan.repeated_ids),
        ("a prompt", scan.repeated_prompts),
        ("a prompt and its answer", scan.repeated_rows),
    ):
        rows.append((f"rows that repeat {what}", number(count)))
    return SummaryTable("Overview", ("", "count"), tuple(rows), note=inspection.filters)


def cell_table(scan: Scan) -> SummaryTable:
    """Tasks by modes, with the share of think rows; the last line is the sum."""
    lines = []
    for task, count in sorted(scan.by["task"].items(), key=lambda pair: (-pair[1], pair[0])):
        thinks = scan.cells[task, "think"]
        lines.append((task, number(count), number(thinks), number(count - thinks), share(thinks, count)))
    thinks = scan.by["mode"]["think"]
    lines.append(("all", number(scan.rows), number(thinks), number(scan.rows - thinks), share(thinks, scan.rows)))
    return SummaryTable("Rows by task and mode", ("task", "rows", "think", "no_think", "think share"), tuple(lines))


def key_table(scan: Scan, key: str) -> SummaryTable:
    """Rows by one of `KEYS`, the most frequent first."""
    assert key in KEYS
    counts = scan.by[key]
    if set(counts) == {"-"}:
        return SummaryTable(f"Rows by {key}", (key, "rows", "share"), ())
    common = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    lines = [(value, number(count), share(count, scan.rows)) for value, count in common[:MOST_VALUES]]
    rest = common[MOST_VALUES:]
    if rest:
        total = sum(count for _, count in rest)
        lines.append((f"{len(rest)} others", number(total), share(total, scan.rows)))
    return SummaryTable(f"Rows by {key}", (key, "rows", "share"), tuple(lines))


def length_table(inspection: Inspection) -> SummaryTable:
    """Mean, p50, p95 and max tokens of prompt, supervised part and whole row, by task and mode and over all."""
    measured, scan = inspection.measured, inspection.scan
    lines = []
    for cell in [*sorted(set(measured.cells)), None]:
        summaries = measured.summary(cell)
        count = sum(cell in (None, found) for found in measured.cells)
        names = ("all", "") if cell is None else cell
        for kind in KINDS:
            first = (*names, number(count)) if kind == KINDS[0] else ("", "", "")
            lines.append((*first, kind, *length_cells(summaries[kind])))
    columns = ("task", "mode", "rows", "tokens of", "mean", "p50", "p95", "max")
    return SummaryTable(
        "Lengths in tokens",
        columns,
        tuple(lines),
        2,
        f"{length_note(measured, scan)} {inspection.tokenizer_note}".strip(),
    )


def length_cells(summary: LengthSummary) -> tuple[str, str, str, str]:
    return f"{summary.mean:,.1f}", number(summary.p50), number(summary.p95), number(summary.max)


def length_note(measured: Measured, scan: Scan) -> str:
    if len(measured.cells) == scan.rows:
        return "Over all rows."
    return f"Over a random sample of {number(len(measured.cells))} of {number(scan.rows)} rows."


def reason_table(title: str, reasons: Reasons, what: str, note: str = "") -> SummaryTable:
    """Reasons with counts and examples, the most frequent first."""
    ordered = sorted(reasons.counts.items(), key=lambda pair: (-pair[1], pair[0]))
    lines = tuple((reason, "\n".join(reasons.examples.get(reason, [])), number(count)) for reason, count in ordered)
    return SummaryTable(title, ("reason", "examples", what), lines, 2, note)


def settings_table(manifest: Mapping[str, Any]) -> SummaryTable:
    """What the corpus was made with: settings (language, prompt version ...), seed, inputs and versions."""
    lines = []
    config = manifest.get("config")
    if isinstance(config, Mapping):
        lines += [(str(name), _setting(value)) for name, value in config.items()]
    if manifest.get("seed") is not None:
        lines.append(("seed", _setting(manifest["seed"])))
    for key in ("inputs", "versions"):
        if isinstance(manifest.get(key), Mapping):
            lines += [(f"{key[:-1]} {name}", _setting(value)) for name, value in manifest[key].items()]
    return SummaryTable("Settings of the corpus", ("setting", "value"), tuple(lines), 2)


def caption_note(rows: Sequence[RenderedRow], has_catalog: bool) -> str:
    """How many patterns of some rows the catalog knows."""
    if not has_catalog:
        return "Items show no caption: no catalog is known (--catalog or --model)."
    found = [piece.caption for row in rows for piece in row.pieces if piece.caption is not None]
    known = len(found) - found.count(UNKNOWN_ITEM)
    note = f"{number(known)} of {number(len(found))} itemic patterns are items of the catalog"
    blank = found.count(NO_CAPTION)
    return f"{note}, {number(blank)} of them without a caption." if blank else f"{note}."


def number(value: int) -> str:
    return f"{value:,}"


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
