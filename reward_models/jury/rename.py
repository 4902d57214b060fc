"""Give the clusters of a saved jury other names; weights, scores and calibration stay as they are.

Reads and writes the folder's small files only, and replaces the jury as one: a reader finds the old names or the new,
with hashes that fit. Knows nothing of models, and of policies only that their prompts hold the names that they were
trained with.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from reward_models.analysis.naming import changed_names
from reward_models.borders import markdown_text
from reward_models.content_hashes import folder_records, value_hash
from reward_models.errors import JuryError
from reward_models.jury.folder import SELF, STATE_FILE, load_config, load_state
from reward_models.replaced_files import folder_to_read, link_or_copy, replaced_files
from reward_models.whole_file import write_json


__all__ = ["rename_clusters"]

CARD = "README.md"


def rename_clusters(
    folder: str | Path,
    names: Sequence[str] | Mapping[str, str],
    descriptions: Mapping[str, str] | None = None,
) -> list[str]:
    """Rename clusters of a saved jury, in its folder, and replace their descriptions where new ones are given.

    A policy that was trained on prompts with the former names follows these names only: the folder keeps those that it
    had before its first renaming (`JuryConfig.former_names`), for `Steerer.from_pretrained(prompt_names=)`. A run that
    goes on in the folder around the jury sees another jury, and refuses it; set `jury.names` in its run file instead.

    Args:
        folder: Folder of a jury that was saved with `JuryScorer.save_pretrained` or `JuryRewardTrainer`.
        names: Names of all clusters in order, or new names by present name, see `changed_names`.
        descriptions: New descriptions of clusters by their present name; the others keep theirs.

    Returns:
        The names of all clusters.

    Raises:
        JuryError: The folder does not hold a jury as it was saved, or the names cannot be used. Nothing was changed.

    Example:
        >>> import tempfile
        >>> from reward_models import JuryRewardModel, JuryScorer
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> import numpy as np
        >>> model = JuryRewardModel.from_fit(tiny_causal_lm(), np.zeros((2, 32)), np.zeros(2), [0.7, 0.3])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     JuryScorer(model, tiny_tokenizer()).save_pretrained(folder)
        ...     rename_clusters(folder, {"cluster 2": "rural"})
        ...     JuryScorer.from_pretrained(folder).cluster_names
        ['cluster 1', 'rural']
        ['cluster 1', 'rural']
    """
    config = load_config(folder)
    source = Path(folder_to_read(folder))
    if not (source / STATE_FILE).is_file():
        raise JuryError(
            f"{str(folder)!r} is no folder with {STATE_FILE}, which a jury is saved with. Fix: give the folder of a "
            "jury that JuryScorer.save_pretrained wrote; one of the Hub has to be downloaded first"
        )
    load_state(folder, config)  # raises where a file is not as it was saved
    new_names = changed_names(names, config.cluster_names)
    new_by_old = dict(zip(config.cluster_names, new_names, strict=True))
    values = json.loads((source / STATE_FILE).read_text(encoding="utf-8"))
    with replaced_files(folder, STATE_FILE) as unfinished:
        for name in values["files"]:
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(source / name, unfinished / name)
        _rename_in_config(unfinished / "config.json", new_names)
        if (source / CARD).is_file():
            (unfinished / CARD).unlink(missing_ok=True)
            shutil.copyfile(source / CARD, unfinished / CARD)
            _rename_in_card(unfinished / CARD, new_by_old)
        changed = [name for name in ("config.json", CARD) if name in values["files"]]
        files = {**values["files"], **folder_records(unfinished, changed)}
        new = {} if descriptions is None else descriptions
        clusters = [
            {
                **cluster,
                "name": new_by_old[cluster["name"]],
                "description": new.get(cluster["name"], cluster["description"]),
            }
            for cluster in values["clusters"]
        ]
        state = {key: value for key, value in values.items() if key != SELF} | {"clusters": clusters, "files": files}
        write_json(unfinished / STATE_FILE, {**state, SELF: value_hash(state)}, exact=True)
    return new_names


def _rename_in_config(path: Path, names: Sequence[str]) -> None:
    """Write the new names; into a new file, because the present one is a link to that of the jury."""
    values = json.loads(path.read_text(encoding="utf-8"))
    former = values.get("former_names") or values["cluster_names"]
    values |= {"cluster_names": list(names), "former_names": former if former != list(names) else None}
    path.unlink()
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _rename_in_card(path: Path, new_by_old: Mapping[str, str]) -> None:
    """Rename the rows of the table of clusters, see `trainer.model_card`."""
    rows = {f"| {markdown_text(old)} | ": f"| {markdown_text(new)} | " for old, new in new_by_old.items()}
    lines = path.read_text(encoding="utf-8").split("\n")
    for i, line in enumerate(lines):
        start = next((old for old in rows if line.startswith(old)), None)
        if start is not None:
            lines[i] = rows[start] + line[len(start) :]
    path.write_text("\n".join(lines), encoding="utf-8")
