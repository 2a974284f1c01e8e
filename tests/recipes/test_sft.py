"""Supervised fine-tuning: what takes the loss, what the loss is, and runs that must be equal."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from conftest import REPOSITORY, command, environment, launch, losses, overrides, run_in_process, weights

from onereason.data.chat import encode_rows
from onereason.data.mixture import MixtureOrder
from onereason.errors import DataError
from onereason.io import read_jsonl
from onereason.itemic.format import load_format
from onereason.itemic.vocabulary import ItemicVocabulary
from onereason.model.folder import ModelFolder, load_model_folder
from recipes.common import EncodedMixture, TrainingConfig, refuse_foreign_tokens
from recipes.run import build_training_arguments
from recipes.sft_trainer import (
    RecommendationSFTTrainer,
    build_examples,
    build_sft_trainer,
    isolates_rows,
    make_sft_arguments,
)
from recipes.trainers import build_trainer


@pytest.fixture(scope="session")
def tuned(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished one-process run."""
    out = tmp_path_factory.mktemp("tuned") / "run"
    run_in_process("sft", overrides("sft", world, out))
    return out


@pytest.mark.parametrize("token", ["<a_1>", "<s_c_1>", "<|item_begin|>"])
def test_a_corpus_of_another_format_is_refused(token):
    format = load_format("onereason", 2, 8)
    good = chat("What is <|video_begin|><s_a_1><s_b_2>? <think> and <|im_start|> are the template's own", "a", "think")
    refuse_foreign_tokens([good], format, "corpus 'x'")
    with pytest.raises(DataError, match=rf"corpus 'x', row .* holds {re.escape(token)}, which is no token"):
        refuse_foreign_tokens([good, chat("q", f"It is {token}", "think")], format, "corpus 'x'")


def chat(question: str, answer: str, mode: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"{question} /{mode}"}, {"role": "assistant", "content": answer}]
    return {"id": question, "task": "r3", "loss": "assistant", "mode": mode, "messages": messages}


def text(content: str) -> dict[str, Any]:
    return {"id": content, "task": "balance", "loss": "none", "mode": "no_think", "text": content}


def corpus(folder: ModelFolder) -> dict[str, dict[str, Any]]:
    assert folder.catalog is not None
    items = [folder.catalog.render(i) for i in range(12)]
    thought = "<think>\nThe user likes tea.\n</think>\n\n"
    return {
        "think": chat(f"liked {items[0]}{items[1]} What next?", thought + items[2], "think"),
        "no_think": chat(f"liked {items[3]} What next?", items[4], "no_think"),
        "long": chat(f"liked {''.join(items[:10])} What next?", thought + items[11], "think"),
        "none": text("a red apple pie, a green tea set"),
    }


def mixture_of(folder: ModelFolder, rows: list[dict[str, Any]], max_length: int | None = None) -> EncodedMixture:
    encoded = encode_rows(rows, folder.tokenizer, folder.vocabulary, max_length)
    order = MixtureOrder(("rows",), np.zeros(len(encoded), np.int16), np.arange(len(encoded)))
    return EncodedMixture({"rows": encoded}, order)


def trainer_of(
    world: Path,
    out: Path,
    names: list[str],
    pack_length: int | None = None,
    max_length: int | None = None,
    **training: Any,
) -> RecommendationSFTTrainer:
    """The recipe's trainer over rows of `corpus`, in that order; one optimizer step of all of them."""
    config = TrainingConfig(**{"learning_rate": 1e-2, "warmup_steps": 0, "logging_steps": 1, "max_steps": 1} | training)
    folder = load_model_folder(world / "model", attn_implementation=config.attn_implementation)
    mixture = mixture_of(folder, [corpus(folder)[name] for name in names], max_length)
    arguments = build_training_arguments(config, out, None, make_sft_arguments(pack_length is not None))
    return build_sft_trainer(folder, build_examples(mixture, pack_length), arguments)


def train(trainer: RecommendationSFTTrainer) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of the only step, and the weights after it."""
    trainer.train()
    return trainer.state.log_history[0]["loss"], trainer.model.state_dict()


def assert_same_step(found: Any, expected: Any) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    for name, value in expected[1].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-5)


# -- what takes the loss ---------------------------------------------------------------------------------------------


def test_labels_are_the_assistants_span_and_nothing_else(world: Path, tmp_path: Path) -> None:
    folder = load_model_folder(world / "model")
    rows = corpus(folder)
    whole = mixture_of(folder, [rows["long"]]).lengths[0]
    # three patterns of 3 tokens are too many: the three oldest of ten items leave
    names = ["think", "no_think", "long", "none"]
    trainer = trainer_of(world, tmp_path, names, max_length=int(whole) - 9, per_device_train_batch_size=4)
    batch = next(iter(trainer.get_train_dataloader()))

    assert folder.catalog is not None
    item = folder.catalog.render
    trace = "<think>\nThe user likes tea.\n</think>\n\n"
    spans = [folder.tokenizer.decode(labels[labels != -100]) for labels in batch["labels"]]
    assert spans == [f"{trace}{item(2)}<|im_end|>", f"{item(4)}<|im_end|>", f"{trace}{item(11)}<|im_end|>", ""]
    texts = [
        folder.tokenizer.decode(ids[mask.bool()])
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    kept = "".join(item(i) for i in range(3, 10))
    assert texts[2] == (
        f"<|im_start|>user\nliked {kept} What next? /think<|im_end|>\n"
        f"<|im_start|>assistant\n{trace}{item(11)}<|im_end|>\n"
    )
    assert texts[1].endswith(f"<|im_start|>assistant\n<think>\n\n</think>\n\n{item(4)}<|im_end|>\n")
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()
    supervised = batch["labels"] != -100
    assert torch.equal(batch["labels"][supervised], batch["input_ids"][supervised])


def test_the_loss_is_the_cross_entropy_of_the_supervised_tokens(world: Path, tmp_path: Path) -> None:
    names = ["think", "no_think", "none"]
    trainer = trainer_of(world, tmp_path, names, per_device_train_batch_size=3)
    batches, count = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, trainer.args.device)
    trainer.model.train()
    found = trainer.compute_loss(trainer.model, dict(batches[0]), num_items_in_batch=count)

    folder = load_model_folder(world / "model")
    assert folder.catalog is not None
    answers = [f"<think>\nThe user likes tea.\n</think>\n\n{folder.catalog.render(2)}", folder.catalog.render(4)]
    openings = [
        f"<|im_start|>user\nliked {folder.catalog.render(0)}{folder.catalog.render(1)} What next? /think<|im_end|>\n"
        "<|im_start|>assistant\n",
        f"<|im_start|>user\nliked {folder.catalog.render(3)} What next? /no_think<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    ]
    total, tokens = 0.0, 0
    for opening, answer in zip(openings, answers, strict=True):  # one row at a time, without padding
        prompt, span = (
            folder.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (opening, answer + "<|im_end|>")
        )
        with torch.no_grad():
            logits = folder.model(torch.tensor([prompt + span])).logits[0].double()
        for place, token in enumerate(span, len(prompt)):
            total -= float(logits[place - 1, token] - torch.logsumexp(logits[place - 1], 0))
        tokens += len(span)
    assert count == tokens
    assert float(found.detach()) == pytest.approx(total / tokens, rel=1e-5)


def test_only_supervised_positions_meet_the_output_layer(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.trainer import utils

    original, met = utils._ChunkedLogProbFunction, []

    def apply(hidden: torch.Tensor, *args: Any) -> Any:
        met.append(len(hidden))
        return original.apply(hidden, *args)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", SimpleNamespace(apply=apply))
    trainer = trainer_of(world, tmp_path, ["think", "no_think", "none"], per_device_train_batch_size=3)
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.compute_loss(trainer.model, dict(batch))
    assert met == [int((batch["labels"] != -100).sum())]


def test_what_is_overridden_of_trl_is_there() -> None:
    """A version of TRL without these names would count tokens anew after a resumption, and tell of runs."""
    import inspect

    from trl import SFTTrainer
    from trl.trainer.base_trainer import _BaseTrainer

    assert callable(_BaseTrainer._send_telemetry) and callable(_BaseTrainer.create_model_card)
    assert "self._total_train_tokens +=" in inspect.getsource(SFTTrainer.compute_loss)


# -- steps that teach nothing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["align", "sft"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_run_without_any_supervised_token_changes_nothing(
    recipe: str, accumulation: int, world: Path, tmp_path: Path
) -> None:
    shares = {f"data.shares.{name}": 0.0 for name in ("persona", "sequential", "caption", "decision")}
    changes = {"training.per_device_train_batch_size": 4, "training.gradient_accumulation_steps": accumulation}
    changes |= shares | {"data.corpora.balance": world / "balance", "data.shares.balance": 1.0, "training.max_steps": 2}
    run_in_process(recipe, overrides(recipe, world, tmp_path / "run", **changes))
    assert losses(tmp_path / "run") == [0.0, 0.0]
    before, after = weights(world / "model"), weights(tmp_path / "run" / "model")
    assert all(torch.equal(before[name], after[name]) for name in before)  # NaN would equal nothing


@pytest.mark.parametrize("recipe", ["align", "sft"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_loss_of_no_token_is_zero_and_so_is_its_gradient(
    recipe: str, accumulation: int, world: Path, tmp_path: Path
) -> None:
    config = TrainingConfig(per_device_train_batch_size=2, gradient_accumulation_steps=accumulation)
    folder = load_model_folder(world / "model")
    mixture = mixture_of(folder, [corpus(folder)["none"]] * 4)
    trainer: Any
    if recipe == "align":
        arguments = build_training_arguments(config, tmp_path)
        trainer = build_trainer(folder.model, mixture, arguments, folder.tokenizer.pad_token_id)
    else:
        arguments = build_training_arguments(config, tmp_path, None, make_sft_arguments(False))
        trainer = build_sft_trainer(folder, build_examples(mixture), arguments)
    batches, count = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), accumulation, trainer.args.device)
    # logs would not tell: transformers writes a loss of NaN as 0
    assert [float(trainer.training_step(folder.model, batch, count)) for batch in batches] == [0.0] * accumulation
    gradients = [p.grad for p in folder.model.parameters()]
    assert all(g is not None and torch.equal(g, torch.zeros_like(g)) for g in gradients)


def test_a_micro_step_that_teaches_nothing_leaves_the_others_their_weight(world: Path, tmp_path: Path) -> None:
    names = ["none", "none", "think", "no_think"]
    whole = train(trainer_of(world, tmp_path / "whole", names, per_device_train_batch_size=4))
    halves = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    assert_same_step(train(trainer_of(world, tmp_path / "halves", names, **halves)), whole)
    alone = train(trainer_of(world, tmp_path / "alone", names[2:], per_device_train_batch_size=2))
    assert_same_step(alone, whole)  # text without loss changes nothing


# -- runs that must be equal -----------------------------------------------------------------------------------------


def assert_same_run(found: Path, expected: Path) -> None:
    assert losses(found) == pytest.approx(losses(expected), rel=1e-4)
    wanted, got = weights(expected / "model"), weights(found / "model")
    for name in wanted:
        torch.testing.assert_close(got[name], wanted[name], rtol=1e-4, atol=1e-4)


def test_the_loss_in_tiles_trains_as_whole_logits_do(world: Path, tuned: Path, tmp_path: Path) -> None:
    run_in_process("align", overrides("sft", world, tmp_path / "run"))  # transformers' own trainer
    assert_same_run(tuned, tmp_path / "run")


def test_accumulation_1x8_equals_2x4(world: Path, tuned: Path, tmp_path: Path) -> None:
    changes = {"training.per_device_train_batch_size": 4, "training.gradient_accumulation_steps": 2}
    run_in_process("sft", overrides("sft", world, tmp_path / "run", **changes))
    assert_same_run(tmp_path / "run", tuned)


@pytest.mark.parametrize("packing", [False, True])
def test_a_resumed_run_equals_an_uninterrupted_one(packing: bool, world: Path, tmp_path: Path) -> None:
    changes = {"training.save_steps": 2, "training.group_by_length": True, "dropout.hidden": 0.1, "packing": packing}
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    changes |= {"training.per_device_train_batch_size": 2} if packing else {}
    run_in_process("sft", overrides("sft", world, straight, **changes))
    arguments = overrides("sft", world, resumed, **changes)
    run_in_process("sft", arguments)
    shutil.rmtree(resumed / "model")
    shutil.rmtree(resumed / "checkpoint-4")
    run_in_process("sft", arguments)  # goes on from step 2

    histories = [json.loads((out / "log_history.json").read_text())[:4] for out in (straight, resumed)]
    assert histories[0] == histories[1]  # loss, entropy, tokens seen, ...
    assert [entry["step"] for entry in histories[1]] == [1, 2, 3, 4]
    expected, found = weights(straight / "model"), weights(resumed / "model")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_equals_unpacked(attention: str, world: Path, tmp_path: Path) -> None:
    names = ["think", "no_think", "none", "long", "think", "no_think"]
    settings = {"attn_implementation": attention, "learning_rate": 1e-2}
    rows = train(trainer_of(world, tmp_path / "rows", names, per_device_train_batch_size=6, **settings))
    folder = load_model_folder(world / "model")
    examples = build_examples(mixture_of(folder, [corpus(folder)[name] for name in names]), 130)
    lengths = [example["seq_lengths"] for example in examples]
    assert sum(map(len, lengths)) == 6 and len(lengths) < 6 and max(map(len, lengths)) > 1
    packed = trainer_of(
        world, tmp_path / "packs", names, pack_length=130, per_device_train_batch_size=len(lengths), **settings
    )
    assert_same_step(train(packed), rows)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_rows_of_a_pack_do_not_see_each_other(attention: str, world: Path, tmp_path: Path) -> None:
    names = ["think", "no_think", "long"]
    trainer = trainer_of(world, tmp_path, names, 1000, attn_implementation=attention, per_device_train_batch_size=1)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    assert batch["input_ids"].shape[0] == 1
    borders = batch["cu_seq_lens_q"].tolist()
    assert len(borders) == 4
    model = trainer.model.eval()
    with torch.no_grad():
        packed = model(batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[0]
        mixed = model(batch["input_ids"], use_cache=False).logits[0]
        for start, end in pairwise(borders):
            alone = model(batch["input_ids"][:, start:end]).logits[0]
            torch.testing.assert_close(packed[start:end], alone, rtol=1e-5, atol=1e-5)
            if start:  # without borders it is another computation
                assert (mixed[start:end] - alone).abs().max() > 1e-3


def test_attention_that_would_mix_packed_rows_is_told_apart() -> None:
    known = {"sdpa": True, "eager": True, "flash_attention_2": True, "flex_attention": False, "paged|sdpa": False}
    assert {name: isolates_rows(name) for name in known} == known


def test_two_ddp_processes_equal_one(world: Path, tuned: Path, tmp_path: Path) -> None:
    changes = {"training.per_device_train_batch_size": 4}
    launch("sft", overrides("sft", world, tmp_path / "run", **changes), processes=2)
    assert_same_run(tmp_path / "run", tuned)


def test_two_zero3_processes_equal_one(world: Path, tuned: Path, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed", reason="needs the extra onereason[deepspeed]")
    changes = {
        "training.per_device_train_batch_size": 4,
        "training.deepspeed": str(REPOSITORY / "recipes/configs/deepspeed/zero3.json"),
    }
    arguments = overrides("sft", world, tmp_path / "run", **changes)
    launch("sft", arguments, processes=2, ACCELERATE_USE_DEEPSPEED="true")
    assert_same_run(tmp_path / "run", tuned)


# -- the run and its folder ------------------------------------------------------------------------------------------


def test_the_result_is_a_complete_model_folder(tuned: Path) -> None:
    folder = load_model_folder(tuned / "model")
    assert folder.catalog is not None and len(folder.catalog) == 24
    manifest = json.loads((tuned / "model" / "manifest.json").read_text())
    assert manifest["kind"] == "sft" and manifest["counts"]["steps"] == 4
    assert manifest["counts"]["balance_rows"] > 0 and manifest["counts"]["balance_supervised_tokens"] == 0
    assert sorted(p.name for p in tuned.iterdir()) == ["checkpoint-4", "config.json", "log_history.json", "model"]


@pytest.mark.parametrize("tied", [True, False])
def test_lora_trains_adapters_and_rows_and_ends_as_a_plain_model(
    tied: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    world = request.getfixturevalue("world" if tied else "untied_world")
    changes = {"tuning": "lora", "lora.rank": 4}
    run_in_process("sft", overrides("sft", world, tmp_path / "run", **changes))
    old, new = weights(world / "model"), weights(tmp_path / "run" / "model")
    vocabulary = ItemicVocabulary.load(world / "model")
    first, end = vocabulary.first_token_id, vocabulary.end_token_id
    assert set(old) == set(new)
    for name in ("model.embed_tokens.weight",) if tied else ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(old[name][:first], new[name][:first])
        assert not torch.equal(old[name][first:end], new[name][first:end])
    assert not torch.equal(old["model.layers.0.mlp.up_proj.weight"], new["model.layers.0.mlp.up_proj.weight"])
    assert torch.equal(old["model.norm.weight"], new["model.norm.weight"])
    # the same run with whole logits, through transformers' own trainer
    run_in_process("align", overrides("sft", world, tmp_path / "align", **changes))
    assert_same_run(tmp_path / "run", tmp_path / "align")


def test_the_checkpoint_is_chosen_by_recall_after_a_trace(world: Path, tmp_path: Path) -> None:
    from onereason.data.schema import load_dataset
    from onereason.data.timelines import build_timelines, split_leave_one_out
    from onereason.decoding.recommender import load_recommender
    from onereason.decoding.think import SamplingConfig
    from onereason.evaluation.runner import EvaluationConfig, evaluate

    out = tmp_path / "run"
    selection = {"data": world / "data", "eval_steps": 2, "mode": "think", "num_traces": 2, "think_budget": 6}
    changes = {f"selection.{key}": value for key, value in selection.items()} | {"training.logging_steps": 3}
    run_in_process("sft", overrides("sft", world, out, **changes))
    history = json.loads((out / "log_history.json").read_text())
    found = [entry for entry in history if "eval_recall_at_10" in entry]
    assert [entry["step"] for entry in found] == [2, 4]
    assert all(0 < entry["eval_trace_tokens"] <= 6 and 0 <= entry["eval_cut_traces"] <= 1 for entry in found)
    assert not any("entropy" in key for entry in found for key in entry)
    assert all("entropy" in entry for entry in history if "loss" in entry)

    recommender = load_recommender(out / "model", device="cpu")
    split = split_leave_one_out(
        timelines := build_timelines(load_dataset(world / "data").interactions, recommender.catalog.index)
    )
    config = EvaluationConfig(
        split="validation", modes=("think",), num_traces=2, sampling=SamplingConfig(6), max_users=2000
    )
    again = evaluate(recommender, timelines, split, config)
    assert again is not None
    recall = again["metrics"]["think"]["item"]["recall_at_10"]
    assert recall == max(entry["eval_recall_at_10"] for entry in found)
    manifest = json.loads((out / "model" / "manifest.json").read_text())
    assert manifest["validation"] == {"recall_at_10": recall}
    assert manifest["prompt"] == {"style": "chat", "max_history": 50, "language": "en"}


# -- mistakes --------------------------------------------------------------------------------------------------------

MISTAKES = {
    "selection.mode=think selection.prompt=plain": "selection.mode think needs selection.prompt chat, got 'plain'",
    "selection.data=x selection.mode=think selection.think_budget=0": "thinking budget must be at least 1 token, got 0",
    "selection.data=x selection.metric=accuracy": "selection.metric 'accuracy' is not known",
    "packing=true training.attn_implementation=flex_attention": "sdpa, eager or flash attention, got flex_attention",
    "training.label_smoothing_factor=0.1": "training.label_smoothing_factor must be 0 in recipes.sft",
    "tuning=lora training.fsdp=full_shard": "tuning=lora runs under one process or DDP",
    "training.per_device_train_batch_size=0": "per_device_train_batch_size must be at least 1, got 0",
    "training.packing=true": "unknown key training.packing",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_before_the_model_loads(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from recipes.run import parse_command_line
    from recipes.sft import SftConfig, run

    arguments = ["model=no/such/folder", f"out={tmp_path / 'run'}", *mistake.split()]
    monkeypatch.setattr(sys, "argv", ["recipes/sft.py", *arguments])
    assert parse_command_line(SftConfig, run, "doc") == 2
    said = capsys.readouterr().err
    assert MISTAKES[mistake] in said and said.startswith("sft: ") and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_command_refuses_a_bad_row_in_one_line(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "decision", tmp_path / "decision")
    rows = read_jsonl(tmp_path / "decision" / "rows.jsonl", "rows")
    rows[3]["task"] = "R3!"
    (tmp_path / "decision" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = overrides("sft", world, tmp_path / "run", **{"data.corpora.decision": tmp_path / "decision"})
    done = subprocess.run(
        command("sft", arguments), cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("sft: corpus 'decision'") and f"row {rows[3]['id']!r}: task is 'R3!'" in last
    assert not (tmp_path / "run").exists()
