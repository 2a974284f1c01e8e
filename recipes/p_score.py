r"""P-Score: a network that says how much a user would like an item, learned from logged signals (OneRec).

    python -m recipes.p_score --config recipes/configs/p_score/tiny.yaml \
        data=runs/world catalog=runs/catalog out=runs/p_score
    python -m recipes.p_score ... vectors=learned 'training.users=[0, 0.5]'

One tower an objective (`objectives`, see `onereason.rl.objectives`) and a final MLP that fuses them. It trains on the
training part of the timelines, keeps the epoch with the best fused AUC on validation, and reads the test part once, at
the end. Run the command again after an interruption: it goes on from the last whole epoch. The result is `out/scorer`,
which reinforcement reads; its items are those of `catalog`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from onereason.config import to_dict
from onereason.data.schema import INTERACTIONS_FILE, load_dataset
from onereason.errors import ConfigError
from onereason.io import build_manifest, write_json
from onereason.itemic.catalog import CATALOG_TABLE, Catalog
from onereason.itemic.embed import VECTORS_FILE, load_precomputed
from onereason.model.device import resolve_device
from onereason.rl.objectives import Objective
from onereason.rl.p_score import PScoreNetwork, PScoreNetworkConfig, PScorer, save_p_scorer
from onereason.rl.p_score_examples import build_examples
from onereason.rl.p_score_training import PScoreTrainingConfig, best_epoch, evaluate_p_score, train_p_score
from recipes.run import leave_process, parse_command_line, refuse_finished, refuse_other_configuration

STATE_FILE = "state.pt"


@dataclass(frozen=True)
class PScoreConfig:
    """A scorer for the items of one catalog."""

    data: str
    """Dataset folder with `signal_*` columns."""
    catalog: str
    """Catalog folder, or the model folder that is going to be rewarded."""
    out: str
    """Run folder: state, log, and the finished scorer in `out/scorer`."""
    objectives: Mapping[str, Objective] = field(default_factory=dict)
    """Name -> what is learned."""
    vectors: str = "catalog"
    """Item vectors: `catalog` (what `onereason tokenize --save-vectors` keeps there), a file of them, or `learned`
    (a table learned from the log: an item without training interactions then means nothing)."""
    network: PScoreNetworkConfig = field(default_factory=PScoreNetworkConfig)
    """Size of the network."""
    training: PScoreTrainingConfig = field(default_factory=PScoreTrainingConfig)
    """Optimisation."""
    resume: bool = True
    """Go on from the last whole epoch in `out`, if there is one."""


def find_vectors(config: PScoreConfig) -> Path | None:
    """The file of item vectors; None where they are learned."""
    if config.vectors == "learned":
        return None
    path = Path(config.catalog) / VECTORS_FILE if config.vectors == "catalog" else Path(config.vectors)
    if not path.is_file():
        raise ConfigError(
            f"vectors: {path} not found; run `onereason tokenize --save-vectors`, name a file, or use vectors=learned."
        )
    return path


def print_epoch(entry: Mapping[str, Any]) -> None:
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in entry.items()}), flush=True)


def run(config: PScoreConfig) -> None:
    out, training = Path(config.out), config.training
    refuse_finished(out / "scorer")
    going_on = config.resume and (out / STATE_FILE).is_file()
    if going_on:
        refuse_other_configuration(config)
    catalog, vectors_path = Catalog.load(config.catalog), find_vectors(config)
    vectors = None if vectors_path is None else load_precomputed(vectors_path, catalog.item_ids)
    examples = build_examples(
        load_dataset(config.data).interactions,
        catalog,
        config.objectives,
        training.users,
        training.popularity_exponent,
        config.data,
    )
    torch.manual_seed(training.seed)
    network = PScoreNetwork(len(catalog), len(config.objectives), config.network, vectors)
    network.to(resolve_device(training.device))
    if not going_on:
        (out / STATE_FILE).unlink(missing_ok=True)
        write_json(out / "config.json", to_dict(config))
    history = train_p_score(network, examples, config.objectives, training, out / STATE_FILE, print_epoch)
    asked = (list(config.objectives.values()), training.num_negatives, training.seed)
    metrics = {
        "epoch": best_epoch(history),
        "validation": evaluate_p_score(network, examples, examples.validation, *asked),
        "test": evaluate_p_score(network, examples, examples.test, *asked),
    }
    labels = examples.labels
    manifest = build_manifest(
        "p_score",
        inputs=[Path(config.data) / INTERACTIONS_FILE, Path(config.catalog) / CATALOG_TABLE]
        + ([] if vectors_path is None else [vectors_path]),
        config=to_dict(config),
        seed=training.seed,
        counts={**examples.counts, "labels": {name: dict(found) for name, found in labels.counts.items()}},
    )
    manifest["metrics"] = metrics
    manifest["duration_buckets"] = {
        name: {"edges": b.edges.tolist(), "thresholds": b.thresholds.tolist()} for name, b in labels.buckets.items()
    }
    write_json(out / "log_history.json", history)
    save_p_scorer(PScorer(network, catalog.item_ids, labels.names), out / "scorer", manifest)
    (out / STATE_FILE).unlink()
    for part in ("validation", "test"):
        print(f"{part}: {json.dumps(metrics[part])}")
    print(f"finished: {out / 'scorer'}")


if __name__ == "__main__":
    leave_process(parse_command_line(PScoreConfig, run, __doc__))
