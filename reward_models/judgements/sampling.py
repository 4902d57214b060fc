"""Columns that say how raters were sampled, and how often a judgement was given.

Two things that are easily taken for each other have two names. `rater_weight` is the sampling weight of a rater, of
any unit; `count` says how often the rater gave the same judgement. Knows nothing of the rest of the table.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from reward_models.errors import JudgementError
from reward_models.judgements.columns import ids
from reward_models.judgements.faults import Faults, show
from reward_models.judgements.spelling import is_bool


__all__ = ["SAMPLING", "WEIGHT_FIX", "add_sampling", "drop_old_weight"]

SAMPLING = ("count", "rater_weight", "rater_stratum", "rater_psu")

WEIGHT_FIX = (
    "rename it to 'rater_weight' if it is a sampling weight (how many people the rater stands for, e.g. a survey "
    "weight), or to 'count' if it says how often the rater gave this very judgement"
)


def drop_old_weight(table: pd.DataFrame) -> pd.DataFrame:
    """Raise if a table has a column `weight`, which does not say what is weighed; drop it if it is 1 throughout.

    Raises:
        JudgementError: The column is there and its values differ from 1.

    Example:
        >>> drop_old_weight(pd.DataFrame({"rating": [1, 2], "weight": [1.0, 2.5]}))
        Traceback (most recent call last):
        reward_models.errors.JudgementError: column 'weight' does not say what is weighed. Fix: rename it to ...
    """
    if "weight" not in table:
        return table
    if (pd.to_numeric(table["weight"], errors="coerce") == 1).all():
        return table.drop(columns="weight")
    raise JudgementError(f"column 'weight' does not say what is weighed. Fix: {WEIGHT_FIX}.")


def add_sampling(table: pd.DataFrame, out: pd.DataFrame, faults: Faults) -> None:
    """Add the columns of `SAMPLING` that a table has to its canonical form.

    Args:
        table: `N` rows.
        out: Its canonical columns so far, with `rater_id`; changed in place.
        faults: Receives counts that are no whole number of at least 1, weights that are no number of at least 0, and
            raters with several weights, strata or units.

    Example:
        >>> table = pd.DataFrame({"rater_id": ["ann", "ann", "bob"], "rater_weight": [2.0, 3.0, 1.0]})
        >>> faults = Faults(3)
        >>> add_sampling(table, table[["rater_id"]].copy(), faults)
        >>> faults.raise_if_any()
        Traceback (most recent call last):
        reward_models.errors.JudgementError: 1 fault in a table of 3 judgements (...):
          row 1, column 'rater_weight': 3.0 differs from the 2.0 in another row of rater 'ann'. Fix: ...
    """
    if "count" in table:
        count = _numbers(table["count"])
        good = np.isfinite(count) & (count >= 1) & (count % 1 == 0)
        fix = "round it, or rename the column to 'rater_weight' if it is a sampling weight of the rater"
        faults.add(~good, "count", table["count"].tolist(), "is not a whole number of at least 1", fix)
        out["count"] = pd.Series(np.where(good, count, 1.0), index=table.index)
    if "rater_weight" in table:
        weight = _numbers(table["rater_weight"])
        good = np.isfinite(weight) & (weight >= 0)
        fix = "correct it, or drop the rater"
        faults.add(~good, "rater_weight", table["rater_weight"].tolist(), "is not a number of at least 0", fix)
        if good.all() and not weight.any():
            faults.add_table("column 'rater_weight' is 0 in all rows, so nobody counts: correct it, or remove it.")
        out["rater_weight"] = pd.Series(np.where(good, weight, 1.0), index=table.index)
    for column in ("rater_stratum", "rater_psu"):
        if column in table:
            out[column] = ids(table[column], column, faults)
    for column in SAMPLING[1:]:
        if column in out:
            _one_per_rater(out["rater_id"], out[column], column, faults)


def _numbers(values: pd.Series) -> np.ndarray:
    """(N,) numbers, NaN for what is none; truth values are none."""
    return pd.to_numeric(values.mask(values.map(is_bool).astype(bool)), errors="coerce").to_numpy(dtype=np.float64)


def _one_per_rater(rater_id: pd.Series, values: pd.Series, column: str, faults: Faults) -> None:
    """Refuse rows whose value differs from that in the first row of the same rater."""
    first = values.groupby(rater_id, sort=False).transform("first")
    differs = (values != first) & rater_id.notna() & ~pd.Series(faults.bad, index=values.index)
    rows = np.flatnonzero(differs.to_numpy(dtype=bool))
    firsts, raters = first.tolist(), rater_id.tolist()
    reasons = [f"differs from the {show(firsts[row])} in another row of rater {raters[row]!r}" for row in rows]
    fix = "give each rater one value; if ids restart in every sample, join them: rater_id: [sample, id]"
    faults.add(rows, column, values.tolist(), reasons, fix)
