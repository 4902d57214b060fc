"""The judgements of each text as one normal observation of its reward, by expectation propagation.

Three people who agree say that a reward is high, not how high: the likelihood is skewed, and its curvature at the mode
makes strengths of rewards too small (Kuss and Rasmussen 2005, https://jmlr.org/papers/v6/kuss05a.html). An observation
here has the mean and the variance at which the posterior of the reward, given the other texts, has the mean and the
variance of the true one. Knows nothing of how strengths are learnt.

Shapes: `U` texts, `d` coordinates.
"""

from __future__ import annotations

import numpy as np

from reward_models.fitting.joint.problem import JointProblem, Params
from reward_models.fitting.joint.text_likelihood import TextLikelihood


__all__ = ["text_observations"]

NODES = np.linspace(-5.0, 5.0, 21)  # in standard deviations around the mode
SWEEPS = 8
DAMPING = 0.7  # share of a new observation that a sweep takes over
LEAST_PRECISION = 1e-3  # of an observation, in 1 / logit^2
LEAST_VARIANCE = 1e-6  # of a posterior, in logit^2


def text_observations(
    problem: JointProblem, params: Params, information: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute observations of the rewards of some texts, one reward for everybody.

    Args:
        problem: With one cluster, and its strengths.
        params: The mode.
        information: (U,) of the judgements of each text about its reward, at the mode.
        rows: (U',) the texts.

    Returns:
        (U',) observed rewards, in logits before centring, and (U',) variances of their noise.

    Example:
        A text that all like by a few votes may be liked a lot: its observation lies further out than the mode.

        >>> from reward_models import FitConfig, planted_judgements
        >>> from reward_models.fitting.joint.strengths import Curvature
        >>> table = planted_judgements("preference").judgements.encode()
        >>> problem = JointProblem.of([table], [np.zeros((table.n_texts, 0))], "mixture", 1, FitConfig())
        >>> params, _ = problem.maximise(problem.start(), 50, 1e-6)
        >>> observed, noise = text_observations(problem, params, Curvature.at(problem, params).texts, np.arange(12))
        >>> mode = params["residual"][:12, 0] * problem.strengths.residual[0]
        >>> bool(np.abs(observed).mean() > np.abs(mode).mean()), bool((noise > 0).all())
        (True, True)
    """
    s, t = problem.strengths.features[0], problem.strengths.residual[0]
    z, residual, information = problem.coordinates[rows], params["residual"][rows, 0], information[rows]
    mode = z @ params["weight"][:, 0] * s + residual * t
    prior = t**2 + s**2 * np.einsum("ud,ud->u", z, z)
    likelihood, everybody = TextLikelihood.at(problem, params), np.ones(len(problem.model.codes))
    offsets = np.zeros((len(problem.texts), len(NODES)))
    offsets[rows] = NODES / np.sqrt(1.0 / prior + information)[:, None]
    log_lik = np.stack([likelihood.log_lik(everybody, column)[rows] for column in offsets.T], 1)
    points = mode[:, None] + offsets[rows]
    # At the mode the likelihood pulls each reward as hard as its prior: the observation lies that much further out.
    precision = np.maximum(information, LEAST_PRECISION)
    shifted = precision * mode + residual / t  # precision times observation
    for _ in range(SWEEPS):
        mean, variance = _posterior(z, s, t, shifted / precision, precision)
        others = np.maximum(1.0 / variance - precision, 1e-3 / prior)  # what the other texts and the prior tell
        expected = (mean / variance - shifted) / others
        density = log_lik - 0.5 * others[:, None] * (points - expected[:, None]) ** 2
        density = np.exp(density - density.max(1, keepdims=True))
        density /= density.sum(1, keepdims=True)
        true_mean = (density * points).sum(1)
        true_variance = np.maximum((density * points**2).sum(1) - true_mean**2, LEAST_VARIANCE)
        new_precision = np.maximum(1.0 / true_variance - others, LEAST_PRECISION)
        new_shifted = (others + new_precision) * true_mean - others * expected
        precision = (1.0 - DAMPING) * precision + DAMPING * new_precision
        shifted = (1.0 - DAMPING) * shifted + DAMPING * new_shifted
    return shifted / precision, 1.0 / precision


def _posterior(
    z: np.ndarray, s: float, t: float, observed: np.ndarray, precision: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (U,) of `s z . w + t e` given normal observations of it."""
    weight = 1.0 / (t**2 + 1.0 / precision)
    covariance = np.linalg.inv(np.eye(z.shape[1]) + s**2 * (z.T * weight) @ z)
    linear = s**2 * z @ (covariance @ (z.T @ (weight * observed)))
    share = t**2 * weight  # of what an observation has beyond the features that is the text's own
    uncertain = s**2 * np.einsum("ud,ud->u", z @ covariance, z)
    return linear + share * (observed - linear), share / precision + (1.0 - share) ** 2 * uncertain
