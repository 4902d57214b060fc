"""Read SPSS and Stata files: cells of text with the labels and the missing values that the file declares.

Codes stay codes; their labels are kept beside them. Knows nothing of judgements.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from reward_models.errors import JudgementError, MissingExtraError
from reward_models.judgements.spelling import code_text, one_form
from reward_models.sources.formats.cells import Cells, cell_text


__all__ = ["LABELLED", "read_labelled"]

LABELLED = (".sav", ".zsav", ".dta")


def read_labelled(path: Path, encoding: str | None = None) -> Cells:
    """Read an SPSS (`.sav`, `.zsav`) or Stata (`.dta`) file.

    Args:
        path: The file.
        encoding: Encoding of its texts; None for what the file states.

    Returns:
        Codes as cells; variable labels as wordings, value labels as labels, in the order of the codes, and the codes
        that the file declares missing, with their labels as names. Stata's `.a` to `.z` are such codes.

    Raises:
        JudgementError: The file cannot be read.
        MissingExtraError: `pyreadstat` is not installed.

    Example:
        >>> import tempfile
        >>> import pyreadstat
        >>> frame = pd.DataFrame({"q1": [1.0, 2.0, 8.0]})
        >>> labels = {"q1": {1: "yes", 2: "no", 8: "don't know"}}
        >>> facts = {"variable_value_labels": labels, "missing_ranges": {"q1": [8]}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = f"{folder}/answers.sav"
        ...     pyreadstat.write_sav(frame, file, column_labels=["More parks?"], **facts)
        ...     cells = read_labelled(Path(file))
        >>> cells.frame["q1"].tolist(), cells.wordings["q1"], cells.labels["q1"]["2"], cells.missing["q1"]
        (['1', '2', '8'], 'More parks?', 'no', {'8': "don't know"})
    """
    try:
        import pyreadstat
    except ImportError as error:
        raise MissingExtraError(
            f"{path.name!r} is read with the package 'pyreadstat', which is not installed. "
            'Fix: pip install "plural-rlhf[files]".'
        ) from error
    read = pyreadstat.read_dta if path.suffix.lower() == ".dta" else pyreadstat.read_sav
    try:
        frame, meta = read(str(path), user_missing=True, encoding=encoding)
    except (pyreadstat.ReadstatError, pyreadstat.PyreadstatError, UnicodeDecodeError) as error:
        fix = "check the file, or state its encoding in the column map, e.g. encoding: windows-1252"
        raise JudgementError(f"{path} cannot be read as {path.suffix}: {error}. Fix: {fix}.") from error
    columns: dict[str, pd.Series] = {}
    labels: dict[str, dict[str, str]] = {}
    for column in frame.columns:
        # Stata's missing values a to z are the only texts in a column of numbers.
        dotted = path.suffix.lower() == ".dta" and meta.readstat_variable_types[column] != "string"
        columns[column] = pd.Series([_code(value, dotted) for value in frame[column].tolist()], dtype=object)
        labels[column] = _labels(meta.variable_value_labels.get(column, {}), dotted)
    missing = {
        column: _missing(columns[column], labels[column], meta.missing_ranges.get(column, ()))
        for column in frame.columns
    }
    return Cells(
        pd.DataFrame(columns),
        {name: one_form(text).strip() for name, text in meta.column_names_to_labels.items() if text and text.strip()},
        {column: codes for column, codes in labels.items() if codes},
        {column: codes for column, codes in missing.items() if codes},
    )


def _code(value: Any, dotted: bool) -> Any:
    return f".{value}" if dotted and isinstance(value, str) else cell_text(value)


def _labels(values: Mapping[Any, str], dotted: bool) -> dict[str, str]:
    """Return the label by code, numbers in their order and texts after them."""
    ordered = sorted(values, key=lambda code: (isinstance(code, str), code))
    return {code_text(_code(code, dotted)): one_form(values[code]).strip() for code in ordered if values[code].strip()}


def _missing(cells: pd.Series, labels: Mapping[str, str], ranges: Iterable[Any]) -> dict[str, str]:
    """Return the name of each code, used or labelled, that the file declares missing."""
    spans = [(span["lo"], span["hi"]) for span in ranges]
    codes = dict.fromkeys([*labels, *(cell for cell in cells.unique() if cell is not None)])
    return {code: labels.get(code, code) for code in codes if _is_declared(code, spans)}


def _is_declared(code: str, spans: list[tuple[Any, Any]]) -> bool:
    if len(code) == 2 and code[0] == "." and code[1].islower():
        return True
    for low, high in spans:
        if isinstance(low, str):
            if low <= code <= high:
                return True
            continue
        try:
            if low <= float(code) <= high:
                return True
        except ValueError:
            continue
    return False
