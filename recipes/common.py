"""The configuration every training recipe shares, and the mixture of corpora as a dataset."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from onereason.data.chat import EncodedRows, encode_rows
from onereason.data.mixture import MixtureOrder, group_by_length, mix
from onereason.data.prompts import RecommendationPrompt
from onereason.data.schema import load_dataset
from onereason.data.timelines import build_timelines, split_leave_one_out
from onereason.decoding.recommender import Recommender
from onereason.decoding.think import SamplingConfig
from onereason.errors import ConfigError, DataError
from onereason.evaluation.candidates import render_prompts
from onereason.evaluation.recommendation import SYSTEM_OF_MODE
from onereason.evaluation.runner import EvaluationConfig, build_problem, evaluate
from onereason.io import read_jsonl
from onereason.itemic.format import ItemicFormat
from onereason.itemic.trie import build_catalog_trie
from onereason.model.folder import ModelFolder, load_model_folder, require_catalog


@dataclass(frozen=True)
class DataConfig:
    """Which corpora are read, and how they are mixed."""

    corpora: Mapping[str, str] = field(default_factory=dict)
    """Corpus name -> folder a data builder wrote (`rows.jsonl`)."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Corpus name -> share of the rows. Shares need not sum to 1; corpora without one are not used."""
    passes: float = 1.0
    """How often the reference corpus (the one with the largest share) is gone through in all."""
    max_length: int = 1024
    """Tokens a row. Longer rows lose their oldest history, never instruction or answer."""


@dataclass(frozen=True)
class TrainingConfig:
    """Optimisation, checkpoints and logs; the names are transformers' own."""

    learning_rate: float = 1e-4
    """Peak learning rate."""
    lr_scheduler_type: str = "cosine"
    """transformers' scheduler name."""
    warmup_steps: float = 0.03
    """Steps of linear warm-up; below 1 a share of all steps."""
    weight_decay: float = 0.0
    """Decoupled weight decay (norms and biases are spared)."""
    adam_beta2: float = 0.95
    """Second-moment decay of AdamW."""
    max_grad_norm: float = 1.0
    """Gradient norm is clipped to this."""
    label_smoothing_factor: float = 0.0
    """Label smoothing over the vocabulary."""
    per_device_train_batch_size: int = 8
    """Rows a process and micro-step."""
    gradient_accumulation_steps: int = 1
    """Micro-steps an optimizer step; the loss is normalised over all supervised tokens of the step."""
    max_steps: int = -1
    """Stop after so many optimizer steps; -1 goes through the whole mixture."""
    attn_implementation: str = "sdpa"
    """Attention of the model while it trains. On a CPU, `eager` trains short rows about twice as fast."""
    group_by_length: bool = True
    """Batches hold rows of like length (less padding) and come in random order."""
    weights_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights while they train. Tiny updates vanish in bfloat16; the finished folder keeps its own type."""
    bf16: bool | Literal["auto"] = False
    """bfloat16 autocast; `auto` where the hardware has it (a CPU that emulates it is ten times slower)."""
    gradient_checkpointing: bool = False
    """Trades compute for memory."""
    save_steps: float = 500
    """Steps between checkpoints; below 1 a share of all steps."""
    save_total_limit: int | None = 2
    """Checkpoints kept (the best one is always kept)."""
    logging_steps: float = 10
    """Steps between log lines; below 1 a share of all steps."""
    report_to: Sequence[str] = ()
    """Trackers of transformers: `tensorboard`, `wandb`, ..."""
    seed: int = 0
    """Seed of order, dropout and mixture."""
    deepspeed: str | None = None
    """DeepSpeed JSON, where it is not given by `accelerate launch`."""
    fsdp: str | None = None
    """transformers' `fsdp` option, where it is not given by `accelerate launch`."""
    use_liger_kernel: bool = False
    """Fused kernels on GPUs (pip install liger-kernel): far less memory at a 176k vocabulary. `recipes.sft` never holds
    whole logits, with or without it, and takes only the layers' kernels."""


@dataclass(frozen=True)
class SelectionConfig:
    """Choosing the checkpoint by constrained beams on validation users. Off while `data` is None."""

    data: str | None = None
    """Dataset folder; its leave-one-out validation items are the targets."""
    metric: str = "recall_at_10"
    """Item-level metric that is maximised."""
    mode: Literal["no_think", "think"] = "no_think"
    """Whether the recommendations are asked for at once or after a trace."""
    num_traces: int = 1
    """Traces a user in mode `think`."""
    think_budget: int = 256
    """Tokens a trace may have; one that has not closed by then is cut."""
    temperature: float = 0.6
    """Of the traces; 0 is greedy."""
    eval_steps: float = 0.1
    """Steps between validations; below 1 a share of all steps."""
    max_users: int | None = 2000
    """Validation users, sampled by seed; None takes all."""
    domains: Sequence[str] = ()
    """Domains that validation users are asked for; empty takes all. A specialist is chosen on its own."""
    num_beams: int = 20
    """Beams of the search."""
    batch_size: int = 128
    """Prompts a batch."""
    prompt: str = "chat"
    """Prompt style, see `onereason.data.prompts`; mode `think` needs `chat`."""
    max_history: int = 50
    """Newest items in the prompt."""
    language: str = "en"
    """Wording of the prompt: `en`, `zh`, or a folder of prompt sets. It should be that of the corpora: the finished
    folder is asked in it, and takes a folder along."""
    patience: int | None = None
    """Stop after so many validations without gain."""

    def __post_init__(self) -> None:
        if self.mode == "think" and self.prompt != "chat":
            raise ConfigError(
                f"selection.mode think needs selection.prompt chat, got {self.prompt!r}: text without turns has no "
                "think block; or choose the checkpoint in mode no_think."
            )

    def evaluation(self, seed: int) -> EvaluationConfig:
        """How validation users are asked; `ConfigError` for what cannot be asked or is no metric of it."""
        evaluation = EvaluationConfig(
            split="validation",
            num_beams=self.num_beams,
            batch_size=self.batch_size,
            max_users=self.max_users,
            domains=tuple(self.domains),
            seed=seed,
            modes=(self.mode,),
            num_traces=self.num_traces,
            sampling=SamplingConfig(max_new_tokens=self.think_budget, temperature=self.temperature),
        )
        if self.metric not in (known := [f"{m}_at_{k}" for m in ("recall", "ndcg") for k in evaluation.cutoffs]):
            raise ConfigError(f"selection.metric {self.metric!r} is not known; use one of {', '.join(known)}.")
        return evaluation


def load_start_model(model: str, training: TrainingConfig) -> ModelFolder:
    """The folder a run starts from, in the type and with the attention it trains with."""
    return load_model_folder(model, dtype=training.weights_dtype, attn_implementation=training.attn_implementation)


class EncodedMixture(Dataset):
    """Encoded corpora seen through a mixture's order.

    Item `i` is `{"input_ids": [...], "loss_mask": [...]}`.
    """

    def __init__(self, encoded: Mapping[str, EncodedRows], order: MixtureOrder):
        self.encoded, self.order = encoded, order

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each item, int64 `[n]`."""
        lengths = np.zeros(len(self.order), dtype=np.int64)
        for position, name in enumerate(self.order.names):
            own = self.order.corpus == position
            lengths[own] = self.encoded[name].lengths[self.order.row[own]]
        return lengths

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        corpus, row = self.order[index]
        return self.encoded[corpus][row]


_ITEMIC_LOOKING = re.compile(r"<[a-z]+(?:_[a-z])?_[0-9]+>|<\|[a-z]+_(?:begin|end)\|>")
"""Tokens of the formats in the wild; a model that does not have them reads them as a string of letters."""


def refuse_foreign_tokens(rows: Sequence[Mapping[str, Any]], format: ItemicFormat, where: str, most: int = 500) -> None:
    """`DataError` where a corpus writes items in another format than the model's; its first rows are looked at."""
    known = set(format.tokens())
    for row in rows[:most]:
        texts = [row.get("text"), *(message.get("content") for message in row.get("messages") or ())]
        for text in texts:
            for token in _ITEMIC_LOOKING.findall(text) if isinstance(text, str) else ():
                if token not in known:
                    raise DataError(
                        f"{where}, row {row.get('id')!r} holds {token}, which is no token of the model's format "
                        f"{format.name!r} with codes a level {list(format.codes_per_level)}; build the corpus with the "
                        "model's catalog."
                    )


def load_mixture(
    data: DataConfig, tokenizer: Any, vocabulary: Any, training: TrainingConfig, num_processes: int
) -> EncodedMixture:
    """Reads, encodes and mixes the corpora; everything that can be wrong with them is said here.

    The order is final: the trainer goes through it as it stands.
    """
    wanted = {name: share for name, share in data.shares.items() if share}
    if not wanted:
        raise ConfigError("data.shares gives no corpus a share above 0; e.g. data.shares.persona=1.")
    if not 0 < data.passes < math.inf:
        raise ConfigError(f"data.passes must be above 0, got {data.passes}.")
    missing = sorted(set(wanted) - set(data.corpora))
    if missing:
        raise ConfigError(f"data.shares names corpora without a folder in data.corpora: {', '.join(missing)}.")
    paths = {name: Path(data.corpora[name]) / "rows.jsonl" for name in wanted}
    for name, path in paths.items():
        if not path.is_file():
            raise DataError(f"corpus {name!r}: {path} not found; build it with `python -m data_builders.build_...`.")
    encoded = {}
    for name, path in paths.items():
        rows = read_jsonl(path, f"corpus {name!r}")
        refuse_foreign_tokens(rows, vocabulary.format, f"corpus {name!r} ({path})")
        try:
            encoded[name] = encode_rows(rows, tokenizer, vocabulary, data.max_length)
        except DataError as error:
            raise DataError(f"corpus {name!r} ({path}): {error}") from error
    reference = max(wanted, key=lambda name: wanted[name])
    total = max(1, round(data.passes * len(encoded[reference]) * sum(wanted.values()) / wanted[reference]))
    mixture = EncodedMixture(encoded, mix(encoded, wanted, total, training.seed))
    if training.group_by_length:
        step = training.per_device_train_batch_size * training.gradient_accumulation_steps * num_processes
        mixture.order = group_by_length(mixture.order, mixture.lengths, step, training.seed)
    return mixture


def build_validation(
    selection: SelectionConfig, folder: ModelFolder, seed: int
) -> Callable[[Any], dict[str, float]] | None:
    """A function model -> item-level metrics on validation users; None where no data is named.

    In mode `think` it also tells `trace_tokens`, their mean number, and `cut_traces`, the share that met the budget.
    Data, catalog and prompts are checked here, before training.
    """
    if selection.data is None:
        return None
    catalog = require_catalog(folder)
    timelines = build_timelines(load_dataset(selection.data).interactions, catalog.index)
    split = split_leave_one_out(timelines)
    evaluation = selection.evaluation(seed)
    recommender = Recommender(
        folder.vocabulary,
        catalog,
        build_catalog_trie(catalog, folder.vocabulary),
        RecommendationPrompt(folder.tokenizer, folder.vocabulary, style=selection.prompt, language=selection.language),
        selection.max_history,
        folder.model,
    )
    queries = build_problem(catalog, timelines, split, evaluation, selection.max_history).queries
    render_prompts(recommender, queries, evaluation.generated_modes, evaluation.generation)  # refuses too long ones

    def validate(model: Any) -> dict[str, float]:
        found = evaluate(replace(recommender, model=model), timelines, split, evaluation)
        metrics = dict(found["metrics"][SYSTEM_OF_MODE[selection.mode]]["item"])
        if traces := found["traces"]:
            metrics |= {
                "trace_tokens": traces["mean_tokens"],
                "cut_traces": traces["cut_at_the_budget"] / traces["traces"],
            }
        return metrics

    return validate


def corpus_files(data: DataConfig, mixture: EncodedMixture) -> list[Path]:
    """The files the mixture's rows came from."""
    return [Path(data.corpora[name]) / "rows.jsonl" for name in mixture.encoded]


def count_tokens(dataset: EncodedMixture) -> dict[str, int]:
    """Counts for the manifest: rows, tokens and supervised tokens a corpus, over the whole mixture."""
    counts: dict[str, int] = {}
    for name, rows in dataset.encoded.items():
        drawn = np.array([row for corpus, row in dataset.order if corpus == name], dtype=np.int64)
        running = np.concatenate([[0], np.cumsum(rows.loss_mask)])
        supervised = running[rows.offsets[1:]] - running[rows.offsets[:-1]]
        counts[f"{name}_rows"] = len(drawn)
        counts[f"{name}_tokens"] = int(rows.lengths[drawn].sum())
        counts[f"{name}_supervised_tokens"] = int(supervised[drawn].sum())
        counts |= {f"{name}_left_out_{reason}": count for reason, count in rows.rejected.items()}
    return counts
