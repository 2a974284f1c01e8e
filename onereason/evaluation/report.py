"""The result of an evaluation as files: `results.json`, a Markdown report and its plots.

Every file is written atomically, `results.json` last, so that its presence means the rest is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from onereason.errors import ConfigError, StorageError
from onereason.evaluation.runner import SYSTEMS
from onereason.io import atomic_file, require_writable_parent, storage_errors, write_json, write_text

COLOURS = {"model": "#1f6feb", "popularity": "#9a9a9a", "markov": "#e08a1e"}


@dataclass(frozen=True)
class ReportPaths:
    """Where the files of one evaluation stand: beside each other, the report named after the results."""

    results: Path
    report: Path
    curve: Path
    ranks: Path
    history: Path

    @property
    def all(self) -> tuple[Path, ...]:
        return self.results, self.report, self.curve, self.ranks, self.history


def report_paths(out: str | Path) -> ReportPaths:
    """`results.json` -> `report.md`, `recall_curve.png`, ...; `x.json` -> `x_report.md`, `x_recall_curve.png`, ..."""
    out = Path(out)
    if out.suffix != ".json":
        raise ConfigError(f"--out {out} should name a .json file, e.g. {out / 'results.json'}.")
    prefix = "" if out.stem == "results" else f"{out.stem}_"
    names = ("report.md", "recall_curve.png", "hit_ranks.png", "recall_by_history.png")
    return ReportPaths(out, *(out.parent / f"{prefix}{name}" for name in names))


def require_free(paths: ReportPaths, overwrite: bool) -> None:
    """`StorageError` before long work where a file stands in the way or the folder cannot be written."""
    for path in paths.all:
        if path.is_dir():
            raise StorageError(f"{path} is a folder; choose another --out.")
        if path.exists() and not overwrite:
            raise StorageError(f"{path} exists; choose another --out or pass --overwrite.")
    with storage_errors(paths.results):
        require_writable_parent(paths.results)


def write_report(results: Mapping[str, Any], paths: ReportPaths) -> None:
    """Writes the plots, the report and the results under temporary names; renames them when all are whole."""
    with ExitStack() as stack:  # leaves in reverse order, so the results come last
        temporary = {path: stack.enter_context(atomic_file(path)) for path in paths.all}
        for path, plot in ((paths.curve, _plot_curves), (paths.ranks, _plot_ranks), (paths.history, _plot_history)):
            plot(results).savefig(temporary[path], dpi=120, metadata={"Software": None})
        write_text(temporary[paths.report], render_report(results, paths))
        write_json(temporary[paths.results], results)


def metric_names(results: Mapping[str, Any]) -> list[str]:
    """The metrics of the tables, in order."""
    return list(results["metrics"]["model"]["item"])


def metric_title(name: str) -> str:
    """`recall_at_10` -> `Recall@10`."""
    metric, _, k = name.rpartition("_at_")
    return f"{ {'recall': 'Recall', 'ndcg': 'NDCG', 'mrr': 'MRR'}[metric] }@{k}"


def system_rows(results: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float]]]:
    """The main table's rows: name -> metrics; the model at item and at sid level."""
    metrics = results["metrics"]
    rows = [("model", metrics["model"]["item"])]
    rows += [(name, metrics[name]["item"]) for name in SYSTEMS[1:]]
    return [*rows, ("model, sid level", metrics["model"]["sid"])]


def render_report(results: Mapping[str, Any], paths: ReportPaths) -> str:
    """The report as Markdown."""
    counts, cost, config = results["counts"], results["cost"], results["manifest"]["config"]
    names = metric_names(results)
    difference = results["difference"]
    beats = "beats" if difference["low"] > 0 else "trails" if difference["high"] < 0 else "is level with"
    lines = [
        f"# Next-item evaluation: {config['split']} split",
        "",
        f"Every query's list is the model's own: {config['num_beams']} exact constrained beams over "
        f"{counts['items']:,} items ({counts['sids']:,} sids), "
        + ("items of the history excluded." if config["exclude_seen"] else "no item excluded."),
        "",
        *_table(["system", *map(metric_title, names)], [[n, *_values(m, names)] for n, m in system_rows(results)]),
        "",
        f"The model {beats} the better baseline ({difference['baseline']}) at {metric_title(difference['metric'])}: "
        f"difference {difference['difference']:+.4f}, 95 % interval {difference['low']:+.4f} to "
        f"{difference['high']:+.4f} (paired bootstrap).",
        "",
        f"![Recall over k]({paths.curve.name})",
        "",
    ]
    if results["by_domain"]:
        lines += ["## By domain of the target", "", *_group_table(results["by_domain"], "domain", names), ""]
        lines += [
            "A query's domain is given: the model's begin token is forced, and the baselines rank that domain.",
            "",
        ]
    lines += [
        "## By length of the history",
        "",
        *_group_table(results["by_history_length"], "items in the history", names),
        "",
        f"![Recall by history length]({paths.history.name})",
        "",
        f"![Rank of the first hit]({paths.ranks.name})",
        "",
        "## Cost",
        "",
        *_table(
            ["users", "seconds", "users / s", "prompt tokens", "peak memory", "device", "type", "threads"],
            [
                [
                    f"{counts['users_evaluated']:,}",
                    f"{cost['seconds']:.1f}",
                    f"{cost['users_per_second']:.1f}",
                    f"{cost['prompt_tokens']:,}",
                    f"{cost['peak_memory_mib']:,.0f} MiB",
                    cost["device"],
                    cost["dtype"],
                    str(cost["threads"]),
                ]
            ],
        ),
        "",
        "## Who was asked",
        "",
        *_table(["count", "value"], [[k.replace("_", " "), f"{v:,}"] for k, v in counts.items()]),
        "",
        "## How it is measured",
        "",
        *(f"- {line}" for line in _protocol(results)),
        "",
        "## Inputs",
        "",
        *_table(["file", "SHA-256"], [[f"`{n}`", f"`{h}`"] for n, h in results["manifest"]["inputs"].items()]),
        "",
    ]
    return "\n".join(lines)


def _protocol(results: Mapping[str, Any]) -> list[str]:
    config = results["manifest"]["config"]
    split = "leave-one-out (the last item is the test target, the one before it the validation target)"
    if config["split_method"] == "temporal":
        split = f"temporal (validation from {config['validation_start']}, test from {config['test_start']})"
    told = results["domains_told_apart"]
    return [
        f"Split: {split}; users without an example are counted above, never dropped silently.",
        f"Prompt: {config['prompt']}, the newest {config['max_history']} items of the history.",
        "Domains: the history holds all domains interleaved; the target's domain is given to every system."
        if told
        else "Domains: the format's tokens do not tell domains apart; every item is a candidate.",
        "Item level: items that share a sid are distinct ranks, the most popular in training first. Sid level: a "
        "hit is the target's sid, whichever of its items is meant.",
        "Scores are log-probabilities over the whole vocabulary; ties go to the earlier beam, then the lower token id.",
        "popularity: training interactions. markov: what followed the last item in training, then popularity. Both "
        "learn from the training part only.",
        "Recall@k = targets among the first k / targets; NDCG@k has binary gains; the formulas are in "
        "`onereason/evaluation/metrics.py`.",
    ]


def _group_table(groups: Mapping[str, Any], title: str, names: list[str]) -> list[str]:
    rows = [
        [group, f"{values['queries']:,}", system, *_values(values[system], names)]
        for group, values in groups.items()
        for system in SYSTEMS
    ]
    return _table([title, "queries", "system", *map(metric_title, names)], rows)


def _values(metrics: Mapping[str, float], names: list[str]) -> list[str]:
    return [f"{metrics[name]:.4f}" for name in names]


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


# -- plots ------------------------------------------------------------------------------------------------------------


def _new_plot(title: str, x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    return figure, axes


def _plot_curves(results: Mapping[str, Any]) -> Figure:
    figure, axes = _new_plot("Recall over k (item level)", "k", "recall at k")
    for system in SYSTEMS:
        axes.plot(results["curves"]["k"], results["curves"][system], marker=".", label=system, color=COLOURS[system])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure


def _plot_ranks(results: Mapping[str, Any]) -> Figure:
    ranks = results["hit_ranks"]
    total = sum(ranks["queries"]) + ranks["none"]
    figure, axes = _new_plot(
        f"Rank of the model's first hit ({ranks['none']:,} of {total:,} queries without one)", "rank", "queries"
    )
    axes.bar(ranks["k"], ranks["queries"], color=COLOURS["model"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_axisbelow(True)
    return figure


def _plot_history(results: Mapping[str, Any]) -> Figure:
    groups, metric = results["by_history_length"], results["difference"]["metric"]
    title = metric_title(metric)
    figure, axes = _new_plot(f"{title} by length of the history", "items in the history (queries)", title)
    for offset, system in zip((-0.27, 0, 0.27), SYSTEMS, strict=True):
        places = [i + offset for i in range(len(groups))]
        axes.bar(places, [g[system][metric] for g in groups.values()], 0.25, label=system, color=COLOURS[system])
    axes.set_xticks(range(len(groups)), [f"{name}\n({g['queries']:,})" for name, g in groups.items()])
    axes.set_axisbelow(True)
    axes.margins(y=0.25)  # the legend stands above the bars
    axes.legend(frameon=False, ncols=len(SYSTEMS), loc="upper center")
    return figure
