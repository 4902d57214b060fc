"""Tastes of known groups of raters on texts: how a group's reward of a text deviates from everybody's.

    r_u(x) = s(x) + sum_t delta_{t, g_t(u)}(x),    delta_g(x) = z(x) . w_g + e_g(x),
    w_g ~ N(0, s_t^2 I),    e_g(x) ~ N(0, t_t^2),

with the consensus `s(x)` of a joint fit of texts and raters and `g_t(u)` the group of the rater by grouping `t`. What
is `s` and `e` of a text for ratings is that of a pair for pairs: only the difference of its two texts is judged. The
likelihood is taken as Gaussian around the present deviations (iteratively reweighted least squares), so that a sweep
is a linear solve for each group. The strengths of each grouping are those of a grid that predict held-out raters best,
and zero where that is not decided: the raters of a group differ, so that judgements of the same few raters say less of
the group than their number does. Where several groupings add up, each explains what the others leave. Knows nothing
of who the groups are.

Shapes: `N` judgements, `R` raters, `I` items, `d` coordinates, `G` groups, `A` answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from reward_models.fitting.joint.fit import JointFit
from reward_models.fitting.joint.text_space import TextSpace
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import Text
from reward_models.raters.predictors import answer_log_lik
from reward_models.seeds import seeded_rng


__all__ = ["GroupDeviations", "fit_group_deviations", "item_coordinates"]

STEP = 0.1  # logits, of a numerical derivative
SWEEPS = 4
CHOOSING_SWEEPS = 2  # in which strengths are chosen
FOLDS = 4
AXES = 64  # coordinates in which groups may differ, those in which texts differ most
FEATURE_SDS = (0.0, 0.25, 0.5, 1.0, 2.0)  # s, logits
RESIDUAL_SDS = (0.0, 0.3, 0.8)  # t, logits
STANDARD_ERRORS = 1.0  # of the held-out gain over raters, that a grouping must gain to count
LEAST_INFORMATION = 1e-6
MOST = 6.0  # logits that a group may deviate from everybody


@dataclass(frozen=True)
class GroupDeviations:
    """The fitted groups of raters; `fit_group_deviations` makes it.

    Attributes:
        fit: One reward for everybody.
        z: (I, d) coordinates of the items.
        mean: Of each grouping, (G, I) deviation of each group on each item, logits.
        variance: Of each grouping, (G, I) its variance.
        strengths: Of each grouping, `s` and `t`; both 0 where it tells nothing.

    Example:
        See `fit_group_deviations`.

        >>> GroupDeviations.__annotations__["strengths"]
        'list[tuple[float, float]]'
    """

    fit: JointFit
    z: np.ndarray
    mean: list[np.ndarray]
    variance: list[np.ndarray]
    strengths: list[tuple[float, float]]

    def log_lik(self, enc: Encoded, features: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
        """Compute the (N,) log-likelihood of answers.

        Args:
            enc: The judgements, with the items of the fit.
            features: (U, D) rows for their texts.
            groups: Of each grouping, (R,) group of each rater of `enc`.
        """
        cells = [(group[enc.rater], enc.item) for group in groups]
        shift, extra = (
            sum((values[cell] for values, cell in zip(of, cells, strict=True)), np.zeros(len(enc)))
            for of in (self.mean, self.variance)
        )
        return answer_log_lik(_shifted(self.fit, enc, features, shift, extra), enc)


def item_coordinates(enc: Encoded, features: np.ndarray) -> np.ndarray:
    """Return (I, d) what tells items apart: coordinates of the rated text and a constant, or of a pair's difference.

    Args:
        enc: Ratings or pairs.
        features: (U, D) rows for `enc.texts`.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("preference", num_raters=4, num_items=6)
        >>> item_coordinates(planted.judgements.encode(), planted.rewards).shape  # six pairs, two features
        (6, 2)
    """
    space = TextSpace.of(features)
    z = space.coordinates(features)[:, :AXES]
    if enc.kind == "preference":
        return z[enc.item_alternatives[:, 0]] - z[enc.item_alternatives[:, 1]]
    return np.column_stack([z[enc.item_alternatives[:, 0]], np.ones(enc.n_items)])


def fit_group_deviations(
    fit: JointFit,
    enc: Encoded,
    features: np.ndarray,
    z: np.ndarray,
    groups: Sequence[np.ndarray],
    *,
    seed: int = 0,
) -> GroupDeviations:
    """Fit the deviations of groups from everybody's reward, all groupings together.

    Args:
        fit: One reward for everybody, fitted to the judgements.
        enc: Ratings or pairs.
        features: (U, D) rows for `enc.texts`.
        z: (I, d) what tells items apart, see `item_coordinates`.
        groups: Of each grouping, (R,) group of each rater, from 0.
        seed: Random seed of the folds of raters.

    Returns:
        The deviations.

    Example:
        Two groups that want the opposite; a group by chance tells nothing:

        >>> from reward_models import fit_joint, planted_judgements
        >>> from reward_models.fitting.em import FitConfig
        >>> planted = planted_judgements("rating", num_raters=60, num_items=20)
        >>> enc, features = planted.judgements.encode(), planted.rewards
        >>> fit = fit_joint(enc, features, "mixture", 1, config=FitConfig(nuisance=False))
        >>> number = [int(rater[1:]) for rater in enc.rater_ids]
        >>> groups = [planted.cluster[number], np.random.default_rng(0).integers(2, size=60)]
        >>> found = fit_group_deviations(fit, enc, features, item_coordinates(enc, features), groups)
        >>> [max(strengths) > 0 for strengths in found.strengths]
        [True, False]
    """
    n_groups = [int(group.max(initial=0)) + 1 for group in groups]
    mean = [np.zeros((n, enc.n_items)) for n in n_groups]
    variance, strengths = [np.zeros_like(values) for values in mean], [(0.0, 0.0)] * len(groups)
    cells = [(group[enc.rater], enc.item) for group in groups]
    fold = seeded_rng(seed, "folds of groups").permutation(enc.n_raters) % FOLDS
    for sweep, grouping in _sweeps(len(groups)):
        shift = sum((values[cell] for values, cell in zip(mean, cells, strict=True)), np.zeros(len(enc)))
        slope, information = _derivatives(fit, enc, features, shift)
        observed = _Observed(
            cells[grouping],
            mean[grouping].shape,
            pull=enc.weight * (slope + information * mean[grouping][cells[grouping]]),
            told=enc.weight * information,
        )
        if sweep < CHOOSING_SWEEPS:
            strengths[grouping] = _most_predictive(z, observed, enc.rater, fold)
        mean[grouping], variance[grouping] = _posterior(z, *observed.sums(), *strengths[grouping])
    return GroupDeviations(fit, z, mean, variance, strengths)


def _sweeps(n_groupings: int) -> Iterator[tuple[int, int]]:
    """Yield the number of the sweep and of the grouping."""
    for sweep in range(SWEEPS):
        for grouping in range(n_groupings):
            yield sweep, grouping


def _shifted(fit: JointFit, enc: Encoded, features: np.ndarray, shift: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """(N, A) log-probability of every answer where the reward of the item's first text is moved by `shift` (N,)."""
    rewards, variance = fit.rewards(enc.texts, features)
    n, width = enc.alternatives.shape
    of_row, uncertain = rewards[enc.alternatives, 0], variance[enc.alternatives, 0]
    first = enc.swapped.astype(np.int64)  # column of the item's first text
    of_row[np.arange(n), first] += shift
    uncertain[np.arange(n), first] += extra
    alone = np.arange(n * width)
    rows = dataclasses.replace(enc, texts=[Text("", str(i)) for i in alone], alternatives=alone.reshape(n, width))
    return fit.placement.log_probs(rows, of_row.reshape(-1, 1), code_variance=uncertain.reshape(-1, 1))


def _derivatives(
    fit: JointFit, enc: Encoded, features: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) derivative of the log-likelihood by the shift, and (N,) its expected information."""
    below, here, above = (
        _shifted(fit, enc, features, shift + step, np.zeros(len(enc))) for step in (-STEP, 0.0, STEP)
    )
    with np.errstate(invalid="ignore"):
        slope = np.where(np.isfinite(here), (above - below) / (2 * STEP), 0.0)
    given = np.take_along_axis(slope, enc.label[:, None], axis=1)[:, 0]
    return given, np.maximum((np.exp(here) * slope**2).sum(1), LEAST_INFORMATION)


@dataclass(frozen=True)
class _Observed:
    """What judgements tell of the deviations of groups.

    Attributes:
        cell: (N,) group and (N,) item of each judgement.
        shape: `G`, `I`.
        pull: (N,) information times the deviation that the judgement alone would suggest.
        told: (N,) information about the deviation.
    """

    cell: tuple[np.ndarray, np.ndarray]
    shape: tuple[int, ...]
    pull: np.ndarray
    told: np.ndarray

    def sums(self, keep: np.ndarray | slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Sum `pull` and `told` (G, I) of all judgements or of some."""
        flat, size = np.ravel_multi_index(self.cell, self.shape)[keep], int(np.prod(self.shape))
        pull, told = (np.bincount(flat, of[keep], size).reshape(self.shape) for of in (self.pull, self.told))
        return pull, told

    def gain(self, deviations: np.ndarray) -> np.ndarray:
        """Compute the (N,) gain of log-likelihood by deviations (G, I)."""
        values = deviations[self.cell]
        return values * (self.pull - 0.5 * self.told * values)


def _most_predictive(z: np.ndarray, observed: _Observed, rater: np.ndarray, fold: np.ndarray) -> tuple[float, float]:
    """Strengths of features and residual under which deviations predict the raters of other folds best.

    Args:
        z: (I, d) coordinates.
        observed: What the judgements tell.
        rater: (N,) rater of each judgement.
        fold: (R,) fold of each rater.
    """
    known = [observed.sums(fold[rater] != number) for number in range(FOLDS)]
    gains = {}
    for s, t in product(FEATURE_SDS, RESIDUAL_SDS):
        of_fold = [observed.gain(_posterior(z, *sums, s, t)[0]) for sums in known]
        gains[s, t] = np.bincount(rater, np.choose(fold[rater], of_fold), len(fold))
    best = max(gains, key=lambda strengths: gains[strengths].sum())
    gain = gains[best]
    return best if gain.sum() > STANDARD_ERRORS * np.sqrt(len(gain)) * gain.std() else (0.0, 0.0)


def _posterior(z: np.ndarray, pull: np.ndarray, told: np.ndarray, s: float, t: float) -> tuple[np.ndarray, np.ndarray]:
    """(G, I) mean and (G, I) variance of the deviations."""
    mean, variance = np.zeros_like(pull), np.zeros_like(pull)
    if s == t == 0.0:
        return mean, variance
    for group, (of_group, information) in enumerate(zip(pull, told, strict=True)):
        left = 1.0 / (1.0 + t**2 * information)  # of a residual that the judgements leave open
        inner = np.eye(z.shape[1]) + s**2 * (z.T * (information * left)) @ z
        covariance = s**2 * np.linalg.inv(inner)
        linear = z @ (covariance @ (z.T @ (of_group * left)))
        residual = t**2 * left * (of_group - information * linear)
        mean[group] = np.clip(linear + residual, -MOST, MOST)
        variance[group] = left**2 * np.einsum("id,id->i", z @ covariance, z) + t**2 * left
    return mean, variance
