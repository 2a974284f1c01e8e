"""A real HTTP server in a thread that answers what a test tells it, and records what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass
class Reply:
    """What the server sends: a JSON value or raw bytes; `cut` closes the connection before the end of the body."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


def says(content: Any, finish_reason: Any = "stop", usage: Any = (7, 5), **message: Any) -> Reply:
    """A chat completion; `usage` is (prompt tokens, completion tokens) or None."""
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish_reason}
    body: dict[str, Any] = {"choices": [choice]}
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return Reply(body=body)


class ChatServer:
    """`with ChatServer(answer) as server:` listens on a free port; `answer` makes a reply of a request's payload.

    Attributes:
        url: base URL, up to `/v1`.
        payloads, times, headers, paths: of the requests, in the order they came.
        peak: most requests under way at once.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], Reply]):
        self.answer = answer
        self.payloads: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.peak = 0
        self._now = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                payload = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
                with outer._lock:
                    outer.payloads.append(payload)
                    outer.times.append(time.monotonic())
                    outer.headers.append(dict(self.headers))
                    outer.paths.append(self.path)
                    outer._now += 1
                    outer.peak = max(outer.peak, outer._now)
                reply = outer.answer(payload)
                with outer._lock:  # before the client can know that it is answered, and send the next request
                    outer._now -= 1
                content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that gave up
                    self.send_response(reply.status)
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(content) + reply.cut))
                    self.end_headers()
                    self.wfile.write(content)
                self.close_connection |= reply.cut

            do_GET = do_POST

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

        self._http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *args: Any) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def prompts(self) -> list[str]:
        """The last message of each request."""
        return [payload["messages"][-1]["content"] for payload in self.payloads]
