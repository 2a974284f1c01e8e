"""A hub on this machine: what `huggingface_hub` asks of the real one to make a repository and take a commit."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_token_of_the_test"


class FakeHub(ThreadingHTTPServer):
    """Keeps what was uploaded.

    Attributes:
        files: path in the repository -> bytes; set some before to have them there already.
        repositories: bodies of the requests that made them.
        full: answers commits with an error.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.repositories: list[dict[str, Any]] = []
        self.full = False
        self.blobs: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *args: Any) -> None:
        pass

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._answer({"error": "Invalid username or password."}, 401)
        return False

    def do_GET(self) -> None:
        if not self._allowed():
            return
        if self.path == "/api/whoami-v2":
            self._answer({"type": "user", "name": "me", "orgs": [], "auth": {"accessToken": {"role": "write"}}})
        elif "/tree/main" in self.path:
            tree = [
                {"type": "file", "path": path, "size": len(data), "oid": "0" * 40}
                for path, data in self.server.files.items()
            ]
            self._answer(tree)
        else:
            self._answer({"error": f"not here: {self.path}"}, 404)

    def do_PUT(self) -> None:
        data = self._body()
        self.server.blobs[hashlib.sha256(data).hexdigest()] = data
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        if not self._allowed():
            return
        if self.path == "/api/repos/create":
            self.server.repositories.append(json.loads(body))
            self._answer({"url": f"{self.server.url}/me/model", "id": "me/model"})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in paths}
            self._answer(
                {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]}
            )
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            actions = {"upload": {"href": f"{self.server.url}/upload"}}
            self._answer({"transfer": "basic", "objects": [o | {"actions": actions} for o in objects]})
        elif "/commit/" in self.path:
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            self._answer({"error": f"not here: {self.path}"}, 404)

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        if self.server.full:
            self._answer({"error": "Storage limit reached"}, 403)
            return
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del self.server.files[value["path"]]
        self._answer({"commitUrl": f"{self.server.url}/me/model/commit/{'0' * 40}", "commitOid": "0" * 40})


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
