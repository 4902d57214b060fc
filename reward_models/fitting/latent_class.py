"""Latent class analysis of answers: K clusters, each with its own answer distribution per item, fitted by EM.

Works on any table of categorical answers (Lazarsfeld and Henry 1968; Goodman 1974,
https://doi.org/10.1093/biomet/61.2.215). Knows nothing of texts or rewards: `mixture` turns the log probabilities of
`choice` judgements into rewards, and `analysis.groupings` uses the classes directly.

Shapes: `N` answers, `R` raters, `I` items, `S` cells (all options of all items), `K` clusters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array, csr_array

from reward_models.fitting.em import FitConfig, best_of_restarts, run_em, spectral_start
from reward_models.progress import track
from reward_models.seeds import seeded_rng
from reward_models.stats.design import SamplingDesign


__all__ = ["LatentClassFit", "fit_latent_classes", "population", "resample_prevalence", "unique_patterns"]

# Pseudo-count per option of the population's distribution: an option that nobody chose is rare, not impossible.
JEFFREYS = 0.5
MAX_PATTERN_CELLS = 30_000_000  # raters times cells, up to which equal raters are merged


@dataclass(frozen=True)
class LatentClassFit:
    """A fitted latent class model; `fit_latent_classes` makes it.

    Attributes:
        log_p: (S, K) log answer probability of each cell in each cluster; sums to one over the cells of an item.
        prevalence: (K,) descending.
        responsibilities: (R, K) posterior memberships.
        log_likelihood: Marginal log-likelihood of all answers, nats.
        history: Penalised objective per iteration at temperature 1.
        stability: Mean adjusted Rand index of the other restarts with the best.
    """

    log_p: np.ndarray
    prevalence: np.ndarray
    responsibilities: np.ndarray
    log_likelihood: float
    history: list[float]
    stability: float


class _AnswerTables:
    """`em.Emission` with one answer table per cluster; its parameters are `log_p` (S, K)."""

    def __init__(self, counts: csr_array, rater_weight: np.ndarray, cell_item: np.ndarray, smoothing: float) -> None:
        self.counts, self.rater_weight, self.cell_item, self.smoothing = counts, rater_weight, cell_item, smoothing
        self.base = population(rater_weight @ counts, cell_item)

    def maximise(self, responsibilities: np.ndarray, start: np.ndarray | None) -> np.ndarray:
        """Compute smoothed, weighted frequencies, the maximum in closed form."""
        expected = (
            self.counts.T @ (self.rater_weight[:, None] * responsibilities) + self.smoothing * self.base[:, None]
        )
        return np.log(np.maximum(_normalise(expected, self.cell_item), 1e-12))

    def rater_log_lik(self, params: np.ndarray) -> np.ndarray:
        """Compute the (R, K) log-likelihood of each rater's answers."""
        return self.counts @ params

    def log_prior(self, params: np.ndarray) -> float:
        """Compute the log density of Dirichlet(1 + smoothing * base) per item and cluster, up to a constant."""
        return float(self.smoothing * (self.base @ params).sum())

    def deviations(self) -> csr_array:
        """Subtract the population's distribution from (R, S) answers, on the items that a rater answered."""
        cells = np.arange(len(self.cell_item))
        item_cell = coo_array((np.ones(len(cells)), (self.cell_item, cells))).tocsr()
        answered = self.counts @ item_cell.T
        return csr_array(self.counts - (answered @ item_cell) * self.base[None, :])


def _normalise(counts: np.ndarray, cell_item: np.ndarray) -> np.ndarray:
    """Divide (S, K) counts by their sum over the cells of each item; uniform where an item has no answers."""
    totals = np.zeros((cell_item.max(initial=-1) + 1, counts.shape[1]))
    np.add.at(totals, cell_item, counts)
    n_options = np.bincount(cell_item)[cell_item][:, None]
    totals = totals[cell_item]
    return np.where(totals > 0, counts / np.where(totals > 0, totals, 1.0), 1.0 / n_options)


def population(counts: np.ndarray, cell_item: np.ndarray) -> np.ndarray:
    """Compute the answer distribution per item with half a pseudo-count per option (Jeffreys' prior).

    Args:
        counts: (S,) answers per cell.
        cell_item: (S,) item of each cell.

    Returns:
        (S,) probabilities, summing to one over the cells of an item.

    Example:
        >>> population(np.array([3.0, 0.0, 4.0, 5.0]), np.array([0, 0, 1, 1])).tolist()
        [0.875, 0.125, 0.45, 0.55]
    """
    return _normalise(counts[:, None] + JEFFREYS, cell_item)[:, 0]


def fit_latent_classes(
    rater: np.ndarray,
    cell: np.ndarray,
    count: np.ndarray,
    n_raters: int,
    cell_item: np.ndarray,
    num_clusters: int,
    config: FitConfig,
    *,
    rater_weight: np.ndarray | None = None,
) -> LatentClassFit:
    """Fit K answer tables and their prevalence by EM.

    Args:
        rater: (N,) rater index.
        cell: (N,) cell that was answered.
        count: (N,) how often each answer was given.
        n_raters: Number of raters `R`.
        cell_item: (S,) item of each cell.
        num_clusters: `K`.
        config: Restarts, temperatures, priors.
        rater_weight: (R,) sampling weights, mean one; what is maximised is `sum_u w_u log L_u`. None: equal weights.

    Returns:
        The fit, clusters sorted by prevalence.

    Example:
        Five raters answer three yes/no items (cells 0 to 5), three of them with yes, two with no:

        >>> answers = np.array([[0, 2, 4]] * 3 + [[1, 3, 5]] * 2)
        >>> rater, cell_item = np.repeat(np.arange(5), 3), np.repeat(np.arange(3), 2)
        >>> fit = fit_latent_classes(rater, answers.ravel(), np.ones(15), 5, cell_item, 2, FitConfig())
        >>> fit.responsibilities.argmax(1).tolist()
        [0, 0, 0, 1, 1]
    """
    counts = coo_array((count, (rater, cell)), shape=(n_raters, len(cell_item))).tocsr()
    counts, size, pattern = unique_patterns(counts)
    weight = size if rater_weight is None else np.bincount(pattern, rater_weight, len(size))
    emission = _AnswerTables(counts, weight, cell_item, config.smoothing)
    deviations = emission.deviations()
    run, stability = best_of_restarts(
        emission,
        lambda rng: spectral_start(deviations, weight, num_clusters, rng),
        weight,
        config,
        size.astype(np.int64),
    )
    order = np.argsort(-run.prevalence, kind="stable")
    return LatentClassFit(
        log_p=run.params[:, order],
        prevalence=run.prevalence[order],
        responsibilities=run.responsibilities[pattern][:, order],
        log_likelihood=run.log_likelihood,
        history=run.history,
        stability=stability,
    )


def resample_prevalence(
    rater: np.ndarray,
    cell: np.ndarray,
    count: np.ndarray,
    cell_item: np.ndarray,
    responsibilities: np.ndarray,
    config: FitConfig,
    *,
    draws: int,
    seed: int = 0,
    design: SamplingDesign | None = None,
) -> np.ndarray:
    """Fit the classes again to resampled raters, starting at known memberships, so that they keep their order.

    Args:
        rater: (N,) rater index.
        cell: (N,) cell that was answered.
        count: (N,) how often each answer was given.
        cell_item: (S,) item of each cell.
        responsibilities: (R, K) memberships to start from.
        config: Priors and stopping; each resample has at most a hundred iterations.
        draws: Number of resamples.
        seed: Random seed.
        design: How the raters were sampled; None: all alike.

    Returns:
        (draws, K) prevalence.

    Example:
        >>> answers = np.array([[0, 2, 4]] * 3 + [[1, 3, 5]] * 2)
        >>> rater, cell_item = np.repeat(np.arange(5), 3), np.repeat(np.arange(3), 2)
        >>> fit = fit_latent_classes(rater, answers.ravel(), np.ones(15), 5, cell_item, 2, FitConfig())
        >>> resample_prevalence(
        ...     rater, answers.ravel(), np.ones(15), cell_item, fit.responsibilities, FitConfig(), draws=3
        ... ).sum(axis=1).round(6).tolist()
        [1.0, 1.0, 1.0]
    """
    shape = (len(responsibilities), len(cell_item))
    counts, size, pattern = unique_patterns(coo_array((count, (rater, cell)), shape=shape).tocsr())
    start = np.empty((len(size), responsibilities.shape[1]))
    start[pattern] = responsibilities  # raters with equal answers have equal memberships
    rng = seeded_rng(seed, "bootstrap of latent classes")
    design = design or SamplingDesign(np.ones(len(pattern)))
    everybody = design.weight > 0
    config = replace(config, temperatures=(1.0,), max_iter=100)
    prevalence = np.empty((draws, start.shape[1]))
    for draw in track(range(draws), "bootstrap of the shares of the clusters"):
        times = design.draw(everybody, rng) * design.weight
        resampled = np.bincount(pattern, times, len(size))
        emission = _AnswerTables(counts, resampled, cell_item, config.smoothing)
        prevalence[draw] = run_em(emission, start, resampled, config).prevalence
    return prevalence


def unique_patterns(counts: csr_array) -> tuple[csr_array, np.ndarray, np.ndarray]:
    """Merge raters with identical answers: 65,000 raters of seven yes/no items have 2,200 patterns.

    Args:
        counts: (R, S) how often each rater gave each answer.

    Returns:
        (P, S) patterns, (P,) number of raters with each, (R,) the pattern of each rater.

    Example:
        >>> patterns, size, pattern = unique_patterns(csr_array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
        >>> patterns.toarray().tolist(), size.tolist(), pattern.tolist()
        ([[0.0, 1.0], [1.0, 0.0]], [1.0, 2.0], [1, 0, 1])
    """
    n_raters, n_cells = counts.shape
    if n_raters * n_cells <= MAX_PATTERN_CELLS:
        rows = counts.toarray()
        as_bytes = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * n_cells))).ravel()
        _, first, pattern, size = np.unique(as_bytes, return_index=True, return_inverse=True, return_counts=True)
        if len(first) < 0.9 * n_raters:
            return csr_array(rows[first]), size.astype(np.float64), pattern
    return counts, np.ones(n_raters), np.arange(n_raters)
