"""Model folders: complete, checked before the weights are read, and rows without a token never generated."""

from __future__ import annotations

import json
import shutil
import stat

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from onereason.errors import CatalogError, FormatError, ModelError, StorageError
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format
from onereason.model.extend import extend_model
from onereason.model.folder import (
    load_model_folder,
    load_tokenizer_folder,
    require_catalog,
    save_model_folder,
    unused_row_ids,
)
from onereason.model.warmup import split_new_rows


@pytest.fixture
def catalog(small_format):
    return Catalog(small_format, ["i", "j"], [[0, 1], [2, 3]], ["video", "prod"], ["red apple", "green tea"])


@pytest.fixture
def parts(tokenizer, build, small_format):
    return extend_model(build(), tokenizer, small_format)


@pytest.fixture
def folder(parts, catalog, tmp_path):
    save_model_folder(*parts, catalog, tmp_path / "model", {"kind": "test"})
    return tmp_path / "model"


@pytest.mark.parametrize("tie", [True, False])
def test_what_is_saved_is_loaded(tokenizer, build, small_format, catalog, tmp_path, tie):
    model, tokenizer, vocabulary = extend_model(build(tie), tokenizer, small_format)
    save_model_folder(model, tokenizer, vocabulary, catalog, tmp_path / "m", {"kind": "test"})
    files = {p.name for p in (tmp_path / "m").iterdir()}
    assert files >= {"config.json", "model.safetensors", "generation_config.json", "itemic.json", "manifest.json"}
    assert files >= {"tokenizer.json", "tokenizer_config.json", "catalog.json", "catalog.parquet", "catalog.trie"}
    assert len({stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "m").iterdir()}) == 1  # all readable alike
    opened = load_model_folder(tmp_path / "m")
    assert opened.vocabulary == vocabulary and require_catalog(opened).to_frame().equals(catalog.to_frame())
    assert opened.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert opened.tokenizer.chat_template == tokenizer.chat_template
    assert opened.model.generation_config.suppress_tokens == list(range(291, 320))
    assert not opened.model.training
    before, after = model.state_dict(), opened.model.state_dict()
    assert list(before) == list(after) and all(torch.equal(before[k], after[k]) for k in before)


def test_equal_inputs_give_equal_bytes(folder, tmp_path):
    opened = load_model_folder(folder)
    save_model_folder(
        opened.model, opened.tokenizer, opened.vocabulary, opened.catalog, tmp_path / "again", {"kind": "test"}
    )
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_dtype_and_tokenizer_alone(folder):
    assert load_model_folder(folder).model.dtype is torch.float32
    assert load_model_folder(folder, dtype="bfloat16").model.dtype is torch.bfloat16
    assert load_model_folder(folder, dtype=torch.float16).model.dtype is torch.float16
    with pytest.raises(ModelError, match="dtype 'int8' is not known; use float32, bfloat16, float16"):
        load_model_folder(folder, dtype="int8")
    (folder / "model.safetensors").unlink()
    opened = load_tokenizer_folder(folder)
    assert opened.model is None and opened.vocabulary.first_token_id == 280 and opened.catalog is not None


@pytest.mark.parametrize("mode", ["greedy", "sampling", "beam"])
def test_rows_without_a_token_are_never_generated(parts, mode):
    model, tokenizer, _ = parts
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())  # untie: boost output rows alone
    prompt = torch.tensor([tokenizer("a red apple")["input_ids"]])
    with torch.no_grad():
        hidden = model.model(prompt).last_hidden_state[0, -1]
        model.lm_head.weight[291:] = 50 * torch.stack([hidden * (1 if n % 2 else -1) for n in range(29)])
    options = {
        "greedy": {"do_sample": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0},
        "sampling": {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "num_return_sequences": 20},
        "beam": {"do_sample": False, "num_beams": 4, "temperature": 1.0, "top_k": 50, "top_p": 1.0},
    }[mode]
    torch.manual_seed(0)
    new = model.generate(prompt, max_new_tokens=12, **options)[:, prompt.shape[1] :]
    assert (new < 291).all()
    boosted = model.generate(prompt, max_new_tokens=12, suppress_tokens=[], **options)[:, prompt.shape[1] :]
    assert (boosted >= 291).any()  # without the list they do come out: the boost is real


def test_unused_rows_include_holes(tokenizer):
    assert unused_row_ids(284, tokenizer) == [280, 281, 282, 283]
    assert unused_row_ids(280, tokenizer) == []


def test_a_folder_without_catalog(parts, tmp_path):
    save_model_folder(*parts, None, tmp_path / "m", {})
    opened = load_model_folder(tmp_path / "m")
    assert opened.catalog is None
    with pytest.raises(CatalogError, match="m holds no catalog"):
        require_catalog(opened)


def _edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_weights_of_another_shape_are_refused_in_one_line(folder, tmp_path, capfd):
    for name, change, message in (
        (
            "deeper",
            {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3},
            "11 missing keys, e.g. model.layers.2",
        ),
        (
            "flatter",
            {"num_hidden_layers": 1, "layer_types": ["full_attention"]},
            "11 unexpected keys, e.g. model.layers.1",
        ),
        ("wider", {"intermediate_size": 7}, "mismatched|cannot be loaded"),
    ):
        path = tmp_path / name
        shutil.copytree(folder, path)
        _edit(path / "config.json", **change)
        with pytest.raises(ModelError, match=message) as refused:
            load_model_folder(path)
        assert "\n" not in str(refused.value)
    assert "MISSING" not in capfd.readouterr().err


def test_damage_is_named_before_the_weights_are_read(folder, tmp_path):
    (folder / "model.safetensors").write_bytes(b"not weights")  # any of these must be found without opening it
    with pytest.raises(ModelError, match=r"model.safetensors cannot be read as weights"):
        load_model_folder(folder)

    def damaged(name):
        shutil.copytree(folder, tmp_path / name)
        return tmp_path / name

    with pytest.raises(ModelError, match="nowhere does not exist; make one with `onereason extend`"):
        load_model_folder(tmp_path / "nowhere")
    for name, message in (
        ("itemic.json", "holds no itemic.json: it is not an extended model folder"),
        ("config.json", "holds no config.json; the model folder is incomplete"),
        ("tokenizer.json", "holds no tokenizer.json; the model folder is incomplete"),
        ("model.safetensors", "holds no model.safetensors; the model folder is incomplete"),
    ):
        path = damaged(f"no_{name}")
        (path / name).unlink()
        with pytest.raises(ModelError, match=message):
            load_model_folder(path)
    path = damaged("no_table")
    (path / "catalog.parquet").unlink()
    with pytest.raises(CatalogError, match="holds no catalog"):
        load_model_folder(path)
    path = damaged("few_rows")
    _edit(path / "config.json", vocab_size=288)
    with pytest.raises(ModelError, match="the model has 288 embedding rows, format 'small' needs ids up to 290"):
        load_model_folder(path)
    path = damaged("no_rows")
    _edit(path / "config.json", vocab_size=None)
    with pytest.raises(ModelError, match="vocab_size should be a number, is None"):
        load_model_folder(path)
    path = damaged("shifted")
    _edit(path / "itemic.json", first_token_id=279)
    with pytest.raises(ModelError, match="<s_a_0> should be id 279, the tokenizer has 280"):
        load_model_folder(path)
    path = damaged("bad_tokenizer")
    (path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="the tokenizer cannot be loaded"):
        load_model_folder(path)


def test_a_catalog_of_another_format_is_refused(parts, folder, tmp_path):
    other = Catalog(load_format("minionerec", 2, 4), ["i"], np.zeros((1, 2), int))
    with pytest.raises(FormatError, match="the catalog uses format 'minionerec'"):
        save_model_folder(*parts, other, tmp_path / "m", {})
    assert not (tmp_path / "m").exists()
    other.write_into(folder)
    with pytest.raises(FormatError, match="uses format 'minionerec' with codes a level"):
        load_model_folder(folder)


def test_nothing_partial_is_left(parts, catalog, folder, tmp_path):
    before = load_file(folder / "model.safetensors")
    with pytest.raises(StorageError, match="exists and is not empty"):
        save_model_folder(*parts, catalog, folder, {})
    with pytest.raises(TypeError):
        save_model_folder(*parts, catalog, folder, {"kind": object()}, overwrite=True)  # fails at the last file
    assert load_file(folder / "model.safetensors").keys() == before.keys()
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_split_model_is_not_saved(parts, tmp_path):
    model, tokenizer, vocabulary = parts
    split_new_rows(model, vocabulary)
    with pytest.raises(ModelError, match="call merge_new_rows or merge_lora before saving"):
        save_model_folder(model, tokenizer, vocabulary, None, tmp_path / "m", {})
    assert not (tmp_path / "m").exists()
