"""How far texts of a policy are from texts that people wrote: kernel and classifier two-sample tests, classes covered.

All three compare two samples and no probabilities, so that they hold for any policy and for people themselves: people
against people is the floor. Knows nothing of policies or prompts.

Shapes: `N` and `M` texts, `D` dimensions of a vector, `C` classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist, pdist
from scipy.special import gammaln

from plural_rlhf.evaluation.diversity.classes import semantic_classes
from plural_rlhf.evaluation.diversity.equivalence import EquivalenceRule, equivalence_rule, rank_auc


__all__ = [
    "classes_covered",
    "classifier_two_sample",
    "covering",
    "covering_by_scores",
    "median_distance",
    "mmd_squared",
]


def median_distance(vectors: np.ndarray) -> float:
    """Compute the median distance of two of the vectors, the usual bandwidth of a kernel.

    Args:
        vectors: (N, D), at least two.

    Returns:
        Above 0; 1 where more than half of the distances are 0.

    Example:
        >>> median_distance(np.array([[0.0], [1.0], [3.0]]))
        2.0
    """
    return float(np.median(pdist(np.asarray(vectors, dtype=np.float64)))) or 1.0


def mmd_squared(vectors: np.ndarray, others: np.ndarray, bandwidth: float) -> float:
    """Estimate the squared maximum mean discrepancy of two samples without bias, kernel `exp(-d^2 / (2 bandwidth^2))`.

    Two samples of one distribution give 0 on average, below as often as above. Source: Gretton et al. (2012),
    equation 3, https://jmlr.org/papers/v13/gretton12a.html.

    Args:
        vectors: (N, D), at least two.
        others: (M, D), at least two.
        bandwidth: Width of the kernel; take that of people's texts (`median_distance`) for all policies.

    Returns:
        At most 2; nan where a sample has fewer than two texts.

    Example:
        >>> apart = mmd_squared(np.zeros((3, 1)), np.full((3, 1), 9.0), bandwidth=1.0)
        >>> round(apart, 6), mmd_squared(np.zeros((3, 1)), np.zeros((3, 1)), bandwidth=1.0)
        (2.0, 0.0)
    """
    if len(vectors) < 2 or len(others) < 2:
        return float("nan")
    within = [_kernel(pdist(np.asarray(sample, dtype=np.float64)), bandwidth).mean() for sample in (vectors, others)]
    between = _kernel(cdist(np.asarray(vectors, dtype=np.float64), np.asarray(others, dtype=np.float64)), bandwidth)
    return float(sum(within) - 2 * between.mean())


def classifier_two_sample(vectors: np.ndarray, others: np.ndarray, folds: int = 5) -> float:
    """Estimate how well a logistic regression tells two samples apart, on texts that it was not fitted to.

    Both samples count equally, whatever their sizes. Source: Lopez-Paz and Oquab (2017),
    https://arxiv.org/abs/1610.06545.

    Args:
        vectors: (N, D).
        others: (M, D).
        folds: Parts of the cross-validation; every `folds`-th text of each sample is a part.

    Returns:
        The area under the ROC curve: .5 where the samples cannot be told apart, 1 where they can; nan where a sample
        has fewer texts than twice the folds.

    Example:
        >>> x = np.linspace(-1, 1, 20)[:, None]
        >>> classifier_two_sample(x + 9, x)
        1.0
    """
    if min(len(vectors), len(others)) < 2 * folds:
        return float("nan")
    from sklearn.linear_model import LogisticRegression

    x = np.concatenate([vectors, others]).astype(np.float64)
    x = (x - x.mean(axis=0)) / max(float(np.sqrt(x.var(axis=0).sum())), 1e-12)  # one scale for all directions
    ours = np.repeat([1, 0], [len(vectors), len(others)])
    part = np.concatenate([np.arange(len(vectors)) % folds, np.arange(len(others)) % folds])
    aucs = []
    for fold in range(folds):
        model = LogisticRegression(class_weight="balanced", max_iter=200).fit(x[part != fold], ours[part != fold])
        aucs.append(rank_auc(model.decision_function(x[part == fold]), ours[part == fold] == 1))
    return float(np.mean(aucs))


def covering(
    texts: Sequence[str],
    people: Sequence[str],
    rule: str | EquivalenceRule = "words",
    vectors: np.ndarray | None = None,
    people_vectors: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Decide which texts say what which class of people's answers says.

    People's answers are grouped by `semantic_classes`; a text covers a class if its mean score with the answers of
    the class reaches the rule's threshold, so that it would have joined it.

    Args:
        texts: `N` texts of a policy.
        people: `M` texts that people wrote.
        rule: The rule, or its name in `EQUIVALENCE_RULES`.
        vectors: (N, D) vectors of `texts`, for a rule that reads them.
        people_vectors: (M, D) vectors of `people`.

    Returns:
        (N, C) whether a text covers a class, and (C,) the share of people's answers in each class.

    Example:
        >>> covers, shares = covering(["lower taxes"], ["More parks.", "more parks", "Lower taxes!"])
        >>> covers.tolist(), shares.round(2).tolist()
        ([[False, True]], [0.67, 0.33])
    """
    rule = equivalence_rule(rule)
    scores = rule.scores(texts, people, vectors, people_vectors)
    return covering_by_scores(scores, semantic_classes(people, rule, people_vectors), rule.threshold)


def covering_by_scores(scores: np.ndarray, classes: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Do as `covering` does, with the scores of a rule and the classes of people's answers at hand.

    Args:
        scores: (N, M) scores of the texts with people's answers.
        classes: (M,) class of each answer, numbered from 0.
        threshold: The rule's.

    Example:
        >>> covers, shares = covering_by_scores(np.array([[0.9, 0.3, 0.1]]), np.array([0, 0, 1]), threshold=0.5)
        >>> covers.tolist(), shares.round(2).tolist()  # (.9 + .3) / 2 is above .5
        ([[True, False]], [0.67, 0.33])
    """
    member = (classes[:, None] == np.arange(classes.max(initial=-1) + 1)).astype(np.float64)
    return scores @ member / member.sum(axis=0) >= threshold - 1e-12, member.mean(axis=0)


def classes_covered(covers: np.ndarray, shares: np.ndarray, k: int) -> np.ndarray:
    """Compute the share of people's answers whose class is covered by `k` of the texts, averaged over all choices.

    Args:
        covers: (..., N, C) whether a text covers a class.
        shares: (..., C) share of people's answers in each class.
        k: Number of texts, from 1 to `N`.

    Returns:
        (...) between 0 and 1; nan where `k` is more than `N`.

    Example:
        >>> covers = np.array([[True, False], [True, False], [False, True]])
        >>> classes_covered(covers, np.array([0.75, 0.25]), k=1).round(4).item()  # .75 · 2/3 + .25 · 1/3
        0.5833
        >>> classes_covered(covers, np.array([0.75, 0.25]), k=3).item()
        1.0
    """
    n = covers.shape[-2]
    without = n - covers.sum(axis=-2)
    if not 1 <= k <= n:
        return np.full(without.shape[:-1], np.nan)
    # The probability that none of k texts is among those that cover the class.
    log_missed = np.where(without >= k, _log_choose(np.maximum(without, k), k) - _log_choose(n, k), -np.inf)
    covered: np.ndarray = (shares * -np.expm1(log_missed)).sum(axis=-1)
    return covered


def _kernel(distances: np.ndarray, bandwidth: float) -> np.ndarray:
    return np.exp(-(distances**2) / (2 * bandwidth**2))


def _log_choose(total: np.ndarray | int, chosen: int) -> np.ndarray:
    return gammaln(np.asarray(total) + 1) - gammaln(chosen + 1) - gammaln(np.asarray(total) - chosen + 1)
