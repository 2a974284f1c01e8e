"""Generation: the rules of a turn by hand, text against a plain loop, resumed = uninterrupted, and a server."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from onereason.decoding.think import draw
from onereason.endpoint import Endpoint, EndpointError
from onereason.errors import ConfigError, DataError
from onereason.evaluation.layers.generation import (
    GENERATIONS_FILE,
    Generation,
    asked_modes,
    build_requests,
    check_room,
    generate,
    lay_out_batches,
    load_generations,
    row_seed,
)
from onereason.evaluation.layers.generators import EndpointGenerator, ModelGenerator, Turn, TurnRules
from onereason.evaluation.layers.tasks.base import EvaluationRow
from onereason.evaluation.processes import Processes
from onereason.model.folder import load_model_folder, unused_row_ids

BUDGETS = {"max_new_tokens": 12, "think_budget": 40, "think_temperature": 1.5, "temperature": 1.5, "top_k": 0}


def rows(count: int = 6) -> list[EvaluationRow]:
    """Questions of different lengths."""
    return [
        EvaluationRow(f"r{i}", "caption", [{"role": "user", "content": "tea " * (1 + 3 * i % 7)}], {"caption": "red"})
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def folder(model_dir):
    return load_model_folder(model_dir)


@pytest.fixture(scope="module")
def requests(folder):
    return build_requests(rows(), folder.tokenizer, None, 3, lambda s: replace(s, **BUDGETS))


@pytest.fixture(scope="module")
def generator(folder):
    return ModelGenerator(folder)


@pytest.fixture(scope="module")
def expected(requests, generator, tmp_path_factory):
    """The answers of an uninterrupted run in batches of 4."""
    return generate(requests, tmp_path_factory.mktemp("run"), lambda: generator, 4)


def without_time(generations: list[Generation]) -> list[dict]:
    return [asdict(g) | {"seconds": 0} for g in generations]


# -- the rules of a turn --------------------------------------------------------------------------------------------

STOP, OTHER_STOP, CLOSE, BLANK = 90, 91, 80, 81


def play(drawn: list[int], thinking: bool, think_budget: int = 3, max_new_tokens: int = 2) -> tuple[list[int], Turn]:
    """What is written while the model draws `drawn`."""
    turn = Turn(TurnRules([STOP, OTHER_STOP], [CLOSE, BLANK], think_budget, max_new_tokens), thinking)
    return [turn.take(token) for token in drawn], turn


def test_a_trace_that_closes_in_time_is_left_alone():
    written, turn = play([1, 2, 3, CLOSE, 4, STOP, 7], True)
    assert written == [1, 2, 3, CLOSE, 4, STOP, STOP]  # what is drawn after the end does not count
    assert turn.tokens == [1, 2, 3, CLOSE, 4] and (turn.cut, turn.truncated, turn.done) == (False, False, True)


def test_a_trace_that_outruns_its_budget_is_closed_and_answered():
    # 3 tokens of thought; the 4th is replaced by the closing of 2 tokens, and 2 tokens of answer follow.
    written, turn = play([1, 2, 3, 4, 5, 6, 7, 8], True)
    assert written == [1, 2, 3, CLOSE, BLANK, 6, 7, STOP]
    assert turn.tokens == [1, 2, 3, CLOSE, BLANK, 6, 7] and (turn.cut, turn.truncated) == (True, True)


def test_a_turn_that_ends_inside_the_trace_is_closed_and_answered():
    written, turn = play([1, OTHER_STOP, 5, 6, STOP], True)
    assert written == [1, CLOSE, BLANK, 6, STOP]
    assert (turn.cut, turn.truncated, turn.done) == (True, False, True)


def test_an_answer_that_ends_at_its_limit_is_not_truncated():
    written, turn = play([1, 2, STOP], False)
    assert written == [1, 2, STOP] and (turn.truncated, turn.tokens) == (False, [1, 2])
    assert play([1, 2, 3], False)[1].truncated


# -- prompts --------------------------------------------------------------------------------------------------------


def test_prompts_end_where_the_answer_begins(requests, folder):
    by_mode = {request.mode: request for request in requests if request.row.id == "r0"}
    opening = "<|im_start|>user\ntea  /{}<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert by_mode["think"].prompt == opening.format("think")
    assert by_mode["no_think"].prompt == opening.format("no_think") + "\n</think>\n\n"
    for request in requests:
        assert folder.tokenizer.decode(request.prompt_ids) == request.prompt


def test_a_row_with_a_mode_of_its_own_is_asked_in_that_one(folder):
    row = rows(1)[0]
    thinks = replace(row, mode="think")
    assert asked_modes(row, None) == ["no_think", "think"] and asked_modes(row, ["think"]) == ["think"]
    assert asked_modes(thinks, None) == asked_modes(thinks, ["think"]) == ["think"]
    assert asked_modes(thinks, ["no_think"]) == []
    with pytest.raises(DataError, match="none of the 1 rows is asked in mode no_think; change --modes"):
        build_requests([thinks], folder.tokenizer, ["no_think"], 0)


def test_every_row_has_a_seed_of_its_own(requests):
    assert len({request.seed for request in requests}) == len(requests) == 12
    assert row_seed(3, "r0", "think") == requests[1].seed != row_seed(4, "r0", "think")


def test_rows_that_do_not_fit_the_model_are_named(requests):
    longest = max(len(r.prompt_ids) for r in requests if r.thinks)
    check_room(requests, longest + 12 + 40 + len("</think>\n\n") + 1)
    check_room(requests, None)
    with pytest.raises(ConfigError, match=r"row 'r2': its prompt of \d+ tokens and an answer of 63 in mode think"):
        check_room(requests, longest + 62)


# -- text -----------------------------------------------------------------------------------------------------------


def plain_loop(request, folder) -> tuple[str, bool]:
    """The text and whether the trace was cut: one row, the whole sequence again for every token, no cache, no batch."""
    tokenizer, model = folder.tokenizer, folder.model
    special = {token: tokenizer.convert_tokens_to_ids(token) for token in ("<think>", "</think>", "<|im_end|>")}
    stops = [special["<|im_end|>"], tokenizer.convert_tokens_to_ids("<|endoftext|>")]
    banned = [special["<think>"], *unused_row_ids(model.config.vocab_size, tokenizer)]
    closing = tokenizer("</think>\n\n", add_special_tokens=False)["input_ids"]
    stream = np.random.default_rng(request.seed)

    def next_token(sequence: list[int]) -> int:
        with torch.no_grad():
            logits = model(torch.tensor([sequence])).logits[:, -1].float()
        logits[:, banned] = -torch.inf
        return int(draw(logits, torch.tensor([stream.random()]), request.sampling))

    sequence, cut = list(request.prompt_ids), False
    if request.thinks:
        for thought in range(BUDGETS["think_budget"] + 1):
            token = next_token(sequence)
            cut = token in stops or (thought == BUDGETS["think_budget"] and token != special["</think>"])
            if cut:
                sequence += closing
                [stream.random() for _ in closing[1:]]  # a token that is put there takes a draw too
                break
            sequence.append(token)
            if token == special["</think>"]:
                break
    for _ in range(BUDGETS["max_new_tokens"]):
        token = next_token(sequence)
        if token in stops:
            break
        sequence.append(token)
    text = tokenizer.decode(sequence[len(request.prompt_ids) :])
    return ("<think>\n" if request.thinks else "") + text, cut


def test_batches_give_the_text_of_a_plain_loop(requests, expected, folder):
    assert [(g.text, g.cut) for g in expected] == [plain_loop(request, folder) for request in requests]
    thinking = [g for g in expected if g.mode == "think"]
    assert all(g.text.startswith("<think>\n") and "</think>" in g.text for g in thinking)
    assert any(g.cut for g in thinking) and not any(g.cut for g in expected if g.mode == "no_think")
    assert [g.key for g in expected] == [r.key for r in requests]


def test_counts_of_tokens(requests, expected, folder):
    closing = len(folder.tokenizer("</think>\n\n")["input_ids"])
    for request, generation in zip(requests, expected, strict=True):
        assert generation.prompt_tokens == len(request.prompt_ids) and generation.seconds > 0
        assert generation.tokens <= 12 + (40 + closing if request.thinks else 0)


def test_greedy_is_the_most_likely_token(folder, generator):
    greedy = build_requests(rows(2), folder.tokenizer, ["no_think"], 0, lambda s: replace(s, max_new_tokens=5))
    found = generator(greedy)
    for request, generation in zip(greedy, found, strict=True):
        sequence = list(request.prompt_ids)
        banned = generator.model.generation_config.suppress_tokens
        for _ in range(generation.tokens):
            with torch.no_grad():
                logits = folder.model(torch.tensor([sequence])).logits[0, -1]
            logits[banned] = -torch.inf
            sequence.append(int(logits.argmax()))
        assert folder.tokenizer.decode(sequence[len(request.prompt_ids) :]) == generation.text


def test_the_folder_s_generation_settings_play_no_part(model_dir, requests, expected):
    other = load_model_folder(model_dir)
    other.model.generation_config.update(repetition_penalty=9.0, min_new_tokens=30, temperature=0.01, num_beams=3)
    found = ModelGenerator(other)([r for r in requests if r.mode == "think"][:2])
    assert [g.text for g in found] == [g.text for g in expected if g.mode == "think"][:2]


# -- the run --------------------------------------------------------------------------------------------------------


def test_batches_hold_one_mode_and_the_longest_prompts_first(requests):
    batches = lay_out_batches(requests, 4)
    assert [len(batch) for batch in batches] == [4, 2, 4, 2]
    for batch in batches:
        lengths = [len(request.prompt_ids) for request in batch]
        assert len({request.mode for request in batch}) == 1 and lengths == sorted(lengths, reverse=True)


def test_another_batch_size_gives_the_same_text(requests, expected, generator, tmp_path):
    found = generate(requests, tmp_path, lambda: generator, 1)
    assert [g.text for g in found] == [g.text for g in expected]


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_behind_its_last_batch(requests, expected, generator, tmp_path):
    answered: list[str] = []

    def dies_at_the_third(batch):
        if len(answered) == 6:
            raise Killed
        answered.extend(r.key for r in batch)
        return generator(batch)

    with pytest.raises(Killed):
        generate(requests, tmp_path, lambda: dies_at_the_third, 4)
    assert len(load_generations(tmp_path)) == 6
    with (tmp_path / GENERATIONS_FILE).open("ab") as handle:
        handle.write(b'{"id": "r5", "mode": "thi')  # a line that a kill cut off

    def goes_on(batch):
        answered.extend(r.key for r in batch)
        return generator(batch)

    found = generate(requests, tmp_path, lambda: goes_on, 4)
    assert without_time(found) == without_time(expected)
    assert sorted(answered) == sorted(r.key for r in requests)  # none twice, none lost

    def must_not_load():
        raise AssertionError("a finished run needs no model")

    assert without_time(generate(requests, tmp_path, must_not_load, 4)) == without_time(expected)


def test_files_of_several_processes_are_gathered_in_the_order_of_requests(requests, expected, tmp_path):
    by_key = {g.key: g for g in expected}
    for rank in (0, 1):  # as two processes leave them when they are killed
        share = Processes(rank, 2).share(lay_out_batches(requests, 4))
        lines = [json.dumps(asdict(by_key[r.key])) for batch in share for r in batch]
        (tmp_path / f"generations.rank{rank}.jsonl").write_text("\n".join(lines) + "\n")
    found = generate(requests, tmp_path, lambda: pytest.fail("nothing is left"), 4)
    assert without_time(found) == without_time(expected)
    assert [path.name for path in tmp_path.iterdir()] == [GENERATIONS_FILE]


def test_a_line_that_is_no_answer_is_named(requests, tmp_path):
    (tmp_path / GENERATIONS_FILE).write_text('{"id": "r0"}\n')
    with pytest.raises(DataError, match=r"generations.jsonl holds a line that is no saved answer"):
        generate(requests, tmp_path, lambda: None, 4)


# -- a server -------------------------------------------------------------------------------------------------------


def test_a_server_gets_the_same_prompts_and_budgets(serve, requests, folder):
    def reply(path, payload):
        stopped = "stop" in payload
        text, reason = ("thought\n", "stop") if stopped else ("answer", "length")
        if stopped and "tea tea" in payload["prompt"]:
            text, reason = "long", "length"
        return 200, {"choices": [{"text": text, "finish_reason": reason}], "usage": {"completion_tokens": 5}}

    server = serve(reply)
    endpoint = Endpoint(server.url, "m", "NO_SUCH_KEY", 10, 1)
    ask = EndpointGenerator(endpoint, folder.tokenizer, folder.model.config.vocab_size)
    chosen = [r for r in requests if r.mode == "think" and r.row.id in ("r0", "r2")]
    first, second = ask(chosen)
    assert (first.text, first.cut, first.truncated) == ("<think>\nthought\n</think>\n\nanswer", False, True)
    assert (second.text, second.cut, second.tokens) == ("<think>\nlong</think>\n\nanswer", True, 10)
    payloads = sorted((p for _, _, p in server.requests), key=lambda p: len(p["prompt"]))
    assert {path for path, _, _ in server.requests} == {"/v1/completions"}
    unused = {str(i): -100 for i in unused_row_ids(folder.model.config.vocab_size, folder.tokenizer)}
    assert payloads[0] == {
        "model": "m",
        "prompt": chosen[0].prompt,
        "max_tokens": 40,
        "temperature": 1.5,
        "top_p": 0.95,
        "top_k": -1,
        "seed": chosen[0].seed % 2**31,
        "stop": ["</think>"],
        "logit_bias": unused,
    }
    assert payloads[1]["prompt"] == chosen[0].prompt + "thought\n</think>\n\n" and payloads[1]["max_tokens"] == 12
    plain = ask([replace(r, mode="no_think") for r in chosen[:1]])[0]
    assert (plain.text, plain.tokens, plain.prompt_tokens) == ("answer", 5, len(chosen[0].prompt_ids))


def test_a_server_that_fails_keeps_the_batches_before_it(serve, requests, folder, tmp_path):
    seen: list[int] = []

    def reply(path, payload):
        seen.append(1)
        return (400, {"error": "no"}) if len(seen) > 4 else (200, {"choices": [{"text": "a", "finish_reason": "stop"}]})

    endpoint = Endpoint(serve(reply).url, "m", "NO_SUCH_KEY", 10, 1)
    plain = [r for r in requests if r.mode == "no_think"]
    with pytest.raises(EndpointError, match=r"refused the request \(status 400"):
        generate(plain, tmp_path, lambda: EndpointGenerator(endpoint, folder.tokenizer, 320), 4)
    saved = load_generations(tmp_path)
    assert len(saved) == 4 and all(g.text == "a" and g.tokens == 1 for g in saved)
