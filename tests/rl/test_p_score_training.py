"""What a P-Score learns from a log: parts, histories, drawn items, figures, and a planted signal."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from onereason.data.held_out import user_share
from onereason.data.schema import INTERACTION_SCHEMA
from onereason.data.simulate import WorldConfig, simulate_world
from onereason.data.timelines import build_timelines, split_leave_one_out
from onereason.errors import ConfigError, DataError, ModelError
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format
from onereason.rl.objectives import Objective
from onereason.rl.p_score import PScoreNetwork, PScoreNetworkConfig
from onereason.rl.p_score_examples import NegativeSampler, build_examples, find_parts
from onereason.rl.p_score_training import (
    PScoreTrainingConfig,
    best_epoch,
    compute_auc,
    compute_auc_within,
    compute_pos_weights,
    evaluate_p_score,
    train_p_score,
)

CLICK = Objective("interaction", negatives="sampled")
LIKE = Objective(signal="like")


def catalog(ids, domains=None) -> Catalog:
    codes = np.stack([np.arange(len(ids)) // 64, np.arange(len(ids)) % 64], 1)
    return Catalog(load_format("onereason", 2, 64), ids, codes, domains)


def table(users: dict[str, list[int]], like=None) -> pl.DataFrame:
    rows = [(u, f"i{i}", t, "click", "video") for u, items in users.items() for t, i in enumerate(items)]
    frame = pl.DataFrame(rows, schema=INTERACTION_SCHEMA, orient="row")
    likes = [float(n % 2) for n in range(len(rows))] if like is None else like
    return frame.with_columns(signal_like=pl.Series(likes, dtype=pl.Float32))


USERS = {"ann": [0, 1, 2, 3, 4], "bob": [5, 6], "cat": [7, 8, 9]}
ITEMS = catalog([f"i{n}" for n in range(10)], ["video"] * 10)


def test_parts_are_those_of_leave_one_out():
    timelines = build_timelines(table(USERS), ITEMS.index)
    split = split_leave_one_out(timelines)
    parts = find_parts(timelines, split)
    assert parts.tolist() == [0, 0, 0, 1, 2, 0, 0, 0, 1, 2]  # bob's two train
    assert timelines.items[parts == 0].tolist() == np.concatenate(split.train).tolist()
    assert timelines.items[parts == 1].tolist() == np.concatenate(split.validation.targets).tolist()
    assert timelines.items[parts == 2].tolist() == np.concatenate(split.test.targets).tolist()


def test_histories_are_what_came_before_of_the_same_user():
    examples = build_examples(table(USERS), ITEMS, {"like": LIKE})
    found = examples.histories(np.arange(10), 3)
    assert found.tolist() == [
        [-1, -1, -1],
        [-1, -1, 0],
        [-1, 0, 1],
        [0, 1, 2],
        [1, 2, 3],
        [-1, -1, -1],  # bob begins
        [-1, -1, 5],
        [-1, -1, -1],
        [-1, -1, 7],
        [-1, 7, 8],
    ]


def test_what_comes_later_does_not_change_a_score():
    changed = {**USERS, "ann": [0, 1, 2, 9, 8]}
    rng = np.random.default_rng
    before, after = (build_examples(table(users), ITEMS, {"like": LIKE}) for users in (USERS, changed))
    one, other = (e.batch(np.array([2]), 4, 0, rng(0)) for e in (before, after))
    torch.manual_seed(0)
    network = PScoreNetwork(10, 1, PScoreNetworkConfig(4, 8))
    scores = [network(torch.from_numpy(b.histories), torch.from_numpy(b.candidates))[1] for b in (one, other)]
    assert torch.equal(*scores)
    later = after.batch(np.array([4]), 4, 0, rng(0))  # one that stands behind the change does see it
    assert later.histories.tolist() == [[0, 1, 2, 9]]


def test_drawn_items_are_negatives_where_the_exposure_is_known():
    likes = [1.0, 0.0, None, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    objectives = {"click": CLICK, "like": LIKE, "liked": Objective(signal="like", negatives="both")}
    examples = build_examples(table(USERS, likes), ITEMS, objectives)
    batch = examples.batch(np.array([0, 1, 2]), 2, 2, np.random.default_rng(0))
    assert batch.candidates[:, 0].tolist() == [0, 1, 2] and batch.candidates.shape == (3, 3)
    assert batch.labels[:, 0].tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0]]
    assert not batch.labels[:, 1:].any()
    assert batch.known[:, 0].tolist() == [[True, True, True], [True, True, True], [True, False, False]]
    # `like` stands against exposures alone; `liked` takes drawn items except where the log is silent.
    assert batch.known[:, 1].tolist() == batch.known[:, 2].tolist()
    assert batch.known[:, 1].tolist() == [[True, False, True], [True, False, True], [True, False, False]]


def test_exposed_negatives_draw_nothing():
    examples = build_examples(table(USERS), ITEMS, {"like": LIKE})
    assert examples.batch(np.array([0, 1]), 2, 4, np.random.default_rng(0)).candidates.shape == (2, 1)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 0.5])
def test_negatives_are_drawn_by_weight_from_the_other_items_of_the_domain(exponent):
    domains, counts = ["b", "a", "a", "b", "a", "c", "a"], np.array([3, 0, 8, 1, 3, 5, 15])
    sampler = NegativeSampler(domains, counts, exponent)
    rng = np.random.default_rng(0)
    weights = (counts + 1.0) ** exponent
    for item in range(7):
        drawn = sampler.draw(np.full(4000, item), 2, rng).ravel()
        others = [i for i in range(7) if domains[i] == domains[item] and i != item]
        if not others:
            assert set(drawn) == {-1}
            continue
        share = np.bincount(drawn, minlength=7) / len(drawn)
        expected = np.where(np.isin(np.arange(7), others), weights, 0.0)
        np.testing.assert_allclose(share, expected / expected.sum(), atol=0.02)
        assert set(drawn) == set(others)


def test_a_share_of_the_users_trains_and_all_are_validated():
    users = {f"u{n}": [n % 10, (n + 1) % 10, (n + 2) % 10, (n + 3) % 10] for n in range(40)}
    whole = build_examples(table(users), ITEMS, {"like": LIKE})
    half = build_examples(table(users), ITEMS, {"like": LIKE}, users=(0.0, 0.5))
    chosen = [n for n in range(40) if user_share(f"u{n}") < 0.5]
    assert half.train.tolist() == [4 * n + place for n in chosen for place in (0, 1)]
    assert half.validation.tolist() == whole.validation.tolist() == [4 * n + 2 for n in range(40)]
    assert half.counts["left_out_other_users"] == 80 - 2 * len(chosen)
    with pytest.raises(ConfigError, match="two rising shares"):
        PScoreTrainingConfig(users=(0.5, 0.5))


def test_users_with_too_little_to_validate():
    with pytest.raises(DataError, match="no user with three interactions"):
        build_examples(table({"bob": [5, 6], "dan": [1, 2]}), ITEMS, {"like": LIKE})


def test_balanced_positives_count_what_stands_against_them():
    objectives = {
        "like": Objective(signal="like", pos_weight="balanced"),
        "both": Objective(signal="like", negatives="both", pos_weight="balanced"),
        "plain": Objective(signal="like", pos_weight=3.0),
    }
    likes = [1.0, 0, 0, 0, 0, 0, None, 1, 0, 0]  # training events 0 1 2 5 6 7: two positives, three negatives
    examples = build_examples(table(USERS, likes), ITEMS, objectives)
    found = compute_pos_weights(objectives, examples.labels, examples.train, num_negatives=4)
    assert found.tolist() == [1.5, (3 + 4 * 5) / 2, 3.0]


def brute_auc(labels, scores):
    pairs = [(i, j) for i, j in combinations(range(len(labels)), 2) if labels[i] != labels[j]]
    won = [
        0.5 if scores[i] == scores[j] else float((scores[i] > scores[j]) == (labels[i] > labels[j])) for i, j in pairs
    ]
    return sum(won) / len(won)


def test_auc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = rng.integers(0, 6, size=30) / 5
        graded, binary = rng.integers(0, 4, size=30) / 3, rng.integers(0, 2, size=30)
        assert compute_auc(graded, scores) == pytest.approx(brute_auc(graded, scores))
        assert compute_auc(binary, scores) == pytest.approx(roc_auc_score(binary, scores))
    assert compute_auc(np.ones(3), np.arange(3.0)) is None


def test_auc_within_compares_inside_rows():
    labels = np.array([[1.0, 0.0, 0.0], [0.5, 0.0, 1.0], [0.0, 0.0, 0.0]])
    scores = np.array([[0.9, 0.9, 0.1], [0.5, 0.6, 0.0], [0.1, 0.2, 0.3]])
    known = np.array([[True, True, True], [True, True, False], [True, True, True]])
    # First row: a tie (1/2) and a win; second: one pair, lost; third: all equal.
    assert compute_auc_within(labels, scores, known) == pytest.approx((0.5 + 1 + 0) / 3)
    assert compute_auc_within(labels, scores, np.zeros_like(known)) is None


def planted(users: int = 500, shuffled: bool = False):
    """A simulated world in which a user likes an item exactly when its topic occurred among the five items before."""
    world = simulate_world(WorldConfig(users=users, items=384, topics=8, seed=1))
    ids = world.dataset.items["item_id"].to_list()
    topics = dict(world.truth["items"].select("item_id", "topic").iter_rows())
    vectors = np.array([[t == topics[i] for t in sorted(set(topics.values()))] for i in ids], dtype=np.float32)
    likes, before, last = [], [], None
    for user, item in world.dataset.interactions.select("user_id", "item_id").iter_rows():
        before = before[-5:] if user == last else []
        likes.append(float(topics[item] in before))
        before, last = [*before, topics[item]], user
    if shuffled:
        likes = np.random.default_rng(0).permutation(likes)
    interactions = world.dataset.interactions.with_columns(signal_like=pl.Series(likes, dtype=pl.Float32))
    return interactions, catalog(ids, world.dataset.items["domain"].to_list()), vectors


def reached_on_test(tmp_path, shuffled):
    interactions, items, vectors = planted(shuffled=shuffled)
    objectives = {"like": LIKE}
    examples = build_examples(interactions, items, objectives)
    torch.manual_seed(0)
    network = PScoreNetwork(len(items), 1, PScoreNetworkConfig(10, 16), vectors)
    config = PScoreTrainingConfig(epochs=3, learning_rate=5e-3)
    train_p_score(network, examples, objectives, config, tmp_path / "state.pt")
    return evaluate_p_score(network, examples, examples.test, [LIKE], 4, 0)


def test_a_planted_signal_is_learned_and_a_shuffled_one_is_not(tmp_path):
    found = reached_on_test(tmp_path / "planted", shuffled=False)
    assert found["auc"]["like"] > 0.9 and found["score_auc"] > 0.9
    assert found["candidates"] == {"like": 500}
    control = reached_on_test(tmp_path / "shuffled", shuffled=True)
    assert 0.4 < control["auc"]["like"] < 0.6 and 0.4 < control["score_auc"] < 0.6


def small_run(state, epochs, report=lambda entry: None):
    users = {f"u{n}": [(n + k) % 10 for k in range(6)] for n in range(12)}
    objectives = {"click": CLICK, "like": LIKE}
    examples = build_examples(table(users), ITEMS, objectives)
    torch.manual_seed(0)
    network = PScoreNetwork(10, 2, PScoreNetworkConfig(4, 8))
    config = PScoreTrainingConfig(epochs=epochs, batch_size=8)
    return network, train_p_score(network, examples, objectives, config, state, report)


def test_resumed_is_uninterrupted(tmp_path):
    class StopError(Exception):
        pass

    def stop(entry):
        if entry["epoch"] == 2:
            raise StopError

    whole, history = small_run(tmp_path / "whole.pt", 4)
    with pytest.raises(StopError):
        small_run(tmp_path / "cut.pt", 4, stop)
    seen = []
    resumed, again = small_run(tmp_path / "cut.pt", 4, seen.append)
    assert [entry["epoch"] for entry in seen] == [3, 4]
    assert again == history
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_best_epoch_is_kept(tmp_path):
    kept = {}
    states = tmp_path / "state.pt"

    def keep(entry):
        kept[entry["epoch"]] = torch.load(states, weights_only=True)["network"]

    network, history = small_run(states, 4, keep)
    best = best_epoch(history)
    assert history[best - 1]["validation"]["score_auc"] == max(e["validation"]["score_auc"] for e in history)
    for name, value in network.state_dict().items():
        assert torch.equal(value, kept[best][name])
    assert best_epoch([{"validation": {"score_auc": a}} for a in (0.5, 0.7, 0.6)]) == 2
    assert best_epoch([{"validation": {"score_auc": None}}] * 3) == 3


def test_a_state_that_cannot_be_read(tmp_path):
    (tmp_path / "state.pt").write_bytes(b"short")
    with pytest.raises(ModelError, match="remove it to start over"):
        small_run(tmp_path / "state.pt", 1)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    examples = build_examples(table(USERS), ITEMS, {"like": LIKE})
    network = PScoreNetwork(10, 1, PScoreNetworkConfig(4, 8))
    with torch.no_grad():
        network.fusion[-1].bias.fill_(torch.nan)
    with pytest.raises(ModelError, match=r"the loss is nan at step 1 of epoch 1; lower training.learning_rate \(0.002"):
        train_p_score(network, examples, {"like": LIKE}, PScoreTrainingConfig(), tmp_path / "state.pt")
    assert not (tmp_path / "state.pt").exists()


def test_weights_that_are_no_numbers_are_not_kept(tmp_path, monkeypatch):
    examples = build_examples(table(USERS), ITEMS, {"like": LIKE})
    network = PScoreNetwork(10, 1, PScoreNetworkConfig(4, 8))

    def step(self):
        with torch.no_grad():
            network.nobody.fill_(torch.inf)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(ModelError, match="weights are no numbers after the last step of epoch 1"):
        train_p_score(network, examples, {"like": LIKE}, PScoreTrainingConfig(epochs=1), tmp_path / "state.pt")
    assert not (tmp_path / "state.pt").exists()


def test_objectives_without_weight(tmp_path):
    none = {"like": Objective(signal="like", weight=0.0)}
    examples = build_examples(table(USERS), ITEMS, none)
    with pytest.raises(DataError, match="every objective has weight 0"):
        train_p_score(PScoreNetwork(10, 1, PScoreNetworkConfig()), examples, none, PScoreTrainingConfig(), tmp_path)
