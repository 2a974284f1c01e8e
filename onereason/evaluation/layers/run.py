"""The folder of a layered evaluation: what the run is, its answers, and what came of them.

`run.json` says what was asked of which model; the answers beside it belong to it. A run goes on only as itself, so that
no file mixes the answers of two models or two settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onereason.errors import ConfigError, DataError, StorageError
from onereason.evaluation.layers.generation import (
    GENERATIONS_FILE,
    PART_FILES,
    Generation,
    asked_modes,
    load_generations,
)
from onereason.evaluation.layers.judge import VERDICTS_FILE
from onereason.evaluation.layers.lm_eval import LM_EVAL_FILE
from onereason.evaluation.layers.report import REPORT_FILE, RESULTS_FILE, SCORES_FILE
from onereason.evaluation.layers.tasks.base import EvaluationRow
from onereason.io import read_json, require_writable_parent, storage_errors, write_json

RUN_FILE = "run.json"
_OURS = (RUN_FILE, GENERATIONS_FILE, PART_FILES, VERDICTS_FILE, LM_EVAL_FILE, RESULTS_FILE, REPORT_FILE, SCORES_FILE)


def check_run_folder(folder: Path) -> None:
    """`StorageError` before long work where the folder cannot hold a run."""
    with storage_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise StorageError(f"--out {folder} is an existing file; choose another path.")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / RUN_FILE).is_file():
            raise StorageError(f"--out {folder} is not empty and holds no {RUN_FILE}; choose another path.")
        require_writable_parent(folder / RUN_FILE)


def open_run(folder: Path, state: Mapping[str, Any], overwrite: bool) -> None:
    """Starts a run, or goes on with it where the folder holds the same one.

    Args:
        state: JSON values that say what the run is: `config`, `inputs` (file -> hash), `format`.
        overwrite: drops the run that is there; files that are none of ours stay.

    Raises:
        ConfigError: the folder holds another run.
    """
    if overwrite:
        for pattern in _OURS:
            for path in folder.glob(pattern):
                path.unlink()
    if (folder / RUN_FILE).is_file():
        before = load_run(folder)
        changed = [
            f"{key} ({old!r}, now {new!r})" if part == "config" else key
            for part in ("config", "inputs", "format")
            for key in sorted({*(before[part] or {}), *(state[part] or {})})
            if (old := (before[part] or {}).get(key)) != (new := (state[part] or {}).get(key))
        ]
        if changed:
            raise ConfigError(
                f"{folder} holds the answers of another run; different: {', '.join(changed)}. Choose another --out, or "
                "pass --overwrite to drop them."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RUN_FILE, state)


def load_run(folder: Path) -> dict[str, Any]:
    """What `open_run` wrote."""
    state = read_json(folder / RUN_FILE, "evaluation run")
    if not isinstance(state, dict) or not {"config", "inputs", "format"} <= set(state):
        raise DataError(f"{folder / RUN_FILE} is malformed; pass --overwrite to start over.")
    return state


def load_complete_generations(
    folder: Path, rows: Sequence[EvaluationRow], modes: Sequence[str] | None
) -> list[Generation]:
    """The saved answers of a finished run; `DataError` where some are missing."""
    saved = {generation.key: generation for generation in load_generations(folder)}
    wanted = [(row.id, mode) for row in rows for mode in asked_modes(row, modes)]
    missing = [key for key in wanted if key not in saved]
    if missing:
        raise DataError(
            f"{folder / GENERATIONS_FILE} lacks {len(missing)} of {len(wanted)} answers, e.g. to row {missing[0][0]!r} "
            f"in mode {missing[0][1]}; run once without --rescore to generate them."
        )
    return [saved[key] for key in wanted]
