"""Losses with less noise for long completions: reward-to-go, and the whole-vocabulary KL in place of log-ratios.

Both have the gradient of KL(π ‖ p) in expectation, for completions that the policy itself drew. The choice of a token
cannot change the log-ratios before it, so reward-to-go leaves those out. Rao–Blackwellisation replaces each later
log-ratio by its expectation given the prefix, a KL over the vocabulary, and adds the gradient of that KL.

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
    """Compute a score-function loss whose coefficients leave past log-ratios out.

    Args:
        coefficients: `(n,)` d − baseline of each completion, nats.
        log_pi: `(n, T)` log-probability of each token under the policy, nats, zero at tokens that are not its own;
            gradients flow through it.
        log_pi_ref: `(n, T)` the same under π₀.

    Returns:
        A number whose gradient is that of `KL(π ‖ p)` in expectation; its value means nothing.

    Example:
        >>> log_pi = torch.tensor([[-1.0, -2.0]], requires_grad=True)
        >>> reward_to_go_loss(torch.tensor([3.0]), log_pi, torch.tensor([[-1.5, -2.0]])).backward()
        >>> log_pi.grad  # minus 3, and minus 3.5 for the second token, whose past log-ratio is .5
        tensor([[-3.0000, -3.5000]])
    """
    log_ratio = (log_pi - log_pi_ref).detach()
    past = log_ratio.cumsum(-1) - log_ratio
    return -((coefficients[:, None] + past) * log_pi).sum(-1).mean()


def token_kl(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """Compute KL(π(·|prefix) ‖ π₀(·|prefix)) at every position, `(n, T)` nats, from logits `(n, T, V)`.

    Example:
        >>> logits = torch.tensor([[[0.75, 0.25]]]).log()
        >>> token_kl(logits, torch.zeros(1, 1, 2))  # .75 log 1.5 + .25 log .5
        tensor([[0.1308]])
    """
    log_pi, log_ref = logits.float().log_softmax(-1), reference_logits.float().log_softmax(-1)
    return (log_pi.exp() * (log_pi - log_ref)).sum(-1)


def rao_blackwell_loss(
    model: torch.nn.Module,
    reference_logits: Tensor,
    rows: dict[str, Tensor],
    rollouts: Rollouts,
    gather: Callable[[Tensor], Tensor],
) -> Tensor:
    """Compute a score-function loss with the KL given the prefix in place of log-ratios, plus the gradient of that KL.

    It needs the logits of both models for all tokens at once.

    Args:
        model: The policy.
        reference_logits: `completion_logits` of the reference, computed while it is the reference: with PEFT it is the
            policy itself with its adapter switched off.
        rows: TRL's columns of a micro-batch, with `row`, the number of each completion.
        rollouts: The residuals of the generation; the rows of the micro-batch are updated.
        gather: Concatenates a tensor of all processes.
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
    """Compute the logits from which each completion token is drawn, `(n, T, V)`.

    Positions are counted from the first real token, as when the completion was sampled.

    Args:
        model: A causal language model.
        rows: TRL's columns.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm
        >>> ones = torch.ones(1, 2).long()
        >>> rows = {"prompt_ids": ones, "prompt_mask": ones, "completion_ids": ones, "completion_mask": ones}
        >>> model = tiny_causal_lm()
        >>> completion_logits(model, rows).shape == (1, 2, model.config.vocab_size)
        True
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
