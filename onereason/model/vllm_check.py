"""Asks vLLM, in an environment of its own, what it writes behind a few prompts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onereason.errors import ConfigError, ModelError
from onereason.io import parse_json
from onereason.model import vllm_greedy

SERVE_PYTHON = "ONEREASON_SERVE_PYTHON"
DEFAULT_SERVE_PYTHON = Path(".venv-serve") / "bin" / "python"
TIMEOUT_SECONDS = 1800.0


def find_serve_python() -> Path:
    """The python of the serving environment; `ConfigError` where there is none."""
    named = os.environ.get(SERVE_PYTHON)
    python = Path(named) if named else DEFAULT_SERVE_PYTHON
    if (found := shutil.which(python)) is None:
        where = f"{SERVE_PYTHON}={named}" if named else f"{python}"
        raise ConfigError(
            f"the python of the serving environment is not there ({where}); run `make serve-env`, or set "
            f"{SERVE_PYTHON} to a python that has vLLM."
        )
    return Path(found).absolute()


def require_vllm(python: Path) -> None:
    """`ConfigError` unless vLLM is installed for that python; it is not imported, which takes long."""
    probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        found = subprocess.run([python, "-P", "-c", probe], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{python} cannot be run ({error}); set {SERVE_PYTHON} to a python that has vLLM.") from error
    if found.returncode:
        raise ConfigError(f"{python} has no vLLM; run `make serve-env`, or set {SERVE_PYTHON} to a python that has it.")


def write_in_vllm(
    python: Path, model: Path, prompts: Sequence[Sequence[int]], unused: Sequence[int], num_tokens: int
) -> tuple[list[list[int]], str]:
    """What vLLM writes greedily in float32 behind each prompt, `P` lists of `num_tokens` ids; and its version.

    Args:
        python: of the serving environment.
        unused: ids without a token, which are never chosen.

    Raises:
        ModelError: vLLM does not open the folder, or does not answer in time.
    """
    request: dict[str, Any] = {
        "model": str(model.resolve()),
        "prompts": [list(map(int, prompt)) for prompt in prompts],
        "unused": list(unused),
        "num_tokens": num_tokens,
    }
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    environment.pop("PYTHONPATH", None)  # of this environment, not of that one
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "request.json", Path(folder) / "response.json"
        asked.write_text(json.dumps(request))
        command = [str(python), "-P", vllm_greedy.__file__, str(asked), str(answered)]
        try:
            done = subprocess.run(
                command, env=environment, cwd=folder, capture_output=True, timeout=TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ModelError(f"vLLM ({python}) did not answer within {TIMEOUT_SECONDS:.0f} s.") from error
        if done.returncode or not answered.is_file():
            reason = _last_error(done.stderr.decode(errors="replace"))
            raise ModelError(f"vLLM ({python}) cannot open the folder: {reason}")
        response = parse_json(answered.read_bytes())
    return response["tokens"], response["version"]


def _last_error(log: str) -> str:
    """The line of a traceback that names the error, or what was said last."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    named = [line for line in lines if line.partition(":")[0].endswith(("Error", "Exception"))]
    return (named or lines or ["it said nothing"])[-1]
