"""A client of OpenAI-compatible servers (vLLM, SGLang, llama.cpp, a hosted service): POST JSON, get JSON.

Timeouts are explicit. A request is sent again only where that is safe and may help: the connection failed, the server
did not answer in time, or it said that it is busy or broken (408, 429, 5xx). Waits double from try to try, spread at
random so that many clients do not come back at once, and are never shorter than the server asks (`Retry-After`).
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from onereason.errors import ConfigError, OnereasonError

if TYPE_CHECKING:
    import ssl

    import httpx

MAX_BACKOFF_SECONDS = 30.0
MAX_RETRY_AFTER_SECONDS = 120.0
"""A server that asks for more patience than this is given up."""
KEEP_ALIVE_SECONDS = 2.0
"""An idle connection is used again for this long: less than servers keep it, so that none closes under a request."""


class EndpointError(OnereasonError, RuntimeError):
    """A server cannot be reached, refuses a request, or answers what cannot be read."""


class EndpointUnreachable(EndpointError):
    """No connection, or a server that stays busy or broken."""


class EndpointTimeout(EndpointError):
    """No answer in time."""


class EndpointRefused(EndpointError):
    """The server answers with a status that another try would not change, e.g. 400 or 401."""

    def __init__(self, message: str, status: int = 0, body: str = ""):
        super().__init__(message)
        self.status, self.body = status, body


class EndpointMalformed(EndpointError):
    """The server answers what is no JSON object, or one without what it must hold."""


class EndpointReplyTooLong(EndpointError):
    """The server sends more than `max_reply_bytes`; the rest is not read."""


@dataclass(frozen=True)
class Endpoint:
    """Where a model is served."""

    base_url: str
    """Up to and with the version, e.g. `http://localhost:8000/v1`."""
    model: str
    """The name it is served under."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the API key; without it, no key is sent."""
    timeout_seconds: float = 120.0
    """Until a try is given up."""
    tries: int = 3
    """Times a request is sent at most."""
    backoff_seconds: float = 1.0
    """Wait before the second try; it doubles with each further one."""
    connect_timeout_seconds: float = 10.0
    """Until a try is given up that finds no connection."""
    max_reply_bytes: int = 1 << 24
    """Of a reply that is longer, no more is read, and it is not asked for again."""

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"endpoint URL {self.base_url!r} must start with http:// or https://.")
        if not self.model:
            raise ConfigError(f"the endpoint {self.base_url} needs the name of the model it serves.")
        for name in ("timeout_seconds", "connect_timeout_seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}.")
        for name in ("tries", "max_reply_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")

    def post(self, path: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The server's answer to a JSON payload, with the model's name added. Threads may call it at once.

        Raises:
            EndpointError: after the last try, or at once where another would not help; its class says which.
        """
        return self._send("POST", *self._request(path, payload))

    def get(self, path: str) -> dict[str, Any]:
        """What the server says of itself under a path, e.g. `models`; as `post`."""
        url, _, headers = self._request(path, {})
        return self._send("GET", url, None, headers)

    def _send(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> dict[str, Any]:
        import httpx

        client = _shared_client(os.getpid(), *self._timeouts)
        for attempt in range(1, self.tries + 1):
            deadline = time.monotonic() + self.timeout_seconds
            try:
                with client.stream(method, url, content=body, headers=headers) as response:
                    read = bytearray()
                    for part in response.iter_bytes():
                        self._take(url, read, part)
                        if time.monotonic() > deadline:  # httpx bounds the wait for each part, not their sum
                            raise httpx.ReadTimeout("", request=response.request)
                return _read_answer(url, response.status_code, response.headers, bytes(read))
            except (_Failure, httpx.HTTPError, httpx.InvalidURL) as error:
                time.sleep(self._wait(url, attempt, self._judge(url, error)))
        raise AssertionError("the last try returns or raises")

    async def post_async(
        self,
        client: httpx.AsyncClient,
        path: str,
        payload: Mapping[str, Any],
        before_try: Callable[[], Awaitable[None]] | None = None,
    ) -> dict[str, Any]:
        """As `post`, for many requests at once.

        Args:
            client: from `open_client`.
            before_try: awaited before each time the request is sent, e.g. to keep a rate limit.
        """
        import httpx

        url, body, headers = self._request(path, payload)
        for attempt in range(1, self.tries + 1):
            if before_try is not None:
                await before_try()
            try:
                async with asyncio.timeout(self.timeout_seconds):
                    async with client.stream("POST", url, content=body, headers=headers) as response:
                        read = bytearray()
                        async for part in response.aiter_bytes():
                            self._take(url, read, part)
                return _read_answer(url, response.status_code, response.headers, bytes(read))
            except (_Failure, TimeoutError, httpx.HTTPError, httpx.InvalidURL) as error:
                await asyncio.sleep(self._wait(url, attempt, self._judge(url, error)))
        raise AssertionError("the last try returns or raises")

    def open_client(self) -> httpx.AsyncClient:
        """A client for `post_async`, to be closed by the caller; it belongs to the running event loop.

        A client looks through all of its connections for each request. Where hundreds are under way at once, many
        clients of one connection are faster than one of many.
        """
        import httpx

        return httpx.AsyncClient(**_client_settings(*self._timeouts))

    @property
    def _timeouts(self) -> tuple[float, float]:
        return self.timeout_seconds, min(self.connect_timeout_seconds, self.timeout_seconds)

    def _request(self, path: str, payload: Mapping[str, Any]) -> tuple[str, bytes, dict[str, str]]:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.key_env, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise ConfigError(f"the API key in {self.key_env} holds characters that no header may hold.")
            headers["Authorization"] = f"Bearer {key}"
        return f"{self.base_url.rstrip('/')}/{path}", json.dumps({"model": self.model, **payload}).encode(), headers

    def _take(self, url: str, read: bytearray, part: bytes) -> None:
        """Adds a part of a reply to what was read of it."""
        read += part
        if len(read) > self.max_reply_bytes:
            raise EndpointReplyTooLong(
                f"{url} sent a reply of more than {self.max_reply_bytes} bytes, beginning with {bytes(read[:80])!r}."
            )

    def _judge(self, url: str, error: Exception) -> _Failure:
        """What a failed try means; raises where another try would not help."""
        import httpx

        if isinstance(error, _Failure):
            return error
        if isinstance(error, httpx.ConnectTimeout):
            return _Failure(f"no connection within {self._timeouts[1]:g} s")
        if isinstance(error, httpx.TimeoutException | TimeoutError):
            return _Failure(f"no answer within {self.timeout_seconds:g} s", EndpointTimeout)
        if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError | httpx.ProxyError):
            return _Failure(_system_words(error))
        if isinstance(error, httpx.DecodingError):
            raise EndpointMalformed(f"{url} answered what cannot be decoded: {error}.") from error
        raise EndpointError(f"{url} cannot be asked: {error}; check the URL.") from error

    def _wait(self, url: str, attempt: int, failure: _Failure) -> float:
        """Seconds until the next try; raises where there is none."""
        asked = failure.retry_after or 0.0
        if attempt == self.tries or asked > MAX_RETRY_AFTER_SECONDS:
            reason = f"{failure} (try again in {asked:.0f} s)" if asked else str(failure)
            raise failure.final(f"{url} failed {attempt} time(s), last: {reason}; check that the server runs.")
        own = min(self.backoff_seconds * 2 ** (attempt - 1), MAX_BACKOFF_SECONDS)
        return max(own * random.uniform(0.5, 1.0), asked * random.uniform(1.0, 1.1))


class _Failure(Exception):
    """A try that failed where another may not.

    Attributes:
        final: the error it becomes after the last try.
        retry_after: seconds that the server asks to wait.
    """

    def __init__(self, reason: str, final: type[EndpointError] = EndpointUnreachable, retry_after: float | None = None):
        super().__init__(reason)
        self.final, self.retry_after = final, retry_after


def _client_settings(timeout: float, connect_timeout: float) -> dict[str, Any]:
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEP_ALIVE_SECONDS)
    return {"timeout": httpx.Timeout(timeout, connect=connect_timeout), "limits": limits, "verify": _certificates()}


@lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    """Read once a process: that takes longer than a request."""
    import httpx

    return httpx.create_ssl_context()


@lru_cache(maxsize=8)
def _shared_client(process: int, timeout: float, connect_timeout: float) -> httpx.Client:
    """A client for all threads of a process; `process` keeps a forked one from using its parent's connections."""
    import httpx

    return httpx.Client(**_client_settings(timeout, connect_timeout))


def _read_answer(url: str, status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    if 200 <= status < 300:
        return _read_object(url, body)
    text = " ".join(body[:300].decode(errors="replace").split())
    reason = f"status {status}: {text or headers.get('location') or 'without a word'}"
    if status in (408, 429) or status >= 500:
        raise _Failure(reason, retry_after=parse_retry_after(headers.get("retry-after")))
    way_out = "give the URL it points to" if 300 <= status < 400 else "check model, key and limits"
    raise EndpointRefused(f"{url} refused the request ({reason}); {way_out}.", status, body.decode(errors="replace"))


def _read_object(url: str, body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise EndpointMalformed(f"{url} answered what is not JSON: {body[:80]!r}.") from error
    if not isinstance(value, dict):
        raise EndpointMalformed(f"{url} answered {type(value).__name__} where an object was expected.")
    return value


def parse_retry_after(value: str | None) -> float | None:
    """Seconds to wait by a `Retry-After` header (a number, or a date), None where there is none that can be read."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(seconds, 0.0) if seconds < float("inf") else None


def _system_words(error: BaseException) -> str:
    """What the operating system said, e.g. `Connection refused`; it lies below the layers of the client."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[0]
        if isinstance(seen, ConnectionError) and seen.errno:
            return os.strerror(seen.errno)  # asyncio has words of its own
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        seen = seen.__cause__ or seen.__context__
    return str(error) or type(error).__name__


def first_choice(answer: Mapping[str, Any], url: str) -> dict[str, Any]:
    """The first choice of a completion; `EndpointMalformed` where it has none."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise EndpointMalformed(f"{url} answered without choices: {str(answer)[:120]}")
    return choices[0]
