"""The file of a complete stage: its result, hashes of what it read and wrote, and a hash of the file itself.

A record of an earlier version has a result and seconds only; it is read, and what it does not say is not compared.
Knows nothing of what the stages do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plural_rlhf.recipe.run_folder.errors import RunFolderError
from reward_models.content_hashes import FileRecord, changed_files, value_hash
from reward_models.whole_file import write_json


if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["StageInputs", "StageRecord", "damage"]


@dataclass(frozen=True)
class StageInputs:
    """What a stage read.

    Attributes:
        settings: Settings that it depends on, by their key in the run file.
        content: Hash of each thing that it read, by its name in words, e.g. `judgements`.
        sources: Hash of each file behind the content, by its path; for messages only.

    Example:
        >>> before = StageInputs({"seed": 0}, {"judgements": "a1"}, {"answers.csv": "f1"})
        >>> now = StageInputs({"seed": 0, "jury.l2": "auto"}, {"judgements": "b2"}, {"answers.csv": "f2"})
        >>> list(before.changes(now, defaults={"jury.l2": "auto"}))
        ['judgements: other content (the file answers.csv has changed)']
    """

    settings: dict[str, Any] = field(default_factory=dict)
    content: dict[str, str | None] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_sections(
        cls,
        config: BaseModel,
        sections: Sequence[str],
        content: Mapping[str, object],
        models: Mapping[str, str | None] | None = None,
    ) -> StageInputs:
        """Return what a stage reads: the seed and some sections of a run file, and the hash of each content.

        Args:
            config: The run file.
            sections: Names of its sections.
            content: Plain values, by their name in words.
            models: Hashes of models, by their name in words; None for one that is not there yet.
        """
        values = config.model_dump(mode="json", include={"seed", *sections})
        flat = {"seed": values.pop("seed")} | {
            f"{section}.{key}": value for section, of in values.items() for key, value in of.items()
        }
        return cls(flat, {**{name: value_hash(value) for name, value in content.items()}, **(models or {})})

    def changes(self, now: StageInputs, defaults: Mapping[str, Any]) -> Iterator[str]:
        """Yield a phrase per setting or content that differs now.

        A setting that was not there counts as what was done then; content that either side does not know, as equal.

        Args:
            now: What the stage would read today.
            defaults: What was done then, per setting.
        """
        for key, here in sorted(now.settings.items()):
            there = self.settings.get(key, defaults.get(key))
            if there != here:
                yield f"{key}: {there!r} there, {here!r} here"
        for name, digest in now.content.items():
            if digest is not None and self.content.get(name) not in (None, digest):
                files = [path for path, d in now.sources.items() if self.sources.get(path) not in (None, d)]
                because = f" (the file {' and '.join(files)} has changed)" if files and name == "judgements" else ""
                yield f"{name}: other content{because}"

    def unknown(self, now: StageInputs) -> str:
        """Return a sentence part on content that the stage reads and these inputs, of an earlier version, do not know.

        Args:
            now: What the stage would read today.

        Returns:
            The part, to be put behind a sentence; empty if all is known.

        Example:
            >>> StageInputs().unknown(StageInputs(content={"embedder": "a1", "rival dpo": None}))
            '; it is of an earlier version, so whether this has changed since is unknown: embedder'
        """
        names = [name for name, digest in now.content.items() if digest and self.content.get(name) is None]
        what = f"; it is of an earlier version, so whether this has changed since is unknown: {', '.join(names)}"
        return what if names else ""


@dataclass(frozen=True)
class StageRecord:
    """What a complete stage left.

    Attributes:
        result: Its results as plain JSON.
        seconds: How long it took.
        inputs: What it read; None in a record of an earlier version.
        files: Size and hash of every file that it wrote, by path relative to the run's folder; None as for `inputs`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "jury.json"
        ...     StageRecord({"clusters": 2}, 1.5).write(path)
        ...     StageRecord.read(path).result
        ...     _ = path.write_text(path.read_text().replace("2", "3", 1))
        ...     StageRecord.read(path)
        Traceback (most recent call last):
        plural_rlhf.recipe.run_folder.errors.RunFolderError: the record of the stage jury ... is damaged: ...
    """

    result: dict[str, Any]
    seconds: float
    inputs: StageInputs | None = None
    files: dict[str, FileRecord] | None = None

    def write(self, path: Path) -> None:
        """Write the record with a hash of itself; NaN becomes null."""
        plain = json.loads(json.dumps(asdict(self)), parse_constant=lambda _: None)
        write_json(path, {**plain, "sha256": value_hash(plain)})

    @classmethod
    def read(cls, path: Path) -> StageRecord:
        """Read a record.

        Raises:
            RunFolderError: It is damaged; the message says how and what to do.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            recorded = stored.pop("sha256", None)
            if recorded is None and "inputs" in stored:
                raise ValueError("its own hash is missing")
            if recorded not in (None, value_hash(stored)):
                raise ValueError("its content is not what its own hash says, so it was changed or cut")
            inputs = stored.get("inputs")
            return cls(
                stored["result"],
                stored["seconds"],
                None if inputs is None else StageInputs(**inputs),
                stored.get("files"),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            raise RunFolderError(
                damage(path.parents[1], path.stem, f"record of the stage {path.stem}", reason)
            ) from error

    def check_files(self, folder: Path, stage: str) -> None:
        """Raise if a file that the stage wrote is missing or was changed.

        Args:
            folder: The run's folder.
            stage: Name of the stage, for the message.

        Raises:
            RunFolderError: Which file, and what to do.
        """
        try:
            changed = changed_files(folder, self.files or {})
        except ValueError as error:  # a record that was made by hand
            raise RunFolderError(damage(folder, stage, f"record of the stage {stage}", str(error))) from error
        if changed:
            reason = "; ".join(f"{name}: {fault}" for name, fault in changed.items())
            raise RunFolderError(damage(folder, stage, f"output of the stage {stage}", reason))


def damage(folder: Path, stage: str, part: str, reason: str) -> str:
    """Return the message about a damaged part of a run: what, why, and the three ways out."""
    return (
        f"the {part} in {str(folder)!r} is damaged: {reason}. Fix: put it back from a copy, delete "
        f"stages/{stage}.json so that this stage is done again (the others are kept), or start over with --overwrite."
    )
