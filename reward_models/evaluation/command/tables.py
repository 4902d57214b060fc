"""The tables of `evaluate-jury`: what is measured on, and what the jury was fitted to.

Knows nothing of models.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from pathlib import Path

from reward_models.borders import say
from reward_models.errors import JudgementError, JudgementWarning
from reward_models.evaluation.cells import Cells, evaluation_cells
from reward_models.evaluation.heldout import HELDOUT_FILE, HeldoutRecord, divide
from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import Text


__all__ = ["Judged", "read_judged"]


@dataclass(frozen=True)
class Judged:
    """The tables of the command: what is measured on, what the jury was fitted to, and how that is known.

    Example:
        >>> from reward_models import planted_judgements
        >>> table = planted_judgements().judgements
        >>> Judged(table, None, "not known", evaluation_cells(table)).texts[0].prompt
        'Question 1?'
    """

    test: Judgements
    train: Judgements | None
    fitted_to: str
    cells: Cells

    @property
    def texts(self) -> list[Text]:
        """Different texts of both tables."""
        tables = [table for table in (self.test, self.train) if table is not None]
        return list(dict.fromkeys(text for table in tables for text in table.encode().texts))


def read_judged(args: argparse.Namespace) -> Judged:
    """Read the tables and divide them into cells.

    Args:
        args: Options of the command.

    Raises:
        JudgementError: Judgements that cannot be used.
    """
    test, train, fitted_to = _unseen(args)
    cells = evaluation_cells(test, train, adapt_share=args.adapt_share, by=args.by, seed=args.seed)
    if train is None and cells.adapt is None:
        raise JudgementError(
            f"none of the {test.n_raters} raters has two judgements, one to adapt by and one to score. Fix: use a "
            "table in which raters judged several items."
        )
    return Judged(test, train, fitted_to, cells)


def _read(path: Path, columns: Path | None) -> Judgements:
    """Read a table; what its codes were taken for and its warnings are printed as lines of text."""
    from reward_models.sources import read_table

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", JudgementWarning)
        reading = read_table(path, columns)
    for warning in caught:
        say(f"note: {path.name}: {warning.message}", err=True)
    say(reading)
    return reading.judgements


def _unseen(args: argparse.Namespace) -> tuple[Judgements, Judgements | None, str]:
    """Read the tables and set aside what the jury, or the one to compare with, was fitted to.

    Returns:
        The judgements to measure on; those that the jury was fitted to, None if they are not at hand; and, in words,
        how they are known.
    """
    test, train = _read(args.data, args.columns), None
    if args.train is not None:
        train = _read(args.train, args.columns)
    juries = [jury for jury in (args.jury, args.base) if jury is not None]
    records = {jury: HeldoutRecord.beside(jury) for jury in juries}
    before = len(test)
    fitted, test = divide(test, [record for record in records.values() if record is not None])
    facts = []
    if fitted is not None:
        fate = "they serve as training judgements" if train is None else "they are left out; --train has others"
        facts.append(f"{HELDOUT_FILE} names {len(fitted):,} of {before:,} judgements of --data, not scored: {fate}")
    elif any(records.values()):
        facts.append(f"{HELDOUT_FILE} names none of the {before:,} judgements of --data")
    if train is not None:
        facts.append(f"--train has {len(train):,} judgements")
    facts += [
        f"not known for {jury}, without --train and without {HELDOUT_FILE} beside its folder. If raters or items of "
        "--data were among it, the numbers are too good. Fix: give its training judgements with --train"
        for jury, record in records.items()
        if record is None and train is None
    ]
    fitted_to = "; ".join(facts)
    say(f"note: what the jury was fitted to: {fitted_to}", err=True)
    return test, fitted if train is None else train, fitted_to
