"""Disagreement without rater ids: what can be said when nobody knows who answered.

Two models of the share of people who prefer a to b. Rater ids, where there are any, are ignored.

- `fit_mean_variance`: every text has a utility that varies over people, `u(x) ~ N(mu(x), sigma^2(x))`, and
  `P(a > b) = Phi((mu_a - mu_b) / sqrt(sigma_a^2 + sigma_b^2))` (Siththaranjan, Laidlaw and Hadfield-Menell,
  "Distributional Preference Learning", ICLR 2024, arXiv 2312.08358). Ties, which the paper does not have: two texts
  are tied where their utilities differ by less than `epsilon` (Thurstone's model with a threshold; Glenn and David
  1960).
- `fit_calibrated_ensemble`: a few rewards with weights, such that the weight of the rewards that prefer a is the share
  of people who do (Halpern, Micha, Procaccia and Shapira, "Pairwise Calibrated Rewards", arXiv 2506.06298). Heads
  are added one by one to what the others leave unexplained, then adjusted together. Linear heads make a jury:
  `JuryRewardModel.from_fit(backbone, fit.weight, fit.bias, fit.prevalence)`.

Ratings compare texts only through levels, and are refused. Knows nothing of raters.

Shapes: `N` questions, `M` distinct pairs, `U` texts, `D` features, `d` components, `K` heads, `A` options.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import nnls
from scipy.special import expit, ndtri
from scipy.stats import norm
from torch import Tensor

from reward_models.baselines.pair_counts import Coordinates, PairCounts, heldout_ridge
from reward_models.errors import JuryError
from reward_models.fitting.text_table import TextTable
from reward_models.judgements.encoding import Encoded
from reward_models.raters.lbfgs import minimise


__all__ = ["EnsembleFit", "MeanVarianceFit", "fit_calibrated_ensemble", "fit_mean_variance"]

LOG_SIGMA_PRECISION = 4.0  # the scale of a text's utility is learnt last: within a factor e^(1/2), usually
MEAN_PRECISION = 0.1
FLOOR = 1e-6
TEMPERATURES = (1.0, 0.3, 0.1)
SHARPNESS = (1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True)
class MeanVarianceFit:
    """Utilities that vary over people. A `predictors.Predictor` that takes everybody for the population.

    Attributes:
        table: Per text mu and log sigma.
        epsilon: Utilities closer than this are tied; None where the fit saw no tie.
        r2: Share of the variance of utility that lies between texts, `Var(mu) / (Var(mu) + E[sigma^2])`; the rest is
            hidden context, such as who is asked.
        ridge: Prior precision of the weights, chosen on left-out pairs; None without features.
    """

    table: TextTable
    epsilon: float | None
    r2: float
    ridge: float | None

    def utilities(self, enc: Encoded, features: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (U,) of the utility of `enc.texts`, in units in which log sigma averages 0."""
        columns = self.table.rows(enc, features)
        return columns[:, 0], np.exp(columns[:, 1])

    def lower_quantile(self, enc: Encoded, features: np.ndarray | None = None, q: float = 0.01) -> np.ndarray:
        """(U,) utility that all but a share `q` of people exceed: the reward of a risk-averse policy.

        Raises:
            JuryError: `q` outside (0, 1).
        """
        if not 0 < q < 1:
            raise JuryError(f"q={q}: a quantile is between 0 and 1; the paper uses 0.01")
        mean, sd = self.utilities(enc, features)
        return mean + ndtri(q) * sd

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """(N, A) log-probability of every possible answer; see `Predictor`. Raters are not looked at.

        Of more than two options the chosen one has the largest of independent utilities.

        Raises:
            JuryError: Ratings, or new texts without features.
        """
        if enc.kind == "rating":
            raise JuryError("kind='rating': a mean-variance model of pairs does not say how levels are used")
        mean, sd = self.utilities(enc, features)
        at = np.maximum(enc.alternatives, 0)
        if enc.kind == "preference":
            difference = mean[at[:, 0]] - mean[at[:, 1]]
            spread = np.hypot(sd[at[:, 0]], sd[at[:, 1]])
            epsilon = self.epsilon or 0.0
            a, b = norm.cdf((difference - epsilon) / spread), norm.cdf((-difference - epsilon) / spread)
            tie = np.maximum(1.0 - a - b, FLOOR) if self.epsilon is not None else np.zeros(len(enc))
            p = np.stack([np.maximum(a, FLOOR), np.maximum(b, FLOOR), tie], axis=1)
        else:
            offered = enc.alternatives >= 0
            # P(best) = E over u_a of prod_b P(u_b < u_a), by the trapezoidal rule.
            z = np.linspace(-6.0, 6.0, 121)
            u = mean[at][:, :, None] + sd[at][:, :, None] * z  # (N, A, Q)
            below = norm.cdf((u[:, :, None] - mean[at][:, None, :, None]) / sd[at][:, None, :, None])
            same = np.eye(at.shape[1], dtype=bool)[None, :, :, None]
            below = np.where(same | ~offered[:, None, :, None], 1.0, below)
            p = np.where(offered, below.prod(2) @ (norm.pdf(z) / norm.pdf(z).sum()), 0.0)
        with np.errstate(divide="ignore"):
            return np.log(p / p.sum(1, keepdims=True))

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> MeanVarianceFit:
        """Itself: nobody is adapted."""
        return self


def fit_mean_variance(enc: Encoded, features: np.ndarray | None = None, *, seed: int = 0) -> MeanVarianceFit:
    """Fit mean and variance of the utility of texts.

    Args:
        enc: Pairs, choices or published shares; rater ids are ignored.
        features: (U, D) rows for `enc.texts`: mu and log sigma linear in them, the ridge chosen on left-out pairs.
            None: free per text.
        seed: Of the pairs that are left out.

    Returns:
        The fit, at its posterior mode.

    Raises:
        JuryError: Ratings, no pairs, or features that do not fit.
    """
    pairs = PairCounts.of(enc)
    space = Coordinates.of(enc, features)
    ties = bool(pairs.counts[:, 2].sum() > 0)
    total = pairs.counts.sum()

    def columns(params: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        both = space.values(torch.stack([params["mean"], params["log_sigma"]], dim=1))
        return both[:, 0], both[:, 1] - both[:, 1].mean()

    def loss_of(some: PairCounts, params: dict[str, Tensor]) -> Tensor:
        mean, log_sigma = columns(params)
        a, b = torch.from_numpy(some.a), torch.from_numpy(some.b)
        spread = ((2 * log_sigma[a]).exp() + (2 * log_sigma[b]).exp()).sqrt()
        difference = mean[a] - mean[b]
        epsilon = params["log_epsilon"].exp() if ties else 0.0
        log_a = torch.special.log_ndtr((difference - epsilon) / spread)
        log_b = torch.special.log_ndtr((-difference - epsilon) / spread)
        log_p = [log_a, log_b]
        if ties:
            log_p.append((1.0 - log_a.exp() - log_b.exp()).clamp(min=FLOOR).log())
        return -(torch.from_numpy(some.counts[:, : len(log_p)]) * torch.stack(log_p, dim=1)).sum()

    def fit(some: PairCounts, ridge: float, start: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        precise = (
            (ridge, LOG_SIGMA_PRECISION * ridge) if features is not None else (MEAN_PRECISION, LOG_SIGMA_PRECISION)
        )

        def objective(params: dict[str, Tensor]) -> Tensor:
            size = precise[0] * params["mean"].square().sum() + precise[1] * params["log_sigma"].square().sum()
            return loss_of(some, params) + 0.5 * size

        return minimise(objective, start, max_iter=300, tol=1e-8)

    zeros = np.zeros(space.size(enc))
    start = {"mean": zeros, "log_sigma": zeros}
    if ties:
        share = pairs.counts[:, 2].sum() / total
        start["log_epsilon"] = np.log(np.sqrt(2) * ndtri(0.5 + 0.5 * min(share, 0.99)))[None]
    ridge = None
    if features is not None:
        ridge = heldout_ridge(pairs, seed, lambda some, r, s: fit(some, r, s or start), loss_of)
    params = fit(pairs, ridge or 0.0, start)
    with torch.no_grad():
        mean, log_sigma = (c.numpy() for c in columns({k: torch.from_numpy(v) for k, v in params.items()}))
    stacked = np.stack([params["mean"], params["log_sigma"]], axis=1)
    table = space.table(enc, stacked)
    shift = table.values[:, 1].mean()
    values = np.stack([mean, log_sigma], axis=1)
    bias = None if table.bias is None else table.bias - np.array([0.0, shift])
    judged = np.union1d(pairs.a, pairs.b)
    between, within = mean[judged].var(), np.exp(2 * log_sigma[judged]).mean()
    return MeanVarianceFit(
        table=TextTable(enc.texts, values, table.weight, bias),
        epsilon=float(np.exp(params["log_epsilon"][0])) if ties else None,
        r2=float(between / (between + within)),
        ridge=ridge,
    )


@dataclass(frozen=True)
class EnsembleFit:
    """A pairwise calibrated ensemble. A `predictors.Predictor` that takes everybody for the population.

    Attributes:
        weight: (K, D) heads on raw features; None without features.
        bias: (K,); rewards average zero over the texts.
        prevalence: (K,) weight of each head, descending.
        table: Per text the rewards (K) of the heads.
        tie_share: Share of ties among the judgements.
        calibration: Pairwise calibration error after each head, on the pairs of the fit: mean over judgements of
            `(sum_k omega_k 1[r_k(a) > r_k(b)] - share of a)^2`; the first is that of a single reward.
        ridge: Prior precision of the weights, chosen on left-out pairs; None without features.
    """

    weight: np.ndarray | None
    bias: np.ndarray
    prevalence: np.ndarray
    table: TextTable
    tie_share: float
    calibration: list[float]
    ridge: float | None

    def preferring(self, enc: Encoded, features: np.ndarray | None = None, *, smooth: bool = False) -> np.ndarray:
        """(N,) weight of the heads that prefer a to b, for pairs; half of an equal head is for a.

        Args:
            enc: Pairs.
            features: As for `log_probs`.
            smooth: The mean of `sigmoid(r_k(a) - r_k(b))` instead.
        """
        rewards = self.table.rows(enc, features)
        difference = rewards[enc.alternatives[:, 0]] - rewards[enc.alternatives[:, 1]]
        return (expit(difference) if smooth else 0.5 * (1.0 + np.sign(difference))) @ self.prevalence

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """(N, A) log-probability of every possible answer; see `Predictor`. Raters are not looked at.

        A head answers by the logistic model of its rewards; ties are as frequent between all pairs.

        Raises:
            JuryError: Ratings, or new texts without features.
        """
        if enc.kind == "rating":
            raise JuryError("kind='rating': an ensemble fitted to pairs does not say how levels are used")
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
        """Itself: nobody is adapted."""
        return self


def fit_calibrated_ensemble(
    enc: Encoded, features: np.ndarray | None = None, *, num_heads: int = 4, restarts: int = 4, seed: int = 0
) -> EnsembleFit:
    """Fit heads and weights, stage by stage.

    Stage k adds the head that, with weight 1 / k, brings `(1 - 1/k) F + sigmoid(r_k(a) - r_k(b)) / k` closest to the
    share of people for a, in squares weighted by judgements; `F` is the ensemble so far. Then all heads and weights
    are adjusted together while the sigmoids sharpen, and the weights once more to the heads' actual votes, by
    non-negative least squares. Heads left without weight are dropped.

    Args:
        enc: Pairs, choices or published shares; rater ids are ignored.
        features: (U, D) rows for `enc.texts`: linear heads, the ridge chosen on left-out pairs. None: free per text.
        num_heads: Most heads `K`.
        restarts: Random starts of each stage; the best is kept.
        seed: Of the starts and of the pairs that are left out.

    Returns:
        The ensemble.

    Raises:
        JuryError: Ratings, no pairs, fewer than one head, or features that do not fit.
    """
    if num_heads < 1 or restarts < 1:
        raise JuryError(f"num_heads={num_heads} and restarts={restarts} must be at least 1; use 4 and 4")
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
    heads, weights, history = _stages(space, enc, pairs, num_heads, restarts, strength, np.random.default_rng(seed))
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
            # What the new head would have to vote; the first start aims at it, the others look elsewhere.
            wanted = np.clip(stage * share - (stage - 1) * so_far.numpy(), 0.0, 1.0)
            starts = [_logistic_head(space, enc, pairs, wanted, ridge, None)["heads"]]
            size = np.abs(heads).mean()
            starts += [size * rng.normal(size=starts[0].shape) for _ in range(restarts - 1)]

            def added(params: dict[str, Tensor], so_far: Tensor = so_far, stage: int = stage) -> Tensor:
                vote = _votes(space, params["heads"], pairs).sigmoid()[:, 0]
                return squares(so_far + (vote - so_far) / stage, params["heads"])

            tried = [minimise(added, {"heads": start}, max_iter=200, tol=1e-8)["heads"] for start in starts]
            scores = [float(added({"heads": torch.from_numpy(head)})) for head in tried]
            heads = np.concatenate([heads, tried[int(np.argmin(scores))]], axis=1)
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
    # The last row is heavy: weights sum to one.
    design = np.concatenate([mass[:, None] * votes, np.full((1, votes.shape[1]), 1e3)])
    weights, _ = nnls(design, np.append(mass * pairs.share(), 1e3))
    weights = weights / weights.sum()
    return weights, float(((mass * (votes @ weights - pairs.share())) ** 2).sum())


def _sharpness(space: Coordinates, heads: np.ndarray, weights: np.ndarray, pairs: PairCounts) -> float:
    """Factor for the heads under which their mean sigmoid best explains the judgements."""
    share, mass = pairs.share(), pairs.counts.sum(1)
    with torch.no_grad():
        votes = _votes(space, torch.from_numpy(heads), pairs).numpy()
    losses = {}
    for factor in SHARPNESS:
        p = np.clip(expit(factor * votes) @ weights, FLOOR, 1.0 - FLOOR)
        losses[factor] = -float(mass @ (share * np.log(p) + (1.0 - share) * np.log(1.0 - p)))
    return min(losses, key=losses.__getitem__)


def _votes(space: Coordinates, heads: Tensor, pairs: PairCounts) -> Tensor:
    """(M, K) reward of a minus reward of b."""
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
    """One head by logistic regression of the shares (M,): Bradley-Terry with a ridge."""
    weight = pairs.counts.sum(1)

    def loss(params: dict[str, Tensor]) -> Tensor:
        size = 0.5 * ridge * params["heads"].square().sum()
        return _cross_entropy(_votes(space, params["heads"], pairs), share, weight) + size

    return minimise(loss, start or {"heads": np.zeros((space.size(enc), 1))}, max_iter=300, tol=1e-8)
