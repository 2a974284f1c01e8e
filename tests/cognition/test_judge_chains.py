"""Six questions about a logic chain."""

from __future__ import annotations

import pytest

from onereason.cognition.checks.json_checks import check_logic_chain
from onereason.cognition.judge.chains import ChainRules, judge_chain
from onereason.data.prompt_sets import load_prompt_set
from onereason.errors import ConfigError

TIMELINE = [f"2025-01-0{n} {verb} <v_{n}>" for n, verb in enumerate(("play", "play", "play", "buy"), 1)]
LOGIC = (
    "An interest in home baking begins with a first loaf.",
    "The interest in baking narrows to sourdough.",
    "From loaves, baking moves on to tins and mixers.",
    "After comparing gear, the baking becomes serious enough to buy a mixer.",
)


def chain(logic=LOGIC, name="home baking", places=(0, 1, 2, 3)):
    entries = [TIMELINE[place].split(" ", 1) for place in places]
    events = [
        {"date": date, "action": action, "logic": why} for (date, action), why in zip(entries, logic, strict=True)
    ]
    return {"name": name, "events": events}


def reasons(value, **rules) -> list[str]:
    assert check_logic_chain(value, TIMELINE) == []
    return [problem.reason for problem in judge_chain(value, TIMELINE, ChainRules(**rules))]


def test_a_good_chain():
    assert reasons(chain()) == []
    assert judge_chain(chain(), TIMELINE) == []


def test_the_same_said_again_and_again():
    same = ["The interest in home baking holds."] * 3
    assert reasons(chain(same, places=(0, 1, 2))) == ["chain_order_free", "chain_no_increment", "chain_no_depth"]


def test_steps_that_could_be_swapped():
    loose = ["Home baking: a video on dough.", "Home baking: a video on ovens.", "Home baking: a video on crusts."]
    assert reasons(chain(loose, places=(0, 1, 2))) == ["chain_order_free", "chain_no_depth"]


def test_another_interest():
    assert reasons(chain(name="jazz guitar")) == ["chain_no_convergence"]


def test_an_action_that_changes_is_a_change_of_depth():
    flat = ["Home baking is on.", "Then home baking holds, with ovens."]
    assert reasons(chain(flat, places=(0, 1))) == ["chain_no_depth"]
    assert reasons(chain(flat, places=(0, 1)), needs_depth=False) == []
    assert reasons(chain(flat, places=(2, 3))) == []  # play, then buy


def test_evidence_outside_the_timeline():
    value = chain()
    value["events"][1]["action"] = "play <v_9>"
    assert [p.reason for p in judge_chain(value, TIMELINE)] == ["chain_open_evidence"]
    cites = list(LOGIC)
    cites[1] += " It follows <v_1> and <v_2>."
    assert reasons(chain(cites)) == []
    cites[1] += " As does <v_8>."
    assert reasons(chain(cites)) == ["chain_open_evidence"]


@pytest.mark.parametrize(
    "text",
    [
        "The user secretly wants to move on.",
        "Baking, as the user feels lonely.",
        "The user desperately longs for bread.",
        "用户内心渴望烘焙。",
    ],
)
def test_mind_reading(text):
    found = judge_chain(chain([*LOGIC[:3], f"{LOGIC[3]} {text}"]), TIMELINE)
    assert {problem.reason for problem in found} == {"chain_mind_reading"}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_chains_of_the_template_teacher(language):
    """An interest that only holds teaches nothing; one that narrows or moves on does."""
    texts = load_prompt_set("evolution", language)

    def said(*steps):
        names = {"topic": "咖啡" if language == "zh" else "coffee", "side": "器具", "other": "烘焙"}
        return [texts.text(f"step.{step}").format(**names) for step in steps]

    name = "咖啡" if language == "zh" else "coffee"
    assert reasons(chain(said("trigger", "narrow", "move"), name, (0, 1, 2))) == []
    assert reasons(chain(said("trigger", "stay", "move", "stay"), name)) == []
    assert "chain_order_free" in reasons(chain(said("trigger", "stay", "stay", "stay"), name))


def test_short_chains():
    assert judge_chain({"name": "x", "events": []}, TIMELINE) == []
    assert reasons(chain(LOGIC[:1], places=(0,))) == []


def test_bad_rules():
    with pytest.raises(ConfigError, match="min_order must lie between 0 and 1, got 2"):
        ChainRules(min_order=2)
