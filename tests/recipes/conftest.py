"""Runs of the real recipes: in this process, or as two processes through torchrun."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT_S = 600
"""Of one run; the longest takes 30 s on an idle machine, two minutes on a busy one: DeepSpeed compiles."""


def load_tiny_world() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_world", Path(__file__).with_name("tiny_world.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def compiled_extensions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """DeepSpeed compiles an extension under a lock file; a killed run's, in the user's cache, would be waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path_factory.mktemp("torch_extensions")))
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tied model folder, a dataset and five corpora."""
    root = tmp_path_factory.mktemp("tiny_world")
    load_tiny_world().write_world(root)
    return root


@pytest.fixture(scope="session")
def untied_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny_world_untied")
    load_tiny_world().write_world(root, tie=False)
    return root


def overrides(recipe: str, world: Path, out: Path, **more: Any) -> list[str]:
    """The `key=value` arguments of a short run: 4 steps of 8 rows on the tiny world."""
    values: dict[str, Any] = {
        "model": world / "model",
        "out": out,
        "data.passes": 4.0,
        "data.max_length": 256,
        "training.learning_rate": 1e-2,
        "training.per_device_train_batch_size": 8,
        "training.max_steps": 4,
        "training.save_steps": 100,
        "training.logging_steps": 1,
        "training.group_by_length": False,
    }
    if recipe == "sft":
        for corpus, share in (("decision", 0.7), ("caption", 0.2), ("balance", 0.1)):
            values |= {f"data.corpora.{corpus}": world / corpus, f"data.shares.{corpus}": share}
    elif recipe == "warmup":
        values |= {"data.corpora.persona": world / "persona", "data.shares.persona": 1.0}
    else:
        for corpus, share in (("persona", 0.3), ("sequential", 0.5), ("caption", 0.2)):
            values |= {f"data.corpora.{corpus}": world / corpus, f"data.shares.{corpus}": share}
    return [f"{key}={json.dumps(str(v) if isinstance(v, Path) else v)}" for key, v in (values | more).items()]


def command(recipe: str, arguments: list[str], processes: int = 1) -> list[str]:
    run = ["-m", f"recipes.{recipe}", *arguments]
    if processes == 1:
        return [sys.executable, *run]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(port)]
    return [sys.executable, *launcher, *run]


def environment(**more: str) -> dict[str, str]:
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "RANK", "WORLD_SIZE", "LOCAL_"))}
    return keep | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""} | more


def launch(recipe: str, arguments: list[str], processes: int = 1, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs the recipe as a user would; fails with its output."""
    run = command(recipe, arguments, processes)
    with subprocess.Popen(
        run,
        cwd=REPOSITORY,
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun passes it on to its workers, and kills those that stay
            stdout, stderr = process.communicate()
            pytest.fail(f"{recipe} did not end in {TIMEOUT_S} s:\n{stdout[-3000:]}{stderr[-6000:]}")
    assert process.returncode == 0, stdout[-3000:] + stderr[-6000:]
    return subprocess.CompletedProcess(run, process.returncode, stdout, stderr)


def run_in_process(recipe: str, arguments: list[str]) -> None:
    """The recipe in this process, which is quick; mistakes arrive as exceptions."""
    from onereason.config import load_config

    module = importlib.import_module(f"recipes.{recipe}")
    module.run(load_config(getattr(module, f"{recipe.capitalize()}Config"), None, arguments))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def losses(out: Path) -> list[float]:
    """The loss of each logged step of a finished run."""
    return [e["loss"] for e in json.loads((out / "log_history.json").read_text()) if "loss" in e]
