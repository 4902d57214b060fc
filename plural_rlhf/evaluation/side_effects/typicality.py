"""Typicality bias in preferences: of two answers, is the more typical one preferred, at equal length and quality?

A logistic regression of the choice on the difference of log-probability under a reference model, with covariates such
as length or quality as controls (Zhang et al. 2025, https://arxiv.org/abs/2510.01171). `plural_rlhf.core.typicality`
fits the same of rewards and takes it out of them; this says whether people's choices have it. Needs statsmodels
(`pip install "plural-rlhf[evaluation]"`). Knows nothing of models.

Shapes: `P` pairs, `C` covariates.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from plural_rlhf.evaluation.overton.adjusted import statsmodels_api


__all__ = ["TypicalityBias", "typicality_bias"]


@dataclass(frozen=True)
class TypicalityBias:
    """How much typicality moves choices.

    Attributes:
        alpha: Log odds of preferring the first answer, per nat of log-probability that it has more.
        ci_low: Lower end, from standard errors clustered by prompt.
        ci_high: Upper end.
        p_value: That `alpha` is 0, two-sided.
        controls: Coefficient of each covariate, per unit of its difference.
        per_sd: `alpha` per standard deviation of the difference, to compare with the controls of unlike units.
        n: Pairs with a choice.

    Example:
        >>> TypicalityBias(0.5, 0.3, 0.7, 0.001, {"words": 0.01}, per_sd=1.2, n=400).alpha
        0.5
    """

    alpha: float
    ci_low: float
    ci_high: float
    p_value: float
    controls: Mapping[str, float]
    per_sd: float
    n: int


def typicality_bias(
    log_prob_difference: np.ndarray | Sequence[float],
    first_preferred: np.ndarray | Sequence[float],
    prompt: Sequence[str | int],
    controls: Mapping[str, np.ndarray | Sequence[float]] | None = None,
    level: float = 0.95,
) -> TypicalityBias:
    """Fit the regression; there is no constant, so that the order within pairs does not matter.

    Args:
        log_prob_difference: (P,) log-probability of the first answer less that of the second, in nats.
        first_preferred: (P,) 1 if the first is preferred, 0 if the second; nan (a tie) is left out.
        prompt: (P,) prompt of each pair; the errors of one prompt may depend on each other.
        controls: (P,) differences of covariates by name, first less second, e.g. words or judged quality. Sums of
            log-probabilities fall with length, so length belongs here.
        level: Coverage of the interval.

    Raises:
        ImportError: statsmodels is not installed.
        ValueError: Lists of unequal lengths, choices other than 0 and 1, fewer than 20 pairs, or choices that the
            covariates separate perfectly.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> nats, words = rng.normal(0, 2, 2000), rng.normal(0, 10, 2000)
        >>> chosen = rng.random(2000) < 1 / (1 + np.exp(-(0.5 * nats + 0.02 * words)))
        >>> bias = typicality_bias(nats, chosen, np.arange(2000), {"words": words})
        >>> bias.ci_low < 0.5 < bias.ci_high, round(bias.alpha, 1)
        (True, 0.5)
    """
    columns = [np.asarray(column, dtype=np.float64) for column in (log_prob_difference, *(controls or {}).values())]
    chosen = np.asarray(first_preferred, dtype=np.float64)
    lengths = {len(column) for column in (*columns, chosen, prompt)}
    if len(lengths) > 1:
        raise ValueError(f"columns have lengths {sorted(lengths)}. Fix: one entry per pair in each.")
    known = np.isfinite(chosen)
    if not np.isin(chosen[known], (0.0, 1.0)).all() or known.sum() < 20:
        raise ValueError(
            f"{int(known.sum())} pairs have a choice, values {np.unique(chosen[known])[:5].tolist()}. Fix: at "
            "least 20 pairs with 1 (first preferred) or 0, ties as nan."
        )
    design = np.stack(columns, axis=1)[known]
    api = statsmodels_api()
    _, group = np.unique(np.asarray([str(name) for name in prompt])[known], return_inverse=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # perfect separation and failure to converge
        try:
            fit = api.Logit(chosen[known], design).fit(disp=0, cov_type="cluster", cov_kwds={"groups": group})
        except (Warning, np.linalg.LinAlgError) as error:
            raise ValueError(
                f"the regression has no finite solution ({error}). Fix: more pairs, or fewer controls that "
                "repeat each other."
            ) from error
    low, high = fit.conf_int(alpha=1 - level)[0]
    return TypicalityBias(
        alpha=float(fit.params[0]),
        ci_low=float(low),
        ci_high=float(high),
        p_value=float(fit.pvalues[0]),
        controls=dict(zip(controls or {}, map(float, fit.params[1:]), strict=True)),
        per_sd=float(fit.params[0] * design[:, 0].std()),
        n=int(known.sum()),
    )
