"""The P-Score network: its loss by hand, causality, scoring, and the folder it is kept in."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from onereason.errors import CatalogError, DataError, ModelError
from onereason.io import read_json
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format
from onereason.rl.p_score import (
    PScoreNetwork,
    PScoreNetworkConfig,
    PScorer,
    compute_p_score_loss,
    fuse_labels,
    load_p_scorer,
    pad_histories,
    save_p_scorer,
)

NUM_ITEMS = 12


def catalog(ids=None) -> Catalog:
    ids = [f"i{n}" for n in range(NUM_ITEMS)] if ids is None else ids
    codes = np.stack([np.arange(len(ids)) % 8, np.arange(len(ids)) // 8], 1)
    return Catalog(load_format("onereason", 2, 8), ids, codes, ["video"] * len(ids))


def scorer(vectors: bool = True) -> PScorer:
    torch.manual_seed(0)
    fixed = np.random.default_rng(0).normal(size=(NUM_ITEMS, 6)).astype(np.float32) if vectors else None
    network = PScoreNetwork(NUM_ITEMS, 2, PScoreNetworkConfig(max_history=4, hidden_size=8), fixed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.5)
    return PScorer(network, catalog().item_ids, ("like", "buy"))


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


def test_loss_of_two_samples_by_hand():
    tower_logits = torch.tensor([[0.5, -1.0], [2.0, 0.3]])
    score_logits = torch.tensor([0.7, -0.2])
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    known = torch.tensor([[True, True], [True, False]])  # the second sample does not log the second signal
    loss = compute_p_score_loss(
        tower_logits, score_logits, labels, known, torch.tensor([1.0, 3.0]), torch.tensor([2.0, 5.0])
    )
    # First tower: a positive that counts twice, and a negative; second tower: one negative.
    first = (-2 * log_sigmoid(0.5) - log_sigmoid(-2.0)) / 2
    second = -log_sigmoid(1.0)
    # Fused labels: (1 * 1 + 3 * 0) / 4 = 0.25, and 0 / 1 = 0 as only the first objective is known.
    fused = (-0.25 * log_sigmoid(0.7) - 0.75 * log_sigmoid(-0.7) - log_sigmoid(0.2)) / 2
    assert loss.towers.tolist() == pytest.approx([first, second])
    assert float(loss.fusion) == pytest.approx(fused)
    assert loss.loss.item() == pytest.approx(first + second + fused)


def test_fused_cross_entropy_is_the_weighted_sum_over_labels():
    labels, known, weights = (
        torch.tensor([1.0, 0.0, 1.0]),
        torch.ones(3, dtype=torch.bool),
        torch.tensor([1.0, 2.0, 4.0]),
    )
    fused, _ = fuse_labels(labels, known, weights)
    assert float(fused) == pytest.approx(5 / 7)
    for logit in (-1.3, 0.4):
        of_fused = -float(fused) * log_sigmoid(logit) - (1 - float(fused)) * log_sigmoid(-logit)
        each = -log_sigmoid(logit) - 2 * log_sigmoid(-logit) - 4 * log_sigmoid(logit)
        assert of_fused == pytest.approx(each / 7)


def test_what_is_unknown_moves_nothing():
    logits = torch.tensor([[0.1], [0.2]], requires_grad=True)
    scores = torch.tensor([0.3, 0.4], requires_grad=True)
    known = torch.tensor([[True], [False]])
    loss = compute_p_score_loss(logits, scores, torch.zeros(2, 1), known, torch.ones(1), torch.ones(1)).loss
    loss.backward()
    assert logits.grad[1] == 0 and scores.grad[1] == 0
    assert logits.grad[0] != 0 and scores.grad[0] != 0
    nothing = compute_p_score_loss(logits, scores, torch.zeros(2, 1), ~known & known, torch.ones(1), torch.ones(1))
    assert nothing.loss.item() == 0


def test_the_fused_loss_reaches_towers_but_not_their_heads():
    network = scorer().network
    tower_logits, score_logits = network(torch.tensor([[1, 2, 3, 4]]), torch.tensor([[5]]))
    score_logits.sum().backward()
    assert all(head.weight.grad is None for head in network.heads)
    assert all(tower[0].weight.grad.abs().sum() > 0 for tower in network.towers)
    assert tower_logits.shape == (1, 1, 2)


def test_histories_are_padded_on_the_left_and_cut_to_the_newest():
    padded = pad_histories([np.array([1, 2]), np.array([], np.int64), np.arange(6)], 4)
    assert padded.tolist() == [[-1, -1, 1, 2], [-1] * 4, [2, 3, 4, 5]]


@pytest.mark.parametrize("vectors", [True, False])
def test_padding_is_nothing_and_scores_depend_on_user_and_item(vectors):
    network = scorer(vectors).network
    with torch.no_grad():
        long = network(torch.tensor([[-1, -1, 3, 4]]), torch.tensor([[5, 6]]))[1]
        short = network(torch.tensor([[3, 4]]), torch.tensor([[5, 6]]))[1]
        network.items[0] = 1e3  # what stands for no item has no say
        shouting = network(torch.tensor([[-1, -1, 3, 4]]), torch.tensor([[5, 6]]))[1]
        other = network(torch.tensor([[3, 7]]), torch.tensor([[5, 6]]))[1]
        swapped = network(torch.tensor([[4, 3]]), torch.tensor([[5, 6]]))[1]
    torch.testing.assert_close(short, long)
    torch.testing.assert_close(shouting, long)
    assert not torch.allclose(other, long) and long[0, 0] != long[0, 1]
    assert not torch.allclose(swapped, long)  # the newest counts otherwise than the one before


def test_scores_of_a_group_by_hand():
    model = scorer()
    histories = [np.array([1, 2, 3]), np.array([], np.int64)]
    candidates = np.array([[[4, 5, -1], [6, 4, 0]], [[1, -1, -1], [2, 3, 3]]])
    scores, towers = model.score(histories, candidates), model.score_objectives(histories, candidates)
    assert scores.dtype == np.float64 and scores.shape == (2, 2, 3) and towers.shape == (2, 2, 3, 2)
    assert (scores[candidates < 0] == 0).all()
    assert ((scores > 0) & (scores < 1))[candidates >= 0].all()
    for g, n, k in zip(*np.nonzero(candidates >= 0), strict=True):
        history = torch.from_numpy(pad_histories([histories[g]], 4))
        with torch.no_grad():
            tower_logits, logit = model.network(history, torch.tensor([[candidates[g, n, k]]]))
        assert scores[g, n, k] == pytest.approx(1 / (1 + math.exp(-float(logit))), rel=1e-4)
        assert towers[g, n, k] == pytest.approx(1 / (1 + np.exp(-tower_logits[0, 0].numpy())), rel=1e-4)


def test_scores_are_the_same_every_time_and_in_any_batch(monkeypatch):
    model, rng = scorer(), np.random.default_rng(3)
    histories = [rng.integers(NUM_ITEMS, size=n) for n in range(7)]
    candidates = rng.integers(-1, NUM_ITEMS, size=(7, 2, 3))
    whole = model.score(histories, candidates)
    assert np.array_equal(whole, model.score(histories, candidates))
    monkeypatch.setattr("onereason.rl.p_score._CANDIDATES_A_BATCH", 1)
    np.testing.assert_allclose(model.score(histories, candidates), whole, rtol=1e-5)


def test_extreme_logits_stay_inside_0_and_1():
    model = scorer()
    with torch.no_grad():
        model.network.fusion[-1].weight.fill_(0)
        for bias, low, high in ((1e4, 0.999, 1.0), (-1e4, 0.0, 0.001)):
            model.network.fusion[-1].bias.fill_(bias)
            found = model.score([np.array([1])], np.array([[[2]]]))
            assert low < found[0, 0, 0] < high


def test_empty_candidates():
    assert scorer().score([np.array([1])], np.zeros((1, 0, 5), np.int64)).shape == (1, 0, 5)
    assert scorer().score([], np.zeros((0, 2, 5), np.int64)).shape == (0, 2, 5)


@pytest.mark.parametrize(
    ("histories", "candidates", "message"),
    [
        ([[1]], [[1, 2]], r"should be \[G, N, K\]"),
        ([[1], [2]], [[[1]]], "for 2 histories"),
        ([[1]], [[[NUM_ITEMS]]], "candidates hold item indices 12 .. 12; the scorer knows 0 .. 11"),
        ([[-2]], [[[1]]], "histories hold item indices -2"),
    ],
)
def test_what_cannot_be_scored(histories, candidates, message):
    with pytest.raises(DataError, match=message):
        scorer().score([np.array(h) for h in histories], np.array(candidates))


@pytest.mark.parametrize("vectors", [True, False])
def test_a_folder_gives_the_same_scores(tmp_path, vectors):
    model = scorer(vectors)
    save_p_scorer(model, tmp_path / "scorer", {"kind": "p_score"})
    again = load_p_scorer(tmp_path / "scorer", catalog())
    assert again.objectives == ("like", "buy") and again.network.config == model.network.config
    histories, candidates = [np.array([1, 2])], np.arange(NUM_ITEMS).reshape(1, 3, 4)
    assert np.array_equal(again.score(histories, candidates), model.score(histories, candidates))
    assert read_json(tmp_path / "scorer" / "manifest.json") == {"kind": "p_score"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scorer"]


def test_a_catalog_with_other_items_is_refused(tmp_path):
    save_p_scorer(scorer(), tmp_path / "scorer", {})
    ids = catalog().item_ids
    other_codes = np.stack([np.arange(12), np.arange(12)], 1)
    other_sids = Catalog(load_format("onereason", 2, 16), ids, other_codes, ["prod"] * 12)
    load_p_scorer(tmp_path / "scorer", other_sids)  # items count, not their semantic ids
    with pytest.raises(
        CatalogError, match=r"knows 12 items, the catalog has 11 \(11 of them the same; 'i11' is in one"
    ):
        load_p_scorer(tmp_path / "scorer", catalog(ids[:-1]))
    with pytest.raises(CatalogError, match=r"in another order \(first at place 0: 'i11'\)"):
        load_p_scorer(tmp_path / "scorer", catalog(ids[::-1]))


def test_a_folder_that_is_no_scorer(tmp_path):
    with pytest.raises(ModelError, match=r"p_score.json is missing; train one with `recipes.p_score`"):
        load_p_scorer(tmp_path, catalog())
    save_p_scorer(scorer(), tmp_path / "scorer", {})
    (tmp_path / "scorer" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match="cannot be read as a P-Score folder"):
        load_p_scorer(tmp_path / "scorer", catalog())
