"""Completions that the reference draws: for which rows, from which prompts, and how the jury scores them.

They start the offsets of a prompt (`n_ref`), or replace a share of the policy's own in every group
(`reference_share`), which then comes from a mixture of both. Knows nothing of trainers or of how a model draws.

Shapes: `N` completions, `G` a group, `K` clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from plural_rlhf.policies.log_probs import pad_left
from plural_rlhf.rewards.jury_reward import JuryReward


__all__ = ["drawn_by_both", "drawn_by_policy", "judge", "log_drawn", "reference_prompts", "under_reference_prompts"]

Row = Mapping[str, Any]
Draw = Callable[[list[list[int]]], tuple[list[list[int]], list[list[float]]]]
"""From tokens of prompts to tokens of completions, and the log-probability of each."""


def reference_prompts(rows: Iterable[Row], encode_prompt: Callable[[Any], list[int]]) -> list[list[int]]:
    """Return the tokens of the prompt that the reference is shown for each row: `reference_prompt`, or else `prompt`.

    Args:
        rows: Rows of the data set.
        encode_prompt: Tokenises a prompt as the policy's prompts are tokenised.

    Example:
        >>> rows = [{"prompt": "steered a", "reference_prompt": "a"}, {"prompt": "bc"}]
        >>> reference_prompts(rows, lambda prompt: [ord(letter) for letter in prompt])
        [[97], [98, 99]]
    """
    return [encode_prompt(row.get("reference_prompt") or row["prompt"]) for row in rows]


def under_reference_prompts(
    rows: Sequence[Row], columns: dict[str, Any], encode_prompt: Callable[[Any], list[int]], pad_token_id: int
) -> dict[str, Any]:
    """Return TRL's columns with the same completions under the prompts that the reference is shown.

    Args:
        rows: Rows of the data set, one per completion.
        columns: TRL's columns of the completions.
        encode_prompt: Tokenises a prompt as the policy's prompts are tokenised.
        pad_token_id: Fills up shorter prompts.

    Example:
        >>> columns = {"prompt_ids": torch.tensor([[115, 97]]), "completion_ids": torch.tensor([[7]])}
        >>> rows = [{"prompt": "sa", "reference_prompt": "a"}]
        >>> encode = lambda prompt: [ord(letter) for letter in prompt]
        >>> under_reference_prompts(rows, columns, encode, pad_token_id=0)["prompt_ids"]
        tensor([[97]])
    """
    if not any(row.get("reference_prompt") for row in rows):
        return columns
    ids, mask = pad_left(reference_prompts(rows, encode_prompt), pad_token_id)
    device = columns["completion_ids"].device
    return {**columns, "prompt_ids": ids.to(device), "prompt_mask": mask.to(device)}


def judge(reward: JuryReward, row: Row, completions: Sequence[Any]) -> Tensor:
    """Return the jury's rewards of completions of a row's prompt, `(N, K)` logits.

    Args:
        reward: The jury.
        row: A row of the data set; `jury_prompt` and `support` are read if it has them.
        completions: `N` completions of its prompt.

    Example:
        >>> from types import SimpleNamespace
        >>> import numpy as np
        >>> scorer = SimpleNamespace(
        ...     cluster_names=["all"],
        ...     prevalence=np.ones(1),
        ...     cluster_rewards=lambda prompts, completions: torch.tensor([[float(len(c))] for c in completions]),
        ... )
        >>> judge(JuryReward(scorer), {"prompt": "A colour?"}, ["red", "blue"]).tolist()
        [[3.0], [4.0]]
    """
    seen = [row.get("jury_prompt") or row["prompt"]] * len(completions)
    support = [row["support"]] * len(completions) if row.get("support") else None
    return reward.cluster_rewards(seen, completions, support)


def log_drawn(log_pi: Tensor, log_pi_ref: Tensor, reference_share: float) -> Tensor:
    """Return the log-probability of each completion under the mixture that draws a group, `(N,)` nats.

    The mixture is the policy and, with the weight of its share, π₀. The ratio of π₀ to it is at most one over the
    share (defensive importance sampling, Hesterberg 1995).

    Args:
        log_pi: `(N,)` log-probability under the policy, nats.
        log_pi_ref: `(N,)` the same under π₀.
        reference_share: Share of each group that π₀ draws.

    Example:
        >>> log_drawn(torch.tensor([0.0]).log(), torch.tensor([0.8]).log(), reference_share=0.25).exp()
        tensor([0.2000])
    """
    if reference_share == 0:
        return log_pi
    return torch.logaddexp(log_pi + math.log1p(-reference_share), log_pi_ref + math.log(reference_share))


def drawn_by_policy(n: int, group: int, reference_draws: int) -> Tensor:
    """Return `(n,)` whether the policy draws each of `n` completions; the last of every group are those of π₀.

    Example:
        >>> drawn_by_policy(n=6, group=3, reference_draws=1).tolist()
        [True, True, False, True, True, False]
    """
    return torch.arange(n) % group < group - reference_draws


def drawn_by_both(
    prompt_ids: list[list[int]], reference_prompts: Mapping[int, list[int]], *, by_policy: Draw, by_reference: Draw
) -> tuple[list[list[int]], list[list[float]]]:
    """Return completions of the policy, and of the reference in the rows that `reference_prompts` names.

    Args:
        prompt_ids: Tokens of the prompt of each row.
        reference_prompts: Tokens of the prompt that the reference is shown, by row.
        by_policy: Draws from the policy.
        by_reference: Draws from the reference.

    Returns:
        Tokens of each completion, and the policy's log-probability of each token: NaN in the rows of the reference,
        where it is not known yet.

    Example:
        >>> policy = lambda prompts: ([[1] for _ in prompts], [[-0.5] for _ in prompts])
        >>> reference = lambda prompts: ([[2] for _ in prompts], [[-0.1] for _ in prompts])
        >>> drawn_by_both([[7], [7], [8]], {1: [7]}, by_policy=policy, by_reference=reference)
        ([[1], [2], [1]], [[-0.5], [nan], [-0.5]])
    """
    if not reference_prompts:
        return by_policy(prompt_ids)
    ids, log_probs = by_policy([p for n, p in enumerate(prompt_ids) if n not in reference_prompts])
    of_reference, _ = by_reference(list(reference_prompts.values()))
    for n, completion in zip(reference_prompts, of_reference, strict=True):
        ids.insert(n, completion)
        log_probs.insert(n, [math.nan] * len(completion))
    return ids, log_probs
