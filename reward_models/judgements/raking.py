"""Weights of raters, so that those who judged add up to the population that was to be asked.

Iterative proportional fitting (Deming and Stephan, 1940, https://doi.org/10.1214/aoms/1177731829): the weights nearest
to equal ones, by Kullback-Leibler divergence, under which every trait has its known share (a census' margins). What
they cost in precision is Kish's design effect. Knows nothing of answers or clusters, and cannot mend a trait that
nobody recorded or a group that nobody of was asked.

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


__all__ = ["Missing", "Raking", "rake", "rater_traits"]

Missing = Literal["keep", "drop", "error"]
SUM_TOLERANCE = 1e-3  # published shares are rounded


@dataclass(frozen=True)
class Raking:
    """Weights of raters and what they cost.

    Attributes:
        weights: `(R,)`, one on average over the raters who have any.
        design_effect: `n Σw² / (Σw)²` (Kish, 1965): how many times as many raters it takes as with equal weights.
        effective_n: Raters that would say as much with equal weights.
        iterations: Rounds through all traits.
        worst_gap: Largest distance of a weighted share from its margin.
        worst_trait: Where that is: `(trait, value)`.
    """

    weights: np.ndarray
    design_effect: float
    effective_n: float
    iterations: int
    worst_gap: float
    worst_trait: tuple[str, str]


def rater_traits(judgements: Judgements) -> pd.DataFrame:
    """The traits of each rater: one row a rater in order of appearance, one column a trait without `rater:`.

    Of a rater with several values of a trait the first is taken; one who did not say has None.

    Raises:
        JudgementError: A table without raters or without columns `rater:<trait>`.
    """
    if not judgements.raters or not judgements.traits:
        raise JudgementError(
            f"a table of {judgements.kind!r} judgements with {judgements.n_raters:,} raters and "
            f"{len(judgements.traits)} columns rater:<trait>: both are needed. Add such columns, one value a rater."
        )
    first = judgements.frame.groupby("rater_id", sort=False)[judgements.traits].first()
    return first.rename(columns=lambda column: column.removeprefix("rater:"))


def rake(
    traits: pd.DataFrame | Mapping[str, Sequence[Any]],
    margins: Mapping[str, Mapping[Any, float]],
    *,
    max_iter: int = 1000,
    tol: float = 1e-6,
    trim: float | None = None,
    missing: Missing = "keep",
) -> Raking:
    """Weigh raters so that the traits have the shares of a population (post-stratification by raking).

    Args:
        traits: By trait the value of each of `R` raters, None where unknown; see `rater_traits`. Compared as text.
        margins: By trait the share of each value in the population; each trait's sum to one.
        max_iter: Rounds through the traits.
        tol: How far a weighted share may be from its margin.
        trim: Largest weight, in multiples of the mean; weights above are cut and the raking goes on. Margins may then
            be missed: `worst_gap` says by how much.
        missing: A rater who lacks a trait: `"keep"` (that trait does not change the weight, and its margins hold among
            those who said), `"drop"` (weight 0) or `"error"`.

    Returns:
        The weights.

    Raises:
        JudgementError: Margins that contradict each other or the raters; every fault at once.
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
            f"max_iter={max_iter}, tol={tol:g}, trim={trim}: at least one round, a tolerance above 0, and a largest "
            "weight above 1 (the mean) are needed."
        )
    frame = pd.DataFrame({str(trait): pd.Series(list(values)) for trait, values in traits.items()}, dtype=object)
    targets = {trait: {str(value): float(share) for value, share in of.items()} for trait, of in margins.items()}
    _check_margins(frame, targets, missing)
    values = {trait: frame[trait].map(lambda v: None if is_missing(v) else str(v)) for trait in targets}
    start = np.ones(len(frame))
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
        weights = _mean_one(weights)
        while trim is not None and weights.max() > trim * (1 + 1e-9):
            weights = _mean_one(np.minimum(weights, trim))
        gap, worst = max((cell.worst_gap(weights) for cell in cells.values()), key=lambda found: found[0])
        if trim is not None and np.abs(weights - before).max() <= tol * 1e-3:
            break  # margins and trimming pull against each other, and this is as near as they come
    if gap > tol and trim is None:
        raise JudgementError(
            f"raking did not converge in {iterations:,} rounds: the share of {worst[0]}={worst[1]!r} is still "
            f"{gap:.4g} from its margin. Most likely some combination of the traits has no rater, so that their "
            "margins cannot all be met: merge values, leave a trait out, or allow a larger tol."
        )
    effective_n = float(weights.sum() ** 2 / np.square(weights).sum())
    return Raking(weights, float((weights > 0).sum()) / effective_n, effective_n, iterations, float(gap), worst)


@dataclass(frozen=True)
class _Cells:
    """One trait: which value each rater has, (R,) with -1 for unknown, and the values' shares."""

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
                f"every rater with {trait}={empty[0]!r} lacks another trait and was dropped: use missing='keep', or "
                "leave that trait out."
            )
        target = np.array(list(shares.values()))
        return cls(trait, list(shares), of_rater, target / target.sum())

    def now(self, weights: np.ndarray) -> np.ndarray:
        """Weighted share of each value among those who said."""
        known = self.of_rater >= 0
        mass = np.bincount(self.of_rater[known], weights[known], len(self.values))
        return mass / max(mass.sum(), np.finfo(np.float64).tiny)

    def factors(self, weights: np.ndarray) -> np.ndarray:
        """(R,) what the weights are multiplied by, so that this trait has its shares."""
        now = self.now(weights)
        ratio = np.where(now > 0, self.shares / np.where(now > 0, now, 1.0), 0.0)
        return np.append(ratio, 1.0)[self.of_rater]

    def worst_gap(self, weights: np.ndarray) -> tuple[float, tuple[str, str]]:
        """Largest distance of a share from its margin, and where."""
        gaps = np.abs(self.now(weights) - self.shares)
        worst = int(np.argmax(gaps))
        return float(gaps[worst]), (self.trait, self.values[worst])


def _mean_one(weights: np.ndarray) -> np.ndarray:
    """Weights of mean one over the positive ones; left as they are when there is none."""
    return weights / (weights.sum() / np.count_nonzero(weights)) if weights.any() else weights


def _check_margins(frame: pd.DataFrame, targets: Mapping[str, Mapping[str, float]], missing: Missing) -> None:
    """Refuse margins that no weights of these raters can meet, as far as one trait alone shows it."""
    faults = [] if targets else ["no margins are given: name at least one trait and its values' shares"]
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
                f"{trait}: no rater has the value {absent[0]!r}, which is to have a share of {shares[absent[0]]:g}."
                f"{did_you_mean(absent[0], counts.index)} Merge it with another value, or leave it out"
            )
        if extra := [str(value) for value in counts.index if value not in shares]:
            faults.append(
                f"{trait}: {counts[extra[0]]:,} raters have the value {extra[0]!r}, for which no share is given."
                f"{did_you_mean(extra[0], shares)} Give its share (0 leaves these raters out)"
            )
        if missing == "error" and len(known) < len(frame):
            faults.append(
                f"{trait}: {len(frame) - len(known):,} raters did not say. Use missing='keep' or missing='drop'"
            )
    if faults:
        raise JudgementError("the margins do not fit the raters:\n" + "\n".join(f"  {fault}." for fault in faults))
