"""The endpoint teacher against a real server that is told to misbehave; what the server saw is counted."""

from __future__ import annotations

import asyncio
import json
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from onereason.cognition.teachers.base import Draft
from onereason.cognition.teachers.endpoint import EndpointTeacher
from onereason.endpoint import Endpoint, EndpointError
from onereason.errors import ConfigError, StorageError
from onereason.io import read_jsonl
from tests.chat_server import ChatServer, Reply, says
from tests.cognition.teachers.assignments import Question, questions


def echo(payload: dict) -> Reply:
    """`question 3` -> `answer 3`, 7 + 5 tokens."""
    return says(payload["messages"][-1]["content"].replace("question", "answer"))


def teacher_of(url: str, cache_dir=None, **settings) -> EndpointTeacher:
    ours = {name: settings.pop(name) for name in ("tries", "timeout_seconds") if name in settings}
    endpoint = Endpoint(url, "m", "NO_SUCH_KEY", **{"timeout_seconds": 5.0, "tries": 2} | ours, backoff_seconds=0.01)
    return EndpointTeacher(endpoint, cache_dir=cache_dir, **settings)


def texts(drafts: list[Draft]) -> list[str | None]:
    return [draft.text for draft in drafts]


def problems(drafts: list[Draft]) -> list[str | None]:
    return [draft.problem for draft in drafts]


# -- what is asked --------------------------------------------------------------------------------------------------


def test_drafts_come_in_the_order_of_the_assignments(tmp_path):
    def later_first(payload: dict) -> Reply:
        time.sleep(0.01 * (12 - int(payload["messages"][0]["content"].split()[1])))
        return echo(payload)

    with ChatServer(later_first) as server:
        teacher = teacher_of(server.url, tmp_path, concurrency=12, price_in=1.0, price_out=10.0)
        assert teacher.name == "endpoint:m"
        assert teacher.write(questions(12)) == [Draft(f"answer {i}", None, 7, 5) for i in range(12)]
        assert server.payloads[0].keys() == {"model", "messages", "max_tokens", "temperature"}
        assert (server.payloads[0]["model"], server.payloads[0]["temperature"]) == ("m", 0.0)
        assert sorted(server.prompts) == sorted(q.prompt for q in questions(12))
    assert teacher.write([]) == []
    # 12 x 7 = 84 tokens in at 1 a million, 12 x 5 = 60 out at 10 a million
    assert teacher.summary() == {
        "teacher": "endpoint:m",
        "assignments": 12,
        "requests": 12,
        "cache_hits": 0,
        "prompt_tokens": 84,
        "completion_tokens": 60,
        "estimated_answers": 0,
        "cost": pytest.approx((84 + 600) / 1e6),
        "problems": {},
        "examples": {},
    }


def test_nothing_is_asked_twice(tmp_path):
    same = [Question("other id", "question 1"), *questions(3), Question("third id", "question 1")]
    with ChatServer(echo) as server:
        teacher = teacher_of(server.url, tmp_path)
        first = teacher.write(same)
        assert texts(first) == ["answer 1", "answer 0", "answer 1", "answer 2", "answer 1"]
        assert len(server.payloads) == 3 and teacher.summary()["cache_hits"] == 2
        assert teacher.write(same) == first and len(server.payloads) == 3

        again = teacher_of(server.url, tmp_path, price_in=1.0)
        assert again.write([*same, *questions(1, start=3)])[:5] == first and server.prompts[3:] == ["question 3"]
        summary = again.summary()
        assert (summary["requests"], summary["cache_hits"], summary["prompt_tokens"]) == (1, 5, 7)
        assert summary["cost"] == pytest.approx(7 / 1e6)

        teacher_of(server.url, tmp_path, max_tokens=9).write(same[:1])  # other parameters are another question
        teacher_of(server.url, tmp_path, extra={"top_p": 0.9}).write(same[:1])
        EndpointTeacher(Endpoint(server.url, "n", "NO_SUCH_KEY"), cache_dir=tmp_path).write(same[:1])
        assert len(server.payloads) == 7
        teacher_of(server.url).write(same)
        assert len(server.payloads) == 10


def test_sampled_texts_have_seeds_of_their_own(tmp_path):
    same = [Question("a", "question 1"), Question("b", "question 1")]
    with ChatServer(lambda payload: says(f"by seed {payload['seed']}")) as server:
        first = teacher_of(server.url, tmp_path, temperature=0.7, seed=1).write(same)
        assert first[0] != first[1] and len(server.payloads) == 2
        assert all(0 <= payload["seed"] < 2**31 and payload["temperature"] == 0.7 for payload in server.payloads)
        assert teacher_of(server.url, tmp_path, temperature=0.7, seed=1).write(same[::-1]) == first[::-1]
        assert len(server.payloads) == 2
        assert texts(teacher_of(server.url, temperature=0.7, seed=2).write(same)) != texts(first)


def test_extra_fields_add_change_and_take_out(tmp_path):
    extra = {"max_tokens": None, "max_completion_tokens": 9, "temperature": 1}
    with ChatServer(lambda payload: says("cut", "length")) as server:
        for count in (1, 2):  # what was truncated when sampled is asked again
            teacher_of(server.url, tmp_path, extra=extra).write(questions(1))
            assert len(server.payloads) == count
        assert server.payloads[0].keys() == {"model", "messages", "max_completion_tokens", "temperature", "seed"}
        assert server.payloads[0]["temperature"] == 1
        teacher_of(server.url, extra=extra | {"temperature": None, "seed": None}).write(questions(1))
        assert server.payloads[2].keys() == {"model", "messages", "max_completion_tokens"}


@pytest.mark.parametrize("bound", [1, 3, 7])
def test_as_many_at_once_as_the_bound_and_never_more(bound):
    meeting = threading.Barrier(bound)  # nobody is answered before that many are under way

    def reply(payload: dict) -> Reply:
        meeting.wait(20)
        return echo(payload)

    with ChatServer(reply) as server:
        drafts = teacher_of(server.url, concurrency=bound, timeout_seconds=30).write(questions(4 * bound))
        assert texts(drafts) == [f"answer {i}" for i in range(4 * bound)]
        assert server.peak == bound and len(server.payloads) == 4 * bound


def test_the_request_limit_holds():
    with ChatServer(echo) as server:
        teacher_of(server.url, concurrency=8, requests_per_minute=1200).write(questions(13))  # one every 50 ms
        assert 0.5 <= server.times[-1] - server.times[0] < 5  # the 13th starts 12 x 50 ms after the first


def test_tries_count_against_the_request_limit():
    fails = iter([Reply(500)] * 6)
    with ChatServer(lambda payload: next(fails, None) or echo(payload)) as server:
        teacher = teacher_of(server.url, concurrency=3, requests_per_minute=1200, tries=9)
        assert problems(teacher.write(questions(3))) == [None] * 3
        assert len(server.payloads) == 9 == teacher.summary()["requests"]
        assert server.times[-1] - server.times[0] >= 8 * 0.05 - 0.1


def test_the_token_limit_holds():
    # 60 a second. "question 1" is estimated at 3 tokens, the first answer at 9 (its limit). The server counts 7 + 5:
    # once that is known, each request takes 3 + 5 and is corrected by 4, so that 12 tokens take 0.2 s.
    with ChatServer(echo) as server:
        teacher_of(server.url, concurrency=1, tokens_per_minute=3600, max_tokens=9).write(questions(5))
        assert 4 * 0.2 - 0.1 <= server.times[-1] - server.times[0] < 5


# -- what goes wrong ------------------------------------------------------------------------------------------------


def test_passing_trouble_leaves_no_trace(tmp_path):
    trouble = {
        "question 0": [Reply(429, b"", {"Retry-After": "0.3"})],
        "question 1": [Reply(500), Reply(503)],
        "question 2": [Reply(200, b'{"choi', cut=True)],
    }
    lock = threading.Lock()

    def reply(payload: dict) -> Reply:
        with lock:
            left = trouble.get(payload["messages"][0]["content"])
            return left.pop(0) if left else echo(payload)

    with ChatServer(reply) as server:
        teacher = teacher_of(server.url, tmp_path, tries=3)
        assert texts(teacher.write(questions(4))) == [f"answer {i}" for i in range(4)]
        assert Counter(server.prompts) == {"question 0": 2, "question 1": 3, "question 2": 2, "question 3": 1}
        first, second = (
            time for time, prompt in zip(server.times, server.prompts, strict=True) if prompt == "question 0"
        )
        assert second - first >= 0.3
        assert (teacher.summary()["requests"], teacher.summary()["problems"]) == (8, {})


BAD = {
    "teacher_unreachable": (lambda: Reply(500, "broken"), 2, False),
    "teacher_timeout": (lambda: time.sleep(0.9) or says("late"), 2, False),
    "teacher_malformed": (lambda: Reply(200, b'{"choices": [{'), 1, False),
    "teacher_empty": (lambda: says(" \n"), 1, False),
    "teacher_truncated": (lambda: says("and so on and", "length"), 1, True),
    "teacher_reply_too_long": (lambda: says("tea " * (1 << 14) + "!"), 1, False),
    "teacher_refused": (lambda: says("I'm sorry, but I can't help with that."), 1, True),
}
"""Problem -> the reply, the requests it takes with two tries, whether it is kept at temperature 0."""


@pytest.mark.parametrize("problem", BAD)
def test_what_is_not_usable_is_named_and_the_rest_goes_on(tmp_path, problem):
    reply, tries, kept = BAD[problem]
    bad = {"question 1", "question 3"}
    with ChatServer(lambda p: reply() if p["messages"][0]["content"] in bad else echo(p)) as server:
        timeout = 0.5 if problem == "teacher_timeout" else 5.0
        teacher = teacher_of(server.url, tmp_path, timeout_seconds=timeout)
        drafts = teacher.write(questions(5))
        assert texts(drafts) == ["answer 0", None, "answer 2", None, "answer 4"]
        assert problems(drafts) == [None, problem, None, problem, None]
        assert Counter(server.prompts) == {f"question {i}": tries if i in (1, 3) else 1 for i in range(5)}
        summary = teacher.summary()
        assert summary["problems"] == {problem: 2} and summary["requests"] == 3 + 2 * tries
        assert list(summary["examples"]) == [problem] and summary["examples"][problem]
        answered = problem in ("teacher_empty", "teacher_truncated", "teacher_reply_too_long", "teacher_refused")
        assert summary["prompt_tokens"] == 7 * (5 if answered else 3)  # what was answered is paid for
        assert drafts[1].completion_tokens == (5 if answered else 0)

        before = len(server.payloads)
        again = teacher_of(server.url, tmp_path, timeout_seconds=timeout).write(questions(5))
        assert again == drafts and len(server.payloads) - before == (0 if kept else 2 * tries)


def test_of_a_reply_of_megabytes_one_is_read_and_nothing_checked(tmp_path):
    with ChatServer(lambda p: Reply(200, b"{" + b" " * (1 << 25)) if "1" in str(p) else echo(p)) as server:
        teacher = teacher_of(server.url, tmp_path)
        assert problems(teacher.write(questions(3))) == [None, "teacher_reply_too_long", None]
        assert "a reply of more than 1048576 bytes, beginning with b'{  " in str(teacher.summary()["examples"])
        # where more is asked for, more may come
        assert teacher_of(server.url, tmp_path, max_tokens=1 << 16).endpoint.max_reply_bytes == 1 << 22


def test_what_is_refused_when_sampled_is_asked_again(tmp_path):
    with ChatServer(lambda payload: says("cut", "length")) as server:
        for count in (1, 2):
            assert problems(teacher_of(server.url, tmp_path, temperature=0.5).write(questions(1))) == [
                "teacher_truncated"
            ]
            assert len(server.payloads) == count


def test_a_request_the_server_refuses_is_quarantined():
    long = {"error": {"message": "maximum context length is 4096 tokens"}}
    with ChatServer(lambda p: Reply(400, long) if "1" in p["messages"][0]["content"] else echo(p)) as server:
        teacher = teacher_of(server.url)
        assert problems(teacher.write(questions(3))) == [None, "teacher_refused", None] and len(server.payloads) == 3
        assert "maximum context length" in teacher.summary()["examples"]["teacher_refused"]


def test_tokens_that_the_server_does_not_count_are_estimated_and_marked():
    with ChatServer(lambda payload: says("tea tea", usage=None)) as server:  # 7 bytes: 2 tokens
        teacher = teacher_of(server.url, price_in=1, price_out=1)
        assert teacher.write(questions(2)) == [Draft("tea tea", None, 3, 2)] * 2  # "question 0": 10 bytes, 3 tokens
        summary = teacher.summary()
    assert (summary["estimated_answers"], summary["prompt_tokens"], summary["completion_tokens"]) == (2, 6, 4)
    assert summary["cost"] == pytest.approx(10 / 1e6)


# -- what ends a run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 402, 403, 404, 308])
def test_a_wrong_key_model_or_url_ends_the_run_at_once(tmp_path, status):
    with ChatServer(lambda payload: Reply(status, "no")) as server:
        with pytest.raises(EndpointError, match=rf"refused the request \(status {status}"):
            teacher_of(server.url, tmp_path, concurrency=2).write(questions(50))
        assert len(server.payloads) <= 2


def test_failures_in_a_row_end_the_run_and_it_can_go_on(tmp_path):
    down = threading.Event()

    def reply(payload: dict) -> Reply:
        if len(server.payloads) > 30:
            down.set()
        return Reply(503, "overloaded") if down.is_set() else echo(payload)

    with ChatServer(reply) as server:
        teacher = teacher_of(server.url, tmp_path, concurrency=4, max_consecutive_failures=5)
        with pytest.raises(EndpointError) as caught:
            teacher.write(questions(200))
        message = str(caught.value)
        assert "endpoint:m: 5 requests in a row brought nothing usable (5 teacher_unreachable), last: " in message
        assert "status 503" in message and f"answers so far are kept in {tmp_path}" in message
        assert len(server.payloads) <= 30 + 2 * (5 + 4)  # two tries of five and of what was under way
        kept = len(read_jsonl(tmp_path / "answers.jsonl"))
        assert kept == 30

        server.answer, before = echo, len(server.payloads)
        assert texts(teacher.write(questions(200))) == [f"answer {i}" for i in range(200)]
        assert len(server.payloads) - before == 200 - kept


def test_a_server_that_is_down(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    teacher = teacher_of(f"http://127.0.0.1:{port}/v1", tmp_path)
    assert problems(teacher.write(questions(3))) == ["teacher_unreachable"] * 3
    with pytest.raises(EndpointError, match=r"20 requests in a row .* Connection refused"):
        teacher.write(questions(40))


def test_failures_that_are_not_in_a_row_end_nothing():
    calls = iter(range(10_000))
    with ChatServer(lambda payload: Reply(200, b"?") if next(calls) % 3 else echo(payload)) as server:
        drafts = teacher_of(server.url, concurrency=1, max_consecutive_failures=3).write(questions(60))
    assert Counter(problems(drafts)) == {None: 20, "teacher_malformed": 40}


def test_a_model_that_declines_ends_nothing():
    with ChatServer(lambda payload: says("抱歉\uff0c我无法回答", usage=None)) as server:
        assert set(problems(teacher_of(server.url).write(questions(60)))) == {"teacher_refused"}
    filtered = {"error": {"code": "content_filter"}}
    with ChatServer(lambda payload: Reply(400, filtered)) as server:
        assert set(problems(teacher_of(server.url).write(questions(60)))) == {"teacher_refused"}
    with (
        ChatServer(lambda payload: Reply(400, "unknown field temperature")) as server,
        pytest.raises(EndpointError, match=r"20 requests in a row .*20 teacher_refused.*unknown field temperature"),
    ):
        teacher_of(server.url).write(questions(60))


KILLED = """
import sys
from pathlib import Path
from onereason.cognition.teachers.endpoint import EndpointTeacher
from onereason.endpoint import Endpoint
from tests.cognition.teachers.assignments import questions
endpoint = Endpoint(sys.argv[1], "m", "NO_SUCH_KEY")
EndpointTeacher(endpoint, cache_dir=Path(sys.argv[2]), concurrency=4).write(questions(60))
"""


def test_after_a_kill_only_what_has_no_answer_is_asked(tmp_path, repository):
    enough = threading.Event()

    def reply(payload: dict) -> Reply:
        if len(server.payloads) >= 25:
            enough.set()
        time.sleep(0.01)
        return echo(payload)

    with ChatServer(reply) as server:
        process = subprocess.Popen([sys.executable, "-c", KILLED, server.url, str(tmp_path)], cwd=repository)
        assert enough.wait(30)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.1)
        before = list(server.prompts)
        lines = (tmp_path / "answers.jsonl").read_bytes().splitlines(keepends=True)
        kept = {json.loads(line)["content"].replace("answer", "question") for line in lines if line.endswith(b"\n")}
        assert len(before) < 60 and len(before) - 4 <= len(kept) <= len(before)  # at most what was under way is lost

        teacher = teacher_of(server.url, tmp_path)
        assert texts(teacher.write(questions(60))) == [f"answer {i}" for i in range(60)]
        after = server.prompts[len(before) :]
        assert sorted(after) == sorted({q.prompt for q in questions(60)} - kept)
        assert teacher.summary()["cache_hits"] == len(kept)


def test_a_full_cache_ends_the_run_with_a_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with ChatServer(echo) as server:
        with pytest.raises(StorageError, match="cannot be written"):
            teacher_of(server.url, tmp_path / "file").write(questions(1))
        assert not server.payloads


# -- where it runs --------------------------------------------------------------------------------------------------


def test_it_runs_inside_an_event_loop():
    async def cell() -> list[Draft]:
        return teacher_of(server.url).write(questions(3))

    with ChatServer(echo) as server:
        assert texts(asyncio.run(cell())) == ["answer 0", "answer 1", "answer 2"]


def test_it_can_be_handed_to_other_processes(tmp_path):
    with ChatServer(echo) as server:
        teacher = teacher_of(server.url, tmp_path, requests_per_minute=10**6, tokens_per_minute=10**8)
        teacher.write(questions(2))
        copy = pickle.loads(pickle.dumps(teacher))
        assert copy.summary()["assignments"] == 0 and copy.name == teacher.name
        assert texts(copy.write(questions(3))) == ["answer 0", "answer 1", "answer 2"] and len(server.payloads) == 3


def test_settings_that_cannot_be():
    endpoint = Endpoint("http://h/v1", "m")
    for settings, message in (
        ({"concurrency": 0}, "concurrency must be at least 1, got 0"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
        ({"max_consecutive_failures": 0}, "max_consecutive_failures must be at least 1"),
        ({"temperature": -0.1}, "temperature must be at least 0"),
        ({"temperature": float("nan")}, "temperature must be at least 0"),
        ({"price_in": -1}, "price_in must be at least 0"),
        ({"requests_per_minute": 0}, "requests_per_minute must be above 0, got 0"),
        ({"tokens_per_minute": -5}, "tokens_per_minute must be above 0, got -5"),
    ):
        with pytest.raises(ConfigError, match=message):
            EndpointTeacher(endpoint, **settings)
