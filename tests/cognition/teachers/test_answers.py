"""Answers of endpoints: what is text, what is a refusal, and what came with it."""

from __future__ import annotations

import pytest

from onereason.cognition.teachers.answers import ChatAnswer, estimate_tokens, find_problem, is_refusal, read_chat_answer
from onereason.cognition.teachers.base import Draft
from onereason.cognition.teachers.template import TemplateTeacher
from onereason.endpoint import EndpointMalformed
from tests.chat_server import says
from tests.cognition.teachers.assignments import Question

MESSAGES = [{"role": "system", "content": "ab"}, {"role": "user", "content": "推荐"}]


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that request.",
        "I\u2019m sorry, I can\u2019t help with that.",
        "Sorry, I cannot write this.",
        "I am very sorry but I am not able to do that",
        "I apologize, but I cannot fulfill this request",
        "I can't provide information about this user.",
        "I cannot ethically generate a profile",
        "I'm unable to help with this.",
        "**I am unable to comply.**",
        "Unfortunately, I cannot assist you here.",
        "I must respectfully decline.",
        "As an AI language model, I don't have feelings and I cannot guess.",
        "抱歉\uff0c我无法回答这个问题。",
        "很抱歉,作为一个人工智能助手,我不能提供这类内容。",
        "对不起\uff0c这个问题我暂时无法回答",
        "抱歉\uff0c无法提供",
        "我无法为您生成这段内容",
        "作为AI语言模型\uff0c我无法判断。",
    ],
)
def test_refusals(text):
    assert is_refusal(text) and is_refusal("\n " + text) and find_problem(text) == "teacher_refused"


@pytest.mark.parametrize(
    "text",
    [
        "The user can't sleep without tea, so the next item is tea.",
        "I can't sleep without tea.",
        "I cannot wait for the next season",
        "Sorry to hear that the parcel is late",
        "Sorry stories are what this user likes",
        "I am able to help",
        "As an air fryer owner, the user likes chips. I cannot say more.",
        "We can write it down: tea.",
        "The user clicked it. I'm sorry, but I can't help with that.",  # only the opening counts
        "我无法抗拒巧克力",
        "抱歉的表情包视频很受欢迎",
        "这位用户无法提供地址",
        "作为一个手工爱好者\uff0c用户不能没有剪刀",
    ],
)
def test_what_is_no_refusal(text):
    assert not is_refusal(text) and find_problem(text) is None


@pytest.mark.parametrize(
    ("answer", "text", "problem"),
    [
        (ChatAnswer(" tea \n", "stop"), "tea", None),
        (ChatAnswer("<think>\nhm\n</think>\n\ntea", "stop"), "tea", None),
        (ChatAnswer("hm</think>tea<|im_end|>", None), "tea", None),
        (ChatAnswer("<think>\nI cannot help\n</think>\n\ntea", "stop"), "tea", None),
        (ChatAnswer("<think>\nhm", "length"), None, "teacher_truncated"),
        (ChatAnswer("<think>\nhm", "stop"), None, "teacher_empty"),
        (ChatAnswer("te", "length"), None, "teacher_truncated"),
        (ChatAnswer("", "length"), None, "teacher_truncated"),
        (ChatAnswer(" \n", "stop"), None, "teacher_empty"),
        (ChatAnswer("tea", "content_filter"), None, "teacher_refused"),
        (ChatAnswer("", "stop", "not this"), None, "teacher_refused"),
        (ChatAnswer("抱歉\uff0c我无法回答", "stop"), None, "teacher_refused"),
    ],
)
def test_drafts_of_answers(answer, text, problem):
    assert answer.to_draft() == Draft(text, problem)


def test_what_a_server_sends_is_read():
    found = read_chat_answer(says("tea", usage=(3, 2), refusal=None).body, "u", MESSAGES)
    assert found == ChatAnswer("tea", "stop", None, 3, 2, False)
    assert read_chat_answer(says(None, "length", refusal="no").body, "u", MESSAGES).refusal == "no"
    parts = [{"type": "text", "text": "te"}, {"type": "image"}, {"type": "text", "text": "a"}]
    assert read_chat_answer(says(parts, 3).body, "u", MESSAGES) == ChatAnswer("tea", None, None, 7, 5)


@pytest.mark.parametrize("usage", [None, (None, 2), ("3", 2), (3, -1), (True, 2)])
def test_tokens_are_estimated_where_the_server_does_not_count(usage):
    # "ab" has 2 bytes, so 1; two characters of 3 bytes have 6, so 2. "tea please" has 10, so 3; "hmm" 1.
    body = says("tea please", usage=usage, reasoning_content="hmm").body
    assert read_chat_answer(body, "u", MESSAGES) == ChatAnswer("tea please", "stop", None, 3, 4, True)


def test_estimates():
    assert estimate_tokens([]) == estimate_tokens([""]) == 0 and estimate_tokens(["abcd", "e", "\ud800"]) == 3


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": ["a"]},
        {"choices": None, "error": {"message": "overloaded"}},
        {"choices": [{"text": "a"}]},
        {"choices": [{"message": "a"}]},
        {"choices": [{"message": {"content": 3}}]},
    ],
)
def test_what_is_no_answer(body):
    with pytest.raises(EndpointMalformed, match="u answered"):
        read_chat_answer(body, "u", MESSAGES)


def test_the_template_teacher_writes_what_assignments_compose():
    teacher = TemplateTeacher()
    assert teacher.write([Question("a", "p", "tea"), Question("b", "p", "")]) == [
        Draft("tea"),
        Draft(None, "teacher_empty"),
    ]
    assert teacher.write([]) == []
    assert teacher.summary() == {"teacher": "template", "assignments": 2, "problems": {"teacher_empty": 1}}
