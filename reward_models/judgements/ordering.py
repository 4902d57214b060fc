"""One order of a judgement table, whatever the order of its rows: by rater, then by item, numbers in names as numbers.

What draws raters, items or judgements at random draws them by their places. In this order the same table gives the
same draws, and sums run in the same order. Knows nothing of models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from reward_models.judgements.items import MADE_ID, first_rows
from reward_models.judgements.texts import freeze_prompt


__all__ = ["item_order", "natural_key", "row_order"]

_DIGITS = re.compile(r"([0-9]+)")
_READ = 300  # characters of a text that are compared part by part; what follows is compared as it is
_CONTENT = ("response", "response_a", "response_b", "options")


def natural_key(text: str) -> tuple[tuple[object, ...], str]:
    """Return the key by which names are sorted as people number them; different texts have different keys.

    Example:
        >>> sorted(["q10", "q9", "a 2", "q09"], key=natural_key)
        ['a 2', 'q09', 'q9', 'q10']
    """
    parts = _DIGITS.split(text[:_READ])
    numbers = ((len(digits), digits) for digits in (part.lstrip("0") for part in parts[1::2]))
    return tuple(part for pair in zip(parts[::2], (*numbers, ()), strict=True) for part in pair), text


def item_order(frame: pd.DataFrame) -> list[str]:
    """Return the item ids of a canonical table in order: by id, or by the texts where ids were made of the texts.

    Example:
        >>> table = {"item_id": ["q10", "q9", "q10"], "prompt": ["Tea?", "Milk?", "Tea?"]}
        >>> item_order(pd.DataFrame(table))
        ['q9', 'q10']
    """
    code, ids = pd.factorize(frame["item_id"])
    columns = ["prompt", *(column for column in _CONTENT if column in frame)]
    first = frame[columns].iloc[first_rows(code, len(ids))]

    def key(item: str, texts: Sequence[object]) -> tuple[object, ...]:
        if not MADE_ID.fullmatch(item):
            return (0, natural_key(item))
        prompt, *contents = (_plain(text) for text in texts)
        return (1, *map(natural_key, [prompt, *sorted(contents)]), item)

    keys = {item: key(item, texts) for item, *texts in zip(ids, *(first[c] for c in columns), strict=True)}
    return sorted(ids, key=keys.__getitem__)


def row_order(frame: pd.DataFrame, items: Sequence[str] | None = None) -> np.ndarray:
    """Return (N,) the rows of a canonical table by rater and item.

    Rows of which both are equal (raters who are not known by name) are ordered by what they say.

    Args:
        frame: `N` rows; the columns `rater_id` and `item_id` are used as far as they are there.
        items: The item ids in order, if `item_order` has been called already.

    Example:
        >>> table = pd.DataFrame({"rater_id": ["r10", "r9", "r9"], "item_id": ["x", "y", "x"]})
        >>> row_order(table, items=["x", "y"]).tolist()
        [2, 1, 0]
    """
    place = np.zeros(len(frame), dtype=np.int64)
    if "rater_id" in frame:
        code, raters = pd.factorize(frame["rater_id"])
        place = _places([str(rater) for rater in raters])[code]
    if "item_id" in frame:
        ids = items if items is not None else item_order(frame)
        place = place * len(ids) + pd.Categorical(frame["item_id"], categories=list(ids)).codes
    order = np.argsort(place, kind="stable")
    same = np.diff(place[order]) == 0
    tied = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
    if len(tied) and "item_id" in frame:
        rows = order[tied]
        contents = _contents(frame.iloc[rows])
        order[tied] = rows[sorted(range(len(rows)), key=lambda n: (place[rows[n]], contents[n]))]
    return order


def _places(names: Sequence[str]) -> np.ndarray:
    """Return the place of each name among all in order."""
    places = np.empty(len(names), dtype=np.int64)
    places[sorted(range(len(names)), key=lambda n: natural_key(names[n]))] = np.arange(len(names))
    return places


def _contents(rows: pd.DataFrame) -> list[str]:
    """Return what each row says, as one text, without the traits of the rater."""
    columns = sorted(column for column in map(str, rows) if not column.startswith("rater:"))
    return [repr(cells) for cells in zip(*(rows[column].tolist() for column in columns), strict=True)]


def _plain(text: Any) -> str:
    """Return a prompt, a response or options as one text."""
    if isinstance(text, str):
        return text
    parts = freeze_prompt(text) if isinstance(text, list) else text
    return "\n".join(part if isinstance(part, str) else ": ".join(part) for part in parts)
