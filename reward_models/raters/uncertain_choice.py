"""Probabilities of options whose rewards are uncertain: the multinomial logit, averaged over normal rewards.

The logit is a choice of the largest of the utilities `reward + Gumbel noise` (McFadden 1974). With independent normal
rewards the utilities are independent too, so that an integral over as many rewards as there are options becomes one
over the utility of the option that wins:

    P(a) = integral f_a(u) prod_{b != a} F_b(u) du,   F_b(u) = E_z exp(-exp(-(u - m_b - s_b z))),   z ~ N(0, 1)

The average over an uncertain reward of a rating, or over the gap of a pair, is one integral already (`placement`).
Knows nothing of raters and texts.

Shapes: `M` questions, `A` options, `S` states of a rater.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reward_models.raters.state_grid import normal_grid


__all__ = ["uncertain_choice"]

STEP = 0.5  # of the utility: the trapezoidal rule is exact to 3e-9 for Gumbel noise
BELOW, ABOVE = 4.0, 16.0  # reach of the utility beyond the rewards; exp(-16) of the mass lies above
NODES_BY_SPREAD = ((0.5, 5), (1.5, 9), (5.0, 31), (np.inf, 61))


def uncertain_choice(logits: Tensor, sd: Tensor) -> Tensor:
    """Compute the probability of each option, averaged over its uncertain reward.

    Args:
        logits: (M, A, S) expected rewards up to a constant per question and state; -inf for an option not offered.
        sd: (M, A, S) standard deviation of each reward, independent of the others.

    Returns:
        (M, A, S) probabilities that sum to one over the options.

    Example:
        What is little known of an option makes its choice less certain, and a bad option likelier:

        >>> logits = torch.tensor([0.9, 0.1], dtype=torch.float64).log()[None, :, None]
        >>> sd = torch.full_like(logits, 2.0)
        >>> uncertain_choice(logits, 0 * sd).flatten().tolist(), uncertain_choice(logits, sd).flatten().tolist()
        ([0.9..., 0.1...], [0.74..., 0.25...])
    """
    offered = torch.isfinite(logits)
    sd = torch.where(offered, sd, 0.0)
    centred = torch.where(offered, logits, -torch.inf)
    centred = centred - centred.amax(1, keepdim=True)
    widest = float(sd.max())
    nodes = next(n for limit, n in NODES_BY_SPREAD if widest <= limit)
    values, log_weight = normal_grid(nodes)
    reach = float(np.abs(values).max()) * widest
    total = torch.zeros_like(logits)
    for utility in np.arange(-BELOW - reach, ABOVE + reach + STEP, STEP):
        below, density = torch.zeros_like(logits), torch.zeros_like(logits)  # F and f
        for z, weight in zip(values, np.exp(log_weight), strict=True):
            rate = (centred + float(z) * sd - float(utility)).exp()  # 0 for an option that is not offered
            cumulative = weight * (-rate).exp()
            below += cumulative
            density += torch.where(cumulative > 0, cumulative * rate, 0.0)
        all_below = below.prod(1, keepdim=True)
        total += torch.where(below > 0, density * all_below / below, 0.0)
    return total / total.sum(1, keepdim=True)
