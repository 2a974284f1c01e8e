"""A client of OpenAI-compatible servers (vLLM, SGLang, llama.cpp, a hosted service): POST JSON, get JSON.

Timeouts are explicit. A request is sent again only where that is safe and may help: the connection failed, the server
did not answer in time, or it said that it is busy or broken (408, 429, 5xx).
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from onereason.errors import ConfigError, OnereasonError

RETRIED_STATUSES = (408, 429, 500, 502, 503, 504)
MAX_BACKOFF_SECONDS = 30.0


class EndpointError(OnereasonError, RuntimeError):
    """A server cannot be reached, refuses a request, or answers what cannot be read."""


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

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"endpoint URL {self.base_url!r} must start with http:// or https://.")
        if not self.model:
            raise ConfigError(f"the endpoint {self.base_url} needs the name of the model it serves.")
        if not 0 < self.timeout_seconds < float("inf"):
            raise ConfigError(f"timeout_seconds must be above 0, got {self.timeout_seconds}.")
        if self.tries < 1:
            raise ConfigError(f"tries must be at least 1, got {self.tries}.")

    def post(self, path: str, payload: dict[str, Any]) -> dict[str, Any]:
        """The server's answer to a JSON payload, with the model's name added.

        Raises:
            EndpointError: after the last try, or at once where another would not help.
        """
        url = f"{self.base_url.rstrip('/')}/{path}"
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.key_env):
            headers["Authorization"] = f"Bearer {key}"
        body = json.dumps({"model": self.model, **payload}).encode()
        failure = ""
        for attempt in range(self.tries):
            if attempt:
                time.sleep(min(self.backoff_seconds * 2 ** (attempt - 1), MAX_BACKOFF_SECONDS))
            request = urllib.request.Request(url, body, headers, method="POST")
            try:
                with urllib.request.urlopen(request, timeout=self.timeout_seconds) as response:
                    return _read_object(response.read(), url)
            except urllib.error.HTTPError as error:
                failure = f"status {error.code}: {_excerpt(error)}"
                if error.code not in RETRIED_STATUSES:
                    raise EndpointError(
                        f"{url} refused the request ({failure}); check model, key and limits."
                    ) from error
            except TimeoutError:
                failure = f"no answer within {self.timeout_seconds:g} s"
            except urllib.error.URLError as error:
                timed_out = isinstance(error.reason, TimeoutError)
                failure = f"no answer within {self.timeout_seconds:g} s" if timed_out else str(error.reason)
            except (http.client.HTTPException, ConnectionError) as error:
                failure = str(error) or type(error).__name__
        raise EndpointError(f"{url} failed {self.tries} time(s), last: {failure}; check that the server runs.")


def _read_object(body: bytes, url: str) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise EndpointError(f"{url} answered what is not JSON: {body[:80]!r}.") from error
    if not isinstance(value, dict):
        raise EndpointError(f"{url} answered {type(value).__name__} where an object was expected.")
    return value


def _excerpt(error: urllib.error.HTTPError) -> str:
    try:
        return " ".join(error.read(300).decode(errors="replace").split()) or error.reason
    except (OSError, http.client.HTTPException):
        return str(error.reason)


def first_choice(answer: dict[str, Any], url: str) -> dict[str, Any]:
    """The first choice of a completion; `EndpointError` where it has none."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise EndpointError(f"{url} answered without choices: {str(answer)[:120]}")
    return choices[0]
