"""The card of an exported model: `README.md` with the hub's front matter.

Every figure is read from a file: manifests of stages and data, `results.json` of evaluations, the catalog. What no file
tells is said to be not known.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData

from onereason import __version__
from onereason.evaluation.layers.report import (
    HARNESS_HEADER,
    LAYER_TITLES,
    TABLE_HEADER,
    harness_rows,
    layer_tables,
    notes,
)
from onereason.evaluation.markdown import inline, markdown_table
from onereason.evaluation.measurements import UNKNOWN, Measurement, eval_results, short_digest
from onereason.evaluation.plots import metric_title
from onereason.evaluation.recommendation import BASELINES
from onereason.evaluation.report import NAMES, metric_names, shown_metrics, system_rows
from onereason.itemic.catalog import Catalog
from onereason.itemic.vocabulary import ItemicVocabulary
from onereason.model.lineage import DataSource, Lineage, Stage

STAGES = {
    "model": "vocabulary extension",
    "warmup": "token warm-up",
    "align": "itemic alignment",
    "sft": "supervised fine-tuning",
    "rl": "reinforcement",
    "distill": "on-policy distillation (MOPD)",
    "average": "average of weights",
}
"""Kind of a manifest -> what the stage is called."""


@dataclass(frozen=True)
class CardFacts:
    """What a card tells.

    Attributes:
        name: of the model.
        config: its `config.json`.
        parameters: how many it has.
        vocabulary, catalog: its itemic tokens and its items.
        rows_without_token: embedding rows that no runtime may generate.
        prompt: how it is asked, as its manifest records it; empty where it does not.
        lineage: what it was made from.
        measurements: of evaluations.
        checks: figures of the comparisons that the export made, by name (`Comparison.to_dict`).
        license: an identifier; None where none was given.
    """

    name: str
    config: Mapping[str, Any]
    parameters: int
    vocabulary: ItemicVocabulary
    catalog: Catalog | None
    rows_without_token: int
    prompt: Mapping[str, Any]
    lineage: Lineage
    measurements: Sequence[Measurement]
    checks: Mapping[str, Mapping[str, Any]]
    license: str | None


def build_card(facts: CardFacts) -> ModelCard:
    """The card; `str` of it is the text of `README.md`."""
    evaluated = list(eval_results(facts.measurements))
    data = ModelCardData(
        language=_languages(facts),
        license=facts.license,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["recommendation", "semantic-ids", "onereason"],
        model_name=facts.name if evaluated else None,
        eval_results=evaluated or None,
    )
    sections = [
        _head(facts),
        _use(facts),
        _itemic(facts),
        _stages(facts.lineage),
        _data(facts.lineage),
        _metrics(facts.measurements),
        _checks(facts),
        _limits(facts),
        _license(facts),
    ]
    body = "\n\n".join("\n".join(lines).strip() for lines in sections)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")


def _languages(facts: CardFacts) -> list[str] | None:
    language = facts.prompt.get("language")
    return [language] if language in ("en", "zh") else None


def _head(facts: CardFacts) -> list[str]:
    config = facts.config
    bases = [s.manifest["config"].get("base") for s in facts.lineage.stages if s.kind == "model"]
    named = "random weights (no pretrained model)" if bases[:1] == ["tiny"] else bases[0] if bases else None
    rows = [
        ["architecture", inline(", ".join(config.get("architectures") or [UNKNOWN]))],
        ["parameters", f"{facts.parameters:,}"],
        ["type of the weights", str(config.get("dtype", UNKNOWN))],
        ["embeddings", "tied" if config.get("tie_word_embeddings") else "input and output apart"],
        ["longest context", f"{config['max_position_embeddings']:,} tokens"],
        ["started from", UNKNOWN if named is None else inline(str(named))],
    ]
    return [
        f"# {facts.name}",
        "",
        "A language model that recommends: it reads a history of items written as itemic tokens (semantic ids), thinks "
        f"where it is asked to, and answers with items. Exported by onereason {__version__}.",
        "",
        *markdown_table(["", ""], rows),
    ]


def _use(facts: CardFacts) -> list[str]:
    prompt = facts.prompt
    asked = (
        f"It is asked in style `{prompt.get('style', UNKNOWN)}`, language `{prompt.get('language', UNKNOWN)}`, with "
        f"the newest {prompt.get('max_history', UNKNOWN)} items of a history; `onereason` does so on its own."
        if prompt
        else "How it was asked in training is not known; `onereason` takes its defaults."
    )
    items = "ITEM_ID,ITEM_ID" if facts.catalog is None else shlex.quote(",".join(facts.catalog.item_ids[:2]))
    return [
        "## Use",
        "",
        "```",
        f"onereason recommend --model {shlex.quote(facts.name.rpartition('/')[2])} --items {items}",
        "```",
        "",
        f"The folder also opens in transformers and other runtimes of its architecture. {asked}",
    ]


def _itemic(facts: CardFacts) -> list[str]:
    format, vocabulary, catalog = facts.vocabulary.format, facts.vocabulary, facts.catalog
    codes = [size - 1 for size in format.codes_per_level]
    domain = next(iter(format.domains))
    rows = [
        ["format", f"`{format.name}`"],
        ["codes a level", " x ".join(map(str, format.codes_per_level))],
        ["a pattern", f"`{format.render(codes, domain)}`"],
        ["domains", ", ".join(f"`{name}`" for name in format.domains)],
        ["token ids", f"{vocabulary.first_token_id} to {vocabulary.end_token_id - 1}"],
    ]
    if catalog is None:
        rows.append(["catalog", "none in this folder: which items the patterns stand for is not known here"])
    else:
        found = catalog.collisions()
        by_domain = {name: catalog.domains.count(name) for name in dict.fromkeys(catalog.domains)}
        rows += [
            ["items", f"{len(catalog):,} ({', '.join(f'{inline(n)} {c:,}' for n, c in by_domain.items())})"],
            ["semantic ids", f"{found['num_sids']:,}"],
            ["items that share one", f"{found['num_items_in_collision']:,} (at most {found['largest_bucket']} an id)"],
        ]
    return ["## Itemic format", "", *markdown_table(["", ""], rows)]


def _stages(lineage: Lineage) -> list[str]:
    lines = ["## Stages", ""]
    if lineage.unknown:
        first = "the first of these" if lineage.stages else "this model"
        lines += [f"What came before {first} is not known: {inline(lineage.unknown)}.", ""]
    if not lineage.stages:
        return lines
    rows = [[str(number), *_stage_cells(stage)] for number, stage in enumerate(lineage.stages, 1)]
    header = ["", "stage", "trained", "steps", "learning rate", "seed", "validation", "onereason"]
    lines += [*markdown_table(header, rows), "", "Their settings, as their manifests record them:", ""]
    for number, stage in enumerate(lineage.stages, 1):
        settings = yaml.safe_dump(stage.manifest["config"], sort_keys=False, allow_unicode=True)
        title = f"{number}. {_stage_name(stage)}"
        lines += [f"<details><summary>{title}</summary>", "", "```yaml", settings.strip(), "```", "", "</details>", ""]
    return lines


def _stage_name(stage: Stage) -> str:
    return STAGES.get(stage.kind, inline(stage.kind))


def _stage_cells(stage: Stage) -> list[str]:
    manifest = stage.manifest
    config, counts = manifest["config"], manifest.get("counts") or {}
    training = config.get("training") or {}
    trained = config.get("tuning") or ("itemic rows" if stage.kind == "warmup" else "")
    if trained == "lora":
        trained = f"LoRA of rank {config['lora']['rank']}, itemic rows"
    found = manifest.get("validation") or {}
    validation = ", ".join(f"{metric_title(name)} {value:.4f}" for name, value in found.items() if value is not None)
    seed = manifest.get("seed")
    return [
        _stage_name(stage),
        {"full": "all parameters"}.get(trained, inline(trained)),
        f"{counts['steps']:,}" if "steps" in counts else "",
        str(training.get("learning_rate", "")),
        "" if seed is None else str(seed),
        validation,
        inline(str((manifest.get("versions") or {}).get("onereason", UNKNOWN))),
    ]


def _data(lineage: Lineage) -> list[str]:
    lines = ["## Data", ""]
    rows = [
        [str(number), *_data_cells(stage, source)]
        for number, stage in enumerate(lineage.stages, 1)
        for source in stage.data
    ]
    if not rows:
        return [*lines, "What data the model was trained on is not known."]
    header = ["stage", "data", "what it is", "seen in training", "written by", "SHA-256"]
    return [
        *lines,
        *markdown_table(header, rows),
        "",
        "Licence, consent and personal data in them are not known to the exporter.",
    ]


def _data_cells(stage: Stage, source: DataSource) -> list[str]:
    counts = stage.manifest.get("counts") or {}
    rows, supervised = (counts.get(f"{source.name}_{what}") for what in ("rows", "supervised_tokens"))
    seen = UNKNOWN
    if rows is not None and supervised is not None:
        seen = f"{rows:,} rows, {supervised:,} supervised tokens"
    elif "prompts" in counts:
        seen = f"{counts['prompts']:,} prompts"
    what, writers = f"{UNKNOWN}: {source.unknown}", UNKNOWN
    if source.manifest is not None:
        own = source.manifest.get("counts") or {}
        kept = {key: own[key] for key in ("rows", "users", "items", "interactions") if key in own}
        held = ", ".join(f"{value:,} {key}" for key, value in kept.items())
        simulated = "simulated " if _is_simulated(source) else ""
        what = f"{simulated}{source.manifest['kind']}{f' ({held})' if held else ''}"
        teachers = [key.removeprefix("teacher_") for key in own if key.startswith("teacher_")]
        writers = ", ".join(teachers) or ("no teacher named" if source.manifest["kind"] == "corpus" else "")
    return [
        inline(source.name),
        inline(what),
        seen,
        inline(writers),
        UNKNOWN if source.sha256 is None else f"`{short_digest(source.sha256)}`",
    ]


def _is_simulated(source: DataSource) -> bool:
    return source.manifest is not None and source.manifest["config"].get("source") == "simulate"


def _metrics(measurements: Sequence[Measurement]) -> list[str]:
    lines = ["## Metrics", ""]
    if not measurements:
        return [*lines, "None were given to the export: how well the model recommends is not known."]
    for measurement in measurements:
        lines += _recommendation(measurement) if measurement.task == "recommendation" else _layers(measurement)
    return lines


def _recommendation(measurement: Measurement) -> list[str]:
    results, counts = measurement.results, measurement.results["counts"]
    config = results["manifest"]["config"]
    shown = shown_metrics(metric_names(results))
    rows = [[name, *(f"{metrics[key]:.4f}" for key in shown)] for name, metrics in system_rows(results)]
    drawn = "all users" if config["max_users"] is None else f"users drawn with seed {config['seed']}"
    lines = [
        f"### Recommendation, {config['split']} split",
        "",
        f"{counts['users_evaluated']:,} users ({drawn}), {counts['queries']:,} queries over {counts['items']:,} items; "
        f"split {config['split_method']}, {config['num_beams']} constrained beams, items of the history "
        f"{'left out' if config['exclude_seen'] else 'not left out'}. {_weights(measurement)}",
        "",
        *markdown_table(["system", *map(metric_title, shown)], rows),
        "",
    ]
    for found in (results["difference"], *results["comparisons"]):
        lines.append(
            f"- {NAMES[found['system']]} minus {NAMES[found['baseline']]}, {metric_title(found['metric'])}: "
            f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f}, 95 %)"
        )
    return [*lines, ""]


def _layers(measurement: Measurement) -> list[str]:
    results = measurement.results
    lines = ["### Layers, written freely", "", _weights(measurement), ""]
    for layer, rows in layer_tables(results):
        lines += [f"{LAYER_TITLES[layer]}:", "", *markdown_table(TABLE_HEADER, rows), ""]
    lines += [f"- No value for {inline(note)}." for note in notes(results)]
    if results["lm_eval"]:
        lines += ["", *markdown_table(HARNESS_HEADER, harness_rows(results)), ""]
    return [*lines, ""]


def _weights(measurement: Measurement) -> str:
    return {
        "exported": "Measured on these weights.",
        "source": "Measured on the weights before their type was changed.",
        "served": "Measured through a server; which weights answered is not known.",
    }[measurement.weights]


CHECKS = {
    "merged": "adapter in the weights against adapter beside them, float32",
    "rounded": "weights of the stored type against float32",
    "reopened": "the folder as transformers reads it against the model before it was written",
    "vllm": "vLLM against transformers, float32",
}
"""Comparison -> what is compared."""


def _checks(facts: CardFacts) -> list[str]:
    rows = []
    for name, title in CHECKS.items():
        if (found := facts.checks.get(name)) is None:
            rows.append([title, "not made", "", ""])
            continue
        largest = found["max_logit_difference"]
        rows.append(
            [
                title,
                f"{found['equal']} of {found['prompts']}",
                str(found["ties"]),
                "not compared" if largest is None else f"{largest:.1e}",
            ]
        )
    made = next(iter(facts.checks.values()))
    return [
        "## Checks",
        "",
        f"Greedy generation of {made['tokens']} tokens behind {made['prompts']} prompts:",
        "",
        *markdown_table(["", "prompts with the same tokens", "parted at a tie", "largest logit difference"], rows),
    ]


def _limits(facts: CardFacts) -> list[str]:
    lines = ["## Limits", ""]
    if facts.catalog is not None:
        lines.append(
            f"- It knows the {len(facts.catalog):,} items of its catalog. An item that came later has no semantic id, "
            "and the model has not met it."
        )
        shared = facts.catalog.collisions()["num_items_in_collision"]
        if shared:
            lines.append(f"- {shared:,} items share a semantic id with another one; the model cannot tell them apart.")
    if facts.rows_without_token:
        lines.append(
            f"- {facts.rows_without_token:,} embedding rows have no token (`suppress_tokens` in "
            "`generation_config.json`); a runtime that does not read that key must bar them."
        )
    recommended = [m.results for m in facts.measurements if m.task == "recommendation"]
    for results in recommended:
        found = results["difference"]
        if found["high"] < 0:
            lines.append(
                f"- It falls short of the baseline {NAMES[found['baseline']]} on the "
                f"{results['manifest']['config']['split']} split ({metric_title(found['metric'])} "
                f"{found['difference']:+.4f}, {found['low']:+.4f} to {found['high']:+.4f})."
            )
    measured = {system for results in recommended for system in results["systems"]} - set(BASELINES)
    missing = [name for system, name in (("model", "at once"), ("think", "thinking")) if system not in measured]
    if missing:
        lines.append(f"- How well it recommends {' and '.join(missing)} is not known: no results were given.")
    if (rounded := facts.checks.get("rounded")) and rounded["equal"] < rounded["prompts"]:
        lines.append("- Rounding the weights to their stored type changes what it writes (see Checks).")
    if any(_is_simulated(source) for stage in facts.lineage.stages for source in stage.data):
        lines.append("- It learned from simulated users: its figures say nothing of real ones.")
    lines += [
        "- Recommenders repeat what their logs favour and leave out; how far this one does is not known.",
        "- Safety of free text, and bias among users and items: not known.",
        "- The spread over training seeds: not known.",
    ]
    return lines


def _license(facts: CardFacts) -> list[str]:
    text = (
        f"`{facts.license}`, as given to the export." if facts.license else "Not known: none was given to the export."
    )
    return ["## Licence", "", text]
