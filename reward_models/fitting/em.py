"""Soft expectation-maximisation for a mixture of rater clusters: temperatures, restarts, prior, stopping.

This is the loop only. What a cluster is (answer tables, rewards with rater terms) comes in as an `Emission`; the loop
knows nothing of texts, kinds of judgements or torch.

Shapes: `R` raters (or groups of identical raters), `K` clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from numbers import Real
from typing import Generic, Protocol, TypeVar

import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.special import logsumexp, softmax

from reward_models.errors import JuryError, check_values
from reward_models.progress import track
from reward_models.seeds import seeded_rng
from reward_models.stats.answers import adjusted_rand_index


__all__ = ["EMRun", "Emission", "FitConfig", "best_of_restarts", "run_em", "spectral_embedding", "spectral_start"]

P = TypeVar("P")
# At a high temperature the fixed point has equal clusters: stop before the differences between them are gone.
WARM_ITERATIONS = 10


@dataclass(frozen=True)
class FitConfig:
    """Settings of a label-level fit.

    Attributes:
        restarts: Number of starting points; the best is kept, the others measure stability.
        max_iter: Most iterations, of EM at the last temperature or of L-BFGS.
        tol: Stop when the objective improves by less than this fraction.
        temperatures: `T` of the E-step `q ∝ pi exp(sum l / T)`, decreasing, ending with 1.
        dirichlet: `alpha` of the Dirichlet prior on prevalence; above 1 it keeps clusters from becoming empty.
        smoothing: Strength of the prior on rewards. Answer tables of `choice`: pseudo-answers per item and cluster,
            distributed as all answers to the item. Otherwise: factor of the prior precision of consensus and
            deviations. 0: maximum likelihood.
        nuisance: Whether ratings and preferences have rater terms (leniency, scale, tie propensity, position).
        style: Whether choices have rater terms: preferences for the last option, and for both ends of the list. Off by
            default, because such a preference is an opinion where the options have an order.
        seed: Random seed of the starting points.

    Raises:
        JuryError: A value that cannot work.

    Example:
        >>> FitConfig(restarts=1, seed=7).temperatures
        (4.0, 2.0, 1.0)
        >>> FitConfig(restarts=0)
        Traceback (most recent call last):
            ...
        reward_models.errors.JuryError: restarts=0 and max_iter=200: an EM fit needs at least one of each. Fix: ...
    """

    restarts: int = 3
    max_iter: int = 200
    tol: float = 1e-6
    temperatures: tuple[float, ...] = (4.0, 2.0, 1.0)
    dirichlet: float = 1.5
    smoothing: float = 1.0
    nuisance: bool = True
    style: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_values(self)
        if self.restarts < 1 or self.max_iter < 1:
            raise JuryError(
                f"restarts={self.restarts} and max_iter={self.max_iter}: an EM fit needs at least one of each. Fix: "
                "use 3 and 200"
            )
        if not _falls_to_one(self.temperatures):
            raise JuryError(
                f"temperatures={self.temperatures!r}: the last must be 1, where the E-step is Bayes' rule, and each "
                "at least the next. Fix: use e.g. (4.0, 2.0, 1.0)"
            )
        if self.dirichlet < 1.0 or self.smoothing < 0.0 or self.tol <= 0.0:
            raise JuryError(
                f"dirichlet={self.dirichlet} must be at least 1, smoothing={self.smoothing} at least 0 and "
                f"tol={self.tol} above 0: otherwise the objective has no maximum. Fix: use 1.5, 1.0 and 1e-6"
            )


def _falls_to_one(temperatures: object) -> bool:
    """Whether temperatures are finite numbers that do not rise and end with 1."""
    if not isinstance(temperatures, tuple | list) or not temperatures:
        return False
    if not all(isinstance(value, Real) and math.isfinite(value) for value in temperatures):
        return False
    return bool(temperatures[-1] == 1.0 and all(high >= low for high, low in pairwise(temperatures)))


class Emission(Protocol[P]):
    """The likelihood of a rater's judgements in each cluster; `P` is the type of the implementation's parameters."""

    def maximise(self, responsibilities: np.ndarray, start: P | None) -> P:
        """M-step: return parameters whose expected log-likelihood plus log prior is at least that of `start`.

        Args:
            responsibilities: (R, K) memberships.
            start: Parameters of the iteration before; None at first.
        """

    def rater_log_lik(self, params: P) -> np.ndarray:
        """Compute the (R, K) log-likelihood of all of a rater's judgements in each cluster, nats."""

    def log_prior(self, params: P) -> float:
        """Compute the log prior of the parameters, up to a constant."""


@dataclass(frozen=True)
class EMRun(Generic[P]):
    """One converged EM run.

    Attributes:
        params: Parameters of the emission.
        prevalence: (K,) `pi`.
        responsibilities: (R, K) posterior memberships.
        log_likelihood: Marginal log-likelihood of all judgements, nats.
        history: Penalised objective after each iteration at temperature 1; never decreases.
    """

    params: P
    prevalence: np.ndarray
    responsibilities: np.ndarray
    log_likelihood: float
    history: list[float]


def run_em(
    emission: Emission[P], responsibilities: np.ndarray, rater_weight: np.ndarray, config: FitConfig
) -> EMRun[P]:
    """Run EM from starting responsibilities to convergence.

    Args:
        emission: The clusters' likelihood.
        responsibilities: (R, K) starting point, rows sum to one.
        rater_weight: (R,) how many raters a row stands for: the sum of their sampling weights.
        config: Temperatures, prior, stopping.

    Returns:
        The converged run.

    Example:
        Two coins: three raters saw 9 heads in 10 throws, one saw 1 (`fit_latent_classes` fits such tables):

        >>> class Coins:
        ...     heads = np.array([9, 9, 9, 1])
        ...     def maximise(self, responsibilities, start):
        ...         return (self.heads @ responsibilities + 1) / (10 * responsibilities.sum(0) + 2)
        ...     def rater_log_lik(self, p):
        ...         return self.heads[:, None] * np.log(p) + (10 - self.heads)[:, None] * np.log(1 - p)
        ...     def log_prior(self, p):
        ...         return float(np.log(p * (1 - p)).sum())
        >>> start = np.array([[0.6, 0.4], [0.6, 0.4], [0.6, 0.4], [0.4, 0.6]])
        >>> run = run_em(Coins(), start, np.ones(4), FitConfig(dirichlet=1.0))
        >>> run.prevalence.round(2).tolist(), run.params.round(2).tolist()
        ([0.75, 0.25], [0.87, 0.17])
    """
    n_clusters = responsibilities.shape[1]
    n_raters = rater_weight.sum()
    params: P | None = None
    history: list[float] = []
    for stage, temperature in enumerate(config.temperatures):
        last = stage == len(config.temperatures) - 1
        for _ in range(config.max_iter if last else min(WARM_ITERATIONS, config.max_iter)):
            params = emission.maximise(responsibilities, params)
            expected = rater_weight @ responsibilities + config.dirichlet - 1.0
            prevalence = expected / (n_raters + n_clusters * (config.dirichlet - 1.0))
            with np.errstate(divide="ignore"):
                log_prevalence = np.log(prevalence)
            log_lik = emission.rater_log_lik(params)
            responsibilities = softmax(log_prevalence + log_lik / temperature, axis=1)
            if not last:
                continue
            log_likelihood = float(rater_weight @ logsumexp(log_prevalence + log_lik, axis=1))
            prior = (config.dirichlet - 1.0) * log_prevalence.sum() if config.dirichlet > 1.0 else 0.0
            history.append(log_likelihood + emission.log_prior(params) + float(prior))
            if len(history) > 1 and history[-1] - history[-2] < config.tol * abs(history[-1]):
                break
    assert params is not None
    return EMRun(params, prevalence, responsibilities, log_likelihood, history)


def best_of_restarts(
    emission: Emission[P],
    start: Callable[[np.random.Generator], np.ndarray],
    rater_weight: np.ndarray,
    config: FitConfig,
    size: np.ndarray,
) -> tuple[EMRun[P], float]:
    """Run EM from several starting points.

    Args:
        emission: The clusters' likelihood.
        start: Function that draws (R, K) starting responsibilities.
        rater_weight: (R,) how many raters a row stands for: the sum of their sampling weights.
        config: Number of restarts and seed.
        size: (R,) number of raters in a row, for the stability.

    Returns:
        The run with the highest objective, and its stability: the mean adjusted Rand index of the other runs'
        assignments with its own (1 with a single restart or a single cluster).
    """
    streams = seeded_rng(config.seed, "starts of EM").spawn(config.restarts)
    first = start(streams[0])
    if first.shape[1] == 1:
        return run_em(emission, first, rater_weight, config), 1.0
    # A high first temperature may merge all clusters into one, and EM cannot leave that point: only some runs have it.
    stages = [config.temperatures[-1 - i % len(config.temperatures) :] for i in range(config.restarts)]
    runs = [
        run_em(emission, first if i == 0 else start(rng), rater_weight, replace(config, temperatures=stages[i]))
        for i, rng in enumerate(track(streams, "starting points"))
    ]
    runs.sort(key=lambda run: run.history[-1], reverse=True)
    best, *others = (np.repeat(run.responsibilities.argmax(1), size) for run in runs)
    return runs[0], float(np.mean([adjusted_rand_index(best, other) for other in others])) if others else 1.0


def spectral_start(
    deviations: csr_array, rater_weight: np.ndarray, num_clusters: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw starting responsibilities along the directions in which raters differ most.

    Raters are embedded in the leading singular space of their deviations from the population and cut by random
    hyperplanes of that space: the starts differ from each other, and each is better informed than uniform noise.

    Args:
        deviations: (R, C) sparse deviations of each rater from the population.
        rater_weight: (R,) how many raters a row stands for: the sum of their sampling weights.
        num_clusters: `K`.
        rng: Source of the hyperplanes.

    Returns:
        (R, K) responsibilities.

    Example:
        Two raters deviate in one direction, two in the other:

        >>> deviations = csr_array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
        >>> start = spectral_start(deviations, np.ones(4), 2, np.random.default_rng(0))
        >>> start.argmax(1).tolist()
        [0, 0, 1, 1]
    """
    if num_clusters == 1:
        return np.ones((deviations.shape[0], 1))
    scores, _ = spectral_embedding(deviations, rater_weight, num_clusters + 1, rng)
    return softmax(1.5 * scores @ rng.normal(size=(scores.shape[1], num_clusters)), axis=1)


def spectral_embedding(
    deviations: csr_array, rater_weight: np.ndarray, rank: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Embed raters in the leading singular space of their deviations from the population.

    Args:
        deviations: (R, C) sparse deviations of each rater from the population.
        rater_weight: (R,) how many raters a row stands for: the sum of their sampling weights.
        rank: Dimensions of the space.
        rng: Source of the randomised range finder.

    Returns:
        (R, rank) scores with unit variance, and (rank, C) loadings, so that `scores @ loadings` approximates the
        deviations.

    Example:
        >>> deviations = csr_array([[2.0, 0.0], [-2.0, 0.0]])
        >>> scores, loadings = spectral_embedding(deviations, np.ones(2), 1, np.random.default_rng(0))
        >>> (scores @ loadings).round(6).tolist()
        [[2.0, 0.0], [-2.0, 0.0]]
    """
    weighted = diags_array(np.sqrt(rater_weight)) @ deviations
    # Randomised range finder with three power iterations (Halko, Martinsson, Tropp 2011): one sparse product each.
    basis = rng.normal(size=(deviations.shape[1], min(rank + 4, deviations.shape[1])))
    for _ in range(4):
        basis, _ = np.linalg.qr(weighted.T @ (weighted @ basis))
    _, _, directions = np.linalg.svd(weighted @ basis, full_matrices=False)
    loadings = basis @ directions[:rank].T
    scores = deviations @ loadings
    spread = np.sqrt(np.average(scores**2, axis=0, weights=rater_weight))
    spread = np.where(spread > 0, spread, 1.0)
    return scores / spread, (loadings * spread).T
