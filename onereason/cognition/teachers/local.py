"""The aligned model itself as teacher: a model folder, batched, each answer independent of its batch."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onereason.cognition.teachers.answers import find_problem
from onereason.cognition.teachers.base import TOO_LONG, Assignment, Draft
from onereason.cognition.teachers.progress import show_progress
from onereason.data.chat import TEXT_END, TURN_END, parse_answer
from onereason.data.prompts import add_switch
from onereason.data.rendering import load_template
from onereason.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from onereason.model.folder import ModelFolder

DTYPES = ("auto", "float32", "bfloat16")


@dataclass
class LocalTeacher:
    """Answers with a model folder's model, without thinking.

    An answer depends on the seed, the assignment's id and the prompt, not on the batch (up to the last digits of
    scores, which another batch may change). The folder's own generation settings play no part; rows without a token
    are suppressed. The model is loaded at the first `write`; a pickled teacher loads its own.

    Attributes:
        path: the model folder.
        temperature: 0 takes the most likely token every time.
        top_k, top_p: see `onereason.model.sampling.SamplingConfig`.
        max_tokens: of an answer; one that is not over by then is left out as truncated.
        seed: of sampling.
        batch_tokens: tokens of a batch at most, padding and room for the answers included. Where memory runs out all
            the same, the batch is halved.
        device: auto, cpu, cuda, cuda:N.
        dtype: float32, bfloat16, or auto: bfloat16 where the hardware has it.
    """

    path: Path
    temperature: float = 0.0
    top_k: int = 50
    top_p: float = 0.95
    max_tokens: int = 2048
    seed: int = 0
    batch_tokens: int = 65_536
    device: str = "auto"
    dtype: str = "auto"
    _folder: ModelFolder | None = field(default=None, init=False, repr=False)
    _counts: Counter[str] = field(default_factory=Counter, init=False, repr=False)
    _problems: Counter[str] = field(default_factory=Counter, init=False, repr=False)

    def __post_init__(self) -> None:
        self.path = Path(self.path)
        self.name = f"local:{self.path.resolve().name}"
        for name in ("max_tokens", "batch_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"the teacher's {name} must be at least 1, got {getattr(self, name)}.")
        if self.dtype not in DTYPES:
            raise ConfigError(f"the teacher's dtype {self.dtype!r} is not known; use {', '.join(DTYPES)}.")
        if not self.path.is_dir():
            raise ModelError(f"the teacher's folder {self.path} does not exist; make one with `onereason extend`.")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_folder": None, "_counts": Counter(), "_problems": Counter()}

    def write(self, assignments: Sequence[Assignment]) -> list[Draft]:
        """A draft for each assignment, in their order.

        Raises:
            ModelError: the folder cannot be opened, scores are NaN, or memory does not hold a single prompt.
        """
        folder = self._open()
        prompts = [render_prompt(assignment.messages(), folder.tokenizer) for assignment in assignments]
        ids = folder.tokenizer(prompts, add_special_tokens=False)["input_ids"] if prompts else []
        limit = folder.model.config.max_position_embeddings
        drafts: list[Draft | None] = [
            Draft(None, TOO_LONG, len(row)) if len(row) + self.max_tokens > limit else None for row in ids
        ]
        left = [i for i, draft in enumerate(drafts) if draft is None]
        with show_progress(len(left), f"writing with {self.path.name}") as advance:
            for batch in lay_out_batches([len(ids[i]) for i in left], self.max_tokens, self.batch_tokens):
                rows = [left[place] for place in batch]
                written = self._answer([ids[i] for i in rows], [self._row_seed(assignments[i].id) for i in rows])
                for i, draft in zip(rows, written, strict=True):
                    drafts[i] = draft
                advance(len(rows))
        finished = [draft for draft in drafts if draft is not None]
        self._counts["assignments"] += len(finished)
        self._counts["prompt_tokens"] += sum(draft.prompt_tokens for draft in finished)
        self._counts["completion_tokens"] += sum(draft.completion_tokens for draft in finished)
        self._problems.update(draft.problem for draft in finished if draft.problem)
        return finished

    def summary(self) -> dict[str, Any]:
        counts = {name: self._counts[name] for name in ("assignments", "prompt_tokens", "completion_tokens")}
        return {"teacher": self.name, **counts, "problems": dict(sorted(self._problems.items()))}

    def _open(self) -> ModelFolder:
        if self._folder is None:
            from transformers import GenerationConfig

            from onereason.model.device import resolve_device
            from onereason.model.folder import load_model_folder, unused_row_ids
            from onereason.model.precision import has_fast_bfloat16

            dtype = self.dtype
            if dtype == "auto":
                dtype = "bfloat16" if has_fast_bfloat16() else "float32"
            folder = load_model_folder(self.path, dtype, resolve_device(self.device))
            folder.model.eval()
            stops = self._stops(folder)
            folder.model.generation_config = GenerationConfig(
                do_sample=False,  # the row sampler draws
                eos_token_id=stops,
                pad_token_id=stops[0],
                suppress_tokens=unused_row_ids(folder.model.config.vocab_size, folder.tokenizer) or None,
            )
            self._folder = folder
        return self._folder

    @staticmethod
    def _stops(folder: ModelFolder) -> list[int]:
        known = folder.tokenizer.get_vocab()
        stops = [known[token] for token in (TURN_END, TEXT_END) if token in known]
        if not stops:
            raise ModelError(f"{folder.path}: the tokenizer has no token {TURN_END}, so no answer would end.")
        return stops

    def _row_seed(self, assignment_id: str) -> int:
        text = f"{self.seed}:{assignment_id}"
        return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])

    def _answer(self, ids: Sequence[list[int]], seeds: Sequence[int]) -> list[Draft]:
        """Drafts for a batch; where memory runs out, for its halves one after the other."""
        import torch

        try:
            return self._generate(ids, seeds)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            if len(ids) == 1:
                raise ModelError(
                    f"{self.name}: memory does not hold a prompt of {len(ids[0])} tokens and an answer of "
                    f"{self.max_tokens}; lower the answer's limit or use a larger device."
                ) from error
        # Behind the handler: the error would keep the batch's tensors alive.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = len(ids) // 2
        return self._answer(ids[:half], seeds[:half]) + self._answer(ids[half:], seeds[half:])

    def _generate(self, ids: Sequence[list[int]], seeds: Sequence[int]) -> list[Draft]:
        import torch
        from transformers import LogitsProcessorList

        from onereason.model.sampling import RowSampler, SamplingConfig

        folder = self._open()
        sampler = RowSampler(seeds, SamplingConfig(self.max_tokens, self.temperature, self.top_k, self.top_p))
        batch = folder.tokenizer.pad({"input_ids": list(ids)}, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            written = folder.model.generate(
                **batch.to(folder.model.device),
                max_new_tokens=self.max_tokens,
                logits_processor=LogitsProcessorList([sampler]),
            )
        width = batch["input_ids"].shape[1]
        return [self._read(len(i), row) for i, row in zip(ids, written[:, width:].tolist(), strict=True)]

    def _read(self, num_prompt_tokens: int, tokens: list[int]) -> Draft:
        """The draft of a generated row: its text up to the first stop token."""
        folder = self._open()
        stops = set(self._stops(folder))
        end = next((place for place, token in enumerate(tokens) if token in stops), None)
        answer = parse_answer(folder.tokenizer.decode(tokens[:end], skip_special_tokens=False)).answer
        problem = find_problem(answer, truncated=end is None)
        num_tokens = len(tokens) if end is None else end
        return Draft(None if problem else answer, problem, num_prompt_tokens, num_tokens)


def render_prompt(messages: Sequence[dict[str, str]], tokenizer: Any) -> str:
    """A conversation in Qwen3's format up to where the answer begins, behind an empty think block."""
    *before, last = messages
    return tokenizer.apply_chat_template(
        [*before, {**last, "content": add_switch(last["content"], "no_think")}],
        chat_template=load_template("qwen3"),
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
    )


def lay_out_batches(lengths: Sequence[int], max_tokens: int, batch_tokens: int) -> list[list[int]]:
    """Places of prompts in batches, the longest first, so that a batch wastes little padding and memory runs out early.

    A batch of `n` prompts, the longest of `t` tokens, holds `n * (t + max_tokens)` tokens: at most `batch_tokens`,
    unless it is one prompt.
    """
    batches: list[list[int]] = []
    room = 0
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if not batches or len(batches[-1]) == room:
            batches.append([])
            room = max(1, batch_tokens // (lengths[place] + max_tokens))
        batches[-1].append(place)
    return batches
