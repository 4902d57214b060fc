"""How strong a linear part and a residual are: the marginal likelihood of a regression with known noise.

    y_u = mu + w . x_u + e_u + noise_u,   w ~ N(0, s^2 I),  e_u ~ N(0, t^2)

`s` and `t` maximise the likelihood of `y`, in closed form except for these two numbers, under a wide prior. Knows
nothing of what is regressed.

Shapes: `U` observations, `D` features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reward_models.raters.lbfgs import minimise
from reward_models.stats.groups import differences


__all__ = ["WIDTH", "Ridge"]

NO_FEATURES = -12.0  # log s of features that tell nothing
WIDTH = 2.0  # standard deviation of the prior of log s and of log t


@dataclass(frozen=True)
class Ridge:
    """Bayesian linear regression with known noise: `y ~ N(mu, s^2 X X^T + diag(noise + t^2))`, by Woodbury.

    Attributes:
        x: (U, d) features in coordinates of unit length.
        y: (U,) observations.
        noise: (U,) variance of each.
        with_mean: Whether `mu` is free; otherwise it is 0.

    Example:
        Observations that are linear in the features leave nothing to the residual:

        >>> x = np.random.default_rng(0).normal(size=(50, 2))
        >>> ridge, _, _ = Ridge.of(x, x @ np.array([1.0, -2.0]), np.full(50, 0.01))
        >>> best = ridge.most_probable(usual=0.0)
        >>> bool(best["log_s"][0] > 0 > best["log_t"][0])
        True
    """

    x: Tensor
    y: Tensor
    noise: Tensor
    with_mean: bool

    @classmethod
    def of(
        cls, x: np.ndarray, y: np.ndarray, noise: np.ndarray, groups: np.ndarray | None = None
    ) -> tuple[Ridge, np.ndarray, float]:
        """Scale the features; return the regression, the (d, D) axes of its coordinates and their length.

        Args:
            x: (U, D) features.
            y: (U,) observations.
            noise: (U,) variance of each.
            groups: (U,) group of each if only differences within a group tell something. None: `mu` is free.
        """
        if groups is not None:
            x, y, noise = differences(x, groups), differences(y, groups), noise[np.bincount(groups)[groups] > 1]
        scale = float(np.sqrt((x**2).sum(1).mean())) or 1.0
        # With fewer texts than features the span of the texts is the same problem with fewer coordinates.
        span = np.linalg.svd(x, full_matrices=False)[2] if len(x) < x.shape[1] else np.eye(x.shape[1])
        coordinates = torch.from_numpy(x @ span.T / scale)
        ridge = cls(coordinates, torch.from_numpy(y), torch.from_numpy(noise), with_mean=groups is None)
        return ridge, span, scale

    def most_probable(self, usual: float, features: bool = True, *, width_t: float = WIDTH) -> dict[str, np.ndarray]:
        """Find the most probable `log_s` and `log_t`.

        Args:
            usual: Centre of the prior of both.
            features: Whether the features may tell something; otherwise `log_s` is as good as minus infinity.
            width_t: Standard deviation of the prior of `log_t`: small where the observations hardly tell residuals
                from noise.
        """
        nothing = np.array([NO_FEATURES])
        start = {"log_t": np.array([usual])} | ({"log_s": np.array([usual])} if features else {})

        def loss(strengths: dict[str, Tensor]) -> Tensor:
            # The prior keeps both finite where the data tell nothing.
            widths = {"log_s": WIDTH, "log_t": width_t}
            prior = sum(0.5 * ((value - usual) / widths[name]).square().sum() for name, value in strengths.items())
            return self.loss(strengths.get("log_s", torch.from_numpy(nothing)), strengths["log_t"]) + prior

        return {"log_s": nothing} | minimise(loss, start, max_iter=40, tol=1e-8)

    def _solve(self, log_s: Tensor, log_t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Precision (U,), Cholesky factor (d, d), residual (U,), inverse covariance times it (U,), and mu ()."""
        precision = 1.0 / (self.noise + (2 * log_t).exp())
        s2 = (2 * log_s).exp()
        inner = torch.eye(self.x.shape[1], dtype=torch.float64) + s2 * (self.x.T * precision) @ self.x
        factor = torch.linalg.cholesky(inner)

        def whiten(v: Tensor) -> Tensor:
            inside = torch.cholesky_solve((self.x.T @ (precision * v))[:, None], factor)[:, 0]
            return precision * v - s2 * precision * (self.x @ inside)

        mu = torch.zeros((), dtype=torch.float64)
        if self.with_mean:
            ones = whiten(torch.ones_like(self.y))
            mu = ones @ self.y / ones.sum()
        residual = self.y - mu
        return precision, factor, residual, whiten(residual), mu

    def loss(self, log_s: Tensor, log_t: Tensor) -> Tensor:
        """Compute minus the log marginal likelihood, up to a constant."""
        precision, factor, residual, explained, _ = self._solve(log_s, log_t)
        return 0.5 * (residual @ explained - precision.log().sum()) + factor.diagonal().log().sum()

    def posterior(self, log_s: Tensor, log_t: Tensor) -> tuple[np.ndarray, np.ndarray, float]:
        """Compute the posterior mean (d,) and covariance (d, d) of `w`, and `mu`."""
        _, factor, _, explained, mu = self._solve(log_s, log_t)
        s2 = (2 * log_s).exp()
        return (s2 * (self.x.T @ explained)).numpy(), (s2 * torch.cholesky_inverse(factor)).numpy(), float(mu)
