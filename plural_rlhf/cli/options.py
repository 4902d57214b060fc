"""Arguments and options that several commands share, each with its help text.

Knows nothing of what a command does with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


__all__ = [
    "Columns",
    "ConfigFile",
    "JsonFile",
    "JuryFolder",
    "Output",
    "Overwrite",
    "Release",
    "Reuse",
    "RunSeed",
    "Settings",
    "Source",
    "TableFile",
    "Traceback",
    "output_option",
]


def output_option(help_text: str, metavar: str = "DIR") -> Any:
    """Return the option of every command that writes to a place of the user's choice.

    Args:
        help_text: What is written there, and the default.
        metavar: What kind of place it is.

    Example:
        >>> output_option("The run file to write.", "RUN.yaml").metavar
        'RUN.yaml'
    """
    return typer.Option("--output", "--out", metavar=metavar, help=help_text)


ConfigFile = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="Run file in YAML, for example configs/quickstart.yaml.")
]
TableFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="TABLE",
        help="Table of judgements (.csv, .jsonl, .parquet, .xlsx, .sav, .dta), or a run file (.yaml).",
    ),
]
RunSeed = Annotated[
    int | None, typer.Option("--seed", min=0, help="Random seed; default: that of the run file, or 0.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting of the run file, e.g. --set data.max_raters=500. Repeatable.",
    ),
]
Output = Annotated[Path | None, output_option("Folder for the results; default: output_dir of the run file.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Delete what an earlier run left in the output folder and start over.")
]
Reuse = Annotated[
    Path | None,
    typer.Option(
        "--reuse",
        metavar="DIR",
        help="Copy what the run in this folder has done with the same settings and data (jury, pi_0, ...).",
    ),
]
JuryFolder = Annotated[str, typer.Argument(metavar="JURY", help="Folder of a saved jury, or its id on the Hub.")]
Columns = Annotated[
    Path | None,
    typer.Option(
        "--columns",
        metavar="MAP.yaml",
        help="Column map: which column of the table holds what. Not needed if the columns have the standard names.",
    ),
]
Release = Annotated[
    str | None,
    typer.Option(
        "--release", metavar="NAME", help="Published data set instead of a table; plural-rlhf releases lists them."
    ),
]
Source = Annotated[
    str | None,
    typer.Option("--source", metavar="PATH", help="Copy of the release; default: from the Hub, if it is there."),
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write everything to this file, as JSON.")
]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where in the code an error was raised.")]
