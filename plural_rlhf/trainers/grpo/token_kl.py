"""Losses with less noise for long completions: reward-to-go, and the whole-vocabulary KL in place of log-ratios.

Both have the gradient of KL(π ‖ p) in expectation, for completions that the policy itself drew. A token's choice
cannot change the log-ratios before it, so reward-to-go leaves those out; Rao–Blackwellisation replaces each later
log-ratio by its expectation given the prefix, a KL over the vocabulary, and follows that KL's own gradient besides.

Shapes: `n` completions, `T` tokens, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from plural_rlhf.core.estimators import rao_blackwell_to_go
from plural_rlhf.policies.log_probs import takes_positions
from plural_rlhf.trainers.grpo.completion_rows import own_tokens
from plural_rlhf.trainers.grpo.generation_batch import Rollouts


__all__ = ["completion_logits", "rao_blackwell_loss", "reward_to_go_loss", "token_kl"]


def reward_to_go_loss(coefficients: Tensor, log_pi: Tensor, log_pi_ref: Tensor) -> Tensor:
    """Score-function loss with coefficients that forget the past.

    Args:
        coefficients: `(n,)` d − baseline of each completion, nats.
        log_pi: `(n, T)` of each token under the policy, zero at tokens that are not its own; gradients flow through
            it.
        log_pi_ref: `(n, T)` the same under π₀.

    Returns:
        A number whose gradient is that of `KL(π ‖ p)` in expectation; its value means nothing.
    """
    log_ratio = (log_pi - log_pi_ref).detach()
    past = log_ratio.cumsum(-1) - log_ratio
    return -((coefficients[:, None] + past) * log_pi).sum(-1).mean()


def token_kl(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """KL(π(·|prefix) ‖ π₀(·|prefix)) at every position, `(n, T)` nats, from logits `(n, T, V)`."""
    log_pi, log_ref = logits.float().log_softmax(-1), reference_logits.float().log_softmax(-1)
    return (log_pi.exp() * (log_pi - log_ref)).sum(-1)


def rao_blackwell_loss(
    model: torch.nn.Module,
    reference_logits: Tensor,
    rows: dict[str, Tensor],
    rollouts: Rollouts,
    gather: Callable[[Tensor], Tensor],
) -> Tensor:
    """Score-function loss with the KL given the prefix in place of log-ratios, and that KL's gradient.

    Needs the logits of both models for all tokens at once; those of the reference are given, `completion_logits` while
    it is the reference: with PEFT it is the policy itself with its adapter switched off.
    """
    own = own_tokens(rows)
    logits = completion_logits(model, rows)
    kl = token_kl(logits, reference_logits) * own
    log_pi = logits.float().log_softmax(-1).gather(-1, rows["completion_ids"][..., None])[..., 0] * own
    index = rows["row"]
    reward = rollouts.reward[index]
    to_go = rao_blackwell_to_go(reward, 1.0, kl.detach(), own)
    # The baseline of a completion: what the others of its group have, as last seen.
    rollouts.see(gather(index), gather(rollouts.log_pi_ref[index] + kl.detach().sum(-1)))
    whole = rollouts.residual.view(-1, rollouts.group_size)
    others = (whole.sum(-1, keepdim=True) - whole) / (rollouts.group_size - 1)
    coefficients = to_go - others.view(-1)[index][:, None]
    return (-(coefficients * log_pi).sum(-1) + kl.sum(-1)).mean()


def completion_logits(model: torch.nn.Module, rows: Mapping[str, Tensor]) -> Tensor:
    """Logits `(n, T, V)` from which each completion token is drawn.

    Positions are counted from the first real token, as when the completion was sampled.
    """
    mask = torch.cat([rows["prompt_mask"], rows["completion_mask"]], dim=1)
    positions = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)} if takes_positions(model) else {}
    logits = model(
        input_ids=torch.cat([rows["prompt_ids"], rows["completion_ids"]], dim=1),
        attention_mask=mask,
        logits_to_keep=rows["completion_ids"].shape[1] + 1,
        use_cache=False,
        **positions,
    ).logits
    return logits[:, :-1]
