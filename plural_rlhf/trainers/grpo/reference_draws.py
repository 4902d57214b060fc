"""Completions that the reference draws: for which rows, under which prompts, what the jury makes of them.

They start the offsets of a prompt (`n_ref`), or stand in for a part of the policy's own in every group
(`reference_share`), which then comes from a mixture of both. Knows nothing of trainers or of how a model draws.

Shapes: `N` completions, `G` a group, `K` clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from plural_rlhf.rewards.jury_reward import JuryReward


__all__ = ["judge", "log_drawn", "policys_own", "reference_prompts"]

Row = Mapping[str, Any]


def reference_prompts(rows: Iterable[Row], encode_prompt: Callable[[Any], list[int]]) -> list[list[int]]:
    """Tokens of the prompt that the reference is shown for each row: its own, where there is one.

    `encode_prompt` tokenises as the policy's prompts are tokenised.
    """
    return [encode_prompt(row.get("reference_prompt") or row["prompt"]) for row in rows]


def judge(reward: JuryReward, row: Row, completions: Sequence[Any]) -> Tensor:
    """What the jury gives completions of a row's prompt, `(N, K)` logits."""
    seen = [row.get("jury_prompt") or row["prompt"]] * len(completions)
    support = [row["support"]] * len(completions) if row.get("support") else None
    return reward.cluster_rewards(seen, completions, support)


def log_drawn(log_pi: Tensor, log_pi_ref: Tensor, reference_share: float) -> Tensor:
    """`(N,)` log-probability of a completion under what draws a group: the policy, and in a share of it π₀.

    The ratio of π₀ to it is at most one over the share (defensive importance sampling, Hesterberg 1995).
    """
    if reference_share == 0:
        return log_pi
    return torch.logaddexp(log_pi + math.log1p(-reference_share), log_pi_ref + math.log(reference_share))


def policys_own(n: int, group: int, reference_draws: int) -> Tensor:
    """`(N,)` whether the policy has drawn each of `n` completions; the last of every group are those of π₀."""
    return torch.arange(n) % group < group - reference_draws
