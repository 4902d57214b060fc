"""A policy's distribution over offered answers, and its distance from people's.

The distribution is read off exactly, by scoring every answer; nothing is sampled. This file knows nothing of how the
policy was trained or where the people's answers come from.

Shapes: `I` questions, `A` options, `R` raters, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reward_models.raters.memberships import cluster_answers, leave_one_out_posterior
from reward_models.stats.answers import (
    Interval,
    Resamples,
    answer_counts,
    coverage,
    entropy_gap,
    js_divergence,
    normalise,
    resample_people,
)


if TYPE_CHECKING:
    from reward_models.judgements.encoding import Encoded

__all__ = ["METRICS", "ClusterPanel", "cluster_panel", "interval_row", "metric_rows"]

METRICS = ("jsd_nats", "coverage", "entropy_gap")
"""Per question: JS divergence to people (nats; lower is better), mass on the offered answers (higher is better),
entropy of the policy's answers minus people's (nats; 0 is right, below 0 is collapse)."""

UNITS = {"jsd_nats": "nats", "coverage": "probability", "entropy_gap": "nats"}


@dataclass(frozen=True)
class ClusterPanel:
    """Raters' answers with soft memberships, for one distribution a cluster.

    Attributes:
        answers: `(R, I)` option index, -1 where there is no answer.
        n_options: `A`, the largest number of options.
        weights: `(K, R, I)` responsibility of cluster k for the rater's answer; a cluster's distribution is the
            answers' weighted frequency.
    """

    answers: np.ndarray
    n_options: int
    weights: np.ndarray

    def human(self, cluster: int | None = None) -> np.ndarray:
        """`(I, A)` distribution of all raters, or of one cluster; uniform where nobody answered."""
        return normalise(self._counts(cluster))

    def n(self, cluster: int | None = None) -> np.ndarray:
        """`(I,)` answers behind each distribution; for a cluster, the sum of memberships."""
        return self._counts(cluster).sum(axis=-1)

    def _counts(self, cluster: int | None) -> np.ndarray:
        weights = None if cluster is None else self.weights[cluster]
        return answer_counts(self.answers, self.n_options, weights)

    def resample(self, cluster: int | None, *, draws: int, seed: int) -> Resamples:
        """The people of a cluster, or everybody, resampled for intervals."""
        weight = None if cluster is None else self.weights[cluster]
        return resample_people(self.answers, self.n_options, rater_weights=weight, draws=draws, seed=seed)

    def select(self, items: Sequence[int]) -> ClusterPanel:
        """The panel of some of the questions."""
        return ClusterPanel(self.answers[:, items], self.n_options, self.weights[:, :, items])


def cluster_panel(enc: Encoded, rewards: np.ndarray, prevalence: np.ndarray, placing: Iterable[int]) -> ClusterPanel:
    """Places raters in the clusters of a jury and estimates how each cluster answers, without using an answer twice.

    The membership of a rater, for the sake of one question, comes from that rater's answers to the *other* placing
    questions. Given these memberships as priors, each cluster's answers are the maximum-likelihood estimate (a
    membership-weighted frequency would mix the clusters wherever memberships are uncertain), and the responsibilities
    at that estimate are the panel's weights.

    Args:
        enc: Choice judgements of the raters to place.
        rewards: `(U, K)` the jury's logits of `enc.texts`.
        prevalence: `(K,)`.
        placing: Items (indices) whose answers may place a rater, i.e. the questions that the jury knows.
    """
    known = np.isin(enc.item, list(placing))
    logits = np.where((enc.alternatives >= 0)[..., None], rewards[enc.alternatives], -np.inf)  # (N, A, K)
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    # A question unknown to the jury says nothing.
    log_lik = log_p[np.arange(len(enc.label)), enc.label] * known[:, None]
    membership = leave_one_out_posterior(log_lik, enc.rater, enc.n_raters, prevalence)
    n_options = enc.alternatives.shape[1]
    answers = cluster_answers(membership, enc.label, enc.item, enc.n_items, n_options)  # (K, I, A)
    explained = membership * np.nan_to_num(answers[:, enc.item, enc.label]).T
    responsibility = explained / explained.sum(axis=1, keepdims=True)
    weights = np.zeros((len(prevalence), enc.n_raters, enc.n_items))
    weights[:, enc.rater, enc.item] = responsibility.T
    return ClusterPanel(enc.answer_matrix(), n_options, weights)


def metric_rows(
    people: Resamples, probabilities: np.ndarray, *, level: float, **labels: str
) -> Iterator[dict[str, Any]]:
    """Tidy rows of every metric for one policy, one weighting and one set of questions.

    Args:
        people: Whose answers the policy is held against, resampled over raters and questions.
        probabilities: `(I, A)` the policy's answer probabilities, summing to the coverage; 0 at padding.
        level: Level of the intervals.
        **labels: Columns that say what the rows are about (case, stage, split, cluster, …).
    """
    q = normalise(probabilities)
    per_item: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "jsd_nats": lambda human: js_divergence(human, q),
        "coverage": lambda human: coverage(probabilities),
        "entropy_gap": lambda human: entropy_gap(q, human),
    }
    for metric in METRICS:
        yield interval_row(people.interval(per_item[metric], level=level, clip=metric == "jsd_nats"), metric, labels)


def interval_row(interval: Interval, metric: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """One tidy row."""
    return {
        **labels,
        "metric": metric,
        "value": interval.value,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "n": interval.n_items,
        "n_raters": interval.n_raters,
        "unit": UNITS[metric],
    }
