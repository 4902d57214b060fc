"""Utilities that vary over people: a normal distribution per text, fitted without rater ids.

    u(x) ~ N(mu(x), sigma^2(x)),    P(a > b) = Phi((mu_a - mu_b) / sqrt(sigma_a^2 + sigma_b^2))

(Siththaranjan, Laidlaw and Hadfield-Menell, "Distributional Preference Learning", ICLR 2024, arXiv 2312.08358). Ties
are an addition to the paper: two texts are tied if their utilities differ by less than `epsilon` (Thurstone's model
with a threshold; Glenn and David 1960). Ratings compare texts only through levels and are refused. Knows nothing of
raters; rater ids are ignored.

Shapes: `N` questions, `M` distinct pairs, `U` texts, `D` features, `d` components, `A` options.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri
from scipy.stats import norm
from torch import Tensor

from reward_models.baselines.pair_counts import FLOOR, MEAN_PRECISION, Coordinates, PairCounts, heldout_ridge
from reward_models.errors import JuryError
from reward_models.fitting.text_table import TextTable
from reward_models.judgements.encoding import Encoded
from reward_models.raters.lbfgs import minimise


__all__ = ["MeanVarianceFit", "fit_mean_variance"]

LOG_SIGMA_PRECISION = 4.0  # prior precision of log sigma: sigma is usually within a factor e^(1/2) of the average


@dataclass(frozen=True)
class MeanVarianceFit:
    """Utilities that vary over people. A `predictors.Predictor` that predicts everybody as a random person.

    Attributes:
        table: Mean mu and log sigma of each text.
        epsilon: Utilities closer than this are tied; None if the judgements of the fit had no ties.
        r2: Share of the variance of utility that lies between texts, `Var(mu) / (Var(mu) + E[sigma^2])`; the rest is
            hidden context, such as who judges.
        ridge: Prior precision of the weights, chosen on held-out pairs; None without features.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("preference").judgements.encode()
        >>> fit = fit_mean_variance(enc)
        >>> mean, sd = fit.utilities(enc)
        >>> mean.shape, bool((fit.lower_quantile(enc, q=0.01) < mean).all())
        ((24,), True)
    """

    table: TextTable
    epsilon: float | None
    r2: float
    ridge: float | None

    def utilities(self, enc: Encoded, features: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation (U,) of the utilities of `enc.texts`; log sigma averages 0."""
        columns = self.table.rows(enc, features)
        return columns[:, 0], np.exp(columns[:, 1])

    def lower_quantile(self, enc: Encoded, features: np.ndarray | None = None, q: float = 0.01) -> np.ndarray:
        """Compute the (U,) utility that all but a share `q` of people exceed: the reward of a risk-averse policy.

        Raises:
            JuryError: `q` outside (0, 1).
        """
        if not 0 < q < 1:
            raise JuryError(f"q={q}: a quantile lies between 0 and 1. Fix: use e.g. 0.01, as in the paper")
        mean, sd = self.utilities(enc, features)
        return mean + ndtri(q) * sd

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """Compute the (N, A) log-probability of every possible answer; see `Predictor`. Raters are ignored.

        Of more than two options the answer is the one with the largest of independent utilities.

        Raises:
            JuryError: Ratings, or new texts without features.
        """
        if enc.kind == "rating":
            raise JuryError(
                "kind='rating': a mean-variance model of pairs has no rating levels. Fix: score pairs or choices"
            )
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
        """Return the model itself: it has no memberships to infer."""
        return self


def fit_mean_variance(enc: Encoded, features: np.ndarray | None = None, *, seed: int = 0) -> MeanVarianceFit:
    """Fit the mean and variance of the utility of each text.

    Args:
        enc: Pairs, choices or published shares; rater ids are ignored.
        features: (U, D) rows for `enc.texts`: mu and log sigma are linear in them, the ridge is chosen on held-out
            pairs. None: mu and log sigma are free per text.
        seed: Random seed of the held-out pairs.

    Returns:
        The fit, at its posterior mode.

    Raises:
        JuryError: Ratings, no pairs, or features that do not match.

    Example:
        Nearly everybody prefers tea to mud, people disagree about cats and dogs:

        >>> import pandas as pd
        >>> from reward_models import Judgements
        >>> rows = [
        ...     {"prompt": "Drink?", "options": ["tea", "mud"], "probs": [0.95, 0.05], "n": 500},
        ...     {"prompt": "Pet?", "options": ["cat", "dog"], "probs": [0.5, 0.5], "n": 500},
        ... ]
        >>> fit = fit_mean_variance(Judgements.from_frame(pd.DataFrame(rows), "soft").encode())
        >>> fit.table.values[:, 0].round(1).tolist()  # mean utility of tea, mud, cat, dog
        [1.1, -1.1, 0.0, 0.0]
    """
    pairs = PairCounts.of(enc)
    space = Coordinates.of(enc, features)
    ties = bool(pairs.counts[:, 2].sum() > 0)
    total = pairs.counts.sum()

    def columns(params: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        both = space.values(torch.stack([params["mean"], params["log_sigma"]], dim=1))
        return both[:, 0], both[:, 1] - both[:, 1].mean()

    def loss_of(some: PairCounts, params: dict[str, Tensor]) -> Tensor:
        return _loss(some, *columns(params), params["log_epsilon"].exp() if ties else None)

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


def _loss(pairs: PairCounts, mean: Tensor, log_sigma: Tensor, epsilon: Tensor | None) -> Tensor:
    """Minus the log-likelihood of pairs; `epsilon` None: there are no ties."""
    a, b = torch.from_numpy(pairs.a), torch.from_numpy(pairs.b)
    spread = ((2 * log_sigma[a]).exp() + (2 * log_sigma[b]).exp()).sqrt()
    difference = mean[a] - mean[b]
    margin = 0.0 if epsilon is None else epsilon
    log_a = torch.special.log_ndtr((difference - margin) / spread)
    log_b = torch.special.log_ndtr((-difference - margin) / spread)
    log_p = [log_a, log_b]
    if epsilon is not None:
        log_p.append((1.0 - log_a.exp() - log_b.exp()).clamp(min=FLOOR).log())
    return -(torch.from_numpy(pairs.counts[:, : len(log_p)]) * torch.stack(log_p, dim=1)).sum()
