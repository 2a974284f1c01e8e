"""General-ability benchmarks of lm-evaluation-harness on a model folder.

The harness brings its own tasks, prompts and scores; this module hands it the loaded model and keeps its numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from onereason.errors import ConfigError, DataError, ModelError
from onereason.io import read_json, write_json
from onereason.model.folder import ModelFolder

LM_EVAL_FILE = "lm_eval.json"


def require_tasks(names: Sequence[str], include: Path | None = None) -> Any:
    """The harness's task manager, once it is known to have the tasks.

    Args:
        names: tasks or groups of the harness.
        include: a folder with task files (YAML) of one's own.

    Raises:
        ModelError: the harness is not installed.
        ConfigError: a task is not known to it, or `include` is no folder.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ModelError(
            f"lm-evaluation-harness cannot be imported ({error}); install it: pip install -c constraints.txt "
            "'onereason[eval]'."
        ) from error
    if include is not None and not include.is_dir():
        raise ConfigError(f"--lm-eval-include {include} is no folder; give the folder of your task files.")
    manager = TaskManager(include_path=str(include) if include else None)
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise ConfigError(f"lm-evaluation-harness has no task {', '.join(map(repr, unknown))}; see `lm-eval ls tasks`.")
    return manager


def run_lm_eval_once(
    load: Callable[[], ModelFolder],
    names: Sequence[str],
    manager: Any,
    out: Path,
    *,
    batch_size: int = 8,
    limit: int | None = None,
    seed: int = 0,
) -> None:
    """Runs the tasks and saves `lm_eval.json` in `out`, unless it holds the same tasks and limit already.

    Args:
        load: opens the model folder; called only where there is something to run.
    """
    wanted = {"tasks": list(names), "limit": limit}
    path = out / LM_EVAL_FILE
    before = read_json(path, "harness results") if path.is_file() else {}
    if {key: before.get(key) for key in wanted} != wanted:
        found = run_lm_eval(load(), names, manager, batch_size=batch_size, limit=limit, seed=seed)
        write_json(path, {**wanted, "results": found})


def run_lm_eval(
    folder: ModelFolder,
    names: Sequence[str],
    manager: Any,
    *,
    batch_size: int = 8,
    limit: int | None = None,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Task -> metric (and filter) -> value.

    Prompts are in the folder's chat format, without thinking; rows without a token are never generated, as the folder's
    generation settings say.

    Args:
        limit: only so many documents of each task.

    Raises:
        DataError: a task's data cannot be loaded.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    model = HFLM(pretrained=folder.model, tokenizer=folder.tokenizer, batch_size=batch_size, enable_thinking=False)
    try:
        found = simple_evaluate(
            model=model,
            tasks=list(names),
            task_manager=manager,
            limit=limit,
            apply_chat_template=True,
            log_samples=False,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    except OSError as error:  # datasets' failures to fetch or read
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"lm-evaluation-harness cannot load the data of {', '.join(names)}: {reason}") from error
    # A key is "metric,filter"; others hold counts and names.
    return {
        task: {key: float(value) for key, value in values.items() if "," in key and isinstance(value, int | float)}
        for task, values in found["results"].items()
    }
