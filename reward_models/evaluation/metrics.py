"""Metrics of predicted answers against the answers that raters gave: accuracy, loss, worst raters and clusters.

Pure numpy on log-probabilities (N, A), as `raters.predictors.Predictor.log_probs` returns them, and the judgements
they predict. Every metric has an interval over raters and items, the number of cases behind it and the direction that
is better. Knows nothing of where the predictions come from; the caller makes sure that no scored label was used for
them. `calibration_metrics` asks whether probabilities match frequencies; `population` has the metrics of whole answer
distributions and of welfare.

Shapes: `N` judgements, `A` answers, `R` raters, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from reward_models.evaluation.clusters import check_memberships
from reward_models.evaluation.judgement_bootstrap import (
    Bootstrap,
    Direction,
    Draw,
    Metric,
    average,
    group_means,
    mean_ends,
    tail_mean,
)
from reward_models.judgements.encoding import Encoded
from reward_models.raters.predictors import answer_log_lik


__all__ = [
    "accuracy",
    "brier",
    "by_cluster",
    "by_item",
    "credit",
    "given_answers",
    "nll",
    "worst_raters",
]

Over = Literal["judgements", "raters"]
BOOTSTRAP = Bootstrap()


def credit(log_probs: np.ndarray, enc: Encoded) -> np.ndarray:
    """Compute whether each answer was the most probable one: (N,) 1 or 0, and 1/m if m answers are most probable.

    For pairs only a and b are compared; for judged ties the credit is nan (see `tie_calibration`).

    Args:
        log_probs: (N, A) nats.
        enc: The judgements.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating", num_raters=2, num_items=2).judgements.encode()
        >>> enc.label.tolist(), credit(np.log([[0.2, 0.5, 0.3]] * 4), enc).tolist()
        ([2, 2, 1, 0], [0.0, 0.0, 1.0, 0.0])
    """
    answers = log_probs[:, :2] if enc.kind == "preference" else log_probs
    top = answers >= answers.max(1, keepdims=True) - 1e-12
    right = np.take_along_axis(top, np.minimum(enc.label, answers.shape[1] - 1)[:, None], axis=1)[:, 0]
    tied = (enc.kind == "preference") & (enc.label == 2)
    return np.where(tied, np.nan, right / top.sum(1))


def accuracy(log_probs: np.ndarray, enc: Encoded, *, over: Over = "judgements", level: float = 0.95) -> Metric:
    """Compute the share of answers that were the most probable one; see `credit`.

    Args:
        log_probs: (N, A) nats.
        enc: The judgements.
        over: `"judgements"`, or `"raters"` for the mean of the raters' own shares, which counts every rater once.
        level: Coverage of the interval (`judgement_bootstrap.mean_ends`).

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating").judgements.encode()
        >>> same = np.log(np.full((len(enc), 3), 1 / 3))  # one of three equally probable answers
        >>> round(accuracy(same, enc).value, 3), accuracy(same, enc, over="raters").counted
        (0.333, 'raters')
    """
    return _mean("accuracy", credit(log_probs, enc), enc, over, "share", "higher", (0.0, 1.0), level)


def nll(log_probs: np.ndarray, enc: Encoded, *, over: Over = "judgements", level: float = 0.95) -> Metric:
    """Compute the mean negative log-likelihood in nats; infinite if an answer was given that the model rules out.

    The arguments are those of `accuracy`.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating").judgements.encode()
        >>> round(nll(np.log(np.full((len(enc), 3), 1 / 3)), enc).value, 4)  # log 3
        1.0986
    """
    loss = -answer_log_lik(log_probs, enc)
    return _mean("nll_nats", loss, enc, over, "nats", "lower", (0.0, np.inf), level)


def brier(log_probs: np.ndarray, enc: Encoded, *, level: float = 0.95) -> Metric:
    """Compute the mean of `sum_a (p_a - [a was given])^2`, from 0 to 2 (Brier 1950).

    For yes/no questions it is twice the score that is usual there. The arguments are those of `accuracy`.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating").judgements.encode()
        >>> round(brier(np.log(np.full((len(enc), 3), 1 / 3)), enc).value, 3)  # 4/9 + 1/9 + 1/9
        0.667
    """
    error = ((np.exp(log_probs) - given_answers(log_probs, enc)) ** 2).sum(1)
    return _mean("brier", error, enc, "judgements", "squared probability", "lower", (0.0, 2.0), level)


def worst_raters(
    log_probs: np.ndarray,
    enc: Encoded,
    *,
    share: float = 0.1,
    min_judgements: int = 5,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> list[Metric]:
    """Compute accuracy and loss of the tenth of the raters for whom the model is worst.

    Some raters are worst by chance, so the estimate is pessimistic, the more so the fewer judgements each has; compare
    models on the same judgements, not with a number from other data.

    Args:
        log_probs: (N, A) nats.
        enc: The judgements.
        share: Share of the raters, in (0, 1].
        min_judgements: Raters with fewer are excluded.
        bootstrap: Resampling of the intervals.

    Returns:
        `accuracy_worst_<percent>_percent` and `nll_nats_worst_<percent>_percent`; nan if no rater has enough.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating").judgements.encode()
        >>> first = np.log(np.tile([0.8, 0.1, 0.1], (len(enc), 1)))  # always the first level
        >>> worst = worst_raters(first, enc)[0]
        >>> worst.name, worst.value < accuracy(first, enc).value
        ('accuracy_worst_10_percent', True)
    """
    busy = np.bincount(enc.rater, enc.count, enc.n_raters) >= min_judgements
    out = []
    for metric, values, sign, unit, direction in _scores(log_probs, enc):

        def worst(draw: Draw, values: np.ndarray = values, sign: float = sign) -> float:
            means = group_means(values, enc.rater, enc.n_raters, draw.weight)
            usable = busy & (draw.raters > 0) & ~np.isnan(means)
            return sign * float(tail_mean(sign * means[usable], draw.raters[usable], share))

        ends = bootstrap.estimate(worst, enc, (0.0, 1.0 if unit == "share" else np.inf))[0]
        name = f"{metric}_worst_{100 * share:g}_percent"
        told = ~np.isnan(group_means(values, enc.rater, enc.n_raters, enc.count))  # not only ties
        out.append(Metric.of(name, ends, int((busy & told).sum()), "raters", unit, direction))
    return out


def by_cluster(
    log_probs: np.ndarray,
    enc: Encoded,
    memberships: np.ndarray,
    names: Sequence[str],
    *,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> list[Metric]:
    """Compute accuracy and loss for each cluster of raters and for the worst cluster.

    Args:
        log_probs: (N, A) nats.
        enc: The judgements.
        memberships: (R, K) membership of each rater, learnt without the scored labels; the weight of a judgement in a
            cluster is its rater's membership.
        names: `K` names.
        bootstrap: Level of the intervals, and resampling of those of the worst cluster.

    Returns:
        `accuracy[<name>]` per cluster and `accuracy_worst_cluster`, then the same for `nll_nats`; `n` counts the
        raters whose most probable cluster it is.

    Raises:
        JuryError: Memberships of another shape.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("rating", num_raters=10)
        >>> enc = planted.judgements.encode()
        >>> same = np.log(np.full((len(enc), 3), 1 / 3))
        >>> [metric.name for metric in by_cluster(same, enc, np.eye(2)[planted.cluster], ["city", "country"])][:3]
        ['accuracy[city]', 'accuracy[country]', 'accuracy_worst_cluster']
    """
    check_memberships(memberships, enc, len(names))
    active = np.bincount(enc.rater, minlength=enc.n_raters) > 0
    sizes = np.bincount(memberships[active].argmax(1), minlength=len(names))
    out = []
    for metric, values, sign, unit, direction in _scores(log_probs, enc):

        def worst(draw: Draw, values: np.ndarray = values, sign: float = sign) -> float:
            weight = draw.weight[:, None] * memberships[enc.rater]
            means = np.array([average(values, column) for column in weight.T])
            return np.nan if np.isnan(means).all() else sign * float(np.nanmin(sign * means))

        bounds = (0.0, 1.0 if unit == "share" else np.inf)
        weights = enc.count[:, None] * memberships[enc.rater]
        table = [mean_ends(values, enc, weight, level=bootstrap.level, bounds=bounds) for weight in weights.T]
        table.append(bootstrap.estimate(worst, enc, bounds)[0])
        titles = [*(f"{metric}[{name}]" for name in names), f"{metric}_worst_cluster"]
        for title, ends, n in zip(titles, table, [*sizes, active.sum()], strict=True):
            out.append(Metric.of(title, ends, int(n), "raters", unit, direction))
    return out


def given_answers(log_probs: np.ndarray, enc: Encoded) -> np.ndarray:
    """Compute (N, A) 1 at the answer that was given, 0 at the others.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating", num_raters=2, num_items=2).judgements.encode()
        >>> enc.label[2:].tolist(), given_answers(np.zeros((4, 3)), enc)[2:].tolist()
        ([1, 0], [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    """
    return np.eye(log_probs.shape[1])[enc.label]


def by_item(rows: np.ndarray, enc: Encoded) -> np.ndarray:
    """Return (N, A) rows with pairs turned as in `Encoded.item_alternatives`: equal columns mean equal answers.

    Args:
        rows: (N, A) one number per answer.
        enc: The judgements.

    Example:
        >>> import pandas as pd
        >>> from reward_models import Judgements
        >>> columns = ["rater_id", "prompt", "response_a", "response_b", "choice"]
        >>> rows = [("ann", q, "tea", "coffee", "a") for q in "12"] + [("bob", q, "coffee", "tea", "b") for q in "12"]
        >>> enc = Judgements.from_frame(pd.DataFrame(rows, columns=columns)).encode()  # both prefer tea
        >>> by_item(given_answers(np.zeros((4, 3)), enc), enc)[[0, 2]].tolist()
        [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    """
    return np.where(enc.swapped[:, None], rows[:, [1, 0, 2]], rows) if enc.kind == "preference" else rows


def _scores(log_probs: np.ndarray, enc: Encoded) -> list[tuple[str, np.ndarray, float, str, Direction]]:
    """Return accuracy and loss per judgement, each with the sign that makes low values bad."""
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
    level: float,
) -> Metric:
    """Average one number per judgement, without nan, over judgements or over the raters' means."""
    if over == "judgements":
        ends = mean_ends(values, enc, level=level, bounds=bounds)
        return Metric.of(name, ends, int((~np.isnan(values)).sum()), "judgements", unit, direction)
    given = np.bincount(enc.rater, np.where(np.isnan(values), 0, enc.count), enc.n_raters)[enc.rater]
    of_rater = np.divide(enc.count, given, out=np.zeros(len(values)), where=given > 0)
    ends = mean_ends(values, enc, of_rater, level=level, bounds=bounds)
    n = len(np.unique(enc.rater[~np.isnan(values)]))
    return Metric.of(f"{name}_per_rater", ends, n, "raters", unit, direction)
