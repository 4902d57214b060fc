"""Define the distribution that a policy should have: the pool of the clusters' own optima, with one parameter `rho`.

The optimum of cluster k alone is `p_k = pi_ref exp(r_k / beta) / Z_k` with `Z_k = E_{pi_ref}[exp(r_k / beta)]`. The
target is

    p_rho(y)  is proportional to  pi_ref(y) [ sum_k w_k exp(rho (r_k(y) / beta - log Z_k)) ]^(1 / rho)

`rho = 1` is the mixture `sum_k w_k p_k` (representation), `rho = 0` the log pool of the mean reward (consensus),
`-inf` the worst-off cluster, `inf` anyone's favourite; with K = 1 they coincide. Each is the KL-regularised optimum of
one aggregated reward, `pool_reward`, so every method that maximises a reward can reach any of them.

Options change the optimum of each cluster before the optima are pooled. In this order:

1. `typicality_alpha` subtracts from the reward the raters' preference for typical text (`typicality`).
2. `tie_margin` turns near-ties into ties, which then keep the ratio that `pi_ref` gives them (`saturate`).
3. `uniform_floor` flattens that ratio to `pi_ref^(1 - uniform_floor)`. At 1 this is MARA (GX-Chen et al., 2025,
   https://arxiv.org/abs/2510.20817): uniform over the ties.
4. `reference_power` a replaces `pi_ref` by `pi_ref^a`, in 3 as well.

All of them are shapings of the reward (`PoolTarget.shaped`), so a method that only sees samples has the same target.
A validity gate is not a shaping: an invalid answer has probability 0 for every cluster, and the shares hold among the
rest.

Knows nothing of models, samples or optimisation: see `estimators` for these, and `offsets` where `log Z_k` cannot be
computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .aggregation import Weights, log_power_mean, normalise_weights
from .checks import check_beta
from .typicality import debias


__all__ = ["PoolTarget", "log_partition", "pool_reward", "responsibilities", "saturate"]


def log_partition(rewards: Tensor, log_pi_ref: Tensor, beta: float, mask: Tensor | None = None) -> Tensor:
    """Compute the exact `log Z_k = log sum_n pi_ref(n) exp(r_k(n) / beta)` over a finite support.

    Where `log_pi_ref` does not sum to one over the support, every `log Z_k` of the prompt shifts by the same constant,
    which changes no target.

    Args:
        rewards: Logits, shape `(B, N, K)` (any leading axes).
        log_pi_ref: Log-probabilities of the answers in nats, shape `(B, N)`; `-inf` is allowed.
        beta: Temperature, in logits.
        mask: True where there is an answer, and a valid one if there is a gate, shape `(B, N)`; padding is never read.

    Returns:
        Nats, shape `(B, K)`.

    Raises:
        ValueError: If `beta` is not positive, or a prompt has no answer or none that `pi_ref` can give.

    Example:
        >>> rewards = torch.tensor([[[3.0, 0.0], [1.0, 0.0]]]).log1p()  # exp(r) is 4 and 2, 1 and 1
        >>> log_partition(rewards, torch.tensor([[0.5, 0.5]]).log(), beta=1.0).exp()
        tensor([[3., 1.]])
    """
    check_beta(beta)
    log_pi_ref, mask = _prepare(log_pi_ref, mask)
    _refuse_unreachable(log_pi_ref)
    r = _present(rewards, mask)
    return torch.logsumexp(r / beta + log_pi_ref.to(r).unsqueeze(-1), -2)


def pool_reward(rewards: Tensor, weights: Weights, log_z: Tensor, beta: float, rho: float) -> Tensor:
    """Compute the aggregated reward whose KL-regularised optimum is the pool.

    `R = (beta / rho) log sum_k w_k exp(rho (r_k / beta - log Z_k))`. At `rho = 1` and with the exact `log Z_k`,
    `E_{pi_ref}[exp(R / beta)] = 1`.

    Args:
        rewards: Logits, shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`, broadcast against `rewards`; normalised here.
        log_z: `log Z_k` in nats up to a constant over k, shape `(..., K)`, broadcast against `rewards`.
        beta: Temperature, in logits.
        rho: The parameter of the pool, any number of `[-inf, inf]`; continuous at 0.

    Returns:
        Logits, shape `(...)`.

    Raises:
        JuryError: If the weights are unusable.
        ValueError: If `beta` is not positive or `rho` is NaN.

    Example:
        >>> rewards, log_z = torch.tensor([4.0, 1.0]).log(), torch.zeros(2)
        >>> [round(pool_reward(rewards, [1, 1], log_z, 1.0, rho).exp().item(), 3) for rho in (1, 0, -math.inf)]
        [2.5, 2.0, 1.0]
    """
    check_beta(beta)
    _check_rho(rho)
    return beta * log_power_mean(rewards / beta - log_z.to(rewards), weights, rho)


def responsibilities(rewards: Tensor, weights: Weights, log_z: Tensor, beta: float, rho: float = 1.0) -> Tensor:
    """Compute how much each cluster accounts for a response, `gamma_k = dR_rho / dr_k`.

    Proportional to `w_k exp(rho (r_k / beta - log Z_k))`. At `rho = 1` this is the posterior probability that a
    response drawn from the mixture came from cluster k. At `rho = 0` it is `w_k`; at `-inf` and `inf` the extreme
    clusters share it by their weights.

    Args:
        rewards: Logits, shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`, broadcast against `rewards`; normalised here.
        log_z: Nats, shape `(..., K)`, broadcast against `rewards`.
        beta: Temperature, in logits.
        rho: The parameter of the pool, any number of `[-inf, inf]`.

    Returns:
        Shape `(..., K)`, non-negative, summing to one over k.

    Raises:
        JuryError: If the weights are unusable.
        ValueError: If `beta` is not positive or `rho` is NaN.

    Example:
        >>> responsibilities(torch.tensor([4.0, 1.0]).log(), [1, 1], torch.zeros(2), beta=1.0)
        tensor([0.8000, 0.2000])
    """
    check_beta(beta)
    _check_rho(rho)
    x = rewards / beta - log_z.to(rewards)
    w = normalise_weights(weights, x.shape[-1]).to(x).expand_as(x)
    if math.isinf(rho):
        signed = torch.where(w > 0, math.copysign(1.0, rho) * x, -math.inf)
        at_extreme = torch.where(signed == signed.amax(-1, keepdim=True), w, 0.0)
        return at_extreme / at_extreme.sum(-1, keepdim=True)
    log_w = torch.where(w > 0, torch.where(w > 0, w, 1.0).log(), -math.inf)
    return torch.softmax(log_w + rho * x, -1)


def saturate(
    rewards: Tensor, tie_margin: float, smooth: float = 0.0, dim: int = -2, best: Tensor | None = None
) -> Tensor:
    """Turn near-ties into ties, `r' = min(r, best - tie_margin)` per cluster.

    Responses near the best then keep the ratio that they have under `pi_ref`, for every beta. The smooth form is
    `c - s softplus((c - r) / s)` with `c = best - tie_margin` and `s = smooth`.

    Args:
        rewards: Logits, shape `(..., N, K)` with the default `dim`.
        tie_margin: How far below the best a response may be and still tie, in logits. A natural choice is
            `logit(0.5 + e)`: a pair where at most a share `0.5 + e` of the raters prefers one; `e = 0.05` is 0.2.
        smooth: Width of the rounding in logits; 0 is the hard form.
        dim: The axis of the answers.
        best: The best reward, broadcast against `rewards` (a running maximum of the prompt, where the rewards are of a
            sample only); default: the maximum over `dim`.

    Returns:
        Logits, same shape.

    Raises:
        ValueError: If `tie_margin` or `smooth` is negative, infinite or NaN.

    Example:
        >>> saturate(torch.tensor([[2.0], [1.9], [0.5]]), tie_margin=0.2).squeeze()
        tensor([1.8000, 1.8000, 0.5000])
    """
    _check_distance("tie_margin", tie_margin)
    _check_distance("smooth", smooth)
    ceiling = (rewards.amax(dim, keepdim=True) if best is None else best.to(rewards)) - tie_margin
    if smooth == 0:
        return torch.minimum(rewards, ceiling)
    return ceiling - smooth * softplus((ceiling - rewards) / smooth)


@dataclass(frozen=True)
class PoolTarget:
    """The `rho`-pool, exact over a finite set of answers, and its options as a shaping of rewards.

    Args:
        rho: 1 mixture, 0 log pool, `-inf` worst-off cluster, `inf` union; any number between.
        beta: Temperature, in logits; 1 keeps the odds of a preference as they are.
        tie_margin: Responses within this many logits of a cluster's best count as tied with it (see `saturate`); 0 is
            off.
        reference_power: Exponent of `pi_ref`; 0 drops the reference, 1 keeps it.
        tie_width: Width over which the edge of the ties is rounded, in logits; 0 is a hard edge.
        uniform_floor: Moves the ties from `pi_ref`'s ratio (0) to uniform (1). With `tie_margin=0` only exact ties,
            such as the passes of a 0/1 verifier, are flattened.
        typicality_alpha: Logits of reward per nat of `log pi_ref`, the raters' preference for typical text; subtracted
            first, so that ties are ties of quality. `typicality.fit_typicality` fits it; 0 is off.

    Raises:
        ValueError: If `beta` is not positive, `rho` is NaN, `uniform_floor` is outside `[0, 1]`, `typicality_alpha` is
            not finite, or another option is negative or infinite.

    Example:
        >>> rewards = torch.tensor([[[8.0, 0.0], [0.0, 8.0]]])  # two answers, two clusters that want one each
        >>> log_pi_ref = torch.full((1, 2), 0.5).log()
        >>> PoolTarget(rho=1.0).log_probs(rewards, torch.tensor([[0.9, 0.1]]), log_pi_ref).exp()
        tensor([[0.8997, 0.1003]])
        >>> PoolTarget(rho=0.0).log_probs(rewards, torch.tensor([[0.9, 0.1]]), log_pi_ref).exp()
        tensor([[0.9983, 0.0017]])
    """

    rho: float = 1.0
    beta: float = 1.0
    tie_margin: float = 0.0
    reference_power: float = 1.0
    tie_width: float = 0.0
    uniform_floor: float = 0.0
    typicality_alpha: float = 0.0

    def __post_init__(self) -> None:
        check_beta(self.beta)
        _check_rho(self.rho)
        _check_distance("tie_margin", self.tie_margin)
        _check_distance("tie_width", self.tie_width)
        if not 0 <= self.reference_power < math.inf:
            raise ValueError(
                f"reference_power: got {self.reference_power:g}; it is the exponent of pi_ref, 0 (dropped) or more"
            )
        if not 0 <= self.uniform_floor <= 1:
            raise ValueError(
                f"uniform_floor: got {self.uniform_floor:g}; it goes from 0 (ties keep pi_ref's ratio) to 1 (uniform)"
            )
        if not math.isfinite(self.typicality_alpha):
            raise ValueError(
                f"typicality_alpha: got {self.typicality_alpha:g}; it is a finite number of logits per nat, 0 is off"
            )

    @property
    def reads_reference(self) -> bool:
        """Whether `log_probs` depends on `log_pi_ref`; where it does not, the reference need not be scored."""
        return self.reference_power > 0 or self.typicality_alpha != 0

    def shaped(
        self,
        rewards: Tensor,
        log_pi_ref: Tensor | None,
        best: Tensor | None = None,
        mask: Tensor | None = None,
        anchor: Tensor | None = None,
    ) -> Tensor:
        """Apply all options to the rewards: each cluster's optimum is then `pi_ref exp(r'_k / beta)`.

        The plain pool of r' is `log_probs` of `rewards`. r' depends on the other answers to the prompt through `best`
        and `anchor` alone. By default both are computed from the answers given; where these are a sample of all
        answers, running values of the prompt make r' the same from one sample to the next.

        Args:
            rewards: Logits, shape `(..., N, K)`.
            log_pi_ref: Nats, shape `(..., N)`; `None` where no option reads it. No reward can restore an answer of
                probability 0, so `reference_power` does not apply to it.
            best: Each cluster's best reward, after `typicality.debias` if that is on: shape `(..., 1, K)`, or
                `(..., N, K)` where each answer is to another prompt; `-inf` where it is unknown.
            mask: True where there is an answer, and a valid one if there is a gate, shape `(..., N)`; padding is never
                read.
            anchor: `log pi_ref` of the tied answer whose reward `uniform_floor` leaves alone, in nats, broadcast
                against `rewards`; default: the most probable of the ties, as in MARA.

        Returns:
            Logits, shape `(..., N, K)`; 0 at padding.

        Raises:
            ValueError: If an option needs a `log_pi_ref` or an `anchor` that is not given, or a prompt has no answer
                or none that `pi_ref` can give.
        """
        if log_pi_ref is None:
            if self.reference_power != 1 or self.uniform_floor > 0 or self.typicality_alpha != 0:
                raise ValueError(
                    f"log_pi_ref: got None, but reference_power={self.reference_power:g}, uniform_floor="
                    f"{self.uniform_floor:g} and typicality_alpha={self.typicality_alpha:g} shape rewards by it: give "
                    "the reference's log-probabilities, or leave these options at 1, 0 and 0"
                )
            log_pi_ref = rewards.new_zeros(rewards.shape[:-1])
        log_pi_ref, mask = _prepare(log_pi_ref, mask)
        r = self._shape(_present(rewards, mask), log_pi_ref, mask, best, anchor)
        if self.reference_power != 1:
            known = torch.where(log_pi_ref > -math.inf, log_pi_ref, 0.0).to(r)
            r = r + (self.reference_power - 1) * self.beta * known.unsqueeze(-1)
        return torch.where(mask.unsqueeze(-1), r, 0.0)

    def log_probs(
        self,
        rewards: Tensor,
        weights: Weights,
        log_pi_ref: Tensor,
        mask: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Compute the log-probabilities of the target over the support.

        Args:
            rewards: Logits, shape `(B, N, K)`.
            weights: Shape `(K,)` or `(B, K)`.
            log_pi_ref: Nats, shape `(B, N)`; need not be normalised over the support.
            mask: True where there is an answer, shape `(B, N)`; padding is never read.
            valid: True where an answer passes the validity gate, shape `(B, N)`; the rest has probability 0 for every
                cluster, and its rewards are never read.

        Returns:
            Nats, shape `(B, N)`, normalised over the support; `-inf` at padding and where an answer is not valid.

        Raises:
            JuryError: If the weights are unusable.
            ValueError: If a prompt has no answer, no valid one, or none that `pi_ref` can give.
        """
        log_pi_ref, mask = _prepare(log_pi_ref, mask, valid)
        r = self._shape(_present(rewards, mask), log_pi_ref, mask)
        if self.reference_power == 0:
            log_ref = torch.where(mask, 0.0, -math.inf).to(r)
        else:
            log_ref = self.reference_power * log_pi_ref.to(r)
        log_z = log_partition(r, log_ref, self.beta, mask)
        w = normalise_weights(weights, r.shape[-1])
        pooled = pool_reward(r, w.unsqueeze(-2), log_z.unsqueeze(-2), self.beta, self.rho)
        return torch.log_softmax(pooled / self.beta + log_ref, -1)

    def _shape(
        self, r: Tensor, log_pi_ref: Tensor, mask: Tensor, best: Tensor | None = None, anchor: Tensor | None = None
    ) -> Tensor:
        # All options but the reference power, which log_probs applies to pi_ref itself: 0 then drops it even where it
        # is 0. Answers that no sample would hold set neither the best nor the anchor.
        reachable = mask & (log_pi_ref > -math.inf)
        if self.reference_power > 0:
            _refuse_unreachable(log_pi_ref)
        elif self.typicality_alpha != 0 and (unknown := (reachable != mask).any(-1)).any():
            raise ValueError(
                f"log_pi_ref: an answer of prompt {_first(unknown)} of the batch has probability 0, so the typicality "
                f"part of its reward is unknown: leave typicality_alpha at 0 (got {self.typicality_alpha:g}), or keep "
                "the reference with reference_power above 0"
            )
        possible = (reachable if self.reference_power > 0 else mask).unsqueeze(-1)
        log_ref = torch.where(reachable, log_pi_ref, 0.0).to(r)
        if self.typicality_alpha != 0:
            r = debias(r, log_ref, self.typicality_alpha)
        if self.tie_margin == self.tie_width == self.uniform_floor == 0:
            return r
        one_prompt = best is None or best.shape[-2] == 1
        highest = torch.where(possible, r, -math.inf).amax(-2, keepdim=True) if one_prompt else r
        if best is not None:
            highest = torch.maximum(highest, best.to(r))
        saturated = saturate(r, self.tie_margin, self.tie_width, best=highest)
        if self.uniform_floor == 0 or self.reference_power == 0:
            return saturated
        above = r - (highest - self.tie_margin)
        tied = torch.sigmoid(above / self.tie_width) if self.tie_width > 0 else (above >= 0).to(r)
        log_ref = log_ref.unsqueeze(-1)
        if anchor is None:
            if not one_prompt:
                raise ValueError(
                    "best: got one per answer, so the answers are to several prompts and the anchor of uniform_floor="
                    f"{self.uniform_floor:g} cannot be found among them: put the answers to one prompt along the axis "
                    "N with best of shape (..., 1, K), or give anchor"
                )
            anchor = torch.where(possible & (above >= 0), log_ref, -math.inf).amax(-2, keepdim=True)
        # A sample may hold none of the ties; then there is nothing to flatten.
        lift = torch.where(anchor > -math.inf, anchor.to(r) - log_ref, 0.0)
        return saturated + self.uniform_floor * self.reference_power * self.beta * tied * lift


def _present(rewards: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask.unsqueeze(-1), rewards, 0.0).to(torch.promote_types(rewards.dtype, torch.float32))


def _prepare(log_pi_ref: Tensor, mask: Tensor | None, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    present = torch.ones_like(log_pi_ref, dtype=torch.bool) if mask is None else mask.to(torch.bool)
    empty = ~present.any(-1)
    if empty.any():
        raise ValueError(
            f"support: prompt {_first(empty)} of the batch has no answer (its mask is all False): "
            "a target needs at least one answer per prompt"
        )
    if valid is not None:
        answers = present.sum(-1)
        present = present & valid.to(torch.bool)
        shut = ~present.any(-1)
        if shut.any():
            n = _first(shut)
            raise ValueError(
                f"valid: none of the {int(answers.reshape(-1)[n])} answers of prompt {n} of the batch is valid, so no "
                "policy could pass the gate there: check what judges validity, add a valid answer (a refusal, say) to "
                "the support, or leave the prompt out"
            )
    return torch.where(present, log_pi_ref, -math.inf), present


def _refuse_unreachable(log_pi_ref: Tensor) -> None:
    unreachable = log_pi_ref.amax(-1) == -math.inf
    if unreachable.any():
        raise ValueError(
            f"support: the reference gives every answer of prompt {_first(unreachable)} of the batch probability 0, "
            "so no target exists there: check the log-probabilities, or drop the reference with reference_power=0"
        )


def _first(rows: Tensor) -> int:
    return int(rows.reshape(-1).nonzero()[0])


def _check_rho(rho: float) -> None:
    if math.isnan(rho):
        raise ValueError("rho: got nan: give a number, or -inf (worst-off), 0 (log pool), 1 (mixture), inf (union)")


def _check_distance(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}: got {value:g}; it is a distance in logits, 0 (off) or more, and finite")
