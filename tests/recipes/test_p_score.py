"""The recipe of the P-Score: from a dataset folder to a scorer's folder, resumed, refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import recipes.p_score
from onereason.config import load_config
from onereason.data.schema import save_dataset
from onereason.data.simulate import WorldConfig, simulate_world
from onereason.errors import ConfigError, ModelError, StorageError
from onereason.io import hash_file, read_json
from onereason.itemic.catalog import Catalog
from onereason.itemic.embed import VECTORS_FILE
from onereason.itemic.format import load_format
from onereason.rl.p_score import load_p_scorer
from recipes.p_score import PScoreConfig, run

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A dataset and a catalog with item vectors: 60 users, 384 items."""
    root = tmp_path_factory.mktemp("p_score")
    world = simulate_world(WorldConfig(users=60, items=384, topics=8, seed=3))
    save_dataset(world.dataset, root / "world")
    items = world.dataset.items
    codes = np.stack([np.arange(384) // 32, np.arange(384) % 32], 1)
    Catalog(load_format("onereason", 2, 32), items["item_id"].to_list(), codes, items["domain"].to_list()).save(
        root / "catalog"
    )
    vectors = np.random.default_rng(0).normal(size=(384, 12)).astype(np.float32)
    np.savez(root / "catalog" / VECTORS_FILE, vectors=vectors, item_ids=items["item_id"].to_numpy().astype(str))
    return root


def configure(root: Path, out: Path, *overrides: str) -> PScoreConfig:
    small = ["network.hidden_size=8", "training.epochs=3", "training.device=cpu"]
    places = [f"data={root / 'world'}", f"catalog={root / 'catalog'}", f"out={out}"]
    return load_config(PScoreConfig, REPOSITORY / "recipes/configs/p_score/tiny.yaml", [*small, *places, *overrides])


def load(root: Path, out: Path):
    return load_p_scorer(out / "scorer", Catalog.load(root / "catalog"))


def scores(root: Path, out: Path) -> np.ndarray:
    return load(root, out).score([np.arange(5), np.array([], np.int64)], np.arange(384).reshape(2, 8, 24))


def test_a_run_writes_a_scorer_with_its_figures(root, tmp_path, capsys):
    run(configure(root, tmp_path / "run"))
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["config.json", "log_history.json", "scorer"]
    model = load(root, tmp_path / "run")
    assert model.objectives == ("click", "long_view", "like", "follow", "buy", "convert")
    found = scores(root, tmp_path / "run")
    assert ((found > 0) & (found < 1)).all()

    manifest = read_json(tmp_path / "run" / "scorer" / "manifest.json")
    assert manifest["kind"] == "p_score" and set(manifest["metrics"]) == {"epoch", "validation", "test"}
    assert manifest["inputs"]["interactions.parquet"] == hash_file(root / "world" / "interactions.parquet")
    assert set(manifest["inputs"]) == {"interactions.parquet", "catalog.parquet", "vectors.npz"}
    counts = manifest["counts"]
    assert counts["validation"] == counts["test"] == 60
    for name in ("like", "long_view"):  # nulls are counted: only videos log a like
        labels = counts["labels"][name]
        assert labels["null"] > 0 and sum(labels.values()) == counts["train"]
    assert list(manifest["duration_buckets"]) == ["long_view"]
    history = read_json(tmp_path / "run" / "log_history.json")
    assert history[manifest["metrics"]["epoch"] - 1]["validation"] == manifest["metrics"]["validation"]
    assert "finished:" in capsys.readouterr().out


def test_a_finished_run_is_refused(root, tmp_path):
    (tmp_path / "run" / "scorer").mkdir(parents=True)
    with pytest.raises(StorageError, match="this run is finished"):
        run(configure(root, tmp_path / "run"))


def test_an_interrupted_run_goes_on_and_ends_the_same(root, tmp_path, monkeypatch):
    run(configure(root, tmp_path / "whole"))

    def stop(entry):
        if entry["epoch"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recipes.p_score, "print_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            run(configure(root, tmp_path / "cut"))
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["config.json", "state.pt"]
    with pytest.raises(ConfigError, match=r"another configuration \(different: training\)"):
        run(configure(root, tmp_path / "cut", "training.learning_rate=1e-4"))

    seen = []
    monkeypatch.setattr(recipes.p_score, "print_epoch", lambda entry: seen.append(entry["epoch"]))
    run(configure(root, tmp_path / "cut"))
    assert seen == [3]
    assert np.array_equal(scores(root, tmp_path / "cut"), scores(root, tmp_path / "whole"))
    logs = [read_json(tmp_path / name / "log_history.json") for name in ("cut", "whole")]
    assert logs[0] == logs[1]


def test_starting_over_forgets_the_run_before(root, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.pt").write_bytes(b"of another run")
    (tmp_path / "run" / "config.json").write_text("{}")
    seen = []
    monkeypatch.setattr(recipes.p_score, "print_epoch", lambda entry: seen.append(entry["epoch"]))
    run(configure(root, tmp_path / "run", "resume=false", "training.epochs=1"))
    assert seen == [1]


def test_a_run_that_fails_leaves_no_scorer(root, tmp_path):
    with pytest.raises(ModelError, match=r"lower training\.learning_rate"):
        run(configure(root, tmp_path / "run", "training.learning_rate=1e20"))
    assert not (tmp_path / "run" / "scorer").exists()


def test_vectors_are_the_catalogs_a_file_or_learned(root, tmp_path):
    run(configure(root, tmp_path / "learned", "vectors=learned", "training.epochs=1"))
    assert load(root, tmp_path / "learned").network.items.requires_grad
    assert "vectors.npz" not in read_json(tmp_path / "learned" / "scorer" / "manifest.json")["inputs"]
    np.save(tmp_path / "own.npy", np.eye(384, 5, dtype=np.float32))
    run(configure(root, tmp_path / "own", f"vectors={tmp_path / 'own.npy'}", "training.epochs=1"))
    assert load(root, tmp_path / "own").network.items.shape == (385, 5)
    with pytest.raises(ConfigError, match=r"none.npz not found; run `onereason tokenize --save-vectors`"):
        run(configure(root, tmp_path / "none", f"vectors={tmp_path / 'none.npz'}"))
    assert not (tmp_path / "none").exists()


def test_unknown_keys_are_refused(root, tmp_path):
    with pytest.raises(ConfigError, match=r"unknown key trainning; did you mean training\?"):
        configure(root, tmp_path, "trainning.epochs=1")
    with pytest.raises(
        ConfigError, match=r"unknown key objectives\.like\.wait; did you mean objectives\.like\.weight\?"
    ):
        configure(root, tmp_path, "objectives.like.wait=1")


def test_mistakes_are_one_line_and_code_2(root, tmp_path):
    place = [f"data={root / 'world'}", f"catalog={root / 'catalog'}", f"out={tmp_path / 'run'}"]
    command = [sys.executable, "-m", "recipes.p_score", *place, "objectives.view={signal: views}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=110)
    assert done.returncode == 2 and "reads signal_views" in done.stderr and "signal_watch_seconds" in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "run").exists()
