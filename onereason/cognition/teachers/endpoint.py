"""A teacher behind an OpenAI-compatible chat endpoint: many requests at once, within rate limits, never twice the same.

Answers are kept on disk as they come. Whatever ends a run (a kill, a lost server, a spent budget), the next one asks
only what has no answer yet. Kept are usable answers; at temperature 0 also those that were refused by the model or
truncated, because asking again would cost the same and bring the same. Failures of the server are never kept.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from onereason.cognition.teachers.answers import ChatAnswer, estimate_tokens, read_chat_answer
from onereason.cognition.teachers.base import (
    MALFORMED,
    REFUSED,
    REPLY_TOO_LONG,
    TIMEOUT,
    TRUNCATED,
    UNREACHABLE,
    Assignment,
    Draft,
)
from onereason.cognition.teachers.cache import AnswerCache, answer_key
from onereason.cognition.teachers.progress import show_progress
from onereason.cognition.teachers.rates import RateLimit
from onereason.endpoint import (
    Endpoint,
    EndpointError,
    EndpointMalformed,
    EndpointRefused,
    EndpointReplyTooLong,
    EndpointTimeout,
    EndpointUnreachable,
)
from onereason.errors import ConfigError

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

PATH = "chat/completions"
MAX_REPLY_BYTES, BYTES_A_TOKEN = 1 << 20, 64
"""A reply may have the first, or the second for each token that was asked for, where that is more; a Chinese character
takes six bytes of escaped JSON."""
FATAL_STATUSES = frozenset({*range(300, 400), 401, 402, 403, 404, 405})
"""Key, account, model or URL are wrong: every further request would get the same."""
KEPT_PROBLEMS = frozenset({REFUSED, TRUNCATED})
"""Of answers at temperature 0."""


@dataclass
class Spending:
    """What a teacher did and what it took.

    Attributes:
        assignments: drafts given.
        requests: requests sent, further tries included.
        cache_hits: assignments that took no request: answered by an earlier run, or the same as another one.
        prompt_tokens, completion_tokens: of the answers that were sent for.
        estimated: answers whose tokens are estimated, because the server did not say.
        problems: reason -> drafts without a text.
        examples: reason -> what was said the first time.
    """

    assignments: int = 0
    requests: int = 0
    cache_hits: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    answers: int = 0
    estimated: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)


class EndpointTeacher:
    """Asks a chat endpoint. `write` blocks until every assignment has a draft."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        cache_dir: Path | None = None,
        concurrency: int = 8,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        temperature: float = 0.0,
        max_tokens: int = 2048,
        seed: int = 0,
        extra: Mapping[str, Any] | None = None,
        price_in: float | None = None,
        price_out: float | None = None,
        max_consecutive_failures: int = 20,
    ):
        """
        Args:
            cache_dir: folder of the kept answers; None keeps none beyond one call.
            concurrency: requests under way at once, at most.
            requests_per_minute, tokens_per_minute: limits of this process; None for none. Tokens are reserved by
                estimate before a request and corrected after it.
            temperature: 0 gives the likeliest text. Above 0, each request carries a seed of its own, made of `seed`
                and the assignment's id, so that equal prompts may get different texts.
            max_tokens: of an answer, its think block included.
            extra: further fields of the request, e.g. `{"top_p": 0.9}`; None takes a field out.
            price_in, price_out: of a million prompt and completion tokens, in any currency; None if unknown.
            max_consecutive_failures: requests in a row without a usable answer that end the run. A refusal by the
                model neither counts nor breaks the row: what it refuses often stands together.

        Raises:
            ConfigError: a number that is out of range.
        """
        for name, value, least in (
            ("concurrency", concurrency, 1),
            ("max_tokens", max_tokens, 1),
            ("max_consecutive_failures", max_consecutive_failures, 1),
            ("temperature", temperature, 0),
            ("price_in", price_in, 0),
            ("price_out", price_out, 0),
        ):
            if value is not None and not least <= value < float("inf"):
                raise ConfigError(f"the teacher's {name} must be at least {least}, got {value}.")
        for name, limit in (("requests_per_minute", requests_per_minute), ("tokens_per_minute", tokens_per_minute)):
            if limit is not None and not 0 < limit < float("inf"):
                raise ConfigError(f"the teacher's {name} must be above 0, got {limit}.")
        most = max(MAX_REPLY_BYTES, BYTES_A_TOKEN * int(max_tokens))
        self.endpoint = replace(endpoint, max_reply_bytes=min(endpoint.max_reply_bytes, most))
        self.name = f"endpoint:{endpoint.model}"
        self.cache_dir = cache_dir
        self.concurrency = concurrency
        self.temperature, self.max_tokens, self.seed = temperature, max_tokens, seed
        self.extra = dict(extra or {})
        self.prices = None if price_in is None and price_out is None else (price_in or 0.0, price_out or 0.0)
        self.max_consecutive_failures = max_consecutive_failures
        self.spent = Spending()
        self._request_limit = RateLimit(requests_per_minute) if requests_per_minute else None
        self._token_limit = RateLimit(tokens_per_minute) if tokens_per_minute else None
        self._failures: Counter[str] = Counter()
        self._cache: AnswerCache | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": None, "spent": Spending(), "_failures": Counter()}

    def write(self, assignments: Sequence[Assignment]) -> list[Draft]:
        """A draft for each assignment, in their order; equal requests are sent once.

        Raises:
            EndpointError: key, model or URL are wrong, or `max_consecutive_failures` is reached. Answers that came
                before are kept.
            StorageError: answers cannot be kept.
        """
        if self._cache is None:
            self._cache = AnswerCache(self.cache_dir)
        self._cache.refresh()
        known: dict[str, Draft] = {}
        left: dict[str, dict[str, Any]] = {}
        keys = []
        for assignment in assignments:
            payload = self.payload(assignment)
            keys.append(key := answer_key({"model": self.endpoint.model, **payload}))
            if key not in known and key not in left:
                answer = self._kept_answer(key)
                if answer is None:
                    left[key] = payload
                else:
                    known[key] = answer.to_draft()
        if left:
            with show_progress(len(left), f"asking {self.endpoint.model}") as advance:
                _run(self._ask_all(self._cache, left, known, advance))
        drafts = [known[key] for key in keys]
        self.spent.assignments += len(drafts)
        self.spent.cache_hits += len(drafts) - len(left)
        self.spent.problems.update(draft.problem for draft in drafts if draft.problem)
        return drafts

    def payload(self, assignment: Assignment) -> dict[str, Any]:
        """What is sent for an assignment, the model's name apart."""
        payload: dict[str, Any] = {
            "messages": assignment.messages(),
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            **self.extra,
        }
        if payload["temperature"] != 0:
            digest = hashlib.sha256(f"{self.seed}:{assignment.id}".encode("utf-8", "surrogatepass")).digest()
            payload.setdefault("seed", int.from_bytes(digest[:4]) >> 1)  # below 2**31, which every server takes
        return {name: value for name, value in payload.items() if value is not None}

    def summary(self) -> dict[str, Any]:
        """Counts of this process. `cost` is None without prices; `estimated_answers` did not come with token counts."""
        spent = self.spent
        cost = None
        if self.prices is not None:
            cost = (spent.prompt_tokens * self.prices[0] + spent.completion_tokens * self.prices[1]) / 1e6
        return {
            "teacher": self.name,
            "assignments": spent.assignments,
            "requests": spent.requests,
            "cache_hits": spent.cache_hits,
            "prompt_tokens": spent.prompt_tokens,
            "completion_tokens": spent.completion_tokens,
            "estimated_answers": spent.estimated,
            "cost": cost,
            "problems": dict(sorted(spent.problems.items())),
            "examples": dict(sorted(spent.examples.items())),
        }

    def _kept_answer(self, key: str) -> ChatAnswer | None:
        assert self._cache is not None
        record = self._cache.get(key)
        try:
            return None if record is None else ChatAnswer(**record)
        except TypeError:  # another version's fields
            return None

    async def _ask_all(
        self,
        cache: AnswerCache,
        left: Mapping[str, dict[str, Any]],
        known: dict[str, Draft],
        advance: Callable[[int], None],
    ) -> None:
        """Puts a draft for every key of `left` into `known`."""
        todo = iter(left.items())

        async def take() -> None:
            async with self.endpoint.open_client() as client:
                for key, payload in todo:
                    known[key] = await self._ask(client, cache, key, payload)
                    advance(1)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.concurrency, len(left))):
                    group.create_task(take())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors.exceptions[0].__cause__

    async def _ask(self, client: httpx.AsyncClient, cache: AnswerCache, key: str, payload: dict[str, Any]) -> Draft:
        reserved = self._expected_tokens(payload) if self._token_limit else 0.0
        try:
            body = await self.endpoint.post_async(client, PATH, payload, partial(self._before_try, reserved))
            answer = read_chat_answer(body, self.endpoint.base_url, payload["messages"])
        except EndpointRefused as error:
            if error.status in FATAL_STATUSES:
                raise
            return self._fail(REFUSED, str(error), filtered="content_filter" in error.body)
        except EndpointTimeout as error:
            return self._fail(TIMEOUT, str(error))
        except EndpointUnreachable as error:
            return self._fail(UNREACHABLE, str(error))
        except EndpointMalformed as error:
            return self._fail(MALFORMED, str(error))
        except EndpointReplyTooLong as error:
            return self._fail(REPLY_TOO_LONG, str(error))
        spent, draft = self.spent, answer.to_draft()
        spent.answers += 1
        spent.prompt_tokens += answer.prompt_tokens
        spent.completion_tokens += answer.completion_tokens
        spent.estimated += answer.estimated
        if self._token_limit:
            self._token_limit.correct(answer.prompt_tokens + answer.completion_tokens - reserved)
        if draft.problem is None or (payload.get("temperature") == 0 and draft.problem in KEPT_PROBLEMS):
            cache.put(key, asdict(answer))
        if draft.problem is None:
            self._failures.clear()
        else:
            said = answer.refusal or answer.content[:200] or f"finish reason {answer.finish_reason}"
            self._fail(draft.problem, said, filtered=draft.problem == REFUSED)
        return draft

    async def _before_try(self, tokens: float) -> None:
        """Waits until the rate limits let a request go."""
        waits = [0.0]
        if self._request_limit:
            waits.append(self._request_limit.reserve())
        if self._token_limit:
            waits.append(self._token_limit.reserve(tokens))
        if max(waits) > 0:
            await asyncio.sleep(max(waits))
        self.spent.requests += 1

    def _expected_tokens(self, payload: Mapping[str, Any]) -> float:
        """Tokens of a request and its answer, as long as the answers were so far on average."""
        written = self.spent.completion_tokens / self.spent.answers if self.spent.answers else self.max_tokens
        return estimate_tokens(str(message.get("content")) for message in payload["messages"]) + written

    def _fail(self, problem: str, detail: str, filtered: bool = False) -> Draft:
        """A draft without text; raises once too many came in a row. `filtered` ones do not count."""
        self.spent.examples.setdefault(problem, detail)
        if not filtered:
            self._failures[problem] += 1
            if (total := self._failures.total()) >= self.max_consecutive_failures:
                counted = ", ".join(f"{count} {reason}" for reason, count in self._failures.most_common())
                self._failures.clear()
                kept = f"answers so far are kept in {self.cache_dir}" if self.cache_dir else "no answers are kept"
                raise EndpointError(
                    f"{self.name}: {total} requests in a row brought nothing usable ({counted}), "
                    f"last: {detail.rstrip(' .')}. The run is stopped; {kept}. Mend the cause and run again to go on."
                )
        return Draft(None, problem)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end, also where the caller's thread runs an event loop already, as a notebook does."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
