"""From the rewards of a batch to a loss: the likelihood of its judgements, and its terms that are not reward.

Rater terms keep the values estimated at the start; the terms that all raters share follow the rewards by small
gradient steps, outside the model and its optimizer. Knows nothing of where memberships or rewards come from.

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
    """Compute the loss of judgements of raters with unknown clusters: `-T log sum_k m_nk exp(w_n l_nk / T)`.

    At T = 1 it is the negative log-likelihood of the mixture. Its gradient is `-w_n sum_k q_nk ∇l_nk` with the
    posterior `q_nk ∝ m_nk exp(w_n l_nk / T)`. By Fisher's identity this is the gradient of the marginal likelihood of
    all of a rater's judgements, if the memberships `m` are current. K = 1: `-w_n l_n` exactly.

    Args:
        log_lik: (N, K) log-likelihood of each judgement in each cluster, nats.
        log_membership: (N, K) log membership of its rater given the rater's other judgements.
        weight: (N,) weights.
        temperature: `T` of the E-step.

    Returns:
        (N,) nats.

    Example:
        >>> log_lik = torch.tensor([[0.8, 0.2]]).log()
        >>> loss = tempered_loss(log_lik, torch.tensor([[0.5, 0.5]]).log(), torch.ones(1))
        >>> round(float(loss.neg().exp()), 3)  # .5 * .8 + .5 * .2
        0.5
    """
    return -temperature * (log_membership + weight[:, None] * log_lik / temperature).logsumexp(1)


def observe(batch: Mapping[str, Tensor], rewards: Tensor, kind: str, n_raters: int) -> tuple[Observations, Tensor]:
    """Return the judgements of a batch and the rewards of their alternatives.

    Args:
        batch: Result of `JudgementCollator`.
        rewards: (V, K) rewards of the batch's texts.
        kind: Kind of the judgements.
        n_raters: `R`; a rater who is not in the training data becomes number `R`.

    Returns:
        The judgements, and the rewards (N, A, K) of their alternatives; a margin is subtracted from the first one's.

    Example:
        >>> batch = {name: torch.tensor([0]) for name in ("answer", "rater")}
        >>> batch |= {name: torch.tensor([1.0]) for name in ("weight", "first", "margin")}
        >>> batch["alternatives"] = torch.tensor([[1, 0]])
        >>> obs, of_alternatives = observe(batch, torch.tensor([[5.0], [9.0]]), "preference", n_raters=1)
        >>> of_alternatives.tolist()  # the first alternative is text 1: 9, less the margin of 1
        [[[8.0], [5.0]]]
    """
    alternatives, rater = batch["alternatives"], batch["rater"]
    padded = alternatives < 0
    obs = Observations(
        kind=kind,
        alternatives=alternatives.clamp(min=0),
        mask=~padded if bool(padded.any()) else None,
        label=batch["answer"][:, None],
        rater=torch.where(rater < 0, n_raters, rater),
        count=batch["weight"],  # only the weight in the loss is needed here
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
    """Compute the squared sum of the rewards of an item's alternatives, which `center_rewards_coefficient` penalises.

    For pairs it is `(r_chosen + r_rejected)^2` (https://huggingface.co/papers/2312.09244, Eq. 2).

    Args:
        obs: `N` judgements.
        rewards: (V, K) rewards of the batch's texts.
        row: (N,) row of the batch that each judgement came from, not decreasing.

    Returns:
        (K,) mean over the rows.

    Example:
        >>> from reward_models import planted_judgements
        >>> obs = Observations.from_encoded(planted_judgements(num_raters=2, num_items=2).judgements.encode())
        >>> rewards = torch.tensor([[1.0], [2.0], [0.0], [1.0]])  # two items of two texts each
        >>> squared_level(obs.select(torch.tensor([0, 1])), rewards, row=torch.tensor([0, 1])).tolist()  # (9 + 1) / 2
        [5.0]
    """
    one_each = torch.cat([row.new_ones(1), row.diff()]).bool()
    offered = torch.ones_like(obs.alternatives) if obs.mask is None else obs.mask
    return (obs.gather(rewards) * offered[:, :, None]).sum(1)[one_each].square().mean(0)


def answer_log_probs(obs: Observations, rewards: Tensor, terms: dict[str, Tensor]) -> Tensor:
    """Compute the log-probability of every possible answer.

    Args:
        obs: `N` judgements; their labels are ignored.
        rewards: (N, A, K) rewards of the alternatives.
        terms: As for `Observations.log_lik`.

    Returns:
        (answers, N, K) nats: a, b and, if there are ties, tie; or the levels of the scale; or the options.

    Example:
        >>> from reward_models import planted_judgements
        >>> obs = Observations.from_encoded(planted_judgements(num_raters=2, num_items=2).judgements.encode())
        >>> equal_rewards = torch.zeros(4, 2, 1, dtype=torch.float64)
        >>> answer_log_probs(obs, equal_rewards, {}).exp()[:, 0, 0].tolist()  # a, b
        [0.5, 0.5]
    """
    if obs.kind == "rating":
        n_answers = len(terms["thresholds"]) + 1
    else:
        n_answers = rewards.shape[1] + ("log_tie_mean" in terms)
    return torch.stack([obs.answering(answer).log_lik(rewards, terms) for answer in range(n_answers)])


def raw_terms(terms: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Invert `public_terms`: thresholds become the first one and the logs of the gaps, which are unconstrained.

    Example:
        >>> raw_terms({"thresholds": np.array([-0.5, 0.5])})["raw_thresholds"].tolist()
        [-0.5, 0.0]
    """
    raw = {name: value for name, value in terms.items() if name != "thresholds"}
    if "thresholds" in terms:
        zeta = terms["thresholds"]
        raw["raw_thresholds"] = np.concatenate([zeta[:1], np.log(np.diff(zeta))])
    return raw


class JudgementTerms:
    """The terms of the likelihood that are not reward; the shared ones are trained by gradient steps.

    Args:
        terms: Rater terms (R,) and shared terms by name, thresholds raw.
        learning_rate: Step size of the shared terms (Adagrad, logits).
        spread: Standard deviation of each rater term over raters, where a fit estimated it.

    Attributes:
        of_raters: (R + 1,) float64 by name; the last entry, 0, is for raters who are not in the training data.
        shared: Float64 arrays by name.
        squares: Sums of squared gradients of the shared terms.
        spread: Standard deviations of the rater terms by name: estimated, or the usual ones.

    Example:
        >>> terms = JudgementTerms({"intercept": np.array([0.3]), "log_tie_mean": np.zeros(1)}, learning_rate=0.05)
        >>> terms.of_raters["intercept"].tolist()
        [0.3, 0.0]
        >>> terms.step(lambda t: t["log_tie_mean"].sum(), torch.zeros(1), reduce=lambda tensor: tensor)
        >>> terms.shared["log_tie_mean"].tolist()
        [-0.05]
    """

    def __init__(
        self, terms: Mapping[str, np.ndarray], learning_rate: float, spread: Mapping[str, float] | None = None
    ) -> None:
        self.learning_rate = learning_rate
        self.of_raters = {name: np.append(value, 0.0) for name, value in terms.items() if name in TERM_SD}
        self.shared = {name: value.copy() for name, value in terms.items() if name not in TERM_SD}
        self.squares = {name: np.zeros_like(value) for name, value in self.shared.items()}
        self.spread = {name: np.array((spread or TERM_SD)[name]) for name in self.of_raters}

    def tensors(self, like: Tensor) -> dict[str, Tensor]:
        """Return all terms as `Observations.log_lik` takes them, with the device and precision of `like`."""
        terms = {name: torch.from_numpy(value).to(like) for name, value in (self.of_raters | self.shared).items()}
        return torch_terms(terms)

    def step(
        self, loss: Callable[[dict[str, Tensor]], Tensor], like: Tensor, reduce: Callable[[Tensor], Tensor]
    ) -> None:
        """Take one gradient step of the shared terms.

        Args:
            loss: Scalar loss as a function of all terms.
            like: A tensor with the device and precision to use.
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
        """Return the arrays that a checkpoint must hold, by name."""
        parts = {"of_raters": self.of_raters, "shared": self.shared, "squares": self.squares, "spread": self.spread}
        return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore the result of `state`; of earlier versions, which stored no spread, with the usual one."""
        parts = (("of_raters", self.of_raters), ("shared", self.shared), ("squares", self.squares))
        for part, values in (*parts, ("spread", self.spread)):
            values.clear()
            values |= {name.split(".", 1)[1]: v.copy() for name, v in state.items() if name.startswith(f"{part}.")}
        self.spread |= {name: np.array(TERM_SD[name]) for name in self.of_raters if name not in self.spread}
