"""Bar charts as inline SVG: rows by task, mean lengths, and a histogram of lengths.

Colours are classes of the page's style sheet, so charts follow its light and dark themes. Every mark carries its
figure as a `<title>`. Names stand above their bars, so that a chart is readable at the width of a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from onereason.data.inspect.lengths import Measured
from onereason.data.inspect.statistics import Scan
from onereason.data.inspect.tables import number, share

WIDTH = 360
_LINE, _BAR = 34, 9  # height of a named bar's place, and of the bar
MOST_BARS = 16
NUM_BINS = 24


@dataclass(frozen=True)
class Bar:
    """A named bar: `(class, length, title)` of each part, what stands at the right, and a tick (None for none)."""

    name: str
    figure: str
    parts: Sequence[tuple[str, float, str]]
    tick: tuple[float, str] | None = None


def task_chart(scan: Scan) -> str:
    """Rows of each task, think and no_think one after another."""
    bars = []
    for task, count in sorted(scan.by["task"].items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_BARS]:
        thinks = scan.cells[task, "think"]
        parts = [
            ("think", thinks, f"{task}, think: {number(thinks)} rows"),
            ("no-think", count - thinks, f"{task}, no_think: {number(count - thinks)} rows"),
        ]
        bars.append(Bar(task, f"{number(count)} rows, {share(thinks, count)} think", parts))
    return named_bars(bars, "Rows by task and mode")


def length_chart(measured: Measured) -> str:
    """Mean tokens of each task and mode; the supervised part is set off, the tick stands at the 95th percentile."""
    bars = []
    for task, mode in sorted(set(measured.cells))[:MOST_BARS]:
        found = measured.summary((task, mode))
        whole, supervised, p95 = found["whole"].mean, found["supervised"].mean, found["whole"].p95
        name = f"{task}, {mode}"
        parts = [
            ("context", whole - supervised, f"{name}: {whole - supervised:,.1f} tokens without loss on average"),
            ("supervised", supervised, f"{name}: {supervised:,.1f} supervised tokens on average"),
        ]
        figure = f"mean {whole:,.0f}, p95 {number(p95)}"
        bars.append(Bar(name, figure, parts, (p95, f"{name}: 95 % of rows have at most {number(p95)} tokens")))
    return named_bars(bars, "Mean length by task and mode")


def named_bars(bars: Sequence[Bar], label: str) -> str:
    """Horizontal bars under their names, on one scale."""
    longest = max([sum(part[1] for part in bar.parts) for bar in bars] + [bar.tick[0] for bar in bars if bar.tick])
    scale = WIDTH / longest if longest else 0.0
    marks = []
    for place, bar in enumerate(bars):
        top = place * _LINE
        marks.append(f'<text class="name" x="0" y="{top + 14}">{escape(shorten(bar.name, 32))}</text>')
        marks.append(f'<text class="figure" x="{WIDTH}" y="{top + 14}" text-anchor="end">{escape(bar.figure)}</text>')
        marks.append(f'<rect class="track" x="0" y="{top + 20}" width="{WIDTH}" height="{_BAR}" rx="2"/>')
        left = 0.0
        for kind, length, title in bar.parts:
            if length > 0:
                marks.append(_rect(kind, left, top + 20, length * scale, _BAR, title))
            left += length * scale
        if bar.tick is not None:
            at = min(bar.tick[0] * scale, WIDTH - 1.5)
            marks.append(_rect("tick", at, top + 17, 1.5, _BAR + 6, bar.tick[1]))
    return _svg(len(bars) * _LINE, label, marks)


def histogram(measured: Measured) -> str:
    """How many rows have how many tokens, think stacked on no_think; the last bar holds all that is longer."""
    whole = measured.lengths.whole
    modes = np.array([mode for _, mode in measured.cells])
    upper = min(float(whole.max()), 2.0 * float(np.percentile(whole, 95)))
    width = nice_step(upper / NUM_BINS)
    count = max(1, int(upper // width) + 1)
    bins = np.minimum(whole // width, count - 1)
    stacks = [(kind, np.bincount(bins[modes == mode], minlength=count)) for kind, mode in KIND_MODES]
    tallest = int(sum(heights for _, heights in stacks).max())  # type: ignore[union-attr]
    plot, step = 150, WIDTH / count
    marks = [f'<line class="axis" x1="0" y1="{plot + 12}" x2="{WIDTH}" y2="{plot + 12}"/>']
    for place in range(count):
        base = plot + 12.0
        low, high = place * width, (place + 1) * width - 1
        span = f"{number(low)} to {number(high)} tokens" if place < count - 1 else f"{number(low)} tokens or more"
        for kind, heights in stacks:
            rows = int(heights[place])
            if rows:
                height = rows / tallest * plot
                base -= height
                title = f"{span}, {kind.replace('-', '_')}: {number(rows)} rows"
                marks.append(_rect(kind, place * step + 0.5, base, max(step - 1, 1), height, title))
    every = max(1, count // 6)
    for place in range(0, count, every):
        marks.append(f'<text class="figure" x="{place * step:.1f}" y="{plot + 28}">{number(place * width)}</text>')
    marks.append(f'<text class="figure" x="{WIDTH}" y="9" text-anchor="end">tallest bar: {number(tallest)} rows</text>')
    return _svg(plot + 34, "Rows by length in tokens", marks)


KIND_MODES = (("no-think", "no_think"), ("think", "think"))


def nice_step(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50 ... that is at least `least`."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if step * factor >= least:
                return step * factor
        step *= 10


def shorten(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 3] + "..."


def _rect(kind: str, x: float, y: float, width: float, height: float, title: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" {place}><title>{escape(title)}</title></rect>'


def _svg(height: int, label: str, marks: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
    return head + "".join(marks) + "</svg>"
