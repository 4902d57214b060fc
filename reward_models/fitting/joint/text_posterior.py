"""What the judgements of a text tell about its reward: posterior mean and variance around the mode of a joint fit.

Few judgements leave a skewed posterior: five people who all agree say that the reward is high, not how high. Its mode
is nearer to zero than its mean, and a normal posterior around the mode would give much weight to rewards that the
judgements rule out. So the posterior of each part of each text is computed on a grid, one part of one text at a time,
everything else at the mode. Knows nothing of features.

Shapes: `M` distinct judgements, `U` texts, `P` parts, `C` codes, `T` combinations of rater terms.
"""

from __future__ import annotations

import numpy as np

from reward_models.fitting.joint.problem import STEP, JointProblem, Params
from reward_models.fitting.joint.text_likelihood import TextLikelihood


__all__ = ["text_posterior"]

NODES = np.linspace(-4.0, 4.0, 17)  # in posterior standard deviations at the mode


def text_posterior(
    problem: JointProblem, params: Params, prior_variance: np.ndarray, information: np.ndarray, share: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute how far the posterior mean of each part of each text lies from the mode, and the posterior variance.

    The prior of a part is normal with the variance that a new text has; its mean is the one for which the mode of the
    fit is the mode of the posterior.

    Args:
        problem: The problem that was fitted.
        params: The mode.
        prior_variance: (P,) variance of each part of a text that nobody judged.
        information: (U,) of the judgements of each text about its reward, at the mode.
        share: (P,) share of the information that is about each part.

    Returns:
        (U, P) shifts of the mean, and (U, P) variances.

    Example:
        Without information, the posterior is the prior:

        >>> from reward_models import FitConfig, planted_judgements
        >>> table = planted_judgements("rating").judgements.encode()
        >>> problem = JointProblem.of([table.select(slice(0, 1))], [np.zeros((12, 0))], "mixture", 1, FitConfig())
        >>> nothing, everything = np.zeros(12), np.ones(1)
        >>> _, variance = text_posterior(problem, problem.start(), np.array([4.0]), nothing, everything)
        >>> variance[1:].round(1).tolist()[0]
        [4.0]
    """
    likelihood = TextLikelihood.at(problem, params)
    by_part = problem.mixing @ problem.model.codes.T  # (P, C)
    sd = 1.0 / np.sqrt(1.0 / np.maximum(prior_variance, 1e-12) + information[:, None] * share)
    shift, variance = np.zeros(sd.shape), np.zeros(sd.shape)
    for part, prior in enumerate(np.maximum(prior_variance, 1e-12)):
        unit = np.full(len(problem.texts), STEP)
        slope = (likelihood.log_lik(by_part[part], unit) - likelihood.log_lik(by_part[part], -unit)) / (2.0 * STEP)
        points = sd[:, part, None] * NODES
        density = np.stack([likelihood.log_lik(by_part[part], column) for column in points.T], 1)
        density -= (points + prior * slope[:, None]) ** 2 / (2.0 * prior)
        density = np.exp(density - density.max(1, keepdims=True))
        density /= density.sum(1, keepdims=True)
        shift[:, part] = (density * points).sum(1)
        variance[:, part] = (density * points**2).sum(1) - shift[:, part] ** 2
    return shift, variance
