"""Rankings and best-worst choices as pairs, or rankings as choices.

A ranking becomes every pair of its texts, which is consistent for the Plackett-Luce model, as pairs of neighbours
alone are not; or, with `kind: choice`, the choice of the best of all, of the best of the rest, and so on, whose
likelihood is that of Plackett-Luce. A best-worst choice says that the best is better than every other text, and every
other text better than the worst. Pairs of one ranking are not independent; bootstraps resample raters.

Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from reward_models.errors import JudgementError, did_you_mean
from reward_models.judgements.faults import Faults
from reward_models.judgements.spelling import code_text, plain_number
from reward_models.sources.formats.cells import Cells
from reward_models.sources.recoding import Meaning, Recoder
from reward_models.sources.renaming import unknown_columns


__all__ = ["best_worst_pairs", "ranked_rows"]

Ranked = list[tuple[str, float]]
"""Texts of one row and their ranks, 1 is the best; infinity is behind all others."""


class _Judgement(NamedTuple):
    row: int
    texts: Sequence[str]
    answer: Any


def ranked_rows(frame: pd.DataFrame, cells: Cells, mapping: Mapping[str, Any], recoder: Recoder) -> pd.DataFrame:
    """Return pairs or choices of the rankings of a file.

    Args:
        frame: (N, ...) what describes a ranking, in canonical columns.
        cells: The file, with a ranking per row.
        mapping: The column map. `ranks` is a mapping from a column that holds a rank to the text that it ranks, or a
            list of columns that hold texts, the best first. `unranked: last` puts texts without a rank behind all
            others; by default they are compared with nothing.
        recoder: What recodes ranks (as `rating`) and texts (as `choice`).

    Raises:
        JudgementError: A cell is no rank, a text is there twice in a row, or texts share a rank and `kind` is choice.

    Example:
        >>> cells = Cells(pd.DataFrame({"parks": ["1", "2"], "trams": ["2", "1"], "roads": ["3", None]}))
        >>> mapping = {"ranks": {"parks": "More parks", "trams": "More trams", "roads": "More roads"}}
        >>> pairs = ranked_rows(pd.DataFrame({"rater_id": ["ann", "bob"]}), cells, mapping, Recoder(mapping))
        >>> pairs.values.tolist()
        [['ann', 'More parks', 'More trams', 'a'], ['ann', 'More parks', 'More roads', 'a'],
         ['ann', 'More trams', 'More roads', 'a'], ['bob', 'More parks', 'More trams', 'b']]
    """
    ranks = mapping["ranks"]
    unknown = unknown_columns({"ranks": list(ranks)}, cells)
    if unknown:
        raise JudgementError(f"{unknown[0]} Fix: choose from: {', '.join(map(repr, cells.frame.columns))}.")
    rankings = _by_text(ranks, cells, recoder) if isinstance(ranks, Mapping) else _by_place(ranks, cells, recoder)
    if mapping.get("unranked") != "last":
        rankings = [[(text, rank) for text, rank in ranking if rank < np.inf] for ranking in rankings]
    if mapping.get("kind") == "choice":
        chosen = [one for row, ranked in enumerate(rankings) for one in _choices(row, ranked)]
        options = pd.Series([one.texts for one in chosen], dtype=object)
        return _rows_of(frame, chosen).assign(options=options, choice=[one.answer for one in chosen])
    return _in_columns(frame, [one for row, ranked in enumerate(rankings) for one in _pairs(row, ranked)])


def _by_text(ranks: Mapping[str, str], cells: Cells, recoder: Recoder) -> list[Ranked]:
    faults = Faults(len(cells.frame))
    columns = {}
    for column, text in ranks.items():
        stated, _ = recoder.recode(cells.frame[column], "rating", Meaning(declared=cells.missing.get(column, {})))
        numbers = [plain_number(cell) if isinstance(cell, str) else None for cell in stated]
        wrong = [cell is not None and number is None for cell, number in zip(stated, numbers, strict=True)]
        faults.add(np.array(wrong), column, stated.tolist(), "is not a rank", "recode it under values: rating")
        columns[str(text)] = [np.inf if number is None else number for number in numbers]
    faults.raise_if_any()
    return [[(text, column[row]) for text, column in columns.items()] for row in range(len(cells.frame))]


def _by_place(ranks: Sequence[str], cells: Cells, recoder: Recoder) -> list[Ranked]:
    faults = Faults(len(cells.frame))
    texts = []
    for column in ranks:
        meaning = Meaning(cells.labels.get(column, {}), cells.missing.get(column, {}))
        texts.append(recoder.recode(cells.frame[column], "choice", meaning, labelled=True)[0])
    rankings = [[cell for cell in row if cell is not None] for row in zip(*texts, strict=True)]
    twice = np.array([len(set(row)) < len(row) for row in rankings])
    faults.add(twice, " > ".join(ranks), rankings, "ranks a text twice", "correct it or drop the row")
    faults.raise_if_any()
    # In one order in all rows, so that a pair has the same sides.
    return [sorted((text, float(rank)) for rank, text in enumerate(row, 1)) for row in rankings]


def _pairs(row: int, ranked: Ranked) -> Iterator[_Judgement]:
    for (a, rank_a), (b, rank_b) in combinations(ranked, 2):
        if min(rank_a, rank_b) < np.inf:
            yield _Judgement(row, (a, b), "tie" if rank_a == rank_b else ("a" if rank_a < rank_b else "b"))


def _choices(row: int, ranked: Ranked) -> Iterator[_Judgement]:
    left = dict(ranked)
    for text, rank in sorted(ranked, key=lambda pair: pair[1]):
        if rank == np.inf or len(left) == 1:
            return
        if list(left.values()).count(rank) > 1:
            raise JudgementError(
                f"row {row}: two texts have rank {rank:g}, which is no choice. Fix: kind: preference, which has ties."
            )
        yield _Judgement(row, tuple(left), text)
        del left[text]


def best_worst_pairs(
    frame: pd.DataFrame, shown: Sequence[Sequence[str]], cells: Cells, mapping: Mapping[str, Any], recoder: Recoder
) -> pd.DataFrame:
    """Return the pairs of best-worst choices.

    Args:
        frame: (N, ...) a task per row in canonical columns; `best` and `worst` hold texts, or their places in `shown`
            if the map has `index`. One of the two may be empty.
        shown: (N,) the texts that each task showed.
        cells: The file.
        mapping: The column map.
        recoder: What recodes `best` and `worst` (as `choice`).

    Raises:
        JudgementError: A best or worst text was not shown, or they are the same.

    Example:
        >>> frame = pd.DataFrame({"rater_id": ["ann"], "best": ["tea"], "worst": ["milk"]})
        >>> shown = [("tea", "milk", "water")]
        >>> best_worst_pairs(frame, shown, Cells(frame), {}, Recoder({})).values.tolist()
        [['ann', 'tea', 'milk', 'a'], ['ann', 'tea', 'water', 'a'], ['ann', 'milk', 'water', 'b']]
    """
    faults = Faults(len(frame))
    ends: dict[str, list[Any]] = {}
    for end in ("best", "worst"):
        source = mapping.get("columns", {}).get(end, end)
        meaning = Meaning(cells.labels.get(source, {}), cells.missing.get(source, {}))
        stated, _ = recoder.recode(frame[end], "choice", meaning, labelled="index" not in mapping)
        ends[end] = [_shown_text(cell, texts, mapping.get("index")) for cell, texts in zip(stated, shown, strict=True)]
        wrong = [row for row, text in enumerate(ends[end]) if text is not None and text not in shown[row]]
        reasons = [
            f"is not one of the texts shown, {', '.join(map(repr, shown[row]))}."
            f"{did_you_mean(ends[end][row], shown[row])}"
            for row in wrong
        ]
        faults.add(np.array(wrong, dtype=int), end, stated.tolist(), reasons, "recode it under values: choice")
    same = np.array(
        [best is not None and best == worst for best, worst in zip(ends["best"], ends["worst"], strict=True)]
    )
    faults.add(same, "worst", ends["worst"], "is the best text, too", "drop the row")
    faults.raise_if_any()
    rows = zip(shown, ends["best"], ends["worst"], strict=True)
    judgements = []
    for row, (texts, best, worst) in enumerate(rows):
        rank = {text: 1.0 if text == best else (3.0 if text == worst else 2.0) for text in texts}
        judgements += [one for one in _pairs(row, list(rank.items())) if one.answer != "tie"]
    return _in_columns(frame.drop(columns=["best", "worst"]), judgements)


def _shown_text(cell: Any, texts: Sequence[str], first: int | None) -> Any:
    """Return the text of a place in the list; texts as they are shown in whichever spelling of a code."""
    if cell is None:
        return None
    code = code_text(cell)
    if first is not None and code.isdigit():
        place = int(code) - first
        return texts[place] if 0 <= place < len(texts) else cell
    return next((text for text in texts if code_text(text) == code), cell)


def _in_columns(frame: pd.DataFrame, pairs: Sequence[_Judgement]) -> pd.DataFrame:
    """Return pairs in canonical columns, beside what the frame says of their rows."""
    sides = {f"response_{side}": [one.texts[place] for one in pairs] for place, side in enumerate("ab")}
    return _rows_of(frame, pairs).assign(**sides, choice=[one.answer for one in pairs])


def _rows_of(frame: pd.DataFrame, judgements: Sequence[_Judgement]) -> pd.DataFrame:
    return frame.iloc[[one.row for one in judgements]].reset_index(drop=True)
