"""How well the clusters are told apart: information criteria, entropy, and how far the shares depend on the sample.

These are the indices that a latent class analysis is published with. They describe a fit on the raters it was fitted
to; whether clusters predict anything about *other* raters is what `select_num_clusters` and `headroom` measure. Knows
nothing of traits or models.

Shapes: `R` raters, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reward_models.errors import JuryError, settings_or_default
from reward_models.fitting.em import FitConfig
from reward_models.fitting.latent_class import resample_prevalence
from reward_models.fitting.mixture import answer_cells, fit_mixture
from reward_models.fitting.rater_fit import RaterFit
from reward_models.judgements.encoding import Encoded
from reward_models.progress import track
from reward_models.raters.predictors import positions
from reward_models.seeds import seeded_rng
from reward_models.stats.answers import entropy
from reward_models.stats.design import SamplingDesign


__all__ = ["FitIndices", "ShareIntervals", "fit_indices", "fits_by_size", "prevalence_intervals"]


@dataclass(frozen=True)
class FitIndices:
    """Indices of one fit.

    Attributes:
        num_clusters: `K`.
        log_likelihood: Marginal log-likelihood of the judgements, nats.
        n_parameters: Free parameters; None where priors bind them, so that they cannot be counted (pairs, ratings).
        bic: `-2 log L + n_parameters log R`, lower is better; None without `n_parameters`. The fit has a weak prior,
            so that this is very slightly above the BIC of maximum likelihood; with sampling weights, log L is a
            pseudo-likelihood.
        entropy: `1 - Σ H(q_u) / (R log K)`: 1 if every rater's cluster is certain, 0 if none is known; 1 for `K` = 1.
        certainty: (K,) mean probability of the most probable cluster, of the raters assigned to it; nan for none.
        misclassified: Share of raters expected to be in another cluster than their most probable one.
        stability: Mean adjusted Rand index of the other starting points with the best one; 1 for a single start.

    Example:
        >>> from reward_models import fit_mixture, planted_judgements
        >>> enc = planted_judgements("choice", num_raters=40, num_items=10).judgements.encode()
        >>> indices = fit_indices(fit_mixture(enc, 2), enc)
        >>> indices.n_parameters  # ten questions with three options: 2 * 10 * 2 answers, and one share
        41
        >>> round(indices.entropy, 2), round(indices.misclassified, 3)
        (1.0, 0.0)
    """

    num_clusters: int
    log_likelihood: float
    n_parameters: int | None
    bic: float | None
    entropy: float
    certainty: np.ndarray
    misclassified: float
    stability: float


@dataclass(frozen=True)
class ShareIntervals:
    """Bootstrap intervals of the shares of the clusters.

    Attributes:
        shares: (K,) shares of the fit.
        low: (K,) lower ends of the 95 % percentile intervals.
        high: (K,) upper ends.
        refitted: Whether the clusters were fitted again to each resample; False: their answers were held fixed, and
            the intervals are somewhat too narrow.
        draws: Number of resamples.

    Example:
        >>> from reward_models import fit_mixture, planted_judgements
        >>> enc = planted_judgements("choice", num_raters=100, num_items=10).judgements.encode()
        >>> intervals = prevalence_intervals(fit_mixture(enc, 2), enc, draws=100)
        >>> intervals.shares.round(1).tolist(), intervals.low.round(1).tolist(), intervals.high.round(1).tolist()
        ([0.5, 0.5], [0.4, 0.4], [0.6, 0.6])
    """

    shares: np.ndarray
    low: np.ndarray
    high: np.ndarray
    refitted: bool
    draws: int


def fit_indices(fit: RaterFit, enc: Encoded) -> FitIndices:
    """Compute the indices of a mixture.

    Args:
        fit: The mixture.
        enc: The judgements it was fitted to.

    Raises:
        JuryError: The fit is no mixture.

    Example:
        >>> from reward_models import fit_mixture, planted_judgements
        >>> enc = planted_judgements("rating", num_raters=40, num_items=10).judgements.encode()
        >>> indices = fit_indices(fit_mixture(enc, 2), enc)
        >>> indices.bic is None, indices.entropy > 0.9
        (True, True)
    """
    _require_mixture(fit)
    q, k = fit.responsibilities, fit.num_clusters
    weight = enc.rater_weight[positions(fit.rater_ids, enc.rater_ids)]
    assigned, certain = q.argmax(axis=1), q.max(axis=1)
    total = np.bincount(assigned, weight, minlength=k)
    with np.errstate(invalid="ignore"):
        certainty = np.bincount(assigned, weight * certain, minlength=k) / np.where(total > 0, total, np.nan)
    n_parameters = None
    if answer_cells(enc) is not None and not fit.model.term_names:
        free_answers = (enc.item_alternatives >= 0).sum() - enc.n_items
        n_parameters = int(k * free_answers + k - 1)
    return FitIndices(
        num_clusters=k,
        log_likelihood=fit.log_likelihood,
        n_parameters=n_parameters,
        bic=None if n_parameters is None else float(-2 * fit.log_likelihood + n_parameters * np.log(len(q))),
        entropy=1.0 if k == 1 else float(1 - np.average(entropy(q), weights=weight) / np.log(k)),
        certainty=certainty,
        misclassified=float(1 - np.average(certain, weights=weight)),
        stability=fit.stability,
    )


def fits_by_size(
    enc: Encoded, sizes: Sequence[int], config: FitConfig | None = None, *, known: RaterFit | None = None
) -> list[FitIndices]:
    """Compute the indices of a mixture of each size, all fitted to the same judgements.

    Args:
        enc: The judgements.
        sizes: Numbers of clusters.
        config: Settings of the fits.
        known: A fit that is not to be made again.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("choice", num_raters=60, num_items=10).judgements.encode()
        >>> indices = fits_by_size(enc, (1, 2, 3))
        >>> min(indices, key=lambda of_size: of_size.bic).num_clusters
        2
    """
    fits = []
    for size in track(sorted(set(sizes)), "information criteria by number of clusters"):
        fit = known if known is not None and known.num_clusters == size else fit_mixture(enc, size, config)
        fits.append(fit_indices(fit, enc))
    return fits


def prevalence_intervals(
    fit: RaterFit, enc: Encoded, *, config: FitConfig | None = None, draws: int = 200, seed: int = 0
) -> ShareIntervals:
    """Bootstrap the shares of the clusters over raters.

    Choices: the clusters are fitted again to each resample, starting at the memberships of the fit, so that they keep
    their names. Other kinds, whose fits take long: the answers of the clusters are held fixed, and only the shares are
    estimated again.

    Args:
        fit: A mixture.
        enc: The judgements it was fitted to.
        config: Settings of the fit.
        draws: Number of resamples.
        seed: Random seed.

    Raises:
        JuryError: The fit is no mixture.

    Example:
        >>> from reward_models import fit_mixture, planted_judgements
        >>> enc = planted_judgements("rating", num_raters=100, num_items=8).judgements.encode()
        >>> intervals = prevalence_intervals(fit_mixture(enc, 2), enc, draws=100)
        >>> intervals.refitted, bool((intervals.low < 0.5).all()), bool((intervals.high > 0.4).all())
        (False, True, True)
    """
    _require_mixture(fit)
    cells = answer_cells(enc)
    refitted = cells is not None and not fit.model.term_names
    if refitted:
        assert cells is not None
        start = fit.responsibilities
        resampled = resample_prevalence(
            enc.rater,
            cells.cell,
            enc.count,
            cells.cell_item,
            start,
            settings_or_default(config, FitConfig),
            draws=draws,
            seed=seed,
            design=enc.design,
        )
    else:
        resampled = _shares_of_fixed_clusters(fit, enc, draws, seed)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    return ShareIntervals(np.asarray(fit.prevalence), low, high, refitted, draws)


def _shares_of_fixed_clusters(fit: RaterFit, enc: Encoded, draws: int, seed: int, iterations: int = 100) -> np.ndarray:
    """(draws, K) maximum-likelihood shares of resampled raters, whose likelihood in each cluster is known."""
    prevalence = np.maximum(fit.prevalence, 1e-12)
    likelihood = fit.responsibilities / prevalence  # up to a factor per rater, which does not matter
    design = enc.design or SamplingDesign(np.ones(len(likelihood)))
    rng = seeded_rng(seed, "bootstrap of fit indices")
    shares = np.empty((draws, len(prevalence)))
    for draw in range(draws):
        count = design.weight * design.draw(design.weight > 0, rng)
        count = count / count.sum()
        share = prevalence
        for _ in range(iterations):
            joint = likelihood * share
            updated = count @ (joint / joint.sum(axis=1, keepdims=True))
            moved = np.abs(updated - share).max()
            share = updated
            if moved < 1e-6:
                break
        shares[draw] = share
    return shares


def _require_mixture(fit: RaterFit) -> None:
    if fit.model.membership != "mixture":
        raise JuryError(
            f"the fit is a {fit.model.membership}, in which a rater does not belong to one cluster. Fix: fit a "
            "mixture (fit_mixture)."
        )
