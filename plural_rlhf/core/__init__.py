"""The mathematics: pure functions of tensors, with torch and numpy and nothing of Hugging Face.

`aggregation` turns the rewards of K clusters into one number; `targets` says which distribution is wanted; `offsets`
keeps the partition functions that a sampled target needs; `estimators` says how a policy is moved to its target;
`shares` measures how much of the policy belongs to each cluster; `duals` adapts a temperature to a KL budget and
weights to the worst-off cluster; `typicality` measures how much a reward favours typical text; `preference_losses`
says what pairs of responses tell a policy. Which distribution and how to reach it are kept apart.
"""

from __future__ import annotations


__all__ = [
    "aggregation",
    "duals",
    "estimators",
    "offsets",
    "preference_losses",
    "shares",
    "targets",
    "typicality",
]
