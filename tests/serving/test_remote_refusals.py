"""Servers that are there and are not what the remote search needs."""

from __future__ import annotations

import numpy as np
import pytest

from onereason.cli import main
from onereason.endpoint import EndpointMalformed
from onereason.errors import ConfigError
from onereason.serving.remote import connect
from tests.chat_server import ChatServer, Reply
from tests.serving.conftest import free_port


def models(*names: str) -> Reply:
    return Reply(body={"data": [{"id": name} for name in names]})


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"choices": []}, "did not answer 1 prompt"),
        ({"choices": [{"index": 0, "text": "x", "logprobs": None}]}, "start it with `onereason serve`"),
        (
            {"choices": [{"index": 0, "logprobs": {"top_logprobs": [{" hello": -1.0}]}}]},
            "without log-probabilities by token id",
        ),
    ],
)
def test_servers_without_what_beams_need(model_dir, answer, message):
    with ChatServer(lambda payload: Reply(body=answer) if payload else models("rec")) as server:
        remote = connect(server.url, model_dir)
        with pytest.raises(EndpointMalformed, match=message):
            remote.search([remote.render(np.array([1, 2]), "video")], ["video"], 4)


def test_servers_without_token_ids(model_dir):
    answer = {"choices": [{"index": 0, "text": "x", "logprobs": {"token_logprobs": [-1.0]}}]}
    with ChatServer(lambda payload: Reply(body=answer) if payload else models("rec")) as server:
        remote = connect(server.url, model_dir)
        with pytest.raises(EndpointMalformed, match="without token ids"):
            remote.sample_traces([remote.render(np.array([1, 2]), "video", "think")], [[0]])


def test_several_models_or_none(model_dir):
    for names, message in ((("a", "b"), "serves a, b; one of them has to be named"), ((), "serves nothing")):
        with (
            ChatServer(lambda payload, names=names: models(*names)) as server,
            pytest.raises(ConfigError, match=message),
        ):
            connect(server.url, model_dir)


def test_what_is_the_servers_to_say(model_dir, capsys):
    asked = ["recommend", "--model", str(model_dir), "--items", "i01", "--base-url", "http://127.0.0.1:9/v1"]
    for more in (["--dtype", "bfloat16"], ["--device", "cpu"]):
        assert main([*asked, *more]) == 2
        assert "are the server's where --base-url is given" in capsys.readouterr().err


def test_nobody_there_is_one_line_and_exit_code_2(model_dir, capsys):
    url = f"http://127.0.0.1:{free_port()}/v1"
    assert main(["recommend", "--model", str(model_dir), "--items", "i01", "--base-url", url]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and url in said and "check that the server runs" in said
