"""The mathematics: pure functions of tensors, with torch and numpy and without Hugging Face libraries.

Welfare: `aggregation` validates weights and has the means of K clusters' rewards, `welfare` the rules that read one
part of the jury, `group_rules` and `lotteries` those that score a response among others; `rules` calls all of them by
name. `robust` finds the weights that are worst for a verdict, `clones` the weights that near-duplicates share.

Training: `targets` defines the distribution that is wanted; `offsets` keeps the partition functions that a sampled
target needs; `estimators` moves a policy to its target; `shares` measures how much of the policy belongs to each
cluster; `duals` adapts a temperature to a KL budget and weights to the worst-off cluster; `typicality` measures how
much a reward favours typical text; `preference_losses` has the losses on pairs of responses. Which distribution is
wanted and how it is reached are kept apart. `checks` validates what several of them take.
"""

from __future__ import annotations


__all__ = [
    "aggregation",
    "checks",
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
