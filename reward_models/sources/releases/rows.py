"""Collects the judgements of a release and counts what was left out, and why.

Also the few readings of single values that every release needs: text, numbers, ids, lists of records. Knows nothing of
files and of any particular release.
"""

from __future__ import annotations

import ast
import json
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from reward_models.errors import JudgementError, JudgementWarning, did_you_mean
from reward_models.judgements.faults import is_missing, show
from reward_models.judgements.items import CONTENT
from reward_models.judgements.records import Judgements


__all__ = ["Rows", "as_id", "as_list", "as_number", "as_records", "as_text", "check_choice", "traits"]

_TEXTS = ("prompt", "response", "response_a", "response_b")
_UNKNOWN = {"", "nan", "DATA_EXPIRED", "CONSENT_REVOKED", "Prefer not to say"}
"""What releases write where a trait is not known; Prolific's two markers among them."""


class Rows:
    """The judgements of a release found so far.

    Attributes:
        kind: Kind of judgement.
        levels: Ordered levels of a rating, None for other kinds or if they are to be taken from the ratings.
    """

    def __init__(self, kind: str, levels: Sequence[float] | None = None) -> None:
        self.kind = kind
        self.levels = levels
        self._rows: list[dict[str, Any]] = []
        self._dropped: Counter[str] = Counter()

    def add(self, **columns: Any) -> None:
        """Add one judgement in canonical columns, or leave it out: no rater, an empty text, a rating off the scale."""
        if self.kind != "soft" and not columns.get("rater_id"):
            self.drop("without a rater")
        elif self.levels is not None and columns["rating"] not in self.levels:
            self.drop("outside the scale")
        elif any(is_missing(columns[c]) or not columns[c] for c in _TEXTS if c in columns):
            self.drop("with an empty text")
        else:
            self._rows.append(columns)

    def drop(self, reason: str, count: int = 1) -> None:
        """Leave out judgements; the reason follows their number in the warning."""
        self._dropped[reason] += count

    def to_judgements(self, release: str) -> Judgements:
        """Validate what was collected; where a rater judged an item more than once, the first time counts.

        Raises:
            JudgementError: If nothing is left, or rows are at fault.

        Warns:
            JudgementWarning: How many judgements were left out for which reason, in one warning.
        """
        frame = pd.DataFrame(self._rows)
        if self.kind != "soft" and len(frame):
            again = self._judged_again(frame)
            self.drop("by a rater who had judged the item before", int(again.sum()))
            frame = frame[~again].reset_index(drop=True)
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in self._dropped.most_common() if n)
        if frame.empty:
            raise JudgementError(
                f"{release}: no judgements were found ({reasons or 'the files hold no records'}). Fix: check that the "
                "source is this release, or raise the limit."
            )
        if reasons:
            total = self._dropped.total()
            message = f"{release}: {total:,} of {len(frame) + total:,} judgements left out: {reasons}."
            warnings.warn(message, JudgementWarning, stacklevel=3)
        return Judgements.from_frame(frame, kind=self.kind, levels=self.levels)

    def _judged_again(self, frame: pd.DataFrame) -> pd.Series:
        if "item_id" in frame:
            return frame.duplicated(["rater_id", "item_id"])
        contents = zip(*(frame[column] for column in CONTENT[self.kind]), strict=True)
        keys = [
            (rater, json.dumps(prompt), tuple(sorted(content, key=str)))
            for rater, prompt, content in zip(frame["rater_id"], frame["prompt"], contents, strict=True)
        ]
        return pd.Series(keys, index=frame.index).duplicated()


def as_text(value: Any) -> str | None:
    """A text without outer white space; None where there is none."""
    return None if is_missing(value) else str(value).strip() or None


def as_number(value: Any) -> float | None:
    """A finite number, also if written as text; None where there is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def as_id(value: Any) -> str | None:
    """An identifier as text; 7.0 (an integer that passed through a table with gaps) becomes '7'."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else as_text(value)


def as_list(value: Any) -> Any:
    """A list or mapping as it is, or read from its text: tables hold them as JSON or as Python wrote them.

    Raises:
        JudgementError: If the text is neither.
    """
    if not isinstance(value, str):
        return [] if is_missing(value) else value
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(value)
        except (ValueError, SyntaxError):
            continue
    raise JudgementError(
        f"{show(value)} is neither JSON nor a Python list. Fix: pass the release as it was published, in JSON lines "
        "or Parquet."
    )


def as_records(value: Any) -> list[dict[str, Any]]:
    """A list of records, also from its text, and where the Hub stores it as one record of lists."""
    value = as_list(value)
    if isinstance(value, dict):
        return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    return list(value)


def traits(record: dict[str, Any], names: Iterable[str], prefix: str = "") -> dict[str, str | None]:
    """Columns `rater:<trait>` from the fields of a record that it has.

    Args:
        record: Fields of a judgement or of a rater.
        names: Fields to take; those that are absent are passed over.
        prefix: Start of the field's name that is not part of the trait's.
    """
    found = {name: as_id(record[name]) for name in names if name in record}
    return {
        f"rater:{name.removeprefix(prefix).strip().lower().replace(' ', '_')}": None if text in _UNKNOWN else text
        for name, text in found.items()
    }


def check_choice(option: str, value: str, valid: Sequence[str]) -> None:
    """Refuse the value of an option that is not one of those there are."""
    if value not in valid:
        raise JudgementError(
            f"{option}={value!r} is not known.{did_you_mean(value, valid)} Fix: one of {', '.join(valid)}."
        )
