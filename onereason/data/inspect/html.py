"""A corpus' figures and rows as one page that needs nothing else: no network, no library, readable without script."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

from onereason.data.inspect.assets import SCRIPT, STYLE
from onereason.data.inspect.charts import histogram, length_chart, task_chart
from onereason.data.inspect.render import Piece, RenderedRow
from onereason.data.inspect.tables import Inspection, SummaryTable, build_tables, caption_note, number, share
from onereason.io import write_text

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""What a browser may load for the page: nothing but what stands in it."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TEMPLATE_TOKEN = re.compile(r"(&lt;\|(?:im_start|im_end|endoftext)\|&gt;)")
_MODES = (("think", "think"), ("no_think", "no-think"))
_WIDE = (
    "Lengths in tokens",
    "Oddities",
    "Malformed lines",
    "Rejected when the corpus was built",
    "Settings of the corpus",
)


def write_page(inspection: Inspection, path: str | Path) -> None:
    """Writes the page, whole or not at all."""
    write_text(path, render_page(inspection))


def render_page(inspection: Inspection) -> str:
    """The whole page as text."""
    title = escape(f"Corpus {inspection.name}")
    body = [
        f"<header><p>corpus</p><h1>{escape(inspection.name)}</h1><p>{escape(str(inspection.path))}</p></header>",
        render_tiles(inspection),
        "<section><h2>At a glance</h2>" + render_charts(inspection) + "</section>",
        "<section><h2>Figures</h2><div class='grid'>",
        *(render_table(table) for table in build_tables(inspection)),
        "</div></section>",
        render_rows(inspection),
        "<div id='tip' role='status' hidden></div>",
    ]
    return (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + f"\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def escape(text: str) -> str:
    """Text as HTML shows it; control characters, which HTML does not allow, as their symbols."""
    return html.escape(_CONTROL.sub(_symbol, text))


def _symbol(found: re.Match[str]) -> str:
    code = ord(found.group())
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def render_tiles(inspection: Inspection) -> str:
    """The main figures."""
    scan = inspection.scan
    repeats = scan.repeated_prompts
    malformed = scan.malformed.counts.total()
    tiles = [
        ("rows", number(scan.rows), False),
        ("think rows", share(scan.by["mode"]["think"], scan.rows), False),
        ("tasks", number(len(scan.by["task"])), False),
        ("mean tokens a row", f"{inspection.measured.lengths.whole.mean():,.1f}", False),
        ("repeated prompts", number(repeats), False),
    ]
    if scan.rows_with_user:
        tiles.insert(3, ("users", number(scan.users), False))
    if inspection.rejections.counts:
        tiles.append(("rejected when built", number(inspection.rejections.counts.total()), False))
    if malformed:
        tiles.append(("malformed lines", number(malformed), True))
    if scan.repeated_ids:
        tiles.append(("repeated ids", number(scan.repeated_ids), True))
    parts = [
        f"<div class='tile{' warn' if warns else ''}'><b>{escape(figure)}</b><span>{escape(name)}</span></div>"
        for name, figure, warns in tiles
    ]
    return f"<div class='tiles'>{''.join(parts)}</div>"


def render_charts(inspection: Inspection) -> str:
    modes = [("think", "think"), ("no-think", "no_think")]
    parts = [("context", "without loss"), ("supervised", "supervised"), ("tick", "95th percentile")]
    charts = [
        ("Rows by task", task_chart(inspection.scan), modes),
        ("Mean tokens of a row", length_chart(inspection.measured), parts),
        ("Rows by length in tokens", histogram(inspection.measured), modes),
    ]
    panels = [f"<div class='panel'><h3>{title}</h3>{chart}{_legend(keys)}</div>" for title, chart, keys in charts]
    return f"<div class='grid'>{''.join(panels)}</div>"


def _legend(keys: Sequence[tuple[str, str]]) -> str:
    return "<p class='legend'>" + "".join(f"<span><i class='{kind}'></i>{name}</span>" for kind, name in keys) + "</p>"


def render_table(table: SummaryTable) -> str:
    """A table with its title and note; a line that continues the one above carries no rule."""
    kinds = [_cell_class(table, place) for place in range(len(table.columns))]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, table.columns, strict=True))
    lines = []
    for row in table.rows:
        cells = "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        lines.append(f"<tr class='{'first' if row[0] else 'more'}'>{cells}</tr>")
    note = f"<p class='note'>{escape(table.note)}</p>" if table.note else ""
    wide = " wide" if table.title in _WIDE else " broad" if len(table.columns) > 4 else ""
    return (
        f"<div class='panel{wide}'><h3>{escape(table.title)}</h3><div class='scroll'><table>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>{note}</div>"
    )


def _cell_class(table: SummaryTable, place: int) -> str:
    name = table.columns[place]
    if name in ("examples", "value"):
        return " class='long'"
    return "" if place < table.num_text or name == "tokens of" else " class='number'"


def render_rows(inspection: Inspection) -> str:
    """The sampled rows with their filters."""
    rows = sorted(inspection.shown, key=lambda row: (row.row["task"], row.row["mode"], row.number))
    if not rows:
        return ""
    tasks = sorted({row.row["task"] for row in rows})
    captions = "<label><input type='checkbox' id='captions'> captions in the text</label>"
    controls = (
        f"<div class='controls' hidden><label>task {_select('task', tasks)}</label>"
        f"<label>mode {_select('mode', [mode for mode, _ in _MODES])}</label>{captions}<span id='shown'></span></div>"
    )
    note = "Sampled, as the model sees them; what takes a loss is marked. " + caption_note(rows, inspection.has_catalog)
    return (
        f"<section><h2>Rows</h2><p class='note'>{escape(note)}</p>{controls}"
        + "\n".join(map(render_row, rows))
        + "</section>"
    )


def _select(name: str, values: Sequence[str]) -> str:
    options = "".join(f'<option value="{escape(value)}">{escape(value)}</option>' for value in values)
    return f"<select id='{name}'><option value=''>all</option>{options}</select>"


def render_row(row: RenderedRow) -> str:
    """One row as a card."""
    values = row.row
    kind = dict(_MODES)[values["mode"]]
    chips = [("", values["task"]), (f" {kind}", values["mode"]), ("", f"loss {values['loss']}")]
    chips += [("", f"{key} {values[key]}") for key in ("domain", "user", "teacher") if values.get(key) is not None]
    chips += [("", f"{row.whole:,} tokens"), ("", f"{row.prompt:,} prompt"), ("", f"{row.supervised:,} supervised")]
    shown = "".join(f"<span class='chip{extra}'>{escape(text)}</span>" for extra, text in chips)
    return (
        f'<article class="panel" data-task="{escape(values["task"])}" data-mode="{escape(values["mode"])}">'
        f"<h3>{escape(values['id'])} <span class='template'>line {row.number}</span></h3>"
        f"<div class='chips'>{shown}</div>"
        f"<div class='text' tabindex='0'>{render_pieces(row.pieces)}</div>"
        "<p class='note'><button type='button' hidden>show the whole row</button></p></article>"
    )


def render_pieces(pieces: Sequence[Piece]) -> str:
    """The text of a row: `mark` around what is supervised, patterns with their captions."""
    parts = []
    inside = False
    for piece in pieces:
        if piece.supervised != inside:
            parts.append("<mark>" if piece.supervised else "</mark>")
            inside = piece.supervised
        text = escape(piece.text)
        if piece.caption is None:
            parts.append(_TEMPLATE_TOKEN.sub(r"<span class='template'>\1</span>", text))
        else:
            parts.append(f'<span class="item" tabindex="0" data-caption="{escape(piece.caption)}">{text}</span>')
    return "".join(parts) + ("</mark>" if inside else "")
