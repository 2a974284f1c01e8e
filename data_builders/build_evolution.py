r"""R2, evolution: how one interest of a user moves through a dated timeline.

    python -m data_builders.build_evolution --data runs/world --catalog runs/catalog --out runs/corpora/evolution

| task | question | answer |
|---|---|---|
| action_selection | which entries make up the longest episode of a named interest | JSON list of entries, copied |
| topic | how a named interest evolves in that episode | `logic_chain` JSON: dated actions, and why each follows |
| direct | how the main interest evolves | the same; the interest is not named |

Each user's longest episode that passes the judge is asked about, of those that are the one longest episode of their
interest. Other entries of the interest stand in shorter episodes, or alone. A share of questions name an interest that
the timeline does not hold: the right answer is an empty list. So it is for `direct` where there is no episode at all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from data_builders.cards import Row, prompt_settings
from data_builders.cognition import SPLIT_OPTIONS, CognitionInputs, add_cognition_arguments, load_cognition_inputs
from data_builders.common import add_engine_arguments, build_parser, run_builder
from data_builders.drafting import write_drafts
from data_builders.engine import build_corpus
from data_builders.shards import Reject
from data_builders.think_rows import think_answer
from data_builders.training_log import TrainingLog, load_training_log
from onereason.cognition.chains import Episode, find_episodes
from onereason.cognition.checks.json_checks import check_logic_chain, read_json
from onereason.cognition.checks.problem import Problem
from onereason.cognition.judge.chains import judge_chain
from onereason.cognition.logic import NO_CHAIN, ChainAssignment, ChainWriter, Timeline, build_timeline
from onereason.cognition.streams import Stream
from onereason.cognition.teachers import Teacher
from onereason.cognition.teachers.factory import TEACHER_OPTIONS, add_teacher_arguments, teacher_from_arguments
from onereason.data.prompts import add_switch
from onereason.errors import ConfigError

PROMPT_SETS = ("evolution",)

CARD = """
Questions about how one interest moves through a user's dated timeline. An episode begins with a burst of one interest
and goes on while items hold it, narrow to a side of it, or step to where it leads. Answers are JSON; actions are copied
from the timeline; an empty list is the right answer where the timeline holds no such interest. Where the logs have no
moments, entries are numbered and not dated. Questions that name an interest ask for its longest episode; other entries
of the interest are no part of the answer.

Only the training part of the split is read. No row is made of a validation or test event.
"""


class ChainDraft(NamedTuple):
    """A row that waits for its chain.

    Attributes:
        id: of the row.
        shown: whose timeline, and its wording.
        episode: what the chain is about.
        chain: as the template says it; it has passed the judge.
        task: `topic` or `direct`.
        thinks: whether a trace stands before the answer.
    """

    id: str
    shown: Shown
    episode: Episode
    chain: Mapping[str, Any]
    task: str
    thinks: bool


class Shown(NamedTuple):
    """What a user's questions show: the timeline, in one wording."""

    user_id: str
    timeline: Timeline
    turn: int


@dataclass
class EvolutionSource:
    """All rows; a unit is a user.

    Attributes:
        inputs: dataset, facts and knowledge.
        log: when and how items were chosen.
        writer, teacher: who writes chains.
        max_history: newest entries that are shown.
        min_events: of an episode that is told.
        empty_share: users who are asked about an interest that their timeline does not hold.
        think_share: rows with a trace.
        seed: of the random choices.
    """

    inputs: CognitionInputs
    log: TrainingLog
    writer: ChainWriter
    teacher: Teacher
    max_history: int
    min_events: int
    empty_share: float
    think_share: float
    seed: int
    _last: tuple[Shown, Episode, str, str | Problem] | None = field(default=None, init=False, repr=False)
    """What was read last: two questions about one episode may have one answer."""

    @property
    def num_units(self) -> int:
        return len(self.inputs.part.histories)

    def build(self, start: int, stop: int) -> tuple[list[Row], list[Reject]]:
        plan: list[Row | Reject | ChainDraft] = []
        offsets = self.log.offsets[start : stop + 1].tolist()
        events = slice(offsets[0], offsets[-1])
        times, actions = self.log.timestamps[events].tolist(), self.log.actions[events].to_list()
        for user, end in enumerate(offsets[1:], start):
            items = self.inputs.part.histories[user][-self.max_history :].tolist()
            newest = slice(end - len(items) - offsets[0], end - offsets[0])
            self._plan_user(user, items, times[newest], actions[newest], plan)
        return write_drafts(plan, self.teacher, self._assign, self._accept)

    def _plan_user(
        self,
        user: int,
        items: list[int],
        times: Sequence[int],
        actions: Sequence[str],
        plan: list[Row | Reject | ChainDraft],
    ) -> None:
        user_id = self.inputs.part.user_ids[user]
        if len(items) < 2:
            plan.append(Reject(user_id, "history_too_short", f"{len(items)} items"))
            return
        stream = Stream(self.seed, user)
        turn = stream.below(64)

        def show() -> Shown:
            timeline = build_timeline(self.inputs.facts.patterns, items, times, actions, self.log.has_dates)
            return Shown(user_id, timeline, turn)

        if stream.chance(self.empty_share):
            plan.extend(self._absent(show(), items, stream))
        episodes = find_episodes(self.inputs.knowledge, items)
        told = [e for e in episodes if len(e) >= self.min_events]
        shown = show() if told else None
        single = single_longest(told)
        found = self._longest_passing(single, shown.timeline) if shown is not None else None
        if shown is None or found is None:
            if stream.chance(self.empty_share) and not episodes:
                trace = self.writer.prompts.text("no_chain") if stream.chance(self.think_share) else None
                plan.append(self._row(f"{user_id}:none", show(), "direct", "", NO_CHAIN, trace, "template"))
            else:
                reason = "chain_without_turn" if single else "several_longest_episodes" if told else "no_episode"
                plan.append(Reject(user_id, reason, f"{len(items)} entries"))
            return
        main, chain = found
        longest = max(map(len, told))
        plan.append(self._selection(shown, main, stream.chance(self.think_share)))
        plan.append(ChainDraft(f"{user_id}:topic", shown, main, chain, "topic", stream.chance(self.think_share)))
        if len(main) == longest and sum(len(e) == longest for e in told) == 1:
            plan.append(ChainDraft(f"{user_id}:direct", shown, main, chain, "direct", stream.chance(self.think_share)))

    def _longest_passing(self, single: Sequence[Episode], timeline: Timeline) -> tuple[Episode, dict[str, Any]] | None:
        """The longest episode whose chain passes the judge, the first of several; None where none does."""
        for episode in sorted(single, key=len, reverse=True):
            chain = self.writer.chain(episode, timeline)
            if not judge_chain(chain, timeline.texts):
                return episode, chain
        return None

    def _absent(self, shown: Shown, items: Sequence[int], stream: Stream) -> list[Row]:
        """A question about an interest that no entry serves; none for a user who has met every interest."""
        held = {self.inputs.knowledge.interest_of[item] for item in items}
        absent = [z for z in range(len(self.writer.names)) if z not in held]
        if not absent:
            return []
        topic = self.writer.names[stream.pick(absent)]
        task, answer = stream.pick((("action_selection", "[]"), ("topic", NO_CHAIN)))
        trace = self.writer.prompts.text("none").format(topic=topic) if stream.chance(self.think_share) else None
        return [self._row(f"{shown.user_id}:absent", shown, task, topic, answer, trace, "template")]

    def _selection(self, shown: Shown, episode: Episode, thinks: bool) -> Row:
        texts = shown.timeline.texts
        answer = orjson.dumps([texts[place] for place in episode.places]).decode()
        trace = self.writer.trace(episode, shown.timeline, shown.turn) if thinks else None
        topic = self.writer.names[episode.interest]
        row_id = f"{shown.user_id}:action_selection"
        return self._row(row_id, shown, "action_selection", topic, answer, trace, "template")

    def _assign(self, draft: ChainDraft) -> ChainAssignment:
        return ChainAssignment(draft.id, self.writer, draft.episode, draft.shown.timeline, draft.chain)

    def _accept(self, written: Sequence[tuple[ChainDraft, str]]) -> list[Row | Reject]:
        return [self._finish(draft, text) for draft, text in written]

    def _finish(self, draft: ChainDraft, text: str) -> Row | Reject:
        last = self._last
        if last is None or last[0] is not draft.shown or last[1] is not draft.episode or last[2] != text:
            answer = self._read_chain(text, draft)
            last = self._last = (draft.shown, draft.episode, text, answer)
        answer = last[3]
        if isinstance(answer, Problem):
            return Reject(draft.id, answer.reason, answer.detail)
        trace = self.writer.trace(draft.episode, draft.shown.timeline, draft.shown.turn) if draft.thinks else None
        topic = self.writer.names[draft.episode.interest]
        return self._row(draft.id, draft.shown, draft.task, topic, answer, trace, self.teacher.name)

    def _read_chain(self, text: str, draft: ChainDraft) -> str | Problem:
        """The answer that a teacher's text comes to, or what is wrong with it."""
        entries, episode = draft.shown.timeline.texts, draft.episode
        value = read_json(text)
        if not isinstance(value, dict) or not isinstance(chain := value.get("logic_chain"), dict):
            return Problem("teacher_broken_json", text[:200])
        problems = check_logic_chain(chain, entries)
        if not problems:
            # the name that was asked about, however it was spelled
            chain = {"name": self.writer.names[episode.interest], "events": chain["events"]}
            problems = [] if chain == draft.chain else judge_chain(chain, entries)
        if problems:
            return problems[0]
        told = [f"{event['date']} {event['action']}" for event in chain["events"]]
        if told != [entries[place] for place in episode.places]:  # the trace counts those
            return Problem("chain_entries_differ", f"{len(told)} told, {len(episode)} given")
        try:
            return orjson.dumps({"logic_chain": chain}).decode()
        except orjson.JSONEncodeError:  # half a surrogate pair, which no UTF-8 file holds
            return Problem("teacher_broken_json")

    def _row(
        self, row_id: str, shown: Shown, task: str, topic: str, answer: str, trace: str | None, teacher: str
    ) -> Row:
        mode = "no_think" if trace is None else "think"
        system, user = self.writer.question(task, shown.timeline, topic, shown.turn)
        user = {"role": "user", "content": add_switch(user["content"], mode)}
        said = {"role": "assistant", "content": answer if trace is None else think_answer(trace, answer)}
        return {
            "id": row_id,
            "task": task,
            "loss": "assistant",
            "mode": mode,
            "user": shown.user_id,
            "teacher": teacher,
            "messages": [system, user, said],
        }


def single_longest(told: Sequence[Episode]) -> list[Episode]:
    """The episodes that are longer than all others of their interest: only those are "its longest episode"."""
    lengths: dict[int, list[int]] = {}
    for episode in told:
        lengths.setdefault(episode.interest, []).append(len(episode))
    return [e for e in told if (own := lengths[e.interest]).count(len(e)) == 1 and len(e) == max(own)]


def check_arguments(args: argparse.Namespace) -> None:
    """`ConfigError` for a value that makes no sense."""
    for name in ("think_share", "empty_share"):
        if not 0 <= getattr(args, name) <= 1:
            raise ConfigError(f"--{name.replace('_', '-')} must lie between 0 and 1, got {getattr(args, name)}.")
    if args.min_events < 2 or args.max_history < args.min_events:
        raise ConfigError(
            f"--min-events ({args.min_events}) must be at least 2 and at most --max-history ({args.max_history})."
        )
    prompt_settings(args.language, PROMPT_SETS)


def build(args: argparse.Namespace) -> None:
    check_arguments(args)
    teacher = teacher_from_arguments(args)
    inputs = load_cognition_inputs(args)
    log = load_training_log(args, inputs.part)
    writer = ChainWriter(inputs.knowledge, args.language, log.has_dates)
    source = EvolutionSource(
        inputs,
        log,
        writer,
        teacher,
        args.max_history,
        args.min_events,
        args.empty_share,
        args.think_share,
        args.seed,
    )
    build_corpus(
        args,
        source,
        title="Interests over time",
        description=CARD,
        inputs=inputs.inputs,
        options=(
            "max_history",
            "min_events",
            "empty_share",
            "think_share",
            "theme_attribute",
            *SPLIT_OPTIONS,
            *TEACHER_OPTIONS,
        ),
        extra=prompt_settings(args.language, PROMPT_SETS) | {"dated": log.has_dates},
    )


def make_parser() -> argparse.ArgumentParser:
    parser = build_parser(__doc__, timelines=True)
    add_engine_arguments(parser)
    add_cognition_arguments(parser)
    add_teacher_arguments(parser)
    parser.add_argument("--max-history", type=int, default=50, help="newest entries of a timeline that are shown")
    parser.add_argument("--min-events", type=int, default=3, help="events of an episode that is told")
    parser.add_argument("--empty-share", type=float, default=0.1, help="users who are asked about what is not there")
    parser.add_argument("--think-share", type=float, default=0.5, help="rows with a trace")
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_builder(make_parser(), build, argv)


if __name__ == "__main__":
    sys.exit(main())
