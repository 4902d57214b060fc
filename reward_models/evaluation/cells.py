"""Sorts test judgements by what a model may have seen: {seen, unseen rater} x {seen, unseen prompt}.

Unlike `splits`, which divides one table before anything is fitted, this takes the tables as they are, for a jury that
was fitted elsewhere. Labels that place unseen raters and labels that are scored are disjoint by construction. Knows
nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from reward_models.errors import JudgementError
from reward_models.judgements.items import ANONYMOUS
from reward_models.judgements.records import Judgements
from reward_models.judgements.splits import By, adaptation_split
from reward_models.judgements.texts import freeze_prompt


__all__ = ["PLACED", "Cells", "evaluation_cells"]

PLACED = "placed rater"
"""The one case when nobody says what was seen."""


@dataclass(frozen=True)
class Cells:
    """Judgements sorted by what a model may have seen of them.

    Attributes:
        scored: Judgements to score, by case, e.g. `"unseen rater, seen prompt"`.
        adapt: Labels that place the unseen raters, none of them scored; None if there are none.
        empty: Why a case is missing, by case.
    """

    scored: dict[str, Judgements]
    adapt: Judgements | None
    empty: dict[str, str]


def evaluation_cells(
    test: Judgements,
    train: Judgements | None = None,
    *,
    adapt_share: float = 0.5,
    by: By = "prompt",
    seed: int = 0,
) -> Cells:
    """Sort test judgements into cases and set the labels aside that place unseen raters.

    Args:
        test: Judgements that no model was fitted to.
        train: Judgements that the models were fitted to; None if that is not known, and every rater is adapted.
        adapt_share: Share of an unseen rater's labels that places them, in (0, 1); a single label is scored.
        by: What makes a judgement's ground seen: `"prompt"`, or `"item"`, e.g. a statement of a known conversation.
        seed: Of the choice of labels.

    Raises:
        JudgementError: Different kinds, a table without raters, judgements that are in both tables, or a share outside
            (0, 1).
    """
    if test.kind == "soft":
        raise JudgementError(
            "kind='soft': answer shares do not say who answered, and an evaluation needs raters. Fix: use judgements "
            "with rater_id."
        )
    if train is None:
        adapt, scored = adaptation_split(test, adapt_share, seed)
        return Cells({PLACED: scored}, adapt if len(adapt) else None, {})
    if train.kind != test.kind:
        raise JudgementError(f"train holds {train.kind!r} judgements and test {test.kind!r}. Fix: use one kind.")
    _refuse_overlap(train, test)
    known = test.frame["rater_id"].isin(train.raters).to_numpy(dtype=bool)
    sides = {"seen": test.select(known), "unseen": test.select(~known)}
    placing = None
    if len(sides["unseen"]):
        placing, sides["unseen"] = adaptation_split(sides["unseen"], adapt_share, seed)
    known_ground = set(_ground(train, by))
    cases: dict[str, Judgements] = {}
    empty: dict[str, str] = {}
    for rater_side, table in sides.items():
        seen = np.array([ground in known_ground for ground in _ground(table, by)], dtype=bool)
        for ground_side, here in (("seen", seen), ("unseen", ~seen)):
            case = f"{rater_side} rater, {ground_side} {by}"
            if here.any():
                cases[case] = table.select(here)
            else:
                empty[case] = f"the test judgements hold no {by} that is {ground_side} of a rater that is {rater_side}"
    return Cells(cases, placing if placing is not None and len(placing) else None, empty)


def _refuse_overlap(train: Judgements, test: Judgements) -> None:
    """Refuse tables that share a judgement, unless nobody is known by name."""
    columns = ["rater_id", "item_id"]
    named = test.frame.loc[test.frame["rater_id"] != ANONYMOUS, columns]
    both = named.merge(train.frame[columns].drop_duplicates(), on=columns)
    if len(both):
        rater, item = both.iloc[0]
        raise JudgementError(
            f"{len(both):,} of {len(test):,} test judgements are in the training table, too, e.g. rater {rater!r} on "
            f"item {item!r}: models would be scored on what they were fitted to. Fix: take them out of one table."
        )


def _ground(judgements: Judgements, by: By) -> pd.Series:
    """What each judgement is about: its item, or its prompt."""
    return judgements.frame["item_id"] if by == "item" else judgements.frame["prompt"].map(freeze_prompt)
