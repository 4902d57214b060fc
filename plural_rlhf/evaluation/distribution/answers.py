"""Distance of a policy's distribution over offered answers from that of people, per rater cluster.

The policy's distribution is exact: every answer is scored, nothing is sampled. Knows nothing of how the policy was
trained or where the people's answers come from.

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
    total_variation,
)
from reward_models.stats.design import SamplingDesign
from reward_models.stats.shares import kish_n
from reward_models.stats.two_way import two_way_interval


if TYPE_CHECKING:
    from reward_models.judgements.encoding import Encoded

__all__ = ["METRICS", "ClusterPanel", "cluster_panel", "interval_row", "metric_rows"]

METRICS = ("jsd_nats", "jsd_debiased_nats", "coverage", "entropy_gap", "total_variation")
"""Per question: JS divergence from people (nats; lower is better), the same as if all had been asked (may fall below 0
by chance), mass on the offered answers (higher is better), entropy of the policy's answers minus that of
people's (nats; 0 is ideal, below 0 is collapse), and the share of people who would have to answer otherwise for people
and policy to agree (lower is better; "points off", of 100)."""

UNITS = {
    "jsd_nats": "nats",
    "jsd_debiased_nats": "nats",
    "coverage": "probability",
    "entropy_gap": "nats",
    "total_variation": "probability",
}

BOUNDS = {"jsd_nats": (0.0, np.log(2)), "coverage": (0.0, 1.0), "total_variation": (0.0, 1.0)}


@dataclass(frozen=True)
class ClusterPanel:
    """Raters' answers with soft memberships: one answer distribution per cluster and question.

    Attributes:
        answers: `(R, I)` option index, -1 where there is no answer.
        n_options: `A`, the largest number of options.
        weights: `(K, R, I)` responsibility of cluster k for the rater's answer; a cluster's distribution is the
            weighted frequency of the answers.
        design: How the raters were sampled; every distribution is weighted by its weights. None: all alike.

    Example:
        >>> answers = np.array([[0], [1], [1]])  # three raters, one question
        >>> panel = ClusterPanel(answers, n_options=2, weights=np.array([[[1], [0.5], [0]], [[0], [0.5], [1]]]))
        >>> panel.human().round(2).tolist(), panel.human(cluster=1).tolist()
        ([[0.33, 0.67]], [[0.0, 1.0]])
    """

    answers: np.ndarray
    n_options: int
    weights: np.ndarray
    design: SamplingDesign | None = None

    def human(self, cluster: int | None = None) -> np.ndarray:
        """Return the distribution of all raters or of one cluster, `(I, A)`; uniform where there is no answer."""
        return normalise(answer_counts(self.answers, self.n_options, self._mass(cluster)))

    def n(self, cluster: int | None = None) -> np.ndarray:
        """Return the number of answers behind each distribution, `(I,)`; for a cluster, the sum of memberships."""
        weights = None if cluster is None else self.weights[cluster]
        return answer_counts(self.answers, self.n_options, weights).sum(axis=-1)

    def n_effective(self, cluster: int | None = None) -> np.ndarray:
        """Return the number of answers of equal weight that would be as precise, `(I,)` (Kish)."""
        return kish_n(self._mass(cluster) * (self.answers >= 0))

    def _mass(self, cluster: int | None) -> np.ndarray:
        """`(R, I)` weight of each answer in the distribution of all or of a cluster."""
        people = np.ones(len(self.answers)) if self.design is None else self.design.weight
        return people[:, None] * (np.ones(self.answers.shape) if cluster is None else self.weights[cluster])

    def resample(self, cluster: int | None, *, draws: int, seed: int) -> Resamples:
        """Resample the raters, weighted by a cluster or equally, for intervals."""
        weight = None if cluster is None else self.weights[cluster]
        return resample_people(
            self.answers, self.n_options, rater_weights=weight, draws=draws, seed=seed, design=self.design
        )

    def select(self, items: Sequence[int]) -> ClusterPanel:
        """Select some of the questions."""
        return ClusterPanel(self.answers[:, items], self.n_options, self.weights[:, :, items], self.design)


def cluster_panel(
    enc: Encoded, rewards: np.ndarray, prevalence: np.ndarray, known_items: Iterable[int]
) -> ClusterPanel:
    """Adapt raters to the clusters and estimate the answers of each cluster, without using an answer twice.

    The membership of a rater, for one question, comes from that rater's answers to the *other* known questions. With
    these memberships as priors, each cluster's answers are the maximum-likelihood estimate (a membership-weighted
    frequency would mix the clusters wherever memberships are uncertain), and the responsibilities at that estimate are
    the panel's weights.

    Args:
        enc: Choice judgements of the raters.
        rewards: `(U, K)` logits of `enc.texts` in each cluster.
        prevalence: `(K,)` shares of the clusters.
        known_items: Items (indices) whose answers inform memberships: the questions of the scorer's training.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("choice", num_raters=60, num_items=8, strength=4.0)
        >>> enc = planted.judgements.encode()
        >>> rewards = np.stack([planted.rewards[planted.texts.index(text)] for text in enc.texts])
        >>> panel = cluster_panel(enc, rewards, np.array([0.5, 0.5]), known_items=range(8))
        >>> panel.human(cluster=0).shape, panel.n(cluster=0).round().tolist()
        ((8, 3), [30.0, 30.0, 30.0, 30.0, 30.0, 30.0, 30.0, 30.0])
    """
    known = np.isin(enc.item, list(known_items))
    logits = np.where((enc.alternatives >= 0)[..., None], rewards[enc.alternatives], -np.inf)  # (N, A, K)
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    # An unknown question does not inform memberships.
    log_lik = log_p[np.arange(len(enc.label)), enc.label] * (enc.count * known)[:, None]
    membership = leave_one_out_posterior(log_lik, enc.rater, enc.n_raters, prevalence)
    n_options = enc.alternatives.shape[1]
    answers = cluster_answers(  # (K, I, A)
        membership, enc.label, enc.item, enc.n_items, n_options, weight=enc.weight
    )
    explained = membership * np.nan_to_num(answers[:, enc.item, enc.label]).T
    responsibility = explained / explained.sum(axis=1, keepdims=True)
    weights = np.zeros((len(prevalence), enc.n_raters, enc.n_items))
    weights[:, enc.rater, enc.item] = responsibility.T
    return ClusterPanel(enc.answer_matrix(), n_options, weights, enc.design)


def metric_rows(
    people: Resamples, probabilities: np.ndarray, *, level: float, **labels: str
) -> Iterator[dict[str, Any]]:
    """Yield tidy rows of every metric for one policy, one weighting and one set of questions.

    `jsd_debiased_nats` and its interval are about all people. The other rows are about a measurement with as many
    people, to be read beside the noise floor.

    Args:
        people: The people's answers, resampled over raters and questions.
        probabilities: `(I, A)` the policy's answer probabilities, summing to the coverage; 0 at padding.
        level: Level of the intervals.
        **labels: Further columns of the rows (case, stage, split, cluster, …).

    Example:
        >>> answers = np.array([[0, 0], [0, 1], [1, 1], [1, 1]])  # four raters, two questions
        >>> people = ClusterPanel(answers, 2, np.ones((1, 4, 2))).resample(None, draws=50, seed=0)
        >>> rows = metric_rows(people, np.array([[0.4, 0.4], [0.2, 0.6]]), level=0.9, split="test")
        >>> {row["metric"]: round(row["value"], 3) for row in rows}
        {'jsd_nats': 0.0, 'jsd_debiased_nats': -0.082, 'coverage': 0.8, 'entropy_gap': 0.0, 'total_variation': 0.0}
    """
    q = normalise(probabilities)
    per_item: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "jsd_nats": lambda human: js_divergence(human, q),
        "jsd_debiased_nats": lambda human: js_divergence(human, q),
        "coverage": lambda human: np.broadcast_to(coverage(probabilities), human.shape[:-1]),
        "entropy_gap": lambda human: entropy_gap(q, human),
        "total_variation": lambda human: total_variation(human, q),
    }
    for metric in METRICS:
        interval = two_way_interval(
            people,
            per_item[metric],
            level=level,
            debias=metric == "jsd_debiased_nats",
            bounds=BOUNDS.get(metric, (-np.inf, np.inf)),
        )
        yield interval_row(interval, metric, labels)


def interval_row(interval: Interval, metric: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the tidy row of one metric.

    Example:
        >>> row = interval_row(Interval(0.9, 0.8, 1.0, n_raters=40, n_items=12), "coverage", {"stage": "plural"})
        >>> row["stage"], row["value"], row["unit"]
        ('plural', 0.9, 'probability')
    """
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
