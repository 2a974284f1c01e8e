"""Answers of a language model to evaluation rows: batched, saved as they come, resumed where they stopped.

Requests are laid out in batches once, the same for any number of processes; process `r` of `w` takes every `w`-th batch
and appends its answers to a file of its own. A resumed or spread-out run therefore generates the same batches, and
since every row draws from its own stream of random numbers, the same text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onereason.data.prompts import add_switch
from onereason.data.rendering import load_template
from onereason.errors import ConfigError, DataError
from onereason.evaluation.layers.tasks import load_task
from onereason.evaluation.layers.tasks.base import EvaluationRow, GenerationSettings
from onereason.evaluation.processes import Processes
from onereason.io import write_jsonl
from onereason.jsonl_log import JsonlLog
from onereason.model.sampling import SamplingConfig

GENERATIONS_FILE = "generations.jsonl"
PART_FILES = "generations.rank*.jsonl"
THINK_OPENING = "<think>\n"
"""Closes a prompt in mode `think`, so that every such answer begins with a trace."""
THINK_CLOSING = "</think>\n\n"
"""Stands between a trace and its answer; put there for the model where its budget cuts the trace off."""

Key = tuple[str, str]
"""Row id and mode."""


@dataclass(frozen=True)
class Request:
    """A row to be answered in one mode.

    Attributes:
        row: the row.
        mode: `think` or `no_think`.
        prompt: the rendered conversation up to where the answer begins; in mode `think`, inside the think block.
        prompt_ids: its token ids.
        settings: budgets and sampling.
        seed: of the row's stream of random numbers.
    """

    row: EvaluationRow
    mode: str
    prompt: str
    prompt_ids: Sequence[int]
    settings: GenerationSettings
    seed: int

    @property
    def key(self) -> Key:
        return self.row.id, self.mode

    @property
    def thinks(self) -> bool:
        return self.mode == "think"

    @property
    def sampling(self) -> SamplingConfig:
        s = self.settings
        temperature = s.think_temperature if self.thinks else s.temperature
        return SamplingConfig(s.think_budget, temperature, s.top_k, s.top_p)


@dataclass(frozen=True)
class Generation:
    """An answer.

    Attributes:
        id, mode: of the request.
        text: the whole turn; in mode `think` it begins with a think block, which is always closed.
        prompt_tokens, tokens: of the prompt and of the turn, without its stop token.
        seconds: of wall time; the rows of a batch share its time by their tokens, a server's rows run side by side.
        cut: the trace ran out of its budget (or ended its turn inside the block) and was closed for it.
        truncated: the answer ran into `max_new_tokens`.
    """

    id: str
    mode: str
    text: str
    prompt_tokens: int
    tokens: int
    seconds: float
    cut: bool
    truncated: bool

    @property
    def key(self) -> Key:
        return self.id, self.mode


Generator = Callable[[Sequence[Request]], list[Generation]]
"""Answers a batch of requests of one mode and one set of settings."""


def build_requests(
    rows: Sequence[EvaluationRow],
    tokenizer: Any,
    modes: Sequence[str] | None,
    seed: int,
    override: Callable[[GenerationSettings], GenerationSettings] = lambda settings: settings,
) -> list[Request]:
    """A request for each row and mode, in the order of the rows.

    Args:
        modes: the modes to ask in; None for each task's own. A row with a mode of its own is asked in that one only,
            and not at all where `modes` lacks it.
        override: changes the settings of a task.

    Raises:
        DataError: no row is asked in any of the modes.
    """
    asked = [(row, mode) for row in rows for mode in asked_modes(row, modes)]
    if not asked:
        raise DataError(f"none of the {len(rows)} rows is asked in mode {', '.join(modes or ())}; change --modes.")
    prompts = [render_prompt(row, mode, tokenizer) for row, mode in asked]
    ids = tokenizer(prompts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return [
        Request(row, mode, prompt, prompt_ids, override(load_task(row.task).generation), row_seed(seed, row.id, mode))
        for (row, mode), prompt, prompt_ids in zip(asked, prompts, ids, strict=True)
    ]


def asked_modes(row: EvaluationRow, modes: Sequence[str] | None) -> list[str]:
    """The modes a row is asked in: those given (or its task's), but for a row with a mode of its own."""
    wanted = load_task(row.task).generation.modes if modes is None else modes
    if row.mode is None:
        return list(wanted)
    return [row.mode] if modes is None or row.mode in modes else []


def render_prompt(row: EvaluationRow, mode: str, tokenizer: Any) -> str:
    """The conversation in Qwen3's format, its last user turn closed by the mode's switch, the answer's opening."""
    *before, last = row.messages
    messages = [*before, {**last, "content": add_switch(last["content"], mode)}]
    text = tokenizer.apply_chat_template(
        messages,
        chat_template=load_template("qwen3"),
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=mode == "think",
    )
    return text + THINK_OPENING if mode == "think" else text


def row_seed(seed: int, row_id: str, mode: str) -> int:
    """The seed of a row's stream: it depends on the run's seed, the row and the mode, and on nothing else."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{mode}:{row_id}".encode()).digest()[:8])


def check_room(requests: Sequence[Request], limit: int | None) -> None:
    """`ConfigError` naming the first row whose prompt and answer do not fit the model's positions."""
    if limit is None:
        return
    for request in requests:
        s = request.settings
        # The closing of a trace has no more tokens than characters.
        room = s.max_new_tokens + (s.think_budget + len(THINK_CLOSING) if request.thinks else 0) + 1
        if len(request.prompt_ids) + room > limit:
            raise ConfigError(
                f"row {request.row.id!r}: its prompt of {len(request.prompt_ids)} tokens and an answer of {room} in "
                f"mode {request.mode} exceed the model's max_position_embeddings ({limit}); lower --think-budget or "
                "--max-new-tokens, or shorten the row."
            )


def lay_out_batches(requests: Sequence[Request], batch_size: int) -> list[list[Request]]:
    """Batches of one mode and one set of settings each, long prompts first so that a batch wastes little padding."""
    groups: dict[Any, list[Request]] = {}
    for request in requests:
        groups.setdefault((request.mode, request.settings), []).append(request)
    batches = []
    for group in groups.values():
        ordered = sorted(group, key=lambda request: -len(request.prompt_ids))
        batches += [ordered[at : at + batch_size] for at in range(0, len(ordered), batch_size)]
    return batches


# -- the run --------------------------------------------------------------------------------------------------------


def generate(
    requests: Sequence[Request],
    folder: Path,
    load_generator: Callable[[], Generator],
    batch_size: int,
    processes: Processes | None = None,
) -> list[Generation]:
    """Answers every request that `folder` does not hold an answer to; returns all answers, in the order of requests.

    Each batch is appended to the folder before the next one starts: a killed run goes on behind its last batch, and no
    request is answered twice.

    Args:
        load_generator: called once, and only where something is left to generate.
        batch_size: requests answered at once; another one than before may change the last digits of scores.
    """
    processes = processes or Processes()
    if processes.is_main:
        merge_generations(requests, folder)
    processes.wait()
    done = {generation.key for generation in load_generations(folder)}
    batches = processes.share(lay_out_batches(requests, batch_size))
    left = [todo for batch in batches if (todo := [r for r in batch if r.key not in done])]
    name = GENERATIONS_FILE if processes.world == 1 else PART_FILES.replace("*", str(processes.rank))
    log = JsonlLog(folder / name)
    if left:
        generator = load_generator()
        with processes.progress() as progress:
            bar = progress.add_task("generating", total=sum(map(len, left)))
            for batch in left:
                log.append(asdict(generation) for generation in generator(batch))
                progress.advance(bar, len(batch))
    processes.wait()
    if processes.is_main:
        merge_generations(requests, folder)
    processes.wait()
    return load_generations(folder)


def load_generations(folder: Path) -> list[Generation]:
    """The saved answers of a run, in order; `DataError` where a line is none."""
    try:
        return [Generation(**record) for record in JsonlLog(folder / GENERATIONS_FILE).read()]
    except TypeError as error:
        raise DataError(f"{folder / GENERATIONS_FILE} holds a line that is no saved answer ({error}).") from error


def merge_generations(requests: Sequence[Request], folder: Path) -> None:
    """Gathers the files of all processes in `generations.jsonl`, in the order of the requests."""
    parts = sorted(folder.glob(PART_FILES))
    saved = {generation.key: asdict(generation) for generation in load_generations(folder)}
    for part in parts:
        for record in JsonlLog(part).read():
            saved.setdefault((record["id"], record["mode"]), record)
    if saved:
        write_jsonl(folder / GENERATIONS_FILE, [saved[r.key] for r in requests if r.key in saved])
    for part in parts:
        part.unlink()
