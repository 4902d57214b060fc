"""A stage that tunes a model on sequences of examples, from its last checkpoint, and saves it.

Runs of Spectrum Tuning and runs that steer to individuals train so. Knows neither where sequences come from nor what
is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from transformers import set_seed

from plural_rlhf.methods.spectrum import SpectrumConfig, SpectrumSequence, SpectrumTrainer
from plural_rlhf.recipe.checkpoints import TrainingFolder
from plural_rlhf.recipe.interruption import Interruption
from plural_rlhf.recipe.progress import showing_progress
from plural_rlhf.recipe.run_folder.folder import RunFolder
from plural_rlhf.recipe.run_folder.stage_record import StageInputs, StageRecord
from plural_rlhf.recipe.settings.sections import CheckpointSection
from plural_rlhf.recipe.trainings import Steps, common_settings
from reward_models.content_hashes import folder_records


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["SequenceTuning"]


class _Run(Protocol):
    """What the run files of both have in common."""

    @property
    def seed(self) -> int:
        """Random seed."""

    @property
    def checkpoints(self) -> CheckpointSection:
        """How often training is saved."""


@dataclass(frozen=True)
class SequenceTuning:
    """A tuning on sequences.

    Attributes:
        stage: Name of the stage in the folder of the run.
        saved: Folder of the model or adapter in that of the run.
        load: Makes the model that is tuned.
        first_weights: Random seed of a new adapter's first weights.
        steps: Steps and learning rate.
        settings: Further arguments of `SpectrumConfig`.
        label: Title of the progress bar.

    Example:
        >>> from plural_rlhf.recipe.spectrum.config import SpectrumTraining
        >>> tuning = SequenceTuning("train", "tuned", lambda: None, 0, SpectrumTraining(), {}, "")
        >>> tuning.saved
        'tuned'
    """

    stage: str
    saved: str
    load: Callable[[], Any]
    first_weights: int
    steps: Steps
    settings: dict[str, Any]
    label: str

    def run(
        self,
        run: _Run,
        folder: RunFolder,
        tokenizer: PreTrainedTokenizerBase,
        sequences: Sequence[SpectrumSequence],
        inputs: StageInputs,
        interruption: Interruption,
        *,
        validation: Sequence[SpectrumSequence] = (),
        show: Callable[[str], object] = print,
    ) -> StageRecord:
        """Tune and save, or take what is there.

        Args:
            run: Seed and checkpoints of the run file.
            folder: Folder of the run.
            tokenizer: Saved with the model.
            sequences: What is imitated.
            inputs: What the stage reads.
            interruption: Whether the run was asked to stop.
            validation: On what the loss is measured on the way, if `settings` say so; the adapter with the smallest is
                kept.
            show: Called with a sentence about what is done.

        Returns:
            The record of the stage: `loss` of each step, and `kept_step`, the step whose adapter was kept (None: the
            last).
        """
        if (record := folder.record(self.stage)) is not None:
            folder.check_stage(self.stage, inputs, [self.saved])
            if record.inputs is not None and (unknown := record.inputs.unknown(inputs)):
                show(f"{self.stage}: found in {folder.path}, kept{unknown}")
            return record
        checkpoints = folder.begin(self.stage, inputs, show)
        training = TrainingFolder(folder.path / self.saved, checkpoints, run.checkpoints, interruption, show)
        set_seed(self.first_weights % 2**32)
        model = self.load()
        history: list[dict[str, Any]] = []
        seconds = 0.0
        if self.steps.steps:
            args = SpectrumConfig(str(checkpoints), **common_settings(self.steps, run.seed), **self.settings)
            trainer = SpectrumTrainer(
                model, args, list(sequences), list(validation) or None, processing_class=tokenizer
            )
            with showing_progress(trainer, self.label, {"loss": "loss"}):
                seconds = training.train(trainer)
            model = trainer.accelerator.unwrap_model(trainer.model)
            history = trainer.state.log_history
        training.save(model, tokenizer)
        files = {f"{self.saved}/{name}": record for name, record in folder_records(folder.path / self.saved).items()}
        losses = [float(row["loss"]) for row in history if "loss" in row]
        result = {"loss": losses, "kept_step": None if training.best is None else training.best.step}
        return folder.finish(self.stage, StageRecord(result, seconds, inputs, files))
