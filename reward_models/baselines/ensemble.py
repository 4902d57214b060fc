"""Pairwise calibrated ensemble: a few rewards whose weights are the shares of people who prefer a to b.

Halpern, Micha, Procaccia and Shapira, "Pairwise Calibrated Rewards" (arXiv 2506.06298): the total weight of the
rewards that prefer a is the share of people who do. Heads are added one by one to what the others leave unexplained,
then adjusted together. With features the heads make a jury reward model:
`JuryRewardModel.from_fit(backbone, fit.weight, fit.bias, fit.prevalence)`.

Ratings compare texts only through levels and are refused. Knows nothing of raters; rater ids are ignored.

Shapes: `N` questions, `M` distinct pairs, `U` texts, `D` features, `d` components, `K` heads, `A` options.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import nnls
from scipy.special import expit
from torch import Tensor

from reward_models.baselines.pair_counts import FLOOR, MEAN_PRECISION, Coordinates, PairCounts, heldout_ridge
from reward_models.errors import JuryError
from reward_models.fitting.text_table import TextTable
from reward_models.judgements.encoding import Encoded
from reward_models.raters.lbfgs import minimise
from reward_models.seeds import seeded_rng


__all__ = ["EnsembleFit", "fit_calibrated_ensemble"]

TEMPERATURES = (1.0, 0.3, 0.1)  # of the votes while heads and weights are adjusted together
SHARPNESS = (1.0, 2.0, 4.0, 8.0, 16.0)  # candidate factors of the final heads


@dataclass(frozen=True)
class EnsembleFit:
    """A pairwise calibrated ensemble. A `predictors.Predictor` that predicts everybody as a random person.

    Attributes:
        weight: (K, D) heads on raw features; None without features.
        bias: (K,); rewards average zero over the texts.
        prevalence: (K,) weight of each head, descending.
        table: Reward of each text under each head (U, K).
        tie_share: Share of ties among the judgements.
        calibration: Pairwise calibration error after each head, on the pairs of the fit: mean over judgements of
            `(sum_k omega_k 1[r_k(a) > r_k(b)] - share of a)^2`; the first is that of a single reward.
        ridge: Prior precision of the weights, chosen on held-out pairs; None without features.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("preference").judgements.encode()
        >>> fit = fit_calibrated_ensemble(enc, num_heads=2)
        >>> fit.prevalence.round(1).tolist(), fit.table.values.shape
        ([0.5, 0.5], (24, 2))
    """

    weight: np.ndarray | None
    bias: np.ndarray
    prevalence: np.ndarray
    table: TextTable
    tie_share: float
    calibration: list[float]
    ridge: float | None

    def preferring(self, enc: Encoded, features: np.ndarray | None = None, *, smooth: bool = False) -> np.ndarray:
        """Compute the (N,) weight of the heads that prefer a to b; a head with equal rewards counts half.

        Args:
            enc: `N` pairs.
            features: As for `log_probs`.
            smooth: Return the weighted mean of `sigmoid(r_k(a) - r_k(b))` instead.
        """
        rewards = self.table.rows(enc, features)
        difference = rewards[enc.alternatives[:, 0]] - rewards[enc.alternatives[:, 1]]
        return (expit(difference) if smooth else 0.5 * (1.0 + np.sign(difference))) @ self.prevalence

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """Compute the (N, A) log-probability of every possible answer; see `Predictor`. Raters are ignored.

        A head answers by the logistic model of its rewards; ties are equally frequent in all pairs.

        Raises:
            JuryError: Ratings, or new texts without features.
        """
        if enc.kind == "rating":
            raise JuryError("kind='rating': an ensemble of pairs has no rating levels. Fix: score pairs or choices")
        with np.errstate(divide="ignore"):
            if enc.kind == "preference":
                a = np.clip(self.preferring(enc, features, smooth=True), FLOOR, 1.0 - FLOOR)
                tie = np.full(len(enc), self.tie_share)
                return np.log(np.stack([(1.0 - tie) * a, (1.0 - tie) * (1.0 - a), tie], axis=1))
            rewards = self.table.rows(enc, features)[np.maximum(enc.alternatives, 0)]
            rewards = np.where((enc.alternatives >= 0)[:, :, None], rewards, -np.inf)
            p = np.exp(rewards - rewards.max(1, keepdims=True))
            return np.log((p / p.sum(1, keepdims=True)) @ self.prevalence)

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> EnsembleFit:
        """Return the model itself: it has no memberships to infer."""
        return self


def fit_calibrated_ensemble(
    enc: Encoded, features: np.ndarray | None = None, *, num_heads: int = 4, restarts: int = 4, seed: int = 0
) -> EnsembleFit:
    """Fit heads and weights of an ensemble, stage by stage.

    Stage k adds the head that, with weight 1 / k, brings `(1 - 1/k) F + sigmoid(r_k(a) - r_k(b)) / k` closest to the
    share of people for a, in squares weighted by judgements; `F` is the ensemble so far. Then all heads and weights
    are adjusted together while the sigmoids become steeper, and the weights once more to the heads' actual votes, by
    non-negative least squares. Heads without weight are dropped.

    Args:
        enc: Pairs, choices or published shares; rater ids are ignored.
        features: (U, D) rows for `enc.texts`: heads are linear in them, the ridge is chosen on held-out pairs. None:
            rewards are free per text.
        num_heads: Largest number of heads `K`.
        restarts: Random starts of each stage; the best is kept.
        seed: Random seed of the starts and of the held-out pairs.

    Returns:
        The ensemble.

    Raises:
        JuryError: Ratings, no pairs, fewer than one head, or features that do not match.

    Example:
        A second head brings the ensemble closer to the shares of people:

        >>> from reward_models import planted_judgements
        >>> fit = fit_calibrated_ensemble(planted_judgements("preference").judgements.encode(), num_heads=2)
        >>> [round(error, 2) for error in fit.calibration]
        [0.17, 0.15]
    """
    if num_heads < 1 or restarts < 1:
        raise JuryError(f"num_heads={num_heads} and restarts={restarts} must be at least 1. Fix: use 4 and 4")
    pairs = PairCounts.of(enc)
    space = Coordinates.of(enc, features)
    ridge: float | None = None
    if features is not None:

        def single(some: PairCounts, strength: float, start: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
            return _logistic_head(space, enc, some, some.share(), strength, start)

        def loss_of(some: PairCounts, params: dict[str, Tensor]) -> Tensor:
            return _cross_entropy(_votes(space, params["heads"], some), some.share(), some.counts.sum(1))

        ridge = heldout_ridge(pairs, seed, single, loss_of)
    strength = MEAN_PRECISION if ridge is None else ridge
    heads, weights, history = _stages(
        space, enc, pairs, num_heads, restarts, strength, seeded_rng(seed, "starts of ensemble")
    )
    order = np.argsort(-weights, kind="stable")
    order = order[weights[order] > 1e-3]
    heads, weights = heads[:, order], weights[order] / weights[order].sum()
    heads = heads * _sharpness(space, heads, weights, pairs)
    table = space.table(enc, heads)
    mean = table.values.mean(0)
    bias = -mean if table.bias is None else table.bias - mean
    table = TextTable(enc.texts, table.values - mean, table.weight, None if table.weight is None else bias)
    return EnsembleFit(
        weight=None if table.weight is None else table.weight.T,
        bias=np.zeros(len(order)) if table.weight is None else bias,
        prevalence=weights,
        table=table,
        tie_share=float(pairs.counts[:, 2].sum() / pairs.counts.sum()),
        calibration=history,
        ridge=ridge,
    )


def _stages(
    space: Coordinates,
    enc: Encoded,
    pairs: PairCounts,
    num_heads: int,
    restarts: int,
    ridge: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Heads (U or d, K), weights (K,) and the calibration error after each stage."""
    share, weight = pairs.share(), pairs.counts.sum(1)
    target, mass = torch.from_numpy(share), torch.from_numpy(weight / weight.sum())
    penalty = 0.5 * ridge / weight.sum()

    def squares(predicted: Tensor, heads: Tensor) -> Tensor:
        return (mass * (predicted - target).square()).sum() + 0.01 * penalty * heads.square().sum()

    heads = _logistic_head(space, enc, pairs, share, ridge, None)["heads"]
    weights = np.ones(1)
    history: list[float] = []
    for stage in range(1, num_heads + 1):
        if stage > 1:
            with torch.no_grad():
                so_far = _votes(space, torch.from_numpy(heads), pairs).sigmoid() @ torch.from_numpy(weights)
            # Votes of the new head that would explain the rest; the first start fits them, the others are random.
            rest = np.clip(stage * share - (stage - 1) * so_far.numpy(), 0.0, 1.0)
            starts = [_logistic_head(space, enc, pairs, rest, ridge, None)["heads"]]
            size = np.abs(heads).mean()
            starts += [size * rng.normal(size=starts[0].shape) for _ in range(restarts - 1)]

            def added(params: dict[str, Tensor], so_far: Tensor = so_far, stage: int = stage) -> Tensor:
                vote = _votes(space, params["heads"], pairs).sigmoid()[:, 0]
                return squares(so_far + (vote - so_far) / stage, params["heads"])

            added_heads = [minimise(added, {"heads": start}, max_iter=200, tol=1e-8)["heads"] for start in starts]
            scores = [float(added({"heads": torch.from_numpy(head)})) for head in added_heads]
            heads = np.concatenate([heads, added_heads[int(np.argmin(scores))]], axis=1)
            weights = np.append(weights * (stage - 1) / stage, 1.0 / stage)
            for temperature in TEMPERATURES:

                def together(params: dict[str, Tensor], temperature: float = temperature) -> Tensor:
                    votes = (_votes(space, params["heads"], pairs) / temperature).sigmoid()
                    return squares(votes @ params["logits"].softmax(0), params["heads"])

                begin = {"heads": heads, "logits": np.log(np.maximum(weights, FLOOR))}
                fitted = minimise(together, begin, max_iter=200, tol=1e-8)
                heads, weights = fitted["heads"], np.exp(fitted["logits"] - fitted["logits"].max())
                weights = weights / weights.sum()
        weights, error = _calibrate(space, heads, pairs)
        if history and error > history[-1] - 1e-5:
            break
        best = heads, weights
        history.append(error)
    return *best, history


def _calibrate(space: Coordinates, heads: np.ndarray, pairs: PairCounts) -> tuple[np.ndarray, float]:
    """Weights (K,) that bring the heads' actual votes closest to the shares, and the mean squared error."""
    with torch.no_grad():
        votes = (_votes(space, torch.from_numpy(heads), pairs).numpy() > 0).astype(np.float64)
    mass = np.sqrt(pairs.counts.sum(1) / pairs.counts.sum())
    # The heavy last row makes the weights sum to one.
    design = np.concatenate([mass[:, None] * votes, np.full((1, votes.shape[1]), 1e3)])
    weights, _ = nnls(design, np.append(mass * pairs.share(), 1e3))
    weights = weights / weights.sum()
    return weights, float(((mass * (votes @ weights - pairs.share())) ** 2).sum())


def _sharpness(space: Coordinates, heads: np.ndarray, weights: np.ndarray, pairs: PairCounts) -> float:
    """Factor of the heads under which their mean sigmoid best explains the judgements."""
    share, mass = pairs.share(), pairs.counts.sum(1)
    with torch.no_grad():
        votes = _votes(space, torch.from_numpy(heads), pairs).numpy()
    losses = {}
    for factor in SHARPNESS:
        p = np.clip(expit(factor * votes) @ weights, FLOOR, 1.0 - FLOOR)
        losses[factor] = -float(mass @ (share * np.log(p) + (1.0 - share) * np.log(1.0 - p)))
    return min(losses, key=losses.__getitem__)


def _votes(space: Coordinates, heads: Tensor, pairs: PairCounts) -> Tensor:
    """(M, K) reward of a minus reward of b, under each head."""
    rewards = space.values(heads)
    return rewards[torch.from_numpy(pairs.a)] - rewards[torch.from_numpy(pairs.b)]


def _cross_entropy(votes: Tensor, share: np.ndarray, weight: np.ndarray) -> Tensor:
    target, logits = torch.from_numpy(share), votes[:, 0]
    each = target * torch.nn.functional.logsigmoid(logits) + (1 - target) * torch.nn.functional.logsigmoid(-logits)
    return -(torch.from_numpy(weight) * each).sum()


def _logistic_head(
    space: Coordinates,
    enc: Encoded,
    pairs: PairCounts,
    share: np.ndarray,
    ridge: float,
    start: dict[str, np.ndarray] | None,
) -> dict[str, np.ndarray]:
    """Fit one head by logistic regression of the shares (M,): Bradley-Terry with a ridge."""
    weight = pairs.counts.sum(1)

    def loss(params: dict[str, Tensor]) -> Tensor:
        size = 0.5 * ridge * params["heads"].square().sum()
        return _cross_entropy(_votes(space, params["heads"], pairs), share, weight) + size

    return minimise(loss, start or {"heads": np.zeros((space.size(enc), 1))}, max_iter=300, tol=1e-8)
