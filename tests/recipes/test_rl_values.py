"""Rewards that read a trained scorer and the log: from their recipes to the numbers a run logs."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import rl_worlds
from conftest import run_in_process
from rl_worlds import rollout_overrides

import recipes.rl
from onereason.config import load_config
from onereason.data.schema import Dataset, load_dataset, save_dataset
from onereason.errors import CatalogError, ConfigError, ModelError
from onereason.itemic.catalog import Catalog, load_model_catalog
from onereason.rl.p_score import load_p_scorer
from recipes.p_score import PScoreConfig
from recipes.p_score import run as train_p_score

TERMS = [{"name": "p_score"}, {"name": "duration_aware", "weight": 0.5}, {"name": "rl_worlds:record", "weight": 0.0}]
SUM = {"reward.combine": "sum", "training.max_steps": 2}


@pytest.fixture(scope="module")
def logged(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny world's dataset with seconds watched, lengths and dislikes, a model two of whose items share a sid (the
    later one trained on more often), and a scorer trained on what was watched.
    """
    root = tmp_path_factory.mktemp("logged_values")
    dataset = load_dataset(world / "data")
    shutil.copytree(world / "model", root / "model")
    known = load_model_catalog(world / "model")
    counts = count_trained(known, read_users(world / "data"))
    first, second = next(
        (a, b) for a in range(24) for b in range(a + 2, 24, 2) if counts[b] > counts[a]
    )  # of one domain: domains alternate
    codes = known.codes.copy()
    codes[first] = codes[second]
    Catalog(known.format, known.item_ids, codes, known.domains, known.captions).write_into(root / "model")
    rng, number = np.random.default_rng(5), dataset.interactions.height
    signals = {
        "watch_seconds": rng.integers(1, 9, number).astype(float),
        "duration_seconds": rng.choice([9.0, 12.0, 40.0], number),
        "dislike": (rng.random(number) < 0.3).astype(float),
    }
    columns = [pl.Series(f"signal_{name}", values, pl.Float32) for name, values in signals.items()]
    save_dataset(Dataset(dataset.items, dataset.interactions.with_columns(columns)), root / "data")
    places = [f"data={root / 'data'}", f"catalog={root / 'model'}", f"out={root / 'p_score'}", "vectors=learned"]
    small = ["network.hidden_size=8", "training.epochs=2", "training.device=cpu"]
    objective = "objectives.click={rule: interaction, negatives: sampled}"
    train_p_score(load_config(PScoreConfig, None, [*places, *small, objective]))
    return root


def read_users(data: Path) -> list[list[dict[str, Any]]]:
    """Each user's interactions, oldest first."""
    users: dict[str, list[dict[str, Any]]] = {}
    for row in load_dataset(data).interactions.sort("timestamp", maintain_order=True).to_dicts():
        users.setdefault(row["user_id"], []).append(row)
    return list(users.values())


def count_trained(catalog: Catalog, users: list[list[dict[str, Any]]]) -> list[int]:
    """Interactions of each item without the last two of each user, which are validation and test."""
    trained = [row["item_id"] for rows in users for row in rows[:-2]]
    return [trained.count(item) for item in catalog.item_ids]


def label_by_counting(rows: list[dict[str, Any]], place: int, threshold: float) -> float:
    """+1 where the share of the user's plays of that power of 2 that are not longer lies above the threshold."""
    row = rows[place]
    if row["signal_dislike"] > 0:
        return -1.0
    lengths = [int(row["signal_duration_seconds"]).bit_length() for row in rows]  # 8 .. 15 is one, 32 .. 63 another
    bucket = [r["signal_watch_seconds"] for r, n in zip(rows, lengths, strict=True) if n == lengths[place]]
    return float(sum(seconds <= row["signal_watch_seconds"] for seconds in bucket) / len(bucket) > threshold)


def test_a_run_is_rewarded_by_a_trained_scorer_and_the_log(world: Path, logged: Path, tmp_path: Path) -> None:
    rl_worlds.RECORDED.clear()
    scorer_folder = logged / "p_score" / "scorer"
    changes = SUM | {"reward.terms": TERMS, "data": logged / "data", "scorer": scorer_folder, "rollout.mode": "mixed"}
    changes |= {"model": logged / "model"}
    changes |= {"signals.negative": "dislike", "signals.threshold": 0.6, "rollout.num_items": 8}
    run_in_process("rl", rollout_overrides(world, tmp_path / "run", **changes))
    lines = [e for e in json.loads((tmp_path / "run" / "log_history.json").read_text()) if "loss" in e]
    assert len(lines) == len(rl_worlds.RECORDED) == 2

    catalog, users = load_model_catalog(logged / "model"), read_users(logged / "data")
    scorer, counts = load_p_scorer(scorer_folder, catalog), count_trained(catalog, users)

    def sids(rows: list[dict[str, Any]]) -> list[list[int]]:
        return [catalog.codes[catalog.index[row["item_id"]]].tolist() for row in rows]

    labels_seen, shared_seen = set(), 0
    for line, inputs in zip(lines, rl_worlds.RECORDED, strict=True):
        scores, labels = np.zeros(inputs.shape), np.zeros(inputs.shape)
        for g in range(inputs.shape[0]):
            shown = [*inputs.histories[g].tolist(), inputs.positives[g][0].tolist()]
            (rows,) = [own for own in users if sids(own[: len(shown)]) == shown]
            history = [catalog.index[row["item_id"]] for row in rows[: len(shown) - 1]]
            train = rows[:-2]
            for n, k in np.ndindex(inputs.shape[1:]):
                if not inputs.legal[g, n, k]:
                    continue
                items = catalog.find(inputs.candidates[g, n, k], inputs.domains[g]).tolist()
                item = max(items, key=lambda i: counts[i])
                shared_seen += len(items) > 1
                scores[g, n, k] = scorer.score([np.array(history)], np.array([[[item]]])).item()
                places = [i for i, row in enumerate(train) if catalog.index[row["item_id"]] in items]
                if places:
                    labels[g, n, k] = label_by_counting(train, places[-1], 0.6)
        np.testing.assert_allclose(inputs.values["p_score"], scores, rtol=1e-5)
        np.testing.assert_array_equal(inputs.values["duration_aware"], labels)
        labels_seen |= set(labels[inputs.legal].tolist())
        # Without thinking 2 x 8 items are asked of a domain that has 12: means are over those there are.
        there = inputs.valid
        assert inputs.thinks.any() and not inputs.thinks.all() and not there.all()
        assert line["reward/p_score"] == pytest.approx(scores[there].mean(), rel=1e-5)
        assert line["reward/duration_aware"] == pytest.approx(labels[there].mean(), abs=1e-6)
        assert line["reward/total"] == pytest.approx((scores + 0.5 * labels)[there].mean(), rel=1e-5)
        assert np.isfinite([value for value in line.values() if isinstance(value, float)]).all()
        assert line["grad_norm"] > 0
    assert labels_seen == {-1.0, 0.0, 1.0} and shared_seen


def other_catalog(world: Path, logged: Path, tmp_path: Path) -> dict[str, Any]:
    """The model's catalog gains an item that the scorer does not know."""
    known = load_model_catalog(logged / "model")
    codes = np.concatenate([known.codes, known.codes[:1]])
    names = [*known.item_ids, "new"]
    Catalog(known.format, names, codes, [*known.domains, known.domains[0]]).save(tmp_path / "model")
    return {"model": tmp_path / "model", "scorer": logged / "p_score" / "scorer", "data": logged / "data"}


def no_scorer(world: Path, logged: Path, tmp_path: Path) -> dict[str, Any]:
    return {"scorer": logged / "p_score", "data": logged / "data"}


def nothing_logged(world: Path, logged: Path, tmp_path: Path) -> dict[str, Any]:
    return {"scorer": logged / "p_score" / "scorer"}


def other_items(world: Path, logged: Path, tmp_path: Path) -> dict[str, Any]:
    """A dataset whose items the model's catalog does not have."""
    dataset = load_dataset(logged / "data")
    renamed = [pl.concat_str(pl.lit("x"), "item_id").alias("item_id")]
    save_dataset(
        Dataset(dataset.items.with_columns(renamed), dataset.interactions.with_columns(renamed)), tmp_path / "data"
    )
    return {"scorer": logged / "p_score" / "scorer", "data": tmp_path / "data"}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (other_catalog, CatalogError, r"knows 24 items, the catalog has 25 \(24 of them the same; 'new' is in one"),
        (no_scorer, ModelError, r"p_score is no P-Score folder: p_score.json is missing; train one with"),
        (nothing_logged, ConfigError, r"reads the signal 'watch_seconds', which .* does not log; it logs none"),
        (other_items, CatalogError, r"the catalog lacks 24 item\(s\) of the interactions, e.g. 'xi"),
    ],
)
def test_what_does_not_fit_is_said_before_the_model_is_loaded(
    make: Any, error: type[Exception], message: str, world: Path, logged: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    def load(*_: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(recipes.rl, "load_start_model", load)
    changes = SUM | {"reward.terms": TERMS[:2]} | make(world, logged, tmp_path)
    with pytest.raises(error, match=message):
        run_in_process("rl", rollout_overrides(world, tmp_path / "run", **changes))
    assert not (tmp_path / "run" / "config.json").exists()
