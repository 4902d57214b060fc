"""Groups of raters by trait: numbers in bins, and nobody's group where the value is unknown.

A trait of survey data is seldom a group as it stands: an age is 75 different numbers, and "NA" or 99 is no age. Groups
made of these would be a straw man for clusters to beat. Knows nothing of judgements or models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reward_models.errors import JudgementError, did_you_mean
from reward_models.judgements.faults import is_missing
from reward_models.judgements.records import Judgements


__all__ = ["MISSING_WORDS", "MissingCodes", "trait_groups"]

MISSING_WORDS = ("", "na", "n/a", "#n/a", "<na>", "nan", "null", "missing", ".", "-")
"""Words that say that a value is unknown, in lower case. "none" is not among them: it may be an answer (religion)."""
MissingCodes = Sequence[Any] | Mapping[str, Sequence[Any]]
"""More values that are unknown, e.g. `(99, "refused")`: of all traits, or by trait."""
MAX_CODES = 12  # a trait of more different numbers is a quantity
NUM_BINS = 6


def trait_groups(judgements: Judgements, missing: MissingCodes = ()) -> pd.DataFrame:
    """Return the group of each rater by each trait.

    A trait whose values are all numbers, more than twelve different ones, is cut at its quantiles into six groups of
    about as many raters; fewer numbers are taken for codes, each its own group. Give names to codes if there are more.

    Args:
        judgements: A table with raters; its `rater:` columns are the traits. Of several values the first known one
            is used, by item (`Judgements.in_order`).
        missing: Values that say that the trait is unknown, besides empty cells and `MISSING_WORDS`: of all traits, or
            by trait. Compared as text, or as numbers if they are. A column map has `missing` for the same purpose.

    Returns:
        One row per rater, in the order of `judgements.raters`, and one ordered categorical column per trait, without
        `rater:`; missing where unknown.

    Raises:
        JudgementError: `missing` names a trait that the table does not have.

    Example:
        >>> from reward_models import planted_judgements
        >>> frame = planted_judgements("choice", num_raters=40, num_items=3).judgements.frame.copy()
        >>> number = frame["rater_id"].str[1:].astype(int)
        >>> frame["rater:age"] = (20 + number).astype(str).mask(number == 7, "NA").mask(number == 9, "99")
        >>> groups = trait_groups(Judgements.from_frame(frame, kind="choice"), missing={"age": [99]})["age"]
        >>> list(groups.cat.categories)
        ['20 to 26', '28 to 34', '35 to 40', '41 to 46', '47 to 52', '53 to 59']
        >>> int(groups.isna().sum())
        2
    """
    names = [column.removeprefix("rater:") for column in judgements.traits]
    codes = _codes_by_trait(missing, names)
    frame = judgements.in_order().frame
    rater = frame["rater_id"].astype(str)
    groups = {}
    for name in names:
        values = frame[f"rater:{name}"].astype(object)
        unknown = [value for value in values.unique() if is_missing(value) or _comparable(value) in codes[name]]
        known = ~values.isin(unknown) & values.notna()
        groups[name] = _grouped(values[known].groupby(rater[known], sort=False).first().reindex(judgements.raters))
    return pd.DataFrame(groups, index=pd.Index(judgements.raters))


def _codes_by_trait(missing: MissingCodes, names: list[str]) -> dict[str, set[str]]:
    by_trait = (
        {name.removeprefix("rater:"): of for name, of in missing.items()} if isinstance(missing, Mapping) else {}
    )
    for name in by_trait:
        if name not in names:
            raise JudgementError(
                f"missing: the table has no trait {name!r}.{did_you_mean(name, names)} Fix: use one of {names}"
            )
    everywhere = [] if isinstance(missing, Mapping) else list(missing)
    return {name: {_comparable(v) for v in (*MISSING_WORDS, *everywhere, *by_trait.get(name, ()))} for name in names}


def _comparable(value: Any) -> str:
    """Return a value as text under which 99, 99.0 and "99" are the same."""
    text = str(value).strip().casefold()
    number = _number(text)
    return text if np.isnan(number) else f"{number:.12g}"


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return np.nan
    return number if np.isfinite(number) else np.nan


def _grouped(values: pd.Series) -> pd.Series:
    """Turn one value per rater into an ordered categorical of groups; numbers are ordered as numbers."""
    known = values[values.notna()]
    numbers = known.map(lambda v: np.nan if isinstance(v, bool | np.bool_) else _number(str(v).strip()))
    if not numbers.isna().any() and numbers.nunique() > MAX_CODES:
        cuts = np.unique(np.quantile(numbers, np.linspace(0, 1, NUM_BINS + 1)[1:-1]))
        number = np.searchsorted(cuts, numbers, side="right")
        low, high = (numbers.groupby(number).transform(end) for end in ("min", "max"))
        names = pd.Series([_span(*ends) for ends in zip(low, high, strict=True)], index=known.index)
        order = list(dict.fromkeys(names[low.sort_values(kind="stable").index]))
    else:
        names = known.map(str)
        order = list(dict.fromkeys(names[numbers.sort_values(kind="stable").index]))
        order = order if not numbers.isna().any() else sorted(order)
    return pd.Series(pd.Categorical(names.reindex(values.index), order, ordered=True), index=values.index)


def _span(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
