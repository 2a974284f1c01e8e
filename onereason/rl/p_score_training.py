"""Training a P-Score network, epoch by epoch, and what it reaches on a part of the log.

Everything random in an epoch follows from (seed, epoch): a run that goes on after an interruption ends with the weights
of one that was never interrupted.

Notation: `P` events, `B` events of a batch, `C` candidates of an event, `O` objectives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onereason.config import check_seed
from onereason.errors import ConfigError, DataError, ModelError
from onereason.io import atomic_file
from onereason.rl.objectives import Labels, Objective
from onereason.rl.p_score import PScoreNetwork, compute_p_score_loss, fuse_labels
from onereason.rl.p_score_examples import LoggedExamples, check_users

_EVALUATION_BATCH = 1024


@dataclass(frozen=True)
class PScoreTrainingConfig:
    """Optimisation, and what is drawn beside the log."""

    epochs: int = 6
    """Passes over the training events; the one with the best fused AUC on validation is kept."""
    batch_size: int = 256
    """Events a step."""
    learning_rate: float = 2e-3
    """Of AdamW, constant."""
    weight_decay: float = 1e-2
    """Decoupled weight decay."""
    max_grad_norm: float = 1.0
    """Gradient norm is clipped to this."""
    num_negatives: int = 4
    """Items drawn beside each event, where an objective wants `sampled` negatives."""
    popularity_exponent: float = 0.0
    """How they are drawn: 0 evenly, 1 by popularity in the training part (then popularity itself earns no score)."""
    users: tuple[float, float] = (0.0, 1.0)
    """Which share of the users trains, by a hash of their name. Reinforcement on the others (`prompts.users`) is never
    rewarded by what the scorer has learned by heart."""
    seed: int = 0
    """Seed of first weights, order and drawn items."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "num_negatives"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}.")
        for name in ("weight_decay", "popularity_exponent"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        check_users(self.users)
        check_seed(self.seed)


def compute_pos_weights(
    objectives: Mapping[str, Objective], labels: Labels, train: np.ndarray, num_negatives: int
) -> np.ndarray:
    """How often a positive counts, float32 `[O]`; `balanced` is negatives over positives, drawn ones included.

    Args:
        train: int64, the training events.
    """
    weights = []
    for column, (name, objective) in enumerate(objectives.items()):
        if objective.pos_weight == "balanced":
            drawn = num_negatives * int(labels.sampled[train, column].sum())
            weights.append((labels.counts[name]["negatives"] + drawn) / labels.counts[name]["positives"])
        else:
            weights.append(float(objective.pos_weight))
    return np.array(weights, dtype=np.float32)


def compute_auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Share of the pairs with unequal labels in which the larger label has the larger score; ties are half.

    For labels 0 and 1 the area under the ROC curve. None where all labels are equal.
    """
    wins, pairs, lower = 0.0, 0, np.zeros(0)
    for label in np.unique(labels):
        own = scores[labels == label]
        if len(lower):
            below, up_to = (np.searchsorted(lower, own, side) for side in ("left", "right"))
            wins += float(below.sum() + up_to.sum()) / 2
            pairs += len(lower) * len(own)
        lower = np.sort(np.concatenate([lower, own]))
    return wins / pairs if pairs else None


def compute_auc_within(labels: np.ndarray, scores: np.ndarray, known: np.ndarray) -> float | None:
    """`compute_auc` over the pairs inside a row of `[P, C]`; True in `known` selects what has a label."""
    larger = (labels[:, :, None] > labels[:, None, :]) & known[:, :, None] & known[:, None, :]
    difference = scores[:, :, None] - scores[:, None, :]
    won = (difference > 0) + 0.5 * (difference == 0)
    return float(won[larger].mean()) if larger.any() else None


def evaluate_p_score(
    network: PScoreNetwork,
    examples: LoggedExamples,
    events: np.ndarray,
    objectives: Sequence[Objective],
    num_negatives: int,
    seed: int,
) -> dict[str, Any]:
    """What a network reaches on events `[P]`: AUC a tower, and of the fused score.

    Returns:
        `auc`: objective -> AUC over its known labels (None where only one class occurs).
        `score_auc`: of the fused score against the fused label, over all candidates; `score_auc_within` over pairs
        of one event, the logged item against those drawn beside it: what a reward tells apart.
        `candidates`: objective -> known labels.
    """
    rng = np.random.default_rng([seed, 1])
    device, network = network.recency.device, network.eval()
    parts: list[tuple[np.ndarray, ...]] = []
    for start in range(0, len(events), _EVALUATION_BATCH):
        chunk = events[start : start + _EVALUATION_BATCH]
        batch = examples.batch(chunk, network.config.max_history, num_negatives, rng)
        with torch.inference_mode():
            inputs = (torch.from_numpy(a).to(device) for a in (batch.histories, batch.candidates))
            towers, scores = (x.double().cpu().numpy() for x in network(*inputs))
        parts.append((batch.labels, batch.known, towers, scores))
    labels, known, towers, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    weights = torch.tensor([o.weight for o in objectives])
    fused, labelled = (x.numpy() for x in fuse_labels(torch.from_numpy(labels), torch.from_numpy(known), weights))
    aucs, found = {}, {}
    for column, name in enumerate(examples.labels.names):
        own = known[..., column]
        aucs[name] = compute_auc(labels[..., column][own], towers[..., column][own])
        found[name] = int(own.sum())
    return {
        "auc": aucs,
        "score_auc": compute_auc(fused[labelled], scores[labelled]),
        "score_auc_within": compute_auc_within(fused, scores, labelled),
        "candidates": found,
    }


def train_p_score(
    network: PScoreNetwork,
    examples: LoggedExamples,
    objectives: Mapping[str, Objective],
    config: PScoreTrainingConfig,
    state_path: Path,
    report: Callable[[Mapping[str, Any]], None] = lambda entry: None,
) -> list[dict[str, Any]]:
    """Trains in place and leaves the weights of the best epoch; goes on from `state_path` where it stands.

    Args:
        state_path: file that holds the run after each whole epoch.
        report: is given each epoch's entry.

    Returns:
        One entry an epoch: `epoch`, `loss`, `score_loss`, `loss_<objective>`, and the validation's figures.

    Raises:
        ModelError: the loss is no number; or `state_path` cannot be read.
        DataError: all objectives have weight 0.
    """
    if not any(o.weight for o in objectives.values()):
        raise DataError("every objective has weight 0, so the fused score has no label; give one a weight above 0.")
    device = network.recency.device
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    weights = torch.tensor([o.weight for o in objectives.values()], device=device)
    pos = compute_pos_weights(objectives, examples.labels, examples.train, config.num_negatives)
    pos_weights = torch.from_numpy(pos).to(device)
    state: dict[str, Any] = {"history": [], "best": None}
    if state_path.is_file():
        state = _read_state(state_path, network, optimizer)
    history = state["history"]
    for epoch in range(len(history), config.epochs):
        entry: dict[str, Any] = {"epoch": epoch + 1}
        entry |= _run_epoch(network, examples, optimizer, weights, pos_weights, config, epoch)
        entry["validation"] = evaluate_p_score(
            network, examples, examples.validation, list(objectives.values()), config.num_negatives, config.seed
        )
        history.append(entry)
        if best_epoch(history) == epoch + 1:
            state["best"] = {name: value.detach().clone() for name, value in network.state_dict().items()}
        state |= {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        with atomic_file(state_path) as temporary:
            torch.save(state, temporary)
        report(entry)
    network.load_state_dict(state["best"])
    return history


def best_epoch(history: Sequence[Mapping[str, Any]]) -> int:
    """Number (from 1) of the epoch with the best fused AUC on validation; the last one where none has an AUC."""
    reached = [-1.0 if e["validation"]["score_auc"] is None else e["validation"]["score_auc"] for e in history]
    return max(range(len(history)), key=lambda n: (reached[n], n)) + 1


def _run_epoch(
    network: PScoreNetwork,
    examples: LoggedExamples,
    optimizer: torch.optim.Optimizer,
    weights: torch.Tensor,
    pos_weights: torch.Tensor,
    config: PScoreTrainingConfig,
    epoch: int,
) -> dict[str, float]:
    """One pass; mean losses over its steps."""
    rng = np.random.default_rng([config.seed, 0, epoch])
    order = rng.permutation(examples.train)
    network.train()
    totals = torch.zeros(2 + len(weights), dtype=torch.float64)
    steps = range(0, len(order), config.batch_size)
    for step, start in enumerate(steps, 1):
        events = order[start : start + config.batch_size]
        batch = examples.batch(events, network.config.max_history, config.num_negatives, rng)
        arrays = (batch.histories, batch.candidates, batch.labels, batch.known)
        histories, candidates, labels, known = (torch.from_numpy(a).to(weights.device) for a in arrays)
        tower_logits, score_logits = network(histories, candidates)
        loss = compute_p_score_loss(tower_logits, score_logits, labels, known, weights, pos_weights)
        if not torch.isfinite(loss.loss):
            raise _diverged(f"the loss is {loss.loss.item()} at step {step}", epoch, config)
        optimizer.zero_grad()
        loss.loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_grad_norm)
        optimizer.step()
        totals += torch.cat([loss.loss.detach()[None], loss.fusion[None], loss.towers]).double().cpu()
    if not all(bool(parameter.isfinite().all()) for parameter in network.parameters()):
        raise _diverged("weights are no numbers after the last step", epoch, config)
    names = ["loss", "score_loss", *(f"loss_{name}" for name in examples.labels.names)]
    return dict(zip(names, (totals / len(steps)).tolist(), strict=True))


def _diverged(what: str, epoch: int, config: PScoreTrainingConfig) -> ModelError:
    return ModelError(
        f"{what} of epoch {epoch + 1}; lower training.learning_rate ({config.learning_rate}) or an objective's "
        "pos_weight."
    )


def _read_state(path: Path, network: PScoreNetwork, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location=network.recency.device, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
    except Exception as error:  # bytes that are no archive raise nearly anything
        raise ModelError(f"{path} cannot be read as the state of a run: {error!r}; remove it to start over.") from error
    return state
