"""What a label-level fit starts from: checked tables, the grid of rater states, first terms and rater deviations.

Knows nothing of the objective; that is `marginal`.

Shapes: `N` judgements, `M` distinct judgements, `R` raters, `U` texts, `C` codes, `B` basis rewards, `K` clusters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from numbers import Integral
from typing import Literal, get_args

import numpy as np
from scipy.sparse import coo_array, csr_array

from reward_models.errors import JuryError, did_you_mean
from reward_models.fitting.em import FitConfig
from reward_models.judgements.encoding import Encoded
from reward_models.raters.observation import TERM_SD, Observations, start_terms
from reward_models.raters.rater_model import KindTerms, Membership, RaterModel
from reward_models.raters.state_grid import normal_grid, product_grid, simplex_lattice


__all__ = [
    "COARSENING",
    "Basis",
    "affordable_model",
    "check_judged_twice",
    "check_num_clusters",
    "check_tables",
    "is_whole",
    "judged_twice",
    "rater_deviations",
    "start_kind",
]

Basis = Literal["linear", "ideal_point"]
# Coarser grids, one term after the other, until the table of distinct judgements and states is small enough.
COARSENING = (("intercept", 9), ("log_scale", 1), ("log_tie", 3), ("position", 1), ("intercept", 7))
TABLE_SIZE = 2_000_000  # distinct judgements times states
FACTOR_NODES = {1: 15, 2: 9, 3: 7}  # per dimension, by rank
LATTICE = {2: 10, 3: 6, 4: 4}  # resolution of the simplex by K; 3 beyond


def check_num_clusters(enc: Encoded, num_clusters: int) -> None:
    """Raise if the table cannot support that many clusters.

    Raises:
        JuryError: K below 1, above the number of raters, or above 1 without raters.

    Example:
        >>> from reward_models import planted_judgements
        >>> check_num_clusters(planted_judgements(num_raters=5).judgements.encode(), 6)
        Traceback (most recent call last):
            ...
        reward_models.errors.JuryError: num_clusters=6 is more than the 5 raters in the table. Fix: ...
    """
    if enc.kind == "soft" and num_clusters > 1:
        raise JuryError(
            f"num_clusters={num_clusters}, but 'soft' judgements do not say who answered what, so clusters of raters "
            "cannot be told apart. Fix: use num_clusters=1, or judgements with rater_id"
        )
    _check_size(num_clusters, 1 if enc.kind == "soft" else enc.n_raters)


def check_tables(tables: list[Encoded], membership: Membership, num_clusters: int, basis: Basis) -> None:
    """Raise if the tables, the membership, the number of clusters and the basis cannot be fitted together.

    Raises:
        JuryError: An unknown membership, two tables of one kind, a number of clusters that the raters or the grid
            cannot support, or an ideal point basis with tastes (`factor`).
    """
    if membership not in get_args(Membership):
        hint = did_you_mean(str(membership), get_args(Membership))
        if isinstance(membership, int):
            hint = f" A number of clusters is given by its name: num_clusters={membership}."
        raise JuryError(f"membership={membership!r} is none of {', '.join(get_args(Membership))}.{hint}")
    kinds = [table.kind for table in tables]
    if len(set(kinds)) < len(kinds):
        raise JuryError(
            f"two tables of kind {max(kinds, key=kinds.count)!r}: a jury is fitted on one table of each kind. Fix: "
            "concatenate tables of the same kind"
        )
    _check_size(num_clusters, max(len({rater for table in tables for rater in table.rater_ids}), 1))
    if membership == "factor" and num_clusters > max(FACTOR_NODES):
        raise JuryError(
            f"num_clusters={num_clusters}: the codes of a factor model are summed over a grid, which is affordable up "
            f"to rank {max(FACTOR_NODES)}. Fix: a lower rank, or membership='mixture'"
        )
    if membership == "factor" and basis == "ideal_point":
        raise JuryError(
            "basis='ideal_point' needs raters that are blends of prototypes, but membership='factor'. Fix: use "
            "membership='simplex' or 'mixture'"
        )


def judged_twice(tables: Sequence[Encoded]) -> bool:
    """Return whether any rater gave more than one judgement, of one table or of several, or one judgement repeatedly.

    Args:
        tables: The judgements of the same raters; a table without raters counts for nobody.

    Example:
        >>> from reward_models import planted_judgements
        >>> once = planted_judgements("rating", num_items=1).judgements.encode()
        >>> judged_twice([once]), judged_twice([once, once])
        (False, True)
    """
    judged: Counter[str] = Counter()
    for table in tables:
        known = table.rater >= 0
        counts = np.bincount(table.rater[known], table.count[known], table.n_raters)
        for rater, count in zip(table.rater_ids, counts.tolist(), strict=True):
            judged[rater] += count
    return max(judged.values(), default=0) > 1


def check_judged_twice(tables: Sequence[Encoded], num_clusters: int) -> None:
    """Raise if no rater gave more than one judgement, so that nothing tells tastes from noise.

    Args:
        tables: The judgements of the same raters.
        num_clusters: The number of clusters that was asked for, more than one, or a rank.

    Raises:
        JuryError: No rater judged twice.

    Example:
        >>> from reward_models import planted_judgements
        >>> once = planted_judgements("rating", num_items=1).judgements.encode()
        >>> check_judged_twice([once], 2)
        Traceback (most recent call last):
        reward_models.errors.JuryError: num_clusters=2, but every rater judged one thing only, so ...
    """
    if not judged_twice(tables):
        raise JuryError(
            f"num_clusters={num_clusters}, but every rater judged one thing only, so tastes cannot be told from "
            "noise. Fix: use num_clusters=1 of a mixture, or more judgements per rater"
        )


def is_whole(value: object) -> bool:
    """Return whether a value is a whole number, of Python or numpy; True and False are none.

    Example:
        >>> is_whole(2), is_whole(np.int64(2)), is_whole(2.0), is_whole(True)
        (True, True, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_size(num_clusters: int, n_raters: int) -> None:
    if not is_whole(num_clusters):
        raise JuryError(f"num_clusters={num_clusters!r} is no whole number. Fix: give one, e.g. num_clusters=2")
    if num_clusters < 1:
        raise JuryError(f"num_clusters={num_clusters}: a jury has at least one cluster. Fix: use 1 for Bradley-Terry")
    if num_clusters > n_raters:
        raise JuryError(
            f"num_clusters={num_clusters} is more than the {n_raters} rater{'s' * (n_raters != 1)} in the table. Fix: "
            f"use at most {n_raters}, and a small fraction of that if clusters should mean something"
        )


def start_kind(observed: Observations, second: bool, config: FitConfig) -> KindTerms:
    """Return the terms of one kind before the fit: shared terms at the data's marginal, usual spreads over raters.

    Args:
        observed: The judgements.
        second: Whether another table comes first: rewards are on the scale of the first table, so that this one has
            a mean log scale of its own.
        config: Which rater terms there are.
    """
    start = start_terms(observed, rater_terms=config.nuisance)
    sd = {name: TERM_SD[name] for name in start if name in TERM_SD}
    shared = {name: value for name, value in start.items() if name not in TERM_SD}
    if observed.kind == "choice" and config.style:
        sd = {name: TERM_SD[name] for name in ("place", "extremity")}
    if second:
        shared["log_scale_mean"] = np.zeros(1)
    return KindTerms(shared, sd)


def affordable_model(
    membership: Membership, num_clusters: int, terms: dict[str, KindTerms], counts: csr_array
) -> RaterModel:
    """Return codes with a flat prior, and a grid of rater terms as fine as is affordable.

    The grid is finer where raters give many labels and their terms can be inferred more sharply; it is coarsened term
    by term where the table of distinct judgements and states would get too large.

    Args:
        membership: Kind of codes.
        num_clusters: `K`, or the rank of a factor model.
        terms: Terms by kind.
        counts: (P, M) how often each of `P` distinct raters gave each distinct judgement.

    Example:
        >>> labels = csr_array(np.ones((10, 40)))
        >>> affordable_model("simplex", 2, {"rating": KindTerms({}, {"intercept": 1.5})}, labels).n_states
        143
    """
    per_rater = float(np.median(counts.sum(1)))
    codes, log_prior = _codes(membership, num_clusters)
    nodes = {"intercept": int(np.clip(9 + 2 * (per_rater // 15), 9, 13))}
    model = RaterModel(membership, codes, log_prior, terms, nodes)
    for name, coarser in COARSENING:
        if model.n_states * counts.shape[1] > TABLE_SIZE and name in {term for _, term in model.term_names}:
            model = model.with_nodes({name: coarser})
    return model


def _codes(membership: Membership, num_clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes (C, B) and their log prior (C,): normal for tastes, flat otherwise."""
    if membership == "factor":
        z, log_prior = product_grid([normal_grid(FACTOR_NODES[num_clusters])] * num_clusters)
        return np.column_stack([np.ones(len(z)), z]), log_prior
    codes = np.eye(num_clusters)
    if membership == "simplex":
        codes = simplex_lattice(num_clusters, LATTICE.get(num_clusters, 3))
    return codes, np.full(len(codes), -np.log(len(codes)))


def rater_deviations(enc: Encoded, rater: np.ndarray, n_raters: int, nuisance: bool) -> csr_array:
    """Compute how each rater's verdict on each text deviates from the others', for the starting points.

    Args:
        enc: `N` judgements of `U` texts.
        rater: (N,) rater of each, numbered over all tables.
        n_raters: `R`.
        nuisance: Whether leniency is a rater term: each rater's mean rating is then subtracted first.

    Returns:
        (R, U) sparse.

    Example:
        Two raters who disagree on the first text and agree on the second:

        >>> import pandas as pd
        >>> from reward_models import Judgements
        >>> votes = [("ann", "?", "x", 1), ("ann", "?", "y", 1), ("bob", "?", "x", -1), ("bob", "?", "y", 1)]
        >>> frame = pd.DataFrame(votes, columns=["rater_id", "prompt", "response", "rating"])
        >>> enc = Judgements.from_frame(frame, "rating", levels=(-1, 1)).encode()
        >>> rater_deviations(enc, enc.rater, 2, nuisance=False).toarray().tolist()
        [[0.5, 0.0], [-0.5, 0.0]]
    """
    times, weight = enc.count, enc.weight
    if enc.kind == "rating":
        text, value = enc.alternatives[:, 0], enc.label.astype(np.float64)
        if nuisance:
            given = np.maximum(np.bincount(rater, times, n_raters), 1)
            value = value - (np.bincount(rater, times * value, n_raters) / given)[rater]
    else:
        offered = enc.alternatives >= 0
        chosen = np.arange(enc.alternatives.shape[1]) == enc.label[:, None]
        share = np.where(enc.label[:, None] < enc.alternatives.shape[1], chosen, 1.0 / offered.sum(1, keepdims=True))
        text, value = enc.alternatives[offered], share[offered]
        rater, times, weight = (np.broadcast_to(a[:, None], offered.shape)[offered] for a in (rater, times, weight))
    judged = np.bincount(text, weight, enc.n_texts)
    value = value - (np.bincount(text, weight * value, enc.n_texts) / np.where(judged > 0, judged, 1))[text]
    return coo_array((times * value, (rater, text)), shape=(n_raters, enc.n_texts)).tocsr()
