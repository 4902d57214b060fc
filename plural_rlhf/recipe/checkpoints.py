"""Checkpoints inside a training stage: written every few minutes, found again after a kill, deleted at its end.

A checkpoint counts only with the note that is written after it, which holds the hash of each of its files; older ones
are deleted after that, so that a kill or a full disk at any moment leaves one to go on from. Works with any trainer of
transformers. Knows nothing of what is trained.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from plural_rlhf.recipe.config_sections import CheckpointSection
from plural_rlhf.recipe.interruption import Interruption
from reward_models.content_hashes import FileRecord, folder_records
from reward_models.whole_file import whole_folder, write_json


if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["TrainingFolder"]

WHOLE_FILE = "whole.json"
"""The note that a checkpoint is complete."""


class TrainingFolder:
    """Where a training stage saves its policy, and the checkpoints that it goes on from.

    Args:
        policy: Folder of the policy, written when training is complete.
        folder: Folder of the checkpoints.
        section: How often they are written and how many are kept.
        interruption: Whether the run was asked to stop.
        show: Called with a sentence about what is done, e.g. `print`.

    Attributes:
        seconds_before: Seconds of training behind the checkpoint that training went on from.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "checkpoint-3").mkdir()  # a kill while it was being written
        ...     training = TrainingFolder(Path("warm"), Path(folder))
        ...     print(training.newest())
        checkpoint-3 was not written to its end, or is damaged: deleted
        None
    """

    def __init__(
        self,
        policy: Path,
        folder: Path,
        section: CheckpointSection | None = None,
        interruption: Interruption | None = None,
        show: Callable[[str], object] = print,
    ) -> None:
        self.policy, self.folder = policy, folder
        self.seconds_before = 0.0
        self._section, self._show = section or CheckpointSection(), show
        self._interruption = interruption or Interruption(show)

    def newest(self) -> Path | None:
        """Return the last complete checkpoint; delete what was cut short or damaged, and say so."""
        for path in sorted(self.folder.glob("checkpoint-*"), key=_step, reverse=True):
            try:
                note = json.loads((path / WHOLE_FILE).read_text(encoding="utf-8"))
                if note["files"] == _files(path):
                    self.seconds_before = note["seconds"]
                    return path
            except (OSError, ValueError, KeyError, TypeError):
                pass
            self._show(f"{path.name} was not written to its end, or is damaged: deleted")
            shutil.rmtree(path)
        return None

    def train(self, trainer: Trainer) -> float:
        """Train from the last complete checkpoint, or from the start; return the seconds of all training so far.

        Args:
            trainer: Whose `output_dir` is `folder`, with `save_strategy="no"` and no limit on checkpoints.

        Raises:
            RunInterrupted: The run was asked to stop before the last step; a checkpoint of the step before is there.
        """
        newest = self.newest()
        if newest is not None:
            self._show(f"going on from step {_step(newest)} ({newest})")
        start = time.perf_counter()

        def seconds() -> float:
            return self.seconds_before + time.perf_counter() - start

        trainer.add_callback(_SaveOften(self._section, self._interruption, seconds))
        with self._interruption.deferred():
            trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
        self._interruption.check()
        return seconds()

    def save(self, model: Any, tokenizer: Any) -> None:
        """Save the policy as a whole folder or not at all, in place of what an interrupted run left."""
        if self.policy.is_dir():
            shutil.rmtree(self.policy)
        with whole_folder(self.policy) as unfinished:
            model.save_pretrained(unfinished)
            tokenizer.save_pretrained(unfinished)


class _SaveOften(TrainerCallback):
    """Save by steps, by time and when the run is to stop; mark each checkpoint as complete, then delete older ones."""

    def __init__(self, section: CheckpointSection, interruption: Interruption, seconds: Callable[[], float]) -> None:
        self.section, self.interruption, self.seconds = section, interruption, seconds
        self.saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            return
        every = self.section.every_steps
        due = time.monotonic() - self.saved >= 60 * self.section.every_minutes
        due = due or (every is not None and state.global_step % every == 0)
        stop = self.interruption.requested is not None
        control.should_save = control.should_save or due or stop
        control.should_training_stop = control.should_training_stop or stop

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir)
        newest = folder / f"checkpoint-{state.global_step}"
        write_json(newest / WHOLE_FILE, {"files": _files(newest), "seconds": self.seconds()})
        for path in sorted(folder.glob("checkpoint-*"), key=_step)[: -self.section.keep]:
            shutil.rmtree(path)
        self.saved = time.monotonic()


def _step(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _files(checkpoint: Path) -> dict[str, FileRecord]:
    records = folder_records(checkpoint)
    records.pop(WHOLE_FILE, None)
    return records
