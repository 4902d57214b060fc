"""From a batch of rewards to a loss: the likelihood of a batch's judgements, and the terms in it that are not reward.

Rater terms are plug-ins and stay as they were estimated; the terms that all raters share follow the rewards by small
steps of their own, outside the model and its optimizer. Knows nothing of where memberships or rewards come from.

Shapes: `V` texts of a batch, `N` judgements in it, `A` alternatives or answers, `R` raters, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from reward_models.raters.observation import TERM_SD, Observations, torch_terms


__all__ = ["JudgementTerms", "answer_log_probs", "observe", "raw_terms", "squared_level", "tempered_loss"]


def tempered_loss(log_lik: Tensor, log_membership: Tensor, weight: Tensor, temperature: float = 1.0) -> Tensor:
    """Loss of judgements whose raters' clusters are not known: `-T log sum_k m_nk exp(w_n l_nk / T)`.

    At T = 1 that is the negative log-likelihood of the mixture. Its gradient is `-w_n sum_k q_nk ∇l_nk` with the
    posterior `q_nk ∝ m_nk exp(w_n l_nk / T)`, so by Fisher's identity it is that of the marginal likelihood of all of
    a rater's judgements where the memberships `m` are current. K = 1: `-w_n l_n` exactly.

    Args:
        log_lik: (N, K) log-likelihood of each judgement in each cluster, nats.
        log_membership: (N, K) log membership of its rater given the rater's other judgements.
        weight: (N,) weights.
        temperature: `T` of the E-step.

    Returns:
        (N,) nats.
    """
    return -temperature * (log_membership + weight[:, None] * log_lik / temperature).logsumexp(1)


def observe(batch: Mapping[str, Tensor], rewards: Tensor, kind: str, n_raters: int) -> tuple[Observations, Tensor]:
    """Put the judgements of a batch beside the rewards of their alternatives.

    Args:
        batch: What `JudgementCollator` makes.
        rewards: (V, K) rewards of the batch's texts.
        kind: Kind of the judgements.
        n_raters: `R`; a rater who is not known becomes number `R`.

    Returns:
        The judgements, and the rewards (N, A, K) of their alternatives. A margin is taken off that of the first one.
    """
    alternatives, rater = batch["alternatives"], batch["rater"]
    padded = alternatives < 0
    obs = Observations(
        kind=kind,
        alternatives=alternatives.clamp(min=0),
        mask=~padded if bool(padded.any()) else None,
        label=batch["answer"][:, None],
        rater=torch.where(rater < 0, n_raters, rater),
        weight=batch["weight"],
        first=batch["first"][:, None],
        n_raters=n_raters,
        n_levels=0,
    )
    of_alternatives = obs.gather(rewards)
    margin = torch.zeros_like(of_alternatives)
    margin[:, 0] = batch["margin"][:, None].to(margin)
    return obs, of_alternatives - margin


def squared_level(obs: Observations, rewards: Tensor, row: Tensor) -> Tensor:
    """Squared sum of the rewards of an item's alternatives, which `center_rewards_coefficient` keeps small.

    For pairs that is `(r_chosen + r_rejected)^2` (https://huggingface.co/papers/2312.09244, Eq. 2).

    Args:
        obs: `N` judgements.
        rewards: (V, K) rewards of the batch's texts.
        row: (N,) row of the batch that each judgement came from, not decreasing.

    Returns:
        (K,) mean over the rows.
    """
    one_each = torch.cat([row.new_ones(1), row.diff()]).bool()
    offered = torch.ones_like(obs.alternatives) if obs.mask is None else obs.mask
    return (obs.gather(rewards) * offered[:, :, None]).sum(1)[one_each].square().mean(0)


def answer_log_probs(obs: Observations, rewards: Tensor, terms: dict[str, Tensor]) -> Tensor:
    """Log-probability of every answer that could have been given.

    Args:
        obs: `N` judgements; their labels are not looked at.
        rewards: (N, A, K) rewards of the alternatives.
        terms: As for `Observations.log_lik`.

    Returns:
        (answers, N, K) nats: a, b and, if there are ties, tie; or the levels of the scale; or the options.
    """
    if obs.kind == "rating":
        n_answers = len(terms["thresholds"]) + 1
    else:
        n_answers = rewards.shape[1] + ("log_tie_mean" in terms)
    return torch.stack([obs.answering(answer).log_lik(rewards, terms) for answer in range(n_answers)])


def raw_terms(terms: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Undo `public_terms`: thresholds become the first one and the logs of the gaps, which may take any value."""
    raw = {name: value for name, value in terms.items() if name != "thresholds"}
    if "thresholds" in terms:
        zeta = terms["thresholds"]
        raw["raw_thresholds"] = np.concatenate([zeta[:1], np.log(np.diff(zeta))])
    return raw


class JudgementTerms:
    """The terms of the likelihood that are not reward, and how the shared ones follow it.

    Args:
        terms: Rater terms (R,) and shared terms by name, thresholds raw.
        learning_rate: Step size of the shared terms (Adagrad, logits).

    Attributes:
        of_raters: (R + 1,) float64 by name; the last entry, 0, is for raters who are not known.
        shared: Float64 arrays by name.
        squares: Sums of squared gradients of the shared terms.
    """

    def __init__(self, terms: Mapping[str, np.ndarray], learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self.of_raters = {name: np.append(value, 0.0) for name, value in terms.items() if name in TERM_SD}
        self.shared = {name: value.copy() for name, value in terms.items() if name not in TERM_SD}
        self.squares = {name: np.zeros_like(value) for name, value in self.shared.items()}

    def tensors(self, like: Tensor) -> dict[str, Tensor]:
        """All terms as `Observations.log_lik` takes them, on the device and in the precision of `like`."""
        terms = {name: torch.from_numpy(value).to(like) for name, value in (self.of_raters | self.shared).items()}
        return torch_terms(terms)

    def step(
        self, loss: Callable[[dict[str, Tensor]], Tensor], like: Tensor, reduce: Callable[[Tensor], Tensor]
    ) -> None:
        """One step of the shared terms down the gradient of a loss.

        Args:
            loss: Scalar loss given all terms.
            like: Says device and precision.
            reduce: Averages a tensor over processes.
        """
        if not self.shared or not self.learning_rate:
            return
        with torch.enable_grad():
            raw = {name: torch.from_numpy(value).to(like).requires_grad_() for name, value in self.shared.items()}
            fixed = {name: torch.from_numpy(value).to(like) for name, value in self.of_raters.items()}
            gradients = torch.autograd.grad(loss(torch_terms(fixed | raw)), list(raw.values()), allow_unused=True)
        for name, gradient in zip(raw, gradients, strict=True):
            slope = reduce(torch.zeros_like(raw[name]) if gradient is None else gradient).double().cpu().numpy()
            self.squares[name] += slope**2
            self.shared[name] -= self.learning_rate * slope / np.sqrt(np.maximum(self.squares[name], 1e-12))

    def state(self) -> dict[str, np.ndarray]:
        """What a checkpoint must hold, flat."""
        parts = {"of_raters": self.of_raters, "shared": self.shared, "squares": self.squares}
        return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from what `state` returned."""
        for part, values in (("of_raters", self.of_raters), ("shared", self.shared), ("squares", self.squares)):
            values.clear()
            values |= {name.split(".", 1)[1]: v.copy() for name, v in state.items() if name.startswith(f"{part}.")}
