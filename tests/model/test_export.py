"""What exporting does to a model, and how two models' greedy texts are compared."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

from onereason.errors import ConfigError, ModelError
from onereason.io import hash_file
from onereason.model.adapter import save_adapter
from onereason.model.export import (
    TIE,
    GreedyRun,
    check_shard_size,
    compare,
    load_source,
    open_source,
    require_equal,
    to_dtype,
    to_plain,
    write_greedily,
)
from onereason.model.extend import extend_model
from onereason.model.folder import count_parameters, load_model_folder, save_model_folder, unused_row_ids, weight_files
from onereason.model.warmup import add_lora

PROMPTS = [[5, 6, 7, 280, 281], [40], list(range(100, 130))]


@pytest.fixture
def folder(tokenizer, build, small_format, tmp_path):
    model, tokenizer, vocabulary = extend_model(build(), tokenizer, small_format)
    save_model_folder(model, tokenizer, vocabulary, None, tmp_path / "base", {"kind": "test"})
    return load_model_folder(tmp_path / "base")


def test_greedy_writing_is_what_generate_writes(folder):
    model, unused = folder.model.eval(), unused_row_ids(320, folder.tokenizer)
    assert len(unused) == 320 - 291
    run = write_greedily(model, PROMPTS, unused, 12)
    model.generation_config = GenerationConfig(suppress_tokens=unused, pad_token_id=0)
    for prompt, tokens, logits in zip(PROMPTS, run.tokens, run.logits, strict=True):
        found = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=12)[0, len(prompt) :]
        assert found.tolist() == tokens
        whole = model(torch.tensor([prompt + tokens[:-1]])).logits[0, len(prompt) - 1 :]
        torch.testing.assert_close(logits, whole, rtol=0, atol=1e-5)


def test_tokens_without_a_row_are_never_written_and_the_end_of_a_turn_is_no_end(folder):
    model, unused = folder.model.eval(), unused_row_ids(320, folder.tokenizer)
    free = write_greedily(model, PROMPTS, [], 4)
    banned = sorted({*unused, *(tokens[0] for tokens in free.tokens)})
    assert all(token not in banned for tokens in write_greedily(model, PROMPTS, banned, 4).tokens for token in tokens)
    only = [i for i in range(320) if i != folder.tokenizer.eos_token_id]
    assert write_greedily(model, [[5]], only, 3).tokens == [[folder.tokenizer.eos_token_id] * 3]


def run_of(tokens: list[list[int]], rows: list[list[list[float]]]) -> GreedyRun:
    return GreedyRun(tokens, [torch.tensor(row) for row in rows])


def test_runs_are_compared_up_to_where_they_part():
    """Four prompts of three tokens, four ids: the same; a tie; another choice; another choice at the last token."""
    near = TIE / 2
    rows = [[[0.0, 1.0, 0.0, 0.0]] * 3] * 4
    rows[1] = [[0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0 - near, 0.0], [0.0, 1.0, 0.0, 0.0]]
    expected = run_of([[1, 1, 1]] * 4, rows)
    theirs = [row.clone() for row in expected.logits]
    theirs[0][2, 3] += 0.25
    theirs[1][2, 3] += 9.0  # behind the place where the prompt parts: another context
    theirs[2][0, 0] -= 0.5
    found = compare(expected, [[1, 1, 1], [1, 2, 0], [3, 1, 1], [1, 1, 0]], theirs)
    assert (found.prompts, found.tokens, found.equal, found.ties, found.different) == (4, 3, 1, 1, 2)
    assert found.max_logit_difference == pytest.approx(0.5)
    assert found.first_difference == (2, 0, 1, 3)
    assert compare(expected, expected.tokens).max_logit_difference is None
    with pytest.raises(ModelError, match=r"expected \[3, 3, 3, 3\] tokens behind the prompts, found \[3, 3, 3, 2\]"):
        compare(expected, [[1] * 3, [1] * 3, [1] * 3, [1] * 2])


def test_other_tokens_are_refused_and_ties_are_not(folder):
    expected = run_of([[40, 41]], [[[0.0] * 40 + [1.0, 1.0 - TIE / 2], [0.0] * 41 + [1.0]]])
    assert compare(expected, [[41, 41]]).ties == 1
    require_equal(compare(expected, [[41, 41]]), "merging", folder.tokenizer)
    names = folder.tokenizer.convert_ids_to_tokens([41, 7])
    with pytest.raises(ModelError) as error:
        require_equal(compare(expected, [[40, 7]]), "merging", folder.tokenizer)
    assert "merging: 1 of 1 prompts go on in another way than before, e.g. prompt 1 at token 2" in str(error.value)
    assert f"{names[1]!r} in place of {names[0]!r}" in str(error.value)


def test_only_weights_change_their_type_and_none_leaves_its_range(folder):
    model = folder.model
    stored = {name: value.clone() for name, value in model.named_parameters()}
    buffers = {name: value.dtype for name, value in model.named_buffers()}
    assert to_dtype(model, torch.bfloat16).dtype == torch.bfloat16
    assert {name: value.dtype for name, value in model.named_buffers()} == buffers
    assert torch.float32 in buffers.values()
    assert all(torch.equal(value, stored[name].bfloat16()) for name, value in model.named_parameters())
    model.model.norm.weight.data[0] = 1e5
    with pytest.raises(ModelError, match=r"model\.norm\.weight leaves the range of float16; export as bfloat16"):
        to_dtype(model, torch.float16)


def test_sources_are_read_in_float32(folder, tmp_path):
    model = folder.model.to(torch.bfloat16)
    save_model_folder(model, folder.tokenizer, folder.vocabulary, None, tmp_path / "narrow", {})
    source = open_source(tmp_path / "narrow")
    loaded, stored = load_source(source)
    assert (loaded.dtype, stored, source.adapter) == (torch.float32, torch.bfloat16, False)
    assert to_plain(loaded, source) is loaded
    for name, value in loaded.named_parameters():
        assert torch.equal(value, dict(model.named_parameters())[name].float())

    wide = load_model_folder(tmp_path / "narrow", dtype="float32")
    add_lora(wide.model, wide.vocabulary, rank=2, alpha=2.0)
    trained = {name: value for name, value in wide.model.named_parameters() if value.requires_grad}
    for value in trained.values():
        value.data += 0.01
    hashes = {"model.safetensors": hash_file(tmp_path / "narrow" / "model.safetensors")}
    save_adapter(trained, wide, 2, 2.0, 0.0, {"inputs": hashes, "kind": "sft", "config": {}}, tmp_path / "adapter")
    source = open_source(tmp_path / "adapter")
    loaded, stored = load_source(source)
    assert source.adapter and source.folder.path == (tmp_path / "narrow").resolve() and stored == torch.bfloat16
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}


def test_what_is_no_source_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="--base goes with an adapter"):
        open_source(folder.path, tmp_path)
    with pytest.raises(ModelError, match="does not exist"):
        open_source(tmp_path / "nothing")
    (tmp_path / "run" / "model").mkdir(parents=True)
    with pytest.raises(ModelError, match=r"run is the folder of a run; name .*run/model\."):
        open_source(tmp_path / "run")
    (folder.path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds no model.safetensors; the model folder is incomplete"):
        open_source(folder.path)


def test_shards_are_one_model(folder, tmp_path):
    parts = (folder.model, folder.tokenizer, folder.vocabulary, None)
    save_model_folder(*parts, tmp_path / "shards", {}, max_shard_size="10KB")
    files = weight_files(tmp_path / "shards")
    assert len(files) > 2 and all(file.stat().st_mode & 0o044 for file in files)
    again = load_model_folder(tmp_path / "shards").model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in folder.model.state_dict().items())
    assert count_parameters(tmp_path / "shards") == folder.model.num_parameters() == count_parameters(folder.path)
    files[1].unlink()
    with pytest.raises(ModelError, match=f"holds no {files[1].name}"):
        weight_files(tmp_path / "shards")


@pytest.mark.parametrize(
    ("size", "expected"), [("5GB", "5GB"), (" 500mb ", "500MB"), ("1.5GB", "1.5GB"), ("100B", "100B")]
)
def test_sizes(size, expected):
    assert check_shard_size(size) == expected


@pytest.mark.parametrize("size", ["", "5", "GB", "0GB", "-1GB", "5 TiB", "five"])
def test_what_is_no_size(size):
    with pytest.raises(ConfigError, match="is no size; write a number and a unit"):
        check_shard_size(size)
