"""Every task's extraction and score on answers written by hand."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from onereason.data.prompts import MODES
from onereason.errors import DataError
from onereason.evaluation.layers.tasks import TASK_NAMES, load_task
from onereason.evaluation.layers.tasks.base import LAYERS, EvaluationRow, GenerationSettings, Question
from onereason.itemic.format import load_format

FORMAT = load_format("onereason", 2, 8)
CHAIN = {
    "name": "tea",
    "events": [
        {"date": "2025-01-01", "action": "play a", "logic": "An interest in tea begins."},
        {"date": "2025-01-02", "action": "buy b", "logic": "The interest in tea holds."},
    ],
}


def row(task: str, **reference) -> EvaluationRow:
    return EvaluationRow("r", task, [{"role": "user", "content": "?"}], reference, format=FORMAT)


def score(task_name: str, text: str, **reference) -> dict[str, float] | None:
    """The scores of an answer, None where it is malformed."""
    task, asked = load_task(task_name), row(task_name, **reference)
    extraction = task.extract(text, asked)
    if extraction.malformed:
        return None
    scores = task.score(extraction, asked)
    assert tuple(scores) == task.metrics
    return scores


def test_every_task_is_whole():
    assert list(LAYERS) == list(dict.fromkeys(load_task(name).layer for name in TASK_NAMES))  # and in their order
    for name in TASK_NAMES:
        task = load_task(name)
        assert (task.name, task.version >= 1) == (name, True) and task.metrics and task.reference
        assert set(task.generation.modes) == set(MODES)


def test_an_unknown_task_is_named_with_the_nearest():
    with pytest.raises(DataError, match=r"task .captions. is not known; did you mean caption\?"):
        load_task("captions")
    with pytest.raises(DataError, match="known tasks are caption, grounding"):
        load_task("xyz")


def test_caption():
    # true: red tea cup (3), generated: red cup (2): both 2 -> precision 1, recall 2/3, F1 .8, in order too
    assert score("caption", "red cup", caption="red tea cup") == pytest.approx({"token_f1": 0.8, "rouge_l": 0.8})
    # cup red: the longest common subsequence is 1 -> precision 1/2, recall 1/3, F1 .4
    assert score("caption", "Cup, red!", caption="red tea cup") == pytest.approx({"token_f1": 0.8, "rouge_l": 0.4})
    assert score("caption", " \n", caption="red") is None
    task, asked = load_task("caption"), row("caption", caption="red tea")
    assert task.grading.questions(task.extract("a cup", asked), asked) == [Question("caption", "red tea", "a cup")]


def test_grounding():
    true = {"pattern": "<|prod_begin|><s_a_1><s_b_2>"}
    assert score("grounding", "It is <|prod_begin|><s_a_1><s_b_2>.", **true) == {"pass_at_1": 1.0}
    assert score("grounding", "<|prod_begin|><s_a_1><s_b_2><|prod_end|>", **true) == {"pass_at_1": 1.0}
    assert score("grounding", "<|video_begin|><s_a_1><s_b_2>", **true) == {"pass_at_1": 0.0}
    # the first item counts, whatever follows
    both = "<|prod_begin|><s_a_1><s_b_3> or <|prod_begin|><s_a_1><s_b_2>"
    assert score("grounding", both, **true) == {"pass_at_1": 0.0}
    assert score("grounding", "<|prod_begin|><s_a_1>", **true) is None
    assert score("grounding", "the red one", **true) is None


def test_choices():
    true = {"answer": "B", "choices": ["red tea", "green tea", "coffee"]}
    for name in ("item_qa", "item2item", "choice"):
        assert score(name, "B", **true) == score(name, "The answer is B.", **true) == {"accuracy": 1.0}
        assert score(name, "Green tea.", **true) == {"accuracy": 1.0}  # the choice, word for word
        assert score(name, "A", **true) == {"accuracy": 0.0}
        assert score(name, "D", **true) is None  # no such choice
        assert score(name, "green", **true) is None
    pattern = ["<|prod_begin|><s_a_1><s_b_2>", "<|prod_begin|><s_a_1><s_b_3>"]
    assert score("item2item", pattern[1], answer="A", choices=pattern) == {"accuracy": 0.0}
    assert score("item2item", pattern[0], answer="A", choices=pattern) == {"accuracy": 1.0}


def test_several_letters_must_all_be_right():
    assert score("choice", "C, A", answer="AC") == {"accuracy": 1.0}
    assert score("choice", "A", answer="AC") == {"accuracy": 0.0}
    assert score("choice", "ABC", answer="AC") == {"accuracy": 0.0}


def test_action_selection():
    true = {"actions": ["d1 play a", " d2 buy b"]}
    found = score("action_selection", '```json\n["d1 play a", "d3 play c", "d1 play a"]\n```', **true)
    assert found == {"f1": 0.5, "precision": 0.5, "recall": 0.5}
    assert score("action_selection", "[]", **true) == {"f1": 0, "precision": 0, "recall": 0}
    assert score("action_selection", "[]", actions=[]) == {"f1": 1, "precision": 1, "recall": 1}
    assert score("action_selection", "d1 play a", **true) is None
    assert score("action_selection", '["d1 play a"', **true) is None


@pytest.mark.parametrize("name", ["topic", "direct"])
def test_logic_chains(name):
    whole = json.dumps({"logic_chain": CHAIN})
    assert score(name, whole, logic_chain=CHAIN) == pytest.approx({"action_f1": 1.0, "logic_f1": 1.0})
    # One of two events: action and logic similarity 1 on one pair, precision 1/1, recall 1/2.
    half = json.dumps(CHAIN | {"events": CHAIN["events"][1:]})
    assert score(name, half, logic_chain=CHAIN) == pytest.approx({"action_f1": 2 / 3, "logic_f1": 2 / 3})
    assert score(name, '{"logic_chain": []}', logic_chain=CHAIN) == {"action_f1": 0, "logic_f1": 0}
    assert score(name, '{"logic_chain": []}', logic_chain=[]) == {"action_f1": 1, "logic_f1": 1}
    assert score(name, "They like tea.", logic_chain=CHAIN) is None

    task, asked = load_task(name), row(name, logic_chain=CHAIN)
    logic = CHAIN["events"][1]["logic"]
    assert task.grading.questions(task.extract(half, asked), asked) == [Question("entailment", logic, logic)]
    assert task.grading.questions(task.extract("[]", asked), asked) == 0.0
    none = row(name, logic_chain=[])
    assert task.grading.questions(task.extract("[]", none), none) == 1.0


def test_gsm8k():
    assert score("gsm8k", "16 - 7 = 9, so 9 * 2\n#### $18.00", answer="18") == {"exact_match": 1.0}
    assert score("gsm8k", "She makes 1,800 dollars", answer="18") == {"exact_match": 0.0}
    assert score("gsm8k", "I do not know", answer="18") is None
    assert load_task("gsm8k").extract("#### 18", row("gsm8k", answer="18")).value == Decimal(18)


def test_questions_are_asked_in_the_tasks_own_words():
    from onereason.evaluation.layers.tasks import action_selection, direct, grounding, gsm8k, item2item, item_qa, topic

    assert grounding.build_messages("red tea", "prod")[1]["content"] == "Which product is this? red tea"
    asked = item_qa.build_messages("<p>", "video", "price_range", ["low", "high"])[1]["content"]
    assert asked == "What is the price range of this video: <p>\nA. low\nB. high"
    asked = item2item.build_messages("<p>", "ad", ["<q>", "<r>"])[1]["content"]
    assert asked == "A user chose this advertisement: <p>\nWhich of these goes best with it?\nA. <q>\nB. <r>"
    timeline = ["2025-01-01 play <p>", "2025-01-02 buy <q>"]
    shown = "The user's timeline, oldest first:\n2025-01-01 play <p>\n2025-01-02 buy <q>\n"
    for messages, question in (
        (
            action_selection.build_messages(timeline, "tea"),
            "Which entries make up the longest episode of the user's interest in tea, those that it leads on to "
            "included?",
        ),
        (topic.build_messages(timeline, "tea"), "How does the user's interest in tea evolve in its longest episode?"),
        (direct.build_messages(timeline), "How does the user's main interest evolve?"),
    ):
        assert [m["role"] for m in messages] == ["system", "user"] and messages[1]["content"] == shown + question
    assert gsm8k.build_messages(" 1+1? ")[0]["content"].startswith("1+1?\nReason step by step")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"max_new_tokens": 0}, "max_new_tokens must be at least 1"), ({"temperature": -1}, "temperature must be")],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GenerationSettings(**settings)
