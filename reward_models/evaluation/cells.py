"""Sort test judgements by what a model may have seen: {seen, unseen rater} x {seen, unseen prompt}.

`judgements.splits` divides one table before a model is fitted; this module sorts tables for a model that was fitted
elsewhere. Labels for adapting to unseen raters and labels that are scored are disjoint. Knows nothing of models.
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


__all__ = ["ADAPTED", "Cells", "evaluation_cells"]

ADAPTED = "adapted rater"
"""The only case if the training judgements are not known."""


@dataclass(frozen=True)
class Cells:
    """Judgements sorted by what a model may have seen of them.

    Attributes:
        scored: Judgements to score, by case, e.g. `"unseen rater, seen prompt"`.
        adapt: Labels for adapting to the unseen raters, none of them scored; None if there are none.
        empty: Why a case is missing, by case.

    Example:
        >>> from reward_models import planted_judgements
        >>> cells = evaluation_cells(planted_judgements(num_raters=10, num_items=4).judgements)
        >>> {case: len(table) for case, table in cells.scored.items()}, len(cells.adapt)
        ({'adapted rater': 20}, 20)
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
    """Sort test judgements into cases and reserve labels for adapting to unseen raters.

    Args:
        test: Judgements that no model was fitted to.
        train: Judgements that the models were fitted to; None if they are not known: models then adapt to every rater.
        adapt_share: Share of an unseen rater's labels that models adapt by, in (0, 1); a single label is scored.
        by: What must be in `train` for a judgement to be about something seen: its `"prompt"`, or its `"item"`, e.g. a
            statement of a known conversation.
        seed: Random seed of the choice of labels.

    Raises:
        JudgementError: Different kinds, a table without raters, judgements that are in both tables, or a share outside
            (0, 1).

    Example:
        >>> from reward_models import planted_judgements, split_raters
        >>> train, test = split_raters(planted_judgements(num_raters=10, num_items=4).judgements, 0.5, seed=0)
        >>> cells = evaluation_cells(test, train)
        >>> list(cells.scored), cells.empty["seen rater, seen prompt"]
        (['unseen rater, seen prompt'], 'no test judgement is of a seen rater and a seen prompt')
    """
    if test.kind == "soft":
        raise JudgementError(
            "kind='soft': answer shares do not say who answered, and an evaluation needs raters. Fix: use judgements "
            "with rater_id."
        )
    if train is None:
        adapt, scored = adaptation_split(test, adapt_share, seed)
        return Cells({ADAPTED: scored}, adapt if len(adapt) else None, {})
    if train.kind != test.kind:
        raise JudgementError(f"train holds {train.kind!r} judgements and test {test.kind!r}. Fix: use one kind.")
    _refuse_overlap(train, test)
    known = test.frame["rater_id"].isin(train.raters).to_numpy(dtype=bool)
    sides = {"seen": test.select(known), "unseen": test.select(~known)}
    reserved = None
    if len(sides["unseen"]):
        reserved, sides["unseen"] = adaptation_split(sides["unseen"], adapt_share, seed)
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
                empty[case] = f"no test judgement is of a {rater_side} rater and a {ground_side} {by}"
    return Cells(cases, reserved if reserved is not None and len(reserved) else None, empty)


def _refuse_overlap(train: Judgements, test: Judgements) -> None:
    """Raise if the tables share a judgement of a named rater."""
    columns = ["rater_id", "item_id"]
    named = test.frame.loc[test.frame["rater_id"] != ANONYMOUS, columns]
    both = named.merge(train.frame[columns].drop_duplicates(), on=columns)
    if len(both):
        rater, item = both.iloc[0]
        raise JudgementError(
            f"{len(both):,} of {len(test):,} test judgements are in the training table, too, e.g. rater {rater!r} on "
            f"item {item!r}: models would be scored on what they were fitted to. Fix: remove them from one table."
        )


def _ground(judgements: Judgements, by: By) -> pd.Series:
    """Return what each judgement is about: its item, or its prompt."""
    return judgements.frame["item_id"] if by == "item" else judgements.frame["prompt"].map(freeze_prompt)
