"""Which cluster a rater belongs to, by Bayes' rule, and what each cluster answers.

The `mixture` membership: a rater belongs to one of K clusters, which is inferred from the rater's labels. numpy only;
it knows nothing of rewards, only how probable each judgement is in each cluster.

Shapes: `N` judgements, `R` raters, `K` clusters, `I` items, `A` options. Log-likelihoods are in nats; a judgement
that was given several times enters as its count times its log-likelihood.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp, softmax


__all__ = [
    "cluster_answers",
    "leave_one_out_posterior",
    "mixture_posterior",
    "predictive_log_lik",
    "rater_totals",
]


def rater_totals(log_lik: np.ndarray, rater: np.ndarray, n_raters: int) -> np.ndarray:
    """Sum the log-likelihood of each rater's judgements.

    Args:
        log_lik: (N, K) log-likelihood of each judgement in each cluster, nats.
        rater: (N,) rater index.
        n_raters: Number of raters `R`.

    Returns:
        (R, K) sums; 0 for a rater without judgements.

    Example:
        >>> rater_totals(np.array([[-1.0], [-2.0], [-3.0]]), np.array([0, 0, 1]), 2).ravel().tolist()
        [-3.0, -3.0]
    """
    return np.stack([np.bincount(rater, weights=column, minlength=n_raters) for column in log_lik.T], axis=1)


def mixture_posterior(
    log_lik: np.ndarray, rater: np.ndarray, n_raters: int, prevalence: np.ndarray, temperature: float = 1.0
) -> np.ndarray:
    """Compute the posterior membership `q_uk ∝ pi_k exp(sum_{i of u} l_ik / T)` of each rater.

    Args:
        log_lik: (N, K) log-likelihood of each judgement in each cluster, nats.
        rater: (N,) rater index.
        n_raters: Number of raters `R`.
        prevalence: (K,) prior `pi`.
        temperature: `T` of the tempered E-step; 1 is Bayes' rule, larger is softer.

    Returns:
        (R, K) posterior; a rater without judgements gets the prevalence.

    Example:
        One judgement is four times as probable in the first of two equally large clusters:

        >>> log_lik = np.log([[0.8, 0.2]])
        >>> mixture_posterior(log_lik, np.array([0]), 2, np.array([0.5, 0.5])).round(2).tolist()
        [[0.8, 0.2], [0.5, 0.5]]
    """
    with np.errstate(divide="ignore"):
        prior = np.log(prevalence)
    return softmax(prior + rater_totals(log_lik, rater, n_raters) / temperature, axis=1)


def leave_one_out_posterior(
    log_lik: np.ndarray, rater: np.ndarray, n_raters: int, prevalence: np.ndarray
) -> np.ndarray:
    """Compute the posterior membership of each judgement's rater from the rater's other judgements.

    A judgement that was used to infer its rater's membership is explained too well by that membership; leaving it out
    removes the bias.

    Args:
        log_lik: (N, K) log-likelihood of each judgement in each cluster, nats.
        rater: (N,) rater index.
        n_raters: Number of raters `R`.
        prevalence: (K,) prior `pi`.

    Returns:
        (N, K) posterior; the prevalence where the rater has no other judgement.

    Example:
        Of two judgements of one rater, each sees the other only:

        >>> log_lik = np.log([[0.8, 0.2], [0.5, 0.5]])
        >>> leave_one_out_posterior(log_lik, np.array([0, 0]), 1, np.array([0.5, 0.5])).round(2).tolist()
        [[0.5, 0.5], [0.8, 0.2]]
    """
    with np.errstate(divide="ignore"):
        prior = np.log(prevalence)
    return softmax(prior + rater_totals(log_lik, rater, n_raters)[rater] - log_lik, axis=1)


def predictive_log_lik(membership: np.ndarray, log_lik: np.ndarray) -> np.ndarray:
    """Compute the log predictive probability of judgements under uncertain membership, `log sum_k m_nk exp(l_nk)`.

    Args:
        membership: (N, K) membership of each judgement's rater, learnt without this judgement.
        log_lik: (N, K) log-likelihood of each judgement in each cluster, nats.

    Returns:
        (N,) nats.

    Example:
        >>> np.exp(predictive_log_lik(np.array([[0.5, 0.5]]), np.log([[0.8, 0.2]]))).round(2).tolist()
        [0.5]
    """
    return logsumexp(log_lik, axis=1, b=membership)


def cluster_answers(
    membership: np.ndarray,
    label: np.ndarray,
    item: np.ndarray,
    n_items: int,
    n_options: int,
    *,
    weight: np.ndarray | None = None,
    max_iter: int = 2000,
    tol: float = 1e-7,
) -> np.ndarray:
    """Estimate the answer distribution of each cluster by maximum likelihood, given uncertain memberships.

    Maximises `sum_n w_n log sum_k m_nk p_k(label_n | item_n)` over `p` by EM. The membership-weighted frequencies, the
    first step of EM, mix the clusters wherever memberships are uncertain; the maximum does not.

    Args:
        membership: (N, K) membership of each judgement's rater, ideally `leave_one_out_posterior`.
        label: (N,) option index; a negative label is skipped.
        item: (N,) item index.
        n_items: Number of items `I`.
        n_options: Largest number of options `A`.
        weight: (N,) weight of each judgement in the population; None: equal weights.
        max_iter: Most EM steps.
        tol: Stop when no probability moves by more.

    Returns:
        (K, I, A) distributions over the last axis; NaN where an item has no answer from a cluster.

    Example:
        Two raters, surely of two clusters, answer one item differently:

        >>> cluster_answers(np.eye(2), np.array([0, 1]), np.array([0, 0]), n_items=1, n_options=2)[:, 0].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    seen = label >= 0
    membership, cell = membership[seen], (item * n_options + label)[seen]
    mass = np.ones(len(cell)) if weight is None else weight[seen]
    n_cells, n_clusters = n_items * n_options, membership.shape[1]

    def frequencies(share: np.ndarray) -> np.ndarray:
        counts = np.stack([np.bincount(cell, weights=mass * column, minlength=n_cells) for column in share.T])
        counts = counts.reshape(n_clusters, n_items, n_options)
        with np.errstate(invalid="ignore"):
            return counts / counts.sum(-1, keepdims=True)

    answers = frequencies(membership)
    for _ in range(max_iter):
        explained = membership * np.nan_to_num(answers).reshape(n_clusters, n_cells)[:, cell].T
        updated = frequencies(explained / explained.sum(1, keepdims=True))
        moved = np.nanmax(np.abs(updated - answers), initial=0.0)
        answers = updated
        if moved < tol:
            break
    return answers
