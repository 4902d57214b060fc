"""The command `predict-questions`: what people would answer to questions that nobody was asked.

Reads judgements and questions, calls `plural_rlhf.methods.new_questions`, and prints the result. Knows nothing of how
it is predicted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plural_rlhf.cli.data import data_config, sentence_embedder
from plural_rlhf.cli.guard import command_line, guarded
from plural_rlhf.cli.options import Columns, RunSeed, Settings, Traceback, output_option
from reward_models.borders import lines_to, say


__all__ = ["predict_questions"]

SHOWN = 12
"""Predictions of a table that are printed; all are written."""


def predict_questions(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE",
            help="People's answers to known questions, or ratings of statements (.csv, .jsonl, .parquet, .xlsx, .sav, "
            ".dta), published shares, or a run file (.yaml).",
        ),
    ],
    new: Annotated[
        Path,
        typer.Argument(
            metavar="NEW",
            help="The new questions: a table with a column question, and perhaps item_id and options (yes; no), or a "
            "text file (.txt) with one a line.",
        ),
    ],
    columns: Columns = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="TRAIT",
            help="Also predict each group of people by this trait (a column rater:TRAIT), or by clusters, which are "
            "fitted to their answers.",
        ),
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            "--embedder", metavar="PATH", help="Sentence embedder that reads wordings; default: MiniLM, if installed."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        output_option("Folder for the results. Default: runs/TABLE-questions."),
    ] = None,
    settings: Settings = None,
    seed: RunSeed = None,
    traceback: Traceback = False,
) -> None:
    """Predict what people would answer to new questions, from how alike their wording is to that of known ones.

    Example: `plural-rlhf predict-questions answers.csv new.csv --columns map.yaml --output runs/new-questions`

    Example: `plural-rlhf predict-questions survey.sav new.txt --by party`

    Example: `plural-rlhf predict-questions configs/quickstart.yaml new.csv`

    First every known question is predicted from the others, beside the mean of the others (the marginal), which is
    hard to beat. If wording is not nearer to people by an interval that excludes 0, the first line says so, and the
    marginal is the better guess. Known questions need their wordings, and at least five of them the same offered
    answers as a new question. Takes seconds and trains nothing.

    Writes shares.csv (a row per question, group and answer: share, its 90 % interval, marginal), results.json,
    report.md and report.html with plots. A question about a matter that no known question touches is predicted worse
    than these numbers say.
    """

    def predict() -> None:
        from rich.console import Console

        from plural_rlhf.methods.new_questions import question_groups, read_new_questions, run_questions
        from plural_rlhf.methods.new_questions.page import predicted_tables, question_findings
        from plural_rlhf.recipe.inputs import read_judgements
        from plural_rlhf.report.tables import rich_table
        from reward_models.progress import progress_bars

        config = data_config(file, columns, None, None, settings or [])
        questions = read_new_questions(new)
        embed = sentence_embedder(embedder, "wordings")
        used_seed = config.seed if seed is None else seed
        judgements = read_judgements(config.data, used_seed, say)
        groups, notes = question_groups(judgements, by, config.jury.clusters, seed=used_seed)
        folder = out or Path("runs") / f"{file.stem}-questions"
        with progress_bars():
            results = run_questions(
                judgements,
                questions,
                folder,
                embed,
                groups,
                name=config.name,
                config={"table": str(file), "new": str(new), "by": by, "embedder": embedder, "seed": used_seed},
                notes=notes,
                seed=used_seed,
                command=command_line("predict-questions"),
            )
        console = Console()
        tell = lines_to(console)
        for sentence in question_findings(results):
            tell(sentence)
        for table in predicted_tables(results, most=SHOWN, reasons=False):
            console.print(rich_table(table, title="Predicted shares"))
        tell(f"Shares: {folder.resolve() / 'shares.csv'}")
        tell(f"Report: {folder.resolve() / 'report.html'}")

    guarded(predict, traceback)
