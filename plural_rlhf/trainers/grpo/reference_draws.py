"""Completions that the reference draws: from which prompts, and how the jury scores them.

They start the offsets of a prompt (`n_ref`), or replace a share of the policy's own in every group
(`reference_share`). Who draws which completion of a group is the matter of `drawers`. Knows nothing of trainers or of
how a model draws.

Shapes: `N` completions, `G` a group, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from plural_rlhf.policies.log_probs import pad_left
from plural_rlhf.rewards.jury_reward import JuryReward


__all__ = ["Row", "judge", "reference_prompts", "under_reference_prompts"]

Row = Mapping[str, Any]


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
        >>> import torch
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
        >>> import torch
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
