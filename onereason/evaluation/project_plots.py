"""The plots of a project's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from onereason.evaluation.plots import COLOURS

Curves = Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]
COLUMNS = 3


def plot_stages(rows: Sequence[Mapping[str, Any]], k: str) -> Figure:
    """Recall@k of every mode across stages, a column a domain; under it thinking minus not thinking, with intervals."""
    domains = list(dict.fromkeys(row["domain"] for row in rows))
    figure, axes = _grid(2, len(domains))
    for column, domain in enumerate(domains):
        own = [row for row in rows if row["domain"] == domain]
        names, places = [row["stage"] for row in own], range(len(own))
        top, bottom = axes[0][column], axes[1][column]
        for system, title in (("model", "no-think"), ("think", "think"), ("race", "race")):
            values = [row["recall"].get(system, {}).get(k, float("nan")) for row in own]
            top.plot(places, values, marker="o", color=COLOURS[system], label=title)
        found = [(place, row["think_minus_no_think"].get(k)) for place, row in zip(places, own, strict=True)]
        for place, d in ((place, d) for place, d in found if d is not None):
            spread = [[d["difference"] - d["low"]], [d["high"] - d["difference"]]]
            bottom.errorbar([place], [d["difference"]], yerr=spread, fmt="o", capsize=3, color=COLOURS["think"])
        bottom.axhline(0, color="#9a9a9a", linewidth=1)
        top.set_title(f"{domain}: Recall@{k}")
        bottom.set_title("think minus no-think, 95 %")
        top.set_ylim(bottom=0)
        for panel in (top, bottom):
            panel.set_xticks(list(places), names, rotation=30, ha="right")
            panel.margins(x=0.15)
    axes[0][0].legend(frameon=False)
    return figure


def plot_training(curves: Curves) -> Figure:
    """A training run's curves over its steps, a panel a kind of figure (`project.training_curves`)."""
    figure, axes = _grid(-(-len(curves) // COLUMNS), min(COLUMNS, len(curves)))
    panels = [panel for line in axes for panel in line]
    for panel, (title, lines) in zip(panels, curves.items(), strict=False):
        for name, points in lines.items():
            panel.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else None, label=name)
        panel.set(title=title, xlabel="step")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.legend(frameon=False, fontsize="x-small")
    for empty in panels[len(curves) :]:
        empty.set_visible(False)
    return figure


def _grid(rows: int, columns: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(4.2 * columns, 3.1 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.3)
        panel.title.set_fontsize("medium")
    return figure, axes
