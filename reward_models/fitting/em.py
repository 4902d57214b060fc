"""Soft expectation-maximisation for a mixture of rater clusters: temperatures, restarts, prior, stopping.

The loop only. What a cluster is (answer tables, rewards with rater terms) comes in as an `Emission`; the loop knows
nothing of texts, kinds of judgements or torch.

Shapes: `R` raters (or groups of identical raters), `K` clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.special import logsumexp, softmax

from reward_models.errors import JuryError
from reward_models.stats.answers import adjusted_rand_index


__all__ = ["EMRun", "Emission", "FitConfig", "best_of_restarts", "run_em", "spectral_embedding", "spectral_start"]

P = TypeVar("P")
WARM_ITERATIONS = 10  # at a high temperature the fixed point has equal clusters: leave before the differences are gone


@dataclass(frozen=True)
class FitConfig:
    """How a mixture is fitted.

    Attributes:
        restarts: Number of starting points; the best is kept, the others measure stability.
        max_iter: Most EM iterations at the last temperature.
        tol: Stop when the objective improves by less than this fraction.
        temperatures: `T` of the E-step `q ∝ pi exp(sum l / T)`, decreasing, ending with 1.
        dirichlet: `alpha` of the Dirichlet prior on prevalence; above 1 it keeps clusters from dying out.
        smoothing: Strength of the pull of a cluster towards the population. `choice`: pseudo-answers per item and
            cluster, distributed as the item's own answers. Other kinds: precision of a cluster's reward around the
            mean reward of its text (and a tenth of it around zero). 0: maximum likelihood.
        nuisance: Rater terms in the likelihood of ratings and preferences (leniency, scale, tie propensity, position).
        style: Rater terms in the likelihood of choices: tendencies to the end, and the ends, of the list of options.
            Off by default, because where options have an order those tendencies are opinions.
        seed: Seed of the starting points.

    Raises:
        JuryError: When a value cannot work.
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
        if self.restarts < 1 or self.max_iter < 1:
            raise JuryError(
                f"restarts={self.restarts} and max_iter={self.max_iter}: an EM fit needs at least one of each; use 3 "
                "and 200"
            )
        if not self.temperatures or self.temperatures[-1] != 1.0 or min(self.temperatures) <= 0:
            raise JuryError(
                f"temperatures={self.temperatures}: the last must be 1, where the E-step is Bayes' rule, and all must "
                "be positive; use e.g. (4.0, 2.0, 1.0)"
            )
        if self.dirichlet < 1.0 or self.smoothing < 0.0 or self.tol <= 0.0:
            raise JuryError(
                f"dirichlet={self.dirichlet} must be at least 1, smoothing={self.smoothing} at least 0 and "
                f"tol={self.tol} above 0: otherwise the objective has no maximum"
            )


class Emission(Protocol[P]):
    """What a cluster says about a rater's judgements; `P` is whatever the implementation keeps as parameters."""

    def maximise(self, responsibilities: np.ndarray, start: P | None) -> P:
        """M-step: parameters that do not lower expected log-likelihood plus log prior; `responsibilities` (R, K)."""

    def rater_log_lik(self, params: P) -> np.ndarray:
        """(R, K) log-likelihood of all of a rater's judgements in each cluster, nats."""

    def log_prior(self, params: P) -> float:
        """Log prior of the parameters, up to a constant."""


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
        rater_weight: (R,) how many raters a row stands for.
        config: Temperatures, prior, stopping.

    Returns:
        The converged run.
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
) -> tuple[EMRun[P], float]:
    """Run EM from several starting points.

    Args:
        emission: The clusters' likelihood.
        start: Draws (R, K) starting responsibilities.
        rater_weight: (R,) how many raters a row stands for.
        config: Number of restarts and seed.

    Returns:
        The run with the highest objective, and its stability: the mean adjusted Rand index of the other runs'
        assignments with its own (1 with a single restart or a single cluster).
    """
    streams = np.random.default_rng(config.seed).spawn(config.restarts)
    first = start(streams[0])
    if first.shape[1] == 1:
        return run_em(emission, first, rater_weight, config), 1.0
    # A warm start may melt all clusters into one, and EM cannot leave that point: only some of the runs begin warm.
    stages = [config.temperatures[-1 - i % len(config.temperatures) :] for i in range(config.restarts)]
    runs = [
        run_em(emission, first if i == 0 else start(rng), rater_weight, replace(config, temperatures=stages[i]))
        for i, rng in enumerate(streams)
    ]
    runs.sort(key=lambda run: run.history[-1], reverse=True)
    copies = np.maximum(rater_weight.astype(np.int64), 1)
    best, *others = (np.repeat(run.responsibilities.argmax(1), copies) for run in runs)
    return runs[0], float(np.mean([adjusted_rand_index(best, other) for other in others])) if others else 1.0


def spectral_start(
    deviations: csr_array, rater_weight: np.ndarray, num_clusters: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw starting responsibilities along the directions in which raters differ most.

    Raters are adapted in the leading singular space of their deviations from the population, and cut by random
    hyperplanes of that space: starts differ from each other, and none is blind as uniform noise is.

    Args:
        deviations: (R, C) sparse deviations of each rater from the population.
        rater_weight: (R,) how many raters a row stands for.
        num_clusters: `K`.
        rng: Source of the hyperplanes.

    Returns:
        (R, K) responsibilities.
    """
    if num_clusters == 1:
        return np.ones((deviations.shape[0], 1))
    scores, _ = spectral_embedding(deviations, rater_weight, num_clusters + 1, rng)
    return softmax(1.5 * scores @ rng.normal(size=(scores.shape[1], num_clusters)), axis=1)


def spectral_embedding(
    deviations: csr_array, rater_weight: np.ndarray, rank: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Place raters in the leading singular space of their deviations from the population.

    Args:
        deviations: (R, C) sparse deviations of each rater from the population.
        rater_weight: (R,) how many raters a row stands for.
        rank: Dimensions of the space.
        rng: Source of the randomised range finder.

    Returns:
        (R, rank) scores with unit variance, and (rank, C) loadings, so that `scores @ loadings` approximates the
        deviations.
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
