"""The sampled mode's rows: what is known of one generation batch, and the coefficient of every completion's score.

TRL draws completions once and may use them for several updates. Between updates the policy moves, so the residual
`d = R / β + log π₀ − log π` of a completion is not a constant: `Rollouts` keeps the parts and the log-probability
under the policy as it was last seen, and every coefficient comes from those. Where the micro-batch holds whole groups
this is VarGrad with the live residual; where a group is spread over micro-batches or processes, the others' last known
values stand in. Knows nothing of models, tokens or where R comes from.

Shapes: `N` completions of all processes, `G` a group, `n` completions of a micro-batch, `T` tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from plural_rlhf.core.estimators import forward_kl_coefficients, js_coefficients, leave_one_out


__all__ = ["Rollouts"]


_LOG_LARGEST_RATIO = math.log(10.0)
# Importance ratios of completions that an older policy drew, for the divergences that need them, are cut here.


@dataclass
class Rollouts:
    """One generation batch of all processes, in the order of the processes' rows; groups are consecutive.

    Attributes:
        reward: `(N,)` aggregated reward over β, nats.
        log_pi_ref: `(N,)` sequence log-probability under the reference, nats.
        log_pi: `(N,)` the same under the policy, as it was last seen.
        log_pi_drawn: `(N,)` the same under the policy that drew the completions.
        log_z: `(N,)` log normaliser of each row's target, nats; read by every estimator but `vargrad`.
        group_size: G.
    """

    reward: Tensor
    log_pi_ref: Tensor
    log_pi: Tensor
    log_pi_drawn: Tensor
    log_z: Tensor
    group_size: int

    @property
    def residual(self) -> Tensor:
        """`(N,)` d = R/β + log π₀ − log π, nats."""
        return self.reward + self.log_pi_ref - self.log_pi

    def see(self, index: Tensor, log_pi: Tensor) -> None:
        """Takes note of the log-probabilities `(n,)` that rows `index` have now."""
        self.log_pi[index] = log_pi.to(self.log_pi)

    def coefficients(self, estimator: str) -> Tensor:
        """The coefficient of every row's score, `(N,)`: the loss is `-mean c log π`.

        `vargrad` and `tb` have the target as their fixed point whoever drew the completions. `fkl` and `js` weigh by
        the ratio of the policy now to the one that drew them (at most 10), and `fkl` cuts its own weights at G.
        """
        d = self.residual
        if estimator == "vargrad":
            return leave_one_out(d.view(-1, self.group_size)).view(-1)
        if estimator == "tb":
            return d - self.log_z
        ratio = (self.log_pi - self.log_pi_drawn).clamp(max=_LOG_LARGEST_RATIO).exp()
        excess = d - self.log_z
        if estimator == "fkl":
            excess = excess.clamp(max=math.log(self.group_size))
            return ratio * forward_kl_coefficients(excess[:, None], torch.zeros_like(excess))[:, 0]
        return ratio * js_coefficients(excess[:, None], torch.zeros_like(excess))[:, 0]

    def to_dict(self) -> dict[str, Any]:
        """The parts, for a checkpoint."""
        return {f.name: getattr(self, f.name) for f in fields(self)}
