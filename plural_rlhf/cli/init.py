"""The command `init`: a first run file for a table of one's own. Knows nothing of how it is drafted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plural_rlhf.cli.guard import guarded
from plural_rlhf.cli.options import Columns, Traceback, output_option
from reward_models.borders import lines_to


__all__ = ["init"]


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, Parquet, JSONL, Excel, SPSS or Stata file.")],
    columns: Columns = None,
    output: Annotated[
        Path | None,
        output_option("The run file to write; default: FILE_run.yaml.", "RUN.yaml"),
    ] = None,
    traceback: Traceback = False,
) -> None:
    """Look at a file of judgements and write a run file for it, with a comment on each setting.

    Example: `plural-rlhf init pairs.csv` writes `pairs_run.yaml`; then `plural-rlhf run pairs_run.yaml`

    Finds which column is what by the names of the columns, or takes --columns. Chooses what is held out, how many
    clusters are tried and how long texts may be. Answers to questions get the form of a survey, pairs and ratings that
    of a policy that writes. An existing file is never overwritten.
    """
    guarded(lambda: _init(file, columns, output or Path(f"{file.stem}_run.yaml")), traceback)


def _init(file: Path, columns: Path | None, output: Path) -> None:
    from rich.console import Console

    from plural_rlhf.recipe.config import ConfigError
    from plural_rlhf.recipe.draft.run_file import draft_run_file
    from plural_rlhf.recipe.draft.table import find_column_map
    from reward_models.sources import load_table
    from reward_models.whole_file import whole_file

    if output.exists():
        raise ConfigError(str(output), ["the file exists already, and is not overwritten. Fix: --output ANOTHER.yaml"])
    judgements, found = (load_table(file, columns), None) if columns is not None else find_column_map(file)
    text = draft_run_file(file, judgements, columns if columns is not None else found, output)
    with whole_file(output) as run_file:
        run_file.write(text)
    lines = lines_to(Console())
    lines(f"{file}: {len(judgements):,} judgements ({judgements.kind}) of {judgements.n_raters:,} raters")
    lines(f"Wrote {output}. Next: plural-rlhf headroom {output}, then plural-rlhf run {output}")
