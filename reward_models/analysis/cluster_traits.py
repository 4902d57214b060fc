"""Who the clusters are: the traits of their raters, and the shares of the clusters by wave, country or another trait.

A rater's membership is uncertain, and shares that are weighted by it are drawn towards those of everybody: a cluster
seems to have half of its women among its men because some of the men may be members. The weights are therefore
corrected for that (Bolck, Croon and Hagenaars 2004, https://doi.org/10.1093/pan/mph001; the "BCH" third step of latent
class analysis). Intervals are over raters (`stats.shares.weighted_shares`); they take the clusters as known. A trait
never goes into the fit, and a cluster is no kind of person: the table says how traits and answers go together.

Shapes: `R` raters, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reward_models.errors import JudgementError, did_you_mean
from reward_models.fitting.rater_fit import RaterFit
from reward_models.judgements.records import Judgements
from reward_models.judgements.traits import MissingCodes, trait_groups
from reward_models.raters.predictors import positions
from reward_models.stats.shares import weighted_shares


__all__ = ["TraitRow", "check_traits", "cluster_traits", "corrected_memberships", "shares_by"]

MAX_CONDITION = 1e3  # of the classification table; beyond, clusters overlap so much that nothing can be corrected


@dataclass(frozen=True)
class TraitRow:
    """One value of one trait, and its share in every cluster; or the share of every cluster among its raters.

    Attributes:
        trait: Name of the trait, without `rater:`.
        value: The value, or a span of numbers.
        n: Raters with that value.
        overall: Share of the raters who have a value.
        shares: (K,) shares between 0 and 1; nan where they cannot be estimated.
        low: (K,) lower ends of the intervals; nan for fewer than 12 raters.
        high: (K,) upper ends.

    Example:
        >>> TraitRow("region", "north", 20, 0.5, np.array([0.8, 0.2]), np.array([0.6, 0.1]), np.array([0.9, 0.4])).n
        20
    """

    trait: str
    value: str
    n: int
    overall: float
    shares: np.ndarray
    low: np.ndarray
    high: np.ndarray


def cluster_traits(
    fit: RaterFit,
    judgements: Judgements,
    *,
    missing: MissingCodes = (),
    rater_weight: np.ndarray | None = None,
    level: float = 0.95,
) -> list[TraitRow]:
    """Tabulate how the traits of the raters are distributed in each cluster: the share of a value in a cluster.

    Args:
        fit: A mixture.
        judgements: The judgements it was fitted to; their `rater:` columns are the traits.
        missing: Values that mean "unknown", see `trait_groups`; raters without a value do not count.
        rater_weight: (R,) sampling weight of `fit.rater_ids`; None: those of the judgements.
        level: Coverage of the intervals.

    Returns:
        One row per value of each trait; empty without traits. The shares of a trait sum to one within a cluster.

    Example:
        Two clusters, of which the first lives in the north but for every fifth rater:

        >>> from reward_models import fit_mixture, planted_judgements
        >>> planted = planted_judgements("choice", num_raters=100, num_items=12)
        >>> frame = planted.judgements.frame
        >>> number = frame["rater_id"].str[1:].astype(int)
        >>> north = (planted.cluster[number] == 0) & (number % 5 > 0)
        >>> frame["rater:region"] = np.where(north, "north", "south")
        >>> fit = fit_mixture(planted.judgements.encode(), 2)
        >>> for row in cluster_traits(fit, planted.judgements):
        ...     print(row.value, row.n, row.shares.round(2).tolist(), row.low.round(2).tolist())
        north 40 [0.8, 0.0] [0.67, 0.0]
        south 60 [0.2, 1.0] [0.11, 0.93]
    """
    memberships, weight = _memberships(fit, judgements, rater_weight)
    rows = []
    for trait, groups in _groups(fit, judgements, missing).items():
        known = groups.notna().to_numpy()
        counted = memberships[known] * weight[known, None]
        for value in groups.cat.categories:
            has = (groups == value).to_numpy()[known]
            shares, low, high = weighted_shares(np.tile(has[:, None], counted.shape[1]), counted, level)
            overall = float(weight[known][has].sum() / weight[known].sum())
            rows.append(TraitRow(str(trait), str(value), int(has.sum()), overall, shares, low, high))
    return rows


def shares_by(
    fit: RaterFit,
    judgements: Judgements,
    by: Sequence[str],
    *,
    missing: MissingCodes = (),
    rater_weight: np.ndarray | None = None,
    level: float = 0.95,
) -> list[TraitRow]:
    """Tabulate the shares of the clusters among the raters of each wave, country or other group.

    Args:
        fit: A mixture.
        judgements: The judgements it was fitted to.
        by: Names of traits, e.g. `["year", "country"]`.
        missing: As for `cluster_traits`.
        rater_weight: As for `cluster_traits`.
        level: Coverage of the intervals.

    Returns:
        One row per value of each trait; the shares of a row sum to about one.

    Raises:
        JudgementError: A trait that the table does not have.

    Example:
        >>> from reward_models import fit_mixture, planted_judgements
        >>> planted = planted_judgements("choice", num_raters=100, num_items=12)
        >>> frame = planted.judgements.frame
        >>> number = frame["rater_id"].str[1:].astype(int)
        >>> frame["rater:wave"] = np.where((planted.cluster[number] == 0) & (number % 5 > 0), "2018", "2022")
        >>> fit = fit_mixture(planted.judgements.encode(), 2)
        >>> for row in shares_by(fit, planted.judgements, ["wave"]):
        ...     print(row.value, row.n, row.shares.round(2).tolist())
        2018 40 [1.0, 0.0]
        2022 60 [0.17, 0.83]
    """
    memberships, weight = _memberships(fit, judgements, rater_weight)
    groups_by_trait = _groups(fit, judgements, missing)
    check_traits(judgements, by)
    rows = []
    for trait in by:
        groups = groups_by_trait[trait]
        known = groups.notna().to_numpy()
        for value in groups.cat.categories:
            has = (groups == value).to_numpy()
            among = np.tile(weight[has, None], memberships.shape[1])
            shares, low, high = weighted_shares(memberships[has], among, level)
            overall = float(weight[has].sum() / weight[known].sum())
            rows.append(TraitRow(trait, str(value), int(has.sum()), overall, shares, low, high))
    return rows


def check_traits(judgements: Judgements, names: Sequence[str]) -> None:
    """Raise if the table lacks one of these traits.

    Raises:
        JudgementError: The message names the traits that there are.

    Example:
        >>> from reward_models import planted_judgements
        >>> check_traits(planted_judgements("choice", num_raters=3, num_items=2).judgements, ["year"])
        Traceback (most recent call last):
        reward_models.errors.JudgementError: by: the table has no trait 'year'. Fix: name one of its traits (columns
        rater:<trait>), of which it has none
    """
    known = [trait.removeprefix("rater:") for trait in judgements.traits]
    for name in names:
        if name not in known:
            among = f"{', '.join(known)}" if known else "its traits (columns rater:<trait>), of which it has none"
            raise JudgementError(
                f"by: the table has no trait {name!r}.{did_you_mean(name, known)} Fix: name one of {among}"
            )


def corrected_memberships(memberships: np.ndarray, rater_weight: np.ndarray | None = None) -> np.ndarray:
    """Correct memberships so that sums over raters with them are unbiased for what is related to the true cluster.

    With `D[t, s]` the mean membership in `s` of raters who belong to `t`, the corrected memberships are `q D⁻¹`; they
    sum to one, and some lie a little outside of 0 and 1.

    Args:
        memberships: (R, K) posterior probabilities `q`.
        rater_weight: (R,) weights; None for equal ones.

    Returns:
        (R, K); nan where the clusters overlap so much that they cannot be told apart.

    Example:
        Two raters are sure of each cluster, one is not of either:

        >>> q = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0.5, 0.5]])
        >>> corrected_memberships(q).round(3).tolist()
        [[1.125, -0.125], [1.125, -0.125], [-0.125, 1.125], [-0.125, 1.125], [0.5, 0.5]]
    """
    weight = np.ones(len(memberships)) if rater_weight is None else rater_weight
    weighted = memberships * weight[:, None]
    table = weighted.T @ memberships / np.maximum(weighted.sum(axis=0), 1e-300)[:, None]
    if np.linalg.cond(table) > MAX_CONDITION:
        return np.full_like(memberships, np.nan, dtype=np.float64)
    return memberships @ np.linalg.inv(table)


def _memberships(
    fit: RaterFit, judgements: Judgements, rater_weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    if rater_weight is None:
        enc = judgements.encode()
        rater_weight = enc.rater_weight[positions(fit.rater_ids, enc.rater_ids)]
    weight = np.asarray(rater_weight, dtype=np.float64)
    return corrected_memberships(fit.responsibilities, weight), weight


def _groups(fit: RaterFit, judgements: Judgements, missing: MissingCodes) -> dict[str, pd.Series]:
    """Return the group of each of the fit's raters by trait."""
    if not judgements.traits:
        return {}
    frame = trait_groups(judgements, missing).reindex(fit.rater_ids)
    return {str(name): frame[name] for name in frame}
