"""The result of a layered evaluation as files: `results.json`, `report.md`, `scores.jsonl`.

Every file is written atomically, `results.json` last, so that its presence means the rest is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from onereason.data.chat import parse_answer
from onereason.data.prompts import MODES
from onereason.evaluation.layers.scoring import Scored
from onereason.evaluation.layers.tasks.base import LAYERS
from onereason.evaluation.markdown import markdown_table
from onereason.io import atomic_file, write_json, write_jsonl, write_text

RESULTS_FILE, REPORT_FILE, SCORES_FILE = "results.json", "report.md", "scores.jsonl"
LAYER_TITLES = {
    "R0": "R0 Perception: reading an itemic pattern",
    "R1": "R1 Derivation: one item leads to another",
    "R2": "R2 Evolution: one interest over time",
    "R3": "R3 Recommendation: the next item, written freely",
    "general": "General ability",
}
EXAMPLES_PER_TASK = 2
_CELL = 300  # characters of a question or answer in a table


def write_layer_report(results: Mapping[str, Any], scored: Sequence[Scored], folder: Path) -> None:
    """Writes the three files under temporary names; renames them when all are whole."""
    with ExitStack() as stack:  # leaves in reverse order, so the results come last
        paths = [stack.enter_context(atomic_file(folder / name)) for name in (RESULTS_FILE, REPORT_FILE, SCORES_FILE)]
        write_json(paths[0], results)
        write_text(paths[1], render_layer_report(results, scored))
        write_jsonl(paths[2], [s.to_dict() for s in scored])


TABLE_HEADER = ["task", "metric", "no-think", "think", "difference", "malformed"]
COST_HEADER = ["task", "mode", "rows", "malformed", "cut traces", "truncated", "prompt tokens", "tokens", "seconds"]
HARNESS_HEADER = ["task", "metric", "value"]


def layer_tables(results: Mapping[str, Any], intervals: bool = True) -> Iterator[tuple[str, list[list[str]]]]:
    """Each layer that was evaluated, and the rows of its table under `TABLE_HEADER`.

    Args:
        intervals: whether values stand with their 95 % intervals; without, a difference whose interval leaves out 0 is
            starred.
    """
    for layer in LAYERS:
        rows = []
        for name, table in results["tasks"].items():
            if table["layer"] != layer:
                continue
            modes = [table["modes"].get(mode) for mode in MODES]
            malformed = "/".join("-" if m is None else f"{_share(m['counts']):.0%}" for m in modes)
            for metric in dict.fromkeys(m for found in table["modes"].values() for m in found["metrics"]):
                values = [_value(found and found["metrics"].get(metric), intervals) for found in modes]
                difference = _difference(table["difference"].get(metric), intervals)
                rows.append([name, metric, *values, difference, malformed])
        if rows:
            yield layer, rows


def notes(results: Mapping[str, Any]) -> list[str]:
    """Why values are missing: a line a metric and reason."""
    missing = [
        f"{name} {metric}: {found['reason'].rstrip('.')}"
        for name, table in results["tasks"].items()
        for mode in table["modes"].values()
        for metric, found in mode["metrics"].items()
        if found["value"] is None
    ]
    return list(dict.fromkeys(missing))


def partial_notes(results: Mapping[str, Any]) -> list[str]:
    """Values that do not stand for all rows: a line a metric and mode."""
    return [
        f"{name} {metric} ({mode}): {missing:,} of {found['counts']['rows']:,} rows have none, and do not count"
        for name, table in results["tasks"].items()
        for mode, found in table["modes"].items()
        for metric, value in found["metrics"].items()
        if (missing := value.get("rows_without_grade", 0) + value.get("rows_without_value", 0))
    ]


def harness_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """What lm-evaluation-harness found, under `HARNESS_HEADER`."""
    return [[task, m, f"{v:.4f}"] for task, found in results["lm_eval"].items() for m, v in found.items()]


def _share(counts: Mapping[str, int]) -> float:
    return counts["malformed"] / counts["rows"]


def _value(metric: Mapping[str, Any] | None, interval: bool) -> str:
    if metric is None:
        return "-"
    if metric["value"] is None:
        return "none"
    if not interval:
        return f"{metric['value']:.3f}"
    return f"{metric['value']:.4f} ({metric['low']:.4f} to {metric['high']:.4f})"


def _difference(found: Mapping[str, Any] | None, interval: bool) -> str:
    if found is None:
        return "-"
    if not interval:
        return f"{found['difference']:+.3f}" + ("" if found["low"] <= 0 <= found["high"] else "*")
    return f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"


def cost_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Counts, and cost of a row, of each task and mode, under `COST_HEADER`."""
    rows = []
    for name, table in results["tasks"].items():
        for mode, found in table["modes"].items():
            counts = [f"{n:,}" for n in found["counts"].values()]
            cost = found["cost"]
            tokens = [f"{cost[key]:,.1f}" for key in ("prompt_tokens_per_row", "tokens_per_row")]
            rows.append([f"{name} (v{table['version']})", mode, *counts, *tokens, f"{cost['seconds_per_row']:.3f}"])
    return rows


def render_layer_report(results: Mapping[str, Any], scored: Sequence[Scored]) -> str:
    """The report as Markdown."""
    lines = ["# Layered evaluation", ""]
    for layer, rows in layer_tables(results):
        lines += [f"## {LAYER_TITLES[layer]}", "", *markdown_table(TABLE_HEADER, rows), ""]
    if results["tasks"]:
        lines += [
            "Values are means over rows with a 95 % bootstrap interval; differences are thinking minus not thinking, "
            "over the rows asked in both modes (paired bootstrap). Malformed answers, which cannot be read or lack the "
            "shape that was asked for, score 0; their share is given without and with thinking. What is measured of "
            "traces has no value without thinking.",
            "",
            *(f"- No value for {note}." for note in notes(results)),
            *(f"- {note}." for note in partial_notes(results)),
            "",
            "## Counts, and cost of a row",
            "",
            *markdown_table(COST_HEADER, cost_rows(results)),
            "",
            "Tokens are those of the whole turn, trace included. A cut trace ran out of its budget and was closed for "
            "the model; a truncated answer ran into its own limit.",
            "",
        ]
    if results["lm_eval"]:
        lines += ["## lm-evaluation-harness", "", *markdown_table(HARNESS_HEADER, harness_rows(results)), ""]
    if scored:
        lines += ["## Examples", "", *_examples(scored)]
    inputs = [[_code(name), _code(digest)] for name, digest in results["manifest"]["inputs"].items()]
    return "\n".join([*lines, "## Inputs", "", *markdown_table(["file", "SHA-256"], inputs), ""])


def _examples(scored: Sequence[Scored]) -> Iterator[str]:
    """The first rows of each task: question, reference, and the answers of both modes side by side."""
    for task in dict.fromkeys(s.row.task for s in scored):
        yield f"### {task}"
        yield ""
        rows = list(dict.fromkeys(s.row.id for s in scored if s.row.task == task))[:EXAMPLES_PER_TASK]
        for row_id in rows:
            by_mode = {s.generation.mode: s for s in scored if s.row.id == row_id}
            row = next(iter(by_mode.values())).row
            cells = [["question", _code(row.messages[-1]["content"])], ["reference", _code(_reference(row.reference))]]
            for mode, s in by_mode.items():
                trace = parse_answer(s.generation.text).think
                if trace:
                    cells.append([f"{mode}: trace", _code(trace)])
                read = "malformed" if s.extraction.malformed else ", ".join(_score(m, v) for m, v in s.scores.items())
                cells.append([f"{mode}: answer", f"{_code(s.answer)} ({read})"])
            yield from markdown_table([_code(row_id), ""], cells)
            yield ""


def _reference(reference: Mapping[str, Any]) -> str:
    values = list(reference.values())
    return values[0] if len(values) == 1 and isinstance(values[0], str) else json.dumps(reference, ensure_ascii=False)


def _score(metric: str, value: float | None) -> str:
    return f"{metric} {'none' if value is None else format(value, '.2f')}"


def _code(text: str) -> str:
    """Text as a code span on one line of a table, shortened; its own bars and backticks cannot end cell or span."""
    line = " ".join(text.split()).replace("`", "'").replace("|", "\\|")
    return f"`{line[:_CELL] + ' ...' if len(line) > _CELL else line}`" if line else "(empty)"
