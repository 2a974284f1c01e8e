"""What must be equal is equal: frozen rows, accumulation, resumed runs, several processes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from conftest import REPOSITORY, command, environment, launch, losses, overrides, run_in_process, weights

from onereason.errors import OnereasonError
from onereason.itemic.vocabulary import ItemicVocabulary


@pytest.fixture(scope="session")
def warm(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished one-process warm-up on the tied world, with a checkpoint after its last step."""
    out = tmp_path_factory.mktemp("warm") / "run"
    run_in_process("warmup", overrides("warmup", world, out, **{"training.save_steps": 4}))
    return out


@pytest.fixture(scope="session")
def aligned(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished one-process alignment."""
    out = tmp_path_factory.mktemp("aligned") / "run"
    run_in_process("align", overrides("align", world, out))
    return out


def check_only_new_rows_changed(before: Path, after: Path) -> None:
    """Bitwise: every parameter but the itemic rows of the embedding matrices is what it was; those rows moved."""
    vocabulary = ItemicVocabulary.load(before)
    first, end = vocabulary.first_token_id, vocabulary.end_token_id
    old, new = weights(before), weights(after)
    assert set(old) == set(new)
    for name in old:
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert torch.equal(old[name][:first], new[name][:first])
            assert torch.equal(old[name][end:], new[name][end:])
            assert not torch.equal(old[name][first:end], new[name][first:end])
        else:
            assert torch.equal(old[name], new[name]), name


def test_warmup_changes_nothing_but_the_new_rows(world: Path, warm: Path) -> None:
    check_only_new_rows_changed(world / "model", warm / "model")


def test_warmup_of_an_untied_model_trains_input_and_output_rows(untied_world: Path, tmp_path: Path) -> None:
    run_in_process("warmup", overrides("warmup", untied_world, tmp_path / "run"))
    assert "lm_head.weight" in weights(tmp_path / "run" / "model")
    check_only_new_rows_changed(untied_world / "model", tmp_path / "run" / "model")


def test_warmup_keeps_optimizer_state_for_the_new_rows_alone(world: Path, warm: Path) -> None:
    rows = ItemicVocabulary.load(world / "model").num_tokens
    state = torch.load(warm / "checkpoint-4" / "optimizer.pt", weights_only=True)["state"]
    # Tied embeddings: one matrix of new rows, hidden size 32, two moments and nothing else.
    assert [tuple(s["exp_avg"].shape) for s in state.values()] == [(rows, 32)]
    assert [tuple(s["exp_avg_sq"].shape) for s in state.values()] == [(rows, 32)]


def test_the_result_is_a_complete_model_folder(aligned: Path) -> None:
    from onereason.model.folder import load_model_folder

    folder = load_model_folder(aligned / "model")
    assert folder.catalog is not None and len(folder.catalog) == 24
    manifest = json.loads((aligned / "model" / "manifest.json").read_text())
    assert manifest["counts"]["steps"] == 4
    # 4 passes over the 12 sequential rows at share 0.5 lay out 96 rows: 28.8, 48, 19.2 by largest remainder.
    assert [manifest["counts"][f"{c}_rows"] for c in ("persona", "sequential", "caption")] == [29, 48, 19]


@pytest.mark.parametrize("recipe", ["warmup", "align"])
def test_accumulation_1x8_equals_2x4(recipe: str, world: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    whole = request.getfixturevalue("warm" if recipe == "warmup" else "aligned")
    changes = {"training.per_device_train_batch_size": 4, "training.gradient_accumulation_steps": 2}
    run_in_process(recipe, overrides(recipe, world, tmp_path / "run", **changes))
    assert losses(tmp_path / "run") == pytest.approx(losses(whole), rel=1e-4)
    expected, found = weights(whole / "model"), weights(tmp_path / "run" / "model")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)


def test_a_killed_run_goes_on_to_the_same_weights(world: Path, tmp_path: Path) -> None:
    changes = {"training.save_steps": 2, "training.group_by_length": True, "dropout.hidden": 0.1}
    straight = tmp_path / "straight"
    run_in_process("align", overrides("align", world, straight, **changes))

    killed = tmp_path / "killed"
    arguments = overrides("align", world, killed, **changes)
    # The same run, killed (no chance to clean up) as soon as its first checkpoint is whole.
    process = subprocess.Popen(
        command("align", arguments), cwd=REPOSITORY, env=environment(), stderr=subprocess.DEVNULL
    )
    checkpoint = killed / "checkpoint-2" / "trainer_state.json"
    deadline = time.monotonic() + 300
    while not checkpoint.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.is_file()
    shutil.rmtree(killed / "model", ignore_errors=True)  # the kill may come after a very fast finish
    shutil.rmtree(killed / "checkpoint-4", ignore_errors=True)
    run_in_process("align", arguments)

    assert losses(killed) == losses(straight)
    expected, found = weights(straight / "model"), weights(killed / "model")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_going_on_with_another_configuration_is_refused(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = overrides("align", world, out, **{"training.max_steps": 2, "training.save_steps": 1})
    run_in_process("align", arguments)
    with pytest.raises(OnereasonError, match="this run is finished"):
        run_in_process("align", arguments)
    shutil.rmtree(out / "model")
    with pytest.raises(OnereasonError, match=r"another configuration \(different: training\)"):
        run_in_process("align", [*arguments, "training.learning_rate=0.5"])


def test_starting_over_leaves_no_checkpoint_of_the_run_before(world: Path, tmp_path: Path) -> None:
    stale = tmp_path / "run" / "checkpoint-900"
    stale.mkdir(parents=True)
    (stale / "trainer_state.json").write_text("{}")
    run_in_process("warmup", [*overrides("warmup", world, tmp_path / "run"), "training.max_steps=1", "resume=false"])
    assert not stale.exists()


@pytest.mark.parametrize(
    "mistake",
    [
        "data.shares={}",
        "data.passes=0",
        "training.lr_scheduler_type=foo",
        "training.report_to=[foo]",
        "training.per_device_train_batch_size=0",
        "training.learning_rate=.nan",
        "training.adam_beta2=2",
        "training.save_steps=0",
        "training.seed=-1",
        "data.passes=.nan",
    ],
)
def test_a_mistake_is_refused_and_leaves_no_folder(mistake: str, world: Path, tmp_path: Path) -> None:
    with pytest.raises(OnereasonError):
        run_in_process("warmup", [*overrides("warmup", world, tmp_path / "run"), mistake])
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_cut_short_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    from recipes.run import latest_checkpoint

    for step, text in ((2, '{"global_step": 2}'), (4, '{"global_st')):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(text)
    (tmp_path / "checkpoint-6").mkdir()  # killed before the state was written
    assert latest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")


def test_lora_trains_adapters_and_rows_and_ends_as_a_plain_model(world: Path, tmp_path: Path) -> None:
    changes = {"tuning": "lora", "lora.rank": 4}
    run_in_process("align", overrides("align", world, tmp_path / "run", **changes))
    old, new = weights(world / "model"), weights(tmp_path / "run" / "model")
    assert set(old) == set(new)
    vocabulary = ItemicVocabulary.load(world / "model")
    first, end = vocabulary.first_token_id, vocabulary.end_token_id
    assert torch.equal(old["model.embed_tokens.weight"][:first], new["model.embed_tokens.weight"][:first])
    assert not torch.equal(old["model.embed_tokens.weight"][first:end], new["model.embed_tokens.weight"][first:end])
    assert not torch.equal(old["model.layers.0.mlp.up_proj.weight"], new["model.layers.0.mlp.up_proj.weight"])
    assert torch.equal(old["model.layers.0.input_layernorm.weight"], new["model.layers.0.input_layernorm.weight"])


def test_the_checkpoint_is_chosen_on_validation_users(world: Path, tmp_path: Path) -> None:
    changes = {
        "selection.data": world / "data",
        "selection.eval_steps": 1,
        "selection.prompt": "plain",
        "selection.num_beams": 12,
    }
    out = tmp_path / "run"
    run_in_process("align", overrides("align", world, out, **changes))
    history = json.loads((out / "log_history.json").read_text())
    found = [e["eval_recall_at_10"] for e in history if "eval_recall_at_10" in e]
    assert len(found) == 4
    manifest = json.loads((out / "model" / "manifest.json").read_text())
    assert manifest["validation"] == {"recall_at_10": max(found)}
    assert manifest["prompt"] == {"style": "plain", "max_history": 50, "language": "en"}
    # The finished model is the best checkpoint, not the last one.
    best = found.index(max(found)) + 1
    from safetensors.torch import load_file as load

    chosen = load(out / f"checkpoint-{best}" / "model.safetensors")
    final = weights(out / "model")
    assert all(torch.equal(final[name], chosen[name]) for name in final)


# -- several processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["warmup", "align"])
def test_two_ddp_processes_equal_one(recipe: str, world: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    whole = request.getfixturevalue("warm" if recipe == "warmup" else "aligned")
    out = tmp_path / "run"
    launch(recipe, overrides(recipe, world, out, **{"training.per_device_train_batch_size": 4}), processes=2)
    assert losses(out) == pytest.approx(losses(whole), rel=1e-4)
    expected, found = weights(whole / "model"), weights(out / "model")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("recipe", ["warmup", "align"])
@pytest.mark.parametrize("stage", [2, 3])
def test_two_zero_processes_equal_one(
    stage: int, recipe: str, world: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    pytest.importorskip("deepspeed", reason="needs the extra onereason[deepspeed]")
    whole = request.getfixturevalue("warm" if recipe == "warmup" else "aligned")
    out = tmp_path / "run"
    changes = {
        "training.per_device_train_batch_size": 4,
        "training.deepspeed": str(REPOSITORY / f"recipes/configs/deepspeed/zero{stage}.json"),
    }
    launch(recipe, overrides(recipe, world, out, **changes), processes=2, ACCELERATE_USE_DEEPSPEED="true")
    assert losses(out) == pytest.approx(losses(whole), rel=1e-4)
    if recipe == "warmup":
        check_only_new_rows_changed(world / "model", out / "model")
    expected, found = weights(whole / "model"), weights(out / "model")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)
