"""A random Qwen3 in a model folder, and real HTTP servers that answer what a test tells them."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format
from onereason.model.extend import extend_model
from onereason.model.folder import save_model_folder
from onereason.model.tiny import build_tiny_model, build_tiny_tokenizer

Reply = tuple[int, Any]
"""Status, and a JSON value or raw bytes."""


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 of 2 layers with 2 x 8 itemic tokens; its logits differ clearly, and it has rows without a token."""
    folder = tmp_path_factory.mktemp("evaluation") / "model"
    codes = np.stack([np.arange(12) // 8, np.arange(12) % 8], 1)
    domains = ["video" if i % 2 else "prod" for i in range(12)]
    catalog = Catalog(load_format("onereason", 2, 8), [f"i{i}" for i in range(12)], codes, domains, ["red tea"] * 12)
    tokenizer = build_tiny_tokenizer(catalog.captions, vocab_size=262)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = build_tiny_model(tokenizer, **sizes, initializer_range=0.3)
    model, tokenizer, vocabulary = extend_model(model, tokenizer, catalog.format, init="copy_default")
    save_model_folder(model, tokenizer, vocabulary, catalog, folder, {"kind": "test"})
    return folder


@dataclass
class Server:
    """A running server: its URL, and the requests it got, as `(path, headers, payload)`."""

    url: str
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[str, dict[str, Any]], Reply]], Server]]:
    """Starts a server in a thread; what it is given maps path and payload to a reply."""
    running: list[ThreadingHTTPServer] = []

    def start(reply: Callable[[str, dict[str, Any]], Reply]) -> Server:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append((self.path, dict(self.headers), payload))
                status, body = reply(self.path, payload)
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that timed out
                    self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server = Server(f"http://127.0.0.1:{http.server_address[1]}/v1")
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        running.append(http)
        return server

    yield start
    for http in running:
        http.shutdown()
        http.server_close()
