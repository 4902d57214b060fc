"""Which raters and items a jury was fitted to, and which were held out: the file `heldout.json` of a run folder.

The file lies beside the folder of the jury and not in it, because it names raters, and a jury may be published. With
it a jury can be measured on a table that holds both what it was fitted to and what it was not. Knows nothing of
models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reward_models.errors import JudgementError
from reward_models.judgements.records import Judgements
from reward_models.whole_file import write_json


__all__ = ["HELDOUT_FILE", "STREAMS", "HeldoutRecord", "divide", "streams_of"]

HELDOUT_FILE = "heldout.json"
STREAMS = 4
"""How this version draws: of a run, see `streams_of`."""


@dataclass(frozen=True)
class HeldoutRecord:
    """Rater and item ids on both sides of the split that a jury was fitted on.

    Attributes:
        train_raters: Raters whose judgements of `train_items` the jury was fitted to.
        heldout_raters: Raters none of whose judgements it was fitted to.
        train_items: Items whose judgements by `train_raters` it was fitted to.
        heldout_items: Items none of whose judgements it was fitted to.

    Example:
        >>> import tempfile
        >>> record = HeldoutRecord(["ann", "bob"], ["eve"], ["parks"], ["roads"])
        >>> with tempfile.TemporaryDirectory() as run:
        ...     record.write(run)
        ...     HeldoutRecord.beside(f"{run}/jury") == record
        True
    """

    train_raters: list[str]
    heldout_raters: list[str]
    train_items: list[str]
    heldout_items: list[str]

    def write(self, run_folder: str | Path) -> None:
        """Write the record as `heldout.json` into the folder of a run, whose jury is a folder in it."""
        sides = {"raters": (self.train_raters, self.heldout_raters), "items": (self.train_items, self.heldout_items)}
        record: dict[str, Any] = {
            unit: {"train": train, "heldout": heldout} for unit, (train, heldout) in sides.items()
        }
        record |= {"streams": STREAMS}
        write_json(Path(run_folder) / HELDOUT_FILE, record)

    @classmethod
    def beside(cls, jury: str | Path) -> HeldoutRecord | None:
        """Read the record that lies beside a jury's folder.

        Args:
            jury: Folder of the jury, or its id on the Hub.

        Returns:
            The record; None if the jury is not a folder here or has none beside it.

        Raises:
            JudgementError: The file is not such a record.
        """
        path = Path(jury).resolve().parent / HELDOUT_FILE
        if not path.is_file():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            sides = [record[unit][side] for unit in ("raters", "items") for side in ("train", "heldout")]
            if not all(isinstance(ids, list) and all(isinstance(name, str) for name in ids) for ids in sides):
                raise TypeError("ids are lists of texts")
        except (KeyError, TypeError, ValueError) as error:
            raise JudgementError(
                f"{path} cannot be read ({error!r}), so it is not known what the jury was fitted to. Fix: fit the "
                "jury again, or delete the file and give the training judgements with --train."
            ) from error
        return cls(*sides)

    def fitted(self, judgements: Judgements) -> np.ndarray:
        """Return (N,) True for the judgements that the jury was fitted to."""
        frame = judgements.frame
        by_train_rater = frame["rater_id"].isin(self.train_raters) & frame["item_id"].isin(self.train_items)
        return by_train_rater.to_numpy(dtype=bool)


def streams_of(run_folder: str | Path) -> int:
    """Return how a run draws raters, items and questions; it goes on so when it is resumed.

    1: by generators seeded with the bare seed, as they occur in the table. 2: by streams of their own (`seeds`), the
    split by ids, the rest as they occur. 3: all by ids (`judgements.ordering`), so that the order of rows does not
    matter. 4: of pairs and ratings of responses to several prompts, whole prompts are held out.

    Args:
        run_folder: A run folder whose jury is fitted.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as run:
        ...     HeldoutRecord(["ann", "bob"], ["eve"], ["parks"], ["roads"]).write(run)
        ...     streams_of(run)
        4
    """
    path = Path(run_folder) / HELDOUT_FILE
    return int(json.loads(path.read_text(encoding="utf-8")).get("streams", 1)) if path.is_file() else 1


def divide(judgements: Judgements, records: Sequence[HeldoutRecord]) -> tuple[Judgements | None, Judgements]:
    """Divide a table into what any of several juries was fitted to, and the rest.

    Args:
        judgements: `N` judgements.
        records: One per jury whose split is known.

    Returns:
        The judgements that a jury was fitted to, None if there are none; and those that none was fitted to.

    Raises:
        JudgementError: All judgements were fitted to.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements(num_raters=3, num_items=2).judgements
        >>> items = judgements.items
        >>> record = HeldoutRecord(["r0", "r1"], ["r2"], items[:1], items[1:])
        >>> fitted, unseen = divide(judgements, [record])
        >>> len(fitted), len(unseen)  # two raters on one item, out of three on two
        (2, 4)
    """
    fitted = np.zeros(len(judgements), dtype=bool)
    for record in records:
        fitted |= record.fitted(judgements)
    if fitted.all():
        raise JudgementError(
            f"all {len(judgements):,} judgements of the table are by raters and on items that the jury was fitted "
            f"to ({HELDOUT_FILE} beside its folder). Fix: give judgements of other raters or items, or the whole "
            "table that the run read, of which the held-out part is scored."
        )
    return (judgements.select(fitted), judgements.select(~fitted)) if fitted.any() else (None, judgements)
