"""How the codes of a file were understood: which became which option or level, which answers are missing, how often.

Knows nothing of how they were read. Shapes: `N` judgements, `R` raters, `K` clusters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from reward_models.errors import JudgementError
from reward_models.judgements.records import Judgements
from reward_models.judgements.spelling import code_text
from reward_models.sources.recoding import EMPTY


__all__ = ["MISSING_COLUMNS", "TableReading", "count_codes", "question_of"]

MISSING_COLUMNS = ("rater_id", "question", "code", "kind")
"""Columns of `TableReading.missing`."""
_LINES = 12


def _no_missing() -> pd.DataFrame:
    return pd.DataFrame({column: pd.Series(dtype=object) for column in MISSING_COLUMNS})


@dataclass(frozen=True)
class TableReading:
    """The judgements of a file, and how its codes were understood. Print it to check them; see `read_table`.

    Attributes:
        judgements: The validated table.
        name: Name of the file.
        columns: Columns of the file that hold the answers; empty if there is none (`chosen` and `rejected`, shares).
        codes: Number of judgements by (code of the file, option or level it became).
        missing: A row per answer that was left out: `rater_id`, `question` (item id, else prompt or response), `code`
            ("" for an empty cell) and `kind`, the name that the map or the file has for it, else the code.
        origin: What the judgements were made of, where a row of the file is none, e.g. "every pair of 3 rankings".

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("rating", num_raters=4, num_items=3).judgements
        >>> codes = {("agree", "1"): 7, ("against", "-1"): 5}
        >>> rows = [("r0", "trams", "8", "don't know"), ("r1", "trams", "NA", "NA")]
        >>> missing = pd.DataFrame(rows, columns=list(MISSING_COLUMNS))
        >>> print(TableReading(judgements, "a.csv", ("vote",), codes, missing))
        a.csv: 12 judgements (rating); the column 'vote' was read as
          'agree'    ->  1                      7
          'against'  ->  -1                     5
          '8'        ->  left out (don't know)  1
          'NA'       ->  left out               1
    """

    judgements: Judgements
    name: str
    columns: tuple[str, ...] = ()
    codes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    missing: pd.DataFrame = field(default_factory=_no_missing)
    origin: str = ""

    def __str__(self) -> str:
        head = f"{self.name}: {len(self.judgements):,} judgements ({self.judgements.kind})"
        head += f", {self.origin}" if self.origin else ""
        if not self.columns:
            return head
        pairs = zip(self.missing["code"], self.missing["kind"], strict=True)
        dropped = Counter((code, _left_out(code, kind)) for code, kind in pairs)
        table = [(repr(code), meaning, f"{count:,}") for (code, meaning), count in _most(self.codes).items()]
        table += [("none", repr(option), "0") for option in self._unchosen()[:_LINES]]
        table += [(repr(code), meaning, f"{count:,}") for (code, meaning), count in _most(dropped).items()]
        code, meaning, count = (max(map(len, column)) for column in zip(*table, strict=True))
        lines = [f"  {c:{code}}  ->  {m:{meaning}}  {n:>{count}}" for c, m, n in table]
        hidden = sum(max(0, len(counts) - _LINES) for counts in (self.codes, dropped))
        more = [f"  and {hidden:,} more, which are rarer"] if hidden else []
        return "\n".join([f"{head}; {self._source()} read as", *lines, *more])

    def _unchosen(self) -> list[str]:
        """Return the options that nobody chose in any question."""
        if self.judgements.kind != "choice":
            return []
        offered = dict.fromkeys(option for options in self.judgements.frame["options"].unique() for option in options)
        return [option for option in offered if repr(option) not in {meaning for _, meaning in self.codes}]

    def _source(self) -> str:
        if len(self.columns) == 1:
            return f"the column {self.columns[0]!r} was"
        shown = ", ".join(map(repr, self.columns[:3]))
        more = len(self.columns) - 3
        return f"the columns {shown}" + (f" and {more:,} more" if more > 0 else "") + " were"

    def missing_counts(
        self, rater_ids: Sequence[str] | None = None, responsibilities: np.ndarray | None = None
    ) -> pd.DataFrame:
        """Count answers and the kinds of missing answers per question, or per question and cluster after a fit.

        Args:
            rater_ids: (R,) the raters that were fitted, e.g. `fit.rater_ids`; None to count without clusters.
            responsibilities: (R, K) probability of each cluster for each rater, e.g. `fit.responsibilities`.

        Returns:
            One row per question, or per question and cluster (from 0), with a column `answered` and one per kind.
            Counts of a cluster are expected numbers of raters: a rater counts by the probability of the cluster.
            Raters who answered nothing have no cluster and are left out there.

        Raises:
            JudgementError: One of the two arguments is given without the other, or their lengths differ.

        Example:
            >>> from reward_models import planted_judgements
            >>> judgements = planted_judgements("choice", num_raters=4, num_items=2, seed=2).judgements
            >>> rows = [("r0", "Question 3?", "8", "don't know"), ("r1", "Question 3?", "9", "refused")]
            >>> missing = pd.DataFrame(rows, columns=list(MISSING_COLUMNS))
            >>> reading = TableReading(judgements, "a.csv", ("answer",), missing=missing)
            >>> reading.missing_counts()
                         answered  don't know  refused
            question
            Question 1?         4           0        0
            Question 2?         4           0        0
            Question 3?         0           1        1
            >>> share = np.array([[0.5, 0.5], [0, 1], [0, 1], [1, 0]])
            >>> reading.missing_counts(["r0", "r1", "r2", "r3"], share).loc["Question 3?"]
                     answered  don't know  refused
            cluster
            0             0.0         0.5      0.0
            1             0.0         0.5      1.0
        """
        answered = pd.DataFrame({"rater_id": self._raters(), "question": question_of(self.judgements.frame)})
        events = pd.concat([answered.assign(kind="answered"), self.missing[["rater_id", "question", "kind"]]])
        kinds = ["answered", *dict.fromkeys(self.missing["kind"])]
        questions = pd.Index(dict.fromkeys(events["question"]), name="question")
        if rater_ids is None and responsibilities is None:
            counts = pd.crosstab(events["question"], events["kind"])
            return counts.reindex(index=questions, columns=kinds, fill_value=0).rename_axis(columns=None)
        if rater_ids is None or responsibilities is None or len(rater_ids) != len(responsibilities):
            raise JudgementError(
                "rater_ids (R,) and responsibilities (R, K) belong together. Fix: take both from one fit."
            )
        shares = pd.DataFrame(responsibilities, index=pd.Index(rater_ids))
        known = events[events["rater_id"].isin(shares.index)].reset_index(drop=True)
        weights = shares.loc[known["rater_id"]].reset_index(drop=True)
        weights.columns.name = "cluster"
        summed = weights.groupby([known["question"], known["kind"]]).sum().stack()
        counts = pd.DataFrame(summed.unstack("kind"))
        rows = pd.MultiIndex.from_product([questions, shares.columns], names=["question", "cluster"])
        return counts.reindex(index=rows, columns=kinds).fillna(0.0).rename_axis(columns=None)

    def _raters(self) -> pd.Series:
        frame = self.judgements.frame
        return frame["rater_id"] if "rater_id" in frame else pd.Series("", index=frame.index)


def _left_out(code: str, kind: str) -> str:
    return "left out" if kind in (code, code_text(code), EMPTY) else f"left out ({kind})"


def _most(counts: Mapping[tuple[str, str], int]) -> Mapping[tuple[str, str], int]:
    most = {key for key, _ in Counter(counts).most_common(_LINES)}
    return {key: count for key, count in counts.items() if key in most}


def question_of(frame: pd.DataFrame) -> pd.Series:
    """Return (N,) a name for the question of each row: its id, if it was given one, else its response or prompt.

    Example:
        >>> question_of(pd.DataFrame({"prompt": ["Tea?"], "options": [("yes", "no")]})).tolist()
        ['Tea?']
    """
    ids = frame["item_id"] if "item_id" in frame else pd.Series([None] * len(frame), index=frame.index, dtype=object)
    given = ids.notna() & ~ids.astype(str).str.fullmatch("item-[0-9a-f]{12}")
    text = next((frame[column] for column in ("response", "prompt") if column in frame), ids)
    return ids.where(given, text).astype(str)


def count_codes(judgements: Judgements, codes: pd.Series) -> dict[tuple[str, str], int]:
    """Count the judgements by code and meaning, in the order of the options or levels.

    Args:
        judgements: `N` judgements with an answer.
        codes: (N,) the answers as the file has them.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("choice", num_raters=4, num_items=2, seed=1).judgements
        >>> counts = count_codes(judgements, judgements.frame["choice"] + 1)
        >>> sum(counts.values()), list(counts)[0]
        (8, ('1', "'answer A'"))
    """
    frame = judgements.frame
    if judgements.kind == "rating":
        order = frame["rating"]
        meaning = frame["rating"].map("{:g}".format)
    elif judgements.kind == "choice":
        order = frame["choice"]
        pairs = zip(frame["options"], frame["choice"], strict=True)
        meaning = pd.Series([repr(options[choice]) for options, choice in pairs], index=frame.index)
    else:
        order = meaning = frame["choice"]
    table = pd.DataFrame({"order": order, "code": codes.astype(str).to_numpy(), "meaning": meaning})
    counts = table.groupby(["order", "code", "meaning"], sort=True).size().reset_index(name="count")
    return {
        (code, meaning): int(count)
        for code, meaning, count in zip(counts["code"], counts["meaning"], counts["count"], strict=True)
    }
