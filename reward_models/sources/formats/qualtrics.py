"""Recognise a file that Qualtrics exported, whose first three rows are titles: names, wordings and import ids.

Knows nothing of file formats and of judgements.
"""

from __future__ import annotations

import dataclasses
import re
import warnings

from reward_models.errors import JudgementWarning
from reward_models.sources.formats.cells import Cells


__all__ = ["without_title_rows"]

_IMPORT_ID = re.compile(r'\s*\{\s*"ImportId"\s*:.*\}\s*', re.DOTALL)
_TAG = re.compile(r"<[^<>]+>")


def without_title_rows(cells: Cells, name: str) -> Cells:
    """Return the cells of a file without the second and third row of titles of Qualtrics.

    The second row has the wordings of the questions, which describe the columns from then on; the third has the ids by
    which Qualtrics imports the file again, such as `{"ImportId":"QID1"}`. Files of other programs are returned as they
    are, and so are exports from which these two rows were deleted.

    Args:
        cells: The file; its first row has named the columns.
        name: Name of the file, for the warning.

    Warns:
        JudgementWarning: The file is such an export.

    Example:
        >>> import pandas as pd
        >>> rows = {"ResponseId": ["Response ID", '{"ImportId":"_recordId"}', "R_1"]}
        >>> rows |= {"Q1": ["More parks?", '{"ImportId":"QID1"}', "yes"]}
        >>> with warnings.catch_warnings(action="ignore"):
        ...     cells = without_title_rows(Cells(pd.DataFrame(rows)), "answers.csv")
        >>> cells.frame.values.tolist(), cells.wordings["Q1"]
        ([['R_1', 'yes']], 'More parks?')
    """
    frame = cells.frame
    titles = next((row for row in range(min(2, len(frame))) if _is_import_row(frame.iloc[row].tolist())), None)
    if titles is None:
        return cells
    wordings = {}
    if titles == 1:
        written = zip(frame.columns, frame.iloc[0].tolist(), strict=True)
        wordings = {str(column): _plain(text) for column, text in written if isinstance(text, str)}
    warnings.warn(
        f"{name} is an export of Qualtrics: its second row is read as the wordings of the questions, and its row of "
        "import ids is left out. Test answers (Status 'Survey Preview') and unfinished ones (Finished) are still in "
        "it: delete them if they should not count.",
        JudgementWarning,
        stacklevel=5,
    )
    body = frame.iloc[titles + 1 :].reset_index(drop=True)
    return dataclasses.replace(cells, frame=body, wordings={**wordings, **cells.wordings})


def _is_import_row(row: list[object]) -> bool:
    texts = [cell for cell in row if isinstance(cell, str)]
    return bool(texts) and all(_IMPORT_ID.fullmatch(text) for text in texts)


def _plain(text: str) -> str:
    """Return a wording without the tags and line breaks that the editor of Qualtrics leaves in it."""
    return " ".join(_TAG.sub(" ", text).split())
