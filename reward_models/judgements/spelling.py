"""When two spellings mean the same text, and when they mean the same code.

Texts are compared in Unicode's composed form (NFC), so that é is é whether a keyboard or a spreadsheet composed it.
Codes, such as the `1` of a survey file, are also equal as 1.0, and TRUE is true. Knows nothing of tables.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np


__all__ = ["LARGEST_EXACT", "code_text", "is_bool", "one_form", "plain_number"]

LARGEST_EXACT = 2**53
"""Whole numbers above this lose digits as floats."""
_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def one_form(value: Any) -> Any:
    r"""Return texts in NFC, also those inside lists and mappings; other values as they are.

    Example:
        >>> one_form("cafe\u0301") == "caf\u00e9"
        True
        >>> one_form([{"role": "user", "content": "cafe\u0301"}])[0]["content"]
        'café'
    """
    if isinstance(value, str):
        return value if value.isascii() else unicodedata.normalize("NFC", value)
    if isinstance(value, Mapping):
        return {key: one_form(part) for key, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        parts = [one_form(part) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    return value


def is_bool(value: Any) -> bool:
    """Return whether a value is Python's or numpy's true or false.

    Example:
        >>> is_bool(True), is_bool(1), is_bool("TRUE")
        (True, False, False)
    """
    return isinstance(value, bool | np.bool_)


def code_text(value: Any) -> str:
    """Return the text by which codes are compared: 1, 1.0 and "1.0" are "1"; True and "TRUE" are "true".

    Leading zeros count: "01" is another code than "1".

    Example:
        >>> [code_text(code) for code in (1, 1.0, "1.0", " 1 ", "01", True, "TRUE", "Yes")]
        ['1', '1', '1', '1', '01', 'true', 'true', 'Yes']
    """
    if is_bool(value):
        return "true" if value else "false"
    text: str = one_form(str(value).strip())
    whole = _WHOLE.fullmatch(text)
    if whole is not None:
        return whole[1]
    return text.lower() if text.lower() in ("true", "false") else text


def plain_number(text: str, decimal: str = ".", thousands: str | None = None) -> float | None:
    """Read a number as a file may write it, or return None if the text is none.

    Args:
        text: A cell, e.g. "1.5".
        decimal: Sign before the decimals.
        thousands: Sign between groups of three digits; None if there is none.

    Example:
        >>> plain_number("-1.5"), plain_number("1,5", decimal=","), plain_number("1.234", ",", "."), plain_number("x")
        (-1.5, 1.5, 1234.0, None)
    """
    number = text.strip().replace("\N{MINUS SIGN}", "-")
    if thousands:
        whole, point, decimals = number.partition(decimal)
        if thousands in whole:
            first, *groups = whole.split(thousands)
            if not first.lstrip("+-") or any(len(group) != 3 for group in groups):
                return None
            number = first + "".join(groups) + point + decimals
    if decimal != ".":
        if "." in number:
            return None
        number = number.replace(decimal, ".")
    return float(number) if _NUMBER.fullmatch(number) else None
