"""Results files of evaluations: what they were measured on, and their figures as the hub lists them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import EvalResult

from onereason.errors import ConfigError, DataError
from onereason.evaluation.layers.report import LAYER_TITLES
from onereason.evaluation.plots import metric_title
from onereason.evaluation.recommendation import BASELINES
from onereason.evaluation.report import NAMES
from onereason.io import read_json

UNKNOWN = "not known"


@dataclass(frozen=True)
class Measurement:
    """A results file, and which weights it was measured on.

    Attributes:
        path: of the file.
        task: `recommendation` (`onereason evaluate`) or `layers` (`onereason evaluate-layers`).
        results: what it holds.
        weights: `exported`, `source` (before their type was changed), or `served` (asked of a server, which does not
            tell them).
    """

    path: Path
    task: Literal["recommendation", "layers"]
    results: Mapping[str, Any]
    weights: str

    @property
    def inputs(self) -> Mapping[str, str]:
        return self.results["manifest"]["inputs"]


def load_results(path: str | Path) -> Mapping[str, Any]:
    """A results file; `DataError` unless `onereason evaluate` or `onereason evaluate-layers` wrote it."""
    results = read_json(path, "results")
    manifest = results.get("manifest") if isinstance(results, dict) else None
    kinds = ("evaluation", "layered_evaluation")
    if not isinstance(manifest, dict) or manifest.get("kind") not in kinds or "inputs" not in manifest:
        raise DataError(
            f"--results {path} holds no results of `onereason evaluate` or `onereason evaluate-layers`; name the "
            "results.json that one of them wrote."
        )
    return results


def match_weights(
    path: str | Path, results: Mapping[str, Any], exported: Mapping[str, str], source: Mapping[str, str]
) -> Measurement:
    """Says which weights were measured.

    Args:
        exported, source: file name -> hash, of the weights that are written and of those they were made from.

    Raises:
        ConfigError: others than both.
    """
    recommends = results["manifest"]["kind"] == "evaluation"
    measured = {digest for name, digest in results["manifest"]["inputs"].items() if name.endswith(".safetensors")}
    if not measured:
        weights = "served"
    elif measured == set(exported.values()):
        weights = "exported"
    elif measured == set(source.values()):
        weights = "source"
    else:
        raise ConfigError(
            f"--results {path} was measured on other weights ({short_digest(min(measured))}) than those exported "
            f"({short_digest(min(exported.values()))}); evaluate the exported folder and export again with its results."
        )
    return Measurement(Path(path), "recommendation" if recommends else "layers", results, weights)


def eval_results(measurements: Sequence[Measurement]) -> Iterator[EvalResult]:
    """Every figure of the results, as the hub's front matter lists them."""
    for measurement in measurements:
        results = measurement.results
        if measurement.task == "recommendation":
            digest = measurement.inputs.get("interactions.parquet", UNKNOWN)
            for system in (name for name in results["systems"] if name not in BASELINES):
                for metric, value in results["metrics"][system]["item"].items():
                    yield EvalResult(
                        task_type="text-generation",
                        task_name="Sequential recommendation",
                        dataset_type="interactions.parquet",
                        dataset_name=f"interactions.parquet, SHA-256 {short_digest(digest)}",
                        dataset_config=NAMES[system],
                        dataset_split=results["manifest"]["config"]["split"],
                        dataset_revision=digest,
                        metric_type=metric,
                        metric_name=metric_title(metric),
                        metric_value=value,
                    )
            continue
        digest = next((found for name, found in measurement.inputs.items() if name.endswith(".jsonl")), UNKNOWN)
        for task, table in results["tasks"].items():
            for mode, found in table["modes"].items():
                for metric, value in found["metrics"].items():
                    if value["value"] is not None:
                        yield EvalResult(
                            task_type="text-generation",
                            task_name=LAYER_TITLES[table["layer"]],
                            dataset_type=task,
                            dataset_name=f"{task} (version {table['version']})",
                            dataset_config=mode,
                            dataset_revision=digest,
                            metric_type=metric,
                            metric_name=metric,
                            metric_value=value["value"],
                        )


def short_digest(digest: str) -> str:
    """Enough of a hash to know it by."""
    return digest[:12]
