"""The answer of a chat endpoint -> a draft: what was said, whether it is usable, and what it cost."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from onereason.cognition.teachers.base import EMPTY, MAX_TEXT_CHARS, REFUSED, REPLY_TOO_LONG, TRUNCATED, Draft
from onereason.data.chat import parse_answer
from onereason.endpoint import EndpointMalformed, first_choice

_CANNOT = "(?:can(?:'?t|not| not)|won'?t|(?: am|'m) (?:unable|not able|not allowed|not permitted) to)"
_DO = (
    "(?:help|assist|provide|comply|fulfil+|answer|generate|create|write|produce|continue|complete|support|engage|share|"
    "respond|discuss|do (?:that|this|so)|process|proceed|offer)"
)
_UNABLE = "(?:暂时|目前|还|现在)?(?:无法|無法|不能|不便|没法|没有办法|不可以)"
_DO_ZH = "(?:提供|回答|协助|帮助|生成|完成|满足|执行|讨论|处理|编写|撰写|写|给出|参与|回应|进行)"
_MODEL_ZH = "(?:AI|人工智能|语言模型|大模型|大型语言模型|大语言模型|智能助手)"
_SORRY_ZH = "(?:非常|很|十分|真的|实在)?(?:抱歉|对不起|對不起|不好意思|遗憾)"
_OPENINGS = (
    f"(?:(?:i'?m|i am) )?(?:very |really |so |truly )?(?:sorry|afraid)[,.;:]? (?:but |that )?(?:i|we) ?{_CANNOT}",
    f"(?:i apologi[sz]e|my apologies|apologies)[,.;:]? (?:but )?(?:i|we) ?{_CANNOT}",
    f"(?:unfortunately,? )?(?:i|we) ?{_CANNOT} (?:[a-z]+ly )?{_DO}\\b",
    "i (?:must|have to) (?:respectfully |politely )?(?:decline|refuse)",
    f"as an? (?:ai|artificial intelligence|(?:large )?language model)\\b[^.]{{0,80}}?\\bi ?{_CANNOT}",
    f"{_SORRY_ZH}(?:\\W+(?:作为[^,。]{{0,20}},)?[^,。]{{0,10}}?我们?|\\W+|我)?{_UNABLE}",
    f"我们?{_UNABLE}(?:[为给帮][您你]|按照?要求|继续|直接)?{_DO_ZH}",
    f"作为(?:一[个名款])?{_MODEL_ZH}[^。]{{0,30}}?{_UNABLE}",
)
_REFUSAL = re.compile(rf"\W*(?:{'|'.join(_OPENINGS)})".replace(" ?", r"\s*").replace(" ", r"\s+"), re.IGNORECASE)
_OPENING_LENGTH = 300
_PLAIN = str.maketrans({"\u2019": "'", "\uff0c": ","})
"""Typographic apostrophe and full-width comma -> the plain ones the patterns hold."""


def is_refusal(text: str) -> bool:
    """Whether a text opens as a model's refusal does, in English or Chinese.

    Only the opening counts, and it must say that the writer will not do what was asked: a user's own "I can't sleep"
    or "sorry to hear" is none.
    """
    return _REFUSAL.match(text[:_OPENING_LENGTH].translate(_PLAIN)) is not None


def find_problem(text: str, truncated: bool = False) -> str | None:
    """Why the text of an answer (its think block taken off) cannot be used, None where it can."""
    if truncated:
        return TRUNCATED
    if not text:
        return EMPTY
    if len(text) > MAX_TEXT_CHARS:
        return REPLY_TOO_LONG
    return REFUSED if is_refusal(text) else None


def estimate_tokens(texts: Iterable[str]) -> int:
    """About how many tokens texts have: one for four bytes of UTF-8, so about one for a Chinese character."""
    return sum(-(-len(text.encode("utf-8", "surrogatepass")) // 4) for text in texts)


@dataclass(frozen=True)
class ChatAnswer:
    """An answer as the server gave it; the fields are those of a cached record.

    Attributes:
        content: the text, with a think block where the model wrote one.
        finish_reason: `stop`, `length`, `content_filter`, ..., as the server calls it.
        refusal: the text of the field some servers refuse in.
        prompt_tokens, completion_tokens: from the server, or estimated.
        estimated: the server did not say how many tokens it read and wrote.
    """

    content: str
    finish_reason: str | None = None
    refusal: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False

    def to_draft(self) -> Draft:
        problem: str | None
        text = parse_answer(self.content).answer
        if self.refusal or self.finish_reason == "content_filter":
            problem = REFUSED
        else:
            problem = find_problem(text, self.finish_reason == "length")
        return Draft(None if problem else text, problem, self.prompt_tokens, self.completion_tokens)


def read_chat_answer(body: Mapping[str, Any], url: str, messages: Iterable[Mapping[str, str]]) -> ChatAnswer:
    """The first choice of a chat completion; `EndpointMalformed` where there is none that can be read."""
    choice = first_choice(body, url)
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else 0
    if isinstance(content, list):  # some servers send parts
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    if not isinstance(message, dict) or not isinstance(content, str | None):
        raise EndpointMalformed(f"{url} answered a choice without a message: {str(choice)[:120]}")
    content = content or ""
    usage = body.get("usage")
    counts = [usage.get(f"{kind}_tokens") if isinstance(usage, dict) else None for kind in ("prompt", "completion")]
    known = all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts)
    if not known:
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        counts = [
            estimate_tokens(str(m.get("content") or "") for m in messages),
            estimate_tokens([content, reasoning if isinstance(reasoning, str) else ""]),
        ]
    reason, refusal = choice.get("finish_reason"), message.get("refusal")
    return ChatAnswer(
        content,
        reason if isinstance(reason, str) else None,
        refusal if isinstance(refusal, str) else None,
        int(counts[0] or 0),
        int(counts[1] or 0),
        not known,
    )
