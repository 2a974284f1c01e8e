"""The life of a training run: command line, start or resume, arguments, and the finished model folder."""

from __future__ import annotations

import argparse
import atexit
import json
import math
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from accelerate import PartialState
from transformers import Trainer, TrainingArguments
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from transformers.utils.logging import disable_progress_bar

from onereason.config import check_seed, load_config, to_dict
from onereason.data.prompt_sets import language_name, own_prompt_files
from onereason.data.prompts import RECOMMENDATION_SETS, describe_prompts
from onereason.errors import ConfigError, OnereasonError, StorageError
from onereason.io import build_manifest, read_json, write_json
from onereason.model.adapter import save_adapter
from onereason.model.folder import ModelFolder, load_model_folder, save_model_folder, weight_files
from onereason.model.precision import has_fast_bfloat16
from recipes.common import SelectionConfig, TrainingConfig

T = TypeVar("T")


def parse_command_line(cls: type[T], run: Callable[[T], None], doc: str | None) -> int:
    """`--config FILE key=value ...` -> the recipe's dataclass -> `run`. User mistakes are one line and exit code 2."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="YAML file of the recipe's configuration")
    parser.add_argument("--traceback", action="store_true", help="show the full traceback of an error")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, e.g. training.learning_rate=1e-3")
    args = parser.parse_args()
    try:
        run(load_config(cls, args.config, args.overrides))
    except OnereasonError as error:
        if args.traceback:
            traceback.print_exc()
        print(f"{Path(sys.argv[0]).stem}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


def leave_process(code: int) -> NoReturn:
    """Ends a recipe's process; its work is done and on disk.

    One process of several leaves without the interpreter's own shutdown: a thread of the collectives that wakes during
    it aborts the process ("terminate called without an active exception"), and the launcher then reports a failure.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        atexit._run_exitfuncs()  # trackers close their runs there
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def prepare_process() -> None:
    """DeepSpeed without a GPU needs its backend named before anything asks for one; elsewhere this does nothing."""
    if deepspeed_on_cpu():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        PartialState(backend="gloo")


def deepspeed_on_cpu() -> bool:
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true" and not torch.cuda.is_available()


def start_run(
    config: Any,
    selection: SelectionConfig | None = None,
    make_arguments: Callable[..., TrainingArguments] = TrainingArguments,
) -> tuple[str | None, TrainingArguments]:
    """Checks the run folder, finds the checkpoint to go on from, builds transformers' arguments.

    A run folder holds one configuration (`config.json`): going on with another one would mix two runs in silence.

    Args:
        make_arguments: makes the arguments of another trainer out of transformers' (a class of TRL).
    """
    out = Path(config.out)
    refuse_finished(out / "model")
    if selection is not None:
        describe_prompts(
            RECOMMENDATION_SETS, selection.language
        )  # an unknown language is refused before anything loads
    if not sys.stderr.isatty():
        disable_progress_bar()
    checkpoint = latest_checkpoint(out) if config.resume else None
    if checkpoint:
        refuse_other_configuration(config)
    return checkpoint, build_training_arguments(config.training, out, selection, make_arguments)


def refuse_finished(result: Path) -> None:
    """`StorageError` where a run's result stands already."""
    if result.exists():
        raise StorageError(f"{result} exists: this run is finished; choose another `out` or remove the folder.")


def refuse_other_configuration(config: Any) -> None:
    """`ConfigError` unless the checkpoints in `config.out` are of a run with this configuration."""
    values, before = to_dict(config), read_json(Path(config.out) / "config.json", "run configuration")
    changed = [k for k in values if k != "resume" and before.get(k) != _plain(values[k])]
    if changed:
        raise ConfigError(
            f"{config.out} holds checkpoints of a run with another configuration (different: {', '.join(changed)}); "
            "choose another `out`, or pass resume=false to start over."
        )


def claim_run_folder(config: Any) -> None:
    """Writes the run's configuration, once everything that can be refused was; call it right before the trainer.

    Starting over removes the checkpoints of the run before: the next resumption would take the newest of them for ours.
    """
    if PartialState().is_main_process:
        out = Path(config.out)
        if not config.resume:
            for old in out.glob("checkpoint-*"):
                shutil.rmtree(old)
        write_json(out / "config.json", to_dict(config))
    PartialState().wait_for_everyone()


def _plain(value: Any) -> Any:
    """Tuples as JSON gives them back."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def build_training_arguments(
    training: TrainingConfig,
    out: Path,
    selection: SelectionConfig | None = None,
    make_arguments: Callable[..., TrainingArguments] = TrainingArguments,
) -> TrainingArguments:
    """transformers' arguments from ours. One epoch is the whole mixture: `data.passes` is already laid out in it."""
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        if getattr(training, name) < 1:
            raise ConfigError(f"training.{name} must be at least 1, got {getattr(training, name)}.")
    check_seed(training.seed, "training.seed")
    for name, low, high in (
        ("learning_rate", 0.0, math.inf),
        ("warmup_steps", 0.0, math.inf),
        ("weight_decay", 0.0, math.inf),
        ("adam_beta2", 0.0, 1.0),
        ("max_grad_norm", 0.0, math.inf),
        ("label_smoothing_factor", 0.0, 1.0),
    ):
        if not low <= getattr(training, name) < high:
            raise ConfigError(f"training.{name} must lie in {low} <= x < {high}, got {getattr(training, name)}.")
    for name in ("save_steps", "logging_steps"):
        if not 0 < getattr(training, name) < math.inf:
            raise ConfigError(f"training.{name} must be above 0 (below 1: a share), got {getattr(training, name)}.")
    try:
        for tracker in get_reporting_integration_callbacks(list(training.report_to)):
            tracker()
    except (ValueError, RuntimeError, ImportError) as error:  # unknown, or not installed
        raise ConfigError(f"training.report_to: {error}") from error
    options = {name: getattr(training, name) for name in TrainingConfig.__dataclass_fields__}
    options["report_to"] = list(training.report_to)
    options["bf16"] = has_fast_bfloat16() if training.bf16 == "auto" else training.bf16
    for ours in ("attn_implementation", "weights_dtype", "group_by_length"):
        del options[ours]
    if "activation_checkpointing" in TrainingArguments.__dataclass_fields__:  # transformers' newer name for it
        options["activation_checkpointing"] = options.pop("gradient_checkpointing")
    if training.fsdp is None:
        options.pop("fsdp")
    if selection is not None and selection.data is not None:
        selection.evaluation(training.seed)
        if training.deepspeed or training.fsdp or os.environ.get("ACCELERATE_USE_FSDP") == "true" or deepspeed_on_cpu():
            raise ConfigError("selection.data needs whole weights on every process: use one process or DDP.")
        if training.attn_implementation not in ("sdpa", "eager"):
            raise ConfigError(
                f"selection.data runs the beam search, which needs training.attn_implementation sdpa or eager, "
                f"got {training.attn_implementation}."
            )
        options |= {
            "eval_strategy": "steps",
            "eval_steps": selection.eval_steps,
            "save_steps": selection.eval_steps,
            "load_best_model_at_end": True,
            "metric_for_best_model": selection.metric,
            "greater_is_better": True,
        }
    try:
        return make_arguments(
            output_dir=str(out),
            num_train_epochs=1,
            use_cpu=not torch.cuda.is_available() and not deepspeed_on_cpu(),
            save_strategy="steps",
            logging_strategy="steps",
            train_sampling_strategy="sequential",  # the mixture's order is final
            remove_unused_columns=False,
            disable_tqdm=not sys.stderr.isatty(),
            ddp_find_unused_parameters=False,
            accelerator_config={"use_configured_state": True} if deepspeed_on_cpu() else None,
            **options,
        )
    except ValueError as error:
        raise ConfigError(f"training: {error}") from error


def latest_checkpoint(out: Path) -> str | None:
    """The newest whole checkpoint of an interrupted run, or None."""
    found = [p for p in out.glob("checkpoint-*") if _is_whole(p / "trainer_state.json")]
    return str(max(found, key=lambda p: int(p.name.rpartition("-")[2]))) if found else None


def _is_whole(state_file: Path) -> bool:
    """The trainer writes its state last, so a checkpoint is whole when that file is; a kill may have cut it short."""
    try:
        json.loads(state_file.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def finish_run(
    config: Any,
    trainer: Trainer,
    inputs: Sequence[Path],
    counts: Mapping[str, int],
    prepare: Callable[[ModelFolder], Any],
    merge: Callable[[Any], Any],
) -> None:
    """Writes the complete model folder `out/model`, and before it, of a run with `tuning=lora`, `out/adapter`.

    The trained weights are gathered (whatever shards them), laid into a fresh copy of the start model that `prepare`
    has wrapped in the same way, and unwrapped by `merge`.

    Args:
        inputs: files the model was trained on, for the manifest.
        counts: what was seen of them.
    """
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.accelerator.is_main_process:
        fresh = load_model_folder(config.model)
        stored_dtype = next(fresh.model.parameters()).dtype
        fresh.model.float()  # adapters are merged in full precision, whatever type the folder keeps
        prepare(fresh)
        fresh.model.load_state_dict({name: value.to("cpu", torch.float32) for name, value in state.items()})
        history = [entry for entry in trainer.state.log_history if "loss" in entry or "eval_runtime" not in entry]
        write_json(Path(config.out) / "log_history.json", history)
        selection = getattr(config, "selection", None)
        prompts = own_prompt_files(selection.language) if selection is not None else []
        manifest = build_manifest(
            type(config).__name__.removesuffix("Config").lower(),
            inputs=[*weight_files(config.model), *inputs, *prompts],
            config=to_dict(config),
            seed=config.training.seed,
            counts={"steps": trainer.state.global_step, **counts},
        )
        extra = {}
        if selection is not None:
            name = language_name(selection.language)
            manifest["prompt"] = {"style": selection.prompt, "max_history": selection.max_history, "language": name}
            extra = {f"{name}/{path.name}": path for path in prompts}
            if selection.data is not None:
                manifest["validation"] = {selection.metric: trainer.state.best_metric}
        if getattr(config, "tuning", "full") == "lora":
            trained = {name: value for name, value in fresh.model.named_parameters() if value.requires_grad}
            lora = config.lora
            place = Path(config.out) / "adapter"
            save_adapter(trained, fresh, lora.rank, lora.alpha, lora.dropout, manifest, place, extra)
        model = merge(fresh.model).to(stored_dtype)
        out = Path(config.out) / "model"
        save_model_folder(model, fresh.tokenizer, fresh.vocabulary, fresh.catalog, out, manifest, extra_files=extra)
        print(f"finished: {out}")
    trainer.accelerator.wait_for_everyone()
