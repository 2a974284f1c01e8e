"""The result of an evaluation as files: `results.json`, a Markdown report and its plots.

Every file is written atomically, `results.json` last, so that its presence means the rest is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from onereason.errors import ConfigError, StorageError
from onereason.evaluation.markdown import inline, markdown_table
from onereason.evaluation.plots import metric_title, plot_curves, plot_history, plot_path, plot_ranks
from onereason.evaluation.recommendation import BASELINES
from onereason.io import atomic_file, require_writable_parent, storage_errors, write_json, write_text

NAMES = {
    "model": "model",
    "think": "model, thinking",
    "race": "model, race",
    "popularity": "popularity",
    "markov": "markov",
}
"""System -> its name in tables."""
STRATA = {
    "by_domain": ("domain of the target", "By domain of the target"),
    "by_crossing": ("history and target", "Single and cross domain"),
    "by_history_length": ("items in the history", "By length of the history"),
    "by_popularity": ("training interactions of the target", "By popularity of the target"),
}
"""Stratum -> title of its column and of its section."""


@dataclass(frozen=True)
class ReportPaths:
    """Where the files of one evaluation stand: beside each other, the report named after the results."""

    results: Path
    report: Path
    curve: Path
    ranks: Path
    history: Path
    path: Path
    candidates: Path

    @property
    def all(self) -> tuple[Path, ...]:
        """The files; the candidates are a folder of their own."""
        return self.results, self.report, self.curve, self.ranks, self.history, self.path


def report_paths(out: str | Path) -> ReportPaths:
    """`results.json` -> `report.md`, `recall_curve.png`, ...; `x.json` -> `x_report.md`, `x_recall_curve.png`, ..."""
    out = Path(out)
    if out.suffix != ".json":
        raise ConfigError(f"--out {out} should name a .json file, e.g. {out / 'results.json'}.")
    prefix = "" if out.stem == "results" else f"{out.stem}_"
    names = ("report.md", "recall_curve.png", "hit_ranks.png", "recall_by_history.png", "trace_path.png", "candidates")
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
    plots: dict[Path, Callable[[Mapping[str, Any]], Figure]] = {
        paths.curve: plot_curves,
        paths.ranks: plot_ranks,
        paths.history: plot_history,
    }
    if _has_path(results):
        plots[paths.path] = plot_path
    with ExitStack() as stack:  # leaves in reverse order, so the results come last
        temporary = {path: stack.enter_context(atomic_file(path)) for path in (paths.results, paths.report, *plots)}
        for path, plot in plots.items():
            plot(results).savefig(temporary[path], dpi=120, format="png", metadata={"Software": None})
        write_text(temporary[paths.report], render_report(results, paths))
        write_json(temporary[paths.results], results)


def metric_names(results: Mapping[str, Any]) -> list[str]:
    """The metrics of the tables, in order."""
    return list(results["metrics"][results["systems"][0]]["item"])


def shown_metrics(names: Sequence[str], most: int = 5) -> list[str]:
    """Those metrics that fit a narrow table: of the largest cut-offs where there are many."""
    shown = list(names)
    while len(shown) > most:
        smallest = min(int(name.rpartition("_")[2]) for name in shown)
        left = [name for name in shown if int(name.rpartition("_")[2]) != smallest]
        if not left:
            break
        shown = left
    return shown


def system_rows(results: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float]]]:
    """The main table's rows: name -> metrics; all systems at item level, then the model at sid level."""
    metrics = results["metrics"]
    rows = [(NAMES[name], metrics[name]["item"]) for name in results["systems"]]
    return [*rows, *((f"{NAMES[name]}, sid level", metrics[name]["sid"]) for name in _models(results))]


def render_report(results: Mapping[str, Any], paths: ReportPaths) -> str:
    """The report as Markdown."""
    counts, config = results["counts"], results["manifest"]["config"]
    names, difference = metric_names(results), results["difference"]
    shown = shown_metrics(names)
    lines = [
        f"# Recommendation: {config['split']} split",
        "",
        f"Every query's list is the model's own: {config['num_beams']} exact constrained beams over "
        f"{counts['items']:,} items ({counts['sids']:,} sids), "
        + ("items of the history excluded." if config["exclude_seen"] else "no item excluded."),
        "",
        *markdown_table(
            ["system", *map(metric_title, names)], [[n, *_values(m, names)] for n, m in system_rows(results)]
        ),
        "",
        f"The model {_verdict(difference)} the better baseline ({difference['baseline']}) at "
        f"{metric_title(difference['metric'])}: {_interval(difference)}.",
        "",
        f"![Recall over k]({paths.curve.name})",
        "",
        *_thinking(results, paths),
    ]
    for key, (column, title) in STRATA.items():
        if results[key]:
            lines += [f"## {title}", "", *_group_table(results, results[key], column, shown), ""]
        if key == "by_domain" and results[key]:
            lines += [
                "A query's domain is given: the model's begin token is forced, and the baselines rank that domain.",
                "",
                *_domain_differences(results),
            ]
        if key == "by_history_length":
            lines += [f"![Recall by history length]({paths.history.name})", ""]
    lines += [
        f"![Rank of the first hit]({paths.ranks.name})",
        "",
        *_details(results),
        *_cost(results),
        *_examples(results),
    ]
    lines += [
        "## Who was asked",
        "",
        *markdown_table(["count", "value"], [[k.replace("_", " "), f"{v:,}"] for k, v in counts.items()]),
        "",
        "## How it is measured",
        "",
        *(f"- {line}" for line in _protocol(results)),
        "",
        "## Inputs",
        "",
        *markdown_table(["file", "SHA-256"], [[f"`{n}`", f"`{h}`"] for n, h in results["manifest"]["inputs"].items()]),
        "",
    ]
    return "\n".join(lines)


def _thinking(results: Mapping[str, Any], paths: ReportPaths) -> list[str]:
    """What thinking brings and costs; empty where the model did not think."""
    traces, cost = results["traces"], results["cost"]
    if traces is None:
        return []
    lines = ["## What thinking brings, and what it costs", ""]
    if results["comparisons"]:
        rows = [
            [
                NAMES[c["system"]],
                metric_title(c["metric"]),
                f"{c['difference']:+.4f}",
                f"{c['low']:+.4f}",
                f"{c['high']:+.4f}",
            ]
            for c in results["comparisons"]
        ]
        header = ["mode", "metric", f"minus {NAMES[results['comparisons'][0]['baseline']]}", "low", "high"]
        lines += [*markdown_table(header, rows), "", "Intervals hold 95 % of the paired bootstrap's draws.", ""]
    rows = [
        [NAMES[name], f"{cost[name]['tokens_per_user']:,.1f}", f"{cost[name]['seconds_per_user']:.4f}"]
        for name in _models(results)
        if name in cost
    ]
    lines += [*markdown_table(["mode", "tokens a user", "seconds a user"], rows), ""]
    shown = {
        "traces": f"{traces['traces']:,}",
        "cut at the budget": f"{traces['cut_at_the_budget']:,}",
        "empty": f"{traces['empty']:,}",
        "tokens a trace": f"{traces['mean_tokens']:.1f}",
        "traces that cite an item": f"{traces['with_citation']:,}",
        "legality (Eq. 24)": _optional(traces["legality"]),
        "history validity (Eq. 25)": _optional(traces["history_validity"]),
    }
    if _has_path(results):
        shown["dLL (Eq. 22)"] = f"{traces['delta_loglikelihood']:+.4f}"
    lines += [*markdown_table(["traces", "value"], [[k, v] for k, v in shown.items()]), ""]
    if _has_path(results):
        lines += [f"![Log-likelihood along the trace]({paths.path.name})", ""]
    return lines


def _domain_differences(results: Mapping[str, Any]) -> list[str]:
    """Where thinking pays: a table of the differences by domain; empty where one mode was asked."""
    rows = [
        [
            domain,
            NAMES[d["system"]],
            metric_title(d["metric"]),
            *(f"{d[k]:+.4f}" for k in ("difference", "low", "high")),
        ]
        for domain, found in results["recall_differences_by_domain"].items()
        for d in found
    ]
    if not rows:
        return []
    header = ["domain", "mode", "metric", "minus not thinking", "low", "high"]
    return [*markdown_table(header, rows), ""]


def _details(results: Mapping[str, Any]) -> list[str]:
    """Tables of everything beside recall and NDCG."""
    details, models = results["details"], _models(results)
    keys = [k for k in details[models[0]] if k not in ("policies", "position_accuracy")]
    rows = [
        [NAMES[name], *(_optional(details[name][k]) if k in details[name] else "" for k in keys)]
        for name in results["systems"]
    ]
    lines = ["## More about the lists", ""]
    for start in range(0, len(keys), 6):
        part = keys[start : start + 6]
        titles = [metric_title(k) if "_at_" in k else k.replace("_", " ") for k in part]
        lines += [*markdown_table(["system", *titles], [[r[0], *r[1 + start : 1 + start + 6]] for r in rows]), ""]
    levels = len(details[models[0]]["position_accuracy"])
    lines += [
        "Accuracy of the best beam by token position:",
        "",
        *markdown_table(
            ["system", *(f"code {level + 1}" for level in range(levels))],
            [[NAMES[name], *(f"{v:.4f}" for v in details[name]["position_accuracy"])] for name in models],
        ),
        "",
        "Sids become items by a policy:",
        "",
    ]
    names = shown_metrics(metric_names(results))
    policies = [
        [NAMES[name], policy, *_values(metrics, names)]
        for name in models
        for policy, metrics in details[name]["policies"].items()
    ]
    return [*lines, *markdown_table(["system", "policy", *map(metric_title, names)], policies), ""]


def _cost(results: Mapping[str, Any]) -> list[str]:
    cost, counts = results["cost"], results["counts"]
    rows = [
        [
            NAMES[name],
            f"{counts['users_evaluated']:,}",
            f"{cost[name]['seconds']:.1f}",
            f"{cost[name]['prompt_tokens']:,}",
            f"{cost[name]['trace_tokens']:,}",
        ]
        for name in _models(results)
        if name in cost
    ]
    lines = ["## Cost", "", *markdown_table(["mode", "users", "seconds", "prompt tokens", "trace tokens"], rows), ""]
    machine = results["machine"]
    if machine:
        lines += [
            f"Device {machine['device']}, {machine['dtype']}, {machine['processes']} process(es) of "
            f"{machine['threads']} thread(s), peak memory {machine['peak_memory_mib']:,.0f} MiB. Seconds are summed "
            "over processes.",
            "",
        ]
    return lines


def _examples(results: Mapping[str, Any]) -> list[str]:
    """A few users: what they met, what each mode answered, and why."""
    if not results["examples"]:
        return []
    lines = ["## Side by side", ""]
    for example in results["examples"]:
        lines += [f"### {example['user']}: {example['title']}", ""]
        lines += ["History, newest last:", "", *(f"- {inline(text)}" for text in example["history"]), ""]
        lines += ["Came next:", "", *(f"- {inline(text)}" for text in example["targets"]), ""]
        if example["trace"] is not None:
            number = results["manifest"]["config"]["num_traces"]
            which = "Trace:" if number == 1 else f"The first of {number} traces, whose candidates are merged:"
            lines += [which, "", *(f"> {inline(part)}" for part in example["trace"].splitlines() or [""]), ""]
        width = max(len(found) for found in example["lists"].values())
        rows = [
            [str(rank + 1), *(inline(found[rank]) if rank < len(found) else "" for found in example["lists"].values())]
            for rank in range(width)
        ]
        lines += [*markdown_table(["rank", *(NAMES[name] for name in example["lists"])], rows), ""]
    return lines


def _protocol(results: Mapping[str, Any]) -> list[str]:
    config = results["manifest"]["config"]
    split = "leave-one-out (the last item is the test target, the one before it the validation target)"
    if config["split_method"] == "temporal":
        split = f"temporal (validation from {config['validation_start']}, test from {config['test_start']})"
    thinking = []
    if results["traces"] is not None:
        s = config["sampling"]
        thinking = [
            f"Thinking: {config['num_traces']} trace(s) a query of at most {s['max_new_tokens']} tokens, temperature "
            f"{s['temperature']}, top-p {s['top_p']}, top-k {s['top_k']}; a trace that does not close is cut, counted, "
            "and answered. The beams go on from the trace. Not thinking: an empty think block.",
            f"Candidates of several traces become one list by `{config['merge']}`.",
        ]
    if "race" in results["systems"]:
        thinking.append(
            "Race: the first half of the ranks from thinking, then from not thinking, each sid once; what double ones "
            "leave free is filled with the next of both, in turns. It costs both modes."
        )
    if config["weight_signal"] is not None:
        thinking.append(
            f"Weighted recall: a target counts by its logged `{config['weight_signal']}`; the mean over the "
            f"{results['counts']['queries_with_a_weight']:,} queries whose targets have one."
        )
    drawn = "all users" if config["max_users"] is None else f"{config['max_users']:,} users drawn with the seed"
    if config["domains"]:
        drawn += f", of their queries those for {', '.join(config['domains'])}"
    normalised = "each level's codes" if config["restricted"] else "the whole vocabulary"
    return [
        f"Split: {split}; {drawn}, seed {results['manifest']['seed']}; users without an example are counted above, "
        "never dropped silently.",
        f"Prompt: {config['prompt']}, the newest {config['max_history']} items of the history.",
        "Domains: the history holds all domains interleaved; the target's domain is given to every system."
        if results["domains_told_apart"]
        else "Domains: the format's tokens do not tell domains apart; every item is a candidate.",
        *thinking,
        f"Item level: sids become items by the policy `{config['policy']}` (`all`: items that share a sid are distinct "
        "ranks, the most popular in training first). Sid level: a hit is the target's sid, whichever of its items is "
        "meant.",
        f"Scores are log-probabilities over {normalised}; ties go to the earlier beam, then the lower token id.",
        "popularity: training interactions. markov: what followed the last item in training, then popularity. Both "
        "learn from the training part only.",
        "Recall@k = targets among the first k / targets; NDCG@k has binary gains; the formulas are in "
        "`onereason/evaluation/scores/metrics.py`.",
    ]


def _models(results: Mapping[str, Any]) -> list[str]:
    return [name for name in results["systems"] if name not in BASELINES]


def _has_path(results: Mapping[str, Any]) -> bool:
    return results["traces"] is not None and "loglikelihood_path" in results["traces"]


def _verdict(difference: Mapping[str, float]) -> str:
    return "beats" if difference["low"] > 0 else "trails" if difference["high"] < 0 else "is level with"


def _interval(difference: Mapping[str, float]) -> str:
    return (
        f"difference {difference['difference']:+.4f}, 95 % interval {difference['low']:+.4f} to "
        f"{difference['high']:+.4f} (paired bootstrap)"
    )


def _optional(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _group_table(results: Mapping[str, Any], groups: Mapping[str, Any], title: str, names: Sequence[str]) -> list[str]:
    rows = [
        [group, f"{values['queries']:,}", NAMES[system], *_values(values[system], names)]
        for group, values in groups.items()
        for system in results["systems"]
    ]
    return markdown_table([title, "queries", "system", *map(metric_title, names)], rows)


def _values(metrics: Mapping[str, float], names: Iterable[str]) -> list[str]:
    return [f"{metrics[name]:.4f}" for name in names]
