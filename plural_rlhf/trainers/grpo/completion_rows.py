"""The columns in which TRL holds completions: which tokens the policy chose, where they end, and what they score.

Log-probabilities are computed in chunks of a micro-batch and without gradients. Knows nothing of rewards, targets or
offsets, and names no private attribute of TRL.

Shapes: `n` completions, `T` tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing

from plural_rlhf.policies.log_probs import completion_log_probs
from plural_rlhf.trainers import _trl


__all__ = ["finished", "own_tokens", "policy_log_probs", "reference_log_probs"]

_SCORED = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")


def own_tokens(rows: Mapping[str, Tensor]) -> Tensor:
    """Return the `(n, T)` mask of the tokens that the policy chose, which are neither padding nor a tool's answer.

    Example:
        >>> rows = {"completion_mask": torch.tensor([[1, 1, 1, 0]]), "tool_mask": torch.tensor([[1, 0, 1, 1]])}
        >>> own_tokens(rows).tolist()
        [[1, 0, 1, 0]]
    """
    mask = rows["completion_mask"]
    return mask * rows["tool_mask"] if "tool_mask" in rows else mask


def finished(rows: Mapping[str, Tensor], end_ids: Collection[int]) -> Tensor:
    """Return `(n,)` whether the last token that the policy chose is an end token.

    End tokens before the last one end a turn, for example before a tool's answer.

    Args:
        rows: TRL's columns.
        end_ids: The end tokens.

    Example:
        >>> rows = {"completion_ids": torch.tensor([[5, 9], [9, 5]]), "completion_mask": torch.ones(2, 2).long()}
        >>> finished(rows, end_ids=[9]).tolist()
        [True, False]
    """
    own = own_tokens(rows)
    last = (own * torch.arange(1, own.shape[1] + 1, device=own.device)).argmax(dim=1, keepdim=True)
    ends = torch.tensor(list(end_ids), device=own.device)
    return (torch.isin(rows["completion_ids"], ends) & own.bool()).gather(1, last)[:, 0]


def policy_log_probs(trainer: GRPOTrainer, rows: Mapping[str, Tensor]) -> Tensor:
    """Return the log-probabilities `(n, T)` of the completions' tokens under the policy, without gradients.

    Use the ones that were recorded while sampling; score the rows that have none.
    """
    recorded = rows.get("sampling_per_token_logps")
    if recorded is None:
        return _in_chunks(trainer, trainer.model, rows)
    unknown = recorded.isnan().any(dim=1)
    if bool(unknown.any()):
        part = {name: rows[name][unknown] for name in _SCORED}
        recorded = recorded.index_put((unknown,), _in_chunks(trainer, trainer.model, part).to(recorded))
    return recorded


def reference_log_probs(trainer: GRPOTrainer, rows: Mapping[str, Tensor]) -> Tensor:
    """Return the log-probabilities `(n, T)` of the completions' tokens under the reference."""
    with _trl.reference(trainer) as model:
        return _in_chunks(trainer, model, rows)


def _in_chunks(trainer: GRPOTrainer, model: Any, rows: Mapping[str, Tensor]) -> Tensor:
    args = trainer.args
    size = args.per_device_train_batch_size if trainer.model.training else args.per_device_eval_batch_size
    chunks = [
        {name: rows[name][i : i + size] for name in _SCORED} for i in range(0, len(rows["completion_ids"]), size)
    ]
    kwargs = args.gradient_checkpointing_kwargs
    with torch.no_grad(), disable_gradient_checkpointing(trainer.model, kwargs), trainer.accelerator.autocast():
        return torch.cat([completion_log_probs(model, c, share=args.shared_prefix) for c in chunks])
