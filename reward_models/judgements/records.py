"""The judgement table: which rater judged which text, and how.

One row is one judgement of one rater; a table holds one of four kinds. This module keeps a validated table and selects
its rows; `validation` decides what is valid, `encoding` turns it into integers, `splits` divides it. Knows nothing of
models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pandas as pd

from reward_models.errors import JudgementError, NotEncodedError
from reward_models.judgements.encoding import Encoded, encode
from reward_models.judgements.faults import whole_characters
from reward_models.judgements.ordering import item_order, row_order
from reward_models.judgements.validation import KINDS, canonicalise


if TYPE_CHECKING:
    import datasets

__all__ = ["KINDS", "Judgements", "judged_tables"]

_ENCODED = {field.name for field in fields(Encoded)} | {name for name in vars(Encoded) if not name.startswith("_")}
"""What encoded judgements have; a function that looks for it in `Judgements` was given the wrong form of them."""


@dataclass(frozen=True)
class Judgements:
    """A validated table of `N` judgements of one kind. Make one with `from_frame` or `from_dataset`.

    | kind | columns besides `rater_id`, `item_id` |
    |---|---|
    | `preference` | `prompt`, `response_a`, `response_b`, `choice` in {a, b, tie}, optional `shown_first` |
    | `rating` | `prompt`, `response`, `rating` (one of `levels`) |
    | `choice` | `prompt`, `options` (tuple of texts), `choice` (index) |
    | `soft` | `prompt`, `options`, `probs`, `n` (answers behind the shares), no rater |

    Optional columns of tables with raters: `count` (how often the rater gave this judgement, a whole number),
    `rater_weight` (sampling weight of the rater, of any unit), `rater_stratum` and `rater_psu` (stratum and primary
    sampling unit).

    Columns `rater:<trait>` describe the rater; they are kept for reports and baselines and are never an input of a
    jury.

    Attributes:
        kind: One of `KINDS`.
        frame: The table, with a RangeIndex.
        levels: The ordered levels of a `rating` table, else None.

    Example:
        >>> rows = [("ann", "Tea or coffee?", ["tea", "coffee"], 0), ("ann", "Cats or dogs?", ["cats", "dogs"], 1)]
        >>> rows += [("bob", "Tea or coffee?", ["tea", "coffee"], 1), ("bob", "Cats or dogs?", ["cats", "dogs"], 1)]
        >>> j = Judgements.from_frame(pd.DataFrame(rows, columns=["rater_id", "prompt", "options", "choice"]))
        >>> j.kind, len(j), j.raters, j.n_items
        ('choice', 4, ['ann', 'bob'], 2)
    """

    kind: str
    frame: pd.DataFrame
    levels: tuple[float, ...] | None = None

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        kind: str | None = None,
        levels: Sequence[float] | None = None,
        *,
        duplicates: str = "refuse",
        index: int | None = None,
    ) -> Judgements:
        """Validate a table, whose owner knows the types of its columns: an integer `choice` is the index of an option.

        Texts are compared in one Unicode form (NFC) and kept in it.

        Args:
            frame: `N` rows, one judgement each; not changed. TRL's `chosen`/`rejected` (with or without `prompt` and
                `rater_id`) is read as it is.
            kind: One of `KINDS`; None to infer it from the columns.
            levels: The ordered levels of a rating table; None to use the ratings that occur.
            duplicates: What to do where a rater judged an item more than once: `"refuse"`, keep the `"first"` or the
                `"last"` judgement, or `"drop"` all of them.
            index: Number of the first option (0 or 1) where `choice` holds numbers of options. None: integers count
                from 0; a number that is also an option's text, a float and a truth value are refused.

        Returns:
            The table in canonical columns.

        Raises:
            JudgementError: The table cannot be used; the message states row, column, value and fix of every fault.

        Warns:
            JudgementWarning: Raters or items with one judgement; columns that are not used; repeated judgements that
                are left out.

        Example:
            >>> frame = pd.DataFrame({"rater_id": ["ann", "bob"], "prompt": "Hi", "response": "Hello"})
            >>> Judgements.from_frame(frame.assign(rating=[5, 9]), levels=[1, 2, 3, 4, 5])
            Traceback (most recent call last):
            reward_models.errors.JudgementError: 1 fault in a table of 2 judgements (...):
              row 1, column 'rating': 9 is outside the levels 1, 2, 3, 4, 5. Fix: correct it, ...
        """
        if not isinstance(frame, pd.DataFrame):
            raise JudgementError(f"a data frame is expected, not a {type(frame).__name__}. Fix: {_makes(frame)}")
        with whole_characters():
            canonical = canonicalise(frame, kind, levels, duplicates=duplicates, index=index)
        return cls(canonical.kind, canonical.frame, canonical.levels)

    @classmethod
    def from_dataset(
        cls,
        dataset: datasets.Dataset | Sequence[Mapping[str, Any]],
        kind: str | None = None,
        levels: Sequence[float] | None = None,
        *,
        duplicates: str = "refuse",
        index: int | None = None,
    ) -> Judgements:
        """Validate a `datasets.Dataset` or a list of rows; see `from_frame`.

        Example:
            >>> rows = [{"prompt": "Tea or coffee?", "options": ["tea", "coffee"], "probs": [0.25, 0.75]}]
            >>> Judgements.from_dataset(rows).kind
            'soft'
        """
        if isinstance(dataset, pd.DataFrame):
            return cls.from_frame(dataset, kind, levels, duplicates=duplicates, index=index)
        if not isinstance(dataset, list | tuple) and not hasattr(dataset, "to_pandas"):
            raise JudgementError(
                f"a data set or a list of rows is expected, not a {type(dataset).__name__}. Fix: {_makes(dataset)}"
            )
        with whole_characters():
            frame = pd.DataFrame(list(dataset)) if isinstance(dataset, list | tuple) else dataset.to_pandas()
        return cls.from_frame(frame, kind, levels, duplicates=duplicates, index=index)

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def raters(self) -> list[str]:
        """Rater ids in order of first appearance; empty for `soft`."""
        return [] if self.kind == "soft" else self.frame["rater_id"].unique().tolist()

    @property
    def items(self) -> list[str]:
        """Item ids in order of first appearance."""
        return self.frame["item_id"].unique().tolist()

    @property
    def n_raters(self) -> int:
        """Number of raters."""
        return 0 if self.kind == "soft" else int(self.frame["rater_id"].nunique())

    @property
    def n_items(self) -> int:
        """Number of items."""
        return int(self.frame["item_id"].nunique())

    @property
    def traits(self) -> list[str]:
        """Columns that describe the rater, named `rater:<trait>`."""
        return [column for column in self.frame.columns if column.startswith("rater:")]

    def select(self, mask: np.ndarray | pd.Series | Sequence[bool]) -> Judgements:
        """Keep some of the rows, without validating them again.

        Args:
            mask: (N,) bool, or row numbers.

        Returns:
            The selected rows in their order; `levels` stay those of the whole table.

        Example:
            >>> from reward_models import planted_judgements
            >>> judgements = planted_judgements("rating", num_raters=4, num_items=3).judgements
            >>> judgements.select(judgements.frame["rater_id"] == "r0").n_raters
            1
        """
        keep = np.asarray(mask)
        rows = np.flatnonzero(keep) if keep.dtype == bool else keep
        return Judgements(self.kind, self.frame.iloc[rows].reset_index(drop=True), self.levels)

    def in_order(self) -> Judgements:
        """Return the same judgements ordered by rater and item, whatever the order of the rows; see `ordering`.

        Example:
            >>> from reward_models import planted_judgements
            >>> judgements = planted_judgements("rating", num_raters=4, num_items=3).judgements
            >>> reversed_rows = judgements.select(np.arange(12)[::-1])
            >>> reversed_rows.in_order().frame.equals(judgements.in_order().frame)
            True
        """
        return self.select(row_order(self.frame))

    def encode(self) -> Encoded:
        """Return the integer view that likelihoods and fitting work on; made once and kept, so do not change it.

        Judgements, raters, items and texts are in order (see `ordering`), not in that of the rows, so that all that is
        computed from them is the same in any order of the rows; `encoded_rows` says which row a judgement is.
        """
        return self._encoded[0]

    @property
    def encoded_rows(self) -> np.ndarray:
        """(N,) row of `frame` of each judgement of `encode()`."""
        return self._encoded[1]

    @cached_property
    def _encoded(self) -> tuple[Encoded, np.ndarray]:
        items = item_order(self.frame)
        rows = row_order(self.frame, items)
        judged = self.frame[[column for column in self.frame if column not in self.traits]]
        return encode(self.kind, judged.iloc[rows], self.levels, items), rows

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_encoded"}

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            """Say what to do where a function that takes encoded judgements was given these."""
            if name in _ENCODED:
                raise NotEncodedError(
                    f"encoded judgements are expected, not a Judgements, which has no {name!r}. Fix: pass "
                    "judgements.encode()"
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def to_dataset(self) -> datasets.Dataset:
        """Return the table as a `datasets.Dataset`; `from_dataset` reads it back."""
        import datasets

        frame = self.frame.astype(object).where(self.frame.notna(), None)
        return datasets.Dataset.from_dict({column: frame[column].tolist() for column in frame.columns})


def judged_tables(tables: Judgements | Sequence[Judgements]) -> list[Judgements]:
    """Return one table or several as a list, or raise with the call that makes judgements of what was passed.

    Raises:
        JudgementError: Something else than `Judgements`.

    Example:
        >>> judged_tables(pd.DataFrame({"rater_id": ["ann"]}))
        Traceback (most recent call last):
        reward_models.errors.JudgementError: judgements are expected, not a DataFrame. Fix: Judgements.from_frame(...
    """
    several = isinstance(tables, list | tuple) and not any(isinstance(table, Mapping) for table in tables)
    listed: list[Any] = list(tables) if several else [tables]  # type: ignore[arg-type]
    for table in listed:
        if not isinstance(table, Judgements):
            raise JudgementError(f"judgements are expected, not a {type(table).__name__}. Fix: {_makes(table)}")
    return listed


def judged_table(tables: Judgements | Sequence[Judgements], several: str) -> Judgements:
    """Return the one table that was passed, alone or in a list, or raise.

    Args:
        tables: One table.
        several: What to do with several, for the message.

    Raises:
        JudgementError: Not one table, or something else than `Judgements`.

    Example:
        >>> judged_table([], "fit them together")
        Traceback (most recent call last):
        reward_models.errors.JudgementError: one table of judgements is expected, not 0. Fix: fit them together
    """
    listed = judged_tables(tables)
    if len(listed) != 1:
        raise JudgementError(f"one table of judgements is expected, not {len(listed)}. Fix: {several}")
    return listed[0]


def _makes(table: object) -> str:
    """Say which call makes judgements of something."""
    if isinstance(table, pd.DataFrame):
        return "Judgements.from_frame(...) makes them of a data frame"
    if isinstance(table, str | PurePath):
        return f"load_table({str(table)!r}) reads them from a file"
    if isinstance(table, Encoded):
        return "pass the Judgements whose encode() gave this"
    return "Judgements.from_dataset(...) makes them of a list of rows or a data set"
