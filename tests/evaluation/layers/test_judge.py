"""Graders: a judge behind a real HTTP server that answers well, badly, late or not at all; an entailment model."""

from __future__ import annotations

import json
import re
import socket
import time

import pytest
import torch

from onereason.endpoint import Endpoint
from onereason.errors import ConfigError, ModelError
from onereason.evaluation.layers.judge import VERDICTS_FILE, EntailmentModel, Judge, parse_verdict
from onereason.evaluation.layers.tasks.base import Question

QUESTIONS = [Question("caption", "red tea", f"answer {i}") for i in range(6)]


def says(content: str) -> tuple[int, dict]:
    return 200, {"choices": [{"message": {"role": "assistant", "content": content}}]}


def build_judge(url: str, folder, **more) -> Judge:
    settings = {"key_env": "NO_SUCH_KEY", "timeout_seconds": 5.0, "tries": 2, "backoff_seconds": 0.01}
    return Judge(Endpoint(url, "judge-7b", **settings | more), folder, concurrency=3)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def number_of(payload: dict) -> int:
    """Which of `QUESTIONS` a request asks."""
    return next(i for i in range(6) if f"answer {i}" in payload["messages"][0]["content"])


def test_verdicts_in_the_order_of_the_questions(serve, tmp_path, monkeypatch):
    def reply(path, payload):
        time.sleep(0.02 * (6 - number_of(payload)))  # later questions are answered first
        return says(f'```json\n{{"score": 0.{number_of(payload)}, "why": "so"}}\n```')

    monkeypatch.setenv("MY_KEY", "secret")
    server = serve(reply)
    judge = build_judge(server.url, tmp_path, key_env="MY_KEY")
    grades = judge.grade(QUESTIONS)
    assert grades.scores == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5] and grades.reason is None
    path, headers, payload = server.requests[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    assert (payload["model"], payload["temperature"]) == ("judge-7b", 0)
    assert "red tea" in payload["messages"][0]["content"]
    assert "secret" not in json.dumps(judge.describe()) and "secret" not in (tmp_path / VERDICTS_FILE).read_text()

    assert judge.grade(QUESTIONS[::-1]).scores == grades.scores[::-1]
    assert len(server.requests) == 6  # no question is asked twice
    other = Judge(Endpoint(server.url, "other", "NO_SUCH_KEY"), tmp_path)
    assert other.grade(QUESTIONS[:1]).scores == [0.0] and len(server.requests) == 7


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"score": 0.25}', 0.25),
        ('{"score": 1}', 1.0),
        ('<think>\n{"score": 0.1}\n</think>\n\nHere: {"score": 0.9}', 0.9),
        ('Not {"score": 0.1} but {"score": 0.2}.', 0.2),
        ('{"score": 7}', None),
        ('{"score": "0.5"}', None),
        ('{"score": true}', None),
        ("about 0.5", None),
        ('{"score": 0.5', None),
        ("", None),
    ],
)
def test_verdicts_are_read_strictly(text, score):
    assert parse_verdict(text) == score


def test_unreadable_verdicts_give_no_score_and_are_not_asked_again(serve, tmp_path):
    server = serve(lambda path, payload: says('{"score": 0.5}' if number_of(payload) % 2 else "hm"))
    judge = build_judge(server.url, tmp_path)
    for _ in range(2):
        grades = judge.grade(QUESTIONS)
        assert grades.scores == [None, 0.5, None, 0.5, None, 0.5] and grades.reason is None
    assert len(server.requests) == 6


def test_a_server_that_is_busy_is_asked_again(serve, tmp_path):
    fails = iter([(503, {"error": "busy"}), (429, b"slow down")])
    server = serve(lambda path, payload: next(fails, None) or says('{"score": 1.0}'))
    assert build_judge(server.url, tmp_path, tries=3).grade(QUESTIONS[:1]).scores == [1.0]
    assert len(server.requests) == 3


def test_a_server_that_stays_broken_is_left_alone(serve, tmp_path):
    server = serve(lambda path, payload: (500, b"broken"))
    grades = build_judge(server.url, tmp_path).grade(QUESTIONS * 10)
    assert grades.scores == [None] * 60
    assert "failed 2 time(s), last: status 500: broken" in grades.reason
    assert len(server.requests) <= 2 * 6  # two tries of what was under way, nothing after


def test_a_judge_that_is_down_says_so_and_can_be_asked_later(serve, tmp_path):
    grades = build_judge(f"http://127.0.0.1:{free_port()}/v1", tmp_path).grade(QUESTIONS)
    assert grades.scores == [None] * 6
    assert "Connection refused; check that the server runs." in grades.reason
    server = serve(lambda path, payload: says('{"score": 0.5}'))
    assert build_judge(server.url, tmp_path).grade(QUESTIONS).scores == [0.5] * 6


def test_a_server_that_answers_too_late_is_given_up(serve, tmp_path):
    def reply(path, payload):
        time.sleep(2)
        return says('{"score": 1.0}')

    server = serve(reply)
    start = time.perf_counter()
    grades = build_judge(server.url, tmp_path, timeout_seconds=0.1).grade(QUESTIONS[:1])
    assert grades.scores == [None] and "failed 2 time(s), last: no answer within 0.1 s" in grades.reason
    assert time.perf_counter() - start < 1.5 and len(server.requests) == 2


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((401, {"error": "no key"}), r"refused the request \(status 401: .*no key"),
        ((200, b"<html>"), "answered what is not JSON"),
        ((200, [1]), "answered list where an object was expected"),
        ((200, {"choices": []}), "answered without choices"),
    ],
)
def test_what_another_try_would_not_mend_is_not_tried_again(serve, tmp_path, reply, message):
    server = serve(lambda path, payload: reply)
    grades = build_judge(server.url, tmp_path).grade(QUESTIONS[:1])
    assert grades.scores == [None] and len(server.requests) == 1
    assert re.search(message, grades.reason)


def test_endpoints_that_cannot_be_are_refused(tmp_path):
    for settings, message in (
        (("localhost:8000", "m"), "must start with http:// or https://"),
        (("http://h/v1", ""), "needs the name of the model"),
        (("http://h/v1", "m", "KEY", 0.0), "timeout_seconds must be above 0, got 0.0"),
        (("http://h/v1", "m", "KEY", 1.0, 0), "tries must be at least 1, got 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            Endpoint(*settings)
    with pytest.raises(ConfigError, match="concurrency must be at least 1, got 0"):
        Judge(Endpoint("http://h/v1", "m"), tmp_path, concurrency=0)


# -- an entailment model --------------------------------------------------------------------------------------------


def write_classifier(folder, labels: dict[int, str]):
    """A random BERT classifier of sentence pairs with a word tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "tea", "is", "red", "hot"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        id2label=labels,
        label2id={name: i for i, name in labels.items()},
        initializer_range=0.5,
    )
    BertForSequenceClassification(config).eval().save_pretrained(folder)


def test_an_entailment_model_gives_the_probability_of_entailment(tmp_path):
    write_classifier(tmp_path / "nli", {0: "contradiction", 1: "Entailment", 2: "neutral"})
    grader = EntailmentModel(tmp_path / "nli", batch_size=2)
    pairs = [("tea is hot", "tea is red"), ("tea", "hot"), ("red tea is hot", "tea is hot")]
    grades = grader.grade([Question("entailment", *pair) for pair in pairs])
    for (premise, hypothesis), score in zip(pairs, grades.scores, strict=True):
        alone = grader.tokenizer(premise, hypothesis, return_tensors="pt")
        with torch.no_grad():
            logits = grader.model(**alone).logits[0]
        assert score == pytest.approx(float(logits.softmax(-1)[1]), rel=1e-4)
    assert len(set(grades.scores)) == 3 and grader.describe() == {"entailment_model": "nli"}


def test_folders_that_are_no_entailment_model_are_refused(tmp_path):
    with pytest.raises(ModelError, match="does not exist; give the folder of an NLI classifier"):
        EntailmentModel(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="the entailment model cannot be loaded"):
        EntailmentModel(tmp_path / "empty")
    write_classifier(tmp_path / "sentiment", {0: "good", 1: "bad"})
    with pytest.raises(ModelError, match=r"no label is called 'entailment' \(good, bad\)"):
        EntailmentModel(tmp_path / "sentiment")
