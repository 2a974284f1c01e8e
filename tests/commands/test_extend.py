"""`onereason extend` as a user runs it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from transformers import AutoTokenizer

from onereason.cli import main
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format
from onereason.model.folder import load_model_folder
from onereason.model.tiny import build_tiny_model, build_tiny_tokenizer

SIZES = ["--base-config", "hidden_size=16", "num_hidden_layers=1", "num_attention_heads=2"]
CAPTIONS = ["red apple pie", "green tea set", "blue trail shoe", "warm wool hat", "quiet desk fan", "garden lamp"]


@pytest.fixture(scope="module")
def catalog_dir(tmp_path_factory):
    """Six items of format onereason 2 x 4: 8 codes + 8 markers = 16 tokens."""
    folder = tmp_path_factory.mktemp("catalogs") / "catalog"
    codes = [[n % 4, n % 3] for n in range(6)]
    Catalog(load_format("onereason", 2, 4), [f"i{n}" for n in range(6)], codes, ["video"] * 6, CAPTIONS).save(folder)
    return folder


@pytest.fixture(scope="module")
def extended_dir(tmp_path_factory, catalog_dir):
    out = tmp_path_factory.mktemp("models") / "model"
    assert extend("--base", "tiny", "--catalog", catalog_dir, "--init", "description", "--out", out, *SIZES) == 0
    return out


@pytest.fixture(scope="module")
def plain_dir(tmp_path_factory):
    """A base without itemic tokens, as a checkpoint from elsewhere: 300 tokens at most, 320 rows, bfloat16."""
    folder = tmp_path_factory.mktemp("models") / "plain"
    tokenizer = build_tiny_tokenizer(CAPTIONS * 3, 300)
    model = build_tiny_model(tokenizer, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, tie=False)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def extend(*arguments) -> int:
    return main(["extend", *map(str, arguments)])


def refused(capsys, *arguments) -> str:
    """The one line of a refusal; its exit code is 2."""
    capsys.readouterr()
    assert extend(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("onereason extend: ") and "\n" not in error
    return error


def snapshot(folder) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_tiny_base_from_a_catalog(extended_dir, catalog_dir):
    folder = load_model_folder(extended_dir)
    assert folder.vocabulary.format == load_format("onereason", 2, 4)  # taken from the catalog
    assert folder.catalog.item_ids == Catalog.load(catalog_dir).item_ids
    assert folder.model.config.hidden_size == 16 and folder.model.config.tie_word_embeddings
    first = folder.vocabulary.first_token_id
    assert folder.tokenizer.convert_tokens_to_ids("<|ad_end|>") == first + 15
    assert folder.tokenizer.tokenize("Which video comes next?", add_special_tokens=False)[0] == "Which"
    manifest = json.loads((extended_dir / "manifest.json").read_text())
    rows = folder.model.config.vocab_size
    assert manifest["counts"] | {"parameters": 0} == {
        "tokens_before": first,
        "tokens_after": first + 16,
        "rows_before": -(-first // 64) * 64,
        "rows_after": rows,
        "rows_without_token": rows - first - 16,
        "parameters": 0,
    }
    assert manifest["config"]["init"] == "description" and set(manifest["inputs"]) == {"catalog.parquet"}


def test_same_arguments_same_bytes(extended_dir, catalog_dir, tmp_path):
    arguments = ("--base", "tiny", "--catalog", catalog_dir, "--init", "description", *SIZES)
    assert extend(*arguments, "--out", tmp_path / "again") == 0
    assert snapshot(tmp_path / "again") == snapshot(extended_dir)
    assert extend(*arguments, "--seed", 1, "--out", tmp_path / "other") == 0
    assert snapshot(tmp_path / "other")["model.safetensors"] != snapshot(extended_dir)["model.safetensors"]


def test_twice_changes_nothing(extended_dir, catalog_dir, tmp_path, capsys):
    before = snapshot(extended_dir)
    assert (
        extend("--base", extended_dir, "--format", "onereason", "--levels", 2, "--codes", 4, "--out", extended_dir) == 0
    )
    assert "nothing to do" in capsys.readouterr().out
    assert extend("--base", extended_dir, "--catalog", catalog_dir, "--out", extended_dir) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert snapshot(extended_dir) == before
    assert extend("--base", extended_dir, "--init", "copy_default", "--out", tmp_path / "copy") == 0
    assert "weights and ids unchanged" in " ".join(capsys.readouterr().out.split())
    assert snapshot(tmp_path / "copy") == before


def test_a_new_catalog_replaces_the_old_one_and_keeps_the_weights(extended_dir, tmp_path, capsys):
    bigger = Catalog(load_format("onereason", 2, 4), ["x", "y"], [[0, 0], [3, 3]], ["ad", "prod"], ["new", "newer"])
    bigger.save(tmp_path / "catalog")
    error = refused(capsys, "--base", extended_dir, "--catalog", tmp_path / "catalog", "--out", extended_dir)
    assert "exists and is not empty" in error  # in place only on demand
    assert extend("--base", extended_dir, "--catalog", tmp_path / "catalog", "--out", tmp_path / "m") == 0
    assert load_model_folder(tmp_path / "m").catalog.item_ids == ["x", "y"]
    assert snapshot(tmp_path / "m")["model.safetensors"] == snapshot(extended_dir)["model.safetensors"]


def test_another_format_on_top_is_refused(extended_dir, tmp_path, capsys):
    before = snapshot(extended_dir)
    error = refused(capsys, "--base", extended_dir, "--format", "openonerec", "--out", tmp_path / "m")
    assert "'onereason' with codes a level [4, 4]; format 'openonerec' with [8192, 8192, 8192] cannot be added" in error
    error = refused(capsys, "--base", extended_dir, "--format", "onereason", "--out", tmp_path / "m")
    assert "format 'onereason' with [8192, 8192, 8192] cannot be added on top" in error  # another shape
    assert not (tmp_path / "m").exists() and snapshot(extended_dir) == before


def test_a_checkpoint_keeps_its_type_and_its_untied_matrices(plain_dir, tmp_path):
    assert extend("--base", plain_dir, "--format", "minionerec", "--codes", 4, "--out", tmp_path / "m") == 0
    folder = load_model_folder(tmp_path / "m")
    model = folder.model
    assert model.dtype is torch.bfloat16 and folder.catalog is None
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    assert set(json.loads((tmp_path / "m" / "manifest.json").read_text())["inputs"]) == {"model.safetensors"}
    assert extend("--base", plain_dir, "--format", "minionerec", "--dtype", "float32", "--out", tmp_path / "f") == 0
    assert load_model_folder(tmp_path / "f").model.dtype is torch.float32


def test_tokens_without_itemic_json_are_adopted(extended_dir, plain_dir, tmp_path, capsys):
    public = tmp_path / "public"  # a public checkpoint has the tokens but none of this toolkit's files
    public.mkdir()
    for name in (
        "config.json",
        "model.safetensors",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ):
        (public / name).write_bytes((extended_dir / name).read_bytes())
    assert extend("--base", public, "--format", "onereason", "--levels", 2, "--codes", 4, "--out", tmp_path / "m") == 0
    assert "kept" in capsys.readouterr().out
    found, expected = load_model_folder(tmp_path / "m"), load_model_folder(extended_dir)
    assert found.vocabulary == expected.vocabulary
    assert all(torch.equal(v, expected.model.state_dict()[k]) for k, v in found.model.state_dict().items())
    error = refused(
        capsys, "--base", public, "--format", "onereason", "--levels", 3, "--codes", 4, "--out", tmp_path / "n"
    )
    assert "already has 16 of the 20 tokens of format 'onereason'" in error


def test_untied_tiny_with_a_given_tokenizer(plain_dir, tmp_path):
    arguments = ("--tokenizer", plain_dir, "--format", "minionerec", "--codes", 32, "--no-tie", "--pad-to-multiple", 8)
    assert extend("--base", "tiny", *arguments, "--out", tmp_path / "m", *SIZES) == 0
    folder = load_model_folder(tmp_path / "m")
    tokens = len(AutoTokenizer.from_pretrained(plain_dir)) + 96  # past the 320 rows of the base
    assert tokens > 320 and folder.model.config.vocab_size == -(-tokens // 8) * 8
    assert not folder.model.config.tie_word_embeddings


def test_the_published_ids_from_the_command(shared_dir, tmp_path):
    real = shared_dir / "data" / "qwen3_tokenizer"
    arguments = ("--base", "tiny", "--tokenizer", real, "--format", "onereason", "--out", tmp_path / "m")
    assert extend(*arguments, "--base-config", "hidden_size=8", "num_hidden_layers=1", "num_attention_heads=1") == 0
    folder = load_model_folder(tmp_path / "m")
    published = {
        "<s_a_0>": 151669,
        "<s_c_8191>": 176244,
        "<|video_begin|>": 176245,
        "<|video_end|>": 176246,
        "<|prod_begin|>": 176247,
        "<|prod_end|>": 176248,
        "<|living_begin|>": 176249,
        "<|living_end|>": 176250,
        "<|ad_begin|>": 176251,
        "<|ad_end|>": 176252,
    }
    assert {t: folder.tokenizer.convert_tokens_to_ids(t) for t in published} == published
    # 176,253 tokens, 2754 x 64 = 176,256 rows; the base had the 151,936 rows of a Qwen3 checkpoint
    assert folder.model.config.vocab_size == 176_256
    assert folder.model.generation_config.suppress_tokens == [176_253, 176_254, 176_255]
    assert json.loads((tmp_path / "m" / "manifest.json").read_text())["counts"]["rows_before"] == 151_936
    ids = folder.tokenizer("<|ad_begin|><s_a_8191><s_b_0><s_c_1>")["input_ids"]
    assert ids == [176251, 151669 + 8191, 151669 + 8192, 151669 + 2 * 8192 + 1]
    template = json.loads((real / "tokenizer_config.json").read_text())["chat_template"]
    assert folder.tokenizer.chat_template == template  # a real tokenizer keeps its own


def test_an_unreachable_hub_is_one_line(tmp_path, capsys, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens on the discard port
    error = refused(capsys, "--base", "Qwen/Nobody", "--format", "onereason", "--out", tmp_path / "m")
    assert "--base Qwen/Nobody is not a folder, and the hub at http://127.0.0.1:9 cannot be reached" in error


def test_refusals(extended_dir, plain_dir, catalog_dir, tmp_path, capsys):
    out = ("--out", tmp_path / "m")
    tiny = ("--base", "tiny", *out)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    for arguments, message in (
        (tiny, "--format is missing; name a preset or a YAML file, or pass --catalog"),
        ((*tiny, "--format", "onereasn"), "itemic format 'onereasn' is neither a preset"),
        ((*tiny, "--format", "onereason"), "--base tiny needs --tokenizer DIR, or --catalog DIR"),
        ((*tiny, "--catalog", tmp_path / "empty"), "holds no catalog (expected catalog.json and catalog.parquet)"),
        (
            (*tiny, "--catalog", catalog_dir, "--format", "onereason"),
            "with [4, 4]; leave --format, --levels and --codes out",
        ),
        ((*tiny, "--catalog", catalog_dir, "--codes", 9), "with codes a level [9, 9] is not the catalog's"),
        ((*tiny, "--catalog", catalog_dir, "--vocab-size", 100), "vocab_size must be at least 261"),
        (
            (*tiny, "--catalog", catalog_dir, "--base-config", "hidden=8"),
            "unknown key hidden; did you mean hidden_size?",
        ),
        (
            (*tiny, "--catalog", catalog_dir, "--base-config", "hidden_size=x"),
            "hidden_size: Input should be a valid integer",
        ),
        (
            (*tiny, "--format", "onereason", "--init", "description"),
            "--init description needs --catalog",
        ),
        ((*tiny, "--format", "onereason", "--pad-to-multiple", 0), "--pad-to-multiple must be at least 1, got 0"),
        ((*tiny, "--format", "onereason", "--tokenizer", tmp_path / "empty"), "no tokenizer.json there"),
        (("--base", tmp_path / "empty", "--format", "onereason", *out), "holds no config.json"),
        (("--base", tmp_path / "none", "--format", "onereason", *out), "no such folder; pass a model folder"),
        (("--base", plain_dir, "--format", "onereason", "--no-tie", *out), "--tie goes with --base tiny"),
        (("--base", plain_dir, "--format", "onereason", *SIZES, *out), "--base-config goes with --base tiny"),
        (
            ("--base", extended_dir, "--dtype", "bfloat16", *out),
            "keeps its weights (float32); leave out --dtype bfloat16",
        ),
        (("--base", plain_dir, "--format", "minionerec", "--out", tmp_path / "full"), "exists and is not empty"),
    ):
        assert message in refused(capsys, *arguments), arguments
        assert not (tmp_path / "m").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "full"]


def test_rows_from_item_vectors_keep_the_items_likeness(tmp_path, capsys):
    """`tokenize --save-vectors` then `extend --init vectors`: codes whose items are opposite get opposite rows."""
    format = load_format("minionerec", 1, 3)
    folder, out = tmp_path / "catalog", tmp_path / "model"
    Catalog(format, ["i", "j", "k"], [[0], [1], [2]], captions=["red pie", "red tea", "wool hat"]).save(folder)
    asked = ("--base", "tiny", "--catalog", folder, "--init", "vectors", "--out", out, *SIZES)
    assert "vectors.npz not found; make the catalog with `onereason tokenize --save-vectors`" in refused(capsys, *asked)
    vectors = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], np.float32)
    np.savez(folder / "vectors.npz", vectors=vectors[:2], item_ids=np.array(["i", "j"]))
    assert "lacks the vectors of 1 item(s), e.g. 'k'" in refused(capsys, *asked)
    assert not out.exists()
    np.savez(folder / "vectors.npz", vectors=vectors[[2, 0, 1]], item_ids=np.array(["k", "i", "j"]))
    assert extend(*asked) == 0
    loaded = load_model_folder(out)
    first = loaded.vocabulary.first_token_id
    weight = loaded.model.get_input_embeddings().weight.detach()
    codes = weight[first : first + 3] - weight[:first].mean(0)  # every old row has a token here, so this is their mean
    assert torch.nn.functional.cosine_similarity(codes[0], codes[1], dim=0) < -0.99
    assert codes[2].norm() < 0.01 * codes[0].norm()
    assert json.loads((out / "manifest.json").read_text())["config"]["init"] == "vectors"


@pytest.mark.parametrize("damage", ["gone", "cut", "empty"])
def test_an_extended_base_without_whole_weights_is_refused(extended_dir, tmp_path, capsys, damage):
    base = tmp_path / "base"
    shutil.copytree(extended_dir, base)
    weights = base / "model.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    if damage != "gone":
        weights.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    assert "model.safetensors" in refused(capsys, "--base", base, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change",
    ["rope_theta=0", "rope_theta=.nan", "max_position_embeddings=0", "attention_dropout=2", "initializer_range=-1"],
)
def test_base_configurations_that_make_no_model_are_refused(catalog_dir, tmp_path, capsys, change):
    asked = ("--base", "tiny", "--catalog", catalog_dir, "--out", tmp_path / "out", *SIZES)
    assert change.partition("=")[0] in refused(capsys, *asked, change)


@pytest.mark.parametrize("seed", ["-1", "99999999999999999999999"])
def test_a_seed_out_of_range_is_refused(catalog_dir, tmp_path, capsys, seed):
    asked = ("--base", "tiny", "--catalog", catalog_dir, "--out", tmp_path / "out", "--seed", seed)
    assert "--seed must lie in 0 .. 4294967295" in refused(capsys, *asked)
