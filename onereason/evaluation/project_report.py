"""The report of a project: `report.md`, `report.html` (alone, plots within), plots in `report/`, and `results.json`."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from onereason.evaluation.project import EvaluatedStage, TrainedStage, summarise, training_curves
from onereason.evaluation.project_plots import plot_stages, plot_training
from onereason.evaluation.recommendation import BASELINES
from onereason.io import atomic_file, build_manifest, write_json, write_text

MODES = {"model": "no-think", "think": "think", "race": "race"}
PLOTS = "report"
STAGES_PLOT = f"{PLOTS}/stages.png"


@dataclass(frozen=True)
class Table:
    """A table of the report; cells are plain text."""

    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Image:
    """A plot: its path from the report's folder, and what it shows."""

    path: str
    caption: str


Block = str | Table | Image
"""A text that starts with `#` is a heading."""


def write_project_report(
    folder: Path,
    title: str,
    evaluated: Sequence[EvaluatedStage],
    trained: Sequence[TrainedStage],
    seconds: Mapping[str, float],
) -> Path:
    """Writes plots, reports, and last `results.json`; returns the Markdown report.

    Args:
        seconds: stage -> how long it took.
    """
    rows = summarise(evaluated)
    curves = {stage.name: found for stage in trained if (found := training_curves(stage))}
    images = {name: f"{PLOTS}/curves_{_slug(name)}.png" for name in curves}
    figures = {folder / images[name]: plot_training(found) for name, found in curves.items()}
    if rows:
        figures[folder / STAGES_PLOT] = plot_stages(rows, _cutoffs(rows)[-1])
    for path, figure in figures.items():
        with atomic_file(path) as temporary:
            figure.savefig(temporary, dpi=120, format="png", metadata={"Software": None})
    blocks = list(_blocks(title, rows, images, seconds))
    report = folder / "report.md"
    write_text(report, render_markdown(blocks))
    write_text(folder / "report.html", render_html(blocks, title, folder))
    inputs = [*(stage.path for stage in evaluated), *(stage.path for stage in trained)]
    manifest = build_manifest("project_report", inputs=inputs)
    results = {"stages": rows, "curves": curves, "seconds": dict(seconds), "manifest": manifest}
    write_json(folder / "results.json", results)
    return report


def _blocks(
    title: str, rows: Sequence[Mapping[str, Any]], images: Mapping[str, str], seconds: Mapping[str, float]
) -> Iterator[Block]:
    yield f"# {title}"
    if rows:
        ks = _cutoffs(rows)
        yield "## Every stage and mode"
        yield _mode_table(rows, ks)
        yield (
            "Item-level recall. Tokens and seconds are those a user costs: the prompt once, and the traces. A stage "
            "that is evaluated on one domain has a row of that domain."
        )
        yield Image(STAGES_PLOT, "Recall of every mode across stages, and thinking minus not thinking")
        yield "## Thinking minus not thinking"
        yield _difference_table(rows, ks)
        yield "Over the same queries, with the 95 % interval of the paired bootstrap; * where it leaves out 0."
        yield "## By domain"
        yield _domain_table(rows, ks)
        yield "## What traces are like"
        yield _trace_table(rows)
        yield (
            "dLL: log-likelihood of the target after the trace, minus that with an empty think block (nats). Legality: "
            "cited items that are in the catalog; history validity: legal cited items that are in the history."
        )
    if images:
        yield "## How training went"
    for name, path in images.items():
        yield f"### {name}"
        yield Image(path, f"Training of {name}")
    yield "## Time"
    times = [[name, str(timedelta(seconds=round(value)))] for name, value in seconds.items()]
    yield Table(["stage", "time"], [*times, ["all", str(timedelta(seconds=round(sum(seconds.values()))))]])


def _mode_table(rows: Sequence[Mapping[str, Any]], ks: Sequence[str]) -> Table:
    """Whole evaluations: the baselines of the first, then the modes of each."""
    whole = [row for row in rows if row["cost"] is not None]
    table = []
    for row in whole:
        systems = [name for name in row["recall"] if name in MODES or row is whole[0]]
        for name in systems:
            cost = row["cost"].get(name)
            table.append(
                [
                    "" if name in BASELINES else row["stage"],
                    row["domain"],
                    f"{row['queries']:,}",
                    MODES.get(name, name),
                    *(f"{row['recall'][name].get(k, float('nan')):.4f}" for k in ks),
                    *([f"{cost['tokens_per_user']:,.0f}", f"{cost['seconds_per_user']:.3f}"] if cost else ["", ""]),
                ]
            )
    header = ["stage", "domain", "queries", "mode", *(f"Recall@{k}" for k in ks), "tokens a user", "seconds a user"]
    return Table(header, table)


def _difference_table(rows: Sequence[Mapping[str, Any]], ks: Sequence[str]) -> Table:
    found = [
        [row["stage"], row["domain"], *(format_difference(row["think_minus_no_think"].get(k)) for k in ks)]
        for row in rows
        if row["think_minus_no_think"]
    ]
    return Table(["stage", "domain", *(f"Recall@{k}" for k in ks)], found)


def _domain_table(rows: Sequence[Mapping[str, Any]], ks: Sequence[str]) -> Table:
    domains = dict.fromkeys(row["domain"] for row in rows)
    table = [
        [domain, row["stage"], f"{row['queries']:,}"]
        + [" / ".join(f"{row['recall'][m][k]:.4f}" for k in ks if k in row["recall"].get(m, {})) for m in MODES]
        for domain in domains
        for row in rows
        if row["domain"] == domain
    ]
    return Table(["domain", "stage", "queries", *(f"{m}, Recall@{' / '.join(ks)}" for m in MODES.values())], table)


def _trace_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = []
    for row in rows:
        if (traces := row["traces"]) is None:
            continue
        dll = traces.get("delta_loglikelihood")
        table.append(
            [
                row["stage"],
                row["domain"],
                "" if dll is None else f"{dll:+.3f}",
                *("none" if traces[n] is None else f"{traces[n]:.3f}" for n in ("legality", "history_validity")),
                f"{traces['mean_tokens']:.1f}",
                *(f"{traces[n]:,} of {traces['traces']:,}" for n in ("cut_at_the_budget", "empty")),
            ]
        )
    return Table(["stage", "domain", "dLL", "legality", "history validity", "tokens", "cut", "empty"], table)


def format_difference(found: Mapping[str, float] | None) -> str:
    """`+.0120 (+.0040 to +.0200)*`; starred where the interval leaves out 0, empty where there is none."""
    if found is None:
        return ""
    star = "" if found["low"] <= 0 <= found["high"] else "*"
    return f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f}){star}"


def render_markdown(blocks: Sequence[Block]) -> str:
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, Table):
        cells = ([cell.replace("|", "\\|") for cell in row] for row in (block.header, *block.rows))
        header, *rows = (f"| {' | '.join(row)} |" for row in cells)
        return "\n".join([header, f"|{'---|' * len(block.header)}", *rows])
    return f"![{block.caption}]({block.path})" if isinstance(block, Image) else block


def render_html(blocks: Sequence[Block], title: str, folder: Path) -> str:
    """One page that needs no other file; plots are read from `folder`."""
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1f2328}"
        "table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}"
        "td,th{border:1px solid #d1d9e0;padding:.2rem .6rem;text-align:left}img{max-width:100%}"
    )
    body = "\n".join(_html(block, folder) for block in blocks)
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f"<style>{style}</style>\n{body}\n</html>\n"
    )


def _html(block: Block, folder: Path) -> str:
    if isinstance(block, Table):
        lines = [("th", block.header), *(("td", row) for row in block.rows)]
        rows = ("".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) for tag, row in lines)
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
    if isinstance(block, Image):
        data = base64.b64encode((folder / block.path).read_bytes()).decode()
        return f'<img alt="{html.escape(block.caption)}" src="data:image/png;base64,{data}">'
    level = len(block) - len(block.lstrip("#"))
    tag = f"h{level}" if level else "p"
    return f"<{tag}>{html.escape(block[level:].strip())}</{tag}>"


def print_project(evaluated: Sequence[EvaluatedStage], report: Path) -> None:
    """Every stage and domain at the largest cut-off, and where the report stands, on standard output."""
    from rich.console import Console
    from rich.table import Table as RichTable

    rows = summarise(evaluated)
    console = Console()
    if not console.is_terminal:  # a file has no width to keep to
        console = Console(width=140)
    if rows:
        k = _cutoffs(rows)[-1]
        table = RichTable(title=f"Recall@{k}", title_justify="left")
        for name in ("stage", "domain", *MODES.values(), "think minus no-think", "tokens a user", "dLL"):
            table.add_column(name)
        for row, following in zip(rows, [*rows[1:], rows[-1]], strict=True):
            recall = [row["recall"].get(name, {}).get(k) for name in MODES]
            cost = (row["cost"] or {}).get("think")
            dll = (row["traces"] or {}).get("delta_loglikelihood")
            table.add_row(
                row["stage"],
                row["domain"],
                *("" if value is None else f"{value:.4f}" for value in recall),
                format_difference(row["think_minus_no_think"].get(k)),
                f"{cost['tokens_per_user']:,.0f}" if cost else "",
                "" if dll is None else f"{dll:+.3f}",
                end_section=row["stage"] != following["stage"],
            )
        console.print(table)
    console.print(f"report: {report}", highlight=False, soft_wrap=True, markup=False)


def _cutoffs(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The cut-offs of all evaluations, rising."""
    return sorted({k for row in rows for values in row["recall"].values() for k in values}, key=int)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()
