"""Name the items of a judgement table, and find items and judgements that contradict each other.

An item is one question with its options, one pair of responses (in either order), or one response to a prompt. Knows
nothing of answers.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd

from reward_models.judgements.faults import Faults
from reward_models.judgements.texts import freeze_prompt


__all__ = ["ANONYMOUS", "CONTENT", "check_items", "first_rows"]

ANONYMOUS = "anonymous"
CONTENT = {
    "preference": ("response_a", "response_b"),
    "rating": ("response",),
    "choice": ("options",),
    "soft": ("options",),
}
"""Columns that say, beside the prompt, which item a row is about."""


def check_items(kind: str, table: pd.DataFrame, faults: Faults) -> pd.Series:
    """Give every row an item id and add contradictions to the faults.

    Rows already at fault are not compared. A table without `item_id` gets one that is a hash of the texts: the
    same in every table, whichever response of a pair is called a.

    Args:
        kind: Kind of judgement.
        table: `N` rows with canonical columns.
        faults: Receives item ids that stand for different texts, and raters who judged an item twice. Raters who are
            not known by name (`rater_id` "anonymous") and published aggregates may repeat an item.

    Returns:
        (N,) item ids.

    Example:
        >>> faults = Faults(2)
        >>> pairs = {"prompt": ["Hi"] * 2, "response_a": ["yes", "no"], "response_b": ["no", "yes"]}
        >>> item_id = check_items("preference", pd.DataFrame({"rater_id": ["ann", "bob"], **pairs}), faults)
        >>> item_id[0] == item_id[1], faults.bad.tolist()
        (True, [False, False])
    """
    usable = ~faults.bad
    prompts = np.fromiter(
        (freeze_prompt(p) if good else None for p, good in zip(table["prompt"], usable, strict=True)),
        object,
        len(table),
    )
    prompt, unique_prompts = pd.factorize(prompts, use_na_sentinel=False)
    columns = CONTENT[kind]
    contents = np.concatenate([table[column].to_numpy(dtype=object) for column in columns])
    contents[~np.tile(usable, len(columns))] = None
    content, unique_contents = pd.factorize(contents, use_na_sentinel=False)
    parts = np.sort(content.reshape(len(columns), -1), axis=0).astype(np.int64)
    key = prompt.astype(np.int64)
    for part in parts:
        key = key * len(unique_contents) + part
    code, first_row = _number(key)

    if "item_id" in table:
        item_id = table["item_id"]
        _check_one_text_per_id(item_id, code, usable, faults)
    else:
        names = np.empty(len(first_row), dtype=object)
        for item, row in enumerate(first_row):
            texts = sorted((unique_contents[p] for p in parts[:, row]), key=str)
            names[item] = _digest([unique_prompts[prompt[row]], *texts])
        item_id = pd.Series(names[code], index=table.index)
    if kind != "soft":
        _check_duplicates(table["rater_id"], item_id, usable, faults)
    return item_id


def first_rows(code: np.ndarray, n_codes: int) -> np.ndarray:
    """Find the first row in which each code occurs.

    Args:
        code: (N,) codes from 0.
        n_codes: Number of codes `C`; each must occur.

    Returns:
        (C,) row numbers.

    Example:
        >>> first_rows(np.array([0, 0, 1, 0, 2]), 3).tolist()
        [0, 2, 4]
    """
    first = np.full(n_codes, len(code), dtype=np.int64)
    np.minimum.at(first, code, np.arange(len(code)))
    return first


def _number(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number keys in order of first appearance: (N,) codes and the first row of each."""
    code, unique = pd.factorize(key)
    return code, first_rows(code, len(unique))


def _digest(texts: list[object]) -> str:
    canonical = json.dumps(texts, ensure_ascii=False)
    return "item-" + hashlib.blake2b(canonical.encode(), digest_size=6).hexdigest()


def _check_one_text_per_id(item_id: pd.Series, code: np.ndarray, usable: np.ndarray, faults: Faults) -> None:
    rows = np.flatnonzero(usable)
    number, first = _number(item_id.to_numpy(dtype=object)[rows])
    first_row = rows[first][number]
    differs = code[rows] != code[first_row]
    wrong = rows[differs]
    reasons = [f"stands for another prompt, options or response than in row {row}" for row in first_row[differs][:50]]
    fix = "give each its own item_id, or leave the column out to have it made"
    faults.add(wrong, "item_id", item_id.tolist(), reasons, fix)


def _check_duplicates(rater_id: pd.Series, item_id: pd.Series, usable: np.ndarray, faults: Faults) -> None:
    rows = np.flatnonzero(usable & (rater_id != ANONYMOUS).to_numpy(dtype=bool) & item_id.notna().to_numpy())
    rater, _ = pd.factorize(rater_id.iloc[rows])
    item, items = pd.factorize(item_id.iloc[rows])
    number, first = _number(rater.astype(np.int64) * max(len(items), 1) + item)
    first_row = rows[first][number]
    again = first_row != rows
    reasons = [
        f"judged item {item_id.iat[row]!r} already in row {earlier}"
        for row, earlier in zip(rows[again][:50], first_row[again][:50], strict=True)
    ]
    fix = "keep one of the two judgements, or give the second occasion its own item_id"
    faults.add(rows[again], "rater_id", rater_id.tolist(), reasons, fix)
