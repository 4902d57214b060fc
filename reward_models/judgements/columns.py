"""Check one column of a judgement table and bring it to its canonical form.

Every function takes a column of `N` values, adds its faults to the `Faults`, and returns the canonical column. Rows at
fault hold an arbitrary value, because the table is refused in the end. Knows nothing of kinds.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from reward_models.errors import did_you_mean
from reward_models.judgements.faults import Faults, is_missing


__all__ = [
    "CHOICES",
    "ids",
    "numbers",
    "option_index",
    "options",
    "pair_choice",
    "probs",
    "prompts",
    "ratings",
    "shown_first",
    "texts",
    "trait",
]

CHOICES = ("a", "b", "tie")
_MAX_LEVELS = 25
_DROP = "drop the row or fill it in"


def ids(values: pd.Series, column: str, faults: Faults) -> pd.Series:
    """Return identifiers as text; 7.0 (an integer column that had a gap) becomes '7'.

    Example:
        >>> ids(pd.Series([7.0, 12.0]), "rater_id", Faults(2)).tolist()
        ['7', '12']
    """
    if pd.api.types.is_float_dtype(values.dtype) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    missing = values.isna()
    text = values.astype(str).str.strip()
    faults.add((missing | (text == "")).to_numpy(), column, values.tolist(), "is empty", _DROP)
    return text.mask(missing)


def texts(values: pd.Series, column: str, faults: Faults) -> pd.Series:
    """Return texts, each of which must have more than white space.

    Example:
        >>> faults = Faults(2)
        >>> _ = texts(pd.Series(["yes", " "]), "response", faults)
        >>> faults.bad.tolist()
        [False, True]
    """
    is_text = values.map(lambda v: isinstance(v, str)).to_numpy(dtype=bool)
    missing = values.isna().to_numpy()
    blank = np.zeros(len(values), dtype=bool)
    blank[is_text] = values[is_text].str.strip().eq("").to_numpy(dtype=bool)
    listed = values.tolist()
    faults.add(missing | blank, column, listed, "is empty text", _DROP)
    faults.add(~is_text & ~missing, column, listed, "is not text", "convert it to a string")
    return values.astype(object)


def prompts(values: pd.Series, faults: Faults, empty_allowed: bool) -> pd.Series:
    """Return prompts, each a text or a list of messages with the keys `role` and `content` only.

    Args:
        values: (N,) prompts.
        faults: Receives prompts that are empty, or neither text nor messages.
        empty_allowed: Accept empty text: TRL's pairs without a `prompt` may have nothing in common.

    Example:
        >>> messages = [{"role": "user", "content": "Hi", "id": 3}]
        >>> prompts(pd.Series(["Hi", messages]), Faults(2), empty_allowed=False).tolist()
        ['Hi', [{'role': 'user', 'content': 'Hi'}]]
    """
    is_text = values.map(lambda v: isinstance(v, str)).to_numpy(dtype=bool)
    if is_text.all() and empty_allowed:
        return values.astype(object)
    if is_text.all():
        return texts(values, "prompt", faults)
    listed = values.tolist()
    conversational = np.fromiter((_is_conversation(v) for v in listed), dtype=bool, count=len(listed))
    missing = np.fromiter(map(is_missing, listed), dtype=bool, count=len(listed))
    blank = np.fromiter((isinstance(v, str) and not v.strip() for v in listed), dtype=bool, count=len(listed))
    faults.add(missing | blank, "prompt", listed, "is empty text", _DROP)
    wrong = ~is_text & ~conversational & ~missing
    fix = "give a string, or a list of {'role': ..., 'content': ...} with texts in both"
    faults.add(wrong, "prompt", listed, "is neither text nor a conversation", fix)
    as_lists = [
        [{"role": m["role"], "content": m["content"]} for m in v] if good else v
        for v, good in zip(listed, conversational, strict=True)
    ]
    return pd.Series(as_lists, index=values.index, dtype=object)


def _is_conversation(value: Any) -> bool:
    return (
        isinstance(value, list | tuple | np.ndarray)
        and len(value) > 0
        and all(
            isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in value
        )
    )


def options(values: pd.Series, faults: Faults) -> pd.Series:
    """Return options as tuples of at least two different texts; each distinct list is checked once.

    Example:
        >>> options(pd.Series([["yes", "no"], ["tea", "coffee"]]), Faults(2)).tolist()
        [('yes', 'no'), ('tea', 'coffee')]
    """
    listed = values.tolist()
    is_list = np.fromiter((isinstance(v, list | tuple | np.ndarray) for v in listed), dtype=bool, count=len(listed))
    fix = "give the option texts as a list, in order"
    faults.add(~is_list, "options", listed, "is not a list of options", fix)
    tuples = np.fromiter(
        (tuple(v) if good else () for v, good in zip(listed, is_list, strict=True)), object, len(listed)
    )
    code, unique = pd.factorize(tuples)
    reasons = np.array([_options_fault(options) for options in unique], dtype=object)
    rows = np.flatnonzero(is_list & (reasons[code] != ""))
    faults.add(rows, "options", listed, reasons[code[rows]].tolist(), "give at least two different, non-empty texts")
    return pd.Series(tuples, index=values.index, dtype=object)


def _options_fault(options: tuple[Any, ...]) -> str:
    if not all(isinstance(option, str) for option in options):
        return "holds an option that is not text"
    if any(not option.strip() for option in options):
        return "holds an empty option"
    if len(options) < 2:
        return f"has {len(options)} option{'s' * (len(options) != 1)}"
    return "holds the same option twice" if len(set(options)) < len(options) else ""


def option_index(values: pd.Series, options: pd.Series, faults: Faults) -> pd.Series:
    """Return the index of the option that was chosen; the text of an option is accepted too.

    Example:
        >>> offered = pd.Series([("yes", "no"), ("yes", "no")])
        >>> option_index(pd.Series(["no", 0]), offered, Faults(2)).tolist()
        [1, 0]
    """
    listed, missing = values.tolist(), values.isna().to_numpy()
    faults.add(missing, "choice", listed, "is not an answer", _DROP)
    sizes = np.fromiter((len(o) for o in options), dtype=np.int64, count=len(options))
    index = np.full(len(values), -1.0)
    is_text = values.map(lambda v: isinstance(v, str)).to_numpy(dtype=bool)
    offers = options.tolist()
    text_rows = np.flatnonzero(is_text & (sizes > 0))
    for row in text_rows:
        index[row] = offers[row].index(listed[row]) if listed[row] in offers[row] else -1
    wrong = text_rows[index[text_rows] < 0]
    reasons = [
        f"is not one of the options {', '.join(map(repr, offers[row]))}.{did_you_mean(listed[row], offers[row])}"
        for row in wrong[:50]
    ]
    faults.add(wrong, "choice", listed, reasons, "recode the answer to an option, or drop the row")
    rest = ~is_text & ~missing
    number = pd.to_numeric(values.where(rest), errors="coerce").to_numpy(dtype=np.float64)
    index[rest] = number[rest]
    whole = np.isfinite(index) & (index % 1 == 0)
    out_of_range = np.flatnonzero(rest & (sizes > 0) & ~(whole & (index >= 0) & (index < sizes)))
    reasons = [f"is not an index into the {sizes[r]} options (0 to {sizes[r] - 1})" for r in out_of_range[:50]]
    faults.add(
        out_of_range, "choice", listed, reasons, "count the options from 0; recode or drop codes such as 'refused'"
    )
    return pd.Series(np.nan_to_num(index, nan=-1, posinf=-1, neginf=-1).astype(np.int64), index=values.index)


def pair_choice(values: pd.Series, faults: Faults) -> pd.Series:
    """Return which of two responses was preferred: a, b or tie.

    Example:
        >>> pair_choice(pd.Series(["a", "tie"]), Faults(2)).tolist()
        ['a', 'tie']
    """
    listed = values.tolist()
    known = values.isin(CHOICES).to_numpy()
    rows = np.flatnonzero(~known & ~values.isna().to_numpy())
    reasons = [f"is not one of 'a', 'b', 'tie'.{did_you_mean(listed[row], CHOICES)}" for row in rows[:50]]
    faults.add(values.isna().to_numpy(), "choice", listed, "is not a choice", _DROP)
    faults.add(rows, "choice", listed, reasons, "recode it to a, b or tie")
    return values.astype(object)


def shown_first(values: pd.Series, faults: Faults) -> pd.Series:
    """Return which response the rater saw first: a or b (0 and 1 are accepted), None where unknown.

    Example:
        >>> shown_first(pd.Series([1, "a", None], dtype=object), Faults(3)).tolist()
        ['b', 'a', None]
    """
    mapped = values.map({"a": "a", "b": "b", 0: "a", 1: "b"})
    wrong = (mapped.isna() & values.notna()).to_numpy()
    faults.add(wrong, "shown_first", values.tolist(), "is not 'a' or 'b'", "recode it, or leave it empty if unknown")
    return mapped.astype(object).where(mapped.notna(), None)


def numbers(table: pd.DataFrame, column: str, faults: Faults, positive: bool) -> pd.Series:
    """Return a column of weights or counts; all 1 if the table does not have the column.

    Args:
        table: `N` rows.
        column: Name of the column.
        faults: Receives values that are not a finite number, or below the smallest one.
        positive: Refuse 0.

    Example:
        >>> numbers(pd.DataFrame({"prompt": ["Hi", "Ho"]}), "weight", Faults(2), positive=False).tolist()
        [1.0, 1.0]
    """
    if column not in table:
        return pd.Series(1.0, index=table.index)
    number = pd.to_numeric(table[column], errors="coerce").astype(np.float64)
    good = pd.Series(np.isfinite(number)) & ((number > 0) if positive else (number >= 0))
    requirement = "a positive number" if positive else "a number of at least 0"
    faults.add(~good.to_numpy(), column, table[column].tolist(), f"is not {requirement}", "correct it or drop the row")
    return number


def probs(values: pd.Series, options: pd.Series, faults: Faults) -> pd.Series:
    """Return shares of the options, rescaled to sum to one if rounding left the sum within 0.02 of it.

    Example:
        >>> probs(pd.Series([[0.5, 0.5]]), pd.Series([("yes", "no")]), Faults(1)).iloc[0]
        (np.float64(0.5), np.float64(0.5))
    """
    listed = values.tolist()
    reasons = np.array([_probs_fault(p, len(o)) for p, o in zip(listed, options, strict=True)], dtype=object)
    rows = np.flatnonzero(reasons != "")
    faults.add(rows, "probs", listed, reasons[rows].tolist(), "give one share per option, summing to 1")
    shares = [
        tuple(np.asarray(p, dtype=float) / np.sum(p)) if not r else () for p, r in zip(listed, reasons, strict=True)
    ]
    return pd.Series(shares, index=values.index, dtype=object)


def _probs_fault(probs: Any, n_options: int) -> str:
    try:
        shares = np.asarray(probs, dtype=np.float64)
    except (TypeError, ValueError):
        return "is not a list of numbers"
    if shares.ndim != 1:
        return "is not a list of numbers"
    if n_options and len(shares) != n_options:
        return f"has {len(shares)} shares for {n_options} options"
    if not np.isfinite(shares).all() or (shares < 0).any():
        return "holds a negative or missing share"
    return "" if abs(shares.sum() - 1) <= 0.02 else f"sums to {shares.sum():.4g}, not 1"


def ratings(
    values: pd.Series, levels: Sequence[float] | None, faults: Faults
) -> tuple[pd.Series, tuple[float, ...] | None]:
    """Return ratings as numbers, and the ordered levels of their scale.

    Args:
        values: (N,) ratings.
        levels: The levels, increasing; None to use the ratings that occur, if they look like one scale.
        faults: Receives ratings that are not numbers or not one of the levels, and scales that cannot be told.

    Example:
        >>> ratings(pd.Series([1, 5, 3]), None, Faults(3))[1]
        (1.0, 3.0, 5.0)
    """
    listed = values.tolist()
    is_text = values.map(lambda v: isinstance(v, str)).to_numpy(dtype=bool)
    number = pd.to_numeric(values.mask(is_text), errors="coerce").astype(np.float64)
    faults.add(is_text, "rating", listed, "is text in a column of numbers", "recode the answers to ordered numbers")
    finite = np.isfinite(number.to_numpy())
    faults.add(~is_text & ~finite, "rating", listed, "is not a rating", _DROP)
    if levels is not None:
        scale = tuple(float(level) for level in levels)
        if len(scale) < 2 or any(low >= high for low, high in itertools.pairwise(scale)):
            faults.add_table(
                f"levels={scale} are not at least two increasing numbers. Fix: list them from lowest to highest."
            )
        outside = finite & ~number.isin(scale).to_numpy()
        shown = ", ".join(f"{level:g}" for level in scale)
        faults.add(
            outside, "rating", listed, f"is outside the levels {shown}", "correct it, or add the level to levels="
        )
        return number, scale
    scale = tuple(sorted(float(level) for level in number[finite].unique()))
    gaps = np.diff(scale)
    if len(scale) == 1:
        faults.add_table(
            f"every rating is {scale[0]:g}: there is nothing to learn. Fix: check the column, or pass levels=."
        )
    elif len(scale) > _MAX_LEVELS:
        faults.add_table(
            f"column 'rating' holds {len(scale):,} different values from {scale[0]:g} to {scale[-1]:g}, not an "
            f"ordered scale. Fix: bin them to at most {_MAX_LEVELS} levels, or pass levels= if they are meant."
        )
    elif len(gaps) and gaps.max() > 4 * gaps.min():
        shown = ", ".join(f"{level:g}" for level in scale)
        faults.add_table(
            f"column 'rating' seems to mix scales: its values are {shown}. Fix: one table holds one scale; "
            "rescale or split it, or pass levels= if this is one scale."
        )
    return number, scale


def trait(values: pd.Series) -> pd.Series:
    """Return a trait as text, None where unknown.

    Example:
        >>> trait(pd.Series([30.0, None])).tolist()
        ['30', None]
    """
    if pd.api.types.is_float_dtype(values.dtype) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    return values.astype(str).astype(object).mask(values.isna(), None)
