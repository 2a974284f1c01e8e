"""What people do: one step of all users at a time.

An interest is *live* when its topic leads the recent evidence. An episode starts when one of a person's latent
interests is triggered: a burst of events makes it live, then the person moves away from it along the persona's map, in
whatever domain comes next; then another interest is triggered. Noise is mixed in everywhere. A move happens only when
the evidence is saturated, and where it leads follows from the history, the persona and the domain alone (see
`live_interest` and `Tables.move`), so that it can be recomputed.

Notation: `U` users, `S` steps, `W` window, `I` latent interests a person has at most, `T` topics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onereason.data.simulate.config import WorldConfig
from onereason.data.simulate.names import DOMAINS, KINDS, MOVE_KINDS, PERSONAS
from onereason.data.simulate.world import NEUTRAL, ItemTable, Tables
from onereason.errors import ConfigError

MAX_INTERESTS = 4
STAY, TRIGGER, NARROW, NOISE = (KINDS.index(k) for k in ("stay", "trigger", "narrow", "noise"))
MOVES = np.array([KINDS.index(k) for k in MOVE_KINDS])
_BURST, _MOVING = 0, 1
_TRIES = 8
_PATIENCE = 500


@dataclass(frozen=True)
class Behaviour:
    """What all users did and why. Arrays are `[S, U]`; step `s` of user `u` exists when `s < lengths[u]`.

    Attributes:
        personas: int64 `[U, 2]`, the persona of each person (the second is -1 unless the device is shared).
        interests: int64 `[U, 2, I]`, the latent interests at the start, -1 where there are fewer.
        lengths: int64 `[U]`, events of each timeline.
        item, domain, topic, facet: the item chosen, its domain, the interest it serves, its facet.
        kind: index into `KINDS`.
        person: which person acted (0 or 1).
        cause: the topic of the interest that caused the event (-1 for noise): the moved-from interest for moves.
        live, count: the live topic by the rule and how often it stands in the window (-1 and 0 without evidence).
        cue: the facet of the person's last event (-1 without one).
        slot: which of the person's latent interests the episode is about.
        relations, path: `[S, U, num_moves]`, the steps of a move; -1 elsewhere. The last of `path` is the item's topic.
        new_session: True where a session begins.
    """

    personas: np.ndarray
    interests: np.ndarray
    lengths: np.ndarray
    item: np.ndarray
    domain: np.ndarray
    topic: np.ndarray
    facet: np.ndarray
    kind: np.ndarray
    person: np.ndarray
    cause: np.ndarray
    live: np.ndarray
    count: np.ndarray
    cue: np.ndarray
    slot: np.ndarray
    relations: np.ndarray
    path: np.ndarray
    new_session: np.ndarray


def live_interest(window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The live topic `[n]` and its count `[n]` in windows of topics `[n, W]` (oldest first, -1 where empty).

    The topic seen most often; ties go to the most recent. -1 and 0 for an empty window.
    """
    size = window.shape[1]
    counts = (window[:, :, None] == window[:, None, :]).sum(2)
    counts[window < 0] = 0
    best = (counts * size + np.arange(size)).argmax(1)
    rows = np.arange(len(window))
    return window[rows, best], counts[rows, best]


def simulate_users(
    config: WorldConfig,
    tables: Tables,
    items: ItemTable,
    rng: np.random.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> Behaviour:
    """Lets every user act until the timeline has its length and its last two events are moves of one person.

    `progress` is called with (users finished, users) after each step.
    """
    state = _State(config, tables, items, rng)
    steps: list[dict[str, np.ndarray]] = []
    while len(state.active):
        if len(steps) > config.max_length + _PATIENCE:
            raise ConfigError(
                f"with noise {config.noise}, window {config.window} and saturation {config.saturation} "
                f"{len(state.active)} timelines never see two moves in a row; lower --noise or --saturation."
            )
        steps.append(state.step())
        if progress is not None:
            progress(config.users - len(state.active), config.users)
    stacked = {name: np.stack([step[name] for step in steps]) for name in steps[0]}
    return Behaviour(personas=state.personas, interests=state.first_interests, lengths=state.lengths, **stacked)


class _State:
    """Everything that changes from step to step, for all users at once."""

    def __init__(self, config: WorldConfig, tables: Tables, items: ItemTable, rng: np.random.Generator):
        self.config, self.tables, self.items, self.rng = config, tables, items, rng
        users = config.users
        first = rng.integers(config.personas, size=users)
        other = (first + rng.integers(1, max(config.personas, 2), size=users)) % config.personas
        self.shared = rng.random(users) < config.shared_device_share
        self.personas = np.stack([first, np.where(self.shared, other, -1)], axis=1)
        # Distinct topics for the two people of a device, some topics dearer to everyone than others.
        appeal = 1.0 / np.arange(1, config.topics + 1) ** 0.3
        keys = rng.gumbel(size=(users, config.topics)) + np.log(rng.permutation(appeal))
        order = np.argsort(-keys, axis=1)
        held = order[:, np.arange(2 * MAX_INTERESTS) % config.topics].reshape(users, 2, MAX_INTERESTS)
        self.num_interests = rng.integers(2, MAX_INTERESTS + 1, size=(users, 2))
        exists = np.arange(MAX_INTERESTS) < self.num_interests[:, :, None]
        self.interests = np.where(exists & (self.personas >= 0)[:, :, None], held, -1)
        self.first_interests = self.interests.copy()

        self.window = np.full((users, 2, config.window), -1)
        self.last_facet = np.full((users, 2), -1)
        self.last_domain = np.full(users, -1)
        self.slot = np.zeros((users, 2), dtype=np.int64)
        self.phase = np.full((users, 2), _BURST)
        self.fresh = np.ones((users, 2), dtype=bool)
        self.moves_left = np.zeros((users, 2), dtype=np.int64)
        self.moved_to = np.full((users, 2), -1)
        self.actor = np.zeros(users, dtype=np.int64)
        self.session_left = np.zeros(users, dtype=np.int64)
        self.was_move = np.zeros(users, dtype=bool)
        self.aim = rng.integers(config.min_length, config.max_length + 1, size=users)
        self.lengths = np.zeros(users, dtype=np.int64)
        self.active = np.arange(users)
        self.history = np.full((users, 0), -1)

        chosen = PERSONAS[: config.personas]
        self.narrow = np.array([p.narrow for p in chosen])
        self.evolve = np.array([p.evolve for p in chosen])
        self.move_bounds = np.array([p.moves for p in chosen])
        self.domain_habit = np.log(np.array([p.domains for p in chosen]))

    def step(self) -> dict[str, np.ndarray]:
        """One event of every unfinished user; the finished keep their last values."""
        rng, u = self.rng, self.active
        new_session = self._open_sessions(u)
        a = self.actor[u]
        persona = self.personas[u, a]
        live, count = live_interest(self.window[u, a])
        self._turn_episodes(u, a, persona, live, count)

        num_moves = self.config.num_moves
        cue = self.last_facet[u, a]
        saturated = count >= self.config.saturation
        noise = rng.random(len(u)) < self.config.noise
        burst = self.phase[u, a] == _BURST
        move = ~noise & ~burst & saturated
        path = np.stack(self.tables.move(persona, np.maximum(live, 0), np.maximum(cue, 0), num_moves), axis=1)
        relations, topics = path[:, 0::2], path[:, 1::2]

        source = np.where(burst, self.interests[u, a, self.slot[u, a]], live)
        topic = np.where(move, topics[:, -1], source)
        topic = np.where(noise, rng.integers(self.config.topics, size=len(u)), topic)
        narrow = ~noise & ~move & ~self.fresh[u, a] & (cue >= 0) & (rng.random(len(u)) < self.narrow[persona])
        kind = np.where(narrow, NARROW, STAY)
        kind[burst & self.fresh[u, a]] = TRIGGER
        kind = np.where(move, MOVES[relations[:, -1]], kind)
        kind[noise] = NOISE

        domain = self._choose_domain(u, persona, kind)
        subject = self.tables.express[domain, topic]
        item = self._choose_item(u, np.where(noise, NEUTRAL, persona), domain, subject, np.where(narrow, cue, -1))
        facet = self.items.facet[item]
        row = {
            "item": item,
            "domain": domain,
            "topic": topic,
            "facet": facet,
            "kind": kind,
            "person": a,
            "cause": np.where(noise, -1, source),
            "live": live,
            "count": count,
            "cue": cue,
            "slot": self.slot[u, a],
            "relations": np.where(move[:, None], relations, -1),
            "path": np.where(move[:, None], topics, -1),
            "new_session": new_session,
        }
        self._remember(u, a, row, move, noise)
        return self._spread(u, row)

    def _open_sessions(self, u: np.ndarray) -> np.ndarray:
        new = self.session_left[u] == 0
        shared = self.shared[u]
        # People who share a device take turns, and sit longer; nobody hands over between two moves at the end.
        length = self.rng.integers(3, 9, size=len(u)) + np.where(shared, 3, 0)
        self.session_left[u] = np.where(new, length, self.session_left[u]) - 1
        turn = self.rng.random(len(u)) < 0.5
        begun = self.lengths[u] > 0
        self.actor[u] = np.where(new & shared & (begun | turn), 1 - self.actor[u], self.actor[u])
        self.was_move[u] &= ~(new & shared)
        return new

    def _turn_episodes(
        self, u: np.ndarray, a: np.ndarray, persona: np.ndarray, live: np.ndarray, count: np.ndarray
    ) -> None:
        """Ends spent episodes and lets bursts that made their interest live turn into moves."""
        rng = self.rng
        bounds = self.move_bounds[persona]
        quota = rng.integers(bounds[:, 0], bounds[:, 1] + 1)
        evolves = rng.random(len(u)) < self.evolve[persona]
        pick = rng.random(len(u))
        first = rng.random(len(u))

        slot, number = self.slot[u, a], self.num_interests[u, a]
        unborn = self.window[u, a, -1] < 0
        slot = np.where(unborn, (first * number).astype(np.int64), slot)
        spent = (self.phase[u, a] == _MOVING) & (self.moves_left[u, a] == 0)
        replaced = spent & evolves & (self.moved_to[u, a] >= 0)
        held = self.interests[u, a, slot]
        self.interests[u, a, slot] = np.where(replaced, self.moved_to[u, a], held)
        hop = 1 + (pick * np.maximum(number - 1, 1)).astype(np.int64)
        slot = np.where(spent, (slot + hop) % number, slot)
        self.slot[u, a] = slot
        self.phase[u, a] = np.where(spent, _BURST, self.phase[u, a])
        self.fresh[u, a] |= spent
        self.moved_to[u, a] = np.where(spent, -1, self.moved_to[u, a])

        arrived = (self.phase[u, a] == _BURST) & (live == self.interests[u, a, slot])
        arrived &= count >= self.config.saturation
        self.phase[u, a] = np.where(arrived, _MOVING, self.phase[u, a])
        self.moves_left[u, a] = np.where(arrived, quota, self.moves_left[u, a])

    def _choose_domain(self, u: np.ndarray, persona: np.ndarray, kind: np.ndarray) -> np.ndarray:
        """By the persona's habit; an echo sounds in another domain than the last event's."""
        score = self.domain_habit[persona] + self.rng.gumbel(size=(len(u), len(DOMAINS)))
        echo = np.flatnonzero((kind == KINDS.index("echo")) & (self.last_domain[u] >= 0))
        score[echo, self.last_domain[u[echo]]] = -np.inf
        return score.argmax(1)

    def _choose_item(
        self, u: np.ndarray, persona: np.ndarray, domain: np.ndarray, subject: np.ndarray, facet: np.ndarray
    ) -> np.ndarray:
        """By the persona's liking inside the cell; what the user has met already is drawn again, a few times."""
        topics = self.config.topics
        ranges = self.items.ranges(domain, subject, facet, topics)
        item = self.items.draw(persona, ranges, self.rng.random(len(u)))
        for _ in range(_TRIES):
            again = np.flatnonzero((self.history[u] == item[:, None]).any(1))
            if not len(again):
                break
            item[again] = self.items.draw(persona[again], ranges[:, again], self.rng.random(len(again)))
        return item

    def _remember(
        self, u: np.ndarray, a: np.ndarray, row: dict[str, np.ndarray], move: np.ndarray, noise: np.ndarray
    ) -> None:
        self.window[u, a, :-1] = self.window[u, a, 1:]
        self.window[u, a, -1] = row["topic"]
        self.last_facet[u, a] = row["facet"]
        self.last_domain[u] = row["domain"]
        self.moved_to[u, a] = np.where(move, row["topic"], self.moved_to[u, a])
        moving = ~noise & (self.phase[u, a] == _MOVING)
        self.moves_left[u, a] -= moving
        self.fresh[u, a] &= noise
        column = np.full((len(self.history), 1), -1)
        column[u, 0] = row["item"]
        self.history = np.concatenate([self.history, column], axis=1)
        self.lengths[u] += 1
        done = move & self.was_move[u] & (self.lengths[u] >= self.aim[u])
        self.was_move[u] = move
        self.active = u[~done]

    def _spread(self, u: np.ndarray, row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Values of the users who acted, put into arrays over all users (compact types)."""
        result = {}
        for name, values in row.items():
            dtype = np.bool_ if values.dtype == np.bool_ else np.int32
            full = np.zeros((self.config.users, *values.shape[1:]), dtype=dtype)
            full[u] = values
            result[name] = full
        return result
