"""What a trace that a model wrote has to pass beyond what holds for a template's."""

from __future__ import annotations

import pytest

from onereason.cognition.gate import TraceCase, TraceGate, parse_thresholds
from onereason.cognition.normalise import cjk_share, share_a_word
from onereason.errors import ConfigError
from tests.cognition_worlds import make_facts

THEMES = ("jazz guitar", "board games", "home baking")
FACTS = make_facts([("video", {"category": THEMES[n % 3], "style": "plain"}) for n in range(24)])
SHOWN = [0, 3, 4]  # jazz guitar, jazz guitar, board games
TARGET = 8  # home baking


def gate(language: str = "en") -> TraceGate:
    return TraceGate(FACTS, list(THEMES), language, interest_of=[n % 3 for n in range(24)])


def trace(first: str, second: str, conclusion: str = "so jazz guitar most likely holds in the next video") -> str:
    cited = [FACTS.patterns[i] for i in SHOWN]
    return (
        f"Persona: the user tends to choose plain things to watch in the evening.\nInterests:\n1. {first}, seen in "
        f"{cited[0]} and {cited[1]}\n2. {second}, seen in {cited[2]}\nTransition: the recent steps show jazz guitar, "
        f"{conclusion}."
    )


def reason(text: str, language: str = "en") -> str | None:
    problem = gate(language).check_traces([TraceCase("r", text, SHOWN, TARGET)])[0]
    return None if problem is None else problem.reason


def test_interests_that_speak_of_what_they_cite_pass():
    assert reason(trace("jazz guitar playing", "games on a board")) is None


def test_an_interest_that_says_nothing_of_what_it_cites_is_rejected():
    assert reason(trace("something broad", "games on a board")) == "interest_ungrounded"
    assert reason(trace("jazz guitar playing", "home baking")) == "interest_ungrounded"  # item 4 is about board games


def test_an_interest_may_bear_the_name_of_what_its_items_serve():
    linked = gate()
    linked.interest_of = [2] * 24  # every item serves home baking, whatever it is about
    text = trace("home baking", "games on a board").replace("recent steps show jazz guitar", "steps show home baking")
    linked_case = TraceCase("r", text.replace("so jazz guitar", "so home baking"), SHOWN, TARGET)
    assert linked.check_traces([linked_case]) == [None]


def test_a_trace_without_any_citation_has_no_evidence():
    bare = trace("jazz guitar", "board games")
    for item in SHOWN:
        bare = bare.replace(FACTS.patterns[item], "some items")
    assert reason(bare) == "interests_without_evidence"


def test_a_trace_in_the_other_language_is_rejected():
    persona = "the user tends to choose plain things to watch in the evening"
    chinese = trace("jazz guitar", "board games").replace(
        persona, "这位用户晚上喜欢看简单朴素的内容也会反复回到同一类主题" * 4
    )
    assert reason(chinese) == "wrong_language"
    text = f"{FACTS.patterns[0]} goes with jazz guitar, so that interest most likely holds."
    assert gate().check_rationale(text, SHOWN, TARGET) is None
    problem = gate("zh").check_rationale(text, SHOWN, TARGET)
    assert problem is not None and problem.reason == "wrong_language"


def test_words_and_characters_in_common():
    assert share_a_word("Plain JAZZ, guitars", "a jazz guitar") and not share_a_word("of it", "it is of")
    assert share_a_word("爵士吉他", "学吉他") and not share_a_word("爵士", "学吉他")
    # 2 of 6 letters
    assert cjk_share("abcd 吉他") == pytest.approx(2 / 6) and cjk_share("12 !") == 0


def test_thresholds_are_read_and_bad_ones_refused():
    assert parse_thresholds("logic=0.5").logic == 0.5 and parse_thresholds(None).safety == 1.0
    for text in ("logic", "logic=2", "taste=1", "logic=x"):
        with pytest.raises(ConfigError, match="--judge-thresholds"):
            parse_thresholds(text)
