"""A model folder and a real vLLM server on it, where the serving environment is there."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from onereason.errors import ConfigError
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import ItemicFormat, Marker
from onereason.model.extend import extend_model
from onereason.model.folder import save_model_folder
from onereason.model.tiny import build_tiny_model, build_tiny_tokenizer
from onereason.model.vllm_check import SERVE_PYTHON, find_serve_python, require_vllm

REPOSITORY = Path(__file__).resolve().parents[2]
FORMAT = ItemicFormat(
    "world",
    (6, 6, 6),
    "<s_{level}_{code}>",
    {"video": Marker("<|video_begin|>", "<|video_end|>"), "prod": Marker("<|prod_begin|>", "<|prod_end|>")},
)
START_SECONDS = 240


def make_catalog(seed: int, items: int = 40) -> Catalog:
    codes = np.random.default_rng(seed).integers(0, 6, (items, 3))
    domains = ["video" if n % 3 else "prod" for n in range(items)]
    captions = [f"thing {n}" for n in range(items)]
    return Catalog(FORMAT, [f"i{n:02d}" for n in range(items)], codes, domains, captions)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> Path:
    """A complete folder: two domains, three levels, a random Qwen3 whose heads vLLM takes on CPUs."""
    folder = tmp_path_factory.mktemp("served") / "tiny-rec"
    tokenizer = build_tiny_tokenizer(["a red apple pie", "a green tea set"] * 3, vocab_size=300)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 1024}
    model = build_tiny_model(tokenizer, **sizes, initializer_range=0.3)
    model, tokenizer, vocabulary = extend_model(model, tokenizer, FORMAT, init="copy_default")
    save_model_folder(model, tokenizer, vocabulary, make_catalog(7), folder, {"kind": "model"}, False)
    return folder


@dataclass
class Server:
    """A server that runs.

    Attributes:
        url: up to and with the version.
        catalog: folder of the catalog in use; replacing it swaps the catalog.
        process: of `onereason serve`, which became vLLM.
    """

    url: str
    catalog: Path
    process: subprocess.Popen


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def server(model_dir, tmp_path_factory) -> Iterator[Server]:
    """`onereason serve`, as a user starts it; it takes half a minute."""
    default = REPOSITORY / ".venv-serve" / "bin" / "python"
    environment = dict(os.environ)
    if SERVE_PYTHON not in environment and default.is_file():
        environment[SERVE_PYTHON] = str(default)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SERVE_PYTHON, environment.get(SERVE_PYTHON, str(default)))
        try:
            require_vllm(find_serve_python())
        except ConfigError as error:
            pytest.skip(str(error))
    root = tmp_path_factory.mktemp("server")
    make_catalog(7).save(root / "catalog")
    port = free_port()
    command = [sys.executable, "-m", "onereason.cli", "serve", str(model_dir), "--port", str(port), "--any-version"]
    command += ["--catalog", str(root / "catalog"), "--vllm-options=--max-model-len 512 --gpu-memory-utilization 0.3"]
    with (root / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail("the server did not start:\n" + (root / "log").read_text()[-3000:])
            time.sleep(0.5)
        yield Server(f"http://127.0.0.1:{port}/v1", root / "catalog", process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
