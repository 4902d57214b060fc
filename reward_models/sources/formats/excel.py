"""Read an Excel sheet into cells of text. Knows nothing of judgements."""

from __future__ import annotations

import datetime
import re
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pandas as pd

from reward_models.errors import JudgementError, JudgementWarning, MissingExtraError, did_you_mean
from reward_models.sources.formats.cells import Cells, cell_text


if TYPE_CHECKING:
    from openpyxl.cell.cell import Cell
    from openpyxl.workbook import Workbook
    from openpyxl.worksheet.worksheet import Worksheet

__all__ = ["EXCEL", "read_excel"]

EXCEL = (".xlsx", ".xlsm")
Row = list[tuple[Any, str]]
"""Text and kind of each cell."""
_ZEROS = re.compile(r"0+")


def read_excel(path: Path, sheet: str | int | None = None) -> Cells:
    """Read one sheet, whose first row with cells names the columns.

    Texts and numbers are kept as they are shown, `007` included. An error such as `#N/A` is an empty cell.

    Args:
        path: An `.xlsx` or `.xlsm` file.
        sheet: Name of the sheet, or its number from 1; None if one visible sheet only holds rows.

    Returns:
        The cells; those that are dates are listed, because Excel makes dates of texts such as "3-4".

    Raises:
        JudgementError: The file cannot be read, the sheet is unknown, several sheets hold rows and none is named, or
            formulas were saved without their results.
        MissingExtraError: `openpyxl` is not installed.

    Warns:
        JudgementWarning: Cells hold errors.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "votes.xlsx"
        ...     pd.DataFrame({"person": ["007", "7"], "vote": [1, None]}).to_excel(path, index=False)
        ...     read_excel(path).frame.to_dict("list")
        {'person': ['007', '7'], 'vote': ['1', None]}
    """
    try:
        import openpyxl
    except ImportError as error:
        raise MissingExtraError(
            f"{path.name!r} is read with the package 'openpyxl', which is not installed. "
            'Fix: pip install "plural-rlhf[files]".'
        ) from error
    try:
        with path.open("rb") as file:
            workbook = openpyxl.load_workbook(file, read_only=True, data_only=True)
            title, rows = _rows(workbook, sheet, path)
            if _has_formulas(file):
                whole = openpyxl.load_workbook(file, read_only=True, data_only=False)
                _check_results(whole[title], rows, f"{path}, sheet {title!r}")
    except (zipfile.BadZipFile, KeyError) as error:
        fix = "open it and save it as .xlsx again, without a password"
        raise JudgementError(f"{path} cannot be read as {path.suffix}: {error}. Fix: {fix}.") from error
    header, *body = rows = [row for row in rows if _is_filled(row)]
    width = max(place for row in rows for place, (text, _) in enumerate(row, 1) if text is not None)
    names = [header[place][0] if place < len(header) else None for place in range(width)]
    frame, dates, errors = {}, {}, Counter[str]()
    for place in range(width):
        column = [row[place] if place < len(row) else (None, "n") for row in body]
        errors.update(str(text) for text, kind in column if kind == "e")
        frame[place] = pd.Series([None if kind == "e" else text for text, kind in column], dtype=object)
        dates[place] = frozenset(str(text) for text, kind in column if kind == "d")
    table = pd.DataFrame(frame)
    table.columns = pd.Index([name or f"Unnamed: {place}" for place, name in enumerate(names)], dtype=object)
    if errors:
        shown = ", ".join(f"{text}: {count:,}" for text, count in errors.most_common())
        message = f"{path.name}, sheet {title!r}: {errors.total():,} cells hold an error and are empty ({shown})."
        warnings.warn(message, JudgementWarning, stacklevel=4)
    by_name = {str(table.columns[place]).strip(): texts for place, texts in dates.items() if texts}
    return Cells(table, dates=by_name)


def _rows(workbook: Workbook, sheet: str | int | None, path: Path) -> tuple[str, list[Row]]:
    """Return the title of the sheet, and its rows as (text, kind) of each cell."""
    titles = [worksheet.title for worksheet in workbook.worksheets]
    if isinstance(sheet, int) and 1 <= sheet <= len(titles):
        sheet = titles[sheet - 1]
    if sheet is not None and sheet not in titles:
        hint = did_you_mean(sheet, titles)
        raise JudgementError(f"{path} has no sheet {sheet!r}.{hint} Fix: one of {', '.join(map(repr, titles))}.")
    tables = {}
    for worksheet in workbook.worksheets:
        if worksheet.title == sheet or (sheet is None and worksheet.sheet_state == "visible"):
            worksheet.reset_dimensions()  # some programs write a wrong size
            tables[worksheet.title] = [[_cell(cell) for cell in row] for row in worksheet.iter_rows()]
    tables = {title: rows for title, rows in tables.items() if any(map(_is_filled, rows))}
    if not tables:
        raise JudgementError(
            f"{path}: {'the sheet ' + repr(sheet) if sheet else 'every sheet'} is empty. Fix: check it."
        )
    if len(tables) > 1:
        named = ", ".join(f"{title!r} ({sum(map(_is_filled, rows)) - 1:,} rows)" for title, rows in tables.items())
        raise JudgementError(f"{path} has several sheets: {named}. Fix: name one in the column map, e.g. sheet: NAME.")
    return next(iter(tables.items()))


def _is_filled(row: Row) -> bool:
    return any(text is not None for text, _ in row)


def _has_formulas(file: IO[bytes]) -> bool:
    """Return whether any sheet of a workbook holds a formula."""
    with zipfile.ZipFile(file) as parts:
        sheets = [name for name in parts.namelist() if name.startswith("xl/worksheets/") and name.endswith(".xml")]
        return any(re.search(rb"<f[ />]", parts.read(name)) for name in sheets)


def _check_results(worksheet: Worksheet, rows: list[Row], where: str) -> None:
    """Raise if a cell of a sheet holds a formula of which `rows`, read without formulas, has no result.

    Excel stores the result beside the formula; programs that cannot calculate store none, and the cell looks empty.
    """
    worksheet.reset_dimensions()
    lost = [
        cell.coordinate
        for with_formulas, row in zip(worksheet.iter_rows(), rows, strict=False)
        for cell, (text, kind) in zip(with_formulas, row, strict=False)
        if getattr(cell, "data_type", "n") == "f" and text is None and kind != "str"  # "str": the result is no text
    ]
    if lost:
        raise JudgementError(
            f"{where}: {len(lost):,} cells hold a formula whose result was not saved ({', '.join(lost[:3])}"
            f"{', ...' if len(lost) > 3 else ''}), and would be read as empty. Fix: open the file in Excel or "
            "LibreOffice, which calculate, and save it; or save it as .csv there."
        )


def _cell(cell: Cell) -> tuple[Any, str]:
    """Return the text of a cell as Excel shows it, and its kind ("d" for dates, "e" for errors)."""
    value, kind = cell.value, str(getattr(cell, "data_type", "n"))
    if isinstance(value, datetime.datetime | datetime.date | datetime.time | datetime.timedelta):
        return cell_text(value), "d"
    if isinstance(value, int) and not isinstance(value, bool) and _ZEROS.fullmatch(cell.number_format or ""):
        return str(value).zfill(len(cell.number_format)), kind
    if isinstance(value, str):
        return value or None, kind
    return cell_text(value), kind
