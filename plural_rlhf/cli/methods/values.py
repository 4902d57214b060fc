"""The commands `fit-values` and `values`: a judge of values from a table, and what values say of situations.

Knows nothing of how a value is judged: `plural_rlhf.methods.kaleidoscope` does that.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plural_rlhf.cli.guard import guarded
from plural_rlhf.cli.options import JsonFile, Traceback, output_option
from reward_models.borders import cell, say


if TYPE_CHECKING:
    from rich.table import Table

    from plural_rlhf.methods.kaleidoscope import RelevantValue, Value, ValueJudge

__all__ = ["fit_values", "values"]


def fit_values(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE",
            help="Situations with their values: columns situation, text, vrd (Value, Right or Duty) and valence "
            "(supports, opposes, either), as in ValuePrism.",
        ),
    ],
    out: Annotated[Path, output_option("New folder for the judge.")],
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            metavar="MODEL",
            help="Folder or Hub id of a sentence embedder or a language model, whose vectors are read. Default: words "
            "alone, which know no synonyms.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Random seed.")] = 0,
    traceback: Traceback = False,
) -> None:
    """Fit a judge of values: which values, rights and duties matter in a situation, and what each says of it.

    Example: `plural-rlhf fit-values valueprism.csv --backbone models/all-MiniLM-L6-v2 --output judges/values`

    Prints how right judges are on values that they were not fitted to, against the most frequent valence, and then
    fits and saves one to all rows.
    """

    def fit() -> None:
        from rich.console import Console
        from rich.table import Table

        from plural_rlhf.methods.kaleidoscope import (
            BackboneVectors,
            ValuesError,
            fit_value_judge,
            heldout_valences,
            read_valued_situations,
            valence_accuracy,
            word_vectors,
        )
        from plural_rlhf.methods.kaleidoscope.measures import majority_valences

        if out.exists() and any(out.iterdir()):
            raise ValuesError(f"the folder {str(out)!r} is not empty. Fix: give a new one with --output.")
        rows = read_valued_situations(table)
        vectors = word_vectors if backbone is None else BackboneVectors(backbone)
        judge = fit_value_judge(rows, vectors, seed=seed)
        valued = [row for row in rows if row.valence is not None]
        judged = {
            "most frequent": majority_valences(valued, seed=seed),
            "judge": heldout_valences(valued, vectors, seed=seed),
        }
        judge.save(out)
        shown = Table("on values not fitted to", "accuracy", "without either", "nats")
        for name, probabilities in judged.items():
            of = valence_accuracy(valued, probabilities)
            numbers = (of["accuracy"], of["binary_accuracy"], of["nats"])
            shown.add_row(name, *(f"{n.value:.3f} [{n.low:.3f}, {n.high:.3f}]" for n in numbers))
        Console().print(shown)
        say(f"Judge of values: {out}")

    guarded(fit, traceback)


def values(
    situations: Annotated[
        list[str],
        typer.Argument(
            metavar="SITUATION", help="What somebody does, in words; or a text file, one situation a line."
        ),
    ],
    judge: Annotated[
        str,
        typer.Option(
            "--judge", metavar="JUDGE", help="Folder of fit-values, or a Kaleido checkpoint (folder or Hub id)."
        ),
    ],
    values_file: Annotated[
        Path | None,
        typer.Option(
            "--values",
            metavar="FILE",
            help="Values to choose from, one a line; those that begin with 'Right to' or 'Duty to' are rights and "
            "duties. Default: those that a Kaleido checkpoint names itself.",
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option("--threshold", min=0, max=1, help="Least relevance of the values that are shown.")
    ] = 0.5,
    json_file: JsonFile = None,
    traceback: Traceback = False,
) -> None:
    """Show which values, rights and duties matter in a situation, what each says of it, and how ambiguous it is.

    Example: `plural-rlhf values "Lying to a friend to spare her feelings" --judge judges/values --values values.txt`

    Relevance and valence are probabilities. Ambiguity is the entropy, in nats, of what the relevant values say
    together: 0 where all agree, 1.10 where they are divided evenly between support, opposition and either.
    """

    def show() -> None:
        from rich.console import Console

        from plural_rlhf.methods.kaleidoscope import KaleidoJudge, ValuesError, load_value_judge, relevant_values
        from reward_models.whole_file import write_json

        lines = [line for text in situations for line in _lines_of(text)]
        loaded = load_value_judge(judge)
        named = None if values_file is None else _values_of(values_file)
        if named is None and not isinstance(loaded, KaleidoJudge):
            raise ValuesError("a fitted judge names no values itself. Fix: give --values FILE, one value a line.")
        records = []
        for situation in lines:
            kept = relevant_values(loaded, situation, _candidates(loaded, situation, named), threshold)
            nats = _ambiguity_of(kept)
            Console().print(_table(situation, kept, nats))
            records.append({"situation": situation, "ambiguity": nats, "values": [_record(value) for value in kept]})
        if json_file is not None:
            write_json(json_file, records)

    guarded(show, traceback)


def _lines_of(text: str) -> list[str]:
    path = Path(text)
    if len(text) < 255 and path.is_file():
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    return [text]


def _values_of(path: Path) -> list[Value]:
    from plural_rlhf.methods.kaleidoscope import Value, ValuesError

    lines = path.read_text(encoding="utf-8-sig").splitlines()
    if not any(line.strip() for line in lines):
        raise ValuesError(f"{path} names no value. Fix: write one a line, e.g. Honesty.")
    return [Value.from_text(line) for line in lines if line.strip()]


def _candidates(judge: ValueJudge, situation: str, named: list[Value] | None) -> list[Value]:
    from plural_rlhf.methods.kaleidoscope import KaleidoJudge

    if named is not None:
        return named
    assert isinstance(judge, KaleidoJudge)
    return judge.values_of(situation)


def _ambiguity_of(kept: list[RelevantValue]) -> float | None:
    import numpy as np

    from plural_rlhf.methods.kaleidoscope import ambiguity

    if not kept:
        return None
    return ambiguity(np.array([v.relevance for v in kept]), np.stack([v.valence for v in kept]))


def _record(value: RelevantValue) -> dict[str, Any]:
    from plural_rlhf.evaluation.tables.valued_situations import VALENCES

    said = dict(zip(VALENCES, value.valence.tolist(), strict=True))
    return {"text": value.value.text, "kind": value.value.kind, "relevance": value.relevance, **said}


def _table(situation: str, kept: list[RelevantValue], nats: float | None) -> Table:
    from rich.table import Table

    undecided = "no value matters" if nats is None else f"ambiguity {nats:.2f} nats"
    table = Table("value", "matters", "supports", "opposes", "either", title=cell(f"{situation}: {undecided}"))
    for value in kept:
        table.add_row(cell(value.value.text), f"{value.relevance:.2f}", *(f"{p:.2f}" for p in value.valence))
    return table
