"""How the codes of a file were understood: which became which option or level, and how often.

Knows nothing of how they were read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from reward_models.judgements.records import Judgements


__all__ = ["TableReading", "count_codes"]

_LINES = 12


@dataclass(frozen=True)
class TableReading:
    """The judgements of a file, and how its codes were understood. Print it to check them; see `read_table`.

    Attributes:
        judgements: The validated table.
        name: Name of the file.
        column: Column of the file that holds the answers; None if there is none (`chosen` and `rejected`, shares).
        codes: Number of judgements by (code of the file, option or level it became).
        dropped: Number of rows dropped by the code that they had; "" for an empty cell.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("rating", num_raters=4, num_items=3).judgements
        >>> print(TableReading(judgements, "votes.csv", "vote", {("agree", "1"): 7, ("against", "-1"): 5}, {"NA": 2}))
        votes.csv: 12 judgements (rating); the column 'vote' was read as
          'agree'    ->  1         7
          'against'  ->  -1        5
          'NA'       ->  left out  2
    """

    judgements: Judgements
    name: str
    column: str | None = None
    codes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        head = f"{self.name}: {len(self.judgements):,} judgements ({self.judgements.kind})"
        if self.column is None:
            return head
        table = [(repr(code), meaning, f"{count:,}") for (code, meaning), count in self._shown(self.codes).items()]
        table += [(repr(code), "left out", f"{count:,}") for code, count in self._shown(self.dropped).items()]
        code, meaning, count = (max(map(len, column)) for column in zip(*table, strict=True))
        lines = [f"  {c:{code}}  ->  {m:{meaning}}  {n:>{count}}" for c, m, n in table]
        hidden = [counts for counts in (self.codes, self.dropped) if len(counts) > _LINES]
        rest = sum(len(counts) - _LINES for counts in hidden)
        more = [f"  and {rest:,} more, which are rarer"] if rest else []
        return "\n".join([f"{head}; the column {self.column!r} was read as", *lines, *more])

    @staticmethod
    def _shown(counts: Mapping) -> Mapping:
        most = {key for key, _ in Counter(counts).most_common(_LINES)}
        return {key: count for key, count in counts.items() if key in most}


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
