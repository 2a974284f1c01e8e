"""`onereason export`: what is merged, checked, described, pushed and refused."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from fake_hub import TOKEN, fake_hub

from onereason import __file__ as package
from onereason.cli import main
from onereason.decoding.recommender import load_recommender, read_prompt_settings
from onereason.errors import ConfigError
from onereason.io import hash_file, read_json
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format
from onereason.model.adapter import save_adapter
from onereason.model.extend import extend_model
from onereason.model.folder import load_model_folder, save_model_folder
from onereason.model.tiny import build_tiny_model, build_tiny_tokenizer
from onereason.model.vllm_check import SERVE_PYTHON, find_serve_python, require_vllm
from onereason.model.warmup import add_lora

REPOSITORY = Path(__file__).resolve().parents[2]
WORDS = ["red apple pie", "green tea set", "blue trail shoe", "warm wool hat"] * 3
PROMPT = {"style": "chat", "max_history": 9, "language": "en"}


def catalog() -> Catalog:
    codes = np.stack([np.arange(12) // 3, np.arange(12) % 4], 1)
    codes[5] = codes[0]
    names = [f"i{n}" for n in range(12)]
    return Catalog(load_format("onereason", 2, 4), names, codes, ["video"] * 6 + ["prod"] * 6, WORDS)


def write_base(folder: Path, tie: bool = True, seed: int = 0, words=WORDS) -> Path:
    items, tokenizer = catalog(), build_tiny_tokenizer(words, 280)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 32,
        "initializer_range": 0.3,
    }
    model = build_tiny_model(tokenizer, tie=tie, seed=seed, **sizes)
    model, tokenizer, vocabulary = extend_model(model, tokenizer, items.format)
    manifest = {"kind": "model", "inputs": {}, "config": {"base": "tiny"}, "counts": {}, "seed": seed}
    save_model_folder(model, tokenizer, vocabulary, items, folder, manifest)
    return folder


def write_adapter(base: Path, out: Path) -> torch.nn.Module:
    """An adapter of rank 3 and alpha 6 that is far from nothing; gives the model it stands in."""
    folder = load_model_folder(base)
    add_lora(folder.model, folder.vocabulary, rank=3, alpha=6.0)
    generator = torch.Generator().manual_seed(3)
    trained = {name: value for name, value in folder.model.named_parameters() if value.requires_grad}
    for value in trained.values():
        value.data += 0.1 * torch.randn(value.shape, generator=generator)
    config = {"model": str(base), "tuning": "lora", "lora": {"rank": 3}, "training": {"learning_rate": 0.0125}}
    manifest = {
        "kind": "sft",
        "inputs": {"model.safetensors": hash_file(base / "model.safetensors")},
        "config": config,
        "counts": {"steps": 1234},
        "seed": 7,
        "prompt": PROMPT,
    }
    save_adapter(trained, folder, 3, 6.0, 0.0, manifest, out)
    return folder.model.eval()


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def trained(request, tmp_path_factory):
    """Base, adapter, and logits of both together on some ids."""
    root = tmp_path_factory.mktemp("trained")
    base = write_base(root / "base", request.param)
    ids = torch.randint(0, 290, (3, 20), generator=torch.Generator().manual_seed(0))
    logits = write_adapter(base, root / "adapter")(ids).logits.detach()
    return base, root / "adapter", ids, logits


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def export(*arguments) -> int:
    return main(["export", *map(str, arguments)])


def refused(capsys, *arguments) -> str:
    capsys.readouterr()
    assert export(*arguments) == 2
    error = capsys.readouterr().err.strip()
    lines = [line for line in error.splitlines() if not line.startswith("[transformers]")]
    assert len(lines) == 1 and lines[0].startswith("onereason export: ")
    return lines[0]


def front_matter(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_an_adapter_becomes_a_plain_folder_with_the_same_logits(trained, tmp_path, capsys):
    base, adapter, ids, logits = trained
    assert export(adapter, "--out", tmp_path / "out") == 0
    assert "4 of 4 prompts with the same tokens" in capsys.readouterr().out
    merged = load_model_folder(tmp_path / "out")
    torch.testing.assert_close(merged.model(ids).logits, logits, rtol=0, atol=1e-5)
    assert (load_model_folder(base).model(ids).logits - logits).abs().max() > 0.1

    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    files, rows = load_file(adapter / "adapter_model.safetensors"), merged.vocabulary
    assert before.keys() == after.keys()
    for name, old in before.items():
        place = f"base_model.model.{name.removesuffix('.weight')}"
        expected = old.double()
        if f"{place}.lora_A.weight" in files:  # alpha / rank = 2
            expected += 2 * files[f"{place}.lora_B.weight"].double() @ files[f"{place}.lora_A.weight"].double()
        if f"{place}.token_adapter.trainable_tokens_delta" in files:
            trained_rows = files[f"{place}.token_adapter.trainable_tokens_delta"]
            assert torch.equal(after[name][rows.first_token_id : rows.end_token_id], trained_rows)
            expected[rows.first_token_id : rows.end_token_id] = trained_rows.double()
        torch.testing.assert_close(after[name].double(), expected, rtol=0, atol=1e-6)
    assert any(name.startswith("model.embed_tokens") for name in after)
    assert ("lm_head.weight" in after) != merged.model.config.tie_word_embeddings


def test_the_folder_is_complete_and_says_what_it_is(trained, tmp_path):
    base, adapter, _, _ = trained
    assert export(adapter, "--out", tmp_path / "out") == 0
    out, before, after = tmp_path / "out", load_model_folder(base), load_model_folder(tmp_path / "out")
    assert after.catalog.to_frame().equals(before.catalog.to_frame())
    assert (out / "itemic.json").read_bytes() == (base / "itemic.json").read_bytes()
    assert (out / "catalog.trie").read_bytes() == (base / "catalog.trie").read_bytes()
    assert after.tokenizer.get_vocab() == before.tokenizer.get_vocab()
    assert (out / "chat_template.jinja").read_bytes() == (base / "chat_template.jinja").read_bytes()
    assert after.model.generation_config.suppress_tokens == before.model.generation_config.suppress_tokens
    assert read_prompt_settings(out) == PROMPT
    manifest = read_json(out / "manifest.json")
    assert manifest["kind"] == "export" and manifest["config"]["adapter"] is True
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} - {"manifest.json"}
    assert manifest["files"].keys() == files >= {"README.md", "model.safetensors", "catalog.parquet", "itemic.json"}
    for name, digest in manifest["files"].items():
        assert digest == hashlib.sha256((out / name).read_bytes()).hexdigest()
    for file in (base / "model.safetensors", adapter / "adapter_model.safetensors", base / "catalog.parquet"):
        assert hash_file(file) in manifest["inputs"].values()
    assert manifest["checks"]["merged"]["equal"] == manifest["checks"]["reopened"]["equal"] == 4
    assert manifest["checks"]["merged"]["max_logit_difference"] < 1e-4
    assert [stage["manifest"]["kind"] for stage in manifest["lineage"]["stages"]] == ["model", "sft"]
    assert manifest["lineage"]["unknown"] == ""
    assert str(base.parent) not in (out / "manifest.json").read_text() + (out / "README.md").read_text()


def test_equal_inputs_give_equal_bytes_and_an_export_can_be_exported(trained, tmp_path):
    _, adapter, _, _ = trained
    assert (
        export(adapter, "--out", tmp_path / "one" / "m") == 0 and export(adapter, "--out", tmp_path / "two" / "m") == 0
    )
    ours, theirs = (read_json(tmp_path / name / "m" / "manifest.json") for name in ("one", "two"))
    assert ours == theirs
    assert export(tmp_path / "one" / "m", "--out", tmp_path / "again") == 0
    again = read_json(tmp_path / "again" / "manifest.json")
    assert again["files"]["model.safetensors"] == ours["files"]["model.safetensors"]
    assert again["lineage"] == ours["lineage"] and again["prompt"] == PROMPT
    assert "merged" not in again["checks"] and again["checks"]["reopened"]["equal"] == 4


def test_another_type_in_several_files(base, tmp_path, capsys):
    assert export(base, "--out", tmp_path / "out", "--dtype", "bfloat16", "--max-shard-size", "20KB") == 0
    shards = sorted((tmp_path / "out").glob("model-*.safetensors"))
    assert len(shards) > 2
    before = load_file(base / "model.safetensors")
    after = {name: value for shard in shards for name, value in load_file(shard).items()}
    assert before.keys() == after.keys()
    assert all(torch.equal(value.bfloat16(), after[name]) for name, value in before.items())
    checks = read_json(tmp_path / "out" / "manifest.json")["checks"]
    assert checks["rounded"]["max_logit_difference"] > 1e-4
    assert checks["reopened"]["max_logit_difference"] < 1e-6 and checks["reopened"]["equal"] == 4
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| type of the weights | bfloat16 |" in text
    parameters = sum(value.numel() for value in before.values())
    assert f"| parameters | {parameters:,} |" in text
    found = load_recommender(tmp_path / "out", device="cpu")
    assert found.vocabulary.format == load_format("onereason", 2, 4) and len(found.catalog) == 12


def test_a_folder_that_keeps_its_type_keeps_its_bytes(base, tmp_path):
    assert export(base, "--out", tmp_path / "narrow", "--dtype", "bfloat16") == 0
    assert export(tmp_path / "narrow", "--out", tmp_path / "again") == 0
    ours, theirs = (tmp_path / name / "model.safetensors" for name in ("narrow", "again"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert read_json(tmp_path / "again" / "manifest.json")["checks"].keys() == {"reopened"}  # nothing was rounded
    assert export(tmp_path / "narrow", "--out", tmp_path / "wide", "--dtype", "float32") == 0
    wide, narrow = load_file(tmp_path / "wide" / "model.safetensors"), load_file(ours)
    assert all(torch.equal(value, narrow[name].float()) for name, value in wide.items())


def test_the_base_may_have_moved(trained, tmp_path, capsys):
    base, adapter, ids, logits = trained
    shutil.copytree(base, tmp_path / "copy")
    shutil.copytree(adapter, tmp_path / "adapter")
    config = read_json(adapter / "adapter_config.json") | {"base_model_name_or_path": str(tmp_path / "gone")}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    assert "gone) is not there; name its model folder with --base" in refused(
        capsys, tmp_path / "adapter", "--out", tmp_path / "out"
    )
    assert export(tmp_path / "adapter", "--base", tmp_path / "copy", "--out", tmp_path / "out") == 0
    torch.testing.assert_close(load_model_folder(tmp_path / "out").model(ids).logits, logits, rtol=0, atol=1e-5)
    assert len(read_json(tmp_path / "out" / "manifest.json")["lineage"]["stages"]) == 2


def with_own_words(base: Path, folder: Path) -> Path:
    """A copy of a model folder that is asked in prompt sets of its own."""
    shutil.copytree(base, folder)
    shutil.copytree(Path(package).parent / "prompt_sets" / "zh", folder / "words")
    manifest = read_json(folder / "manifest.json") | {"prompt": PROMPT | {"language": "words"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_prompt_sets_of_ones_own_travel(base, tmp_path):
    own = with_own_words(base, tmp_path / "own")
    assert export(own, "--out", tmp_path / "out") == 0
    assert read_json(tmp_path / "out" / "manifest.json")["prompt"]["language"] == "words"
    assert (tmp_path / "out/words/trace.yaml").read_bytes() == (own / "words" / "trace.yaml").read_bytes()
    assert load_recommender(tmp_path / "out", device="cpu").prompt.language == str(tmp_path / "out" / "words")


def test_a_model_without_catalog_or_history(base, tmp_path):
    bare = Path(shutil.copytree(base, tmp_path / "bare"))
    for name in ("catalog.json", "catalog.parquet", "catalog.trie", "manifest.json"):
        (bare / name).unlink()
    assert export(bare, "--out", tmp_path / "out") == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert "which items the patterns stand for is not known here" in text
    assert "What came before this model is not known" in text
    assert "What data the model was trained on is not known." in text
    assert "how well the model recommends is not known" in text
    assert "Not known: none was given to the export." in text
    assert not {"license", "model-index"} & front_matter(tmp_path / "out").keys()


@pytest.fixture(scope="module")
def evaluated(world, tmp_path_factory) -> tuple[Path, Path]:
    """The world's model, and its results in two modes."""
    out = tmp_path_factory.mktemp("evaluated") / "results.json"
    modes = ["--modes", "no_think,think", "--think-budget", "4", "--num-beams", "8", "--k", "1,5"]
    arguments = ["--model", str(world.model), "--data", str(world.data), "--out", str(out)]
    assert main(["evaluate", *arguments, "--prompt", "chat", *modes]) == 0
    return world.model, out


def test_every_figure_of_the_card_is_the_results_own(evaluated, tmp_path):
    model, path = evaluated
    assert export(model, "--out", tmp_path / "out", "--results", path, "--license", "apache-2.0") == 0
    results, head = read_json(path), front_matter(tmp_path / "out")
    assert (head["license"], head["library_name"], head["pipeline_tag"]) == (
        "apache-2.0",
        "transformers",
        "text-generation",
    )
    (index,) = head["model-index"]
    names = {"model": "model", "model, thinking": "think"}
    found = {
        (names[group["dataset"]["config"]], metric["type"]): metric["value"]
        for group in index["results"]
        for metric in group["metrics"]
    }
    expected = {
        (system, metric): value
        for system in ("model", "think")
        for metric, value in results["metrics"][system]["item"].items()
    }
    assert found == expected and len(found) == 2 * len(results["metrics"]["model"]["item"])
    digest = results["manifest"]["inputs"]["interactions.parquet"]
    assert {group["dataset"]["revision"] for group in index["results"]} == {digest}
    assert {group["dataset"]["split"] for group in index["results"]} == {"test"}

    text = (tmp_path / "out" / "README.md").read_text()
    shown = ["recall_at_1", "recall_at_5", "ndcg_at_1", "ndcg_at_5", "mrr_at_5"]
    for title, system in (("model", "model"), ("model, thinking", "think"), ("markov", "markov")):
        cells = " | ".join(f"{results['metrics'][system]['item'][key]:.4f}" for key in shown)
        assert f"| {title} | {cells} |" in text
    difference = results["comparisons"][0]
    assert f"model, thinking minus model, Recall@5: {difference['difference']:+.4f}" in text
    assert f"{results['counts']['users_evaluated']} users (all users)" in text
    assert "Measured on these weights." in text
    catalog = Catalog.load(model)
    assert "items of its catalog" in text and f"| items | {len(catalog)} (" in text
    assert f"| items that share one | {catalog.collisions()['num_items_in_collision']} " in text


def test_stages_are_told_from_their_manifests(trained, tmp_path):
    _, adapter, _, _ = trained
    assert export(adapter, "--out", tmp_path / "out") == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| 2 | supervised fine-tuning | LoRA of rank 3, itemic rows | 1,234 | 0.0125 | 7 |  | not known |" in text
    assert "| started from | random weights (no pretrained model) |" in text
    block = text.split("<details><summary>2. supervised fine-tuning</summary>")[1].split("```")[1]
    recorded = read_json(adapter / "manifest.json")["config"]
    shown = yaml.safe_load(block.removeprefix("yaml"))
    assert shown == recorded | {"model": "/".join(Path(recorded["model"]).parts[-2:])}


def test_results_of_other_weights_are_refused(evaluated, base, tmp_path, capsys):
    model, path = evaluated
    assert "was measured on other weights (" in refused(capsys, base, "--out", tmp_path / "out", "--results", path)
    assert not (tmp_path / "out").exists() and not list(tmp_path.iterdir())
    assert export(model, "--out", tmp_path / "out", "--results", path, "--dtype", "bfloat16") == 0
    assert "Measured on the weights before their type was changed." in (tmp_path / "out" / "README.md").read_text()
    results = read_json(path)
    served = {name: digest for name, digest in results["manifest"]["inputs"].items() if "safetensors" not in name}
    results["manifest"]["inputs"] = served
    (tmp_path / "served.json").write_text(json.dumps(results))
    assert export(model, "--out", tmp_path / "three", "--results", tmp_path / "served.json") == 0
    assert "which weights answered is not known" in (tmp_path / "three" / "README.md").read_text()


def test_mistakes_are_one_line_and_leave_nothing(trained, base, tmp_path, capsys, monkeypatch):
    own_base, adapter, _, _ = trained
    out = tmp_path / "out"
    incomplete = Path(shutil.copytree(base, tmp_path / "incomplete"))
    (incomplete / "tokenizer.json").unlink()
    cut = Path(shutil.copytree(base, tmp_path / "cut"))
    with (cut / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    later = write_base(tmp_path / "later", seed=9)
    (tmp_path / "other.json").write_text('{"figures": 1}')
    (tmp_path / "file").write_text("")
    monkeypatch.delenv(SERVE_PYTHON, raising=False)
    monkeypatch.chdir(tmp_path)
    cases = [
        ([tmp_path / "nothing"], "does not exist"),
        ([tmp_path / "file"], "does not exist"),
        ([incomplete], "holds no tokenizer.json; the model folder is incomplete"),
        ([cut], "cannot be read as weights"),
        ([base, "--base", base], "--base goes with an adapter"),
        ([adapter, "--base", tmp_path / "nothing"], "is not there; name its model folder with --base"),
        ([adapter, "--base", incomplete], "holds no tokenizer.json"),
        ([adapter, "--base", later], "was trained on other weights than"),
        ([base, "--max-shard-size", "5"], "'5' is no size"),
        ([base, "--device", "tpu"], "device 'tpu'"),
        ([base, "--results", tmp_path / "other.json"], "holds no results of `onereason evaluate`"),
        ([base, "--results", tmp_path / "none.json"], "results not found"),
        ([base, "--private"], "--private goes with --push"),
        ([base, "--push", "a/b/c"], "is no name of a repository"),
        ([base, "--check-vllm"], "the python of the serving environment is not there"),
    ]
    before = {path.name for path in tmp_path.iterdir()}
    for arguments, message in cases:
        assert message in refused(capsys, *arguments, "--out", out), arguments
        assert {path.name for path in tmp_path.iterdir()} == before
    assert "exists and is not empty" in refused(capsys, base, "--out", later)
    assert "it is or holds" in refused(capsys, base, "--out", base, "--overwrite")
    assert "it is or holds" in refused(capsys, adapter, "--out", own_base, "--overwrite")
    assert "an existing file" in refused(capsys, base, "--out", tmp_path / "file")
    assert export(base, "--out", later, "--overwrite") == 0
    assert load_file(later / "model.safetensors").keys() == load_file(base / "model.safetensors").keys()


def serve_python(folder: Path, tokens: str) -> Path:
    """A program in the place of the serving environment's python: answers `tokens`, an expression of `request`."""
    program = folder / "serve-python"
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\nif sys.argv[2] == '-c': sys.exit(0)\n"
        f"request = json.load(open(sys.argv[3]))\n"
        f"json.dump({{'tokens': {tokens}, 'version': '9.9'}}, open(sys.argv[4], 'w'))\n"
    )
    program.chmod(0o755)
    return program


def test_a_runtime_that_writes_other_tokens_leaves_nothing(base, tmp_path, capsys, monkeypatch):
    wrong = "[[5] * request['num_tokens'] for _ in request['prompts']]"
    monkeypatch.setenv(SERVE_PYTHON, str(serve_python(tmp_path, wrong)))
    error = refused(capsys, base, "--out", tmp_path / "out", "--check-vllm")
    assert (
        "vLLM 9.9 reads another model: 4 of 4 prompts go on in another way than before, e.g. prompt 1 at token" in error
    )
    assert [path.name for path in tmp_path.iterdir()] == ["serve-python"]


def test_vllm_opens_the_folder_and_writes_the_same(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    try:
        require_vllm(find_serve_python())
    except ConfigError as error:
        pytest.skip(str(error))
    _, adapter, _, _ = trained
    assert export(adapter, "--out", tmp_path / "out", "--check-vllm", "--dtype", "bfloat16") == 0
    found = read_json(tmp_path / "out" / "manifest.json")["checks"]["vllm"]
    assert found["prompts"] == 4 and found["different"] == 0 and found["equal"] >= 3 and found["version"]


def run_alone(arguments: list, **environment: str) -> subprocess.CompletedProcess:
    """The command in a process of its own, which reads the hub's place from its environment."""
    keep = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-m", "onereason.cli", "export", *map(str, arguments)],
        env=keep | {"HF_HUB_DISABLE_XET": "1", "HF_HOME": "/nonexistent"} | environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def last_line(done: subprocess.CompletedProcess) -> str:
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("too_large", ["model.safetensors", "words/trace.yaml"])
def test_a_full_disk_is_one_clear_line_and_leaves_nothing(base, tmp_path, capsys, too_large):
    """A limit on file size stands for the full disk, met by the weights, or by a file that is written after them."""
    own = with_own_words(base, tmp_path / "own")
    with (own / "words" / "trace.yaml").open("a") as file:
        file.write("# padding\n" * 100_000)
    limit = (own / too_large).stat().st_size - 1
    assert (limit > (own / "model.safetensors").stat().st_size) == (too_large != "model.safetensors")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        error = refused(capsys, own, "--out", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "no space left while writing" in error and str(tmp_path / "out") in error
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_pushing_puts_the_folder_on_the_hub(base, tmp_path):
    with fake_hub() as hub:
        hub.files = {"model-00001-of-00002.safetensors": b"of an earlier export", "notes.txt": b"somebody's"}
        done = run_alone(
            [base, "--out", tmp_path / "out", "--push", "me/model", "--private"], HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN
        )
        assert done.returncode == 0, done.stderr
        assert f"pushed to {hub.url}/me/model" in done.stdout
        assert hub.repositories[0]["name"] == "model" and hub.repositories[0]["organization"] == "me"
        assert "private" in json.dumps(hub.repositories[0])
        written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        assert hub.files == written | {"notes.txt": b"somebody's"}
    assert front_matter(tmp_path / "out")["tags"] and "# me/model" in written["README.md"].decode()


def test_a_hub_that_refuses(base, tmp_path):
    arguments = [base, "--out", tmp_path / "out", "--push", "me/model"]
    with fake_hub() as hub:
        done = run_alone(arguments, HF_ENDPOINT=hub.url, HF_TOKEN="hf_wrong")
        assert done.returncode == 2 and "--push me/model: the hub does not let us in" in last_line(done)
        assert not (tmp_path / "out").exists()  # told before the work
        hub.full = True
        done = run_alone(arguments, HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN)
        assert done.returncode == 2 and "is written, but me/model did not take it (" in last_line(done)
        assert f"push it again with `hf upload me/model {tmp_path / 'out'}`" in last_line(done)
        assert load_model_folder(tmp_path / "out").catalog is not None
        url = hub.url
    done = run_alone([base, "--out", tmp_path / "two", "--push", "me/model"], HF_ENDPOINT=url, HF_TOKEN=TOKEN)
    assert done.returncode == 2 and "the hub does not let us in" in last_line(done)
