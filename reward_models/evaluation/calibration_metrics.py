"""Do predicted probabilities and shares match what happened? Calibration of answers, ties and population shares.

Pure numpy on log-probabilities (N, A), as `raters.predictors.Predictor.log_probs` returns them, and the judgements
they predict. Knows nothing of where the predictions come from.

Squared gaps between predicted and observed shares (`pairwise_calibration`, `share_calibration`, `tie_calibration`) are
corrected for the sampling noise of the observed share, see `judgement_bootstrap`.

Shapes: `N` judgements, `A` answers, `R` raters, `U` texts, `K` clusters.
"""

from __future__ import annotations

import numpy as np

from reward_models.errors import JuryError
from reward_models.evaluation.judgement_bootstrap import Bootstrap, Draw, Metric, average, mean_squared_gap
from reward_models.evaluation.metrics import BOOTSTRAP, by_item, credit, given_answers
from reward_models.judgements.encoding import Encoded
from reward_models.stats.answers import normalise


__all__ = [
    "calibration_error",
    "pairwise_calibration",
    "preferring_share",
    "reliability_curve",
    "share_calibration",
    "tie_calibration",
]


def reliability_curve(
    probability: np.ndarray,
    outcome: np.ndarray,
    n_bins: int = 10,
    weight: np.ndarray | None = None,
    count: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare predictions with outcomes in bins of equal mass, split at quantiles of the predictions.

    Args:
        probability: (N,) predictions.
        outcome: (N,) outcomes, in [0, 1].
        n_bins: Number of bins; equal predictions share a bin, so some bins may be empty and are dropped.
        weight: (N,) weights; None for 1. The bins are those of the predictions without weights.
        count: (N,) whole numbers, how often each prediction is there when the bins are made; None for once.

    Returns:
        Mean prediction, mean outcome and share of the mass of each bin.

    Example:
        >>> predicted, observed, mass = reliability_curve(
        ...     np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 1, 1, 1]), n_bins=2
        ... )
        >>> predicted.round(2).tolist(), observed.tolist(), mass.tolist()
        ([0.15, 0.85], [0.5, 1.0], [0.5, 0.5])
    """
    weight = np.ones(len(probability)) if weight is None else weight
    every = probability if count is None else np.repeat(probability, count.astype(np.int64))
    edges = np.quantile(every, np.linspace(0, 1, n_bins + 1)[1:-1])
    bin_of = np.searchsorted(edges, probability)
    mass = np.bincount(bin_of, weight, n_bins)
    used = mass > 0
    predicted = np.bincount(bin_of, weight * probability, n_bins)[used] / mass[used]
    observed = np.bincount(bin_of, weight * outcome, n_bins)[used] / mass[used]
    return predicted, observed, mass[used] / mass.sum()


def calibration_error(
    log_probs: np.ndarray, enc: Encoded, *, n_bins: int = 10, bootstrap: Bootstrap = BOOTSTRAP
) -> Metric:
    """Compute the expected calibration error of the most probable answer: `sum_b mass_b |predicted_b - observed_b|`.

    A calibrated model need not know anything: the uniform prediction is calibrated. Judged ties are excluded, and
    pairs are read as "a or b, given that it is no tie". The noise of small bins adds about `sqrt(n_bins / n)`.

    Args:
        log_probs: (N, A) nats.
        enc: The judgements.
        n_bins: Bins of equal mass.
        bootstrap: Resampling of the interval.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating").judgements.encode()
        >>> round(calibration_error(np.log(np.full((len(enc), 3), 1 / 3)), enc).value, 4)
        0.0
    """
    outcome = credit(log_probs, enc)
    answers = log_probs[:, :2] if enc.kind == "preference" else log_probs
    confidence = normalise(np.exp(answers)).max(1)
    kept = ~np.isnan(outcome)
    count = enc.count[kept] * (enc.weight[kept] > 0)

    def ece(draw: Draw) -> float:
        if not draw.weight[kept].any():
            return np.nan
        predicted, observed, mass = reliability_curve(
            confidence[kept], outcome[kept], n_bins, draw.weight[kept], count=count
        )
        return float(mass @ np.abs(predicted - observed))

    ends = bootstrap.estimate(ece, enc, (0.0, 1.0))[0]
    return Metric.of("ece", ends, int(kept.sum()), "judgements", "probability", "lower")


def tie_calibration(log_probs: np.ndarray, enc: Encoded, *, bootstrap: Bootstrap = BOOTSTRAP) -> list[Metric]:
    """Compare the predicted and the observed rate of ties, over all pairs and rater by rater.

    Args:
        log_probs: (N, 3) nats.
        enc: Pairs.
        bootstrap: Resampling of the intervals.

    Returns:
        `tie_rate_predicted`, `tie_rate_observed`, `tie_rate_gap` (their difference) and `tie_calibration`, the mean
        over raters of the squared gap between a rater's predicted and observed rate, corrected for noise.

    Raises:
        JuryError: The judgements are not pairs.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("preference").judgements.encode()  # without ties
        >>> metrics = tie_calibration(np.log(np.tile([0.4, 0.4, 0.2], (len(enc), 1))), enc)
        >>> {metric.name: round(metric.value, 3) for metric in metrics[:3]}
        {'tie_rate_predicted': 0.2, 'tie_rate_observed': 0.0, 'tie_rate_gap': 0.2}
    """
    _require_pairs(enc, "tie_calibration")
    predicted, observed = np.exp(log_probs[:, 2]), (enc.label == 2).astype(np.float64)

    def rates(draw: Draw) -> list[float]:
        p, o = average(predicted, draw.weight), average(observed, draw.weight)
        gaps = mean_squared_gap(predicted - observed, enc.rater, draw.raters, draw.weight)
        return [p, o, p - o, gaps]

    ends = bootstrap.estimate(rates, enc, (-1.0, 1.0))
    several = int((np.bincount(enc.rater) > 1).sum())
    return [
        Metric.of("tie_rate_predicted", ends[0], len(enc), "judgements", "share", "context"),
        Metric.of("tie_rate_observed", ends[1], len(enc), "judgements", "share", "context"),
        Metric.of("tie_rate_gap", ends[2], len(enc), "judgements", "share", "zero"),
        Metric.of("tie_calibration", ends[3], several, "raters", "squared share", "lower"),
    ]


def preferring_share(rewards: np.ndarray, weights: np.ndarray, enc: Encoded, *, smooth: bool = False) -> np.ndarray:
    """Compute (N,) the share of an ensemble of rewards that prefers a to b.

    Args:
        rewards: (U, K) reward of each text in each cluster.
        weights: (K,) shares of the population, summing to one.
        enc: Pairs.
        smooth: Use `sigmoid(r_k(a) - r_k(b))`, the share of the cluster's own raters, instead of `1[r_k(a) > r_k(b)]`;
            equal rewards count half.

    Raises:
        JuryError: The judgements are not pairs.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("preference", num_raters=2, num_items=2).judgements.encode()
        >>> rewards = np.array([[2.0, 0.0], [1.0, 3.0]] * 2)  # of both pairs, cluster 1 prefers a and cluster 2 b
        >>> preferring_share(rewards, np.array([0.7, 0.3]), enc).tolist()
        [0.7, 0.7, 0.7, 0.7]
    """
    _require_pairs(enc, "preferring_share")
    ahead = rewards[enc.alternatives[:, 0]] - rewards[enc.alternatives[:, 1]]
    prefers = 0.5 * (1 + np.tanh(ahead / 2)) if smooth else 0.5 * (1 + np.sign(ahead))
    return prefers @ weights


def pairwise_calibration(
    share: np.ndarray,
    enc: Encoded,
    *,
    name: str = "pairwise_calibration",
    corrected: bool = True,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> Metric:
    """Compute the pairwise calibration error: mean over pairs of (predicted - observed share that prefers a)^2.

    With the hard `preferring_share` it is the error of Halpern et al. (2025, https://arxiv.org/abs/2506.06298). A
    judged tie is half a vote for each side.

    Args:
        share: (N,) predicted share that prefers a to b: `preferring_share`, or the first column of
            `population.answer_shares`.
        enc: Pairs; those judged by one rater are ignored.
        name: Name of the metric.
        corrected: Remove the noise of the observed share; False for the plain square over all pairs.
        bootstrap: Resampling of the interval.

    Raises:
        JuryError: The judgements are not pairs.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("preference")
        >>> enc = planted.judgements.encode()
        >>> two_clusters = preferring_share(planted.rewards, np.array([0.5, 0.5]), enc, smooth=True)
        >>> halves = np.full(len(enc), 0.5)
        >>> pairwise_calibration(two_clusters, enc).value < pairwise_calibration(halves, enc).value
        True
    """
    _require_pairs(enc, "pairwise_calibration")
    gap = share - np.array([1.0, 0.0, 0.5])[enc.label]
    gap = np.where(enc.swapped, -gap, gap)

    def error(draw: Draw) -> float:
        return mean_squared_gap(gap, enc.item, draw.items, draw.weight, corrected)

    ends = bootstrap.estimate(error, enc, (-np.inf if corrected else 0.0, 1.0))[0]
    n = int((np.bincount(enc.item) > (1 if corrected else 0)).sum())
    return Metric.of(name, ends, n, "pairs", "squared share", "lower")


def share_calibration(log_probs: np.ndarray, enc: Encoded, *, bootstrap: Bootstrap = BOOTSTRAP) -> Metric:
    """Compute the mean over items of `sum_a (predicted - observed share of answer a)^2`, corrected for noise.

    The counterpart of `pairwise_calibration` for any kind of judgement; items with one answer are ignored.

    Args:
        log_probs: (N, A) nats.
        enc: The judgements.
        bootstrap: Resampling of the interval.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating").judgements.encode()
        >>> error = share_calibration(np.log(np.full((len(enc), 3), 1 / 3)), enc)
        >>> error.n, error.counted, error.unit
        (12, 'items', 'squared share')
    """
    gap = by_item(np.exp(log_probs) - given_answers(log_probs, enc), enc)

    def error(draw: Draw) -> float:
        return mean_squared_gap(gap, enc.item, draw.items, draw.weight)

    ends = bootstrap.estimate(error, enc, (-np.inf, 2.0))[0]  # no two distributions are farther apart
    several = int((np.bincount(enc.item) > 1).sum())
    return Metric.of("share_calibration", ends, several, "items", "squared share", "lower")


def _require_pairs(enc: Encoded, name: str) -> None:
    if enc.kind != "preference":
        raise JuryError(f"{name} compares two responses, but the judgements are of kind {enc.kind!r}. Fix: use pairs")
