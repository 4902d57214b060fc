"""Check one column of a judgement table and bring it to its canonical form.

Every function takes a column of `N` values, adds its faults to the `Faults`, and returns the canonical column. Rows at
fault hold an arbitrary value, because the table is refused in the end. Knows nothing of kinds.
"""

from __future__ import annotations

import itertools
import numbers as numbers_abc
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from reward_models.errors import did_you_mean
from reward_models.judgements.faults import Faults, is_missing
from reward_models.judgements.spelling import LARGEST_EXACT, code_text, is_bool, one_form


__all__ = [
    "CHOICES",
    "answers_behind",
    "different_responses",
    "ids",
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
LARGEST_RATING = 10**300  # integers of Python have no end, floats have
_DROP = "drop the row or fill it in"


def ids(values: pd.Series, column: str, faults: Faults) -> pd.Series:
    """Return identifiers as text; 7.0 (an integer column that had a gap) becomes '7'.

    Example:
        >>> ids(pd.Series([7.0, 12.0]), "rater_id", Faults(2)).tolist()
        ['7', '12']
    """
    if pd.api.types.is_float_dtype(values.dtype) and (values.dropna() % 1 == 0).all():
        large = (values.abs() >= LARGEST_EXACT).to_numpy()
        fix = "read the column as text, e.g. with dtype=str"
        faults.add(large, column, values.tolist(), "is a float and has lost its last digits", fix)
        values = values.mask(large).astype("Int64").mask(large, 0)
    missing = values.isna()
    text = values.astype(str).str.strip().map(one_form)
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
    listed = values.tolist()
    blank = np.array([isinstance(value, str) and not value.strip() for value in listed], dtype=bool)
    faults.add(missing | blank, column, listed, "is empty text", _DROP)
    faults.add(~is_text & ~missing, column, listed, "is not text", "convert it to a string")
    return values.map(one_form).astype(object)


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
        return values.map(one_form).astype(object)
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
        [{"role": m["role"], "content": one_form(m["content"])} for m in v] if good else one_form(v)
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
        (_as_options(v) if good else () for v, good in zip(listed, is_list, strict=True)), object, len(listed)
    )
    code, unique = pd.factorize(tuples)
    reasons = np.array([_options_fault(options) for options in unique], dtype=object)
    rows = np.flatnonzero(is_list & (reasons[code] != ""))
    faults.add(rows, "options", listed, reasons[code[rows]].tolist(), "give at least two different, non-empty texts")
    return pd.Series(tuples, index=values.index, dtype=object)


def _as_options(values: Sequence[Any]) -> tuple[Any, ...]:
    """Return options as a tuple in one Unicode form; a list inside, which is no option, becomes None."""
    return tuple(None if isinstance(v, list | tuple | dict | np.ndarray) else one_form(v) for v in values)


def _options_fault(options: tuple[Any, ...]) -> str:
    if not all(isinstance(option, str) for option in options):
        return "holds an option that is not text"
    if any(not option.strip() for option in options):
        return "holds an empty option"
    if len(options) < 2:
        return f"has {len(options)} option{'s' * (len(options) != 1)}"
    return "holds the same option twice" if len(set(options)) < len(options) else ""


def option_index(values: pd.Series, options: pd.Series, faults: Faults, first: int | None = None) -> pd.Series:
    """Return the index of the option that was chosen: the text of an option, or a whole number.

    Texts are compared as codes (`spelling.code_text`). An integer is an index from 0; if its text is another option,
    it is refused, because it is not clear which is meant. Floats are no indices unless `first` is given.

    Args:
        values: (N,) answers.
        options: (N,) tuples of options.
        faults: Receives answers that are no option.
        first: Number of the first option; numbers, also as text, are indices then. None if it is not stated.

    Example:
        >>> offered = pd.Series([("yes", "no"), ("yes", "no")])
        >>> option_index(pd.Series(["no", 0]), offered, Faults(2)).tolist()
        [1, 0]
        >>> option_index(pd.Series(["2", "1"]), offered, Faults(2), first=1).tolist()
        [1, 0]
    """
    listed, missing = values.tolist(), values.isna().to_numpy()
    faults.add(missing, "choice", listed, "is not an answer", _DROP)
    known: dict[tuple[Any, tuple[str, ...]], tuple[int, str, str]] = {}
    index = np.full(len(values), -1, dtype=np.int64)
    wrong: dict[str, list[tuple[int, str]]] = {}
    for row, (value, offer) in enumerate(zip(listed, options, strict=True)):
        if missing[row] or not offer:
            continue
        key = ((type(value), value) if not isinstance(value, list | dict | np.ndarray) else repr(value), offer)
        if key not in known:
            known[key] = _option(value, offer, first)
        index[row], reason, fix = known[key]
        if reason:
            wrong.setdefault(fix, []).append((row, reason))
    for fix, rows in wrong.items():
        faults.add(np.array([row for row, _ in rows]), "choice", listed, [reason for _, reason in rows], fix)
    return pd.Series(index, index=values.index)


_RECODE = "recode the answer to an option, or drop the row"
_COUNTED = "if it counts the options, state index: 0 or 1; if not, recode it to the text of an option"


def _option(value: Any, options: tuple[str, ...], first: int | None) -> tuple[int, str, str]:
    """Return the index of the option that was chosen, and what is wrong and how to fix it ("" if nothing is)."""
    listed = f"is not one of the options {', '.join(map(repr, options))}."
    code = code_text(value)
    whole = re.fullmatch(r"[+-]?\d+", code) is not None and not is_bool(value)
    if first is not None and whole:
        if first <= int(code) < first + len(options):
            return int(code) - first, "", ""
        reason = f"is not an index into the {len(options)} options ({first} to {first + len(options) - 1})"
        return -1, reason, "recode or drop codes such as 'refused'"
    by_text = _position(value if isinstance(value, str) else code, options)
    if isinstance(value, str) or is_bool(value):
        if by_text >= 0:
            return by_text, "", ""
        if is_bool(value):
            return -1, listed, "recode it to the text of an option"
        return -1, f"{listed}{did_you_mean(value, options)}", _COUNTED if whole else _RECODE
    if not isinstance(value, numbers_abc.Number) or not whole or int(code) not in range(len(options)):
        reason = f"is not an index into the {len(options)} options (0 to {len(options) - 1})"
        return -1, reason, "count the options from 0; recode or drop codes such as 'refused'"
    if isinstance(value, float | np.floating):
        return -1, f"is a float, and would be option {options[int(code)]!r} as an index", _COUNTED
    if by_text not in (-1, int(code)):
        return (
            -1,
            f"is an option by its text, and option {options[int(code)]!r} as an index",
            ("state index: 0 or 1 if it is an index, or make it text with astype(str)"),
        )
    return int(code), "", ""


def _position(text: str, options: tuple[str, ...]) -> int:
    """Return the place of the option with this text, or -1; exactly the same text goes before another spelling."""
    text = one_form(text)
    if text in options:
        return options.index(text)
    alike = [place for place, option in enumerate(options) if code_text(option) == code_text(text)]
    return alike[0] if len(alike) == 1 else -1


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


def different_responses(first: pd.Series, second: pd.Series, faults: Faults) -> None:
    """Add pairs of a response with itself to the faults.

    Example:
        >>> faults = Faults(2)
        >>> different_responses(pd.Series(["yes", "yes"]), pd.Series(["no", "yes"]), faults)
        >>> faults.bad.tolist()
        [False, True]
    """
    same = (first == second).to_numpy(dtype=bool) & first.notna().to_numpy()
    faults.add(
        same, "response_b", second.tolist(), "is the same text as response_a", "drop the row; there is no choice"
    )


def shown_first(values: pd.Series, faults: Faults) -> pd.Series:
    """Return which response the rater saw first: a or b (0 and 1 are accepted), None where unknown.

    Example:
        >>> shown_first(pd.Series([1, "a", None], dtype=object), Faults(3)).tolist()
        ['b', 'a', None]
    """
    sides = {"a": "a", "b": "b", "0": "a", "1": "b"}
    mapped = values.map(lambda value: sides.get(code_text(value)) if not is_missing(value) else None)
    wrong = (mapped.isna() & values.notna()).to_numpy()
    faults.add(wrong, "shown_first", values.tolist(), "is not 'a' or 'b'", "recode it, or leave it empty if unknown")
    return mapped.astype(object).where(mapped.notna(), None)


def answers_behind(table: pd.DataFrame, faults: Faults) -> pd.Series:
    """Return the column `n`, the number of answers behind shares; all 1 if the table does not have it.

    Args:
        table: `N` rows.
        faults: Receives values that are not a positive finite number.

    Example:
        >>> answers_behind(pd.DataFrame({"prompt": ["Hi", "Ho"]}), Faults(2)).tolist()
        [1.0, 1.0]
    """
    if "n" not in table:
        return pd.Series(1.0, index=table.index)
    truths = table["n"].map(is_bool).astype(bool)
    number = pd.to_numeric(table["n"].mask(truths), errors="coerce").astype(np.float64)
    good = pd.Series(np.isfinite(number)) & (number > 0)
    faults.add(~good.to_numpy(), "n", table["n"].tolist(), "is not a positive number", "correct it or drop the row")
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
        tuple(np.asarray(p, dtype=float) / np.sum(np.asarray(p, dtype=float))) if not r else ()
        for p, r in zip(listed, reasons, strict=True)
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
    is_text = values.map(lambda v: isinstance(v, str) or is_bool(v)).to_numpy(dtype=bool)
    too_large = np.array([isinstance(value, int) and abs(value) > LARGEST_RATING for value in listed], dtype=bool)
    number = pd.to_numeric(values.mask(is_text | too_large), errors="coerce").astype(np.float64)
    comma = any(isinstance(value, str) and re.fullmatch(r"[+-]?\d+,\d+", value.strip()) for value in listed)
    fix = "recode the answers to ordered numbers" + (", or state decimal: ',' in the column map" if comma else "")
    faults.add(is_text, "rating", listed, "is text in a column of numbers", fix)
    faults.add(too_large, "rating", listed, "is too large for a rating", "correct it")
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
    return values.astype(str).map(one_form).astype(object).mask(values.isna(), None)
