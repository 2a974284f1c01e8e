"""P-Score: a personal score of (user, item), learned from logged signals (OneRec Technical Report, rewards).

One network: a user is what came before (a mean of item vectors, and an attention over them that the candidate asks),
each objective has a tower, and a final MLP fuses the towers. Nothing is known of a user but the history, so users who
were never trained on are scored as any other.

The loss is one binary cross-entropy a tower, and one of the fused score against the weighted mean of the known labels.
Up to a factor a row that is the weighted sum of the score's cross-entropies with every label: the objectives' weights
are the only choice. The final MLP reads the towers' hidden states beside user
and item, and its gradient goes on into them: the towers share what they learn. A tower's own output keeps its meaning,
since only its own cross-entropy reaches the layer that reads it off.

Notation: `I` items, `E` dimensions of item vectors, `D` hidden, `B` requests, `n` history items, `C` candidates of a
request, `O` objectives; `G` groups, `N` traces, `K` items a trace.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from onereason.config import build_config, to_dict
from onereason.errors import CatalogError, ConfigError, DataError, ModelError
from onereason.io import MANIFEST_NAME, atomic_dir, read_json, write_json
from onereason.itemic.catalog import Catalog
from onereason.model.device import resolve_device

SCORER_FILE = "p_score.json"
WEIGHTS_FILE = "model.safetensors"
ITEMS_FILE = "item_ids.json"
_MAX_LOGIT = 30.0
"""Beyond it a float64 sigmoid is still below 1, and nobody can tell the difference."""
_CANDIDATES_A_BATCH = 4096


@dataclass(frozen=True)
class PScoreNetworkConfig:
    """Size of the network."""

    max_history: int = 20
    """Newest items that stand for the user."""
    hidden_size: int = 32
    """Dimensions of an item inside the network, of a tower and of the final MLP."""

    def __post_init__(self) -> None:
        for name in ("max_history", "hidden_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")


class PScoreNetwork(nn.Module):
    """Histories and candidates -> a logit an objective, and the fused one.

    Args:
        vectors: float32 `[I, E]`, fixed item vectors; None learns a table.
    """

    def __init__(
        self, num_items: int, num_objectives: int, config: PScoreNetworkConfig, vectors: np.ndarray | None = None
    ):
        super().__init__()
        self.config, hidden = config, config.hidden_size
        # Row 0 stands where no item is: index -1 and padding.
        if vectors is None:
            self.items = nn.Parameter(0.1 * torch.randn(num_items + 1, hidden))
            self.project: nn.Module = nn.Identity()
        else:
            table = torch.from_numpy(np.array(vectors, dtype=np.float32))
            scaled = table / table.square().mean().sqrt().clamp(min=1e-12)  # entries of about 1, as layers like them
            self.register_buffer("items", torch.cat([torch.zeros(1, table.shape[1]), scaled]))
            self.project = nn.Linear(table.shape[1], hidden)
        self.query, self.key = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.recency = nn.Parameter(torch.zeros(config.max_history))
        self.nobody = nn.Parameter(torch.zeros(hidden))  # what attention finds where there is no history
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(5 * hidden, hidden), nn.ReLU()) for _ in range(num_objectives)
        )
        self.heads = nn.ModuleList(nn.Linear(hidden, 1) for _ in range(num_objectives))
        self.fusion = nn.Sequential(nn.Linear((num_objectives + 5) * hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, histories: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """int64 `[B, n]` (newest last, -1 where there is none) and `[B, C]` -> logits `[B, C, O]` and `[B, C]`."""
        history = self.project(self.items[histories + 1])  # [B, n, D]
        candidate = self.project(self.items[candidates + 1])  # [B, C, D]
        there = histories >= 0
        mean = (history * there[..., None]).sum(1) / there.sum(1, keepdim=True).clamp(min=1)  # [B, D]
        mean = mean[:, None].expand_as(candidate)
        attended = self._attend(history, there, candidate)
        pair = torch.cat([mean, attended, candidate, mean * candidate, attended * candidate], dim=-1)  # [B, C, 5D]
        hidden = [tower(pair) for tower in self.towers]
        logits = torch.cat([head(h) for head, h in zip(self.heads, hidden, strict=True)], dim=-1)  # [B, C, O]
        return logits, self.fusion(torch.cat([*hidden, pair], dim=-1)).squeeze(-1)

    def _attend(self, history: Tensor, there: Tensor, candidate: Tensor) -> Tensor:
        """What of the history a candidate recalls, `[B, C, D]`; one more place stands for nothing at all."""
        scores = self.query(candidate) @ self.key(history).transpose(1, 2) / math.sqrt(history.shape[-1])  # [B, C, n]
        scores = (scores + self.recency[-history.shape[1] :]).masked_fill(~there[:, None], -torch.inf)
        weights = torch.cat([scores, torch.zeros_like(scores[..., :1])], dim=-1).softmax(-1)  # [B, C, n + 1]
        return weights[..., :-1] @ history + weights[..., -1:] * self.nobody


def fuse_labels(labels: Tensor, known: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean of the known labels `[..., O]`: the label of the fused score `[...]`, and where there is one."""
    counted = known * weights
    total = counted.sum(-1)
    return (labels * counted).sum(-1) / total.clamp(min=1e-12), total > 0


@dataclass(frozen=True)
class PScoreLoss:
    """Attributes: loss: the scalar to descend. towers: float `[O]`, detached. fusion: detached scalar."""

    loss: Tensor
    towers: Tensor
    fusion: Tensor


def compute_p_score_loss(
    tower_logits: Tensor, score_logits: Tensor, labels: Tensor, known: Tensor, weights: Tensor, pos_weights: Tensor
) -> PScoreLoss:
    """Sum of the towers' cross-entropies and the fused score's, each a mean over what is known.

    Args:
        tower_logits: `[..., O]`; score_logits: `[...]`.
        labels: `[..., O]`, 0 or 1; known: bool `[..., O]`, True selects labels that teach.
        weights: `[O]`, of the objectives in the fused label.
        pos_weights: `[O]`, how often a positive counts in its tower's loss.
    """
    each = binary_cross_entropy_with_logits(tower_logits, labels, reduction="none", pos_weight=pos_weights)
    rows = known.flatten(0, -2)
    towers = (each.flatten(0, -2) * rows).sum(0) / rows.sum(0).clamp(min=1)  # [O]
    fused, labelled = fuse_labels(labels, known, weights)
    each = binary_cross_entropy_with_logits(score_logits, fused, reduction="none")
    fusion = (each * labelled).sum() / labelled.sum().clamp(min=1)
    return PScoreLoss(towers.sum() + fusion, towers.detach(), fusion.detach())


def pad_histories(histories: Sequence[np.ndarray], max_history: int) -> np.ndarray:
    """The newest items of each history, int64 `[B, n]`: newest last, -1 before the first."""
    padded = np.full((len(histories), max_history), -1, dtype=np.int64)
    for row, history in zip(padded, histories, strict=True):
        newest = np.asarray(history, dtype=np.int64)[-max_history:]
        row[max_history - len(newest) :] = newest
    return padded


@dataclass(frozen=True)
class PScorer:
    """A trained network with what it was trained for.

    Attributes:
        item_ids: `I` item ids; item indices are positions among them.
        objectives: names of the towers.
    """

    network: PScoreNetwork
    item_ids: list[str]
    objectives: tuple[str, ...]

    def score(self, histories: Sequence[np.ndarray], candidates: np.ndarray) -> np.ndarray:
        """Fused scores in (0, 1), float64 `[G, N, K]`; 0 where the candidate is -1.

        Args:
            histories: `G` int64 arrays of item indices, oldest first; may be empty.
            candidates: int64 `[G, N, K]` item indices, -1 where there is none.

        Raises:
            DataError: unequal numbers of groups, or an index that no item has.
        """
        return self._score(histories, candidates)[0]

    def score_objectives(self, histories: Sequence[np.ndarray], candidates: np.ndarray) -> np.ndarray:
        """The towers' probabilities as `score` gives the fused score, float64 `[G, N, K, O]`."""
        return self._score(histories, candidates)[1]

    def _score(self, histories: Sequence[np.ndarray], candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        candidates = np.asarray(candidates, dtype=np.int64)
        if candidates.ndim != 3 or len(candidates) != len(histories):
            raise DataError(
                f"candidates should be [G, N, K] with one group a history, got {list(candidates.shape)} for "
                f"{len(histories)} histories."
            )
        padded = pad_histories(histories, self.network.config.max_history)
        for name, found in (("candidates", candidates), ("histories", padded)):
            if found.size and not -1 <= found.min() <= found.max() < len(self.item_ids):
                raise DataError(
                    f"{name} hold item indices {found.min()} .. {found.max()}; the scorer knows 0 .. "
                    f"{len(self.item_ids) - 1}, and -1 where there is none."
                )
        groups, per_group = len(candidates), int(np.prod(candidates.shape[1:]))
        flat = candidates.reshape(groups, per_group)
        scores, towers = np.zeros(flat.shape), np.zeros((*flat.shape, len(self.objectives)))
        step = max(1, _CANDIDATES_A_BATCH // max(1, per_group))
        device = self.network.recency.device
        self.network.eval()
        with torch.inference_mode():
            for start in range(0, groups if per_group else 0, step):
                chunk = slice(start, start + step)
                inputs = (torch.from_numpy(a[chunk]).to(device) for a in (padded, flat))
                tower_logits, score_logits = self.network(*inputs)
                scores[chunk] = _to_probability(score_logits)
                towers[chunk] = _to_probability(tower_logits)
        scores[flat < 0] = 0.0
        towers[flat < 0] = 0.0
        return scores.reshape(candidates.shape), towers.reshape(*candidates.shape, len(self.objectives))


def _to_probability(logits: Tensor) -> np.ndarray:
    return logits.double().clamp(-_MAX_LOGIT, _MAX_LOGIT).sigmoid().cpu().numpy()


def save_p_scorer(scorer: PScorer, folder: str | Path, manifest: Mapping[str, Any], overwrite: bool = False) -> None:
    """Writes a scorer as a folder of its own, whole or not at all."""
    weights = {name: value.detach().cpu().contiguous() for name, value in scorer.network.state_dict().items()}
    described = {
        "version": 1,
        "objectives": list(scorer.objectives),
        "network": to_dict(scorer.network.config),
        "vector_size": None if isinstance(scorer.network.items, nn.Parameter) else scorer.network.items.shape[1],
    }
    with atomic_dir(folder, overwrite) as temporary:
        safetensors.torch.save_file(weights, temporary / WEIGHTS_FILE)
        write_json(temporary / SCORER_FILE, described)
        write_json(temporary / ITEMS_FILE, scorer.item_ids)
        write_json(temporary / MANIFEST_NAME, dict(manifest))


def load_p_scorer(folder: str | Path, catalog: Catalog, device: str = "cpu") -> PScorer:
    """Reads a scorer for the items of a catalog. Semantic ids may differ: items are compared by id and place.

    Raises:
        ModelError: the folder is no scorer, or is malformed.
        CatalogError: the catalog has other items, or the same in another order.
    """
    folder = Path(folder)
    for name in (SCORER_FILE, WEIGHTS_FILE, ITEMS_FILE):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} is no P-Score folder: {name} is missing; train one with `recipes.p_score`.")
    described, item_ids = read_json(folder / SCORER_FILE, "P-Score"), read_json(folder / ITEMS_FILE, "P-Score items")
    _require_items(item_ids, catalog, folder)
    try:
        objectives, size = tuple(described["objectives"]), described["vector_size"]
        config = build_config(PScoreNetworkConfig, described["network"], str(folder / SCORER_FILE))
        vectors = None if size is None else np.zeros((len(item_ids), int(size)), dtype=np.float32)
        network = PScoreNetwork(len(item_ids), len(objectives), config, vectors)
        network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS_FILE))
    except (KeyError, TypeError, RuntimeError, OSError, SafetensorError) as error:
        raise ModelError(f"{folder} cannot be read as a P-Score folder: {error!r}.") from error
    return PScorer(network.to(resolve_device(device)).eval(), item_ids, objectives)


def _require_items(item_ids: list[str], catalog: Catalog, folder: Path) -> None:
    if item_ids == catalog.item_ids:
        return
    ours, theirs = set(item_ids), set(catalog.item_ids)
    if ours == theirs:
        place = next(i for i, (a, b) in enumerate(zip(item_ids, catalog.item_ids, strict=True)) if a != b)
        found = f"has them in another order (first at place {place}: {catalog.item_ids[place]!r})"
    else:
        odd = sorted(ours ^ theirs)[0]
        found = f"has {len(theirs)} ({len(ours & theirs)} of them the same; {odd!r} is in one alone)"
    raise CatalogError(
        f"the P-Score in {folder} knows {len(item_ids)} items, the catalog {found}; train it with the catalog of the "
        "model that is rewarded (`recipes.p_score catalog=...`)."
    )
