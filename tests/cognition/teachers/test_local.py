"""The local teacher on a tiny random model: equal to plain generation, whatever the batch."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
import torch

from onereason.cognition.teachers.base import Draft
from onereason.cognition.teachers.local import LocalTeacher, lay_out_batches, render_prompt
from onereason.data.chat import parse_answer
from onereason.errors import ConfigError, ModelError
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format
from onereason.model.extend import extend_model
from onereason.model.folder import load_model_folder, save_model_folder, unused_row_ids
from onereason.model.sampling import SamplingConfig, draw
from onereason.model.tiny import build_tiny_model, build_tiny_tokenizer
from tests.cognition.teachers.assignments import Question

LIMIT = 24
TASKS = [Question(f"q{i}", "tea " * (1 + 5 * i % 13) + "?") for i in range(14)]
SETTINGS = {"max_tokens": LIMIT, "device": "cpu", "dtype": "float32"}
SAMPLED = SETTINGS | {"temperature": 1.3, "top_k": 0, "top_p": 1.0, "seed": 5}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A Qwen3 of 2 layers whose logits differ clearly, which ends its turn now and then, with rows without a token."""
    folder = tmp_path_factory.mktemp("teacher") / "aligned"
    codes = np.stack([np.arange(12) // 8, np.arange(12) % 8], 1)
    domains = ["video" if i % 2 else "prod" for i in range(12)]
    catalog = Catalog(load_format("onereason", 2, 8), [f"i{i}" for i in range(12)], codes, domains, ["red tea"] * 12)
    tokenizer = build_tiny_tokenizer(catalog.captions, vocab_size=262)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256}
    model = build_tiny_model(tokenizer, **sizes, initializer_range=0.3)
    model, tokenizer, vocabulary = extend_model(model, tokenizer, catalog.format, init="copy_default")
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("<|im_end|>")] *= 1.7
    save_model_folder(model, tokenizer, vocabulary, catalog, folder, {"kind": "test"})
    return folder


@pytest.fixture(scope="module")
def folder(path):
    return load_model_folder(path, "float32", "cpu")


def ids_of(task: Question, folder) -> list[int]:
    return folder.tokenizer(render_prompt(task.messages(), folder.tokenizer))["input_ids"]


def stops_of(folder) -> list[int]:
    return [folder.tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]


def draft_of(tokens: list[int], num_prompt: int, folder) -> Draft:
    """The draft of what was generated, `LIMIT` tokens or up to and with a stop token."""
    text = parse_answer(folder.tokenizer.decode(tokens)).answer
    if tokens[-1] not in stops_of(folder):
        return Draft(None, "teacher_truncated", num_prompt, LIMIT)
    return Draft(text or None, None if text else "teacher_empty", num_prompt, len(tokens) - 1)


def test_the_prompt_ends_behind_an_empty_think_block(folder):
    assert render_prompt([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], folder.tokenizer) == (
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu /no_think<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_greedy_equals_plain_generation_one_by_one(path, folder):
    found = LocalTeacher(path, **SETTINGS).write(TASKS)
    unused = unused_row_ids(folder.model.config.vocab_size, folder.tokenizer)
    expected = []
    for task in TASKS:
        ids = ids_of(task, folder)
        row = folder.model.generate(
            torch.tensor([ids]),
            do_sample=False,
            max_new_tokens=LIMIT,
            suppress_tokens=unused,
            eos_token_id=stops_of(folder),
        )[0, len(ids) :]
        expected.append(draft_of(row.tolist(), len(ids), folder))
    assert found == expected
    assert {draft.problem for draft in found} >= {None, "teacher_truncated"}


def test_sampled_equals_a_plain_loop_with_a_stream_a_row(path, folder):
    teacher = LocalTeacher(path, **SAMPLED)
    found = teacher.write(TASKS)
    unused = unused_row_ids(folder.model.config.vocab_size, folder.tokenizer)
    for task, draft in zip(TASKS, found, strict=True):
        prompt, tokens = ids_of(task, folder), []
        stream = np.random.default_rng(teacher._row_seed(task.id))
        while len(tokens) < LIMIT and not (tokens and tokens[-1] in stops_of(folder)):
            with torch.no_grad():
                logits = folder.model(torch.tensor([prompt + tokens])).logits[:, -1].float()
            logits[:, unused] = -torch.inf
            sampling = SamplingConfig(LIMIT, 1.3, 0, 1.0)
            tokens.append(int(draw(logits, torch.tensor([stream.random()]), sampling)))
        assert draft == draft_of(tokens, len(prompt), folder)
    problems = Counter(draft.problem for draft in found)
    assert problems[None] >= 3 and problems["teacher_truncated"] >= 3
    written = sum(draft.completion_tokens for draft in found)
    assert teacher.summary() == {
        "teacher": "local:aligned",
        "assignments": 14,
        "prompt_tokens": sum(len(ids_of(task, folder)) for task in TASKS),
        "completion_tokens": written,
        "problems": {problem: count for problem, count in sorted(problems.items(), key=str) if problem},
    }


@pytest.mark.parametrize("settings", [SETTINGS, SAMPLED], ids=["greedy", "sampled"])
def test_batches_and_neighbours_do_not_matter(path, settings):
    together = LocalTeacher(path, **settings).write(TASKS)
    by_id = dict(zip((task.id for task in TASKS), together, strict=True))
    for batch_tokens in (1, 250, 600):
        teacher = LocalTeacher(path, **settings, batch_tokens=batch_tokens)
        assert teacher.write(TASKS[::-1]) == together[::-1]
    assert teacher.write(TASKS[3:5]) == [by_id["q3"], by_id["q4"]]
    assert pickle.loads(pickle.dumps(teacher)).write(TASKS[:2]) == together[:2]


def test_sampling_depends_on_seed_and_id(path):
    same = [Question(name, "tea tea ?") for name in "abcdefghijkl"]
    found = LocalTeacher(path, **SAMPLED).write(same)
    assert len({(draft.text, draft.completion_tokens) for draft in found}) > 1
    assert LocalTeacher(path, **SAMPLED | {"seed": 6}).write(same) != found
    assert LocalTeacher(path, **SETTINGS).write(same)[0] == LocalTeacher(path, **SETTINGS).write(same)[1]


def test_the_folder_s_generation_settings_play_no_part(path, tmp_path):
    expected = LocalTeacher(path, **SETTINGS).write(TASKS[:3])
    other = LocalTeacher(path, **SETTINGS)
    other._open().model.generation_config.update(max_length=3)
    assert other.write(TASKS[:3]) == expected


def test_prompts_that_do_not_fit_the_model_are_named(path):
    long = Question("long", "tea " * 400)
    drafts = LocalTeacher(path, **SETTINGS).write([TASKS[0], long])
    assert (
        drafts[1].text is None
        and drafts[1].problem == "teacher_prompt_too_long"
        and drafts[0].problem != drafts[1].problem
    )
    assert LocalTeacher(path, **SETTINGS).write([]) == []


def test_where_memory_runs_out_the_batch_is_halved(path, monkeypatch):
    expected = LocalTeacher(path, **SETTINGS).write(TASKS)
    teacher = LocalTeacher(path, **SETTINGS)
    model, sizes = teacher._open().model, []
    generate = model.generate

    def scarce(input_ids, **more):
        sizes.append(len(input_ids))
        if len(input_ids) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(input_ids=input_ids, **more)

    monkeypatch.setattr(model, "generate", scarce)
    assert teacher.write(TASKS) == expected
    assert sizes == [14, 7, 3, 4, 7, 3, 4]

    def none_left(**more):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    monkeypatch.setattr(model, "generate", none_left)
    with pytest.raises(
        ModelError, match=r"local:aligned: memory does not hold a prompt of \d+ tokens and an answer of 24"
    ):
        teacher.write(TASKS)


def test_batches_hold_few_enough_tokens():
    # the longest first: 9 + 1 = 10 tokens, 3 of which fit 30; then 4 + 1 = 5, 6 of which fit
    assert lay_out_batches([4, 9, 9, 4, 8, 4, 3, 2, 1, 1], 1, 30) == [[1, 2, 4], [0, 3, 5, 6, 7, 8], [9]]
    assert lay_out_batches([50, 60], 1, 30) == [[1], [0]] and lay_out_batches([], 1, 30) == []


def test_settings_that_cannot_be(path, tmp_path):
    with pytest.raises(ModelError, match="does not exist; make one with"):
        LocalTeacher(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="max_tokens must be at least 1, got 0"):
        LocalTeacher(path, max_tokens=0)
    with pytest.raises(ConfigError, match="dtype 'int8' is not known; use auto, float32, bfloat16"):
        LocalTeacher(path, dtype="int8")
    with pytest.raises(ConfigError, match=r"temperature must be 0 or a number from 0\.001"):
        LocalTeacher(path, **SETTINGS | {"temperature": -1.0}).write(TASKS[:1])
