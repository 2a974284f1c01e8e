"""The rewards of recommendation reinforcement: pure functions of `RewardInputs`, in numpy.

| reward | of | what it gives |
|---|---|---|
| `hit` | items | 1 for an item in the user's positive set (OneReason, R_rule) |
| `diversity` | traces | spread of the first codes (OneReason, R_div) |
| `rollout_beam` | traces | matching levels of the best candidate (OneRec-Think) |
| `graded` | items | a grade for the common prefix with a positive |
| `format` | items | legal item, closed trace, in a subset (OneRec V1) |
| `answer_likelihood` | traces | how likely the next item is behind the trace |
| `history_grounding` | traces | cited items that are in the history |
| `trace_length` | traces | penalty beyond a soft budget (DAPO) |
| `duration_aware` | items | play time against items of that duration (OneRec V2) |
| `p_score` | items | another model's personal score (OneRec V1) |
| `package.module:function` | either | your own |

`build_reward` makes one of several; `RewardConfig` does so from YAML.
"""

from onereason.rl.rewards.base import Reward
from onereason.rl.rewards.compose import (
    REWARDS,
    CombinedReward,
    RewardConfig,
    RewardOutputs,
    RewardTerm,
    build_reward,
)
from onereason.rl.rewards.form import Format, format_advantages, format_subset
from onereason.rl.rewards.logged import label_interactions, look_up_logged, play_time_quantiles

__all__ = [
    "REWARDS",
    "CombinedReward",
    "Format",
    "Reward",
    "RewardConfig",
    "RewardOutputs",
    "RewardTerm",
    "build_reward",
    "format_advantages",
    "format_subset",
    "label_interactions",
    "look_up_logged",
    "play_time_quantiles",
]
