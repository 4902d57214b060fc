"""Name the items of a judgement table, and find items and judgements that contradict each other.

An item is one question with its options, one pair of responses (in either order), or one response to a prompt. Knows
nothing of answers.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings

import numpy as np
import pandas as pd

from reward_models.errors import JudgementWarning
from reward_models.judgements.faults import Faults
from reward_models.judgements.texts import freeze_prompt, prompt_codes


__all__ = [
    "ANONYMOUS",
    "CONTENT",
    "DUPLICATES",
    "MADE_ID",
    "check_duplicates",
    "check_items",
    "first_rows",
    "one_option_order",
]

ANONYMOUS = "anonymous"
MADE_ID = re.compile(r"item-[0-9a-f]{12}")
"""Item ids that were made of the texts, see `check_items`."""
DUPLICATES = ("refuse", "first", "last", "drop")
"""What may be done where a rater judged an item more than once."""
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
        faults: Receives item ids that stand for different texts.

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
    return item_id


def one_option_order(table: pd.DataFrame, faults: Faults) -> pd.DataFrame:
    """Give the options of a question one order where rows have them in several, as surveys do that shuffle them.

    It is the most frequent order, and of equally frequent ones the first by alphabet. Answers are renumbered.

    Args:
        table: `N` rows with `prompt`, `options` and `choice` or `probs`, and perhaps `item_id`.
        faults: Rows already at fault are left as they are.

    Warns:
        JudgementWarning: Number of such questions.

    Example:
        >>> rows = [("Tea?", ("yes", "no"), 0), ("Tea?", ("no", "yes"), 0), ("Tea?", ("yes", "no"), 1)]
        >>> table = pd.DataFrame(rows, columns=["prompt", "options", "choice"])
        >>> with warnings.catch_warnings(action="ignore"):
        ...     one_option_order(table, Faults(3))["choice"].tolist()
        [0, 1, 1]
    """
    code, offered = pd.factorize(table["options"])
    alphabetical = [tuple(sorted(options, key=str)) for options in offered]
    if len(set(alphabetical)) == len(offered):
        return table
    usable = np.flatnonzero(~faults.bad)
    content, _ = pd.factorize(np.fromiter(alphabetical, object, len(offered)))
    parts = [pd.Series(prompt_codes(table["prompt"].iloc[usable])), pd.Series(content[code[usable]])]
    if "item_id" in table:
        parts.append(pd.Series(pd.factorize(table["item_id"].iloc[usable])[0]))
    question = pd.DataFrame(dict(enumerate(parts))).groupby(list(range(len(parts)))).ngroup().to_numpy()
    pairs, number = np.unique(np.stack([question, code[usable]]), axis=1, return_counts=True)
    ranked = sorted(zip(*pairs.tolist(), number.tolist(), strict=True), key=lambda row: (-row[2], offered[row[1]]))
    order: dict[int, int] = {}
    for of_question, options, _ in ranked:
        order.setdefault(of_question, options)
    wanted = np.array([order[n] for n in range(len(order))], dtype=np.int64)[question]
    turned = usable[code[usable] != wanted]
    if not len(turned):
        return table
    table = table.copy()
    answer = "choice" if "choice" in table else "probs"
    options, answers = table["options"].tolist(), table[answer].tolist()
    for row, target in zip(turned, wanted[code[usable] != wanted], strict=True):
        former, options[row] = options[row], offered[target]
        places = [former.index(option) for option in options[row]]
        answers[row] = places.index(answers[row]) if answer == "choice" else tuple(answers[row][n] for n in places)
    table["options"], table[answer] = pd.Series(options, table.index), pd.Series(answers, table.index)
    several = len(np.unique(question[code[usable] != wanted]))
    warnings.warn(
        f"{several:,} question{'s offer their' if several > 1 else ' offers its'} options in several orders, e.g. "
        f"{options[turned[0]]}. The most frequent order is used for all judgements of a question ({len(turned):,} are "
        "renumbered); where an option stood is not used.",
        JudgementWarning,
        stacklevel=5,
    )
    return table


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


def check_duplicates(table: pd.DataFrame, faults: Faults, duplicates: str) -> np.ndarray:
    """Find the judgements of raters who judged an item more than once.

    Raters who are not known by name (`rater_id` "anonymous") may repeat an item.

    Args:
        table: `N` rows with `rater_id`, `item_id` and an answer.
        faults: Receives the repeated judgements if they are refused.
        duplicates: One of `DUPLICATES`.

    Returns:
        (N,) rows to leave out: all but the first or the last judgement, or all of them ("drop").

    Warns:
        JudgementWarning: Number of judgements that are left out, and whether they contradict those kept.

    Example:
        >>> table = pd.DataFrame({"rater_id": ["ann"] * 3, "item_id": ["q1", "q2", "q1"], "rating": [1, 2, 1]})
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     check_duplicates(table, Faults(3), "last").tolist()
        [True, False, False]
    """
    usable = ~faults.bad & (table["rater_id"] != ANONYMOUS).to_numpy(dtype=bool) & table["item_id"].notna().to_numpy()
    rows = np.flatnonzero(usable)
    rater, _ = pd.factorize(table["rater_id"].iloc[rows])
    item, items = pd.factorize(table["item_id"].iloc[rows])
    number, first = _number(rater.astype(np.int64) * max(len(items), 1) + item)
    first_row = rows[first][number]
    again = first_row != rows
    out = np.zeros(len(table), dtype=bool)
    if not again.any():
        return out
    if duplicates == "refuse":
        reasons = [
            f"judged item {table['item_id'].iat[row]!r} already in row {earlier}"
            for row, earlier in zip(rows[again], first_row[again], strict=True)
        ]
        fix = (
            "keep one of the two with duplicates='first' or 'last' ('drop' keeps none), or give the second occasion "
            "its own item_id; if ids restart in every sample, these are different people: join the ids in the column "
            "map, rater_id: [sample, id]"
        )
        faults.add(rows[again], "rater_id", table["rater_id"].tolist(), reasons, fix)
        return out
    size = np.bincount(number)[number]
    last = np.zeros(len(first), dtype=np.int64)
    np.maximum.at(last, number, rows)
    out[rows] = {"first": again, "last": rows != last[number], "drop": size > 1}[duplicates]
    answers = _answers(table).iloc[rows].groupby(number).nunique()
    kept = "none is kept" if duplicates == "drop" else f"the {duplicates} is kept"
    warnings.warn(
        f"{int((np.bincount(number) > 1).sum()):,} times a rater judged an item more than once, and "
        f"{int((answers > 1).sum()):,} times in different ways; {kept}: {int(out.sum()):,} judgements are left out.",
        JudgementWarning,
        stacklevel=5,
    )
    return out


def _answers(table: pd.DataFrame) -> pd.Series:
    """Return (N,) answers that are equal where they mean the same: of a pair, the response that was preferred."""
    if "rating" in table or "response_a" not in table:
        return table["rating"] if "rating" in table else table["choice"]
    preferred = table["response_a"].where(table["choice"] == "a", table["response_b"])
    return preferred.mask(table["choice"] == "tie", "")
