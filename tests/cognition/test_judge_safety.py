"""What must not be inferred about a person, and what only sounds like it."""

# ruff: noqa: RUF001

from __future__ import annotations

import pytest

from onereason.cognition.judge.safety import check_safety, passes_luhn


def reasons(text: str, language: str = "en") -> list[str]:
    return [problem.reason for problem in check_safety(text, language)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The user is probably pregnant.", "sensitive_health"),
        ("The user has diabetes, so sugar-free items fit.", "sensitive_health"),
        ("She may be a recovering alcoholic", "sensitive_health"),
        ("The viewer suffers from severe insomnia.", "sensitive_health"),
        ("This person, it seems, is mentally ill.", "sensitive_health"),
        ("as if diagnosed with ADHD", "sensitive_health"),
        ("The user is a devout Christian.", "sensitive_religion"),
        ("He identifies as a Muslim", "sensitive_religion"),
        ("The customer is clearly a Republican", "sensitive_politics"),
        ("The user is likely gay.", "sensitive_sexuality"),
        ("The shopper is Asian", "sensitive_ethnicity"),
        ("they are African American", "sensitive_ethnicity"),
        ("Reach them at jane.doe+x@mail.example.org now", "personal_email"),
        ("call +44 20 7946 0958", "personal_phone"),
        ("call (555) 867-5309", "personal_phone"),
        ("13812345678", "personal_phone"),
        ("pays with 4111 1111 1111 1111", "personal_card"),
        ("pays with 4111111111111111.", "personal_card"),
        ("lives at 221 Baker Street in London", "personal_address"),
    ],
)
def test_inferences(text, reason):
    assert reasons(text) == [reason]


@pytest.mark.parametrize(
    "text",
    [
        "The user browses Health & Beauty and Personal Care.",
        "An interest in diabetic recipes and pregnancy pillows.",
        "The user is interested in Christian music.",
        "The user is a fan of Jewish food",
        "It is a diabetic cookbook.",
        "The user is drawn to black dresses; the lipstick is black.",
        "She is black dress shopping",
        "The user has white shoes and Asian recipes in the history.",
        "Street food, then Baker Street Boys",
        "The user has an interest in wheelchair accessories",
        "conservative colours and liberal use of cream",
        "Eczema relief cream leads the recent steps.",
        "on 2025-01-03 2025-01-04 and 2025-01-05",
        "12 of 200 items, 1234567 plays, 300 400 5000",
        "8 fl oz, 4111 1111 1111 1112",
        "",
    ],
)
def test_no_inferences(text):
    assert reasons(text) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("该用户可能怀孕了。", "sensitive_health"),
        ("用户患有糖尿病，因此选择无糖食品", "sensitive_health"),
        ("此人很可能是一名虔诚的基督徒", "sensitive_religion"),
        ("用户是共和党人", "sensitive_politics"),
        ("他应该是同性恋", "sensitive_sexuality"),
        ("该用户是少数民族", "sensitive_ethnicity"),
        ("家住北京市海淀区中关村大街27号", "personal_address"),
        ("联系电话13812345678", "personal_phone"),
    ],
)
def test_chinese_inferences(text, reason):
    assert reasons(text, "zh") == [reason]


@pytest.mark.parametrize(
    "text",
    [
        "用户多看健康与美容类目",
        "用户近期关注孕妇装和糖尿病食品",
        "对佛教题材视频的兴趣延续",
        "用户是美妆爱好者",
        "第12号商品，共27次",
    ],
)
def test_no_chinese_inferences(text):
    assert reasons(text, "zh") == []


def test_check_digits():
    # 4 doubled ... by hand for 79927398713, the example of the standard's annex
    assert passes_luhn("79927398713") and not passes_luhn("79927398710")
