"""How well a jury speaks for its raters: metrics of predicted answers against the answers that were given.

Pure numpy on log-probabilities (N, A), as `predictors.Predictor.log_probs` returns them, and the judgements they are
about. Every metric comes with an interval over raters and items, the number of things behind it and the direction that
is better. Knows nothing of where the predictions come from; the caller sees to it that no scored label was used to
make them.

Squared gaps between predicted and observed shares (`pairwise_calibration`, `share_calibration`, `tie_calibration`) are
corrected for the noise of the observed share, see `judgement_bootstrap`. `jury_population` holds the metrics of whole
answer distributions and of welfare.

Shapes: `N` judgements, `A` answers, `R` raters, `U` texts, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from reward_models.errors import JuryError
from reward_models.evaluation.judgement_bootstrap import (
    Bootstrap,
    Direction,
    Draw,
    Metric,
    average,
    group_means,
    mean_squared_gap,
    tail_mean,
)
from reward_models.judgements.encoding import Encoded
from reward_models.raters.predictors import answer_log_lik
from reward_models.stats.answers import normalise


__all__ = [
    "accuracy",
    "brier",
    "by_cluster",
    "by_item",
    "calibration_error",
    "check_memberships",
    "credit",
    "given_answers",
    "nll",
    "pairwise_calibration",
    "preferring_share",
    "reliability_curve",
    "share_calibration",
    "tie_calibration",
    "worst_raters",
]

Over = Literal["judgements", "raters"]
BOOTSTRAP = Bootstrap()


def credit(log_probs: np.ndarray, enc: Encoded) -> np.ndarray:
    """Whether each answer was the most probable one: (N,) 1 or 0, and 1/m if it is one of m most probable answers.

    Pairs are asked which response is better; for judged ties the credit is nan, and `tie_calibration` looks at those.

    Args:
        log_probs: (N, A) nats.
        enc: The judgements.
    """
    answers = log_probs[:, :2] if enc.kind == "preference" else log_probs
    top = answers >= answers.max(1, keepdims=True) - 1e-12
    right = np.take_along_axis(top, np.minimum(enc.label, answers.shape[1] - 1)[:, None], axis=1)[:, 0]
    tied = (enc.kind == "preference") & (enc.label == 2)
    return np.where(tied, np.nan, right / top.sum(1))


def accuracy(
    log_probs: np.ndarray, enc: Encoded, *, over: Over = "judgements", bootstrap: Bootstrap = BOOTSTRAP
) -> Metric:
    """Share of answers that were the most probable one; see `credit`.

    Args:
        log_probs: (N, A) nats.
        enc: The judgements.
        over: `"judgements"`, or `"raters"` for the mean of the raters' own shares, which counts busy raters once.
        bootstrap: How the interval is made.
    """
    return _mean("accuracy", credit(log_probs, enc), enc, over, "share", "higher", (0.0, 1.0), bootstrap)


def nll(log_probs: np.ndarray, enc: Encoded, *, over: Over = "judgements", bootstrap: Bootstrap = BOOTSTRAP) -> Metric:
    """Mean negative log-likelihood in nats; infinite if an answer was given that the model rules out.

    The arguments are those of `accuracy`.
    """
    loss = -answer_log_lik(log_probs, enc)
    return _mean("nll_nats", loss, enc, over, "nats", "lower", (0.0, np.inf), bootstrap)


def brier(log_probs: np.ndarray, enc: Encoded, *, bootstrap: Bootstrap = BOOTSTRAP) -> Metric:
    """Mean of `sum_a (p_a - [a was given])^2`, from 0 to 2: twice the usual score of yes/no questions (Brier 1950)."""
    error = ((np.exp(log_probs) - given_answers(log_probs, enc)) ** 2).sum(1)
    return _mean("brier", error, enc, "judgements", "squared probability", "lower", (0.0, 2.0), bootstrap)


def worst_raters(
    log_probs: np.ndarray,
    enc: Encoded,
    *,
    share: float = 0.1,
    min_judgements: int = 5,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> list[Metric]:
    """Accuracy and loss of the tenth of the raters for whom the model is worst.

    Some raters are worst by bad luck, so this looks worse than the truth, the more so the fewer judgements each has;
    compare models on the same judgements, not with a number from elsewhere.

    Args:
        log_probs: (N, A) nats.
        enc: The judgements.
        share: Share of the raters, in (0, 1].
        min_judgements: Raters with fewer are left out.
        bootstrap: How the intervals are made.

    Returns:
        `accuracy_worst_<percent>_percent` and `nll_nats_worst_<percent>_percent`; nan if no rater has enough.
    """
    busy = np.bincount(enc.rater, minlength=enc.n_raters) >= min_judgements
    out = []
    for metric, values, sign, unit, direction in _scores(log_probs, enc):

        def worst(draw: Draw, values: np.ndarray = values, sign: float = sign) -> float:
            means = group_means(values, enc.rater, enc.n_raters, draw.weight)
            usable = busy & (draw.raters > 0) & ~np.isnan(means)
            return sign * float(tail_mean(sign * means[usable], draw.raters[usable], share))

        ends = bootstrap.estimate(worst, enc, (0.0, 1.0 if unit == "share" else np.inf))[0]
        name = f"{metric}_worst_{100 * share:g}_percent"
        out.append(Metric.of(name, ends, int(busy.sum()), "raters", unit, direction))
    return out


def by_cluster(
    log_probs: np.ndarray,
    enc: Encoded,
    memberships: np.ndarray,
    names: Sequence[str],
    *,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> list[Metric]:
    """Accuracy and loss for each cluster of raters and for the worst cluster.

    Args:
        log_probs: (N, A) nats.
        enc: The judgements.
        memberships: (R, K) membership of each rater, learnt without the scored labels; a judgement counts for a
            cluster as much as its rater belongs to it.
        names: `K` names.
        bootstrap: How the intervals are made.

    Returns:
        `accuracy[<name>]` per cluster and `accuracy_worst_cluster`, then the same of `nll_nats`; `n` counts the raters
        whom a cluster fits best.

    Raises:
        JuryError: Memberships of another shape.
    """
    check_memberships(memberships, enc, len(names))
    active = np.bincount(enc.rater, minlength=enc.n_raters) > 0
    sizes = np.bincount(memberships[active].argmax(1), minlength=len(names))
    out = []
    for metric, values, sign, unit, direction in _scores(log_probs, enc):

        def per_cluster(draw: Draw, values: np.ndarray = values, sign: float = sign) -> np.ndarray:
            weight = draw.weight[:, None] * memberships[enc.rater]
            means = np.array([average(values, column) for column in weight.T])
            return np.append(means, np.nan if np.isnan(means).all() else sign * np.nanmin(sign * means))

        table = bootstrap.estimate(per_cluster, enc, (0.0, 1.0 if unit == "share" else np.inf))
        titles = [*(f"{metric}[{name}]" for name in names), f"{metric}_worst_cluster"]
        for title, ends, n in zip(titles, table, [*sizes, active.sum()], strict=True):
            out.append(Metric.of(title, ends, int(n), "raters", unit, direction))
    return out


def reliability_curve(
    probability: np.ndarray, outcome: np.ndarray, n_bins: int = 10, weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What happened as often as predicted? Bins of equal mass, split at quantiles of the predictions.

    Args:
        probability: (N,) predictions.
        outcome: (N,) what happened, in [0, 1].
        n_bins: Number of bins; equal predictions share one, so that some may be empty and are left out.
        weight: (N,) weights; None for 1. The bins are those of the predictions without weights.

    Returns:
        Mean prediction, mean outcome and share of the mass of each bin.
    """
    weight = np.ones(len(probability)) if weight is None else weight
    edges = np.quantile(probability, np.linspace(0, 1, n_bins + 1)[1:-1])
    bin_of = np.searchsorted(edges, probability)
    mass = np.bincount(bin_of, weight, n_bins)
    used = mass > 0
    predicted = np.bincount(bin_of, weight * probability, n_bins)[used] / mass[used]
    observed = np.bincount(bin_of, weight * outcome, n_bins)[used] / mass[used]
    return predicted, observed, mass[used] / mass.sum()


def calibration_error(
    log_probs: np.ndarray, enc: Encoded, *, n_bins: int = 10, bootstrap: Bootstrap = BOOTSTRAP
) -> Metric:
    """Expected calibration error of the most probable answer: `sum_b mass_b |predicted_b - observed_b|`.

    Calibration alone does not reward knowing anything: the uniform answer is calibrated. Judged ties are left out, and
    pairs are read as "a or b, given that not both". Noise of small bins is part of it, about `sqrt(n_bins / n)`.

    Args:
        log_probs: (N, A) nats.
        enc: The judgements.
        n_bins: Bins of equal mass.
        bootstrap: How the interval is made.
    """
    outcome = credit(log_probs, enc)
    answers = log_probs[:, :2] if enc.kind == "preference" else log_probs
    confidence = normalise(np.exp(answers)).max(1)
    kept = ~np.isnan(outcome)

    def ece(draw: Draw) -> float:
        if not draw.weight[kept].any():
            return np.nan
        predicted, observed, mass = reliability_curve(confidence[kept], outcome[kept], n_bins, draw.weight[kept])
        return float(mass @ np.abs(predicted - observed))

    ends = bootstrap.estimate(ece, enc, (0.0, 1.0))[0]
    return Metric.of("ece", ends, int(kept.sum()), "judgements", "probability", "lower")


def tie_calibration(log_probs: np.ndarray, enc: Encoded, *, bootstrap: Bootstrap = BOOTSTRAP) -> list[Metric]:
    """Predicted and observed rate of ties, over all pairs and rater by rater.

    Returns:
        `tie_rate_predicted`, `tie_rate_observed`, `tie_rate_gap` (their difference) and `tie_calibration`, the mean
        over raters of the squared gap between a rater's predicted and observed rate, corrected for noise.

    Raises:
        JuryError: For judgements that are not pairs.
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
    """Weight (N,) of the rewards of an ensemble that prefer a to b.

    Args:
        rewards: (U, K) reward of each text in each cluster.
        weights: (K,) shares of the population, summing to one.
        enc: Pairs.
        smooth: Use `sigmoid(r_k(a) - r_k(b))`, the share of the cluster's own raters, instead of `1[r_k(a) > r_k(b)]`;
            equal rewards count half.

    Raises:
        JuryError: For judgements that are not pairs.
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
    """Pairwise calibration error: mean over pairs of (share that is said to prefer a - share that does)^2.

    The paper's error is that of the hard `preferring_share` (Halpern et al. 2025, arXiv 2506.06298). A judged tie is
    half a vote for each side.

    Args:
        share: (N,) predicted share that prefers a to b: `preferring_share`, or the first column of
            `jury_population.answer_shares`.
        enc: Pairs, judged by two raters or more; the others do not count.
        name: What to call it.
        corrected: Take out the noise of the observed share; False for the plain square over all pairs.
        bootstrap: How the interval is made.

    Raises:
        JuryError: For judgements that are not pairs.
    """
    _require_pairs(enc, "pairwise_calibration")
    gap = share - np.array([1.0, 0.0, 0.5])[enc.label]
    gap = np.where(_turned(enc), -gap, gap)

    def error(draw: Draw) -> float:
        return mean_squared_gap(gap, enc.item, draw.items, draw.weight, corrected)

    ends = bootstrap.estimate(error, enc, (-np.inf if corrected else 0.0, 1.0))[0]
    n = int((np.bincount(enc.item) > (1 if corrected else 0)).sum())
    return Metric.of(name, ends, n, "pairs", "squared share", "lower")


def share_calibration(log_probs: np.ndarray, enc: Encoded, *, bootstrap: Bootstrap = BOOTSTRAP) -> Metric:
    """Mean over items of `sum_a (predicted share of answer a - observed share)^2`, corrected for noise.

    What pairwise calibration is to pairs, for any kind of judgement; items with one answer do not count.
    """
    gap = by_item(np.exp(log_probs) - given_answers(log_probs, enc), enc)

    def error(draw: Draw) -> float:
        return mean_squared_gap(gap, enc.item, draw.items, draw.weight)

    several = int((np.bincount(enc.item) > 1).sum())
    return Metric.of(
        "share_calibration", bootstrap.estimate(error, enc)[0], several, "items", "squared share", "lower"
    )


def given_answers(log_probs: np.ndarray, enc: Encoded) -> np.ndarray:
    """(N, A) 1 at the answer that was given."""
    return np.eye(log_probs.shape[1])[enc.label]


def by_item(rows: np.ndarray, enc: Encoded) -> np.ndarray:
    """(N, A) rows with pairs turned as in `Encoded.item_alternatives`, so that equal columns mean equal answers."""
    return np.where(_turned(enc)[:, None], rows[:, [1, 0, 2]], rows) if enc.kind == "preference" else rows


def check_memberships(memberships: np.ndarray, enc: Encoded, num_clusters: int) -> None:
    """Refuse memberships that do not belong to the raters.

    Raises:
        JuryError: The shape is not (R, K).
    """
    if memberships.shape != (enc.n_raters, num_clusters):
        raise JuryError(
            f"memberships have shape {memberships.shape}, but there are {enc.n_raters} raters and {num_clusters} "
            "clusters. Fix: one row per entry of Encoded.rater_ids, in that order"
        )


def _turned(enc: Encoded) -> np.ndarray:
    """(N,) whether a pair stands the other way round than its item."""
    return enc.alternatives[:, 0] != enc.item_alternatives[enc.item, 0]


def _require_pairs(enc: Encoded, what: str) -> None:
    if enc.kind != "preference":
        raise JuryError(f"{what} compares two responses, but the judgements are of kind {enc.kind!r}. Fix: use pairs")


def _scores(log_probs: np.ndarray, enc: Encoded) -> list[tuple[str, np.ndarray, float, str, Direction]]:
    """Accuracy and loss per judgement, each with the sign that makes low values bad."""
    return [
        ("accuracy", credit(log_probs, enc), 1.0, "share", "higher"),
        ("nll_nats", -answer_log_lik(log_probs, enc), -1.0, "nats", "lower"),
    ]


def _mean(
    name: str,
    values: np.ndarray,
    enc: Encoded,
    over: Over,
    unit: str,
    direction: Direction,
    bounds: tuple[float, float],
    bootstrap: Bootstrap,
) -> Metric:
    """Mean of one number per judgement, nan left out, over judgements or of the raters' means."""
    if over == "judgements":
        ends = bootstrap.estimate(lambda draw: average(values, draw.weight), enc, bounds)[0]
        return Metric.of(name, ends, int((~np.isnan(values)).sum()), "judgements", unit, direction)
    ends = bootstrap.estimate(
        lambda draw: average(group_means(values, enc.rater, enc.n_raters, draw.weight), draw.raters), enc, bounds
    )[0]
    return Metric.of(f"{name}_per_rater", ends, len(np.unique(enc.rater)), "raters", unit, direction)
