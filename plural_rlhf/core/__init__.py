"""The mathematics: pure functions of tensors, with torch and numpy and nothing of Hugging Face.

Welfare: `aggregation` has the means of K clusters' rewards and what weights are, `welfare` the rules that look at one
part of the jury, `group_rules` and `lotteries` those that judge a response among others; `rules` calls all of them by
name. `robust` finds the weights that are worst for a verdict, `clones` the weights that near-duplicates share.

Training: `targets` says which distribution is wanted; `offsets` keeps the partition functions that a sampled target
needs; `estimators` says how a policy is moved to its target; `shares` measures how much of the policy belongs to each
cluster; `duals` adapts a temperature to a KL budget and weights to the worst-off cluster; `typicality` measures how
much a reward favours typical text; `preference_losses` says what pairs of responses tell a policy. Which distribution
and how to reach it are kept apart.
"""

from __future__ import annotations


__all__ = [
    "aggregation",
    "clones",
    "duals",
    "estimators",
    "group_rules",
    "lotteries",
    "offsets",
    "preference_losses",
    "robust",
    "rules",
    "shares",
    "targets",
    "typicality",
    "welfare",
]
