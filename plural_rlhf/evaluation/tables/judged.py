"""Tables of judgements as tables of distributions: how the raters, or each group of them, answered every item.

Knows no source: `reward_models.load_survey`, `load_release` and `load_table` read them.

Shapes: `R` raters, `A` options.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from plural_rlhf.evaluation.distribution.items import DistributionItem, counted_item
from reward_models.errors import JudgementError, did_you_mean
from reward_models.judgements.records import Judgements


__all__ = ["judgement_items"]

LEAST_ANSWERS = 10  # of a group to an item, below which a distribution says next to nothing


def judgement_items(
    judgements: Judgements,
    *,
    by: str | None = None,
    preface: str = "",
    least: int = LEAST_ANSWERS,
    ordinal: bool | None = None,
) -> list[DistributionItem]:
    """Count how each item was answered, by all raters or by each group of a trait.

    Judgements of the kinds `choice` (options of a question), `rating` (the levels are the options) and `soft`
    (published shares) can be counted. Without `by` the answers of single raters are kept, so that intervals resample
    raters; this needs a `choice` or `rating` table without sampling weights. Sampling weights and counts of equal
    judgements count in the shares, and `n` is then the number of people of equal weight (Kish).

    Args:
        judgements: The table.
        by: A trait, e.g. `"party"`; each of its groups that answered an item makes an item of its own.
        preface: Text before each question; `{group}` in it stands for the group.
        least: Fewest answers of a group to an item; items with fewer are left out. Published shares without a number
            of people count as enough.
        ordinal: Whether the options are in an order; None: for ratings only.

    Raises:
        JudgementError: The table holds preferences, or has no such trait, or nothing is left.

    Example:
        >>> from reward_models import planted_judgements
        >>> items = judgement_items(planted_judgements("choice", num_raters=40, num_items=3).judgements)
        >>> len(items), items[0].n, items[0].people.sum().round(6).item(), items[0].answers.shape
        (3, 40, 1.0, (40,))
    """
    if judgements.kind == "preference":
        raise JudgementError(
            "a table of preferences has no distribution over options per item. Fix: pass choices, ratings or shares."
        )
    frame = judgements.frame
    column = None if by is None else _trait_column(judgements, by)
    weighted = bool({"rater_weight", "count"} & set(frame.columns))
    keep_answers = by is None and judgements.kind != "soft" and not weighted
    raters = {rater: row for row, rater in enumerate(judgements.raters)} if keep_answers else {}
    ordered = judgements.kind == "rating" if ordinal is None else ordinal
    keys = ["item_id"] if column is None else ["item_id", column]
    items: list[DistributionItem] = []
    for key, rows in frame.groupby(keys, sort=False, dropna=True):
        item_id, group = (*key, "all")[:2]
        text, options = _question(judgements, rows)
        fields: dict[str, Any] = {
            "group": str(group),
            "ordinal": ordered,
            "question": str(item_id),
            "preface": preface.format(group=group),
        }
        name = str(item_id) if column is None else f"{item_id} | {group}"
        if judgements.kind == "soft":
            items += _published(name, text, options, rows, least, fields)
            continue
        chosen = _chosen(judgements, rows)
        times, weight = (
            rows[name].to_numpy(dtype=np.float64) if name in rows else np.ones(len(rows))
            for name in ("count", "rater_weight")
        )
        stands_for = (times * weight).sum()
        people = stands_for**2 / max((times * weight**2).sum(), 1e-300)  # Kish's number, each answer `count` times
        if people < max(least, 1) - 1e-9:
            continue
        counts = np.bincount(chosen, times * weight * people / stands_for, minlength=len(options))
        if keep_answers:
            fields["answers"] = np.full(len(raters), -1)
            fields["answers"][rows["rater_id"].map(raters).to_numpy()] = chosen
        items.append(counted_item(name, text, options, counts, **fields))
    if not items:
        raise JudgementError(f"no item was answered by {least} raters or more. Fix: lower least={least}.")
    return items


def _trait_column(judgements: Judgements, by: str) -> str:
    column = f"rater:{by.removeprefix('rater:')}"
    if column not in judgements.traits:
        known = [trait.removeprefix("rater:") for trait in judgements.traits]
        raise JudgementError(
            f"by={by!r} is no trait of the raters.{did_you_mean(by, known)} Fix: one of {', '.join(known) or 'none'}."
        )
    return column


def _question(judgements: Judgements, rows: pd.DataFrame) -> tuple[str, tuple[str, ...]]:
    first = rows.iloc[0]
    if judgements.kind == "rating":
        levels = judgements.levels or ()
        shown = f"{first['prompt']}\n{first['response']}" if first["prompt"] else str(first["response"])
        return shown, tuple(f"{level:g}" if isinstance(level, float) else str(level) for level in levels)
    return str(first["prompt"]), tuple(map(str, first["options"]))


def _chosen(judgements: Judgements, rows: pd.DataFrame) -> np.ndarray:
    """Return the option of each row's answer; a table lists the options of an item in one order."""
    if judgements.kind == "rating":
        levels = list(judgements.levels or ())
        return np.array([levels.index(rating) for rating in rows["rating"]])
    return rows["choice"].to_numpy(dtype=np.int64)


def _published(
    name: str, text: str, options: tuple[str, ...], rows: pd.DataFrame, least: int, fields: dict[str, Any]
) -> Iterator[DistributionItem]:
    """Yield an item of published shares; several rows of one item are several groups, numbered."""
    for number, (probs, n) in enumerate(
        zip(rows["probs"], rows["n"] if "n" in rows else [1] * len(rows), strict=True)
    ):
        people = None if n == 1 else int(n)
        if people is not None and people < least:
            continue
        shares = np.asarray(probs, dtype=np.float64)
        label = name if len(rows) == 1 else f"{name} | {number}"
        yield DistributionItem(label, text, options, shares / shares.sum(), n=people, **fields)
