"""Turn a table as people have it into the canonical judgement table, or raise an error that lists every fault.

Accepts the four kinds of judgement and TRL's own `chosen`/`rejected`. Vectorised: hundreds of thousands of rows take
seconds. Knows nothing of files (see `sources`) and of what the judgements are used for.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from reward_models.errors import JudgementError, JudgementWarning, did_you_mean
from reward_models.judgements import columns
from reward_models.judgements.faults import Faults
from reward_models.judgements.items import ANONYMOUS, DUPLICATES, check_duplicates, check_items, one_option_order
from reward_models.judgements.sampling import SAMPLING, add_sampling, drop_old_weight
from reward_models.judgements.spelling import is_bool
from reward_models.judgements.trl_pairs import from_chosen_rejected


__all__ = ["KINDS", "OPTIONAL", "REQUIRED", "Canonical", "canonicalise"]

KINDS = ("preference", "rating", "choice", "soft")
REQUIRED = {
    "preference": ("rater_id", "prompt", "response_a", "response_b", "choice"),
    "rating": ("rater_id", "prompt", "response", "rating"),
    "choice": ("rater_id", "prompt", "options", "choice"),
    "soft": ("prompt", "options", "probs"),
}
OPTIONAL = {
    "preference": ("item_id", *SAMPLING, "shown_first"),
    "rating": ("item_id", *SAMPLING),
    "choice": ("item_id", *SAMPLING),
    "soft": ("item_id", "n"),
}
# Sets of columns that identify a kind; `options` and `choice` belong to two kinds each.
_MANY_PAIRS = 10
"""Pairs from which on it is no chance that all prefer the response in one place."""
_TELLTALE = {
    "preference": ({"response_a", "response_b", "choice"}, {"chosen", "rejected"}),
    "rating": ({"response", "rating"},),
    "choice": ({"options", "choice"},),
    "soft": ({"probs"},),
}


class Canonical(NamedTuple):
    """A table that `canonicalise` accepted.

    Attributes:
        kind: One of `KINDS`.
        frame: `M` rows in canonical columns.
        levels: The ordered levels of a rating table, else None.
        rows: (M,) numbers of these rows in the original table.
    """

    kind: str
    frame: pd.DataFrame
    levels: tuple[float, ...] | None
    rows: np.ndarray


def canonicalise(
    frame: pd.DataFrame,
    kind: str | None = None,
    levels: Sequence[float] | None = None,
    *,
    duplicates: str = "refuse",
    index: int | None = None,
) -> Canonical:
    """Validate a table and bring it to canonical columns.

    Args:
        frame: `N` rows, one judgement each. It is not changed.
        kind: One of `KINDS`; None to infer it from the columns.
        levels: The ordered levels of a rating table; None to use the ratings that occur.
        duplicates: What to do where a rater judged an item more than once, one of `DUPLICATES`.
        index: Number of the first option, if `choice` holds numbers of options (0 or 1); None if it is not stated.

    Returns:
        The kind, the canonical table (RangeIndex; `rater_id` and `item_id` as strings, `item_id` always there), the
        levels (None unless `rating`) and the numbers of the rows that are kept.

    Raises:
        JudgementError: The table cannot be used; the message lists every fault at once.

    Example:
        >>> rows = [("ann", "Hi", "Hello", 4), ("bob", "Hi", "Hello", 2)]
        >>> rows += [("ann", "Hi", "Go", 1), ("bob", "Hi", "Go", 2)]
        >>> frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response", "rating"])
        >>> kind, table, levels, rows = canonicalise(frame)
        >>> kind, levels, [column for column in table if column not in frame]
        ('rating', (1.0, 2.0, 4.0), ['item_id'])
    """
    if kind is not None and kind not in KINDS:
        raise JudgementError(f"kind={kind!r} is not one of {', '.join(KINDS)}.{did_you_mean(kind, KINDS)}")
    if len(frame) == 0:
        raise JudgementError("the table has no rows. Fix: check the filter or the file it comes from.")
    kind = kind or _infer_kind(frame)
    if levels is not None and kind != "rating":
        raise JudgementError(
            f"levels={tuple(levels)} is set for a {kind!r} table. Fix: leave levels out; only ratings have them."
        )
    _check_settings(kind, duplicates, index)
    original = list(frame.columns)
    table = drop_old_weight(frame.reset_index(drop=True))
    if kind == "preference" and {"chosen", "rejected"} <= set(table.columns):
        table = from_chosen_rejected(table)
        if "rater_id" not in table:
            table["rater_id"] = ANONYMOUS
    if kind == "soft" and "options" not in table and {"response_a", "response_b"} <= set(table.columns):
        table["options"] = [list(pair) for pair in zip(table["response_a"], table["response_b"], strict=True)]
        table = table.drop(columns=["response_a", "response_b"])
    _check_columns(table, kind, original)

    faults = Faults(len(table))
    out = pd.DataFrame(index=table.index)
    if kind != "soft":
        out["rater_id"] = columns.ids(table["rater_id"], "rater_id", faults)
    out["prompt"] = columns.prompts(table["prompt"], faults, empty_allowed="prompt" not in original)
    scale: tuple[float, ...] | None = None
    if kind in ("choice", "soft"):
        out["options"] = columns.options(table["options"], faults)
        if kind == "choice":
            out["choice"] = columns.option_index(table["choice"], out["options"], faults, index)
        else:
            out["probs"] = columns.probs(table["probs"], out["options"], faults)
            out["n"] = columns.answers_behind(table, faults)
    elif kind == "preference":
        for column in ("response_a", "response_b"):
            out[column] = columns.texts(table[column], column, faults)
        columns.different_responses(out["response_a"], out["response_b"], faults)
        out["choice"] = columns.pair_choice(table["choice"], faults)
        if "shown_first" in table:
            out["shown_first"] = columns.shown_first(table["shown_first"], faults)
    else:
        out["response"] = columns.texts(table["response"], "response", faults)
        out["rating"], scale = columns.ratings(table["rating"], levels, faults)
    if kind != "soft":
        add_sampling(table, out, faults)
    if "item_id" in table:
        out["item_id"] = columns.ids(table["item_id"], "item_id", faults)
    for column in table.columns:
        if str(column).startswith("rater:"):
            out[column] = columns.trait(table[column])

    if kind in ("choice", "soft"):
        out = one_option_order(out, faults)
    out["item_id"] = check_items(kind, out, faults)
    again = np.zeros(len(out), dtype=bool) if kind == "soft" else check_duplicates(out, faults, duplicates)
    if kind == "choice" and out["rater_id"].nunique() == 1:
        faults.add_table(
            f"all judgements are by one rater, {out['rater_id'].iloc[0]!r}: a survey of one person has no "
            "disagreement to model. Fix: check that 'rater_id' is the person and not the survey."
        )
    faults.raise_if_any()
    out = out[~again].reset_index(drop=True)
    _warn_thin(kind, out)
    if "shown_first" in out:
        _warn_of_position(out)
    order = ["rater_id", "item_id", *REQUIRED[kind], *OPTIONAL[kind]]
    kept = [c for c in dict.fromkeys(order) if c in out] + [c for c in out if c not in order]
    return Canonical(kind, out[kept], scale, np.flatnonzero(~again))


def _check_settings(kind: str, duplicates: str, index: int | None) -> None:
    if duplicates not in DUPLICATES:
        hint = did_you_mean(duplicates, DUPLICATES)
        raise JudgementError(f"duplicates={duplicates!r} is not known.{hint} Fix: one of {', '.join(DUPLICATES)}.")
    if index is not None and (is_bool(index) or index not in (0, 1)):
        raise JudgementError(f"index={index!r} is not the number of the first option. Fix: 0 or 1, or leave it out.")
    if index is not None and kind != "choice":
        raise JudgementError(
            f"index={index} is set for a {kind!r} table. Fix: leave it out; only choices have options."
        )


def _infer_kind(frame: pd.DataFrame) -> str:
    present = set(frame.columns)
    kinds = [kind for kind, sets in _TELLTALE.items() if any(needed <= present for needed in sets)]
    if len(kinds) == 1:
        return kinds[0]
    names = ", ".join(map(repr, frame.columns))
    if kinds:
        raise JudgementError(
            f"the columns fit more than one kind of judgement ({', '.join(kinds)}): {names}. Fix: one table holds "
            f"one kind; pass kind={kinds[0]!r}, or split the table."
        )
    needs = "; ".join(f"{kind}: {', '.join(REQUIRED[kind])}" for kind in KINDS)
    raise JudgementError(
        f"the columns fit no kind of judgement: {names}. Fix: rename the columns to those of one kind ({needs}), or "
        f"TRL's prompt, chosen, rejected; or pass kind= for a message that lists what is missing."
    )


def _check_columns(table: pd.DataFrame, kind: str, original: list[Any]) -> None:
    """Refuse missing columns and likely misspellings; warn of columns that will not be used."""
    known = [*REQUIRED[kind], *OPTIONAL[kind]]
    unknown = [str(c) for c in table.columns if c not in known and not str(c).startswith("rater:")]
    missing = [c for c in REQUIRED[kind] if c not in table]
    problems = []
    for column in missing:
        hint = did_you_mean(column, unknown).replace("Did you mean", "Is it")
        fix = "add a column that says who judged" if column == "rater_id" else "add or rename it"
        problems.append(f"  column {column!r} is missing.{hint} Fix: {fix}.")
    # 'country' is a trait more often than a misspelt 'count'.
    absent = [c for c in known if c not in table and c not in missing and c != "count"]
    for column in unknown:
        hint = did_you_mean(column, [*absent, "rater:"] if ":" in column else absent)
        if hint and not missing:
            problems.append(
                f"  column {column!r} is unknown.{hint} Fix: rename it, or drop it if it is something else."
            )
    if problems:
        names = ", ".join(map(repr, original))
        raise JudgementError("\n".join([f"the columns do not make a {kind!r} table ({names}):", *problems]))
    if unknown:
        names = ", ".join(map(repr, unknown))
        message = f"columns not used: {names}. To keep one as a trait of the rater, rename it to 'rater:<name>'."
        warnings.warn(message, JudgementWarning, stacklevel=4)


def _warn_of_position(out: pd.DataFrame) -> None:
    """Warn if all pairs prefer the response that was shown first, or all the other: their place explains them all."""
    decided = out[out["choice"] != "tie"]
    first = decided["choice"] == decided["shown_first"]
    if len(decided) < _MANY_PAIRS or decided["shown_first"].isna().any() or first.nunique() > 1:
        return
    which = "first" if first.iloc[0] else "second"
    warnings.warn(
        f"column 'shown_first': every one of {len(first):,} pairs prefers the response that was shown {which}, so "
        "that its place explains all answers and its text none. If the column holds the order of the file, not that "
        "on the screen, drop it; if not, nothing can be learnt of the texts.",
        JudgementWarning,
        stacklevel=4,
    )


def _warn_thin(kind: str, out: pd.DataFrame) -> None:
    """Warn of raters and items with one judgement, and of raters whose trait changes."""
    if kind == "soft" or (out["rater_id"] == ANONYMOUS).all():
        return
    for column, units, consequence in (
        ("rater_id", "raters", "nothing tells which cluster they belong to beyond that one answer"),
        ("item_id", "items", "nobody disagrees about them"),
    ):
        counts = out[column].value_counts(sort=False)
        single = counts.index[counts == 1]
        if len(single):
            names = ", ".join(map(repr, single[:3])) + (", ..." if len(single) > 3 else "")
            share = f"{len(single):,} of {len(counts):,} {units} have one judgement ({names})"
            message = f"{share}: {consequence}. They are kept; drop them if unwanted."
            warnings.warn(message, JudgementWarning, stacklevel=4)
    for trait in [c for c in out if str(c).startswith("rater:")]:
        pairs = out[["rater_id", trait]].drop_duplicates()
        several = pairs["rater_id"][pairs["rater_id"].duplicated()].unique()
        if len(several):
            fault = f"column {trait!r}: {len(several):,} raters have more than one value, e.g. {several[0]!r}"
            message = (
                f"{fault}. If ids restart in every sample, these are different people: join the ids in the column "
                "map, e.g. rater_id: [sample, id]. If not, give each rater one value: baselines use one of them."
            )
            warnings.warn(message, JudgementWarning, stacklevel=4)
