"""What one generation leaves for the loss: how its completions were scored, and the coefficient of each one's score.

TRL draws completions once and may use them for several updates. Between updates the policy moves, so the residual
`d = R / β + log π₀ − log π` of a completion is not a constant: `Rollouts` keeps its parts and the log-probability
under the policy as it was last seen, and computes every coefficient from those. Where the micro-batch holds whole
groups this is VarGrad with the live residual; where a group is spread over micro-batches or processes, the last known
values of the others stand in. Knows nothing of models or tokens.

Shapes: `N` completions of all processes, `n` of this process or of a micro-batch, `G` a group, `K` clusters, `F`
reward functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from plural_rlhf.core.estimators import forward_kl_coefficients, js_coefficients, leave_one_out
from plural_rlhf.core.rules import Rule
from plural_rlhf.trainers.grpo.drawers import GIVEN, POLICY, REFERENCE


__all__ = ["GenerationBatch", "JuryScores", "RewardTable", "Rollouts"]

_LOG_LARGEST_RATIO = math.log(10.0)
# Importance ratios of completions that an older policy drew, for the divergences that need them, are cut here.


@dataclass(frozen=True)
class JuryScores:
    """What the jury gives the completions of one process.

    Attributes:
        r: `(n, K)` rewards, logits.
        w: `(n, K)` weights.
        rules: Rule of each completion, None for the pool.

    Example:
        >>> scores = JuryScores(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.75, 0.25]]), [None])
        >>> (scores.r * scores.w).sum(-1)  # the mean that TRL logs
        tensor([0.7500])
    """

    r: Tensor
    w: Tensor
    rules: list[Rule | None]


@dataclass
class RewardTable:
    """The completions of one generation of all processes, scored; groups are consecutive.

    Attributes:
        r: `(N, K)` the jury's rewards, logits.
        w: `(N, K)` weights.
        scores: `(N, F)` what each of TRL's reward functions gave, NaN for none.
        keys: Key of each row's offsets.
        shown: Key of each row's prompt as the policy sees it.
        drawn: Something that is equal for equal completions.
        rules: Rule of each row, None for the pool.
        texts: Text of each completion; none where the completions are replayed ones.

    Example:
        >>> r = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # two completions of one prompt, by two clusters
        >>> w = torch.tensor([[0.75, 0.25]] * 2)
        >>> table = RewardTable(r, w, torch.zeros(2, 1), ["p"] * 2, ["p"] * 2, ["red", "blue"], [None] * 2)
        >>> (table.r * table.w).sum(-1).tolist()
        [0.75, 0.25]
    """

    r: Tensor
    w: Tensor
    scores: Tensor
    keys: list[str]
    shown: list[str]
    drawn: list[Any]
    rules: list[Rule | None]
    texts: list[str] = field(default_factory=list)


@dataclass
class Rollouts:
    """The parts of every completion's residual, in the order of the processes' rows; groups are consecutive.

    Attributes:
        reward: `(N,)` aggregated reward over β, nats.
        log_pi_ref: `(N,)` sequence log-probability under the reference, nats.
        log_pi: `(N,)` the same under the policy, as it was last seen.
        log_pi_drawn: `(N,)` the same under what drew the completions, as far as that is known.
        log_z: `(N,)` log normaliser of each row's target, nats; read by every estimator but `vargrad`.
        group_size: G.

    Example:
        >>> zeros = torch.zeros(2)
        >>> rollouts = Rollouts(torch.tensor([1.0, 0.0]), zeros, zeros.clone(), zeros, zeros, group_size=2)
        >>> rollouts.coefficients("vargrad").tolist()  # each residual minus that of the other one of its group
        [1.0, -1.0]
        >>> rollouts.see(torch.tensor([0]), torch.tensor([1.0]))  # the policy has moved to the target
        >>> rollouts.coefficients("vargrad").tolist()
        [0.0, 0.0]
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
        """Record the log-probabilities `(n,)` that the rows `index` have now."""
        self.log_pi[index] = log_pi.to(self.log_pi)

    def coefficients(self, estimator: str) -> Tensor:
        """Return the coefficient of every row's score, `(N,)`: the loss is `-mean c log π`.

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
        """Return the parts by name, for a checkpoint."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass
class GenerationBatch:
    """One generation, from who draws which completion to what the loss reads; a trainer has one per mode.

    TRL calls hooks of the trainer while it generates. Each fills in an attribute, in this order, and reads those
    before it. A replayed batch has new `rollouts`; a resumed one has `rollouts` only.

    Attributes:
        group_size: G, completions per prompt.
        reference_prompts: Tokens of the prompt that π₀ completes, by row of this process that it draws.
        given: Tokens of the completions that are given, by row of this process.
        jury_scores: What the jury gave the completions of this process.
        table: All rewards of the completions of all processes.
        rollouts: The residuals of the completions of all processes.

    Example:
        >>> GenerationBatch(group_size=4, reference_prompts={3: [5]}, given={2: [7]}).drawn_by(4).tolist()
        [0, 0, 2, 1]
    """

    group_size: int
    reference_prompts: dict[int, list[int]] = field(default_factory=dict)
    given: dict[int, list[int]] = field(default_factory=dict)
    jury_scores: JuryScores = field(init=False)
    table: RewardTable = field(init=False)
    rollouts: Rollouts = field(init=False)

    def drawn_by(self, n: int) -> Tensor:
        """Return `(n,)` who draws each of the `n` completions of this process, `POLICY`, `REFERENCE` or `GIVEN`."""
        by = torch.full((n,), POLICY)
        by[list(self.reference_prompts)] = REFERENCE
        by[list(self.given)] = GIVEN
        return by
