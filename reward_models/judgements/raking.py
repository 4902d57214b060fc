"""Weights of raters that make a sample represent a population (post-stratification by raking).

Iterative proportional fitting (Deming and Stephan, 1940, https://doi.org/10.1214/aoms/1177731829) finds the weights
nearest to equal ones, by Kullback-Leibler divergence, under which every trait has its known share, e.g. a census'
margins. Their cost in precision is Kish's design effect. Weights cannot correct for a trait that nobody recorded, or
for a group from which nobody was sampled. Knows nothing of answers or clusters.

Shapes: `R` raters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from reward_models.errors import JudgementError, did_you_mean
from reward_models.judgements.faults import is_missing
from reward_models.judgements.records import Judgements
from reward_models.stats.design import mean_one
from reward_models.stats.shares import kish_n


__all__ = ["Margins", "Missing", "Raking", "rake", "rake_judgements", "rater_traits"]

Missing = Literal["keep", "drop", "error"]
Margins = Mapping[str, Mapping[Any, float]]
"""By trait the share of each value in the population."""
SUM_TOLERANCE = 1e-3  # published shares are rounded


@dataclass(frozen=True)
class Raking:
    """Weights of raters and their cost in precision.

    Attributes:
        weights: `(R,)`, with mean one over the raters of positive weight.
        design_effect: `n Σw² / (Σw)²` (Kish, 1965): how many times as many raters are needed as with equal weights.
        effective_n: Number of raters with equal weights that would give the same precision.
        iterations: Rounds through all traits.
        worst_gap: Largest distance of a weighted share from its margin.
        worst_trait: `(trait, value)` of that share.

    Example:
        >>> raking = rake({"region": ["north", "south", "south"]}, {"region": {"north": 0.5, "south": 0.5}})
        >>> raking.weights.tolist(), round(raking.design_effect, 3)
        ([1.5, 0.75, 0.75], 1.125)
    """

    weights: np.ndarray
    design_effect: float
    effective_n: float
    iterations: int
    worst_gap: float
    worst_trait: tuple[str, str]


def rater_traits(judgements: Judgements) -> pd.DataFrame:
    """Return the traits of each rater: one row per rater in order of appearance, one column per trait.

    Of several values of a trait the first one by item (`Judgements.in_order`) is used; a rater without one has None.

    Raises:
        JudgementError: A table without raters or without columns `rater:<trait>`.

    Example:
        >>> rows = [("ann", "Hi", "Hello", 4, "north"), ("ann", "Hi", "Go", 1, "north")]
        >>> rows += [("bob", "Hi", "Hello", 2, "south"), ("bob", "Hi", "Go", 2, "south")]
        >>> columns = ["rater_id", "prompt", "response", "rating", "rater:region"]
        >>> judgements = Judgements.from_frame(pd.DataFrame(rows, columns=columns))
        >>> rater_traits(judgements)["region"].to_dict()
        {'ann': 'north', 'bob': 'south'}
    """
    if not judgements.raters or not judgements.traits:
        raise JudgementError(
            f"a table of {judgements.kind!r} judgements with {judgements.n_raters:,} raters and "
            f"{len(judgements.traits)} columns rater:<trait>: both are needed. Fix: add such columns, with one value "
            "per rater."
        )
    first = judgements.in_order().frame.groupby("rater_id", sort=False)[judgements.traits].first()
    return first.reindex(judgements.raters).rename(columns=lambda column: column.removeprefix("rater:"))


def rake(
    traits: pd.DataFrame | Mapping[str, Sequence[Any]],
    margins: Margins,
    *,
    base: np.ndarray | None = None,
    max_iter: int = 1000,
    tol: float = 1e-6,
    trim: float | None = None,
    missing: Missing = "keep",
) -> Raking:
    """Weigh raters so that the traits have the shares of a population (post-stratification by raking).

    Args:
        traits: By trait the value of each of `R` raters, None where unknown; see `rater_traits`. Compared as text.
        margins: By trait the share of each value in the population; the shares of a trait sum to one.
        base: `(R,)` weights to start from, e.g. those of the sampling design: the result is nearest to them. None:
            equal weights.
        max_iter: Largest number of rounds through the traits.
        tol: Largest distance of a weighted share from its margin.
        trim: Largest weight, in multiples of the mean; larger weights are cut and the raking goes on. Margins may then
            be missed, by at most `worst_gap`.
        missing: Treatment of a rater who lacks a trait: `"keep"` (that trait does not change the weight, and its
            margins hold among the raters who have a value), `"drop"` (weight 0) or `"error"`.

    Returns:
        The weights.

    Raises:
        JudgementError: Margins that contradict each other or the raters; the message lists every fault.
        ValueError: An option out of its range.

    Example:
        >>> raking = rake({"region": ["north", "north", "north", "south"]}, {"region": {"north": 0.5, "south": 0.5}})
        >>> raking.weights.round(3).tolist()
        [0.667, 0.667, 0.667, 2.0]
        >>> round(raking.effective_n, 3)
        3.0
    """
    if missing not in get_args(Missing):
        raise ValueError(f"missing={missing!r} is not a way to treat raters who lack a trait: keep, drop or error.")
    if max_iter < 1 or not tol > 0 or (trim is not None and not trim > 1):
        raise ValueError(
            f"max_iter={max_iter}, tol={tol:g}, trim={trim}: raking needs at least one round, a tolerance above 0, "
            "and a largest weight above 1 (the mean). Fix: e.g. max_iter=1000, tol=1e-6, trim=5."
        )
    frame = pd.DataFrame({str(trait): pd.Series(list(values)) for trait, values in traits.items()}, dtype=object)
    targets = {trait: {str(value): float(share) for value, share in of.items()} for trait, of in margins.items()}
    _check_margins(frame, targets, missing)
    values = {trait: frame[trait].map(lambda v: None if is_missing(v) else str(v)) for trait in targets}
    start = np.ones(len(frame)) if base is None else mean_one(np.asarray(base, dtype=np.float64))
    if missing == "drop":
        for column in values.values():
            start[column.isna()] = 0.0
    cells = {trait: _Cells.of(values[trait], shares, trait, start) for trait, shares in targets.items()}

    weights = start.copy()
    iterations, gap, worst = 0, np.inf, ("", "")
    while iterations < max_iter and gap > tol:
        iterations += 1
        before = weights.copy()
        for cell in cells.values():
            weights *= cell.factors(weights)
        weights = mean_one(weights)
        while trim is not None and weights.max() > trim * (1 + 1e-9):
            weights = mean_one(np.minimum(weights, trim))
        gap, worst = max(
            (cell.worst_gap(weights) for cell in cells.values()), key=lambda gap_and_value: gap_and_value[0]
        )
        if trim is not None and np.abs(weights - before).max() <= tol * 1e-3:
            break  # margins and trimming pull against each other, and this is as near as they come
    if gap > tol and trim is None:
        raise JudgementError(
            f"raking did not converge in {iterations:,} rounds: the share of {worst[0]}={worst[1]!r} is still "
            f"{gap:.4g} from its margin. Most likely some combination of the traits has no rater, so that their "
            "margins cannot all be met. Fix: merge values, leave a trait out, or allow a larger tol."
        )
    alike = float(kish_n(weights))
    return Raking(weights, float((weights > 0).sum()) / alike, alike, iterations, float(gap), worst)


def rake_judgements(judgements: Judgements, margins: Margins) -> Judgements:
    """Weigh the raters of a table by raking: the result is its column `rater_weight`.

    Sampling weights that the table has already are what the raking starts from. A rater who lacks a trait keeps the
    weight in that respect.

    Args:
        judgements: A table with raters and columns `rater:<trait>`.
        margins: By trait the share of each value in the population; see `rake`.

    Raises:
        JudgementError: As `rater_traits` and `rake`.

    Example:
        >>> import warnings
        >>> rows = [("ann", "Hi", "Hello", 4, "north"), ("bob", "Hi", "Hello", 2, "south")]
        >>> rows += [("cy", "Hi", "Hello", 2, "south"), ("dee", "Hi", "Hello", 1, "south")]
        >>> columns = ["rater_id", "prompt", "response", "rating", "rater:region"]
        >>> with warnings.catch_warnings(action="ignore"):  # one judgement each
        ...     judgements = Judgements.from_frame(pd.DataFrame(rows, columns=columns))
        >>> raked = rake_judgements(judgements, {"region": {"north": 0.5, "south": 0.5}})
        >>> raked.frame["rater_weight"].round(3).tolist(), round(raked.encode().effective_raters, 3)
        ([2.0, 0.667, 0.667, 0.667], 3.0)
    """
    enc = judgements.encode()
    traits = rater_traits(judgements).reindex(enc.rater_ids)
    raking = rake({str(trait): traits[trait].tolist() for trait in traits}, margins, base=enc.rater_weight)
    weight = judgements.frame["rater_id"].map(dict(zip(enc.rater_ids, raking.weights.tolist(), strict=True)))
    return Judgements(judgements.kind, judgements.frame.assign(rater_weight=weight), judgements.levels)


@dataclass(frozen=True)
class _Cells:
    """One trait: the value of each rater, (R,) with -1 for unknown, and the values' shares."""

    trait: str
    values: list[str]
    of_rater: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, column: pd.Series, shares: Mapping[str, float], trait: str, start: np.ndarray) -> _Cells:
        position = {value: i for i, value in enumerate(shares)}
        of_rater = np.array([position.get(value, -1) for value in column])
        if empty := [v for v, s in shares.items() if s > 0 and not start[of_rater == position[v]].any()]:
            raise JudgementError(
                f"every rater with {trait}={empty[0]!r} lacks another trait and was dropped. Fix: missing='keep', or "
                "leave that trait out."
            )
        target = np.array(list(shares.values()))
        return cls(trait, list(shares), of_rater, target / target.sum())

    def now(self, weights: np.ndarray) -> np.ndarray:
        """Return the weighted share of each value among the raters who have one."""
        known = self.of_rater >= 0
        mass = np.bincount(self.of_rater[known], weights[known], len(self.values))
        return mass / max(mass.sum(), np.finfo(np.float64).tiny)

    def factors(self, weights: np.ndarray) -> np.ndarray:
        """Return the factors (R,) of the weights with which this trait has its shares."""
        now = self.now(weights)
        ratio = np.where(now > 0, self.shares / np.where(now > 0, now, 1.0), 0.0)
        return np.append(ratio, 1.0)[self.of_rater]

    def worst_gap(self, weights: np.ndarray) -> tuple[float, tuple[str, str]]:
        """Return the largest distance of a share from its margin, and its trait and value."""
        gaps = np.abs(self.now(weights) - self.shares)
        worst = int(np.argmax(gaps))
        return float(gaps[worst]), (self.trait, self.values[worst])


def _check_margins(frame: pd.DataFrame, targets: Mapping[str, Mapping[str, float]], missing: Missing) -> None:
    """Raise if no weights of these raters can meet the margins of some trait by itself."""
    faults = [] if targets else ["margins is empty: name at least one trait and the shares of its values"]
    for trait, shares in targets.items():
        if trait not in frame:
            hint = did_you_mean(trait, frame.columns)
            faults.append(f"no rater has a trait {trait!r}.{hint} The traits are {list(frame.columns)}")
            continue
        known = frame[trait][~frame[trait].map(is_missing)].map(str)
        counts = known.value_counts()
        if bad := {v: s for v, s in shares.items() if not 0 <= s <= 1}:
            faults.append(f"{trait}: the shares {bad} are not from 0 to 1")
        elif abs(sum(shares.values()) - 1) > SUM_TOLERANCE:
            faults.append(f"{trait}: the shares sum to {sum(shares.values()):.4g}, not to 1. Divide them by their sum")
        if absent := [value for value, share in shares.items() if share > 0 and value not in counts]:
            faults.append(
                f"{trait}: no rater has the value {absent[0]!r}, whose share is {shares[absent[0]]:g}."
                f"{did_you_mean(absent[0], counts.index)} Merge it with another value, or leave it out"
            )
        if extra := [str(value) for value in counts.index if value not in shares]:
            faults.append(
                f"{trait}: {counts[extra[0]]:,} raters have the value {extra[0]!r}, which has no share."
                f"{did_you_mean(extra[0], shares)} Add its share (0 sets the weight of these raters to 0)"
            )
        if missing == "error" and len(known) < len(frame):
            faults.append(
                f"{trait}: {len(frame) - len(known):,} raters have no value. Use missing='keep' or missing='drop'"
            )
    if faults:
        raise JudgementError("the margins do not fit the raters:\n" + "\n".join(f"  {fault}." for fault in faults))
