"""Split rows: equal to the whole model in value and gradient, and nothing else ever moves."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from onereason.errors import ModelError
from onereason.itemic.vocabulary import ItemicVocabulary
from onereason.model.extend import extend_model, is_tied
from onereason.model.warmup import SplitEmbedding, SplitHead, merge_new_rows, split_new_rows

FIRST, END = 280, 291


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def extended(request, tokenizer, build, small_format):
    return extend_model(build(request.param), tokenizer, small_format)


def batch(seed: int = 0, rows: int = 3, length: int = 20) -> torch.Tensor:
    """Token ids [rows, length] over old, new, and tokenless rows; the first and last itemic id are among them."""
    ids = torch.randint(0, 320, (rows, length), generator=torch.Generator().manual_seed(seed))
    ids[:, ::3] = torch.randint(FIRST, END, ids[:, ::3].shape, generator=torch.Generator().manual_seed(seed + 1))
    ids[0, :4] = torch.tensor([FIRST, END - 1, FIRST - 1, END])
    return ids


def clones(model) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def train(model, steps: int = 3, lr: float = 0.1) -> torch.optim.AdamW:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=0.1)
    model.train()
    for step in range(steps):
        ids = batch(step)
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    return optimizer


def test_values_and_gradients_equal_the_whole_model(extended):
    model, _, vocabulary = extended
    ids = batch()
    whole = model(ids, labels=ids, output_hidden_states=True)
    whole.loss.backward()
    # for tied embeddings this is one tensor that holds the sum of the input and output paths
    gradients = [
        m.weight.grad[FIRST:END].clone() for m in (model.get_input_embeddings(), model.get_output_embeddings())
    ]
    model.zero_grad()
    rows = split_new_rows(model, vocabulary)
    split = model(ids, labels=ids, output_hidden_states=True)
    split.loss.backward()
    assert torch.equal(whole.hidden_states[0], split.hidden_states[0])
    torch.testing.assert_close(split.logits, whole.logits, rtol=0, atol=1e-6)
    torch.testing.assert_close(split.loss, whole.loss, rtol=0, atol=1e-6)
    for found, expected in zip((rows[0], rows[-1]), gradients, strict=True):
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(found.grad, expected, rtol=1e-5, atol=1e-7)


def test_only_the_new_rows_require_gradients(extended):
    model, _, vocabulary = extended
    tied = is_tied(model)
    rows = split_new_rows(model, vocabulary)
    assert isinstance(model.get_input_embeddings(), SplitEmbedding)
    assert isinstance(model.get_output_embeddings(), SplitHead)
    assert [p.shape for p in rows] == [(11, 16)] * (1 if tied else 2)
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert len(trainable) == len(rows) and all(a is b for a, b in zip(trainable, rows, strict=True))
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    assert (head.new.weight is embedding.new.weight) == (head.base.weight is embedding.base.weight) == tied


def test_training_moves_the_new_rows_alone_bitwise(extended):
    model, _, vocabulary = extended
    before = clones(model)
    rows = split_new_rows(model, vocabulary)
    optimizer = train(model)
    # the optimizer holds two moments for the new rows and for nothing else: 11 x 16 numbers a moment and matrix
    held = [v for state in optimizer.state.values() for v in state.values() if v.numel() > 1]
    assert sum(v.numel() for v in held) == 2 * len(rows) * 11 * 16
    logits = model(batch()).logits
    assert merge_new_rows(model) is model
    after = model.state_dict()
    assert list(after) == list(before)
    for name, value in before.items():
        if "embed_tokens" in name or "lm_head" in name:
            assert torch.equal(after[name][:FIRST], value[:FIRST]) and torch.equal(after[name][END:], value[END:])
            assert (after[name][FIRST:END] != value[FIRST:END]).all()
        else:
            assert torch.equal(after[name], value), name
    torch.testing.assert_close(model(batch()).logits, logits, rtol=0, atol=1e-6)


def test_three_steps_equal_a_whole_model_whose_other_rows_are_put_back(extended, build, tokenizer, small_format):
    """The independent way: train the full matrices, undo every change outside the new rows after each step."""
    model, _, vocabulary = extended
    reference = build(is_tied(model))
    reference.load_state_dict(model.state_dict())
    frozen = clones(reference)
    matrices = list({id(m.weight): m.weight for m in (reference.model.embed_tokens, reference.lm_head)}.values())
    optimizer = torch.optim.AdamW(matrices, lr=0.1, weight_decay=0.1)
    for step in range(3):
        ids = batch(step)
        reference(ids, labels=ids).loss.backward()
        optimizer.step()
        reference.zero_grad()
        with torch.no_grad():
            for name, value in reference.state_dict().items():
                new = value[FIRST:END].clone()
                value.copy_(frozen[name])
                if "embed_tokens" in name or "lm_head" in name:
                    value[FIRST:END] = new
    split_new_rows(model, vocabulary)
    train(model)
    merge_new_rows(model)
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_merging_restores_the_plain_model(extended, tmp_path):
    model, _, vocabulary = extended
    tied, embedding, head, before = is_tied(model), *_modules(model), clones(model)
    split_new_rows(model, vocabulary)
    merge_new_rows(model)
    assert _modules(model) == (embedding, head) and is_tied(model) == tied
    assert all(p.requires_grad for p in model.parameters())
    assert model.all_tied_weights_keys == ({"lm_head.weight": "model.embed_tokens.weight"} if tied else {})
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert all(torch.equal(before[k], v) for k, v in loaded.state_dict().items())


def _modules(model):
    return model.get_input_embeddings(), model.get_output_embeddings()


def test_generation_works_while_split(extended):
    model, tokenizer, vocabulary = extended
    prompt = torch.tensor([tokenizer("a <|video_begin|>")["input_ids"]])
    options = {"max_new_tokens": 15, "do_sample": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0}
    expected = model.generate(prompt, **options)
    beams = model.generate(prompt, num_beams=4, **options)
    split_new_rows(model, vocabulary)
    assert torch.equal(model.generate(prompt, **options), expected)
    assert torch.equal(model.generate(prompt, num_beams=4, **options), beams)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(extended, use_reentrant):
    model, _, vocabulary = extended
    rows = split_new_rows(model, vocabulary)
    model.train()
    ids = batch()
    model(ids, labels=ids).loss.backward()
    expected = [p.grad.clone() for p in rows]
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model(ids, labels=ids, use_cache=False).loss.backward()
    for found, value in zip(rows, expected, strict=True):
        torch.testing.assert_close(found.grad, value, rtol=1e-5, atol=1e-7)


def test_bfloat16_and_autocast(extended):
    model, _, vocabulary = extended
    ids = batch()
    with torch.autocast("cpu", torch.bfloat16):
        whole = model(ids, labels=ids).logits
    split_new_rows(model, vocabulary)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(ids, labels=ids)
    torch.testing.assert_close(out.logits, whole, rtol=0, atol=0.02)
    out.loss.backward()
    merge_new_rows(model).to(torch.bfloat16)
    before = clones(model)
    rows = split_new_rows(model, vocabulary)
    train(model)
    assert {p.dtype for p in rows} == {torch.bfloat16}
    merge_new_rows(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value[:FIRST], before[name][:FIRST])  # rows below the new ones, or the whole parameter


def test_full_matrices_are_readable_and_differentiable_while_split(extended):
    model, _, vocabulary = extended
    expected = model.lm_head.weight.detach().clone()
    rows = split_new_rows(model, vocabulary)
    weight = model.get_output_embeddings().weight
    assert torch.equal(weight, expected)
    assert torch.equal(model.get_input_embeddings().weight[FIRST:END], rows[0])
    (weight * torch.arange(320.0).unsqueeze(1)).sum().backward()  # as a fused loss would
    assert torch.equal(rows[-1].grad, torch.arange(280.0, 291.0).unsqueeze(1).expand(11, 16))


def test_state_dict_round_trip_and_retying(extended):
    model, _, vocabulary = extended
    split_new_rows(model, vocabulary)
    train(model)
    state = clones(model)
    merge_new_rows(model)
    with torch.no_grad():
        model.get_input_embeddings().weight[FIRST:END] = 0
    rows = split_new_rows(model, vocabulary)
    model.load_state_dict(state)  # strict
    model.tie_weights()
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    head = model.get_output_embeddings()
    assert head.new.weight is rows[-1] and (head.new.weight is rows[0]) == (len(rows) == 1)


class Rows(Dataset):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = batch(index, rows=1)[0]
        return {"input_ids": ids, "labels": ids}


def _trainer(model, out, steps: int) -> Trainer:
    options = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "seed": 0, "learning_rate": 0.05}
    schedule = {"max_steps": steps, "save_steps": 2, "per_device_train_batch_size": 4, "lr_scheduler_type": "constant"}
    return Trainer(model, TrainingArguments(str(out), **options, **schedule), train_dataset=Rows())


def test_trainer_checkpoints_resume_to_the_uninterrupted_result(extended, build, tmp_path):
    model, _, vocabulary = extended
    other = build(is_tied(model))
    other.load_state_dict(model.state_dict())
    split_new_rows(model, vocabulary)
    _trainer(model, tmp_path / "whole", 4).train()
    split_new_rows(other, vocabulary)
    _trainer(other, tmp_path / "cut", 2).train()
    merge_new_rows(other)
    with torch.no_grad():
        other.get_output_embeddings().weight[FIRST:END] = 7.0  # what is trained must come from the checkpoint
    split_new_rows(other, vocabulary)
    _trainer(other, tmp_path / "cut", 4).train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-2"))
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())


def test_bad_requests(extended, build, tokenizer, small_format):
    model, _, vocabulary = extended
    with pytest.raises(ModelError, match="are not split off; call split_new_rows"):
        merge_new_rows(model)
    split_new_rows(model, vocabulary)
    with pytest.raises(ModelError, match="split off already; call merge_new_rows first"):
        split_new_rows(model, vocabulary)
    with pytest.raises(ModelError, match=r"320 rows, format 'small' needs ids up to 322"):
        split_new_rows(build(), ItemicVocabulary(small_format, 312))
    biased = build()
    biased.lm_head.bias = torch.nn.Parameter(torch.zeros(320))
    with pytest.raises(ModelError, match="output layer has a bias"):
        split_new_rows(biased, vocabulary)
    sharded = build()
    sharded.lm_head.weight.ds_id = 0  # the mark DeepSpeed puts on a parameter it has partitioned
    with pytest.raises(ModelError, match="sharded"):
        split_new_rows(sharded, vocabulary)
