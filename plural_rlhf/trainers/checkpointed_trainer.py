"""What both trainers do with checkpoints and evaluations: neither changes what training does afterwards.

Training checks a checkpoint before it starts, adds a state to each, and loads it again.

The state file is written last and lists all other files, so a checkpoint that has it is complete, and older ones are
deleted after that. Knows nothing of what a state holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import Trainer

from plural_rlhf.trainers import _trl
from reward_models.inference import randomness_aside
from reward_models.process_group import leave_process_group_at_exit
from reward_models.trainer.whole_checkpoints import (
    FILES,
    Resume,
    checkpoint_fault,
    checkpoint_files,
    resumed_checkpoint,
)
from reward_models.whole_file import write_json


if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["STATE_FILE", "CheckpointedTrainer", "default_output_dir"]

STATE_FILE = "plural_state.json"
"""The file of a checkpoint that is written last."""


class CheckpointedTrainer(Trainer):
    """A trainer of TRL whose checkpoints hold more than TRL's own; the base before TRL's class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        leave_process_group_at_exit()

    def _check_state(self, folder: Path) -> None:
        """Raise if the state of a whole checkpoint belongs to another training."""
        raise NotImplementedError

    def _save_state(self, folder: Path) -> Mapping[str, Any]:
        """Add files to a checkpoint that TRL has written, on every process; return what its state file holds."""
        raise NotImplementedError

    def _load_state(self, folder: Path) -> None:
        """Put the state of a checkpoint back, after TRL's own."""
        raise NotImplementedError

    def _before_training(self) -> None:
        """Do what needs the policy as it was given, before a checkpoint is loaded into it."""

    def train(self, resume_from_checkpoint: Resume = None, *args: Any, **kwargs: Any) -> Any:
        """Train, as `Trainer.train`; `resume_from_checkpoint=True` resumes from the last whole checkpoint.

        A later checkpoint that was cut short, or of which a file is missing or damaged, is left out with a warning.

        Raises:
            ValueError: The checkpoint that was named, or every one there is, is not whole.
            JuryError: It belongs to another training.
        """
        fault_of = partial(checkpoint_fault, last=STATE_FILE)
        folder = resumed_checkpoint(resume_from_checkpoint, self.args.output_dir, fault_of)
        if folder is not None:
            self._check_state(folder)
            resume_from_checkpoint = str(folder)
        self._before_training()
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate, as `Trainer.evaluation_loop`; training then draws what it would have drawn without."""
        with randomness_aside():
            return super().evaluation_loop(*args, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = _trl.checkpoint_folder(self, trial)
        if self.args.should_save:
            (folder / STATE_FILE).unlink(missing_ok=True)  # of a run that got so far before
        with _trl.rotation_last():
            super()._save_checkpoint(model, trial)
            state = self._save_state(folder)
            self.accelerator.wait_for_everyone()  # every process adds files, which are listed once all are there
            if self.args.should_save:
                files = checkpoint_files(folder, STATE_FILE)
                write_json(folder / STATE_FILE, {**state, FILES: files}, exact=True, indent=None)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._load_state(Path(checkpoint))


def default_output_dir(model: str | PreTrainedModel | PeftModel, suffix: str) -> str:
    """Return the output folder of a trainer that was given no configuration: the model's name and the method's.

    Example:
        >>> default_output_dir("Qwen/Qwen3-0.6B", "PluralDPO")
        'Qwen3-0.6B-PluralDPO'
    """
    name = model if isinstance(model, str) else model.config.name_or_path
    return f"{name.split('/')[-1]}-{suffix}"
