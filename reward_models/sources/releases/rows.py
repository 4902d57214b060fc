"""Collect the judgements of a release, and count those that are dropped, by reason.

Also reads the values that every release has: text, numbers, ids, lists of records, traits. Knows nothing of files and
of any particular release.
"""

from __future__ import annotations

import ast
import json
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from reward_models.errors import JudgementError, JudgementWarning, did_you_mean
from reward_models.judgements.faults import is_missing, show
from reward_models.judgements.items import CONTENT
from reward_models.judgements.records import Judgements
from reward_models.judgements.spelling import one_form


__all__ = ["Rows", "as_id", "as_list", "as_number", "as_records", "as_text", "check_choice", "traits"]

_TEXTS = ("prompt", "response", "response_a", "response_b")
_UNKNOWN = {"", "nan", "DATA_EXPIRED", "CONSENT_REVOKED", "Prefer not to say"}
"""Values that releases write where a trait is not known; two are of Prolific."""


class Rows:
    """The judgements of a release read so far.

    Attributes:
        kind: Kind of judgement.
        levels: Ordered levels of a rating; None for other kinds, or to use the ratings that occur.

    Example:
        >>> rows = Rows("rating", range(1, 6))
        >>> for rater, rating in (("ann", 5), ("bob", 2), ("cy", None)):
        ...     rows.add_rating(rater, "Hi", "Hello", rating)
        >>> rows.add_rating("ann", "Hi", "Go away", 9)
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     judgements = rows.to_judgements("my-release")
        >>> len(judgements), str(caught[0].message)
        (2, 'my-release: 2 of 4 judgements left out: 1 without a rating, 1 outside the scale.')
    """

    def __init__(self, kind: str, levels: Sequence[float] | None = None) -> None:
        self.kind = kind
        self.levels = levels
        self._rows: list[dict[str, Any]] = []
        self._dropped: Counter[str] = Counter()

    def add(self, **columns: Any) -> None:
        """Add one judgement; drop it if it has no rater, an empty text, a rating outside the scale or one response."""
        columns = {name: one_form(value) for name, value in columns.items()}
        if self.kind != "soft" and not columns.get("rater_id"):
            self.drop("without a rater")
        elif self.levels is not None and columns["rating"] not in self.levels:
            self.drop("outside the scale")
        elif any(is_missing(columns[c]) or not columns[c] for c in _TEXTS if c in columns):
            self.drop("with an empty text")
        elif self.kind == "preference" and columns["response_a"] == columns["response_b"]:
            self.drop("of a response with itself")
        else:
            self._rows.append(columns)

    def add_pair(
        self,
        rater_id: str | None,
        prompt: Any,
        responses: Iterable[Any],
        choice: str | None,
        *,
        item_id: str | None = None,
        traits: Mapping[str, str | None] | None = None,
        missing: str = "without a choice",
    ) -> None:
        """Add one comparison of two responses.

        Args:
            rater_id: The rater.
            prompt: Text or messages.
            responses: a and b, read as text.
            choice: `"a"`, `"b"` or `"tie"`; None drops the judgement.
            item_id: Name of the pair; None to name it by its texts.
            traits: Columns `rater:<trait>`.
            missing: Reason to drop a judgement without a choice; it follows a number, e.g. "without a preference".
        """
        if choice is None:
            self.drop(missing)
            return
        a, b = map(as_text, responses)
        item = {} if item_id is None else {"item_id": item_id}
        texts = {"prompt": prompt, "response_a": a, "response_b": b}
        self.add(rater_id=rater_id, **item, **texts, choice=choice, **(traits or {}))

    def add_rating(
        self,
        rater_id: str | None,
        prompt: Any,
        response: Any,
        rating: float | None,
        *,
        item_id: str | None = None,
        traits: Mapping[str, str | None] | None = None,
        missing: str = "without a rating",
    ) -> None:
        """Add one rating of a response, which is read as text; None drops the judgement. See `add_pair`."""
        if rating is None:
            self.drop(missing)
            return
        item = {} if item_id is None else {"item_id": item_id}
        texts = {"prompt": prompt, "response": as_text(response)}
        self.add(rater_id=rater_id, **item, **texts, rating=rating, **(traits or {}))

    def drop(self, reason: str, count: int = 1) -> None:
        """Count judgements that are dropped; the reason follows their number in the warning."""
        self._dropped[reason] += count

    def to_judgements(self, release: str) -> Judgements:
        """Validate the judgements; if a rater judged an item more than once, keep the first judgement.

        Raises:
            JudgementError: If no judgement is left, or rows are at fault.

        Warns:
            JudgementWarning: Number of judgements that were dropped for each reason, in one warning.
        """
        frame = pd.DataFrame(self._rows)
        if self.kind != "soft" and len(frame):
            again = self._judged_again(frame)
            self.drop("by a rater who had judged the item before", int(again.sum()))
            frame = frame[~again].reset_index(drop=True)
            if "rater_weight" in frame:  # of several waves
                frame["rater_weight"] = frame.groupby("rater_id")["rater_weight"].transform("mean")
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
    """Return a text without outer white space, or None if nothing is left.

    Example:
        >>> as_text(" yes "), as_text("  "), as_text(3)
        ('yes', None, '3')
    """
    return None if is_missing(value) else str(value).strip() or None


def as_number(value: Any) -> float | None:
    """Return a finite number, also from its text, or None if the value is none.

    Example:
        >>> as_number("3.5"), as_number("N/A"), as_number(float("inf"))
        (3.5, None, None)
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def as_id(value: Any) -> str | None:
    """Return an identifier as text; 7.0 (an integer that passed through a table with gaps) becomes '7'.

    Example:
        >>> as_id(7.0), as_id(" w7 "), as_id(None)
        ('7', 'w7', None)
    """
    return str(int(value)) if isinstance(value, float) and value.is_integer() else as_text(value)


def as_list(value: Any) -> Any:
    """Return a list or mapping as it is, or parse its text as JSON or as a Python literal; nothing gives `[]`.

    Raises:
        JudgementError: If the text is neither.

    Example:
        >>> as_list("[1, 2]"), as_list("{'a': 1}"), as_list(None)
        ([1, 2], {'a': 1}, [])
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
    """Return a list of records; parse it from text, or from one record of lists, as the Hub stores it.

    Example:
        >>> as_records({"role": ["user", "assistant"], "content": ["Hi", "Hello"]})[1]
        {'role': 'assistant', 'content': 'Hello'}
    """
    value = as_list(value)
    if isinstance(value, dict):
        return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    return list(value)


def traits(record: dict[str, Any], names: Iterable[str], prefix: str = "") -> dict[str, str | None]:
    """Return columns `rater:<trait>` from fields of a record.

    Args:
        record: Fields of a judgement or of a rater.
        names: Fields that are traits; those that the record lacks are ignored.
        prefix: Start of the field's name that is not part of the trait's.

    Example:
        >>> traits({"rater_gender": "Woman", "rater_id": 3}, ["rater_gender", "rater_age"], "rater_")
        {'rater:gender': 'Woman'}
    """
    values = {name: as_id(record[name]) for name in names if name in record}
    return {
        f"rater:{name.removeprefix(prefix).strip().lower().replace(' ', '_')}": None if text in _UNKNOWN else text
        for name, text in values.items()
    }


def check_choice(option: str, value: str, valid: Sequence[str]) -> None:
    """Raise if the value of an option is not a valid one.

    Raises:
        JudgementError: With the closest valid value.

    Example:
        >>> check_choice("kind", "ratings", ("preference", "rating"))
        Traceback (most recent call last):
        reward_models.errors.JudgementError: kind='ratings' is not known. Did you mean 'rating'? Fix: one of ...
    """
    if value not in valid:
        raise JudgementError(
            f"{option}={value!r} is not known.{did_you_mean(value, valid)} Fix: one of {', '.join(valid)}."
        )
