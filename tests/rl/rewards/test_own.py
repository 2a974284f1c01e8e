"""A user's own reward: found by its path, called with options, and held to a shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onereason.errors import ConfigError, RewardError
from onereason.rl.rewards import RewardTerm, build_reward
from onereason.rl.rewards.own import load_own_reward
from tests.rl.reward_worlds import make_inputs

HERE = "tests.rl.reward_worlds"
INPUTS = make_inputs(
    [[[[3, 0], [5, 1]], [[2, 0], [-1, -1]]]], valid=[[[True, False], [True, True]]], trace_lengths=np.array([[7, 9]])
)


@pytest.mark.parametrize("path", [f"{HERE}:first_codes", f"{HERE}.first_codes"])
def test_a_function_of_items(path: str) -> None:
    assert load_own_reward(path, {})(INPUTS).tolist() == [[[3, 0], [2, -1]]]
    total = build_reward([RewardTerm(path, options={"factor": 2.0})]).compute(INPUTS)
    assert total.total.tolist() == [[[6, 0], [4, -2]]]
    assert list(total.terms) == ["first_codes"]


def test_a_function_of_traces() -> None:
    assert load_own_reward(f"{HERE}:of_traces", {})(INPUTS).tolist() == [[[7, 0], [9, 9]]]


def test_a_module_beside_the_run_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rewards_of_a_test.py").write_text(
        "import numpy as np\n\ndef half(inputs, *, of=1.0):\n    return np.full(inputs.shape, of / 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    term = RewardTerm("my_rewards_of_a_test:half", options={"of": 3.0})
    assert build_reward([term]).compute(INPUTS).total.tolist() == [[[1.5, 0], [1.5, 1.5]]]


def test_what_is_not_rolled_out_is_not_read() -> None:
    found = build_reward([RewardTerm(f"{HERE}:untellable")], not_finite="raise").compute(INPUTS)
    assert found.total.tolist() == [[[1, 0], [1, 1]]] and found.kept.all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("too_few", r"gives shape \(1,\), expected \(1, 2, 2\) \(groups, traces, items\) or \(1, 2\)"),
        ("words", r"gives list, no array of numbers"),
    ],
)
def test_what_it_gives_is_held_to_a_shape(name: str, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        load_own_reward(f"{HERE}:{name}", {})(INPUTS)


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("nowhere_at_all:f", {}, r"module 'nowhere_at_all' cannot be imported .*PYTHONPATH"),
        (f"{HERE}:none_such", {}, rf"module '{HERE}' has no 'none_such'; write package.module:function"),
        (f"{HERE}:NOTHING", {}, rf"module '{HERE}' is no function \(int\): 'NOTHING'"),
        (f"{HERE}:", {}, r"is no path; write package.module:function"),
        (":first_codes", {}, r"is no path"),
        (".reward_worlds:first_codes", {}, r"is no path"),
        (f"{HERE}:first_codes", {"size": 2}, r"unexpected keyword argument 'size'; .* with options \['size'\]"),
    ],
)
def test_paths_and_options_that_do_not_fit(path: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_reward([RewardTerm(path, options=options)])
