"""What both trainers do with checkpoints: check one before training, add a state to each, and load it again.

The state file is written last, so a checkpoint that has it is complete, and older checkpoints are deleted after that.
Knows nothing of what a state holds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import Trainer
from transformers.trainer_utils import get_last_checkpoint

from plural_rlhf.trainers import _trl


if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["STATE_FILE", "CheckpointedTrainer", "Resume", "default_output_dir", "whole_checkpoint"]

STATE_FILE = "plural_state.json"
"""The file of a checkpoint that is written last."""

Resume = bool | str | os.PathLike[str] | None
"""What `Trainer.train` takes as `resume_from_checkpoint`."""


class CheckpointedTrainer(Trainer):
    """A trainer of TRL whose checkpoints hold more than TRL's own; the base before TRL's class."""

    def _check_state(self, folder: Path) -> None:
        """Raise if the state of a whole checkpoint belongs to another training."""
        raise NotImplementedError

    def _save_state(self, folder: Path) -> None:
        """Add the state to a checkpoint that TRL has written; called on every process."""
        raise NotImplementedError

    def _load_state(self, folder: Path) -> None:
        """Put the state of a checkpoint back, after TRL's own."""
        raise NotImplementedError

    def _before_training(self) -> None:
        """Do what needs the policy as it was given, before a checkpoint is loaded into it."""

    def train(self, resume_from_checkpoint: Resume = None, *args: Any, **kwargs: Any) -> Any:
        """Train, as `Trainer.train`.

        Raises:
            ValueError: The checkpoint to resume from was not written to its end.
            JuryError: It belongs to another training.
        """
        folder = whole_checkpoint(resume_from_checkpoint, self.args.output_dir)
        if folder is not None:
            self._check_state(folder)
        self._before_training()
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with _trl.rotation_last():
            super()._save_checkpoint(model, trial)
            self._save_state(_trl.checkpoint_folder(self, trial))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._load_state(Path(checkpoint))


def whole_checkpoint(resume: Resume, output_dir: str | None) -> Path | None:
    """Return the folder that training resumes from.

    Args:
        resume: What `train` was given.
        output_dir: Where the last checkpoint is sought if `resume` is True.

    Returns:
        The folder; None where training starts afresh, or `resume` is no folder, which TRL then refuses.

    Raises:
        ValueError: The checkpoint was not written to its end; the message names the last whole one.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as runs:
        ...     for step in (1, 2):
        ...         (Path(runs) / f"checkpoint-{step}").mkdir()
        ...     _ = (Path(runs) / "checkpoint-1" / STATE_FILE).write_text("{}")
        ...     found = whole_checkpoint(Path(runs) / "checkpoint-1", runs)
        ...     try:
        ...         whole_checkpoint(True, runs)  # the last one, which was cut short
        ...     except ValueError as error:
        ...         refusal = str(error)
        >>> found.name, "checkpoint-2' has no plural_state.json" in refusal
        ('checkpoint-1', True)
    """
    if not resume:
        return None
    given = get_last_checkpoint(output_dir) if resume is True and output_dir else resume
    if not isinstance(given, str | os.PathLike) or not Path(given).is_dir():
        return None
    folder = Path(given)
    if (folder / STATE_FILE).is_file():
        return folder
    siblings = sorted(folder.parent.glob("checkpoint-*"), key=lambda path: path.stat().st_mtime)
    whole = [str(path) for path in siblings if (path / STATE_FILE).is_file()]
    advice = f"resume from {whole[-1]!r}" if whole else "start again"
    raise ValueError(
        f"the checkpoint {str(folder)!r} has no {STATE_FILE}, which is written last: it was cut short, or another "
        f"trainer wrote it. Delete it and {advice}."
    )


def default_output_dir(model: str | PreTrainedModel | PeftModel, suffix: str) -> str:
    """Return the output folder of a trainer that was given no configuration: the model's name and the method's.

    Example:
        >>> default_output_dir("Qwen/Qwen3-0.6B", "PluralDPO")
        'Qwen3-0.6B-PluralDPO'
    """
    name = model if isinstance(model, str) else model.config.name_or_path
    return f"{name.split('/')[-1]}-{suffix}"
