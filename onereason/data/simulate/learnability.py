"""What can be known about the next item: three yardsticks on the last event of every user.

Recall@k among the items of the target's domain, items already met left out, for

- `popularity`: training counts;
- `markov`: how often an item followed the last item in training, then popularity;
- `oracle`: knows the transition tables and who acts, infers the live interest from the history by the rule, moves it,
  carries it into the domain, and ranks the items there by the persona's liking;
- `oracle_without_<step>`: the same oracle with one step of the chain left out.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from onereason.data.simulate.users import live_interest

if TYPE_CHECKING:
    from onereason.data.simulate.write import World

ORACLES = ("oracle", "oracle_without_persona", "oracle_without_move", "oracle_without_carry", "oracle_last_topic")


def measure_learnability(world: World, k: int = 10) -> dict[str, float]:
    """Recall@k (leave-one-out, last event of each user) of the yardsticks by name."""
    histories, targets, acting = _test_examples(world)
    domain_items = [np.flatnonzero(world.items.domain == d) for d in range(4)]
    popularity, follows = _count_training(world)
    rng = np.random.default_rng(0)
    hits: dict[str, int] = dict.fromkeys(("popularity", "markov", *ORACLES), 0)
    for user, history in enumerate(histories):
        target = targets[user]
        domain = world.items.domain[target]
        candidates = np.setdiff1d(domain_items[domain], history, assume_unique=False)
        # Ties are broken at random, never by the order of the item table.
        jitter = rng.random(len(candidates)) * 1e-6
        scores = {"popularity": popularity[candidates] + jitter}
        pairs = follows.get(int(history[-1]), {})
        seen = np.array([pairs.get(int(c), 0) for c in candidates])
        scores["markov"] = seen + scores["popularity"] / (popularity.max() + 1)
        for name in ORACLES:
            scores[name] = _oracle_scores(world, user, history, acting[user], domain, candidates, name) + jitter * 1e-6
        position = np.flatnonzero(candidates == target)
        for name, score in scores.items():
            hits[name] += bool(len(position)) and int((score > score[position[0]]).sum() < k)
    return {name: count / len(histories) for name, count in hits.items()}


def _test_examples(world: World) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray]]:
    """Histories before the last event, the last items, and the positions of the person who acts then."""
    behaviour = world.behaviour
    histories, acting = [], []
    last = behaviour.lengths - 1
    for user, end in enumerate(last):
        histories.append(behaviour.item[:end, user])
        acting.append(np.flatnonzero(behaviour.person[:end, user] == behaviour.person[end, user]))
    return histories, behaviour.item[last, np.arange(len(last))], acting


def _count_training(world: World) -> tuple[np.ndarray, dict[int, dict[int, int]]]:
    """Item counts and item -> next item -> count over all events but each user's last two."""
    behaviour = world.behaviour
    counts = np.zeros(len(world.items))
    follows: dict[int, dict[int, int]] = {}
    for user, length in enumerate(behaviour.lengths):
        items = behaviour.item[: length - 2, user].tolist()
        np.add.at(counts, items, 1)
        for a, b in itertools.pairwise(items):
            row = follows.setdefault(a, {})
            row[b] = row.get(b, 0) + 1
    return counts, follows


def _oracle_scores(
    world: World, user: int, history: np.ndarray, acting: np.ndarray, domain: int, candidates: np.ndarray, name: str
) -> np.ndarray:
    items, tables, config = world.items, world.tables, world.config
    own = history[acting]
    window = items.topic[own[-config.window :]]
    live = live_interest(window[None])[0][0] if name != "oracle_last_topic" else window[-1]
    cue = items.facet[own[-1]]
    length = world.behaviour.lengths[user]
    persona = world.behaviour.personas[user, world.behaviour.person[length - 1, user]]
    guesses = range(config.personas) if name == "oracle_without_persona" else range(persona, persona + 1)
    scores = np.zeros(len(candidates))
    for guess in guesses:
        topic = live
        if name != "oracle_without_move":
            topic = tables.move(np.array([guess]), np.array([live]), np.array([cue]), config.num_moves)[-1][0]
        subject = topic if name == "oracle_without_carry" else tables.express[domain, topic]
        right = items.subject[candidates] == subject
        row = -1 if name == "oracle_without_persona" else persona
        scores += right * items.weights[row, candidates]
    return scores
