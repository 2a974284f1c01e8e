"""Adapters as folders: PEFT opens what we write, and we merge what PEFT writes, tied and untied."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from onereason.errors import FormatError, ModelError
from onereason.io import hash_file
from onereason.itemic.format import load_format
from onereason.model.adapter import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    AdapterSettings,
    find_base,
    is_adapter,
    load_adapter_weights,
    load_with_adapter,
    merge_adapter,
    read_adapter_settings,
    require_own_base,
    save_adapter,
)
from onereason.model.extend import extend_model, is_tied
from onereason.model.folder import load_model_folder, load_tokenizer_folder, save_model_folder
from onereason.model.tiny import build_tiny_model, build_tiny_tokenizer
from onereason.model.warmup import LORA_TARGETS, add_lora, merge_lora

IDS = torch.randint(0, 291, (2, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def base(request, tokenizer, build, small_format, tmp_path) -> Path:
    model, tokenizer, vocabulary = extend_model(build(request.param), tokenizer, small_format)
    save_model_folder(model, tokenizer, vocabulary, None, tmp_path / "base", {"kind": "test"})
    return tmp_path / "base"


def train(base: Path, out: Path) -> torch.Tensor:
    """An adapter far from nothing, and the logits of the model that it was in."""
    folder = load_model_folder(base)
    add_lora(folder.model, folder.vocabulary, rank=3, alpha=6.0)
    generator = torch.Generator().manual_seed(1)
    trained = {name: value for name, value in folder.model.named_parameters() if value.requires_grad}
    for value in trained.values():
        value.data += torch.randn(value.shape, generator=generator) * 0.1
    manifest = {"kind": "sft", "inputs": {"model.safetensors": hash_file(base / "model.safetensors")}, "config": {}}
    save_adapter(trained, folder, 3, 6.0, 0.1, manifest, out)
    logits = folder.model.eval()(IDS).logits.detach()
    assert (logits - load_model_folder(base).model(IDS).logits).abs().max() > 0.1
    return logits


def test_peft_opens_the_folder_and_finds_the_same_logits(base, tmp_path):
    logits = train(base, tmp_path / "adapter")
    model = load_model_folder(base).model
    opened = PeftModel.from_pretrained(model, str(tmp_path / "adapter")).eval()
    torch.testing.assert_close(opened(IDS).logits, logits, rtol=0, atol=1e-5)
    assert {name for name, _ in load_file(tmp_path / "adapter" / ADAPTER_WEIGHTS).items()} == {
        name.replace(".default", "") for name, value in opened.named_parameters() if ".default" in name
    }
    assert is_adapter(tmp_path / "adapter") and not is_adapter(base)
    settings = read_adapter_settings(tmp_path / "adapter")
    assert settings == AdapterSettings(str(base.resolve()), 3, 6.0)
    assert json.loads((tmp_path / "adapter" / ADAPTER_CONFIG).read_text())["lora_dropout"] == 0.1


def test_merged_weights_are_base_plus_scaled_products_and_the_trained_rows(base, tmp_path):
    logits = train(base, tmp_path / "adapter")
    folder = load_tokenizer_folder(base)
    adapted, dtype = load_with_adapter(folder, tmp_path / "adapter")
    assert dtype == torch.float32
    torch.testing.assert_close(adapted(IDS).logits, logits, rtol=0, atol=1e-5)
    merged = merge_adapter(adapted)
    torch.testing.assert_close(merged(IDS).logits, logits, rtol=0, atol=1e-5)
    before, files = load_file(base / "model.safetensors"), load_file(tmp_path / "adapter" / ADAPTER_WEIGHTS)
    after = merged.state_dict()
    first, end = folder.vocabulary.first_token_id, folder.vocabulary.end_token_id
    changed = 0
    for name, old in before.items():
        place = f"base_model.model.{name.removesuffix('.weight')}"
        expected = old.numpy().astype(np.float64)
        if f"{place}.lora_A.weight" in files:  # alpha / rank = 2
            expected += (
                2.0
                * files[f"{place}.lora_B.weight"].double().numpy()
                @ files[f"{place}.lora_A.weight"].double().numpy()
            )
            changed += 1
        elif f"{place}.token_adapter.trainable_tokens_delta" in files:
            expected[first:end] = files[f"{place}.token_adapter.trainable_tokens_delta"].numpy()
            changed += 1
        np.testing.assert_allclose(after[name].numpy(), expected, rtol=0, atol=1e-6)
    assert changed == 2 * len(LORA_TARGETS) + (1 if is_tied(merged) else 2)
    assert is_tied(merged) == ("lm_head.weight" not in before)


def test_peft_merges_to_the_bytes_that_our_own_runs_end_in(base, tmp_path):
    folder = load_model_folder(base)
    train(base, tmp_path / "adapter")
    add_lora(folder.model, folder.vocabulary, rank=3, alpha=6.0)
    own = dict(folder.model.named_parameters())
    for name, value in load_adapter_weights(tmp_path / "adapter").items():
        own[name].data.copy_(value)
    expected = merge_lora(folder.model).state_dict()
    merged = merge_adapter(load_with_adapter(folder, tmp_path / "adapter")[0]).state_dict()
    assert all(torch.equal(merged[name], expected[name]) for name in expected)


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}], ids=["lora", "dora", "rslora"])
def test_adapters_of_other_trainers(base, tmp_path, options):
    """Without a manifest or rows; with embeddings trained whole, which unties them."""
    model = load_model_folder(base).model
    tied = is_tied(model)
    config = LoraConfig(
        r=2, lora_alpha=4, target_modules=["q_proj", "up_proj"], modules_to_save=["embed_tokens"], **options
    )
    adapted = get_peft_model(model, config)
    torch.manual_seed(0)
    for name, value in adapted.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            value.data += 0.1 * torch.randn_like(value)
    logits = adapted.eval()(IDS).logits.detach()
    adapted.save_pretrained(str(tmp_path / "theirs"))
    folder = load_tokenizer_folder(base)
    require_own_base(tmp_path / "theirs", folder)
    merged = merge_adapter(load_with_adapter(folder, tmp_path / "theirs")[0])
    torch.testing.assert_close(merged(IDS).logits, logits, rtol=0, atol=1e-5)
    save_model_folder(merged, folder.tokenizer, folder.vocabulary, None, tmp_path / "out", {})
    again = load_model_folder(tmp_path / "out").model
    torch.testing.assert_close(again(IDS).logits, logits, rtol=0, atol=1e-5)
    assert tied == ("lm_head.weight" not in load_file(base / "model.safetensors"))
    assert "lm_head.weight" in load_file(tmp_path / "out" / "model.safetensors")
    assert again.config.tie_word_embeddings is False


def spoil(folder: Path, change) -> Path:
    weights = load_file(folder / ADAPTER_WEIGHTS)
    change(weights)
    save_file(weights, folder / ADAPTER_WEIGHTS)
    return folder


def test_adapters_that_do_not_fit_their_base_are_refused(base, tmp_path):
    train(base, tmp_path / "adapter")
    folder, number = load_tokenizer_folder(base), iter(range(99))

    def copy() -> Path:
        return Path(shutil.copytree(tmp_path / "adapter", tmp_path / f"copy{next(number)}"))

    name = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    lacks = spoil(copy(), lambda w: w.pop(name))
    with pytest.raises(ModelError, match=r"up_proj.lora_B.default.weight: adapter_model.safetensors lacks it"):
        load_with_adapter(folder, lacks)
    extra = spoil(copy(), lambda w: w.update({name.replace("layers.1", "layers.7"): torch.zeros(48, 3)}))
    with pytest.raises(ModelError, match=r"layers.7.mlp.up_proj.lora_B.default.weight: .*base has no place for it"):
        load_with_adapter(folder, extra)
    shape = spoil(copy(), lambda w: w.update({name: torch.zeros(47, 3)}))
    with pytest.raises(ModelError, match=r"does not fit .*up_proj.lora_B.*48, 3"):
        load_with_adapter(folder, shape)
    broken = spoil(copy(), lambda w: w[name].fill_(float("nan")))
    with pytest.raises(ModelError, match=r"up_proj.lora_B.weight holds values that are no numbers"):
        load_with_adapter(folder, broken)
    short = copy()
    (short / ADAPTER_WEIGHTS).write_bytes(b"short")
    with pytest.raises(ModelError, match="the adapter cannot be read"):
        load_with_adapter(folder, short)
    kind = copy()
    (kind / ADAPTER_CONFIG).write_text(json.dumps({"peft_type": "PREFIX_TUNING"}))
    with pytest.raises(ModelError, match="peft_type is 'PREFIX_TUNING'; only LoRA"):
        read_adapter_settings(kind)
    (kind / ADAPTER_CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": "three"}))
    with pytest.raises(ModelError, match="malformed: expected base_model_name_or_path, r and lora_alpha"):
        read_adapter_settings(kind)


def test_another_base_is_told_by_hash_format_and_vocabulary(base, tmp_path, small_format):
    train(base, tmp_path / "adapter")
    folder = load_tokenizer_folder(base)
    require_own_base(tmp_path / "adapter", folder)
    trained_on = load_model_folder(base)
    trained_on.model.model.norm.weight.data += 1
    save_model_folder(trained_on.model, folder.tokenizer, folder.vocabulary, None, tmp_path / "later", {})
    with pytest.raises(ModelError, match=r"trained on other weights than .*later: none of .* SHA-256 [0-9a-f]{12}"):
        require_own_base(tmp_path / "adapter", load_tokenizer_folder(tmp_path / "later"))

    (tmp_path / "adapter" / "manifest.json").unlink()  # what follows is told without it
    require_own_base(tmp_path / "adapter", load_tokenizer_folder(tmp_path / "later"))
    words = ["quite other words than those", "blue whales sing songs"] * 4
    for name, num_tokens, format, error, message in [
        ("words", 280, small_format, ModelError, "has another vocabulary than"),
        ("format", 280, load_format("onereason", 2, 8), FormatError, "uses format 'small'"),
        ("ids", 270, small_format, ModelError, "has the itemic tokens from id 280, .* from 270"),
    ]:
        tokenizer = build_tiny_tokenizer(words, num_tokens)
        model = build_tiny_model(tokenizer, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
        save_model_folder(*extend_model(model, tokenizer, format), None, tmp_path / name, {})
        with pytest.raises(error, match=message):
            require_own_base(tmp_path / "adapter", load_tokenizer_folder(tmp_path / name))


def test_the_base_is_found_where_it_was(base, tmp_path):
    train(base, tmp_path / "adapter")
    assert find_base(tmp_path / "adapter", None) == base.resolve()
    assert find_base(tmp_path / "adapter", tmp_path) == tmp_path
    base.rename(tmp_path / "moved")
    with pytest.raises(ModelError, match=r"the base of adapter .* \(.*base\) is not there; name .* with --base"):
        find_base(tmp_path / "adapter", None)
    config = json.loads((tmp_path / "adapter" / ADAPTER_CONFIG).read_text())
    (tmp_path / "adapter" / ADAPTER_CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.raises(ModelError, match="is not named in it; name its model folder with --base"):
        find_base(tmp_path / "adapter", None)
