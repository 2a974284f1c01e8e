"""Several rewards as one: products and sums by hand, groups that are left out, metrics, and configurations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onereason.config import build_config
from onereason.errors import ConfigError, RewardError
from onereason.rl.rewards import REWARDS, CombinedReward, RewardConfig, RewardTerm, build_reward
from tests.rl.reward_worlds import draw_inputs, make_inputs

HERE = "tests.rl.reward_worlds"
ODD = f"{HERE}:odd"


def build(*terms: tuple[str, dict[str, Any]] | str, combine: Any = "sum", **more: Any) -> CombinedReward:
    """Terms by name, or name with fields of `RewardTerm`."""
    made = [RewardTerm(t) if isinstance(t, str) else RewardTerm(t[0], **t[1]) for t in terms]
    return build_reward(made, combine, **more)


# Two traces of three items against (1, 1): a hit, a prefix of one level, nothing; nothing, nothing, not there.
HAND = make_inputs(
    [[[[1, 1], [1, 0], [2, 0]], [[0, 0], [2, 0], [1, 1]]]], [[[1, 1]]], valid=[[[True] * 3, [True, True, False]]]
)


def test_onereasons_product_by_hand() -> None:
    """Eq. 9-11: R = R_rule * R_div, with 2 distinct first codes of 3 items in each trace: R_div = 1/2."""
    found = RewardConfig().build().compute(HAND)
    assert found.total.tolist() == [[[0.5, 0, 0], [0, 0, 0]]]
    assert found.terms["hit"].tolist() == [[[1, 0, 0], [0, 0, 0]]]
    assert found.terms["diversity"].tolist() == [[[0.5, 0.5, 0.5], [0.5, 0.5, 0]]]
    assert found.kept.tolist() == [True] and found.skipped == {}


def test_a_weighted_sum_by_hand() -> None:
    reward = build(
        ("hit", {"weight": 2.0}), ("diversity", {"weight": -0.5}), ("graded", {"options": {"levels": (0.25, 1.0)}})
    )
    found = reward.compute(HAND)
    # 2 + 1 - 1/4; 1/4 - 1/4; -1/4; then twice -1/4, and nothing where no item is.
    assert found.total.tolist() == [[[2.75, 0, -0.25], [-0.25, -0.25, 0]]]
    assert found.terms["hit"].max() == 1  # logged without its weight


@pytest.mark.parametrize("combine", ["product", "sum"])
@pytest.mark.parametrize("seed", range(2))
def test_drawn_rollouts_equal_loops(combine: str, seed: int) -> None:
    inputs = draw_inputs(seed, levels=2)
    weights = (
        {"hit": 3.0, "diversity": 0.5, "first_codes": -2.0}
        if combine == "sum"
        else dict.fromkeys(("hit", "diversity", "first_codes"), 1.0)
    )
    paths = {"first_codes": f"{HERE}:first_codes"}
    found = build(*((paths.get(k, k), {"weight": w}) for k, w in weights.items()), combine=combine).compute(inputs)
    alone = {k: REWARDS[k]()(inputs) for k in ("hit", "diversity")}
    alone["first_codes"] = inputs.candidates[..., 0].astype(float)
    for g, n, k in np.ndindex(inputs.shape):
        values = [alone[key][g, n, k] for key in weights]
        expected = (
            values[0] * values[1] * values[2]
            if combine == "product"
            else float(sum(w * v for w, v in zip(weights.values(), values, strict=True)))
        )
        if not inputs.valid[g, n, k] or g == 2:  # its positive set is empty
            expected = 0.0
        assert found.total[g, n, k] == pytest.approx(expected, rel=1e-15)
    assert found.kept.tolist() == [True, True, False, True, True] and found.skipped == {"hit/no_positives": 1}


def test_groups_without_positives_are_left_out_where_that_matters() -> None:
    """None at all, and one that has no codes; a reward that asks for no positives keeps them."""
    inputs = make_inputs(np.zeros((3, 2, 2, 2)), [[[0, 0]], [], [[-1, -1]]], trace_lengths=np.ones((3, 2), int))
    for name in ("hit", "graded", "rollout_beam"):
        found = build(name, f"{HERE}:of_traces").compute(inputs)
        assert found.kept.tolist() == [True, False, False] and found.skipped == {f"{name}/no_positives": 2}
        assert found.total[0].all() and not found.total[1:].any() and not found.terms["of_traces"][1:].any()
        assert found.metrics["reward/skipped_groups"] == 2 / 3
    alone = build("diversity", f"{HERE}:of_traces").compute(inputs)
    assert alone.kept.all() and alone.skipped == {} and (alone.total == 1).all()


@pytest.mark.parametrize("combine", ["product", "sum"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_leaves_its_group_out_or_ends_the_run(value: float, combine: str) -> None:
    inputs = make_inputs(np.ones((3, 2, 2, 2)), [[[1, 1]]] * 3)
    options = {"options": {"value": value, "group": 1}}
    found = build("hit", (ODD, options), combine=combine).compute(inputs)
    assert found.kept.tolist() == [True, False, True] and found.skipped == {"odd/not_finite": 1}
    one = 2.0 if combine == "sum" else 1.0
    assert found.total.tolist() == [[[one] * 2] * 2, [[0] * 2] * 2, [[one] * 2] * 2]
    assert not found.terms["hit"][1].any() and not found.terms["odd"][1].any()
    assert found.metrics["reward/total"] == one and found.metrics["reward/odd"] == 1
    assert all(np.isfinite(v) for v in found.metrics.values())
    with pytest.raises(RewardError, match=rf"reward odd: {value} in group 1, trace 0, item 0; .* not_finite: skip"):
        build("hit", (ODD, options), combine=combine, not_finite="raise").compute(inputs)


def test_a_total_beyond_all_numbers() -> None:
    inputs = make_inputs(np.ones((2, 2, 2, 2)))
    huge = ("odd", "other", "third")
    terms = [(ODD, {"alias": key, "options": {"value": 1e200, "group": 1}}) for key in huge]
    found = build(*terms, combine="product").compute(inputs)
    assert found.kept.tolist() == [True, False] and found.skipped == {"total/not_finite": 1}
    assert not found.total[1].any() and not found.terms["odd"][1].any()
    with pytest.raises(RewardError, match=r"reward total: inf in group 1"):
        build(*terms, combine="product", not_finite="raise").compute(inputs)


def test_a_group_with_no_item_at_all_is_left_out() -> None:
    valid = np.ones((2, 2, 3), bool)
    valid[1] = False
    found = build("diversity").compute(make_inputs(np.zeros((2, 2, 3, 2)), valid=valid))
    assert found.kept.tolist() == [True, False] and found.skipped == {"rollouts/no_items": 1}


def test_a_term_that_is_only_logged_leaves_no_group_out() -> None:
    """Weight 0: what it says of groups it cannot judge is neither in the total nor in its mean."""
    inputs = make_inputs(np.ones((3, 2, 2, 2)), [[[1, 1]], [], [[0, 0]]])
    odd = (ODD, {"weight": 0.0, "options": {"group": 2}})
    found = build(f"{HERE}:of_traces", ("hit", {"weight": 0.0}), odd).compute(inputs)
    assert found.kept.all() and found.skipped == {} and (found.total == 1).all()
    assert found.metrics["reward/hit"] == 0.5  # of the first group and the last
    assert found.metrics["reward/odd"] == 1 and not found.terms["odd"][2].any()
    assert found.metrics["reward/skipped_groups"] == 0 and found.metrics["reward/of_traces"] == 1


def test_metrics_by_hand() -> None:
    found = build("hit", f"{HERE}:of_traces", combine="sum").compute(replace(HAND, trace_lengths=np.array([[2, 4]])))
    # Items: totals 3 2 2 4 4, hits 1 0 0 0 0, lengths 2 2 2 4 4.
    expected = {
        "reward/hit": 0.2,
        "reward/hit_std": 0.4,  # sqrt(.2 - .04)
        "reward/of_traces": 2.8,
        "reward/of_traces_std": 0.96**0.5,  # (4*3 + 16*2)/5 - 2.8^2 = 8.8 - 7.84
        "reward/total": 3.0,
        "reward/total_std": 0.8**0.5,  # (9 + 4 + 4 + 16 + 16)/5 - 9
        "reward/constant_groups": 0.0,
        "reward/skipped_groups": 0.0,
    }
    assert found.metrics == pytest.approx(expected, rel=1e-12)


def test_groups_whose_totals_are_equal_are_counted() -> None:
    codes = np.zeros((4, 1, 2, 1), int)
    codes[1, 0, 1] = 1  # the one group that differs; the last is left out
    inputs = make_inputs(codes, [[[0]], [[0]], [[1]], []])
    found = build("hit").compute(inputs)
    assert found.metrics["reward/constant_groups"] == 2 / 3 and found.metrics["reward/skipped_groups"] == 1 / 4
    assert found.metrics["reward/hit"] == 3 / 6


def test_guided_items_are_rewarded_and_not_logged() -> None:
    guided = np.array([[[False, True], [False, False]]])
    found = build("hit").compute(make_inputs([[[[0], [1]], [[0], [0]]]], [[[1]]], guided=guided))
    assert found.total.tolist() == [[[0, 1], [0, 0]]]
    assert found.metrics["reward/hit"] == 0 == found.metrics["reward/total"]
    assert found.metrics["reward/constant_groups"] == 0  # the guide teaches


def test_nothing_at_all() -> None:
    found = build("hit", "diversity").compute(make_inputs(np.zeros((0, 2, 2, 2)), []))
    assert found.total.shape == (0, 2, 2) and set(found.metrics.values()) == {0.0} and found.skipped == {}


def test_inputs_are_not_changed() -> None:
    inputs = draw_inputs(0)
    before = {name: np.array(getattr(inputs, name)) for name in ("candidates", "valid", "legal", "closed")}
    build("hit", "graded", "rollout_beam", "diversity", "format", "history_grounding").compute(inputs)
    assert all(np.array_equal(value, getattr(inputs, name)) for name, value in before.items())


def test_a_reward_is_checked_against_the_rollouts() -> None:
    with pytest.raises(RewardError, match=r"reward graded: levels holds 3 grades, but sids have 2 levels"):
        build(("graded", {"options": {"levels": (0.1, 0.2, 0.3)}})).compute(HAND)
    with pytest.raises(RewardError, match=r"reward diversity: with one item a trace"):
        build("hit", "diversity", combine="product").compute(make_inputs(np.zeros((1, 2, 1, 2)), [[[0, 0]]]))


@pytest.mark.parametrize(
    ("terms", "more", "message"),
    [
        (["hits"], {}, r"reward 'hits' is not known; did you mean hit\? known rewards are rollout_beam, hit, "),
        (["hist_grounding"], {}, r"did you mean history_grounding\?"),
        (["zzz"], {}, r"'zzz' is not known; known rewards are"),
        ([("graded", {"options": {"level": 1}})], {}, r"unknown option 'level'; did you mean levels\? known .* levels"),
        ([("hit", {"options": {"level": 1}})], {}, r"unknown option 'level'; known options are none"),
        ([("graded", {"options": {"levels": "many"}})], {}, r"reward graded: levels"),
        ([("trace_length", {"options": {"soft": 9, "hard": 4}})], {}, r"reward trace_length: soft \(9\)"),
        ([("rollout_beam", {"options": {"match": "suffix"}})], {}, r"reward rollout_beam: match"),
        ([], {}, r"at least one term; known rewards are"),
        (["hit"], {"combine": "mean"}, r"combine must be product or sum, got 'mean'"),
        (["hit"], {"not_finite": "ignore"}, r"not_finite must be skip or raise, got 'ignore'"),
        ([("hit", {"weight": 2.0})], {"combine": "product"}, r"weight 2 cannot be used in a product; leave it at 1"),
        ([("hit", {"weight": float("nan")})], {}, r"weight nan cannot be used in a sum; give a finite number"),
        (["hit", "hit"], {}, r"called 'hit'; give one of them an alias"),
        (["hit", ("graded", {"alias": "hit_std"})], {}, r"called 'hit_std'"),
        ([("hit", {"alias": "total"})], {}, r"called 'total'"),
        ([("hit", {"alias": "constant_groups"})], {}, r"called 'constant_groups'"),
        (["hit", f"{HERE}:hit"], {}, rf"module '{HERE}' has no 'hit'"),
    ],
)
def test_mistakes_are_named(terms: list[Any], more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(*terms, **more)


def test_a_reward_may_stand_twice_under_another_name() -> None:
    own = {"alias": "by_position", "weight": 10.0, "options": {"match": "position"}}
    found = build("rollout_beam", ("rollout_beam", own)).compute(make_inputs([[[[0, 1]], [[1, 1]]]], [[[1, 1]]]))
    assert found.total.tolist() == [[[10], [22]]] and set(found.terms) == {"rollout_beam", "by_position"}


def test_configurations_are_read_and_refused_as_a_whole() -> None:
    values = {"terms": [{"name": "hit"}, {"name": "graded", "weight": 0.5, "options": {"levels": [0.2, 1]}}]}
    reward = build_config(RewardConfig, values | {"combine": "sum"}).build(num_levels=2, num_items=4)
    assert reward.weights == {"hit": 1.0, "graded": 0.5} and reward.rewards["graded"] == REWARDS["graded"]((0.2, 1.0))
    with pytest.raises(ConfigError, match=r"weight 0.5 cannot be used in a product"):
        build_config(RewardConfig, values)
    with pytest.raises(ConfigError, match=r"did you mean diversity\?"):
        build_config(RewardConfig, {"terms": [{"name": "divercity"}]})
    with pytest.raises(ConfigError, match=r"wait"):
        build_config(RewardConfig, {"terms": [{"name": "hit", "wait": 1}]})
