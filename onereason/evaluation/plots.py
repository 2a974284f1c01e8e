"""The plots of an evaluation report; each is a function of `results.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLOURS = {
    "model": "#1f6feb",
    "think": "#8250df",
    "race": "#1a7f37",
    "popularity": "#9a9a9a",
    "markov": "#e08a1e",
}


def metric_title(name: str) -> str:
    """`recall_at_10` -> `Recall@10`."""
    metric, _, k = name.rpartition("_at_")
    short = {"recall": "Recall", "ndcg": "NDCG", "mrr": "MRR"}
    return f"{short.get(metric, metric.replace('_', ' '))}@{k}"


def plot_curves(results: Mapping[str, Any]) -> Figure:
    """Recall over k of every system."""
    figure, axes = _new_plot("Recall over k (item level)", "k", "recall at k")
    for system in results["systems"]:
        axes.plot(results["curves"]["k"], results["curves"][system], marker=".", label=system, color=COLOURS[system])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure


def plot_ranks(results: Mapping[str, Any]) -> Figure:
    """At which rank the first model's first hit stands."""
    ranks = results["hit_ranks"]
    total = sum(ranks["queries"]) + ranks["none"]
    system = results["systems"][0]
    figure, axes = _new_plot(
        f"Rank of the first hit, {system} ({ranks['none']:,} of {total:,} queries without one)", "rank", "queries"
    )
    axes.bar(ranks["k"], ranks["queries"], color=COLOURS[system])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_axisbelow(True)
    return figure


def plot_history(results: Mapping[str, Any]) -> Figure:
    """Recall by length of the history, a bar a system."""
    groups, metric, systems = results["by_history_length"], results["difference"]["metric"], results["systems"]
    title = metric_title(metric)
    figure, axes = _new_plot(f"{title} by length of the history", "items in the history (queries)", title)
    width = 0.8 / len(systems)
    for number, system in enumerate(systems):
        places = [i + (number - (len(systems) - 1) / 2) * width for i in range(len(groups))]
        axes.bar(
            places, [g[system][metric] for g in groups.values()], 0.92 * width, label=system, color=COLOURS[system]
        )
    axes.set_xticks(range(len(groups)), [f"{name}\n({g['queries']:,})" for name, g in groups.items()])
    axes.set_axisbelow(True)
    axes.margins(y=0.25)  # the legend stands above the bars
    axes.legend(frameon=False, ncols=len(systems), loc="upper center")
    return figure


def plot_path(results: Mapping[str, Any]) -> Figure:
    """The target's mean log-likelihood along the trace, and without one."""
    traces = results["traces"]
    figure, axes = _new_plot("Log-likelihood of the target along the trace", "share of the trace", "log p (nats)")
    axes.plot(traces["path_share"], traces["loglikelihood_path"], marker=".", color=COLOURS["think"], label="think")
    axes.axhline(
        traces["loglikelihood_without_trace"], color=COLOURS["model"], linestyle="--", label="empty think block"
    )
    axes.legend(frameon=False)
    return figure


def _new_plot(title: str, x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    return figure, axes
