"""The HTTP client against real servers: what is tried again, what is not, how long it takes, and what is said."""

from __future__ import annotations

import asyncio
import email.utils
import pickle
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from onereason.endpoint import (
    Endpoint,
    EndpointError,
    EndpointMalformed,
    EndpointRefused,
    EndpointReplyTooLong,
    EndpointTimeout,
    EndpointUnreachable,
    parse_retry_after,
)
from onereason.errors import ConfigError
from tests.chat_server import ChatServer, Reply


def post(endpoint: Endpoint, payload: dict) -> dict:
    return endpoint.post("chat/completions", payload)


def post_async(endpoint: Endpoint, payload: dict) -> dict:
    async def ask() -> dict:
        async with endpoint.open_client() as client:
            return await endpoint.post_async(client, "chat/completions", payload)

    return asyncio.run(ask())


@pytest.fixture(params=[post, post_async], ids=["sync", "async"])
def ask(request):
    return request.param


def endpoint_of(url: str, **settings) -> Endpoint:
    return Endpoint(url, "m", **{"key_env": "NO_SUCH_KEY", "timeout_seconds": 5.0, "backoff_seconds": 0.01} | settings)


def in_turn(*replies: Reply):
    """Answers with one after the other, then with the last."""
    left = list(replies)
    return lambda payload: left.pop(0) if len(left) > 1 else left[0]


OK = Reply(body={"ok": 1})


def test_what_is_sent(ask, monkeypatch):
    monkeypatch.setenv("MY_KEY", " secret\n")
    with ChatServer(lambda payload: OK) as server:
        assert ask(endpoint_of(server.url + "/", key_env="MY_KEY"), {"x": "é\ud800"}) == {"ok": 1}
        assert server.payloads == [{"model": "m", "x": "é\ud800"}] and server.paths == ["/v1/chat/completions"]
        assert server.headers[0]["Authorization"] == "Bearer secret"
        ask(endpoint_of(server.url), {})
        assert "Authorization" not in server.headers[1]


def test_what_a_server_says_of_itself(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    with ChatServer(in_turn(Reply(503, "busy"), OK)) as server:
        assert endpoint_of(server.url, key_env="MY_KEY").get("models") == {"ok": 1}
        assert server.paths == ["/v1/models"] * 2 and server.payloads == [{}] * 2
        assert server.headers[1]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("status", [408, 429, 500, 503, 529])
def test_a_busy_server_is_asked_again(ask, status):
    with ChatServer(in_turn(Reply(status, "busy"), OK)) as server:
        assert ask(endpoint_of(server.url), {}) == {"ok": 1} and len(server.payloads) == 2


def test_a_server_that_says_when_to_come_back_is_left_alone_until_then(ask):
    with ChatServer(in_turn(Reply(429, "slow down", {"Retry-After": "0.4"}), OK)) as server:
        assert ask(endpoint_of(server.url), {}) == {"ok": 1}
        assert 0.4 <= server.times[1] - server.times[0] < 4  # not the 0.01 s of its own


def test_a_server_that_asks_for_hours_is_given_up_at_once(ask):
    with ChatServer(lambda payload: Reply(429, "no", {"Retry-After": "3600"})) as server:
        with pytest.raises(
            EndpointUnreachable, match=r"failed 1 time\(s\), last: status 429: \"no\" \(try again in 3600"
        ):
            ask(endpoint_of(server.url), {})
        assert len(server.payloads) == 1


def test_retry_after():
    assert parse_retry_after(None) is None and parse_retry_after("soon") is None and parse_retry_after("inf") is None
    assert parse_retry_after("2.5") == 2.5 and parse_retry_after("-3") == 0.0
    date = email.utils.formatdate(time.time() + 50, usegmt=True)
    assert 45 < parse_retry_after(date) <= 50
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_waits_double_and_are_spread():
    endpoint = Endpoint("http://h/v1", "m", backoff_seconds=2.0, tries=9)
    from onereason.endpoint import _Failure

    waits = [[endpoint._wait("u", attempt, _Failure("x")) for _ in range(200)] for attempt in range(1, 9)]
    for expected, found in zip([2, 4, 8, 16, 30, 30, 30, 30], waits, strict=True):
        assert expected / 2 <= min(found) < 0.6 * expected and 0.9 * expected < max(found) <= expected
    asked = [endpoint._wait("u", 1, _Failure("x", retry_after=100)) for _ in range(200)]
    assert min(asked) >= 100 and max(asked) <= 110


def test_after_the_last_try(ask):
    with ChatServer(lambda payload: Reply(503, b"over\n loaded")) as server:
        with pytest.raises(EndpointUnreachable, match=r"failed 3 time\(s\), last: status 503: over loaded; check"):
            ask(endpoint_of(server.url), {})
        assert len(server.payloads) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_refusal_is_final(ask, status):
    with ChatServer(lambda payload: Reply(status, {"error": "no such thing"})) as server:
        with pytest.raises(EndpointRefused, match=rf"refused the request \(status {status}: .*no such thing") as caught:
            ask(endpoint_of(server.url), {})
        assert len(server.payloads) == 1
    assert caught.value.status == status and "no such thing" in caught.value.body
    copy = pickle.loads(pickle.dumps(caught.value))  # it crosses process borders
    assert (str(copy), copy.status, copy.body) == (str(caught.value), status, caught.value.body)


def test_a_redirect_is_said_and_not_followed(ask):
    with ChatServer(lambda payload: Reply(308, b"", {"Location": "https://elsewhere/v1"})) as server:
        with pytest.raises(EndpointRefused, match=r"status 308: https://elsewhere/v1\); give the URL it points to"):
            ask(endpoint_of(server.url), {})
        assert len(server.payloads) == 1


def test_of_a_reply_that_is_too_long_no_more_is_read(ask):
    with ChatServer(lambda payload: OK) as server:
        assert ask(endpoint_of(server.url, max_reply_bytes=9), {}) == {"ok": 1}  # {"ok": 1} has 9 bytes
        with pytest.raises(
            EndpointReplyTooLong, match=r"sent a reply of more than 8 bytes, beginning with b'{\"ok\": 1"
        ):
            ask(endpoint_of(server.url, max_reply_bytes=8), {})
        assert len(server.payloads) == 2
    with ChatServer(lambda payload: Reply(500, b"x" * (1 << 20))) as server:
        with pytest.raises(EndpointReplyTooLong):
            ask(endpoint_of(server.url, max_reply_bytes=1000), {})
        assert len(server.payloads) == 1
    with pytest.raises(ConfigError, match="max_reply_bytes must be at least 1, got 0"):
        endpoint_of("http://h/v1", max_reply_bytes=0)


def test_nobody_there(ask):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(
        EndpointUnreachable, match=r"failed 2 time\(s\), last: Connection refused; check that the server"
    ):
        ask(endpoint_of(f"http://127.0.0.1:{port}/v1", tries=2), {})


def test_no_answer_in_time(ask):
    done = threading.Event()

    def slow(payload):
        done.wait(5)
        return OK

    with ChatServer(slow) as server:
        start = time.monotonic()
        with pytest.raises(EndpointTimeout, match=r"failed 2 time\(s\), last: no answer within 0.2 s"):
            ask(endpoint_of(server.url, timeout_seconds=0.2, tries=2), {})
        assert 0.4 <= time.monotonic() - start < 4 and len(server.payloads) == 2
        done.set()


def test_an_answer_that_drips_is_given_up_too(ask):
    """A byte every 50 ms: no single wait is long, all of them together are."""
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        try:
            for _ in range(200):
                connection.sendall(b" ")
                time.sleep(0.05)
        except OSError:
            pass

    threading.Thread(target=drip, daemon=True).start()
    start = time.monotonic()
    with pytest.raises(EndpointTimeout, match=r"no answer within 0.3 s"):
        ask(endpoint_of(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", timeout_seconds=0.3, tries=1), {})
    assert time.monotonic() - start < 4
    listener.close()


def test_a_connection_that_breaks_off_is_tried_again(ask):
    with ChatServer(in_turn(Reply(200, b'{"ok"', cut=True), OK)) as server:
        assert ask(endpoint_of(server.url), {}) == {"ok": 1} and len(server.payloads) == 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", r"answered what is not JSON: b'<html>'"),
        (b"[" * 100_000, r"answered what is not JSON: b'\[\["),
        (b"[1]", r"answered list where an object was expected"),
        (b"", r"not JSON"),
    ],
)
def test_what_cannot_be_read(ask, body, message):
    with ChatServer(lambda payload: Reply(200, body)) as server:
        with pytest.raises(EndpointMalformed, match=message):
            ask(endpoint_of(server.url), {})
        assert len(server.payloads) == 1


def test_what_cannot_be_decoded(ask):
    with ChatServer(lambda payload: Reply(200, b"{}", {"Content-Encoding": "gzip"})) as server:
        with pytest.raises(EndpointMalformed, match="answered what cannot be decoded"):
            ask(endpoint_of(server.url), {})
        assert len(server.payloads) == 1


def test_what_cannot_be_asked(ask, monkeypatch):
    with pytest.raises(EndpointError, match=r"cannot be asked: .*; check the URL"):
        ask(endpoint_of("http://h:port/v1"), {})
    monkeypatch.setenv("MY_KEY", "sec\nret")
    with pytest.raises(ConfigError, match="the API key in MY_KEY holds characters") as caught:
        ask(endpoint_of("http://h/v1", key_env="MY_KEY"), {})
    assert "sec" not in str(caught.value)


def test_threads_share_the_client():
    with ChatServer(lambda payload: Reply(body={"n": payload["n"]})) as server, ThreadPoolExecutor(8) as pool:
        endpoint = endpoint_of(server.url)
        answers = list(pool.map(lambda n: endpoint.post("x", {"n": n}), range(200)))
    assert [answer["n"] for answer in answers] == list(range(200)) and len(server.payloads) == 200


def test_each_try_is_announced():
    announced = []

    async def before_try() -> None:
        announced.append(len(server.payloads))

    async def ask() -> dict:
        endpoint = endpoint_of(server.url)
        async with endpoint.open_client() as client:
            return await endpoint.post_async(client, "x", {}, before_try)

    with ChatServer(in_turn(Reply(500), Reply(500), OK)) as server:
        assert asyncio.run(ask()) == {"ok": 1} and announced == [0, 1, 2]


def test_settings_that_cannot_be():
    for settings in (
        {"timeout_seconds": 0},
        {"connect_timeout_seconds": float("inf")},
        {"timeout_seconds": float("nan")},
    ):
        with pytest.raises(ConfigError, match=rf"{next(iter(settings))} must be above 0, got"):
            endpoint_of("http://h/v1", **settings)


def test_importing_it_is_light(repository):
    code = "import sys, onereason.endpoint, onereason.cognition.teachers as t; t.load_teacher('template')\n"
    code += "print('httpx' in sys.modules, 'numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository, check=True)
    assert found.stdout.split() == ["False", "False"]
