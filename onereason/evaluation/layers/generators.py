"""Who writes the answers: a model folder through transformers, or a server that speaks OpenAI's completion protocol.

Both read the same rendered prompt and keep the same budgets: a trace that is open when its budget is spent is closed,
and the answer follows ("budget forcing", Muennighoff et al. 2025, s1).

Notation: `B` rows of a batch, `T` tokens so far, `V` vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList

from onereason.data.chat import THINK_END
from onereason.decoding.stems import left_pad
from onereason.decoding.think import load_think_ids
from onereason.endpoint import Endpoint, first_choice
from onereason.evaluation.layers.generation import THINK_CLOSING, THINK_OPENING, Generation, Request
from onereason.model.folder import ModelFolder, unused_row_ids
from onereason.model.sampling import RowSampler, SamplingConfig

LOGIT_BIAS_OFF = -100


# -- a model folder -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TurnRules:
    """What shapes a turn.

    Attributes:
        stops: token ids that end it; the first one stands behind a turn that ran into its limit.
        closing: token ids behind a trace; the first one closes it.
        think_budget, max_new_tokens: see `GenerationSettings`.
    """

    stops: Sequence[int]
    closing: Sequence[int]
    think_budget: int
    max_new_tokens: int


@dataclass
class Turn:
    """One row's turn while it is written: what the model draws, and what the rules make of it."""

    rules: TurnRules
    thinking: bool
    tokens: list[int] = field(default_factory=list)
    cut: bool = False
    truncated: bool = False
    done: bool = False
    _pending: list[int] = field(default_factory=list)
    _spent: int = 0

    def take(self, drawn: int) -> int:
        """The token that is written where the model drew `drawn`; a stop token once the turn is over."""
        if not (self.done or self._pending or self.thinking):
            self.truncated = drawn not in self.rules.stops and self._spent == self.rules.max_new_tokens
            self.done = drawn in self.rules.stops or self.truncated
        if self.done:
            return self.rules.stops[0]
        if self._pending:
            drawn = self._pending.pop(0)
        elif self.thinking:
            drawn = self._think(drawn)
        else:
            self._spent += 1
        self.tokens.append(drawn)
        return drawn

    def _think(self, drawn: int) -> int:
        rules = self.rules
        if drawn == rules.closing[0]:
            self.thinking, self._spent = False, 0
        elif drawn in rules.stops or self._spent == rules.think_budget:
            self.thinking, self._spent, self.cut = False, 0, True
            drawn, *self._pending = rules.closing
        else:
            self._spent += 1
        return drawn


class TurnWriter(RowSampler):
    """Writes the turns of a batch: each token is drawn from the row's own stream, then subject to its turn's rules."""

    def __init__(self, turns: Sequence[Turn], seeds: Sequence[int], sampling: SamplingConfig):
        super().__init__(seeds, sampling)
        self.turns = turns

    def choose(self, drawn: list[int]) -> list[int]:
        return [turn.take(token) for turn, token in zip(self.turns, drawn, strict=True)]


class ModelGenerator:
    """Answers with a model folder's model.

    The folder's own generation settings play no part; rows without a token are suppressed.
    """

    def __init__(self, folder: ModelFolder):
        self.model, self.tokenizer = folder.model.eval(), folder.tokenizer
        self.ids = load_think_ids(self.tokenizer, self.model.config.vocab_size)
        self.model.generation_config = GenerationConfig(
            do_sample=False,  # the writer draws
            eos_token_id=self.ids.stops,
            pad_token_id=self.ids.stops[0],
            suppress_tokens=self.ids.banned.tolist(),
        )

    @torch.inference_mode()
    def __call__(self, requests: Sequence[Request]) -> list[Generation]:
        """The answers to a batch of one mode and one set of settings, in order."""
        start = time.perf_counter()
        first = requests[0]
        rules = TurnRules(self.ids.stops, self.ids.closing, first.settings.think_budget, first.settings.max_new_tokens)
        turns = [Turn(rules, request.thinks) for request in requests]
        writer = TurnWriter(turns, [request.seed for request in requests], first.sampling)
        input_ids, attention_mask = left_pad([request.prompt_ids for request in requests])
        room = rules.max_new_tokens + 1
        if first.thinks:
            room += rules.think_budget + len(rules.closing)
        self.model.generate(
            input_ids=input_ids.to(self.model.device),
            attention_mask=attention_mask.to(self.model.device),
            max_new_tokens=room,
            logits_processor=LogitsProcessorList([writer]),
        )
        # A row takes its share of the batch's time by its tokens: rows of several tasks stand in one batch.
        each = (time.perf_counter() - start) / max(1, sum(len(turn.tokens) for turn in turns))
        return [self._read(r, t, round(each * len(t.tokens), 4)) for r, t in zip(requests, turns, strict=True)]

    def _read(self, request: Request, turn: Turn, seconds: float) -> Generation:
        text = self.tokenizer.decode(turn.tokens, skip_special_tokens=False)
        return Generation(
            request.row.id,
            request.mode,
            (THINK_OPENING if request.thinks else "") + text,
            len(request.prompt_ids),
            len(turn.tokens),
            seconds,
            turn.cut,
            turn.truncated,
        )


# -- a server -------------------------------------------------------------------------------------------------------


class EndpointGenerator:
    """Answers through `/completions` of a server that serves the folder's model; the rows of a batch are sent at once.

    A row that thinks is sent twice: for its trace, which ends at `</think>` or at its budget, and for its answer.
    """

    def __init__(self, endpoint: Endpoint, tokenizer: Any, model_rows: int):
        self.endpoint, self.tokenizer = endpoint, tokenizer
        self.logit_bias = {str(i): LOGIT_BIAS_OFF for i in unused_row_ids(model_rows, tokenizer)}

    def __call__(self, requests: Sequence[Request]) -> list[Generation]:
        """The answers to a batch, in order; `EndpointError` where the server fails."""
        with ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(self._answer, requests))

    def _answer(self, request: Request) -> Generation:
        start = time.perf_counter()
        before, thought, cut = "", 0, False
        if request.thinks:
            trace, reason, thought = self._complete(request, "", request.settings.think_budget, [THINK_END])
            cut = reason == "length"
            before = trace + THINK_CLOSING
        answer, reason, tokens = self._complete(request, before, request.settings.max_new_tokens)
        return Generation(
            request.row.id,
            request.mode,
            (THINK_OPENING if request.thinks else "") + before + answer,
            len(request.prompt_ids),
            thought + tokens,
            round(time.perf_counter() - start, 4),
            cut,
            reason == "length",
        )

    def _complete(
        self, request: Request, written: str, max_tokens: int, stop: Sequence[str] = ()
    ) -> tuple[str, str | None, int]:
        """Text behind the prompt and what is written already, why it ends, and how many tokens it has."""
        sampling = request.sampling
        payload: dict[str, Any] = {
            "prompt": request.prompt + written,
            "max_tokens": max_tokens,
            "temperature": sampling.temperature,
            "seed": request.seed % 2**31,
        }
        if sampling.temperature > 0:
            payload |= {"top_p": sampling.top_p, "top_k": sampling.top_k or -1}
        if stop:
            payload["stop"] = list(stop)
        if self.logit_bias:
            payload["logit_bias"] = self.logit_bias
        answer = self.endpoint.post("completions", payload)
        choice = first_choice(answer, self.endpoint.base_url)
        text = choice.get("text") or ""
        usage = answer.get("usage") or {}
        tokens = usage.get("completion_tokens")
        if not isinstance(tokens, int):
            tokens = len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return text, choice.get("finish_reason"), tokens
