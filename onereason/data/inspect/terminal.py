"""A corpus' figures and rows in the terminal: colours where there are any, plain text in a pipe or a file."""

from __future__ import annotations

import re

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from onereason.data.inspect.render import RenderedRow
from onereason.data.inspect.tables import Inspection, SummaryTable, build_tables, caption_note

OPEN, CLOSE = "[[", "]]"
"""Around what is supervised, where there are no colours."""
SUPERVISED, ITEM, CAPTION, TEMPLATE = "black on green", "cyan", "italic magenta", "dim"
PLAIN_WIDTH = 160
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TEMPLATE_TOKEN = re.compile(r"<\|(?:im_start|im_end|endoftext)\|>")


def build_console() -> Console:
    """Standard output; in a pipe or a file the lines are wide and hold no escape codes."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH, no_color=True)


def print_inspection(inspection: Inspection, console: Console, num_rows: int) -> None:
    """All tables, then the first `num_rows` of the shown rows, by line."""
    console.print(Text(f"corpus {inspection.path}", style="bold"), soft_wrap=True)
    for table in build_tables(inspection):
        console.print()
        console.print(render_table(table, console))
        if table.note:
            console.print(Text(table.note, style="dim"))
    rows = sorted(inspection.shown[:num_rows], key=lambda row: row.number)
    if not rows:
        return
    console.print()
    marked = "on green" if has_colours(console) else f"between {OPEN} and {CLOSE}"
    note = caption_note(rows, inspection.has_catalog)
    console.print(Text(f"Rows as the model sees them; what is supervised stands {marked}. {note}"))
    for row in rows:
        console.print()
        console.print(Text(describe_row(row), style="bold"), soft_wrap=True)
        console.print(render_row(row, has_colours(console)), soft_wrap=True)


def has_colours(console: Console) -> bool:
    return console.is_terminal and not console.no_color and console.color_system is not None


def describe_row(row: RenderedRow) -> str:
    """One line: where it stands, what it is, how long it is."""
    named = ((key, row.row.get(key)) for key in ("domain", "user", "teacher"))
    parts = [f"line {row.number}", str(row.row["id"]), row.row["task"], row.row["mode"], f"loss {row.row['loss']}"]
    parts += [f"{key} {value}" for key, value in named if value is not None]
    parts.append(f"{row.whole:,} tokens, {row.prompt:,} of the prompt, {row.supervised:,} supervised")
    return " | ".join(show_controls(part) for part in parts)


def render_table(table: SummaryTable, console: Console) -> Table:
    shown = Table(
        title=table.title,
        title_justify="left",
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        padding=(0, 2, 0, 0) if not console.is_terminal else (0, 1),
        pad_edge=False,
    )
    for place, name in enumerate(table.columns):
        is_text = place < table.num_text or name == "tokens of"
        shown.add_column(Text(name), justify="left" if is_text else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(show_controls(cell)) for cell in row))
    return shown


def render_row(row: RenderedRow, colours: bool) -> Text:
    """The row's text with what is supervised highlighted, or bracketed without colours; captions behind patterns."""
    text = Text()
    inside = False
    for piece in row.pieces:
        if not colours and piece.supervised != inside:
            text.append(OPEN if piece.supervised else CLOSE)
            inside = piece.supervised
        style = SUPERVISED if piece.supervised else ITEM if piece.caption is not None else ""
        text.append(show_controls(piece.text), style=style if colours else "")
        if piece.caption is not None:
            text.append(f" (= {show_controls(piece.caption)})", style=CAPTION if colours else "")
    if inside:
        text.append(CLOSE)
    if colours:
        text.highlight_regex(_TEMPLATE_TOKEN, TEMPLATE)
    return text


def show_controls(text: str) -> str:
    """Text whose control characters (escape codes, bells, carriage returns) are spelled out instead of obeyed."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)
